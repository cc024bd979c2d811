"""Tasks: LightningModules that join a network, its losses, metrics and optimiser."""

from farl_lightning.tasks.base import BaseTask, MetricReference
from farl_lightning.tasks.optim import OptimConfig
from farl_lightning.tasks.pretrain import PretrainTask

__all__ = ["BaseTask", "MetricReference", "OptimConfig", "PretrainTask"]
