"""``farl-lightning init``: a small project of one's own that runs at once."""

from __future__ import annotations

import keyword
import re
from pathlib import Path
from string import Template

from farl_lightning.errors import ConfigError

_TEMPLATE = Path(__file__).parent / "template"
_PACKAGE = "package"  # folder of the template that takes the project's name


def write_project(folder: str | Path) -> str:
    """Write a project: an objective with a head of its own, a config, a test and a README.

    Args:
        folder: Where; its name, made a valid identifier, becomes the name of the Python package.

    Returns:
        What to do next.

    Raises:
        ConfigError: If the folder is there and not empty.
    """
    target = Path(folder).expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(f"'{folder}' is there and not empty; give a new folder")
    name = package_name(target)
    for source in sorted(_TEMPLATE.rglob("*.template")):
        relative = source.relative_to(_TEMPLATE).as_posix().removesuffix(".template")
        path = target / relative.replace(_PACKAGE, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(Template(source.read_text(encoding="utf-8")).substitute(package=name), encoding="utf-8")
    return (
        f"wrote {folder}; next:\n"
        f"  cd {folder}\n"
        "  farl-lightning fit --config config.yaml    trains for about a minute on a CPU\n"
        "  python -m pytest                           tests your objective and your head"
    )


def package_name(folder: Path) -> str:
    """Make a valid package name of a folder's name.

    Args:
        folder: The project's folder.

    Raises:
        ConfigError: If nothing is left of the name.
    """
    name = re.sub(r"\W+", "_", folder.resolve().name.lower()).strip("_")
    if not name or keyword.iskeyword(name) or name in ("tests", "farl_lightning"):
        raise ConfigError(f"'{folder.name}' makes no package name; give a folder such as my_faces")
    return f"p_{name}" if name[0].isdigit() else name
