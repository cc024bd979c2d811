"""Finding the faces of a photograph: what a detector has to be, and adapters for two well-kept ones.

Detection is nobody's training target here, so none is built in. Both adapters import their package when they are first
used, and load their network once in each process.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from farl_lightning.errors import ConfigError, DatasetNotFoundError, MissingDependencyError
from farl_lightning.types import Configurable

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]

NO_DETECTOR = (
    "no face detector is given. Install one (pip install --no-deps facenet-pytorch, then detector=MTCNN(); or "
    "pip install opencv-python-headless, then detector=YuNet('face_detection_yunet_2023mar.onnx') with OpenCV's model "
    "file), or pass boxes or five points of the faces"
)
"""What to do where faces have to be found and nobody can find them."""

_SMALLEST = 16  # pixels of a side below which nobody's face can be found, and networks fail on empty layers


@dataclass(frozen=True)
class Detections:
    """The faces that a detector found in one picture, best first. Pixel centres lie at integers.

    Attributes:
        boxes: (N, 4) float32 left, top, right, bottom in pixels of the picture.
        scores: (N,) float32 in [0, 1], how sure the detector is.
        points: (N, 5, 2) float32 eyes, nose tip, mouth corners as xy in pixels, from the image's left to its right;
            None from a detector of boxes alone.
    """

    boxes: Floats
    scores: Floats
    points: Floats | None = None

    def __len__(self) -> int:
        return len(self.boxes)

    def largest(self, count: int | None) -> Detections:
        """Keep the largest faces, largest first.

        Args:
            count: How many; None keeps all as they are.
        """
        if count is None:
            return self
        area = np.prod(self.boxes[:, 2:] - self.boxes[:, :2], axis=1)
        kept = np.argsort(-area, kind="stable")[:count]
        return Detections(self.boxes[kept], self.scores[kept], None if self.points is None else self.points[kept])


@runtime_checkable
class Detector(Protocol):
    """Anything that finds faces. An adapter for another detector is one class with this one method."""

    def detect(self, image: Pixels) -> Detections:
        """Find the faces of a picture; none is an answer, not an error.

        Args:
            image: (H, W, 3) uint8 RGB, upright.
        """
        ...


def detections(boxes: Any, scores: Any, points: Any = None, scale: float = 1.0) -> Detections:
    """Make :class:`Detections` of anything array-like, best first; rows that are not finite are left out.

    Args:
        boxes: N x 4, or nothing.
        scores: N.
        points: N x 5 x 2.
        scale: What coordinates are multiplied by: the side of the picture over that of what the detector saw.
    """
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    scores = np.asarray(scores, np.float32).reshape(-1)
    points = None if points is None else np.asarray(points, np.float32).reshape(-1, 5, 2)
    # the centre of pixel x of the small picture is (x + 0.5) * scale - 0.5 of the large one
    boxes, points = (None if value is None else (value + 0.5) * scale - 0.5 for value in (boxes, points))
    finite = np.isfinite(boxes).all(axis=1) & np.isfinite(scores)
    order = np.argsort(-scores, kind="stable")
    order = order[finite[order]]
    return Detections(boxes[order], scores[order], None if points is None else points[order])


def shrink(image: Pixels, max_side: int | None) -> tuple[Pixels, float]:
    """Shrink a picture for a detector, antialiased.

    Args:
        image: (H, W, 3) uint8.
        max_side: Longest side in pixels that is left; None leaves the picture as it is.

    Returns:
        The picture, and how many times larger the given one is.
    """
    height, width = image.shape[:2]
    scale = 1.0 if max_side is None else max(height, width) / max_side
    if scale <= 1:
        return image, 1.0
    size = (max(round(width / scale), 1), max(round(height / scale), 1))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX, reducing_gap=2.0)), scale


class YuNet(Configurable, Detector):
    """OpenCV's YuNet (Wu et al., 2023, *YuNet: A Tiny Millisecond-level Face Detector*), fast on a CPU.

    Args:
        model: OpenCV's model file, ``face_detection_yunet_*.onnx`` of its model zoo; it is not part of any wheel.
        min_score: Least score of a face.
        nms_threshold: Overlap from which two boxes count as one face.
        max_side: Larger pictures are shrunk to this many pixels: YuNet finds faces of 10 to 300 pixels.
        sha256: What the file has to hash to; None does not check.

    Raises:
        ConfigError: If a number is out of range.
        DatasetNotFoundError: At first use, if the file is missing.
        MissingDependencyError: At first use, without OpenCV.
    """

    def __init__(
        self,
        model: str | Path,
        min_score: float = 0.8,
        nms_threshold: float = 0.3,
        max_side: int = 1024,
        sha256: str | None = None,
    ) -> None:
        _check_numbers(min_score, max_side)
        self.model, self.sha256 = Path(model).expanduser(), sha256
        self.min_score, self.nms_threshold, self.max_side = min_score, nms_threshold, max_side
        self._network: Any = None

    def detect(self, image: Pixels) -> Detections:
        """Find the faces of a picture.

        Args:
            image: (H, W, 3) uint8 RGB, upright.

        Raises:
            ConfigError: If the model file is not the one that ``sha256`` means, or OpenCV cannot read it.
        """
        small, scale = shrink(image, self.max_side)
        if min(small.shape[:2]) < _SMALLEST:
            return detections([], [], [])
        self._network = self._network or self._load()
        self._network.setInputSize((small.shape[1], small.shape[0]))
        _, found = self._network.detect(np.ascontiguousarray(small[..., ::-1]))
        rows = np.zeros((0, 15), np.float32) if found is None else np.asarray(found, np.float32)
        boxes = np.concatenate([rows[:, :2], rows[:, :2] + rows[:, 2:4]], axis=1)
        return detections(boxes, rows[:, 14], rows[:, 4:14], scale)

    def _load(self) -> Any:
        cv2 = _import("cv2", "pip install opencv-python-headless")
        if not self.model.is_file():
            raise DatasetNotFoundError(
                f"YuNet's model file '{self.model}' does not exist; OpenCV offers face_detection_yunet_2023mar.onnx in "
                "its model zoo, https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet"
            )
        content = self.model.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        if self.sha256 is not None and digest != self.sha256.lower():
            raise ConfigError(f"'{self.model}' has the SHA-256 {digest}, expected {self.sha256}")
        try:
            return cv2.FaceDetectorYN.create(
                str(self.model), "", (320, 320), score_threshold=self.min_score, nms_threshold=self.nms_threshold
            )
        except cv2.error as error:
            reason = str(error).strip().splitlines()[-1]
            raise ConfigError(f"OpenCV cannot read '{self.model}' ({len(content)} bytes) as YuNet: {reason}") from error

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_network": None}  # a loader's worker makes its own


class MTCNN(Configurable, Detector):
    """facenet-pytorch's MTCNN (Zhang et al., 2016, arXiv 1604.02878); its wheel carries the weights.

    The wheel pins an old torch that it does not need: ``pip install --no-deps facenet-pytorch``.

    Args:
        min_score: Least score of a face.
        min_face_size: Side of the smallest face in pixels.
        max_side: Larger pictures are shrunk to this many pixels.
        device: Where the network runs; None means the CPU.

    Raises:
        ConfigError: If a number is out of range.
        MissingDependencyError: At first use, without facenet-pytorch.
    """

    def __init__(
        self, min_score: float = 0.9, min_face_size: int = 20, max_side: int = 1024, device: str | None = None
    ) -> None:
        _check_numbers(min_score, max_side)
        self.min_score, self.min_face_size, self.max_side, self.device = min_score, min_face_size, max_side, device
        self._network: Any = None

    def detect(self, image: Pixels) -> Detections:
        """Find the faces of a picture.

        Args:
            image: (H, W, 3) uint8 RGB, upright.
        """
        small, scale = shrink(image, self.max_side)
        if min(small.shape[:2]) < max(self.min_face_size, _SMALLEST):
            return detections([], [], [])
        self._network = self._network or self._load()
        boxes, scores, points = self._network.detect(Image.fromarray(small), landmarks=True)
        if boxes is None:
            return detections([], [], [])
        certain = np.asarray(scores, np.float32) >= self.min_score
        boxes, scores, points = (np.asarray(value, np.float32)[certain] for value in (boxes, scores, points))
        return detections(boxes, scores, points, scale)

    def _load(self) -> Any:
        package = _import("facenet_pytorch", "pip install --no-deps facenet-pytorch")
        return package.MTCNN(keep_all=True, min_face_size=self.min_face_size, device=self.device or "cpu")

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_network": None}


def default_detector() -> Detector:
    """Return :class:`MTCNN`, which needs no file, if it is installed.

    Raises:
        ConfigError: If it is not; the message says what to install or to pass.
    """
    if importlib.util.find_spec("facenet_pytorch") is None:
        raise ConfigError(NO_DETECTOR)
    return MTCNN()


def _import(module: str, install: str) -> Any:
    """Import a detector's package, or say what to install."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(f"{error}: run '{install}', or pass boxes or five points of the faces") from error


