"""What an objective of pretraining is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from farl_lightning.errors import ConfigError
from farl_lightning.types import Configurable, FaceSpec, PretrainBatch

if TYPE_CHECKING:
    from farl_lightning.models.face_clip import FaceCLIP, FaceCLIPOutput

NEEDS = frozenset({"image", "text", "masked", "tokens"})
"""What an objective can ask for: features of the clean images, features of the captions, the last tokens of the masked
images, the last tokens of the clean images."""


class ObjectiveResult(NamedTuple):
    """What an objective makes of a batch.

    Attributes:
        loss: Scalar, not yet weighted. Its mean over processes is the loss of the joint batch.
        logs: Detached scalars worth watching, by metric name; their means over processes are logged
            (:func:`~farl_lightning.functional.distributed.global_mean` makes such shares of a mean over all processes).
        details: Detached tensors for metrics and pictures.
    """

    loss: Tensor
    logs: dict[str, Tensor] = {}  # noqa: RUF012 (defaults of a named tuple; nobody writes into them)
    details: dict[str, Tensor] = {}  # noqa: RUF012


class Objective(nn.Module, Configurable):
    """One term of the pretraining loss. A subclass says what it needs and turns it into a loss.

    The passes that several objectives need run once. Parameters of an objective are made in its constructor, or in
    :meth:`build` when their size depends on the network; they are trained and saved with the network.

    Args:
        weight: Factor of the loss in the sum, 0 or more.

    Attributes:
        needs: What :meth:`forward` reads of the network's output; any of ``NEEDS``.
        per_sample: Whether the loss is a mean of terms that belong to single samples, so that a batch may be taken in
            parts (``PretrainTask(accumulate_contrastive=...)``). False, which is right for everything, compares
            samples: then the loss sees the outputs of the whole batch at once.

    Raises:
        ConfigError: If the weight is negative.

    Example:
        >>> class Spread(Objective):
        ...     '''Keeps features of a batch apart.'''
        ...
        ...     needs = frozenset({"image"})
        ...
        ...     def forward(self, outputs, batch):
        ...         similarity = nn.functional.normalize(outputs.image_features, dim=1).mean(0).square().sum()
        ...         return ObjectiveResult(similarity, {"similarity": similarity.detach()})
    """

    needs: frozenset[str] = frozenset()
    per_sample: bool = False

    def __init__(self, weight: float = 1.0) -> None:
        super().__init__()
        if weight < 0:
            raise ConfigError(f"{type(self).__name__} has weight {weight}; give 0 or more")
        self.weight = weight

    def build(self, clip: FaceCLIP, spec: FaceSpec) -> None:
        """Make what depends on the network or on the data; nothing by default.

        Called with the network, and again when the specification of the data is known: parameters are made the first
        time only.

        Args:
            clip: The network, for its sizes. It must not be kept: parameters belong to one parent.
            spec: Size, mean and standard deviation of the images.
        """

    @property
    def needs_fit(self) -> bool:
        """Whether :meth:`fit` must be called before training."""
        return False

    def fit(self, images: Tensor) -> None:
        """Learn something from images before training; nothing by default.

        Args:
            images: (M, 3, H, W) float, normalised.
        """

    def count(self, batch: PretrainBatch) -> Tensor:
        """Return the number of terms of which the loss is the mean; read where ``per_sample`` is True.

        Args:
            batch: A batch, or a part of one, of this process.

        Returns:
            A scalar int64 tensor on the batch's device: the samples, unless a subclass says otherwise.
        """
        return torch.full((), len(batch["image"]), dtype=torch.int64, device=batch["image"].device)

    def forward(self, outputs: FaceCLIPOutput, batch: PretrainBatch) -> ObjectiveResult:
        """Compute the loss.

        Args:
            outputs: The network's output, with everything in :attr:`needs`.
            batch: What the output was computed from.
        """
        raise NotImplementedError(f"{type(self).__name__} must define forward(outputs, batch)")
