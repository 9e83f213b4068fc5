"""The losses' formulas: what each anchor's pairs contribute. Pure functions on any Keras backend."""

from __future__ import annotations

from math import cos, sin
from typing import NamedTuple

from keras import ops

from facekit import mining as miners
from facekit.pairwise import Pairs, Tensor

# A softplus term is never 0: from here up it counts as active.
ACTIVE_TERM = 1e-3
# Below it, sin^2 counts as constant: the slope of a square root has no bound at 0.
SMALLEST_SIN_SQUARED = 1e-7


class Terms(NamedTuple):
    """What a formula finds for each anchor; every field is (A,) float32."""

    total: Tensor
    """Sum of the anchor's terms."""
    count: Tensor
    """How many terms the mean is taken over."""
    active: Tensor
    """How many terms push: above 0 for a hinge, above 1e-3 for a softplus."""
    valid: Tensor
    """How many terms there are, active or not."""


def tuplet_margin_terms(pairs: Pairs, margin: float, scale: float, hardest: int | None) -> Terms:
    """One term per (anchor, positive): log(1 + sum_n exp(scale (s_an - cos(theta_ap - margin))))."""
    cosines = pairs.cosines()
    negatives = miners.largest(scale * cosines, pairs.negative, hardest)
    level = ops.logsumexp(negatives, axis=1, keepdims=True)
    terms = ops.softplus(level - scale * _cos_less_margin(cosines, margin))
    return _mean_of_all(terms, _comparable(pairs), ACTIVE_TERM)


def triplet_semi_hard_terms(distances: Tensor, pairs: Pairs, margin: float) -> Terms:
    """One term per (anchor, positive): [d_ap - d_an + margin]+, n the semi-hard negative."""
    near, far, is_pair = miners.semi_hard(distances, pairs.positive, pairs.negative)
    return _mean_of_all(ops.relu(near - far + margin), is_pair)


def triplet_nearest_terms(distances: Tensor, pairs: Pairs, margin: float, count: int) -> Terms:
    """One term per (anchor, positive): [d_ap - (mean of the `count` smallest d_an) + margin]+."""
    far = miners.nearest_mean(distances, pairs.negative, count)
    return _mean_of_all(ops.relu(distances - far + margin), _comparable(pairs))


def triplet_all_terms(distances: Tensor, pairs: Pairs, margin: float, average: str) -> Terms:
    """One term per triplet: [d_ap - d_an + margin]+; the mean counts the positive ones, or all."""
    total, active = miners.violations(distances, pairs.positive, pairs.negative, margin)
    valid = _count(pairs.positive) * _count(pairs.negative)
    return Terms(total, active if average == "positive" else valid, active, valid)


def triplet_hard_terms(distances: Tensor, pairs: Pairs, margin: float | None) -> Terms:
    """One term per anchor: [max d_ap - min d_an + margin]+, or without a margin the softplus of the difference."""
    farthest, nearest, both = miners.hardest(distances, pairs.positive, pairs.negative)
    gap = (farthest - nearest)[:, None]
    if margin is None:
        return _mean_of_all(ops.softplus(gap), both[:, None], ACTIVE_TERM)
    terms = _mean_of_all(ops.relu(gap + margin), both[:, None])
    return terms._replace(count=terms.active)


def _mean_of_all(terms: Tensor, valid: Tensor, active_above: float = 0.0) -> Terms:
    """(A, K) terms, of which the valid ones are averaged."""
    terms = ops.where(valid, terms, 0.0)
    return Terms(ops.sum(terms, axis=1), _count(valid), _count(terms > active_above), _count(valid))


def _comparable(pairs: Pairs) -> Tensor:
    """Positive pairs whose anchor has a negative."""
    return ops.logical_and(pairs.positive, ops.any(pairs.negative, axis=1, keepdims=True))


def _count(mask: Tensor) -> Tensor:
    return ops.sum(ops.cast(mask, "float32"), axis=1)


def _cos_less_margin(cosines: Tensor, margin: float) -> Tensor:
    """cos(arccos(c) - margin) without arccos, whose slope is infinite at 1."""
    sin_squared = ops.maximum((1.0 - cosines) * (1.0 + cosines), SMALLEST_SIN_SQUARED)
    return cosines * cos(margin) + ops.sqrt(sin_squared) * sin(margin)
