from __future__ import annotations

from typing import Literal

import lightning as L
import pytest

from farl_lightning.cli.arguments import read_settings
from farl_lightning.cli.schema import accepts, check_settings, describe, dotted, resolve_class
from farl_lightning.errors import ConfigError
from tests.cli.fakes import FakeContrast, FakeObjective, FakeTask

HINTS = {
    "model": L.LightningModule | None,
    "data": L.LightningDataModule | None,
    "seed_everything": bool | int,
    "ckpt_path": str | None,
}
CHOICES = {("trainer", "strategy"): ["auto", "ddp", "fsdp"]}

BAD = """\
model:
  class_path: FakeTask
  init_args:
    clp: {embed_dim: 4}
    clip: {embed_dim: four, image: {widht: 3}}
    names: 3
    objectives:
      one: {class_path: FakeContrast, init_args: {wieght: 1.0}}
      two: {class_path: FakeMaskd}
      three: {class_path: FakeMasked, depth: 2, init_args: {target: {class_path: FakeContrast}}}
data: {class_path: FakeDta}
trainr: {}
trainer:
  max_step: 1
  strategy: dpp
  precision: bf17
  callbacks: [{class_path: ModelCheckpont}, {class_path: EarlyStopping}]
"""

EXPECTED = [
    "bad.yaml:4: model: FakeTask has no argument 'clp'. Did you mean 'clip'?",
    "bad.yaml:5: model.clip.embed_dim: expected int, got 'four'.",
    "bad.yaml:5: model.clip.image: FakeTower has no argument 'widht'. Did you mean 'width'?",
    "bad.yaml:6: model.names: expected list[str] | null, got 3",
    "bad.yaml:8: model.objectives.one: FakeContrast has no argument 'wieght'. Did you mean 'weight'?",
    "bad.yaml:9: model.objectives.two: there is no FakeObjective called 'FakeMaskd'. Did you mean 'FakeMasked'?",
    "bad.yaml:10: model.objectives.three: 'depth' is out of place: write it below 'init_args' of FakeMasked",
    "bad.yaml:10: model.objectives.three.target: there is no FakeTarget called 'FakeContrast'.",
    "bad.yaml:11: data: there is no LightningDataModule called 'FakeDta'. Did you mean 'FakeData'?",
    "bad.yaml:12: there is no setting 'trainr'. Did you mean 'trainer'?",
    "bad.yaml:14: trainer: Trainer has no argument 'max_step'. Did you mean 'max_steps'?",
    "bad.yaml:15: trainer.strategy: got 'dpp'. Did you mean 'ddp'?",
    "bad.yaml:16: trainer.precision: got 'bf17'. Did you mean 'bf16'?",
    "bad.yaml:17: trainer.callbacks[0]: there is no Callback called 'ModelCheckpont'. Did you mean 'ModelCheckpoint'?",
    "bad.yaml:17: trainer.callbacks[1]: EarlyStopping needs 'monitor'.",
]


def problems(*words: str) -> list[str]:
    return [str(problem) for problem in check_settings(read_settings("fit", list(words)), HINTS, L.Trainer, CHOICES)]


def test_every_mistake_of_a_file_is_found_at_once_with_its_line(here):
    (here / "bad.yaml").write_text(BAD)
    found = problems("--config", "bad")
    assert len(found) == len(EXPECTED)
    for line, expected in zip(found, EXPECTED, strict=True):
        assert line.startswith(expected)


def test_mistakes_in_flags_name_the_flag(here):
    found = problems("--config=fake", "--model.optim.lr=fast", "--model.objectives.contrast.weigth=2", "--sed", "3")
    assert found[1].startswith("--model.optim.lr: expected float, got 'fast'")
    assert found[0].startswith("--model.objectives.contrast.weigth: model.objectives.contrast: FakeContrast has no")
    assert found[2].startswith("--sed: there is no setting 'sed'.")


def test_a_good_config_has_no_problem(here):
    flags = ["--model.optim.lr=1e-3", "--trainer.logger=true", "--trainer.strategy=DDPStrategy", "--seed_everything=1"]
    assert problems("--config=fake", *flags) == []


def test_arguments_of_a_replaced_class_are_no_mistake(here):
    flags = ["--model.objectives.contrast.form=x", "--model.objectives.contrast=FakeMasked"]
    assert problems("--config=fake", *flags) == []


def test_required_arguments_are_named(here):
    assert problems("--model=FakeTask") == ["--model: FakeTask needs 'clip'."]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("nothere.Zyxwvut", "No module named 'nothere'. Modules are looked up in the current folder too."),
        ("elsewhere.FakeTask", "Did you mean 'tests.cli.fakes.FakeTask'?"),
        ("tests.cli.fakes.FakeTsk", "has no class 'FakeTsk'. Did you mean 'FakeTask'?"),
        ("tests.cli.fakes.FakeData", "class 'tests.cli.fakes.FakeData' is no LightningModule"),
        ("Missing", "there is no LightningModule called 'Missing'."),
    ],
)
def test_classes_that_cannot_be_found(name, text):
    with pytest.raises(ConfigError) as error:
        resolve_class(name, [L.LightningModule])
    assert text in str(error.value)


def test_classes_are_found_by_short_and_full_name():
    assert resolve_class("FakeTask", [L.LightningModule]) is FakeTask
    assert resolve_class("tests.cli.fakes.FakeContrast", [FakeObjective]) is FakeContrast


def test_a_short_name_of_two_classes_is_refused():
    class Twin(FakeObjective):
        pass

    Twin.__qualname__ = "Twin"
    other = type("Twin", (FakeObjective,), {"__module__": "elsewhere"})
    with pytest.raises(ConfigError, match=r"'Twin' is ambiguous.*elsewhere\.Twin"):
        resolve_class("Twin", [FakeObjective])
    del other


def test_a_module_with_a_syntax_error_is_named(here):
    (here / "brokenmod.py").write_text("def f(:\n")
    import sys

    sys.path.append(str(here))
    with pytest.raises(ConfigError, match=r"module 'brokenmod' of class 'brokenmod\.Task'"):
        resolve_class("brokenmod.Task", [L.LightningModule])


def test_values_annotations_and_keys_as_people_read_them():
    assert accepts(3, int)
    assert not accepts("x", int)
    assert describe(int | None) == "int | null"
    assert describe(list[str]) == "list[str]"
    assert describe(Literal["a", "b"]) == "a | b"
    key = ("model", "init_args", "objectives", "x", "init_args", "w", 1, "class_path")
    assert dotted(key) == "model.objectives.x.w[1]"
