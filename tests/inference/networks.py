"""Networks whose answers are known: the colour of a pixel is its class, a bright spot is a landmark."""

from __future__ import annotations

import torch

from farl_lightning.functional.geometry import FARL_TEMPLATE
from farl_lightning.functional.heatmaps import heatmap_to_points
from farl_lightning.models.config import DenseConfig, ImageEncoderConfig
from farl_lightning.models.dense import AlignmentOutput, FaceAligner, FaceParser
from farl_lightning.types import FaceSpec

# one block, read four times: exporters take seconds per block
_ENCODER = ImageEncoderConfig(image_size=32, patch_size=8, width=16, depth=1, heads=2)
TINY = DenseConfig(image=_ENCODER, taps=(0, 0, 0, 0), channels=8)

PARSING = FaceSpec(image_size=96, crop="align", template=FARL_TEMPLATE, classes=("background", "green", "blue"))
ALIGNMENT = FaceSpec(image_size=96, crop="box", num_landmarks=1)


class ColourParser(FaceParser):
    """Its logits are the colours of the crop, red being the background."""

    def __init__(self, spec):
        super().__init__(TINY, 3)
        self.faces, self.batches = spec, []

    def forward(self, images, output_size=None):
        self.batches.append(len(images))
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (self.faces.mean, self.faces.std))
        return images * std + mean


class SpotAligner(FaceAligner):
    """Its landmark is the centre of mass of what is bright."""

    def __init__(self, spec):
        super().__init__(TINY, 1)
        self.faces = spec

    def forward(self, images):
        mean, std = (torch.tensor(value).view(3, 1, 1) for value in (self.faces.mean, self.faces.std))
        bright = (images * std + mean)[:, :1].clamp(min=0)
        return AlignmentOutput(heatmap_to_points(bright), torch.logit(bright.clamp(0.01, 0.99)))
