"""A folder of people as lists: who there is, and which pictures are whose.

Half a million files take seconds to list. The next start looks at the folders only, a look each, and lists again
those that changed. What counts as a change of a folder: its times, its number on the disk, or its device; so a file
or folder added, removed or renamed, and a folder replaced by another or by a link. Not noticed: a file written over
in place, and a link to a file that breaks or is mended elsewhere; `fresh=True` lists everything again.
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
import zlib
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain, compress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekit import index_file
from facekit.images import SUFFIXES
from facekit.index_file import Listing

# A folder that changed this short a time before it was listed may change again without its times telling so: file
# systems count time in steps, the coarsest (FAT) of 2 s, and a server's clock may be a little behind.
_SETTLED_NS = 3_000_000_000
_FRESH = (0, 0, 0, 0)
# They wait for the disk most of the time.
_THREADS = 16
_POSITIVE = 2**63 - 1


def _no_numbers() -> NDArray[np.int64]:
    return np.empty(0, np.int64)


@dataclass(frozen=True)
class PeopleIndex:
    """Pictures by person.

    Attributes:
        root: the folder that holds a folder a person.
        people: names of the people, sorted.
        paths: (n) pictures, relative to `root`, "/" between parts; by person, then by name.
        labels: (n,) int64, position in `people` of each picture's person.
        sizes: (n,) int64 bytes of each file when it was listed; zeros where nobody looked.
        times: (n,) int64 its time of last change, in nanoseconds since 1970; zeros where nobody looked.
        passed_over: names like a picture's in the whole folder that are no file (broken links, folders, pipes).
    """

    root: Path
    people: list[str]
    paths: list[str]
    labels: NDArray[np.int64]
    sizes: NDArray[np.int64] = field(default_factory=_no_numbers)
    times: NDArray[np.int64] = field(default_factory=_no_numbers)
    passed_over: int = 0

    def __post_init__(self) -> None:
        for name in ("sizes", "times"):
            if not len(getattr(self, name)):
                object.__setattr__(self, name, np.zeros(len(self.paths), np.int64))

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(people,) pictures of each person."""
        return np.bincount(self.labels, minlength=len(self.people))

    @property
    def digest(self) -> str:
        """SHA-256 of all names: tells whether two runs saw the same list of pictures."""
        return hashlib.sha256("\n".join(self.paths).encode("utf-8", "surrogatepass")).hexdigest()

    def choose(self, chosen: NDArray[np.bool_]) -> PeopleIndex:
        """The index of some of the people: (people,) bool."""
        return self.keep(chosen[self.labels])

    def keep(self, kept: NDArray[np.bool_]) -> PeopleIndex:
        """The index of some of the pictures: (n,) bool. People left without any are gone."""
        labels = self.labels[kept]
        there = np.bincount(labels, minlength=len(self.people)) > 0
        return PeopleIndex(
            self.root,
            list(compress(self.people, there.tolist())),
            list(compress(self.paths, kept.tolist())),
            (np.cumsum(there) - 1)[labels],
            self.sizes[kept],
            self.times[kept],
        )

    def without(self, names: Collection[str]) -> PeopleIndex:
        """The index without the people of these names."""
        excluded = set(names)
        return self.choose(np.array([name not in excluded for name in self.people], bool))

    def without_pictures(self, paths: Collection[str]) -> tuple[PeopleIndex, list[str]]:
        """The index without these pictures (as in `paths`), and those of them that it does not hold, sorted.

        People left without pictures are gone.
        """
        excluded = set(paths)
        kept = np.fromiter((path not in excluded for path in self.paths), bool, len(self))
        return self.keep(kept), sorted(excluded.difference(self.paths))

    def with_at_least(self, min_images: int) -> PeopleIndex:
        """The index of the people with so many pictures or more."""
        return self.choose(self.counts >= min_images)

    def at_most(self, max_images: int, seed: int) -> PeopleIndex:
        """The index with no more than so many pictures a person, drawn at random from those who have more.

        Whether a picture stays depends on the seed and on its person's pictures: adding or removing other people
        changes nothing, and one more picture of a person changes at most one of those drawn.

        Raises:
            ValueError: `max_images` is less than 1.
        """
        if max_images < 1:
            raise ValueError(f"`max_images` must be at least 1. Received: {max_images}.")
        keys = np.zeros(len(self), np.uint64)
        many = (self.counts > max_images)[self.labels]
        keys[many] = _hashes(compress(self.paths, many.tolist()), seed)
        order = np.lexsort((keys, self.labels))
        ranks = np.empty(len(self), np.int64)
        ranks[order] = np.arange(len(self)) - np.repeat(np.cumsum(self.counts) - self.counts, self.counts)
        return self.keep(ranks < max_images)

    def describe(self, trains: bool = True) -> str:
        """The index in words: how many people and pictures, how they are spread, and what each can be used for.

        Args:
            trains: whether the people are to train; others are to be paired.
        """
        if not self.people:
            return "no pictures of anybody"
        fewest, middle, most = self.counts.min(), float(np.median(self.counts)), self.counts.max()
        text = f"{len(self):,} pictures of {len(self.people):,} people"
        if fewest == most:
            return f"{text}, {fewest:,} each"
        text += f", {fewest:,} to {most:,} each (median {middle:,.4g})"
        if tenth := len(self.people) // 10:
            share = np.sort(self.counts)[-tenth:].sum() / len(self)
            text += f"; the tenth of the people with the most hold {share:.0%} of the pictures"
        if single := int((self.counts == 1).sum()):
            several, pictures = len(self.people) - single, len(self) - single
            use = "who serve as negatives only" if trains else "who are in impostor pairs only"
            text += f"; {several:,} have several ({pictures:,} pictures), {single:,} one, {use}"
        return text


