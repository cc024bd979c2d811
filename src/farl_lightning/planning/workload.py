"""From settings to sizes: what of a config decides over memory, operations and bytes on the wire."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.models.config import FaceCLIPConfig, ImageEncoderConfig

_SIZES = {  # width, depth, heads of Dosovitskiy et al., arXiv:2010.11929, table 1, and Touvron et al., arXiv:2012.12877
    "tiny": (192, 12, 3),
    "small": (384, 12, 6),
    "base": (768, 12, 12),
    "large": (1024, 24, 16),
    "huge": (1280, 32, 16),
}
_NAME = re.compile(r"^(?:vit|deit)_(tiny|small|base|large|huge)_patch(\d+)(?:_|$)")
_TARGETS = {"DVAETokens": 8192, "KMeansTokens": 0, "PixelTarget": 0}
_PRECISIONS = {"32-true": False, "32": False, "bf16-mixed": True, "16-mixed": True}


@dataclass(frozen=True)
class Tower:
    """A transformer: channels, blocks, attention heads, and tokens of a sequence."""

    width: int
    depth: int
    heads: int
    tokens: int


@dataclass(frozen=True)
class Workload:
    """Sizes of a pretraining step.

    Attributes:
        image: The image tower; its tokens include the class token.
        image_size: Side of the pictures in pixels.
        patch_size: Side of a patch in pixels.
        clip_style: Whether the tower is CLIP's: a norm before the first block, no bias of the patch embedding.
        text: The text tower, at full length; None without one.
        vocabulary: Token ids of the text tower.
        embed_dim: Channels of the shared space.
        contrast: Whether images and captions are contrasted.
        siglip: Whether contrast has a learned bias.
        chunk_rows: Rows of the similarities that exist at a time; None for all of a process's.
        masked: Whether there is masked image modelling.
        head_depth: Blocks of its head.
        head_outputs: Size of its vocabulary, or values per patch.
        num_masked: Masked patches of a picture.
        codebook: Whether targets come from DALL-E's frozen encoder.
        batch_size: Pairs per process and step.
        half: Whether matrix products run in 16 bit (autocast).
        checkpointing: Whether blocks are recomputed in the backward pass.
        micro_batches: Into how many parts a contrastive batch is embedded (``accumulate_contrastive``).
        accumulate: Batches per optimiser step.
        ema: Whether an average of the weights is kept.
        workers: Loader workers per process.
        samples: Samples of the whole run, over all processes; None when the config gives steps.
        steps: Optimiser steps of the run; None when the config gives epochs.
    """

    image: Tower
    image_size: int
    patch_size: int
    clip_style: bool
    text: Tower | None
    vocabulary: int
    embed_dim: int
    contrast: bool
    siglip: bool = False
    chunk_rows: int | None = None
    masked: bool = False
    head_depth: int = 1
    head_outputs: int = 8192
    num_masked: int = 0
    codebook: bool = False
    batch_size: int = 1
    half: bool = False
    checkpointing: bool = False
    micro_batches: int = 1
    accumulate: int = 1
    ema: bool = False
    workers: int = 0
    samples: int | None = None
    steps: int | None = None

    @property
    def patches(self) -> int:
        """Patches of a picture."""
        return self.image.tokens - 1

    @property
    def sequences(self) -> int:
        """Passes of a picture through the image tower: clean, masked or both."""
        return int(self.contrast) + int(self.masked)


def read_workload(settings: Mapping[str, Any]) -> Workload:
    """Read the sizes of a pretraining config.

    Args:
        settings: The merged settings: ``trainer``, ``model`` and ``data``.

    Raises:
        ConfigError: If it is no pretraining, or has something that this arithmetic does not describe.
    """
    model = _section(settings, "model")
    clip = FaceCLIPConfig.from_dict(model.get("clip") or {})
    tower, patch, clip_style = _image_tower(clip.image)
    text = None
    if clip.text is not None:
        text = Tower(clip.text.width, clip.text.depth, clip.text.heads, clip.text.context_length)
    return Workload(
        image=tower,
        image_size=clip.image.image_size,
        patch_size=patch,
        clip_style=clip_style,
        text=text,
        vocabulary=clip.text.vocab_size if clip.text else 0,
        embed_dim=clip.embed_dim,
        checkpointing=bool(model.get("grad_checkpointing", False)),
        micro_batches=int(model.get("accumulate_contrastive") or 1),
        **_objectives(model.get("objectives"), patch),
        **_data(_section(settings, "data", required=False), tower.tokens - 1),
        **_trainer(settings.get("trainer") or {}, _section(settings, "data", required=False)),
    )


def _section(settings: Mapping[str, Any], name: str, required: bool = True) -> dict[str, Any]:
    """Return the arguments of the class in a section."""
    node = settings.get(name) or {}
    kind = str(node.get("class_path", "")).rsplit(".", 1)[-1]
    if name == "model" and kind != "PretrainTask":
        found = f"'{kind}'" if kind else "no class"
        raise ConfigError(f"a plan is made for PretrainTask; the config's model is {found}. Give a pretraining config")
    if required and not node:
        raise ConfigError(f"the config has no section '{name}'")
    return dict(node.get("init_args") or {})


def _image_tower(config: ImageEncoderConfig) -> tuple[Tower, int, bool]:
    """Return tower, patch size and style of an architecture, by its name and the sizes given beside it."""
    match = _NAME.match(config.name)
    if match is None or config.pool == "linear":
        raise ConfigError(
            f"a plan knows plain vision transformers (vit_tiny, vit_small, vit_base, vit_large, vit_huge and deit_*, "
            f"such as vit_base_patch16_clip_quickgelu_224) with pool 'token' or 'average'; model.clip.image is "
            f"'{config.name}' with pool '{config.pool}'"
        )
    width, depth, heads = _SIZES[match.group(1)]
    patch = config.patch_size or int(match.group(2))
    if config.image_size % patch:
        raise ConfigError(f"image_size {config.image_size} is not a multiple of patch_size {patch}")
    tokens = (config.image_size // patch) ** 2 + 1
    tower = Tower(config.width or width, config.depth or depth, config.heads or heads, tokens)
    return tower, patch, "_clip_" in config.name


def _objectives(given: Mapping[str, Any] | None, patch: int) -> dict[str, Any]:
    """Read the objectives; none given means FaRL's two."""
    found: dict[str, Any] = {"contrast": False}
    for name, node in (given or {"contrastive": "Contrastive", "masked_image": "MaskedImage"}).items():
        kind, arguments = _class(node)
        if kind == "Contrastive" and not found["contrast"]:
            chunk = arguments.get("chunk_rows")
            found |= {"contrast": True, "siglip": arguments.get("form") == "siglip"}
            found["chunk_rows"] = None if chunk is None else int(chunk)
        elif kind == "MaskedImage" and "masked" not in found:
            found |= {"masked": True, "head_depth": int(arguments.get("depth", 1)), **_target(arguments, patch)}
        else:
            known = did_you_mean(kind, ("Contrastive", "MaskedImage"))
            raise ConfigError(f"a plan knows one Contrastive and one MaskedImage; '{name}' is a {kind}. {known}")
    return found


