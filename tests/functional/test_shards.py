"""Parts of sharded tensors: cut, joined and gathered, whatever the rows divide by."""

from __future__ import annotations

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from farl_lightning.functional.distributed import rank
from farl_lightning.functional.shards import join_part, own_part, part_like, whole
from farl_lightning.testing.distributed import run_distributed


def shards(rows: int) -> dict[str, torch.Tensor]:
    value = torch.arange(rows * 2.0).view(rows, 2)
    like = distribute_tensor(torch.zeros(rows, 2), init_device_mesh("cpu", (2,)), [Shard(0)])
    part = part_like(value, like)
    joined = join_part(part.double(), like)
    own_part(like).fill_(rank() + 1)
    return {
        "part": part,
        "again": part_like(joined, like),
        "joined": whole(joined),
        "filled": whole(like),
    }


@pytest.mark.parametrize("rows", [1, 3, 4])
def test_parts_are_rows_and_join_to_the_whole(rows):
    value, first = torch.arange(rows * 2.0).view(rows, 2), -(-rows // 2)
    for number, found in enumerate(run_distributed(shards, 2, rows)):
        expected = value[:first] if number == 0 else value[first:]
        assert torch.equal(found["part"], expected)
        assert torch.equal(found["again"], expected.double())
        assert torch.equal(found["joined"], value.double())
        assert found["filled"][:, 0].tolist() == [1.0] * first + [2.0] * (rows - first)


def test_whole_tensors_pass_through():
    value = torch.ones(2)
    assert own_part(value) is part_like(value, value) is join_part(value, value) is whole(value) is value
