"""Numbers from names."""

from __future__ import annotations

import hashlib
import struct

import pytest

from farl_lightning.datasets.synthetic.draws import Draws


def test_numbers_are_the_bytes_of_shake_128():
    first, second = struct.unpack("<2I", hashlib.shake_128(b"i3\x1fsface").digest(8))
    draws = Draws(3, "face")
    assert draws.uniform() == first / 2**32
    assert draws.uniform(10, 20) == 10 + 10 * (second / 2**32)


def test_a_number_and_a_word_are_different_names():
    assert Draws(1).uniform() != Draws("1").uniform()
    assert Draws(1, 23).uniform() != Draws(12, 3).uniform()


def test_the_row_goes_on_without_repeating():
    draws = Draws("long")
    numbers = [draws.uniform() for _ in range(1000)]
    assert len(set(numbers)) == 1000
    again = Draws("long")
    assert [again.uniform() for _ in range(1000)] == numbers


def test_means_and_bounds():
    draws = Draws("many")
    flat = [draws.uniform(2, 4) for _ in range(4000)]
    bell = [draws.bell(2, 4) for _ in range(4000)]
    assert all(2 <= value < 4 for value in flat + bell)
    assert sum(flat) / 4000 == pytest.approx(3, abs=0.05)
    assert sum(bell) / 4000 == pytest.approx(3, abs=0.05)
    spread = [sum((value - 3) ** 2 for value in row) / 4000 for row in (flat, bell)]
    assert spread[0] == pytest.approx(1 / 3, abs=0.03)
    assert spread[1] == pytest.approx(1 / 9, abs=0.02)  # the mean of three


def test_choices_follow_their_weights():
    draws = Draws("weights")
    picks = [draws.weighted({"a": 3.0, "b": 1.0, "never": 0.0}) for _ in range(4000)]
    assert picks.count("a") / 4000 == pytest.approx(0.75, abs=0.03)
    assert "never" not in picks
    assert {draws.choice("xyz") for _ in range(100)} == set("xyz")
    assert {draws.sign() for _ in range(50)} == {-1, 1}
    assert sum(draws.chance(0.2) for _ in range(4000)) / 4000 == pytest.approx(0.2, abs=0.03)
