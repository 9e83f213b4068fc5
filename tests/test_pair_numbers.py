"""Pairs as numbers: each pair once, and fair draws of few of very many."""

from __future__ import annotations

import tracemalloc
from itertools import combinations

import numpy as np
import pytest

from facekit.pair_numbers import distinct, first_of_each, pair_count, pair_of


@pytest.mark.parametrize("count", [1, 2, 3, 10, 60])
def test_the_first_numbers_are_the_pairs_of_so_many_things(count):
    first, second = pair_of(np.arange(count * (count - 1) // 2))
    pairs = list(zip(first.tolist(), second.tolist(), strict=True))
    assert set(pairs) == set(combinations(range(count), 2)) and len(pairs) == len(set(pairs))
    assert pairs == sorted(pairs, key=lambda pair: (pair[1], pair[0]))
    assert pair_count(np.array([count])).tolist() == [len(pairs)]


def test_large_numbers_are_exact():
    # Where a row of pairs starts and ends is where a root may be rounded over.
    second = np.unique(np.r_[np.geomspace(1, 2**25, 200_000).astype(np.int64), 2**25 - np.arange(100_000)])
    start = second * (second - 1) // 2
    for first in (np.zeros_like(second), second - 1):
        one, other = pair_of(start + first)
        assert (one == first).all() and (other == second).all()


def test_counts_of_pairs_do_not_run_over():
    assert pair_count(np.array([494_414], np.int32)).tolist() == [494_414 * 494_413 // 2]


@pytest.mark.parametrize(("total", "wanted"), [(1, 1), (10, 3), (10, 6), (10, 10), (7, 0), (0, 0)])
def test_different_numbers_every_choice_equally_likely(total, wanted):
    counts: dict[tuple[int, ...], int] = {}
    for seed in range(4000):
        drawn = tuple(distinct(total, wanted, np.random.default_rng(seed)).tolist())
        assert drawn == tuple(sorted(set(drawn))) and len(drawn) == wanted
        assert all(0 <= number < total for number in drawn)
        counts[drawn] = counts.get(drawn, 0) + 1
    choices = len(list(combinations(range(total), wanted)))
    expected = 4000 / choices
    assert len(counts) == choices
    assert max(abs(count - expected) for count in counts.values()) < 5.5 * np.sqrt(expected) + 1e-9


def test_few_of_very_many_take_memory_for_few():
    tracemalloc.start()
    drawn = distinct(10**12, 10_000, np.random.default_rng(0))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(set(drawn.tolist())) == 10_000 and drawn.max() > 9e11 and peak < 3e6


def test_repeats_are_dropped_in_order():
    assert first_of_each(np.array([5, 3, 5, 9, 3, 1])).tolist() == [5, 3, 9, 1]
