"""``farl-lightning embed``: features of a folder, a table or a config's data as one file."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farl_lightning.cli.arguments import load_raw, read_settings
from farl_lightning.cli.data import Parser
from farl_lightning.cli.machine import PictureBar, choose_device
from farl_lightning.errors import ConfigError, DatasetNotFoundError

if TYPE_CHECKING:
    from farl_lightning.datasets.table_file import TableFile
    from farl_lightning.models.features import FeatureExtractor
    from farl_lightning.probing.embedding import EmbedReport, FaceSource
    from farl_lightning.probing.table import FeatureTable
    from farl_lightning.types import Drop, FaceSpec

_ABOUT = """\
Compute features of faces once, and keep them with their labels: probes, searches and tables then cost seconds.
A job that was interrupted goes on where it stopped. Pictures that cannot be used are counted and listed.

  farl-lightning embed --ckpt_path farl.pth --input photos --output feats.parquet
  farl-lightning embed --ckpt_path last.ckpt --input faces.csv --output feats.parquet
  farl-lightning embed --ckpt_path last.ckpt --config attributes.yaml --output feats.parquet"""


def run(words: list[str]) -> int:
    """Run ``farl-lightning embed``.

    Args:
        words: What follows ``embed``.

    Returns:
        The exit status: 0.

    Raises:
        ConfigError: If an option cannot be used.
    """
    given, rest = _parser().parse_known_args(words)
    if given.config is None and rest:
        _parser().parse_args(words)  # names what it does not know
    if given.output is None:
        raise ConfigError("give --output, a file that ends in .parquet or .npz")
    if (given.input is None) == (given.config is None):
        raise ConfigError("give either --input (folder, pattern or table) or --config (a config whose data to read)")
    if (given.ckpt_path is None) == (given.backbone is None):
        raise ConfigError("give either --ckpt_path (a file or known weights) or --backbone (a network of a library)")
    from farl_lightning.probing.embedding import embed

    extractor, identity = open_extractor(given)
    source, annotate = _open_source(given, rest, extractor.spec)
    with PictureBar() as bar:
        report = embed(
            extractor,
            source,
            given.output,
            identity=identity,
            batch_size=given.batch_size,
            num_workers=given.workers,
            device=choose_device(given.device),
            precision=given.precision,
            annotate=annotate,
            progress=bar.show,
            overwrite=given.overwrite,
        )
    _print(report)
    return 0


def _parser() -> Parser:
    """Return the parser."""
    parser = Parser(
        prog="farl-lightning embed",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        epilog="With --config, settings of its data can follow as for fit: --data.root DIR.",
    )
    add = parser.add_argument
    add("--ckpt_path", metavar="FILE", help="checkpoint of any task, FaRL or CLIP file, or the name of known weights")
    add("--backbone", metavar="NAME", help="a network of another library: torchvision/mobilenet_v2, timm/resnet18")
    add("--weights", metavar="FILE", help="weights of --backbone; random ones without")
    add("--input", metavar="PATH", help="folder, pattern or picture; or a table: .csv .tsv .json .jsonl .parquet")
    add("--config", action="append", metavar="NAME", help="a config: its data, with labels and splits")
    add("--output", metavar="FILE", help="ends in .parquet (needs pyarrow) or .npz")
    add("--split", nargs="+", metavar="NAME", help="with --config: train, val, test (default: all there are)")
    add("--blocks", nargs="+", type=int, default=[-1], metavar="N", help="blocks that are read (default: the last)")
    add("--pools", nargs="+", default=["class", "mean"], metavar="POOL", help="class, mean, max (default: class mean)")
    add("--image", default="file", metavar="COLUMN", help="column of a table that holds paths (default: %(default)s)")
    add("--root", metavar="DIR", help="folder of a table's pictures (default: the table's own)")
    add("--faces", metavar="FILE", help="JSON or CSV with boxes or points of the photographs' faces")
    add("--cropped", action="store_true", help="each picture is the crop of one face already")
    add("--crop", metavar="RULE", help="none, box, align or quad instead of the rule of checkpoint or config")
    add("--max_faces", type=int, metavar="N", help="most faces that are taken from a photograph, the largest first")
    add("--batch_size", type=int, default=32, help="default: %(default)s")
    add("--workers", type=int, default=0, help="processes that read pictures (default: %(default)s)")
    add("--device", default="auto", help="cpu, cuda, mps (default: this machine's accelerator, else cpu)")
    add("--precision", default="32", help="32, bf16 or 16 (default: %(default)s)")
    add("--no_ema", action="store_true", help="take the last weights, not their average")
    add("--overwrite", action="store_true", help="begin anew, and replace the file if it is there")
    return parser


def open_extractor(given: argparse.Namespace) -> tuple[FeatureExtractor, dict[str, Any]]:
    """Build what gives features, and say what makes it this one.

    Args:
        given: ``ckpt_path`` or ``backbone``, ``weights``, ``blocks``, ``pools``, ``no_ema``.
    """
    from farl_lightning.datamodules.embedding import file_stamp

    if given.backbone is not None:
        from farl_lightning.models.backbone_features import BackboneFeatures

        stamp = None if given.weights is None else file_stamp(_file(given.weights, "--weights"))
        identity = {"backbone": given.backbone, "weights": given.weights, "version": stamp}
        return BackboneFeatures(given.backbone, given.weights), identity
    from farl_lightning.models import weights
    from farl_lightning.models.features import EncoderFeatures

    path = weights.resolve(given.ckpt_path)
    extractor = EncoderFeatures.from_checkpoint(path, blocks=given.blocks, pools=given.pools, ema=not given.no_ema)
    identity = {"weights": str(path.absolute()), "version": file_stamp(path), "ema": not given.no_ema}
    return extractor, {**identity, "features": list(extractor.names)}


def _file(path: str, option: str) -> Path:
    """Return a file that is there."""
    if not Path(path).expanduser().is_file():
        raise ConfigError(f"{option}: '{path}' does not exist")
    return Path(path).expanduser()


def _open_source(given: argparse.Namespace, rest: list[str], spec: FaceSpec) -> tuple[FaceSource, Any]:
    """Return the pictures, and what adds their labels."""
    from farl_lightning.datasets.table_file import READERS

    if given.config is not None:
        from farl_lightning.datamodules.embedding import LabelledSource, check_splits

        splits = None if given.split is None else check_splits(given.split)
        _refuse_photo_options(given)
        configs = [word for name in given.config for word in ("--config", name)]
        return LabelledSource(open_data([*configs, *rest]), spec, splits, given.crop), None
    if given.split is not None:
        raise ConfigError("--split chooses among the splits of a config; give --config")
    if Path(given.input).suffix.lower() in READERS:
        return _open_table(given, spec)
    return _photos(given, given.input, spec), None


def _refuse_photo_options(given: argparse.Namespace) -> None:
    """Refuse options that mean nothing to the data of a config."""
    for name in ("root", "faces", "cropped", "max_faces"):
        if getattr(given, name):
            raise ConfigError(f"--{name} is for --input; the data of a config has its own settings: --data.root DIR")


def _photos(
    given: argparse.Namespace,
    root: str,
    spec: FaceSpec,
    files: list[str] | None = None,
    drops: Sequence[Drop] = (),
) -> FaceSource:
    """Return photographs."""
    from farl_lightning.datamodules.embedding import PhotoSource
    from farl_lightning.datamodules.photos import PhotoFolderDataModule

    data = PhotoFolderDataModule(
        root,
        faces=given.faces,
        cropped=given.cropped,
        crop=given.crop,
        max_faces=given.max_faces,
        files=files,
    )
    return PhotoSource(data, spec, drops)


def _open_table(given: argparse.Namespace, spec: FaceSpec) -> tuple[FaceSource, Any]:
    """Return the photographs of a table, and what adds its other columns as labels."""
    from farl_lightning.datamodules.embedding import table_rows
    from farl_lightning.datasets.table_file import read_table

    table = read_table(given.input)
    rows, drops = table_rows(table, given.image)
    root = given.root or str(table.path.parent)
    if not Path(root).expanduser().is_dir():
        raise DatasetNotFoundError(f"--root: '{root}' is no folder")
    return _photos(given, root, spec, list(rows), drops), _labels_of(table, given.image, rows)


def _labels_of(table: TableFile, image: str, rows: dict[str, int]) -> Any:
    """Return what adds the columns of a table to features whose keys are its paths, ``#0`` ... behind them or not."""
    from farl_lightning.probing.table import words_to_labels

    columns = {name: words for name, words in table.columns.items() if name != image}
    labels = words_to_labels(columns)

    def _annotate(part: FeatureTable) -> FeatureTable:
        places = [rows[key] if key in rows else rows[re.sub(r"#\d+$", "", key)] for key in part.keys]
        found = labels.take(places)
        return dataclasses.replace(part, labels=found.labels, label_names=found.label_names)

    return _annotate


