from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from farl_lightning.cli.project import package_name
from farl_lightning.errors import ConfigError

FAST = {
    "trainer.max_steps": 2,
    "trainer.enable_progress_bar": "false",
    "trainer.log_every_n_steps": 1,
    "trainer.accelerator": "cpu",
    "data.train_count": 8,
    "data.val_count": 4,
    "data.batch_size": 4,
    "model.fit_images": 8,
}


def test_the_project_trains_and_its_tests_pass(run, here, monkeypatch):
    status, out, _ = run("init", "faces-2026")
    assert status == 0
    assert "cd faces-2026" in out
    project = here / "faces-2026"
    monkeypatch.chdir(project)
    status, _, err = run("fit", "--config", "config.yaml", *(f"--{name}={value}" for name, value in FAST.items()))
    assert status == 0, err
    assert (project / "runs/faces_2026/version_0/checkpoints/last.ckpt").is_file()
    tests = subprocess.run([sys.executable, "-m", "pytest", "-q"], capture_output=True, text=True, cwd=project)
    assert tests.returncode == 0, tests.stdout
    assert "4 passed" in tests.stdout


def test_no_placeholder_is_left_and_every_file_is_python_or_text(run, here):
    run("init", "my_faces")
    files = [path for path in (here / "my_faces").rglob("*") if path.is_file()]
    assert len(files) == 7
    assert all("$package" not in path.read_text() for path in files)
    for path in files:
        if path.suffix == ".py":
            compile(path.read_text(), str(path), "exec")


def test_a_folder_that_is_in_use_is_left_alone(run, here):
    (here / "full").mkdir()
    (here / "full/notes.txt").write_text("mine")
    status, _, err = run("init", "full")
    assert status == 2
    assert "'full' is there and not empty" in err
    assert [path.name for path in (here / "full").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(("name", "expected"), [("My Faces", "my_faces"), ("3d-faces", "p_3d_faces"), ("a.b", "a_b")])
def test_package_names(name, expected):
    assert package_name(Path(name)) == expected


@pytest.mark.parametrize("name", ["class", "tests", "--"])
def test_names_that_make_no_package(name):
    with pytest.raises(ConfigError, match="makes no package name"):
        package_name(Path(name))
