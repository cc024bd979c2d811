"""Published weights by name: where they are, what they expect, what their authors report."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO
from urllib.parse import urlparse

from farl_lightning.errors import CheckpointError, did_you_mean
from farl_lightning.types import CLIP_MEAN, CLIP_STD

_log = logging.getLogger(__name__)
_FARL = "https://github.com/FacePerceiver/FaRL/releases/download/pretrained_weights/FaRL-Base-Patch16-LAIONFace"
_FACER = "https://github.com/FacePerceiver/facer/releases/download/models-v1/"
_OPENAI = "https://openaipublic.azureedge.net/clip/models/"
_CHUNK = 2**20


@dataclass(frozen=True)
class KnownWeights:
    """One published file.

    Attributes:
        url: Where it is; None when no address serves the file without a browser.
        license: Licence of the weights, as their source states it.
        kind: ``"clip"`` for a network that ``FaceCLIP.from_checkpoint`` reads, else the downstream task.
        description: What it is.
        image_size: Side of the network input in pixels.
        mean: Mean of RGB in [0, 1] that is subtracted.
        std: Standard deviation that divides.
        sha256: Hash that the source itself publishes; None where it publishes none. Then the hash is shown at the
            first download, and later downloads are compared with it.
        max_bytes: Download is broken off beyond this size.
        paper: Numbers that the authors report, by benchmark and metric.
        page: Where the authors offer the file to a browser.
    """

    url: str | None
    license: str
    kind: str
    description: str
    image_size: int = 224
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    sha256: str | None = None
    max_bytes: int = 2 * 2**30
    paper: dict[str, float] = field(default_factory=dict)
    page: str | None = None


def _openai(digest: str, file: str, image_size: int = 224) -> KnownWeights:
    """OpenAI writes the hash into the address."""
    text = f"CLIP {file.removesuffix('.pt')}, trained by OpenAI on 400 M image-text pairs"
    return KnownWeights(f"{_OPENAI}{digest}/{file}", "MIT", "clip", text, image_size, sha256=digest)


def _facer(
    file: str, kind: str, what: str, image_size: int = 448, paper: dict[str, float] | None = None
) -> KnownWeights:
    """Facer publishes no hashes."""
    return KnownWeights(f"{_FACER}{file}", "MIT", kind, f"facer's {what}, on FaRL", image_size, paper=paper or {})


KNOWN_WEIGHTS: dict[str, KnownWeights] = {
    "farl-b16-ep16": KnownWeights(
        url=f"{_FARL}20M-ep16.pth",
        license="MIT",
        kind="clip",
        description="FaRL-B/16 on LAION-Face 20M, 16 epochs: the network of the paper",
        paper={
            "LaPa F1 mean": 93.88,
            "CelebAMask-HQ F1 mean": 89.56,
            "AFLW-19 NME diag": 0.943,
            "300W NME inter-ocular": 2.93,
            "WFLW NME inter-ocular": 3.96,
        },
    ),
    "farl-b16-ep64": KnownWeights(
        url=f"{_FARL}20M-ep64.pth",
        license="MIT",
        kind="clip",
        description="FaRL-B/16 on LAION-Face 20M, 64 epochs",
        paper={
            "LaPa F1 mean": 94.04,
            "300W NME inter-ocular": 2.88,
            "WFLW NME inter-ocular": 3.88,
            "AFLW-19 NME diag": 0.938,
        },
    ),
    "farl-b16-50m-ep16": KnownWeights(
        url=None,
        license="MIT",
        kind="clip",
        description="FaRL-B/16 on LAION-Face 50M, 16 epochs",
        page="https://github.com/FacePerceiver/FaRL#pre-trained-backbones",
        paper={
            "LaPa F1 mean": 94.01,
            "CelebAMask-HQ F1 mean": 89.68,
            "AFLW-19 NME diag": 0.937,
            "300W NME inter-ocular": 2.92,
            "WFLW NME inter-ocular": 3.99,
        },
    ),
    "clip-b16": _openai("5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f", "ViT-B-16.pt"),
    "clip-b32": _openai("40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af", "ViT-B-32.pt"),
    "clip-l14": _openai("b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836", "ViT-L-14.pt"),
    "clip-l14-336": _openai(
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02", "ViT-L-14-336px.pt", 336
    ),
    "facer-parsing-lapa": _facer(
        "face_parsing.farl.lapa.main_ema_136500_jit191.pt", "parsing", "LaPa face parser (11 classes), a UPerNet head"
    ),
    "facer-parsing-celebm": _facer(
        "face_parsing.farl.celebm.main_ema_181500_jit.pt",
        "parsing",
        "CelebAMask-HQ face parser (19 classes), a UPerNet head",
    ),
    "facer-alignment-300w": _facer(
        "face_alignment.farl.ibug300w.main_ema_jit.pt",
        "alignment",
        "68-landmark network, trained on 300W",
        paper={"300W NME inter-ocular": 2.8835},
    ),
    "facer-alignment-wflw": _facer(
        "face_alignment.farl.wflw.main_ema_jit.pt",
        "alignment",
        "98-landmark network, trained on WFLW",
        paper={"WFLW NME inter-ocular": 3.8933},
    ),
    "facer-alignment-aflw19": _facer(
        "face_alignment.farl.aflw19.main_ema_jit.pt",
        "alignment",
        "19-landmark network, trained on AFLW-19",
        paper={"AFLW-19 NME diag": 0.9329},
    ),
    "facer-attributes-celeba": _facer(
        "face_attribute.farl.celeba.pt",
        "attributes",
        "40 CelebA attributes, a mix of pooled features",
        image_size=224,
        paper={"CelebA mean accuracy": 92.06617},
    ),
}
"""Name -> published weights. Numbers are those of the authors' tables and logs."""


