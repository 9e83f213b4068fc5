"""Scored pairs that the tests of metrics, intervals and reports share."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

Scores = tuple[list[float], list[bool]]

quickly = settings(max_examples=150, deadline=None, derandomize=True)

TIED = st.sampled_from([0.0, 0.1, 0.2501, 0.25, 0.5, 0.7, 1.0, 1.5, 1.9, math.inf])
ANY = st.floats(min_value=-3, max_value=3, allow_nan=False)


def scored_pairs(min_size: int = 2) -> st.SearchStrategy[Scores]:
    """Short lists of distances and labels, with many ties and both classes."""
    pair = st.tuples(st.one_of(TIED, TIED, ANY), st.booleans())
    lists = st.lists(pair, min_size=min_size, max_size=14)
    lists = lists.filter(lambda pairs: {same for _, same in pairs} == {True, False})
    return lists.map(lambda pairs: ([float(d) for d, _ in pairs], [same for _, same in pairs]))


def normal_pairs(n: int, seed: int = 0, shift: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    same = np.arange(n) % 2 == 0
    return np.where(same, rng.normal(0.8, 0.2, n), rng.normal(0.8 + shift, 0.2, n)), same


def crowd(pairs: int, people: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and second person of random pairs, every second one genuine."""
    rng = np.random.default_rng(seed)
    same = np.arange(pairs) % 2 == 0
    first = rng.integers(people, size=pairs)
    return first, np.where(same, first, (first + rng.integers(1, people, size=pairs)) % people), same
