"""One look at every file of a folder: whether it is a whole picture, and what the checks need to know of it."""

from __future__ import annotations

import base64
import binascii
import csv
import errno
import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from facekit.files import stamp, write_bytes
from facekit.header import TOO_LARGE, TRUNCATED, problem_kind
from facekit.images import MOST_BYTES, Image, decode
from facekit.perceptual_hash import THUMBNAIL, thumbnail
from facekit.quality import PIXELS, measure
from facekit.tables import csv_bytes

NOT_PERMITTED, UNREADABLE, EMPTY = "not_permitted", "unreadable", "empty"

COLUMNS = ("path", "bytes", "modified_ns", "problem", "width", "height", "digest", *PIXELS, "thumbnail")


@dataclass(frozen=True, slots=True)
class Examined:
    """What was seen of one file.

    Attributes:
        path: the file, relative to the folder, "/" between parts.
        size: its bytes.
        modified_ns: its time of change, by which a changed file is known.
        problem: why it is no picture to learn from: "not_permitted", "unreadable", "empty", or a word of
            `facekit.header.problem_kind`; "" for a whole picture, of which alone the rest is known.
        width: pixels, upright.
        height: pixels.
        digest: 128 bits of the file's SHA-256, as hexadecimal digits: equal files have the same.
        pixels: the figures `facekit.quality.PIXELS`, in that order.
        thumbnail: 256 grey values, 16 rows of 16.
    """

    path: str
    size: int
    modified_ns: int
    problem: str
    width: int = 0
    height: int = 0
    digest: str = ""
    pixels: tuple[float, ...] = ()
    thumbnail: bytes = b""

    def cells(self) -> list[str]:
        """The row as text, in the order of `COLUMNS`."""
        pixels = [f"{value:.5f}" for value in self.pixels] or [""] * len(PIXELS)
        small = base64.b64encode(self.thumbnail).decode("ascii")
        stamped = [self.path, str(self.size), str(self.modified_ns), self.problem]
        return [*stamped, str(self.width), str(self.height), self.digest, *pixels, small]

    @classmethod
    def from_cells(cls, cells: Sequence[str]) -> Examined:
        """The row that `cells` wrote. Raises ValueError where the text is not such a row."""
        if len(cells) != len(COLUMNS):
            raise ValueError(f"expected {len(COLUMNS)} cells, found {len(cells)}")
        path, size, modified, problem, width, height, digest, *pixels, small = cells
        seen = base64.b64decode(small, validate=True)
        if not problem and len(seen) != THUMBNAIL**2:
            raise ValueError("the thumbnail is cut")
        figures = tuple(float(value) for value in pixels if value)
        return cls(path, int(size), int(modified), problem, int(width), int(height), digest, figures, seen)


def examine(root: Path, name: str) -> Examined:
    """Read and decode one file, whole, once. Never raises for what a file may hold."""
    size, modified = stamp(root / name)
    try:
        if not (root / name).is_file():  # a pipe would never end
            return Examined(name, size, modified, UNREADABLE)
        if size > MOST_BYTES:
            return Examined(name, size, modified, TOO_LARGE)
        data = (root / name).read_bytes()
    except OSError as error:
        denied = error.errno in (errno.EACCES, errno.EPERM)
        return Examined(name, size, modified, NOT_PERMITTED if denied else UNREADABLE)
    problem, image = _decoded(data)
    if image is None:
        return Examined(name, size, modified, problem)
    height, width = image.shape[:2]
    quality = measure(image)
    figures = tuple(float(getattr(quality, figure)) for figure in PIXELS)
    digest = hashlib.sha256(data).hexdigest()[:32]
    return Examined(name, size, modified, "", width, height, digest, figures, thumbnail(image).tobytes())


def _decoded(data: bytes) -> tuple[str, Image | None]:
    """A file's picture; or what is wrong with it, and None."""
    if not data:
        return EMPTY, None
    if kind := problem_kind(data):
        return kind, None
    try:
        image = decode(data)
    except cv2.error:  # for example more pixels than OpenCV admits
        return UNREADABLE, None
    return ("", image) if image is not None else (TRUNCATED, None)


def examine_pictures(names: Sequence[str], root: Path) -> list[Examined]:
    """Examine some files of a folder: one shard of the work."""
    return [examine(root, name) for name in names]


def use_one_thread() -> None:
    """Prepare a worker: many processes with many threads each would be in each other's way."""
    cv2.setNumThreads(1)


def append_rows(path: Path, rows: Sequence[Examined]) -> None:
    """Add rows to a record, in one write."""
    header = b"" if path.exists() else csv_bytes([COLUMNS])
    with path.open("ab") as file:
        file.write(header + csv_bytes(row.cells() for row in rows))


def rewrite(path: Path, rows: Iterable[Examined]) -> None:
    """Write a record anew, sorted by path, whole or not at all."""
    ordered = sorted(rows, key=lambda row: row.path)
    write_bytes(path, csv_bytes([COLUMNS, *(row.cells() for row in ordered)]))


def read_rows(path: Path) -> dict[str, Examined]:
    """Rows of a record by path; the last one where a file has several. Without a record: {}.

    A row cut short by a killed run is passed over: its file is simply examined again.
    """
    rows: dict[str, Examined] = {}
    if not path.exists():
        return rows
    # A byte that a torn write left must not end the run.
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        for cells in csv.reader(line.replace("\0", "") for line in file):
            try:
                row = Examined.from_cells(cells)
            except (ValueError, binascii.Error):
                continue
            rows[row.path] = row
    return rows


def is_current(row: Examined | None, root: Path, name: str) -> bool:
    """Whether a row still tells of the file as it is."""
    return row is not None and (row.size, row.modified_ns) == stamp(root / name)


def thumbnails_of(rows: Sequence[Examined]) -> np.ndarray:
    """The thumbnails of whole pictures, (n, 16, 16) uint8."""
    data = b"".join(row.thumbnail for row in rows)
    return np.frombuffer(data, np.uint8).reshape(len(rows), THUMBNAIL, THUMBNAIL)
