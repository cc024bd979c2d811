"""``farl-lightning data verify``: is a benchmark's folder complete, and can every sample be used?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from farl_lightning.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from farl_lightning.datasets.faces import FaceDataset
    from farl_lightning.types import Drop

BENCHMARKS: dict[str, tuple[str, ...]] = {
    "LaPa": ("train", "val", "test"),
    "CelebAMaskHQ": ("train", "val", "test"),
    "FaceSynthetics": (),
    "IBugMask": ("train", "test"),
    "IBug300W": ("train", "full"),
    "WFLW": ("train", "test"),
    "AFLW19": ("train", "full"),
    "COFW": ("train", "test"),
    "CelebA": ("train", "val", "test"),
    "LFWA": ("train", "test"),
    "UTKFace": (),
    "FairFace": ("train", "test"),
    "MORPH2": (),
    "RAFDB": ("train", "test"),
    "AffectNet": ("train", "test"),
}
"""Datasets in a folder, and the splits that together hold every sample of them."""


def open_benchmark(name: str, root: str) -> Iterator[tuple[str, FaceDataset]]:
    """Open all splits of a dataset, one after the other.

    Args:
        name: Class of the dataset.
        root: Its folder.

    Yields:
        Name of the split (empty where there is none), and the split.

    Raises:
        ConfigError: If there is no such dataset.
        DatasetNotFoundError: If the folder is not what it should be.
    """
    from farl_lightning import datasets

    if name not in BENCHMARKS:
        raise ConfigError(f"there is no benchmark '{name}'. {did_you_mean(name, BENCHMARKS)}")
    kind = getattr(datasets, name)
    if not BENCHMARKS[name]:
        yield "", kind(root)
    for split in BENCHMARKS[name]:
        yield split, kind(root, split)


def read_all(dataset: FaceDataset, workers: int = 1) -> Iterator[Drop | None]:
    """Read every sample of a dataset.

    Args:
        dataset: The dataset.
        workers: Threads.

    Yields:
        For each sample None, or why it cannot be used.
    """
    from farl_lightning.datasets.bad_sample import BadSample

    def _read(index: int) -> Drop | None:
        try:
            dataset[index]
        except BadSample as bad:
            return bad.to_drop(dataset.keys[index])
        return None

    with ThreadPoolExecutor(max(workers, 1)) as pool:
        yield from pool.map(_read, range(len(dataset)))


def verify_benchmark(name: str, root: str, *, read: bool = False, workers: int = 1, listed: int = 20) -> int:
    """Print what is missing, and with ``read`` what cannot be used.

    Args:
        name: Class of the dataset.
        root: Its folder.
        read: Open every sample, too.
        workers: Threads that read.
        listed: Findings that are printed one by one, per split.

    Returns:
        The exit status: 1 if anything was found.
    """
    found = 0
    for split, dataset in open_benchmark(name, root):
        lines = dataset.verify()
        if read:
            drops = [drop for drop in read_all(dataset, workers) if drop]
            lines += [f"{reason}: {count} samples" for reason, count in Counter(d["reason"] for d in drops).items()]
            lines += [f"{drop['key']}: {drop['reason']}: {drop['detail']}" for drop in drops]
        found += len(lines)
        what = "complete" if not lines else f"{len(lines)} findings"
        print(f"{' '.join(filter(None, (name, split)))}: {len(dataset)} samples, {what}")
        print("".join(f"  {line}\n" for line in lines[:listed]), end="")
        if len(lines) > listed:
            print(f"  ... and {len(lines) - listed} more")
    return 1 if found else 0
