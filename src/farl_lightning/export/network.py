"""From a checkpoint to one file that runs without this package: ONNX, or a program of torch.export."""

from __future__ import annotations

import dataclasses
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import farl_lightning
from farl_lightning.errors import ConfigError, did_you_mean, require
from farl_lightning.export.check import Difference, compare, probes
from farl_lightning.export.pipeline import PLACES, PhotoNetwork, photo_network
from farl_lightning.models.archive import read_file
from farl_lightning.models.opened import OpenedNetwork, open_dense
from farl_lightning.models.weights import KNOWN_WEIGHTS, resolve
from farl_lightning.types import FaceSpec

METADATA = "farl_lightning.json"
"""Name of the metadata inside a program of torch.export; an ONNX file has the key ``farl_lightning``."""

FORMATS = {"onnx": ".onnx", "torch": ".pt2"}
"""What can be written, and its suffix."""

UNSTATED = "not stated; the terms of the training data and of the initial weights apply"


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What was written, and how far it is from the checkpoint.

    Attributes:
        path: The file.
        metadata: What lies beside the network in the file.
        difference: Largest differences on pictures of several sizes.
    """

    path: Path
    metadata: dict[str, Any]
    difference: Difference


def export_checkpoint(
    path: str | Path,
    output: str | Path | None = None,
    format: str = "onnx",
    *,
    license: str | None = None,
    spec: FaceSpec | None = None,
    kind: str | None = None,
    ema: bool = True,
    overwrite: bool = False,
) -> ExportReport:
    """Write a checkpoint as one file with normalisation, crop, warp and the way back inside, and check the file.

    The file takes ``image`` (B, 3, H, W) float32 RGB in [0, 1] of any batch and picture size and, where the crop needs
    it, ``points`` (B, 5, 2) or ``box`` (B, 4) in pixels. It gives ``labels`` (B, H, W) uint8 and the crops' ``logits``,
    or ``landmarks`` (B, N, 2) and ``confidence`` (B, N), or ``attributes`` or ``probabilities`` (B, A) or ``age`` (B,)
    with ``logits`` (B, A), or ``embedding`` (B, E); and ``matrix`` (B, 3, 3), source to crop. Low-rank adapters are
    merged into the weights.

    Args:
        path: As for :func:`farl_lightning.models.opened.open_dense`.
        output: The file; None means the checkpoint's name with the format's suffix, in the current folder.
        format: ``"onnx"``, or ``"torch"`` for a program of ``torch.export``.
        license: Terms of these weights, for the metadata; None takes those of known weights.
        spec: What the network expects of faces, where the file does not say.
        kind: One of :data:`farl_lightning.models.opened.KINDS`, where the file does not say.
        ema: Whether the averaged weights are taken where a file holds both.
        overwrite: Whether a file that is there already is replaced.

    Raises:
        CheckpointError: If the checkpoint cannot be read.
        ConfigError: If a setting cannot work, or the file exists.
        MissingDependencyError: If ONNX is asked for and not installed.
    """
    if format not in FORMATS:
        raise ConfigError(f"format '{format}' is unknown. {did_you_mean(format, FORMATS)} TorchScript is not written.")
    file = Path(output or Path(path).stem + FORMATS[format]).expanduser()
    if file.exists() and not overwrite:
        raise ConfigError(f"'{file}' exists already; give another output, or overwrite it (--overwrite)")
    if format == "onnx":
        for module in ("onnx", "onnxscript", "onnxruntime"):
            require(module, "export")
    opened = open_dense(path, kind=kind, spec=spec, ema=ema)
    network = photo_network(opened.network, opened.spec)
    metadata = describe(network, path, license or stated_license(path))
    file.parent.mkdir(parents=True, exist_ok=True)
    with _quiet():
        (write_onnx if format == "onnx" else write_torch)(network, file, metadata)
    return ExportReport(file, metadata, check_file(file, opened, format))


def inputs(network: PhotoNetwork) -> list[str]:
    """Return the names of a network's inputs.

    Args:
        network: The network.
    """
    place = PLACES[network.spec.crop]
    return ["image"] if place is None else ["image", place]


def trace(network: PhotoNetwork) -> torch.export.ExportedProgram:
    """Record a network with free batch, height and width.

    Args:
        network: The network.
    """
    example = next(probes(network.spec))
    with torch.no_grad():
        return torch.export.export(network, example, dynamic_shapes=free_axes(network), strict=False)


def free_axes(network: PhotoNetwork) -> Any:
    """Return for each input of a network which of its axes may have any length.

    Args:
        network: The network.
    """
    batch = torch.export.Dim("batch", min=1, max=4096)
    free = {2: torch.export.Dim("height", min=1, max=65536), 3: torch.export.Dim("width", min=1, max=65536)}
    return tuple({0: batch, **free} if name == "image" else {0: batch} for name in inputs(network))


def write_torch(network: PhotoNetwork, file: Path, metadata: dict[str, Any]) -> None:
    """Write a program of torch.export (``torch.export.load`` reads it, on any machine with torch).

    Args:
        network: The network.
        file: Where.
        metadata: Plain data.
    """
    torch.export.save(trace(network), file, extra_files={METADATA: json.dumps(metadata)})


def write_onnx(network: PhotoNetwork, file: Path, metadata: dict[str, Any]) -> None:
    """Write ONNX.

    Args:
        network: The network.
        file: Where.
        metadata: Plain data.
    """
    program: Any = torch.onnx.export(
        trace(network),
        dynamo=True,
        verbose=False,
        input_names=inputs(network),
        output_names=list(network.outputs),
        dynamic_shapes=free_axes(network),
    )
    program.model.metadata_props["farl_lightning"] = json.dumps(metadata)
    program.model.metadata_props["license"] = str(metadata["license"])
    program.save(str(file))


def describe(network: PhotoNetwork, path: str | Path, license_text: str) -> dict[str, Any]:
    """Return the metadata of a file.

    Args:
        network: The network.
        path: The checkpoint.
        license_text: Terms of the weights.
    """
    place = PLACES[network.spec.crop]
    shapes = {"points": "(B, 5, 2) eyes, nose tip, mouth corners as xy", "box": "(B, 4) left, top, right, bottom"}
    described = {"image": "(B, 3, H, W) float32 RGB in [0, 1], upright"}
    if place is not None:
        described[place] = f"{shapes[place]} in pixels of the image, pixel centres at integers"
    column = network.network.task_settings.get("column")
    return {
        "network": type(network.network).__name__,
        **({} if column is None else {"column": column}),
        "face_spec": network.spec.to_dict(),
        "license": license_text,
        "checkpoint": Path(path).name,
        "inputs": described,
        "outputs": list(network.outputs),
        "written_by": f"farl-lightning {farl_lightning.__version__}, torch {torch.__version__}",
    }


def stated_license(path: str | Path) -> str:
    """Return what is known of the terms of weights.

    Args:
        path: A checkpoint, or the name of known weights.
    """
    if str(path) in KNOWN_WEIGHTS:
        return KNOWN_WEIGHTS[str(path)].license
    content = read_file(resolve(path))
    hparams = content.get("hyper_parameters") if isinstance(content, dict) else None
    start = str((hparams or {}).get("weights"))
    if start in KNOWN_WEIGHTS:
        return f"{UNSTATED} (initial weights: {start}, {KNOWN_WEIGHTS[start].license})"
    return UNSTATED


def check_file(file: Path, opened: OpenedNetwork, format: str) -> Difference:
    """Compare a written file with the checkpoint it came from.

    Args:
        file: The file.
        opened: The checkpoint's network.
        format: ``"onnx"`` or ``"torch"``.
    """
    run = load_onnx(file) if format == "onnx" else load_torch(file)
    return compare(run, opened)


def load_torch(file: str | Path) -> Any:
    """Return a function of tensors that runs a program of torch.export.

    Args:
        file: The file.
    """
    module = torch.export.load(str(file)).module()

    def _run(*tensors: Tensor) -> list[Tensor]:
        return list(module(*tensors))

    return _run


def load_onnx(file: str | Path) -> Any:
    """Return a function of tensors that runs an ONNX file on the CPU.

    Args:
        file: The file.
    """
    runtime: Any = require("onnxruntime", "export")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def _run(*tensors: Tensor) -> list[Tensor]:
        feed = {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)}
        return [torch.from_numpy(array) for array in session.run(None, feed)]

    return _run


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' progress and their advice to developers away from users."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
