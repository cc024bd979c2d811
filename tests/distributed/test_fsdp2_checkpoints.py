"""Sharded checkpoints: runs go on from them on any number of processes, and one file of them serves everything else."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from farl_lightning import FaceCLIP, PretrainTask
from farl_lightning.callbacks import EMA
from farl_lightning.cli import main
from farl_lightning.cli.consolidate import consolidate
from farl_lightning.errors import CheckpointError, ConfigError
from farl_lightning.tasks import OptimConfig
from farl_lightning.testing.distributed import run_distributed
from tests.distributed import sharded
from tests.tasks import faces, tiny

# gradients that are zero but for rounding (biases before batch norm) would be steps of full length under Adam
SGD = OptimConfig(optimizer="sgd", lr=0.05, momentum=0.9, schedule="constant")
SAVED = 3  # in the middle of an epoch of two steps
STEPS = 6


def new_task(kind: str):
    if kind == "parsing":
        return faces.parser(optim=replace(SGD, lr=0.005))  # batch norm over two values magnifies rounding
    task = sharded.pretrain_task(optim=SGD)
    for block in task.model.clip.image_encoder.vit.blocks:
        block.drop_path1 = block.drop_path2 = torch.nn.Identity()  # processes drop differently
    return task


def data(kind: str):
    return sharded.RankedFaces() if kind == "parsing" else sharded.RankedData()


def train(kind: str, strategy: str, folder: str, ckpt: str | None = None) -> dict:
    """Train with an average, save in the middle; returns losses, the average that is left, and what validation saw."""
    losses, saver = (
        sharded.Curve(),
        ModelCheckpoint(folder, filename="{step}", every_n_train_steps=SAVED, save_top_k=-1),
    )
    trainer = sharded.trainer(
        folder,
        strategy,
        max_steps=STEPS,
        val_check_interval=2,
        gradient_clip_val=0.5,
        enable_checkpointing=True,
        callbacks=[losses, EMA(0.8), saver],
    )
    task = new_task(kind)
    trainer.fit(task, datamodule=data(kind), ckpt_path=ckpt)
    values = {key: float(value) for key, value in trainer.callback_metrics.items() if key.startswith("val/")}
    return {"losses": losses.losses, "average": sharded.state(task), "values": values}


def train_all(kind: str, folder: str) -> dict:
    """The same run under three strategies, and two of them gone on with on as many processes."""
    found = {name: train(kind, name, f"{folder}/{name}") for name in ("ddp", "fsdp2", "fsdp2-full")}
    for name in ("fsdp2", "fsdp2-full"):
        found[f"{name} resumed"] = train(
            kind, "fsdp2", f"{folder}/resumed-{name}", f"{folder}/{name}/step={SAVED}.ckpt"
        )
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def runs(folder) -> list[dict]:
    return run_distributed(train_all, 2, "pretrain", str(folder))


@pytest.fixture(scope="module")
def one_file(runs, folder) -> Path:
    output = folder / "one.ckpt"
    assert main(["consolidate", str(folder / "fsdp2" / f"step={SAVED}.ckpt"), "--output", str(output)]) == 0
    return output


def test_average_equals_that_of_ddp_and_resumed_runs_are_exact(runs):
    for found in runs:
        assert len(found["ddp"]["losses"]) == STEPS
        for name in ("fsdp2", "fsdp2-full"):
            assert found[name]["losses"] == pytest.approx(found["ddp"]["losses"], abs=1e-5)
            assert found[name]["values"] == pytest.approx(found["ddp"]["values"], abs=1e-5)
            torch.testing.assert_close(found[name]["average"], found["ddp"]["average"], rtol=1e-4, atol=1e-6)
            resumed = found[f"{name} resumed"]
            assert resumed["losses"] == found["fsdp2"]["losses"][SAVED:]
            assert resumed["values"] == found["fsdp2"]["values"]
            for key, value in found["fsdp2"]["average"].items():
                assert torch.equal(resumed["average"][key], value), key


def test_another_number_of_processes_goes_on(runs, folder):
    (found,) = run_distributed(
        train, 1, "pretrain", "fsdp2", str(folder / "alone"), str(folder / f"fsdp2/step={SAVED}.ckpt")
    )
    expected = runs[0]["fsdp2"]
    assert found["losses"] == pytest.approx(expected["losses"][SAVED:], rel=1e-4)
    torch.testing.assert_close(found["average"], expected["average"], rtol=1e-3, atol=1e-5)


def test_a_folder_without_fsdp_is_refused_with_the_command_that_helps(runs, folder):
    place = folder / "fsdp2" / f"step={SAVED}.ckpt"
    advice = f"make one file of it: farl-lightning consolidate {place} --output "
    with pytest.raises(CheckpointError, match=advice):
        train("pretrain", "auto", str(folder / "refused"), str(place))
    with pytest.raises(CheckpointError, match=advice):
        FaceCLIP.from_checkpoint(place)


def test_one_file_goes_on_without_fsdp(runs, one_file, folder):
    found = train("pretrain", "auto", str(folder / "plain"), str(one_file))
    expected = runs[0]["fsdp2"]
    assert found["losses"] == pytest.approx(expected["losses"][SAVED:], rel=1e-4)
    torch.testing.assert_close(found["average"], expected["average"], rtol=1e-3, atol=1e-5)


def test_one_file_is_what_ddp_would_have_written(runs, one_file, folder):
    given = torch.load(one_file, weights_only=True)
    expected = torch.load(folder / "ddp" / f"step={SAVED}.ckpt", weights_only=True)
    assert given.keys() == expected.keys()
    for key in ("state_dict", "current_model_state"):
        assert given[key].keys() == expected[key].keys()
        torch.testing.assert_close(given[key], expected[key], rtol=1e-4, atol=1e-6)
    assert any(not torch.equal(given["state_dict"][k], v) for k, v in given["current_model_state"].items())
    for key in ("hyper_parameters", "face_spec", "loops", "global_step", "lr_schedulers"):
        assert given[key] == expected[key]
    (optimizer,), (wanted,) = given["optimizer_states"], expected["optimizer_states"]
    assert [g["params"] for g in optimizer["param_groups"]] == [g["params"] for g in wanted["param_groups"]]
    assert [g["name"] for g in optimizer["param_groups"]] == [g["name"] for g in wanted["param_groups"]]
    assert optimizer["state"].keys() == wanted["state"].keys()
    for number, state in wanted["state"].items():
        torch.testing.assert_close(
            optimizer["state"][number]["momentum_buffer"], state["momentum_buffer"], rtol=1e-3, atol=1e-6
        )


def test_one_file_is_read_by_everything(one_file, tmp_path):
    average = torch.load(one_file, weights_only=True)["state_dict"]
    clip = FaceCLIP.from_checkpoint(one_file)
    task = PretrainTask.load_from_checkpoint(one_file, weights_only=True)
    for network, prefix in ((clip, "model.clip."), (task, "")):
        for name, value in network.state_dict().items():
            assert torch.equal(value, average[f"{prefix}{name}"]), name
    assert task.spec == tiny.TinyData().spec
    trainer = sharded.trainer(tmp_path, "auto", callbacks=[EMA(0.8)])
    (read,) = trainer.test(
        sharded.pretrain_task(), datamodule=sharded.RankedData(), ckpt_path=str(one_file), verbose=False
    )
    (expected,) = tiny.trainer(tmp_path).test(task, datamodule=sharded.RankedData(), verbose=False)
    assert read == expected


def parsing_runs(folder: str) -> dict:
    return {name: train("parsing", name, f"{folder}/{name}") for name in ("ddp", "fsdp2")}


def test_dense_task_with_batch_norm_follows_ddp(tmp_path):
    first, _ = run_distributed(parsing_runs, 2, str(tmp_path))
    assert first["fsdp2"]["losses"] == pytest.approx(first["ddp"]["losses"], abs=1e-4)
    assert first["fsdp2"]["values"] == pytest.approx(first["ddp"]["values"], abs=1e-3)
    torch.testing.assert_close(first["fsdp2"]["average"], first["ddp"]["average"], rtol=1e-3, atol=1e-5)
    given = torch.load(consolidate(tmp_path / f"fsdp2/step={SAVED}.ckpt", tmp_path / "one.ckpt"), weights_only=True)
    expected = torch.load(tmp_path / f"ddp/step={SAVED}.ckpt", weights_only=True)
    assert any(name.endswith("running_var") for name in given["state_dict"])
    for key in ("state_dict", "current_model_state"):  # statistics of batch norm are the first process's
        torch.testing.assert_close(given[key], expected[key], rtol=1e-3, atol=1e-5)


def test_consolidate_refuses_what_it_cannot_join(one_file, folder, tmp_path, capsys):
    source = folder / "fsdp2" / f"step={SAVED}.ckpt"
    with pytest.raises(ConfigError, match="exists already"):
        consolidate(source, one_file)
    with pytest.raises(ConfigError, match="is a folder"):
        consolidate(source, tmp_path)
    with pytest.raises(CheckpointError, match=r"no sharded checkpoint: it has no meta\.pt"):
        consolidate(tmp_path, tmp_path / "new.ckpt")
    with pytest.raises(CheckpointError, match="one file already"):
        consolidate(one_file, tmp_path / "new.ckpt")
    damaged = shutil.copytree(source, tmp_path / "damaged")
    (damaged / "__1_0.distcp").unlink()
    with pytest.raises(CheckpointError, match="may lack a shard"):
        consolidate(damaged, tmp_path / "new.ckpt")
    assert not (tmp_path / "new.ckpt").exists()
    assert main(["consolidate", str(tmp_path / "nothing"), "--output", str(tmp_path / "new.ckpt")]) == 1
    assert "no sharded checkpoint" in capsys.readouterr().err


class Trap:
    """Would run when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("place", ["table", "value", "meta"])
def test_nothing_in_a_sharded_checkpoint_is_run(one_file, folder, tmp_path, place):
    trapped, sprung = (
        shutil.copytree(folder / "fsdp2" / f"step={SAVED}.ckpt", tmp_path / "trapped"),
        tmp_path / "sprung",
    )
    if place == "table":
        (trapped / ".metadata").write_bytes(pickle.dumps(Trap(sprung)))
    elif place == "meta":
        torch.save({"trap": Trap(sprung)}, trapped / "meta.pt")
    else:
        table = pickle.loads((trapped / ".metadata").read_bytes())  # noqa: S301  -- written by the fixture
        index = next(i for i in table.storage_data if i.fqn.endswith(".lr"))
        info = table.storage_data[index]
        torch.save(Trap(sprung), trapped / "trap.distcp")
        table.storage_data[index] = type(info)("trap.distcp", 0, (trapped / "trap.distcp").stat().st_size)
        (trapped / ".metadata").write_bytes(pickle.dumps(table))
    with pytest.raises(CheckpointError, match="cannot be read"):
        consolidate(trapped, tmp_path / "new.ckpt")
    assert not sprung.exists()
