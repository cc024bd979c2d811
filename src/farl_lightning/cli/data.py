"""``farl-lightning data``: write shards, check shards, index detections, verify benchmarks."""

from __future__ import annotations

import argparse
import functools
import os
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from farl_lightning.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from farl_lightning.datasets.shards import ShardReport
    from farl_lightning.types import Drop

_LISTED = 20  # skipped samples that are printed one by one


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are short, and know the nearest match."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving."""
        unknown = re.match(r"unrecognized arguments: (\S+)", message)
        if unknown:
            options = [
                option for action in self._actions for option in action.option_strings if option.startswith("--")
            ]
            message = f"there is no option '{unknown[1]}'. {did_you_mean(unknown[1].split('=')[0], options)}"
        raise ConfigError(f"{message}. '{self.prog} --help' shows the options".replace("..", "."))


def run(words: list[str]) -> int:
    """Run ``farl-lightning data``.

    Args:
        words: What follows ``data``.

    Returns:
        The exit status: 1 when ``check`` met shards that cannot be read.
    """
    verbs = {"write-shards": _write_shards, "check": _check, "index-detections": _index_detections, "verify": _verify}
    if not words or words[0] in ("-h", "--help"):
        print(_HELP)
        return 0
    if words[0] not in verbs:
        raise ConfigError(f"there is no 'data {words[0]}'. {did_you_mean(words[0], verbs)}")
    return verbs[words[0]](words[1:])


_HELP = """\
farl-lightning data: prepare and inspect data.

  write-shards FOLDER TABLE OUT     pictures and a caption table (TSV, CSV, JSONL) into tar shards
  check SHARDS...                   read shards from end to end: counts, sizes, what is skipped and why, a contact sheet
  index-detections FILES... --output DIR
                                    LAION-Face's sample2detect_N.pth into a table that training can map into memory
  verify DATASET FOLDER [--read]    what a benchmark's folder lacks (LaPa, WFLW, ...), and how to get it

'farl-lightning data VERB --help' says more."""


def _parser(verb: str, description: str) -> Parser:
    """Make the parser of a verb."""
    parser = Parser(prog=f"farl-lightning data {verb}", description=description, allow_abbrev=False)
    parser.add_argument(
        "--workers", type=int, default=min(8, os.cpu_count() or 1), help="threads (default: %(default)s)"
    )
    return parser


def _write_shards(words: list[str]) -> int:
    """Write shards."""
    parser = _parser("write-shards", "Write pictures with captions into tar shards, laid out as img2dataset does.")
    parser.add_argument("folder", help="where the pictures are")
    parser.add_argument(
        "table", help=".tsv, .csv (with a header) or .jsonl: a column 'file', a column 'caption' or 'captions'"
    )
    parser.add_argument("output", help="where to write")
    parser.add_argument("--samples_per_shard", type=int, default=1000, help="default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace the shards of an earlier call")
    given = parser.parse_args(words)
    from farl_lightning.datasets.shards import write_shards

    report = write_shards(
        given.folder,
        given.table,
        given.output,
        samples_per_shard=given.samples_per_shard,
        workers=given.workers,
        overwrite=given.overwrite,
        progress=_progress("shards"),
    )
    print(f"wrote {report.samples} samples into {len(report.shards)} shards below {given.output}")
    _print_drops(report.drops, Counter(drop["reason"] for drop in report.drops))
    return 0


def _check(words: list[str]) -> int:
    """Check shards."""
    from farl_lightning.datasets.bad_sample import SHARD_REASONS

    parser = _parser("check", "Read shards from end to end, decode every picture, count, and draw a contact sheet.")
    parser.add_argument("shards", nargs="+", help="folders, .tar files, patterns, URLs, or .txt lists of these")
    parser.add_argument("--subset", choices=("20M", "50M"), help="only the parts of LAION-Face that belong to it")
    parser.add_argument(
        "--detections", metavar="DIR", help="table of index-detections: also check that faces are found"
    )
    parser.add_argument("--contact_sheet", type=Path, default=Path("shards.png"), help="default: %(default)s")
    parser.add_argument("--examples", type=int, default=24, help="pictures on the contact sheet (default: %(default)s)")
    given = parser.parse_args(words)
    from farl_lightning.datasets.laion_face import PictureReader
    from farl_lightning.datasets.shards import check_shards

    reader = PictureReader(detections=given.detections, need_faces=True) if given.detections else None
    report = check_shards(
        given.shards,
        given.subset,
        reader=reader,
        examples=given.examples,
        workers=given.workers,
        progress=_progress("shards"),
    )
    print("\n".join(report.lines()))
    _print_drops(report.drops, Counter(report.reasons))
    if report.examples:
        print(f"wrote {_contact_sheet(report, given.contact_sheet)}")
    return 1 if set(report.reasons) & SHARD_REASONS else 0


def _verify(words: list[str]) -> int:
    """Verify a benchmark's folder."""
    from farl_lightning.cli.verify import BENCHMARKS, verify_benchmark

    parser = _parser("verify", "Look for what a benchmark's folder lacks, in all its splits.")
    parser.add_argument("dataset", help=", ".join(BENCHMARKS))
    parser.add_argument("folder", help="its root, as for --data.root")
    parser.add_argument("--read", action="store_true", help="also open every sample and tell which cannot be used")
    given = parser.parse_args(words)
    return verify_benchmark(given.dataset, given.folder, read=given.read, workers=given.workers)


def _index_detections(words: list[str]) -> int:
    """Index detections."""
    parser = Parser(
        prog="farl-lightning data index-detections",
        description="Turn LAION-Face's sample2detect_N.pth into a table that training maps into memory. Nothing in the "
        "files is executed. Parts that are there already are kept, so that an interrupted call goes on.",
        allow_abbrev=False,
    )
    parser.add_argument("files", nargs="+", help="sample2detect_0.pth sample2detect_1.pth ...")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the table")
    given = parser.parse_args(words)
    from farl_lightning.datasets.detections import index_detections

    count = index_detections(given.files, given.output, progress=_progress("parts"))
    print(f"indexed the faces of {count} pictures in {given.output}; give it as --data.detections {given.output}")
    return 0


def _progress(unit: str) -> Any:
    """Return what wraps an iterable with a progress bar."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    return functools.partial(tqdm, unit=f" {unit}", leave=False, disable=None)  # None: no bar in a log file


def _print_drops(drops: list[Drop], reasons: Counter[str]) -> None:
    """Print the first skipped samples, one line each."""
    for drop in drops[:_LISTED]:
        print(f"  skipped {drop['key']}: {drop['reason']} {drop['detail']}".rstrip())
    if (more := sum(reasons.values()) - len(drops[:_LISTED])) > 0:
        print(f"  and {more} more")


def _contact_sheet(report: ShardReport, path: Path) -> Path:
    """Draw the first pictures with their captions."""
    import numpy as np

    from farl_lightning.datasets.bad_sample import BadSample
    from farl_lightning.visualization.grid import Pixels, contact_sheet, save_png

    images: list[Pixels] = []
    captions: list[str] = []
    for picture in report.examples:
        try:
            image = picture.image()
        except BadSample:  # decodes at reduced size only: counted there, left out here
            continue
        image.thumbnail((256, 256))
        images.append(np.asarray(image))
        captions.append(picture.captions[0])
    return save_png(contact_sheet(images, captions), path)
