"""Thresholds chosen from scored pairs: for accuracy, for a cost, for a false-match rate.

Conventions, terms and errors are those of `facekit.metrics`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from facekit.metrics import FloatArray, Roc, roc

# 0.1, 0.1001, ..., 1.5: divided integers, because a sum of small steps drifts off these values.
COST_GRID: FloatArray = np.arange(1_000, 15_001) / 10_000


@dataclass(frozen=True)
class FmrThreshold:
    """A threshold chosen for a false-match rate, and what it does on the pairs that chose it.

    Attributes:
        target: the false-match rate asked for, in (0, 1).
        threshold: the largest whose FMR is at most `target`.
        fmr: measured false-match rate, 0 to `target`.
        fnmr: measured false-non-match rate, 0 to 1.
        floor: 3 / impostor pairs, the least rate that these pairs can support (rule of three: with no false match
            among N, the rate is below 3 / N with 95 % confidence).
        claimable: whether `target` is at least `floor`.
    """

    target: float
    threshold: float
    fmr: float
    fnmr: float
    floor: float
    claimable: bool


def threshold_at_fmr(distances: ArrayLike, same: ArrayLike, fmr: float) -> FmrThreshold:
    """The largest threshold whose false-match rate is at most a target.

    `facekit.bootstrap.score_intervals` gives the 95 % interval of its rates.

    Args:
        distances: (n,) float.
        same: (n,) bool.
        fmr: the target, in (0, 1).

    Raises:
        ValueError: `fmr` is outside (0, 1).
    """
    if not 0 < fmr < 1:
        raise ValueError(f"`fmr` must be in (0, 1). Received: {fmr}.")
    curve = roc(distances, same)
    floor = 3 / curve.impostor if curve.impostor else np.nan
    if curve.one_class:
        return FmrThreshold(fmr, np.nan, np.nan, np.nan, floor, False)
    point = curve.last_within(fmr)
    threshold, measured = float(curve.thresholds[point]), float(curve.fpr[point])
    return FmrThreshold(fmr, threshold, measured, float(1 - curve.tpr[point]), floor, fmr >= floor)


def best_accuracy_threshold(distances: ArrayLike, same: ArrayLike) -> float:
    """The threshold of the highest accuracy on these pairs; of equally good ones the lowest. NaN with one class.

    The candidates are every distance there and infinity, which accepts all. The accuracy on the same pairs
    flatters: report it on others, as `facekit.folds.kfold_accuracy` does.
    """
    curve = roc(distances, same)
    return np.nan if curve.one_class else most_accurate(curve)


def most_accurate(curve: Roc) -> float:
    """The lowest of the thresholds with the most right decisions; defined for one class too."""
    return float(curve.thresholds[np.argmax(curve.accepted_genuine - curve.accepted_impostor)])


@dataclass(frozen=True)
class CostThreshold:
    """The threshold of the lowest cost, and the cost and rates that it has on the pairs that chose it."""

    threshold: float
    cost: float
    fpr: float
    fnr: float


def cost_threshold(distances: ArrayLike, same: ArrayLike) -> CostThreshold:
    """Minimise 0.8 FPR + 0.2 FNR over the thresholds 0.1, 0.1001, ..., 1.5; on ties the lowest. NaN with one class.

    The grid is one of distances between unit vectors, sqrt(2 - 2 cosine).
    """
    curve = roc(distances, same)
    if curve.one_class:
        return CostThreshold(np.nan, np.nan, np.nan, np.nan)
    points = np.searchsorted(curve.thresholds, COST_GRID)
    false_accepts, false_rejects = curve.accepted_impostor[points], curve.genuine - curve.accepted_genuine[points]
    # The cost times 5 x genuine x impostor: whole numbers, so that equal costs compare equal.
    whole_cost = 4 * false_accepts * curve.genuine + false_rejects * curve.impostor
    best = int(np.argmin(whole_cost))
    return CostThreshold(
        threshold=float(COST_GRID[best]),
        cost=float(whole_cost[best] / (5 * curve.genuine * curve.impostor)),
        fpr=float(false_accepts[best] / curve.impostor),
        fnr=float(false_rejects[best] / curve.genuine),
    )
