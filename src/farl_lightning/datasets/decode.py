"""The decoder of pictures under the name by which datasets know it; it lives with the transforms."""

from farl_lightning.transforms.decode import BACKGROUND, FORMATS, MAX_PIXELS, EncodedImage, decode_image, to_rgb

__all__ = ["BACKGROUND", "FORMATS", "MAX_PIXELS", "EncodedImage", "decode_image", "to_rgb"]