def _hashes(texts: Iterable[str], seed: int) -> NDArray[np.uint64]:
    """A number for each text, random over seeds and texts: a checksum, mixed with the seed by SplitMix64."""
    sums = np.array([zlib.crc32(text.encode("utf-8", "surrogatepass")) for text in texts], np.uint64)
    mixed = sums + np.uint64(seed % 2**32) * np.uint64(2**32)
    # Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators", with Stafford's mix 13.
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def index_people(root: Path, setting: str = "train_dir", fresh: bool = False) -> PeopleIndex:
    """List the pictures of a folder of people: `root/person/picture.jpg`.

    Links are followed. Hidden names, names without a picture's suffix, and folders within a person's are not
    looked at; a name like a picture's that is no file is counted in `passed_over`.

    Args:
        root: the folder.
        setting: the setting that named it, for messages.
        fresh: list every folder again, whatever is kept from an earlier run.

    Raises:
        ValueError: missing, empty, without folders of people, with a single person, or a folder cannot be listed.
    """
    if not root.is_dir():
        raise ValueError(
            f"{root}: there is no such folder. Set `{setting}` to a folder with one folder a person inside; "
            "`make train` draws people to try with."
        )
    old = None if fresh else index_file.read(root)
    listing = _list(root, old)
    if old is None or not np.array_equal(old.stamps, listing.stamps) or old.folders != listing.folders:
        index_file.write(root, listing)
    there = listing.counts > 0
    people = list(compress(listing.folders, there.tolist()))
    labels = np.repeat(np.arange(len(people)), listing.counts[there])
    _check(root, setting, people, listing)
    passed_over = int(listing.passed_over.sum())
    return PeopleIndex(root, people, listing.paths, labels, listing.sizes, listing.times, passed_over)


def _check(root: Path, setting: str, people: Sequence[str], listing: Listing) -> None:
    if not people:
        loose = any(_is_picture(entry.name) for entry in root.iterdir())
        what = "holds pictures but no folders of people" if loose else "holds no pictures in folders of people"
        lost = int(listing.passed_over.sum())
        links = (
            f" {lost:,} names there lead to no file: are they links to a disk that is not there?" if lost else ""
        )
        raise ValueError(f"{root}: {what}. Expected `{setting}`/person/picture.jpg.{links}")
    if len(people) < 2:
        raise ValueError(
            f"{root}: holds a single person ({people[0]}, {len(listing.paths)} pictures). Training compares "
            "people: add at least one more folder."
        )


