"""Cost of a folder of people before any picture is decoded: its index, filters, batches and pairs, as it grows."""

from __future__ import annotations

import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from apps.timing import row
from facekit import index_file
from facekit.epoch import count_epoch
from facekit.index import index_people
from facekit.sampling import PeopleSampler, Sampler, TupletSampler, verification_pairs
from facekit.settings import Settings

# CASIA-WebFace: 494,414 pictures of 10,575 people, few of many and many of few.
PICTURES_A_PERSON = 494_414 / 10_575
FEWEST, MOST, SPREAD = 2, 800, 0.95
PEOPLE_A_BATCH = 80
# A folder that changed a moment ago is not trusted to be known: see facekit.index.
SETTLE_SECONDS = 4
CACHES = Path("/proc/sys/vm/drop_caches")


class IndexBench(Settings):
    """Seconds and memory of a folder's index, first and kept, and of what is drawn from it, as the folder grows."""

    pictures: tuple[PositiveInt, ...] = Field((10_000, 100_000), min_length=1)
    """Sizes of the folders to make, of tiny pictures (4 KB on the disk each); CASIA-WebFace is 494414."""

    folder: Path | None = None
    """Where the folders are made, and removed afterwards. None: the system's temporary folder."""

    cold: bool = False
    """Have the system forget what it knows of the disk before the first index. Needs Linux and the superuser."""

    batches: int = Field(200, ge=2)
    """Batches timed of each sampler."""


def counts_like_casia(pictures: int, seed: int = 0) -> NDArray[np.int64]:
    """Pictures of each person, unequal as in CASIA-WebFace: log-normal, 2 to 800, `pictures` in all.

    Raises:
        ValueError: too few pictures for the people of a batch.
    """
    people = round(pictures / PICTURES_A_PERSON)
    if people < PEOPLE_A_BATCH:
        fewest = round(PEOPLE_A_BATCH * PICTURES_A_PERSON)
        raise ValueError(
            f"`pictures` must be at least {fewest}, for {PEOPLE_A_BATCH} people. Received: {pictures}."
        )
    shares = np.random.default_rng(seed).lognormal(0, SPREAD, people)
    counts = np.clip(np.round(shares * (pictures / shares.sum())), FEWEST, MOST).astype(np.int64)
    # Rounding and the limits leave a few over: one more or less for people in the middle.
    while missing := pictures - counts.sum():
        able = np.flatnonzero((counts > FEWEST) & (counts < MOST))[: abs(missing)]
        counts[able] += np.sign(missing)
    return counts


def make_tree(root: Path, counts: NDArray[np.int64]) -> None:
    """Write a folder a person of tiny JPEGs of one grey."""
    import cv2

    data = cv2.imencode(".jpg", np.full((8, 8), 128, np.uint8))[1].tobytes()
    for person, count in enumerate(counts.tolist()):
        folder = root / f"{person:07d}"
        folder.mkdir(parents=True)
        for picture in range(1, count + 1):
            (folder / f"{picture:03d}.jpg").write_bytes(data)


def bench_index(settings: IndexBench) -> Iterator[str]:
    """Measure folders one after the other in one process; yields the lines of a Markdown table.

    Raises:
        ValueError: a size is too small, or the system does not let the disk be forgotten.
    """
    if settings.cold and not os.access(CACHES, os.W_OK):
        raise ValueError(f"`cold` must write {CACHES}, which this system or user does not allow.")
    every = [counts_like_casia(pictures) for pictures in settings.pictures]
    state = "nothing of the disk in memory" if settings.cold else "the disk's folders in memory"
    yield f"Seconds by the clock (of all cores); first index with {state}; {os.cpu_count()} cores.\n"
    tables = [_measured(counts, settings) for counts in every]
    yield row(["pictures", *(f"{counts.sum():,}" for counts in every)])
    yield row(["---", *["---:"] * len(every)])
    for name in tables[0]:
        yield row([name, *(table[name] for table in tables)])


