"""What the user gave: config files and flags, merged in order, each value with the place it came from.

The parser proper is jsonargparse. This reading of the same arguments needs neither torch nor any class, so that a
missing file is reported at once, and it remembers which file and line, or which flag, gave a value: error messages
and the comparison with a checkpoint name that place.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from farl_lightning.cli.shipped import find_config
from farl_lightning.errors import ConfigError, FarlError

Key = tuple[str | int, ...]
"""The way to a value: names of settings, positions in lists."""

CLASS_KEYS = ("class_path", "init_args", "dict_kwargs")
_CLASS_ROOTS = ("model", "data")  # always classes, also before one is named
_SWITCHES = ("ckpt_override",)  # flags without a value


class Raw(str):
    """A flag's value as typed; its type is known only when the argument is."""

    __slots__ = ()

    def load(self) -> Any:
        """Return the value as YAML reads it; text that is no YAML stays text."""
        try:
            return yaml.safe_load(self)
        except yaml.YAMLError:
            return str(self)


def load_raw(node: Any) -> Any:
    """Return settings with the values of flags read as YAML.

    Args:
        node: A value, or a tree of them.
    """
    if isinstance(node, Raw):
        return node.load()
    if isinstance(node, dict):
        return {key: load_raw(value) for key, value in node.items()}
    return [load_raw(item) for item in node] if isinstance(node, list) else node


@dataclasses.dataclass
class Problem:
    """One thing that is wrong, and where.

    Attributes:
        place: File and line, or the flag.
        text: What is wrong and what to do.
    """

    place: str
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}" if self.place else self.text


class UsageError(ConfigError):
    """Everything that is wrong with a command line, at once.

    Attributes:
        problems: In the order in which they were found.
    """

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = problems


