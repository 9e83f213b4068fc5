"""Triplets judged: how often the anchor is nearer to the positive than to the negative, and by how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from facekit.metrics import BoolArray, FloatArray, IntArray
from facekit.shares import share_interval

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)

MARGIN_EDGES: FloatArray = np.arange(-50, 51) / 25
"""(101,) edges of the histogram of margins. A bin holds its upper edge and not its lower one, so a tie is in a bin
of wrong ones; the first holds both."""

_FARTHEST = 2 + 1e-6  # of unit rows, up to rounding


def judge_triplets(
    positive_distances: ArrayLike,
    negative_distances: ArrayLike,
    failed: ArrayLike,
    people: ArrayLike | None = None,
    margins: Sequence[float] = (0, 0.1, 0.2, 0.5),
) -> dict[str, Any]:
    """Share of triplets ordered right, and the distribution of their margins.

    A triplet's margin is its anchor-negative minus its anchor-positive distance, -2 to 2. It is ordered right where
    the margin is above 0: a tie is wrong. A triplet of a picture without a face is wrong too, and has no margin.

    Args:
        positive_distances: (n,) float, anchor to positive, of unit rows: 0 to 2. Failed ones are not looked at.
        negative_distances: (n,) float, anchor to negative, likewise.
        failed: (n,) bool, triplets of which a picture gave no face.
        people: (n,) name or number of each anchor's person, who are drawn for the interval; None: unknown.
        margins: what to give the share of triplets above, in any order.

    Returns:
        A dictionary for JSON. Plain numbers: `ordered` (the share, 0 to 1), `ordered_survivors` (among triplets
        that did not fail), `triplets`, `ordered_right`, `ordered_wrong`, `ties` and `failed` (counts that add up),
        `margin_mean` and `margin_median`. Then `share_above` (a list of `margin` and `share` of all triplets, with
        failed ones above none), `margin_quantiles`, `histogram` (`edges`, `counts`) and `intervals` (95 %, and
        `by` what: "anchor's person" or "triplet").

    Raises:
        ValueError: there is no triplet or none with three faces, lengths differ, or a distance is outside [0, 2].
    """
    lost = np.asarray(failed, dtype=np.bool_)
    there = ~lost
    all_margins = _margins(positive_distances, negative_distances, lost)
    known = all_margins[there]
    right = all_margins > 0
    low, high, by_people = share_interval(right, people)
    quantiles = np.quantile(known, QUANTILES)
    return {
        "ordered": float(right.mean()),
        "ordered_survivors": float(right[there].mean()),
        "triplets": right.size,
        "ordered_right": int(right.sum()),
        "ordered_wrong": int((known < 0).sum()),
        "ties": int((known == 0).sum()),
        "failed": int(lost.sum()),
        "margin_mean": float(known.mean()),
        "margin_median": float(np.median(known)),
        "share_above": [
            {"margin": float(least), "share": float((all_margins > least).mean())} for least in margins
        ],
        "margin_quantiles": [
            {"quantile": share, "margin": float(margin)} for share, margin in zip(QUANTILES, quantiles, strict=True)
        ],
        "histogram": {"edges": MARGIN_EDGES.tolist(), "counts": _counts(known).tolist()},
        "intervals": {"by": "anchor's person" if by_people else "triplet", "ordered": [low, high]},
    }


def _margins(positive: ArrayLike, negative: ArrayLike, failed: BoolArray) -> FloatArray:
    """(n,) each triplet's margin; minus infinity where it failed."""
    near, far = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    if failed.ndim != 1 or near.shape != failed.shape or far.shape != failed.shape:
        raise ValueError(
            "`positive_distances`, `negative_distances` and `failed` must be three lists of one length. "
            f"Received: shapes {near.shape}, {far.shape} and {failed.shape}."
        )
    if not failed.size:
        raise ValueError("There are no triplets: the lists are empty.")
    if failed.all():
        raise ValueError(
            f"None of the {failed.size:,} triplets has a face in all three pictures: there is nothing to judge."
        )
    within = [(side >= 0) & (side <= _FARTHEST) for side in (near, far)]  # False for NaN
    wrong = np.flatnonzero(~(within[0] & within[1]) & ~failed)
    if wrong.size:
        raise ValueError(
            f"Distances of unit rows are 0 to 2. Triplet {wrong[0]} has {near[wrong[0]]} to the positive and "
            f"{far[wrong[0]]} to the negative ({wrong.size} of {failed.size} triplets are wrong)."
        )
    return np.where(failed, -np.inf, far - near)


def _counts(margins: FloatArray) -> IntArray:
    """How many margins are in each bin of `MARGIN_EDGES`."""
    # NumPy's bins hold their lower edges: of the mirrored margins, these are the upper ones.
    return np.histogram(np.clip(-margins, -2, 2), MARGIN_EDGES)[0][::-1]
