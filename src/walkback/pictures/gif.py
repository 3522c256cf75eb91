"""Animated GIF files, encoded frame by frame.

    header | comment | frame | frame | … | trailer

Pillow writes films as well (`save_all=True`), but holds all frames in memory until the last one is known (983 MiB for
2,000 frames of 64 images of 28×28 pixels, 10 MiB here) and merges equal frames. So Pillow encodes the pixels of each
frame, and the blocks around them are written here (docs/decisions/0018-pictures-need-pillow.md).
"""

from __future__ import annotations

import struct
from io import BytesIO

from walkback.errors import WalkbackError
from walkback.pictures.images import Picture, as_image

GIF_TRAILER = b";"

_LOCAL_COLORS = 0b1000_0000  # the flag of a frame that has its own color table
_FOREVER = b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"


def gif_header(picture: Picture) -> bytes:
    """Return what precedes the frames of a film that repeats forever; all frames have the size of `picture`.

    Raises:
        WalkbackError: The frames are too large for the format.
    """
    height, width, _ = picture.shape
    if max(height, width) >= 2**16:
        raise WalkbackError(
            f"Frames of {width} × {height} pixels are too large for a .gif file: draw fewer chains."
        )
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + _FOREVER


def gif_comment(text: str) -> bytes:
    """Return a comment in UTF-8: blocks of at most 255 bytes, each preceded by its length, and an empty one."""
    data = text.encode()
    parts = [data[start : start + 255] for start in range(0, len(data), 255)]
    return b"!\xfe" + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def gif_frame(picture: Picture, milliseconds: int = 100) -> bytes:
    """Return one frame with its own color table of at most 256 colors.

    The frame is cut out of a film of this frame alone, which consists of the header (13 bytes; the eleventh holds the
    size of the color table), the color table, timing (8 bytes), frame header (10 bytes; the last one holds flags),
    pixels and the trailer.
    """
    buffer = BytesIO()
    as_image(picture).save(buffer, "gif", duration=milliseconds, interlace=0)
    film = buffer.getvalue()
    # Move the color table from the film to the frame: the header has been written, and each frame needs its own colors.
    size_code = film[10] & 0b111
    end = 13 + 3 * 2 ** (size_code + 1)
    colors, timing_and_frame, pixels = film[13:end], film[end : end + 17], film[end + 18 : -1]
    return timing_and_frame + bytes([_LOCAL_COLORS | size_code]) + colors + pixels
