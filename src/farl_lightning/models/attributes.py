"""Networks that answer once for a whole face: attributes, one class of several, age, who it is."""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from farl_lightning.functional.precision import at_least_float32
from farl_lightning.layers.conv_norm import batch_norm
from farl_lightning.models.config import GlobalConfig
from farl_lightning.models.heads.attributes import AttributeHead
from farl_lightning.models.heads.margin import MarginHead
from farl_lightning.models.heads.pooled import PooledLinearHead, SharedLinear
from farl_lightning.models.tunable import TunableNetwork


class GlobalNetwork(TunableNetwork):
    """Encoder and head, from a crop to one vector of outputs.

    Args:
        config: The architecture and its sizes; None for FaRL's encoder at 224 pixels with facer's learned mixture.
        num_outputs: Number of outputs.

    Attributes:
        config: The architecture and its sizes.

    Raises:
        ConfigError: If sizes do not fit together.
    """

    def __init__(self, config: GlobalConfig | None, num_outputs: int) -> None:
        settings = config or GlobalConfig()
        super().__init__(settings.image, settings.taps, num_outputs)
        self.config = settings
        self.head = self._make_head(settings.head)

    def _make_head(self, name: str) -> nn.Module:
        """Build a head by its name."""
        config, sizes = self.config, (self.encoder.width, self.num_outputs, len(self.taps), self.config.dropout)
        head = PooledLinearHead(*sizes, config.pool) if name == "linear" else AttributeHead(*sizes)
        if config.shared:
            head.classify = SharedLinear(cast(nn.Linear, head.classify).in_features, self.num_outputs)
        return head

    def use_probe(self) -> None:
        """Replace the head by a batch norm and one linear layer."""
        self.head = self._make_head("linear")

    def forward(self, images: Tensor) -> Tensor:
        """Make outputs.

        Args:
            images: (B, 3, H, W), normalised; resized to the encoder's input where they have another size.

        Returns:
            (B, num_outputs) before any softmax or sigmoid.
        """
        outputs: Tensor = self.head(self.tap_tokens(images))
        return outputs


class FaceAttributes(GlobalNetwork):
    """Attributes, as facer recognises them: a sigmoid of each output is a probability.

    Args:
        config: The architecture and its sizes; None for facer's.
        num_attributes: Number of attributes.
    """

    kind = "attributes"

    def __init__(self, config: GlobalConfig | None, num_attributes: int) -> None:
        super().__init__(config, num_attributes)


class FaceClassifier(GlobalNetwork):
    """One class of several: a softmax of the outputs makes probabilities.

    Args:
        config: The architecture and its sizes.
        num_classes: Number of classes.
    """

    kind = "classification"

    def __init__(self, config: GlobalConfig | None, num_classes: int) -> None:
        super().__init__(config, num_classes)


class FaceAge(GlobalNetwork):
    """Age; what the outputs mean is for the method that they are trained by, see :mod:`farl_lightning.losses.age`.

    Args:
        config: The architecture and its sizes.
        num_outputs: Number of outputs that the method asks for.
    """

    kind = "age"


class FaceEmbedder(GlobalNetwork):
    """Who it is: faces of one person have a high cosine, those of different people a low one.

    The head's outputs pass a batch norm without parameters of its own and are made of length 1, as embeddings of
    ArcFace's networks are (https://arxiv.org/abs/1801.07698, section 3.1; there a linear layer and a batch norm).

    Args:
        config: The architecture and its sizes; None for FaRL's encoder at 224 pixels with facer's learned mixture.
        embedding_size: Channels E of an embedding.

    Attributes:
        norm: The batch norm.
        margin: What the embeddings are learned with, where they are: a head of one centre per person. It is no part of
            files that are read back by :meth:`from_checkpoint`.
    """

    kind = "verification"

    def __init__(self, config: GlobalConfig | None, embedding_size: int) -> None:
        super().__init__(config, embedding_size)
        self.norm = nn.BatchNorm2d(embedding_size, affine=False)
        self.margin: MarginHead | None = None

    def forward(  # type: ignore[override]  # in training the loss comes along, which has to be made here
        self, images: Tensor, labels: Tensor | None = None
    ) -> Tensor | tuple[Tensor, Tensor | None]:
        """Make embeddings, and in training the loss of the margin head.

        Args:
            images: (B, 3, H, W), normalised; resized to the encoder's input where they have another size.
            labels: (L,) int64 people of the first L faces, -1 unknown; None for embeddings alone.

        Returns:
            (B, E) float32 at least, of length 1; with ``labels`` also the loss of the margin head, None without one.
        """
        outputs = batch_norm(self.norm, super().forward(images)[..., None, None]).flatten(1)
        embeddings = F.normalize(at_least_float32(outputs), dim=1)
        if labels is None:
            return embeddings
        return embeddings, None if self.margin is None else self.margin(embeddings[: len(labels)], labels)
