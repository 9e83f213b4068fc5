"""Look at every file of a folder of people once, in parallel; find the copies among them.

In:  a folder a person, pictures inside.
Out: a row a file (facekit.examination), kept in a record; pairs of copies.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from facekit.copies import ALIGNED_ALIKE, candidates, confirm
from facekit.examination import (
    Examined,
    append_rows,
    examine_pictures,
    is_current,
    read_rows,
    rewrite,
    thumbnails_of,
    use_one_thread,
)
from facekit.images import is_picture
from facekit.workers import run_shards

_A_SHARD = 256  # pictures examined, or pairs confirmed, at once: what a killed run loses of each process


@dataclass(frozen=True)
class Tie:
    """Two pictures that are copies of each other, by position, and how alike they are: 1 for equal files."""

    one: int
    two: int
    likeness: float


@dataclass(frozen=True)
class Work:
    """How pieces of work are run: in how many processes or on which cluster, and whether to stop."""

    processes: int
    cluster: str
    asked: Callable[[], bool]

    def run(self, function: Callable[[Any], Any], shards: Sequence[Any]) -> Iterator[Any]:
        """See `facekit.workers.run_shards`."""
        return run_shards(
            function,
            shards,
            processes=self.processes,
            cluster=self.cluster,
            asked=self.asked,
            prepare=use_one_thread,
        )


def list_pictures(root: Path) -> list[str]:
    """Every file of the people's folders whose name is a picture's, also broken links: sorted, "/" between parts.

    Raises:
        ValueError: no folder, or no pictures in folders of people.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: there is no such folder. Give a folder with one folder a person inside.")
    names = []
    with os.scandir(root) as people:
        for person in sorted((entry for entry in people if not entry.name.startswith(".")), key=lambda e: e.name):
            if person.is_dir():
                with os.scandir(person) as files:
                    found = [file.name for file in files if is_picture(Path(file.name)) and not file.is_dir()]
                names += [f"{person.name}/{name}" for name in sorted(found)]
    if not names:
        raise ValueError(
            f"{root}: holds no pictures in folders of people. Expected `directory`/person/picture.jpg."
        )
    return names


def examine_folder(root: Path, names: Sequence[str], record: Path, work: Work) -> tuple[dict[str, Examined], int]:
    """Look at every file that no earlier run has looked at as it is now; returns all rows and how many are new.

    Raises:
        KeyboardInterrupt: stopped; what was looked at is kept.
    """
    from tqdm import tqdm

    rows = read_rows(record)
    todo = [name for name in names if not is_current(rows.get(name), root, name)]
    shards = [todo[start : start + _A_SHARD] for start in range(0, len(todo), _A_SHARD)]
    with tqdm(total=len(todo), unit="images", desc="examining", disable=not todo) as bar:
        for done in work.run(partial(examine_pictures, root=root), shards):
            append_rows(record, done)
            rows |= {row.path: row for row in done}
            bar.update(len(done))
    if work.asked():
        raise KeyboardInterrupt
    rows = {name: rows[name] for name in names}
    if todo:
        rewrite(record, rows.values())
    return rows, len(todo)


def find_copies(root: Path, pictures: Sequence[Examined], work: Work) -> list[Tie]:
    """All pairs of copies among pictures.

    Raises:
        KeyboardInterrupt: stopped.
    """
    from tqdm import tqdm

    found = candidates([seen.digest for seen in pictures], thumbnails_of(pictures))
    ties = [Tie(one, two, 1.0) for one, two in found.equal.tolist()]
    places = [found.near[start : start + _A_SHARD] for start in range(0, len(found.near), _A_SHARD)]
    shards = [
        _Pairs(number, [(pictures[one].path, pictures[two].path) for one, two in part.tolist()])
        for number, part in enumerate(places)
    ]
    with tqdm(total=len(found.near), unit="pairs", desc="copies", disable=not shards) as bar:
        for number, likeness in work.run(partial(_confirm, root=root), shards):
            pairs = zip(places[number].tolist(), likeness, strict=True)
            ties += [Tie(one, two, alike) for (one, two), alike in pairs if alike >= ALIGNED_ALIKE]
            bar.update(len(likeness))
    if work.asked():
        raise KeyboardInterrupt
    return ties


@dataclass(frozen=True)
class _Pairs:
    """A shard of pairs to be confirmed; its first picture names it in a message."""

    number: int
    paths: Sequence[tuple[str, str]]

    def __str__(self) -> str:
        return self.paths[0][0]


def _confirm(shard: _Pairs, root: Path) -> tuple[int, list[float]]:
    return shard.number, confirm(shard.paths, root)
