"""Folders in doubt, found by embeddings: two folders of one person, one folder of two people.

As in `facekit.label_noise`, thresholds come from the data itself and say what they expect to be wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekit.label_noise import Judged, Labels, Numbers, Rows, folder_sums, judge, unit_rows

_BLOCK = 1024
_FEWEST = 50  # pairs of folders below which their tail is not looked at
_BINS = 8192  # of cosines from -1 to 1
_TAIL = (1e-2, 1e-3)  # shares of the pairs of folders between which their upper tail is measured
_SET_ASIDE = 0.34  # share of a folder's pictures that may be left out of a cut
_LARGEST = 400  # pictures of a folder that are looked at for two people: its cost grows with their square


@dataclass(frozen=True)
class Doubles:
    """Pairs of folders that look like one person.

    Attributes:
        pairs: (m, 2) int64 folders, the most alike first.
        likeness: (m,) cosine of the angle between the mean pictures of the two, -1 to 1.
        threshold: taken for one person above it; inf where nothing can be told.
        expected_false: pairs of different people expected above it by chance.
    """

    pairs: NDArray[np.int64]
    likeness: Numbers
    threshold: float
    expected_false: float


def doubles(
    embeddings: Rows,
    labels: Labels,
    trusted: NDArray[np.bool_],
    expected_false: float = 1.0,
    fewest: int = 2,
) -> Doubles:
    """Folders that look like the same person.

    Folders are compared by the cosine between the means of their pictures. Nearly all pairs of folders are of two
    people, and they are the measure: after Fisher's transformation (the inverse hyperbolic tangent, which makes
    correlations nearly normal) their upper tail, measured between the most alike 1 % and 0.1 %, is continued as
    that of a normal distribution to where `expected_false` pairs are left. Two folders must also be as alike as the
    halves of one folder are in all but the worst tenth of folders.

    Args:
        embeddings: (n, D) unit rows, of `centred`.
        labels: (n,) folders, 0 and up.
        trusted: (n,) bool: pictures to count.
        expected_false: see above.
        fewest: trusted pictures that a folder must have.
    """
    folders = int(labels.max()) + 1
    counts = np.bincount(labels[trusted], minlength=folders)
    chosen = np.flatnonzero(counts >= max(1, fewest))
    means = unit_rows(folder_sums(embeddings, labels, folders, trusted)[chosen])
    pairs = len(chosen) * (len(chosen) - 1) // 2
    nothing = Doubles(np.empty((0, 2), np.int64), np.empty(0), np.inf, 0.0)
    if pairs < _FEWEST:
        return nothing
    edges = np.linspace(-1, 1, _BINS + 1)
    tally = np.zeros(_BINS, np.int64)
    for _, values in _upper_blocks(means):
        tally += np.histogram(np.clip(values, -1, 1), edges)[0]
    threshold = max(
        _continued_tail(tally, edges, expected_false), _halves_alike(embeddings, labels, trusted, fewest)
    )
    found: list[tuple[NDArray[np.int64], Rows]] = []
    for (rows, columns), values in _upper_blocks(means):
        alike = values >= threshold
        found.append((np.stack([rows[alike], columns[alike]], axis=1), values[alike]))
    places = np.concatenate([place for place, _ in found])
    likeness = np.concatenate([values for _, values in found]).astype(np.float64)
    order = np.argsort(-likeness, kind="stable")
    return Doubles(chosen[places[order]], likeness[order], float(threshold), expected_false)


def _upper_blocks(means: Rows) -> Iterator[tuple[tuple[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]]:
    """Cosines of all pairs of rows, the first before the second, in blocks: their places and values."""
    for start in range(0, len(means), _BLOCK):
        values = means[start : start + _BLOCK] @ means[start:].T
        rows, columns = np.triu_indices(len(values), 1, values.shape[1])
        yield (rows + start, columns + start), values[rows, columns]


def _continued_tail(tally: NDArray[np.int64], edges: Numbers, left: float) -> float:
    """Above which cosine `left` of all counted ones would lie, by the normal tail through two quantiles."""
    from scipy.stats import norm

    above = tally[::-1].cumsum()[::-1].astype(np.float64)
    total = above[0]
    # Of few pairs the best 0.1 % are too few to tell where they end.
    upper = min(max(_TAIL[1], 10 / total), 0.1)
    shares = np.array([upper * _TAIL[0] / _TAIL[1], upper]).clip(max=0.5)
    ends = np.arctanh(
        [np.clip(edges[np.flatnonzero(above >= share * total)[-1]], -0.999, 0.999) for share in shares]
    )
    one, two, end = norm.isf([*shares, min(left / total, upper)])
    return float(np.tanh(ends[1] + (end - two) * max(ends[1] - ends[0], 1e-6) / (two - one)))


def _halves_alike(embeddings: Rows, labels: Labels, trusted: NDArray[np.bool_], fewest: int) -> float:
    """The cosine that the means of nine in ten folders' halves have at least; -inf without a folder to halve."""
    order = np.flatnonzero(trusted)
    order = order[np.argsort(labels[order], kind="stable")]
    within = np.arange(len(order)) - np.searchsorted(labels[order], labels[order])
    halves = 2 * labels[order] + within % 2
    folders = int(labels.max()) + 1
    counts = np.bincount(halves, minlength=2 * folders)
    sums = folder_sums(embeddings[order], halves, 2 * folders, np.ones(len(order), bool))
    enough = np.minimum(counts[0::2], counts[1::2]) >= max(1, fewest)
    if not enough.any():
        return -np.inf
    means = unit_rows(sums)
    return float(np.quantile((means[0::2] * means[1::2]).sum(axis=1)[enough], 0.1))


