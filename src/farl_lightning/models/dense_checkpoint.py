"""Downstream networks from files: our tasks', FaRL's training states, facer's; encoders from any file."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

from torch import Tensor, nn

from farl_lightning.errors import CheckpointError, ConfigError
from farl_lightning.functional.position import resize_positions
from farl_lightning.models import dense_layout, layout, tuning, weights
from farl_lightning.models.archive import read_extra, read_file
from farl_lightning.models.checkpoint import LoadReport, copy_weights, override, read_clip, under
from farl_lightning.models.config import DenseConfig, GlobalConfig, ImageEncoderConfig
from farl_lightning.models.image_encoder import ImageEncoder
from farl_lightning.models.released import released_spec
from farl_lightning.types import FaceSpec

_log = logging.getLogger(__name__)
_ENCODER = "encoder."
_OUTPUTS = "head.classify.weight"
_BIASES = "head.classify.bias"
_MIXTURE = "head.weights"
_LEARNED_WITH = "margin."  # centres of the people of one training set, which are no part of a network
# what only the task of a kind has among its settings; the first match counts
_TASKS = {
    "embedding_size": "verification",
    "method": "age",
    "column": "classification",
    "num_classes": "parsing",
    "num_landmarks": "alignment",
    "num_attributes": "attributes",
}
_DENSE = ("parsing", "alignment")
_ANSWERS = ("column", "method")  # what tells how outputs for whole faces are read


class HasEncoder(Protocol):
    """A network with an image tower."""

    encoder: ImageEncoder
    face_spec: FaceSpec | None


@dataclass
class DenseCheckpoint:
    """A downstream file, read and understood.

    Attributes:
        kind: ``"parsing"``, ``"alignment"``, ``"attributes"``, ``"classification"``, ``"age"``,
            ``"verification"``; None when the file does not say.
        config: Sizes of the network it holds.
        state: Tensors by our names, low-rank adapters merged.
        unknown: Names in the file that were not understood.
        face_spec: What is known of its faces, or None.
        inferred: Whether ``config`` was read off the shapes of the tensors, which do not say the number of heads.
        task_settings: ``column`` and ``method`` of the task that wrote it, where it has them.
    """

    kind: str | None
    config: DenseConfig | GlobalConfig
    state: dict[str, Tensor]
    unknown: tuple[str, ...]
    face_spec: FaceSpec | None
    inferred: bool
    task_settings: dict[str, Any] = field(default_factory=dict)

    @property
    def num_outputs(self) -> int:
        """Number of classes, landmarks or attributes."""
        return self.state[_BIASES if _BIASES in self.state else _OUTPUTS].shape[0]  # weights may be shared


def read_dense(path: str | Path, *, ema: bool = True) -> DenseCheckpoint:
    """Read a downstream file of any known layout.

    Args:
        path: A checkpoint of one of our tasks, a training state of FaRL, a file of facer (TorchScript is read and not
            run), a plain state dict with the names of either, or the name of known weights.
        ema: Whether the averaged weights are taken where a file holds both.

    Raises:
        CheckpointError: If it is none of these; the message says what was found.
    """
    file = weights.resolve(path)
    content = read_file(file)
    try:
        found = _understand(content, read_extra(file, "backbone"), ema)
    except CheckpointError as error:
        raise CheckpointError(f"'{file}' does not hold a face parser, aligner or attribute network: {error}") from error
    return found


def _understand(content: Any, extra: Any, ema: bool) -> DenseCheckpoint:
    """Find the tensors in what a file holds."""
    if not isinstance(content, Mapping):
        raise CheckpointError(f"it holds a {type(content).__name__}, not a dict of tensors")
    if any(name.startswith("model.encoder.") for name in content.get("state_dict") or ()):
        return _understand_task(content, ema)
    tensors = _tensors(_network(content, ema))
    if isinstance(extra, Mapping):  # facer's alignment: the head as TorchScript, the rest beside it
        tensors |= {f"backbone.{name}": value for name, value in _tensors(extra).items()}
    renamed = dense_layout.to_ours(tensors)
    if _OUTPUTS not in renamed.state:
        raise CheckpointError(f"no classifier was found in it; it holds {layout.describe(map(str, content))}")
    visual = {own: value for name, value in tensors.items() if (own := dense_layout.encoder_name(name))}
    image = layout.infer_image(visual)
    kind = "alignment" if isinstance(extra, Mapping) else dense_layout.kind_of(tensors)
    config: DenseConfig | GlobalConfig = GlobalConfig(image)
    if _MIXTURE not in renamed.state:
        config = DenseConfig(image, channels=renamed.state[_OUTPUTS].shape[1])
    found = DenseCheckpoint(kind, config, renamed.state, renamed.unknown, None, True)
    # FaRL's own code crops to 512 pixels and lets the network resize; facer crops to the network's size
    size = 512 if "networks" in content and config.image.image_size == 448 else config.image.image_size
    found.face_spec = _describe_faces(found, size, renamed.statistics)
    return found


def _network(content: Mapping[str, Any], ema: bool) -> Any:
    """Pick the network out of a training state: ``main`` and its running average ``main_ema``."""
    networks = content.get("networks")
    if not isinstance(networks, Mapping):
        return next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), content)
    wanted = "main_ema" if ema and "main_ema" in networks else "main"
    if wanted not in networks:
        raise CheckpointError(f"its networks are {layout.describe(networks)}; 'main' or 'main_ema' was expected")
    return networks[wanted]


def _tensors(state: Any) -> dict[str, Tensor]:
    items = state.items() if isinstance(state, Mapping) else ()
    return {str(name).removeprefix("module."): value for name, value in items if isinstance(value, Tensor)}


def _describe_faces(found: DenseCheckpoint, size: int, statistics: dict[str, tuple[float, ...]]) -> FaceSpec | None:
    """Say what the network expects, as far as its kind and its buffers tell."""
    spec = None if found.kind is None else released_spec(found.kind, found.num_outputs, size)
    if spec is None:
        return spec
    own: Any = {name.removeprefix("image_"): values for name, values in statistics.items()}
    # CLIP's own numbers come back from single precision a little off
    return replace(spec, **{name: own[name] for name in own if not _near(own[name], getattr(spec, name))})


def _near(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and all(abs(a - b) < 1e-6 for a, b in zip(one, other, strict=True))


def _understand_task(content: Mapping[str, Any], ema: bool) -> DenseCheckpoint:
    """Read a checkpoint of one of our tasks; with an average, training goes on from ``current_model_state``."""
    state = content["state_dict"]
    if not ema and isinstance(content.get("current_model_state"), Mapping):
        state = content["current_model_state"]
    tensors = tuning.merge_lora_state(under(_tensors(state), "model."))
    tensors = {name: value for name, value in tensors.items() if not name.startswith(_LEARNED_WITH)}
    if _OUTPUTS not in tensors:
        raise CheckpointError(f"it has no '{_OUTPUTS}'; it holds {layout.describe(tensors)}")
    hparams = content.get("hyper_parameters") or {}
    plain = hparams.get("network") or {}
    plain = dict(plain.get("init_args", plain))
    kind = next((kind for name, kind in _TASKS.items() if name in hparams), None)
    dense = kind in _DENSE if kind else _MIXTURE not in tensors
    spec = content.get("face_spec")
    return DenseCheckpoint(
        kind=kind,
        config=DenseConfig.from_dict(plain) if dense else _global_config(plain, tensors),
        state=tensors,
        unknown=(),
        face_spec=FaceSpec.from_dict(spec) if spec else None,
        inferred=False,
        task_settings={name: hparams[name] for name in _ANSWERS if name in hparams},
    )


def _global_config(plain: Mapping[str, Any], state: Mapping[str, Tensor]) -> GlobalConfig:
    """Return settings with the head that was trained, which tuning and age methods choose."""
    config = GlobalConfig.from_dict(plain)
    shared = state[_OUTPUTS].shape[0] != state[_BIASES].shape[0]
    return replace(config, head="mix" if _MIXTURE in state else "linear", shared=shared)


Network = TypeVar("Network", bound=nn.Module)


def build_dense(
    kind: type[Network],
    path: str | Path,
    *,
    ema: bool = True,
    image: Mapping[str, Any] | None = None,
    taps: Sequence[int] | None = None,
) -> Network:
    """Build and load the network of a file; see ``from_checkpoint`` of the classes, which is the public way.

    Args:
        kind: ``FaceParser``, ``FaceAligner``, ``FaceAttributes``, ``FaceClassifier``, ``FaceAge`` or ``FaceEmbedder``.
        path: File, or name of known weights.
        ema: Whether the averaged weights are taken where a file holds both.
        image: Settings of ``ImageEncoderConfig`` that replace what the file says.
        taps: Blocks that are read, where the file does not say.

    Raises:
        CheckpointError: If the file holds another kind of network, or not every weight.
    """
    checkpoint = read_dense(path, ema=ema)
    made_for: str = kind.kind  # type: ignore[attr-defined]
    if checkpoint.kind not in (None, made_for):
        raise CheckpointError(
            f"'{path}' holds a network for {checkpoint.kind}, not for {made_for}; load it with "
            f"{_CLASSES[checkpoint.kind]}.from_checkpoint"
        )
    config = replace(checkpoint.config, image=override(checkpoint.config.image, dict(image or {})))
    config.image.pretrained = False  # the weights come from this file
    if taps is not None:
        config.taps = tuple(taps)
    network: Any = kind(config, checkpoint.num_outputs)
    if made_for in _DENSE and "head.fuse.conv.weight" not in checkpoint.state:
        network.set_tuning("linear")
    report = _load(network, checkpoint.state, path)
    if report.missing:
        raise CheckpointError(
            f"'{path}' lacks {len(report.missing)} weights of the network: {layout.describe(report.missing)}"
        )
    if unused := sorted({*report.unexpected, *checkpoint.unknown} - dense_layout.NEVER_USED):
        _log.warning("'%s': names that were not used: %s", path, layout.describe(unused))
    network.face_spec, network.task_settings = checkpoint.face_spec, checkpoint.task_settings
    return cast(Network, network.eval())


_CLASSES = {
    "parsing": "FaceParser",
    "alignment": "FaceAligner",
    "attributes": "FaceAttributes",
    "classification": "FaceClassifier",
    "age": "FaceAge",
    "verification": "FaceEmbedder",
}


def _load(network: HasEncoder, state: Mapping[str, Tensor], path: str | Path) -> LoadReport:
    """Fit positions and copy every weight."""
    state = dict(state)
    resized = _fit_positions(network.encoder, state)
    report = copy_weights(cast(nn.Module, network), state, path)
    return replace(report, resized=resized)


def _fit_positions(encoder: ImageEncoder, state: dict[str, Tensor]) -> tuple[str, ...]:
    """Bring the position embedding to the size of the encoder, in place; return its name if it changed."""
    name = f"{_ENCODER}vit.pos_embed"
    held = state.get(name)
    if held is None or held.shape[1] == encoder.vit.pos_embed.shape[1]:
        return ()
    side = round((held.shape[1] - 1) ** 0.5)
    state[name] = resize_positions(held[0], (side, side), encoder.grid).unsqueeze(0)
    return (name,)


def load_encoder(network: HasEncoder, path: str | Path, *, ema: bool = True) -> LoadReport:
    """Initialise the image tower of a network from a file of any kind.

    Args:
        network: ``FaceParser``, ``FaceAligner``, ``FaceAttributes`` or any module with an ``encoder``; its sizes stand.
        path: A pretrained file (FaRL, OpenAI, open_clip, ours), a downstream one, or the name of known weights.
        ema: Whether averaged weights are taken where a file holds both.

    Returns:
        What was missing, unexpected (text tower, projection and blocks behind the last one that is read, usually) and
        resized, by names with ``encoder.``.

    Raises:
        CheckpointError: If the file lacks a weight of the tower, or sizes do not fit.
    """
    held = read_encoder(path, ema=ema)
    wanted = network.encoder.heads
    if not held.inferred and held.config.heads not in (None, wanted):
        raise CheckpointError(
            f"'{path}' was trained with {held.config.heads} attention heads, this encoder has {wanted}: set "
            f"image.heads to {held.config.heads}"
        )
    holder = nn.Module()
    holder.encoder = network.encoder
    report = _load(cast(HasEncoder, holder), held.state, path)
    missing = tuple(name for name in report.missing if ".lora_" not in name)
    if missing:
        raise CheckpointError(f"'{path}' lacks {len(missing)} weights of the image tower: {layout.describe(missing)}")
    if network.face_spec is None:
        network.face_spec = held.face_spec
    return LoadReport((), (*report.unexpected, *held.unknown), report.resized)


@dataclass
class EncoderCheckpoint:
    """The image tower of a file.

    Attributes:
        config: Its sizes.
        state: Tensors by our names, with ``encoder.`` before them.
        unknown: Other names of the file.
        face_spec: What the file says of its faces, or None.
        inferred: Whether ``config`` was read off the shapes of the tensors, which do not say the number of heads.
    """

    config: ImageEncoderConfig
    state: dict[str, Tensor]
    unknown: tuple[str, ...]
    face_spec: FaceSpec | None
    inferred: bool


def read_encoder(path: str | Path, *, ema: bool = True) -> EncoderCheckpoint:
    """Read the image tower of a pretrained or a downstream file.

    Args:
        path: File, or name of known weights.
        ema: Whether averaged weights are taken where a file holds both.

    Raises:
        CheckpointError: If there is none; the message says why for either kind of file.
    """
    try:
        clip = read_clip(path)
    except (CheckpointError, ConfigError) as first:
        try:
            dense = read_dense(path, ema=ema)
        except CheckpointError:
            raise first from None
        tower = {name: value for name, value in dense.state.items() if name.startswith(_ENCODER)}
        others = [name for name in dense.state if not name.startswith(_ENCODER)]
        return EncoderCheckpoint(dense.config.image, tower, (*others, *dense.unknown), None, dense.inferred)
    tower = {f"{_ENCODER}{name}": value for name, value in under(clip.clip, layout.IMAGE).items()}
    others = [name for name in clip.clip if not name.startswith(layout.IMAGE)]
    others += [f"{layout.HEAD}{name}" for name in clip.head]
    return EncoderCheckpoint(clip.config.image, tower, (*others, *clip.unknown), clip.face_spec, clip.inferred)
