"""Shards on a Dask cluster of local processes: the answers of a local run, whoever is killed; errors in words."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from facekit import cluster, manifest
from facekit.workers import run_shards
from tests.test_workers import (
    ANSWERS,
    SHARDS,
    complain,
    die_at_five,
    double,
    note_then_die_once,
    prepare,
    slow_with_pid,
    who_and_how_often_prepared,
)

distributed = pytest.importorskip("distributed", reason="needs the package distributed")
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

ROOT = Path(__file__).resolve().parent.parent


def start(folder: Path, *arguments: str, path: Path = ROOT) -> subprocess.Popen:
    """One of Dask's commands, quietly, where it can import what is in `path`."""
    command = [sys.executable, "-m", "dask", *arguments, "--scheduler-file", str(folder / "scheduler.json")]
    environment = os.environ | {"PYTHONPATH": str(path)}
    with (folder / "log").open("ab") as log:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def start_worker(folder: Path, *arguments: str, path: Path = ROOT) -> subprocess.Popen:
    return start(folder, "worker", "--nthreads", "1", "--no-dashboard", *arguments, path=path)


@contextmanager
def scheduler(folder: Path, path: Path = ROOT):
    """A scheduler's address, and a list of processes that are ended with it."""
    arguments = ("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
    processes = [start(folder, *arguments, path=path)]
    deadline = time.monotonic() + 60
    try:
        while not (folder / "scheduler.json").exists():
            assert time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield json.loads((folder / "scheduler.json").read_text())["address"], processes
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            process.wait(timeout=60)


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """A scheduler with two workers, which are started again when they die."""
    folder = tmp_path_factory.mktemp("cluster")
    with scheduler(folder) as (found, processes):
        processes.append(start_worker(folder, "--nworkers", "2"))
        yield found


def test_every_shard_is_answered_once_by_another_process(address):
    assert sorted(run_shards(double, SHARDS, cluster=address)) == ANSWERS
    found = list(run_shards(who_and_how_often_prepared, SHARDS, cluster=address, prepare=prepare))
    assert {how_often for _, how_often in found} == {1} and os.getpid() not in {pid for pid, _ in found}
    assert list(run_shards(double, [], cluster=address)) == []


def test_a_shard_whose_worker_is_killed_is_done_again(address, tmp_path):
    shards = SHARDS[:4]
    assert sorted(run_shards(partial(note_then_die_once, tmp_path), shards, cluster=address)) == ANSWERS[:4]
    assert (tmp_path / "0-1").exists() and (tmp_path / "3-1").exists()


@pytest.mark.slow
def test_a_shard_that_always_kills_is_named(address, tmp_path):
    with pytest.raises(ValueError, match="^5: the workers .*--memory-limit.*allowed-failures"):
        list(run_shards(partial(die_at_five, tmp_path), [[5]], cluster=address))


def test_an_error_is_the_functions_own(address):
    with pytest.raises(FileNotFoundError, match="^no 0$"):
        list(run_shards(complain, SHARDS[:1], cluster=address))


def test_after_a_stop_no_shard_begins_and_those_under_way_are_answered(address, tmp_path):
    answers = []
    function = partial(slow_with_pid, tmp_path)
    for answer in run_shards(function, range(40), cluster=address, asked=lambda: len(answers) >= 2):
        answers.append(answer)
    assert len(answers) == len(list(tmp_path.iterdir()))
    assert 2 <= len(answers) <= 2 + 2 * cluster.SHARDS_A_WORKER + 1


@pytest.mark.filterwarnings("ignore:.*another version of")
def test_other_versions_are_named(address, monkeypatch):
    monkeypatch.setattr(cluster.metadata, "version", lambda name: "0.0")
    with pytest.warns(UserWarning, match=r"another version of numpy \(\d.*, here 0\.0\)"):
        list(run_shards(double, SHARDS[:1], cluster=address))


def test_a_function_of_the_script_itself_is_refused(address, monkeypatch):
    monkeypatch.setattr(double, "__module__", "__main__")
    for function in (double, partial(double)):
        with pytest.raises(ValueError, match="`double` belongs to the script that is run"):
            list(run_shards(function, SHARDS, cluster=address))


def test_a_module_that_workers_lack_is_named(address, tmp_path, monkeypatch):
    (tmp_path / "only_here.py").write_text("def same(shard):\n    return shard\n")
    monkeypatch.syspath_prepend(tmp_path)
    import only_here  # type: ignore[import-not-found]

    with pytest.raises(ValueError, match=r"no module only_here there.*PYTHONPATH"):
        list(run_shards(only_here.same, SHARDS, cluster=address))


@pytest.mark.parametrize("wrong", ["tcp://127.0.0.1:1", "nowhere", "tcp://host.invalid:8786"])
def test_an_address_where_nobody_answers_is_named(wrong, monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 1)
    with pytest.raises(ValueError, match=rf"^{wrong}: no Dask scheduler answered within 1 s"):
        list(run_shards(double, SHARDS, cluster=wrong))


@pytest.mark.slow
def test_a_scheduler_without_workers_and_workers_without_the_project_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "ANSWER_SECONDS", 2)
    with scheduler(tmp_path, path=tmp_path) as (found, processes):
        with pytest.raises(ValueError, match=r"has no worker \(after 2 s\).*dask worker tcp://"):
            list(run_shards(double, SHARDS, cluster=found))
        monkeypatch.setattr(cluster, "ANSWER_SECONDS", 60)
        processes.append(start_worker(tmp_path, "--no-nanny", path=tmp_path))
        with pytest.raises(ValueError, match=r"no module (facekit|tests) there.*PYTHONPATH"):
            list(run_shards(double, SHARDS, cluster=found))


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ValueError, match=r"pip install 'distributed"):
        list(run_shards(double, SHARDS, cluster="tcp://127.0.0.1:8786"))


@pytest.mark.slow
def test_cropping_with_a_worker_killed_midway_gives_a_local_runs_folder(photos, tmp_path):
    for copy in range(8):
        shutil.copytree(photos, tmp_path / "in" / str(copy))
    command = [sys.executable, str(ROOT / "crop_faces.py"), "--input_dir", str(tmp_path / "in"), "--output_dir"]
    subprocess.run([*command, str(tmp_path / "local"), "--processes", "2"], check=True, capture_output=True)
    with scheduler(tmp_path) as (found, processes):
        processes += [start_worker(tmp_path, "--no-nanny") for _ in range(2)]
        run = subprocess.Popen([*command, str(tmp_path / "cluster"), "--cluster", found], stderr=subprocess.PIPE)
        deadline = time.monotonic() + 120
        while not manifest.read(tmp_path / "cluster"):
            assert time.monotonic() < deadline and run.poll() is None
            time.sleep(0.02)
        assert len(manifest.read(tmp_path / "cluster")) < 256
        processes[-1].send_signal(signal.SIGKILL)
        assert run.wait(timeout=300) == 0, run.stderr.read()
    local = {path.relative_to(tmp_path / "local"): path for path in (tmp_path / "local").rglob("*.*")}
    shared = {path.relative_to(tmp_path / "cluster"): path for path in (tmp_path / "cluster").rglob("*.*")}
    assert set(local) == set(shared)
    assert all(path.read_bytes() == shared[name].read_bytes() for name, path in local.items())