def _measured(counts: NDArray[np.int64], settings: IndexBench) -> dict[str, str]:
    """What is measured of one folder, by its name in the table."""
    with tempfile.TemporaryDirectory(dir=settings.folder, prefix="bench-index-") as place, _kept_in(Path(place)):
        root = Path(place) / "people"
        make_tree(root, counts)
        return {"people": f"{len(counts):,}"} | _of_index(root, settings) | _of_draws(counts, settings)


@contextmanager
def _kept_in(folder: Path) -> Iterator[None]:
    """What commands keep between runs goes to this folder."""
    before = dict(os.environ)
    os.environ["XDG_CACHE_HOME"] = str(folder)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _of_index(root: Path, settings: IndexBench) -> dict[str, str]:
    time.sleep(SETTLE_SECONDS)
    if settings.cold:
        os.sync()
        CACHES.write_text("3", encoding="ascii")
    first = _timed(lambda: index_people(root))
    again = _timed(lambda: index_people(root))
    index = first.result
    added = root / index.people[0] / "new.jpg"
    added.write_bytes(b"x")
    changed = _timed(lambda: index_people(root))
    added.unlink()
    filters: dict[str, Callable[[], Any]] = {
        "people with at least 20": lambda: index.with_at_least(20),
        "at most 50 a person": lambda: index.at_most(50, 0),
        "without a tenth of the pictures": lambda: index.without_pictures(index.paths[::10]),
    }
    return {
        "first index": str(first),
        "index again, nothing changed": str(again),
        "index again, a picture added": str(changed),
        "kept file, MB": f"{index_file.place(root).stat().st_size / 1e6:.1f}",
        "index in memory, MB (most while made)": _memory(lambda: index_people(root)),
        **{name: str(_timed(call)) for name, call in filters.items()},
    }


def _of_draws(counts: NDArray[np.int64], settings: IndexBench) -> dict[str, str]:
    labels = np.repeat(np.arange(len(counts)), counts)
    weights = np.random.default_rng(0).uniform(0.1, 1, len(labels))
    samplers: dict[str, Callable[[], Sampler]] = {
        "64 tuplets of 6": lambda: TupletSampler(labels, 64, 4, 0),
        "64 tuplets of 6, by pictures, weighted": lambda: TupletSampler(labels, 64, 4, 0, "pictures", weights),
        f"{PEOPLE_A_BATCH} people of 4": lambda: PeopleSampler(labels, PEOPLE_A_BATCH * 4, 4, 0),
        f"{PEOPLE_A_BATCH} people of 4, by pictures, weighted": lambda: PeopleSampler(
            labels, PEOPLE_A_BATCH * 4, 4, 0, "pictures", weights
        ),
    }
    results = {}
    for name, make in samplers.items():
        first = _timed(partial(_made_and_used, make))
        sampler, batch = first.result
        late = _timed(partial(sampler.batch, 10**6))
        some = _timed(partial(_some, sampler, settings.batches))
        results[f"{name}: pictures a CPU second"] = f"{batch.size * settings.batches / some.cpu:,.0f}"
        results[f"{name}: first batch; batch 1,000,000"] = f"{first}; {late}"
    steps = round(len(labels) / (PEOPLE_A_BATCH * 4))
    results["what an epoch shows"] = str(_timed(lambda: count_epoch(sampler, steps, labels)))
    results["3,000 pairs to verify on"] = str(_timed(lambda: verification_pairs(labels, 3000, 0)))
    return results


def _made_and_used(make: Callable[[], Sampler]) -> tuple[Sampler, NDArray[np.int64]]:
    sampler = make()
    return sampler, sampler.batch(0)


def _some(sampler: Sampler, batches: int) -> None:
    for step in range(10**6 + 1, 10**6 + 1 + batches):
        sampler.batch(step)


class Cost(NamedTuple):
    """Seconds of a call by the clock and of all cores, and what the call gave."""

    wall: float
    cpu: float
    result: Any

    def __str__(self) -> str:
        return f"{self.wall:.3f} ({self.cpu:.3f})"


def _timed(call: Callable[[], Any]) -> Cost:
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu, result)


def _memory(call: Callable[[], Any]) -> str:
    """Megabytes that a call's result holds, and the most while it was made, by Python's own count."""
    tracemalloc.start()
    result = call()
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    del result
    return f"{held / 1e6:.0f} ({most / 1e6:.0f})"
