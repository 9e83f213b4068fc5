"""What was seen of a folder of pictures, kept for the next run: half a million files take long to look up again.

The file lies in `$XDG_CACHE_HOME/tupletface/index`, not in the folder, which may be shared or read-only. It can be
removed at any time. It is a version, a checksum, then NumPy's npz without pickle; one that is damaged, of another
version or of another folder counts as none.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekit.files import write_bytes

_VERSION = b"tupletface index 1\n"
_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class Listing:
    """The folders in a folder, and the pictures in each.

    Attributes:
        folders: (f) names, sorted; those without pictures too.
        stamps: (f, 4) int64, what changes whenever a file is added, removed or renamed in a folder; 0 where it was
            too fresh to be trusted. See `facekit.index`.
        counts: (f,) int64 pictures in each.
        passed_over: (f,) int64 names like a picture's that are no file.
        paths: (n) "folder/name" of each picture, by folder, then by name.
        sizes: (n,) int64 bytes.
        times: (n,) int64 times of last change, in nanoseconds since 1970.
    """

    folders: list[str]
    stamps: NDArray[np.int64]
    counts: NDArray[np.int64]
    passed_over: NDArray[np.int64]
    paths: list[str]
    sizes: NDArray[np.int64]
    times: NDArray[np.int64]


def place(root: Path) -> Path:
    """The file that keeps the listing of a folder: named by the folder's place with all links followed.

    Raises:
        RuntimeError, OSError: there is no home folder, or the links run in a circle.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    name = hashlib.sha256(_packed([str(root.resolve())])).hexdigest()[:32]
    return base / "tupletface" / "index" / f"{name}.npz.sha256"


def read(root: Path) -> Listing | None:
    """The listing kept for a folder; None where there is none that can be trusted."""
    try:
        data = place(root).read_bytes()
    except (OSError, RuntimeError):
        return None
    head, payload = data[: len(_VERSION) + _DIGEST], data[len(_VERSION) + _DIGEST :]
    if head != _head(payload):
        return None
    # The checksum has told that this is what `write` wrote: nothing below can fail.
    with np.load(io.BytesIO(payload), allow_pickle=False) as stored:
        if _unpacked(stored["root"]) != [str(root.resolve())]:
            return None
        values = {field.name: stored[field.name] for field in fields(Listing)}
    texts = {name: _unpacked(values[name]) for name in ("folders", "paths")}
    return Listing(**{**values, **texts})


def write(root: Path, listing: Listing) -> None:
    """Keep a listing for the next run, whole or not at all; where the file cannot be written, nothing happens."""
    values = {field.name: getattr(listing, field.name) for field in fields(Listing)}
    try:
        texts = {"root": [str(root.resolve())], "folders": listing.folders, "paths": listing.paths}
        packed = {name: np.frombuffer(_packed(text), np.uint8) for name, text in texts.items()}
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **{**values, **packed})
        write_bytes(place(root), _head(buffer.getvalue()) + buffer.getvalue())
    except (OSError, RuntimeError):
        return  # Read-only or full: the next run looks at the folders again.


def _head(payload: bytes) -> bytes:
    return _VERSION + hashlib.sha256(payload).digest()


def _packed(names: Sequence[str]) -> bytes:
    """Names as bytes; those that are no valid text come back as they were. No name holds a zero."""
    return "\0".join(names).encode("utf-8", "surrogatepass")


def _unpacked(data: NDArray[np.uint8]) -> list[str]:
    text = data.tobytes().decode("utf-8", "surrogatepass")
    return text.split("\0") if text else []
