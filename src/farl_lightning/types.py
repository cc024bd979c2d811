"""Where tasks and datamodules meet: the schema of batches, the face specification, recorded constructors."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, TypeVar

from farl_lightning.errors import ConfigError

if TYPE_CHECKING:  # this module stays importable in milliseconds
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

ATTRIBUTES = "attributes"
"""Column of labels that holds all binary attributes of a face at once."""


class Drop(TypedDict):
    """One sample (or shard) that was skipped, and why."""

    key: str
    reason: str
    detail: str


class PretrainBatch(TypedDict, total=False):
    """A batch of image-text pairs. Only ``image`` and ``key`` are always there."""

    image: Tensor
    """(B, 3, H, W) float32, normalised with the mean and std of the ``FaceSpec``."""
    text: Tensor
    """(B, L) int64 token ids; one caption per image, drawn anew each epoch in training."""
    texts: Tensor
    """(B, K, L) int64, evaluation only: every caption of each image; rows of zeros pad to K."""
    patch_mask: Tensor
    """(B, N) bool, True = masked; patches row by row; the count varies from image to image."""
    labels: Tensor
    """(B, A) int64 attributes in the order of ``FaceSpec.attributes``: 1 yes, 0 no, -1 unknown."""
    valid: Tensor
    """(B,) bool, evaluation only: False marks a repeat that pads the last batches of a distributed run."""
    key: list[str]
    """The name of each sample, unique in its dataset."""
    caption: list[str]
    """The caption behind ``text`` as words, for pictures."""
    dropped: list[Drop]
    """What was skipped on the way to this batch."""


class FeatureBatch(TypedDict, total=False):
    """What ``predict`` makes of a batch. Only ``key`` and ``image_features`` are always there."""

    key: list[str]
    """The name of each sample."""
    image_features: Tensor
    """(B, E) float32 of length 1."""
    text_features: Tensor
    """(B, E) float32 of length 1, of the captions in ``text``."""
    valid: Tensor
    """(B,) bool: False marks what does not count, as in :class:`PretrainBatch`."""


class FaceBatch(TypedDict, total=False):
    """A batch of single faces with dense or global labels. Only ``image`` and ``key`` are always there.

    "Crop" pixels are those of ``image``, "source" pixels those of the picture as stored, upright. Pixel centres lie at
    integers in both.
    """

    image: Tensor
    """(B, 3, S, S) float32, normalised with the mean and std of the ``FaceSpec``."""
    mask: Tensor
    """(B, S, S) int64 parsing labels of the crop, 255 = ignore."""
    landmarks: Tensor
    """(B, N, 2) float32, xy in crop pixels; points may lie outside the crop."""
    visible: Tensor
    """(B, N) bool; False marks a landmark that its dataset calls hidden."""
    labels: dict[str, Tensor]
    """Labels of the whole face, by column. A class is (B,) int64, the number of its name in
    ``FaceSpec.label_names[column]``, -1 unknown; a number (no names) is (B,) float32, nan unknown; ``"attributes"`` is
    (B, A) int64 in the order of ``FaceSpec.attributes``: 1 yes, 0 no, -1 unknown."""
    groups: dict[str, list[str]]
    """Subgroups that results are split by, by column, one name per picture; "" where none is known."""
    matrix: Tensor
    """(B, 3, 3) float32, source to crop pixels, before the tanh warp of the ``FaceSpec``."""
    size: Tensor
    """(B, 2) int64, height and width of the source picture."""
    source_mask: list[Tensor]
    """Evaluation only: for each picture the (H, W) uint8 labels in source pixels, 255 = ignore."""
    source_landmarks: Tensor
    """(B, N, 2) float32, evaluation only: the landmarks in source pixels."""
    box: Tensor
    """(B, 4) float32 left, top, right, bottom in source pixels: the box that errors are normalised by; nan = none."""
    subsets: list[tuple[str, ...]]
    """Evaluation only: names of the dataset's subsets that each picture belongs to."""
    source_image: list[npt.NDArray[np.uint8]]
    """Photographs only: for each face the whole (H, W, 3) uint8 picture, upright; an array, so that no GPU takes it."""
    path: list[str]
    """Photographs only: where the picture of each face is."""
    score: Tensor
    """(B,) float32, photographs only: how sure a detector is of each face, 0 to 1; nan where none was asked."""
    valid: Tensor
    """(B,) bool, evaluation only: False marks a repeat or a skipped sample, which no metric may count."""
    draws: list[list[dict[str, Any]]]
    """What the photometric steps drew for each picture, where the training device applies them to uint8 images."""
    key: list[str]
    """The name of each sample, unique in its dataset."""
    dropped: list[Drop]
    """What was skipped on the way to this batch."""


