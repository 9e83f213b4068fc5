"""Confidence intervals by the bootstrap, over people where they are known and over pairs where they are not.

Scores of one person's pairs resemble each other, so intervals that draw pairs come out too narrow. Here people
are drawn with replacement: one drawn m times makes each of their genuine pairs count m times, and an impostor pair
counts the product of its two people's numbers (the pigeonhole bootstrap; Owen 2007, Annals of Applied Statistics
1(2)). It errs on the wide side: where people do not matter at all, the interval of a rate of impostor pairs is up
to sqrt(3) times too wide.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facekit.folds import number_people
from facekit.metrics import BoolArray, FloatArray, check_pairs

LEVEL = 0.95

# A statistic sees each pair's weight, (n,) float64 >= 0 in the order of the pairs, and returns one number or (k,).
Statistic = Callable[[FloatArray], float | FloatArray]


class Interval(NamedTuple):
    """The 2.5 % and 97.5 % points of the resampled statistic, each of the statistic's shape."""

    low: FloatArray
    high: FloatArray


def bootstrap_interval(
    statistic: Statistic,
    pairs: int,
    ids1: ArrayLike | None = None,
    ids2: ArrayLike | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """The 95 % percentile interval of a statistic of n weighted pairs.

    Args:
        statistic: a function of the weights (n,) float64; where it returns NaN, that resample is left out.
        pairs: n, at least 1.
        ids1: (n,) name or number of each pair's first person. Without, pairs are drawn instead of people.
        ids2: (n,) of the second person, equal to `ids1` in genuine pairs.
        resamples: how often to draw.
        seed: of the draws.

    Returns:
        The interval, NaN where no resample gave a number.

    Raises:
        ValueError: one of `ids1` and `ids2` is missing, or they have not n entries.
    """
    weigh = _pair_weights(pairs) if ids1 is None and ids2 is None else _identity_weights(pairs, ids1, ids2)
    rng = np.random.default_rng(seed)
    samples = np.array([statistic(weigh(rng)) for _ in range(resamples)], dtype=np.float64)
    columns = samples.reshape(resamples, -1).T
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    ends = [_quantiles(column[~np.isnan(column)], tails) for column in columns]
    low, high = np.array(ends).T.reshape(2, *samples.shape[1:])
    return Interval(low, high)


def weighted_auc(distances: ArrayLike, same: ArrayLike) -> Callable[[FloatArray], float]:
    """The area under the ROC curve as a function of the pairs' weights, ties counting 1/2; sorts once.

    Returns:
        A statistic: NaN where a class has no weight.
    """
    values, labels = check_pairs(distances, same)
    genuine, impostor = np.flatnonzero(labels), np.flatnonzero(~labels)
    genuine = genuine[np.argsort(values[genuine])]
    closer = np.searchsorted(values[genuine], values[impostor], side="left")
    closer_or_tied = np.searchsorted(values[genuine], values[impostor], side="right")

    def statistic(weights: FloatArray) -> float:
        below, of_impostor = np.append(0.0, np.cumsum(weights[genuine])), weights[impostor]
        both = below[-1] * of_impostor.sum()
        return float((below[closer] + below[closer_or_tied]) @ of_impostor / both / 2) if both else np.nan

    return statistic


def weighted_rates(accepted: BoolArray, same: BoolArray) -> Callable[[FloatArray], FloatArray]:
    """Accuracy, FMR and FNMR of fixed decisions as a function of the pairs' weights.

    The classes keep their true shares in the accuracy: which people are drawn must not change how many of the pairs
    are genuine.

    Args:
        accepted: (n,) bool, pairs called the same person.
        same: (n,) bool, pairs that are.

    Returns:
        A statistic that returns (3,): accuracy, FMR, FNMR; NaN where a class has no weight.
    """
    genuine, impostor = same.astype(np.float64), (~same).astype(np.float64)
    rejected_genuine, accepted_impostor = genuine * ~accepted, impostor * accepted
    share = genuine.mean()

    def statistic(weights: FloatArray) -> FloatArray:
        of_genuine, of_impostor = weights @ genuine, weights @ impostor
        if not of_genuine or not of_impostor:
            return np.full(3, np.nan)
        fmr, fnmr = weights @ accepted_impostor / of_impostor, weights @ rejected_genuine / of_genuine
        return np.array([1 - share * fnmr - (1 - share) * fmr, fmr, fnmr])

    return statistic


@dataclass(frozen=True)
class ScoreIntervals:
    """95 % intervals (low, high) of four figures, and how they were made.

    Attributes:
        by: "identity" where people were drawn, "pair" where pairs were.
        resamples: how often.
        auc: of the area under the ROC curve.
        accuracy: of the decisions given.
        fmr: of their false-match rate; its upper end is 3 / impostor pairs where none was accepted (rule of three).
        fnmr: of their false-non-match rate, likewise with the genuine pairs.
    """

    by: str
    resamples: int
    auc: tuple[float, float]
    accuracy: tuple[float, float]
    fmr: tuple[float, float]
    fnmr: tuple[float, float]


def score_intervals(
    distances: ArrayLike,
    same: ArrayLike,
    accepted: ArrayLike,
    ids1: ArrayLike | None = None,
    ids2: ArrayLike | None = None,
    resamples: int | None = None,
    seed: int = 0,
) -> ScoreIntervals:
    """Intervals of AUC, accuracy, FMR and FNMR for decisions made on scored pairs, their thresholds held fixed.

    Args:
        distances: (n,) float.
        same: (n,) bool.
        accepted: (n,) bool, the decisions: `distances < threshold`, or those of folds.
        ids1: (n,) first person of each pair; None: pairs are drawn.
        ids2: (n,) second person of each pair.
        resamples: None: 1000, fewer above 200,000 pairs, never below 200.
        seed: of the draws.

    Raises:
        ValueError: lengths differ, or one of `ids1` and `ids2` is missing.
    """
    values, labels = check_pairs(distances, same)
    decisions = np.asarray(accepted, dtype=np.bool_)
    if decisions.shape != labels.shape:
        raise ValueError(
            "`accepted` and `distances` must be two lists of one length. "
            f"Received: shapes {decisions.shape} and {labels.shape}."
        )
    times = resamples or max(200, min(1000, 200_000_000 // values.size))
    area, rates = weighted_auc(values, labels), weighted_rates(decisions, labels)
    low, high = bootstrap_interval(
        lambda weights: np.append(area(weights), rates(weights)), values.size, ids1, ids2, times, seed
    )
    high[2] = _rule_of_three(high[2], decisions & ~labels, int((~labels).sum()))
    high[3] = _rule_of_three(high[3], ~decisions & labels, int(labels.sum()))
    ends = [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    return ScoreIntervals("pair" if ids1 is None else "identity", times, *ends)


def _pair_weights(pairs: int) -> Callable[[np.random.Generator], FloatArray]:
    def weigh(rng: np.random.Generator) -> FloatArray:
        return np.bincount(rng.integers(pairs, size=pairs), minlength=pairs).astype(np.float64)

    return weigh


def _identity_weights(
    pairs: int, ids1: ArrayLike | None, ids2: ArrayLike | None
) -> Callable[[np.random.Generator], FloatArray]:
    if ids1 is None or ids2 is None:
        raise ValueError("`ids1` and `ids2` belong together: give both, or neither.")
    first, second = number_people(ids1, ids2)
    if first.size != pairs:
        raise ValueError(f"`ids1` and `ids2` must have one entry a pair. Received: {first.size} for {pairs} pairs.")
    people = int(max(first.max(), second.max())) + 1
    # A genuine pair counts its one person once: its second person is one more, who is always there.
    second = np.where(first == second, people, second)

    def weigh(rng: np.random.Generator) -> FloatArray:
        times = np.bincount(rng.integers(people, size=people), minlength=people + 1).astype(np.float64)
        times[people] = 1.0
        return times[first] * times[second]

    return weigh


def _quantiles(column: FloatArray, tails: list[float]) -> FloatArray:
    return np.quantile(column, tails) if column.size else np.full(len(tails), np.nan)


def _rule_of_three(high: float, errors: BoolArray, pairs: int) -> float:
    """The upper end of an error rate: every resample of N pairs without error says 0, though it may be 3 / N."""
    return high if errors.any() or np.isnan(high) else max(high, min(1.0, 3 / pairs))
