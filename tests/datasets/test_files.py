"""Files to arrays: odd pictures, odd label maps, odd lists of numbers."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from farl_lightning.datasets import bad_sample as reasons
from farl_lightning.datasets import files
from farl_lightning.datasets.bad_sample import BadSample
from farl_lightning.datasets.files import read_image, read_layer, read_mask, read_points, square_around

IDS = np.arange(12, dtype=np.uint8).reshape(3, 4)


def reason(function, *arguments, **options) -> str:
    with pytest.raises(BadSample) as caught:
        function(*arguments, **options)
    return caught.value.reason


def save(path, image, **options):
    image.save(path, **options)
    return path


def test_every_kind_of_picture_becomes_rgb(tmp_path):
    rgb = Image.new("RGB", (20, 10), (200, 100, 50))
    assert read_image(save(tmp_path / "a.png", rgb)).shape == (10, 20, 3)
    grey = read_image(save(tmp_path / "b.png", rgb.convert("L")))
    assert grey.shape == (10, 20, 3)
    assert (grey[..., 0] == grey[..., 2]).all()
    clear = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    assert (read_image(save(tmp_path / "c.png", clear)) == 255).all()


def test_exif_turns_the_picture_upright(tmp_path):
    image = Image.new("RGB", (20, 10))
    image.paste((255, 255, 255), (0, 0, 10, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise
    upright = read_image(save(tmp_path / "a.jpg", image, exif=exif))
    assert upright.shape == (20, 10, 3)
    assert upright[:8].min() > 200
    assert upright[12:].max() < 50


def test_sizes_have_limits(tmp_path, monkeypatch):
    assert reason(read_image, save(tmp_path / "a.png", Image.new("RGB", (1, 1)))) == reasons.SMALL_IMAGE
    huge = save(tmp_path / "b.png", Image.new("1", (12000, 12000)), compress_level=1)
    assert reason(read_image, huge) == reasons.HUGE_IMAGE
    assert reason(read_mask, huge) == reasons.HUGE_IMAGE
    assert reason(read_image, tmp_path / "c.png") == reasons.MISSING_IMAGE
    (tmp_path / "d.png").write_bytes(b"<html>")
    assert reason(read_image, tmp_path / "d.png") == reasons.NOT_AN_IMAGE
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 3)
    assert reason(read_image, tmp_path / "d.png") == reasons.OVERSIZED_FILE


def test_label_maps_keep_their_ids(tmp_path):
    grey = Image.fromarray(IDS)
    palette = grey.convert("P")
    palette.putdata(IDS.ravel().tolist())
    palette.putpalette([7, 80, 200] * 256)
    modes = {
        "grey": grey,
        "palette": palette,
        "rgb": Image.fromarray(np.repeat(IDS[..., None], 3, -1)),
        "la": Image.merge("LA", (grey, Image.new("L", grey.size, 255))),
        "sixteen": Image.fromarray(IDS.astype(np.uint16)),
    }
    for name, image in modes.items():
        assert np.array_equal(read_mask(save(tmp_path / f"{name}.png", image)), IDS), name
    assert read_mask(tmp_path / "rgb.png").dtype == np.uint8


def test_odd_label_maps_are_refused(tmp_path):
    coloured = save(tmp_path / "a.png", Image.new("RGB", (4, 3), (1, 2, 3)))
    assert reason(read_mask, coloured) == reasons.BROKEN_ANNOTATION
    wide = save(tmp_path / "b.png", Image.fromarray(np.full((3, 4), 300, np.uint16)))
    assert reason(read_mask, wide) == reasons.BROKEN_ANNOTATION
    lossy = save(tmp_path / "c.jpg", Image.fromarray(IDS))
    assert reason(read_mask, lossy) == reasons.BROKEN_ANNOTATION
    assert reason(read_mask, tmp_path / "none.png") == reasons.MISSING_ANNOTATION
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 9, (64, 64), np.uint8)).save(stream, "PNG")
    (tmp_path / "cut.png").write_bytes(stream.getvalue()[:200])
    assert reason(read_mask, tmp_path / "cut.png") == reasons.BROKEN_ANNOTATION
    assert reason(read_layer, tmp_path / "cut.png") == reasons.BROKEN_ANNOTATION


def test_a_layer_is_whatever_is_not_black(tmp_path):
    pixels = np.zeros((3, 4, 3), np.uint8)
    pixels[1, 2] = 255
    for name, image in {"rgb": Image.fromarray(pixels), "l": Image.fromarray(pixels[..., 0])}.items():
        covered = read_layer(save(tmp_path / f"{name}.png", image))
        assert covered.dtype == bool
        assert np.argwhere(covered).tolist() == [[1, 2]]
    assert read_layer(tmp_path / "none.png") is None


def test_points_are_counted(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("2\n1.5 2\r\n-3 4e1\n")
    assert read_points(path, 2, leading_count=True).tolist() == [[1.5, 2.0], [-3.0, 40.0]]
    for text in ("", "3\n1 2\n3 4\n", "2\n1 2\n", "2\n1 2\n3 4 5\n", "2\n1 2\n3 x\n"):
        path.write_text(text)
        assert reason(read_points, path, 2, leading_count=True) == reasons.BROKEN_ANNOTATION
    assert reason(read_points, tmp_path / "none.txt", 2) == reasons.MISSING_ANNOTATION


def test_the_square_around_points_shares_their_centre():
    points = np.array([[10, 20], [30, 26]], np.float32)
    assert square_around(points) == (10.0, 13.0, 30.0, 33.0)
