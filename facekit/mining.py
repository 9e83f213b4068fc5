"""Which pairs of an anchor count: the hardest negatives, the semi-hard ones, random ones, the nearest positive.

Some functions give values, for the losses' formulas; the rest give masks, with which any loss sees fewer pairs.
Everything keeps a fixed shape, so XLA can compile it, and takes O(A K) memory: triplets are never listed. Where a
formula compares each positive with each negative, a row is sorted once and read off cumulative counts.
"""

from __future__ import annotations

from keras import ops

from facekit.pairwise import Tensor

# Stands for "absent" among cosines times scale, and among distances. Finite, because inf - inf and 0 * inf are NaN.
FAR = 1e9
# Limits of distance-weighted draws, Wu et al. 2017: nearer negatives weigh no more, farther ones are left out.
NEAREST_WEIGHED = 0.5
FARTHEST_DRAWN = 1.4
# Stands for 0 among uniform numbers, which are multiples of 2^-23: log(0) is infinite.
SMALLEST_NOISE = 1e-9


def largest(values: Tensor, mask: Tensor, count: int | None = None) -> Tensor:
    """The largest values of each row.

    Args:
        values: (A, K) float32, each well within +-1e9.
        mask: (A, K) bool, which of them exist.
        count: how many to keep. None: all, in their places.

    Returns:
        (A, count) float32 from the largest down, or (A, K); -1e9 in the places of absent values.
    """
    return ops.where(mask, values, -FAR) if count is None else _top(values, mask, count)[0]


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


def random_negatives(noise: Tensor, negative: Tensor, count: int) -> Tensor:
    """Draw `count` negatives of each row, each as likely as any other, without replacement.

    Args:
        noise: (A, K) float32, independent and uniform in [0, 1): the randomness.
        negative: (A, K) bool.
        count: how many to draw; a row with fewer keeps all.

    Returns:
        (A, K) bool, a subset of `negative`.
    """
    return _among_largest(noise, negative, count)


