"""The speed limit of a machine: how fast it multiplies matrices of a model's shapes, and what a step needs of that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common import Timing

Shape = tuple[int, int, int]
"""Rows, inner size and columns of a matrix product."""

PREFIX = "gemm"


def model_shapes(tokens: int, width: int, square: int) -> list[Shape]:
    """List the products that make up most of a transformer step, and one large square one.

    Args:
        tokens: Tokens of the batch.
        width: Channels of a token.
        square: Side of the square product.
    """
    forward = [(tokens, width, 3 * width), (tokens, width, 4 * width), (tokens, 4 * width, width)]
    weight_gradients = [(3 * width, tokens, width), (4 * width, tokens, width)]
    return [*forward, *weight_gradients, (square, square, square)]


def products(shapes: Iterable[Shape], dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """Return one callable per shape that multiplies two matrices into a third.

    Args:
        shapes: The products.
        dtype: Type of the factors and of the result.

    Returns:
        Callables by name, such as ``"gemm float32 3152x768x3072"``.
    """
    return {_name(shape, dtype): _product(shape, dtype) for shape in shapes}


def _name(shape: Shape, dtype: torch.dtype) -> str:
    """Name a product by its type and sizes."""
    return f"{PREFIX} {str(dtype).removeprefix('torch.')} " + "x".join(map(str, shape))


def _product(shape: Shape, dtype: torch.dtype) -> Callable[[], Tensor]:
    """Allocate the factors once; the right one is stored (columns, inner), as the weight of a linear layer."""
    rows, inner, columns = shape
    left = torch.randn(rows, inner).to(dtype)
    right = torch.randn(columns, inner).to(dtype).t()
    result = torch.empty(rows, columns, dtype=dtype)
    return lambda: torch.mm(left, right, out=result)


def peak(shapes: Iterable[Shape], dtype: torch.dtype, timings: Mapping[str, Timing]) -> float:
    """Return the highest rate among the shapes in floating-point operations per second, each at its median.

    Args:
        shapes: The products that were timed.
        dtype: Their type.
        timings: Their timings, under the names of :func:`products`.
    """
    return max(2 * s[0] * s[1] * s[2] / timings[_name(s, dtype)].median for s in shapes)


def count_flops(run: Callable[[], Any]) -> int:
    """Count the floating-point operations of matrix products, convolutions and attention in one call.

    A multiply-add is two operations. Elementwise work, norms, softmax and the optimiser do not count.

    Args:
        run: What is counted; it is called once.
    """
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