@dataclasses.dataclass
class Settings:
    """The merged settings of one command.

    Attributes:
        verb: The subcommand.
        tree: Files and flags merged in the order given; values of flags are :class:`Raw`.
        places: Where each value comes from.
        argv: Arguments for jsonargparse: the same, with every config's name replaced by its path.
        informs: Whether the command only asks for help or for the merged config.
        inherited: Arguments that were given to another class before it was replaced, and where. jsonargparse keeps
            those that the new class knows too, and drops the others.
        below: What a checkpoint brought.
        found_last: Whether ``--ckpt_path last`` was given, so that every process looked for a checkpoint itself.
    """

    verb: str
    tree: dict[str, Any] = dataclasses.field(default_factory=dict)
    places: dict[Key, str] = dataclasses.field(default_factory=dict)
    argv: list[str] = dataclasses.field(default_factory=list)
    informs: bool = False
    inherited: dict[Key, str] = dataclasses.field(default_factory=dict)
    below: dict[str, Any] = dataclasses.field(default_factory=dict)
    found_last: bool = False

    def place(self, key: Key) -> str:
        """Return where a value (or the nearest thing around it) was given."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.places:
                return self.places[key[:length]]
        return ""

    def lay_below(self, name: str, node: dict[str, Any], place: str) -> None:
        """Lay settings below what was given.

        Args:
            name: A top-level setting.
            node: Its settings, which whatever was given replaces.
            place: Where they come from.
        """
        given = self.tree.pop(name, None)
        given = {"class_path": given} if isinstance(given, str) else given
        places = dict(_below(self.places, (name,)))
        self.below[name] = node
        self.tree[name] = copy.deepcopy(node)
        self.places[(name,)] = place
        if given is not None:
            self.merge({name: given}, places)

    def merge(self, value: dict[str, Any], places: dict[Key, str]) -> None:
        """Lay a mapping over the settings, as jsonargparse does: mappings merge, other values replace."""
        for name, item in value.items():
            self._merge_item((), name, item, places)

    def _merge_item(self, parent: Key, name: str, item: Any, places: dict[Key, str]) -> None:
        """Merge one entry of a mapping; ``name+`` appends to a list."""
        node = self._get(parent)
        given = (*parent, name)
        if name.endswith("+") and isinstance(item, list):
            self._append((*parent, name[:-1]), item, {key[len(given) :]: at for key, at in _below(places, given)})
            return
        old = node.get(name)
        if isinstance(item, dict) and isinstance(old, dict):
            if _other_class(old, item):
                self._inherit(given, old)
            self.places.update({given: places[given]} if given in places else {})
            for inner, value in item.items():
                self._merge_item(given, inner, value, places)
            return
        for stale in [key for key, _ in _below(self.places, given)]:
            del self.places[stale]
        node[name] = item
        self.places.update(_below(places, given))

    def _inherit(self, key: Key, node: dict[str, Any]) -> None:
        """Note that the arguments of a class are left from another one."""
        for name in node.get("init_args") or {}:
            inner = (*key, "init_args", name)
            self.inherited[inner] = self.place(inner)

    def _append(self, key: Key, items: list[Any], places: dict[Key, str]) -> None:
        """Append to a list, which is made when it is not there."""
        node = self._get(key[:-1])
        old = node.get(key[-1])
        known = old if isinstance(old, list) else [] if old is None else [old]
        node[key[-1]] = [*known, *items]
        for inner, at in places.items():
            first, *rest = inner or (0,)
            place: Key = (*key, int(first) + len(known), *rest)
            self.places[place] = at

    def _get(self, key: Key) -> Any:
        """Return the node at ``key``."""
        node: Any = self.tree
        for part in key:
            node = node[part]
        return node

    def set_flag(self, name: str, value: str) -> None:
        """Lay one flag over the settings: ``model.optim.lr``, ``trainer.callbacks+``, ``model.objectives.x.weight``."""
        *parents, leaf = name.removesuffix("+").split(".")
        node: Any = self.tree
        key: Key = ()
        for part in parents:
            for step in _step_into(node, part):
                node, taken = _descend(node, step, is_root=not key)
                key = (*key, *taken)
        *inside, last = _step_into(node, leaf)
        for step in inside:
            node, key = node.setdefault(step, {}), (*key, step)
        self._set(node, (*key, last), _typed(value), name)

    def _set(self, node: dict[str, Any], key: Key, value: Any, name: str) -> None:
        """Set the last part of a flag."""
        flag, last = f"--{name}", str(key[-1])
        old = node.get(last)
        if name.endswith("+"):
            self._append(key, value if isinstance(value, list) else [value], {(): flag})
        elif isinstance(old, dict) and isinstance(value, dict):
            self._merge_item(key[:-1], last, value, {key: flag})
        elif isinstance(old, dict) and _is_class_node(old) and isinstance(value, Raw) and isinstance(value.load(), str):
            if "class_path" in old and _class_name(old) != value.rsplit(".", 1)[-1]:
                self._inherit(key, old)
            old["class_path"], key = value, (*key, "class_path")
            self.places[key] = flag
        else:
            node[last] = value
            self.places[key] = flag


def _below(places: dict[Key, str], key: Key) -> list[tuple[Key, str]]:
    """Return the places at and below ``key``."""
    return [(other, at) for other, at in places.items() if other[: len(key)] == key]


def _class_name(node: dict[str, Any]) -> str:
    """Return the short class name of a ``{class_path, init_args}`` node."""
    return str(node.get("class_path", "")).rsplit(".", 1)[-1]


def _other_class(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether both name a class, and not the same one: then the old arguments no longer apply."""
    return "class_path" in old and "class_path" in new and _class_name(old) != _class_name(new)


def _is_class_node(node: Any) -> bool:
    """Whether a node is ``{class_path, ...}`` rather than a plain mapping."""
    return isinstance(node, dict) and any(name in node for name in CLASS_KEYS)


def _step_into(node: Any, part: str) -> tuple[str, ...]:
    """Return the keys that one dotted part of a flag stands for: ``init_args`` may be left out on the command line."""
    if _is_class_node(node) and part not in CLASS_KEYS:
        return ("init_args", part)
    return (part,)


def _typed(value: str) -> Any:
    """Read a flag's value: mappings and lists at once, anything else when its type is known."""
    loaded = Raw(value).load() if value[:1] in ("{", "[") else None
    return loaded if isinstance(loaded, dict | list) else Raw(value)


def _descend(node: dict[str, Any], part: str, *, is_root: bool) -> tuple[dict[str, Any], Key]:
    """Walk into (and make) a node on the way to a flag's value; return it and its key relative to ``node``."""
    child, key = node.get(part), (part,)
    if isinstance(child, list) and child:  # jsonargparse: options after a list belong to its last item
        index = len(child) - 1
        if not isinstance(child[index], dict):
            child[index] = {"class_path": str(child[index])}
        return child[index], (part, index)
    if isinstance(child, str) and child:  # a class given by name alone
        node[part] = {"class_path": str(child)}
    elif not isinstance(child, dict):
        node[part] = {"init_args": {}} if is_root and part in _CLASS_ROOTS else {}
    return node[part], key


