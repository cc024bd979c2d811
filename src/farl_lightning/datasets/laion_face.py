"""LAION-Face and every data set that img2dataset downloads: pictures with captions, and faces by detection."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from torch.utils.data import IterableDataset

from farl_lightning.datasets.bad_sample import (
    BROKEN_JSON,
    CAPTION_NOT_UTF8,
    EMPTY_CAPTION,
    MISSING_CAPTION,
    MISSING_IMAGE,
    NO_DETECTION,
    NO_FACE,
    BadSample,
)
from farl_lightning.datasets.decode import MAX_PIXELS, EncodedImage
from farl_lightning.datasets.detections import DetectionTable, Face
from farl_lightning.datasets.shard_list import ShardSpec, list_shards, shard_names
from farl_lightning.datasets.tar import IMAGE_SUFFIXES, RawSample, read_shard
from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.text import clean_caption
from farl_lightning.transforms.crop import CropError
from farl_lightning.transforms.pretrain import PretrainTransform
from farl_lightning.types import Drop

if TYPE_CHECKING:
    from PIL import Image

FACE_CHOICES = ("largest", "first", "best", "every")
"""Which face is used: the largest box, the detector's first, the most certain, or every face as its own sample."""


class Picture(NamedTuple):
    """A picture that is still encoded, with its captions and, where asked for, one face."""

    key: str
    """Shard and name, such as ``"split_00000/00012/000120034"``; ``#1`` is added for faces after the first."""
    data: bytes
    """The file's bytes."""
    captions: list[str]
    """At least one, cleaned."""
    face: Face | None = None
    """In pixels of the upright picture."""

    def image(self, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """Decode at full size: RGB, upright.

        Args:
            max_pixels: Largest width x height.

        Raises:
            BadSample: If it cannot be decoded.
        """
        return EncodedImage(self.data, max_pixels=max_pixels).load()


class PictureReader:
    """Finds picture, captions and faces among the files of a sample.

    Captions are the ``.txt`` file and, if there are several, the list ``"captions"`` of the ``.json``. Faces come from
    the detection table by the ``"SAMPLE_ID"`` of the ``.json``, or from its own list ``"faces"`` of ``{"box": [left,
    top, right, bottom], "landmarks": [[x, y], ...], "score": s}``.

    Args:
        detections: Folder of a :class:`~farl_lightning.datasets.detections.DetectionTable`.
        faces: One of ``FACE_CHOICES``.
        need_faces: Whether a sample without a face is a bad one.
        min_face_size: Shorter side of a face box in pixels below which it is passed over.
        min_face_score: Certainty below which a face is passed over.

    Raises:
        ConfigError: If ``faces`` is unknown.
    """

    def __init__(
        self,
        detections: str | os.PathLike[str] | None = None,
        faces: str = "largest",
        need_faces: bool = False,
        min_face_size: float = 0.0,
        min_face_score: float = 0.0,
    ) -> None:
        if faces not in FACE_CHOICES:
            raise ConfigError(f"faces '{faces}' is unknown. {did_you_mean(faces, FACE_CHOICES)}")
        self._table = None if detections is None else DetectionTable(detections)
        self._choice = faces
        self._need_faces = need_faces or faces == "every" or min_face_size > 0 or min_face_score > 0
        self._min_size, self._min_score = min_face_size, min_face_score

    def __call__(self, raw: RawSample, shard: str) -> list[Picture]:
        """Return one picture, or with ``"every"`` one per face.

        Args:
            raw: The files of the sample.
            shard: Name of its shard.

        Raises:
            BadSample: If something is missing or broken.
        """
        if raw.fault is not None:
            raise raw.fault
        key = f"{shard}/{raw.key}"
        data = next((raw.files[suffix] for suffix in raw.files if suffix in IMAGE_SUFFIXES), None)
        if data is None:
            raise BadSample(MISSING_IMAGE, f"has only {', '.join(sorted(raw.files)) or 'files of other kinds'}")
        metadata = _metadata(raw, required=self._need_faces)
        captions = _captions(raw, metadata)
        if not self._need_faces:
            return [Picture(key, data, captions)]
        chosen = self._choose(self._faces(metadata))
        return [Picture(f"{key}#{n}" if n else key, data, captions, face) for n, face in enumerate(chosen)]

    def _faces(self, metadata: dict[str, Any]) -> list[Face]:
        """Return the faces of a sample that are large and certain enough, in the detector's order."""
        faces = self._looked_up(metadata) if "faces" not in metadata else _own_faces(metadata)
        kept = [face for face in faces if _size(face) >= self._min_size and face.score >= self._min_score]
        if not kept:
            raise BadSample(NO_FACE, f"{len(faces)} faces, none large and certain enough")
        return kept

    def _looked_up(self, metadata: dict[str, Any]) -> list[Face]:
        """Return the faces that the table has of a sample."""
        if self._table is None:
            raise BadSample(NO_DETECTION, "no detection table was given, and the .json has no 'faces'")
        try:
            sample_id = int(metadata["SAMPLE_ID"])
        except (KeyError, TypeError, ValueError) as error:
            raise BadSample(NO_DETECTION, f"SAMPLE_ID is {metadata.get('SAMPLE_ID')!r}") from error
        faces = self._table.lookup(sample_id)
        if faces is None:
            raise BadSample(NO_DETECTION, f"SAMPLE_ID {sample_id} is not in the table")
        return faces

    def _choose(self, faces: list[Face]) -> list[Face]:
        """Apply the choice."""
        if self._choice == "every":
            return faces
        if self._choice == "largest":
            return [max(faces, key=_size)]
        return [max(faces, key=lambda face: face.score) if self._choice == "best" else faces[0]]


class PretrainSamples:
    """Makes pretraining samples of shards: what :class:`~farl_lightning.datasets.stream.ShardStream` asks for.

    Args:
        reader: Finds pictures, captions and faces.
        transform: Crops, augments, tokenizes, masks.
        max_pixels: Largest width x height of a picture.
        min_side: Smallest side of a picture in pixels.
    """

    def __init__(
        self, reader: PictureReader, transform: PretrainTransform, max_pixels: int = MAX_PIXELS, min_side: int = 1
    ) -> None:
        self._reader, self._transform = reader, transform
        self._max_pixels, self._min_side = max_pixels, min_side

    def pictures(self, raw: RawSample, shard: str) -> list[Picture]:
        """Return the entries of a sample.

        Args:
            raw: The files.
            shard: Name of the shard.
        """
        return self._reader(raw, shard)

    def make(self, picture: Picture, epoch: int) -> dict[str, Any]:
        """Decode and transform one entry.

        Args:
            picture: One of :meth:`pictures`.
            epoch: How often the whole set was read before.

        Raises:
            BadSample: If the picture cannot be decoded, or the face lies outside of it.
        """
        image = EncodedImage(picture.data, max_pixels=self._max_pixels, min_side=self._min_side)
        face = picture.face
        box, landmarks = (face.box, face.landmarks or None) if face else (None, None)
        try:
            return self._transform(image, picture.captions, picture.key, epoch, box=box, landmarks=landmarks)
        except CropError as error:
            raise BadSample(NO_FACE, str(error)) from error


class LaionFace(IterableDataset[Picture]):
    """The pictures of shards in their order, to look at them or to measure them.

    What cannot be used is skipped and listed in :attr:`drops`, which is emptied when an iteration begins.

    Args:
        shards: See :func:`~farl_lightning.datasets.shard_list.list_shards`.
        subset: ``"20M"``, ``"50M"`` or None.
        reader: Finds pictures, captions and faces; None takes :class:`PictureReader`'s defaults.

    Example:
        >>> for picture in LaionFace("laion_face/split_00000"):  # doctest: +SKIP
        ...     picture.image().show()
    """

    def __init__(self, shards: ShardSpec, subset: str | None = None, reader: PictureReader | None = None) -> None:
        self.shards = list_shards(shards, subset)
        self.drops: list[Drop] = []
        self._names = shard_names(self.shards)
        self._reader = reader or PictureReader()

    def __iter__(self) -> Iterator[Picture]:
        """Yield the pictures, still encoded."""
        self.drops = []
        for shard, name in zip(self.shards, self._names, strict=True):
            yield from read_pictures(shard, name, self._reader, self.drops)


def read_pictures(shard: str, name: str, reader: PictureReader, drops: list[Drop]) -> Iterator[Picture]:
    """Yield the pictures of one shard in their order, still encoded.

    Args:
        shard: Path or URL.
        name: What samples are called after.
        reader: Finds pictures, captions and faces.
        drops: Is added to when something cannot be used.
    """
    try:
        for raw in read_shard(shard):
            yield from _usable(raw, name, reader, drops)
    except BadSample as bad:
        drops.append(bad.to_drop(name))


class HeldPictures:
    """A few pictures kept in memory as encoded bytes: an evaluation set that is the same on every process.

    Whether a picture can be decoded shows only when it is used. A bad one gives its place to the next good one, marked
    ``valid`` False, and is listed in ``dropped``.

    Args:
        pictures: The pictures.
        maker: Makes samples of them.
        drops: What was already skipped while they were read; reported with the first sample.
    """

    def __init__(self, pictures: Sequence[Picture], maker: PretrainSamples, drops: Sequence[Drop] = ()) -> None:
        self._pictures, self._maker, self._drops = list(pictures), maker, list(drops)

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self._pictures)

    def sample(self, index: int, epoch: int) -> dict[str, Any]:
        """Return one sample with ``dropped``, and ``valid`` False if it stands in for a bad one.

        Args:
            index: Number of the picture.
            epoch: Passed on to the transform.

        Raises:
            BadSample: If not a single picture can be used.
        """
        dropped = list(self._drops) if index == 0 else []
        for step in range(len(self)):
            picture = self._pictures[(index + step) % len(self)]
            try:
                sample = {**self._maker.make(picture, epoch), "dropped": dropped}
            except BadSample as bad:
                error = bad
                if step == 0:
                    dropped.append(bad.to_drop(picture.key))
                continue
            return sample if step == 0 else {**sample, "valid": False}
        raise error


