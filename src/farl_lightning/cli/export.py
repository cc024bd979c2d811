"""``farl-lightning export``: a checkpoint as one file that runs without this package."""

from __future__ import annotations

from farl_lightning.cli.data import Parser

_KINDS = ("parsing", "alignment", "attributes", "classification", "age", "verification")


def run(words: list[str]) -> int:
    """Run ``farl-lightning export``.

    Args:
        words: What follows ``export``.

    Returns:
        The exit status: 1 when the written file does not agree with the checkpoint.
    """
    parser = Parser(
        prog="farl-lightning export",
        description="Write a network as one file: photograph and points (or box) in; labels or landmarks in the "
        "photograph's pixels, or attributes, classes, age or an embedding out. LoRA adapters are merged into the "
        "weights. The file is run and compared with the checkpoint.",
        allow_abbrev=False,
    )
    parser.add_argument("--ckpt_path", required=True, metavar="FILE", help="checkpoint, or the name of known weights")
    parser.add_argument("--format", choices=("onnx", "torch"), default="onnx", help="default: %(default)s; torch: .pt2")
    parser.add_argument("--output", metavar="FILE", help="default: the checkpoint's name in the current folder")
    parser.add_argument("--license", metavar="TEXT", help="terms of the weights, for the metadata")
    parser.add_argument("--kind", choices=_KINDS, help="where the checkpoint does not say")
    parser.add_argument("--no_ema", action="store_true", help="take the last weights, not their average")
    parser.add_argument("--overwrite", action="store_true", help="replace a file that is there already")
    given = parser.parse_args(words)
    from farl_lightning.export import export_checkpoint

    report = export_checkpoint(
        given.ckpt_path,
        given.output,
        given.format,
        license=given.license,
        kind=given.kind,
        ema=not given.no_ema,
        overwrite=given.overwrite,
    )
    print(f"wrote {report.path} ({report.path.stat().st_size / 1e6:.1f} MB)")
    for name, text in report.metadata["inputs"].items():
        print(f"  takes {name}: {text}")
    print(f"  gives {', '.join(report.metadata['outputs'])}")
    print(f"  license: {report.metadata['license']}")
    print(f"  checked against the checkpoint: {report.difference}")
    if not report.difference.ok:
        print("  this is more than rounding: do not use the file")
    return 0 if report.difference.ok else 1
