"""Put samples together into a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import default_collate

from farl_lightning.errors import DataError
from farl_lightning.types import PretrainBatch

_LISTS = frozenset({"key", "caption"})


def collate_pretrain(samples: Sequence[dict[str, Any]]) -> PretrainBatch:
    """Stack samples of :class:`~farl_lightning.transforms.pretrain.PretrainTransform`.

    Tensors are stacked (in shared memory when a loader's worker does it), ``key`` and ``caption`` become lists,
    ``dropped`` is chained over the samples, and ``texts`` is padded with rows of zeros to the largest number of
    captions in the batch.

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
        batch[name] = values if name in _LISTS else default_collate(pad_captions(values) if name == "texts" else values)
    return cast(PretrainBatch, batch)


def pad_captions(texts: Sequence[Tensor]) -> list[Tensor]:
    """Pad (K_i, L) token ids with rows of zeros to the largest K.

    Args:
        texts: Token ids of each sample's captions.

    Returns:
        Tensors of one shape (K, L).
    """
    rows = max(text.shape[0] for text in texts)
    return [torch.cat([text, text.new_zeros(rows - text.shape[0], text.shape[1])]) for text in texts]