def read_settings(verb: str, argv: list[str]) -> Settings:
    """Read the arguments of a verb.

    Args:
        verb: The subcommand, such as ``"fit"``.
        argv: What follows it.

    Raises:
        UsageError: With every config that is missing or no YAML, and every stray word.
    """
    settings = Settings(verb)
    problems = [problem for name, value in _tokens(argv) for problem in _try_to_take(settings, name, value)]
    if problems:
        raise UsageError(problems)
    return settings


def _try_to_take(settings: Settings, name: str, value: str | None) -> list[Problem]:
    """Take one argument into the settings; return what is wrong with it."""
    try:
        _take(settings, name, value)
    except UsageError as error:
        return error.problems
    except FarlError as error:
        return [Problem("", str(error))]
    return []


def _take(settings: Settings, name: str, value: str | None) -> None:
    """Take one argument into the settings, and pass it on to ``argv``."""
    if name in ("h", "help", "print_config") or name.endswith(".help"):
        settings.informs = True
        # unset settings of the Trainer fill pages and say nothing
        settings.argv.append("--print_config=skip_null" if name == "print_config" and not value else _flag(name, value))
        return
    if not name:
        hint = f"Did you mean --config {value}?" if str(value).endswith((".yaml", ".yml")) else "Options begin with --."
        raise UsageError([Problem("", f"'{value}' stands alone. {hint}")])
    if name in ("c", "config"):
        _take_config(settings, value)
        return
    if value is None and name not in _SWITCHES:
        raise UsageError([Problem(f"--{name}", "a value is missing")])
    settings.argv.append(_flag(name, value))
    settings.set_flag(name, "true" if value is None else value)


def _take_config(settings: Settings, value: str | None) -> None:
    """Read a config file into the settings."""
    if value is None:
        raise UsageError([Problem("--config", "a file or a shipped config's name is missing")])
    path = find_config(value)
    tree, places = read_yaml(path)
    settings.argv.append(f"--config={path}")
    settings.merge(tree, places)


def _flag(name: str, value: str | None) -> str:
    """Write a flag in one word."""
    dashes = "-" if len(name) == 1 else "--"
    return f"{dashes}{name}" if value is None else f"{dashes}{name}={value}"


def _tokens(argv: list[str]) -> Iterator[tuple[str, str | None]]:
    """Split arguments into (name without dashes, value or None); a stray word has no name."""
    position = 0
    while position < len(argv):
        word = argv[position]
        position += 1
        if not _is_flag(word):
            yield "", word
            continue
        name, equals, value = word.lstrip("-").partition("=")
        follows = position < len(argv) and not _is_flag(argv[position])
        if equals:
            yield name, value
        elif follows and name not in (*_SWITCHES, "print_config", "h", "help"):
            yield name, argv[position]
            position += 1
        else:
            yield name, None


def _is_flag(word: str) -> bool:
    """Whether a word is an option; ``-1`` and ``-`` are values."""
    return word.startswith("--") or (len(word) > 1 and word[0] == "-" and word[1].isalpha())


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[Key, str]]:
    """Read a config file.

    Returns:
        The settings, and for each its place, ``file.yaml:line``.

    Raises:
        ConfigError: If the file is no YAML, or no mapping.
    """
    shown = _shown(path)
    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.safe_load(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        at = f"{shown}:{mark.line + 1}" if mark else shown
        raise UsageError([Problem(at, f"not valid YAML: {getattr(error, 'problem', None) or error}")]) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {shown} cannot be read: {error}") from error
    if tree is None:
        return {}, {}
    if not isinstance(tree, dict):
        kind = type(tree).__name__
        raise ConfigError(f"{shown}: a config is a mapping such as 'trainer: {{max_steps: 10}}', not a {kind}")
    return tree, {key: f"{shown}:{line}" for key, line in _lines((), node)}


def _shown(path: Path) -> str:
    """Shorten a path: relative to the current folder, or to the shipped configs."""
    from farl_lightning.cli.shipped import shipped_folder

    file, roots = path.resolve(), (Path.cwd(), shipped_folder().resolve())
    return next((file.relative_to(root).as_posix() for root in roots if file.is_relative_to(root)), str(path))


def _lines(key: Key, node: yaml.Node | None) -> Iterator[tuple[Key, int]]:
    """Yield the line of every setting below a YAML node."""
    if isinstance(node, yaml.MappingNode):
        for name, value in node.value:
            inner = (*key, str(name.value))
            yield inner, name.start_mark.line + 1
            yield from _lines(inner, value)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield (*key, index), value.start_mark.line + 1
            yield from _lines((*key, index), value)
