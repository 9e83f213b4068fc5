"""One process at a time in a folder."""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process until the block ends.

    The lock belongs to the operating system, which lets go of it when the process dies, however that happens: no
    stale one is ever in the way. On NFS it holds between machines where the server's lock service runs (it does by
    default; not with the mount options nolock or local_lock). Where a file system has no locks, a warning says so
    and the block runs.

    Args:
        folder: is there and can be written.

    Raises:
        ValueError: another process holds it; the sentence names the folder and that process.
    """
    descriptor = _taken(folder)
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        # While it is still held: whoever opens the name next makes a new file.
        (folder / LOCK).unlink(missing_ok=True)
        os.close(descriptor)


def _taken(folder: Path) -> int:
    """A descriptor of the folder's lock file, locked."""
    import fcntl  # not on Windows

    path = folder / LOCK
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                warnings.warn(
                    f"{folder}: its file system has no locks; see that no other process writes here.", stacklevel=4
                )
                return descriptor
            holder = os.read(descriptor, 200).decode(errors="replace") or "another process"
            os.close(descriptor)
            raise ValueError(
                f"{folder}: {holder} is writing here. Wait until it ends, or choose another folder."
            ) from None
        try:
            if os.fstat(descriptor).st_ino == os.stat(path).st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # its owner removed the file between our opening and locking it
