"""Start-up: what a user waits for before anything happens, against a bare Python."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest


def seconds(code: str) -> float:
    """Best of three, in processes of their own."""
    times = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return min(times)


@pytest.mark.parametrize(
    ("code", "limit"),
    [
        ("import farl_lightning", 0.5),
        ("from farl_lightning.cli import main; main(['--help'])", 1.0),
        ("from farl_lightning.cli import main; main(['fit', '--help'])", 1.0),
        ("from farl_lightning.cli import main; main(['configs'])", 1.0),
        ("from farl_lightning.cli import main; main(['fit', '--config', 'nothing'])", 1.0),
    ],
)
def test_what_needs_no_model_starts_at_once(code, limit):
    assert seconds(code) - seconds("pass") < limit


def test_nothing_heavy_is_imported():
    code = (
        "import sys; from farl_lightning.cli import main; main(['--help']); main(['configs']); main(['fit', '--help']);"
        "heavy = {'torch', 'lightning', 'numpy', 'transformers', 'timm', 'jsonargparse'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
