"""Speed and health of training, in the log."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode
from typing_extensions import override

from farl_lightning.callbacks.run import is_log_step
from farl_lightning.errors import ConfigError
from farl_lightning.functional.accelerators import identify
from farl_lightning.functional.distributed import all_gather_cat


class TrainingMonitor(L.Callback):
    """Log speed, the wait for data, memory, drops by process and the gradient norm every ``log_every_n_steps`` batches.

    ==========================  =======================================================================================
    ``train/samples_per_s``     of all processes together
    ``train/data_wait``         share of the time in [0, 1] waited for the loader, of the process that waited longest
    ``train/memory_gb``         peak since the last time, of the fullest process: of tensors on a GPU; on a CPU the
                                largest resident size so far; 10^9 bytes
    ``train/grad_norm``         Euclidean, before clipping
    ``train/mfu``               share of the device's peak in [0, 1] that the operations of forward and backward pass
                                make up (PaLM, arXiv:2204.02311, appendix B; recomputed ones are counted here)
    ``data/dropped_rank/<r>``   samples that process r could not use, since the start of this run
    ==========================  =======================================================================================

    Operations are counted once, in the first batch. ``train/mfu`` is left out where the peak is not known, and for
    compiled networks, whose operations cannot be counted from outside. The temperature is logged by the task, as
    ``train/<objective>_logit_scale``.

    Args:
        peak_tflops: Peak of one device in the precision of the run, 10^12 FLOP/s; None looks the GPU up in
            ``functional.accelerators``.
        max_ranks: With more processes than this, only the largest count of drops is logged, as
            ``data/dropped_rank_max``, and which process has it, as ``data/dropped_rank_worst``.

    Raises:
        ConfigError: If a number is out of range.
    """

    def __init__(self, peak_tflops: float | None = None, max_ranks: int = 64) -> None:
        if peak_tflops is not None and peak_tflops <= 0:
            raise ConfigError(f"TrainingMonitor(peak_tflops={peak_tflops}): give a number above 0, or null")
        if max_ranks < 0:
            raise ConfigError(f"TrainingMonitor(max_ranks={max_ranks}): give 0 or more")
        self.peak_tflops, self.max_ranks = peak_tflops, max_ranks
        self._began = 0.0
        self._since = 0.0
        self._waited = 0.0
        self._samples = 0
        self._dropped = 0
        self._peak: float | None = None
        self._counter: FlopCounterMode | None = None
        self._flops_per_sample: float | None = None

    @override
    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look up the device's peak."""
        self._dropped, self._flops_per_sample = 0, None
        self._peak = 1e12 * self.peak_tflops if self.peak_tflops else _peak_of(pl_module.device, str(trainer.precision))

    @override
    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock anew: what lies between epochs is no training."""
        self._reset()

    @override
    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the time since the last batch as waiting; begin to count operations, once."""
        self._waited += time.perf_counter() - self._since
        if self._peak and self._flops_per_sample is None and _batch_size(batch) and not _is_compiled(pl_module):
            self._counter = FlopCounterMode(display=False)
            self._counter.__enter__()  # type: ignore[no-untyped-call]

    @override
    def on_before_optimizer_step(self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: Optimizer) -> None:
        """Log the norm of the gradient, before it is clipped."""
        if is_log_step(trainer, trainer.global_step):
            gradients = [p.grad for p in pl_module.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            pl_module.log("train/grad_norm", norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    @override
    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log what happened since the last time."""
        self._stop_counting(_batch_size(batch))
        self._samples += _batch_size(batch)
        self._dropped += len(batch.get("dropped", ())) if isinstance(batch, dict) else 0
        if is_log_step(trainer, batch_idx):
            pl_module.log_dict(self._values(trainer, pl_module.device), batch_size=1)
            self._reset()
        self._since = time.perf_counter()

    @override
    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Stop counting, so that nothing outlives a failed first batch."""
        self._stop_counting(0)

    @override
    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave validation in the middle of an epoch out of the clock."""
        self._reset()

    def _stop_counting(self, samples: int) -> None:
        """Keep the operations of the first batch."""
        if self._counter is not None:
            self._counter.__exit__(None, None, None)  # type: ignore[no-untyped-call]
            self._flops_per_sample = self._counter.get_total_flops() / samples if samples else None
            self._counter = None

    def _values(self, trainer: L.Trainer, device: torch.device) -> dict[str, float]:
        """Return what is logged; every process calls this, and gets the same."""
        # on a GPU the loss is computed only when it is asked for; without this, queueing would count as speed
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elapsed = time.perf_counter() - self._began
        own = torch.tensor([[self._waited / elapsed, _memory(device) / 1e9, float(self._dropped)]], device=device)
        waits, memory, drops = all_gather_cat(own).T.tolist()
        values = {
            "train/samples_per_s": self._samples * trainer.world_size / elapsed,
            "train/data_wait": max(waits),
            "train/memory_gb": max(memory),
        }
        if self._peak and self._flops_per_sample:
            values["train/mfu"] = self._flops_per_sample * self._samples / elapsed / self._peak
        return values | self._drops(drops)

    def _drops(self, drops: list[float]) -> dict[str, float]:
        """Return the drops by process, or of the worst one where there are too many processes."""
        if len(drops) <= self.max_ranks:
            return {f"data/dropped_rank/{rank}": count for rank, count in enumerate(drops)}
        worst = max(range(len(drops)), key=drops.__getitem__)
        return {"data/dropped_rank_max": drops[worst], "data/dropped_rank_worst": float(worst)}

    def _reset(self) -> None:
        """Start measuring now."""
        self._began = self._since = time.perf_counter()
        self._waited, self._samples = 0.0, 0


def _batch_size(batch: Any) -> int:
    """Return the number of images; 0 for batches of another kind."""
    images = batch.get("image") if isinstance(batch, dict) else None
    return len(images) if isinstance(images, Tensor) else 0


def _is_compiled(module: nn.Module) -> bool:
    """Whether any part runs through ``torch.compile``."""
    return any(getattr(part, "_compiled_call_impl", None) is not None for part in module.modules())


def _peak_of(device: torch.device, precision: str) -> float | None:
    """Return the peak of a device in FLOP/s, None where it is not known."""
    gpu = identify(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    if gpu is None:
        return None
    return gpu.half if precision.startswith(("bf16", "16")) else gpu.single


def _memory(device: torch.device) -> int:
    """Return the peak memory in bytes; on a GPU that since the last call."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return resident if sys.platform == "darwin" else 1024 * resident
