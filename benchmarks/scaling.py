"""Scaling on one machine: processes, contrastive memory, and batches that are embedded in parts.

``python -m benchmarks.scaling`` answers three questions in one run:

a. weak scaling: a DDP training step on 2 processes x 1 thread against 1 x 1, each process with the same batch, for the
   tiny and the ViT-S network; each round times both, one after the other;
b. peak memory of the contrastive loss on 2 processes against the batch, fitted to the bytes that
   ``farl_lightning.planning`` computes (b rows of B similarities, never B x B);
c. ``accumulate_contrastive: 8`` against one pass: time and peak memory of a training step, through the Trainer, for
   large and for small parts, beside what the passes over the parts cost alone.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from benchmarks import common
from benchmarks.common import Timing, Verdict
from farl_lightning.functional.distributed import world_size
from farl_lightning.losses.contrastive import clip_loss
from farl_lightning.models.config import FaceCLIPConfig, ImageEncoderConfig, TextEncoderConfig
from farl_lightning.models.image_tokenizer import PixelTarget
from farl_lightning.objectives import Contrastive, MaskedImage
from farl_lightning.objectives.accumulate import split_batch
from farl_lightning.tasks import PretrainTask
from farl_lightning.testing.distributed import run_distributed
from farl_lightning.testing.memory import LiveMemory

EFFICIENCY, OVERHEAD, SAVING, SLOPE = 0.85, 1.4, 3.0, 0.15
BYTES = 16.0  # per similarity: two directions, each with its logits and their softmax in float32, as plans compute
PARTS = 8

_TEXT = {"context_length": 32, "vocab_size": 1000, "eos_token_id": 999}
NETWORKS: dict[str, dict[str, Any]] = {
    "tiny": {"image": {"image_size": 64, "width": 192, "depth": 4, "heads": 4}, "text": {"width": 128, "depth": 2}},
    "vit-s": {"image": {"image_size": 224, "width": 384, "depth": 12, "heads": 6}, "text": {"width": 256, "depth": 6}},
    "short": {"image": {"image_size": 32, "width": 32, "depth": 2, "heads": 2}, "text": {"width": 32, "depth": 1}},
}
"""Sizes by name; heads of the text tower are 4, patches 16 pixels."""


class Pairs(Dataset[dict[str, Any]]):
    """Noise with captions of full length and a third of the patches masked.

    Args:
        network: A name of :data:`NETWORKS`.
        count: Number of pairs.
    """

    def __init__(self, network: str, count: int) -> None:
        self.size, self.count = NETWORKS[network]["image"]["image_size"], count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a pair, the same one for the same number."""
        generator = torch.Generator().manual_seed(index)
        patches = (self.size // 16) ** 2
        text = torch.randint(998, (_TEXT["context_length"],), generator=generator)
        text[-1] = _TEXT["eos_token_id"]
        mask = torch.arange(patches) < max(1, patches // 3)
        image = torch.randn(3, self.size, self.size, generator=generator)
        return {"image": image, "text": text, "patch_mask": mask, "key": str(index)}


def make_task(network: str, parts: int = 1) -> PretrainTask:
    """Build FaRL's two objectives on a network, with pixels as the target so that nothing has to be fitted.

    Args:
        network: A name of :data:`NETWORKS`.
        parts: ``accumulate_contrastive``.
    """
    torch.manual_seed(0)
    sizes = NETWORKS[network]
    clip = FaceCLIPConfig(
        128,
        ImageEncoderConfig(patch_size=16, **sizes["image"]),
        TextEncoderConfig(heads=4, **{**sizes["text"], **_TEXT}),
    )
    objectives = {"contrastive": Contrastive(), "masked_image": MaskedImage(target=PixelTarget())}
    return PretrainTask(clip, objectives, accumulate_contrastive=parts)


def time_steps(network: str, batch_size: int, steps: int) -> list[float]:
    """Return the seconds of training steps on this process: forward, backward, AdamW; the first ones are not timed.

    Args:
        network: A name of :data:`NETWORKS`.
        batch_size: Pairs per process.
        steps: Timed steps.
    """
    torch.set_num_threads(1)
    model: Any = make_task(network).model.train()
    if world_size() > 1:
        model = DistributedDataParallel(model, gradient_as_bucket_view=True)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = next(iter(DataLoader(Pairs(network, batch_size), batch_size)))
    seconds = []
    for _ in range(2 + steps):
        began = time.perf_counter()
        optimizer.zero_grad()
        model(batch).loss.backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    return seconds[2:]


def run_weak_scaling(options: argparse.Namespace) -> tuple[dict[str, Timing], list[Verdict]]:
    """Answer a."""
    timings, verdicts = {}, []
    for network, batch in options.networks.items():
        found: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(options.repeats):
            for processes, seconds in found.items():
                answers = run_distributed(time_steps, processes, network, batch, options.steps, timeout=1200)
                seconds.append(max(statistics.median(own) for own in answers))  # a step lasts as long as the slowest
        for processes, seconds in found.items():
            name = f"{network}, {processes} x 1"
            timings[name] = Timing(name, tuple(seconds), tuple(seconds))
        share = common.speedup(timings[f"{network}, 1 x 1"], timings[f"{network}, 2 x 1"])
        holds = None if options.short else share >= EFFICIENCY
        verdicts.append(Verdict(f"a. weak scaling, {network}", f">= {EFFICIENCY:.0%}", f"{share:.1%}", holds))
    return timings, verdicts


def contrast_peak(batch_size: int, width: int, chunk_rows: int | None) -> int:
    """Return the peak bytes of tensors that the contrastive loss makes on this process, forward and backward.

    Args:
        batch_size: Pairs per process.
        width: Channels of the features.
        chunk_rows: Rows of similarities held at a time; None for all.
    """
    images, texts = (F.normalize(torch.randn(batch_size, width), dim=-1).requires_grad_() for _ in range(2))
    scale = torch.tensor([10.0], requires_grad=True)
    with LiveMemory() as watch:
        clip_loss(images, texts, scale, chunk_rows=chunk_rows).backward()
    return watch.peak


def run_contrast_memory(options: argparse.Namespace) -> list[Verdict]:
    """Answer b: the growth with b B is the slope of a quadratic in b, which three batches determine."""
    rows = {}
    for chunk in (None, options.chunk):
        rows[chunk] = [
            max(run_distributed(contrast_peak, 2, batch, options.width, chunk)) for batch in options.contrast_batches
        ]
    batches = options.contrast_batches
    whole = _second_difference(batches, rows[None]) / 2  # per b B, with B = 2 b
    chunked = _second_difference(batches, rows[options.chunk]) / 2
    table = [
        [str(b), f"{a / 1e6:.2f} MB", f"{c / 1e6:.2f} MB"] for b, a, c in zip(batches, *rows.values(), strict=True)
    ]
    print(common.format_table(["pairs per process", "all rows", f"{options.chunk} rows"], table) + "\n", flush=True)
    close = abs(whole / BYTES - 1) <= SLOPE
    goal = f"{BYTES:g} bytes per b B, within {SLOPE:.0%}"
    small = f"{chunked:.3f} bytes per b B"
    return [
        Verdict("b. contrastive memory", goal, f"{whole:.2f} bytes per b B", None if options.short else close),
        Verdict("b. with chunk_rows", "< 1 byte per b B", small, None if options.short else chunked < 1),
    ]


def _second_difference(batches: Sequence[int], peaks: Sequence[int]) -> float:
    """Return the quadratic coefficient of the parabola through three points."""
    (x0, x1, x2), (y0, y1, y2) = batches, peaks
    return ((y2 - y1) / (x2 - x1) - (y1 - y0) / (x1 - x0)) / (x2 - x0)


class StepProbe(L.Callback):
    """Times every training step but the first two, and watches the tensors of the last one."""

    def __init__(self, steps: int) -> None:
        self.steps, self.peak = steps, 0
        self.seconds: list[float] = []
        self._began = 0.0
        self._watch: LiveMemory | None = None

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Start the clock, or the watch."""
        if batch_idx == self.steps + 2:
            self._watch = LiveMemory()
            self._watch.__enter__()
        self._began = time.perf_counter()

    @override
    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: Any) -> None:
        """Stop it."""
        if self._watch is not None:
            self._watch.__exit__(None, None, None)
            self.peak = self._watch.peak
        elif len(self.seconds) < self.steps + 2:
            self.seconds.append(time.perf_counter() - self._began)


def time_and_peak(network: str, batch_size: int, steps: int, parts: int) -> tuple[list[float], int]:
    """Train through the Trainer.

    Args:
        network: A name of :data:`NETWORKS`.
        batch_size: Pairs.
        steps: Timed steps.
        parts: ``accumulate_contrastive``.

    Returns:
        Seconds of the timed steps, and the peak bytes of tensors that a step makes.
    """
    probe = StepProbe(steps)
    quiet: dict[str, Any] = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = L.Trainer(accelerator="cpu", devices=1, max_steps=steps + 3, callbacks=[probe], **quiet)
    loader = DataLoader(Pairs(network, batch_size * (steps + 3)), batch_size)
    trainer.fit(make_task(network, parts), loader)
    return probe.seconds[2:], probe.peak


def time_passes(network: str, batch_size: int, steps: int, parts: int) -> tuple[float, float]:
    """Time what no accumulation can do without: every part once without a graph, and once as a step of its own.

    Args:
        network: A name of :data:`NETWORKS`.
        batch_size: Pairs.
        steps: Timed repetitions; one more comes first.
        parts: Number of parts.

    Returns:
        Median seconds of those passes, and of one pass over the whole batch.
    """
    model = make_task(network).model.train()
    batch = next(iter(DataLoader(Pairs(network, batch_size), batch_size)))
    pieces = split_batch(batch, parts)

    def in_parts() -> None:
        with torch.no_grad():
            for piece in pieces:
                model.run_passes(piece, frozenset({"image", "text"}))
        for piece in pieces:
            model(piece).loss.backward()

    seconds = [[_seconds_of(run) for _ in range(1 + steps)][1:] for run in (in_parts, lambda: _backward(model, batch))]
    return statistics.median(seconds[0]), statistics.median(seconds[1])


def _backward(model: Any, batch: Any) -> None:
    """Run one step without an optimiser."""
    model(batch).loss.backward()


def _seconds_of(run: Callable[[], None]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def run_accumulation(options: argparse.Namespace) -> tuple[dict[str, Timing], list[Verdict]]:
    """Answer c: judged for parts that keep a core busy; smaller ones show what fixed costs per operation do."""
    timings, verdicts = {}, []
    for batch in options.accumulated_batches:
        name = f"{batch // PARTS} pairs per part"
        found, peaks = _time_parts(options, batch)
        timings |= {f"{name}, parts {parts}": timing for parts, timing in found.items()}
        overhead, saving = common.speedup(found[PARTS], found[1]), peaks[1] / peaks[PARTS]
        passes, whole = time_passes(options.accumulated, batch, options.steps, PARTS)
        judged = batch == max(options.accumulated_batches) and not options.short
        goal = f"<= {OVERHEAD:g} x the time, peak >= {SAVING:g} x lower at k = {PARTS}" if judged else ""
        text = f"{overhead:.2f} x, {saving:.2f} x lower (passes alone {passes / whole:.2f} x)"
        holds = overhead <= OVERHEAD and saving >= SAVING if judged else None
        verdicts.append(Verdict(f"c. accumulate_contrastive, {name}", goal, text, holds))
    return timings, verdicts


def _time_parts(options: argparse.Namespace, batch: int) -> tuple[dict[int, Timing], dict[int, int]]:
    """Return times and peaks of training steps, by the number of parts."""
    seconds: dict[int, list[float]] = {1: [], PARTS: []}
    peaks: dict[int, int] = {}
    for _ in range(options.repeats):
        for parts, found in seconds.items():
            steps, peaks[parts] = time_and_peak(options.accumulated, batch, options.steps, parts)
            found.append(statistics.median(steps))
    return {parts: Timing(f"parts {parts}", tuple(found), tuple(found)) for parts, found in seconds.items()}, peaks


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ``--short`` replaces the sizes by tiny ones."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__.splitlines()[0])
    common.add_arguments(parser, repeats=5)
    parser.add_argument("--steps", type=int, default=6, help="timed steps per round (default: %(default)s)")
    options = parser.parse_args(arguments)
    options.networks = {"tiny": 64, "vit-s": 4}
    options.contrast_batches, options.width, options.chunk = (256, 512, 1024), 64, 32
    options.accumulated, options.accumulated_batches = "tiny", (64, 256)
    if options.short:
        options.networks, options.repeats, options.steps = {"short": 4}, 1, 2
        options.contrast_batches, options.width, options.chunk = (32, 64, 128), 8, 8
        options.accumulated, options.accumulated_batches = "short", (16,)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the sections, print their tables and return the exit code."""
    options = parse_arguments(arguments)
    torch.set_num_threads(options.threads or 1)
    timings, verdicts = run_weak_scaling(options)
    verdicts += run_contrast_memory(options)
    more, last = run_accumulation(options)
    timings |= more
    common.print_timings(timings)
    return common.finish(options, timings, [*verdicts, *last])


if __name__ == "__main__":
    raise SystemExit(main())
