"""The 95 % interval of a share of right answers, by the people whom the answers are about."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facekit.intervals import binomial_interval, rate_interval


class ShareInterval(NamedTuple):
    """A 95 % interval of a share, 0 to 1, and whether it allows for answers of one person."""

    low: float
    high: float
    by_people: bool


def share_interval(right: ArrayLike, people: ArrayLike | None = None) -> ShareInterval:
    """The interval of the share of right answers.

    Answers about one person resemble each other: where two people or more are known, the interval counts them as
    `facekit.intervals` does. Where all answers are right, or none, it is the exact one of so many people. Without
    people it is the exact interval of Clopper and Pearson (1934), as if answers were independent.

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
    if numbers.max() == 0:
        return ShareInterval(*binomial_interval(int(answers.sum()), answers.size), by_people=False)
    if answers.all() or not answers.any():
        # Nothing shows then how much answers of one person resemble each other: people count, not answers.
        people_known = int(numbers.max()) + 1
        return ShareInterval(*binomial_interval(people_known * int(answers[0]), people_known), by_people=True)
    low, high = rate_interval(~answers, numbers, numbers)
    return ShareInterval(1 - high, 1 - low, by_people=True)
