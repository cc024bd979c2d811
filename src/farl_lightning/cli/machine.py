"""What verbs that go through many pictures share: the device they run on, and how far they are."""

from __future__ import annotations

import sys
from typing import Any

from farl_lightning.errors import ConfigError, did_you_mean


def choose_device(name: str) -> str:
    """Return a device that is there.

    Args:
        name: ``"auto"`` for this machine's accelerator, or a device.

    Raises:
        ConfigError: If it is unknown, or not on this machine.
    """
    import torch

    from farl_lightning.inference.pictures import default_device

    if name == "auto":
        return str(default_device())
    kind = name.split(":")[0]
    if kind not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"device '{name}' is unknown. {did_you_mean(kind, ('auto', 'cpu', 'cuda', 'mps'))}")
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[kind]:
        raise ConfigError(f"device '{name}' is not on this machine; leave --device out")
    return name


class PictureBar:
    """A progress bar on a terminal; nothing elsewhere."""

    def __enter__(self) -> PictureBar:
        self._bar: Any = None
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, done: int, total: int) -> None:
        """Move the bar.

        Args:
            done: Pictures done, those of an earlier run included.
            total: All pictures.
        """
        from tqdm import tqdm  # type: ignore[import-untyped]

        if self._bar is None:
            self._bar = tqdm(total=total, unit=" pictures", file=sys.stderr, disable=None, smoothing=0.05)
        self._bar.update(done - self._bar.n)
