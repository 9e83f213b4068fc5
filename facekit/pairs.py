"""Pairs of pictures with the truth about each, and what can be wrong with a list of them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_IDLE = re.compile(r"//|(^|/)\./|/\.?$")  # the parts of a path that change nothing


def as_posix(text: str) -> str:
    """A path as lists write it, with "/" for each backslash and without idle parts: `./a//1.jpg` is `a/1.jpg`."""
    path = text.strip().replace("\\", "/")
    return PurePosixPath(path).as_posix() if _IDLE.search(path) else path  # the first is slow, the second usual


def plain_name(name: str) -> str:
    """A person's name in the form in which names are compared.

    Letter case, the encoding of accents, and the choice among spaces, dashes and underscores are evened out:
    `George_W_Bush` and `george w-bush` are one person. Nothing else is, so `Jean` and `Jean 2` stay two.
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\s_\u2010-\u2015-]+", " ", folded).strip()


@dataclass(frozen=True)
class Pairs:
    """Pairs of pictures with the truth about each.

    Attributes:
        first: (n) path of one picture of each pair, relative to the folder of pictures, "/" between parts.
        second: (n) path of the other.
        same: (n,) bool, True for the same person.
        folds: (n,) int fold of each pair as the file has it; None where it has none.
        ids1: (n) name of each pair's first person, where the file says it; None: see `people`.
        ids2: (n) of the second.
        groups: (n) name of the group that each pair counts for, "" for none; None where the file has none.
        warnings: what the reader found that bears on the figures, a sentence each.
    """

    first: list[str]
    second: list[str]
    same: NDArray[np.bool_]
    folds: NDArray[np.int64] | None = None
    ids1: list[str] | None = None
    ids2: list[str] | None = None
    groups: list[str] | None = None
    warnings: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.first)

    def pictures(self) -> list[str]:
        """Every picture of any pair once, sorted."""
        return sorted({*self.first, *self.second})

    def people(self) -> tuple[list[str], list[str]] | None:
        """The person of each picture: two lists of n names.

        The file's own names where it has them, else the pictures' folders; None where folders aren't people.
        """
        if self.ids1 is not None and self.ids2 is not None:
            return self.ids1, self.ids2
        folders = {path: Path(path).parent.as_posix() for path in {*self.first, *self.second}}
        first, second = ([folders[path] for path in paths] for paths in (self.first, self.second))
        told = [one == two for one, two in zip(first, second, strict=True)]
        return (first, second) if told == self.same.tolist() and "." not in {*first, *second} else None

    def without(self, pictures: Collection[str]) -> Pairs:
        """The pairs in which none of these pictures takes part."""
        lost = set(pictures)
        return self.chosen([lost.isdisjoint(pair) for pair in zip(self.first, self.second, strict=True)])

    def without_people(self, names: Iterable[str]) -> Pairs:
        """The pairs in which none of these people takes part; names are compared by `plain_name`.

        Raises:
            ValueError: nobody knows the pairs' people, or no pair is left.
        """
        people = self.people()
        if people is None:
            raise ValueError(
                "People cannot be left out of these pairs: the file names none, and the pictures' folders are not "
                "people. Add the columns id1 and id2 to the pairs file."
            )
        lost = {plain_name(name) for name in names}
        plain = {name: plain_name(name) for name in {*people[0], *people[1]}}
        kept = [plain[one] not in lost and plain[two] not in lost for one, two in zip(*people, strict=True)]
        if not any(kept):
            raise ValueError(f"No pair is left: each of the {len(self)} pairs has a person of the exclusion list.")
        return self.chosen(kept)

    def chosen(self, which: Sequence[bool] | NDArray[np.bool_]) -> Pairs:
        """The pairs of a mask (n,) bool."""
        mask = np.asarray(which, np.bool_)

        def kept(names: list[str]) -> list[str]:
            return [name for name, keep in zip(names, mask.tolist(), strict=True) if keep]

        ids1, ids2, groups = (
            None if names is None else kept(names) for names in (self.ids1, self.ids2, self.groups)
        )
        folds = None if self.folds is None else self.folds[mask]
        return replace(
            self,
            first=kept(self.first),
            second=kept(self.second),
            same=self.same[mask],
            folds=folds,
            ids1=ids1,
            ids2=ids2,
            groups=groups,
        )


