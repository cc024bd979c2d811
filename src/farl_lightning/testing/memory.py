"""How much memory and traffic a computation needs, counted instead of sampled: exact, repeatable, on any device."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from typing_extensions import override


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
    watch = LiveMemory()
    with watch:
        fn()
    return watch.peak


class LiveMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees the result of every operation, below autograd and DDP, and notices when its memory is given back.

    Operations on tensors that were there before do not make those count; :meth:`note` does. Of a sharded tensor the
    part of this process counts.

    Attributes:
        living: Bytes alive now.
        peak: The most there were at a time.
        sent: Bytes of whole tensors by collective operation, named as in ``torch.ops.c10d``.

    Example:
        >>> with LiveMemory() as watch:
        ...     ones = torch.ones(1000)
        >>> watch.living
        4000
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.living = self.peak = 0
        self.sent: Counter[str] = Counter()
        self._known: dict[int, int] = {}

    def note(self, values: Any) -> None:
        """Count tensors that are there already, once each.

        Args:
            values: Tensors at any depth of lists and dicts.
        """
        self._note(values, counts=True)

    @override
    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operation, and look at what goes in and comes out."""
        kwargs = dict(kwargs or {})
        self._note((args, kwargs), counts=False)
        name = func._schema.name
        if name.startswith("c10d::"):
            self._count(name.removeprefix("c10d::").rstrip("_"), args)
        result = func(*args, **kwargs)
        self._note(result, counts=True)
        return result

    def _note(self, values: Any, counts: bool) -> None:
        """Remember memory that was not seen before, until it is given back."""
        for tensor in tree_iter(values):
            if not isinstance(tensor, Tensor) or tensor.device.type == "meta":
                continue
            storage = getattr(tensor, "_local_tensor", tensor).untyped_storage()
            if (key := storage._cdata) not in self._known:
                self._known[key] = size = storage.nbytes() if counts else 0
                self.living += size
                weakref.finalize(storage, self._forget, key)
        self.peak = max(self.peak, self.living)

    def _forget(self, key: int) -> None:
        """Memory was given back."""
        self.living -= self._known.pop(key)

    def _count(self, name: str, args: tuple[Any, ...]) -> None:
        """Add the bytes of the full tensor: the input of a reduction, the output of a gathering."""
        whole = args[0] if name in ("allreduce", "_allgather_base", "broadcast") else args[1]
        tensors = [tensor for tensor in tree_iter(whole) if isinstance(tensor, Tensor)]
        self.sent[name] += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
