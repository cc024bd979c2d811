"""What every downstream network has: an encoder that is read at some blocks, a head, and how much of it is trained."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import Self

from farl_lightning.errors import ConfigError
from farl_lightning.functional.resize import resize
from farl_lightning.models import tuning
from farl_lightning.models.config import ImageEncoderConfig, resolve_taps
from farl_lightning.models.image_encoder import ImageEncoder
from farl_lightning.types import FaceSpec


class TunableNetwork(nn.Module):
    """Base of downstream networks: an encoder up to the last block that is read, and what stands on it.

    A subclass adds ``head`` (and whatever lies before it), and says in :meth:`use_probe` what a linear probe is.

    Args:
        image: The encoder.
        taps: The blocks that are read; None for FaRL's four.
        num_outputs: Number of outputs.

    Attributes:
        encoder: The image tower, without final norm and projection.
        head: What makes the outputs.
        taps: The blocks that are read.
        num_outputs: Number of outputs.
        tuning: How much is trained, see :meth:`set_tuning`.
        face_spec: What the checkpoint that the weights came from says of its faces, or None.
        task_settings: What that checkpoint says of its task: ``column`` and ``method``, where it has them.

    Raises:
        ConfigError: If there is no output, or no such block.
    """

    kind: ClassVar[str]
    """What the network is for, such as ``"parsing"`` or ``"attributes"``."""

    head: nn.Module

    def __init__(self, image: ImageEncoderConfig, taps: Sequence[int] | None, num_outputs: int) -> None:
        super().__init__()
        if num_outputs < 1:
            raise ConfigError(f"{type(self).__name__} needs 1 or more outputs; got {num_outputs}")
        self.num_outputs = num_outputs
        self.face_spec: FaceSpec | None = None
        self.task_settings: dict[str, Any] = {}
        self.tuning = "finetune"
        self.encoder = ImageEncoder(image, None, mask_token=False)
        self.taps = resolve_taps(taps, self.encoder.depth)
        self.encoder.cut_after(max(self.taps))

    @abstractmethod
    def use_probe(self) -> None:
        """Replace all that stands on the encoder by a batch norm and one linear layer."""

    def set_tuning(self, mode: str, rank: int = 8) -> Self:
        """Choose what is trained, before the optimiser is made.

        Args:
            mode: ``"finetune"`` (everything), ``"frozen"`` (neck and head; the encoder stays in evaluation mode and
                stores nothing for a backward pass), ``"linear"`` (frozen too, and a batch norm with one linear layer
                on the tapped tokens takes the place of neck and head) or ``"lora"`` (low-rank adapters beside the
                encoder's linear layers, neck and head).
            rank: Rank of the adapters.

        Returns:
            The network itself.

        Raises:
            ConfigError: If the mode is unknown, or cannot follow the one before (``"linear"`` has replaced the head,
                ``"lora"`` the encoder's layers).
            MissingDependencyError: If peft is not installed and is needed.
        """
        tuning.check_tuning(mode)
        if mode == self.tuning == "finetune":
            return self
        if self.tuning in ("linear", "lora"):
            raise ConfigError(f"tuning is '{self.tuning}' already and cannot become '{mode}'; build a new network")
        if mode == "lora":
            tuning.add_lora(self.encoder, rank)
        else:
            self.encoder.requires_grad_(mode == "finetune")
        if mode == "linear":
            self.use_probe()
        self.tuning = mode
        return self.train(self.training)

    @property
    def frozen(self) -> bool:
        """Whether the encoder is not trained at all."""
        return self.tuning in ("frozen", "linear")

    def train(self, mode: bool = True) -> Self:
        """Set training or evaluation mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.encoder.eval()
        return self

    def merge_lora(self) -> Self:
        """Add low-rank adapters to the weights beside them; the network is then an ordinary one."""
        if self.tuning == "lora":
            tuning.merge_lora(self.encoder)
            self.encoder.requires_grad_(True)
            self.tuning = "finetune"
        return self

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute each block of the encoder in the backward pass instead of storing its activations."""
        self.encoder.set_grad_checkpointing(enable)

    def tap_tokens(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the tokens at the tapped blocks.

        Args:
            images: (B, 3, H, W), normalised; resized to the encoder's input where they have another size.

        Returns:
            For each tap (B, 1 + N, D), the class token first, not normalised.
        """
        size = (self.encoder.image_size, self.encoder.image_size)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            taps: tuple[Tensor, ...] = self.encoder(resize(images, size), taps=self.taps, need_feature=False).taps
        return taps

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        ema: bool = True,
        image: Mapping[str, Any] | None = None,
        taps: Sequence[int] | None = None,
    ) -> Self:
        """Build the network that a file holds, and load it.

        Args:
            path: A checkpoint of our task, a training state of FaRL (``{networks: {main, main_ema}}``), a file of
                facer, or the name of known weights.
            ema: Whether the averaged weights are taken where a file holds both.
            image: Settings of ``ImageEncoderConfig`` that replace what the file says, such as ``{"image_size": 224}``
                (positions are resampled) or ``{"heads": 3}`` (which a file does not say; one per 64 channels is usual).
            taps: The blocks that are read, where a file does not say; None for the usual ones.

        Returns:
            The network in evaluation mode; low-rank adapters are merged, which needs no peft.

        Raises:
            CheckpointError: If the file does not hold every weight of such a network.
        """
        from farl_lightning.models.dense_checkpoint import build_dense

        return build_dense(cls, path, ema=ema, image=image, taps=taps)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that weight decay must not touch, besides biases and norms: the encoder's embeddings."""
        return {name for name, _ in self.named_parameters() if name.endswith(("cls_token", "pos_embed"))}

    def layer_groups(self) -> dict[str, int]:
        """Map each parameter to its depth: 0 for the embeddings, 1 to the number of blocks, one more for the rest."""
        top = self.encoder.depth + 1
        return {name: _depth(name, top) for name, _ in self.named_parameters()}


def _depth(name: str, top: int) -> int:
    """Return the depth of one parameter."""
    tower, _, rest = name.partition(".")
    if tower != "encoder":
        return top
    parts = rest.split(".")
    return int(parts[parts.index("blocks") + 1]) + 1 if "blocks" in parts else 0
