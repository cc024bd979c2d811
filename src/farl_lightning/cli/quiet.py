"""Keeps what is printed worth reading: drops advertising, and warnings that a user of this program cannot act on."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

# beginnings of log lines; what they say is either advertising, or said better by our own first line
_LINES = (
    "💡 Tip",
    "GPU available:",
    "TPU available:",
    "HPU available:",
    "Seed set to",
    "[rank: ",  # the same, from other processes
    "-----",  # the banner of distributed runs; "Initializing distributed" stays: it tells which process is missing
    "Using default `ModelCheckpoint`",
    "Loading `train_dataloader` to estimate",
    "`Trainer(limit_",
    "`Trainer(val_check_interval",
    "Running in `fast_dev_run` mode",
    "Restoring states from",  # "Restored all states" follows
    "You have turned on `Trainer(detect_anomaly",
    "Using bfloat16 Automatic Mixed Precision",
    "Using 16bit Automatic Mixed Precision",
)
# beginnings of warnings of others: internals of libraries, or advice that our loaders make pointless
_WARNINGS = (
    ".*LeafSpec",
    ".*does not have many workers",
    ".*The number of training batches",
    ".*Consider setting `persistent_workers=True`",
    ".*Total length of `list` across ranks is zero",  # no validation shards named: not every run validates
    ".*Be aware that when using `ckpt_path`",  # evaluation needs no callbacks of training
    ".*It is recommended to use `self.log\\(.*sync_dist",  # our metrics agree between processes by themselves
    ".*The dirpath has changed from",  # a resumed run writes to a folder of its own
    ".*No device id is provided via `init_process_group`",
    ".*Checkpoint directory .* exists and is not empty",
    ".*lr_scheduler.step\\(\\)` before `optimizer.step",  # the loop steps in order; a skipped fp16 step trips it
    ".*Trying to infer the `batch_size`",
    ".*Please use the new API settings to control TF32",
    ".*FSDP2-wrapped module .* returned a view tensor",  # nothing here changes outputs in place
    ".*'pin_memory' argument is set as true but no accelerator",
)
_LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric")
_MODULES = ("lightning", "torch", "torchmetrics", "torchvision", "transformers", "timm", "jsonargparse", "webdataset")


class _DropLines(logging.Filter):
    """Drops log records by their first words."""

    def __init__(self, beginnings: tuple[str, ...]) -> None:
        super().__init__()
        self.beginnings = beginnings

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is kept."""
        return not record.getMessage().lstrip().startswith(self.beginnings)


def quiet() -> None:
    """Install the filters. Warnings of this package and of the user's own modules are never dropped."""
    for message in _WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for module in _MODULES:
        for category in (DeprecationWarning, FutureWarning, PendingDeprecationWarning):
            warnings.filterwarnings("ignore", category=category, module=rf"{module}(\.|$)")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorBoard looks for TensorFlow
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # retries; the error that follows says it all
    drop = _DropLines(_LINES)
    for handler in _handlers():
        if not any(isinstance(known, _DropLines) for known in handler.filters):
            handler.addFilter(drop)


def _handlers() -> list[logging.Handler]:
    """Return what writes Lightning's log lines."""
    import lightning.pytorch  # noqa: F401  # makes them

    return [handler for name in _LOGGERS for handler in logging.getLogger(name).handlers]


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Write all that is printed and logged in the block to the end of a file, instead of the screen.

    Args:
        path: The file; its folder exists.
    """
    with path.open("a", encoding="utf-8") as log:
        handlers = [handler for handler in _handlers() if isinstance(handler, logging.StreamHandler)]
        streams = [handler.setStream(log) for handler in handlers]
        try:
            with contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
                yield
        finally:
            for handler, stream in zip(handlers, streams, strict=True):
                if stream is not None:
                    handler.setStream(stream)
