"""Trains a tiny task in processes of its own, which may be killed: ``python -m tests.distributed.resume_server``.

Reads jobs as JSON lines and forks a set of processes for each, so that the long imports are paid for once. This process
itself never computes anything: forks of a process with running threads of autograd are not safe.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from datetime import timedelta
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy, ModelParallelStrategy, Strategy

from farl_lightning.callbacks.checkpoint_io import write_atomically
from farl_lightning.callbacks.drop_counter import DropCounter
from farl_lightning.callbacks.safety_checkpoint import SafetyCheckpoint
from farl_lightning.datamodules.laion_face import LaionFaceDataModule
from farl_lightning.datamodules.synthetic import SyntheticFacesDataModule
from farl_lightning.models.config import FaceCLIPConfig, ImageEncoderConfig, TextEncoderConfig
from farl_lightning.models.image_tokenizer import PixelTarget
from farl_lightning.objectives import Contrastive, MaskedImage
from farl_lightning.tasks import OptimConfig, PretrainTask
from farl_lightning.text import Tokenizer
from farl_lightning.transforms.pretrain import PretrainTransformConfig

LIFE = 300
"""Seconds that a process may take."""

SILENCE = timedelta(seconds=120)
"""Time after which a process gives up waiting for another one."""


class Recorder(L.Callback):
    """Writes what every rank saw in every step; ends the run by a signal where the job says so.

    ``kill_at`` is a step and how far into the next one, as a share of a step's length so far: at that moment, wherever
    it is, the first rank kills all. ``signal`` is a step after which the last rank sends itself SIGTERM.
    """

    def __init__(self, path: Path, job: dict) -> None:
        self.path, self.kill_at, self.signal_at = path, job.get("kill_at"), job.get("signal_at")
        self.pids = path.with_name("pids")
        self.began = 0.0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.began = self.began or time.monotonic()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        row = {
            "step": trainer.global_step,
            "epoch": trainer.current_epoch,
            "keys": batch["key"],
            "seen": [digest(image) for image in batch["image"]],
            "loss": outputs["loss"].item().hex(),
            "dropped": [[drop["key"], drop["reason"]] for drop in batch["dropped"]] if "dropped" in batch else [],
            **{name: digest(batch[name]) for name in ("image", "text", "patch_mask")},
        }
        with self.path.open("a") as stream:
            stream.write(json.dumps(row) + "\n")
        if self.kill_at and trainer.is_global_zero and trainer.global_step == int(self.kill_at):
            length = (time.monotonic() - self.began) / trainer.global_step
            threading.Timer((self.kill_at % 1) * length, self.kill).start()
        if self.signal_at == trainer.global_step and trainer.global_rank == trainer.world_size - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def kill(self):
        pids = [int(pid) for pid in self.pids.read_text().split()]
        for pid in [*(pid for pid in pids if pid != os.getpid()), os.getpid()]:
            os.kill(pid, signal.SIGKILL)

    def on_fit_end(self, trainer, pl_module):
        local = [p.detach().to_local() if hasattr(p, "to_local") else p.detach() for p in pl_module.parameters()]
        counter = next(callback for callback in trainer.callbacks if isinstance(callback, DropCounter))
        with self.path.open("a") as stream:
            weights = digest(torch.cat([weight.flatten() for weight in local]))
            end = {"weights": weights, "counts": counter.counts, "samples": counter.samples}
            stream.write(json.dumps({"step": -1, **end}) + "\n")


def digest(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()[:16]


def tiny_task() -> PretrainTask:
    """A network with random layer drops, so that the network's own randomness has to resume as well."""
    clip = FaceCLIPConfig(
        embed_dim=8,
        image=ImageEncoderConfig(image_size=32, patch_size=8, width=32, depth=2, heads=2, drop_path=0.3),
        text=TextEncoderConfig(width=16, depth=1, heads=2),
    )
    objectives = {"contrastive": Contrastive(), "pixels": MaskedImage(target=PixelTarget())}
    return PretrainTask(clip, objectives, OptimConfig(lr=1e-3, warmup_steps=2))


def datamodule(kind: str, shards: list[str], **settings):
    transform = PretrainTransformConfig(
        image_size=32, patch_size=8, min_block=2, scale=(0.5, 1.0), brightness=0.3, horizontal_flip=0.5
    )
    if kind == "synthetic":
        return SyntheticFacesDataModule(
            train_count=25, val_count=4, test_count=4, image_size=32, cache=False, transform=transform, **settings
        )
    return LaionFaceDataModule(
        shards,
        val_shards=shards,
        val_samples=5,
        transform=transform,
        shuffle_buffer=7,
        samples_per_epoch=42,
        **settings,
    )


def plan(strategy: str, world: int) -> Strategy | str:
    """Return how several processes work together."""
    if world == 1:
        return "auto"
    if strategy == "ddp":
        return DDPStrategy(process_group_backend="gloo", cluster_environment=LightningEnvironment(), timeout=SILENCE)
    sharded = ModelParallelStrategy(
        data_parallel_size=world, tensor_parallel_size=1, process_group_backend="gloo", timeout=SILENCE
    )
    sharded.cluster_environment = LightningEnvironment()
    return sharded


def run(job: dict, rank: int, world: int) -> None:
    """Train on one rank."""
    out = Path(job["out"])
    L.seed_everything(job.get("seed", 1), verbose=False)
    os.environ |= {"LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    trainer = L.Trainer(
        accelerator="cpu",
        devices=world,
        strategy=plan(job.get("strategy", "ddp"), world),
        max_epochs=job.get("epochs", 2),
        check_val_every_n_epoch=1,
        num_sanity_val_steps=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=out,
        callbacks=[
            ModelCheckpoint(out / "checkpoints", filename="{step}", every_n_train_steps=job["every"], save_top_k=-1),
            DropCounter(max_bad_share=None),
            Recorder(out / f"rank{rank}.jsonl", job),
            SafetyCheckpoint(minutes=None, every_n_steps=2),
        ],
    )
    write_atomically(trainer)
    data = datamodule(job["kind"], job["shards"], batch_size=job["batch_size"], num_workers=job["workers"], seed=3)
    trainer.fit(tiny_task(), data, ckpt_path=job.get("ckpt"))


def fork(job: dict) -> list[int]:
    """Run a job in forked processes; their exit codes, negative for signals."""
    world = job["world"]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(job["port"])}
    pids = []
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            code = 1
            signal.alarm(LIFE)  # nobody handles it: the kernel ends what hangs, wherever that is
            try:
                log = os.open(Path(job["out"]) / f"rank{rank}.log", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
                os.dup2(log, 1)
                os.dup2(log, 2)
                run(job, rank, world)
                code = 0
            except SystemExit as stop:
                code = int(stop.code or 0)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        pids.append(pid)
    (Path(job["out"]) / "pids").write_text(" ".join(map(str, pids)))
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def main() -> None:
    """Serve jobs until the input ends."""
    torch.set_num_threads(1)
    tiny_task()  # imports what is imported late, and reads the vocabulary
    Tokenizer()("a")
    os.chdir(tempfile.gettempdir())
    for line in sys.stdin:
        print(json.dumps(fork(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
