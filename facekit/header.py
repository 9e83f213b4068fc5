"""What a file says of the picture in it, before memory is spent on decoding: its format and its size."""

from __future__ import annotations

import struct
from collections.abc import Callable

MOST_PIXELS = 2**28
"""Larger pictures are refused: 16,384 x 16,384 pixels take 800 MB decoded. Cameras make at most 200 million."""

HEIC, NOT_A_PICTURE, TRUNCATED, TOO_LARGE = "heic", "not_a_picture", "truncated", "too_large"

_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_WIDTH, _HEIGHT = 256, 257


def problem(data: bytes) -> str:
    """Why bytes are not to be decoded, in words; "" where they may be.

    A file of a few kilobytes can declare billions of pixels, and a decoder makes room for them at once.
    """
    kind = problem_kind(data)
    if kind == HEIC:
        return "is a HEIC or AVIF picture; save it as JPEG first"
    if kind == TOO_LARGE:
        width, height = declared_size(data)
        return f"declares {width} x {height} pixels, more than {MOST_PIXELS:,}"
    return "is truncated or not a picture" if kind else ""


def problem_kind(data: bytes) -> str:
    """The same in a word: "heic", "not_a_picture", "truncated", "too_large"; "" where bytes may be decoded."""
    if data[4:8] == b"ftyp" and data[8:11] in (b"hei", b"hev", b"mif", b"msf", b"avi"):
        # OpenCV's builds differ in what they can do, and none turns such a picture upright.
        return HEIC
    if not any(matches(data) for matches, _ in _FORMATS):
        return NOT_A_PICTURE
    try:
        width, height = declared_size(data)
    except (struct.error, ValueError, IndexError):
        return TRUNCATED
    return TOO_LARGE if width * height > MOST_PIXELS else ""


def declared_size(data: bytes) -> tuple[int, int]:
    """Width and height in pixels that a JPEG, PNG, WebP, BMP, TIFF or GIF file declares, as it is stored.

    Raises:
        ValueError, struct.error, IndexError: another format, or the header is cut.
    """
    for matches, size in _FORMATS:
        if matches(data):
            return size(data)
    raise ValueError("not a picture")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    place = 2
    while True:
        place = data.index(b"\xff", place)  # some writers leave bytes between segments, which decoders pass over
        marker = data[place + 1]
        if marker in _START_OF_FRAME:
            height, width = struct.unpack_from(">HH", data, place + 5)
            return width, height
        if marker == 0xFF:
            place += 1
        elif marker < 0xC0 or 0xD0 <= marker <= 0xD8:
            place += 2  # has no length
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")


def _png_size(data: bytes) -> tuple[int, int]:
    return struct.unpack_from(">II", data, 16)


def _bmp_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)


def _gif_size(data: bytes) -> tuple[int, int]:
    return struct.unpack_from("<HH", data, 6)


def _webp_size(data: bytes) -> tuple[int, int]:
    if data[12:16] == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if data[12:16] == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _tiff_size(data: bytes) -> tuple[int, int]:
    """Of the first page, whose directory lists the tags."""
    order = "<" if data[:2] == b"II" else ">"
    (place,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, place)
    found = {}
    for start in range(place + 2, place + 2 + 12 * count, 12):
        tag, kind = struct.unpack_from(order + "HH", data, start)
        if tag in (_WIDTH, _HEIGHT):
            (found[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, start + 8)
    if len(found) < 2:
        raise ValueError("no size")
    return found[_WIDTH], found[_HEIGHT]


_FORMATS: tuple[tuple[Callable[[bytes], bool], Callable[[bytes], tuple[int, int]]], ...] = (
    (lambda data: data[:3] == b"\xff\xd8\xff", _jpeg_size),
    (lambda data: data[:8] == b"\x89PNG\r\n\x1a\n", _png_size),
    (lambda data: data[:4] == b"RIFF" and data[8:12] == b"WEBP", _webp_size),
    (lambda data: data[:2] == b"BM", _bmp_size),
    (lambda data: data[:4] in (b"II*\0", b"MM\0*"), _tiff_size),
    (lambda data: data[:4] == b"GIF8", _gif_size),
)
