"""Pictures from files and back: one decoder for training, cropping and inference, so that pixels agree."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit import header
from facekit.files import write_bytes

Image = NDArray[np.uint8]
"""(H, W, 3) uint8, RGB, upright."""

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})
"""What counts as a picture in a folder, in lower case."""


MOST_BYTES = 2**29
"""Larger files are refused. An uncompressed picture of 100 million pixels takes 300 MB."""

OPENCV_FILLS_CUT_JPEGS = int(cv2.__version__.split(".")[0]) < 5
"""OpenCV 4 gives the missing part of a truncated JPEG in grey, without a word; OpenCV 5 refuses it."""


class UnreadableImageError(ValueError):
    """A file that cannot be decoded whole; the message names it and says why."""


def is_picture(path: Path | str) -> bool:
    """Whether the name looks like a picture's: a known suffix, and not hidden."""
    name = os.path.basename(path)
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")


def read_image(path: Path) -> Image:
    """Decode a file to upright RGB.

    EXIF rotation is applied; grey, CMYK, 16-bit and palette pictures become 8-bit RGB; alpha is dropped; of several
    pages or frames the first is taken. The content counts, not the name's suffix. The accurate DCT is used, so a
    JPEG gives the same pixels as PIL bit for bit. Bytes are read first and decoded after, since OpenCV cannot open
    every non-ASCII path.

    Args:
        path: a JPEG, PNG, WebP, BMP, TIFF or GIF file.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        UnreadableImageError: missing, not permitted, no file, empty, truncated, too large, or no picture.
    """
    return decoded(_read_bytes(path), str(path))


def _read_bytes(path: Path) -> bytes:
    """A file's bytes; errors as in `read_image`."""
    try:
        status = path.stat()
        # A pipe would never end, a device such as /dev/zero neither. A folder's own error says what it is.
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise UnreadableImageError(f"{path}: is a pipe, a device or a socket, not a file.")
        if status.st_size > MOST_BYTES:
            raise UnreadableImageError(f"{path}: is larger than {MOST_BYTES:,} bytes, too large for a picture.")
        data = path.read_bytes()
    except OSError as error:
        raise UnreadableImageError(f"{path}: cannot be read ({error.strerror}).") from None
    return data


def decoded(data: bytes, name: str) -> Image:
    """A file's bytes as `read_image` gives them, (H, W, 3) uint8 RGB.

    Raises:
        UnreadableImageError: empty, truncated, too large or no picture; the message begins with `name`.
    """
    if not data:
        raise UnreadableImageError(f"{name}: is empty.")
    if reason := header.problem(data):
        raise UnreadableImageError(f"{name}: {reason}.")
    try:
        image = _decode(data)
    except cv2.error as error:  # for example more pixels than OpenCV admits
        raise UnreadableImageError(f"{name}: cannot be decoded ({error.err}).") from None
    if image is None:
        raise UnreadableImageError(f"{name}: is truncated or not a picture.")
    return image


def decode(data: bytes) -> Image | None:
    """An encoded picture as (H, W, 3) uint8 RGB; None where it is truncated, no picture, or too large for one."""
    if header.problem(data):
        return None
    return _decode(data)


def _decode(data: bytes) -> Image | None:
    if OPENCV_FILLS_CUT_JPEGS and data[:2] == b"\xff\xd8" and not is_whole_jpeg(data):
        return None
    image: Image | None = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    return image


def encode_jpeg(image: Image, quality: int = 95) -> bytes:
    """JPEG bytes of an (H, W, 3) uint8 RGB image; quality 1 to 100."""
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality]
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), parameters)
    if not ok:
        raise ValueError(f"An image of shape {image.shape} could not be encoded as JPEG.")
    return data.tobytes()


def write_jpeg(path: Path, image: Image, quality: int = 95) -> None:
    """Write an (H, W, 3) uint8 RGB image as JPEG, whole or not at all."""
    write_bytes(path, encode_jpeg(image, quality))


def is_whole_jpeg(data: bytes) -> bool:
    """Whether a JPEG's last scan is followed by the end-of-image marker (a thumbnail's own comes before it)."""
    return data.rfind(b"\xff\xd9") > data.rfind(b"\xff\xda") >= 0


def as_stored(image: Image, quality: int) -> Image:
    """What is read back after `write_jpeg`: the same loss, without a file."""
    stored = decode(encode_jpeg(image, quality))
    if stored is None:
        raise ValueError(f"An image of shape {image.shape} did not survive JPEG.")
    return stored


def write_png(path: Path, image: Image) -> None:
    """Write an (H, W, 3) uint8 RGB image as PNG, whole or not at all."""
    ok, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not ok:
        raise ValueError(f"An image of shape {image.shape} could not be encoded as PNG.")
    write_bytes(path, data.tobytes())


def limit_side(image: Image, longest: int) -> tuple[Image, float]:
    """Scale an image down, by area, so that no side exceeds `longest` pixels.

    Returns:
        The image (the same object where it fits already) and the factor it was scaled by, at most 1.
    """
    height, width = image.shape[:2]
    scale = longest / max(height, width)
    if scale >= 1:
        return image, 1.0
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def resize_square(image: Image, size: int) -> Image:
    """Resize to (size, size, 3): by area on the way down, which doesn't alias, linearly on the way up."""
    height, width = image.shape[:2]
    if (height, width) == (size, size):
        return image
    shrink = size <= min(height, width)
    return cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)


def read_square(path: Path, size: int) -> Image:
    """A file as the network's (size, size, 3) uint8 RGB input. Errors as in `read_image`."""
    return resize_square(read_image(path), size)
