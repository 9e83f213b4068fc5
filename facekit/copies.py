"""Groups of pictures that are copies of each other: equal files, and the same photo stored in another way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekit.images import UnreadableImageError, read_image
from facekit.perceptual_hash import aligned_likeness, for_alignment, hashes, near_pairs, thumbnail_likeness

RADIUS = 8
"""Bits of 64 in which the hashes of two copies may differ. Of LFW's crops stored again (JPEG quality 30, 0.6 and
1.7 times the size, brightened, darkened) 99 % differ in 8 or fewer; so do 9 in 10 of those cut by up to 3 % at each
edge."""

THUMBNAILS_ALIKE = 0.9
"""Correlation that the thumbnails of two copies have at least, in 99 % of the same. It spares 9 in 10 of the
alignments."""

ALIGNED_ALIKE = 0.9
"""Correlation of the aligned fine detail of two copies. LFW's crops stored again: 0.94 and up. Of its pairs that
pass both sieves before, all above 0.9 are one photo to the eye, and other pictures of two people reach 0.63."""

FLAT = 3.0
"""Grey levels of standard deviation of a thumbnail: below, two pictures are alike by having nothing in them."""

_MOST_EQUAL = 50  # pictures of one hash that are compared all with all; more are compared with the first


@dataclass(frozen=True)
class Candidates:
    """Pairs of pictures that may be copies.

    Attributes:
        equal: (k, 2) int64 positions: equal files, each with the first of its kind.
        near: (m, 2) int64 positions, to be confirmed by `confirm`.
    """

    equal: NDArray[np.int64]
    near: NDArray[np.int64]


def candidates(digests: Sequence[str], thumbnails: NDArray[np.uint8]) -> Candidates:
    """Pairs of n pictures that are equal files, or look alike in the small.

    Args:
        digests: n of the files.
        thumbnails: (n, 16, 16) uint8.
    """
    _, first, which = np.unique(np.array(digests, dtype=str), return_index=True, return_inverse=True)
    every = np.arange(len(digests))
    repeats = every[first[which] != every]
    equal = np.stack([first[which][repeats], repeats], axis=1)
    single = np.sort(first[thumbnails[first].std(axis=(1, 2)) >= FLAT])
    near = single[_near(hashes(thumbnails[single]))]
    return Candidates(equal, near[thumbnail_likeness(thumbnails, near) >= THUMBNAILS_ALIKE])


def _near(codes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Pairs of near hashes; a crowd of equal hashes is tied to its first, or its pairs would fill the memory."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    begin = np.searchsorted(ordered, ordered)
    crowded = np.arange(len(codes)) - begin >= _MOST_EQUAL
    tied = np.stack([order[begin[crowded]], order[crowded]], axis=1)
    rest = np.sort(order[~crowded])
    pairs, _ = near_pairs(codes[rest], RADIUS)
    return np.concatenate([rest[pairs], tied])


def confirm(pairs: Sequence[tuple[str, str]], root: Path) -> list[float]:
    """How alike the fine detail of each pair of pictures is, -1 to 1: one shard of the work.

    A picture that cannot be read any more is like nothing: 0.

    Args:
        pairs: paths below `root`.
        root: the folder.
    """
    likeness = []
    kept: dict[str, NDArray[np.float32] | None] = {}
    for one, two in pairs:
        kept = {name: kept[name] if name in kept else _prepared(root / name) for name in (one, two)}
        first, second = kept[one], kept[two]
        likeness.append(0.0 if first is None or second is None else aligned_likeness(first, second))
    return likeness


def _prepared(path: Path) -> NDArray[np.float32] | None:
    try:
        return for_alignment(read_image(path))
    except UnreadableImageError:
        return None


def groups(pairs: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    """Positions that pairs tie together, directly or by way of others: a sorted array a group.

    Args:
        pairs: (m, 2) positions below `count`.
        count: how many positions there are.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if not len(pairs):
        return []
    graph = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, group = connected_components(graph, directed=False)
    tied = np.unique(pairs)
    order = tied[np.argsort(group[tied], kind="stable")]
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)
