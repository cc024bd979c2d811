"""A downstream network of whatever kind a file holds, with what it expects of faces."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from farl_lightning.errors import CheckpointError, did_you_mean
from farl_lightning.models.attributes import FaceAge, FaceAttributes, FaceClassifier, FaceEmbedder
from farl_lightning.models.dense import FaceAligner, FaceParser
from farl_lightning.models.dense_checkpoint import DenseCheckpoint, read_dense
from farl_lightning.types import FaceSpec

DenseFaceNetwork = FaceParser | FaceAligner | FaceAttributes | FaceClassifier | FaceAge | FaceEmbedder

KINDS: dict[str, type[DenseFaceNetwork]] = {
    "parsing": FaceParser,
    "alignment": FaceAligner,
    "attributes": FaceAttributes,
    "classification": FaceClassifier,
    "age": FaceAge,
    "verification": FaceEmbedder,
}
"""What a network answers, and its class."""


class OpenedNetwork(NamedTuple):
    """A network and its faces."""

    network: DenseFaceNetwork
    """In evaluation mode, on the CPU."""
    spec: FaceSpec
    """Crop, size, normalisation and labels."""


def open_dense(
    path: str | Path,
    *,
    kind: str | None = None,
    spec: FaceSpec | None = None,
    ema: bool = True,
    image: Mapping[str, Any] | None = None,
) -> OpenedNetwork:
    """Build and load the network of a file, asking the file what it is.

    Args:
        path: A checkpoint of one of our tasks, a training state of FaRL, a file of facer, or the name of known weights.
        kind: One of :data:`KINDS`, where the file does not say.
        spec: What the network expects of faces; None takes what the file says, or what is known of released networks.
        ema: Whether the averaged weights are taken where a file holds both.
        image: Settings of ``ImageEncoderConfig`` that replace what the file says.

    Raises:
        CheckpointError: If the file holds no such network, or neither it nor the caller says what is needed.
    """
    if kind is not None and kind not in KINDS:
        raise CheckpointError(f"kind '{kind}' is unknown. {did_you_mean(kind, KINDS)}")
    found = read_dense(path, ema=ema)
    kind = kind or found.kind
    if kind is None:
        raise CheckpointError(f"'{path}' does not say what its network answers; give kind: {', '.join(KINDS)}")
    if kind not in KINDS:
        raise CheckpointError(f"'{path}' holds a network for {kind}; predictors answer {', '.join(KINDS)} so far")
    spec = spec or found.face_spec
    if spec is None:
        raise CheckpointError(
            f"'{path}' does not say how its faces were cropped ({kind}, {found.num_outputs} outputs); give spec, a "
            "FaceSpec with crop, image_size, mean and std"
        )
    network = KINDS[kind].from_checkpoint(path, ema=ema, image=image)
    _check_labels(path, kind, spec, found)
    network.requires_grad_(False)
    return OpenedNetwork(network.eval(), spec)


def _check_labels(path: str | Path, kind: str, spec: FaceSpec, found: DenseCheckpoint) -> None:
    """Refuse labels that are not those of the network; outputs for ages and people have no names."""
    named = {
        "parsing": len(spec.classes),
        "alignment": spec.num_landmarks,
        "attributes": len(spec.attributes),
        "classification": len(spec.label_names.get(str(found.task_settings.get("column")), ())),
        "age": 0,
        "verification": 0,
    }[kind]
    outputs = found.num_outputs
    if named not in (0, outputs):
        raise CheckpointError(f"'{path}' has {outputs} outputs for {kind}, but its FaceSpec describes {named}")
