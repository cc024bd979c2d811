"""Put samples of dense tasks together into a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

from torch.utils.data import default_collate

from farl_lightning.errors import DataError
from farl_lightning.types import FaceBatch

_LISTS = frozenset({"key", "subsets", "source_mask", "draws"})


def collate_faces(samples: Sequence[dict[str, Any]]) -> FaceBatch:
    """Stack samples of :class:`~farl_lightning.transforms.dense.DenseTransform`.

    Tensors are stacked; ``key``, ``subsets``, ``source_mask`` (pictures differ in size) and ``draws`` become lists;
    ``valid`` may be a bool or a tensor; ``dropped`` is chained over the samples.

    Args:
        samples: At least one sample; all with the same entries (``dropped`` apart).

    Raises:
        DataError: If the samples have different entries.
    """
    counts = Counter(name for sample in samples for name in sample)
    drops = [drop for sample in samples for drop in sample.get("dropped", ())]
    batch: dict[str, Any] = {"dropped": drops} if counts.pop("dropped", 0) else {}
    if uneven := sorted(name for name, count in counts.items() if count < len(samples)):
        raise DataError(
            f"samples of one batch must have the same entries, but {', '.join(uneven)} is missing in some; "
            f"keys: {[sample['key'] for sample in samples]}"
        )
    for name in counts:
        values = [sample[name] for sample in samples]
        batch[name] = values if name in _LISTS else default_collate(values)
    return cast(FaceBatch, batch)
