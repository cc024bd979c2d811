"""What a benchmark's YAML file says: encoders, tasks, ways of tuning, shares of labels, seeds, published rows."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, TypeVar

from farl_lightning.errors import ConfigError, did_you_mean

T = TypeVar("T")

TRAINED = ("frozen", "finetune", "lora")
"""Ways of tuning that train a task."""

PROBED = ("linear", "knn")
"""Ways that need features alone, computed once for each encoder."""

METHODS = (*TRAINED, *PROBED)
"""What may stand in ``methods``."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class Pretraining:
    """How an encoder is made before anything is measured.

    Attributes:
        config: A config of ``farl-lightning fit``, as a file or a shipped name.
        settings: Laid over it.
    """

    config: str
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Encoder:
    """One representation.

    Attributes:
        name: Its key in the file.
        title: What tables call it; by default the name.
        weights: A file, or the name of known weights. Without weights and without ``pretrain`` it starts at random.
        pretrain: How to make it, instead of ``weights``.
        backbone: A network of another library instead of ours, such as ``"timm/resnet18"``; ``weights`` are its own.
            Its features can be probed, it is not trained.
        image: Settings of the image tower, over the benchmark's own.
    """

    name: str
    title: str = ""
    weights: str | None = None
    pretrain: Pretraining | None = None
    backbone: str | None = None
    image: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse two sources of weights."""
        if self.weights is not None and self.pretrain is not None:
            raise ConfigError(f"encoders.{self.name} has weights and pretrain; give one of them")
        if self.backbone is not None and (self.pretrain is not None or self.image):
            raise ConfigError(f"encoders.{self.name} is a network of another library; pretrain and image do not apply")


@dataclass(frozen=True)
class Published:
    """A published number, shown beside ours.

    Attributes:
        model: Whose it is.
        value: In the unit of the task's metric.
        data: The data that it was measured on.
        labels: Share of the labels that it was trained on.
        method: One of ``METHODS``.
        mark: ``"confirmed"`` by a primary source, or ``"recalled"``.
        source: Where it stands.
    """

    model: str
    value: float
    data: str = ""
    labels: float = 1.0
    method: str = "finetune"
    mark: str = "confirmed"
    source: str = ""

    def __post_init__(self) -> None:
        """Refuse what no table could show."""
        _check_words("reference method", [self.method], METHODS)
        _check_words("reference mark", [self.mark], ("confirmed", "recalled"))
        _check_number("reference value", self.value)
        _check_share("reference labels", self.labels)


@dataclass(frozen=True)
class Task:
    """What a representation is judged by.

    Attributes:
        name: Its key in the file.
        config: A config of ``farl-lightning fit``, as a file or a shipped name.
        metric: Key of the metric that the table shows, such as ``"test/f1_mean"``.
        title: What tables call it; by default the name.
        mode: ``"max"`` if more is better, else ``"min"``.
        unit: Unit of the metric, for people.
        digits: Decimals in tables.
        settings: Laid over the config.
        methods: Instead of the benchmark's; None takes those.
        column: Name of the label that probes guess (``linear``, ``knn``).
        reference: Published rows.
    """

    name: str
    config: str
    metric: str
    title: str = ""
    mode: str = "max"
    unit: str = ""
    digits: int = 2
    settings: Mapping[str, Any] = field(default_factory=dict)
    methods: Sequence[str] | None = None
    column: str | None = None
    reference: Sequence[Published] = ()

    def __post_init__(self) -> None:
        """Refuse unknown words, and a metric that is not one of the test."""
        _check_words(f"tasks.{self.name}.mode", [self.mode], ("max", "min"))
        _check_words(f"tasks.{self.name}.methods", self.methods or [], METHODS)
        if not str(self.metric).startswith("test/"):
            raise ConfigError(
                f"tasks.{self.name}.metric is '{self.metric}'; results are those of the test: give 'test/...'"
            )
        if not (isinstance(self.digits, int) and 0 <= self.digits <= 6):
            raise ConfigError(f"tasks.{self.name}.digits is {self.digits!r}; give a number from 0 to 6")


@dataclass(frozen=True)
class Benchmark:
    """A whole benchmark.

    Attributes:
        title: Heading of the table.
        encoders: What is compared.
        tasks: What it is judged by.
        about: A paragraph below the heading.
        output: Folder of results.
        image: Settings of the image tower that all encoders share, laid over each config's own; give its ``name``, too,
            where configs have different architectures.
        settings: Laid over the config of every task, below the task's own settings.
        pretrain_settings: Laid over the config of every pretraining, below the encoder's own settings.
        methods: Ways of tuning: some of ``METHODS``.
        labels: Shares of the training labels, above 0 and up to 1.
        seeds: Seeds; each draws other labels, batches and new weights.
        baseline: Name of the encoder that gains are taken over; None for none.
    """

    title: str
    encoders: Sequence[Encoder]
    tasks: Sequence[Task]
    about: str = ""
    output: str = "runs/benchmark"
    image: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    pretrain_settings: Mapping[str, Any] = field(default_factory=dict)
    methods: Sequence[str] = ("frozen",)
    labels: Sequence[float] = (1.0,)
    seeds: Sequence[int] = (0,)
    baseline: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be run.

        Raises:
            ConfigError: With the setting's name, its value and what is allowed.
        """
        _check_words("methods", self.methods, METHODS)
        for label in self.labels:
            _check_share("labels", label)
        if any(not isinstance(seed, int) or isinstance(seed, bool) or seed < 0 for seed in self.seeds):
            raise ConfigError(f"seeds are whole numbers from 0, got {list(self.seeds)}")
        for name in ("encoders", "tasks", "methods", "labels", "seeds"):
            _check_list(name, [getattr(entry, "name", entry) for entry in getattr(self, name)])
        if self.baseline is not None:
            _check_words("baseline", [self.baseline], [encoder.name for encoder in self.encoders])
        foreign = [encoder.name for encoder in self.encoders if encoder.backbone is not None]
        for task in self.tasks:
            trained = [method for method in self.methods_of(task) if method in TRAINED]
            if foreign and trained:
                raise ConfigError(
                    f"tasks.{task.name} has the method '{trained[0]}', which trains, but encoders.{foreign[0]} is a "
                    f"network of another library; its methods can be {', '.join(PROBED)}"
                )
            probed = [method for method in self.methods_of(task) if method in PROBED]
            if probed and task.column is None:
                raise ConfigError(
                    f"tasks.{task.name} has the method '{probed[0]}' but no column: name the label that probes guess"
                )

    def methods_of(self, task: Task) -> Sequence[str]:
        """Return the ways of tuning of a task.

        Args:
            task: One of ``tasks``.
        """
        return self.methods if task.methods is None else task.methods

    def chosen(self, **names: Sequence[Any] | None) -> Benchmark:
        """Return the part of the benchmark that is asked for.

        Args:
            **names: ``encoders`` and ``tasks`` by name, ``methods``, ``labels``, ``seeds``; None keeps all. The last
                three may be others than in the file.

        Raises:
            ConfigError: If a name is unknown, or a value not allowed.
        """
        given = {name: list(value) for name, value in names.items() if value is not None}
        changes: dict[str, Any] = dict(given)
        for kind in ("encoders", "tasks"):
            if kind in given:
                entries = {entry.name: entry for entry in getattr(self, kind)}
                _check_words(kind, given[kind], entries)
                changes[kind] = tuple(entry for name, entry in entries.items() if name in given[kind])
        if "methods" in given:
            tasks = changes.get("tasks", self.tasks)
            changes["tasks"] = tuple(dataclasses.replace(task, methods=None) for task in tasks)
        if self.baseline not in [encoder.name for encoder in changes.get("encoders", self.encoders)]:
            changes["baseline"] = None
        return dataclasses.replace(self, **changes)


