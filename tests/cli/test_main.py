from __future__ import annotations

import subprocess
import sys

import pytest

import farl_lightning
from farl_lightning import cli
from farl_lightning.cli import MODEL_VERBS
from farl_lightning.errors import CheckpointError


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["help"]])
def test_help_names_every_verb(run, words):
    status, out, _ = run(*words)
    assert status == 0
    for verb in (*MODEL_VERBS, "configs", "init", "data"):
        assert f"\n  {verb}" in out


@pytest.mark.parametrize("verb", MODEL_VERBS)
def test_the_help_of_a_verb_is_a_page_not_a_dump(run, verb):
    status, out, _ = run(verb, "--help")
    assert status == 0
    assert out.startswith(f"farl-lightning {verb}: ")
    assert len(out.splitlines()) < 30


def test_all_options_and_those_of_a_class(run):
    status, out, _ = run("fit", "--help_all")
    assert status == 0
    assert "--trainer.gradient_clip_val" in out
    status, out, _ = run("fit", "--model.help", "FakeTask")
    assert status == 0
    assert "--model.init_args.clip.embed_dim" in out or "--model.clip.embed_dim" in out


def test_version(run):
    assert run("--version")[1] == f"farl-lightning {farl_lightning.__version__}\n"


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["fitt"], "there is no verb 'fitt'. Did you mean 'fit'?"),
        (["--config", "x"], "the verb comes first, such as 'farl-lightning fit --config'"),
        (["fit", "--config", "nothing"], "config 'nothing' is neither a file nor a shipped config."),
        (["fit"], "no model is named; give --config"),
        (["init"], "use 'farl-lightning init DIR'"),
        (["data", "chek"], "there is no 'data chek'. Did you mean 'check'?"),
        (["data", "check", "x", "--wokers", "2"], "there is no option '--wokers'. Did you mean '--workers'?"),
        (["fit", "--config", "fake", "--trainer.accelerator", "gpuu"], "Did you mean 'gpu'?"),
        (["fit", "--config", "fake", "--model.clip.embed_dim", "a"], "expected int, got 'a'"),
    ],
)
def test_a_wrong_command_line_is_told_in_a_few_lines_with_status_2(run, words, text):
    status, out, err = run(*words)
    assert status == 2
    assert text in err
    assert out == ""
    assert "Traceback" not in err
    assert "usage:" not in err.lower()
    assert len(err.splitlines()) <= 4


def test_a_failed_run_has_status_1_and_debug_shows_the_traceback(run, monkeypatch):
    def fail(rest: list[str]) -> int:
        raise CheckpointError("the file is cut off")

    monkeypatch.setitem(cli._LIGHT_VERBS, "configs", fail)
    assert run("configs") == (1, "", "farl-lightning configs: the file is cut off\n")
    with pytest.raises(CheckpointError):
        run("configs", "--debug")
    monkeypatch.setenv("FARL_DEBUG", "1")
    with pytest.raises(CheckpointError):
        run("configs")


def test_a_bug_keeps_its_traceback(run, monkeypatch):
    def fail(rest: list[str]) -> int:
        raise ZeroDivisionError

    monkeypatch.setitem(cli._LIGHT_VERBS, "configs", fail)
    with pytest.raises(ZeroDivisionError):
        run("configs")


def test_only_the_first_process_of_a_machine_prints_errors(run, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert run("fitt") == (2, "", "")


def test_python_dash_m_is_the_same_program():
    done = subprocess.run([sys.executable, "-m", "farl_lightning.cli", "fitt"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "Did you mean 'fit'?" in done.stderr
