"""A worker that hangs ends the run with the rank, the batch and the shard, instead of hanging it."""

from __future__ import annotations

import time

import pytest

from farl_lightning.datamodules.loader import ResumableLoader
from farl_lightning.datasets.source import Replica
from farl_lightning.errors import DataError
from farl_lightning.testing.shards import write_fake_laion_face
from tests.datasets.test_stream import Bare, stream


class Hanging(Bare):
    """Stops answering at one sample."""

    def make(self, picture, epoch):
        if picture.key.endswith("000010003"):
            time.sleep(60)
        return super().make(picture, epoch)


def test_a_hanging_worker_is_named_with_its_shard(tmp_path):
    fake = write_fake_laion_face(tmp_path, shards=2, samples=12)
    source = stream(fake.shards, workers=1, samples=24, buffer=1, maker=Hanging())
    loader = ResumableLoader(source, Replica(0, 1), num_workers=1, timeout=2)
    delivered: list = []
    with pytest.raises(
        DataError, match=r"rank 0: worker 0 .* nothing for 2 s; .*of epoch 0, in or after shard"
    ) as found:
        delivered.extend(loader)  # keeps what came before
    assert delivered
    assert f"make batch {len(delivered)} of" in str(found.value)
    name = next(str(shard) for shard in fake.shards if "00001" in shard.name)
    assert name in str(found.value)
