"""Pairs of a whole folder of people: all genuine and all impostor ones, or a fair draw of either."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facekit.pair_numbers import distinct, first_of_each, pair_count, pair_of
from facekit.protocols import Pairs

GENUINE_LIMIT = 1_000_000
"""More genuine pairs than this are drawn from. LFW has 242,257; half a million pictures of ten thousand people have
tens of millions, which fill memory and tell hardly more."""

# Pairs of a folder that fit into memory, at some 50 bytes each.
MOST_PAIRS = 100_000_000


def all_pairs(
    names: Sequence[str],
    people: Sequence[str],
    impostor_limit: int,
    seed: int = 0,
    genuine_limit: int = GENUINE_LIMIT,
) -> Pairs:
    """The genuine and impostor pairs of a folder of people; above a limit, so many drawn of them.

    Args:
        names: (n) pictures.
        people: (n) the person of each.
        impostor_limit: the most impostor pairs; 0: all.
        seed: of both draws, each uniform over all pairs of its kind, without repetition.
        genuine_limit: the most genuine pairs; 0: all. See `genuine_count` for how many there are.

    Raises:
        ValueError: there is no genuine or no impostor pair, or more than memory holds are asked for.
    """
    _, labels, counts = np.unique(np.asarray(people), return_inverse=True, return_counts=True)
    order = np.argsort(labels, kind="stable")
    every = int(pair_count(counts).sum())
    total = int(pair_count(np.array(len(names)))) - every
    if not every or not total:
        missing = "impostor" if every else "genuine"
        raise ValueError(
            f"{len(names)} pictures of {counts.size} people give no {missing} pair: at least two people, and one "
            "with two pictures, are needed."
        )
    wanted = min(every, genuine_limit or every), min(total, impostor_limit or total)
    if sum(wanted) > MOST_PAIRS:
        raise ValueError(
            f"{len(names):,} pictures of {counts.size:,} people give {wanted[0]:,} genuine and {wanted[1]:,} "
            f"impostor pairs, more than fit into memory ({MOST_PAIRS:,}): set `impostor_pairs`, for instance to "
            "1000000."
        )
    genuine = _genuine(counts, wanted[0], seed)
    impostor = _impostors(labels[order], wanted[1], total, seed)
    first, second = np.concatenate([genuine, impostor], axis=1)
    same = np.arange(first.size) < genuine.shape[1]
    sorted_names, sorted_people = np.asarray(names, object)[order], np.asarray(people, object)[order]
    return Pairs(
        list(sorted_names[first]),
        list(sorted_names[second]),
        same,
        ids1=list(sorted_people[first]),
        ids2=list(sorted_people[second]),
    )


def genuine_count(people: Sequence[str]) -> int:
    """How many genuine pairs pictures of these people (n) give."""
    return int(pair_count(np.unique(np.asarray(people), return_counts=True)[1]).sum())


def _genuine(counts: NDArray[np.integer], wanted: int, seed: int) -> NDArray[np.int64]:
    """(2, wanted) places of two pictures of one person, each pair once, sorted by person."""
    possible = pair_count(counts)
    numbers = distinct(int(possible.sum()), wanted, np.random.default_rng([seed, 1]))
    person = np.searchsorted(np.cumsum(possible), numbers, side="right")
    within = pair_of(numbers - (np.cumsum(possible) - possible)[person])
    return np.stack(within) + (np.cumsum(counts) - counts)[person]


def _impostors(labels: NDArray[np.int64], wanted: int, total: int, seed: int) -> NDArray[np.int64]:
    """(2, wanted) places of two different people's pictures, each pair once; all of them where `wanted` is all."""
    if wanted * 2 > total:
        first, second = np.triu_indices(labels.size, 1)
        differs = np.flatnonzero(labels[first] != labels[second])
        if wanted < total:
            differs = np.sort(np.random.default_rng(seed).choice(differs, wanted, replace=False))
        return np.stack([first[differs], second[differs]])
    rng, keys = np.random.default_rng(seed), np.empty(0, np.int64)
    # Draw until enough different ones are there: at most half of all are wanted, so few rounds do.
    while keys.size < wanted:
        one, other = rng.integers(labels.size, size=(2, 2 * wanted))
        new = (np.minimum(one, other) * labels.size + np.maximum(one, other))[labels[one] != labels[other]]
        keys = first_of_each(np.concatenate([keys, new]))
    keys = np.sort(keys[:wanted])
    return np.stack([keys // labels.size, keys % labels.size])
