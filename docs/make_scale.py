"""Fill the tables of docs/scale.md with what ``farl-lightning plan`` prints: ``python docs/make_scale.py``."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from pathlib import Path

from farl_lightning.cli import main

PAGE = Path(__file__).with_name("scale.md")
BLOCK = re.compile(r"```console\n\$ farl-lightning (?P<words>plan [^\n]*)\n(?P<body>.*?)```", re.DOTALL)


def printed(words: str) -> str:
    """Return what a command prints.

    Args:
        words: What follows the program's name.

    Raises:
        RuntimeError: If the command fails.
    """
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = main(shlex.split(words))
    if status:
        raise RuntimeError(f"farl-lightning {words} ended with status {status}")
    return out.getvalue()


def fill(page: str) -> str:
    """Return a page with the output of each ``plan`` command below it.

    Args:
        page: Markdown.
    """
    return BLOCK.sub(lambda found: f"```console\n$ farl-lightning {found['words']}\n{printed(found['words'])}```", page)


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
