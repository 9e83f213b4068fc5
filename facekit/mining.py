"""Which negatives of an anchor count: the hardest k, the semi-hard one, all that violate the margin.

Everything keeps a fixed shape, so XLA can compile it, and takes O(A K) memory: triplets are never listed. Where a
formula compares each positive with each negative, a row is sorted once and read off cumulative counts.
"""

from __future__ import annotations

from keras import ops

from facekit.pairwise import Tensor

# Stands for "absent" among cosines times scale, and among distances. Finite, because inf - inf and 0 * inf are NaN.
FAR = 1e9


def largest(values: Tensor, mask: Tensor, count: int | None = None) -> Tensor:
    """The largest values of each row.

    Args:
        values: (A, K) float32, each well within +-1e9.
        mask: (A, K) bool, which of them exist.
        count: how many to keep. None: all, in their places.

    Returns:
        (A, count) float32 from the largest down, or (A, K); -1e9 in the places of absent values.
    """
    values = ops.where(mask, values, -FAR)
    if count is None:
        return values
    # Padded, so that there are always `count` columns.
    return ops.top_k(ops.pad(values, ((0, 0), (0, count)), constant_values=-FAR), count)[0]


def nearest_mean(distances: Tensor, negative: Tensor, count: int) -> Tensor:
    """Mean distance of each row's `count` nearest negatives: (A, 1); of all of them where there are fewer.

    Rows without negatives give 0.
    """
    nearest = -largest(-distances, negative, count)
    exists = ops.cast(nearest < FAR / 2, "float32")
    sums = ops.sum(nearest * exists, axis=1, keepdims=True)
    return sums / ops.maximum(ops.sum(exists, axis=1, keepdims=True), 1.0)


def hardest(distances: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each row's farthest positive and nearest negative.

    Returns:
        Three (A,): the two distances, and as bool whether the row has both; elsewhere they mean nothing.
    """
    farthest = ops.max(ops.where(positive, distances, -FAR), axis=1)
    nearest = ops.min(ops.where(negative, distances, FAR), axis=1)
    both = ops.logical_and(ops.any(positive, axis=1), ops.any(negative, axis=1))
    return farthest, nearest, both


def semi_hard(distances: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each positive the nearest negative that is farther than it; if none is, the farthest negative.

    Args:
        distances: (A, K) float32, at least 0.
        positive: (A, K) bool.
        negative: (A, K) bool.

    Returns:
        Three (A, K), each row in the order of its distances: the distances; those of the chosen negatives; and as
        bool whether the place is a positive of a row that has a negative. Elsewhere the numbers mean nothing.
    """
    # Ties: "farther" is strict, so negatives go before positives of the same distance.
    order = ops.argsort(ops.where(positive, _just_above(distances), distances), axis=1)
    nearer = ops.cumsum(ops.cast(ops.take_along_axis(negative, order, axis=1), "int32"), axis=1)
    total = nearer[:, -1:]
    ranked = ops.sort(ops.where(negative, distances, FAR), axis=1)
    chosen = ops.take_along_axis(ranked, ops.maximum(ops.minimum(nearer, total - 1), 0), axis=1)
    is_pair = ops.logical_and(ops.take_along_axis(positive, order, axis=1), total > 0)
    return ops.take_along_axis(distances, order, axis=1), chosen, is_pair


def violations(distances: Tensor, positive: Tensor, negative: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """Sum and number of each row's triplets with d_ap + margin > d_an.

    Args:
        distances: (A, K) float32, at least 0.
        positive: (A, K) bool.
        negative: (A, K) bool.
        margin: in the unit of the distances.

    Returns:
        Two (A,) float32: the sum over the row's (p, n) of [d_ap - d_an + margin]+, and how many are positive.
    """
    limits = ops.where(negative, distances, distances + margin)
    # Ties: a negative just at the limit adds nothing and is not counted, so it goes after the positive.
    order = ops.argsort(ops.where(negative, _just_above(limits), limits), axis=1)
    limits = ops.take_along_axis(limits, order, axis=1)
    positive = ops.take_along_axis(positive, order, axis=1)
    negative = ops.cast(ops.take_along_axis(negative, order, axis=1), "float32")
    nearer = ops.cumsum(negative, axis=1)
    nearer_sum = ops.cumsum(limits * negative, axis=1)
    sums = ops.where(positive, nearer * limits - nearer_sum, 0.0)
    return ops.sum(sums, axis=1), ops.sum(ops.where(positive, nearer, 0.0), axis=1)


def _just_above(values: Tensor) -> Tensor:
    # About two float32 steps up: it orders ties in a sort and changes no value.
    return values * (1.0 + 2.0**-22) + 1e-30
