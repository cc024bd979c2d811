"""From photographs to what a network says of the faces in them, in the photographs' own pixels."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import torch
from torch import Tensor
from typing_extensions import Self

from farl_lightning.errors import ConfigError, DataError
from farl_lightning.functional.ages import AgeDecoder
from farl_lightning.functional.heatmaps import denormalize_points
from farl_lightning.functional.restore import restore_labels, restore_landmarks
from farl_lightning.inference.answers import answer_reader
from farl_lightning.inference.pictures import ImageLike, Picture, Pixels, default_device, read_pictures
from farl_lightning.inference.results import FaceResult
from farl_lightning.models.attributes import GlobalNetwork
from farl_lightning.models.dense import FaceAligner, FaceParser
from farl_lightning.models.opened import DenseFaceNetwork, open_dense
from farl_lightning.transforms.crop import CropError
from farl_lightning.transforms.decode import MAX_PIXELS
from farl_lightning.transforms.detectors import Detector, default_detector
from farl_lightning.transforms.face_matrix import face_matrix
from farl_lightning.transforms.places import FacePlace, add_points, found_places
from farl_lightning.transforms.resample import FaceCut
from farl_lightning.types import FaceSpec

_log = logging.getLogger(__name__)

_WHOLE = FacePlace()  # the picture is the face


class _Cut(NamedTuple):
    """One face on its way through the network."""

    number: int
    picture: Picture
    size: tuple[int, int]
    place: FacePlace
    matrix: Tensor
    crop: Tensor


class FacePredictor:
    """Detect, crop, predict, and carry the answer back: faces of all pictures share the network's batches.

    Args:
        network: A face parser or aligner, or a network for attributes, classes, age or who it is.
        spec: Crop, size, normalisation and labels of its faces.
        detector: Finds faces; None takes facenet-pytorch's MTCNN if it is installed.
        device: Where the network runs; None takes this machine's accelerator, else its CPU.
        batch_size: Faces per pass through the network.
        max_faces: Largest number of faces that are taken from a picture, the largest first; None takes all.
        antialias: Average over the pixels of a large face that a smaller crop merges. False reads crops exactly as FaRL
            trains and evaluates on them.
        dtype: ``torch.bfloat16`` or ``torch.float16`` run the network under autocast.
        max_pixels: Largest width x height of a picture.
        column: The label of a classifier, such as ``"expression"``; None takes what its checkpoint says.
        age_method: What the outputs for an age mean, such as ``AgeOrdinal()``; None takes what the checkpoint says.

    Raises:
        ConfigError: If a number is out of range, or labels are not those of the network.

    Example:
        >>> predictor = FacePredictor.load("parsing.ckpt")  # doctest: +SKIP
        >>> faces = predictor("photo.jpg")  # doctest: +SKIP
        >>> faces[0].labels  # (H, W) uint8, in the photo's own pixels  # doctest: +SKIP
    """

    def __init__(
        self,
        network: DenseFaceNetwork,
        spec: FaceSpec,
        *,
        detector: Detector | None = None,
        device: str | torch.device | None = None,
        batch_size: int = 8,
        max_faces: int | None = None,
        antialias: bool = True,
        dtype: torch.dtype = torch.float32,
        max_pixels: int = MAX_PIXELS,
        column: str | None = None,
        age_method: AgeDecoder | None = None,
    ) -> None:
        if batch_size < 1 or (max_faces is not None and max_faces < 1):
            raise ConfigError(f"batch_size ({batch_size}) and max_faces ({max_faces}) have to be at least 1")
        self.device = torch.device(device) if device is not None else default_device()
        self.network = network.to(self.device).eval()
        self.spec, self.detector = spec, detector
        self.batch_size, self.max_faces, self.antialias = batch_size, max_faces, antialias
        self.dtype, self.max_pixels = dtype, max_pixels
        whole = isinstance(network, GlobalNetwork)
        self._read = answer_reader(network, spec, column, age_method) if whole else None  # type: ignore[arg-type]
        self._mean = torch.tensor(spec.mean, device=self.device).view(3, 1, 1) * 255
        self._std = torch.tensor(spec.std, device=self.device).view(3, 1, 1) * 255

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | torch.device | None = None,
        detector: Detector | None = None,
        *,
        kind: str | None = None,
        spec: FaceSpec | None = None,
        ema: bool = True,
        **options: Any,
    ) -> Self:
        """Load a network and all it needs to know of faces.

        Args:
            path: A checkpoint of our parsing, alignment, attribute, classification, age or verification task, a
                training state of FaRL, a file of facer, or the name of known weights, such as
                ``"facer-parsing-lapa"``.
            device: See the class.
            detector: See the class.
            kind: ``"parsing"``, ``"alignment"``, ``"attributes"``, ``"classification"``, ``"age"`` or
                ``"verification"``, where the file does not say.
            spec: What the network expects of faces, where the file does not say, or to replace what it says.
            ema: Whether the averaged weights are taken where a file holds both.
            **options: Further arguments of the class.

        Raises:
            CheckpointError: If the file holds no such network, or nothing says what it expects.
        """
        opened = open_dense(path, kind=kind, spec=spec, ema=ema)
        return cls(opened.network, opened.spec, device=device, detector=detector, **options)

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a str is a Sequence[str], too; it is one picture here
        self, images: ImageLike, boxes: Any = None, points: Any = None, detect: bool = True
    ) -> list[FaceResult]: ...

    @overload
    def __call__(
        self, images: Sequence[ImageLike], boxes: Any = None, points: Any = None, detect: bool = True
    ) -> list[list[FaceResult]]: ...

    def __call__(
        self,
        images: ImageLike | Iterable[ImageLike],
        boxes: Any = None,
        points: Any = None,
        detect: bool = True,
    ) -> list[FaceResult] | list[list[FaceResult]]:
        """Predict.

        Args:
            images: One picture (path, bytes, PIL image, array (H, W, 3), tensor (3, H, W)), or a list of pictures.
            boxes: Where the faces are, (N, 4) left, top, right, bottom in pixels of the upright picture; for several
                pictures a list with such an array or None for each. A crop by ``"box"`` stretches them over the crop as
                they are; crops by points ask the detector for the points of the face in each box.
            points: Five points of each face, (N, 5, 2): eyes, nose tip, mouth corners, from the image's left to its
                right; likewise.
            detect: False takes each picture for the crop of one face already.

        Returns:
            The faces of the picture; for several pictures one list for each. A picture without a face gives an empty
            list.

        Raises:
            DataError: If a picture cannot be read, or a face that was given cannot be cropped.
            ConfigError: If boxes or points do not fit, or faces have to be found and there is no detector.
        """
        pictures, single = read_pictures(images, self.max_pixels)
        given = _given(boxes, points, len(pictures), single)
        results: list[list[FaceResult]] = [[] for _ in pictures]
        waiting: list[_Cut] = []
        for number, picture in enumerate(pictures):
            for cut in self._cut_faces(number, picture, given[number], detect):
                waiting.append(cut)
                if len(waiting) == self.batch_size:
                    self._predict(waiting, results)
                    waiting = []
        if waiting:
            self._predict(waiting, results)
        return results[0] if single else results

    def _cut_faces(self, number: int, picture: Picture, given: list[FacePlace] | None, detect: bool) -> Iterator[_Cut]:
        """Yield the faces of one picture, cropped."""
        image = picture.pixels()
        size = (image.shape[0], image.shape[1])
        spec = self.spec if detect or given is not None else _whole_picture(self.spec)
        for place in self._places(image, given, spec):
            try:
                matrix = face_matrix(spec, size, box=place.crop_box, points=place.points)
            except CropError as error:
                if place.score is None:  # given by the caller, who wants to know
                    raise CropError(f"{picture.path or picture.name}: {error}{self._advice(place)}") from error
                _log.warning("%s: a face that was found is left out: %s", picture.path or picture.name, error)
                continue
            cut = FaceCut(matrix, spec.image_size, spec.warp_factor, size, self.antialias)
            yield _Cut(number, picture, size, place, matrix, cut.image(image))

    def _places(self, image: Pixels, given: list[FacePlace] | None, spec: FaceSpec) -> list[FacePlace]:
        """Return where the faces of a picture are."""
        by_points = spec.crop in ("align", "quad")
        if given is not None:
            bare = by_points and any(place.points is None for place in given)
            return add_points(given, image, self._find()) if bare else given
        if spec.crop == "none":
            return [_WHOLE]
        found = self._find().detect(image).largest(self.max_faces)
        if by_points and len(found) and found.points is None:
            raise ConfigError(
                f"the network's crop '{spec.crop}' needs five points of each face, and {type(self.detector).__name__} "
                "finds boxes alone; take another detector, or pass points"
            )
        return found_places(found)

    def _find(self) -> Detector:
        """Return the detector."""
        if self.detector is None:
            self.detector = default_detector()
        return self.detector

    def _advice(self, place: FacePlace) -> str:
        """Say what is missing."""
        if self.spec.crop == "box" and place.box is None:
            return "; pass boxes"
        if place.points is None and self.spec.crop in ("align", "quad"):
            return f" (no face was found in the box {place.box}); pass points"
        return ""

    @torch.inference_mode()
    def _predict(self, cuts: list[_Cut], results: list[list[FaceResult]]) -> None:
        """Run the network on a batch of faces, and file the answers."""
        images = torch.stack([cut.crop for cut in cuts]).to(self.device)
        images = (images - self._mean) / self._std
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            output: Any = self.network(images)
        for cut, answer in zip(cuts, self._answers(output, cuts), strict=True):
            matrix = cut.matrix.numpy()
            results[cut.number].append(FaceResult(cut.picture, cut.size, cut.place, matrix, self.spec, **answer))

    def _answers(self, output: Any, cuts: list[_Cut]) -> Iterator[dict[str, Any]]:
        """Carry what the network says of each crop back to its picture."""
        spec = self.spec
        if isinstance(self.network, FaceParser):
            for cut, logits in zip(cuts, output, strict=True):
                labels = restore_labels(logits, cut.matrix.float(), cut.size, spec.warp_factor)
                yield {"labels": labels.cpu().numpy()}
        elif isinstance(self.network, FaceAligner):
            points, logits = output.points.double().cpu(), output.logits.float()
            crop_points = denormalize_points(points, (spec.image_size, spec.image_size))
            matrices = torch.stack([cut.matrix for cut in cuts])
            landmarks = restore_landmarks(crop_points, matrices, spec.image_size, spec.warp_factor)
            peaks = logits.flatten(2).amax(-1).sigmoid().cpu().numpy()
            for marks, peak in zip(landmarks.float().numpy(), peaks, strict=True):
                yield {"landmarks": marks, "confidence": peak}
        elif self._read is not None:
            yield from self._read(output)


def _whole_picture(spec: FaceSpec) -> FaceSpec:
    """Return the specification of crops that are cut already: what the crop shows is the picture."""
    return dataclasses.replace(spec, crop="none", zoom=1.0)


def _given(boxes: Any, points: Any, count: int, single: bool) -> list[list[FacePlace] | None]:
    """Turn boxes and points into places for each picture; None where nothing is given."""
    listed = {}
    for name, value, axes in (("boxes", boxes, 2), ("points", points, 3)):
        rows = [value] if single else [None] * count if value is None else list(value)
        if len(rows) != count:
            raise ConfigError(
                f"{name} has {len(rows)} entries for {count} pictures; give one array, or None, for each picture"
            )
        listed[name] = [_per_face(row, axes, f"{name} of picture {number}") for number, row in enumerate(rows)]
    return [_pair(*pair, number) for number, pair in enumerate(zip(listed["boxes"], listed["points"], strict=True))]


def _per_face(value: Any, axes: int, name: str) -> list[Any] | None:
    """Return one entry per face; a single face may come without the axis of faces."""
    if value is None:
        return None
    try:
        array = np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{name} are no numbers of one shape: {error}") from error
    if array.ndim == axes - 1 and array.size:
        array = array[None]
    shape = (4,) if axes == 2 else (5, 2)
    if array.size and array.shape[1:] != shape:
        wanted = "(N, 4): left, top, right, bottom" if axes == 2 else "(N, 5, 2): eyes, nose tip, mouth corners as x, y"
        raise ConfigError(f"{name} have shape {array.shape}, expected {wanted}")
    return list(array)


def _pair(boxes: list[Any] | None, points: list[Any] | None, number: int) -> list[FacePlace] | None:
    """Join boxes and points of one picture."""
    if boxes is None and points is None:
        return None
    if boxes is not None and points is not None and len(boxes) != len(points):
        raise ConfigError(f"picture {number} has {len(boxes)} boxes and {len(points)} sets of points; they go together")
    faces = len(boxes if boxes is not None else points or ())
    pairs = zip(boxes or [None] * faces, points or [None] * faces, strict=True)
    try:
        return [FacePlace.checked(box, marks) for box, marks in pairs]
    except ValueError as error:
        raise DataError(f"picture {number}: {error}") from error
