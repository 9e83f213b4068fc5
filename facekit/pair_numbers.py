"""Pairs as numbers, so that some of very many can be drawn without listing all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


def pair_count(counts: NDArray[np.integer]) -> Numbers:
    """How many pairs so many things give: n (n - 1) / 2, int64."""
    wide = counts.astype(np.int64)
    return wide * (wide - 1) // 2


def pair_of(numbers: Numbers) -> tuple[Numbers, Numbers]:
    """The pairs i < j of numbers from 0: 0 is (0, 1), 1 is (0, 2), 2 is (1, 2), 3 is (0, 3), ...

    So the first n (n - 1) / 2 numbers are the pairs of n things (the combinatorial number system).

    Args:
        numbers: int64 from 0, below 2^49: the pairs of 33 million things.

    Returns:
        i and j, of the shape of `numbers`.
    """
    # Right as it stands: the root is whole where a pair starts, and below 2^49 it falls short by more than rounding
    # mends before.
    second = ((1 + np.sqrt(8.0 * numbers + 1)) / 2).astype(np.int64)
    return numbers - second * (second - 1) // 2, second


def distinct(total: int, wanted: int, rng: np.random.Generator) -> Numbers:
    """`wanted` different numbers below `total`, sorted; every choice of them is equally likely.

    Takes memory for `wanted` numbers, not for `total`, unless more than half are wanted.
    """
    if 2 * wanted > total:
        return np.sort(rng.permutation(total)[:wanted])
    numbers = np.empty(0, np.int64)
    while numbers.size < wanted:
        numbers = first_of_each(np.concatenate([numbers, rng.integers(total, size=wanted + wanted // 4 + 8)]))
    return np.sort(numbers[:wanted])


def first_of_each(numbers: Numbers) -> Numbers:
    """The numbers without those that came before, in their order."""
    return numbers[np.sort(np.unique(numbers, return_index=True)[1])]
