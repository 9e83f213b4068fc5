"""Decoded pictures kept in one array, in memory or in a file that the next run finds again."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekit.files import write_text, written_aside
from facekit.images import Image
from facekit.index import PeopleIndex

PICTURES, SUMS, MARKER = "pictures.u8", "sums.u4", "cache.json"
_VERSION = 1
_GB = 10**9


class MemoryCache:
    """Decoded pictures in memory, for one run.

    Args:
        count: pictures of the index.
        size: side of a picture in pixels.
        limit_gb: most that the pictures may take, in 10^9 bytes.

    Raises:
        ValueError: they take more than the limit, or than the memory that is free.
    """

    def __init__(self, count: int, size: int, limit_gb: float):
        _check_room(count, size, limit_gb, free_memory(), "memory")
        # Memory is taken as it is written: pictures that no batch shows take none.
        self._pictures = np.empty((count, size, size, 3), np.uint8)
        self._kept = np.zeros(count, bool)

    def get(self, position: int) -> Image | None:
        """The picture of a position in the index, if it is kept; a view, not to be changed."""
        return self._pictures[position] if self._kept[position] else None

    def put(self, position: int, image: Image) -> None:
        """Keep a picture."""
        self._pictures[position] = image
        self._kept[position] = True


class FileCache:
    """Decoded pictures in a file, for this run and later ones.

    Beside the pictures stands a checksum of each, which counts its file's size and time of change in: a picture
    whose writing was cut short, by a crash or by the machine's, and one whose file has changed since, does not
    match, and is decoded again. Two runs may use one folder: of one index they write the same.

    Args:
        folder: where the files go. Files of another index or size there are replaced.
        index: the pictures.
        size: side of a picture in pixels.
        limit_gb: most that the pictures may take, in 10^9 bytes.
        stamps: (n, 2) int64, size and time of change of each picture's file; see `file_stamps`.

    Raises:
        ValueError: they take more than the limit, or than is free on the disk.
        OSError: the folder cannot be written.
    """

    def __init__(self, folder: Path, index: PeopleIndex, size: int, limit_gb: float, stamps: NDArray[np.int64]):
        count = len(index)
        marker = {"version": _VERSION, "pictures": count, "size": size, "index": index.digest}
        folder.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(folder):
            if not _is_ours(folder, marker):
                # Removed, not written over: a run that still uses the old files keeps them until it ends.
                for name in (MARKER, PICTURES, SUMS):
                    (folder / name).unlink(missing_ok=True)
                _check_room(count, size, limit_gb, shutil.disk_usage(folder).free, "file")
                _reserve(folder / PICTURES, count * size * size * 3)
                _reserve(folder / SUMS, count * 4)
                write_text(folder / MARKER, json.dumps(marker, indent=2) + "\n")
            self._pictures = np.memmap(folder / PICTURES, np.uint8, "r+", shape=(count, size, size, 3))
            self._sums = np.memmap(folder / SUMS, np.uint32, "r+", shape=(count,))
        self._stamps = np.ascontiguousarray(stamps)
        self._checked = np.zeros(count, bool)

    def get(self, position: int) -> Image | None:
        """The picture of a position in the index, if it is kept; a view, not to be changed."""
        picture: Image = self._pictures[position]
        if not self._checked[position]:
            found = self._sums[position]
            if not found or found != self._sum(position, picture):
                return None
            self._checked[position] = True
        return picture

    def put(self, position: int, image: Image) -> None:
        """Keep a picture."""
        self._pictures[position] = image
        self._sums[position] = self._sum(position, image)
        self._checked[position] = True

    def _sum(self, position: int, image: Image) -> int:
        """A checksum, never 0: that stands for no picture."""
        return zlib.crc32(np.ascontiguousarray(image).data, zlib.crc32(self._stamps[position].tobytes())) or 1


def file_stamps(index: PeopleIndex) -> NDArray[np.int64]:
    """(n, 2) int64: size in bytes and time of change in ns of each picture's file; -1 where it cannot be seen."""
    stamps = np.full((len(index), 2), -1, np.int64)
    for row, path in zip(stamps, index.paths, strict=True):
        try:
            seen = os.stat(f"{index.root}/{path}")
        except OSError:
            continue
        row[:] = seen.st_size, seen.st_mtime_ns
    return stamps


def free_memory() -> int | None:
    """Bytes of memory that may still be used without swapping; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")), None)


def _check_room(count: int, size: int, limit_gb: float, free: int | None, kind: str) -> None:
    wanted = count * size * size * 3
    what = f"{count:,} decoded pictures of {size} px take {wanted / _GB:.3g} GB"
    if wanted > limit_gb * _GB:
        raise ValueError(f'{what}, more than `cache_gb` {limit_gb:g}. Raise it, or set `cache` to "none".')
    if free is not None and wanted > free:
        where = "memory" if kind == "memory" else "the disk of `cache_dir`"
        other = '"file" or "none"' if kind == "memory" else '"none"'
        raise ValueError(f"{what}, and {where} has {free / _GB:.3g} GB free. Set `cache` to {other}.")


def _is_ours(folder: Path, marker: dict[str, object]) -> bool:
    """Whether the folder holds a whole cache of this index and size."""
    try:
        found = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        sizes = [(folder / name).stat().st_size for name in (PICTURES, SUMS)]
    except (OSError, ValueError):
        return False
    pictures, side = int(str(marker["pictures"])), int(str(marker["size"]))
    return found == marker and sizes == [pictures * side * side * 3, pictures * 4]


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Wait for another process that makes or opens the folder's cache: of two that begin, the second finds it."""
    try:
        import fcntl
    except ImportError:  # Windows, where a file in use cannot be removed
        yield
        return
    with (folder / ".opening").open("wb") as file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _reserve(path: Path, size: int) -> None:
    """Make a file of zeros that has its place on the disk: a full disk would kill who writes into a mapped hole.

    Made aside: another run may have a file of the name mapped, and must not see it cut short.
    """
    with written_aside(path) as aside, aside.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
