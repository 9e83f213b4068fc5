"""How fast pictures become batches: against the bare decoder, Keras' utility and a plain `tf.data` map."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from pydantic import Field, PositiveFloat, PositiveInt

from apps.input_contenders import CONTENDERS, Counts, Work
from apps.timing import device, row
from facekit.settings import Settings
from facekit.workers import cores, peak_memory

COLUMNS = ("way", "images/s", "share of the limit", "CPU us a picture", "share by CPU", "MB more")
LIMIT = next(iter(CONTENDERS))
# Batches that are ready when a round begins were made in somebody else's time: they are passed over.
READY = 8
_MB = 1e6


class InputBench(Settings):
    """Images a second of the training input, all ways in turns, so that a busy machine is unfair to all alike."""

    sizes: tuple[PositiveInt, ...] = Field((112, 224, 250), min_length=1)
    """Sides of the pictures that are drawn, in pixels. They are batched at that size."""

    images: tuple[Path, ...] = ()
    """Folders of people to use instead of drawn ones, each with pictures of one size."""

    resize_to: PositiveInt | None = None
    """Side of the network's input. None: the pictures' own."""

    pictures: int = Field(2000, ge=100)
    """Pictures drawn of each size, ten of each person; of `images`, as many as there are."""

    batch_size: PositiveInt = 320
    """Pictures a batch; all of a folder that has fewer."""

    rounds: PositiveInt = 5
    """Rounds in which every way has its turn."""

    seconds: PositiveFloat = 2.0
    """Length of a turn."""

    only: tuple[str, ...] = ()
    """Parts of the names of the ways to measure; the bare decoder always is. (): all."""


class Turn(NamedTuple):
    """What one way did in its turn of one round."""

    rate: float
    """Images a second."""

    cost: float
    """Microseconds of all threads' processor time for a picture."""

    memory: float
    """MB that the process held more, at most, than before the turn; nan where the system does not tell."""


def bench_input(settings: InputBench) -> Iterator[str]:
    """Measure; yields the lines of a Markdown table for each size.

    Raises:
        ValueError: a folder or a name is wrong.
    """
    chosen = {name: way for name, way in CONTENDERS.items() if name == LIMIT or _asked(name, settings.only)}
    if len(chosen) < 2:
        raise ValueError(f"`only` names none of the ways: {', '.join(CONTENDERS)}.")
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folders = [(folder, _size_of(folder)) for folder in settings.images] or [
            (_draw(place / f"drawn_{size}", size, settings.pictures), size) for size in settings.sizes
        ]
        for number, (folder, size) in enumerate(folders):
            work = _prepare(folder, place / f"packed_{number}", settings.resize_to or size, settings.batch_size)
            yield (
                f"\n{len(work.index):,} pictures of {size} px, batches of {work.batch} at {work.size} px, "
                f"medians of {settings.rounds} rounds of {settings.seconds:g} s; {device()}.\n"
            )
            yield row(COLUMNS)
            yield row(["---"] + ["---:"] * (len(COLUMNS) - 1))
            streams = {name: way(work) for name, way in chosen.items()}
            yield from lines(measure(streams, settings.rounds, settings.seconds))


def measure(streams: dict[str, Counts], rounds: int, seconds: float) -> dict[str, list[Turn]]:
    """Give every stream its turn in every round."""
    turns: dict[str, list[Turn]] = {name: [] for name in streams}
    for _ in range(rounds):
        for name, stream in streams.items():
            turns[name].append(take_turn(stream, seconds))
    return turns


def take_turn(stream: Counts, seconds: float) -> Turn:
    """Take batches of a stream for so long, after those that were ready."""
    _settle()
    before = _memory_now() if _forget_peak() else float("nan")
    for _ in range(READY):
        next(stream)
    began, cpu, pictures = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        pictures += next(stream)
    spent, cpu = time.perf_counter() - began, time.process_time() - cpu
    return Turn(pictures / spent, 1e6 * cpu / pictures, (peak_memory() - before) / _MB)


def _settle() -> None:
    """Wait until the stream before has read ahead as far as it does: its work is not the next one's."""
    for _ in range(100):
        before = time.process_time()
        time.sleep(0.05)
        if time.process_time() - before < 0.005:
            return


def lines(turns: dict[str, list[Turn]]) -> Iterator[str]:
    """A row of the table for each way. Shares are medians over rounds: each turn's, of the limit in its round."""
    limit = turns[LIMIT]
    for name, own in turns.items():
        wall = statistics.median(turn.rate / best.rate for turn, best in zip(own, limit, strict=True))
        work = statistics.median(best.cost / turn.cost for turn, best in zip(own, limit, strict=True))
        rate, cost = (statistics.median(values) for values in zip(*[turn[:2] for turn in own], strict=True))
        memory = max(turn.memory for turn in own)
        yield row([name, f"{rate:,.0f}", f"{wall:.2f}", f"{cost:.0f}", f"{work:.2f}", f"{memory:,.0f}"])


def _asked(name: str, parts: tuple[str, ...]) -> bool:
    return not parts or any(part in name for part in parts)


def _draw(folder: Path, size: int, pictures: int) -> Path:
    """Drawn crops of people, ten each."""
    from facekit.synthetic import write_people

    return write_people(folder, max(2, pictures // 10), 10, 0, size, crops=True, processes=cores())


def _size_of(folder: Path) -> int:
    """Side of a folder's first picture."""
    from facekit.images import read_image
    from facekit.index import index_people

    return int(read_image(folder / index_people(folder, "images").paths[0]).shape[0])


def _prepare(folder: Path, packed: Path, size: int, batch: int) -> Work:
    from facekit.index import index_people
    from facekit.picture_cache import file_stamps
    from facekit.shards import finish, plan_shards, write_shard

    index = index_people(folder, "images")
    packed.mkdir()
    plan = plan_shards(index, packed, file_stamps(index)[:, 0].clip(min=0), 64 * 10**6)
    finish(packed, [write_shard(shard) for shard in plan], folder)
    return Work(index, packed, size, min(batch, len(index)), cores())


def _forget_peak() -> bool:
    """Have the system count the most memory of this process anew; whether it can. Linux only."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _memory_now() -> int:
    """Bytes that this process holds. Linux only."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
