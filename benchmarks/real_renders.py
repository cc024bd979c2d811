"""Face parsing and alignment on real renders: fine-tuned on few, tested on others, judged in their own pixels.

    python -m benchmarks.real_renders --renders FOLDER [--pretrained CKPT] [--timm NAME] [--output FOLDER]
    python -m benchmarks.real_renders --renders FOLDER --overfit

``FOLDER`` holds files of FaceSynthetics (``{id}.png``, ``{id}_seg.png``, ``{id}_ldmks.txt``); a fifth, chosen by
seed, is tested on. A small ViT is fine-tuned from random weights, from a checkpoint of ``pretrain.yaml`` and
from a model of timm whose weights are on this machine; beside them stands an answer that never looks at the picture.
With ``--overfit`` a parser is trained on eight renders and judged on the same eight: does the loss lead to the truth?

Results are written as JSON, overlays as PNG. The renders' licence does not allow them, or pictures made of them, to be
passed on with the code.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import common
from benchmarks.registry import ROOT
from benchmarks.renders import OVERFIT_GOAL, SCORES, shared_renders
from farl_lightning.callbacks import EMA
from farl_lightning.datamodules import FaceSyntheticsDataModule
from farl_lightning.datasets import FaceDataset, FaceSubset
from farl_lightning.losses import ParsingLoss
from farl_lightning.metrics import LandmarkNME, ParsingF1
from farl_lightning.models import DenseConfig, ImageEncoderConfig
from farl_lightning.tasks import AlignmentTask, OptimConfig, ParsingTask
from farl_lightning.transforms.dense_config import DenseTransformConfig, alignment_recipe, parsing_recipe
from farl_lightning.types import CLIP_MEAN, CLIP_STD, FaceRecord
from farl_lightning.visualization import alignment_panel, parsing_panel, save_png

Points = NDArray[Any]
TEST_SHARE = 0.2


@dataclass(frozen=True)
class Settings:
    """How long and how large.

    Attributes:
        steps: Optimiser steps.
        size: Side of crop and network input in pixels; scores are those of the renders' own pixels all the same.
        batch_size: Crops per step.
        channels: Channels of the head.
        lr: Learning rate of neck and head.
        encoder_lr: Learning rate of the encoder.
        dice: Weight of the Dice loss beside the cross-entropy of parsing; it counts small parts as much as large ones.
        ema: Decay of the weight average.
        overlays: Pictures per task that are drawn.
    """

    steps: int = 300
    size: int = 128
    batch_size: int = 8
    channels: int = 32
    lr: float = 4e-3
    encoder_lr: float = 6e-4
    dice: float = 1.0
    ema: float = 0.95
    overlays: int = 12


FULL = Settings()
SHORT = Settings(steps=2, size=64, batch_size=4, channels=16, overlays=1)
OVERFIT = Settings(steps=700, size=448, batch_size=4, channels=32, lr=8e-3, encoder_lr=1.2e-3, ema=0.9, overlays=8)
SHORT_OVERFIT = dataclasses.replace(SHORT, steps=8)


@dataclass(frozen=True)
class Start:
    """Weights to begin with.

    Attributes:
        name: As the table calls them.
        image: The encoder.
        weights: File to load the encoder from; None leaves what ``image`` makes.
        mean: What is subtracted from RGB.
        std: What divides it.
    """

    name: str
    image: ImageEncoderConfig
    weights: str | None = None
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD


def small_vit() -> ImageEncoderConfig:
    """Return the encoder of ``pretrain.yaml``; its positions are resized to the input."""
    return ImageEncoderConfig(patch_size=16, width=192, depth=4, heads=4)


def starts(pretrained: str | None, timm_name: str | None) -> tuple[list[Start], dict[str, str]]:
    """Return what can be started from, and why the rest cannot.

    Args:
        pretrained: A checkpoint of ``pretrain.yaml``, or None.
        timm_name: An architecture of timm, or None.

    Returns:
        The starts, and a reason by name of each that is missing.
    """
    found, missing = [Start("random weights", small_vit())], {}
    if pretrained is None:
        missing["quickstart pretraining"] = "not at hand (--pretrained FILE)"
    else:
        found.append(Start("quickstart pretraining", small_vit(), pretrained))
    if timm_name is not None and (config := timm_at_hand(timm_name)) is not None:
        image = ImageEncoderConfig(name=timm_name, pretrained=True)
        found.append(Start(f"timm {timm_name}", image, None, config.mean, config.std))
    else:
        missing[f"timm {timm_name or 'model'}"] = "weights not at hand"
    return found, missing


def timm_at_hand(name: str) -> Any | None:
    """Return timm's description of a model whose weights were downloaded before, else None; downloads nothing."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if config is None:
        return None
    files = ("model.safetensors", "pytorch_model.bin")
    if config.hf_hub_id and any(isinstance(try_to_load_from_cache(config.hf_hub_id, file), str) for file in files):
        return config
    cached = Path(torch.hub.get_dir()) / "checkpoints" / Path(config.url or "none").name
    return config if cached.is_file() else None