# What is kept of one folder: paths, sizes, times, and how many names were passed over.
_Part = tuple[list[str], NDArray[np.int64], NDArray[np.int64], int]


def _list(root: Path, old: Listing | None) -> Listing:
    """List the folders in a folder; those that an old listing knows by the same stamp are taken from there."""
    # Stamps first, names after: a change in between shows in the next stamp.
    stamps = _stamps(root, time.time_ns() - _SETTLED_NS)
    known = {} if old is None else _known(old)
    same = {folder for folder, (stamp, _) in known.items() if stamps.get(folder) == stamp != _FRESH}
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="index") as threads:
        again = threads.map(lambda folder: _pictures(root, folder), [name for name in stamps if name not in same])
        parts = [known[folder][1] if folder in same else next(again) for folder in stamps]
    paths, sizes, times, passed_over = zip(*parts, strict=True) if parts else ((), (), (), ())
    return Listing(
        list(stamps),
        np.array(list(stamps.values()), np.int64).reshape(-1, len(_FRESH)),
        np.fromiter(map(len, paths), np.int64, len(paths)),
        np.array(passed_over, np.int64),
        list(chain.from_iterable(paths)),
        np.concatenate([_no_numbers(), *sizes]),
        np.concatenate([_no_numbers(), *times]),
    )


def _known(old: Listing) -> dict[str, tuple[tuple[int, ...], _Part]]:
    """Of each folder of a listing its stamp and its part."""
    ends = np.cumsum(old.counts)
    rows = zip(
        old.stamps.tolist(), (ends - old.counts).tolist(), ends.tolist(), old.passed_over.tolist(), strict=True
    )
    return {
        folder: (tuple(stamp), (old.paths[start:end], old.sizes[start:end], old.times[start:end], passed_over))
        for folder, (stamp, start, end, passed_over) in zip(old.folders, rows, strict=True)
    }


def _stamps(root: Path, settled: int) -> dict[str, tuple[int, ...]]:
    """Of each visible folder in a folder, sorted, what changes with its entries; `_FRESH` of one changed lately.

    Args:
        root: the folder.
        settled: a time, in nanoseconds since 1970; a folder that changed later may change without a trace.
    """
    stamps = {}
    for entry in _entries(root):
        status = None if entry.name.startswith(".") else _status(entry)
        if status is not None and stat.S_ISDIR(status.st_mode):
            numbers = (status.st_ino & _POSITIVE, status.st_dev & _POSITIVE)  # some disks number up to 2^64
            stamp = (status.st_mtime_ns, status.st_ctime_ns, *numbers)
            stamps[entry.name] = stamp if max(stamp[:2]) < settled else _FRESH
    return dict(sorted(stamps.items()))


def _pictures(root: Path, folder: str) -> _Part:
    """The pictures in a folder, by name."""
    found, passed_over = [], 0
    for entry in _entries(root / folder):
        if _is_picture(entry.name):
            status = _status(entry)
            if status is not None and stat.S_ISREG(status.st_mode):
                found.append((f"{folder}/{entry.name}", status.st_size, status.st_mtime_ns))
            else:
                passed_over += 1
    paths, sizes, times = zip(*sorted(found), strict=True) if found else ((), (), ())
    return list(paths), np.array(sizes, np.int64), np.array(times, np.int64), passed_over


def _is_picture(name: str) -> bool:
    """As `facekit.images.is_picture`, without a Path for each of half a million names."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot be listed ({error.strerror}). Allow yourself to read it, or move it elsewhere."
        ) from None


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    """What a name leads to, links followed; None where it leads nowhere."""
    try:
        return entry.stat()
    except OSError as error:
        if isinstance(error, FileNotFoundError) or entry.is_symlink():
            return None
        raise ValueError(
            f"{entry.path}: cannot be looked at ({error.strerror}). Allow yourself to read its folder, or move it "
            "elsewhere."
        ) from None
