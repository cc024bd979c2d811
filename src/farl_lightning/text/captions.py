"""Captions: cleaned, and cut into tokens."""

from __future__ import annotations

import functools
import html
import importlib.util
import re
import sys
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farl_lightning.errors import ConfigError, MissingDependencyError

if TYPE_CHECKING:  # torch is imported where tensors are made: this module stays importable in milliseconds
    from torch import Tensor

_TAG = re.compile(r"</?[a-zA-Z!][^<>]*>|<!--.*?-->|<\|[^<>]*\|>", re.DOTALL)
_URL = re.compile(r"(?:https?://|ftp://|www\.)\S+", re.IGNORECASE)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060\ufeff\ufffd\ud800-\udfff]")


def clean_caption(text: str, max_length: int = 1000) -> str:
    """Turn alt text from the web into a sentence that a tokenizer can use.

    HTML entities are resolved, tags, URLs and control characters removed, white space collapsed.

    Args:
        text: Any string; lone surrogates from a broken encoding are allowed.
        max_length: Longest result in characters; it is cut at a space where there is one.

    Returns:
        The caption; empty when it holds no letter and no digit.

    Example:
        >>> clean_caption("A <b>smiling</b> man &amp; his dog  http://x.org/1.jpg")
        'A smiling man & his dog'
    """
    text = text[: 20 * max_length]  # a megabyte of alt text costs no more than a page of it
    text = html.unescape(html.unescape(text))
    text = _URL.sub(" ", _TAG.sub(" ", text))
    text = " ".join(_CONTROL.sub("", text).split())
    if len(text) > max_length:
        text = text[: max_length + 1].rpartition(" ")[0] or text[:max_length]
    return text if any(character.isalnum() for character in text) else ""


class Tokenizer:
    """CLIP's byte-pair tokenizer with its start and end marks, padded with zeros.

    The vocabulary comes with ``open_clip_torch``. It is read on first use, in each process anew, so an instance is
    cheap to make and to send to the workers of a loader. Tokens of recent captions are kept.

    Args:
        context_length: Tokens per caption, marks included; a longer caption is cut and ends in the end mark.
        cache_size: Captions whose tokens are kept; the least recently used goes first.

    Attributes:
        vocab_size: Number of token ids.
        sot_id: Id of the start mark.
        eot_id: Id of the end mark.

    Raises:
        ConfigError: If not even the marks fit.
    """

    vocab_size = 49408
    sot_id = 49406
    eot_id = 49407

    def __init__(self, context_length: int = 77, cache_size: int = 16384) -> None:
        if context_length < 2:
            raise ConfigError(
                f"context_length {context_length} leaves no room for the start and the end mark; allowed: 2 or more"
            )
        self.context_length = context_length
        self.cache_size = cache_size
        self._cache: OrderedDict[str, list[int]] = OrderedDict()
        self._pairs: Any = None

    def __getstate__(self) -> dict[str, Any]:
        return {"context_length": self.context_length, "cache_size": self.cache_size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def __call__(self, texts: str | list[str]) -> Tensor:
        """Tokenize captions.

        Args:
            texts: One caption or several.

        Returns:
            (B, context_length) int64.
        """
        import torch

        rows = [self._ids(text) for text in ([texts] if isinstance(texts, str) else texts)]
        return torch.tensor([row + [0] * (self.context_length - len(row)) for row in rows], dtype=torch.int64).view(
            len(rows), self.context_length
        )

    def _ids(self, text: str) -> list[int]:
        """Return the ids of one caption without padding, from the cache when it is there."""
        if text in self._cache:
            self._cache.move_to_end(text)
            return self._cache[text]
        ids = self._encode(text)
        self._cache[text] = ids
        if len(self._cache) > self.cache_size:
            self._cache.popitem(last=False)
        return ids

    def _encode(self, text: str) -> list[int]:
        """Run the byte-pair merges on as much of a caption as can matter."""
        if self._pairs is None:
            self._pairs = _simple_tokenizer()
        if len(self._pairs.cache) > 4 * self.cache_size:  # words of all captions ever seen would fill the memory
            self._pairs.cache = {mark: mark for mark in ("<start_of_text>", "<end_of_text>")}
        # no token covers more than 32 characters, and an entity such as "&quot;" few more per character
        head = " ".join(text.split())[: 64 * self.context_length]
        ids: list[int] = [self.sot_id, *self._pairs.encode(head)[: self.context_length - 2], self.eot_id]
        return ids


@functools.lru_cache(maxsize=1)  # its tables take half a second to read
def _simple_tokenizer() -> Any:
    """Build open_clip's tokenizer from its one file: importing the whole package takes seconds in every worker."""
    module = sys.modules.get("open_clip.tokenizer")
    if module is None:
        package = importlib.util.find_spec("open_clip")
        if package is None or not package.submodule_search_locations:
            raise MissingDependencyError("'open_clip' is not installed; run: pip install open_clip_torch")
        path = Path(package.submodule_search_locations[0]) / "tokenizer.py"
        spec = importlib.util.spec_from_file_location("farl_lightning._open_clip_tokenizer", path)
        if spec is None or spec.loader is None:
            raise MissingDependencyError(f"open_clip has no tokenizer at {path}; run: pip install -U open_clip_torch")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module.SimpleTokenizer()
