"""Cells that need no training: features of an encoder, computed once for all seeds and shares, and probes on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import torch
from torch.utils.data import DataLoader

from farl_lightning.benchmark.cells import Cell
from farl_lightning.benchmark.runner import Measurement
from farl_lightning.benchmark.store import digest
from farl_lightning.datamodules.faces import DenseDataModule
from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.models.config import ImageEncoderConfig
from farl_lightning.models.features import EncoderFeatures, FeatureExtractor
from farl_lightning.models.image_encoder import ImageEncoder
from farl_lightning.probing import FeatureTable, read_features, run_probe, write_features
from farl_lightning.probing.table import concatenate
from farl_lightning.types import FaceSpec

if TYPE_CHECKING:
    from farl_lightning.cli.cells import BuiltCLI

_POOLS = ("class", "mean")  # of the last block, side by side: objectives differ in where they leave what they learn


class FeatureFolder:
    """Features of the splits of data sets, on disk and in memory.

    Args:
        folder: Made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: dict[str, FeatureTable] = {}

    def table(self, name: str, extractor: Any, data: DenseDataModule, split: str) -> FeatureTable:
        """Return the features of a split, computed if they are not there.

        Args:
            name: Tells encoder and data from others.
            extractor: Returns the encoder; called only if features are missing.
            data: The faces.
            split: ``"train"`` or ``"test"``.
        """
        path = self.folder / f"{name}.{split}.npz"
        if path.name not in self._last:
            if not path.is_file():
                self.folder.mkdir(parents=True, exist_ok=True)
                write_features(path, embed_loader(extractor(), data.plain_loader(split), data.spec))
            if len(self._last) > 1:  # one encoder's two splits
                self._last.clear()
            self._last[path.name] = read_features(path)
        return self._last[path.name]


def measure_probe(cell: Cell, weights: str | None, built: BuiltCLI, features: FeatureFolder) -> Measurement:
    """Measure a cell by a probe.

    Args:
        cell: With the method ``"linear"`` or ``"knn"``.
        weights: Of its encoder; None for random ones, drawn from the cell's seed.
        built: Its task, whose encoder's sizes count, and its data.
        features: Where features are kept.

    Raises:
        ConfigError: If the data has no splits to probe, or the probe gives no such metric.
    """
    data = built.datamodule
    if not isinstance(data, DenseDataModule):
        raise ConfigError(f"probes read faces with labels; {type(data).__name__} is no such datamodule")
    image = cast(ImageEncoderConfig, built.model.network.image)

    def _extractor() -> EncoderFeatures:
        return make_extractor(weights, image, data.spec, cell.seed)

    settings = {name: value for name, value in data.hparams.items() if name not in ("seed", "train_fraction")}
    source = [str(weights), _age(weights), None if weights else cell.seed, vars(image)]
    name = f"{cell.task.name}.{cell.encoder.name}.{digest([settings, source])}"
    train, test = (features.table(name, _extractor, data, split) for split in ("train", "test"))
    budget = None if cell.labels == 1 else cell.labels
    method = cast(Literal["linear", "knn"], cell.method)
    found = run_probe(train, test, str(cell.task.column), method, budget, cell.seed, list(train.features))
    metrics = {f"test/{key}": value for key, value in found.scores.items()}
    if cell.task.metric not in metrics:
        raise ConfigError(
            f"a probe of '{cell.task.column}' gives no '{cell.task.metric}'. {did_you_mean(cell.task.metric, metrics)}"
        )
    return Measurement(metrics[cell.task.metric], metrics, found.row())


def _age(weights: str | None) -> int | None:
    """Return when a file was written; None for what is no file."""
    path = Path(weights).expanduser() if weights is not None else None
    return path.stat().st_mtime_ns if path is not None and path.is_file() else None


def make_extractor(weights: str | None, image: ImageEncoderConfig, spec: FaceSpec, seed: int) -> EncoderFeatures:
    """Return the features of an encoder's last block: class token, and mean of the patches.

    Args:
        weights: A file, or the name of known weights; None draws random ones.
        image: Sizes of the image tower.
        spec: The faces that it will see.
        seed: Of random weights.
    """
    if weights is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = ImageEncoder(image, None, mask_token=False)
        return EncoderFeatures(encoder, spec, pools=_POOLS, feature=False)
    wanted = {"image_size": image.image_size, "heads": image.heads}
    sizes = {name: value for name, value in wanted.items() if value is not None}
    return EncoderFeatures.from_checkpoint(weights, pools=_POOLS, feature=False, image=sizes, spec=spec)


def embed_loader(
    extractor: FeatureExtractor, batches: DataLoader[Any] | Iterable[Mapping[str, Any]], spec: FaceSpec
) -> FeatureTable:
    """Return the features of all faces of a loader with their labels; those that do not count are left out.

    Args:
        extractor: What makes the features.
        batches: Batches of faces with labels.
        spec: What the labels mean.
    """
    return concatenate([_embed(extractor, batch, spec) for batch in batches])


def _embed(extractor: FeatureExtractor, batch: Mapping[str, Any], spec: FaceSpec) -> FeatureTable:
    """Return the features of a batch."""
    valid = batch.get("valid")
    keep = np.ones(len(batch["key"]), bool) if valid is None else valid.cpu().numpy()
    columns = {name: value.cpu().numpy()[keep] for name, value in batch.get("labels", {}).items()}
    found = extractor(batch["image"])
    return FeatureTable(
        [key for key, kept in zip(batch["key"], keep, strict=True) if kept],
        {name: value.float().cpu().numpy()[keep] for name, value in found.items()},
        columns,
        {},
        {name: names for name, names in spec.label_names.items() if name in columns},
        spec.attributes,
    )
