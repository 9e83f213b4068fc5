"""A folder of people as lists: who there is, and which pictures are whose."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekit.images import is_picture


@dataclass(frozen=True)
class PeopleIndex:
    """Pictures by person.

    Attributes:
        root: the folder that holds a folder a person.
        people: names of the people, sorted.
        paths: (n) pictures, relative to `root`, "/" between parts, sorted.
        labels: (n,) int64, position in `people` of each picture's person.
    """

    root: Path
    people: list[str]
    paths: list[str]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(people,) pictures of each person."""
        return np.bincount(self.labels, minlength=len(self.people))

    @property
    def digest(self) -> str:
        """SHA-256 of all names: tells whether two runs saw the same list of pictures."""
        return hashlib.sha256("\n".join(self.paths).encode()).hexdigest()

    def choose(self, chosen: NDArray[np.bool_]) -> PeopleIndex:
        """The index of some of the people: (people,) bool."""
        kept = chosen[self.labels]
        numbers = np.cumsum(chosen) - 1
        return PeopleIndex(
            self.root,
            [name for name, keep in zip(self.people, chosen, strict=True) if keep],
            [path for path, keep in zip(self.paths, kept, strict=True) if keep],
            numbers[self.labels[kept]],
        )

    def without(self, names: Sequence[str]) -> PeopleIndex:
        """The index without the people of these names."""
        excluded = set(names)
        return self.choose(np.array([name not in excluded for name in self.people]))

    def describe(self) -> str:
        """The index in words: how many people and pictures, and what each can be used for."""
        if not self.people:
            return "no pictures of anybody"
        several = self.counts >= 2
        text = f"{len(self):,} pictures of {len(self.people):,} people"
        if several.all():
            fewest, most = self.counts.min(), self.counts.max()
            return f"{text}, {fewest:,} each" if fewest == most else f"{text}, {fewest:,} to {most:,} each"
        return (
            f"{text}: {several.sum():,} with several ({self.counts[several].sum():,} pictures), "
            f"{(~several).sum():,} with one picture, who serve as negatives only"
        )


def index_people(root: Path, setting: str = "train_dir") -> PeopleIndex:
    """List the pictures of a folder of people: `root/person/picture.jpg`.

    Args:
        root: the folder.
        setting: the setting that named it, for messages.

    Raises:
        ValueError: missing, empty, without folders of people, or with a single person.
    """
    if not root.is_dir():
        raise ValueError(
            f"{root}: there is no such folder. Set `{setting}` to a folder with one folder a person inside; "
            "`make train` draws people to try with."
        )
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    people: list[str] = []
    paths: list[str] = []
    labels: list[int] = []
    for folder in folders:
        names = sorted(entry.name for entry in folder.iterdir() if is_picture(entry))
        if names:
            labels += [len(people)] * len(names)
            people.append(folder.name)
            paths += [f"{folder.name}/{name}" for name in names]
    if not people:
        loose = any(is_picture(entry) for entry in root.iterdir())
        what = "holds pictures but no folders of people" if loose else "holds no pictures in folders of people"
        raise ValueError(f"{root}: {what}. Expected `{setting}`/person/picture.jpg.")
    if len(people) < 2:
        raise ValueError(
            f"{root}: holds a single person ({people[0]}, {len(paths)} pictures). Training compares people: "
            "add at least one more folder."
        )
    return PeopleIndex(root, people, paths, np.array(labels, np.int64))
