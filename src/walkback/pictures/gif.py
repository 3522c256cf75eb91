"""Animated GIF files, encoded frame by frame, because Pillow needs all frames in memory.

header | comment | frame | frame | … | trailer
"""

from __future__ import annotations

import struct
from io import BytesIO

from walkback.errors import WalkbackError
from walkback.pictures.images import Picture, as_image

GIF_TRAILER = b";"

_LOCAL_COLOURS = 0b1000_0000  # the flag of a frame that has its own table of colours
_FOREVER = b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0"


def gif_header(picture: Picture) -> bytes:
    """What stands before the frames of a film that is repeated for ever, all of the size of `picture`.

    Raises:
        WalkbackError: The frames are too large for the format.
    """
    height, width, _ = picture.shape
    if max(height, width) >= 2**16:
        raise WalkbackError(
            f"Got frames of {width} × {height} pixels, too large for a .gif; draw fewer chains."
        )
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0, 0, 0) + _FOREVER


def gif_comment(text: str) -> bytes:
    """A comment in UTF-8: blocks of at most 255 bytes, each after its length, and an empty one."""
    data = text.encode()
    parts = [data[start : start + 255] for start in range(0, len(data), 255)]
    return b"!\xfe" + b"".join(bytes([len(part)]) + part for part in parts) + b"\0"


def gif_frame(picture: Picture, milliseconds: int = 100) -> bytes:
    """One frame with its own colours, 256 at most.

    Taken from a film of this frame alone, which holds: header (13 bytes, of which the eleventh says how many
    colours there are), colours, timing (8 bytes), frame header (10 bytes, the last one flags), pixels, end.
    """
    buffer = BytesIO()
    as_image(picture).save(buffer, "gif", duration=milliseconds, interlace=0)
    film = buffer.getvalue()
    size_code = film[10] & 0b111
    end = 13 + 3 * 2 ** (size_code + 1)
    colours, timing_and_frame, pixels = film[13:end], film[end : end + 17], film[end + 18 : -1]
    return timing_and_frame + bytes([_LOCAL_COLOURS | size_code]) + colours + pixels
