"""Features of a data set as one file that NumPy reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from lightning.pytorch.callbacks import BasePredictionWriter
from typing_extensions import override

from farl_lightning.callbacks.run import announce, is_trial, run_folder
from farl_lightning.errors import DataError
from farl_lightning.types import FeatureBatch

Arrays = dict[str, np.ndarray[Any, Any]]


class FeatureWriter(BasePredictionWriter):
    """Write ``features.npz`` into the run's folder when ``predict`` ends, and print where it is and what is in it.

    The arrays have one row per sample: ``key`` (N,) text, ``image_features`` (N, E) float32 and, where there were
    captions, ``text_features`` (N, E) float32, with NaN in rows without one. ``numpy.load`` reads them as it is, no
    pickle is inside. Rows are in the order of the data set under any number of processes, whose shares are strides of
    it (those of Lightning's samplers and of our datamodules are). Samples with ``valid`` False are left out; what the
    data dropped is counted by reason. A trial (``fast_dev_run``) leaves no file.

    Every process keeps its rows in memory and writes a part; the first process joins the parts, so all must share the
    folder's file system.

    Raises:
        DataError: When predict ends, if the first process cannot see the part of another.
    """

    def __init__(self) -> None:
        super().__init__(write_interval="batch")
        self._folder = Path()
        self._start(0, 1)

    def _start(self, first: int, stride: int) -> None:
        """Forget everything; the n-th sample of this process is number ``first + n * stride`` of the data set."""
        self._first, self._stride = first, stride
        self._seen = Counter[int]()
        self._batches: list[Arrays] = []
        self._reasons: list[str] = []

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the folder of the run, and start anew."""
        super().setup(trainer, pl_module, stage)
        if stage == "predict":
            self._folder = run_folder(trainer)
            share = trainer.distributed_sampler_kwargs or {"rank": 0, "num_replicas": 1}
            self._start(share["rank"], share["num_replicas"])

    @override
    def write_on_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        prediction: Any,
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Keep the features of a batch; predictions without any are left alone."""
        if isinstance(batch, Mapping):
            self._reasons += [drop["reason"] for drop in batch.get("dropped", ())]
        if not isinstance(prediction, Mapping) or not {"key", "image_features"} <= prediction.keys():
            return
        numbers = self._first + self._stride * (self._seen[dataloader_idx] + np.arange(len(prediction["key"])))
        self._seen[dataloader_idx] += len(numbers)
        self._batches.append(rows(prediction, np.stack([np.full_like(numbers, dataloader_idx), numbers], axis=1)))

    @override
    def on_predict_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the part of this process; join all parts on the first."""
        path = self._folder / "features.npz"
        parts = [path.with_name(f"features.part-{rank:05d}.npz") for rank in range(trainer.world_size)]
        own = {**_concatenate(self._batches), "reasons": np.array(self._reasons, dtype=np.str_)}
        self._batches = []
        _save(parts[trainer.global_rank], own)
        trainer.strategy.barrier("features")
        if trainer.is_global_zero:
            arrays = [_load_part(part) for part in parts]
            reasons = Counter(str(reason) for part in arrays for reason in part.pop("reasons"))
            found = join(arrays)
            if found and not is_trial(trainer):
                _save(path, found)
            for part in parts:
                part.unlink()
            place = "not kept, this is a trial (fast_dev_run)" if is_trial(trainer) else str(path)
            announce(trainer, pl_module, "\n".join(_summary(place, found, reasons, pl_module)))


def rows(prediction: FeatureBatch | Mapping[str, Any], order: np.ndarray[Any, Any]) -> Arrays:
    """Turn what ``predict_step`` returned into arrays, without what does not count.

    Args:
        prediction: ``key``, ``image_features``, and as far as there are any ``text_features`` and ``valid``.
        order: (B, 2) numbers of loader and sample.

    Returns:
        ``order``, ``key``, ``image_features``, ``text_features`` (NaN without captions) and ``has_text`` (n,) bool.
    """
    image = prediction["image_features"].float().cpu().numpy()
    text = prediction.get("text_features")
    arrays = {
        "order": order,
        "key": np.array(prediction["key"], dtype=np.str_),
        "image_features": image,
        "text_features": np.full_like(image, np.nan) if text is None else text.float().cpu().numpy(),
        "has_text": np.full(len(image), text is not None),
    }
    valid = prediction.get("valid")
    return arrays if valid is None else {name: array[valid.cpu().numpy()] for name, array in arrays.items()}


def join(parts: Iterable[Arrays]) -> Arrays:
    """Join the parts of all processes into the arrays of the file.

    Args:
        parts: Arrays as :func:`rows` makes them; a process without any sample has none.

    Returns:
        ``key``, ``image_features`` and, if any row has one, ``text_features``, in order and without what several
        processes saw together; empty without any row.
    """
    together = _concatenate(part for part in parts if len(part.get("key", ())))
    if not together:
        return {}
    _, first = np.unique(together.pop("order"), axis=0, return_index=True)
    if not together.pop("has_text").any():
        del together["text_features"]
    return {name: array[first] for name, array in together.items()}


def _concatenate(parts: Iterable[Arrays]) -> Arrays:
    """Put equally named arrays behind each other."""
    listed = list(parts)
    return {name: np.concatenate([part[name] for part in listed]) for name in listed[0]} if listed else {}


def _save(path: Path, arrays: Arrays) -> None:
    """Write arrays; a reader never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(".tmp")
    with scratch.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # names are ours, none is an option
    scratch.replace(path)


def _load_part(path: Path) -> Arrays:
    """Read the part of a process."""
    if not path.is_file():
        raise DataError(
            f"'{path}', the part of another process, is not there: predict with several machines needs a run folder "
            "(--trainer.default_root_dir) on a file system that all of them share"
        )
    with np.load(path, allow_pickle=False) as part:
        return dict(part)


def _summary(place: str, found: Arrays, reasons: Counter[str], pl_module: L.LightningModule) -> list[str]:
    """Say what was written, and what was left out."""
    if found:
        count, width = found["image_features"].shape
        texts = int(np.isfinite(found["text_features"]).all(axis=1).sum()) if "text_features" in found else 0
        lines = [f"features  {place}", f"          {count} images, {texts} with captions; {width} numbers each"]
    else:
        name = type(pl_module).__name__
        lines = [f"no features were written: {name}.predict_step returned no 'key' and 'image_features'"]
    if reasons:
        listed = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
        lines.append(f"left out  {reasons.total()} samples: {listed}")
    return ["", *lines]
