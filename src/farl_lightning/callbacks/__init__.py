"""Callbacks: weight averaging, pictures, results, features, dropped samples, speed, safety."""

from farl_lightning.callbacks.checkpoint_io import AtomicCheckpointIO
from farl_lightning.callbacks.dense_panels import DensePanels
from farl_lightning.callbacks.drop_counter import DropCounter
from farl_lightning.callbacks.ema import EMA
from farl_lightning.callbacks.features import FeatureWriter
from farl_lightning.callbacks.finite import FiniteGuard
from farl_lightning.callbacks.hang_guard import HangGuard
from farl_lightning.callbacks.image_panels import ImagePanels
from farl_lightning.callbacks.online_probe import OnlineProbe
from farl_lightning.callbacks.prediction_writer import PredictionWriter
from farl_lightning.callbacks.results import ResultsWriter
from farl_lightning.callbacks.safety_checkpoint import SafetyCheckpoint
from farl_lightning.callbacks.subgroups import SubgroupResults
from farl_lightning.callbacks.training_monitor import TrainingMonitor

__all__ = [
    "EMA",
    "AtomicCheckpointIO",
    "DensePanels",
    "DropCounter",
    "FeatureWriter",
    "FiniteGuard",
    "HangGuard",
    "ImagePanels",
    "OnlineProbe",
    "PredictionWriter",
    "ResultsWriter",
    "SafetyCheckpoint",
    "SubgroupResults",
    "TrainingMonitor",
]
