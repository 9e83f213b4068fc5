"""Verification metrics from distances: ROC, AUC, EER, and rates at a threshold.

Two arrays describe n pairs everywhere: `distances` (n,) float, small for the same person, and `same` (n,) bool,
true for a genuine pair (one person), false for an impostor pair (two). A pair is accepted, called the same person,
where `distance < threshold`. An infinite distance is never accepted. FPR is the false-match rate (FMR), the share
of impostor pairs accepted; FNR the false-non-match rate (FNMR), the share of genuine pairs rejected; TPR is
1 - FNR.

With pairs of one class only, what needs the other class is NaN. All functions raise ValueError, in a sentence,
where there is no pair, shapes differ, a distance is NaN, or `same` is neither true nor false.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

USUAL_RATES = (0.5, 0.25, 0.1, 0.05, 0.01, 0.005, 0.001)


def check_pairs(distances: ArrayLike, same: ArrayLike) -> tuple[FloatArray, BoolArray]:
    """Turn two lists into arrays, or say what is wrong with them.

    Args:
        distances: (n,) numbers, n at least 1, none NaN; infinite ones are allowed.
        same: (n,) bool, or 0 and 1.

    Returns:
        `distances` (n,) float64 and `same` (n,) bool.

    Raises:
        ValueError: there is no pair, the shapes differ, a distance is NaN or a label is neither true nor false.
    """
    values, labels = np.asarray(distances, dtype=np.float64), np.asarray(same)
    if values.ndim != 1 or values.shape != labels.shape:
        raise ValueError(
            "`distances` and `same` must be two lists of one length. "
            f"Received: shapes {values.shape} and {labels.shape}."
        )
    if values.size == 0:
        raise ValueError("There are no pairs: `distances` is empty.")
    missing = np.flatnonzero(np.isnan(values))
    if missing.size:
        raise ValueError(f"{missing.size} of {values.size} distances are NaN, the first at index {missing[0]}.")
    if labels.dtype != np.bool_ and not np.isin(labels, (0, 1)).all():
        raise ValueError(f"`same` must be true or false (or 1 or 0). Received: values of type {labels.dtype}.")
    return values, labels.astype(np.bool_)


class EqualError(NamedTuple):
    """The equal error rate, 0 to 1, and the ROC's threshold closest to it (the lower of two as close)."""

    rate: float
    threshold: float


@dataclass(frozen=True, eq=False)
class Roc:
    """All that thresholds can do on one set of pairs: a point for each distinct distance, and one for "accept all".

    Attributes:
        thresholds: (k,) float64, rising. `distance < thresholds[i]` accepts exactly the counts of point i: none at
            i = 0, every pair of finite distance at the end, where the threshold is infinite.
        accepted_genuine: (k,) int64, genuine pairs accepted at each threshold.
        accepted_impostor: (k,) int64, impostor pairs accepted at each threshold.
        genuine: number of genuine pairs, those of infinite distance included.
        impostor: number of impostor pairs, likewise.
    """

    thresholds: FloatArray
    accepted_genuine: IntArray
    accepted_impostor: IntArray
    genuine: int
    impostor: int

    @property
    def one_class(self) -> bool:
        """Whether there are only genuine or only impostor pairs, so that most figures are undefined."""
        return self.genuine == 0 or self.impostor == 0

    @cached_property
    def fpr(self) -> FloatArray:
        """(k,) false-match rates, rising, 0 to 1; NaN without impostor pairs."""
        return _shares(self.accepted_impostor, self.impostor)

    @cached_property
    def tpr(self) -> FloatArray:
        """(k,) true-match rates, rising, 0 to 1; NaN without genuine pairs."""
        return _shares(self.accepted_genuine, self.genuine)

    @cached_property
    def auc(self) -> float:
        """Area under the curve: how often a genuine pair is closer than an impostor pair, a tie counting 1/2."""
        if self.one_class:
            return np.nan
        # Pairs at infinite distance tie with each other: a straight line to (all, all). In integers this is exact.
        genuine = np.append(self.accepted_genuine, self.genuine)
        impostor = np.append(self.accepted_impostor, self.impostor)
        twice_area = int(np.sum(np.diff(impostor) * (genuine[1:] + genuine[:-1])))
        return twice_area / (2 * self.genuine * self.impostor)

    @cached_property
    def eer(self) -> EqualError:
        """Where FMR = FNMR, on the straight line between the two points around it."""
        if self.one_class:
            return EqualError(np.nan, np.nan)
        genuine = np.append(self.accepted_genuine, self.genuine)
        impostor = np.append(self.accepted_impostor, self.impostor)
        # (FMR - FNMR) x genuine x impostor, rising: whole numbers, so that equal gaps compare equal.
        gaps = impostor * self.genuine - (self.genuine - genuine) * self.impostor
        after = int(np.argmax(gaps >= 0))
        before = after - 1
        way = gaps[before] / (gaps[before] - gaps[after])
        rate = (impostor[before] + way * (impostor[after] - impostor[before])) / self.impostor
        closest = int(np.argmin(np.abs(gaps[:-1])))
        return EqualError(float(rate), float(self.thresholds[closest]))

    def last_within(self, rate: float) -> int:
        """The last point, of the largest threshold and the best TPR, whose FMR is at most `rate`."""
        return int(np.searchsorted(self.accepted_impostor, most_within(rate, self.impostor), side="right")) - 1


