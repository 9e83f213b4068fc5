"""Run one function over many shards of work on a Dask cluster, found by its scheduler's address."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from facekit.workers import TRIES, call_prepared, first_item

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")
R = TypeVar("R")

ANSWER_SECONDS = 30
"""How long a scheduler may take to answer, and then its first worker to appear."""

SHARDS_A_WORKER = 2
"""Shards under way for each worker: one at work, one that waits there so that it does not idle."""

PACKAGES = ("tensorflow", "opencv-python-headless", "numpy")


def run_on_cluster(
    address: str,
    function: Callable[[T], R],
    prepare: Callable[[], None] | None,
    shards: Sequence[T],
    asked: Callable[[], bool],
) -> Iterator[R]:
    """What `facekit.workers.run_shards` does with an address; arguments, answers and errors are its own.

    The scheduler does a shard again whose worker is lost, up to its own setting
    `distributed.scheduler.allowed-failures` (3), and one that raises an error `TRIES` times in all.
    """
    inner = getattr(function, "func", function)
    if inner.__module__ == "__main__":
        raise ValueError(f"`{inner.__name__}` belongs to the script that is run: workers cannot import it.")
    modules = [inner.__module__, *([prepare.__module__] if prepare else [])]
    client = _connect(address)
    try:
        _look_at_workers(client, address, modules)
        yield from _run(client, address, function, prepare, shards, asked)
    finally:
        client.close()  # the scheduler drops what was not begun


def _connect(address: str) -> Client:
    try:
        from distributed import Client
    except ImportError:
        raise ValueError(
            "`cluster` needs the package distributed, here and on every worker: pip install "
            "'distributed>=2025.9,<2027'"
        ) from None
    try:
        client = Client(address, timeout=ANSWER_SECONDS)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"{address}: no Dask scheduler answered within {ANSWER_SECONDS} s ({error}). `cluster` is the address "
            "that `dask scheduler` prints, such as tcp://host:8786."
        ) from None
    try:
        client.wait_for_workers(1, timeout=ANSWER_SECONDS)
    except TimeoutError:
        client.close()
        raise ValueError(
            f"{address}: the scheduler has no worker (after {ANSWER_SECONDS} s). Start some in this project's "
            f"folder: dask worker {address} --nthreads 1"
        ) from None
    return client


def _run(
    client: Client,
    address: str,
    function: Callable[[T], R],
    prepare: Callable[[], None] | None,
    shards: Sequence[T],
    asked: Callable[[], bool],
) -> Iterator[R]:
    from distributed import wait

    waiting = iter(shards)
    running: dict[Any, T] = {}
    answers: list[R] = []
    while True:
        room = 0 if asked() else SHARDS_A_WORKER * len(client.nthreads()) - len(running)
        for _ in range(room):
            if (shard := next(waiting, None)) is None:
                break
            future = client.submit(call_prepared, function, prepare, shard, pure=False, retries=TRIES - 1)
            running[future] = shard
        yield from answers
        if not running:
            return
        done = wait(list(running), return_when="FIRST_COMPLETED").done
        answers = [_answer(future, running.pop(future), address) for future in done]


def _answer(future: Any, shard: object, address: str) -> Any:
    from distributed import CancelledError, KilledWorker

    try:
        return future.result()
    except KilledWorker:
        raise ValueError(
            f"{first_item(shard)}: the workers on it (or on what follows it) were lost too often, most likely for "
            "memory. What was done is kept. Give workers more memory (`dask worker --memory-limit`), or allow more "
            "losses (the scheduler's `distributed.scheduler.allowed-failures`)."
        ) from None
    except CancelledError:
        raise ValueError(
            f"{address}: the scheduler was lost. What was done is kept: start it again, and then this command."
        ) from None


def look(modules: Sequence[str]) -> dict[str, str]:
    """Import modules, then tell what answers depend on: versions of packages, and this project's own code."""
    for name in modules:
        import_module(name)
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "none"
    code = sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        code.update(path.read_bytes())
    return found | {"this project's code": code.hexdigest()[:8]}


def _look_at_workers(client: Client, address: str, modules: Sequence[str]) -> None:
    """See that all can import what they need; warn where a worker has other versions: its answers may differ.

    Raises:
        ValueError: the scheduler, which reads each call before it passes it on, or a worker lacks a module.
    """
    here = look(modules)
    try:
        client.run_on_scheduler(look, modules)
        there = client.run(look, modules)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{address}: no module {error.name} there. Start the scheduler and its workers with this project's "
            "packages, and with PYTHONPATH set to its folder."
        ) from None
    for worker, found in there.items():
        for name in here:
            if found[name] != here[name]:
                warnings.warn(
                    f"{worker} has another version of {name} ({found[name]}, here {here[name]}).", stacklevel=3
                )