class MemorizedRenders(FaceSyntheticsDataModule):
    """The first renders of a folder, for training and test alike.

    Args:
        root: Folder of the files.
        count: How many.
        settings: Arguments of :class:`~farl_lightning.datamodules.FaceSyntheticsDataModule`.
    """

    official: ClassVar[tuple[str, ...]] = ("train", "test")  # the test is what was trained on, on purpose

    def __init__(self, root: str, count: int, **settings: Any) -> None:
        super().__init__(root, val_fraction=0.0, **settings)
        self.count = count

    def open_split(self, split: str) -> FaceDataset:
        """Open the first renders.

        Args:
            split: Any; all are the same.
        """
        return FaceSubset(super().open_split(split), range(self.count))


def recipe(kind: str, settings: Settings, start: Start) -> DenseTransformConfig:
    """Return FaRL's augmentation at the size of the benchmark.

    Args:
        kind: ``"parsing"`` or ``"alignment"``.
        settings: Gives the size.
        start: Gives the normalisation.
    """
    own: dict[str, Any] = {"size": settings.size, "antialias": True, "mean": start.mean, "std": start.std}
    if kind == "parsing":
        return parsing_recipe(crop="none", warp_factor=0.0, **own)
    return alignment_recipe(crop="box", **own)


def open_renders(renders: Path, kind: str, settings: Settings, start: Start) -> FaceSyntheticsDataModule:
    """Return the datamodule: four fifths for training, no validation (nothing is selected), one fifth for the test."""
    return FaceSyntheticsDataModule(
        str(renders),
        task=kind,
        transform=recipe(kind, settings, start),
        batch_size=settings.batch_size,
        val_fraction=0.0,
        test_fraction=TEST_SHARE,
    )


def build_task(kind: str, settings: Settings, start: Start) -> ParsingTask | AlignmentTask:
    """Return the task with its network.

    Args:
        kind: ``"parsing"`` or ``"alignment"``.
        settings: Gives size, channels and learning rate.
        start: Gives encoder and weights.
    """
    torch.manual_seed(0)
    image = dataclasses.replace(start.image, image_size=settings.size)
    network = DenseConfig(image=image, channels=settings.channels, dropout=0.0)
    groups = {"encoder": settings.encoder_lr}
    optim = OptimConfig(lr=settings.lr, group_lrs=groups, weight_decay=0.01, warmup_ratio=0.1)
    if kind == "parsing":
        return ParsingTask(network, weights=start.weights, loss=ParsingLoss(dice=settings.dice), optim=optim)
    # the eyes of a face in profile almost meet: errors as shares of the face's box stand beside those by the eyes
    return AlignmentTask(network, weights=start.weights, optim=optim, more_normalizers=["box"])


@dataclass
class Run:
    """A network that was trained, and its answers.

    Attributes:
        kind: ``"parsing"`` or ``"alignment"``.
        start: Name of what it began with.
        seconds: Wall time of the training.
        metrics: Metrics of the test by name.
        answers: Predicted labels or landmarks of each test render, by key.
        tables: Tables of the test: per class, per subset.
    """

    kind: str
    start: str
    seconds: float
    metrics: dict[str, float]
    answers: dict[str, Any] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """Mean F1 or NME, in percent."""
        return self.metrics[SCORES[self.kind]]

    def plain(self) -> dict[str, Any]:
        """Return everything but the answers."""
        kept = ("kind", "start", "seconds", "metrics", "tables")
        return {name: getattr(self, name) for name in kept}

    def captions(self, shown: Sequence[FaceRecord]) -> list[str]:
        """Return the names of renders, for pictures."""
        return [f"{record.key}, {self.start}" for record in shown]


