"""From one face with masks or landmarks to a sample: crop, augment, warp once, change the colours, normalise."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from farl_lightning.functional.geometry import compose_matrices, flip_matrix
from farl_lightning.functional.random import keyed_rng
from farl_lightning.functional.warp import points_to_crop
from farl_lightning.transforms.crop import CropError
from farl_lightning.transforms.dense_config import DenseTransformConfig, alignment_recipe, parsing_recipe
from farl_lightning.transforms.face_matrix import face_matrix
from farl_lightning.transforms.resample import FaceCut
from farl_lightning.types import FaceBatch, FaceRecord, FaceSpec

if TYPE_CHECKING:
    from torchvision.transforms import v2

    from farl_lightning.transforms.augment import PhotometricChain

_FAR = 1e6  # pixels; the square of anything much beyond is no float32 number any more
_IGNORE = 255


class DenseTransform:
    """Turn one record into one sample of a :class:`~farl_lightning.types.FaceBatch`.

    Crop, random turn, flip and tanh warp are composed and applied in a single interpolation. Every random choice is
    keyed by (seed, epoch, key): the same three give the same sample, whatever ran before and in whatever process.
    Evaluation draws nothing.

    Args:
        config: The settings; None takes the defaults.
        spec: The dataset's labels and flip pairs.
        seed: Seed of the run.
        train: Whether to augment.

    Attributes:
        spec: ``spec`` with the crop rule of ``config``: what a model must know.

    Raises:
        ConfigError: If a setting cannot work.
    """

    def __init__(
        self,
        config: DenseTransformConfig | None = None,
        spec: FaceSpec | None = None,
        seed: int = 0,
        train: bool = True,
    ) -> None:
        self.config = config = config or DenseTransformConfig()
        self.spec = config.face_spec(spec)
        self.seed, self.train = seed, train
        if train:
            self._build()

    def _build(self) -> None:
        """Build what is random; torchvision takes a second to import."""
        from torchvision.transforms import v2

        from farl_lightning.transforms import augment

        c = self.config
        # the zoom's mean is in the crop's matrix already, and scales what is drawn around it
        affine = augment.RandomFaceAffine(c.shift, c.rotation, c.zoom / c.zoom_mean, c.distribution)
        self._affine = affine if c.shift or c.rotation or c.zoom else None
        self._flip = augment.RandomFaceFlip(c.horizontal_flip, self.spec.class_flips, self.spec.landmark_flips)
        steps: list[Any] = []
        if c.occlusion > 0:
            steps.append(augment.RandomOcclusion(c.occlusion))
        if c.noise > 0:
            steps.append(augment.NoiseFusion(c.noise, c.noise_strength))
        if c.gray > 0:
            steps.append(augment.RandomGray(c.gray))
        if c.gamma:
            steps.append(augment.RandomGamma())
        if c.blur > 0:
            steps.append(augment.RandomBoxBlur(c.blur))
        self.photometric: PhotometricChain = augment.PhotometricChain(steps)
        jitter = (c.brightness, c.contrast, c.saturation, c.hue)
        self._jitter: v2.ColorJitter | None = v2.ColorJitter(*jitter) if any(jitter) else None

    def __call__(self, record: FaceRecord, epoch: int = 0) -> dict[str, Any]:
        """Make the sample.

        Args:
            record: The picture and what is known of it.
            epoch: Epoch; evaluation ignores it.

        Returns:
            The entries of ``FaceBatch`` without the batch axis: ``image``, ``matrix``, ``key``; ``mask``,
            ``landmarks``, ``visible``, ``labels`` and ``groups`` where the record has them; in evaluation also
            ``size``, ``box``, ``subsets``, ``source_mask`` and ``source_landmarks``; with ``on_device`` an uint8
            ``image`` and its ``draws``.

        Raises:
            CropError: If the crop cannot be cut from this record, or its labels do not fit the picture.
        """
        check_labels(record)
        matrix = face_matrix(self.spec, record.image.shape[:2], box=record.box, points=record.points)
        drawn = keyed_rng(self.seed, "augment", epoch, record.key) if self.train else contextlib.nullcontext()
        with drawn:
            flip = False
            if self.train:
                matrix, flip = self._augment_matrix(matrix)
            sample: dict[str, Any] = {"key": record.key, "matrix": matrix.float()}
            self._warp(sample, record, matrix)
            sample |= _global_labels(record)
            if flip:
                self._exchange_sides(sample)
            if self.train:
                self._change_colors(sample)
        if "draws" not in sample:
            self.normalize(sample["image"])
        return sample if self.train else sample | _source_labels(record)

    def _augment_matrix(self, matrix: Tensor) -> tuple[Tensor, bool]:
        """Multiply by a random turn, zoom and shift, and maybe a mirror image."""
        size = (self.spec.image_size, self.spec.image_size)
        if self._affine is not None:
            matrix = compose_matrices(matrix, self._affine.draw_matrix(size))
        flip: bool = self._flip.p > 0 and self._flip.make_params([])["flip"]
        return (compose_matrices(matrix, flip_matrix(size, like=matrix)) if flip else matrix), flip

    def _warp(self, sample: dict[str, Any], record: FaceRecord, matrix: Tensor) -> None:
        """Move picture (to floats in [0, 1]), mask and landmarks into the crop."""
        spec, size = self.spec, self.spec.image_size
        cut = FaceCut(matrix, size, spec.warp_factor, record.image.shape[:2], self.config.antialias)
        sample["image"] = cut.image(record.image).mul_(1 / 255)
        if record.mask is not None:
            sample["mask"] = cut.mask(record.mask, _IGNORE if self.config.outside == "ignore" else 0)
        if record.landmarks is not None:
            points = torch.tensor(record.landmarks, dtype=torch.float64)
            sample["landmarks"] = points_to_crop(points, matrix, size, spec.warp_factor).float()
            visible = torch.ones(len(points), dtype=torch.bool)
            sample["visible"] = visible if record.visible is None else torch.tensor(record.visible, dtype=torch.bool)

    def _exchange_sides(self, sample: dict[str, Any]) -> None:
        """Give mirrored labels and landmarks the names of the other side."""
        from farl_lightning.transforms.augment import swap_labels, swap_points

        if "mask" in sample:
            sample["mask"] = swap_labels(sample["mask"], self.spec.class_flips)
        if "landmarks" in sample:
            pairs = self.spec.landmark_flips
            sample["landmarks"] = swap_points(sample["landmarks"], pairs)
            sample["visible"] = swap_points(sample["visible"][:, None], pairs)[:, 0]

    def _change_colors(self, sample: dict[str, Any]) -> None:
        """Apply the photometric steps, or only draw them."""
        image = sample["image"]
        if self._jitter is not None:
            image = self._jitter(image)
        draws = self.photometric.draw(image)
        if self.config.on_device:
            sample |= {"image": image.mul(255).round_().to(torch.uint8), "draws": draws}
        else:
            sample["image"] = self.photometric.apply(image, draws)

    def normalize(self, images: Tensor) -> Tensor:
        """Subtract the mean from (..., 3, H, W) floats in [0, 1] and divide by the standard deviation, in place."""
        for channel, (mean, std) in enumerate(zip(self.spec.mean, self.spec.std, strict=True)):
            images[..., channel, :, :].mul_(1 / std).sub_(mean / std)
        return images

    def finish(self, batch: FaceBatch) -> FaceBatch:
        """Do on the batch's device what ``on_device`` left to it; any other batch comes back as it is.

        Args:
            batch: As collated.
        """
        plain: dict[str, Any] = dict(batch)
        draws = plain.pop("draws", None)
        if draws is None:
            return batch
        floats = plain["image"].to(torch.float32).mul_(1 / 255)
        changed = [self.photometric.apply(image, steps) for image, steps in zip(floats, draws, strict=True)]
        return FaceBatch(**{**plain, "image": self.normalize(torch.stack(changed))})  # type: ignore[typeddict-item]


def check_labels(record: FaceRecord) -> None:
    """Refuse a picture without pixels, and labels that do not fit it.

    Args:
        record: The record.

    Raises:
        CropError: Naming what does not fit.
    """
    shape = record.image.shape
    if len(shape) != 3 or shape[2] != 3 or not all(shape):
        raise CropError(f"pictures are (height, width, 3), got shape {shape}")
    if record.mask is not None and record.mask.shape != shape[:2]:
        raise CropError(f"a mask of {record.mask.shape} pixels does not fit its picture of {shape[:2]}")
    if record.landmarks is not None:
        points = record.landmarks
        if points.ndim != 2 or points.shape[1] != 2:
            raise CropError(f"landmarks are (number, 2), got shape {points.shape}")
        if not (abs(points) < _FAR).all():
            raise CropError("a landmark is not finite, or a million pixels away")


def _global_labels(record: FaceRecord) -> dict[str, Any]:
    """Return labels of the whole face as tensors, and its subgroups. No crop or flip changes them."""
    found: dict[str, Any] = {}
    if record.labels:
        dtypes = {name: _label_dtype(value) for name, value in record.labels.items()}
        found["labels"] = {name: torch.tensor(value, dtype=dtypes[name]) for name, value in record.labels.items()}
    if record.groups:
        found["groups"] = dict(record.groups)
    return found


def _label_dtype(value: object) -> torch.dtype:
    """Return the dtype of a label: numbers are floats, classes and attributes integers."""
    return torch.float32 if isinstance(value, float) else torch.int64


def _source_labels(record: FaceRecord) -> dict[str, Any]:
    """Return what evaluation needs in source pixels."""
    box = record.box if record.error_box is None else record.error_box
    labels: dict[str, Any] = {
        "size": torch.tensor(record.image.shape[:2]),
        "box": torch.full((4,), torch.nan) if box is None else torch.tensor(box, dtype=torch.float32),
        "subsets": record.subsets,
    }
    if record.mask is not None:
        labels["source_mask"] = torch.tensor(record.mask)
    if record.landmarks is not None:
        labels["source_landmarks"] = torch.tensor(record.landmarks, dtype=torch.float32)
    return labels


__all__ = ["DenseTransform", "DenseTransformConfig", "alignment_recipe", "check_labels", "parsing_recipe"]
