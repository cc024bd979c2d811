"""Face parsing and face alignment: encoder, feature pyramid, head."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.functional.heatmaps import heatmap_to_points, sigmoid_x
from farl_lightning.functional.precision import at_least_float32
from farl_lightning.functional.resize import resize
from farl_lightning.models.config import DenseConfig
from farl_lightning.models.heads.linear import LinearHead
from farl_lightning.models.pyramid import FeaturePyramid
from farl_lightning.models.tunable import TunableNetwork
from farl_lightning.models.upernet import UPerHead


class DenseNetwork(TunableNetwork):
    """Encoder, pyramid and head, from a crop to logits at a quarter of the encoder's resolution.

    Args:
        config: The architecture and its sizes.
        num_outputs: Channels of the logits.

    Attributes:
        config: The architecture and its sizes.
        neck: The feature pyramid.
        head: The UPerNet head.

    Raises:
        ConfigError: If sizes do not fit together.
    """

    def __init__(self, config: DenseConfig | None, num_outputs: int) -> None:
        settings = config or DenseConfig()
        super().__init__(settings.image, settings.taps, num_outputs)
        self.config = settings
        width = self.encoder.width
        self.neck: nn.Module = FeaturePyramid(width, self.encoder.patch_size)
        self.head = UPerHead(num_outputs, width, self.config.channels, self.config.dropout)
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

    def use_probe(self) -> None:
        """Replace neck and head by a batch norm and one linear layer per patch."""
        self.neck = nn.Identity()
        self.head = LinearHead(self.num_outputs, self.encoder.width * len(self.taps))

    def tap_maps(self, images: Tensor) -> list[Tensor]:
        """Return the patch tokens at the tapped blocks as maps.

        Args:
            images: (B, 3, H, W), normalised; resized to the encoder's input where they have another size.

        Returns:
            For each tap (B, D, rows, columns), not normalised.
        """
        maps = [tokens[:, 1:].unflatten(1, self.encoder.grid) for tokens in self.tap_tokens(images)]  # type: ignore[no-untyped-call]
        return [rows.permute(0, 3, 1, 2) for rows in maps]

    def logits(self, images: Tensor) -> Tensor:
        """Return (B, num_outputs, h, w) at the resolution of the finest level of the pyramid.

        Args:
            images: (B, 3, H, W), normalised.
        """
        result: Tensor = self.head(self.neck(self.tap_maps(images)))
        return result


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

    def use_probe(self) -> None:
        """Replace neck and head; see :meth:`DenseNetwork.use_probe`."""
        super().use_probe()
        self._begin_empty()

    def _begin_empty(self) -> None:
        """Let a new head begin with nearly empty heatmaps, as RetinaNet's does (https://arxiv.org/abs/1708.02002)."""
        if self.activation != "relu":  # which has no gradient below 0
            nn.init.constant_(
                cast(Tensor, cast(UPerHead | LinearHead, self.head).classify.bias), math.log(_PRIOR / (1 - _PRIOR))
            )

    def forward(self, images: Tensor) -> AlignmentOutput:
        """Find landmarks.

        Args:
            images: (B, 3, H, W), normalised; any size, resized to the encoder's input inside.
        """
        logits = self.logits(images)
        return AlignmentOutput(heatmap_to_points(_ACTIVATIONS[self.activation](at_least_float32(logits))), logits)
