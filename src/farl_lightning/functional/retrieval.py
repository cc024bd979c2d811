"""Image-text retrieval with several captions per image, and captions that several images share.

Captions of equal token rows are *one* text: they are one candidate, and it is a right answer for every image that has
it. Without this rule two images with the same caption would count as mistakes of each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

TIE = 1e-6
"""Cosines closer than this are equal: rounding must not decide a rank."""

_BELOW = -2.0  # less than any cosine
_CHUNK = 1 << 24  # similarities held at once: 128 MiB in float64


class Captions(NamedTuple):
    """Which images have which distinct texts. P pairs, each of an image and a text, none twice.

    Attributes:
        image: (P,) int64 row of the image.
        text: (P,) int64 row of the distinct text.
        repeats: (P,) int64, how many captions of this image are this text.
        first: (U,) int64, where each of the U distinct texts occurs first among all captions.
        num_images: Number of images, those without a caption included.
    """

    image: Tensor
    text: Tensor
    repeats: Tensor
    first: Tensor
    num_images: int


class RetrievalRanks(NamedTuple):
    """Rank of the best right answer to each query, 1 is best.

    Attributes:
        image_to_text: (N,) int64 by image; 0 where an image has no caption and asks nothing.
        text_to_image: (U,) int64 by distinct text.
    """

    image_to_text: Tensor
    text_to_image: Tensor


def group_captions(tokens: Tensor, image_index: Tensor, num_images: int) -> Captions:
    """Find the captions that are the same text.

    Args:
        tokens: (T, L) int64 token ids of all captions.
        image_index: (T,) int64, the image of each caption.
        num_images: Number of images N.

    Returns:
        The pairs of images and distinct texts.
    """
    distinct, text = torch.unique(tokens, dim=0, return_inverse=True)
    order = torch.arange(len(tokens), device=tokens.device)
    first = order.new_full((len(distinct),), len(tokens)).scatter_reduce_(0, text, order, "amin")
    size = max(1, len(distinct))
    pairs, repeats = torch.unique(image_index * size + text, return_counts=True)
    return Captions(pairs // size, pairs % size, repeats, first, num_images)


def retrieval_ranks(image_features: Tensor, text_features: Tensor, captions: Captions) -> RetrievalRanks:
    """Rank texts for every image and images for every text by cosine similarity.

    Candidates as similar as the right answer (within ``TIE``) are placed before it, and so is everything that is not
    a number: features that have collapsed rank last, not first. Similarities are computed in blocks, once for both
    directions, in float64 where the device has it; 5,000 images and 25,000 texts need about 0.5 GiB.

    Args:
        image_features: (N, E), any length.
        text_features: (T, E), any length, of all captions; equal captions are read at their first occurrence.
        captions: From :func:`group_captions`.

    Returns:
        The ranks of both directions.
    """
    images = _unit(image_features)
    texts = _unit(text_features)[captions.first]
    own = (images[captions.image] * texts[captions.text]).sum(1)
    best_of_image = _best(own, captions.image, len(images))
    best_of_text = _best(own, captions.text, len(texts))
    text_ranks = torch.ones_like(captions.first)
    image_ranks = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    for start, wrong in _wrong_answers(images, texts, captions):
        rows = slice(start, start + len(wrong))
        # not "reaches the best", which would be false, and so a perfect rank, for what is not a number
        image_ranks[rows] = 1 + len(texts) - (wrong < best_of_image[rows, None]).sum(1)
        text_ranks += len(wrong) - (wrong < best_of_text).sum(0)
    asked = torch.zeros_like(image_ranks).index_fill_(0, captions.image, 1)
    return RetrievalRanks(image_ranks * asked, text_ranks)


def recall_at_k(ranks: Tensor, k: int, weights: Tensor | None = None) -> Tensor:
    """Share of queries whose best right answer is among the first k.

    Args:
        ranks: (Q,) int64 from :func:`retrieval_ranks`; 0 marks what is no query.
        k: Number of answers looked at, at least 1.
        weights: (Q,) how often each query counts; once by default.

    Returns:
        A scalar in [0, 1], float64 where the device has it; NaN without a query.
    """
    counts = (ranks > 0) if weights is None else (ranks > 0) * weights
    return _precise((counts * (ranks <= k)).sum()) / counts.sum()


def chance_recall(captions: Captions) -> tuple[Tensor, Tensor]:
    """Expected recall at 1 of random order.

    Args:
        captions: From :func:`group_captions`.

    Returns:
        Image to text (mean over images with a caption) and text to image (mean over captions); NaN without any.
    """
    per_image = torch.bincount(captions.image, minlength=captions.num_images)
    owners = torch.bincount(captions.text, minlength=len(captions.first))
    image_to_text = _precise(per_image.sum()) / ((per_image > 0).sum() * len(captions.first))
    caption_owners = (owners[captions.text] * captions.repeats).sum()
    return image_to_text, _precise(caption_owners) / (captions.repeats.sum() * captions.num_images)


def text_weights(captions: Captions) -> Tensor:
    """Count the captions behind each distinct text: (U,) int64."""
    return torch.zeros_like(captions.first).index_add_(0, captions.text, captions.repeats)


def _precise(x: Tensor) -> Tensor:
    """Convert to float64, or to float32 on a device without it."""
    return x.to(torch.float32 if x.device.type == "mps" else torch.float64)


def _unit(features: Tensor) -> Tensor:
    """Normalise rows precisely."""
    return F.normalize(_precise(features), dim=1)


def _best(values: Tensor, index: Tensor, size: int) -> Tensor:
    """Largest cosine of each group, less the width of a tie; below every cosine if any is not a number."""
    best = values.new_full((size,), _BELOW).scatter_reduce_(0, index, values, "amax")
    return best.nan_to_num(_BELOW) - TIE


def _wrong_answers(images: Tensor, texts: Tensor, captions: Captions) -> Iterator[tuple[int, Tensor]]:
    """Yield a first row and similarities (rows, U) from there on, with -inf where a text is the image's own."""
    rows = max(1, _CHUNK // max(1, len(texts)))
    for start in range(0, len(images), rows):
        similarity = images[start : start + rows] @ texts.T
        inside = (captions.image >= start) & (captions.image < start + rows)
        similarity[captions.image[inside] - start, captions.text[inside]] = -torch.inf
        yield start, similarity
