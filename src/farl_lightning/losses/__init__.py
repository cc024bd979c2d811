"""Losses as pure functions, exact over any number of processes."""

from farl_lightning.losses.age import (
    AgeDistribution,
    AgeExpectation,
    AgeMeanVariance,
    AgeMethod,
    AgeOrdinal,
    AgeRegression,
)
from farl_lightning.losses.alignment import AlignmentLoss
from farl_lightning.losses.attributes import AttributeLoss
from farl_lightning.losses.classification import ClassificationLoss
from farl_lightning.losses.contrastive import clip_loss, siglip_loss
from farl_lightning.losses.margin import MarginKind, margin_logits, symmetry_loss, triplet_loss
from farl_lightning.losses.masked_image import masked_pixel_loss, masked_token_loss
from farl_lightning.losses.parsing import ParsingLoss, parsing_loss

__all__ = [
    "AgeDistribution",
    "AgeExpectation",
    "AgeMeanVariance",
    "AgeMethod",
    "AgeOrdinal",
    "AgeRegression",
    "AlignmentLoss",
    "AttributeLoss",
    "ClassificationLoss",
    "MarginKind",
    "ParsingLoss",
    "clip_loss",
    "margin_logits",
    "masked_pixel_loss",
    "masked_token_loss",
    "parsing_loss",
    "siglip_loss",
    "symmetry_loss",
    "triplet_loss",
]