def read_benchmark(tree: Mapping[str, Any]) -> Benchmark:
    """Read a benchmark.

    Args:
        tree: The settings of its YAML file.

    Raises:
        ConfigError: If a setting is unknown, missing or not allowed.
    """
    values = dict(tree)
    for name, kind in (("encoders", _encoder), ("tasks", _task)):
        entries = values.get(name)
        if not isinstance(entries, Mapping) or not entries:
            raise ConfigError(f"a benchmark needs '{name}': a mapping of names to settings, got {entries!r}")
        values[name] = tuple(kind(str(key), entry) for key, entry in entries.items())
    return _build(Benchmark, values, "a benchmark")


def _encoder(name: str, node: Any) -> Encoder:
    """Read one encoder; nothing at all means random weights."""
    where = f"encoders.{name}"
    values = {**_mapping({} if node is None else node, where), "name": _check_name(name, where)}
    if values.get("pretrain") is not None:
        values["pretrain"] = _build(Pretraining, values["pretrain"], f"{where}.pretrain")
    return _build(Encoder, {"title": name, **values}, where)


def _task(name: str, node: Any) -> Task:
    """Read one task."""
    where = f"tasks.{name}"
    values = {"title": name, **_mapping(node, where), "name": _check_name(name, where)}
    rows = values.get("reference") or ()
    values["reference"] = tuple(_build(Published, row, f"{where}.reference") for row in rows)
    return _build(Task, values, where)


def _build(kind: type[T], node: Any, where: str) -> T:
    """Make a dataclass of a mapping; name what it does not know, and what it lacks."""
    values = _mapping(node, where)
    known = {item.name: item for item in fields(kind)}  # type: ignore[arg-type]
    for name in values:
        if name not in known:
            raise ConfigError(f"{where} has no setting '{name}'. {did_you_mean(str(name), known)}")
    for name, item in known.items():
        if name not in values and item.default is MISSING and item.default_factory is MISSING:
            raise ConfigError(f"{where} lacks '{name}'")
        if name in values and "Mapping" in str(item.type):
            _mapping(values[name], f"{where}.{name}")
    return kind(**values)


def _mapping(node: Any, where: str) -> dict[str, Any]:
    """Return a mapping, or complain."""
    if not isinstance(node, Mapping):
        raise ConfigError(f"{where} is a mapping of settings, got {node!r}")
    return dict(node)


def _check_name(name: str, where: str) -> str:
    """Refuse names that are no file names."""
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{where}: names consist of letters, digits, '_' and '-'")
    return name


def _check_list(name: str, values: list[Any]) -> None:
    """Refuse empty lists and repeated entries."""
    if not values:
        raise ConfigError(f"{name} is empty; give at least one")
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise ConfigError(f"{name} has {twice[0]!r} twice")


def _check_words(where: str, words: Sequence[Any], allowed: Any) -> None:
    """Refuse a word that is not allowed, and text where a list belongs."""
    if isinstance(words, str):
        raise ConfigError(f"{where} is a list, got '{words}'; write [{words}]")
    for word in words:
        if word not in allowed:
            raise ConfigError(f"{where}: there is no '{word}'. {did_you_mean(str(word), allowed)}")


def _check_share(where: str, value: Any) -> None:
    """Refuse what is no share."""
    _check_number(where, value)
    if not 0 < value <= 1:
        raise ConfigError(f"{where} are shares above 0 and up to 1 (0.1 is 10 %), got {value}")


def _check_number(where: str, value: Any) -> None:
    """Refuse what is no number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigError(f"{where} is a number, got {value!r}")
