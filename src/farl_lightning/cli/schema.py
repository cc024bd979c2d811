"""Checks merged settings against the signatures of the classes they name, and finds every mistake at once.

jsonargparse stops at the first mistake, prints a page of usage and suggests nothing. This check runs before it, walks
``class_path``, ``init_args``, dataclasses, lists and mappings, and says for each mistake where it was made and what
was probably meant. It accepts whatever it cannot judge: jsonargparse still has the last word.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime
import enum
import importlib
import inspect
import os
import re
import types
from collections.abc import Iterable
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentError, ArgumentParser
from jsonargparse._parameter_resolvers import ParamData, get_signature_parameters

from farl_lightning.cli.arguments import CLASS_KEYS, Key, Problem, Raw, Settings
from farl_lightning.errors import ConfigError, did_you_mean

_PLAIN = (str, bytes, int, float, complex, os.PathLike, enum.Enum, datetime.date, datetime.timedelta)
_NO_CLASSES = (type(None), object, inspect.Parameter.empty, Any)
_CONTAINERS = (dict, list, tuple, set, frozenset)
_SEQUENCES = (list, tuple, collections.abc.Iterable, collections.abc.Sequence)
_MAPPINGS = (dict, collections.abc.Mapping)


def check_settings(
    settings: Settings, hints: dict[str, Any], trainer_class: type, choices: dict[Key, list[str]] | None = None
) -> list[Problem]:
    """Find everything that is wrong with the settings.

    Args:
        settings: Files and flags, merged.
        hints: Type of each top-level setting; ``trainer`` is not among them.
        trainer_class: The class whose arguments the section ``trainer`` holds.
        choices: The words allowed where an annotation says ``str`` but only registered names work.

    Returns:
        The problems, in the order of the settings; none if nothing wrong was found.
    """
    check = _Check(settings, choices or {})
    for name, value in settings.tree.items():
        if name == "trainer":
            check.section(("trainer",), value, trainer_class)
        elif name not in hints:
            hint = did_you_mean(name, [*hints, "trainer", "config"])
            check.report((), f"there is no setting '{name}'. {hint}", at=(name,))
        else:
            check.value((name,), value, hints[name])
    return check.problems


class _Check:
    """One walk over the settings."""

    def __init__(self, settings: Settings, choices: dict[Key, list[str]]) -> None:
        self.settings = settings
        self.choices = choices
        self.problems: list[Problem] = []

    def report(self, key: Key, text: str, at: Key | None = None) -> None:
        """Note a problem of the setting ``key``; ``at`` is the part of it to point at."""
        place, name = self.settings.place(at or key), dotted(key)
        repeats = not name or place == f"--{name}"
        self.problems.append(Problem(place, text.strip() if repeats else f"{name}: {text.strip()}"))

    def value(self, key: Key, value: Any, hint: Any) -> None:
        """Check a value of any kind against its annotation."""
        members = _members(hint)
        if isinstance(value, dict):
            self.mapping(key, value, members)
        elif isinstance(value, list) and (items := _item_hint(members)) is not None:
            for index, item in enumerate(value):
                self.value((*key, index), item, items)
        elif isinstance(value, str):
            self.text(key, value, members)
        elif not accepts(value, hint):
            self.report(key, f"expected {describe(hint)}, got {value!r}")

    def mapping(self, key: Key, value: dict[str, Any], members: list[Any]) -> None:
        """Check a mapping: a class with its arguments, a dataclass, or named items."""
        classes = [member for member in members if _is_class(member)]
        records = [member for member in members if isinstance(member, type) and dataclasses.is_dataclass(member)]
        mappings = [member for member in members if get_origin(member) in _MAPPINGS]
        if "class_path" in value and (classes or records):
            self.instance(key, value, [*classes, *records])
        elif records:
            self.arguments(key, value.get("init_args", value), records[0])
        elif mappings:
            for name, item in value.items():
                self.value((*key, name), item, get_args(mappings[0])[1])
        elif classes:
            self.instance(key, value, classes)
        elif not accepts(value, _union(members)):
            self.report(key, f"expected {describe(_union(members))}, got a mapping")

    def text(self, key: Key, value: str, members: list[Any]) -> None:
        """Check a word: a plain value, or a class given by name alone."""
        classes = [member for member in members if _is_class(member)]
        plain = [member for member in members if member not in classes]
        if key in self.choices and value.islower():
            classes, plain = [], [Literal[tuple(self.choices[key])]]
            members = plain
        if plain and accepts(value, _union(plain)):
            return
        if classes and re.fullmatch(r"[A-Za-z_][\w.]*", value):
            self.instance(key, {"class_path": str(value)}, classes)
            return
        literals = [str(word) for member in members if get_origin(member) is Literal for word in get_args(member)]
        hint = did_you_mean(value, literals)
        expected = "" if hint else f"expected {describe(_union(members))}, "
        self.report(key, f"{expected}got '{value}'. {hint}")

    def instance(self, key: Key, node: dict[str, Any], bases: list[type]) -> None:
        """Check ``{class_path, init_args}``."""
        if not isinstance(node.get("class_path"), str):
            self.report(key, f"class_path is missing. {did_you_mean('', suggestions(bases))}")
            return
        try:
            kind = resolve_class(str(node["class_path"]), bases)
        except ConfigError as error:
            self.report(key, str(error), at=(*key, "class_path"))
            return
        known = {parameter.name for parameter in parameters(kind)}
        for name in [name for name in node if name not in CLASS_KEYS]:
            hint = f"write it below 'init_args' of {kind.__name__}" if name in known else did_you_mean(name, CLASS_KEYS)
            self.report(key, f"'{name}' is out of place: {hint}", at=(*key, name))
        self.arguments((*key, "init_args"), node.get("init_args"), kind)

    def section(self, key: Key, value: Any, kind: type) -> None:
        """Check a section that holds the arguments of a fixed class."""
        if isinstance(value, dict):
            self.arguments(key, value, kind)
        elif value is not None:
            self.report(key, f"a section with settings of the {_label(kind)}, not '{value}'")

    def arguments(self, key: Key, given: Any, kind: type) -> None:
        """Check named arguments against the signature of a class."""
        given = given.load() if isinstance(given, Raw) else given
        if given is not None and not isinstance(given, dict):
            self.report(key, f"expected the arguments of {_label(kind)}, got {given!r}")
            return
        known = {parameter.name: parameter for parameter in parameters(kind)}
        for name, value in (given or {}).items():
            inner = (*key, name)
            if inner in self.settings.inherited and self.settings.inherited[inner] == self.settings.place(inner):
                continue
            plain = str(name).removesuffix("+")
            if plain in known:
                self.value(inner, value, known[plain].annotation)
            else:
                hint = did_you_mean(str(name), known)
                self.report(key, f"{_label(kind)} has no argument '{name}'. {hint}", at=inner)
        for name in sorted(required(known.values()) - set(given or {})):
            about = (known[name].doc or "").split("\n")[0]
            self.report(key, f"{_label(kind)} needs '{name}'. {about}")


def parameters(kind: Any) -> list[ParamData]:
    """Return every named argument of a class or function, also those that pass through ``**kwargs``."""
    found = get_signature_parameters(kind, None)
    return [parameter for parameter in found if parameter.kind is not inspect.Parameter.VAR_KEYWORD]


def required(known: Iterable[ParamData]) -> set[str]:
    """Return the names of the arguments without a default."""
    return {parameter.name for parameter in known if parameter.default is inspect.Parameter.empty}


def resolve_class(name: str, bases: list[type]) -> type:
    """Find a class by its short or full name.

    Args:
        name: ``"PretrainTask"`` or ``"mytask.MyTask"``.
        bases: What it may be a subclass of.

    Raises:
        ConfigError: If it cannot be found, is ambiguous, or is something else; the message names the nearest match.
    """
    if "." in name:
        return _import_class(name, bases)
    found = class_names(bases)
    if name not in found:
        hint = did_you_mean(name, suggestions(bases))
        own = "" if hint.startswith("Did") else " A class of your own is named with its module: mymodule.MyClass."
        raise ConfigError(f"there is no {_or(bases)} called '{name}'. {hint}{own}".replace(". .", "."))
    if len(found[name]) > 1:
        paths = ", ".join(sorted(_path(kind) for kind in found[name]))
        raise ConfigError(f"'{name}' is ambiguous; give the full name, one of: {paths}")
    return found[name][0]


def class_names(bases: list[type]) -> dict[str, list[type]]:
    """Return the public, importable subclasses of some classes (and themselves) by short name."""
    names: dict[str, list[type]] = {}
    seen: set[type] = set()
    queue = list(bases)
    while queue:
        kind = queue.pop()
        if kind in seen:
            continue
        seen.add(kind)
        queue += type.__subclasses__(kind)
        is_public = "._" not in _path(kind) and "<locals>" not in kind.__qualname__
        if is_public and not inspect.isabstract(kind):
            names.setdefault(kind.__name__, []).append(kind)
    return {name: _unique(kinds) for name, kinds in names.items()}


def suggestions(bases: list[type]) -> list[str]:
    """Return the names worth suggesting: subclasses, without the bases that are there to be subclassed."""
    names = class_names(bases)
    kept = [name for name, kinds in names.items() if not name.startswith("Base") and kinds[0] not in bases]
    return kept or list(names)


def _unique(kinds: list[type]) -> list[type]:
    """Drop classes that were defined twice under one full name (a module that was reloaded)."""
    return list({_path(kind): kind for kind in kinds}.values())


def _import_class(name: str, bases: list[type]) -> type:
    """Import a class by its full name."""
    module_name, _, short = name.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ConfigError(_import_hint(name, error, bases)) from error
    except SyntaxError as error:
        raise ConfigError(f"module '{module_name}' of class '{name}': {error}") from error
    kind = getattr(module, short, None)
    if kind is None:
        classes = [other for other, value in vars(module).items() if isinstance(value, type)]
        raise ConfigError(f"module '{module_name}' has no class '{short}'. {did_you_mean(short, classes)}")
    if isinstance(kind, type) and not issubclass(kind, tuple(bases)):
        raise ConfigError(f"class '{name}' is no {_or(bases)}")
    return kind  # type: ignore[no-any-return]  # functions that return an instance are accepted too


def _import_hint(name: str, error: ImportError, bases: list[type]) -> str:
    """Say why a module cannot be imported."""
    short = name.rpartition(".")[2]
    found = class_names(bases)
    hint = "Modules are looked up in the current folder too."
    if short in found:
        hint = f"Did you mean '{_path(found[short][0])}'?"
    return f"class '{name}' cannot be imported: {error}. {hint}"


def _label(kind: type) -> str:
    """Name a class as its users know it."""
    return kind.__name__.removeprefix("Farl")


def _path(kind: type) -> str:
    """Return the full name of a class."""
    return f"{kind.__module__}.{kind.__qualname__}"


def _or(bases: list[type]) -> str:
    """Name some classes."""
    return " or ".join(dict.fromkeys(base.__name__ for base in bases))


def _members(hint: Any) -> list[Any]:
    """Split a union into its members."""
    return list(get_args(hint)) if get_origin(hint) in (Union, types.UnionType) else [hint]


def _union(members: list[Any]) -> Any:
    """Join members into a union."""
    return Union[tuple(members)]  # noqa: UP007  # built at run time


def _item_hint(members: list[Any]) -> Any:
    """Return the annotation of a sequence's items, or None if items need no look of their own."""
    for member in members:
        item, *more = get_args(member) or (None,)
        if get_origin(member) not in _SEQUENCES or more not in ([], [...]):
            continue
        if any(_is_class(inner) or dataclasses.is_dataclass(inner) for inner in _members(item)):
            return item
    return None


