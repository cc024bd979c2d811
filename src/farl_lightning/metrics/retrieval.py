"""Retrieval between images and texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from farl_lightning.errors import ConfigError
from farl_lightning.functional.precision import at_least_float32
from farl_lightning.functional.retrieval import (
    chance_recall,
    group_captions,
    recall_at_k,
    retrieval_ranks,
    text_weights,
)


class RetrievalRecall(Metric):
    """Recall at k from image to text and from text to image, over all samples of all processes.

    An image is answered when any of its captions is among the first k texts; a caption is answered when any image that
    has this very caption (equal token ids) is among the first k images. Captions of equal token ids are one candidate.
    Ties count against the model. Every process must update at least once, if only with samples that are not valid.

    Args:
        ks: The numbers of answers looked at.
        **kwargs: For ``torchmetrics.Metric``.

    Raises:
        ConfigError: If ``ks`` is empty or holds a number below 1.
    """

    is_differentiable = False
    higher_is_better = True
    full_state_update = False

    images: list[Tensor]
    texts: list[Tensor]
    tokens: list[Tensor]
    captions: list[Tensor]

    def __init__(self, ks: Sequence[int] = (1, 5, 10), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not ks or min(ks) < 1:
            raise ConfigError(f"ks={ks} must name one or more numbers from 1 up")
        self.ks = tuple(ks)
        for name in ("images", "texts", "tokens", "captions"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(self, image_features: Tensor, text_features: Tensor, texts: Tensor, valid: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            image_features: (B, E), any length.
            text_features: (B, K, E), any length, with anything in the rows that are padding; or (R, E), only the R
                rows of ``texts`` that are not padding, in their order.
            texts: (B, K, L) int64 token ids of up to K captions per image; rows of zeros are padding.
            valid: (B,) bool; False marks repeats that must not count. All count by default.

        Raises:
            ConfigError: If the shapes do not fit together.
        """
        present = texts.ne(0).any(-1)
        features = text_features[present] if text_features.ndim == 3 else text_features
        if texts.ndim != 3 or len(texts) != len(image_features) or len(features) != int(present.sum()):
            raise ConfigError(
                f"image_features {tuple(image_features.shape)}, text_features {tuple(text_features.shape)} and texts "
                f"{tuple(texts.shape)} do not fit: give (B, E), (B, K, E) and (B, K, L)"
            )
        keep = torch.ones_like(present[:, 0]) if valid is None else valid
        kept_rows = keep[:, None].expand_as(present)[present]
        self.images.append(at_least_float32(image_features.detach()[keep]))
        self.texts.append(at_least_float32(features.detach()[kept_rows]))
        self.tokens.append(texts[present][kept_rows])
        self.captions.append(present.sum(1)[keep])

    def compute(self) -> dict[str, Tensor]:
        """Return the recalls in [0, 1].

        Returns:
            ``image_to_text_r<k>`` (mean over images that have a caption), ``text_to_image_r<k>`` (mean over captions),
            and ``chance_r1``: what random order is expected to reach at k = 1, in the direction where it reaches more.
        """
        images, texts, tokens, counts = (
            dim_zero_cat(state) for state in (self.images, self.texts, self.tokens, self.captions)
        )
        owner = torch.arange(len(images), device=images.device).repeat_interleave(counts)
        captions = group_captions(tokens, owner, len(images))
        ranks = retrieval_ranks(images, texts, captions)
        weights = text_weights(captions)
        recalls = {f"image_to_text_r{k}": recall_at_k(ranks.image_to_text, k) for k in self.ks}
        recalls |= {f"text_to_image_r{k}": recall_at_k(ranks.text_to_image, k, weights) for k in self.ks}
        recalls["chance_r1"] = torch.maximum(*chance_recall(captions))
        return {name: value.float() for name, value in recalls.items()}
