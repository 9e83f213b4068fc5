"""The 95 % interval of a share of right answers, by the people whom the answers are about."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facekit.bootstrap import LEVEL, bootstrap_interval


class ShareInterval(NamedTuple):
    """A 95 % interval of a share, 0 to 1, and whether it was made by drawing people."""

    low: float
    high: float
    by_people: bool


def share_interval(right: ArrayLike, people: ArrayLike | None = None) -> ShareInterval:
    """The interval of the share of right answers.

    Where two people or more are known, they are drawn with replacement (percentile bootstrap, 1000 draws), since
    answers about one person resemble each other. Where all answers are right, or none, every draw says the same:
    the far end is then at 3 / people (rule of three). Without people it is the exact interval of Clopper and
    Pearson (1934), as if answers were independent.

    Args:
        right: (n,) bool, n at least 1.
        people: (n,) name or number of each answer's person; None: unknown.

    Raises:
        ValueError: there is no answer, or the lists differ in length.
    """
    answers = np.asarray(right, dtype=np.bool_)
    numbers = np.zeros(answers.shape, np.int64) if people is None else np.unique(people, return_inverse=True)[1]
    if answers.size == 0 or answers.shape != numbers.shape:
        raise ValueError(
            "`right` and `people` must be two lists of one length, at least 1. "
            f"Received: shapes {answers.shape} and {numbers.shape}."
        )
    totals, hits = np.bincount(numbers), np.bincount(numbers, answers)
    if totals.size < 2:
        return ShareInterval(*_exact_interval(int(answers.sum()), answers.size), by_people=False)
    low, high = bootstrap_interval(lambda times: float(times @ hits / (times @ totals)), totals.size)
    far = min(1.0, 3 / totals.size)
    if answers.all():
        return ShareInterval(1 - far, 1.0, by_people=True)
    return ShareInterval(float(low), float(high) if answers.any() else far, by_people=True)


def _exact_interval(right: int, answers: int) -> tuple[float, float]:
    from scipy.special import betaincinv

    tail = (1 - LEVEL) / 2
    low = float(betaincinv(right, answers - right + 1, tail)) if right else 0.0
    high = float(betaincinv(right + 1, answers - right, 1 - tail)) if right < answers else 1.0
    return low, high
