"""Unit rows, cosines, distances, masks, and the two forms of a batch."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from facekit import mining, pairwise


def test_unit_rows() -> None:
    rows = np.array([[3.0, 4.0], [0.0, 0.0], [1e-13, 0.0], [1e15, 0.0], [-2e-10, 0.0]], "float32")
    expected = np.array([[0.6, 0.8], [0, 0], [0, 0], [1, 0], [-1, 0]])
    units = pairwise.unit_rows(rows)
    np.testing.assert_allclose(units, expected, atol=1e-6)
    assert units.dtype == tf.float32


def test_unit_rows_cast_before_squaring() -> None:
    rows = tf.fill([2, 4], tf.constant(300.0, tf.float16))
    np.testing.assert_allclose(pairwise.unit_rows(rows), np.full((2, 4), 0.5), atol=1e-6)


def test_unit_rows_gradient_of_a_zero_row_is_zero() -> None:
    rows = tf.constant([[0.0, 0.0], [3.0, 4.0]])
    with tf.GradientTape() as tape:
        tape.watch(rows)
        total = tf.reduce_sum(pairwise.unit_rows(rows)[:, 0])
    np.testing.assert_allclose(tape.gradient(total, rows), np.array([[0, 0], [0.64 / 5, -0.48 / 5]]), atol=1e-6)


def test_safe_sqrt() -> None:
    squares = tf.constant([0.0, 1e-13, 4.0])
    with tf.GradientTape() as tape:
        tape.watch(squares)
        roots = pairwise.safe_sqrt(squares)
    np.testing.assert_allclose(roots, [0, 0, 2])
    np.testing.assert_allclose(tape.gradient(roots, squares), [0, 0, 0.25])


@pytest.mark.parametrize("own_keys", [False, True])
def test_cosines_and_distances(own_keys: bool) -> None:
    rng = np.random.default_rng(0)
    queries = rng.normal(size=(4, 6)).astype("float32")
    keys = rng.normal(size=(4, 5, 6) if own_keys else (5, 6)).astype("float32")
    all_keys = keys.astype("float64") if own_keys else np.broadcast_to(keys.astype("float64"), (4, 5, 6))
    distances = np.linalg.norm(queries[:, None].astype("float64") - all_keys, axis=-1)
    found = pairwise.distance_matrix(queries, keys)
    np.testing.assert_allclose(found, distances, rtol=1e-6)
    np.testing.assert_allclose(pairwise.distance_matrix(queries, keys, squared=True), distances**2, rtol=1e-6)
    np.testing.assert_allclose(
        pairwise.cosine_matrix(queries, keys), np.einsum("qd,qkd->qk", queries, all_keys), rtol=1e-5, atol=1e-6
    )
    assert found.dtype == tf.float32


def test_distances_of_near_duplicates_and_zero_rows() -> None:
    base = np.random.default_rng(1).normal(size=128)
    rows = np.stack([base, base, base + 1e-3 * np.eye(128)[0], -base, 0 * base]).astype("float32")
    units = pairwise.unit_rows(rows)
    exact = np.asarray(units, "float64")
    distances = np.linalg.norm(exact[:, None] - exact[None], axis=-1)
    found = pairwise.distance_matrix(units, units).numpy()
    np.testing.assert_allclose(found, distances, rtol=1e-5, atol=1e-9)
    assert found[0, 1] == 0.0 and found[0, 4] == pytest.approx(1.0) and found[0, 3] == pytest.approx(2.0)


def test_masks() -> None:
    labels = tf.constant([1, 2, 1])
    np.testing.assert_array_equal(
        pairwise.positive_mask(labels, labels, offset=0), [[0, 0, 1], [0, 0, 0], [1, 0, 0]]
    )
    np.testing.assert_array_equal(pairwise.positive_mask(labels, labels), [[1, 0, 1], [0, 1, 0], [1, 0, 1]])
    np.testing.assert_array_equal(pairwise.negative_mask(labels, labels), [[0, 1, 0], [1, 0, 1], [0, 1, 0]])


def test_masks_where_the_queries_are_a_part_of_the_keys() -> None:
    keys = tf.constant([1, 2, 1, 1])
    found = pairwise.positive_mask(keys[2:], keys, offset=2)
    np.testing.assert_array_equal(found, np.array([[1, 0, 0, 1], [1, 0, 1, 0]]))


def test_pair_up_of_tuplets_ignores_labels_that_contradict_their_place() -> None:
    labels = np.array([[1, 1, 2, 3], [1, 2, 1, 3]])
    pairs = pairwise.pair_up(labels, np.ones((2, 4, 5), "float32"))
    np.testing.assert_array_equal(pairs.positive, [[1, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(pairs.negative, [[0, 1, 1], [0, 0, 1]])
    assert pairs.anchors.shape == (2, 5) and pairs.keys.shape == (2, 3, 5)


@pytest.mark.parametrize(
    ("labels", "rows"),
    [((4,), (3, 2)), ((4, 1), (4, 2)), ((4, 2), (4, 2, 5)), ((4, 3), (4, 4, 5)), ((), (2,)), ((4,), (4, 3, 2))],
)
def test_pair_up_refuses_other_shapes(labels: tuple[int, ...], rows: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"Expected labels \(B,\) with embeddings \(B, D\).*Received: labels \("):
        pairwise.pair_up(np.zeros(labels, int), np.zeros(rows, "float32"))


def test_mean_per_anchor_weighs_terms_or_tuplets() -> None:
    sums, counts = tf.constant([6.0, 1.0, 0.0]), tf.constant([3.0, 1.0, 0.0])
    mask = tf.zeros((3, 3), bool)
    shared = pairwise.Pairs(tf.zeros((3, 2)), tf.zeros((3, 2)), mask, mask)
    assert np.mean(shared.mean_per_anchor(sums, counts)) == pytest.approx(7 / 4)
    own = pairwise.Pairs(tf.zeros((3, 2)), tf.zeros((3, 3, 2)), mask, mask)
    assert np.mean(own.mean_per_anchor(sums, counts)) == pytest.approx((2 + 1 + 0) / 3)
    assert not np.any(shared.mean_per_anchor(sums * 0, counts * 0))


def test_number_identities() -> None:
    labels = np.array([[2**60, 2**60 + 1], [-5, 2**60]])
    numbers = pairwise.number_identities(labels).numpy()
    assert numbers.shape == (2, 2) and numbers.max() < 4
    np.testing.assert_array_equal(numbers[..., None] == numbers.ravel(), labels[..., None] == labels.ravel())


def test_number_identities_keeps_fractions_apart() -> None:
    numbers = pairwise.number_identities(np.array([0.25, 0.75, 0.25])).numpy()
    assert numbers[0] == numbers[2] != numbers[1]


def test_largest_pads_what_is_missing() -> None:
    values = tf.constant([[1.0, 5.0, 3.0], [2.0, 1.0, 0.0]])
    mask = tf.constant([[True, True, True], [False, True, False]])
    np.testing.assert_allclose(mining.largest(values, mask, 2), np.array([[5, 3], [1, -mining.FAR]]))
    np.testing.assert_allclose(mining.largest(values, mask, 5)[1], np.array([1] + [-mining.FAR] * 4))


def test_nearest_mean() -> None:
    distances = tf.constant([[1.0, 5.0, 3.0], [2.0, 1.0, 0.5], [1.0, 1.0, 1.0]])
    negative = tf.constant([[True, True, True], [False, True, False], [False] * 3])
    np.testing.assert_allclose(mining.nearest_mean(distances, negative, 2), [[2], [1], [0]])


def test_violations_on_random_rows() -> None:
    rng = np.random.default_rng(3)
    distances = rng.uniform(0, 2, (9, 20)).astype("float32")
    kind = rng.integers(0, 3, (9, 20))
    sums, counts = mining.violations(distances, kind == 1, kind == 2, 0.3)
    for row, of, total, count in zip(distances.astype("float64"), kind, sums, counts, strict=True):
        terms = np.maximum(row[of == 1][:, None] - row[of == 2][None] + 0.3, 0)
        assert float(total) == pytest.approx(terms.sum(), rel=1e-5)
        assert float(count) == (terms > 0).sum()


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_violations_do_not_count_a_negative_just_at_the_limit(order: list[int]) -> None:
    distances = np.array([[0.0, 0.5, 0.25]], "float32")[:, order]
    positive, negative = np.array([[True, False, False]])[:, order], np.array([[False, True, True]])[:, order]
    sums, counts = mining.violations(distances, positive, negative, 0.5)
    assert (float(sums[0]), float(counts[0])) == (0.25, 1.0)


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0]])
def test_semi_hard_is_strictly_farther(order: list[int]) -> None:
    distances = np.array([[0.5, 0.5, 0.75]], "float32")[:, order]
    positive, negative = np.array([[True, False, False]])[:, order], np.array([[False, True, True]])[:, order]
    near, far, is_pair = (np.asarray(x)[0] for x in mining.semi_hard(distances, positive, negative))
    assert near[is_pair] == 0.5 and far[is_pair] == 0.75


def test_a_broken_row_is_not_hidden_as_a_zero_row():
    rows = np.array([[np.nan, 1.0], [1.0, 0.0]], np.float32)
    assert np.isnan(np.asarray(pairwise.unit_rows(rows))[0]).all()
    assert np.isnan(np.asarray(pairwise.safe_sqrt(np.array([np.nan, 4.0], np.float32)))).tolist() == [True, False]
