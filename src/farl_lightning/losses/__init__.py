"""Losses as pure functions, exact over any number of processes."""

from farl_lightning.losses.alignment import AlignmentLoss
from farl_lightning.losses.contrastive import clip_loss, siglip_loss
from farl_lightning.losses.masked_image import masked_pixel_loss, masked_token_loss
from farl_lightning.losses.parsing import ParsingLoss, parsing_loss

__all__ = [
    "AlignmentLoss",
    "ParsingLoss",
    "clip_loss",
    "masked_pixel_loss",
    "masked_token_loss",
    "parsing_loss",
    "siglip_loss",
]
