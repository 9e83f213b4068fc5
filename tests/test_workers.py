"""Shards over processes: each answered once, whoever is killed; none begins after a stop, none stays behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from facekit.workers import TRIES, cores, first_item, peak_memory, run_shards

ROOT = Path(__file__).resolve().parent.parent

SHARDS = [[number, number + 1] for number in range(12)]
ANSWERS = [[2 * number, 2 * number + 2] for number in range(12)]

prepared = 0


def double(shard):
    return [2 * number for number in shard]


def prepare():
    global prepared
    prepared += 1


def who_and_how_often_prepared(_shard):
    time.sleep(0.05)
    return os.getpid(), prepared


def note_then_die_once(folder, shard):
    """Each call leaves a file; every third shard kills its process at its first."""
    calls = len(list(Path(folder).glob(f"{shard[0]}-*")))
    (Path(folder) / f"{shard[0]}-{calls}").touch()
    if shard[0] % 3 == 0 and calls == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return double(shard)


def die_at_five(folder, shard):
    """Each call leaves a file; the shard of 5 always kills its process."""
    (Path(folder) / f"{shard[0]}-{os.getpid()}").touch()
    if shard[0] == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return shard[0]


def interrupt_oneself(shard):
    os.kill(os.getpid(), signal.SIGINT)
    return shard


def complain(shard):
    raise FileNotFoundError(f"no {shard[0]}")


def slow_with_pid(folder, shard):
    (Path(folder) / f"{shard}-{os.getpid()}").touch()
    time.sleep(0.4)
    return os.getpid()


@pytest.mark.parametrize("processes", [0, 1, 2, 3])
def test_every_shard_is_answered_once(processes):
    assert sorted(run_shards(double, SHARDS, processes=processes)) == ANSWERS
    assert list(run_shards(double, [], processes=processes)) == []


def test_one_process_is_this_one_and_more_are_others():
    assert set(run_shards(who_and_how_often_prepared, SHARDS, processes=1, prepare=prepare)) == {(os.getpid(), 0)}
    found = list(run_shards(who_and_how_often_prepared, SHARDS, processes=2, prepare=prepare))
    assert {how_often for _, how_often in found} == {1}
    assert len({pid for pid, _ in found}) == 2 and os.getpid() not in {pid for pid, _ in found}


def test_a_killed_shard_is_done_again_and_no_other(tmp_path):
    assert sorted(run_shards(partial(note_then_die_once, tmp_path), SHARDS, processes=2)) == ANSWERS
    calls = {first: len(list(tmp_path.glob(f"{first}-*"))) for first, _ in SHARDS}
    assert calls == {first: 1 + (first % 3 == 0) for first, _ in SHARDS}


def test_a_shard_that_always_kills_is_named_and_the_others_are_answered(tmp_path):
    answers = []
    with pytest.raises(ValueError, match=rf"^5: .* was killed {TRIES} times.*fewer `--processes`"):
        for answer in run_shards(partial(die_at_five, tmp_path), [*SHARDS[:4], [5]], processes=2):
            answers.append(answer)
    assert sorted(answers) == [0, 1, 2, 3]
    assert len(list(tmp_path.glob("5-*"))) == TRIES


def test_an_error_is_the_functions_own():
    with pytest.raises(FileNotFoundError, match="^no 0$"):
        list(run_shards(complain, SHARDS[:1] * 2, processes=2))


def test_a_process_killed_while_it_has_nothing_to_do_is_replaced(tmp_path):
    answers = run_shards(partial(slow_with_pid, tmp_path), list(range(8)), processes=2)
    first = next(answers)
    time.sleep(1.0)  # both are idle now: their answers wait for us
    os.kill(first, signal.SIGKILL)
    pids = [first, *answers]
    assert len(pids) == 8 and len(set(pids)) == 3


@pytest.mark.parametrize("processes", [1, 2])
def test_after_a_stop_no_shard_begins_and_those_under_way_are_answered(tmp_path, processes):
    answers = []
    for answer in run_shards(
        partial(slow_with_pid, tmp_path), list(range(20)), processes=processes, asked=lambda: len(answers) >= 2
    ):
        answers.append(answer)
    assert len(answers) == len(list(tmp_path.iterdir()))
    assert 2 <= len(answers) <= 2 + processes


def test_workers_leave_ctrl_c_to_their_parent():
    assert sorted(run_shards(interrupt_oneself, SHARDS, processes=2)) == SHARDS


class Counted(Sequence):
    """Shards that count how many were asked for."""

    def __init__(self, size):
        self.size, self.taken = size, 0

    def __len__(self):
        return self.size

    def __getitem__(self, place):
        if place >= self.size:
            raise IndexError
        self.taken += 1
        return [place]


def test_few_of_many_shards_are_under_way():
    shards, answered = Counted(100_000), 0
    for answered, _ in enumerate(run_shards(double, shards, processes=2), start=1):
        assert shards.taken - answered <= 4
        if answered == 50:
            break
    assert answered == 50


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    command = (
        "from functools import partial; from facekit.workers import run_shards; from tests.test_workers import "
        f"slow_with_pid; list(run_shards(partial(slow_with_pid, {str(tmp_path)!r}), range(1000), processes=2))"
    )
    parent = subprocess.Popen([sys.executable, "-c", command], cwd=ROOT)
    deadline = time.monotonic() + 60
    while len(pids := {path.name.split("-")[1] for path in tmp_path.iterdir()}) < 2:
        assert time.monotonic() < deadline, "no worker began"
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    while any(is_running(pid) for pid in pids):
        assert time.monotonic() < deadline, "a worker lives on without its parent"
        time.sleep(0.05)


def is_running(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_processes_end_when_the_answers_are_not_wanted_any_more(tmp_path):
    answers = run_shards(partial(slow_with_pid, tmp_path), list(range(100)), processes=2)
    pid = next(answers)
    answers.close()
    assert not is_running(str(pid))
    assert len(list(tmp_path.iterdir())) <= 4


def test_cores_memory_and_names():
    assert 1 <= cores() <= (os.cpu_count() or 1)
    assert 2**20 < peak_memory() < 2**40
    block = bytearray(200_000_000)
    assert len(block) <= peak_memory()
    assert (first_item(["a", "b"]), first_item("ab"), first_item(3), first_item([])) == ("a", "ab", 3, [])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
def test_a_child_does_not_count_its_parents_memory():
    block = b"x" * 300_000_000
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert 5_000_000 < pool.submit(peak_memory).result() < 200_000_000
    assert len(block) < peak_memory()


def test_memory_is_known_where_the_system_has_no_status_file(monkeypatch):
    told = peak_memory()
    monkeypatch.setattr("facekit.workers._process_status", lambda: "Name:\tpython\n")
    assert told / 2 < peak_memory() < 2**40


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity") or cores() < 2, reason="needs two cores to give one away")
def test_cores_that_were_not_granted_do_not_count():
    granted = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(granted)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, granted)