def train(
    task: ParsingTask | AlignmentTask, data: FaceSyntheticsDataModule, settings: Settings, folder: Path
) -> L.Trainer:
    """Train to the end and return the trainer; the averaged weights are in the task.

    Args:
        task: The task.
        data: The renders.
        settings: Gives steps and average.
        folder: Where the list of held-out renders goes.
    """
    trainer = L.Trainer(
        max_steps=settings.steps,
        devices=1,
        gradient_clip_val=1.0,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[EMA(settings.ema)],
        default_root_dir=folder,
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*val_dataloader.*|.*does not have many workers.*")
        trainer.fit(task, datamodule=data)
    return trainer


def measure(kind: str, data: FaceSyntheticsDataModule, start: Start, settings: Settings, folder: Path) -> Run:
    """Fine-tune, test, and collect the answers.

    Args:
        kind: ``"parsing"`` or ``"alignment"``.
        data: The renders.
        start: Where to begin.
        settings: How long and how large.
        folder: Where files go.
    """
    L.seed_everything(0, verbose=False)
    task = build_task(kind, settings, start)
    began = time.perf_counter()
    trainer = train(task, data, settings, folder)
    run = Run(kind, start.name, time.perf_counter() - began, {})
    (found,) = trainer.test(task, datamodule=data, verbose=False)
    run.metrics = {name.removeprefix("test/"): float(value) for name, value in found.items()}
    run.tables = task.tables
    for batch in trainer.predict(task, datamodule=data) or []:
        values = batch["labels"] if kind == "parsing" else batch["landmarks"]
        run.answers |= {key: value.numpy() for key, value in zip(batch["key"], values, strict=True)}
    return run


def blind(kind: str, data: FaceSyntheticsDataModule) -> Run:
    """Answer without looking: each pixel's most frequent training label, or the mean of the training landmarks.

    Args:
        kind: ``"parsing"`` or ``"alignment"``.
        data: The renders, all of one size.
    """
    known, asked = records(data, "train"), records(data, "test")
    if kind == "parsing":
        metric: Any = ParsingF1(len(data.spec.classes), data.spec.classes)
        masks = torch.stack([torch.tensor(record.mask) for record in known])
        guesses = [masks.mode(0).values] * len(asked)
        metric.update(guesses, [torch.tensor(record.mask) for record in asked])
    else:
        metric = LandmarkNME("inter_ocular")
        shape = np.mean([in_box(record) for record in known], axis=0)
        guesses = [torch.tensor(out_of_box(shape, record)) for record in asked]
        metric.update(torch.stack(guesses), torch.stack([torch.tensor(record.landmarks) for record in asked]))
    metrics = {name: float(value) for name, value in metric.compute().items()}
    answers = {record.key: guess.numpy() for record, guess in zip(asked, guesses, strict=True)}
    return Run(kind, "without looking", 0.0, metrics, answers)


def records(data: FaceSyntheticsDataModule, split: str) -> list[FaceRecord]:
    """Return the bare renders of a split: source pixels and their labels."""
    faces = data.faces(split)
    return [] if faces is None else [faces[index] for index in range(len(faces))]


def in_box(record: FaceRecord) -> Points:
    """Return the landmarks as shares of the face's square box, which is what alignment crops by."""
    left, top, right, _ = record.box
    return (record.landmarks - (left, top)) / (right - left)


def out_of_box(shape: Points, record: FaceRecord) -> Points:
    """Return (N, 2) float32 source pixels of landmarks that are shares of a face's box."""
    left, top, right, _ = record.box
    return (shape * (right - left) + (left, top)).astype(np.float32)


def draw(run: Run, data: FaceSyntheticsDataModule, count: int, folder: Path) -> None:
    """Write overlays of the first test renders.

    Args:
        run: With the answers.
        data: The renders.
        count: How many are drawn, four to a file.
        folder: Where files go.
    """
    shown = records(data, "test")[:count]
    for first in range(0, len(shown), 4):
        part = shown[first : first + 4]
        images, answers = [record.image for record in part], [run.answers[record.key] for record in part]
        if run.kind == "parsing":
            truths = [record.mask for record in part]
            picture = parsing_panel(images, truths, answers, data.spec.classes, captions=run.captions(part), cell=2.6)
        else:
            marks = [record.landmarks for record in part]
            picture = alignment_panel(images, marks, answers, captions=run.captions(part), cell=3.6)
        name = f"{run.kind}_{run.start}_{first // 4}".replace(" ", "_").replace("/", "_")
        save_png(picture, folder / f"{name}.png")


@dataclass
class Report:
    """Every run of the benchmark.

    Attributes:
        runs: In the order of the table.
        missing: Why a start could not be taken, by name.
        counts: Renders that were trained and tested on.
    """

    runs: list[Run]
    missing: dict[str, str]
    counts: tuple[int, int]

    def score(self, kind: str, start: str) -> float | None:
        """Return the score of a task from a start, or None if it was not measured."""
        return next((run.score for run in self.runs if (run.kind, run.start) == (kind, start)), None)

    def table(self) -> str:
        """Return one row per start: F1, NME, seconds."""
        names = list(dict.fromkeys(run.start for run in self.runs))
        rows = [self._row(name) for name in names] + [[name, why, "", ""] for name, why in self.missing.items()]
        return common.format_table(["start", "F1 (%)", "NME (%)", "seconds"], rows)

    def _row(self, name: str) -> list[str]:
        """Return the cells of one start."""
        scores = [self.score(kind, name) for kind in SCORES]
        cells = ["-" if score is None else f"{score:.2f}" for score in scores]
        return [name, *cells, f"{sum(run.seconds for run in self.runs if run.start == name):.0f}"]

    def write(self, path: Path, settings: Settings) -> None:
        """Write every number as JSON."""
        common.write_json(
            path,
            {
                "machine": common.machine(),
                "settings": dataclasses.asdict(settings),
                "renders": dict(zip(("train", "test"), self.counts, strict=True)),
                "runs": [run.plain() for run in self.runs],
                "missing": self.missing,
            },
        )


def fine_tune(
    renders: Path, folder: Path, settings: Settings = FULL, pretrained: str | None = None, timm_name: str | None = None
) -> Report:
    """Fine-tune from every start that is at hand, on both tasks.

    Args:
        renders: The folder of the renders.
        folder: Where results and overlays go.
        settings: How long and how large.
        pretrained: A checkpoint of ``pretrain.yaml``.
        timm_name: An architecture of timm.
    """
    found, missing = starts(pretrained, timm_name)
    report = Report([], missing, (0, 0))
    for kind in SCORES:
        data = open_renders(renders, kind, settings, found[0])
        report.runs.append(blind(kind, data))
        report.counts = (len(records(data, "train")), len(records(data, "test")))
        for start in found:
            data = open_renders(renders, kind, settings, start)
            report.runs.append(run := measure(kind, data, start, settings, folder))
            draw(run, data, settings.overlays, folder)
            print(f"{kind} from {start.name}: {run.score:.2f} ({run.seconds:.0f} s)", flush=True)
    report.write(folder / "real_renders.json", settings)
    return report


def overfit(renders: Path, folder: Path, settings: Settings = OVERFIT, count: int = 8) -> Run:
    """Train a parser on a few renders, without augmentation, and judge it on the same, in their own pixels.

    Args:
        renders: The folder of the renders.
        folder: Where results and overlays go.
        settings: How long and how large.
        count: How many renders.
    """
    start = Start("random weights, the same renders", small_vit())
    # the warp shows the whole picture, and the parts of the face large
    transform = DenseTransformConfig(size=settings.size, crop="align", warp_factor=0.8, antialias=True)
    data = MemorizedRenders(str(renders), count, transform=transform, batch_size=settings.batch_size)
    run = measure("parsing", data, start, settings, folder)
    draw(run, data, settings.overlays, folder)
    Report([run], {}, (count, count)).write(folder / "overfit.json", settings)
    return run


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one of the two forms and print its table; return 1 if eight renders could not be learned by heart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renders", type=Path, help="folder of FaceSynthetics files")
    parser.add_argument("--pretrained", metavar="FILE", help="a checkpoint of pretrain.yaml")
    parser.add_argument("--timm", metavar="NAME", default="vit_tiny_patch16_224", help="default: %(default)s")
    parser.add_argument("--overfit", action="store_true", help="learn eight renders by heart instead")
    parser.add_argument("--steps", type=int, help="optimiser steps instead of the usual number")
    parser.add_argument("--short", action="store_true", help="a tiny form in seconds, not judged")
    parser.add_argument("--output", type=Path, default=ROOT / "runs" / "real_renders", help="default: %(default)s")
    options = parser.parse_args(arguments)
    renders = options.renders or shared_renders()
    if renders is None:
        parser.error("no renders here: give --renders FOLDER, or set FARL_SHARED")
    settings = choose(options.overfit, options.short, options.steps)
    if options.overfit:
        run = overfit(renders, options.output, settings)
        print(f"F1 of the renders that were trained on: {run.score:.2f} after {run.seconds:.0f} s of training")
        return int(not options.short and run.score <= OVERFIT_GOAL)
    print(fine_tune(renders, options.output, settings, options.pretrained, options.timm).table())
    print(f"\nnumbers and overlays in {options.output}")
    return 0


def choose(memorize: bool, short: bool, steps: int | None = None) -> Settings:
    """Return the settings of a form of the benchmark.

    Args:
        memorize: Whether eight renders are learned by heart.
        short: Whether it takes but seconds.
        steps: Optimiser steps instead of the usual number.
    """
    settings = (SHORT_OVERFIT if short else OVERFIT) if memorize else (SHORT if short else FULL)
    return settings if steps is None else dataclasses.replace(settings, steps=steps)


if __name__ == "__main__":
    raise SystemExit(main())
