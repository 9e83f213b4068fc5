"""Oracles of mining: NumPy float64 loops, written from the papers. They never import the code they judge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Row(NamedTuple):
    """One anchor's distances, and the columns of its positives and negatives."""

    distances: list[float]
    positives: list[int]
    negatives: list[int]


def rows_of(distances: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> Iterator[Row]:
    for own, p, n in zip(np.asarray(distances, "float64"), positive, negative, strict=True):
        yield Row([float(d) for d in own], [int(j) for j in np.flatnonzero(p)], [int(j) for j in np.flatnonzero(n)])


def mask(chosen: list[list[int]], width: int) -> np.ndarray:
    """The chosen columns of each row as a mask."""
    result = np.zeros((len(chosen), width), bool)
    for row, columns in enumerate(chosen):
        for column in columns:
            assert not result[row, column]
            result[row, column] = True
    return result


def nearest(row: Row, columns: list[int], count: int = 1) -> list[int]:
    """The first of equals."""
    return sorted(columns, key=lambda j: (row.distances[j], j))[:count]


def farthest(row: Row, columns: list[int]) -> list[int]:
    return sorted(columns, key=lambda j: (-row.distances[j], j))[:1]


# ---- Masks -------------------------------------------------------------------------------------------------


def hardest_pair(
    distances: np.ndarray, positive: np.ndarray, negative: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Hermans 2017."""
    rows, width = list(rows_of(distances, positive, negative)), distances.shape[1]
    far = mask([farthest(row, row.positives) for row in rows], width)
    return far, mask([nearest(row, row.negatives) for row in rows], width)


def easy_positives(distances: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Xuan 2020."""
    rows = rows_of(distances, positive, np.zeros_like(positive))
    return mask([nearest(row, row.positives) for row in rows], distances.shape[1])


def semi_hard_negatives(
    distances: np.ndarray, positive: np.ndarray, negative: np.ndarray, margin: float
) -> np.ndarray:
    """FaceNet's band, or the nearest negative."""
    chosen = []
    for row in rows_of(distances, positive, negative):
        d = row.distances
        band = [n for n in row.negatives if any(d[p] < d[n] < d[p] + margin for p in row.positives)]
        chosen.append(band or nearest(row, row.negatives))
    return mask(chosen, distances.shape[1])


def random_negatives(noise: np.ndarray, negative: np.ndarray, count: int) -> np.ndarray:
    """Those with the most noise."""
    rows = rows_of(-noise, np.zeros_like(negative), negative)
    return mask([nearest(row, row.negatives, count) for row in rows], noise.shape[1])


def log_weight(distance: float, dimension: int) -> float:
    """Wu 2017: the logarithm of 1 / q(d), with d between the two limits."""
    d = min(max(distance, 0.5), 1.4)
    return -((dimension - 2) * np.log(d) + (dimension - 3) / 2 * np.log(1 - d * d / 4))


def drawable(row: Row) -> list[int]:
    near = [n for n in row.negatives if row.distances[n] < 1.4]
    return near or row.negatives


def distance_weighted_negatives(
    noise: np.ndarray, distances: np.ndarray, negative: np.ndarray, dimension: int, count: int
) -> np.ndarray:
    """Each negative waits for a time that is exponential with its weight as the rate; the first ones are drawn."""
    chosen = []
    for u, row in zip(noise, rows_of(distances, np.zeros_like(negative), negative), strict=True):
        log_time = [
            np.log(-np.log(max(u[n], 1e-9))) - log_weight(row.distances[n], dimension) for n in drawable(row)
        ]
        order = sorted(range(len(log_time)), key=lambda i: log_time[i])
        chosen.append([drawable(row)[i] for i in order[:count]])
    return mask(chosen, distances.shape[1])


def inclusion(weights: list[float], count: int) -> list[float]:
    """How likely each is among `count` (1 or 2) draws by weight without replacement."""
    share = np.array(weights, "float64") / sum(weights)
    if count == 1:
        return list(share)
    second = [
        sum(share[j] * share[i] / (1 - share[j]) for j in range(len(share)) if j != i) for i in range(len(share))
    ]
    return [float(a + b) for a, b in zip(share, second, strict=True)]


# ---- Values ------------------------------------------------------------------------------------------------


def largest(values: np.ndarray, exists: np.ndarray, count: int) -> list[list[float]]:
    """From the largest down; as many as there are."""
    return [sorted((float(v) for v in row[e]), reverse=True)[:count] for row, e in zip(values, exists, strict=True)]


def nearest_mean(distances: np.ndarray, negative: np.ndarray, count: int) -> list[float]:
    means = []
    for row in rows_of(distances, np.zeros_like(negative), negative):
        chosen = [row.distances[j] for j in nearest(row, row.negatives, count)]
        means.append(sum(chosen) / len(chosen) if chosen else 0.0)
    return means


def semi_hard(distances: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> list[list[tuple[float, float]]]:
    """(d_ap, d_an) of each positive of a row with negatives, in the order of the distances."""
    pairs = []
    for row in rows_of(distances, positive, negative):
        d, own = row.distances, []
        for p in sorted(row.positives, key=lambda j: d[j]) if row.negatives else []:
            farther = [d[n] for n in row.negatives if d[n] > d[p]]
            own.append((d[p], min(farther) if farther else max(d[n] for n in row.negatives)))
        pairs.append(own)
    return pairs


def violations(
    distances: np.ndarray, positive: np.ndarray, negative: np.ndarray, margin: float
) -> list[tuple[float, int]]:
    """Sum and number of the positive terms."""
    found = []
    for row in rows_of(distances, positive, negative):
        terms = [row.distances[p] - row.distances[n] + margin for p in row.positives for n in row.negatives]
        found.append((sum(t for t in terms if t > 0), sum(t > 0 for t in terms)))
    return found


def tuplet_margin(cosines: np.ndarray, positive: np.ndarray, negative: np.ndarray, own_keys: bool) -> float:
    """Yu & Tao 2019, equation 5, on chosen pairs, margin 0.1 and scale 64: mean over pairs, or over tuplets."""
    terms, means = [], []
    for row in rows_of(cosines, positive, negative):
        levels = [np.cos(np.arccos(row.distances[p]) - 0.1) for p in row.positives]
        own = [np.log1p(sum(np.exp(64 * (row.distances[n] - at)) for n in row.negatives)) for at in levels]
        terms += own if row.negatives else []
        means.append(float(np.mean(own)) if own else 0.0)
    return float(np.mean(means if own_keys else terms))