def _target(arguments: Mapping[str, Any], patch: int) -> dict[str, Any]:
    """Read what masked image modelling guesses."""
    kind, inner = _class(arguments.get("target") or "KMeansTokens")
    if kind not in _TARGETS:
        raise ConfigError(f"a plan does not know the target '{kind}'. {did_you_mean(kind, _TARGETS)}")
    if kind == "PixelTarget":
        return {"head_outputs": 3 * patch * patch}
    return {"head_outputs": _TARGETS[kind] or int(inner.get("vocab_size", 512)), "codebook": kind == "DVAETokens"}


def _class(node: Any) -> tuple[str, dict[str, Any]]:
    """Return short name and arguments of ``{class_path, init_args}``, or of a name alone."""
    if isinstance(node, Mapping):
        return str(node.get("class_path", "")).rsplit(".", 1)[-1], dict(node.get("init_args") or {})
    return str(node).rsplit(".", 1)[-1], {}


def _data(data: Mapping[str, Any], patches: int) -> dict[str, Any]:
    """Read batch size, workers and masks."""
    transform = data.get("transform") or {}
    masked = transform.get("num_masked")
    return {
        "batch_size": int(data.get("batch_size", 64)),
        "workers": int(data.get("num_workers") or 0),
        "num_masked": round(patches * 75 / 196) if masked is None else int(masked),
    }


def _trainer(trainer: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Read precision, length and callbacks."""
    precision = str(trainer.get("precision", "32-true"))
    if precision not in _PRECISIONS:
        raise ConfigError(f"a plan knows precision {', '.join(_PRECISIONS)}; the config's is '{precision}'")
    steps = trainer.get("max_steps")
    epochs = trainer.get("max_epochs")
    per_epoch = data.get("samples_per_epoch") or data.get("train_count")
    samples = None if epochs is None or per_epoch is None else int(epochs) * int(per_epoch)
    callbacks = trainer.get("callbacks") or []
    return {
        "half": _PRECISIONS[precision],
        "accumulate": int(trainer.get("accumulate_grad_batches") or 1),
        "ema": any(_class(callback)[0] == "EMA" for callback in callbacks),
        "steps": int(steps) if steps is not None and int(steps) > 0 else None,
        "samples": samples,
    }
