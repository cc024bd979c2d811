"""Ready-made augmentations from torchvision v2; every strength is a parameter, 0 switches it off."""

from __future__ import annotations

from torch import Tensor, nn
from torchvision.transforms import v2


class Photometric(nn.Module):
    """Change a picture's colours and sharpness, never its geometry.

    Random numbers come from torch's global generator.

    Args:
        brightness: Largest relative change of brightness: the factor is drawn from [1 - b, 1 + b].
        contrast: Largest relative change of contrast.
        saturation: Largest relative change of saturation.
        hue: Largest shift of the hue, as a share of the colour circle, up to 0.5.
        jitter: Probability that the four above are applied.
        grayscale: Probability of turning the picture grey.
        blur: Probability of a Gaussian blur.
        blur_sigma: Range of the blur's standard deviation in pixels.
    """

    def __init__(
        self,
        brightness: float = 0.0,
        contrast: float = 0.0,
        saturation: float = 0.0,
        hue: float = 0.0,
        *,
        jitter: float = 1.0,
        grayscale: float = 0.0,
        blur: float = 0.0,
        blur_sigma: tuple[float, float] = (0.1, 2.0),
    ) -> None:
        super().__init__()
        steps: list[v2.Transform] = [v2.Identity()]
        if jitter > 0 and max(brightness, contrast, saturation, hue) > 0:
            steps.append(v2.RandomApply([v2.ColorJitter(brightness, contrast, saturation, hue)], p=jitter))
        if grayscale > 0:
            steps.append(v2.RandomGrayscale(p=grayscale))
        if blur > 0:
            kernel = 2 * round(3 * blur_sigma[1]) + 1  # three standard deviations to either side
            steps.append(v2.RandomApply([v2.GaussianBlur(kernel, blur_sigma)], p=blur))
        self.steps = v2.Compose(steps)

    def forward(self, image: Tensor) -> Tensor:
        """Change one picture.

        Args:
            image: (3, H, W) uint8, or float in [0, 1].

        Returns:
            The same shape and dtype.
        """
        changed: Tensor = self.steps(image)
        return changed
