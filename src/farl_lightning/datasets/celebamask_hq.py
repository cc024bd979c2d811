"""CelebAMask-HQ: 19 parsing classes at 512 pixels (Lee et al., MaskGAN, CVPR 2020)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from farl_lightning.datasets.bad_sample import MASK_SIZE, MISSING_ANNOTATION, BadSample
from farl_lightning.datasets.faces import DatasetSource, FaceDataset, check_split, file_names, find_root, not_found
from farl_lightning.datasets.files import read_image, read_layer, read_mask
from farl_lightning.datasets.synthetic.classes import CELEBAMASK_CLASSES, CELEBAMASK_FLIPS
from farl_lightning.errors import DataError
from farl_lightning.types import FaceRecord, FaceSpec

CELEBAMASK_SPLITS = {"train": 24183, "val": 2993, "test": 2824}
"""The splits that CelebA's partition makes, and their sizes."""

LAYERS = (
    *("neck", "skin", "cloth", "l_ear", "r_ear", "l_brow", "r_brow", "l_eye", "r_eye", "nose"),
    *("mouth", "l_lip", "u_lip", "hair", "eye_g", "hat", "ear_r", "neck_l"),
)
"""Suffixes of the mask files in the order in which they are painted; a pixel's label is 1 + the number of the last
layer that covers it. The layers overlap (skin runs beneath eyes and mouth, hair beneath hats), so the order is part of
the benchmark. "l_" and "r_" are the subject's left and right: ``l_eye`` (label 8) lies on the image's right."""

IMAGES, MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
MAPPING, PARTITION = "CelebA-HQ-to-CelebA-mapping.txt", "list_eval_partition.txt"
_PER_FOLDER = 2000


