"""From the bytes of an image file to pixels: formats, modes, sizes, and bytes that are not what they seem."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from walkback.errors import DataError
from walkback_hf import decode
from walkback_hf.encoded import EncodedImage


def picture(seed: int, height: int = 6, width: int = 6, channels: int = 1) -> np.ndarray:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)
    return values[..., 0] if channels == 1 else values


def encode(values: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, kind)
    return file.getvalue()


def decoded(values: bytes, size: int | None = None, grayscale: bool | None = None) -> np.ndarray:
    image = EncodedImage("x.png", values)
    return decode.decode(image, decode.find_layout(image, size, grayscale))


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
@pytest.mark.parametrize("channels", [1, 3])
def test_lossless_formats_come_back_exactly(kind, channels):
    values = picture(0, 5, 7, channels)
    expected = values[None] if channels == 1 else np.moveaxis(values, -1, 0)
    assert np.array_equal(decoded(encode(values, kind)), expected)


def test_transparency_is_laid_over_white():
    values = np.array([[[10, 20, 30, 255], [10, 20, 30, 0], [0, 0, 0, 51]]], np.uint8)
    assert decoded(encode(values))[:, 0].T.tolist() == [[10, 20, 30], [255, 255, 255], [204, 204, 204]]


def test_a_palette_and_its_transparency_become_colours():
    image = Image.new("P", (2, 1))
    image.putpalette([1, 2, 3, 4, 5, 6])
    image.putdata([0, 1])
    assert decoded(saved(image))[:, 0].T.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert decoded(saved(image, transparency=1))[:, 0].T.tolist() == [[1, 2, 3], [255, 255, 255]]


def test_16_bit_grey_is_rounded_to_8():
    values = np.array([[0, 128, 129, 257, 32768, 65535]], np.uint16)
    assert decoded(encode(values)).tolist() == [[[0, 0, 1, 1, 128, 255]]]


def test_one_bit_grey_alpha_and_colour_made_grey():
    assert decoded(saved(Image.new("1", (1, 1), 1))).tolist() == [[[255]]]
    assert decoded(saved(Image.new("LA", (1, 1), (0, 51)))).tolist() == [[[204]]]
    assert decoded(encode(picture(0, channels=3)), grayscale=True).shape == (1, 6, 6)
    assert decoded(encode(picture(0)), grayscale=False).shape == (3, 6, 6)


def test_camera_orientation_is_applied():
    image = Image.fromarray(picture(0, 3, 5))
    exif = Image.Exif()
    exif[274] = 6  # to be turned clockwise for display
    upright = np.asarray(image.transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(decoded(saved(image, exif=exif))[0], upright)


@pytest.mark.parametrize(("height", "width"), [(218, 178), (109, 89)])
def test_faces_become_64_by_78_and_lose_rows_above_and_below(height, width):
    values = picture(0, height, width, 3)
    whole = Image.fromarray(values).resize((64, 78), Image.Resampling.BICUBIC)
    assert np.array_equal(decoded(encode(values), size=64), np.asarray(whole)[7:71].transpose(2, 0, 1))


def test_a_square_of_the_right_size_is_left_alone_and_a_smaller_one_grows():
    assert np.array_equal(decoded(encode(picture(0)), size=6)[0], picture(0))
    assert decoded(encode(picture(0, 3, 9)), size=6).shape == (1, 6, 6)


def test_every_damaged_byte_is_an_image_or_a_data_error():
    # Nothing but DataError may come out of bytes that are not what they seem: 400 damages of each format.
    rng = np.random.default_rng(0)
    failures = 0
    for kind in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP"):
        whole = np.frombuffer(encode(picture(0, 9, 9, 3), kind), np.uint8)
        for _ in range(400):
            damaged = whole.copy()
            damaged[rng.integers(len(whole), size=3)] = rng.integers(256, size=3)
            try:
                decoded(damaged.tobytes())
            except DataError:
                failures += 1
    assert failures > 400


@pytest.mark.parametrize(("height", "width", "size"), [(6, 6, None), (20, 1, 4)])
def test_images_too_large_are_refused(monkeypatch, height, width, size):
    # The second one fits as it is, and would be 4×80 when its shorter side is 4.
    monkeypatch.setattr(decode, "_MAX_PIXELS", 30)
    with pytest.raises(DataError, match=r"too many pixels, x.png .*; at most 30"):
        decoded(encode(picture(0, height, width)), size)


def test_a_decompression_bomb_is_refused():
    header = saved(Image.new("1", (20_000, 20_000)))
    with pytest.raises(DataError, match=r"too many pixels, x.png"):
        decoded(header)


def test_values_beyond_16_bits_are_refused():
    for values in (np.array([[70_000]], np.int32), np.array([[0.5]], np.float32)):
        with pytest.raises(DataError, match=r"x.png; expected 8 or 16"):
            decoded(encode(values, "TIFF"))
