"""Names of tensors in weights files of OpenAI's CLIP and FaRL, and in our modules."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from farl_lightning.errors import CheckpointError
from farl_lightning.models.config import FaceCLIPConfig, ImageEncoderConfig, TextEncoderConfig

IMAGE, TEXT, HEAD = "image_encoder.", "text_encoder.model.", "head."
"""Prefixes of our names: both towers of ``FaceCLIP``, and the ``MaskedImageHead``."""

METADATA = frozenset({"input_resolution", "context_length", "vocab_size"})
"""Numbers that OpenAI's files hold beside the weights."""

_NAMES = {
    "visual.class_embedding": f"{IMAGE}vit.cls_token",
    "visual.positional_embedding": f"{IMAGE}vit.pos_embed",
    "visual.proj": f"{IMAGE}proj",
    "visual.mask_token": f"{IMAGE}mask_token",
    "visual.conv1.": f"{IMAGE}vit.patch_embed.proj.",
    "visual.ln_pre.": f"{IMAGE}vit.norm_pre.",
    "visual.ln_post.": f"{IMAGE}vit.norm.",
    "visual.conv_pool.": f"{IMAGE}conv_pool.",
    "visual.transformer.resblocks.": f"{IMAGE}vit.blocks.",
    "visual.lm_transformer.resblocks.": f"{HEAD}blocks.",
    "visual.ln_lm.": f"{HEAD}norm.",
    "visual.lm_head.": f"{HEAD}head.",
    "positional_embedding": f"{TEXT}text_model.embeddings.position_embedding.weight",
    "token_embedding.weight": f"{TEXT}text_model.embeddings.token_embedding.weight",
    "text_projection": f"{TEXT}text_projection.weight",
    "ln_final.": f"{TEXT}text_model.final_layer_norm.",
    "transformer.resblocks.": f"{TEXT}text_model.encoder.layers.",
    "logit_scale": "logit_scale",
}
_IMAGE_BLOCK = {
    "ln_1.": "norm1.",
    "attn.in_proj_weight": "attn.qkv.weight",
    "attn.in_proj_bias": "attn.qkv.bias",
    "attn.out_proj.": "attn.proj.",
    "ln_2.": "norm2.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}
_TEXT_BLOCK = {
    "ln_1.": "layer_norm1.",
    "attn.in_proj_weight": "self_attn.{}_proj.weight",
    "attn.in_proj_bias": "self_attn.{}_proj.bias",
    "attn.out_proj.": "self_attn.out_proj.",
    "ln_2.": "layer_norm2.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}
_BLOCK_NAME = re.compile(r"(?P<stack>.*\.(?:resblocks|blocks|layers)\.)(?P<index>\d+\.)(?P<rest>.*)")


def to_ours(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Rename and reshape tensors of a CLIP or FaRL file.

    Args:
        state: Tensors by the file's names.

    Returns:
        Tensors by our names (``head.`` before those of the masked image head), and the names that were not known.
    """
    ours: dict[str, Tensor] = {}
    unknown: list[str] = []
    for name, tensor in state.items():
        renamed = _rename(name, _NAMES, _IMAGE_BLOCK, _TEXT_BLOCK)
        if renamed is None:
            if name not in METADATA:
                unknown.append(name)
        elif "{}" in renamed:
            for letter, part in zip("qkv", tensor.chunk(3), strict=True):
                ours[renamed.format(letter)] = part
        else:
            ours[renamed] = _reshape_to_ours(renamed, tensor)
    return ours, unknown


def to_file(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo :func:`to_ours`.

    Args:
        state: Tensors by our names.

    Raises:
        CheckpointError: If a tensor has no place in such a file, as those of other architectures.
    """
    names = {ours: theirs for theirs, ours in _NAMES.items()}
    image = {ours: theirs for theirs, ours in _IMAGE_BLOCK.items()}
    text = {ours: theirs for theirs, ours in _TEXT_BLOCK.items()}
    file: dict[str, Tensor] = {}
    for name, tensor in state.items():
        packed = re.sub(r"self_attn\.[kv]_proj\.", "", name)
        if packed != name:
            continue  # written together with the queries
        renamed = _rename(name.replace("self_attn.q_proj.", "self_attn.{}_proj."), names, image, text)
        if renamed is None:
            raise CheckpointError(
                f"'{name}' has no name in FaRL's layout, which holds CLIP's ViT only; other architectures are saved as "
                "Lightning checkpoints"
            )
        if "self_attn.q_proj." in name:
            tensor = torch.cat([state[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"])
        file[renamed] = _reshape_to_file(name, tensor)
    return file


def _rename(name: str, names: dict[str, str], image: dict[str, str], text: dict[str, str]) -> str | None:
    """Translate one name; None when it is not known."""
    parts = _BLOCK_NAME.fullmatch(name)
    if parts is None:
        return _swap(name, names)
    stack = _swap(parts["stack"], names)
    is_text = TEXT in f"{stack}{name}"
    rest = _swap(parts["rest"], text if is_text else image)
    return f"{stack}{parts['index']}{rest}" if stack and rest else None


def _swap(name: str, table: dict[str, str]) -> str | None:
    """Replace a whole name, or the beginning up to a dot."""
    for old, new in table.items():
        if name == old or (old.endswith(".") and name.startswith(old)):
            return new + name[len(old) :]
    return None


def _reshape_to_ours(name: str, tensor: Tensor) -> Tensor:
    if name.endswith("cls_token"):
        return tensor.view(1, 1, -1)
    if name.endswith("pos_embed"):
        return tensor.unsqueeze(0)
    if name.endswith("text_projection.weight"):
        return tensor.T
    return tensor.view(1) if name == "logit_scale" else tensor


def _reshape_to_file(name: str, tensor: Tensor) -> Tensor:
    if name.endswith("cls_token"):
        return tensor.flatten()
    if name.endswith("pos_embed"):
        return tensor.squeeze(0)
    if name.endswith("text_projection.weight"):
        return tensor.T
    return tensor.view(()) if name == "logit_scale" else tensor


def infer_config(state: Mapping[str, Tensor]) -> FaceCLIPConfig:
    """Read the sizes of both towers off the shapes of a CLIP or FaRL file.

    The number of heads is not in the shapes: it is a head per 64 channels, as in every released network of the family.

    Args:
        state: Tensors by the file's names.

    Raises:
        CheckpointError: If a tensor that carries a size is missing or of an odd shape.
    """
    image = infer_image(state)
    embed_dim = _need(state, "visual.proj", 2).shape[1]
    return FaceCLIPConfig(embed_dim=embed_dim, image=image, text=_infer_text(state))


def infer_image(state: Mapping[str, Tensor]) -> ImageEncoderConfig:
    """Read the sizes of the image tower off the shapes; its projection need not be there.

    Args:
        state: Tensors by the file's names.

    Raises:
        CheckpointError: If a tensor that carries a size is missing or of an odd shape.
    """
    patches = _need(state, "visual.conv1.weight", 4)
    width, patch_size = patches.shape[0], patches.shape[2]
    cells = _need(state, "visual.positional_embedding", 2).shape[0] - 1
    side = math.isqrt(cells)
    if side * side != cells:
        raise CheckpointError(f"'visual.positional_embedding' holds {cells} patches, which is not a square grid")
    pool = state.get("visual.conv_pool.weight")
    return ImageEncoderConfig(
        image_size=side * patch_size,
        patch_size=patch_size,
        width=width,
        depth=_depth(state, "visual.transformer.resblocks."),
        heads=max(width // 64, 1),
        pool="token" if pool is None else "linear",
        pool_patches_only=pool is not None and pool.shape[2] == cells,
    )


def _infer_text(state: Mapping[str, Tensor]) -> TextEncoderConfig | None:
    if "token_embedding.weight" not in state:
        return None
    vocab_size, width = _need(state, "token_embedding.weight", 2).shape
    return TextEncoderConfig(
        context_length=_need(state, "positional_embedding", 2).shape[0],
        vocab_size=vocab_size,
        width=width,
        depth=_depth(state, "transformer.resblocks."),
        heads=max(width // 64, 1),
        eos_token_id=vocab_size - 1,  # CLIP's vocabulary ends with the end mark
    )


def head_sizes(state: Mapping[str, Tensor]) -> tuple[int, int, int] | None:
    """Return (width, depth, outputs) of the masked image head in a FaRL file, or None when there is none."""
    if "visual.lm_head.weight" not in state:
        return None
    outputs, width = _need(state, "visual.lm_head.weight", 2).shape
    return width, _depth(state, "visual.lm_transformer.resblocks."), outputs


def _need(state: Mapping[str, Tensor], name: str, ndim: int) -> Tensor:
    if name not in state:
        raise CheckpointError(f"no tensor '{name}' in this file; it holds {describe(state)}")
    if state[name].ndim != ndim:
        raise CheckpointError(f"'{name}' has shape {tuple(state[name].shape)}; {ndim} dimensions were expected")
    return state[name]


def _depth(names: Iterable[str], prefix: str) -> int:
    found = {name[len(prefix) :].split(".", 1)[0] for name in names if name.startswith(prefix)}
    return len({number for number in found if number.isdigit()})


def describe(names: Iterable[str]) -> str:
    """Say in a few words which names a file holds."""
    listed = sorted(map(str, names))
    more = f" and {len(listed) - 4} more" if len(listed) > 4 else ""
    return (", ".join(listed[:4]) + more) if listed else "nothing"
