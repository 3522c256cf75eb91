"""Bits, palettes, transparency, orientation, pages: right, or refused by name."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from walkback.errors import DataError
from walkback_hf import decode
from walkback_hf.decode import Layout
from walkback_hf.encoded import EncodedImage
from walkback_hf.sources import Folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALKBACK_CACHE", str(tmp_path / "cache"))


def saved(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decoded(data: bytes, **options: object) -> np.ndarray:
    image = EncodedImage("x", data)
    return decode.decode(image, decode.find_layout(image, None, **{"grayscale": None, **options}))  # type: ignore[arg-type]


def png(depth: int, colour: int, rows: bytes, size: tuple[int, int], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG written by hand, of depths and chunks that Pillow does not write; `rows` are packed samples."""
    stride = len(rows) // size[1]
    lines = b"".join(b"\0" + rows[y * stride : (y + 1) * stride] for y in range(size[1]))
    head = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


# Depth


def folder_of(root: Path, images: list[np.ndarray], kind: str) -> Path:
    root.mkdir()
    for number, values in enumerate(images):
        (root / f"{number:02}.{kind.lower()}").write_bytes(saved(Image.fromarray(values), kind))
    return root


def prepared(root: Path, **options: object) -> Folder:
    data = Folder(path=str(root), **options)  # type: ignore[arg-type]
    data.prepare()
    return data


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_depth_of_a_folder_is_that_of_its_largest_value(tmp_path: Path, bits: int, kind: str) -> None:
    """Every value v of b bits becomes the whole number that is nearest to 255 v / (2^b - 1), and 256 levels remain."""
    top = (1 << bits) - 1
    values = np.linspace(0, top, 1600).round().astype(np.uint16).reshape(16, 10, 10)
    dark = [np.minimum(image, top // 20) for image in values[:8]]  # no image tells its own depth
    data = prepared(folder_of(tmp_path / "a", [*dark, *values], kind))
    found = np.concatenate([data.examples(split).numpy() for split in ("train", "validation", "test")])
    exact = np.concatenate([dark, values]).astype(np.float64) * 255 / top
    nearest = {image.tobytes() for image in np.floor(exact + 0.5).astype(np.uint8)[:, None]}
    assert {image.tobytes() for image in found} == nearest
    assert len(np.unique(found)) == 256
    told = [step for step in data.info.preprocessing if "16 bits" in step]
    assert told == ([] if bits == 16 else [f"files of 16 bits hold {bits}: v · 255 / {top:,}"])


def test_the_depth_is_part_of_what_the_cache_is_found_by(tmp_path: Path) -> None:
    """The same training images with other test images: brighter ones mean that all are of 16 bits."""
    rng = np.random.default_rng(0)
    same = [rng.integers(0, 4096, (6, 6)).astype(np.uint16) for _ in range(20)]
    for name, top in (("a", 4095), ("b", 65535)):
        folder_of(tmp_path / name, [], "TIFF")
        for split, images in (("train", same), ("test", [np.full((6, 6), top, np.uint16)] * 2)):
            folder_of(tmp_path / name / split, images, "TIFF")
    deep, full = prepared(tmp_path / "a"), prepared(tmp_path / "b")
    assert deep.examples("train").max() > 250
    assert full.examples("train").max() == 16
    assert deep.info.fingerprint != full.info.fingerprint


def test_old_rules_do_not_answer_for_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout("L", convert=False, size=None)
    before = layout.key
    monkeypatch.setattr(decode, "_RULES", decode._RULES + 1)
    assert layout.key != before
    assert layout.key != Layout("L", convert=False, size=None, bits=12).key


def test_twelve_packed_bits_are_twelve(tmp_path: Path) -> None:
    """A TIFF that says 12 bits, two values in three bytes, as Pillow reads but does not write."""
    values = [0, 1, 2047, 4095]
    packed = b"".join(
        bytes((a >> 4, (a & 15) << 4 | b >> 8, b & 255))
        for a, b in zip(values[::2], values[1::2], strict=True)
    )
    entries = {256: 4, 257: 1, 258: 12, 259: 1, 262: 1, 273: 0, 277: 1, 278: 1, 279: len(packed)}
    offset = 8 + 2 + 12 * len(entries) + 4
    body = b"".join(
        struct.pack("<HHII", tag, 4, 1, offset if tag == 273 else v) for tag, v in entries.items()
    )
    tiff = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries)) + body + bytes(4) + packed
    (tmp_path / "a").mkdir()
    for number in range(6):
        (tmp_path / "a" / f"{number}.tif").write_bytes(tiff)
    assert prepared(tmp_path / "a").examples("test").tolist() == [[[[0, 0, 127, 255]]]]