@dataclass(frozen=True)
class Splits:
    """Folders that look like two people.

    Attributes:
        gap: (folders,) how much more the parts' pictures resemble each other across than within; low: two people;
            NaN: not judged.
        part: (n,) int64: 0 the larger part of a folder, 1 the smaller; -1: not judged.
        folders: (m,) int64, those that look like two people, the clearest first.
        judged: the threshold on `gap`.
    """

    gap: Numbers
    part: NDArray[np.int64]
    folders: NDArray[np.int64]
    judged: Judged


def splits(
    embeddings: Rows, labels: Labels, trusted: NDArray[np.bool_], precision: float = 0.8, seed: int = 0
) -> Splits:
    """Folders that look like two people: each is cut in two, and the cut compared with cuts of made-up folders.

    A folder's pictures are merged, those alike on average first, until two parts are left (scikit-learn's
    `AgglomerativeClustering`). A part of one picture says nothing of two people (`misfits` judges such pictures):
    it is set aside and the rest is cut again. An error is made up by putting two folders into one. Of a large
    folder, 400 pictures are looked at.

    Args:
        embeddings: (n, D) unit rows, of `centred`.
        labels: (n,) folders, 0 and up.
        trusted: (n,) bool: pictures to count.
        precision: expected share of folders of two people among those found, 0 to 1.
        seed: of the made-up folders.
    """
    rng = np.random.default_rng(seed)
    folders = int(labels.max()) + 1
    order = np.flatnonzero(trusted)
    order = order[np.argsort(labels[order], kind="stable")]
    members = np.split(order, np.searchsorted(labels[order], np.arange(1, folders)))
    gap, part = np.full(folders, np.nan), np.full(len(labels), -1)
    for folder, own in enumerate(members):
        own = own if len(own) <= _LARGEST else rng.choice(own, _LARGEST, replace=False)
        if len(own) >= 4:
            gap[folder], part[own] = _cut(embeddings[own])
    several = [number for number, own in enumerate(members) if len(own) >= 2]
    made_up = np.array([_cut(embeddings[rows])[0] for rows in _made_up_folders(members, several, rng)])
    able = np.isfinite(gap)
    judged = judge(gap[able], made_up[np.isfinite(made_up)], precision)
    found = np.flatnonzero(able & (np.where(able, gap, np.inf) < judged.threshold))
    return Splits(gap, part, found[np.argsort(gap[found], kind="stable")], judged)


def _made_up_folders(
    members: list[NDArray[np.int64]], several: list[int], rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Folders of two people: two drawn folders in one, up to 1,000 of them."""
    for _ in range(min(1000, 2 * len(several)) if len(several) >= 2 else 0):
        one, two = (members[number] for number in rng.choice(several, 2, replace=False))
        yield np.concatenate([one[:_LARGEST], two[:_LARGEST]])


def _cut(rows: Rows) -> tuple[float, NDArray[np.int64]]:
    """The best cut of (m, D) rows in two: its gap, and each row's part, -1 for a row set aside; NaN for no cut."""
    cosines = (rows @ rows.T).astype(np.float64)
    part = np.zeros(len(rows), np.int64)
    kept = np.arange(len(rows))
    while len(kept) >= max(4, (1 - _SET_ASIDE) * len(rows)):
        smaller = _smaller_part(cosines[np.ix_(kept, kept)])
        if smaller.sum() >= 2:
            part[kept[smaller]] = 1
            one, two = kept[smaller], kept[~smaller]
            within = [_mean_off_diagonal(cosines[np.ix_(side, side)]) for side in (one, two)]
            return float(cosines[np.ix_(one, two)].mean() - np.mean(within)), part
        part[kept[smaller]] = -1
        kept = kept[~smaller]
    return np.nan, np.full(len(rows), -1)


def _smaller_part(cosines: Numbers) -> NDArray[np.bool_]:
    """Which rows are in the smaller of the two parts that the rows merge into."""
    from sklearn.cluster import AgglomerativeClustering

    merging = AgglomerativeClustering(n_clusters=2, metric="precomputed", linkage="average")
    part = merging.fit_predict(np.maximum(1 - cosines, 0)) == 1
    return ~part if part.sum() * 2 > len(part) else part


def _mean_off_diagonal(square: Numbers) -> float:
    size = len(square)
    return float((square.sum() - np.trace(square)) / (size * (size - 1)))
