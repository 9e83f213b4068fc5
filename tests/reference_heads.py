"""Oracles of the heads: slow NumPy float64 loops written from the papers. They never import the code they judge."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

MARGINS = {"softmax": 0.0, "arcface": 0.5, "cosface": 0.35, "adaface": 0.4}


def unit(row: np.ndarray) -> np.ndarray:
    norm = np.sqrt(np.sum(row * row))
    return row / norm if norm > 0 else row


def values(
    name: str,
    rows: np.ndarray,
    labels: np.ndarray,
    centres: np.ndarray,
    *,
    margin: float | None = None,
    scale: float = 64.0,
    quality: Iterable[float] | None = None,
    classes: Iterable[int] | None = None,
) -> np.ndarray:
    """Each row's -log softmax.

    centres: (classes, subcentres, D). quality: AdaFace's q of each row. classes: those that compete; all if None.
    """
    margin = MARGINS[name] if margin is None else margin
    scale = 1.0 if name == "softmax" else scale
    rows, centres = prepared(name, rows), prepared(name, centres)
    competing = range(len(centres)) if classes is None else classes
    qualities = np.zeros(len(rows)) if quality is None else quality
    losses = []
    for row, label, q in zip(rows, labels, qualities, strict=True):
        target = scale * target_of(name, largest_product(row, centres[label]), margin, q)
        others = [scale * largest_product(row, centres[j]) - target for j in competing if j != label]
        losses.append(np.logaddexp.reduce([0.0, *others]))
    return np.array(losses)


def prepared(name: str, vectors: np.ndarray) -> np.ndarray:
    """Rows or centres as they are multiplied."""
    vectors = np.asarray(vectors, "float64")
    return vectors if name == "softmax" else np.apply_along_axis(unit, -1, vectors)


def largest_product(row: np.ndarray, subcentres: Iterable[np.ndarray]) -> float:
    return max(float(row @ centre) for centre in subcentres)


def target_of(name: str, product: float, margin: float, q: float) -> float:
    """The own class's product, less the margin."""
    if name == "softmax":
        return product
    if name == "cosface":
        return product - margin
    theta = np.arccos(np.clip(product, -1.0, 1.0))
    if name == "arcface":
        if theta + margin > np.pi:
            return np.cos(theta) - margin * np.sin(margin)
        return np.cos(theta + margin)
    return np.cos(np.clip(theta - margin * q, 1e-3, np.pi - 1e-3)) - (margin + margin * q)


def clipped_norms(rows: np.ndarray) -> list[float]:
    return [float(np.clip(np.sqrt(np.sum(row * row)), 0.001, 100.0)) for row in np.asarray(rows, "float64")]


def running(rows: np.ndarray, mean: float, std: float) -> tuple[float, float]:
    """AdaFace's averages after one more batch."""
    norms = clipped_norms(rows)
    batch_mean = sum(norms) / len(norms)
    batch_std = np.sqrt(sum((norm - batch_mean) ** 2 for norm in norms) / len(norms))
    return 0.99 * mean + 0.01 * batch_mean, 0.99 * std + 0.01 * batch_std


def quality_of(rows: np.ndarray, mean: float, std: float, h: float = 0.333) -> list[float]:
    return [float(np.clip((norm - mean) / (std + 1e-3) * h, -1.0, 1.0)) for norm in clipped_norms(rows)]


def recognised(
    name: str, rows: np.ndarray, labels: np.ndarray, centres: np.ndarray, classes: Iterable[int] | None = None
) -> list[bool]:
    """Whether each row's own class has the largest product, and no other has it too."""
    competing = range(len(centres)) if classes is None else classes
    rows, centres = prepared(name, rows), prepared(name, centres)
    found = []
    for row, label in zip(rows, labels, strict=True):
        own = largest_product(row, centres[label])
        found.append(all(own > largest_product(row, centres[j]) for j in competing if j != label))
    return found