def open_data(words: list[str]) -> Any:
    """Build the datamodule of a config.

    Args:
        words: ``--config NAME`` and ``--data.*`` settings.

    Raises:
        ConfigError: If it has no data, or they cannot be built.
    """
    from jsonargparse import ArgumentError, ArgumentParser
    from lightning import LightningDataModule

    from farl_lightning.cli.preflight import import_classes

    node = load_raw(read_settings("embed", words).tree).get("data")
    if not node:
        raise ConfigError("this config has no data section; embed reads the data of a config")
    import_classes()
    node = {"class_path": node} if isinstance(node, str) else node
    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(LightningDataModule, "data")
    try:
        build = parser.instantiate if hasattr(parser, "instantiate") else parser.instantiate_classes  # before 4.49
        return build(parser.parse_object({"data": node})).data
    except ArgumentError as error:
        raise ConfigError(f"the data of this config cannot be built: {error}") from error


def _print(report: EmbedReport) -> None:
    """Say what was written, and what was left out."""
    print(f"wrote {report.path}: {report.faces} faces in {report.seconds:.1f} s")
    if report.resumed:
        print(f"  {report.resumed} pictures were done by an earlier run")
    if report.dropped:
        counts = ", ".join(f"{reason} {count}" for reason, count in report.dropped.most_common())
        print(f"  left out: {report.dropped.total()} ({counts}); all are listed in {report.listing}")
