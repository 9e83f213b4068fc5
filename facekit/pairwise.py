"""Rows against rows: unit rows, cosines, distances, and which pairs share an identity.

Products are taken in float64 and handed back as float32. GPUs round the factors of a float32 product to 10 bits
(TensorFloat-32) unless told otherwise, and near-duplicates lose their distance to cancellation: in float64 a
distance is right to about 1e-7, exact duplicates are at exactly 0, and the loss takes a negligible part of a step.
JAX has no float64 unless asked for at its start: there rows are centred and multiplied in float32, which leaves
exact duplicates up to about 1e-3 apart.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

Tensor = Any

# A row with a norm below it counts as zero: its direction would be noise.
SMALLEST_NORM = 1e-12
# Distances below it count as zero: float32 rows are no more exact, and 1 / distance would blow up the gradient.
SMALLEST_DISTANCE = 1e-6


def unit_rows(rows: Tensor) -> Tensor:
    """Rows scaled to norm 1, in float32.

    Args:
        rows: (..., D) of any float dtype; it is cast to float32 before squaring, where float16 would overflow.
            Norms up to 1e19.

    Returns:
        (..., D) float32. A row with a norm below 1e-12 becomes 0, with a zero gradient. NaN stays NaN, so that a
        broken model shows.
    """
    rows = ops.cast(rows, "float32")
    squares = ops.sum(ops.square(rows), axis=-1, keepdims=True)
    zero = squares <= SMALLEST_NORM**2
    return ops.where(zero, 0.0, rows * ops.rsqrt(ops.where(zero, 1.0, squares)))


def safe_sqrt(squares: Tensor) -> Tensor:
    """Square root with a finite gradient everywhere: 0, with a zero gradient, where squares <= 1e-12. NaN stays."""
    zero = squares <= SMALLEST_DISTANCE**2
    return ops.where(zero, 0.0, ops.sqrt(ops.where(zero, 1.0, squares)))


def cosine_matrix(queries: Tensor, keys: Tensor) -> Tensor:
    """Dot products u_i . u_j of unit rows: the cosines.

    Args:
        queries: (Q, D) unit rows.
        keys: (K, D) unit rows that all queries share, or (Q, K, D): each query's own.

    Returns:
        (Q, K) float32 in [-1, 1] up to rounding, which may leave it beyond 1 by 1e-7.
    """
    return ops.cast(_products(queries, keys), "float32")


def distance_matrix(queries: Tensor, keys: Tensor, squared: bool = False) -> Tensor:
    """Euclidean distances |u_i - u_j|.

    Args:
        queries: (Q, D) rows.
        keys: (K, D) rows that all queries share, or (Q, K, D): each query's own.
        squared: return squared distances.

    Returns:
        (Q, K) float32, at least 0; for unit rows at most 2 (squared: 4). Unless squared, distances below 1e-6 are
        0 with a zero gradient, so duplicates are harmless.
    """
    # Distances do not change with the origin; near it float32 holds more of them.
    origin = ops.stop_gradient(ops.mean(queries, axis=0))
    queries, keys = queries - origin, keys - origin
    squares = _squared_norms(queries)[:, None] + _squared_norms(keys) - 2.0 * _products(queries, keys)
    squares = ops.maximum(squares, 0.0)
    return ops.cast(squares if squared else safe_sqrt(squares), "float32")


def _widest(rows: Tensor) -> Tensor:
    return ops.cast(rows, "float32" if keras.config.backend() == "jax" else "float64")


def _products(queries: Tensor, keys: Tensor) -> Tensor:
    queries, keys = _widest(queries), _widest(keys)
    if len(keys.shape) == 3:
        return ops.squeeze(ops.matmul(keys, queries[:, :, None]), axis=-1)
    return ops.matmul(queries, ops.transpose(keys))


def _squared_norms(rows: Tensor) -> Tensor:
    return ops.sum(ops.square(_widest(rows)), axis=-1)


def positive_mask(query_labels: Tensor, key_labels: Tensor, offset: int | None = None) -> Tensor:
    """Pairs of the same label.

    Args:
        query_labels: (Q,) of any dtype that can be compared.
        key_labels: (K,) or (Q, K), of the same dtype.
        offset: where the keys contain the queries, the place of query 0 among them (query i is key offset + i):
            no row is its own positive. None: the keys are other rows.

    Returns:
        (Q, K) bool.
    """
    same = ops.equal(query_labels[:, None], key_labels)
    if offset is None:
        return same
    queries, keys = ops.arange(ops.shape(same)[0]), ops.arange(ops.shape(same)[1])
    return ops.logical_and(same, ops.not_equal(queries[:, None] + offset, keys))


def negative_mask(query_labels: Tensor, key_labels: Tensor) -> Tensor:
    """Pairs of different labels: (Q, K) bool, from (Q,) and (K,) or (Q, K) labels."""
    return ops.not_equal(query_labels[:, None], key_labels)


def _of_one_replica(value: Tensor) -> Tensor:
    return value


class Pairs(NamedTuple):
    """A batch as every loss sees it: anchors, keys, and which pairs of them are positive or negative."""

    anchors: Tensor
    """(A, D) float32, unit rows."""
    keys: Tensor
    """(K, D) float32, unit rows that all anchors share; or (A, K, D): each anchor's own."""
    positive: Tensor
    """(A, K) bool."""
    negative: Tensor
    """(A, K) bool. A pair can be neither, e.g. a row with itself."""
    total: Callable[[Tensor], Tensor] = _of_one_replica
    """Sum over replicas, differentiable. Counts and batch means must go through it: anchors are a replica's own."""

    def cosines(self) -> Tensor:
        """(A, K) float32 cosines of anchors and keys."""
        return cosine_matrix(self.anchors, self.keys)

    def distances(self, squared: bool = False) -> Tensor:
        """(A, K) float32 distances of anchors and keys."""
        return distance_matrix(self.anchors, self.keys, squared)

    def mean_per_anchor(self, sums: Tensor, counts: Tensor) -> Tensor:
        """A vector whose mean over the anchors is the mean over the batch's terms.

        Args:
            sums: (A,) float32, the sum of each anchor's terms.
            counts: (A,) float32, how many terms each anchor has.

        Returns:
            (A,) float32. Shared keys: sums A / (all counts), so that every term weighs the same; A and counts are
            those of all replicas. Own keys: each anchor's own mean, so that every tuplet weighs the same. 0 where
            nothing is counted.
        """
        if len(self.keys.shape) == 3:
            return sums / ops.maximum(counts, 1.0)
        anchors = self.total(ops.cast(ops.shape(sums)[0], "float32"))
        return sums * (anchors / ops.maximum(self.total(ops.sum(counts)), 1.0))


