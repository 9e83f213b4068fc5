"""Error rates by group: FMR and FNMR of each sex, age band, ethnicity, camera, or whatever is known of pictures.

One threshold for all, as in use. A pair belongs to a group where both its pictures do, so that a group's FMR is of
impostors from the same group, who resemble each other most. How far rates differ is told by the ratio of the
highest to the lowest, as in NIST's demographic reports (FRVT Part 3, NISTIR 8280, 2019; Part 8, NISTIR 8429, 2022).
Counts, threshold and uncertainty stand beside each rate, as ISO/IEC 19795-10:2024 asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facekit.bootstrap import bootstrap_interval
from facekit.intervals import Ends, rate_interval
from facekit.metrics import BoolArray, FloatArray, IntArray
from facekit.scored import ScoredPairs

LEAST_PAIRS = 30
"""Below so many pairs, not even a rate of 0.1 can be told from 0 (rule of three)."""
MIXED = "mixed pairs"

Rate = Literal["FMR", "FNMR"]
RATES: tuple[Rate, ...] = ("FMR", "FNMR")

_KIND = {"FMR": "impostor", "FNMR": "genuine"}
# Where a pair is in no group: its pictures are of two, or one's value is unknown.
_TWO_GROUPS, _UNKNOWN = -1, -2


@dataclass(frozen=True)
class GroupRow:
    """The errors of one group's pairs.

    Attributes:
        column: what the groups are of, such as "sex".
        group: the value, or `MIXED`.
        mixed: whether these are the pairs of two groups.
        genuine: genuine pairs, failed ones included.
        impostor: impostor pairs, likewise.
        false_matches: impostor pairs accepted.
        false_non_matches: genuine pairs rejected, failed ones included.
        fmr: false-match rate; None where there are too few pairs to state one.
        fmr_interval: its 95 % interval; None likewise.
        fnmr: false-non-match rate, likewise.
        fnmr_interval: its 95 % interval; None likewise.
        note: what the row lacks, in words, such as "FMR needs 300 impostor pairs"; "" where nothing.
    """

    column: str
    group: str
    mixed: bool
    genuine: int
    impostor: int
    false_matches: int
    false_non_matches: int
    fmr: float | None
    fmr_interval: Ends | None
    fnmr: float | None
    fnmr_interval: Ends | None
    note: str


@dataclass(frozen=True)
class WorstRatio:
    """The highest rate of a column's groups, divided by the lowest.

    Attributes:
        column: what the groups are of.
        rate: "FMR" or "FNMR".
        highest: the group of the highest rate; None where no ratio can be told.
        lowest: the group of the lowest, likewise.
        ratio: highest / lowest; None where no ratio can be told.
        at_least: whether the lowest group had no error: the ratio is then to the upper end of its interval.
        interval: 95 % interval of the ratio of these two groups, people drawn once for both. An end of None has no
            bound. The two were picked for being extreme: among many groups, equal ones seem to differ too.
        groups: how many groups had enough pairs to take part.
        text: all of it in a sentence.
    """

    column: str
    rate: Rate
    highest: str | None
    lowest: str | None
    ratio: float | None
    at_least: bool
    interval: tuple[float, float | None] | None
    groups: int
    text: str


@dataclass(frozen=True)
class GroupTable:
    """Error rates by group at one threshold.

    Attributes:
        rows: a row a group, in alphabetical order within each column, the mixed pairs last.
        ratios: of each column, the worst ratio of FMR and of FNMR.
        notes: what to know of the table, a sentence each.
        by: "identity"; "pair" where people are unknown, and intervals take pairs as independent.
    """

    rows: list[GroupRow]
    ratios: list[WorstRatio]
    notes: list[str]
    by: str

    def to_rows(self) -> list[dict[str, Any]]:
        """The rows as JSON values: the attributes of `GroupRow`."""
        return [asdict(row) for row in self.rows]

    def ratio_rows(self) -> list[dict[str, Any]]:
        """The ratios as JSON values: the attributes of `WorstRatio`."""
        return [asdict(ratio) for ratio in self.ratios]

    def worst_ratio(self, column: str, rate: Rate = "FMR") -> WorstRatio:
        """One of the ratios. Raises KeyError where there is no such column."""
        return {(ratio.column, ratio.rate): ratio for ratio in self.ratios}[column, rate]


def rates_by_group(
    scored: ScoredPairs, threshold: float, groups: Mapping[str, tuple[ArrayLike, ArrayLike]]
) -> GroupTable:
    """FMR and FNMR of each group at one threshold, failed pairs counting as rejected.

    A rate is stated for groups that could show it: of at least `LEAST_PAIRS` pairs, and at least 3 / r, where r is
    the rate of the column's groups together: with fewer, a group as error-prone as the others has no error at all
    more often than one time in twenty. What a group has to show is thus the same for all. Only groups whose rate
    is stated take part in the ratio.

    Args:
        scored: n pairs.
        threshold: the internal distance below which a pair is accepted; chosen on other pairs.
        groups: of each column, the group of each pair's first and second picture, two (n,) arrays of str; "" where
            it is unknown: such pairs are in no row, and counted in the notes.

    Raises:
        ValueError: `threshold` is NaN, there is no column, or one has not n entries.
    """
    if math.isnan(threshold):
        raise ValueError("`threshold` must be a number: rates by group are of one threshold. Received: NaN.")
    if not groups:
        raise ValueError("There is no column of groups.")
    accepted, people = scored.ranked < threshold, scored.people
    columns = [
        _Column(name, scored.same, accepted, people, *_places(name, groups[name], len(scored))) for name in groups
    ]
    return GroupTable(
        rows=[row for column in columns for row in column.rows()],
        ratios=[column.worst_ratio(rate) for column in columns for rate in RATES],
        notes=[note for column in columns for note in column.notes()],
        by="pair" if people is None else "identity",
    )


def _places(column: str, sides: tuple[ArrayLike, ArrayLike], pairs: int) -> tuple[list[str], IntArray]:
    """The column's groups, sorted, and (n,) the place of each pair's group among them, or why it has none."""
    first, second = (np.asarray(side, dtype=np.str_) for side in sides)
    if first.shape != (pairs,) or second.shape != (pairs,):
        raise ValueError(
            f"`{column}` must name the group of both pictures of {pairs:,} pairs. Received: shapes {first.shape} "
            f"and {second.shape}."
        )
    names = sorted({*first.tolist(), *second.tolist()} - {""})
    place_of = {name: place for place, name in enumerate(names)} | {"": _UNKNOWN}
    left, right = (np.array([place_of[name] for name in side.tolist()], np.int64) for side in (first, second))
    unknown = (left == _UNKNOWN) | (right == _UNKNOWN)
    return names, np.where(unknown, _UNKNOWN, np.where(left == right, left, _TWO_GROUPS))


class _Told(NamedTuple):
    """What can be told of one rate in one group; NaN where there are too few pairs to state it."""

    pairs: int
    errors: int
    value: float
    interval: Ends

    @property
    def stated(self) -> bool:
        return not math.isnan(self.value)


@dataclass(frozen=True, eq=False)
class _Column:
    """One column's pairs, of which its rows, ratios and notes are made."""

    name: str
    same: BoolArray
    accepted: BoolArray
    people: tuple[IntArray, IntArray] | None
    groups: list[str]
    places: IntArray

    def rows(self) -> list[GroupRow]:
        places = [*range(len(self.groups)), _TWO_GROUPS]
        return [self.row(place) for place in places if (self.places == place).any()]

    def row(self, place: int) -> GroupRow:
        match, non_match = (self.told[place, rate] for rate in RATES)
        mixed = place == _TWO_GROUPS
        lacks = [
            f"{rate} needs {self.needed[rate]:,} {_KIND[rate]} pairs"
            for rate, told in zip(RATES, (match, non_match), strict=True)
            if not told.stated and not (mixed and told.pairs == 0)
        ]
        return GroupRow(
            column=self.name,
            group=MIXED if mixed else self.groups[place],
            mixed=mixed,
            genuine=non_match.pairs,
            impostor=match.pairs,
            false_matches=match.errors,
            false_non_matches=non_match.errors,
            fmr=match.value if match.stated else None,
            fmr_interval=match.interval if match.stated else None,
            fnmr=non_match.value if non_match.stated else None,
            fnmr_interval=non_match.interval if non_match.stated else None,
            note="; ".join(lacks),
        )

    @cached_property
    def needed(self) -> dict[Rate, int]:
        """How many pairs a group must have for its rate to be stated."""
        numbers = {}
        for rate in RATES:
            of, wrong = self.judged(self.places >= 0, rate)
            errors = int(wrong.sum())
            numbers[rate] = max(LEAST_PAIRS, math.ceil(3 * of.size / errors)) if errors else LEAST_PAIRS
        return numbers

    @cached_property
    def told(self) -> dict[tuple[int, Rate], _Told]:
        """Both rates of each group, and of the mixed pairs."""
        places = [*range(len(self.groups)), _TWO_GROUPS]
        return {(place, rate): self.tell(place, rate) for place in places for rate in RATES}

    def tell(self, place: int, rate: Rate) -> _Told:
        of, wrong = self.judged(self.places == place, rate)
        errors = int(wrong.sum())
        if of.size < self.needed[rate]:
            return _Told(of.size, errors, math.nan, (math.nan, math.nan))
        return _Told(of.size, errors, errors / of.size, rate_interval(wrong, *self.people_of(of)))

    def judged(self, members: BoolArray, rate: Rate) -> tuple[IntArray, BoolArray]:
        """Which of some pairs (n,) a rate is of, and which of these are decided wrong."""
        of = np.flatnonzero(members & (~self.same if rate == "FMR" else self.same))
        return of, self.accepted[of] != self.same[of]

    def people_of(self, pairs: IntArray) -> tuple[IntArray, IntArray] | tuple[None, None]:
        return (None, None) if self.people is None else (self.people[0][pairs], self.people[1][pairs])

    def notes(self) -> list[str]:
        notes = []
        unknown, mixed = self.places == _UNKNOWN, self.places == _TWO_GROUPS
        if unknown.any():
            notes.append(
                f"{self.name}: {unknown.sum():,} of {unknown.size:,} pairs have a picture whose value is unknown; "
                "they are in no group."
            )
        if mixed.any() and not self.same[mixed].any():
            notes.append(
                f"{self.name}: the {mixed.sum():,} mixed pairs, of two groups, are impostor pairs only: they have "
                "no FNMR."
            )
        return notes

    def worst_ratio(self, rate: Rate) -> WorstRatio:
        told = {place: self.told[place, rate] for place in range(len(self.groups))}
        stated = {place: found for place, found in told.items() if found.stated}
        if len(stated) < 2 or not any(found.errors for found in stated.values()):
            why = (
                f"none of {len(stated)} groups has an error"
                if len(stated) > 1
                else f"fewer than two groups have the {self.needed[rate]:,} {_KIND[rate]} pairs that it needs"
            )
            text = f"{self.name}: no ratio of {rate} can be told, as {why}."
            return WorstRatio(self.name, rate, None, None, None, False, None, len(stated), text)
        lowest, *_, highest = sorted(stated, key=lambda place: stated[place].value)
        high, low = stated[highest], stated[lowest]
        ends: tuple[float, float | None]
        if low.errors:
            ratio, ends = high.value / low.value, self.ratio_interval(highest, lowest, rate)
        else:
            ratio, ends = high.value / low.interval[1], (high.interval[0] / low.interval[1], None)
        names = self.groups[highest], self.groups[lowest]
        text = f"{self.name}: {_ratio_words(rate, names, (high, low), ratio, ends)}"
        if len(stated) > 2:
            text += f" They are the extremes of {len(stated)} groups."
        return WorstRatio(self.name, rate, *names, ratio, low.errors == 0, ends, len(stated), text)

    def ratio_interval(self, highest: int, lowest: int, rate: Rate) -> tuple[float, float | None]:
        """95 % interval of the ratio of two groups' rates, people drawn once for both."""
        of, wrong = self.judged((self.places == highest) | (self.places == lowest), rate)
        top = self.places[of] == highest
        ids1, ids2 = self.people_of(of)
        low, high = bootstrap_interval(_share_of_first(wrong, top), of.size, ids1, ids2)
        # A quantile of high / (high + low) is a quantile of high / low, even where a draw has low = 0.
        return float(low / (1 - low)), float(high / (1 - high)) if high < 1 else None


