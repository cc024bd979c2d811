"""What a network for whole faces says: probabilities by name, years, or the features of a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor

from farl_lightning.errors import ConfigError, did_you_mean
from farl_lightning.functional.ages import AgeDecoder, age_decoder
from farl_lightning.models.attributes import FaceAge, FaceClassifier, FaceEmbedder, GlobalNetwork
from farl_lightning.types import FaceSpec

Reader = Callable[[Tensor], Iterator[dict[str, Any]]]
"""From (B, num_outputs) outputs to the fields of one :class:`~farl_lightning.inference.FaceResult` after the other."""


def answer_reader(network: GlobalNetwork, spec: FaceSpec, column: str | None, method: AgeDecoder | None) -> Reader:
    """Choose how the outputs of a network are read.

    Args:
        network: Its ``task_settings`` say what ``column`` and ``method`` do not.
        spec: Names of attributes and classes.
        column: The label of a classifier.
        method: What the outputs for an age mean.

    Raises:
        ConfigError: If labels or method are not those of the network.
    """
    settings = network.task_settings
    if isinstance(network, FaceAge):
        return _years(network, method or age_decoder(settings.get("method")))
    if isinstance(network, FaceClassifier):
        return _classes(class_names(network, spec, column))
    if isinstance(network, FaceEmbedder):
        return _embeddings
    names = spec.attributes or tuple(f"attribute_{number}" for number in range(network.num_outputs))

    def _read(outputs: Tensor) -> Iterator[dict[str, Any]]:
        for row in outputs.float().sigmoid().tolist():
            yield {"attributes": dict(zip(names, row, strict=True))}

    return _read


def class_names(network: FaceClassifier, spec: FaceSpec, column: str | None = None) -> tuple[str, ...]:
    """Return the names of the classes that a network tells apart.

    Args:
        network: Its ``task_settings`` say the label where ``column`` does not.
        spec: Names of the classes of each label; where the label is not among them, classes are numbered.
        column: The label.

    Raises:
        ConfigError: If a label was given that is not described, or has another number of classes.
    """
    chosen = column or network.task_settings.get("column")
    names = spec.label_names.get(str(chosen), ())
    if column is not None and not names:
        raise ConfigError(f"there are no classes of '{column}'. {did_you_mean(column, spec.label_names)}".strip())
    if names and len(names) != network.num_outputs:
        raise ConfigError(f"label '{chosen}' has {len(names)} classes, the network {network.num_outputs} outputs")
    return names or tuple(f"class_{number}" for number in range(network.num_outputs))


def _classes(names: tuple[str, ...]) -> Reader:
    """Read probabilities of classes."""

    def _read(outputs: Tensor) -> Iterator[dict[str, Any]]:
        for row in outputs.float().softmax(1).tolist():
            yield {"probabilities": dict(zip(names, row, strict=True))}

    return _read


def _embeddings(outputs: Tensor) -> Iterator[dict[str, Any]]:
    """Read embeddings."""
    for row in outputs.float().cpu().numpy():
        yield {"embedding": row}


def _years(network: FaceAge, method: AgeDecoder) -> Reader:
    """Read ages."""
    if method.num_outputs != network.num_outputs:
        raise ConfigError(
            f"the way that ages are read takes {method.num_outputs} outputs, the network has {network.num_outputs}; "
            "pass age_method, the one that it was trained by"
        )

    def _read(outputs: Tensor) -> Iterator[dict[str, Any]]:
        for years in method.decode(outputs).tolist():
            yield {"age": years}

    return _read
