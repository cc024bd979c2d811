from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from farl_lightning.errors import BadSample
from farl_lightning.transforms import decode
from farl_lightning.transforms.decode import (
    BROKEN_IMAGE,
    HUGE_IMAGE,
    NOT_AN_IMAGE,
    SMALL_IMAGE,
    EncodedImage,
    decode_image,
)
from farl_lightning.transforms.pretrain import PretrainTransform, PretrainTransformConfig
from tests.shared import SHARED, needs_shared

# outside of pytest, which resets filters, the module silences them itself
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")


def quadrants(width: int = 64, height: int = 48) -> Image.Image:
    """Red, green / blue, yellow: tells every orientation apart."""
    image = Image.new("RGB", (width, height))
    for index, color in enumerate(["red", "lime", "blue", "yellow"]):
        left, top = index % 2 * width // 2, index // 2 * height // 2
        image.paste(color, (left, top, left + width // 2, top + height // 2))
    return image


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def corners(image: Image.Image) -> list[tuple[int, int, int]]:
    """The colours of the four quadrants, rounded to full channels: JPEG is not exact."""
    w, h = image.size
    points = [(w // 4, h // 4), (3 * w // 4, h // 4), (w // 4, 3 * h // 4), (3 * w // 4, 3 * h // 4)]
    return [tuple(255 * (value > 127) for value in image.getpixel(point)) for point in points]


UPRIGHT = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)]
FORMATS = [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True}), ("GIF", {}), ("BMP", {}), ("TIFF", {})]


@pytest.mark.parametrize(("kind", "options"), FORMATS)
def test_formats_decode_to_rgb(kind, options):
    image = decode_image(encode(quadrants(), kind, **options))
    assert image.mode == "RGB"
    assert image.size == (64, 48)
    assert corners(image) == UPRIGHT


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_exif_orientation_is_undone(kind, orientation, scale):
    stored = quadrants(128, 96)
    undo = decode._UPRIGHT.get(orientation)
    # the inverse of each transpose: only the quarter turns are not their own inverse
    inverse = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(orientation, undo)
    stored = stored if inverse is None else stored.transpose(inverse)
    exif = Image.Exif()
    exif[0x0112] = orientation
    encoded = EncodedImage(encode(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {})))
    assert encoded.size == (128, 96)
    image = encoded.load(scale)
    assert image.size == ((64, 48) if kind == "JPEG" and scale == 0.5 else (128, 96))
    assert corners(image) == UPRIGHT


def test_a_damaged_exif_block_does_not_lose_the_picture():
    data = encode(quadrants(), "JPEG", exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff" + b"\xff" * 40)
    assert corners(decode_image(data)) == UPRIGHT


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    image = decode_image(encode(quadrants().convert("CMYK"), kind))
    assert image.mode == "RGB"
    assert corners(image) == UPRIGHT


def test_adobes_inverted_cmyk():
    """Photoshop stores inverted inks behind an Adobe marker; Pillow writes exactly that, so the bytes show both."""
    data = encode(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in data
    red, green, blue = decode_image(data).getpixel((8, 8))
    assert red > 245
    assert max(green, blue) < 10


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_high_byte(kind):
    values = np.array([[0, 255, 256, 32768, 65535]] * 3, np.uint16)
    image = decode_image(encode(Image.fromarray(values), kind))
    assert np.asarray(image)[0].tolist() == [[v, v, v] for v in (0, 0, 1, 128, 255)]


def test_thirty_two_bit_and_float_tiff():
    whole = decode_image(encode(Image.fromarray(np.array([[0, 65535, 70000, -3]], np.int32)), "TIFF"))
    assert np.asarray(whole)[0, :, 0].tolist() == [0, 255, 255, 0]
    floats = decode_image(encode(Image.fromarray(np.array([[0, 0.5, 1, np.nan]], np.float32)), "TIFF"))
    assert np.asarray(floats)[0, :, 0].tolist() == [0, 128, 255, 0]


def sixteen_bit_rgb_png(value: int) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    rows = (b"\x00" + struct.pack(">H", value) * 12) * 4
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_sixteen_bit_rgb_png():
    assert decode_image(sixteen_bit_rgb_png(0x80FF)).getpixel((1, 1)) == (128, 128, 128)


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_bilevel_and_palette(mode):
    image = decode_image(encode(Image.new("L", (8, 8), 255).convert(mode), "PNG"))
    assert image.mode == "RGB"
    assert image.getpixel((3, 3)) == (255, 255, 255)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize(("background", "expected"), [((255, 255, 255), 127), ((0, 0, 0), 0), ((40, 40, 40), 20)])
def test_alpha_shows_the_background(mode, background, expected):
    layer = Image.new("RGBA", (8, 8), (0, 0, 0, 128)).convert(mode)
    value = decode_image(encode(layer, "PNG"), background=background).getpixel((2, 2))
    assert value == pytest.approx((expected,) * 3, abs=1)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_transparent_palette_entries_show_the_background(kind):
    image = Image.new("P", (8, 8), 0)
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.paste(1, (4, 0, 8, 8))
    decoded = decode_image(encode(image, kind, transparency=0))
    assert decoded.getpixel((1, 1)) == (255, 255, 255)
    assert decoded.getpixel((6, 1)) == (0, 0, 255)


def test_a_transparent_colour_in_rgb_shows_the_background():
    assert decode_image(encode(quadrants(), "PNG", transparency=(255, 0, 0))).getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_animations_give_their_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), color) for color in ("blue", "red", "lime")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    red, green, blue = decode_image(data).getpixel((4, 4))
    assert blue > 240
    assert max(red, green) < 15


