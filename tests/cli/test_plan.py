"""The verb ``plan``: what it prints, what it refuses, and that it imports nothing heavy."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

FARL = ("plan", "--config", "pretrain/farl_vitb16_laionface20m.yaml")


def value(text, name):
    """The last cell of a row."""
    (row,) = re.findall(rf"^  {re.escape(name)}  +(.*)$", text, re.MULTILINE)
    return re.split(r"  +", row)


def test_a_full_recipe(run):
    status, out, error = run(*FARL, "--nodes", "4", "--gpus", "8", "--gpu", "h100")
    assert (status, error) == (0, "")
    assert out.startswith("4 x 8 H100 SXM 80 GB, batch 160 per GPU, 5,120 per optimiser step\n")
    assert value(out, "trainable parameters") == ["163.0 M"]
    assert value(out, "optimiser steps") == ["62,500", "62,500"]  # 16 epochs of 20 million, 5,120 a step
    assert value(out, "gradients")[0] == "0.65 GB"  # 163.0 M of 4 bytes
    assert value(out, "limited by") == ["the reader", "the reader"]
    assert "give data.num_workers" in out


def test_settings_follow_as_for_fit(run):
    one = run(*FARL)[1]
    assert one.startswith("1 x 1 H100")
    assert value(one, "each GPU sends") == ["0 MB", "0 MB"]
    halved = run(*FARL, "--data.batch_size", "80", "--trainer.max_epochs=8")[1]
    assert "batch 80 per GPU" in halved
    assert value(halved, "optimiser steps") == value(one, "optimiser steps")
    less = run(*FARL, "--model.grad_checkpointing", "true")[1]

    def gigabytes(text):
        return float(value(text, "activations")[0].split()[0])

    assert gigabytes(less) < gigabytes(one) / 3
    assert gigabytes(halved) < gigabytes(one) * 0.51
    overlay = run(*FARL, "--config", "trainer/multinode.yaml")[1]
    assert overlay.startswith("4 x 8 ")  # the config's own machines


def test_more_reader_and_another_price(run):
    out = run(*FARL, "--worker_rate", "100000", "--price", "1", "1", "--nodes", "2", "--gpus", "8")[1]
    assert value(out, "limited by")[0] == "computation"
    hours, dollars = value(out, "time")[0], value(out, "cost")[0]
    low = float(hours.split()[0])
    assert float(dollars.split(" - ")[0].strip("$").replace(",", "")) == pytest.approx(low * 16, rel=0.02)


def test_what_does_not_fit_is_said(run):
    out = run(*FARL, "--gpu", "v100")[1]
    assert "DDP does not fit. Take a smaller data.batch_size" in out
    assert "has no bfloat16: use --trainer.precision 16-mixed" in out
    assert "does not fit" not in run(*FARL, "--gpu", "b200")[1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpu", "h10"], "--gpu 'h10' is not in the table. Did you mean 'h100'"),
        (["--nodes", "0"], "--nodes 0 --gpus 1: both must be 1 or more"),
        (["--efficiency", "0.5", "1.5"], "efficiency 0.5 1.5: give two shares in (0, 1]"),
        (["--data.batch_size", "many"], "a value of the config is of the wrong kind"),
        (["--model.clip.image.name", "eva02_base_patch14_224"], "a plan knows plain vision transformers"),
        (["--model.clip.image.widht", "3"], "widht"),
        (["--model", "ParsingTask"], "a plan is made for PretrainTask; the config's model is 'ParsingTask'"),
        (["--trainer.precision", "64-true"], "a plan knows precision 32-true"),
    ],
)
def test_what_cannot_be_planned_is_explained(run, words, message):
    status, _, error = run(*FARL, *words)
    assert status == 2
    assert message in error


def test_without_a_config(run):
    status, _, error = run("plan")
    assert status == 2
    assert "give a config: farl-lightning plan --config" in error
    assert run("plan", "--help")[0] == 0
    assert "'nothere' is neither a file nor a shipped config" in run("plan", "--config", "nothere")[2]


def test_torch_is_not_imported():
    code = (
        "import sys; from farl_lightning.cli import main\n"
        f"assert main({list(FARL)!r}) == 0\n"
        "assert not {'torch', 'lightning', 'timm', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
