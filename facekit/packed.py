"""Pictures of a packed folder (see `facekit.shards`), each read at once by its place in its shard."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit.index import PeopleIndex
from facekit.loading import Read, read_below
from facekit.picture_cache import file_stamps
from facekit.shards import COLUMNS, PACK, PICTURES, VERSION, file_sha256

# Shards kept open; systems allow a process about a thousand files.
_MOST_OPEN = 256


def is_packed(folder: Path) -> bool:
    """Whether a folder is a whole packed one."""
    return (folder / PACK).is_file()


def reader(folder: Path) -> Read:
    """What gives the bytes of a folder's pictures by their paths, packed or not.

    Raises:
        ValueError: a packed folder is damaged; names the file.
    """
    return PackedPictures(folder).read if is_packed(folder) else partial(read_below, folder)


def stamps(index: PeopleIndex) -> NDArray[np.int64]:
    """(n, 2) int64: what changes with the content of each picture of an index, for `facekit.picture_cache`."""
    return PackedPictures(index.root).stamps(index.paths) if is_packed(index.root) else file_stamps(index)


class PackedPictures:
    """The pictures of a packed folder. Safe in threads.

    Args:
        folder: the folder.

    Attributes:
        paths: (n) pictures, by person, then by name, as in the folder they come from.
        shards: "name", "bytes", "sha256" and "pictures" of each shard.
        left_out: [path, reason] of pictures that could not be read when the folder was packed.

    Raises:
        ValueError: the folder is damaged; names the file.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        values = _read_pack(folder / PACK)
        self.shards: list[dict[str, Any]] = values["shards"]
        self.left_out: list[list[str]] = values["left_out"]
        self.paths, self._where = _read_index(folder / PICTURES, values["index_sha256"])
        for shard in self.shards:
            _check_size(folder / shard["name"], shard["bytes"])
        self._rows = {path: row for row, path in enumerate(self.paths)}
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()

    def index(self) -> PeopleIndex:
        """People and pictures, as `facekit.index.index_people` gives them of the folder they come from."""
        names = [path.split("/", 1)[0] for path in self.paths]
        people = list(dict.fromkeys(names))
        numbers = {name: number for number, name in enumerate(people)}
        labels = np.array([numbers[name] for name in names], np.int64)
        return PeopleIndex(self._folder, people, self.paths, labels, self._where[:, 2].copy())

    def read(self, path: str) -> bytes:
        """The bytes of a picture's file.

        Raises:
            OSError: there is no such picture, or its shard cannot be read.
        """
        row = self._rows.get(path)
        if row is None:
            raise FileNotFoundError(2, "it is not in the packed folder", path)
        shard, offset, length = self._where[row].tolist()
        descriptor, kept = self._descriptor(shard)
        try:
            data = os.pread(descriptor, length, offset)
        finally:
            if not kept:
                os.close(descriptor)
        if len(data) < length:
            raise OSError(5, f"{self.shards[shard]['name']} ends before it", path)
        return data

    def stamps(self, paths: list[str]) -> NDArray[np.int64]:
        """(n, 2) int64 for pictures: their shard's checksum, shortened, and their offset in it."""
        sums = np.array([int(shard["sha256"][:15], 16) for shard in self.shards], np.int64)
        where = self._where[[self._rows[path] for path in paths]]
        return np.stack([sums[where[:, 0]], where[:, 1]], axis=1)

    def _descriptor(self, shard: int) -> tuple[int, bool]:
        """A shard's open file, and whether it stays open: beyond `_MOST_OPEN` it is for one reading."""
        with self._lock:
            if shard in self._open:
                return self._open[shard], True
            descriptor = os.open(self._folder / self.shards[shard]["name"], os.O_RDONLY)
            if len(self._open) < _MOST_OPEN:
                self._open[shard] = descriptor
            return descriptor, shard in self._open

    def __del__(self) -> None:
        for descriptor in getattr(self, "_open", {}).values():
            os.close(descriptor)


def damage(folder: Path, shard: dict[str, Any]) -> str:
    """What is wrong with a shard of a packed folder, by its checksum, in a sentence; "" where nothing is.

    Args:
        folder: the packed folder.
        shard: one of `PackedPictures.shards`.
    """
    path = folder / shard["name"]
    try:
        same = file_sha256(path) == shard["sha256"]
    except OSError as error:
        return f"{path}: cannot be read ({error.strerror})."
    return "" if same else f"{path}: is damaged: its SHA-256 is not the one in {PACK}."


def _read_pack(path: Path) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if values["version"] != VERSION:
            raise ValueError(f"version {values['version']}, expected {VERSION}")
        return {name: values[name] for name in ("shards", "left_out", "index_sha256")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: is not the record of a packed folder ({error}). Pack it again.") from None


def _read_index(path: Path, checksum: str) -> tuple[list[str], NDArray[np.int64]]:
    """Paths, and (n, 3) int64 shard, offset, length."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}). Pack the folder again.") from None
    if hashlib.sha256(data).hexdigest() != checksum:
        raise ValueError(f"{path}: is damaged: its SHA-256 is not the one in {PACK}. Pack the folder again.")
    header, *rows = csv.reader(io.StringIO(os.fsdecode(data), newline=""))
    if tuple(header) != COLUMNS:
        raise ValueError(f"{path}: has the columns {', '.join(header)}, expected {', '.join(COLUMNS)}.")
    where = np.array([row[1:] for row in rows]).astype(np.int64).reshape(-1, 3)
    return [row[0] for row in rows], where


def _check_size(path: Path, size: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}). Copy it again, or pack again.") from None
    if found != size:
        raise ValueError(f"{path}: has {found:,} bytes, expected {size:,}. Copy it again, or pack again.")
