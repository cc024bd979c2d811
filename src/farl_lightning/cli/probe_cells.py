"""Cells that need no training: features of an encoder, computed once for all seeds and shares, and probes on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch

from farl_lightning.benchmark.cells import Cell
from farl_lightning.benchmark.runner import Measurement
from farl_lightning.benchmark.store import digest
from farl_lightning.cli.machine import choose_device
from farl_lightning.datamodules.embedding import LabelledSource, file_stamp
from farl_lightning.datamodules.faces import DenseDataModule
from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.models import weights as known
from farl_lightning.models.backbone_features import BackboneFeatures
from farl_lightning.models.config import ImageEncoderConfig
from farl_lightning.models.features import EncoderFeatures, FeatureExtractor
from farl_lightning.models.image_encoder import ImageEncoder
from farl_lightning.probing import FeatureTable, read_features, run_probe
from farl_lightning.probing.embedding import embed
from farl_lightning.types import FaceSpec

if TYPE_CHECKING:
    from farl_lightning.cli.cells import BuiltCLI

_POOLS = ("class", "mean")  # of the last block, side by side: objectives differ in where they leave what they learn


class FeatureFolder:
    """Features of data sets on disk; the last ones stay in memory.

    Args:
        folder: Made when something is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._last: tuple[str, FeatureTable | None] = ("", None)

    def table(self, name: str, extractor: Callable[[], FeatureExtractor], data: DenseDataModule) -> FeatureTable:
        """Return the features of training and test faces, computed if they are not there.

        Args:
            name: Tells encoder and data from others.
            extractor: Returns the encoder; called only if features are missing.
            data: The faces.
        """
        if self._last[0] != name:
            path = self.folder / f"{name}.npz"
            if not path.is_file():
                network, device = extractor(), choose_device("auto")
                source = LabelledSource(data, network.spec, ("train", "test"))
                identity, size = {"features": name}, data.eval_batch_size
                embed(network, source, path, identity=identity, batch_size=size, device=device)
            self._last = (name, read_features(path))
        return cast(FeatureTable, self._last[1])


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
    backbone = cell.encoder.backbone
    stamp: list[Any] = ["random", cell.seed] if weights is None else [weights, file_stamp(known.resolve(weights))]
    stamp += [] if backbone is None else [backbone]
    settings = {name: value for name, value in data.hparams.items() if name not in ("seed", "train_fraction")}
    name = f"{cell.encoder.name}.{digest([settings, stamp, vars(image)])}"

    def _extractor() -> FeatureExtractor:
        if backbone is not None:
            return BackboneFeatures(backbone, weights, seed=cell.seed)
        return make_extractor(weights, image, data.spec, cell.seed)

    table = features.table(name, _extractor, data)
    budget = None if cell.labels == 1 else cell.labels
    method = cast(Literal["linear", "knn"], cell.method)
    names = list(table.features)
    found = run_probe(
        table.split("train"), table.split("test"), str(cell.task.column), method, budget, cell.seed, names
    )
    metrics = {f"test/{key}": value for key, value in found.scores.items()}
    if cell.task.metric not in metrics:
        hint = did_you_mean(cell.task.metric, metrics)
        raise ConfigError(f"a probe of '{cell.task.column}' gives no '{cell.task.metric}'. {hint}")
    details: dict[str, Any] = {key: value for key, value in found.row().items() if value == value}  # JSON knows no nan
    return Measurement(metrics[cell.task.metric], metrics, details)


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
    path = known.resolve(weights)
    return EncoderFeatures.from_checkpoint(path, pools=_POOLS, feature=False, image=sizes, spec=spec)
