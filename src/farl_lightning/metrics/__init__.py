"""Metrics for torchmetrics: counted once per sample under any number of processes."""

from farl_lightning.metrics.age import AgeErrors
from farl_lightning.metrics.alignment import CED, LandmarkErrors, LandmarkNME
from farl_lightning.metrics.attributes import AttributeScores
from farl_lightning.metrics.boundary import BoundaryF1
from farl_lightning.metrics.classification import ClassificationScores
from farl_lightning.metrics.gains import Baseline
from farl_lightning.metrics.masked_tokens import MaskedTokenAccuracy
from farl_lightning.metrics.parsing import ParsingF1
from farl_lightning.metrics.retrieval import RetrievalRecall
from farl_lightning.metrics.subgroups import SubgroupScores, SubgroupTable, subgroup_table
from farl_lightning.metrics.verification import Identification, VerificationScores
from farl_lightning.metrics.zero_shot import ZeroShotAttributes

__all__ = [
    "CED",
    "AgeErrors",
    "AttributeScores",
    "Baseline",
    "BoundaryF1",
    "ClassificationScores",
    "Identification",
    "LandmarkErrors",
    "LandmarkNME",
    "MaskedTokenAccuracy",
    "ParsingF1",
    "RetrievalRecall",
    "SubgroupScores",
    "SubgroupTable",
    "VerificationScores",
    "ZeroShotAttributes",
    "subgroup_table",
]
