"""Random numbers that depend on a name alone, the same on every machine and under every version of every library."""

from __future__ import annotations

import hashlib
import itertools
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

T = TypeVar("T")

_WORDS = 128  # numbers made at once; a whole face needs fewer


class Draws:
    """A row of uniform numbers taken from a hash of a name.

    A hash has no state to carry over, costs 3 microseconds for a whole face, and its bytes are fixed by a standard
    (SHAKE-128, FIPS 202), while the streams of random generators are promised by no library for all versions.

    Args:
        name: What the numbers belong to, such as ``(seed, "picture", index)``.
    """

    def __init__(self, *name: int | str) -> None:
        text = "\x1f".join(f"{type(part).__name__[0]}{part}" for part in name).encode()
        digest = hashlib.shake_128(text).digest(4 * _WORDS)
        self._numbers: Iterator[int] = itertools.chain(struct.unpack(f"<{_WORDS}I", digest), self._more(text))

    @staticmethod
    def _more(text: bytes) -> Iterator[int]:
        """Continue the row without end, for names that need many numbers."""
        blocks = (hashlib.shake_128(text + b"\x1f%d" % block).digest(4 * _WORDS) for block in itertools.count(1))
        return itertools.chain.from_iterable(struct.unpack(f"<{_WORDS}I", digest) for digest in blocks)

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """Return a number in [low, high), uniformly."""
        return low + (high - low) * (next(self._numbers) / 4294967296.0)

    def bell(self, low: float, high: float) -> float:
        """Return a number in [low, high) that prefers the middle: the mean of three uniform ones."""
        total = next(self._numbers) + next(self._numbers) + next(self._numbers)
        return low + (high - low) * (total / 12884901888.0)

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return next(self._numbers) < probability * 4294967296.0

    def sign(self) -> int:
        """Return -1 or 1."""
        return 1 if next(self._numbers) & 1 else -1

    def choice(self, options: Sequence[T]) -> T:
        """Return one of the options, each with equal probability."""
        return options[next(self._numbers) * len(options) >> 32]

    def weighted(self, options: Mapping[T, float]) -> T:
        """Return one of the keys, with probability proportional to its value."""
        left = self.uniform(0.0, sum(options.values()))
        for option, weight in options.items():
            left -= weight
            if left < 0:
                return option
        return option
