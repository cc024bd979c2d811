"""Face parsing and face alignment: encoder, feature pyramid, head."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.functional.heatmaps import heatmap_to_points, sigmoid_x
from farl_lightning.functional.precision import at_least_float32
from farl_lightning.functional.resize import resize
from farl_lightning.models import tuning
from farl_lightning.models.config import DenseConfig, resolve_taps
from farl_lightning.models.heads.linear import LinearHead
from farl_lightning.models.image_encoder import ImageEncoder
from farl_lightning.models.pyramid import FeaturePyramid
from farl_lightning.models.upernet import UPerHead
from farl_lightning.types import FaceSpec


class DenseNetwork(nn.Module):
    """Encoder, pyramid and head, from a crop to logits at a quarter of the encoder's resolution.

    Args:
        config: The architecture and its sizes.
        num_outputs: Channels of the logits.

    Attributes:
        encoder: The image tower up to the last block that is read, without final norm and projection.
        neck: The feature pyramid.
        head: The UPerNet head.
        taps: The blocks that are read.
        tuning: How much is trained, see :meth:`set_tuning`.
        face_spec: What the checkpoint that the weights came from says of its faces, or None.

    Raises:
        ConfigError: If sizes do not fit together.
    """

    kind: ClassVar[str]
    """What the network is for: ``"parsing"`` or ``"alignment"``."""

    def __init__(self, config: DenseConfig | None, num_outputs: int) -> None:
        super().__init__()
        if num_outputs < 1:
            raise ConfigError(f"{type(self).__name__} needs 1 or more outputs; got {num_outputs}")
        self.config = config or DenseConfig()
        self.num_outputs = num_outputs
        self.face_spec: FaceSpec | None = None
        self.tuning = "finetune"
        self.encoder = ImageEncoder(self.config.image, None, mask_token=False)
        self.taps = resolve_taps(self.config.taps, self.encoder.depth)
        self.encoder.cut_after(max(self.taps))
        width = self.encoder.width
        self.neck: nn.Module = FeaturePyramid(width, self.encoder.patch_size)
        self.head: nn.Module = UPerHead(num_outputs, width, self.config.channels, self.config.dropout)
        self._check_sizes()

    def _check_sizes(self) -> None:
        """Refuse what the pyramid would refuse at the first picture."""
        if len(self.taps) != len(self.neck.levels):  # type: ignore[arg-type]
            raise ConfigError(f"taps {self.taps}: the pyramid reads {len(self.neck.levels)} blocks")  # type: ignore[arg-type]
        if min(self.encoder.grid) < self.neck.smallest_grid:  # type: ignore[operator]
            raise ConfigError(
                f"image_size {self.encoder.image_size} is {self.encoder.grid[0]} patches; the pyramid for patches of "
                f"{self.encoder.patch_size} pixels needs {self.neck.smallest_grid} or more"
            )

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
            self.neck = nn.Identity()
            self.head = LinearHead(self.num_outputs, self.encoder.width * len(self.taps))
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

    def tap_maps(self, images: Tensor) -> list[Tensor]:
        """Return the patch tokens at the tapped blocks as maps.

        Args:
            images: (B, 3, H, W), normalised; resized to the encoder's input where they have another size.

        Returns:
            For each tap (B, D, rows, columns), not normalised.
        """
        size = (self.encoder.image_size, self.encoder.image_size)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            taps = self.encoder(resize(images, size), taps=self.taps, need_feature=False).taps
        return [tokens[:, 1:].unflatten(1, self.encoder.grid).permute(0, 3, 1, 2) for tokens in taps]

    def logits(self, images: Tensor) -> Tensor:
        """Return (B, num_outputs, h, w) at the resolution of the finest level of the pyramid.

        Args:
            images: (B, 3, H, W), normalised.
        """
        result: Tensor = self.head(self.neck(self.tap_maps(images)))
        return result

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
            taps: The blocks that are read, where a file does not say; None for FaRL's.

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


class FaceParser(DenseNetwork):
    """FaRL's face parser: a class for every pixel.

    Args:
        config: The architecture and its sizes.
        num_classes: Number of classes, background included.
    """

    kind = "parsing"

    def __init__(self, config: DenseConfig | None, num_classes: int) -> None:
        super().__init__(config, num_classes)

    def forward(self, images: Tensor, output_size: int | tuple[int, int] | None = None) -> Tensor:
        """Label pictures.

        Args:
            images: (B, 3, H, W), normalised; any size, resized to the encoder's input inside.
            output_size: Height and width of the answer, or one number; None for that of the pictures.

        Returns:
            (B, num_classes, H', W') logits.
        """
        if output_size is None:
            output_size = (images.shape[-2], images.shape[-1])
        size = (output_size, output_size) if isinstance(output_size, int) else output_size
        return resize(self.logits(images), size)


class AlignmentOutput(NamedTuple):
    """What :class:`FaceAligner` returns; B faces, N landmarks."""

    points: Tensor
    """(B, N, 2) xy, float32 at least, normalised: pixel ``p`` of a crop of ``S`` pixels is ``(p + 0.5) / S``."""
    logits: Tensor
    """(B, N, h, w) heatmaps before the activation."""


_PRIOR = 0.02
"""Share of a heatmap that a landmark covers, roughly, and the value that heatmaps begin with. From 0.5 everywhere the
centre of mass stays in the middle of the crop until the whole background is learned: 12 % instead of 5 % of error were
measured after 500 steps of the quickstart."""

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "sigmoid_x": sigmoid_x, "relu": F.relu}


class FaceAligner(DenseNetwork):
    """FaRL's face alignment: one heatmap per landmark, and its centre of mass.

    Args:
        config: The architecture and its sizes.
        num_landmarks: Number of landmarks.
        activation: What makes a heatmap of logits: ``"sigmoid"`` (FaRL's recipes), ``"sigmoid_x"`` or ``"relu"``.
    """

    kind = "alignment"

    def __init__(self, config: DenseConfig | None, num_landmarks: int, activation: str = "sigmoid") -> None:
        super().__init__(config, num_landmarks)
        if activation not in _ACTIVATIONS:
            raise ConfigError(
                f"heatmap activation '{activation}' is not known. {did_you_mean(activation, _ACTIVATIONS)}"
            )
        self.activation = activation
        self._begin_empty()

    def set_tuning(self, mode: str, rank: int = 8) -> Self:
        """Choose what is trained; see :meth:`DenseNetwork.set_tuning`.

        Args:
            mode: The mode.
            rank: Rank of the adapters.
        """
        head = self.head
        super().set_tuning(mode, rank)
        if self.head is not head:
            self._begin_empty()
        return self

    def _begin_empty(self) -> None:
        """Let a new head begin with nearly empty heatmaps, as RetinaNet's does (https://arxiv.org/abs/1708.02002)."""
        if self.activation != "relu":  # which has no gradient below 0
            nn.init.constant_(cast(UPerHead | LinearHead, self.head).classify.bias, math.log(_PRIOR / (1 - _PRIOR)))

    def forward(self, images: Tensor) -> AlignmentOutput:
        """Find landmarks.

        Args:
            images: (B, 3, H, W), normalised; any size, resized to the encoder's input inside.
        """
        logits = self.logits(images)
        return AlignmentOutput(heatmap_to_points(_ACTIVATIONS[self.activation](at_least_float32(logits))), logits)
