"""Zero-shot classification by prompts (CLIP, arXiv 2103.00020)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from farl_lightning.functional.precision import at_least_float32


def prompt_ensemble(features: Tensor) -> Tensor:
    """Merge several phrasings of one class: the normalised mean of their normalised features.

    Args:
        features: (..., P, E) features of P prompts, any length.

    Returns:
        (..., E), of length 1, float32 at least.
    """
    return F.normalize(F.normalize(at_least_float32(features), dim=-1).mean(-2), dim=-1)


def attribute_features(
    encode: Callable[[list[str]], Tensor], prompts: Sequence[tuple[Sequence[str], Sequence[str]]]
) -> Tensor:
    """Encode the prompts of binary attributes in one call.

    Args:
        encode: Turns a list of M prompts into (M, E) text features.
        prompts: For each of A attributes the prompts if it is present, and those if it is absent.

    Returns:
        (A, 2, E) of length 1: index 0 absent, index 1 present, as labels count.
    """
    groups = [side for present, absent in prompts for side in (absent, present)]
    return class_features(encode, groups).reshape(len(prompts), 2, -1)


def class_features(encode: Callable[[list[str]], Tensor], prompts: Sequence[Sequence[str]]) -> Tensor:
    """Encode the prompts of classes in one call.

    Args:
        encode: Turns a list of M prompts into (M, E) text features.
        prompts: For each of C classes one prompt or more.

    Returns:
        (C, E) of length 1.
    """
    features = encode([prompt for group in prompts for prompt in group])
    parts = torch.split(features, [len(group) for group in prompts])
    return torch.stack([prompt_ensemble(part) for part in parts])


def class_similarity(image_features: Tensor, class_features: Tensor) -> Tensor:
    """Compare images with classes, or with any texts.

    Args:
        image_features: (B, E), any length.
        class_features: (C, E) of length 1, from :func:`class_features`.

    Returns:
        (B, C) cosine similarities, float32 at least; the largest one is the answer.
    """
    images = F.normalize(at_least_float32(image_features), dim=-1)
    return images @ class_features.to(images).T


def attribute_logits(image_features: Tensor, class_features: Tensor) -> Tensor:
    """Compare images with the two sides of each attribute.

    Args:
        image_features: (B, E), any length.
        class_features: (A, 2, E) from :func:`attribute_features`.

    Returns:
        (B, A, 2) cosine similarities, float32 at least; the larger one is the answer.
    """
    images = F.normalize(at_least_float32(image_features), dim=-1)
    return torch.einsum("be,ace->bac", images, class_features.to(images))