def needs_faces(crop: str) -> bool:
    """Whether a crop policy cannot do without a detection.

    Args:
        crop: See :class:`~farl_lightning.transforms.crop.FaceCrop`.
    """
    return crop in ("box", "align")


def _usable(raw: RawSample, name: str, reader: PictureReader, drops: list[Drop]) -> Sequence[Picture]:
    """Return the pictures of a sample; none if it is a bad one."""
    try:
        return reader(raw, name)
    except BadSample as bad:
        drops.append(bad.to_drop(f"{name}/{raw.key}"))
        return ()


def _metadata(raw: RawSample, required: bool) -> dict[str, Any]:
    """Parse the .json; broken or missing metadata only matter where they are needed."""
    try:
        parsed = json.loads(raw.files.get("json", b"{}"))
    except (ValueError, RecursionError) as error:
        if required:
            raise BadSample(BROKEN_JSON, str(error)) from error
        return {}
    if isinstance(parsed, dict):
        return parsed
    if required:
        raise BadSample(BROKEN_JSON, f"a {type(parsed).__name__} instead of an object")
    return {}


def _captions(raw: RawSample, metadata: dict[str, Any]) -> list[str]:
    """Return the cleaned captions without repeats."""
    if "txt" not in raw.files:
        raise BadSample(MISSING_CAPTION, f"has only {', '.join(sorted(raw.files))}")
    try:
        text = raw.files["txt"].decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadSample(CAPTION_NOT_UTF8, str(error)) from error
    more = metadata.get("captions")
    texts = [text, *(entry for entry in more if isinstance(entry, str))] if isinstance(more, list) else [text]
    captions = list(dict.fromkeys(filter(None, map(clean_caption, texts))))
    if not captions:
        raise BadSample(EMPTY_CAPTION, repr(text[:80]))
    return captions


