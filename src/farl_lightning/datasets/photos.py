"""Photographs of any number of people: found in a folder, faces given beside them, found by a detector, or cropped."""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from farl_lightning.datasets.bad_sample import NO_DETECTION, NO_FACE, BadSample
from farl_lightning.datasets.files import read_bytes
from farl_lightning.datasets.labelled import confined
from farl_lightning.errors import ConfigError, DatasetNotFoundError
from farl_lightning.transforms.decode import MAX_PIXELS, decode_image
from farl_lightning.transforms.detectors import Detector
from farl_lightning.transforms.places import FacePlace, add_points, found_places
from farl_lightning.types import FaceRecord

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".avif", ".jp2")
"""Names of files that are taken for photographs, in any case; a pattern may ask for others."""


@dataclasses.dataclass(frozen=True)
class Photo:
    """One photograph and its faces.

    Attributes:
        file: Path relative to the folder of photographs, with forward slashes.
        path: Where it is.
        faces: One record per face; all of them share the picture's pixels.
        scores: For each face how sure a detector was; nan where none was asked.
    """

    file: str
    path: Path
    faces: tuple[FaceRecord, ...]
    scores: tuple[float, ...]


class PhotoFolder(Dataset[Photo]):
    """Photographs in a folder, with the places of their faces.

    A face's key is the photograph's relative path, with ``#0``, ``#1``, ... behind it unless the photographs are
    cropped already.

    Args:
        root: A folder (its subfolders too), one file, or a pattern such as ``"holiday/*.jpg"``.
        faces: For photographs by relative path where their faces are, see
            :func:`farl_lightning.datasets.sidecar.read_sidecar`. Photographs that it does not know are left to the
            detector.
        detector: Finds faces.
        cropped: Each photograph is the crop of one face already; nothing is looked for.
        max_faces: Largest number of faces per photograph that a detector may find; the largest ones are kept.
        max_pixels: Largest width x height of a photograph.
        files: The photographs, relative to ``root``, in this order; None takes all that are there. One that leads out
            of ``root`` is never opened.

    Raises:
        ConfigError: If there is no way to know where the faces are.
        DatasetNotFoundError: If there is no photograph at all.
    """

    def __init__(
        self,
        root: str | Path,
        faces: Mapping[str, Sequence[FacePlace]] | None = None,
        detector: Detector | None = None,
        cropped: bool = False,
        max_faces: int | None = None,
        max_pixels: int = MAX_PIXELS,
        files: Sequence[str] | None = None,
    ) -> None:
        if faces is None and detector is None and not cropped:
            raise ConfigError(
                "nothing says where the faces of the photographs are: give a file of boxes or points, a detector such "
                "as MTCNN, or cropped=True if each picture is a cropped face"
            )
        self.faces, self.detector, self.cropped = faces or {}, detector, cropped
        self.max_faces, self.max_pixels = max_faces, max_pixels
        self._listed = files is not None
        if files is not None:
            self.root, self.files = Path(root).expanduser(), list(files)
            return
        self.root, found = find_photos(root)
        self.files = sorted(set(found) | {file for file in self.faces if not (self.root / file).exists()})

    def __len__(self) -> int:
        """Return the number of photographs, unreadable ones included."""
        return len(self.files)

    def __getitem__(self, index: int) -> Photo:
        """Read a photograph, and find its faces.

        Args:
            index: From 0 to ``len(self) - 1``.

        Raises:
            BadSample: If it cannot be read, or nobody knows or finds a face in it.
        """
        file = self.files[index]
        path = confined(self.root, file) if self._listed else self.root / file
        image = np.asarray(decode_image(read_bytes(path), max_pixels=self.max_pixels))
        if self.cropped:
            return Photo(file, path, (FaceRecord(key=file, image=image),), (float("nan"),))
        places = self._places(file, image)
        if not places:
            raise BadSample(NO_FACE, f"{image.shape[1]} x {image.shape[0]} pixels")
        records = (
            FaceRecord(f"{file}#{number}", image, points=place.points, box=place.crop_box, error_box=place.box)
            for number, place in enumerate(places)
        )
        scores = (float("nan") if place.score is None else place.score for place in places)
        return Photo(file, path, tuple(records), tuple(scores))

    def _places(self, file: str, image: npt.NDArray[np.uint8]) -> list[FacePlace]:
        """Return where the faces of a photograph are."""
        if file in self.faces:
            places = self.faces[file]
            return list(places) if self.detector is None else add_points(places, image, self.detector)
        if self.detector is None:
            raise BadSample(NO_DETECTION, "the file of boxes and points does not name it, and no detector is given")
        return found_places(self.detector.detect(image).largest(self.max_faces))


def find_photos(root: str | Path) -> tuple[Path, list[str]]:
    """List photographs.

    Args:
        root: A folder, one file, or a pattern (``**`` goes into subfolders).

    Returns:
        The folder, and the photographs in it relative to it, with forward slashes, sorted.

    Raises:
        DatasetNotFoundError: If there is none.
    """
    text = str(Path(root).expanduser())
    path = Path(text)
    if path.is_file():
        return path.parent, [path.name]
    if path.is_dir():
        found = [file for file in path.rglob("*") if file.is_file() and file.suffix.lower() in SUFFIXES]
        folder = path
    else:
        folder = Path(*path.parts[: _first_wild(path.parts)])
        found = [Path(name) for name in glob.glob(text, recursive=True) if Path(name).is_file()]
    if not found:
        wanted = f"files ending in {', '.join(SUFFIXES)} are looked for"
        state = wanted if path.is_dir() else "it is neither a folder, nor a file, nor a pattern that matches any"
        raise DatasetNotFoundError(f"no photograph at '{root}': {state}")
    return folder, sorted(file.relative_to(folder).as_posix() for file in found)


def _first_wild(parts: Sequence[str]) -> int:
    """Return the position of the first part of a path that is a pattern."""
    return next((number for number, part in enumerate(parts) if glob.has_magic(part)), max(len(parts) - 1, 0))
