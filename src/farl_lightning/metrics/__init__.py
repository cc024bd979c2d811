"""Metrics for torchmetrics: counted once per sample under any number of processes."""

from farl_lightning.metrics.masked_tokens import MaskedTokenAccuracy
from farl_lightning.metrics.retrieval import RetrievalRecall
from farl_lightning.metrics.zero_shot import ZeroShotAttributes

__all__ = ["MaskedTokenAccuracy", "RetrievalRecall", "ZeroShotAttributes"]