class FacePrediction(TypedDict, total=False):
    """What ``predict`` makes of a batch of face crops, in source pixels. Only ``key`` is always there."""

    key: list[str]
    """The name of each sample."""
    labels: list[Tensor]
    """For each face (H, W) uint8 labels of its whole source picture; background where its crop does not reach."""
    landmarks: Tensor
    """(B, N, 2) float32 xy in source pixels."""
    confidence: Tensor
    """(B, N) float32 in [0, 1]: the highest value of each landmark's heatmap."""
    answers: dict[str, Tensor]
    """Answers for the whole face by name, (B,) float32: the probability of each attribute or class, or an age."""
    valid: Tensor
    """(B,) bool: False marks what does not count, as in :class:`FaceBatch`."""


@dataclasses.dataclass(frozen=True)
class FaceRecord:
    """One picture of one face as its dataset stores it, in source pixels: what dense transforms start from.

    Attributes:
        key: Name of the sample, unique in its dataset.
        image: (H, W, 3) uint8 RGB, upright.
        mask: (H, W) uint8 parsing labels, 255 = ignore.
        landmarks: (N, 2) float32 xy, pixel centres at integers.
        visible: (N,) bool; None means all.
        points: (5, 2) float32 eye centres, nose tip, mouth corners, from the image's left to its right: what an aligned
            crop is fitted to.
        box: Left, top, right, bottom in pixels: what a box crop stretches over the network's input.
        error_box: Left, top, right, bottom in pixels that landmark errors are normalised by; None takes ``box``.
        subsets: Names of the dataset's subsets that the picture belongs to.
        labels: Labels of the whole face, by column: an int is a class (-1 unknown), a float a number (nan unknown),
            ``"attributes"`` an (A,) array of 1, 0 and -1; see :class:`FaceBatch`.
        groups: Subgroup of the picture, by column.
    """

    key: str
    image: npt.NDArray[np.uint8]
    mask: npt.NDArray[np.uint8] | None = None
    landmarks: npt.NDArray[np.float32] | None = None
    visible: npt.NDArray[np.bool_] | None = None
    points: npt.NDArray[np.float32] | None = None
    box: tuple[float, float, float, float] | None = None
    error_box: tuple[float, float, float, float] | None = None
    subsets: tuple[str, ...] = ()
    labels: dict[str, int | float | npt.NDArray[np.int64]] = dataclasses.field(default_factory=dict)
    groups: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class FaceSpec:
    """What a model must know of the faces it was trained on. Travels inside checkpoints and exports.

    Attributes:
        image_size: Side of the square network input in pixels.
        mean: Per-channel mean of RGB in [0, 1] that is subtracted.
        std: Per-channel standard deviation that divides.
        crop: How a face is cut from a photo: ``"none"``, ``"box"``, ``"align"`` (similarity to ``template``)
            or ``"quad"`` (CelebA's).
        template: Five target points (x, y) on [-1, 1] of an aligned crop: eyes, nose, mouth corners,
            in the order in which they lie from the image's left to its right.
        warp_factor: Factor of the tanh warp; 0 is a plain affine crop.
        zoom: Scale of the crop about its centre, after the crop rule; below 1 shows more around the face.
        classes: Names of the parsing classes, by label id.
        class_flips: Pairs of label ids that a horizontal flip exchanges.
        num_landmarks: Number of landmarks, 0 when there are none.
        landmark_flips: Pairs of landmark indices that a horizontal flip exchanges.
        landmark_groups: Named groups of landmark indices, such as ``{"left_eye": (36, ..., 41)}``.
        attributes: Names of the binary attributes, in the order of the label columns.
        label_names: For each label of the whole face the names of its classes; none at all (an empty tuple) means that
            it is a number. ``"attributes"`` is not among them.
    """

    image_size: int = 224
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    crop: str = "none"
    template: tuple[tuple[float, float], ...] = ()
    warp_factor: float = 0.0
    zoom: float = 1.0
    classes: tuple[str, ...] = ()
    class_flips: tuple[tuple[int, int], ...] = ()
    num_landmarks: int = 0
    landmark_flips: tuple[tuple[int, int], ...] = ()
    landmark_groups: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    attributes: tuple[str, ...] = ()
    label_names: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as plain data: numbers, strings, lists and dicts."""
        plain: dict[str, Any] = to_plain(dataclasses.asdict(self))
        return plain

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> FaceSpec:
        """Rebuild a specification from :meth:`to_dict`.

        Args:
            plain: The dict; names that this version does not know are an error.

        Raises:
            ConfigError: If a name is unknown.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(set(plain) - known):
            raise ConfigError(f"FaceSpec has no {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        return cls(**{name: _freeze(value) for name, value in plain.items()})


def _freeze(value: Any) -> Any:
    """Turn lists into tuples, at any depth."""
    if isinstance(value, list | tuple):
        return tuple(_freeze(item) for item in value)
    if isinstance(value, dict):
        return {key: _freeze(item) for key, item in value.items()}
    return value


T = TypeVar("T")


class Configurable:
    """Mixin that records the arguments of the constructor, so that an object can be saved as plain data.

    A subclass needs nothing but an ordinary ``__init__``: the arguments it was called with are kept in
    ``init_args`` and :meth:`to_config` writes them as ``{"class_path": ..., "init_args": ...}``, the form that
    LightningCLI reads.
    """

    init_args: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Wrap the ``__init__`` that a subclass defines."""
        super().__init_subclass__(**kwargs)
        if "__init__" in cls.__dict__:
            cls.__init__ = _recording(cls.__init__)  # type: ignore[method-assign]

    def to_config(self) -> dict[str, Any]:
        """Return ``{"class_path", "init_args"}`` as plain data.

        Raises:
            ConfigError: If an argument is neither plain data nor another ``Configurable``.
        """
        kind = type(self)
        arguments = to_plain(self.__dict__.get("init_args", {}))
        return {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": arguments}


def _recording(init: Any) -> Any:
    """Wrap a constructor so that the outermost call keeps its arguments in ``self.init_args``."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def _init(self: Any, *args: Any, **kwargs: Any) -> None:
        if "init_args" not in self.__dict__:
            bound = signature.bind(self, *args, **kwargs)
            bound.apply_defaults()
            values = dict(list(bound.arguments.items())[1:])
            for name, parameter in signature.parameters.items():
                if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                    values.update(values.pop(name, {}))
            self.__dict__["init_args"] = values
        init(self, *args, **kwargs)

    return _init


def to_plain(value: Any) -> Any:
    """Turn a value into plain data: str, number, bool, None, list or dict.

    Args:
        value: Plain data, a dataclass instance, a path, a tuple or set, or a ``Configurable``, at any depth.

    Raises:
        ConfigError: If something in it cannot be written as plain data.

    Example:
        >>> to_plain({"size": (64, 64), "path": Path("faces")})
        {'size': [64, 64], 'path': 'faces'}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Configurable):
        return value.to_config()
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(to_plain(item) for item in value)
    raise ConfigError(
        f"a {type(value).__name__} cannot be saved as a hyper-parameter; pass plain data (numbers, strings, lists, "
        "dicts, dataclasses) or an object whose class inherits farl_lightning.types.Configurable"
    )


def from_config(config: dict[str, Any], base: type[T]) -> T:
    """Build an object from ``{"class_path", "init_args"}``.

    Args:
        config: As :meth:`Configurable.to_config` writes it; nested objects are built first.
        base: The class that the result must be an instance of; anything else is refused before it is called.

    Raises:
        ConfigError: If the class cannot be found or is not a ``base``.
    """
    module, _, name = str(config.get("class_path", "")).rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"class '{config.get('class_path')}' cannot be imported: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise ConfigError(f"class '{config['class_path']}' is not a {base.__name__}")
    arguments = {key: _build_nested(value) for key, value in config.get("init_args", {}).items()}
    return kind(**arguments)


def _build_nested(value: Any) -> Any:
    """Build every ``{"class_path": ...}`` inside plain data; only ``Configurable`` classes are built."""
    if isinstance(value, dict):
        if "class_path" in value:
            return from_config(value, Configurable)
        return {key: _build_nested(item) for key, item in value.items()}
    return [_build_nested(item) for item in value] if isinstance(value, list) else value
