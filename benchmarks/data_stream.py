"""The stream of image-text pairs on one core, against open_clip's webdataset pipeline on the same shards.

``python -m benchmarks.data_stream`` writes shards of JPEGs (drawn ones, or those of ``--images FOLDER``), reads them
both ways with the same crops, sizes and captions, and prints images per second: for pictures of 800 px and more, whose
ratio is the goal, and for pictures of 256 px, where reduced-scale decoding cannot help. Decoding alone is timed beside
them as the limit of any pipeline that decodes all pixels with Pillow. A second table says where our time goes.

The same captions come back in every pass, so ours are found in the token cache; on a set that does not come back, such
as LAION-Face within an epoch, both sides tokenise, which costs about 0.1 ms a caption.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import random
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import webdataset as wds
from open_clip import SimpleTokenizer
from open_clip.transform import image_transform
from PIL import Image

from benchmarks import common
from benchmarks.common import Timing, Verdict
from farl_lightning.datamodules.laion_face import LaionFaceDataModule
from farl_lightning.datasets.decode import EncodedImage
from farl_lightning.datasets.tar import RawSample, read_shard
from farl_lightning.text import clean_caption
from farl_lightning.transforms.collate import collate_pretrain
from farl_lightning.transforms.pretrain import PretrainTransform, PretrainTransformConfig

GOAL = 2.0
SETS = {
    "800 px and more": ((800, 800), (1000, 800), (800, 1200), (1280, 960)),
    "256 px": ((256, 256),),
}
"""Sizes (width, height) of the pictures in each set of shards."""

JUDGED = "800 px and more"
"""The set on which the goal must be reached."""

BATCH = 32
_SHARDS = 4
_DISTINCT = 16  # drawing takes longer than reading; the same picture again costs as much as another one
_WORDS = (
    "portrait photo of a young old woman man actor singer with glasses hat beard smiling at the premiere in london "
    "during press conference red carpet black white dress blue shirt headshot stock image 2014 festival wedding"
)


def draw_picture(width: int, height: int, rng: np.random.Generator) -> Image.Image:
    """Draw smooth coloured noise whose JPEG has the size of a photograph's: 0.24 bytes per pixel at 1 megapixel.

    Args:
        width: In pixels.
        height: In pixels.
        rng: Source of randomness.
    """
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    falloff = np.maximum(np.hypot(fy, fx), 1 / max(width, height)) ** -1.5
    planes = []
    for contrast in (55, 18, 18):  # brightness, and two colours, which vary less in photographs
        noise = np.fft.rfft2(rng.standard_normal((height, width))) * falloff
        plane = np.fft.irfft2(noise, (height, width))
        planes.append(128 + contrast * plane / plane.std())
    ycc = np.stack(planes, -1).clip(0, 255).astype(np.uint8)
    return Image.fromarray(ycc, "YCbCr").convert("RGB")


def find_pictures(folder: Path | None, sides: Sequence[tuple[int, int]], count: int) -> Iterator[Image.Image]:
    """Yield pictures of the given sizes: drawn, or cut from a folder's largest.

    Args:
        folder: Folder with pictures, searched at any depth; None draws them.
        sides: Sizes (width, height), taken in turn.
        count: How many.
    """
    rng = np.random.default_rng(0)
    files = [] if folder is None else [p for p in sorted(folder.rglob("*")) if p.suffix in {".jpg", ".jpeg", ".png"}]
    if folder is not None and not files:
        raise SystemExit(f"no .jpg, .jpeg or .png under {folder}")
    drawn: dict[int, Image.Image] = {}
    for index in range(count):
        size = sides[index % len(sides)]
        if files:
            with Image.open(files[index % len(files)]) as image:
                yield image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
        else:
            same = index % _DISTINCT
            yield drawn[same] if same in drawn else drawn.setdefault(same, draw_picture(*size, rng))


def write_shards(folder: Path, pictures: Iterable[Image.Image]) -> list[str]:
    """Write shards as img2dataset does: ``.jpg``, ``.txt`` and ``.json`` of each sample.

    Args:
        folder: Where to.
        pictures: The images.

    Returns:
        Paths of the shards.
    """
    words = random.Random(0)
    shards = [str(folder / f"{index:05d}.tar") for index in range(_SHARDS)]
    with contextlib.ExitStack() as stack:
        tars = [stack.enter_context(tarfile.open(shard, "w")) for shard in shards]
        for index, picture in enumerate(pictures):
            caption = " ".join(words.choices(_WORDS.split(), k=words.randint(6, 20)))
            _add_sample(tars[index % _SHARDS], f"{index:09d}", picture, caption)
    return shards


def _add_sample(tar: tarfile.TarFile, key: str, picture: Image.Image, caption: str) -> None:
    """Write the three files of a sample."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=90)
    meta = json.dumps({"caption": caption, "key": key, "width": picture.width, "height": picture.height})
    for suffix, data in {"jpg": buffer.getvalue(), "txt": caption.encode(), "json": meta.encode()}.items():
        info = tarfile.TarInfo(f"{key}.{suffix}")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))


