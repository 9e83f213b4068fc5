"""Confidence intervals by the bootstrap, over people where they are known and over pairs where they are not.

Scores of one person's pairs resemble each other, so intervals that draw pairs come out too narrow. Here people
are drawn with replacement: one drawn m times makes each of their genuine pairs count m times, and an impostor pair
counts the product of its two people's numbers (the pigeonhole bootstrap; Owen 2007, Annals of Applied Statistics
1(2)). It errs on the wide side where people do not matter.

Percentiles of draws are too narrow for rates of few errors: without any, every draw says 0. So rates of decisions
have their intervals from `facekit.intervals`, without draws, and of a ROC's draws only the variance is used there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facekit.intervals import LEVEL, Ends, SharedPeople, binomial_interval
from facekit.metrics import BoolArray, FloatArray, check_pairs

# A statistic sees each pair's weight, (n,) float64 >= 0 in the order of the pairs, and returns one number or (k,).
Statistic = Callable[[FloatArray], float | FloatArray]


class Interval(NamedTuple):
    """The 2.5 % and 97.5 % points of the resampled statistic, each of the statistic's shape."""

    low: FloatArray
    high: FloatArray


def usual_resamples(pairs: int) -> int:
    """How often to draw: 1000 times, fewer above 200,000 pairs, never below 200."""
    return max(200, min(1000, 200_000_000 // pairs))


def bootstrap_interval(
    statistic: Statistic,
    pairs: int,
    ids1: ArrayLike | None = None,
    ids2: ArrayLike | None = None,
    resamples: int | None = None,
    seed: int = 0,
) -> Interval:
    """The 95 % percentile interval of a statistic of n weighted pairs.

    Args:
        statistic: a function of the weights (n,) float64; where it returns NaN, that resample is left out.
        pairs: n, at least 1.
        ids1: (n,) name or number of each pair's first person. Without, pairs are drawn instead of people.
        ids2: (n,) of the second person, equal to `ids1` in genuine pairs.
        resamples: how often to draw; None: `usual_resamples`.
        seed: of the draws.

    Returns:
        The interval, NaN where no resample gave a number.

    Raises:
        ValueError: one of `ids1` and `ids2` is missing, or they have not n entries.
    """
    times = resamples or usual_resamples(pairs)
    samples = _draws(statistic, SharedPeople(pairs, ids1, ids2), times, seed)
    columns = samples.reshape(times, -1).T
    ends = [_quantiles(column[~np.isnan(column)]) for column in columns]
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
        # Sums, not dot products: these wake the threads of the BLAS library in each draw, for nothing.
        return float(np.sum((below[closer] + below[closer_or_tied]) * of_impostor) / both / 2) if both else np.nan

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
    # Each pair is one of four kinds.
    kinds = 2 * same.astype(np.int64) + accepted
    share = same.mean()

    def statistic(weights: FloatArray) -> FloatArray:
        rejected_impostor, accepted_impostor, rejected_genuine, accepted_genuine = np.bincount(kinds, weights, 4)
        of_genuine, of_impostor = rejected_genuine + accepted_genuine, rejected_impostor + accepted_impostor
        if not of_genuine or not of_impostor:
            return np.full(3, np.nan)
        fmr, fnmr = accepted_impostor / of_impostor, rejected_genuine / of_genuine
        return np.array([1 - share * fnmr - (1 - share) * fmr, fmr, fnmr])

    return statistic


def weighted_tpr_at_fpr(
    distances: ArrayLike, same: ArrayLike, rates: ArrayLike
) -> Callable[[FloatArray], FloatArray]:
    """The best TPR at false-match rates as a function of the pairs' weights, each draw with its own thresholds.

    Args:
        distances: (n,) float, infinite for pairs that are never accepted.
        same: (n,) bool.
        rates: (k,) false-match rates, 0 to 1; NaN for one to be left out.

    Returns:
        A statistic that returns (k,): NaN for rates left out, and where a class has no weight.
    """
    values, labels = check_pairs(distances, same)
    genuine, impostor = (
        side[np.argsort(values[side])] for side in (np.flatnonzero(labels), np.flatnonzero(~labels))
    )
    # Thresholds are the distances of impostor pairs, and infinity: how many pairs of each class are below each.
    thresholds = np.unique(np.append(values[impostor], np.inf))
    genuine_below, impostor_below = (np.searchsorted(values[side], thresholds) for side in (genuine, impostor))
    # Weights are whole numbers: the least more than rate x total stands for a rounded product.
    limits = np.asarray(rates, dtype=np.float64) * (1 + 1e-12)

    def statistic(weights: FloatArray) -> FloatArray:
        of_genuine, of_impostor = (np.append(0.0, np.cumsum(weights[side])) for side in (genuine, impostor))
        if not of_genuine[-1] or not of_impostor[-1]:
            return np.full(limits.shape, np.nan)
        most = np.searchsorted(of_impostor, limits * of_impostor[-1], side="right") - 1
        last = np.searchsorted(impostor_below, most, side="right") - 1
        return np.where(np.isnan(limits), np.nan, of_genuine[genuine_below[last]] / of_genuine[-1])

    return statistic


def roc_band(
    distances: ArrayLike,
    same: ArrayLike,
    fprs: ArrayLike,
    ids1: ArrayLike | None = None,
    ids2: ArrayLike | None = None,
    resamples: int = 200,
    seed: int = 0,
) -> Interval:
    """The 95 % interval of the TPR at each of some false-match rates, each for itself, for a band around a ROC.

    Each draw of people has thresholds of its own for these rates. The variance of its TPRs gives an effective
    number of genuine pairs, whose exact interval is given, as in `facekit.intervals`.

    Args:
        distances: (n,) float.
        same: (n,) bool.
        fprs: (k,) false-match rates, 0 to 1.
        ids1: (n,) first person of each pair. None: pairs are drawn.
        ids2: (n,) second person of each pair.
        resamples: how often to draw.
        seed: of the draws.

    Returns:
        Both ends (k,); NaN with one class.

    Raises:
        ValueError: a rate is outside 0 to 1, lengths differ, or one of `ids1` and `ids2` is missing.
    """
    values, labels = check_pairs(distances, same)
    rates = np.asarray(fprs, dtype=np.float64)
    if not np.all((rates >= 0) & (rates <= 1)):
        raise ValueError(f"`fprs` must be rates, 0 to 1. Received: {rates.min()} to {rates.max()}.")
    if labels.all() or not labels.any():
        return Interval(np.full(rates.shape, np.nan), np.full(rates.shape, np.nan))
    # In the order of the distances, sums run straight through memory: twice as fast for millions of pairs.
    order = np.argsort(values)
    labels = labels[order]
    first, second = (None if ids is None else np.asarray(ids)[order] for ids in (ids1, ids2))
    people = SharedPeople(values.size, first, second)
    statistic = weighted_tpr_at_fpr(values[order], labels, rates)
    variances = np.nanvar(_draws(statistic, people, resamples, seed), axis=0)
    most = people.spread(np.zeros_like(labels), labels)
    ends = []
    for tpr, variance in zip(statistic(np.ones(values.size)), variances, strict=True):
        trials = most.effective_pairs
        if 0 < tpr < 1 and variance > 0:
            trials = min(trials, most.caution * tpr * (1 - tpr) / variance)
        ends.append(binomial_interval(tpr * trials, trials))
    return Interval(*np.array(ends).T)


@dataclass(frozen=True)
class ScoreIntervals:
    """95 % intervals (low, high) of four figures, and how they were made.

    Attributes:
        by: "identity" where people were known, "pair" where pairs counted as independent.
        resamples: how often people, or pairs, were drawn for the AUC.
        auc: of the area under the ROC curve.
        accuracy: of the decisions given.
        fmr: of their false-match rate.
        fnmr: of their false-non-match rate.
    """

    by: str
    resamples: int
    auc: Ends
    accuracy: Ends
    fmr: Ends
    fnmr: Ends


def score_intervals(
    distances: ArrayLike,
    same: ArrayLike,
    accepted: ArrayLike,
    ids1: ArrayLike | None = None,
    ids2: ArrayLike | None = None,
    resamples: int | None = None,
    seed: int = 0,
) -> ScoreIntervals:
    """Intervals of AUC, accuracy, FMR and FNMR for decisions made on scored pairs.

    The AUC's is the bootstrap's; where the classes do not overlap, that of the smaller effective number of pairs
    without error. The others are those of `facekit.intervals.rate_interval`, for the accuracy with the classes'
    shares held fixed. The FMR's also holds where the threshold was chosen on these pairs, as the largest with an
    FMR within a target; accuracy's and FNMR's take thresholds as given.

    Args:
        distances: (n,) float.
        same: (n,) bool.
        accepted: (n,) bool, the decisions: `distances < threshold`, or those of folds.
        ids1: (n,) first person of each pair; None: pairs count as independent.
        ids2: (n,) second person of each pair.
        resamples: None: 1000, fewer above 200,000 pairs, never below 200.
        seed: of the draws.

    Returns:
        The intervals, all NaN with one class.

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
    times = resamples or usual_resamples(values.size)
    people = SharedPeople(values.size, ids1, ids2)
    by = "pair" if ids1 is None else "identity"
    if labels.all() or not labels.any():
        return ScoreIntervals(by, times, *[(np.nan, np.nan)] * 4)
    wrong = decisions != labels
    error = people.rate_interval(wrong, labels, ~labels)
    area, accuracy = _auc_interval(values, labels, people, times, seed), (1 - error[1], 1 - error[0])
    fmr, fnmr = people.rate_interval(wrong, ~labels), people.rate_interval(wrong, labels)
    return ScoreIntervals(by, times, area, accuracy, fmr, fnmr)


def _auc_interval(values: FloatArray, labels: BoolArray, people: SharedPeople, times: int, seed: int) -> Ends:
    area = weighted_auc(values, labels)
    draws = _draws(area, people, times, seed)
    low, high = _quantiles(draws[~np.isnan(draws)]).tolist()
    if area(np.ones(values.size)) in (0, 1):  # every draw says so too
        fewest = min(people.spread(np.zeros_like(labels), kind).effective_pairs for kind in (labels, ~labels))
        rest = binomial_interval(0, fewest)[1]
        return (0.0, rest) if high == 0 else (1 - rest, 1.0)
    return low, high


def _draws(statistic: Statistic, people: SharedPeople, resamples: int, seed: int) -> FloatArray:
    """(resamples, ...) the statistic of each draw of people."""
    rng = np.random.default_rng(seed)
    # A genuine pair counts its one person once: its second person is one more, who is always there.
    second = np.where(people.first == people.second, people.people, people.second)

    def weights() -> FloatArray:
        drawn = rng.integers(people.people, size=people.people)
        times = np.bincount(drawn, minlength=people.people + 1).astype(np.float64)
        times[people.people] = 1.0
        return times[people.first] * times[second]

    return np.array([statistic(weights()) for _ in range(resamples)], dtype=np.float64)


def _quantiles(column: FloatArray) -> FloatArray:
    """(2,) the ends of the middle 95 %."""
    tails = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
    return np.quantile(column, tails) if column.size else np.full(2, np.nan)
