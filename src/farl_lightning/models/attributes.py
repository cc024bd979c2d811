"""Facial attributes from the tokens of an encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn
from typing_extensions import Self

from farl_lightning.errors import ConfigError
from farl_lightning.functional.resize import resize
from farl_lightning.models.config import DenseConfig, ImageEncoderConfig, resolve_taps
from farl_lightning.models.heads.attributes import AttributeHead
from farl_lightning.models.image_encoder import ImageEncoder
from farl_lightning.types import FaceSpec


class FaceAttributes(nn.Module):
    """facer's attribute network: an encoder up to the last block that is read, and an :class:`AttributeHead`.

    Args:
        config: The encoder, and the blocks that are read: any number, None for the last one; ``channels`` is not used.
            None for FaRL's encoder at 224 pixels, without dropout.
        num_attributes: Number of attributes.

    Attributes:
        encoder: The image tower up to the last block that is read, without final norm and projection.
        head: The head.
        taps: The blocks that are read.
        face_spec: What is known of the faces behind the weights, or None.

    Raises:
        ConfigError: If sizes do not fit together.
    """

    kind: ClassVar[str] = "attributes"

    def __init__(self, config: DenseConfig | None, num_attributes: int) -> None:
        super().__init__()
        if num_attributes < 1:
            raise ConfigError(f"FaceAttributes needs 1 or more attributes; got {num_attributes}")
        self.config = config or DenseConfig(image=ImageEncoderConfig(image_size=224), dropout=0.0)
        self.face_spec: FaceSpec | None = None
        self.encoder = ImageEncoder(self.config.image, None, mask_token=False)
        self.taps = resolve_taps((-1,) if self.config.taps is None else self.config.taps, self.encoder.depth)
        self.encoder.cut_after(max(self.taps))
        self.head = AttributeHead(self.encoder.width, num_attributes, len(self.taps), self.config.dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Make logits.

        Args:
            images: (B, 3, H, W), normalised; resized to the encoder's input where they have another size.

        Returns:
            (B, num_attributes) logits; a sigmoid makes probabilities of them.
        """
        size = (self.encoder.image_size, self.encoder.image_size)
        logits: Tensor = self.head(self.encoder(resize(images, size), taps=self.taps, need_feature=False).taps)
        return logits

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
            path: A checkpoint of our task, a file of facer, or the name of known weights.
            ema: Whether the averaged weights are taken where a file holds both.
            image: Settings of ``ImageEncoderConfig`` that replace what the file says.
            taps: The blocks that are read, where a file does not say; None for the last.

        Raises:
            CheckpointError: If the file does not hold every weight of such a network.
        """
        from farl_lightning.models.dense_checkpoint import build_dense

        return build_dense(cls, path, ema=ema, image=image, taps=taps)
