"""Faces and texts compared by the towers that pretraining leaves: classes by prompts, without any training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from farl_lightning.errors import ConfigError
from farl_lightning.functional.zero_shot import class_features, class_similarity
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.text import Tokenizer


def text_encoder(clip: FaceCLIP) -> Callable[[list[str]], Tensor]:
    """Return what turns M texts into (M, E) features, without gradients.

    Args:
        clip: A network with a text tower.

    Raises:
        ConfigError: If there is no text tower, or its vocabulary is not CLIP's.
    """
    config, scale = clip.config.text, clip.logit_scale
    if config is None or scale is None:
        raise ConfigError("zero-shot recognition needs a text tower (clip.text)")
    if config.vocab_size < Tokenizer.vocab_size:
        raise ConfigError(f"prompts need {Tokenizer.vocab_size} tokens, clip.text has {config.vocab_size}")
    tokenizer = Tokenizer(config.context_length)

    @torch.no_grad()
    def _encode(texts: list[str]) -> Tensor:
        features: Tensor = clip(text=tokenizer(texts).to(scale.device)).text_features
        return features

    return _encode


class ZeroShotClassifier(nn.Module):
    """Tells classes by prompts: the softmax over the scaled cosines of a face and each class's prompts.

    The text tower reads the prompts once, here; the classifier holds the image tower alone.

    Args:
        clip: A network with a text tower.
        prompts: One phrasing or more for each class; several are merged, see
            :func:`~farl_lightning.functional.zero_shot.prompt_ensemble`. :mod:`farl_lightning.text.prompts` has some.

    Attributes:
        classes: Names of the classes.

    Raises:
        ConfigError: If there is no text tower, or no class, or a class without a phrasing.

    Example:
        >>> from farl_lightning.text.prompts import CLASS_PROMPTS
        >>> clip = FaceCLIP.from_checkpoint("farl-b16-ep16")  # doctest: +SKIP
        >>> ZeroShotClassifier(clip, CLASS_PROMPTS["expression"])(images)  # (B, 8)  # doctest: +SKIP
    """

    class_features: Tensor
    scale: Tensor

    def __init__(self, clip: FaceCLIP, prompts: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        if not prompts or any(isinstance(texts, str) or not texts for texts in prompts.values()):
            raise ConfigError(f"prompts must have one phrasing or more for each class, as a list; got {dict(prompts)}")
        self.classes = tuple(prompts)
        self.image_encoder = clip.image_encoder
        found = class_features(text_encoder(clip), list(prompts.values()))
        self.register_buffer("class_features", found)
        scale = clip.logit_scale
        self.register_buffer("scale", torch.ones(1) if scale is None else scale.detach().exp().clone())

    def similarity(self, images: Tensor) -> Tensor:
        """Return (B, C) cosines of faces and classes.

        Args:
            images: (B, 3, S, S), normalised as the network expects.
        """
        return class_similarity(self.image_encoder(images).feature, self.class_features)

    def forward(self, images: Tensor) -> Tensor:
        """Return (B, C) probabilities.

        Args:
            images: (B, 3, S, S), normalised as the network expects.
        """
        cosines = self.similarity(images)
        return (self.scale.to(cosines) * cosines).softmax(1)
