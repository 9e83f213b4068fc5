"""Oracles: slow NumPy float64 loops written from the papers. They never import the code they judge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

# ---- Losses ------------------------------------------------------------------------------------------------


class Anchor(NamedTuple):
    """One anchor and what it is compared with; every row has norm 1."""

    row: np.ndarray
    positives: list[np.ndarray]
    negatives: list[np.ndarray]


# A loss is a sum of means; each part holds every anchor's list of terms.
Parts = list[list[list[float]]]


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


def anchors_of(labels: np.ndarray, rows: np.ndarray) -> list[Anchor]:
    return batch_anchors(labels, rows) if np.ndim(labels) == 1 else list(tuplet_anchors(labels, rows))


def loss_value(formula: Callable[..., Parts], labels: np.ndarray, rows: np.ndarray, **options: object) -> float:
    """Of each part the mean over all terms of a flat batch, or the mean over tuplets of their terms' mean."""
    parts = formula(anchors_of(labels, rows), **options)
    if np.ndim(labels) == 1:
        return sum(mean([term for terms in part for term in terms]) for part in parts)
    return sum(mean([mean(terms) for terms in part]) for part in parts)


def mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def cosines_of(anchor: Anchor) -> tuple[list[float], list[float]]:
    return [float(anchor.row @ p) for p in anchor.positives], [float(anchor.row @ n) for n in anchor.negatives]


def distances_of(anchor: Anchor, squared: bool) -> tuple[list[float], list[float]]:
    power = 2 if squared else 1
    return (
        [float(np.linalg.norm(anchor.row - p) ** power) for p in anchor.positives],
        [float(np.linalg.norm(anchor.row - n) ** power) for n in anchor.negatives],
    )


def log_of_one_and(logs: list[float]) -> float:
    """log(1 + the sum of their exponentials), each of which may be beyond float64."""
    return float(np.logaddexp.reduce([0.0, *logs]))


def tuplet_margin(
    anchors: list[Anchor], margin: float = 0.1, scale: float = 64.0, hardest: int | None = None
) -> Parts:
    """Yu & Tao 2019, equation 5."""
    part = []
    for anchor in anchors:
        positives, negatives = cosines_of(anchor)
        hard = sorted(negatives, reverse=True)[:hardest]
        goals = [np.cos(np.arccos(np.clip(s, -1.0, 1.0)) - margin) for s in positives if hard]
        part.append([log_of_one_and([scale * (s - goal) for s in hard]) for goal in goals])
    return [part]


def intra_pair_variance(anchors: list[Anchor], epsilon: float = 0.01) -> Parts:
    """Yu & Tao 2019: the mean cosines are those of all anchors."""
    positive = [cosines_of(anchor)[0] for anchor in anchors]
    negative = [cosines_of(anchor)[1] for anchor in anchors]
    mean_positive, mean_negative = mean(sum(positive, [])), mean(sum(negative, []))
    return [
        [[max((1 - epsilon) * mean_positive - s, 0.0) ** 2 for s in cosines] for cosines in positive],
        [[max(s - (1 + epsilon) * mean_negative, 0.0) ** 2 for s in cosines] for cosines in negative],
    ]


def tuplet_margin_ipv(anchors: list[Anchor], epsilon: float = 0.01, **options: Any) -> Parts:
    """Yu & Tao 2019: the one plus half of the other."""
    variance = intra_pair_variance(anchors, epsilon)
    return tuplet_margin(anchors, **options) + [[[0.5 * term for term in terms] for terms in p] for p in variance]


def triplet(anchors: list[Anchor], average: str = "positive", **options: Any) -> Parts:
    """The mean over positive terms, where the papers' mean is that."""
    (part,) = triplet_terms(anchors, **options)
    if options.get("mining") in ("all", "hard") and not options.get("soft") and average == "positive":
        part = [[term for term in terms if term > 0] for terms in part]
    return [part]


def triplet_terms(
    anchors: list[Anchor],
    margin: float = 0.2,
    mining: str | None = None,
    squared: bool = False,
    soft: bool = False,
    hardest: int | None = None,
    average: str = "positive",
) -> Parts:
    """FaceNet 2015, Hermans 2017, and the mean of the k nearest negatives: every term."""
    part = []
    for anchor in anchors:
        positives, negatives = distances_of(anchor, squared)
        terms: list[float] = []
        if not negatives or not positives:
            pass
        elif hardest is not None:
            nearest = float(np.mean(sorted(negatives)[:hardest]))
            terms = [max(p - nearest + margin, 0.0) for p in positives]
        elif mining == "all":
            terms = [max(p - n + margin, 0.0) for p in positives for n in negatives]
        elif mining == "hard":
            gap = max(positives) - min(negatives)
            terms = [float(np.log(1.0 + np.exp(gap))) if soft else max(gap + margin, 0.0)]
        else:
            for p in positives:
                farther = [n for n in negatives if n > p]
                terms.append(max(p - (min(farther) if farther else max(negatives)) + margin, 0.0))
        part.append(terms)
    return [part]


def contrastive(anchors: list[Anchor], margin: float = 1.0) -> Parts:
    """Hadsell 2006, equation 4, without its 1/2."""
    part = []
    for anchor in anchors:
        positives, negatives = distances_of(anchor, squared=False)
        part.append([d**2 for d in positives] + [max(margin - d, 0.0) ** 2 for d in negatives])
    return [part]


def n_pair(anchors: list[Anchor], scale: float = 1.0) -> Parts:
    """Sohn 2016, the (N+1)-tuplet loss, with scaled cosines."""
    part = []
    for anchor in anchors:
        positives, negatives = cosines_of(anchor)
        goals = positives if negatives else []
        part.append([log_of_one_and([scale * (s - goal) for s in negatives]) for goal in goals])
    return [part]


def multi_similarity(anchors: list[Anchor], alpha: float = 2.0, beta: float = 50.0, base: float = 0.5) -> Parts:
    """Wang 2019, without mining: every anchor has a term."""
    part = []
    for anchor in anchors:
        positives, negatives = cosines_of(anchor)
        low = log_of_one_and([-alpha * (s - base) for s in positives]) / alpha
        high = log_of_one_and([beta * (s - base) for s in negatives]) / beta
        part.append([low + high])
    return [part]


def circle(
    anchors: list[Anchor], margin: float = 0.25, scale: float = 256.0, held: list[Anchor] | None = None
) -> Parts:
    """Sun 2020, equations 5 and 6. The weights come from `held`: for a slope that must not see them change."""
    part = []
    for anchor, weighed in zip(anchors, held or anchors, strict=True):
        low = [max(1 + margin - s, 0.0) for s in cosines_of(weighed)[0]]
        high = [max(s + margin, 0.0) for s in cosines_of(weighed)[1]]
        positives, negatives = cosines_of(anchor)
        positive_logs = [-scale * a * (s - (1 - margin)) for a, s in zip(low, positives, strict=True)]
        negative_logs = [scale * a * (s - margin) for a, s in zip(high, negatives, strict=True)]
        product = [n + p for n in negative_logs for p in positive_logs]
        part.append([log_of_one_and(product)] if product else [])
    return [part]


def supcon(anchors: list[Anchor], temperature: float = 0.1) -> Parts:
    """Khosla 2020, equation 2, for anchors that have a negative."""
    part = []
    for anchor in anchors:
        positives, negatives = cosines_of(anchor)
        total = np.logaddexp.reduce([s / temperature for s in positives + negatives])
        logs = [float(total - s / temperature) for s in positives if negatives]
        part.append([mean(logs)] if logs else [])
    return [part]


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
