"""``farl-lightning search``: the faces of a folder that a text describes best."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from farl_lightning.cli.data import Parser
from farl_lightning.cli.machine import PictureBar, choose_device
from farl_lightning.errors import ConfigError, DataError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import Tensor

    from farl_lightning.models.face_clip import FaceCLIP
    from farl_lightning.types import Drop, FaceBatch, FaceSpec

_ABOUT = """\
Find the faces that a text describes best, by the cosine between its features and theirs, and draw them as a grid.
Pictures that cannot be used are counted and listed.

  farl-lightning search "a smiling woman with glasses" --input photos --ckpt_path last.ckpt --output grid.png

A folder that is searched often is embedded once: 'farl-lightning embed --output feats.parquet', then --features."""

_SIDE = 256  # pixels of a picture in the grid


class Ranking(NamedTuple):
    """The faces of a search, best first.

    Attributes:
        keys: Names of the faces: the photograph's path, ``#0`` ... behind it where it shows several.
        scores: Cosine of each with the text, in [-1, 1].
        drops: What could not be used.
    """

    keys: list[str]
    scores: list[float]
    drops: list[Drop]


def run(words: list[str]) -> int:
    """Run ``farl-lightning search``.

    Args:
        words: What follows ``search``.

    Returns:
        The exit status: 0.

    Raises:
        ConfigError: If an option cannot be used, or the checkpoint has no text tower.
        DataError: If no face is there to be found.
    """
    given = _parser().parse_args(words)
    if not given.text.strip():
        raise ConfigError("the text is empty; say what to look for, such as 'a smiling woman with glasses'")
    if given.top < 1:
        raise ConfigError(f"--top {given.top}: give 1 or more")
    from farl_lightning.models.face_clip import FaceCLIP
    from farl_lightning.types import FaceSpec

    clip = FaceCLIP.from_checkpoint(given.ckpt_path).eval().to(choose_device(given.device))
    spec = clip.face_spec or FaceSpec(image_size=clip.image_encoder.image_size)
    query = encode_query(clip, given.text)
    ranking = _ranked_features(given.features, query) if given.features else _ranked_photos(given, clip, spec, query)
    if not ranking.keys:
        raise DataError(f"no face in '{given.input}' could be used: {_counted(ranking.drops)}")
    best = ranking.keys[: given.top]
    pictures = _pictures(given, spec, best)
    _write(given, ranking, pictures)
    return 0


def _parser() -> Parser:
    """Return the parser."""
    parser = Parser(
        prog="farl-lightning search",
        description=_ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("text", help="what to look for, in English")
    add("--input", required=True, metavar="PATH", help="folder (its subfolders too), pattern, or picture")
    add(
        "--ckpt_path", required=True, metavar="FILE", help="checkpoint of pretraining, FaRL or CLIP file, known weights"
    )
    add("--output", default="search.png", metavar="FILE", help="the grid; scores lie beside it as .csv (%(default)s)")
    add("--top", type=int, default=24, metavar="N", help="faces in the grid (default: %(default)s)")
    add("--features", metavar="FILE", help="features of the same folder and checkpoint, made by embed")
    add("--faces", metavar="FILE", help="JSON or CSV with boxes or points of the photographs' faces")
    add("--cropped", action="store_true", help="each picture is the crop of one face already")
    add("--crop", metavar="RULE", help="none, box, align or quad instead of the checkpoint's rule")
    add("--max_faces", type=int, metavar="N", help="most faces that are taken from a photograph, the largest first")
    add("--batch_size", type=int, default=32, help="default: %(default)s")
    add("--workers", type=int, default=0, help="processes that read pictures (default: %(default)s)")
    add("--device", default="auto", help="cpu, cuda, mps (default: this machine's accelerator, else cpu)")
    return parser


def encode_query(clip: FaceCLIP, text: str) -> Tensor:
    """Encode a search text: as it is and, unless it says so itself, as a photo of it.

    Args:
        clip: A network with a text tower.
        text: What to look for.

    Returns:
        (1, E) of length 1.

    Raises:
        ConfigError: If there is no text tower.
    """
    from farl_lightning.functional.zero_shot import class_features
    from farl_lightning.models.zero_shot import text_encoder

    texts = [text] if "photo" in text.lower() else [text, f"a photo of {text}"]
    return class_features(text_encoder(clip), [texts])


def _ranked_photos(given: argparse.Namespace, clip: FaceCLIP, spec: FaceSpec, query: Tensor) -> Ranking:
    """Encode every face of the folder, and rank them."""
    import torch

    keys: list[str] = []
    scores: list[float] = []
    drops: list[Drop] = []
    photos = 0
    loader, total = _loader(given, spec, None)
    with PictureBar() as bar, torch.inference_mode():
        for batch in loader:
            found, cosines = _scores(clip, batch, query)
            keys.extend(found)
            scores.extend(cosines)
            drops.extend(batch.get("dropped", ()))
            photos = min(total, photos + given.batch_size)
            bar.show(photos, total)
    return _sorted(keys, scores, drops)


def _scores(clip: FaceCLIP, batch: FaceBatch, query: Tensor) -> tuple[list[str], list[float]]:
    """Return names and cosines of the faces of a batch that count."""
    from farl_lightning.functional.zero_shot import class_similarity

    valid = batch["valid"].tolist()
    features = clip(batch["image"].to(query.device)).image_features
    cosines = class_similarity(features, query)[:, 0].tolist()
    kept = [(key, cosine) for key, cosine, counts in zip(batch["key"], cosines, valid, strict=True) if counts]
    return [key for key, _ in kept], [cosine for _, cosine in kept]


def _ranked_features(path: str, query: Tensor) -> Ranking:
    """Rank faces whose features are kept in a file."""
    import torch

    from farl_lightning.functional.zero_shot import class_similarity
    from farl_lightning.models.features import FEATURE
    from farl_lightning.probing import read_features

    table = read_features(path)
    name = next((name for name in (FEATURE, "image_features") if name in table.features), None)
    if name is None:
        raise ConfigError(f"'{path}' has no feature '{FEATURE}', which shares its space with texts; embed makes it")
    features = torch.from_numpy(table.features[name])
    if features.shape[1] != query.shape[1]:
        raise ConfigError(
            f"'{path}' has features of {features.shape[1]} numbers, the checkpoint's have {query.shape[1]}: they were "
            "made with another checkpoint"
        )
    return _sorted(table.keys, class_similarity(features, query.cpu())[:, 0].tolist(), [])


def _sorted(keys: Sequence[str], scores: Sequence[float], drops: list[Drop]) -> Ranking:
    """Put the best first; equal ones by name."""
    order = sorted(range(len(keys)), key=lambda place: (-scores[place], keys[place]))
    return Ranking([keys[place] for place in order], [scores[place] for place in order], drops)


def _loader(given: argparse.Namespace, spec: FaceSpec, files: list[str] | None) -> tuple[Any, int]:
    """Return a loader of the photographs, and how many there are."""
    from farl_lightning.datamodules.photos import PhotoFolderDataModule

    data = PhotoFolderDataModule(
        given.input,
        faces=given.faces,
        cropped=given.cropped,
        crop=given.crop,
        max_faces=given.max_faces,
        files=files,
        batch_size=given.batch_size,
        num_workers=given.workers,
    )
    data.take_spec(spec)
    data.setup("predict")
    loader = data.predict_dataloader()
    return loader, len(loader.dataset)  # type: ignore[arg-type]  # it is a folder's


def _pictures(given: argparse.Namespace, spec: FaceSpec, keys: Sequence[str]) -> dict[str, npt.NDArray[np.uint8]]:
    """Read the pictures of a few faces once more: those of all would not fit into memory."""
    files = dict.fromkeys(key if given.cropped else key.rpartition("#")[0] or key for key in keys)
    loader, _ = _loader(given, spec, list(files))
    wanted = set(keys)
    return {key: picture for batch in loader for key, picture in _thumbnails(batch) if key in wanted}


def _thumbnails(batch: FaceBatch) -> Iterator[tuple[str, npt.NDArray[np.uint8]]]:
    """Yield what the crop of each face shows, in the pixels of its photograph."""
    import numpy as np
    from PIL import Image

    side = batch["image"].shape[-1]
    corners = np.array([[-0.5, -0.5, 1], [side - 0.5, side - 0.5, 1], [-0.5, side - 0.5, 1], [side - 0.5, -0.5, 1]])
    for key, image, matrix in zip(batch["key"], batch["source_image"], batch["matrix"].tolist(), strict=True):
        places = np.linalg.solve(np.array(matrix), corners.T)[:2].T
        low, high = np.floor(places.min(0)).astype(int), np.ceil(places.max(0)).astype(int)
        cut = image[max(0, low[1]) : max(1, high[1]), max(0, low[0]) : max(1, high[0])]
        shown = Image.fromarray(cut if cut.size else image)
        shown.thumbnail((_SIDE, _SIDE))
        yield key, np.asarray(shown)


def _write(given: argparse.Namespace, ranking: Ranking, pictures: dict[str, npt.NDArray[np.uint8]]) -> None:
    """Write grid and scores, and print the best."""
    from farl_lightning.callbacks.reference_table import write_csv
    from farl_lightning.visualization import contact_sheet, save_png

    shown = [(k, s) for k, s in zip(ranking.keys[: given.top], ranking.scores, strict=False) if k in pictures]
    captions = [f"{number}. {score:+.3f} {key}" for number, (key, score) in enumerate(shown, 1)]
    grid = contact_sheet([pictures[key] for key, _ in shown], captions, columns=6, cell=1.8, title=given.text)
    path = save_png(grid, Path(given.output))
    table = path.with_suffix(".csv")
    write_csv(
        table,
        [
            {"rank": n, "score": s, "key": k}
            for n, (k, s) in enumerate(zip(ranking.keys, ranking.scores, strict=True), 1)
        ]
        + [{"key": drop["key"], "problem": f"{drop['reason']}: {drop['detail']}"} for drop in ranking.drops],
    )
    print("\n".join(captions[:10]))
    print(f"wrote {path} ({len(shown)} of {len(ranking.keys)} faces) and {table}")
    if ranking.drops:
        print(f"left out: {_counted(ranking.drops)}; listed in {table}")


def _counted(drops: Sequence[Drop]) -> str:
    """Count what was left out, by reason."""
    counts = Counter(drop["reason"] for drop in drops)
    return ", ".join(f"{reason} {count}" for reason, count in counts.most_common()) or "there is none"