def peer_pass(shards: Sequence[str], size: int) -> Callable[[], int]:
    """Return one pass over the shards through the stages of open_clip's training pipeline.

    Args:
        shards: The shards.
        size: Side of the crops in pixels.
    """
    preprocess, tokenizer = image_transform(size, is_train=True), SimpleTokenizer()

    def run() -> int:
        pipeline = wds.DataPipeline(
            wds.SimpleShardList(list(shards)),
            wds.shuffle(len(shards)),
            wds.split_by_node,
            wds.split_by_worker,
            wds.tarfile_to_samples(handler=wds.warn_and_continue),
            wds.shuffle(1000, initial=1000),
            wds.select(lambda sample: "txt" in sample and "jpg" in sample),
            wds.decode("pilrgb", handler=wds.warn_and_continue),
            wds.rename(image="jpg;png;jpeg;webp", text="txt"),
            wds.map_dict(image=preprocess, text=lambda text: tokenizer(text)[0]),
            wds.to_tuple("image", "text"),
            wds.batched(BATCH, partial=True),
        )
        return sum(len(image) for image, _ in wds.WebLoader(pipeline, batch_size=None, shuffle=False, num_workers=0))

    return run


def our_pass(shards: Sequence[str], count: int, config: PretrainTransformConfig) -> Callable[[], int]:
    """Return one pass over the shards through the package's own datamodule.

    Args:
        shards: The shards.
        count: Samples in them.
        config: How samples are made.
    """
    data = LaionFaceDataModule(list(shards), transform=config, samples_per_epoch=count, batch_size=BATCH)
    data.setup("fit")
    loader = data.train_dataloader()
    return lambda: sum(len(batch["image"]) for batch in loader)


def decoding_pass(jpegs: Sequence[bytes], scale: float) -> Callable[[], int]:
    """Return a pass that decodes and does nothing else.

    Args:
        jpegs: The files.
        scale: Share of the full size that is needed; 1 decodes all pixels, as every pipeline without it does.
    """
    return lambda: sum(EncodedImage(jpeg).load(scale).width > 0 for jpeg in jpegs)


def stages(shards: Sequence[str], config: PretrainTransformConfig) -> dict[str, Callable[[], Any]]:
    """Return the steps of our stream one by one, each over all samples.

    Args:
        shards: The shards.
        config: How samples are made.
    """
    transform = PretrainTransform(config)
    raw = [sample for shard in shards for sample in read_shard(shard)]
    pictures = [_decode_for(transform, sample) for sample in raw]
    pixels = [transform.pixels(picture, sample.key) for picture, sample in zip(pictures, raw, strict=True)]
    captions = [sample.files["txt"].decode() for sample in raw]
    samples = [{"image": transform.normalize(p), "key": s.key} for p, s in zip(pixels, raw, strict=True)]
    return {
        "read the shard": lambda: [sample for shard in shards for sample in read_shard(shard)],
        "decode, at reduced scale": lambda: [_decode_for(transform, sample) for sample in raw],
        "crop, resize": lambda: [transform.pixels(p, s.key) for p, s in zip(pictures, raw, strict=True)],
        "normalise": lambda: [transform.normalize(p) for p in pixels],
        "clean the caption": lambda: [clean_caption(caption) for caption in captions],
        "tokenise, from the cache": lambda: [transform.tokenizer(caption) for caption in captions],
        "draw the mask": lambda: [transform.patch_mask(sample.key) for sample in raw],
        "collate": lambda: [collate_pretrain(samples[i : i + BATCH]) for i in range(0, len(samples), BATCH)],
    }