def _own_faces(metadata: dict[str, Any]) -> list[Face]:
    """Read the faces that a .json lists itself."""
    try:
        return [
            Face(
                tuple(map(float, entry["box"])),  # type: ignore[arg-type]  # its length is checked below
                tuple((float(x), float(y)) for x, y in entry.get("landmarks") or ()),
                float(entry.get("score", 1.0)),
            )
            for entry in metadata["faces"]
            if len(entry["box"]) == 4
        ]
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise BadSample(BROKEN_JSON, f"'faces': {type(error).__name__} {error}") from error


def _size(face: Face) -> float:
    """Return the shorter side of a face box in pixels."""
    left, top, right, bottom = face.box
    return min(right - left, bottom - top)


def sample_count(shards: Sequence[str]) -> int | None:
    """Count samples from the ``NNNNN_stats.json`` that img2dataset and ``write-shards`` put beside every shard.

    Args:
        shards: Paths and URLs.

    Returns:
        The number of samples; None if any shard is not local or has no such file.
    """
    total = 0
    for shard in shards:
        try:
            stats = json.loads(Path(shard.removesuffix(".tar") + "_stats.json").read_text(encoding="utf-8"))
            total += int(stats["successes"])
        except (OSError, ValueError, KeyError, TypeError):  # noqa: PERF203
            return None
    return total
