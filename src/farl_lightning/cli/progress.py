"""The progress bar of ``fit``: Lightning's, without what says nothing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from typing_extensions import override


class EpochBar(RichProgressBar):
    """Names no last epoch where a run ends by steps (Lightning writes ``Epoch 1/-2``), and no version."""

    @override
    def _get_train_description(self, current_epoch: int) -> str:
        """Name the epoch."""
        text: str = super()._get_train_description(current_epoch)
        return text.replace("/-2", "")

    @override
    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, Any]:
        """Return the metrics beside the bar, without the version of the logger."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return dict(metrics)


def progress_bar(enabled: bool | None, callbacks: list[Any]) -> list[ProgressBar]:
    """Return the bar to add: none when bars are off, when the user has one, or when rich is not installed.

    Args:
        enabled: The Trainer's ``enable_progress_bar``; None means yes.
        callbacks: The Trainer's callbacks.
    """
    if (
        enabled is False
        or find_spec("rich") is None
        or any(isinstance(callback, ProgressBar) for callback in callbacks)
    ):
        return []
    return [EpochBar()]