def semi_hard_negatives(distances: Tensor, positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """The negatives in the band of a positive: Schroff et al., "FaceNet", CVPR 2015, section 3.2, equation 4.

    A negative n is kept where d_ap < d_an < d_ap + margin for some positive p of its row. What differs from the
    paper: a row without such a negative keeps its nearest one, so that every anchor has something to push; and the
    distances may be squared, as there, or not.

    Args:
        distances: (A, K) float32, at least 0.
        positive: (A, K) bool.
        negative: (A, K) bool.
        margin: width of the band, in the unit of the distances.

    Returns:
        (A, K) bool, a subset of `negative`, not empty where the row has a negative.
    """
    # Ties: "farther" is strict, so negatives go before positives of the same distance.
    order = ops.argsort(ops.where(positive, _just_above(distances), distances), axis=1)
    nearer = ops.cumsum(ops.cast(ops.take_along_axis(positive, order, axis=1), "int32"), axis=1)
    # Of the positives nearer than a negative, the farthest has the band that reaches farthest.
    ranked = ops.sort(ops.where(positive, distances, FAR), axis=1)
    limits = ops.take_along_axis(ranked, ops.maximum(nearer - 1, 0), axis=1) + margin
    within = ops.logical_and(nearer > 0, ops.take_along_axis(distances, order, axis=1) < limits)
    band = ops.logical_and(negative, _placed(within, order, ops.shape(negative)[1]))
    return ops.where(ops.any(band, axis=1, keepdims=True), band, _largest_one(-distances, negative))


def hardest_pair(distances: Tensor, positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor]:
    """The farthest positive and the nearest negative of each row: Hermans et al. 2017, equation 5, "batch hard".

    Args:
        distances: (A, K) float32, at least 0.
        positive: (A, K) bool.
        negative: (A, K) bool.

    Returns:
        Two (A, K) bool masks with at most one place a row, the first of equals.
    """
    return _largest_one(distances, positive), _largest_one(-distances, negative)


def easy_positives(distances: Tensor, positive: Tensor) -> Tensor:
    """The nearest positive of each row: Xuan et al., "Improved embeddings with easy positive triplet mining", 2020.

    An identity may then keep several clusters, e.g. poses. The paper also mines negatives; that is left to others.

    Args:
        distances: (A, K) float32, at least 0.
        positive: (A, K) bool.

    Returns:
        (A, K) bool with at most one place a row, the first of equals.
    """
    return _largest_one(-distances, positive)


def distance_weighted_negatives(
    noise: Tensor, distances: Tensor, negative: Tensor, dimension: int, count: int
) -> Tensor:
    """Draw `count` negatives of each row, the rarer their distance the likelier, without replacement.

    Wu et al., "Sampling matters in deep embedding learning", ICCV 2017, section 4: a negative weighs 1 / q(d), and
    q(d) = d^(D-2) (1 - d^2 / 4)^((D-3)/2) says how common its distance is between random points of the sphere. Near
    ones weigh most, the more so the larger D: at D = 512 one at 0.99 weighs 31 times as much as one at 1.

    As there, distances below 0.5 weigh as 0.5, and negatives at 1.4 or more are left out. What differs: an anchor
    with none nearer than 1.4 draws from all its negatives, each as likely; and where the paper draws one negative
    for each positive, so that one may come twice, an anchor draws `count` different ones.

    Args:
        noise: (A, K) float32, independent and uniform in [0, 1): the randomness.
        distances: (A, K) float32, of unit rows, in [0, 2].
        negative: (A, K) bool.
        dimension: D, at least 2.
        count: how many to draw; a row with fewer keeps all.

    Returns:
        (A, K) bool, a subset of `negative`, not empty where the row has a negative.
    """
    near = ops.logical_and(negative, distances < FARTHEST_DRAWN)
    drawable = ops.where(ops.any(near, axis=1, keepdims=True), near, negative)
    clipped = ops.clip(distances, NEAREST_WEIGHED, FARTHEST_DRAWN)
    # Logarithms, for at D = 512 the weight itself exceeds float32.
    weight = (2 - dimension) * ops.log(clipped) + (3 - dimension) / 2 * ops.log(1.0 - ops.square(clipped) / 4.0)
    # The largest of weight + Gumbel noise are a draw by these weights without replacement.
    gumbel = -ops.log(-ops.log(ops.maximum(noise, SMALLEST_NOISE)))
    return _among_largest(weight + gumbel, drawable, count)


def _top(values: Tensor, mask: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest of each row that exist, and their columns; where too few do, -FAR in other columns."""
    # Padded, so that there are always `count` columns.
    padded = ops.pad(ops.where(mask, values, -FAR), ((0, 0), (0, count)), constant_values=-FAR)
    return ops.top_k(padded, count)


def _among_largest(values: Tensor, mask: Tensor, count: int) -> Tensor:
    """Mask of the `count` largest of each row that exist, the first of equals."""
    columns = _top(values, mask, count)[1]
    width = ops.shape(mask)[1]
    return ops.logical_and(mask, _placed(ops.ones_like(columns), columns, width + count)[:, :width])


def _largest_one(values: Tensor, mask: Tensor) -> Tensor:
    """Mask of the largest of each row that exist, the first of equals."""
    column = ops.argmax(ops.where(mask, values, -FAR), axis=1)
    return ops.logical_and(mask, ops.equal(column[:, None], ops.arange(ops.shape(mask)[1])))


def _placed(flags: Tensor, columns: Tensor, width: int) -> Tensor:
    """(A, width) bool: the flags, (A, n), put into their columns, (A, n), of each row; False elsewhere."""
    shape = ops.shape(columns)
    rows = ops.broadcast_to(ops.arange(shape[0])[:, None], shape)
    places = ops.reshape(ops.stack([rows, columns], axis=-1), (-1, 2))
    placed = ops.scatter(places, ops.reshape(ops.cast(flags, "float32"), (-1,)), (shape[0], width))
    return placed > 0.0


def _just_above(values: Tensor) -> Tensor:
    # About two float32 steps up: it orders ties in a sort and changes no value.
    return values * (1.0 + 2.0**-22) + 1e-30
