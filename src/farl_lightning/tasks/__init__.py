"""Tasks: LightningModules that join a network, its losses, metrics and optimiser."""

from farl_lightning.tasks.age import AgeTask
from farl_lightning.tasks.alignment import AlignmentTask
from farl_lightning.tasks.attributes import AttributeTask
from farl_lightning.tasks.base import BaseTask, MetricReference
from farl_lightning.tasks.classification import ClassificationTask
from farl_lightning.tasks.dense import DenseTask
from farl_lightning.tasks.downstream import DownstreamTask, PaperResult
from farl_lightning.tasks.global_faces import GlobalTask
from farl_lightning.tasks.optim import OptimConfig
from farl_lightning.tasks.parsing import ParsingTask
from farl_lightning.tasks.pretrain import PretrainTask
from farl_lightning.tasks.verification import VerificationTask

__all__ = [
    "AgeTask",
    "AlignmentTask",
    "AttributeTask",
    "BaseTask",
    "ClassificationTask",
    "DenseTask",
    "DownstreamTask",
    "GlobalTask",
    "MetricReference",
    "OptimConfig",
    "PaperResult",
    "ParsingTask",
    "PretrainTask",
    "VerificationTask",
]
