"""Pictures: pixels are what they should be, any text and any number of images can be drawn."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from farl_lightning.visualization import (
    RankedCaption,
    caption_ranking,
    contact_sheet,
    hide_patches,
    image_grid,
    save_png,
    to_pixels,
)

AWKWARD = ["", "$\\alpha", "a $5 hat and a $6 scarf", "one\ttab\x00", "word " * 200, "日本語 émoji"]


def solid(color: tuple[int, int, int], size: int = 16) -> np.ndarray:
    return np.full((size, size, 3), color, dtype=np.uint8)


def has_color(picture: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((picture == color).all(-1).sum())


def test_to_pixels_undoes_the_normalisation_and_clips():
    images = torch.tensor([0.0, 1.0, -9.0, 9.0]).view(1, 1, 2, 2).repeat(1, 3, 1, 1)
    pixels = to_pixels(images.bfloat16(), (0.5, 0.25, 0.0), (0.25, 0.5, 1.0))
    assert pixels.dtype == np.uint8
    assert pixels[0, 0, 0].tolist() == [128, 64, 0]
    assert pixels[0, 0, 1].tolist() == [191, 191, 255]
    assert pixels[0, 1].tolist() == [[0, 0, 0], [255, 255, 255]]


def test_hide_patches_covers_exactly_the_mask_row_by_row():
    images = np.zeros((1, 4, 4, 3), dtype=np.uint8)
    covered = hide_patches(images, torch.tensor([[False, True, False, False]]), color=200)
    assert covered[0, :2, 2:].tolist() == np.full((2, 2, 3), 200).tolist()
    covered[0, :2, 2:] = 0
    assert not covered.any()
    assert hide_patches(images, torch.ones(1, 4).bool(), color=200, strength=0.5).max() == 100


def test_image_grid_shows_every_image_beside_its_caption():
    red, green, blue = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    plain = image_grid([[solid(red), solid(green)], [solid(blue)]], titles=["first", "second"], title="Title")
    assert plain.dtype == np.uint8
    assert plain.shape[2] == 3
    for color in (red, green, blue):
        assert has_color(plain, color) > 5000
    wide = image_grid([[solid(red), solid(green)], [solid(blue)]], captions=["x", "y"])
    assert wide.shape[1] > plain.shape[1]


@pytest.mark.parametrize("count", [0, 1, 3, 9])
def test_contact_sheet_of_any_length(count):
    picture = contact_sheet([solid((250, 0, 0))] * count, AWKWARD[:count], columns=4)
    assert picture.ndim == 3
    assert (has_color(picture, (250, 0, 0)) > 5000 * count) or count == 0


def test_awkward_captions_are_drawn():
    images = [solid((9, 9, 9))] * len(AWKWARD)
    contact_sheet(images, AWKWARD)
    image_grid([[image] for image in images], captions=AWKWARD, title="$")
    caption_ranking(images, [[RankedCaption(1, text, 0.5, False)] for text in AWKWARD])


def test_own_caption_is_green():
    green = (0x1A, 0x7F, 0x37)
    ranked = [[RankedCaption(1, "other caption", 0.9, False), RankedCaption(7, "own caption", 0.1, True)]]
    assert has_color(caption_ranking([solid((9, 9, 9))], ranked), green) > 20
    ranked = [[RankedCaption(1, "other caption", 0.9, False)]]
    assert has_color(caption_ranking([solid((9, 9, 9))], ranked), green) == 0


def test_save_png_makes_the_folder(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    path = save_png(picture, tmp_path / "a" / "b.png")
    assert np.array_equal(np.asarray(Image.open(path)), picture)


def test_letters_without_a_glyph_raise_no_warning(recwarn):
    contact_sheet([solid((1, 2, 3))], ["日本語"])
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_drawing_needs_no_pyplot(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it now fails
    assert contact_sheet([solid((1, 2, 3))]).shape[2] == 3