class Fault(NamedTuple):
    """What is wrong with a list of pairs, and what to do about it."""

    words: str
    advice: str


def pair_faults(
    first: Sequence[str], second: Sequence[str], same: NDArray[np.bool_], where: Callable[[int], str]
) -> list[Fault]:
    """Find pairs that distort figures: a picture with itself, one pair labelled both ways, a pair twice.

    The order of a pair's pictures is of no matter.

    Args:
        first: (n) one picture of each pair.
        second: (n) the other.
        same: (n,) bool.
        where: gives a pair's place in words, such as "line 3".

    Returns:
        At most one fault of each kind, in the order above: the place of its first case, and how many there are.
    """
    seen: dict[tuple[str, str], int] = {}
    selves: list[int] = []
    contradictions: list[tuple[int, int]] = []
    repeats: list[tuple[int, int]] = []
    for row, (one, two, label) in enumerate(zip(first, second, same.tolist(), strict=True)):
        if one == two:
            selves.append(row)
        earlier = seen.setdefault((one, two) if one <= two else (two, one), row)
        if earlier != row:
            (repeats if same[earlier] == label else contradictions).append((row, earlier))
    faults = []
    if selves:
        row = selves[0]
        words = f"{where(row)}: compares {first[row]} with itself{_in_all(selves)}"
        faults.append(Fault(words, "Remove the line: it says nothing about a model."))
    if contradictions:
        row, earlier = contradictions[0]
        words = f"{where(row)}: is the pair of {where(earlier)} ({first[row]}, {second[row]}) with the other label"
        faults.append(Fault(words + _in_all(contradictions), "Keep the line that is right."))
    if repeats:
        row, earlier = repeats[0]
        words = f"{where(row)}: repeats the pair of {where(earlier)} ({first[row]}, {second[row]})"
        faults.append(Fault(words + _in_all(repeats), "Remove one of the lines: a pair counts once."))
    return faults


def _in_all(cases: Sequence[object]) -> str:
    return f"; {len(cases)} such cases in all" if len(cases) > 1 else ""


def refuse_faults(
    path: Path, first: Sequence[str], second: Sequence[str], same: NDArray[np.bool_], where: Callable[[int], str]
) -> None:
    """Raise ValueError for the first of a file's `pair_faults`."""
    for fault in pair_faults(first, second, same, where):
        raise ValueError(f"{path}, {fault.words}. {fault.advice}")


def fold_fault(folds: NDArray[np.int64], same: NDArray[np.bool_]) -> Fault | None:
    """Why folds cannot serve: there is only one, or one holds a single class (where the whole holds both).

    Args:
        folds: (n,) int fold of each pair.
        same: (n,) bool.
    """
    names, members = np.unique(folds, return_inverse=True)
    if names.size < 2:
        return Fault(
            f"all pairs are of one fold ({names[0]})", "Name at least two folds, or remove the fold column."
        )
    genuine = np.bincount(members, same)
    sizes = np.bincount(members)
    lacking = np.flatnonzero((genuine == 0) | (genuine == sizes))
    if lacking.size and 0 < genuine.sum() < same.size:
        kind = "impostor" if genuine[lacking[0]] == 0 else "genuine"
        return Fault(
            f"fold {names[lacking[0]]} has {kind} pairs only",
            "Give every fold pairs of both kinds, or remove the fold column.",
        )
    return None


def refuse_folds(path: Path, folds: NDArray[np.int64] | None, same: NDArray[np.bool_]) -> None:
    """Raise ValueError for a file's `fold_fault`, if it has folds and one."""
    fault = None if folds is None else fold_fault(folds, same)
    if fault is not None:
        raise ValueError(f"{path}: {fault.words}. {fault.advice}")


def fold_warnings(folds: NDArray[np.int64] | None) -> list[str]:
    """A warning where folds differ in size: a mean over folds then weighs pairs unequally."""
    sizes = np.unique(folds, return_counts=True)[1] if folds is not None else np.zeros(1, np.int64)
    if sizes.min() == sizes.max():
        return []
    return [
        f"The {sizes.size} folds are of unequal size ({sizes.min():,} to {sizes.max():,} pairs): in the mean "
        "accuracy over folds, a pair of a small fold weighs more."
    ]
