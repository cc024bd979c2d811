"""Put samples of faces together into a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

from torch.utils.data import default_collate

from farl_lightning.errors import DataError
from farl_lightning.types import FaceBatch

_LISTS = frozenset({"key", "subsets", "source_mask", "draws"})
_COLUMNS = frozenset({"labels", "groups"})


def collate_faces(samples: Sequence[dict[str, Any]]) -> FaceBatch:
    """Stack samples of :class:`~farl_lightning.transforms.dense.DenseTransform`.

    Tensors are stacked, those of ``labels`` by column; ``groups`` becomes one list per column; ``key``, ``subsets``,
    ``source_mask`` (pictures differ in size) and ``draws`` become lists; ``valid`` may be a bool or a tensor;
    ``dropped`` is chained over the samples.

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
        if name in _COLUMNS:
            _check_columns(name, samples)
        if name == "groups":
            batch[name] = {column: [value[column] for value in values] for column in values[0]}
        else:
            batch[name] = values if name in _LISTS else default_collate(values)
    return cast(FaceBatch, batch)


def _check_columns(name: str, samples: Sequence[dict[str, Any]]) -> None:
    """Refuse samples whose labels or groups have other columns than those of the first."""
    first = samples[0][name].keys()
    if odd := next((sample for sample in samples if sample[name].keys() != first), None):
        raise DataError(
            f"samples of one batch must have the same {name}, but '{samples[0]['key']}' has {sorted(first)} and "
            f"'{odd['key']}' {sorted(odd[name])}"
        )
