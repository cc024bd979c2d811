"""Conversions of precision."""

from __future__ import annotations

import torch

from farl_lightning.functional import precision
from farl_lightning.functional.precision import as_float64, at_least_float32


def test_half_precision_is_lifted_and_the_rest_is_kept():
    assert at_least_float32(torch.ones(2, dtype=torch.bfloat16)).dtype == torch.float32
    wide = torch.ones(2, dtype=torch.float64)
    assert at_least_float32(wide) is wide


def test_float64_also_of_devices_that_have_none():
    x = torch.tensor([1, 2], dtype=torch.int64)
    assert as_float64(x).dtype == torch.float64
    assert as_float64(x).tolist() == [1.0, 2.0]
    assert as_float64(torch.ones(1, device="meta")).device.type == "meta"
    assert not as_float64(torch.ones(1, requires_grad=True)).requires_grad

    class _Elsewhere:
        """A tensor of a device without float64: touching it there is an error."""

        device = torch.device("mps")

        def detach(self):
            return self

        def cpu(self):
            return torch.ones(1)

    assert "mps" in precision._WITHOUT_FLOAT64
    assert as_float64(_Elsewhere()).dtype == torch.float64
