"""Caption cleaning and tokens."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest
import torch

from farl_lightning.errors import ConfigError
from farl_lightning.text import Tokenizer, clean_caption
from tests.shared import SHARED, needs_shared


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("A man", "A man"),
        ("  a\t\n man ", "a man"),
        ("Tom &amp; Jerry &amp;lt; 3", "Tom & Jerry < 3"),
        ("&lt;b&gt;bold&lt;/b&gt; move", "bold move"),
        ("a <br/>line<!-- hidden --> end", "a line end"),
        ("I <3 faces, 1 < 2 > 0", "I <3 faces, 1 < 2 > 0"),
        ("see HTTPS://a.b/c?d=1 and www.x.org/y now", "see and now"),
        ("caf\u00e9 \u4eba\u8138", "caf\u00e9 \u4eba\u8138"),
        ("zero\u200bwidth \ufeffmark\x07", "zerowidth mark"),
        ("lone \ud800 surrogate", "lone surrogate"),
        ("words <end_of_text> <|endoftext|> more", "words more"),
        ("https://only.a/url.jpg", ""),
        ("... !!! --", ""),
        ("\U0001f600", ""),
        ("", ""),
    ],
)
def test_clean_caption(given, expected):
    assert clean_caption(given) == expected


def test_clean_caption_cuts_at_a_space():
    assert clean_caption("abc def ghi", max_length=8) == "abc def"
    assert clean_caption("abc def", max_length=7) == "abc def"
    assert clean_caption("abcdefghij", max_length=4) == "abcd"


def test_clean_caption_is_fast_on_hostile_input():
    assert len(clean_caption("<a" * 2_000_000)) <= 1000
    assert clean_caption("&amp;" * 500_000 + "x") == ""


def test_tokens_of_a_known_caption():
    ids = Tokenizer(8)("a photo of a cat")
    assert ids.dtype == torch.int64
    assert ids.tolist() == [[49406, 320, 1125, 539, 320, 2368, 49407, 0]]


def test_long_captions_end_in_the_end_mark():
    tokenizer = Tokenizer(6)
    ids = tokenizer(["word " * 50, "word"])
    assert ids.shape == (2, 6)
    assert ids[0, -1] == tokenizer.eot_id
    assert ids[1].tolist() == [49406, int(ids[0, 1]), 49407, 0, 0, 0]


def test_no_caption_gives_no_row():
    assert Tokenizer(5)([]).shape == (0, 5)


def test_cache_is_bounded_and_does_not_change_tokens():
    tokenizer = Tokenizer(8, cache_size=2)
    first = tokenizer("one face")
    tokenizer(["two faces", "three faces"])
    assert len(tokenizer._cache) == 2
    assert "one face" not in tokenizer._cache
    assert torch.equal(tokenizer("one face"), first)


def test_word_cache_of_the_merges_is_bounded():
    tokenizer = Tokenizer(8, cache_size=2)
    for number in range(100):
        tokenizer(" ".join("abcdefghij"[int(digit)] * 3 for digit in f"{number:04d}"))
    words = " ".join(f"w{chr(97 + i)}{chr(97 + j)}" for i in range(10) for j in range(10))
    Tokenizer(300, cache_size=2)(words)
    tokenizer("last")
    assert len(tokenizer._pairs.cache) < 40


def test_a_huge_caption_costs_little():
    tokens = Tokenizer(16)("face " * 1_000_000)
    assert tokens[0, -1] == Tokenizer.eot_id
    assert (tokens[0, 1:-1] == tokens[0, 1]).all()


def test_travels_to_workers_without_its_cache():
    tokenizer = Tokenizer(12)
    expected = tokenizer("a face")
    data = pickle.dumps(tokenizer)
    assert len(data) < 500
    assert torch.equal(pickle.loads(data)("a face"), expected)  # noqa: S301


def test_vocabulary_constants_match_the_library():
    tokenizer = Tokenizer()
    tokenizer("x")
    library = tokenizer._pairs
    assert (library.vocab_size, library.sot_token_id, library.eot_token_id) == (
        Tokenizer.vocab_size,
        Tokenizer.sot_id,
        Tokenizer.eot_id,
    )
    assert max(map(len, library.encoder)) <= 32


def test_too_short_a_context_is_refused():
    with pytest.raises(ConfigError, match=r"context_length 1 leaves no room"):
        Tokenizer(1)


def test_importing_text_and_using_it_stays_light():
    code = (
        "import sys; import farl_lightning.text as t; assert 'torch' not in sys.modules; t.Tokenizer(8)('a face'); "
        "assert 'timm' not in sys.modules and 'open_clip' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@needs_shared
@pytest.mark.parametrize("length", ["", "_short"])
def test_matches_reference_tokens(length):
    data = json.loads((SHARED / "parity" / "10_tokenizer.json").read_text())
    tokenizer = Tokenizer(data[f"context_length{length}"])
    assert tokenizer(data["captions"]).tolist() == data[f"ids{length}"]
