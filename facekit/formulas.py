"""The losses' formulas: what each anchor's pairs contribute. Pure functions on any Keras backend."""

from __future__ import annotations

from math import cos, sin
from typing import NamedTuple

from keras import ops

from facekit import mining as miners
from facekit.pairwise import Pairs, Tensor, safe_sqrt

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


def intra_pair_variance_terms(pairs: Pairs, epsilon: float) -> tuple[Terms, Terms]:
    """Per positive pair [(1 - epsilon) mu_p - s_ap]+^2, per negative pair [s_an - (1 + epsilon) mu_n]+^2."""
    cosines = pairs.cosines()
    below = ops.relu((1.0 - epsilon) * _batch_mean(cosines, pairs.positive, pairs) - cosines)
    above = ops.relu(cosines - (1.0 + epsilon) * _batch_mean(cosines, pairs.negative, pairs))
    return _mean_of_all(ops.square(below), pairs.positive), _mean_of_all(ops.square(above), pairs.negative)


def contrastive_terms(pairs: Pairs, margin: float) -> Terms:
    """One term per pair: d^2 of a positive one, [margin - d]+^2 of a negative one."""
    squares = pairs.distances(squared=True)
    terms = ops.where(pairs.positive, squares, ops.square(ops.relu(margin - safe_sqrt(squares))))
    return _mean_of_all(terms, ops.logical_or(pairs.positive, pairs.negative))


def multi_similarity_terms(pairs: Pairs, alpha: float, beta: float, base: float) -> Terms:
    """One term per anchor, pairs or not: log(1 + sum_p exp(-alpha (s_p - base))) / alpha + that of negatives."""
    above = pairs.cosines() - base
    low = ops.softplus(_log_sum_exp(-alpha * above, pairs.positive)) / alpha
    high = ops.softplus(_log_sum_exp(beta * above, pairs.negative)) / beta
    return _mean_of_all(low + high, ops.ones_like(low, dtype="bool"), ACTIVE_TERM)


def circle_terms(pairs: Pairs, margin: float, scale: float) -> Terms:
    """One term per anchor: log(1 + sum_n exp(scale a_n (s_n - margin)) sum_p exp(scale a_p (1 - margin - s_p)))."""
    cosines = pairs.cosines()
    # How far each cosine is from its optimum: a weight, and no way to lower the loss.
    too_low = ops.stop_gradient(ops.relu(1.0 + margin - cosines))
    too_high = ops.stop_gradient(ops.relu(cosines + margin))
    low = _log_sum_exp(scale * too_low * (1.0 - margin - cosines), pairs.positive)
    high = _log_sum_exp(scale * too_high * (cosines - margin), pairs.negative)
    return _mean_of_all(ops.softplus(low + high), _has_both(pairs), ACTIVE_TERM)


def supcon_terms(pairs: Pairs, temperature: float) -> Terms:
    """One term per anchor: the mean over its positives of -log(exp(s_ap / t) / sum_j exp(s_aj / t))."""
    cosines = pairs.cosines()
    own = ops.where(pairs.positive, cosines, 0.0)
    mean = ops.sum(own, axis=1) / ops.maximum(_count(pairs.positive), 1.0)
    # Subtracted before the exponentials: what is left of two large numbers afterwards would be rounding.
    gaps = (cosines - mean[:, None]) / temperature
    terms = _log_sum_exp(gaps, ops.logical_or(pairs.positive, pairs.negative))
    return _mean_of_all(terms, _has_both(pairs), ACTIVE_TERM)


def _mean_of_all(terms: Tensor, valid: Tensor, active_above: float = 0.0) -> Terms:
    """(A, K) terms, of which the valid ones are averaged."""
    terms = ops.where(valid, terms, 0.0)
    return Terms(ops.sum(terms, axis=1), _count(valid), _count(terms > active_above), _count(valid))


def _batch_mean(values: Tensor, mask: Tensor, pairs: Pairs) -> Tensor:
    """Scalar: the mean of the (A, K) values where the mask is, over all replicas; 0 where it is nowhere."""
    total = pairs.total(ops.sum(ops.where(mask, values, 0.0)))
    return total / ops.maximum(pairs.total(ops.sum(_count(mask))), 1.0)


def _log_sum_exp(values: Tensor, mask: Tensor) -> Tensor:
    """(A, 1): over the (A, K) values where the mask is; about -1e9 where it is nowhere."""
    return ops.logsumexp(miners.largest(values, mask), axis=1, keepdims=True)


def _comparable(pairs: Pairs) -> Tensor:
    """Positive pairs whose anchor has a negative."""
    return ops.logical_and(pairs.positive, ops.any(pairs.negative, axis=1, keepdims=True))


def _has_both(pairs: Pairs) -> Tensor:
    """(A, 1) bool: anchors with a positive and a negative."""
    return ops.any(_comparable(pairs), axis=1, keepdims=True)


def _count(mask: Tensor) -> Tensor:
    return ops.sum(ops.cast(mask, "float32"), axis=1)


def _cos_less_margin(cosines: Tensor, margin: float) -> Tensor:
    """cos(arccos(c) - margin) without arccos, whose slope is infinite at 1."""
    sin_squared = ops.maximum((1.0 - cosines) * (1.0 + cosines), SMALLEST_SIN_SQUARED)
    return cosines * cos(margin) + ops.sqrt(sin_squared) * sin(margin)
