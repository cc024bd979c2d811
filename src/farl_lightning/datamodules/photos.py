"""Photographs for ``predict``: every face of every picture, cropped as the network was trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from farl_lightning.datamodules.base import BaseDataModule
from farl_lightning.datamodules.samplers import Padded, PaddedSampler
from farl_lightning.datamodules.samples import blank_record
from farl_lightning.datasets.bad_sample import NO_CROP, BadSample
from farl_lightning.datasets.photos import PhotoFolder, find_photos
from farl_lightning.datasets.sidecar import read_sidecar
from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.transforms.collate_faces import collate_faces
from farl_lightning.transforms.crop import CropError
from farl_lightning.transforms.decode import MAX_PIXELS
from farl_lightning.transforms.dense import DenseTransform, DenseTransformConfig
from farl_lightning.transforms.dense_config import CROPS
from farl_lightning.transforms.detectors import Detector, default_detector
from farl_lightning.transforms.places import FacePlace
from farl_lightning.types import Drop, FaceBatch, FaceSpec


class PhotoSamples(NamedTuple):
    """What became of one photograph."""

    samples: list[dict[str, Any]]
    """One per face."""
    drops: list[Drop]
    """Why there are fewer faces than there could be."""


class PhotoDataset(Dataset[PhotoSamples]):
    """Photographs as samples of a :class:`~farl_lightning.types.FaceBatch`; none of them ends a run.

    Args:
        photos: The photographs.
        transform: Crops and normalises.
    """

    def __init__(self, photos: PhotoFolder, transform: DenseTransform) -> None:
        self.photos, self.transform = photos, transform

    def __len__(self) -> int:
        """Return the number of photographs."""
        return len(self.photos)

    def __getitem__(self, row: Padded | int) -> PhotoSamples:
        """Return the faces of one photograph; of one that only fills up the last batch, none.

        Args:
            row: Number of the photograph.
        """
        index, counts = (row, True) if isinstance(row, int) else row
        return self._read(index) if counts else PhotoSamples([], [])

    def _read(self, index: int) -> PhotoSamples:
        try:
            photo = self.photos[index]
        except BadSample as bad:
            return PhotoSamples([], [bad.to_drop(self.photos.files[index])])
        found = PhotoSamples([], [])
        for record, score in zip(photo.faces, photo.scores, strict=True):
            try:
                sample = self.transform(record)
            except CropError as error:
                found.drops.append(BadSample(NO_CROP, str(error)).to_drop(record.key))
                continue
            extra = {"source_image": record.image, "path": str(photo.path), "score": torch.tensor(score)}
            found.samples.append({**sample, **extra, "valid": True})
        return found

    def collate(self, photos: Sequence[PhotoSamples]) -> FaceBatch:
        """Put the faces of several photographs into one batch; if there is none, a blank one that does not count.

        Args:
            photos: As ``__getitem__`` returned them.
        """
        samples = [sample for photo in photos for sample in photo.samples] or [self._blank()]
        images = [sample["source_image"] for sample in samples]
        batch = collate_faces([{k: v for k, v in sample.items() if k != "source_image"} for sample in samples])
        batch["source_image"] = images
        batch["dropped"] = [drop for photo in photos for drop in photo.drops]
        return batch

    def _blank(self) -> dict[str, Any]:
        """Return a black face that does not count."""
        record = blank_record("", FaceSpec())
        extra = {"source_image": record.image, "path": "", "score": torch.tensor(float("nan")), "valid": False}
        return {**self.transform(record), **extra}


class PhotoFolderDataModule(BaseDataModule):
    """A folder of photographs for ``predict``; crop, size and normalisation come from the checkpoint.

    Photographs that cannot be read, and those without a face, are counted and listed; they never end a run. A batch
    holds the faces of ``batch_size`` photographs, however many they are. Beside what networks need it brings each
    face's ``source_image``, ``path``, ``box`` (nan without one) and ``score``.

    Args:
        root: A folder (its subfolders too), one file, or a pattern such as ``"holiday/*.jpg"``.
        faces: JSON or CSV file of boxes or points, see :func:`farl_lightning.datasets.sidecar.read_sidecar`.
        detector: Finds the faces of photographs that ``faces`` does not know. None takes facenet-pytorch's MTCNN if it
            is installed, unless ``faces`` is given.
        cropped: Each photograph is the crop of one face already.
        crop: Crop rule that replaces the checkpoint's; a network trained on CelebA's ready-made crops
            (``"none"``) wants ``"quad"`` for photographs.
        max_faces: Largest number of faces per photograph that a detector may find; the largest ones are kept.
        antialias: Average over the pixels of a large face that a smaller crop merges.
        max_pixels: Largest width x height of a photograph.
        files: The photographs, relative to ``root``, in this order; None takes all that are there.
        batch_size: Photographs per batch and process.
        num_workers: Loader processes per process.

    Raises:
        ConfigError: If a setting cannot work.
        DatasetNotFoundError: From ``setup``, if there is no photograph, or no such file.
    """

    def __init__(
        self,
        root: str,
        faces: str | None = None,
        detector: Detector | None = None,
        cropped: bool = False,
        crop: str | None = None,
        max_faces: int | None = None,
        antialias: bool = True,
        max_pixels: int = MAX_PIXELS,
        files: list[str] | None = None,
        batch_size: int = 4,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, num_workers=num_workers)
        if crop is not None and crop not in CROPS:
            raise ConfigError(f"crop '{crop}' is unknown. {did_you_mean(crop, CROPS)}")
        if max_faces is not None and max_faces < 1:
            raise ConfigError(f"max_faces is {max_faces}; it has to be at least 1")
        self.root, self.sidecar, self.detector = root, faces, detector
        self.cropped, self.crop, self.max_faces = cropped, crop, max_faces
        self.antialias, self.max_pixels, self.files = antialias, max_pixels, files
        self._places: dict[str, list[FacePlace]] | None = None

    def take_spec(self, spec: FaceSpec) -> None:
        """Take what a network expects of faces; the command line calls it with what the checkpoint says.

        Args:
            spec: Crop, size and normalisation.
        """
        crop = "none" if self.cropped else self.crop or spec.crop
        self.spec = dataclasses.replace(spec, crop=crop, zoom=1.0 if self.cropped else spec.zoom)

    def setup(self, stage: str) -> None:
        """Learn from the task how its faces are cropped, if it knows by now, and list the photographs.

        Args:
            stage: ``"predict"``.

        Raises:
            ConfigError: If the stage is another one.
        """
        if stage != "predict":
            self._refuse()
        self._ask_task()
        if self.files is None:
            find_photos(self.root)
        self._places = None if self.sidecar is None else read_sidecar(self.sidecar)

    def _ask_task(self) -> None:
        """Take the specification of a task that was loaded from a checkpoint."""
        spec = getattr(getattr(self.trainer, "lightning_module", None), "spec", None)
        if spec is not None and not hasattr(self, "spec"):
            self.take_spec(spec)

    def predict_dataloader(self) -> DataLoader[Any]:
        """Return the loader of all photographs, in order; every process takes its share.

        Raises:
            ConfigError: If nobody says how faces are cropped, or nobody where they are.
        """
        dataset = self.dataset()
        return DataLoader(
            dataset,
            batch_size=self.eval_batch_size,
            sampler=PaddedSampler(len(dataset), self.replica),
            collate_fn=dataset.collate,
            num_workers=self.num_workers,
            generator=torch.Generator().manual_seed(0),
        )

    def dataset(self) -> PhotoDataset:
        """Return the photographs, cropped as the network expects them.

        Raises:
            ConfigError: If nobody says how faces are cropped, or nobody where they are.
        """
        self._ask_task()
        if not hasattr(self, "spec"):
            raise ConfigError(
                "photographs are cropped as the network was trained, and nothing says how: give --ckpt_path of a run "
                "that parses or aligns faces"
            )
        transform = DenseTransform(self._transform_config(), self.spec, train=False)
        return PhotoDataset(self._open(), transform)

    def _open(self) -> PhotoFolder:
        """Return the photographs; a network of whole pictures, and faces that are cropped, need no detector."""
        detector, places = self.detector, self._places
        whole = self.cropped or (self.spec.crop == "none" and places is None)
        if detector is None and places is None and not whole:
            detector = default_detector()
        return PhotoFolder(self.root, places, detector, whole, self.max_faces, self.max_pixels, self.files)

    def _transform_config(self) -> DenseTransformConfig:
        """Return the settings that crop as the specification says."""
        spec = self.spec
        config = DenseTransformConfig(
            size=spec.image_size,
            crop=spec.crop,
            warp_factor=spec.warp_factor,
            zoom_mean=spec.zoom,
            antialias=self.antialias,
            mean=spec.mean,
            std=spec.std,
        )
        five = ((x, y) for x, y in spec.template)
        return dataclasses.replace(config, template=tuple(five)) if spec.crop == "align" else config

    def fit_images(self, count: int) -> Tensor:
        """Refuse: there is no training set.

        Args:
            count: Not used.

        Raises:
            ConfigError: Always.
        """
        del count
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise ConfigError("photographs without labels are for predict alone; train and test on a dataset")
