"""95 % intervals of error rates and thresholds from counted errors: nothing is drawn at random.

n independent pairs have the exact interval of Clopper and Pearson (1934). It also holds the true false-match rate
of a threshold that was chosen on the same pairs, as the largest within a target: that rate is a beta variable, and
the interval spans its 95 %.

Pairs that share people are not independent: n of them tell as much as rate (1 - rate) / variance independent ones.
The exact interval of that effective number is given (Korn and Graubard 1998, Survey Methodology 24(2), with their
correction by Student's t for few people). The variance is the one that the bootstrap over people comes to with many
draws (Owen 2007, Annals of Applied Statistics 1(2)):

    (sum over people i of S_i^2 + sum over couples of people ij of S_ij^2) / n^2,

S_i being the sum of (error - rate) over the pairs of person i, and S_ij over the impostor pairs of i and j. It errs
on the wide side, which rare errors of few people need: where people do not matter, the interval of a rate of
impostor pairs is sqrt(3) times as wide as need be, and up to 2.7 times at a handful of errors. Where very few
people cause most errors, a rate below 0.01 still has too narrow an interval: who they are is chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, btdtria, btdtrib, stdtrit

from facekit.folds import number_people
from facekit.metrics import BoolArray, FloatArray, IntArray, check_pairs
from facekit.thresholds import threshold_at_fmr

LEVEL = 0.95
_TAIL = (1 - LEVEL) / 2

Ends = tuple[float, float]


def binomial_interval(errors: float, trials: float) -> Ends:
    """The exact 95 % interval of the rate behind a count of independent trials (Clopper and Pearson 1934).

    Args:
        errors: 0 to `trials`. Effective counts need not be whole.
        trials: above 0.

    Raises:
        ValueError: a count is outside its range.
    """
    if not trials > 0 or not 0 <= errors <= trials:
        raise ValueError(f"`trials` must be above 0 and `errors` 0 to `trials`. Received: {trials} and {errors}.")
    low = float(betaincinv(errors, trials - errors + 1, _TAIL)) if errors else 0.0
    high = float(betaincinv(errors + 1, trials - errors, 1 - _TAIL)) if errors < trials else 1.0
    return low, high


def rate_interval(errors: ArrayLike, ids1: ArrayLike | None = None, ids2: ArrayLike | None = None) -> Ends:
    """The 95 % interval of an error rate: FMR of impostor pairs, FNMR of genuine ones.

    Without any error, it is that of the effective number which one error would leave: the upper end is then
    3.7 / n for independent pairs, and 11 / n for impostor pairs of known people.

    Args:
        errors: (n,) bool, which pairs were decided wrongly. All are of one kind.
        ids1: (n,) name or number of each pair's first person. None: pairs count as independent.
        ids2: (n,) of the second person, equal to `ids1` in genuine pairs and in no others.

    Returns:
        (low, high), 0 to 1; NaN without pairs.

    Raises:
        ValueError: lengths differ, or one of `ids1` and `ids2` is missing.
    """
    wrong = np.asarray(errors, dtype=np.bool_)
    return SharedPeople(wrong.size, ids1, ids2).rate_interval(wrong, np.ones_like(wrong))


def threshold_interval(
    distances: ArrayLike, same: ArrayLike, fmr: float, ids1: ArrayLike | None = None, ids2: ArrayLike | None = None
) -> Ends:
    """The 95 % interval of the threshold whose true false-match rate is a target (Woodruff 1952, JASA 47).

    Its ends are the thresholds whose measured rates are the ends of the rate's interval. Where the impostor pairs
    are too few to bound it from below, the low end is the smallest distance of all pairs.

    Args:
        distances: (n,) float.
        same: (n,) bool.
        fmr: the target, in (0, 1), as in `facekit.thresholds.threshold_at_fmr`.
        ids1: (n,) first person of each pair. None: pairs count as independent.
        ids2: (n,) second person of each pair.

    Returns:
        (low, high); NaN with one class.

    Raises:
        ValueError: `fmr` is outside (0, 1), lengths differ, or one of `ids1` and `ids2` is missing.
    """
    values, labels = check_pairs(distances, same)
    people = SharedPeople(values.size, ids1, ids2)
    threshold = threshold_at_fmr(values, labels, fmr).threshold
    if np.isnan(threshold):
        return np.nan, np.nan
    trials = people.spread((values < threshold) & ~labels, ~labels).effective_pairs
    low, high = binomial_interval(fmr * trials, trials)
    impostor = np.sort(values[~labels])
    below, within = int(low * impostor.size), max(int(high * impostor.size), 1)
    return float(impostor[below - 1] if below else values.min()), float(impostor[within - 1])


def prediction_interval(
    false_matches: ArrayLike,
    pairs: int,
    people: int | None = None,
    ids1: ArrayLike | None = None,
    ids2: ArrayLike | None = None,
) -> Ends:
    """The 95 % prediction interval of the FMR that the same threshold will show on a second sample.

    The second sample is of other people of the same population, with about as many pictures each, its pairs made
    alike (all of them, or drawn at random). The interval holds the chance of both samples, as that of one Poisson
    count given another (Nelson 1970, IEEE Transactions on Reliability R-19), with effective numbers in place of
    counts. It also holds where the threshold was chosen on the first sample, as the largest within a target.

    Args:
        false_matches: (n,) bool, n at least 2, which impostor pairs of the first sample were accepted.
        pairs: how many impostor pairs the second sample has.
        people: how many people it has. None where `ids1` is.
        ids1: (n,) first person of each pair of the first sample. None: pairs count as independent.
        ids2: (n,) second person of each pair, never the first.

    Returns:
        (low, high), 0 to 1.

    Raises:
        ValueError: there are too few pairs or people, lengths differ, or `people`, `ids1` or `ids2` is missing.
    """
    wrong = np.asarray(false_matches, dtype=np.bool_)
    if wrong.size < 2 or pairs < 1:
        raise ValueError(
            "A prediction needs at least 2 impostor pairs in the first sample and 1 in the second. "
            f"Received: {wrong.size} and {pairs}."
        )
    if (people is None) != (ids1 is None) or (people is not None and people < 2):
        raise ValueError(f"`people` must be at least 2 with `ids1` and `ids2`, None without. Received: {people}.")
    spread = SharedPeople(wrong.size, ids1, ids2).spread(wrong, np.ones_like(wrong))
    second_variance = spread.by_people * spread.people / (people or pairs) + spread.by_pairs * wrong.size / pairs
    # The variance of a Poisson count's rate is rate / trials: as many trials as have the variances at hand.
    first = spread.caution * spread.rate / (spread.by_people + spread.by_pairs)
    second = spread.caution * spread.rate / second_variance
    count, share = float(wrong.mean()) * first, first / (first + second)
    low = (float(btdtrib(count, _TAIL, share)) - 1) / second if count else 0.0
    return max(low, 0.0), min(float(btdtria(_TAIL, count + 1, 1 - share)) / second, 1.0)


@dataclass(frozen=True)
class Spread:
    """The variance of an error rate, and what it comes from.

    Attributes:
        rate: the error rate, above 0 and below 1: where all pairs are alike, that of a single one that is not.
        pairs: how many it is the rate of.
        people: how many people these have; as many as pairs where people are unknown.
        equal_people: how many people with equally many pairs would weigh the same: (sum m)^2 / sum m^2.
        by_people: the part of the variance that more people lessen.
        by_pairs: the part that more pairs lessen.
    """

    rate: float
    pairs: int
    people: int
    equal_people: float
    by_people: float
    by_pairs: float

    @property
    def caution(self) -> float:
        """The share, up to 1, of the effective number that few people leave: their variance is itself uncertain."""
        fewer = min(self.pairs, self.equal_people)
        return float(stdtrit(max(self.pairs - 1, 1), _TAIL) / stdtrit(max(fewer - 1, 1), _TAIL)) ** 2

    @property
    def effective_pairs(self) -> float:
        """How many independent pairs tell as much as these do, at most all of them."""
        if self.pairs == 1:
            return 1.0
        return self.caution * self.rate * (1 - self.rate) / (self.by_people + self.by_pairs)


class SharedPeople:
    """Which pairs share people, and how much their errors vary for it.

    Args:
        pairs: n, how many there are.
        ids1: (n,) name or number of each pair's first person. None: pairs count as independent.
        ids2: (n,) of the second person, equal to `ids1` in genuine pairs and in no others.

    Raises:
        ValueError: one of `ids1` and `ids2` is missing, or they have not n entries.
    """

    def __init__(self, pairs: int, ids1: ArrayLike | None, ids2: ArrayLike | None) -> None:
        if (ids1 is None) != (ids2 is None):
            raise ValueError("`ids1` and `ids2` belong together: give both, or neither.")
        # Pairs of unknown people are as good as genuine pairs, each of a person of its own.
        alone = np.arange(pairs)
        first, second = (alone, alone) if ids1 is None or ids2 is None else number_people(ids1, ids2)
        if first.size != pairs:
            raise ValueError(
                f"`ids1` and `ids2` must have one entry a pair. Received: {first.size} for {pairs} pairs."
            )
        self.first, self.second = first, second
        self.people = int(max(first.max(initial=-1), second.max(initial=-1))) + 1

    @cached_property
    def impostor(self) -> IntArray:
        """Which pairs are of two people."""
        return np.flatnonzero(self.first != self.second)

    @cached_property
    def couples(self) -> IntArray:
        """The number of each impostor pair's couple of people, in the order of `impostor`."""
        first, second = self.first[self.impostor], self.second[self.impostor]
        names = np.minimum(first, second) * self.people + np.maximum(first, second)
        return np.unique(names, return_inverse=True)[1]

    def rate_interval(self, errors: BoolArray, *kinds: BoolArray) -> Ends:
        """The interval of a rate: see `rate_interval` and `spread`. NaN without pairs."""
        counted = np.logical_or.reduce(kinds)
        if not counted.any():
            return np.nan, np.nan
        trials = self.spread(errors, *kinds).effective_pairs
        return binomial_interval(float(errors[counted].mean()) * trials, trials)

    def spread(self, errors: BoolArray, *kinds: BoolArray) -> Spread:
        """How much a rate of errors varies.

        Args:
            errors: (n,) bool.
            kinds: (n,) bool each, the pairs that count, by kinds whose numbers of pairs are held fixed.
        """
        counted = np.logical_or.reduce(kinds)
        pairs, wrong = int(counted.sum()), errors & counted
        if wrong.sum() in (0, pairs):
            wrong = self._single_error(counted)
        rate = float(wrong.sum() / pairs)
        excess = np.zeros(errors.size)
        for kind in kinds:
            excess[kind] = (wrong[kind] - wrong[kind].mean()) / pairs
        of_couples = float(np.sum(np.bincount(self.couples, excess[self.impostor]) ** 2))
        by_people = max(float(np.sum(self._sums(excess) ** 2)) - 2 * of_couples, 0.0)
        pairs_of = self._sums(counted.astype(np.float64))
        return Spread(
            rate,
            pairs,
            int(np.count_nonzero(pairs_of)),
            float(pairs_of.sum() ** 2 / np.sum(pairs_of**2)),
            by_people,
            max(3 * of_couples, rate * (1 - rate) / pairs - by_people),
        )

    def _single_error(self, counted: BoolArray) -> BoolArray:
        """One error, of an impostor pair where there is one: it leaves the lower effective number."""
        of_two = self.impostor[counted[self.impostor]]
        return np.arange(counted.size) == (of_two[0] if of_two.size else np.argmax(counted))

    def _sums(self, values: FloatArray) -> FloatArray:
        """(people,) the sum over each person's pairs."""
        of_first = np.bincount(self.first, values, self.people)
        of_second = np.bincount(self.second[self.impostor], values[self.impostor], self.people)
        return np.asarray(of_first + of_second, dtype=np.float64)
