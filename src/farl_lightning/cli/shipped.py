"""Configs by name: on disk first, then among those shipped with the package."""

from __future__ import annotations

import functools
from pathlib import Path

from farl_lightning.errors import ConfigError, did_you_mean

_SUFFIXES = ("", ".yaml", ".yml")


@functools.lru_cache(maxsize=1)
def shipped_folder() -> Path:
    """Return the folder of shipped configs, of a wheel or of a source tree.

    Raises:
        ConfigError: If neither has one, which means a broken installation.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "configs", package.parents[1] / "configs"):
        if folder.is_dir():
            return folder
    raise ConfigError(f"the shipped configs are missing beside {package}; reinstall farl-lightning")


def shipped_configs() -> dict[str, Path]:
    """Return every shipped config: name with folders but without ``.yaml``, such as ``trainer/ddp``, and path."""
    root = shipped_folder()
    found = {path.relative_to(root).with_suffix("").as_posix(): path for path in root.rglob("*.yaml")}
    return dict(sorted(found.items()))


def find_config(name: str) -> Path:
    """Find a config on disk (relative to the current folder), then among the shipped ones.

    Args:
        name: A path or a shipped name, with or without ``.yaml``.

    Raises:
        ConfigError: If there is no such file; the message names the nearest match.
    """
    for suffix in _SUFFIXES:
        path = Path(name + suffix).expanduser()
        if path.is_file():
            return path
    shipped = shipped_configs()
    key = name.removesuffix(".yaml").removesuffix(".yml")
    if key in shipped:
        return shipped[key]
    raise ConfigError(f"config '{name}' is neither a file nor a shipped config. {_nearest(key, shipped)}")


def _nearest(name: str, shipped: dict[str, Path]) -> str:
    """Name the nearest match among the shipped configs and the files beside the path that was given."""
    folder = Path(name).expanduser().parent
    local = [str(path) for path in folder.glob("*.y*ml")] if folder.is_dir() else []
    by_last_part = {key.rsplit("/", 1)[-1]: key for key in shipped}
    if name in by_last_part:
        return f"Did you mean '{by_last_part[name]}'?"
    hint = did_you_mean(name, [*shipped, *(str(Path(path).with_suffix("")) for path in local)])
    return f"{hint} 'farl-lightning configs' lists the shipped ones.".strip()


def headline(path: Path) -> str:
    """Return the first comment line of a config: what it does."""
    with path.open(encoding="utf-8") as lines:
        first = next(lines, "").strip()
    return first.lstrip("# ").rstrip() if first.startswith("#") else ""


def list_configs() -> str:
    """Return one line per shipped config: its name and what it does."""
    configs = shipped_configs()
    width = max((len(name) for name in configs), default=0)
    return "\n".join(f"{name:<{width}}  {headline(path)}" for name, path in configs.items())


def show_config(name: str) -> str:
    """Return the text of a config, found as :func:`find_config` finds it."""
    return find_config(name).read_text(encoding="utf-8").rstrip("\n")