def _is_class(hint: Any) -> bool:
    """Whether an annotation stands for an object that is built from ``class_path`` and ``init_args``."""
    if not inspect.isclass(hint) or hint in _NO_CLASSES or dataclasses.is_dataclass(hint):
        return False
    return not issubclass(hint, (*_PLAIN, *_CONTAINERS)) and hint.__module__ not in ("typing", "collections.abc")


def accepts(value: Any, hint: Any) -> bool:
    """Whether jsonargparse accepts a value for an annotation; True where it cannot judge the annotation."""
    if hint is inspect.Parameter.empty or hint is Any:
        return True
    parser = ArgumentParser(exit_on_error=False)
    try:
        parser.add_argument("--value", type=hint)
    except (ValueError, TypeError):
        return True
    try:
        parser.parse_args([f"--value={value}"]) if isinstance(value, Raw) else parser.parse_object({"value": value})
    except ArgumentError:
        return False
    return True


def describe(hint: Any) -> str:
    """Write an annotation as a person would: ``int | null``."""
    if get_origin(hint) is Literal:
        return " | ".join(map(str, get_args(hint)))
    members = _members(hint)
    if len(members) > 1:
        return " | ".join(dict.fromkeys(describe(member) for member in members))
    if hint is type(None):
        return "null"
    text = hint.__name__ if inspect.isclass(hint) and not get_args(hint) else str(hint)
    return re.sub(r"\b\w+\.(?=\w)", "", text)


def dotted(key: Key) -> str:
    """Write a key as it is given on the command line: ``model.optim.lr``, ``trainer.callbacks[1].monitor``."""
    text = ""
    for part in key:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part not in ("init_args", "class_path"):
            text += f".{part}" if text else str(part)
    return text
