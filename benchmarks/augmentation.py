"""Augmentation for dense tasks on one core, against the same chain written in OpenCV.

``python -m benchmarks.augmentation`` draws faces and makes training samples of them both ways, from the decoded picture
to normalised tensors with mask and landmarks, by FaRL's parsing and alignment recipes. The OpenCV chain is written as
one would write it for speed: the crop, the random turn and the tanh warp in one ``remap``, with maps that are outer
sums, and every further step a single call. ``tests/benchmarks`` compares the results for equal draws.

Both chains work on floats from the start, as FaRL's does (and as ours does: no grey level is rounded). A third side,
reported beside, lets OpenCV warp the uint8 pixels and rounds what comes out to whole grey levels: quicker, less exact.
A second table says where our time goes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from benchmarks import common
from benchmarks.common import Timing, Verdict
from farl_lightning.datasets.synthetic import SyntheticFaces
from farl_lightning.transforms.dense import DenseTransform
from farl_lightning.transforms.dense_config import DenseTransformConfig, alignment_recipe, parsing_recipe
from farl_lightning.transforms.face_matrix import face_matrix
from farl_lightning.transforms.resample import FaceCut
from farl_lightning.types import FaceRecord

GOAL = 0.7
RECIPES: dict[str, Callable[..., DenseTransformConfig]] = {"parsing": parsing_recipe, "alignment": alignment_recipe}

Array = npt.NDArray[Any]


def draw_records(count: int, size: int) -> list[FaceRecord]:
    """Draw faces with masks and 68 landmarks.

    Args:
        count: How many.
        size: Side of the pictures in pixels.
    """
    faces = SyntheticFaces(count, image_size=size)
    return [FaceRecord(f.key, f.image, f.mask_lapa, f.landmarks(68), None, f.five_points, f.box) for f in faces]


class OpenCVChain:
    """FaRL's recipes in OpenCV and numpy.

    Args:
        config: The recipe.
        seed: Seed of the draws.
        rounded: Warp uint8 pixels instead of floats.
    """

    def __init__(self, config: DenseTransformConfig, seed: int = 0, *, rounded: bool = False) -> None:
        self.config, self.rng, self.rounded = config, np.random.default_rng(seed), rounded
        self.template = (np.array(config.template) + 1) * (config.size - 1) / 2
        self.gain = (1 / np.array(config.std)).astype(np.float32).tolist()
        self.shift = (-np.array(config.mean) / np.array(config.std)).astype(np.float32).tolist()
        axis = np.arange(config.size, dtype=np.float64)
        self.axis = _stretch(axis, config.size, config.warp_factor) if config.warp_factor else axis

    def __call__(self, record: FaceRecord) -> dict[str, Any]:
        """Make one sample.

        Args:
            record: The face.
        """
        matrix = self._turn() @ self._crop_matrix(record)
        return self.sample(record, matrix, self._draw())

    def sample(self, record: FaceRecord, matrix: Array, draws: dict[str, Any]) -> dict[str, Any]:
        """Make one sample from draws.

        Args:
            record: The face.
            matrix: (3, 3), source to crop.
            draws: ``gray``, ``octave``, ``size`` and, for alignment, ``rectangle`` and ``alpha``.
        """
        map_x, map_y = self._maps(np.linalg.inv(matrix))
        source = record.image if self.rounded else record.image.astype(np.float32)
        image = cv2.remap(source, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
        mask = cv2.remap(record.mask, map_x, map_y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)
        pixels = self._change(np.multiply(image, np.float32(1 / 255), dtype=np.float32), draws)
        planes = [
            plane * gain + shift for plane, gain, shift in zip(cv2.split(pixels), self.gain, self.shift, strict=True)
        ]
        points = record.landmarks @ matrix[:2, :2].T + matrix[:2, 2]
        if self.config.warp_factor:
            points = _squeeze(points, self.config.size, self.config.warp_factor)
        return {
            "image": torch.from_numpy(np.stack(planes)),
            "mask": torch.from_numpy(mask.astype(np.int64)),
            "landmarks": torch.from_numpy(points.astype(np.float32)),
        }

    def _change(self, image: Array, draws: dict[str, Any]) -> Array:
        """Apply the photometric steps to a picture in [0, 1]."""
        if draws.get("rectangle"):
            left, top, right, bottom = draws["rectangle"]
            image[top:bottom, left:right] = 0
        if draws.get("alpha"):
            noise = cv2.randu(np.empty_like(image), 0, 1)
            image = cv2.addWeighted(image, 1 - draws["alpha"], noise, draws["alpha"], 0)
        if draws["gray"]:
            image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        if draws["octave"]:
            image = cv2.sqrt(image) if draws["octave"] < 0 else cv2.multiply(image, image)
        return cv2.blur(image, (draws["size"], draws["size"])) if draws["size"] > 1 else image

    def _draw(self) -> dict[str, Any]:
        """Draw for the photometric steps."""
        size, u = self.config.size, self.rng.random
        draws: dict[str, Any] = {"gray": u() < self.config.gray, "octave": int(3 * u()) - 1}
        draws["size"] = int(size * self.config.blur * u())
        if self.config.occlusion:
            tall, wide = 0.2 + 0.6 * u(), -0.2 + 0.4 * u()
            x, y = int((size - 1) * u()), int((size - 1) * u())
            dy, dx = int(size / 2 * tall) // 2, int(size / 2 * (tall + wide)) // 2
            draws["rectangle"] = max(x - dx, 0), max(y - dy, 0), x + dx + 1, y + dy + 1
            draws["alpha"] = self.config.noise_strength * u() if u() < self.config.noise else 0.0
        return draws

    def _turn(self) -> Array:
        """Draw the random part of the matrix."""
        c, (x, y), center = self.config, self.rng.uniform(-1, 1, 2), (self.config.size - 1) / 2
        turn, zoom = self.rng.standard_normal(2) if c.distribution == "normal" else self.rng.uniform(-1, 1, 2)
        scale = c.zoom_mean + c.zoom * zoom
        cos, sin = scale * np.cos(c.rotation * turn), scale * np.sin(c.rotation * turn)
        dx, dy = c.shift * c.size * x, c.shift * c.size * y
        return np.array(
            [
                [cos, -sin, center * (1 - cos + sin) + dx],
                [sin, cos, center * (1 - sin - cos) + dy],
                [0, 0, 1],
            ]
        )

    def _crop_matrix(self, record: FaceRecord) -> Array:
        """Fit the crop."""
        if self.config.crop == "box":
            left, top, right, bottom = record.box
            x, y = self.config.size / (right - left), self.config.size / (bottom - top)
            return np.array([[x, 0, -left * x - 0.5], [0, y, -top * y - 0.5], [0, 0, 1]])
        f, t = record.points - record.points.mean(0), self.template - self.template.mean(0)
        a, b = (f * t).sum() / (f * f).sum(), (t[:, 0] * f[:, 1] - t[:, 1] * f[:, 0]).sum() / (f * f).sum()
        matrix = np.array([[a, b, 0], [-b, a, 0], [0, 0, 1]])
        matrix[:2, 2] = self.template.mean(0) - matrix[:2, :2] @ record.points.mean(0)
        return matrix

    def _maps(self, inverse: Array) -> tuple[Array, Array]:
        """Build the maps as outer sums of rows and columns."""
        columns = (inverse[:2, 0, None] * self.axis).astype(np.float32)
        rows = (inverse[:2, 1, None] * self.axis + inverse[:2, 2, None]).astype(np.float32)
        return columns[0] + rows[0][:, None], columns[1] + rows[1][:, None]


def _stretch(p: Array, size: int, factor: float) -> Array:
    """Undo the tanh warp."""
    u = 2 * p / size - 1
    within = np.clip((np.abs(u) - 1 + factor) / factor, 0, 0.999)
    return (np.where(np.abs(u) > 1 - factor, np.sign(u) * (np.arctanh(within) * factor + 1 - factor), u) + 1) * size / 2


def _squeeze(p: Array, size: int, factor: float) -> Array:
    """Apply the tanh warp."""
    u = 2 * p / size - 1
    beyond = np.tanh((np.abs(u) - 1 + factor) / factor) * factor + 1 - factor
    return (np.where(np.abs(u) > 1 - factor, np.sign(u) * beyond, u) + 1) * size / 2


def our_pass(records: Sequence[FaceRecord], config: DenseTransformConfig) -> Callable[[], None]:
    """Return one pass over the records through the package's own transform, with new draws in each pass.

    Args:
        records: The faces.
        config: The recipe.
    """
    transform, passes = DenseTransform(config, SyntheticFaces.spec(config.size), train=True), iter(range(10**9))

    def run() -> None:
        epoch = next(passes)
        for record in records:
            transform(record, epoch)

    return run


def peer_pass(
    records: Sequence[FaceRecord], config: DenseTransformConfig, *, rounded: bool = False
) -> Callable[[], None]:
    """Return one pass over the records through the OpenCV chain.

    Args:
        records: The faces.
        config: The recipe.
        rounded: Let OpenCV warp uint8 pixels.
    """
    chain = OpenCVChain(config, rounded=rounded)

    def run() -> None:
        for record in records:
            chain(record)

    return run


def stages(records: Sequence[FaceRecord], config: DenseTransformConfig) -> dict[str, Callable[[], Any]]:
    """Return the steps of our chain one by one, each over all records.

    Args:
        records: The faces.
        config: The recipe.
    """
    spec = config.face_spec(SyntheticFaces.spec(config.size))
    transform = DenseTransform(config, spec, train=True)
    matrices = [face_matrix(spec, r.image.shape[:2], box=r.box, points=r.points) for r in records]
    cuts = [
        FaceCut(m, config.size, config.warp_factor, r.image.shape[:2]) for m, r in zip(matrices, records, strict=True)
    ]
    images = [cut.image(r.image).mul_(1 / 255) for cut, r in zip(cuts, records, strict=True)]
    chain = transform.photometric
    return {
        "fit the crop": lambda: [face_matrix(spec, r.image.shape[:2], box=r.box, points=r.points) for r in records],
        "map rows and columns": lambda: [
            FaceCut(m, config.size, config.warp_factor, r.image.shape[:2])
            for m, r in zip(matrices, records, strict=True)
        ],
        "warp the picture": lambda: [cut.image(r.image) for cut, r in zip(cuts, records, strict=True)],
        "warp the mask": lambda: [cut.mask(r.mask) for cut, r in zip(cuts, records, strict=True)],
        "change the colours": lambda: [chain.apply(image.clone(), chain.draw(image)) for image in images],
        "normalise": lambda: [transform.normalize(image) for image in images],
    }


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ``--short`` takes few and small pictures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.augmentation", description=__doc__.splitlines()[0])
    common.add_arguments(parser, repeats=15)
    parser.add_argument("--samples", type=int, default=16, help="pictures per pass (default: %(default)s)")
    parser.add_argument("--source-size", type=int, default=768, help="side of the pictures (default: %(default)s)")
    parser.add_argument("--size", type=int, default=512, help="side of the crops (default: %(default)s)")
    options = parser.parse_args(arguments)
    if options.short:
        options.samples, options.source_size, options.size = 2, 96, 64
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the faces, time both chains, print the tables and return the exit code."""
    options = parse_arguments(arguments)
    torch.set_num_threads(options.threads or 1)
    cv2.setNumThreads(options.threads or 1)
    records = draw_records(options.samples, options.source_size)
    timings: dict[str, Timing] = {}
    for name, recipe in RECIPES.items():
        config = recipe(size=options.size)
        runs = {
            f"OpenCV, {name}": peer_pass(records, config),
            f"ours, {name}": our_pass(records, config),
            f"OpenCV on uint8, {name}": peer_pass(records, config, rounded=True),
        }
        timings |= common.interleave(runs, options.repeats, warmup=2)
        parts = common.interleave(stages(records, config), options.repeats)
        _print_stages(name, parts, len(records))
        timings |= {f"{part}, {name}": timing for part, timing in parts.items()}
    both = {label: timing for label, timing in timings.items() if label.startswith(("OpenCV", "ours"))}
    common.print_timings(both, items=len(records))
    print()
    return common.finish(options, timings, [_verdict(name, timings, judged=not options.short) for name in RECIPES])


def _verdict(name: str, timings: dict[str, Timing], *, judged: bool) -> Verdict:
    """Compare the chains by one recipe."""
    peer, ours, rounded = (timings[f"{side}, {name}"] for side in ("OpenCV", "ours", "OpenCV on uint8"))
    ratio, cpu = common.speedup(peer, ours), sum(peer.cpu_seconds) / sum(ours.cpu_seconds)
    goal = f">= {GOAL:g} x OpenCV, one core" if judged else "reported"
    beside = f"{common.speedup(rounded, ours):.2f} x OpenCV on uint8"
    measured = f"{ratio:.2f} x (by processor time {cpu:.2f} x), {beside}"
    return Verdict(f"augmentation, {name}", goal, measured, ratio >= GOAL if judged else None)


def _print_stages(name: str, parts: dict[str, Timing], count: int) -> None:
    """Print what one picture costs in each step."""
    total = sum(timing.median for timing in parts.values())
    rows = [
        [part, f"{timing.median / count * 1e3:.3f} ms", f"{timing.median / total:.0%}"]
        for part, timing in parts.items()
    ]
    print(common.format_table([f"our steps, {name}", "per picture", "share"], rows) + "\n", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
