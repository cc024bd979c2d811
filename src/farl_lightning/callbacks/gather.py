"""Plain data of all processes, collected as text: no pickle crosses a process border."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from farl_lightning.functional.distributed import all_gather_cat


def gather_json(items: Sequence[Any], device: torch.device) -> list[Any]:
    """Return the items of all processes, in the order of their ranks; every process has to call it.

    Args:
        items: What JSON can write; any number of them, another one on each process.
        device: A device that the process group can reach.
    """
    lines = "".join(json.dumps(item) + "\n" for item in items)
    sent = torch.frombuffer(bytearray(lines.encode("ascii")), dtype=torch.uint8) if lines else torch.empty(0).byte()
    received = all_gather_cat(sent.to(device)).cpu().numpy().tobytes().decode("ascii")
    return [json.loads(line) for line in received.split("\n") if line]