def _decode_for(transform: PretrainTransform, sample: RawSample) -> Image.Image:
    """Decode as large as a crop of the whole picture needs."""
    encoded = EncodedImage(sample.files["jpg"])
    return encoded.load(transform.config.image_size / (0.9 * min(encoded.size)))


def measure(name: str, shards: Sequence[str], options: argparse.Namespace) -> dict[str, Timing]:
    """Time both pipelines and bare decoding on one set of shards, in turn, and print the table.

    Args:
        name: What the pictures are.
        shards: The shards.
        options: The command line.
    """
    plain = PretrainTransformConfig(image_size=options.image_size, mask="none")
    masked = PretrainTransformConfig(image_size=options.image_size)
    jpegs = [sample.files["jpg"] for shard in shards for sample in read_shard(shard)]
    runs: dict[str, Callable[[], Any]] = {
        f"open_clip, {name}": peer_pass(shards, options.image_size),
        f"ours, {name}": our_pass(shards, options.samples, plain),
        f"ours with masks, {name}": our_pass(shards, options.samples, masked),
        f"decoding alone, {name}": decoding_pass(jpegs, 1.0),
        f"decoding alone at 1/2, {name}": decoding_pass(jpegs, 0.5),
    }
    for label, run in list(runs.items())[:3]:
        if (seen := run()) != options.samples:
            raise SystemExit(f"{label}: {seen} samples came back, {options.samples} were written")
    timings = common.interleave(runs, options.repeats)
    common.print_timings(timings, items=options.samples)
    print()
    return timings


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; ``--short`` takes few and small pictures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data_stream", description=__doc__.splitlines()[0])
    common.add_arguments(parser, repeats=7)
    parser.add_argument("--images", type=Path, default=None, metavar="FOLDER", help="take these pictures, draw none")
    parser.add_argument("--samples", type=int, default=128, help="pictures per pass (default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=224, help="side of the crops (default: %(default)s)")
    options = parser.parse_args(arguments)
    options.samples = BATCH if options.short else -(-options.samples // BATCH) * BATCH
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the shards, time both pipelines, print the tables and return the exit code."""
    options = parse_arguments(arguments)
    torch.set_num_threads(options.threads or 1)
    timings: dict[str, Timing] = {}
    for name, sides in SETS.items():
        with tempfile.TemporaryDirectory() as folder:
            shards = write_shards(Path(folder), find_pictures(options.images, sides, options.samples))
            timings |= measure(name, shards, options)
            parts = common.interleave(
                stages(shards, PretrainTransformConfig(image_size=options.image_size)), options.repeats
            )
            timings |= {f"{part}, {name}": timing for part, timing in parts.items()}
            _print_stages(name, parts, options.samples)
    verdicts = [_verdict(name, timings, judged=name == JUDGED and not options.short) for name in SETS]
    return common.finish(options, timings, verdicts)


def _verdict(name: str, timings: dict[str, Timing], *, judged: bool) -> Verdict:
    """Compare the pipelines on one set of shards."""
    peer, ours = timings[f"open_clip, {name}"], timings[f"ours, {name}"]
    ratio, cpu = common.speedup(peer, ours), sum(peer.cpu_seconds) / sum(ours.cpu_seconds)
    goal = f">= {GOAL:g} x open_clip" if judged else "reported"
    measured = f"{ratio:.2f} x (by processor time {cpu:.2f} x)"
    return Verdict(f"d. stream, {name}", goal, measured, ratio >= GOAL if judged else None)


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
