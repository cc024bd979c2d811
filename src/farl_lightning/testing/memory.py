"""How much memory a computation needs, counted instead of sampled: exact, repeatable, on any device."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


def peak_bytes(fn: Callable[[], object]) -> int:
    """Return the most bytes of tensors alive at a time that a function makes, gradients and saved tensors included.

    Tensors that existed before do not count, nor does what a kernel needs inside. Unlike the process's resident memory
    this does not depend on the allocator, and unlike ``torch.cuda.max_memory_allocated`` it works on CPUs.

    Args:
        fn: A forward pass, or a forward and a backward pass, on the CPU.

    Example:
        >>> peak_bytes(lambda: (torch.zeros(1000).exp(), None)[1])
        8000
    """
    watch = _Watch()
    with watch:
        fn()
    return watch.peak


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees the result of every operation and notices when its memory is given back."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation; arguments not seen before were there before, and count nothing."""
        kwargs = dict(kwargs or {})
        self._note((args, kwargs), counts=False)
        result = func(*args, **kwargs)
        self._note(result, counts=True)
        self.peak = max(self.peak, sum(self._alive.values()))
        return result

    def _note(self, values: Any, counts: bool) -> None:
        """Remember memory until it is given back."""
        for value in tree_iter(values):
            if isinstance(value, Tensor) and (key := (storage := value.untyped_storage())._cdata) not in self._alive:
                self._alive[key] = storage.nbytes() if counts else 0
                weakref.finalize(storage, self._alive.pop, key, None)
