"""How alike probes are: to their own person's other pictures, to other probes, to distractors; and the ID rate.

The ID rate is TPR at FPR of single pairs. Its positives are the genuine pairs of two probes, its negatives the
impostor pairs of two probes and the pairs of a probe and a distractor, together. Pairs of a picture without a face
count as rejected.

Millions of pairs are compared block by block, and none but the first few million are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit.metrics import USUAL_RATES, BoolArray, FloatArray, IntArray, Roc, TprAtFpr, claim, roc

Rows = NDArray[np.floating[Any]]
Squares = NDArray[np.float32]

EXACT_PAIRS = 5_000_000
"""Up to so many pairs the ID rate chooses its thresholds among all their distances. With more it chooses among a
million cosines, 2e-6 apart; what it counts at each, and so TPR and FPR, is exact all the same."""

COSINE_EDGES: FloatArray = np.arange(-100, 101) / 100
"""(201,) edges of the histograms of cosines. A bin holds its upper edge and not its lower one."""

_CELLS = 1_000_000  # of the grid, from cosine 1 down to -1; a multiple of the histogram's bins
_AT_ONCE = 2**22  # distances in memory at once
_SMALLEST_SQUARE = 1e-6**2  # float32 rows are no more exact
_KINDS = _GENUINE, _IMPOSTOR, _DISTRACTOR = range(3)


@dataclass(frozen=True, eq=False)
class Distribution:
    """Cosines of one kind of pairs.

    Attributes:
        pairs: all of them.
        lost: those of a picture without a face; they are in no bin.
        mean: mean cosine of the others; NaN without any.
        counts: (200,) int64, the others between `COSINE_EDGES`.
    """

    pairs: int
    lost: int
    mean: float
    counts: IntArray


@dataclass(frozen=True, eq=False)
class Similarities:
    """Pairs of two probes, and of a probe and a distractor.

    Attributes:
        genuine: two probes of one person.
        impostor: two probes of two people.
        distractor: a probe and a distractor.
        id_rate: TPR at FPR for each of `facekit.metrics.USUAL_RATES`; thresholds are distances.
    """

    genuine: Distribution
    impostor: Distribution
    distractor: Distribution
    id_rate: list[TprAtFpr]


def squared_distances(queries: Rows, keys: FloatArray) -> Squares:
    """Squared Euclidean distances of unit rows: (q, D) against (k, D) give (q, k) float32, 0 to 4.

    The product is taken in float64, where near duplicates keep their distance, and the result is rounded to
    float32, where equal rows are equally far whatever their place. Distances below 1e-6 are 0.
    """
    rows = queries.astype(np.float64)
    squares = rows @ keys.T
    squares *= -2.0
    squares += np.einsum("ij,ij->i", rows, rows)[:, None]
    squares += np.einsum("ij,ij->i", keys, keys)
    squares[squares < _SMALLEST_SQUARE] = 0.0
    return squares.astype(np.float32)


def blocks(rows: int, width: int) -> Iterator[slice]:
    """Cut `rows` rows into slices of about four million distances to `width` others."""
    step = max(1, _AT_ONCE // max(1, width))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def compare_probes(probes: Rows, people: IntArray, distractors: Rows) -> Similarities:
    """Compare every two probes, and every probe with every distractor.

    Args:
        probes: (p, D) unit rows, NaN where a picture gave no face.
        people: (p,) each probe's person, numbered from 0.
        distractors: (d, D) likewise, of other people; d may be 0.
    """
    totals = _pair_counts(people, len(distractors))
    there, others = ~np.isnan(probes).any(axis=1), distractors[~np.isnan(distractors).any(axis=1)]
    counts, sums = np.zeros((len(_KINDS), _CELLS), np.int64), np.zeros(len(_KINDS))
    keep, kept = sum(totals) <= EXACT_PAIRS, [[np.empty(0, np.float32)] for _ in _KINDS]
    for kind, squares in _compared(probes[there], people[there], others):
        counts[kind] += _in_cells(squares)
        sums[kind] += squares.sum(dtype=np.float64)
        if keep:
            kept[kind].append(squares)
    curve = _curve_of_pairs(kept) if keep and counts.any() else _curve_of_cells(counts)
    # Pairs of a lost picture are accepted nowhere, and count.
    curve = replace(curve, genuine=totals[_GENUINE], impostor=totals[_IMPOSTOR] + totals[_DISTRACTOR])
    genuine, impostor, distractor = (_distribution(*parts) for parts in zip(totals, counts, sums, strict=True))
    return Similarities(genuine, impostor, distractor, [claim(curve, rate) for rate in USUAL_RATES])


def _pair_counts(people: IntArray, distractors: int) -> tuple[int, int, int]:
    each = np.bincount(people)
    genuine = int((each * (each - 1) // 2).sum())
    return genuine, people.size * (people.size - 1) // 2 - genuine, people.size * distractors


def _compared(probes: Rows, people: IntArray, distractors: Rows) -> Iterator[tuple[int, Squares]]:
    """Each pair's squared distance once, in pieces of one kind."""
    keys = probes.astype(np.float64)
    for block in blocks(len(probes), len(probes)):
        # Row i against the rows after it.
        squares = squared_distances(probes[block], keys[block.start :])
        once = np.triu(np.ones(squares.shape, np.bool_), 1)
        same: BoolArray = people[block, None] == people[block.start :]
        yield _GENUINE, squares[once & same]
        yield _IMPOSTOR, squares[once & ~same]
    for block in blocks(len(distractors), len(probes)):
        yield _DISTRACTOR, squared_distances(distractors[block], keys).ravel()


def _in_cells(squares: Squares) -> IntArray:
    """How many pairs are in each cell: cell i holds 4 i / cells <= squared distance < 4 (i + 1) / cells."""
    cells = (squares.astype(np.float64) * (_CELLS / 4.0)).astype(np.int64)
    return np.bincount(np.minimum(cells, _CELLS - 1), minlength=_CELLS)


def _curve_of_pairs(kept: list[list[Squares]]) -> Roc:
    """The ROC at every distance."""
    squares = [np.concatenate(pieces, dtype=np.float64) for pieces in kept]
    same = np.arange(sum(part.size for part in squares)) < squares[_GENUINE].size
    return roc(np.sqrt(np.concatenate(squares)), same)


def _curve_of_cells(counts: IntArray) -> Roc:
    """The ROC at the lower ends of the cells, and at infinity."""
    cells = counts.shape[1]
    thresholds = np.append(np.sqrt(np.arange(cells) * 4 / cells), np.inf)
    accepted = np.pad(np.cumsum(counts, axis=1), ((0, 0), (1, 0)))
    impostor = accepted[_IMPOSTOR] + accepted[_DISTRACTOR]
    return Roc(thresholds, accepted[_GENUINE], impostor, int(accepted[_GENUINE, -1]), int(impostor[-1]))


def _distribution(pairs: int, cells: IntArray, sum_of_squares: float) -> Distribution:
    bins = cells.reshape(COSINE_EDGES.size - 1, -1).sum(axis=1)[::-1]
    compared = int(cells.sum())
    mean = 1 - float(sum_of_squares) / (2 * compared) if compared else np.nan
    return Distribution(pairs, pairs - compared, mean, bins)
