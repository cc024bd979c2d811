"""What is in the wheel: modules, configs, the template of ``init``; and that they are found there."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="the build backend is not installed (extra: dev)")

ROOT = Path(__file__).resolve().parents[1]


def files(folder: Path) -> set[str]:
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


def build(project: Path, kind: str, folder: Path) -> Path:
    """Build a distribution as pip does, but without an environment of its own."""
    command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(folder)]
    done = subprocess.run(command, cwd=project, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.iterdir())


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory) -> Path:
    """The wheel, unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(build(ROOT, "wheel", folder / "dist")) as wheel:
        wheel.extractall(folder / "site")  # noqa: S202  (built above)
    return folder / "site"


def test_the_wheel_holds_every_file_of_the_package_and_every_config(unpacked):
    package = {f"farl_lightning/{name}" for name in files(ROOT / "src/farl_lightning")}
    configs = {f"farl_lightning/configs/{name}" for name in files(ROOT / "configs")}
    assert {"farl_lightning/py.typed", "farl_lightning/cli/template/config.yaml.template"} <= package
    assert "farl_lightning/configs/pretrain.yaml" in configs
    shipped = {name for name in files(unpacked) if ".dist-info/" not in name}
    assert shipped == package | configs


def test_an_installed_wheel_finds_its_configs_and_its_template(unpacked, tmp_path):
    code = (
        "import sys, farl_lightning; from farl_lightning.cli import main; print(farl_lightning.__file__);"
        "sys.exit(main(['configs']) or main(['init', 'project']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    place, *lines = done.stdout.splitlines()
    assert place == str(unpacked / "farl_lightning/__init__.py")
    assert {"pretrain", "trainer/ddp"} <= {line.split()[0] for line in lines if line}
    assert len(files(tmp_path / "project")) == len(files(ROOT / "src/farl_lightning/cli/template"))


def test_a_wheel_built_from_the_source_distribution_is_the_same(unpacked, tmp_path):
    with tarfile.open(build(ROOT, "sdist", tmp_path / "dist")) as source:
        source.extractall(tmp_path / "source", filter="data")
    (project,) = (tmp_path / "source").iterdir()
    with zipfile.ZipFile(build(project, "wheel", tmp_path / "again")) as wheel:
        again = {name for name in wheel.namelist() if not name.endswith("/")}
    assert again == files(unpacked)
