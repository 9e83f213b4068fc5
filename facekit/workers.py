"""Run one function over many shards of work: here, in processes of this machine, or on a cluster."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")

TRIES = 3
"""How often a shard is begun whose process is killed, before its killer is taken to be the shard itself."""


def run_shards(
    function: Callable[[T], R],
    shards: Sequence[T],
    *,
    processes: int = 0,
    cluster: str = "",
    asked: Callable[[], bool] = lambda: False,
    prepare: Callable[[], None] | None = None,
) -> Iterator[R]:
    """Apply a function to every shard, and give each answer as it is done, in any order.

    A shard whose process is killed (for memory, by hand, with its machine) is done again elsewhere, so the function
    must give the same answer and leave the same files when it is called twice. Few shards are under way at a time,
    however many there are.

    Args:
        function: of one shard. Processes and clusters find it by its name: it lives in a module, not inside another
            function, and for a cluster not in the script that is run (`__main__`). `functools.partial` of it works.
        shards: the work, in pieces of some seconds each.
        processes: on this machine, never more than shards. 0: one for each core; 1: no other process but this one.
        cluster: address of a Dask scheduler, "tcp://host:8786", whose workers are used instead; "": none.
        asked: whether to stop. Once it says so no shard is begun, and those under way are still answered.
        prepare: called once in each worker before its first shard, say to limit threads. It is a module's function.
            Not called where the shards run in this process.

    Yields:
        The function's answers.

    Raises:
        ValueError: a shard's process was killed `TRIES` times; or the cluster does not answer, has no workers, or
            cannot import the function.
    """
    if cluster:
        from facekit.cluster import run_on_cluster

        yield from run_on_cluster(cluster, function, prepare, shards, asked)
        return
    processes = min(processes or cores(), len(shards))
    if processes <= 1:
        for shard in shards:
            if asked():
                return
            yield function(shard)
        return
    yield from _run_in_processes(partial(call_prepared, function, prepare), shards, processes, asked)


def cores() -> int:
    """Cores that this process may use; a batch system often grants fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def peak_memory() -> int:
    """The most memory that this process has held so far, in bytes.

    Linux tells it of this process alone. Other systems may count what its parent held when it was started.
    """
    # Not getrusage where this is to be had: its peak is handed down from parent to child.
    if own := re.search(r"^VmHWM:\s*(\d+) kB", _process_status(), re.MULTILINE):
        return 1024 * int(own[1])
    import resource  # not on Windows

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _process_status() -> str:
    """What Linux says of this process; "" on other systems."""
    try:
        return Path("/proc/self/status").read_text(errors="replace")
    except OSError:
        return ""


def first_item(shard: object) -> object:
    """What names a shard in a message: its first item, or itself."""
    return shard[0] if isinstance(shard, Sequence) and not isinstance(shard, str) and len(shard) else shard


_prepared: set[Callable[[], None]] = set()
_one_at_a_time = threading.Lock()


def call_prepared(function: Callable[[T], R], prepare: Callable[[], None] | None, shard: T) -> R:
    """Call the function in a worker, which is prepared first where it is not yet.

    A cluster's worker may have several threads; detectors are not made for that, so calls wait for each other.
    """
    with _one_at_a_time:
        if prepare is not None and prepare not in _prepared:
            prepare()
            _prepared.add(prepare)
        return function(shard)


def _begin_process() -> None:
    # Ctrl-C reaches every process of a terminal: only the parent answers, and lets shards end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Wait for the parent's end, however it came, and end too: a pool's processes would wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _new_pool() -> ProcessPoolExecutor:
    """A pool of one process, which dies alone: the shard that was in it is known, and no other is lost with it.

    "spawn": TensorFlow does not survive a fork.
    """
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_begin_process)


def _run_in_processes(
    call: Callable[[T], R], shards: Sequence[T], processes: int, asked: Callable[[], bool]
) -> Iterator[R]:
    waiting = ((shard, 1) for shard in shards)
    lost: list[tuple[T, int]] = []
    idle = [_new_pool() for _ in range(processes)]
    running: dict[Future[R], tuple[ProcessPoolExecutor, T, int]] = {}
    answers: list[R] = []
    try:
        while True:
            while idle and not asked():
                begun = lost.pop() if lost else next(waiting, None)
                if begun is None:
                    break
                pool = idle.pop()
                running[_submit(pool, call, begun[0])] = (pool, *begun)
            # Only now, so that no process idles while the caller looks at the answers.
            yield from answers
            answers = []
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                pool, shard, attempt = running.pop(future)
                idle.append(pool)
                try:
                    answers.append(future.result())
                except BrokenProcessPool:
                    if attempt == TRIES:
                        raise ValueError(_killed_text(shard)) from None
                    idle[-1] = _new_pool()
                    pool.shutdown()
                    lost.append((shard, attempt + 1))
    finally:
        # All at once: each waits for its shard and for its process to end.
        with ThreadPoolExecutor(processes) as threads:
            threads.map(ProcessPoolExecutor.shutdown, [*idle, *(pool for pool, _, _ in running.values())])


def _submit(pool: ProcessPoolExecutor, call: Callable[[T], R], shard: T) -> Future[R]:
    """Submit to a pool; where its process was killed while it had nothing to do, the future says so."""
    try:
        return pool.submit(call, shard)
    except BrokenProcessPool as error:
        broken: Future[Any] = Future()
        broken.set_exception(error)
        return broken


def _killed_text(shard: object) -> str:
    return (
        f"{first_item(shard)}: the process at work on it (or on what follows it) was killed {TRIES} times, most "
        "likely for memory. What was done is kept: run the same command again with fewer `--processes`, or look at "
        "that file."
    )
