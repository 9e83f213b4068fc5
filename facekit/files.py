"""Write files whole or not at all: aside first, then renamed into place."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to, and rename it to `path` once the block has ended well.

    After an error or an interrupt the half-written file is removed and an earlier `path` is as it was.

    Raises:
        OSError: the folder cannot be made or written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last: writers such as Keras and Matplotlib choose the format by it.
    aside = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with written_aside(path) as aside:
        aside.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 to `path`, whole or not at all; names of files that are no UTF-8 stay as they are."""
    write_bytes(path, text.encode("utf-8", "surrogateescape"))


def check_writable(folder: Path, setting: str) -> None:
    """Make `folder` and see that files can be written there, before hours of work need it.

    Raises:
        ValueError: it cannot; the sentence names the folder and the setting.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{uuid.uuid4().hex[:8]}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot be written ({error.strerror}). Choose another folder with `{setting}`."
        ) from None


def stamp(path: str | Path) -> tuple[int, int]:
    """Size in bytes and time of change in nanoseconds, by which a changed file is known; 0, 0 where it is gone."""
    try:
        status = os.stat(path)
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