def test_pgm_says_its_largest_value(tmp_path: Path) -> None:
    """So dark pictures of 10 bits are dark."""
    (tmp_path / "a").mkdir()
    for number in range(6):
        values = np.array([0, 1, 300, 341], ">u2")
        (tmp_path / "a" / f"{number}.pgm").write_bytes(b"P5 4 1 1023\n" + values.tobytes())
    assert prepared(tmp_path / "a").examples("test").tolist() == [[[[0, 0, 75, 85]]]]


@pytest.mark.parametrize("colour", [2, 4, 6])
def test_colours_of_16_bits_are_their_upper_8_and_refused_where_those_are_empty(
    tmp_path: Path, colour: int
) -> None:
    samples = {2: 3, 4: 2, 6: 4}[colour]
    values = np.full((2, samples), 0x1234, ">u2")
    values[1, : samples - (colour != 2)] = 65535
    if colour != 2:
        values[:, -1] = 65535
    (tmp_path / "a").mkdir()
    for number in range(6):
        (tmp_path / "a" / f"{number}.png").write_bytes(png(16, colour, values.tobytes(), (2, 1)))
    channels = 1 if colour == 4 else 3
    assert prepared(tmp_path / "a").examples("test").tolist() == [[[[0x12, 255]]] * channels]
    values[1, : samples - (colour != 2)] = 4095
    for number in range(6):
        (tmp_path / "a" / f"{number}.png").write_bytes(png(16, colour, values.tobytes(), (2, 1)))
    with pytest.raises(DataError, match=r"color images of 16 bits that use fewer than 14, such as 0.png"):
        prepared(tmp_path / "a")


def test_16_bit_greys_that_count_down_from_white_are_refused() -> None:
    data = saved(Image.fromarray(np.full((2, 2), 40_000, np.uint16)), "TIFF", tiffinfo={262: 0})
    with pytest.raises(DataError, match=r"16-bit image whose 0 is white, x; invert it"):
        decoded(data)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_few_bits_are_spread_over_all_grey_levels(depth: int) -> None:
    top = (1 << depth) - 1
    packed = sum(value << (8 - depth * (place + 1)) for place, value in enumerate((0, top)))
    assert decoded(png(depth, 0, bytes((packed,)), (2, 1))).tolist() == [[[0, 255]]]


# Masks


@pytest.mark.parametrize(
    ("options", "states", "bins"),
    [
        ({"binarize": "threshold"}, {0.0, 1.0}, None),
        ({"binarize": "stochastic"}, {0.0, 1.0}, None),
        ({"dequantize": False}, {0.0, 1.0}, None),
        ({}, None, 2),
    ],
)
def test_masks_of_0_and_1_have_two_levels(
    tmp_path: Path, options: dict[str, object], states: set[float] | None, bins: int | None
) -> None:
    import torch

    rng = np.random.default_rng(0)
    masks = [(rng.random((8, 8)) > 0.5).astype(np.uint8) for _ in range(20)]
    data = prepared(folder_of(tmp_path / "a", masks, "PNG"), **options)
    rows = data.examples("train")
    drawn = data.states(rows, torch.Generator().manual_seed(0))
    assert data.info.bins == bins
    if states is None:
        assert torch.equal((drawn * 2).floor(), rows.float())
    else:
        assert set(drawn.unique().tolist()) == states
        assert torch.equal(drawn, rows.float())


@pytest.mark.parametrize(("low", "high", "word"), [(0, 3, "all 0"), (130, 140, "all 1")])
def test_a_threshold_that_makes_all_pixels_the_same_is_refused(
    tmp_path: Path, low: int, high: int, word: str
) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(low, high + 1, (8, 8)).astype(np.uint8) for _ in range(20)]
    root = folder_of(tmp_path / "a", images, "PNG")
    with pytest.raises(
        DataError, match=rf"gray levels from {low} to {high} in a, .* makes {word} \(1 where v >= 128"
    ):
        prepared(root, binarize="threshold")
    if high == 3:
        with pytest.raises(DataError, match=r"'stochastic' makes 0 almost everywhere .* rescale the images"):
            prepared(root, binarize="stochastic")
    else:
        assert prepared(root, binarize="stochastic").info.support == "binary"


# Palettes


def palette(colours: list[tuple[int, int, int]], **options: object) -> bytes:
    image = Image.new("P", (len(colours), 1))
    image.putpalette([value for colour in colours for value in colour])
    image.putdata(range(len(colours)))
    return saved(image, str(options.pop("kind", "PNG")), **options)


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "BMP"])
def test_a_palette_of_greys_is_grey(kind: str) -> None:
    assert decoded(palette([(7, 7, 7), (9, 9, 9), (200, 200, 200)], kind=kind)).tolist() == [[[7, 9, 200]]]
    assert decoded(palette([(7, 7, 7), (9, 9, 8)], kind=kind)).shape == (3, 1, 2)