def _check_numbers(min_score: float, max_side: int) -> None:
    """Refuse what no detector can mean."""
    if not (math.isfinite(min_score) and 0 <= min_score <= 1):
        raise ConfigError(f"min_score is {min_score}; scores lie between 0 and 1")
    if max_side < _SMALLEST:
        raise ConfigError(f"max_side is {max_side}; it has to be at least {_SMALLEST} pixels")


def best_overlap(boxes: Sequence[Sequence[float]] | Floats, found: Detections) -> list[int | None]:
    """Match given boxes with found faces by intersection over union.

    Args:
        boxes: (N, 4) left, top, right, bottom in pixels.
        found: What a detector says of the same picture.

    Returns:
        For each box the index of the face that overlaps it most, None where none shares at least 0.3 of the union.
    """
    given = np.asarray(boxes, np.float32).reshape(-1, 1, 4)
    if not len(found):
        return [None] * len(given)
    low, high = np.maximum(given[..., :2], found.boxes[:, :2]), np.minimum(given[..., 2:], found.boxes[:, 2:])
    shared = np.prod(np.clip(high - low, 0, None), axis=-1)
    areas = [np.prod(np.clip(box[..., 2:] - box[..., :2], 0, None), axis=-1) for box in (given, found.boxes)]
    overlap = shared / np.maximum(areas[0] + areas[1] - shared, 1e-9)
    best = overlap.argmax(axis=1)
    return [int(face) if row[face] >= 0.3 else None for face, row in zip(best, overlap, strict=True)]
