"""What pretraining optimises: objectives that compose from YAML, and the model that runs them."""

from farl_lightning.objectives.accumulate import ContrastiveAccumulation
from farl_lightning.objectives.base import Objective, ObjectiveResult
from farl_lightning.objectives.contrastive import Contrastive
from farl_lightning.objectives.masked_image import MaskedImage
from farl_lightning.objectives.model import PretrainModel, PretrainResult

__all__ = [
    "Contrastive",
    "ContrastiveAccumulation",
    "MaskedImage",
    "Objective",
    "ObjectiveResult",
    "PretrainModel",
    "PretrainResult",
]