def _share_of_first(wrong: BoolArray, first: BoolArray) -> Callable[[FloatArray], float]:
    """The first group's error rate, divided by the sum of both groups', as a function of the pairs' weights."""
    kinds = 2 * first.astype(np.int64) + wrong

    def statistic(weights: FloatArray) -> float:
        right_second, wrong_second, right_first, wrong_first = np.bincount(kinds, weights, 4)
        of_first, of_second = right_first + wrong_first, right_second + wrong_second
        # Rates times both numbers of pairs; without pairs of a group, or without errors, there is no ratio.
        one, two = wrong_first * of_second, wrong_second * of_first
        return float(one / (one + two)) if of_first and of_second and one + two else math.nan

    return statistic


def _ratio_words(
    rate: Rate, names: tuple[str, str], told: tuple[_Told, _Told], ratio: float, ends: tuple[float, float | None]
) -> str:
    high, low = told
    if low.errors:
        bound = "no upper bound" if ends[1] is None else f"{ends[1]:.2f}"
        words = (
            f"{rate} is {ratio:.2f} times as high for {names[0]} ({high.value:.4f}) as for {names[1]} "
            f"({low.value:.4f}); 95 % interval {ends[0]:.2f} to {bound}."
        )
    else:
        words = (
            f"{rate} is at least {ratio:.2f} times as high for {names[0]} ({high.value:.4f}) as for {names[1]}, "
            f"which had no error in {low.pairs:,} pairs."
        )
    return words if ends[0] > 1 else f"{words} The difference may be chance."
