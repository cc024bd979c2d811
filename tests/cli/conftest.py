"""A folder of its own for each test of the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from farl_lightning.cli import main
from farl_lightning.cli.quiet import _handlers

CONFIG = """\
# A fake run.
trainer:
  max_steps: 2
  accelerator: cpu
  devices: 1
  enable_progress_bar: false
  log_every_n_steps: 1
  logger: {class_path: CSVLogger, init_args: {save_dir: runs, name: fake}}
  callbacks:
    - class_path: ModelCheckpoint
      init_args: {save_last: true}
model:
  class_path: tests.cli.fakes.FakeTask
  init_args:
    clip: {embed_dim: 4}
    objectives:
      contrast: {class_path: FakeContrast, init_args: {weight: 1.0}}
      masked: {class_path: FakeMasked, init_args: {target: {class_path: FakePixels}}}
data:
  class_path: tests.cli.fakes.FakeData
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own with ``fake.yaml``; what a run changes in this process is undone."""
    import tests.cli.fakes  # noqa: F401  # makes the short names known

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "fake.yaml").write_text(CONFIG)
    precision = torch.get_float32_matmul_precision()
    yield tmp_path
    torch.set_float32_matmul_precision(precision)
    for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS"):
        os.environ.pop(name, None)


@pytest.fixture
def run(here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line; returns status, standard output, standard error."""

    def call(*words: object) -> tuple[int, str, str]:
        capfd.readouterr()
        for handler in _handlers():  # they hold the stream that was there when Lightning was imported
            monkeypatch.setattr(handler, "stream", sys.stderr)
        status = main([str(word) for word in words])
        out, err = capfd.readouterr()
        return status, out, err

    return call


@pytest.fixture
def last(run: Run, here: Path) -> Path:
    """The last checkpoint of a short run."""
    status, _, err = run("fit", "--config", "fake")
    assert status == 0, err
    return here / "runs/fake/version_0/checkpoints/last.ckpt"
