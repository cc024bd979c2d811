"""What face parsing and face alignment share: a network that answers in the pixels of a crop, and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from farl_lightning.models.config import DenseConfig
from farl_lightning.models.dense import DenseNetwork
from farl_lightning.tasks.downstream import DownstreamTask, PaperResult, Tuning, counted
from farl_lightning.tasks.optim import OptimConfig
from farl_lightning.types import FaceBatch

__all__ = ["DenseTask", "PaperResult", "Tuning", "counted", "source_matrix", "source_size"]


class DenseTask(DownstreamTask):
    """Base of tasks that answer for every pixel or landmark of a face crop.

    Args:
        network: Encoder, neck and head; None is FaRL's: its ViT-B/16 at 448 pixels, a pyramid, UPerHead with 768
            channels.
        num_outputs: Number of outputs, or None.
        weights: See :class:`~farl_lightning.tasks.downstream.DownstreamTask`, as all that follow.
        tuning: What is trained.
        lora_rank: Rank of the adapters.
        tta_scales: Test only: further magnifications.
        tta_flip: Test only: look at the mirrored crops, too.
        reference: Published results by metric key without stage.
        optim: Optimiser and schedule; ``group_lrs`` with the keys ``encoder``, ``neck`` and ``head``.
        seed: Seed of the randomness inside the network.
    """

    model: DenseNetwork
    network: DenseConfig

    def __init__(
        self,
        network: DenseConfig | None = None,
        num_outputs: int | None = None,
        weights: str | None = None,
        tuning: Tuning = "finetune",
        lora_rank: int = 8,
        tta_scales: Sequence[float] = (),
        tta_flip: bool = False,
        reference: Mapping[str, PaperResult] | None = None,
        optim: OptimConfig | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            network or DenseConfig(),
            num_outputs,
            weights,
            tuning,
            lora_rank,
            tta_scales,
            tta_flip,
            reference,
            optim,
            seed,
        )


def source_size(batch: FaceBatch, index: int) -> tuple[int, int]:
    """Return height and width of a source picture; the crop's own without one.

    Args:
        batch: A batch of evaluation or prediction.
        index: Row of the batch.
    """
    if "size" not in batch:
        height, width = batch["image"].shape[-2:]
        return int(height), int(width)
    height, width = batch["size"][index].tolist()
    return int(height), int(width)


def source_matrix(batch: FaceBatch) -> Tensor:
    """Return (B, 3, 3) matrices from source to crop pixels; identities where the crop is the source.

    Args:
        batch: A batch of evaluation or prediction.
    """
    if "matrix" in batch:
        return batch["matrix"]
    images = batch["image"]
    return torch.eye(3, device=images.device).expand(len(images), 3, 3)
