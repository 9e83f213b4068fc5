"""Oracles: slow NumPy float64 loops written from the papers. They never import the code they judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

# ---- Losses ------------------------------------------------------------------------------------------------


class Anchor(NamedTuple):
    """One anchor and what it is compared with; every row has norm 1."""

    row: np.ndarray
    positives: list[np.ndarray]
    negatives: list[np.ndarray]


def unit(row: np.ndarray) -> np.ndarray:
    norm = np.sqrt(np.sum(row * row))
    return row / norm if norm > 0 else row


def batch_anchors(labels: np.ndarray, rows: np.ndarray) -> list[Anchor]:
    """Every row is an anchor; every row of another label a negative."""
    units = [unit(row) for row in np.asarray(rows, "float64")]
    anchors = []
    for i, label in enumerate(labels):
        positives = [units[j] for j in range(len(units)) if labels[j] == label and j != i]
        negatives = [units[j] for j in range(len(units)) if labels[j] != label]
        anchors.append(Anchor(units[i], positives, negatives))
    return anchors


def tuplet_anchors(labels: np.ndarray, rows: np.ndarray) -> Iterator[Anchor]:
    """Column 0 is the anchor, column 1 the positive, the rest its negatives."""
    for own_labels, own_rows in zip(labels, np.asarray(rows, "float64"), strict=True):
        anchor, positive, *others = [unit(row) for row in own_rows]
        negatives = [row for row, label in zip(others, own_labels[2:], strict=True) if label != own_labels[0]]
        yield Anchor(anchor, [positive] if own_labels[1] == own_labels[0] else [], negatives)


def loss_value(formula: Callable[..., float], labels: np.ndarray, rows: np.ndarray, **options: object) -> float:
    """A formula on a flat batch, or its mean over tuplets."""
    if np.ndim(labels) == 1:
        return formula(batch_anchors(labels, rows), **options)
    return float(np.mean([formula([anchor], **options) for anchor in tuplet_anchors(labels, rows)]))


def mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def tuplet_margin(
    anchors: list[Anchor], margin: float = 0.1, scale: float = 64.0, hardest: int | None = None
) -> float:
    """Yu & Tao 2019, equation 5."""
    terms = []
    for anchor in anchors:
        cosines = sorted((float(anchor.row @ n) for n in anchor.negatives), reverse=True)[:hardest]
        for positive in anchor.positives:
            theta = np.arccos(np.clip(anchor.row @ positive, -1.0, 1.0))
            terms.append(np.log(1.0 + sum(np.exp(scale * (s - np.cos(theta - margin))) for s in cosines)))
    return mean(terms)


def distances_of(anchor: Anchor, squared: bool) -> tuple[list[float], list[float]]:
    power = 2 if squared else 1
    return (
        [float(np.linalg.norm(anchor.row - p) ** power) for p in anchor.positives],
        [float(np.linalg.norm(anchor.row - n) ** power) for n in anchor.negatives],
    )


def triplet(
    anchors: list[Anchor],
    margin: float = 0.2,
    mining: str | None = None,
    squared: bool = False,
    soft: bool = False,
    hardest: int | None = None,
    average: str = "positive",
) -> float:
    """FaceNet 2015, Hermans 2017, and the mean of the k nearest negatives."""
    terms: list[float] = []
    for anchor in anchors:
        positives, negatives = distances_of(anchor, squared)
        if not negatives or not positives:
            continue
        if hardest is not None:
            nearest = float(np.mean(sorted(negatives)[:hardest]))
            terms += [max(p - nearest + margin, 0.0) for p in positives]
        elif mining == "all":
            terms += [max(p - n + margin, 0.0) for p in positives for n in negatives]
        elif mining == "hard":
            gap = max(positives) - min(negatives)
            terms.append(float(np.log(1.0 + np.exp(gap))) if soft else max(gap + margin, 0.0))
        else:
            for p in positives:
                farther = [n for n in negatives if n > p]
                terms.append(max(p - (min(farther) if farther else max(negatives)) + margin, 0.0))
    if mining in ("all", "hard") and not soft and average == "positive":
        terms = [term for term in terms if term > 0]
    return mean(terms)


def addons_semi_hard(labels: np.ndarray, rows: np.ndarray, margin: float = 1.0) -> float:
    """TensorFlow Addons' `TripletSemiHardLoss`, from its documentation, by its (B, B, B) route."""
    rows = np.asarray(rows, "float64")
    squares = ((rows[:, None] - rows[None]) ** 2).sum(-1)
    same = labels[:, None] == labels[None]
    positive = same & ~np.eye(len(labels), dtype=bool)
    outside = np.where(~same[:, None, :] & (squares[:, None, :] > squares[:, :, None]), squares[:, None, :], np.inf)
    inside = np.where(~same, squares, -np.inf).max(1, keepdims=True)
    nearest = outside.min(2)
    chosen = np.where(np.isfinite(nearest), nearest, inside)
    return float(np.maximum(squares - chosen + margin, 0.0)[positive].sum() / positive.sum())


def slope(value: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-5) -> np.ndarray:
    """The gradient by central differences."""
    gradient = np.zeros(at.shape)
    for place in np.ndindex(*at.shape):
        ahead, behind = at.astype("float64"), at.astype("float64")
        ahead[place] += step
        behind[place] -= step
        gradient[place] = (value(ahead) - value(behind)) / (2 * step)
    return gradient
