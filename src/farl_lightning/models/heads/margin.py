"""The head that verification is learned with: one centre per person, a softmax with a margin over all of them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import all_gather_cat, all_gather_with_grad, global_mean, row_counts
from farl_lightning.functional.margin import Margin, MarginKind
from farl_lightning.functional.margin_softmax import CHUNK, margin_softmax
from farl_lightning.functional.precision import at_least_float32
from farl_lightning.models.heads.class_rows import ClassRows


class MarginHead(nn.Module):
    """ArcFace (https://arxiv.org/abs/1801.07698) or CosFace (https://arxiv.org/abs/1801.09414) over all identities.

    Logits exist in chunks only, so memory is that of the centres, their gradient and one chunk, however many
    identities there are. With ``sharded`` each process holds its own rows of the centres and scores the faces of all
    processes against them; the softmax is over all identities, exactly, and files hold the whole matrix, see
    :class:`~farl_lightning.models.heads.class_rows.ClassRows`.

    Args:
        features: Channels E of an embedding.
        identities: Number of people C.
        kind: ``"arcface"`` or ``"cosface"``.
        margin: Radians (arcface, 0.5 in its paper) or cosine (cosface, 0.35 in its paper).
        scale: Factor of the logits.
        sharded: Whether the centres are shared out over processes.
        chunk: Numbers that are worked on at a time; a matter of memory alone.

    Attributes:
        centres: The class matrix.

    Raises:
        ConfigError: If a setting is unknown or out of range.

    Example:
        >>> head = MarginHead(512, 10_000, "cosface", margin=0.35)
        >>> head(torch.randn(8, 512), torch.randint(10_000, (8,))).backward()
        >>> head.centres.weight.grad.shape
        torch.Size([10000, 512])
    """

    def __init__(
        self,
        features: int,
        identities: int,
        kind: MarginKind = "arcface",
        margin: float = 0.5,
        scale: float = 64.0,
        sharded: bool = False,
        *,
        chunk: int = CHUNK,
    ) -> None:
        super().__init__()
        self.margin = Margin(kind, margin, scale).checked()
        self.chunk = chunk
        self.centres = ClassRows(identities, features, sharded)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the loss.

        Args:
            embeddings: (B, E), any length; B may differ between processes and be 0.
            labels: (B,) int64 in [0, identities), -1 unknown: such faces do not count.

        Returns:
            Scalar, float32 at least. Its mean over processes is the mean loss of the faces of all of them, and the
            mean of its gradients, as DDP takes it, the gradient of that; centres that are sharded have their exact
            gradient on their own process and must not be averaged.

        Raises:
            ConfigError: If the shapes do not fit, or a label is out of range.
        """
        if embeddings.ndim != 2 or embeddings.shape[1] != self.centres.columns or labels.shape != embeddings.shape[:1]:
            raise ConfigError(
                f"embeddings {tuple(embeddings.shape)} must be (B, {self.centres.columns}) and labels "
                f"{tuple(labels.shape)} (B,)"
            )
        self._check(labels)
        unit = F.normalize(at_least_float32(embeddings), dim=1)
        return self._of_all(unit, labels) if self.centres.sharded else self._of_own(unit, labels)

    def _of_own(self, unit: Tensor, labels: Tensor) -> Tensor:
        """Score own faces against all centres."""
        known = labels >= 0
        losses = margin_softmax(unit, self.centres(), labels.clamp(min=0), self.margin, chunk=self.chunk)
        return global_mean(losses.where(known, losses.new_zeros(())).sum(), known.sum())

    def _of_all(self, unit: Tensor, labels: Tensor) -> Tensor:
        """Score the faces of all processes against own centres."""
        everyone, names = all_gather_with_grad(unit, row_counts(unit)), all_gather_cat(labels)
        known, weight = names >= 0, self.centres()
        losses = margin_softmax(
            everyone, weight, names.clamp(min=0), self.margin, first=self.centres.first, shared=True, chunk=self.chunk
        )
        return losses.where(known, losses.new_zeros(())).sum() / known.sum().clamp(min=1)

    def _check(self, labels: Tensor) -> None:
        """Refuse labels that no centre belongs to; reading them waits for a GPU, which indexes would stop anyway."""
        if (labels.device.type != "cpu" and not self.centres.sharded) or not len(labels):
            return
        low, high = (int(end) for end in torch.aminmax(labels))
        if low < -1 or high >= self.centres.rows:
            raise ConfigError(
                f"labels from {low} to {high} do not fit {self.centres.rows} identities; they must be from 0 to "
                f"{self.centres.rows - 1}, or -1 for unknown"
            )

    def extra_repr(self) -> str:
        """Describe the margin."""
        return f"{self.margin.kind}, margin={self.margin.size}, scale={self.margin.scale}"

    def shard(self) -> None:
        """Take the own rows of sharded centres; see :meth:`~farl_lightning.models.heads.class_rows.ClassRows.shard`."""
        self.centres.shard()


def sharded_rows(module: nn.Module) -> dict[str, ClassRows]:
    """Return the class matrices below a module that are shared out over processes, by the name of their parameter.

    DDP must leave these parameters alone: give the names to
    ``DistributedDataParallel._set_params_and_buffers_to_ignore_for_model``.

    Args:
        module: Any module.
    """
    found: dict[str, Any] = {f"{name}.weight": part for name, part in module.named_modules() if _is_shared(part)}
    return found


def _is_shared(module: nn.Module) -> bool:
    """Tell sharded class matrices from other modules."""
    return isinstance(module, ClassRows) and module.sharded
