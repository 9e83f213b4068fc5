"""The losses against slow float64 oracles, in every form and run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from facekit.pairwise import Pairs, pair_up
from losses import CircleLoss, ContrastiveLoss, IntraPairVarianceLoss, NPairLoss, SupConLoss, TripletLoss
from tests import contracts, reference
from tests.loss_cases import (
    BATCHES,
    FORMULAS,
    ONE_PER_FORMULA,
    SHARING_MEANS,
    VARIANTS,
    every_form,
    every_variant,
    flat_batch,
    make,
    oracle,
    slope,
    tuplet_batch,
)

# ---- Values and gradients ------------------------------------------------------------------------------------


@every_variant
@every_form
@pytest.mark.parametrize("kind", ["random", "clustered"])
def test_value_and_gradient_match_the_oracle(variant: str, form: str, kind: str) -> None:
    labels, rows = BATCHES[form](kind, 0)
    value, gradient = contracts.value_and_gradient(make(variant), labels, rows)
    assert value == pytest.approx(oracle(variant, labels, rows), rel=5e-5, abs=1e-7)
    expected = slope(variant, labels, rows)
    assert np.abs(gradient - expected).max() <= 2e-3 * np.abs(expected).max() + 1e-7


@every_variant
@every_form
def test_the_oracle_cases_are_not_trivial(variant: str, form: str) -> None:
    for kind in ("random", "clustered"):
        assert oracle(variant, *BATCHES[form](kind, 0)) > 1e-3


@every_variant
@pytest.mark.parametrize("seed", range(3))
def test_value_on_a_larger_batch(variant: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 15, 60)
    rows = (rng.normal(size=(15, 16))[labels] + rng.normal(size=(60, 16))).astype("float32")
    assert float(make(variant)(labels, rows)) == pytest.approx(oracle(variant, labels, rows), rel=5e-5)


@every_variant
def test_masks_say_which_pairs_count(variant: str) -> None:
    # As miners and memories make them: keys that are no anchors, pairs of neither kind, anchors without a pair.
    rng = np.random.default_rng(3)
    rows = [reference.unit(row) for row in rng.normal(size=(30, 4))]
    anchors, keys, kinds = rows[:9], rows[9:], rng.integers(0, 3, (9, 21))
    kinds[4], kinds[5] = 0, np.minimum(kinds[5], 1)
    units = tf.constant(rows, "float32")
    pairs = Pairs(units[:9], units[9:], tf.equal(kinds, 1), tf.equal(kinds, 2))
    chosen = [
        reference.Anchor(row, *([key for key, k in zip(keys, own, strict=True) if k == kind] for kind in (1, 2)))
        for row, own in zip(anchors, kinds, strict=True)
    ]
    name, options = VARIANTS[variant]
    parts = FORMULAS[name](chosen, **options)
    expected = sum(reference.mean(sum(part, [])) for part in parts)
    values = make(variant).values(pairs).numpy()
    assert values.mean() == pytest.approx(expected, rel=5e-5)
    assert values[4] == 0.0
    every = (reference.triplet_terms if name == "triplet" else FORMULAS[name])(chosen, **options)
    for part, terms in zip(every, make(variant).terms(pairs), strict=True):
        np.testing.assert_array_equal(terms.valid, [len(own) for own in part])


@every_variant
def test_replicas_share_a_batch(variant: str) -> None:
    labels, rows = flat_batch("random", 2)
    whole = pair_up(labels, rows)
    parts = [
        whole._replace(anchors=whole.anchors[part], positive=whole.positive[part], negative=whole.negative[part])
        for part in (slice(0, 5), slice(5, None))
    ]
    loss = make(variant)
    # Twice: first each replica's sums are noted, then their totals handed out, in the same order.
    noted: list[list[Any]] = [[], []]
    for part, own in zip(parts, noted, strict=True):
        loss.values(part._replace(total=note_in(own)))
    totals = [sum(values) for values in zip(*noted, strict=True)]
    values = [loss.values(part._replace(total=hand_out(totals))) for part in parts]
    assert np.concatenate(values).mean() == pytest.approx(oracle(variant, labels, rows), rel=5e-5)


def note_in(noted: list[Any]) -> Callable[[Any], Any]:
    def total(value: Any) -> Any:
        noted.append(value)
        return value

    return total


def hand_out(totals: list[Any]) -> Callable[[Any], Any]:
    left = iter(totals)
    return lambda _: next(left)


# ---- Special cases of the formulas ---------------------------------------------------------------------------


def test_addons_semi_hard_is_ours_with_squared_and_margin_one() -> None:
    for seed in range(5):
        labels, rows = flat_batch("clustered", seed)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        ours = float(TripletLoss(margin=1.0, squared=True)(labels, rows))
        assert ours == pytest.approx(reference.addons_semi_hard(labels, rows), rel=5e-5)


def test_semi_hard_takes_the_farthest_where_no_negative_is_farther() -> None:
    angles = np.radians([0.0, 90.0, 10.0, 30.0])
    rows = np.stack([np.cos(angles), np.sin(angles)], 1)[None]
    chord = [2 * np.sin(angle / 2) for angle in angles]
    value = float(TripletLoss(margin=0.2)(np.array([[1, 1, 2, 3]]), rows))
    assert value == pytest.approx(chord[1] - chord[3] + 0.2, rel=1e-5)


def test_ties_at_the_semi_hard_and_the_margin_limit() -> None:
    # Anchor and positive equal; negatives equal to both, and at a distance of sqrt 2 (squared: 2).
    labels = np.array([[1, 1, 2, 3]])
    rows = np.array([[[1.0, 0], [1, 0], [1, 0], [0, 1]]], "float32")
    semi = TripletLoss(margin=1.5)(labels, rows)
    assert float(semi) == pytest.approx(1.5 - np.sqrt(2), rel=1e-5)  # strictly farther: not the equal one
    # d_ap + margin = d_an for the second negative: its term is 0 and isn't counted.
    everything = TripletLoss(margin=2.0, squared=True, mining="all")(labels, rows)
    assert float(everything) == pytest.approx(2.0, rel=1e-6)


def test_all_counts_only_positive_terms() -> None:
    labels, rows = flat_batch("random", 3)
    positive = float(TripletLoss(mining="all")(labels, rows))
    assert positive > 1.5 * float(TripletLoss(mining="all", average="all")(labels, rows))


def test_contrastive_is_the_mean_over_unordered_pairs() -> None:
    labels, rows = flat_batch("random", 1)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    first, second = np.triu_indices(len(rows), 1)
    distances = np.linalg.norm(units[first] - units[second], axis=1)
    terms = np.where(labels[first] == labels[second], distances**2, np.maximum(1 - distances, 0) ** 2)
    assert float(ContrastiveLoss()(labels, rows)) == pytest.approx(terms.mean(), rel=1e-5)


def test_one_positive_makes_n_pair_and_supcon_a_softmax() -> None:
    labels, rows = tuplet_batch("random", 1)
    labels[2, 4], labels[5, 1] = 98, labels[5, 0]
    units = rows / np.linalg.norm(rows, axis=2, keepdims=True)
    logits = 5 * np.einsum("bd,bkd->bk", units[:, 0], units[:, 1:])
    expected = keras.losses.sparse_categorical_crossentropy(np.zeros(7, int), logits, from_logits=True)
    np.testing.assert_allclose(NPairLoss(scale=5.0).call(labels, rows), expected, rtol=1e-5)
    np.testing.assert_allclose(SupConLoss(temperature=0.2).call(labels, rows), expected, rtol=1e-5)


def test_circle_by_hand() -> None:
    # One positive at 60 degrees, one negative at 90: weights 0.75 and 0.25.
    rows = np.array([[[1, 0], [0.5, np.sqrt(0.75)], [0, 1]]], "float32")
    expected = np.log1p(np.exp(10 * 0.25 * (0 - 0.25) - 10 * 0.75 * (0.5 - 0.75)))
    assert float(CircleLoss(scale=10.0)(np.array([[1, 1, 2]]), rows)) == pytest.approx(expected, rel=1e-5)


def test_intra_pair_variance_of_tuplets_takes_the_means_of_all_of_them() -> None:
    # Positives at cosine 1 and 0.6, negatives at 0 and -0.6: means 0.8 and -0.3.
    rows = np.array([[[1, 0], [1, 0], [0, 1]], [[1, 0], [0.6, 0.8], [-0.6, 0.8]]], "float32")
    values = IntraPairVarianceLoss(epsilon=0.1).call(np.array([[1, 1, 2], [3, 3, 4]]), rows)
    np.testing.assert_allclose(values, [0.33**2, 0.12**2], rtol=1e-5)


# ---- Runs, dtypes, labels ------------------------------------------------------------------------------------


@every_variant
@every_form
def test_contract(variant: str, form: str) -> None:
    labels, rows = BATCHES[form]("random", 4)
    loss = make(variant)
    contracts.check_loss_is_per_anchor(loss, labels, rows)
    contracts.check_loss_config(loss, labels, rows)
    if variant in ONE_PER_FORMULA:
        contracts.check_loss_runs_everywhere(loss, labels, rows)


@pytest.mark.parametrize(
    ("variant", "form"),
    [("tuplet", "tuplet"), ("semi_hard", "tuplet"), ("tuplet", "flat"), ("semi_hard", "flat")]
    + [(variant, "flat") for variant in ("contrastive", "multi_similarity", "circle", "supcon")],
)
def test_fit(variant: str, form: str) -> None:
    rng = np.random.default_rng(0)
    labels, _ = BATCHES[form]("random", 0)
    rows = rng.normal(size=(200, 6))[labels] + 0.5 * rng.normal(size=(*labels.shape, 6))
    contracts.check_loss_fits(make(variant), labels, rows.astype("float32"))


@every_variant
def test_memory_is_that_of_pairs(variant: str) -> None:
    name, options = VARIANTS[variant]
    loss = losses.get(name, **{**options, **({"hardest": 2} if "hardest" in options else {})})
    labels, rows = np.arange(64) % 20, np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    contracts.check_loss_keeps_to_pairs(loss, labels, rows)


@every_variant
def test_unknown_batch_size_in_a_graph(variant: str) -> None:
    loss = make(variant)
    signature = [tf.TensorSpec([None], tf.int64), tf.TensorSpec([None, 5], tf.float32)]
    step = tf.function(lambda labels, rows: loss(labels, rows), input_signature=signature)
    for labels, rows in (flat_batch("random", 0), tuple(x[:4] for x in flat_batch("random", 1))):
        assert float(step(labels, rows)) == pytest.approx(float(loss(labels, rows)), rel=1e-5)


@every_variant
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_rows_of_norm_300(variant: str, dtype: str) -> None:
    labels, rows = flat_batch("random", 5)
    rows = 300 * rows / np.linalg.norm(rows, axis=1, keepdims=True)
    half = tf.cast(rows, dtype)
    value, gradient = contracts.check_loss_is_finite(make(variant), labels, half)
    assert value == pytest.approx(oracle(variant, labels, tf.cast(half, "float64").numpy()), rel=5e-5)
    assert np.abs(gradient).max() > 0


INTEGERS = [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]


@pytest.mark.parametrize("dtype", [*INTEGERS, "float16", "float32", "float64"])
def test_labels_of_any_dtype(dtype: str) -> None:
    labels, rows = flat_batch("random", 6)
    expected = float(make("hard")(labels, rows))
    assert float(make("hard")(labels.astype(dtype), rows)) == expected


def test_narrow_labels_under_xla() -> None:
    labels, rows = flat_batch("random", 6)
    value, _ = contracts.value_and_gradient(make("hard"), labels.astype("uint16"), rows, "xla")
    assert value == pytest.approx(oracle("hard", labels, rows), rel=5e-5)


@every_form
def test_large_labels_are_not_merged(form: str) -> None:
    labels, rows = BATCHES[form]("random", 7)
    for first in (2**24, 2**40, 2**62):
        for variant in ("tuplet", "hard"):
            small, large = make(variant)(labels, rows), make(variant)(labels + first, rows)
            assert float(large) == float(small)
            assert float(make(variant)(labels * 2**32, rows)) == float(small)


def test_large_labels_survive_fit() -> None:
    labels, rows = flat_batch("random", 7)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Identity()])
    model.compile("sgd", make("hard"))
    value = model.evaluate(rows, labels + 2**40, batch_size=len(labels), verbose=0)
    assert value == pytest.approx(oracle("hard", labels, rows), rel=5e-5)


# ---- Invariances ---------------------------------------------------------------------------------------------


@every_variant
@every_form
def test_order_and_length_of_rows_do_not_matter(variant: str, form: str) -> None:
    labels, rows = BATCHES[form]("random", 10)
    value = float(make(variant)(labels, rows))
    order = np.random.default_rng(0).permutation(len(labels))
    assert float(make(variant)(labels[order], rows[order])) == pytest.approx(value, rel=1e-5)
    scales = np.random.default_rng(1).uniform(0.01, 100, (*labels.shape, 1)).astype("float32")
    assert float(make(variant)(labels, rows * scales)) == pytest.approx(value, rel=2e-5)
    assert float(make(variant)(labels + 7, rows)) == value


@pytest.mark.parametrize("variant", [v for v, (name, _) in VARIANTS.items() if name not in SHARING_MEANS])
def test_tuplets_see_only_their_own_negatives(variant: str) -> None:
    labels, rows = tuplet_batch("random", 11)
    together = make(variant).call(labels, rows).numpy()
    alone = [float(make(variant)(labels[i : i + 1], rows[i : i + 1])) for i in range(len(labels))]
    np.testing.assert_allclose(together, alone, rtol=1e-5)
