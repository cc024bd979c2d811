"""A matrix with one row per class, of which each process may hold only its own rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from farl_lightning.errors import ConfigError
from farl_lightning.functional.distributed import broadcast_from, rank, world_size

_SPREAD = 0.01  # of the first values, as in deepinsight/insightface, recognition/arcface_torch/partial_fc_v2.py
_BLOCK = 4096  # rows that are drawn from one seed


class ClassRows(nn.Module):
    """Rows that are drawn alike, saved alike and loaded alike however they are shared out.

    Whole, it is a plain parameter. Sharded, process r of W holds rows ``r C // W`` up to ``(r + 1) C // W`` in
    ``weight``; its ``state_dict`` gathers all rows on process 0 (every process has to call it, as every process calls
    it when Lightning saves), and loading takes the own rows of a whole matrix: files are those of one process, for any
    number of processes.

    A sharded matrix that is made before processes have met (in a task's constructor) costs no memory until
    :meth:`shard`, which Lightning's ``configure_model`` is the place for.

    Args:
        rows: Number of classes C.
        columns: Channels E.
        sharded: Whether rows are shared out.

    Attributes:
        weight: (own rows, E).
        first: Number of the first own row.

    Raises:
        ConfigError: If a size is below 1.
    """

    def __init__(self, rows: int, columns: int, sharded: bool = False) -> None:
        super().__init__()
        if rows < 1 or columns < 1:
            raise ConfigError(
                f"a matrix of {rows} classes and {columns} channels cannot be made; both must be 1 or more"
            )
        self.rows, self.columns, self.sharded = rows, columns, sharded
        self.first, self._world, self._drawn = 0, 1, False
        self._seed = int(torch.randint(1 << 48, ()))
        self.weight = nn.Parameter(torch.empty(0, columns))
        self._allocate()
        if not sharded:
            self._draw()

    def shard(self) -> None:
        """Take the own rows of the present process group: before optimizers are made, after processes have met."""
        if self.sharded and self._world != world_size():
            values = self.weight.detach()[self._own()] if self._drawn and self._world == 1 else None
            self._allocate()
            if values is not None:
                self.weight.data.copy_(values)
        self._draw()

    def forward(self) -> Tensor:
        """Return the own rows.

        Raises:
            ConfigError: If processes have met since the rows were shared out.
        """
        if self.sharded and self._world != world_size():
            raise ConfigError(
                f"rows of classes were shared out to {self._world} processes, and now there are {world_size()}; call "
                "shard() after processes have met and before the optimizer is made, such as in configure_model"
            )
        self._draw()
        return self.weight

    def _own(self) -> slice:
        """Return the rows of this process."""
        if not self.sharded:
            return slice(0, self.rows)
        return slice(rank() * self.rows // world_size(), (rank() + 1) * self.rows // world_size())

    def _allocate(self) -> None:
        """Reserve the own rows; memory that nobody has written to costs nothing yet."""
        own = self._own()
        self.first, self._world = own.start, world_size() if self.sharded else 1
        like = self.weight
        self.weight = nn.Parameter(like.new_empty(own.stop - own.start, self.columns), like.requires_grad)

    @torch.no_grad()
    def _draw(self) -> None:
        """Draw the own rows from seeds of their blocks, so that they do not depend on how rows are shared out."""
        if self._drawn:
            return
        last = self.first + len(self.weight)
        for block in range(self.first // _BLOCK, -(-last // _BLOCK)):
            generator = torch.Generator("cpu").manual_seed(self._seed + block)
            begin, end = block * _BLOCK, min(self.rows, (block + 1) * _BLOCK)
            values = torch.randn(end - begin, self.columns, generator=generator, dtype=torch.float32, device="cpu")
            low, high = max(begin, self.first), min(end, last)
            self.weight[low - self.first : high - self.first] = _SPREAD * values[low - begin : high - begin]
        self._drawn = True

    def parts(self, own: Tensor) -> Iterator[Tensor]:
        """Yield the rows of all processes in their order, one process's at a time; every process has to go through.

        Args:
            own: (own rows, ...): the weight, or what an optimizer keeps about it.
        """
        for source in range(self._world):
            count = (source + 1) * self.rows // self._world - source * self.rows // self._world
            yield broadcast_from(own.detach(), source, count)

    def whole(self, own: Tensor) -> Tensor:
        """Gather rows on process 0, on the CPU; other processes get their own back.

        Args:
            own: (own rows, ...).
        """
        if not self.sharded or self._world == 1:
            return own
        parts = [part.cpu() if rank() == 0 else None for part in self.parts(own)]
        kept = [part for part in parts if part is not None]
        return torch.cat(kept) if kept else own

    def cut(self, value: Tensor) -> Tensor:
        """Return the own rows of a whole matrix; own rows come back as they are.

        Args:
            value: (C, ...) or (own rows, ...).
        """
        return value[self.first : self.first + len(self.weight)] if len(value) == self.rows else value

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        """Save all rows."""
        self._draw()
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight"] = self.whole(destination[f"{prefix}weight"])

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Load own rows."""
        name = f"{prefix}weight"
        if name in state_dict:
            state_dict = {**state_dict, name: self.cut(state_dict[name])}
            self._drawn = True
        super()._load_from_state_dict(state_dict, prefix, *args)