@pytest.mark.parametrize(
    "data", [b"", b"\x00" * 100, b"<html>not found</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"]
)
def test_bytes_that_are_no_picture(data):
    with pytest.raises(BadSample) as error:
        decode_image(data)
    assert error.value.reason == NOT_AN_IMAGE
    assert f"{len(data)} bytes" in error.value.detail


@pytest.mark.parametrize(("kind", "options"), FORMATS)
def test_pictures_that_end_early(kind, options):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encode(noise, kind, **options)
    with pytest.raises(BadSample) as error:
        decode_image(data[: len(data) // 2], target=8)
    assert error.value.reason == BROKEN_IMAGE


def test_no_cut_or_flipped_byte_raises_anything_else():
    rng, reasons = np.random.default_rng(0), set()
    for kind, options in FORMATS:
        data = encode(quadrants(), kind, **options)
        for _ in range(40):
            damaged = bytearray(data[: rng.integers(1, len(data) + 1)])
            for place in rng.integers(0, len(damaged), 4):
                damaged[place] = rng.integers(0, 256)
            try:
                assert decode_image(bytes(damaged), max_pixels=10**6).mode == "RGB"
            except BadSample as error:
                reasons.add(error.reason)
    assert {BROKEN_IMAGE} <= reasons <= {BROKEN_IMAGE, NOT_AN_IMAGE, HUGE_IMAGE}


def test_gigantic_pictures_are_refused_from_the_header(monkeypatch):
    monkeypatch.setattr(EncodedImage, "_decode", lambda *_: pytest.fail("pixels were decoded"))
    data = encode(Image.new("L", (3000, 2000)), "PNG")
    with pytest.raises(BadSample, match=r"3000 x 2000 pixels, the limit is 5000000") as error:
        decode_image(data, max_pixels=5_000_000)
    assert error.value.reason == HUGE_IMAGE


@pytest.mark.parametrize("side", [12_000, 60_000])
def test_decompression_bombs_are_refused(side):
    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    data += struct.pack(">I", 10) + b"IDAT" + b"\x00" * 14
    with pytest.raises(BadSample) as error:
        decode_image(data)
    assert error.value.reason == HUGE_IMAGE


def test_small_pictures_are_refused():
    data = encode(quadrants(64, 20), "JPEG")
    assert decode_image(data, min_side=20).size == (64, 20)
    with pytest.raises(BadSample, match="64 x 20 pixels, the smallest side allowed is 21") as error:
        decode_image(data, min_side=21)
    assert error.value.reason == SMALL_IMAGE


@pytest.mark.parametrize(
    ("target", "size"),
    [
        (None, (801, 403)),
        (403, (801, 403)),
        (202, (801, 403)),
        (201, (401, 202)),
        (101, (401, 202)),
        (100, (201, 101)),
        (1, (101, 51)),
    ],
)
def test_reduced_scale_is_never_below_the_target(target, size):
    image = decode_image(encode(quadrants(801, 403), "JPEG"), target=target)
    assert image.size == size
    assert corners(image) == UPRIGHT
    assert min(size) >= min(target or 0, 403)


def test_only_jpeg_is_reduced_and_a_second_load_is_the_same_picture():
    assert EncodedImage(encode(quadrants(), "PNG")).load(0.1).size == (64, 48)
    encoded = EncodedImage(encode(quadrants(), "JPEG"))
    assert encoded.load(0.4).size == encoded.load(1.0).size == (32, 24)
    assert encoded.size == (64, 48)


def test_one_line_and_one_pixel_pictures():
    assert decode_image(encode(Image.new("RGB", (1, 1)), "JPEG"), target=1).size == (1, 1)
    assert decode_image(encode(Image.new("RGB", (1000, 1)), "JPEG"), target=1).size == (1000, 1)


@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_a_crop_is_the_same_from_the_reduced_and_from_the_full_picture(orientation):
    y, x = np.mgrid[0:803, 0:1001]
    waves = 127 + 60 * np.sin(x / 60) + 60 * np.cos(y / 45)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(
        Image.fromarray(np.stack([waves, waves[::-1], waves], -1).astype(np.uint8)), "JPEG", quality=95, exif=exif
    )
    transform = PretrainTransform(PretrainTransformConfig(image_size=64, crop="box", mask="none"), train=False)
    encoded = EncodedImage(data)
    reduced = transform.pixels(encoded, "k", box=(300, 300, 550, 520)).float()
    assert max(encoded.load().size) < 600
    full = transform.pixels(decode_image(data), "k", box=(300, 300, 550, 520)).float()
    assert (reduced - full).abs().mean() < 2
    assert full.std() > 30


@needs_shared
@pytest.mark.shared
def test_real_pictures_come_upright():
    assert SHARED is not None
    data = (SHARED / "real" / "antispoof" / "image_T1.jpg").read_bytes()
    encoded = EncodedImage(data)
    assert encoded.size == (480, 640)
    assert encoded.load(0.5).size == (240, 320)
    for path in sorted((SHARED / "real" / "congress" / "images").iterdir())[:20]:
        assert min(decode_image(path.read_bytes(), target=64).size) >= 64
