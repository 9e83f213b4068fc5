"""The losses where batches are degenerate, scales large, or the model broken or collapsed."""

from __future__ import annotations

import numpy as np
import pytest

import losses
from losses import CircleLoss, MultiSimilarityLoss, SupConLoss, TupletMarginLoss, WeightedSum
from tests import contracts, reference
from tests.loss_cases import (
    BATCHES,
    FORMULAS,
    ONE_KIND_IS_ENOUGH,
    VARIANTS,
    every_form,
    every_variant,
    make,
    oracle,
    tuplet_batch,
)

NO_PAIR = {
    "one row": (np.zeros(1, int), np.ones((1, 3))),
    "tuplets without a pair": (np.array([[0, 1, 0, 0], [2, 0, 2, 2]]), np.ones((2, 4, 3))),
}
ONE_KIND = {
    "one identity": (np.zeros(4, int), np.eye(4, 3)),
    "one identity, all equal": (np.zeros(4, int), np.ones((4, 3))),
    "all singletons": (np.arange(4), np.eye(4, 3)),
    "all singletons, all equal": (np.arange(4), np.ones((4, 3))),
    "tuplets of one person": (np.zeros((2, 4), int), np.ones((2, 4, 3)) + np.eye(4, 3)),
    "tuplets without a positive": (np.arange(8).reshape(2, 4), np.ones((2, 4, 3)) + np.eye(4, 3)),
}
ODD = {
    "all equal": (np.array([0, 0, 1, 1]), np.ones((4, 3))),
    "all zero": (np.array([0, 0, 1, 1]), np.zeros((4, 3))),
    "a zero row": (np.array([0, 0, 1, 1]), np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])),
    "duplicates": (np.array([0, 0, 1, 1]), np.array([[1.0, 2, 3], [1, 2, 3], [1, 2, 3], [3, 1, 2]])),
    "antipodal": (np.array([0, 0, 1, 1]), np.array([[1.0, 0, 0], [-1, 0, 0], [1, 0, 0], [-1, 0, 0]])),
    "near duplicates": (np.array([0, 0, 1, 1]), np.ones((4, 3)) + 1e-7 * np.arange(12).reshape(4, 3)),
    "tuplets all equal": (np.array([[0, 0, 1, 2], [1, 1, 0, 2]]), np.ones((2, 4, 3))),
    "tuplets all zero": (np.array([[0, 0, 1, 2], [1, 1, 0, 2]]), np.zeros((2, 4, 3))),
}
COMPARING = [variant for variant, (name, _) in VARIANTS.items() if name not in ONE_KIND_IS_ENOUGH]
NOT_COMPARING = [variant for variant in VARIANTS if variant not in COMPARING]


@pytest.mark.parametrize(
    ("variant", "case"),
    [(v, case) for v in VARIANTS for case in NO_PAIR] + [(v, case) for v in COMPARING for case in ONE_KIND],
)
def test_nothing_to_compare_is_exactly_zero(variant: str, case: str) -> None:
    labels, rows = {**NO_PAIR, **ONE_KIND}[case]
    value, gradient = contracts.check_loss_is_finite(make(variant), labels, rows.astype("float32"))
    assert value == 0.0
    assert not gradient.any()


@pytest.mark.parametrize("variant", NOT_COMPARING)
@pytest.mark.parametrize("case", ONE_KIND)
def test_one_kind_of_pairs_is_right(variant: str, case: str) -> None:
    labels, rows = ONE_KIND[case]
    value, _ = contracts.check_loss_is_finite(make(variant), labels, rows.astype("float32"))
    assert value == pytest.approx(oracle(variant, labels, rows), rel=1e-4, abs=1e-7)


@every_variant
@pytest.mark.parametrize("case", ODD)
def test_odd_batches_are_finite_and_right(variant: str, case: str) -> None:
    labels, rows = ODD[case]
    value, gradient = contracts.check_loss_is_finite(make(variant), labels, rows.astype("float32"))
    assert np.abs(gradient).max() < 1e7 * 64
    if case != "near duplicates":  # there float32 rows do not hold the differences
        assert value == pytest.approx(oracle(variant, labels, rows), rel=2e-3, abs=1e-7)


