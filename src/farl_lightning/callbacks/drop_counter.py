"""Bad samples: counted by reason over all processes, logged, listed in a file, and fatal only in large shares."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import lightning as L
import torch
from typing_extensions import override

from farl_lightning.callbacks.gather import gather_json
from farl_lightning.callbacks.run import announce, is_log_step, run_folder
from farl_lightning.errors import ConfigError, DataError
from farl_lightning.functional.distributed import global_sum
from farl_lightning.types import Drop

_STATE = "dropped_samples"
_DETAIL_LENGTH = 300


class DropCounter(L.Callback):
    """Count what the loader skipped, as told by ``batch["dropped"]``.

    Every process learns the counts of all every ``log_every_n_steps`` batches, at each end of an epoch and when a
    checkpoint is saved; the counts continue after a resume. They are logged as ``data/dropped/<reason>`` (events since
    the beginning) and ``data/dropped_share``. ``dropped.jsonl`` in the run's folder lists each sample and
    reason once, and the end of a run prints them by reason.

    Args:
        max_bad_share: Share of bad samples above which the run stops, in (0, 1]; None never stops it.
        min_samples: Samples, good and bad, before a share is judged.
        max_listed: Samples that the list names at most; beyond, they are only counted.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(self, max_bad_share: float | None = 0.2, min_samples: int = 1000, max_listed: int = 10_000) -> None:
        if max_bad_share is not None and not 0 < max_bad_share <= 1:
            raise ConfigError(f"DropCounter(max_bad_share={max_bad_share}): give a share in (0, 1], or null")
        if min_samples < 1 or max_listed < 0:
            raise ConfigError(f"DropCounter({min_samples=}, {max_listed=}): give at least 1 and 0")
        self.max_bad_share = max_bad_share
        self.min_samples = min_samples
        self.max_listed = max_listed
        self.counts: Counter[str] = Counter()
        self.samples = 0
        self.listed: dict[tuple[str, str], str] = {}
        self._pending: list[Drop] = []
        self._pending_samples = 0
        self._written = 0
        self._file: Path | None = None

    @property
    def dropped(self) -> int:
        """Bad samples of all processes so far, repeats in later epochs included."""
        return self.counts.total()

    @property
    def share(self) -> float:
        """Share of bad samples among all so far, in [0, 1]."""
        return self.dropped / max(1, self.dropped + self.samples)

    @override
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Find the folder of the run."""
        file = run_folder(trainer) / "dropped.jsonl"
        if file != self._file:
            self._file, self._written = file, 0

    def add(self, batch: Any) -> None:
        """Note one batch of this process.

        Args:
            batch: A batch; without ``key`` and ``dropped`` it does not count.
        """
        if isinstance(batch, dict):
            valid = batch.get("valid")  # evaluation keeps a row for a bad sample
            self._pending_samples += len(batch.get("key", ())) if valid is None else int(valid.sum())
            self._pending.extend(batch.get("dropped", ()))

    def synchronise(self, device: torch.device) -> None:
        """Add up what all processes noted since the last call; all must call it.

        Args:
            device: A device that the process group can reach.
        """
        for drop in self._gather(device):
            self.counts[drop["reason"]] += 1
            if len(self.listed) < self.max_listed:
                self.listed.setdefault((drop["reason"], drop["key"]), drop["detail"])
        self.samples += int(global_sum(torch.tensor(self._pending_samples, device=device)))
        self._pending, self._pending_samples = [], 0

    def _gather(self, device: torch.device) -> list[Drop]:
        """Return the pending drops of all processes, in the order of their ranks."""
        short = [{**drop, "detail": drop["detail"][:_DETAIL_LENGTH]} for drop in self._pending]
        return gather_json(short, device)

    def judge(self) -> None:
        """Stop a run of which too much is bad.

        Raises:
            DataError: If the share of bad samples is above ``max_bad_share``; says the reasons.
        """
        total = self.dropped + self.samples
        if self.max_bad_share is None or total < self.min_samples or self.share <= self.max_bad_share:
            return
        raise DataError(
            f"{self.dropped} of {total} samples ({self.share:.1%}) could not be used, more than the allowed "
            f"{self.max_bad_share:.1%} (max_bad_share of DropCounter):\n{self.summary()}\n"
            "Repair the data (farl-lightning data check reads shards without training), or allow a larger share."
        )

    def summary(self) -> str:
        """Return one line per reason: how often, how many distinct samples, examples."""
        lines = []
        for reason, count in self.counts.most_common():
            keys = [key for listed, key in self.listed if listed == reason]
            distinct = f"{len(keys)} distinct" if len(self.listed) < self.max_listed else f"{len(keys)} listed"
            more = ", ..." if len(keys) > 3 else ""
            lines.append(f"  {reason:<24} {count:>8}  ({distinct}: {', '.join(keys[:3])}{more})")
        return "\n".join(lines)

    def write(self) -> None:
        """Append to ``dropped.jsonl`` what it does not list yet."""
        if self._file is None or self._written == len(self.listed):
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a" if self._written else "w", encoding="utf-8") as file:
            for (reason, key), detail in list(self.listed.items())[self._written :]:
                file.write(json.dumps({"key": key, "reason": reason, "detail": detail}, ensure_ascii=False) + "\n")
        self._written = len(self.listed)

    def _report(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Bring counts, log and file up to date, and judge."""
        self.synchronise(pl_module.device)
        values = {f"data/dropped/{reason}": float(count) for reason, count in sorted(self.counts.items())}
        # every process holds the same numbers: nothing to reduce
        pl_module.log_dict({"data/dropped_share": self.share, **values}, batch_size=1)
        if trainer.is_global_zero:
            self.write()
        self.judge()

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Note the batch; now and then add up over processes."""
        self.add(batch)
        if is_log_step(trainer, batch_idx):
            self._report(trainer, pl_module)

    @override
    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Note the batch, unless it belongs to the sanity check."""
        if not trainer.sanity_checking:
            self.add(batch)

    @override
    def on_test_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Note the batch."""
        self.add(batch)

    @override
    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add up over processes."""
        self._report(trainer, pl_module)

    @override
    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add up over processes."""
        self._report(trainer, pl_module)

    @override
    def on_test_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Add up over processes."""
        self._report(trainer, pl_module)

    @override
    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the samples by reason."""
        self._print(trainer, pl_module)

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the samples by reason, when validation is all there is."""
        if trainer.state.fn == "validate":
            self._print(trainer, pl_module)

    @override
    def on_test_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Print the samples by reason."""
        self._print(trainer, pl_module)

    def _print(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Say at the end what was left out."""
        if trainer.is_global_zero and self.dropped:
            total = self.dropped + self.samples
            head = f"\nLeft out {self.dropped} of {total} samples ({self.share:.2%}), by reason:"
            announce(trainer, pl_module, f"{head}\n{self.summary()}\n  listed in {self._file}")

    @override
    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Save the counts of all processes."""
        self.synchronise(pl_module.device)
        listed = [[reason, key, detail] for (reason, key), detail in self.listed.items()]
        checkpoint[_STATE] = {"samples": self.samples, "counts": dict(self.counts), "listed": listed}

    @override
    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Go on from the saved counts."""
        if state := checkpoint.get(_STATE):
            self.samples, self.counts = state["samples"], Counter(state["counts"])
            self.listed = {(reason, key): detail for reason, key, detail in state["listed"]}
            self._written = 0
