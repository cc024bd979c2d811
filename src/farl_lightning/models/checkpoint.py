"""Weights in and out: FaRL's files, OpenAI's CLIP, open_clip's, and our own Lightning checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from farl_lightning.errors import CheckpointError, ConfigError, did_you_mean
from farl_lightning.functional.position import resize_positions
from farl_lightning.models import layout, weights
from farl_lightning.models.archive import read_file
from farl_lightning.models.config import FaceCLIPConfig
from farl_lightning.models.face_clip import FaceCLIP
from farl_lightning.models.masked_image import MaskedImageHead
from farl_lightning.types import FaceSpec, to_plain

_log = logging.getLogger(__name__)
_EXTRA = "farl_lightning"  # beside 'state_dict' in our files, where FaRL's own loader does not look


@dataclass(frozen=True)
class LoadReport:
    """What happened when weights met a network.

    Attributes:
        missing: Parameters of the network that the file does not hold; they kept their values.
        unexpected: Names in the file that were not used.
        resized: Position embeddings that were resampled or cut to the network's size.
    """

    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    resized: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [
            f"{label} ({len(names)}): {layout.describe(names)}"
            for label, names in (("missing", self.missing), ("unexpected", self.unexpected), ("resized", self.resized))
            if names
        ]
        return "; ".join(parts) or "every weight matched"


@dataclass
class CLIPCheckpoint:
    """A file, read and understood.

    Attributes:
        config: Sizes of the network it holds.
        clip: Tensors of ``FaceCLIP`` by our names.
        head: Tensors of the ``MaskedImageHead`` by its names; empty when there is none.
        unknown: Names in the file that belong to neither.
        face_spec: What the file says of its faces, or None.
        head_heads: Attention heads of the masked image head.
        inferred: Whether ``config`` was read off the shapes of the tensors, which do not say the number of heads.
    """

    config: FaceCLIPConfig
    clip: dict[str, Tensor]
    head: dict[str, Tensor]
    unknown: tuple[str, ...]
    face_spec: FaceSpec | None
    head_heads: int
    inferred: bool = False


def read_clip(path: str | Path) -> CLIPCheckpoint:
    """Read a file of any known layout.

    Args:
        path: A FaRL ``.pth``, an OpenAI or open_clip file (state dict or TorchScript), a Lightning checkpoint of
            pretraining, a file of :func:`save_farl`, or the name of known weights.

    Raises:
        CheckpointError: If it is none of these; the message says what was found.
    """
    file = weights.resolve(path)
    content = read_file(file)
    try:
        return _understand(content)
    except CheckpointError as error:
        raise CheckpointError(f"'{file}' does not hold a CLIP or FaRL network: {error}") from error


def _understand(content: Any) -> CLIPCheckpoint:
    """Find the tensors in what a file holds."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"it holds a {type(content).__name__}, not a dict of tensors")
    state = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), content)
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if any(name.startswith("model.clip.") for name in tensors):
        return _understand_lightning(content, tensors)
    for prefix in ("module.", "backbone."):
        if f"{prefix}visual.conv1.weight" in tensors:
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    extra = content.get(_EXTRA) or {}
    config = FaceCLIPConfig.from_dict(extra["clip"]) if "clip" in extra else layout.infer_config(tensors)
    ours, unknown = layout.to_ours(tensors)
    spec = extra.get("face_spec")
    return CLIPCheckpoint(
        config=config,
        clip={name: value for name, value in ours.items() if not name.startswith(layout.HEAD)},
        head=under(ours, layout.HEAD),
        unknown=tuple(unknown),
        face_spec=FaceSpec.from_dict(spec) if spec else None,
        head_heads=extra.get("head_heads") or config.image.heads or 1,
        inferred="clip" not in extra,
    )