def roc(distances: ArrayLike, same: ArrayLike) -> Roc:
    """Count what every threshold accepts, with one sort. Pairs of equal distance enter together.

    Args:
        distances: (n,) float.
        same: (n,) bool.

    Returns:
        The curve, of k <= n + 1 points.
    """
    values, labels = check_pairs(distances, same)
    order = np.argsort(values)
    values, labels = values[order], labels[order]
    starts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    thresholds = values[starts]
    if thresholds[-1] < np.inf:
        starts, thresholds = np.append(starts, values.size), np.append(thresholds, np.inf)
    accepted_genuine = np.append(0, np.cumsum(labels))[starts]
    genuine = int(labels.sum())
    return Roc(thresholds, accepted_genuine, starts - accepted_genuine, genuine, values.size - genuine)


def auc(distances: ArrayLike, same: ArrayLike) -> float:
    """Area under the ROC curve, 0 to 1, ties counting 1/2; NaN with one class. See `Roc.auc`."""
    return roc(distances, same).auc


def eer(distances: ArrayLike, same: ArrayLike) -> EqualError:
    """Equal error rate, 0 to 1, and its threshold; NaN with one class. See `Roc.eer`."""
    return roc(distances, same).eer


@dataclass(frozen=True)
class Rates:
    """What one way to accept pairs got right and wrong. Rates are 0 to 1 and 0/0 is 0.

    With one class only, precision and F1 are NaN, and so is every rate of the class that is missing.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    tpr: float
    fpr: float
    fnr: float
    true_accepts: int
    false_accepts: int
    true_rejects: int
    false_rejects: int


def rates_of(accepted: BoolArray, same: BoolArray) -> Rates:
    """Rates of decisions already made.

    Args:
        accepted: (n,) bool, pairs called the same person.
        same: (n,) bool, pairs that are.
    """
    genuine, impostor = int(same.sum()), int((~same).sum())
    true_accepts = int((accepted & same).sum())
    false_accepts = int((accepted & ~same).sum())
    positives = true_accepts + false_accepts
    both = genuine > 0 and impostor > 0
    recall = true_accepts / genuine if genuine else np.nan
    return Rates(
        accuracy=(true_accepts + impostor - false_accepts) / same.size,
        precision=(true_accepts / positives if positives else 0.0) if both else np.nan,
        recall=recall,
        f1=2 * true_accepts / (positives + genuine) if both else np.nan,
        tpr=recall,
        fpr=false_accepts / impostor if impostor else np.nan,
        fnr=(genuine - true_accepts) / genuine if genuine else np.nan,
        true_accepts=true_accepts,
        false_accepts=false_accepts,
        true_rejects=impostor - false_accepts,
        false_rejects=genuine - true_accepts,
    )


def rates_at(distances: ArrayLike, same: ArrayLike, threshold: float) -> Rates:
    """Accuracy, precision, recall, F1, TPR, FPR, FNR and counts where `distance < threshold` accepts.

    Raises:
        ValueError: `threshold` is NaN.
    """
    values, labels = check_pairs(distances, same)
    if np.isnan(threshold):
        raise ValueError("`threshold` must be a number. Received: NaN.")
    return rates_of(values < threshold, labels)


@dataclass(frozen=True)
class TprAtFpr:
    """The best TPR at a false-match rate, where the pairs are enough to claim one.

    Attributes:
        fpr: the rate asked for, 0 to 1.
        tpr: best TPR whose false accepts are at most floor(fpr * impostor pairs); NaN where it is not claimable.
        threshold: the largest that gives it; NaN where it is not claimable.
        claimable: whether fpr >= 3 / impostor pairs (the rule of three), and there are genuine pairs too.
        needs: impostor pairs that a claim needs.
    """

    fpr: float
    tpr: float
    threshold: float
    claimable: bool
    needs: int


def tpr_at_fpr(distances: ArrayLike, same: ArrayLike, rates: Sequence[float] = USUAL_RATES) -> list[TprAtFpr]:
    """The best TPR at each false-match rate of a table.

    Args:
        distances: (n,) float.
        same: (n,) bool.
        rates: false-match rates in (0, 1].

    Raises:
        ValueError: a rate is outside (0, 1].
    """
    curve = roc(distances, same)
    return [claim(curve, float(rate)) for rate in rates]


def claim(curve: Roc, rate: float) -> TprAtFpr:
    """The best TPR of a curve at a false-match rate in (0, 1]; see `tpr_at_fpr`."""
    needs = pairs_needed(rate)
    claimable = curve.genuine > 0 and curve.impostor >= needs
    if not claimable:
        return TprAtFpr(rate, np.nan, np.nan, claimable, needs)
    point = curve.last_within(rate)
    return TprAtFpr(rate, float(curve.tpr[point]), float(curve.thresholds[point]), claimable, needs)


def _shares(counts: IntArray, total: int) -> FloatArray:
    return counts / total if total else np.full(counts.shape, np.nan)


def most_within(rate: float, pairs: int) -> int:
    """floor(rate * pairs): the most of `pairs` whose share, as a float, is at most `rate`.

    A rounded product is off by one for rates that are no binary fraction (0.29 * 100 = 28.999...); a rounded
    quotient is not: 29 / 100 is the float 0.29.
    """
    nearest = round(rate * pairs)
    return nearest if pairs == 0 or nearest / pairs <= rate else nearest - 1


def pairs_needed(rate: float) -> int:
    """The fewest pairs N with 3 / N <= rate, compared as in `most_within`."""
    if not 0 < rate <= 1:
        raise ValueError(f"A false-match rate must be in (0, 1]. Received: {rate}.")
    nearest = max(round(3 / rate), 1)
    return nearest if 3 / nearest <= rate else nearest + 1