def resolve(path: str | Path) -> Path:
    """Turn a file or the name of known weights into a file, downloading it if it is not in the cache.

    Args:
        path: A path, or a name of :data:`KNOWN_WEIGHTS`.

    Raises:
        CheckpointError: If it is neither; the nearest name is given.
    """
    name = str(path)
    if name in KNOWN_WEIGHTS:
        return download(name)
    file = Path(path).expanduser()
    if not file.exists() and not file.suffix and len(file.parts) == 1:
        raise CheckpointError(f"'{name}' is neither a file nor known weights. {did_you_mean(name, KNOWN_WEIGHTS)}")
    return file


def cache_folder() -> Path:
    """Return where downloads are kept: ``$FARL_LIGHTNING_CACHE``, or ``farl_lightning`` in the user's cache."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("FARL_LIGHTNING_CACHE") or Path(base) / "farl_lightning").expanduser()


def download(name: str, folder: Path | None = None) -> Path:
    """Fetch known weights once.

    The file is checked against the published hash; where there is none, its hash is shown and written beside it, and
    a later download must have the same.

    Args:
        name: A name of :data:`KNOWN_WEIGHTS`.
        folder: Where to keep the file; None for :func:`cache_folder`.

    Returns:
        The file.

    Raises:
        CheckpointError: If the name is unknown, the download fails, is too large, or has another hash.
    """
    if name not in KNOWN_WEIGHTS:
        raise CheckpointError(f"no known weights '{name}'. {did_you_mean(name, KNOWN_WEIGHTS)}")
    known = KNOWN_WEIGHTS[name]
    if known.url is None:
        raise CheckpointError(
            f"'{name}' has no address for a download; get the file from {known.page} and give its path"
        )
    file = (folder or cache_folder()) / Path(urlparse(known.url).path).name
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    note = file.with_name(f"{file.name}.sha256")
    wanted = known.sha256 or (note.read_text().split()[0] if note.exists() else None)
    _log.info("downloading %s from %s to %s", name, known.url, file)
    digest = _fetch(known.url, file, wanted, known.max_bytes)
    if wanted is None:
        _log.warning("%s: its source publishes no hash; sha256 of this download: %s", name, digest)
        note.write_text(f"{digest}  {file.name}\n")
    return file


def _fetch(url: str, file: Path, wanted: str | None, max_bytes: int) -> str:
    """Download to a temporary file, check it, and rename it; return its sha256."""
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as target:
            digest = _stream(url, target, max_bytes)
        if wanted is not None and digest != wanted:
            raise CheckpointError(
                f"download of {url} has sha256 {digest}, expected {wanted}: it was damaged or replaced; nothing was "
                "kept"
            )
        os.chmod(temporary, 0o644)
        os.replace(temporary, file)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise CheckpointError(
            f"cannot download {url}: {error}. Download it by other means and save it as {file}"
        ) from error
    finally:
        Path(temporary).unlink(missing_ok=True)
    return digest


def _stream(url: str, target: IO[bytes], max_bytes: int) -> str:
    """Copy the body of a URL in chunks, within the size limit; return its sha256."""
    digest, size = hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310 - addresses of the table above
        while chunk := response.read(_CHUNK):
            size += len(chunk)
            if size > max_bytes:
                raise CheckpointError(f"{url} is larger than {max_bytes} bytes; download broken off")
            digest.update(chunk)
            target.write(chunk)
    return digest.hexdigest()
