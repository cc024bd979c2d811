"""InsightFace's ``.bin`` files of verification pairs: a pickle, read without executing anything of it.

The file holds ``(pictures, same)``: the encoded bytes of 2 P pictures, two per pair, and P booleans. A pickle is a
program for a small stack machine; this reader is that machine with nothing but the instructions which build lists,
tuples, numbers and bytes. It can import nothing and call nothing. (Python 3 writes bytes for old readers as a call of
``_codecs.encode`` on text; that one call is understood as what it means, and not made.)
"""

from __future__ import annotations

import pickletools
from pathlib import Path
from typing import Any

from farl_lightning.errors import DataError, DatasetNotFoundError

MAX_BIN_BYTES = 2**30
"""Largest file that is read; those that are in use have about 100 MB."""

_PASSED_OVER = frozenset({"PROTO", "FRAME"})
_VALUES = frozenset({"BININT", "BININT1", "BININT2", "BINBYTES", "BINBYTES8", "SHORT_BINBYTES"})
_OLD_BYTES = frozenset({"BINSTRING", "SHORT_BINSTRING"})
_TEXT = frozenset({"BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE"})
_CONSTANTS = {"NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_STORE = frozenset({"BINPUT", "LONG_BINPUT"})
_LOAD = frozenset({"BINGET", "LONG_BINGET"})

_MARK = object()
_ENCODE = object()
_CODEC_NAMES = ("_codecs encode", "codecs encode")


def read_pairs_bin(path: str | Path) -> tuple[list[bytes], list[bool]]:
    """Read a ``.bin`` file.

    Args:
        path: The file.

    Returns:
        The encoded pictures, 2 P of them, and for each pair whether both show the same person.

    Raises:
        DatasetNotFoundError: If it is not there.
        DataError: If it is no such file, or would execute something.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DatasetNotFoundError(f"pairs '{path.absolute()}' do not exist")
    if (size := path.stat().st_size) > MAX_BIN_BYTES:
        raise DataError(f"'{path}' has {size} bytes, the limit is {MAX_BIN_BYTES}")
    try:
        return check_pairs(_Machine().run(path.read_bytes()))
    except (ValueError, IndexError, KeyError, TypeError, OSError) as error:
        raise DataError(f"'{path}' holds no pairs as InsightFace writes them: {error}") from error


def check_pairs(value: Any) -> tuple[list[bytes], list[bool]]:
    """Return pictures and answers, if that is what a value is.

    Args:
        value: Anything.

    Raises:
        ValueError: Saying what is wrong.
    """
    if not (isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(part, list) for part in value)):
        raise ValueError("it is no pair of lists")
    pictures, same = value
    if odd := next((item for item in pictures if not isinstance(item, bytes)), None):
        raise ValueError(f"a picture is {type(odd).__name__} instead of bytes")
    if any(item not in (0, 1) for item in same):
        raise ValueError("an answer is neither true nor false")
    if len(pictures) != 2 * len(same) or not same:
        raise ValueError(f"{len(pictures)} pictures do not make {len(same)} pairs")
    return pictures, [bool(item) for item in same]


class _Machine:
    """The stack machine of pickle, with the few instructions that build plain data."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        """Return what the program leaves."""
        for opcode, argument, position in pickletools.genops(data):
            if opcode.name == "STOP":
                return self.stack.pop()
            if not (self._push(opcode.name, argument) or self._build(opcode.name) or self._keep(opcode.name, argument)):
                raise ValueError(f"instruction {opcode.name} at byte {position} builds no plain data; it was not run")
        raise ValueError("it ends in the middle")

    def _push(self, name: str, argument: Any) -> bool:
        """Run an instruction that puts one value on the stack; tell whether it was one."""
        if name in _PASSED_OVER:
            return True
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _OLD_BYTES:
            self.stack.append(argument.encode("latin-1"))
        elif name in _TEXT:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name == "EMPTY_LIST":
            self.stack.append([])
        elif name == "GLOBAL" and argument in _CODEC_NAMES:
            self.stack.append(_ENCODE)
        else:
            return False
        return True

    def _build(self, name: str) -> bool:
        """Run an instruction that joins values of the stack; tell whether it was one."""
        if name in _TUPLES:
            count = _TUPLES[name]
            self.stack[len(self.stack) - count :] = [tuple(self._last(count))]
        elif name == "TUPLE":
            self.stack.append(tuple(self._from_mark()))
        elif name == "LIST":
            self.stack.append(self._from_mark())
        elif name == "APPEND":
            item = self.stack.pop()
            self._list().append(item)
        elif name == "APPENDS":
            items = self._from_mark()
            self._list().extend(items)
        elif name == "STACK_GLOBAL":
            self.stack[-2:] = [self._codec(*self._last(2))]
        elif name == "REDUCE":
            self.stack[-2:] = [self._encoded(*self._last(2))]
        else:
            return False
        return True

    def _keep(self, name: str, argument: Any) -> bool:
        """Run an instruction that stores a value or brings it back; tell whether it was one."""
        if name == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif name in _STORE:
            self.memo[int(argument)] = self.stack[-1]
        elif name in _LOAD:
            self.stack.append(self.memo[int(argument)])
        else:
            return False
        return True

    def _last(self, count: int) -> list[Any]:
        """Return the last values without taking them."""
        if len(self.stack) < count:
            raise ValueError("it takes more from the stack than there is")
        return self.stack[len(self.stack) - count :]

    def _list(self) -> list[Any]:
        """Return the list on top of the stack."""
        if not isinstance(self.stack[-1], list):
            raise ValueError("it appends to what is no list")
        top: list[Any] = self.stack[-1]
        return top

    def _from_mark(self) -> list[Any]:
        """Take everything above the last mark, and the mark."""
        place = next((row for row in reversed(range(len(self.stack))) if self.stack[row] is _MARK), -1)
        if place < 0:
            raise ValueError("a mark is missing")
        items = self.stack[place + 1 :]
        del self.stack[place:]
        return items

    @staticmethod
    def _codec(module: Any, name: Any) -> object:
        """Return the mark of ``_codecs.encode``; any other name is refused."""
        if f"{module} {name}" not in _CODEC_NAMES:
            raise ValueError(f"it asks for '{module}.{name}', which was not imported")
        return _ENCODE

    @staticmethod
    def _encoded(function: Any, arguments: Any) -> bytes:
        """Return text as the bytes that it stands for."""
        plain = isinstance(arguments, tuple) and len(arguments) == 2 and isinstance(arguments[0], str)
        if function is not _ENCODE or not plain or arguments[1] not in ("latin1", "latin-1"):
            raise ValueError("it calls something, which was not called")
        encoded: bytes = arguments[0].encode("latin-1")
        return encoded