def pair_up(labels: Tensor, embeddings: Tensor) -> Pairs:
    """A batch's anchors, keys and masks.

    Args:
        labels: (B,), or (B, 2 + N) in tuplet form; integers, or floats that stand for them.
        embeddings: (B, D), or (B, 2 + N, D) in tuplet form; any float dtype, any norms.

    Returns:
        Flat: every row is an anchor and, for the other rows, a key; A = K = B. Tuplet form: column 0 is the anchor,
        column 1 its positive, the rest its own negatives; A = B, K = 1 + N. A column whose label contradicts its
        place (a "negative" of the anchor's own person) is neither.

    Raises:
        ValueError: the shapes are of neither form.
    """
    labels, embeddings = ops.convert_to_tensor(labels), ops.convert_to_tensor(embeddings)
    _check_shapes(tuple(labels.shape), tuple(embeddings.shape))
    rows = unit_rows(embeddings)
    if len(labels.shape) == 1:
        return Pairs(rows, rows, positive_mask(labels, labels, offset=0), negative_mask(labels, labels))
    anchors, keys = labels[:, 0], labels[:, 1:]
    is_first = ops.equal(ops.arange(ops.shape(keys)[1]), 0)
    return Pairs(
        rows[:, 0],
        rows[:, 1:],
        ops.logical_and(positive_mask(anchors, keys), is_first),
        ops.logical_and(negative_mask(anchors, keys), ops.logical_not(is_first)),
    )


def _check_shapes(labels: tuple[int | None, ...], embeddings: tuple[int | None, ...]) -> None:
    # A size that is unknown while a graph is traced matches any other.
    agree = all(a is None or b is None or a == b for a, b in zip(labels, embeddings, strict=False))
    form_known = len(labels) == 1 or (len(labels) == 2 and (labels[1] is None or labels[1] >= 3))
    if not (agree and form_known and len(embeddings) == len(labels) + 1):
        raise ValueError(
            "Expected labels (B,) with embeddings (B, D), or tuplets: labels (B, 2 + N) with embeddings "
            f"(B, 2 + N, D) and N at least 1. Received: labels {labels}, embeddings {embeddings}."
        )


def number_identities(labels: Tensor) -> Tensor:
    """Replace labels by small numbers, equal where and only where the labels are.

    Keras casts labels to float32, in which integers from 2^24 on merge. These stay exact.

    Args:
        labels: any shape; integers of any width, or floats.

    Returns:
        int32 of the same shape, each below the number of labels.
    """
    labels = ops.convert_to_tensor(labels)
    if "float" not in str(labels.dtype):
        labels = ops.cast(labels, "int64")
    flat = ops.reshape(labels, (-1,))
    places = ops.searchsorted(ops.sort(flat), flat)
    return ops.reshape(ops.cast(places, "int32"), ops.shape(labels))
