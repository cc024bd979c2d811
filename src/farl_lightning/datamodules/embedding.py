"""Faces in a fixed order, without augmentation, for whoever computes features of all of them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset

from farl_lightning.datamodules.faces import SPLITS, DenseDataModule
from farl_lightning.datamodules.photos import PhotoDataset, PhotoFolderDataModule, PhotoSamples
from farl_lightning.datamodules.samples import FaceSamples
from farl_lightning.datasets.bad_sample import BROKEN_ANNOTATION, BadSample
from farl_lightning.datasets.table_file import TableFile
from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.transforms.collate_faces import collate_faces
from farl_lightning.transforms.dense import DenseTransform
from farl_lightning.transforms.dense_config import DenseTransformConfig
from farl_lightning.types import Drop, FaceBatch, FaceSpec

_KEPT = ("image", "key", "labels", "dropped")

SPLIT_GROUP = "split"
"""Name of the group that says which split a face belongs to."""


class LabelledSource(Dataset[dict[str, Any]]):
    """The splits of a datamodule of faces, one behind the other, with labels and groups.

    Faces are cut as the datamodule's ``transform`` says, or by another rule, at the size and with the normalisation of
    the network.

    Args:
        datamodule: With labels of whole faces, masks or landmarks.
        spec: What the network expects.
        splits: Which splits; None takes all that there are.
        crop: Crop rule instead of the transform's; where it is the network's own, so are template, warp and zoom.

    Raises:
        ConfigError: If the datamodule is of another kind, or has no such split.
    """

    def __init__(
        self, datamodule: Any, spec: FaceSpec, splits: Sequence[str] | None = None, crop: str | None = None
    ) -> None:
        if not isinstance(datamodule, DenseDataModule):
            raise ConfigError(
                f"{type(datamodule).__name__} does not give faces one by one; embed reads datamodules of faces with "
                "labels (TableDataModule, CelebADataModule, ...), folders and tables"
            )
        datamodule.setup("test")
        config = _transform(datamodule.transform, spec, crop)
        transform = DenseTransform(config, datamodule.labels, train=False)
        self.parts: list[tuple[str, FaceSamples]] = []
        for split in splits or SPLITS:
            faces = datamodule.faces(split)
            if faces is not None:
                self.parts.append((split, FaceSamples(faces, transform)))
            elif splits:
                raise ConfigError(f"{type(datamodule).__name__} has no split '{split}'")
        self.label_names = {name: tuple(names) for name, names in datamodule.labels.label_names.items()}
        self.attributes = datamodule.labels.attributes
        self._ends = _running_sum(len(samples) for _, samples in self.parts)
        known = [json.dumps(dataclasses.asdict(config)), *(f"{name} {part.fingerprint}" for name, part in self.parts)]
        self.fingerprint = _digest(known)

    def __len__(self) -> int:
        """Return the number of faces."""
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return one face without masks and landmarks; of one that cannot be used, an empty one that does not count.

        Args:
            index: From 0 to ``len(self) - 1``.
        """
        number = next(number for number, end in enumerate(self._ends) if index < end)
        split, samples = self.parts[number]
        sample = samples.sample(index - (self._ends[number - 1] if number else 0), 0)
        kept: dict[str, Any] = {name: sample[name] for name in _KEPT if name in sample}
        groups = {**sample.get("groups", {}), SPLIT_GROUP: split}
        return {**kept, "groups": groups, "valid": bool(sample.get("valid", True))}

    def collate(self, items: Sequence[dict[str, Any]]) -> FaceBatch:
        """Put faces into a batch.

        Args:
            items: At least one.
        """
        return collate_faces(items)


class PhotoSource(Dataset[PhotoSamples]):
    """Photographs of a folder or a table, cut as the network was trained.

    Args:
        datamodule: The photographs.
        spec: What the network expects, its crop rule included.
        problems: What is known to be wrong before any photograph is opened.
    """

    label_names: dict[str, tuple[str, ...]]
    attributes: tuple[str, ...] = ()

    def __init__(self, datamodule: PhotoFolderDataModule, spec: FaceSpec, problems: Sequence[Drop] = ()) -> None:
        datamodule.take_spec(spec)
        datamodule.setup("predict")
        self.photos: PhotoDataset = datamodule.dataset()
        self.label_names, self.problems = {}, list(problems)
        settings = json.dumps([datamodule.spec.to_dict(), datamodule.max_faces, datamodule.sidecar])
        self.fingerprint = _digest([settings, *self.photos.photos.files])

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self.photos)

    def __getitem__(self, index: int) -> PhotoSamples:
        """Return the faces of one photograph.

        Args:
            index: From 0 to ``len(self) - 1``.
        """
        found = self.photos[index]
        return PhotoSamples(found.samples, [*self.problems, *found.drops]) if index == 0 else found

    def collate(self, items: Sequence[PhotoSamples]) -> FaceBatch:
        """Put the faces of photographs into a batch.

        Args:
            items: At least one.
        """
        batch = self.photos.collate(items)
        del batch["source_image"]
        return batch


def _transform(config: DenseTransformConfig, spec: FaceSpec, crop: str | None) -> DenseTransformConfig:
    """Return the settings of the data with the network's size and normalisation, and its crop if that is asked for."""
    changes: dict[str, Any] = {"size": spec.image_size, "mean": spec.mean, "std": spec.std, "on_device": False}
    if crop is not None:
        changes["crop"] = crop
    if crop == spec.crop:
        changes |= {"warp_factor": spec.warp_factor, "zoom_mean": spec.zoom, "zoom": 0.0}
        if spec.template:
            changes |= {"template": tuple((x, y) for x, y in spec.template), "align_scale": 1.0}
    return dataclasses.replace(config, **changes)


def table_rows(table: TableFile, column: str) -> tuple[dict[str, int], list[Drop]]:
    """Find the photographs of a table.

    Args:
        table: The table.
        column: That holds paths.

    Returns:
        The row of each path, and what is wrong with rows that have none, or one that is there already.

    Raises:
        ConfigError: If there is no such column.
    """
    rows: dict[str, int] = {}
    drops: list[Drop] = []
    for row, file in enumerate(table.column(column, "image")):
        place = table.places[row]
        if row in table.problems:
            drops.append(BadSample(BROKEN_ANNOTATION, table.problems[row]).to_drop(place))
        elif not file:
            drops.append(BadSample(BROKEN_ANNOTATION, f"no '{column}'").to_drop(place))
        elif file in rows:
            drops.append(
                BadSample(BROKEN_ANNOTATION, f"'{file}' is in {table.places[rows[file]]} already").to_drop(place)
            )
        else:
            rows[file] = row
    return rows, drops


def check_splits(splits: Sequence[str]) -> list[str]:
    """Return names of splits.

    Args:
        splits: The names.

    Raises:
        ConfigError: If there is no such split, with the nearest match.
    """
    for split in splits:
        if split not in SPLITS:
            raise ConfigError(f"there is no split '{split}'. {did_you_mean(split, SPLITS)}")
    return list(splits)


def _running_sum(counts: Iterable[int]) -> list[int]:
    ends: list[int] = []
    for count in counts:
        ends.append(count + (ends[-1] if ends else 0))
    return ends


def _digest(words: Iterable[str]) -> str:
    """Hash words in order."""
    return hashlib.blake2b("\0".join(words).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def file_stamp(path: str | Path) -> str:
    """Tell one version of a file from another without reading it: size and time of change.

    Args:
        path: The file.
    """
    state = Path(path).stat()
    return f"{state.st_size} bytes, {state.st_mtime_ns}"
