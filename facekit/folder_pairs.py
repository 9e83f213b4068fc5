"""Pairs of a whole folder of people: all genuine ones, and all impostor ones or a fair draw of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from facekit.protocols import Pairs


def all_pairs(names: Sequence[str], people: Sequence[str], impostor_limit: int, seed: int = 0) -> Pairs:
    """All genuine pairs of a folder of people, and all impostor pairs or, above a limit, so many drawn of them.

    Args:
        names: (n) pictures, those of a person side by side.
        people: (n) the person of each.
        impostor_limit: the most impostor pairs; 0: all.
        seed: of the draw, uniform over all impostor pairs, without repetition.

    Raises:
        ValueError: there is no genuine or no impostor pair.
    """
    _, labels, counts = np.unique(np.asarray(people), return_inverse=True, return_counts=True)
    order = np.argsort(labels, kind="stable")
    starts = np.cumsum(counts) - counts
    within = [
        np.stack(np.triu_indices(count, 1)) + start
        for start, count in zip(starts, counts, strict=True)
        if count > 1
    ]
    genuine = np.concatenate(within, axis=1) if within else np.empty((2, 0), np.int64)
    total = len(names) * (len(names) - 1) // 2 - genuine.shape[1]
    if not genuine.shape[1] or not total:
        missing = "impostor" if genuine.shape[1] else "genuine"
        raise ValueError(
            f"{len(names)} pictures of {counts.size} people give no {missing} pair: at least two people, and one "
            "with two pictures, are needed."
        )
    impostor = _impostors(labels[order], min(total, impostor_limit or total), total, seed)
    first, second = np.concatenate([genuine, impostor], axis=1)
    same = np.arange(first.size) < genuine.shape[1]
    sorted_names, sorted_people = np.asarray(names, object)[order], np.asarray(people)[order]
    return Pairs(
        list(sorted_names[first]),
        list(sorted_names[second]),
        same,
        ids1=list(sorted_people[first]),
        ids2=list(sorted_people[second]),
    )


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
        both = np.concatenate([keys, new])
        _, places = np.unique(both, return_index=True)
        keys = both[np.sort(places)]
    keys = np.sort(keys[:wanted])
    return np.stack([keys // labels.size, keys % labels.size])
