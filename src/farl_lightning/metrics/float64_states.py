"""Lists of float64 numbers that travel between processes."""

from __future__ import annotations

import torch
from torchmetrics import Metric


class Float64States(Metric):
    """Base of metrics whose list states are float64, on a process that was given nothing, too.

    A process without a sample sends an empty list of the metric's dtype, which torchmetrics sets to float32 whenever
    the metric is moved to a device. The others then wait for twice as many bytes as come.
    """

    @property
    def dtype(self) -> torch.dtype:
        """What an empty list is sent as."""
        return torch.float64
