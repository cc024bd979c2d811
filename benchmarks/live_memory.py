"""What a step really takes: bytes that live at once, bytes handed to collectives."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from typing_extensions import override


class Watch(TorchDispatchMode):
    """Counts storages while they live, and tensors that enter collective operations, below autograd and DDP."""

    def __init__(self) -> None:
        super().__init__()
        self.living = self.peak = 0
        self.sent: Counter[str] = Counter()
        self._known: set[int] = set()

    def note(self, value: Any) -> None:
        """Count storages that were not seen before."""
        for tensor in tree_iter(value):
            if not isinstance(tensor, Tensor) or tensor.device.type == "meta":
                continue
            tensor = getattr(tensor, "_local_tensor", tensor)
            storage = tensor.untyped_storage()
            key, size = storage._cdata, storage.nbytes()
            if key not in self._known:
                self._known.add(key)
                self.living += size
                weakref.finalize(storage, self._forget, key, size)
        self.peak = max(self.peak, self.living)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.living -= size

    @override
    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and look at what goes in and comes out."""
        name = func._schema.name
        if name.startswith("c10d::"):
            self._count(name.removeprefix("c10d::").rstrip("_"), args)
        result = func(*args, **(kwargs or {}))
        self.note(result)
        return result

    def _count(self, name: str, args: tuple[Any, ...]) -> None:
        """Add the bytes of the full tensor: the input of a reduction, the output of a gathering."""
        whole = args[0] if name in ("allreduce", "_allgather_base", "broadcast") else args[1]
        tensors = [t for t in tree_iter(whole) if isinstance(t, Tensor)]
        self.sent[name] += sum(t.numel() * t.element_size() for t in tensors)
