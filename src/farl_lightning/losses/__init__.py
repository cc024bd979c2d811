"""Losses as pure functions, exact over any number of processes."""

from farl_lightning.losses.contrastive import clip_loss, siglip_loss
from farl_lightning.losses.masked_image import masked_pixel_loss, masked_token_loss

__all__ = ["clip_loss", "masked_pixel_loss", "masked_token_loss", "siglip_loss"]