class CelebAMaskHQ(FaceDataset):
    """High-quality portraits of celebrities with masks of 19 classes.

    ``CelebA-HQ-img/{id}.jpg`` (1024 px), ``CelebAMask-HQ-mask-anno/{id // 2000}/{id:05d}_{layer}.png`` (512 px, one
    file per class that is there), ``CelebA-HQ-to-CelebA-mapping.txt``, and ``list_eval_partition.txt`` of CelebA
    itself. The picture is resized to the size of its masks, as FaRL resizes it.

    Args:
        root: Folder that holds all of these.
        split: ``"train"``, ``"val"`` or ``"test"``: CelebA's partition of the original pictures.
        mask_cache: Folder that keeps painted masks, one PNG per face, written when a face is first read: reading one
            file instead of up to 18 takes a tenth of the time. Delete it after changing a mask. None keeps nothing.

    Raises:
        ConfigError: If the split is unknown.
        DatasetNotFoundError: If a folder or list is not there.
        DataError: If a list cannot be read.
    """

    source = DatasetSource(
        name="CelebAMask-HQ",
        page="https://github.com/switchablenorms/CelebAMask-HQ",
        archives=(
            "CelebAMask-HQ.zip",
            "list_eval_partition.txt (of CelebA, mmlab.ie.cuhk.edu.hk/projects/CelebA.html)",
        ),
        terms="non-commercial research and education only; may not be passed on",
        layout=(f"{IMAGES}/*.jpg", f"{MASKS}/{{0..14}}/*.png", MAPPING, PARTITION),
    )
    spec: FaceSpec = FaceSpec(classes=CELEBAMASK_CLASSES, class_flips=CELEBAMASK_FLIPS)

    def __init__(self, root: str | Path, split: str = "train", mask_cache: str | Path | None = None) -> None:
        self.mask_cache = None if mask_cache is None else Path(mask_cache).expanduser()
        check_split(split, tuple(CELEBAMASK_SPLITS), "CelebAMask-HQ")
        self.root = find_root(root, (IMAGES, MASKS, MAPPING, PARTITION), self.source)
        self.split, self.expected = split, CELEBAMASK_SPLITS[split]
        self.ids = _join(self.root, list(CELEBAMASK_SPLITS).index(split))
        if not self.ids:
            raise not_found(self.root, f"lists no sample of '{split}'", self.source)
        self.keys = [str(number) for number in self.ids]

    def files(self, index: int) -> Sequence[Path]:
        """Return the picture of a sample; which masks there are differs from face to face.

        Args:
            index: From 0 to ``len(self) - 1``.
        """
        return [self.root / IMAGES / f"{self.ids[index]}.jpg"]

    def verify(self) -> list[str]:
        """Look for missing pictures, and for samples without a single mask."""
        found = super().verify()[:-1]
        folders = sorted({number // _PER_FOLDER for number in self.ids})
        masked = {name.partition("_")[0] for folder in folders for name in file_names(self.root / MASKS / str(folder))}
        found += [f"{number}: no mask" for number in self.ids if f"{number:05d}" not in masked]
        return [*found, self.source.how_to_get()] if found else []

    def read(self, index: int) -> FaceRecord:
        """Read one sample.

        Args:
            index: From 0 to ``len(self) - 1``.

        Raises:
            BadSample: If a file is missing or broken.
        """
        number = self.ids[index]
        mask = self._mask(number) if self.mask_cache is None else self._kept_mask(number, self.mask_cache)
        image = read_image(self.root / IMAGES / f"{number}.jpg")
        return FaceRecord(key=self.keys[index], image=resize_linear(image, mask.shape), mask=mask)

    def _kept_mask(self, number: int, folder: Path) -> npt.NDArray[np.uint8]:
        """Return the painted mask of a face, from the cache if it is there."""
        path = folder / f"{number:05d}.png"
        with contextlib.suppress(BadSample):  # not there yet
            return read_mask(path)
        mask = self._mask(number)
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")  # other workers never see half a file
        Image.fromarray(mask).save(unfinished, "PNG")
        unfinished.replace(path)
        return mask

    def _mask(self, number: int) -> npt.NDArray[np.uint8]:
        """Paint the layers of a face one over the other."""
        folder = self.root / MASKS / str(number // _PER_FOLDER)
        mask: npt.NDArray[np.uint8] | None = None
        for label, layer in enumerate(LAYERS, start=1):
            covered = read_layer(folder / f"{number:05d}_{layer}.png")
            if covered is None:  # the class is not in this picture
                continue
            if mask is None:
                mask = np.zeros(covered.shape, np.uint8)
            elif mask.shape != covered.shape:
                raise BadSample(MASK_SIZE, f"layer {layer} is {covered.shape}, those before are {mask.shape}")
            mask[covered] = label
        if mask is None:
            raise BadSample(MISSING_ANNOTATION, f"no mask {number:05d}_*.png in {MASKS}/{folder.name}")
        return mask


def resize_linear(image: npt.NDArray[np.uint8], size: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Resize bilinearly without antialiasing, as OpenCV's INTER_LINEAR does and FaRL with it.

    From 1024 to 512 pixels that is the mean of 2 x 2 pixels, rounded half up, to the bit.

    Args:
        image: (H, W, 3) uint8.
        size: Height and width of the result.

    Returns:
        (height, width, 3) uint8; the picture itself if it has that size.
    """
    if image.shape[:2] == tuple(size):
        return image
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    small = F.interpolate(pixels, tuple(size), mode="bilinear", align_corners=False)[0]
    result: npt.NDArray[np.uint8] = small.add_(0.5).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return result


def _join(root: Path, part: int) -> list[int]:
    """Return the ids of one part of CelebA's partition, in the order of the partition file, as FaRL lists them."""
    ids = {words[2]: int(words[0]) for words in _rows(root / MAPPING, 3) if words[0].isdigit()}
    parts = [words for words in _rows(root / PARTITION, 2) if words[1] == str(part)]
    return [ids[words[0]] for words in parts if words[0] in ids]


def _rows(path: Path, columns: int) -> list[list[str]]:
    """Return the words of every line that names a picture; the others are headings."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [line.split() for line in lines if ".jpg" in line]
    if bad := next((row for row in rows if len(row) != columns), None):
        raise DataError(f"{path}: '{' '.join(bad)}' has {len(bad)} words instead of {columns}")
    return rows
