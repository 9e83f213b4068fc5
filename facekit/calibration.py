"""Thresholds with the evidence for them: for a false-match rate or for a cost, with intervals and counts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from facekit.bootstrap import bootstrap_interval
from facekit.intervals import Ends, rate_interval, threshold_interval
from facekit.metrics import BoolArray, FloatArray, rates_at, tpr_at_fpr
from facekit.scored import ScoredPairs
from facekit.thresholds import COST_GRID, cost_threshold, threshold_at_fmr


@dataclass(frozen=True)
class Calibration:
    """A threshold and what it does on the pairs that chose it, failed pairs counting as rejected.

    Attributes:
        threshold: accept where the internal distance (`ScoredPairs.distances`) is below it.
        threshold_interval: 95 % interval of the threshold that the rule would find with endless pairs, within the
            distances of these.
        criterion: the rule, in words.
        fmr: false-match rate measured at the threshold, 0 to 1.
        fmr_interval: its 95 % interval.
        fnmr: false-non-match rate, likewise.
        fnmr_interval: its 95 % interval.
        by: "identity"; "pair" where people are unknown: intervals take pairs as independent then, too narrow.
        floor: 3 / impostor pairs, the least false-match rate that so many pairs can support (rule of three).
        claimable: whether the rate aimed at (for a cost: the rate found) is at least `floor`.
        genuine: number of genuine pairs, failed ones included.
        impostor: number of impostor pairs, likewise.
    """

    threshold: float
    threshold_interval: Ends
    criterion: str
    fmr: float
    fmr_interval: Ends
    fnmr: float
    fnmr_interval: Ends
    by: str
    floor: float
    claimable: bool
    genuine: int
    impostor: int


def calibrate_at_fmr(scored: ScoredPairs, fmr: float) -> Calibration:
    """The largest threshold whose false-match rate is at most a target.

    Args:
        scored: pairs of people whom the system was not trained on.
        fmr: the target, in (0, 1).

    Raises:
        ValueError: `fmr` is outside (0, 1), there is one class only, there are fewer impostor pairs than the target
            needs (3 / `fmr`), or so many of them failed that no threshold is needed.
    """
    _refuse_one_class(scored.same)
    found = threshold_at_fmr(scored.ranked, scored.same, fmr)
    impostor = int((~scored.same).sum())
    if not found.claimable:
        needs = tpr_at_fpr(scored.ranked, scored.same, [fmr])[0].needs
        raise ValueError(
            f"An FMR of {fmr:g} needs {needs:,} impostor pairs, there are {impostor:,}: fewer cannot tell it from "
            f"{3 / impostor:.3g} (rule of three). Give more pairs, or choose a higher FMR."
        )
    if math.isinf(found.threshold):
        raise ValueError(
            f"Accepting every pair with a face in both pictures has an FMR of {found.fmr:.4f}, within the target "
            f"of {fmr:g}: there is no threshold to find. Choose a lower FMR, or pictures with more faces."
        )
    low, high = threshold_interval(scored.ranked, scored.same, fmr, scored.ids1, scored.ids2)
    # Where the interval ends among the failed pairs, at infinity, no score tells where.
    ends = low, min(high, float(np.nanmax(scored.distances)))
    criterion = f"the largest threshold with an FMR of at most {fmr:g}"
    return _calibration(scored, found.threshold, ends, criterion, target=fmr)


def calibrate_by_cost(scored: ScoredPairs) -> Calibration:
    """The threshold of the lowest 0.8 FMR + 0.2 FNMR on the grid 0.1 to 1.5 of distances between unit vectors.

    Args:
        scored: pairs whose scores are distances of unit vectors or cosines.

    Raises:
        ValueError: the scores are of another kind, or there is one class only.
    """
    distances = scored.unit_distances
    if distances is None:
        raise ValueError(
            "The cost threshold is defined for distances of unit vectors and cosines; these scores are of the kind "
            f"{scored.kind}. Choose a false-match rate instead."
        )
    _refuse_one_class(scored.same)
    found = cost_threshold(distances, scored.same).threshold
    statistic = _weighted_cost_threshold(distances, scored.same)
    interval = bootstrap_interval(statistic, len(scored), scored.ids1, scored.ids2)
    ends = float(interval.low), float(interval.high)
    if scored.kind == "cosine":  # back to minus the cosine, which is the internal distance
        found, ends = found**2 / 2 - 1, (ends[0] ** 2 / 2 - 1, ends[1] ** 2 / 2 - 1)
    return _calibration(scored, found, ends, "the threshold of the lowest 0.8 FMR + 0.2 FNMR")


def _calibration(
    scored: ScoredPairs, threshold: float, ends: Ends, criterion: str, target: float | None = None
) -> Calibration:
    rates = rates_at(scored.ranked, scored.same, threshold)
    genuine = int(scored.same.sum())
    floor = 3 / (len(scored) - genuine)
    return Calibration(
        threshold=threshold,
        threshold_interval=ends,
        criterion=criterion,
        fmr=rates.fpr,
        fmr_interval=_error_interval(scored, threshold, ~scored.same),
        fnmr=rates.fnr,
        fnmr_interval=_error_interval(scored, threshold, scored.same),
        by="pair" if scored.ids1 is None else "identity",
        floor=floor,
        claimable=(rates.fpr if target is None else target) >= floor,
        genuine=genuine,
        impostor=len(scored) - genuine,
    )


def _error_interval(scored: ScoredPairs, threshold: float, kind: BoolArray) -> Ends:
    """The interval of the error rate of one kind of pairs (n,)."""
    ids1, ids2 = (None if ids is None else ids[kind] for ids in (scored.ids1, scored.ids2))
    wrong = (scored.ranked < threshold) != scored.same
    return rate_interval(wrong[kind], ids1, ids2)


def _weighted_cost_threshold(distances: FloatArray, same: BoolArray) -> Callable[[FloatArray], float]:
    """The cost threshold as a function of the pairs' weights; NaN where a class has no weight."""
    sides = [np.flatnonzero(side)[np.argsort(distances[side])] for side in (same, ~same)]
    below = [np.searchsorted(distances[side], COST_GRID) for side in sides]

    def statistic(weights: FloatArray) -> float:
        sums = [np.append(0.0, np.cumsum(weights[side])) for side in sides]
        if not sums[0][-1] or not sums[1][-1]:
            return np.nan
        tpr, fmr = (total[counts] / total[-1] for total, counts in zip(sums, below, strict=True))
        return float(COST_GRID[np.argmin(0.8 * fmr + 0.2 * (1 - tpr))])

    return statistic


def _refuse_one_class(same: BoolArray) -> None:
    if same.all() or not same.any():
        only = "genuine" if same.any() else "impostor"
        raise ValueError(
            f"All {same.size:,} pairs are {only}: a threshold is chosen between genuine and impostor pairs. Add "
            "the other kind."
        )
