"""One process at a time in a folder, and no lock that outlives its process."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from facekit.lock import LOCK, locked

ROOT = Path(__file__).resolve().parent.parent
HOLD = "import sys, time; from pathlib import Path; from facekit.lock import locked\n"
HOLD += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(100)"


def holder(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_a_held_folder_is_refused_with_the_holders_name_and_a_dead_holder_is_none(tmp_path):
    process = holder(tmp_path)
    try:
        with pytest.raises(ValueError, match=rf"process {process.pid} on \S+ is writing here"), locked(tmp_path):
            pytest.fail("two at once")
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / LOCK).exists()  # left by the dead
    with locked(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} ")
    assert list(tmp_path.iterdir()) == []


def test_a_lock_ends_with_an_error_and_can_be_taken_again(tmp_path):
    with pytest.raises(KeyError), locked(tmp_path):
        raise KeyError
    with locked(tmp_path), pytest.raises(ValueError, match="is writing here"), locked(tmp_path):
        pytest.fail("two at once")
    with locked(tmp_path):
        pass


def test_a_lock_file_removed_before_it_was_locked_is_not_taken(tmp_path, monkeypatch):
    import fcntl

    original, calls = fcntl.flock, []

    def slow(descriptor, how):
        calls.append(how)
        if len(calls) == 1:  # the last owner removes the file just now
            (tmp_path / LOCK).unlink()
        original(descriptor, how)

    monkeypatch.setattr(fcntl, "flock", slow)
    with locked(tmp_path):
        assert len(calls) == 2
        with pytest.raises(ValueError, match="is writing here"), locked(tmp_path):
            pytest.fail("two at once")


def test_a_file_system_without_locks_gives_a_warning(tmp_path, monkeypatch):
    import fcntl

    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.warns(UserWarning, match="has no locks"), locked(tmp_path):
        pass