def test_only_colours_in_use_count() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([5, 5, 5, 1, 2, 3])
    assert decoded(saved(image)).tolist() == [[[5, 5]]]


def test_colourless_files_of_any_mode_fit_into_a_grey_folder() -> None:
    grey = Layout("L", convert=False, size=None)
    rgb = Image.fromarray(np.repeat(np.array([[[3], [250]]], np.uint8), 3, axis=2))
    for data in (
        saved(rgb),
        palette([(3, 3, 3), (250, 250, 250)]),
        saved(rgb.convert("RGBA")),
        saved(rgb.convert("LA")),
    ):
        assert decode.decode(EncodedImage("x", data), grey).tolist() == [[[3, 250]]]
    with pytest.raises(DataError, match="in color, x, where the first one is gray"):
        decode.decode(EncodedImage("x", palette([(3, 3, 3), (1, 2, 3)])), grey)


# Transparency


def test_the_transparent_grey_of_16_bits_is_white() -> None:
    values = np.array([0, 257 * 5, 65535], ">u2").tobytes()
    assert decoded(png(16, 0, values, (3, 1), (b"tRNS", struct.pack(">H", 257 * 5)))).tolist() == [
        [[0, 255, 255]]
    ]
    assert decoded(png(16, 0, values, (3, 1), (b"tRNS", b"\0\0"))).tolist() == [[[255, 5, 255]]]


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_the_transparent_grey_of_fewer_bits_is_white(depth: int) -> None:
    packed = 1 << (8 - 2 * depth) if depth < 8 else 1
    rows = bytes((packed,)) if depth < 8 else b"\0\1"
    assert decoded(png(depth, 0, rows, (2, 1), (b"tRNS", b"\0\1"))).tolist() == [[[0, 255]]]
    assert decoded(png(depth, 0, rows, (2, 1), (b"tRNS", b"\0\0")))[0, 0, 0] == 255


def test_a_transparent_colour_is_white_and_refused_at_16_bits() -> None:
    rows = bytes((1, 2, 3, 4, 5, 6))
    clear = (b"tRNS", struct.pack(">HHH", 1, 2, 3))
    assert decoded(png(8, 2, rows, (2, 1), clear))[:, 0].T.tolist() == [[255] * 3, [4, 5, 6]]
    with pytest.raises(DataError, match="16-bit image with a transparent color, x"):
        decoded(png(16, 2, bytes(12), (2, 1), clear))


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "deep"),
    [("PNG", False), ("PNG", True), ("TIFF", False), ("TIFF", True), ("JPEG", False), ("WEBP", False)],
)
def test_every_orientation_is_undone(kind: str, deep: bool, orientation: int) -> None:
    """From the meaning of the eight: where row 0 and column 0 of the file are to be seen."""
    values = np.zeros((16, 32), np.uint16 if deep else np.uint8)
    values[:8, :16], values[:8, 16:], values[8:, :16] = 40, 120, 200
    turned = {
        1: values, 2: values[:, ::-1], 3: values[::-1, ::-1], 4: values[::-1],
        5: values.T, 6: values.T[:, ::-1], 7: values.T[::-1, ::-1], 8: values.T[::-1],
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[274] = orientation
    options: dict[str, object] = {"tiffinfo": {274: orientation}} if kind == "TIFF" else {"exif": exif}
    if kind in ("JPEG", "WEBP"):
        options |= {"quality": 100}
    found = decoded(saved(Image.fromarray(values * (257 if deep else 1)), kind, **options), grayscale=True)
    assert found.shape[1:] == turned.shape
    assert np.abs(found[0].astype(int) - turned).max() <= 6


# Pages and frames


@pytest.mark.parametrize("kind", ["TIFF", "GIF", "PNG", "WEBP"])
def test_several_pages_or_frames_are_refused_by_name(kind: str) -> None:
    frames = [Image.fromarray(np.full((9, 9), 40 * number, np.uint8)) for number in range(4)]
    data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match=r"several pages or frames, x \(4\); expected one a file: save each"):
        decoded(data)
    assert decoded(saved(frames[1], kind), grayscale=True).max() == 40


def test_the_previews_of_a_camera_are_no_pages() -> None:
    frames = [Image.fromarray(np.full((16, 16), value, np.uint8)) for value in (40, 200)]
    data = saved(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert np.abs(decoded(data).astype(int) - 40).max() <= 2