def test_squared_distances_of_duplicates_are_not_below_zero() -> None:
    # Rounding takes about one in eight of these sums below it, if it may.
    for seed in range(40):
        rows = np.repeat(np.random.default_rng(seed).normal(size=(4, 16)).astype("float32"), 4, axis=0)
        assert float(losses.get("contrastive", margin=1e-3)(np.arange(16) // 4, rows)) >= 0


@pytest.mark.parametrize("variant", COMPARING)
def test_a_tuplet_without_a_positive_adds_nothing(variant: str) -> None:
    labels, rows = tuplet_batch("random", 1)
    _, gradient = contracts.value_and_gradient(make(variant), labels, rows)
    assert make(variant).call(labels, rows).numpy()[5] == 0.0
    assert not gradient[5].any() and gradient[0].any()


# ---- Large scales --------------------------------------------------------------------------------------------

SHARP: dict[str, dict[str, float]] = {
    "tuplet_margin": {"scale": 1e5},
    "n_pair": {"scale": 1e5},
    "multi_similarity": {"alpha": 1e5, "beta": 1e5},
    "circle": {"scale": 1e5},
    "supcon": {"temperature": 1e-5},
}


@pytest.mark.parametrize("name", SHARP)
@every_form
def test_large_scales_hide_no_mask(name: str, form: str) -> None:
    labels, rows = BATCHES[form]("random", 1)
    value, _ = contracts.check_loss_is_finite(losses.get(name, **SHARP[name]), labels, rows)
    assert value == pytest.approx(reference.loss_value(FORMULAS[name], labels, rows, **SHARP[name]), rel=5e-5)


OPPOSED = np.array([[[1, 0], [-1, 0], [1, 0]]], "float32")  # the positive antipodal, the negative equal


@pytest.mark.parametrize("scale", [256.0, 1e5])
def test_large_scales_of_circle(scale: float) -> None:
    value, gradient = contracts.check_loss_is_finite(CircleLoss(scale=scale), np.array([[1, 1, 2]]), OPPOSED)
    assert value == pytest.approx(scale * (2.25 * 1.75 + 1.25 * 0.75), rel=1e-6)
    assert np.abs(gradient).max() < 1e-2 * scale


@pytest.mark.parametrize("sharpness", [50.0, 1e5])
def test_large_scales_of_multi_similarity(sharpness: float) -> None:
    loss = MultiSimilarityLoss(alpha=sharpness, beta=sharpness)
    value, _ = contracts.check_loss_is_finite(loss, np.array([[1, 1, 2]]), OPPOSED)
    assert value == pytest.approx(1.5 + 0.5, rel=1e-6)
    apart = OPPOSED[:, [0, 2, 1]]
    value, gradient = contracts.check_loss_is_finite(loss, np.array([[1, 1, 2]]), apart)
    assert value == pytest.approx(0.0, abs=1e-9) and np.abs(gradient).max() < 1e-9


def test_small_temperatures_of_supcon() -> None:
    value, _ = contracts.check_loss_is_finite(SupConLoss(temperature=1e-5), np.array([[1, 1, 2]]), OPPOSED)
    assert value == pytest.approx(2e5, rel=1e-6)
    # What is left of two large numbers: a positive at cosine 1 and a negative whose share is 1e-5.
    angle = np.sqrt(2 * 0.01 * np.log(1e5))
    rows = np.array([[[1, 0], [1, 0], [np.cos(angle), np.sin(angle)]]], "float32")
    expected = np.log1p(np.exp((np.cos(angle) - 1) / 0.01))
    assert float(SupConLoss(temperature=0.01)(np.array([[1, 1, 2]]), rows)) == pytest.approx(expected, rel=5e-3)


# ---- Collapsed and broken models -----------------------------------------------------------------------------


@every_variant
@pytest.mark.parametrize("labels", [np.arange(12) // 4, np.array([[0, 0, 1, 2, 3, 4, 5, 6, 7, 8]])])
def test_do_nothing_value_is_that_of_equal_embeddings(variant: str, labels: np.ndarray) -> None:
    loss = make(variant)
    value = float(loss(labels, np.ones((*labels.shape, 4), "float32")))
    expected = loss.do_nothing_value(3 if labels.ndim == 1 else 1, 8)
    assert value == pytest.approx(expected, rel=1e-6, abs=loss_slack(loss))


@pytest.mark.parametrize("variant", COMPARING)
def test_do_nothing_value_without_negatives_is_zero(variant: str) -> None:
    assert make(variant).do_nothing_value(3, 0) == 0.0


def loss_slack(loss: losses.PairLoss) -> float:
    """By how much the clamped square root lowers the loss at equal embeddings."""
    main = loss.losses[0] if isinstance(loss, WeightedSum) else loss
    return main.scale * np.sin(main.margin) * 3.2e-4 + 1e-6 if isinstance(main, TupletMarginLoss) else 1e-6


def test_do_nothing_value_formula() -> None:
    expected = np.log1p(10 * np.exp(64 * (1 - np.cos(0.1))))
    assert TupletMarginLoss().do_nothing_value(1, 10) == pytest.approx(expected, abs=loss_slack(TupletMarginLoss()))
    of_one = TupletMarginLoss().do_nothing_value(1, 1)
    assert TupletMarginLoss(hardest=1).do_nothing_value(1, 10) == pytest.approx(of_one)
    assert np.isfinite(TupletMarginLoss(scale=1e6).do_nothing_value(1, 10))
    assert MultiSimilarityLoss().do_nothing_value(0, 8) == pytest.approx(np.log1p(8 * np.exp(25)) / 50)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_model_that_gives_nan_shows_in_the_loss(name: str) -> None:
    labels = np.array([0, 0, 1, 1])
    embeddings = np.full((4, 3), np.nan, np.float32)
    assert np.isnan(float(losses.get(name)(labels, embeddings)))