def _understand_lightning(content: Mapping[str, Any], tensors: dict[str, Tensor]) -> CLIPCheckpoint:
    """Read a checkpoint of ``PretrainTask``."""
    plain = (content.get("hyper_parameters") or {}).get("clip")
    if not isinstance(plain, Mapping):
        raise CheckpointError("it is a Lightning checkpoint whose hyper_parameters have no 'clip'")
    config = FaceCLIPConfig.from_dict(dict(plain.get("init_args", plain)))
    heads = {name.rsplit(".head.norm.weight", 1)[0] for name in tensors if name.endswith(".head.norm.weight")}
    head = next(iter(sorted(heads)), None)
    clip = under(tensors, "model.clip.")
    spec = content.get("face_spec")
    return CLIPCheckpoint(
        config=config,
        clip=clip,
        head=under(tensors, f"{head}.head.") if head else {},
        unknown=(),
        face_spec=FaceSpec.from_dict(spec) if spec else None,
        head_heads=config.image.heads or max(clip["image_encoder.proj"].shape[0] // 64, 1),
    )


def under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the part of a state dict under a prefix, without it.

    Args:
        state: Tensors by name.
        prefix: Beginning of the names, with its dot.
    """
    return {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}


def build_clip(
    path: str | Path,
    *,
    image: Mapping[str, Any] | None = None,
    text: Mapping[str, Any] | str | None = "as in the file",
    mask_token: bool | None = None,
) -> FaceCLIP:
    """Build and load the network of a file; see :meth:`FaceCLIP.from_checkpoint`, which is the public way.

    Args:
        path: File, or name of known weights.
        image: Settings of ``ImageEncoderConfig`` that replace what the file says.
        text: Settings of ``TextEncoderConfig``, or None for no text tower.
        mask_token: Whether there is a mask token; None as in the file.

    Raises:
        CheckpointError: If the file does not hold every weight, or sizes do not fit.
    """
    checkpoint = read_clip(path)
    config = checkpoint.config
    config.image = override(config.image, dict(image or {}))
    config.image.pretrained = False  # the weights come from this file
    if text is None:
        config.text = None
    elif isinstance(text, Mapping) and config.text is not None:
        config.text = override(config.text, dict(text))
    held = f"{layout.IMAGE}mask_token" in checkpoint.clip
    clip = FaceCLIP(config, mask_token=held if mask_token is None else mask_token)
    clip.face_spec = checkpoint.face_spec
    report = _load(clip, checkpoint, path)
    if missing := [name for name in report.missing if name != f"{layout.IMAGE}mask_token"]:
        raise CheckpointError(f"'{path}' lacks {len(missing)} weights of the network: {layout.describe(missing)}")
    if checkpoint.unknown:
        _log.warning("'%s': names that were not used: %s", path, layout.describe(checkpoint.unknown))
    return clip


def override(config: Any, changes: dict[str, Any]) -> Any:
    """Return a copy of a dataclass with other values.

    Args:
        config: The dataclass.
        changes: Values by name.

    Raises:
        ConfigError: If a name is unknown.
    """
    known = [field.name for field in dataclasses.fields(config)]
    for name in changes:
        if name not in known:
            raise ConfigError(f"{type(config).__name__} has no '{name}'. {did_you_mean(name, known)}")
    return dataclasses.replace(config, **changes)


def load_weights(clip: FaceCLIP, path: str | Path, masked_image_head: MaskedImageHead | None = None) -> LoadReport:
    """Initialise a network from a file, as far as the file goes.

    Args:
        clip: The network; its sizes stand. Positions are resampled to its picture size.
        path: File, or name of known weights.
        masked_image_head: Also initialised, if given.

    Returns:
        What was missing, unexpected and resized. A text tower, a mask token or a head that the file does not hold are
        missing and keep their values.

    Raises:
        CheckpointError: If the image tower is not there in full, or sizes do not fit.
    """
    checkpoint = read_clip(path)
    report = _load(clip, checkpoint, path)
    lost = [name for name in report.missing if name.startswith(layout.IMAGE) and not name.endswith("mask_token")]
    if lost:
        raise CheckpointError(f"'{path}' lacks {len(lost)} weights of the image tower: {layout.describe(lost)}")
    if clip.face_spec is None:
        clip.face_spec = checkpoint.face_spec
    if masked_image_head is None:
        return report
    head = copy_weights(masked_image_head, checkpoint.head, path)
    missing = (*report.missing, *(f"{layout.HEAD}{name}" for name in head.missing))
    return LoadReport(missing, (*report.unexpected, *head.unexpected), report.resized)


def _load(clip: FaceCLIP, checkpoint: CLIPCheckpoint, path: str | Path) -> LoadReport:
    """Fit positions and copy the weights of both towers."""
    state = dict(checkpoint.clip)
    resized = _fit_positions(clip, state)
    report = copy_weights(clip, state, path)
    return LoadReport(report.missing, (*report.unexpected, *checkpoint.unknown), tuple(resized))


def _fit_positions(clip: FaceCLIP, state: dict[str, Tensor]) -> list[str]:
    """Bring position embeddings to the sizes of the network, in place; return which ones changed."""
    resized = []
    name = f"{layout.IMAGE}vit.pos_embed"
    wanted, held = clip.image_encoder.vit.pos_embed, state.get(name)
    if held is not None and held.shape[1] != wanted.shape[1]:
        side = round((held.shape[1] - 1) ** 0.5)
        state[name] = resize_positions(held[0], (side, side), clip.image_encoder.grid).unsqueeze(0)
        resized.append(name)
    name = f"{layout.TEXT}text_model.embeddings.position_embedding.weight"
    if clip.config.text is not None and name in state and len(state[name]) > clip.config.text.context_length:
        state[name] = state[name][: clip.config.text.context_length]  # exact: later tokens are never seen
        resized.append(name)
    return resized


@torch.no_grad()
def copy_weights(module: torch.nn.Module, state: Mapping[str, Tensor], path: str | Path) -> LoadReport:
    """Copy tensors into a module in the module's own precision.

    Args:
        module: The module; weights beside low-rank adapters are found by their names without adapters.
        state: Tensors by the module's names.
        path: The file, for the message.

    Returns:
        What was missing and unexpected.

    Raises:
        CheckpointError: If shapes differ.
    """
    own = {name.replace(".base_layer.", "."): tensor for name, tensor in module.state_dict().items()}
    shapes = [
        f"{name}: file {tuple(state[name].shape)}, network {tuple(tensor.shape)}"
        for name, tensor in own.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if shapes:
        raise CheckpointError(
            f"'{path}' has other sizes than the network ({len(shapes)} tensors): {'; '.join(shapes[:5])}"
        )
    for name, tensor in own.items():
        if name in state:
            tensor.copy_(state[name])
    missing = tuple(name for name in own if name not in state)
    return LoadReport(missing, tuple(name for name in state if name not in own))


def load_masked_image_head(path: str | Path, heads: int | None = None) -> MaskedImageHead:
    """Build and load the masked image head of a file.

    Args:
        path: File, or name of known weights.
        heads: Attention heads; None for the image tower's.

    Raises:
        CheckpointError: If the file holds no such head.
    """
    checkpoint = read_clip(path)
    held = checkpoint.head
    if "head.weight" not in held:
        raise CheckpointError(f"'{path}' holds no masked image head (visual.lm_head.*, visual.lm_transformer.*)")
    outputs, width = held["head.weight"].shape
    depth = len({name.split(".")[1] for name in held if name.startswith("blocks.")})
    head = MaskedImageHead(width, heads or checkpoint.head_heads, depth, outputs)
    report = copy_weights(head, held, path)
    if report.missing:
        raise CheckpointError(f"'{path}' lacks weights of the masked image head: {layout.describe(report.missing)}")
    return head


def save_farl(
    path: str | Path,
    clip: FaceCLIP,
    masked_image_head: MaskedImageHead | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write FaRL's own layout, which FaRL's code, OpenAI's CLIP (``strict=False``) and open_clip read.

    Loading a FaRL file and saving it gives the same tensors under the same names, bit by bit. What the tensors do not
    say (heads of unusual width, the end mark, the face specification) goes into a second entry beside ``state_dict``,
    which other programs ignore; a network of FaRL's own kind needs none.

    Args:
        path: The file; it appears whole or not at all.
        clip: Both towers, or the image tower.
        masked_image_head: The head of masked image modelling, if it is to be kept.
        dtype: Precision to store, such as ``torch.float16`` for OpenAI's; None keeps the network's.

    Raises:
        CheckpointError: If the architecture has no place in this layout.
    """
    state = {name: tensor.detach().cpu() for name, tensor in clip.state_dict().items()}
    if masked_image_head is not None:
        head = masked_image_head.state_dict()
        state |= {f"{layout.HEAD}{name}": tensor.detach().cpu() for name, tensor in head.items()}
    file = {name: tensor.to(dtype or tensor.dtype).contiguous() for name, tensor in layout.to_file(state).items()}
    content: dict[str, Any] = {"state_dict": file}
    if extra := _extra(clip, masked_image_head, file):
        content[_EXTRA] = extra
    _write(Path(path), content)


def _extra(clip: FaceCLIP, head: MaskedImageHead | None, file: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return, as plain data, what cannot be read off the tensors; empty when nothing is left to say."""
    encoder, inferred, actual = clip.image_encoder, layout.infer_config(file), clip.config
    said = [encoder.heads, encoder.config.pool, encoder.config.pool_patches_only]
    told: list[Any] = [inferred.image.heads, inferred.image.pool, inferred.image.pool_patches_only]
    if actual.text is not None and inferred.text is not None:
        said += [actual.text.heads, actual.text.eos_token_id]
        told += [inferred.text.heads, inferred.text.eos_token_id]
    extra: dict[str, Any] = {}
    if said != told:
        extra["clip"] = to_plain(actual)
    blocks: Any = () if head is None else head.blocks
    head_heads = blocks[0].attn.num_heads if len(blocks) else encoder.heads
    if head_heads != encoder.heads:
        extra["head_heads"] = head_heads
    if clip.face_spec is not None:
        extra["face_spec"] = clip.face_spec.to_dict()
    return extra


def _write(path: Path, content: dict[str, Any]) -> None:
    """Save beside the target and rename, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        torch.save(content, name)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
