"""The losses against slow float64 oracles, in every form, run and corner."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from losses import TripletLoss, TupletMarginLoss
from tests import contracts, reference

ROOT = Path(__file__).resolve().parent.parent

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "tuplet": ("tuplet_margin", {}),
    "tuplet-margin-scale": ("tuplet_margin", {"margin": 0.4, "scale": 8.0}),
    "tuplet-hardest": ("tuplet_margin", {"hardest": 3, "scale": 16.0}),
    "semi_hard": ("triplet", {}),
    "semi_hard-squared": ("triplet", {"mining": "semi_hard", "squared": True, "margin": 1.0}),
    "all": ("triplet", {"mining": "all"}),
    "all-squared": ("triplet", {"mining": "all", "squared": True, "margin": 0.7}),
    "all-average-all": ("triplet", {"mining": "all", "average": "all", "margin": 0.5}),
    "hard": ("triplet", {"mining": "hard"}),
    "hard-soft": ("triplet", {"mining": "hard", "soft": True}),
    "hardest": ("triplet", {"hardest": 2, "margin": 0.5}),
    "hardest-many": ("triplet", {"hardest": 1000, "margin": 1.9}),
}
ONE_PER_FORMULA = ("tuplet-hardest", "semi_hard", "all", "hard", "hardest")
FORMULAS: dict[str, Callable[..., float]] = {"tuplet_margin": reference.tuplet_margin, "triplet": reference.triplet}

# Unequal identities, singletons among them, in no order.
LABELS = np.array([0, 1, 0, 2, 0, 3, 1, 0, 4, 2, 1, 4, 5])


def make(variant: str) -> losses.PairLoss:
    name, options = VARIANTS[variant]
    return losses.get(name, **options)


def oracle(variant: str, labels: np.ndarray, rows: np.ndarray) -> float:
    name, options = VARIANTS[variant]
    return reference.loss_value(FORMULAS[name], labels, rows, **options)


def flat_batch(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(len(LABELS), 5))
    if kind == "clustered":
        rows = rng.normal(size=(6, 5))[LABELS] + 0.15 * rows
    return LABELS, rows.astype("float32")


def tuplet_batch(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Seven tuplets of 5 negatives; one has a "negative" of the anchor's person, one no positive."""
    rng = np.random.default_rng(seed)
    people = np.stack([rng.choice(50, 6, replace=False) for _ in range(7)])
    labels = np.concatenate([people[:, :1], people], axis=1)
    labels[2, 4] = labels[2, 0]
    labels[5, 1] = 99
    rows = rng.normal(size=(7, 7, 4))
    if kind == "clustered":
        rows = rng.normal(size=(100, 4))[labels] + 0.2 * rows
    return labels, rows.astype("float32")


BATCHES = {"flat": flat_batch, "tuplet": tuplet_batch}
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_form = pytest.mark.parametrize("form", BATCHES)


# ---- Values and gradients ------------------------------------------------------------------------------------


@every_variant
@every_form
@pytest.mark.parametrize("kind", ["random", "clustered"])
def test_value_and_gradient_match_the_oracle(variant: str, form: str, kind: str) -> None:
    labels, rows = BATCHES[form](kind, 0)
    value, gradient = contracts.value_and_gradient(make(variant), labels, rows)
    assert value == pytest.approx(oracle(variant, labels, rows), rel=5e-5, abs=1e-7)
    slope = reference.slope(partial(oracle, variant, labels), rows)
    assert np.abs(gradient - slope).max() <= 2e-3 * np.abs(slope).max() + 1e-7


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


@every_form
@pytest.mark.parametrize("variant", ["tuplet", "semi_hard"])
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


def test_large_labels_survive_fit() -> None:
    labels, rows = flat_batch("random", 7)
    model = keras.Sequential([keras.Input((5,)), keras.layers.Identity()])
    model.compile("sgd", make("hard"))
    value = model.evaluate(rows, labels + 2**40, batch_size=len(labels), verbose=0)
    assert value == pytest.approx(oracle("hard", labels, rows), rel=5e-5)


def test_sample_weight_and_reduction() -> None:
    labels, rows = flat_batch("random", 8)
    values = TupletMarginLoss(reduction=None)(labels, rows).numpy()
    weights = np.arange(len(labels), dtype="float32")
    weighted = TupletMarginLoss()(labels, rows, sample_weight=weights)
    assert float(weighted) == pytest.approx(float((values * weights).sum() / len(labels)), rel=1e-5)


def test_functions_are_the_classes() -> None:
    labels, rows = flat_batch("random", 9)
    pairs = [
        (losses.tuplet_margin_loss(labels, rows, scale=8.0), TupletMarginLoss(scale=8.0)),
        (losses.triplet_loss(labels, rows, mining="all"), TripletLoss(mining="all")),
    ]
    for values, loss in pairs:
        np.testing.assert_array_equal(values, loss.call(labels, rows))


def test_loads_in_a_fresh_process(tmp_path: Path) -> None:
    labels, _ = flat_batch("random", 0)
    rows = np.random.default_rng(2).normal(size=(len(labels), 6)).astype("float32")
    np.savez(tmp_path / "batch.npz", labels=labels, rows=rows)
    chosen = ("tuplet-hardest", "all-average-all")
    saved = [contracts.save_with_loss(make(v), labels, rows, tmp_path / f"{v}.keras") for v in chosen]
    script = (
        "import sys, json, keras, numpy, losses\n"
        "b = numpy.load(sys.argv[1])\n"
        "models = [keras.saving.load_model(p) for p in sys.argv[2:]]\n"
        "run = [m.evaluate(b['rows'], b['labels'], batch_size=99, verbose=0) for m in models]\n"
        "sys.stdout.write(json.dumps([run, [m.loss.get_config() for m in models]]))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "batch.npz")]
    command += [str(tmp_path / f"{v}.keras") for v in chosen]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    values, configs = json.loads(done.stdout.splitlines()[-1])
    assert values == pytest.approx(saved, rel=1e-5)
    assert [c["hardest"] for c in configs] == [3, None] and configs[1]["average"] == "all"


# ---- Degenerate batches --------------------------------------------------------------------------------------

NOTHING = {
    "one identity": (np.zeros(4, int), np.eye(4, 3)),
    "all singletons": (np.arange(4), np.eye(4, 3)),
    "one row": (np.zeros(1, int), np.ones((1, 3))),
    "tuplets of one person": (np.zeros((2, 4), int), np.ones((2, 4, 3))),
    "tuplets without a positive": (np.arange(8).reshape(2, 4), np.ones((2, 4, 3))),
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


@every_variant
@pytest.mark.parametrize("case", NOTHING)
def test_nothing_to_compare_is_exactly_zero(variant: str, case: str) -> None:
    labels, rows = NOTHING[case]
    value, gradient = contracts.check_loss_is_finite(make(variant), labels, rows.astype("float32"))
    assert value == 0.0
    assert not gradient.any()


@every_variant
@pytest.mark.parametrize("case", ODD)
def test_odd_batches_are_finite_and_right(variant: str, case: str) -> None:
    labels, rows = ODD[case]
    value, gradient = contracts.check_loss_is_finite(make(variant), labels, rows.astype("float32"))
    assert np.abs(gradient).max() < 1e7 * 64
    if case != "near duplicates":  # there float32 rows do not hold the differences
        assert value == pytest.approx(oracle(variant, labels, rows), rel=2e-3)


@every_variant
@pytest.mark.parametrize("labels", [np.arange(12) // 4, np.array([[0, 0, 1, 2, 3, 4, 5, 6, 7, 8]])])
def test_do_nothing_value_is_that_of_equal_embeddings(variant: str, labels: np.ndarray) -> None:
    loss = make(variant)
    value = float(loss(labels, np.ones((*labels.shape, 4), "float32")))
    assert value == pytest.approx(loss.do_nothing_value(3 if labels.ndim == 1 else 1, 8), abs=loss_slack(loss))
    assert loss.do_nothing_value(3, 0) == 0.0


def loss_slack(loss: losses.PairLoss) -> float:
    """By how much the clamped square root lowers the loss at equal embeddings."""
    return loss.scale * np.sin(loss.margin) * 3.2e-4 + 1e-6 if isinstance(loss, TupletMarginLoss) else 1e-6


def test_do_nothing_value_formula() -> None:
    expected = np.log1p(10 * np.exp(64 * (1 - np.cos(0.1))))
    assert TupletMarginLoss().do_nothing_value(1, 10) == pytest.approx(expected, abs=loss_slack(TupletMarginLoss()))
    of_one = TupletMarginLoss().do_nothing_value(1, 1)
    assert TupletMarginLoss(hardest=1).do_nothing_value(1, 10) == pytest.approx(of_one)
    assert np.isfinite(TupletMarginLoss(scale=1e6).do_nothing_value(1, 10))


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


@every_variant
def test_tuplets_see_only_their_own_negatives(variant: str) -> None:
    labels, rows = tuplet_batch("random", 11)
    together = make(variant).call(labels, rows).numpy()
    alone = [float(make(variant)(labels[i : i + 1], rows[i : i + 1])) for i in range(len(labels))]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


# ---- Arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tuplet_margin", {"margin": 3.0}, r"`margin` must be in \(0, pi/2\)\. Received: margin=3\.0"),
        ("tuplet_margin", {"margin": 0}, r"`margin` must be in \(0, pi/2\)\. Received: margin=0"),
        ("tuplet_margin", {"margin": float("nan")}, r"`margin` must be in \(0, pi/2\)\. Received: margin=nan"),
        ("tuplet_margin", {"margin": "0.1"}, r"`margin` must be in \(0, pi/2\)\. Received: margin='0.1'"),
        ("tuplet_margin", {"scale": -1}, r"`scale` must be in \(0, inf\)\. Received: scale=-1"),
        ("tuplet_margin", {"scale": float("inf")}, r"`scale` must be in \(0, inf\)"),
        (
            "tuplet_margin",
            {"hardest": 0},
            r"`hardest` must be None or an integer of at least 1\. Received: hardest=0",
        ),
        ("tuplet_margin", {"hardest": 1.5}, r"`hardest` must be None or an integer"),
        ("triplet", {"margin": 2.0}, r"`margin` must be in \(0, 2\)\. Received: margin=2\.0"),
        ("triplet", {"margin": 4.0, "squared": True}, r"`margin` must be in \(0, 4\)"),
        ("triplet", {"mining": "easy"}, r"`mining` must be one of None, 'semi_hard', 'all', 'hard'.*'easy'"),
        ("triplet", {"average": "some"}, r"`average` must be one of 'positive', 'all'"),
        ("triplet", {"average": "all"}, r'`average="all"` needs mining="all"'),
        (
            "triplet",
            {"mining": "hard", "hardest": 2},
            r"`mining` and `hardest` exclude each other.*'hard'.*hardest=2",
        ),
        ("triplet", {"soft": True}, r'`soft=True` needs mining="hard"\. Received: mining=None'),
        (
            "triplett",
            {},
            r"There is no loss 'triplett': did you mean `triplet`\? There are tuplet_margin, triplet\.",
        ),
        ("triplet", {"minning": "all"}, r"The loss 'triplet' has no option `minning`: did you mean `mining`\?"),
        ("tuplet_margin", {"keras_options": {}}, r"has no option `keras_options`"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        losses.get(name, **options)


def test_get_takes_numpy_numbers_and_keras_options() -> None:
    loss = losses.get("tuplet_margin", margin=np.float32(0.25), hardest=np.int64(3), name="face", reduction="sum")
    config = loss.get_config()
    assert json.loads(json.dumps(config)) == config
    assert (config["margin"], config["hardest"], config["name"], config["reduction"]) == (0.25, 3, "face", "sum")


# ---- Figures for logs ----------------------------------------------------------------------------------------


@every_variant
@every_form
def test_statistics_match_loops(variant: str, form: str) -> None:
    labels, rows = BATCHES[form]("clustered", 12)
    found = {k: float(v) for k, v in losses.batch_statistics(labels, rows, make(variant)).items()}
    anchors = reference.batch_anchors(labels, rows) if form == "flat" else [*reference.tuplet_anchors(labels, rows)]
    distances = [reference.distances_of(anchor, squared=False) for anchor in anchors]
    units = [reference.unit(row) for row in rows.reshape(-1, rows.shape[-1]).astype("float64")]
    assert found == pytest.approx(
        {
            "active": active_share(variant, anchors),
            "positive_distance": reference.mean([d for near, _ in distances for d in near]),
            "negative_distance": reference.mean([d for _, far in distances for d in far]),
            "spread": 1 - np.linalg.norm(np.mean(units, axis=0)),
        },
        rel=1e-4,
    )


def active_share(variant: str, anchors: list[reference.Anchor]) -> float:
    """Each term alone: one anchor with one of its positives, for "all" one of its negatives too."""
    name, options = VARIANTS[variant]
    mining = options.get("mining")
    singles = [
        reference.Anchor(a.row, positives, negatives)
        for a in anchors
        if a.positives and a.negatives
        for positives in ([a.positives] if mining == "hard" else [[p] for p in a.positives])
        for negatives in ([[n] for n in a.negatives] if mining == "all" else [a.negatives])
    ]
    least = 1e-3 if name == "tuplet_margin" or options.get("soft") else 0.0
    return reference.mean([float(FORMULAS[name]([single], **options) > least) for single in singles])


def test_statistics_of_a_collapsed_model_and_of_nothing() -> None:
    labels, rows = np.array([0, 0, 1, 1]), np.ones((4, 3), "float32")
    found = losses.batch_statistics(labels, rows, TupletMarginLoss())
    expected = {"active": 1.0, "positive_distance": 0.0, "negative_distance": 0.0, "spread": 0.0}
    assert {k: float(v) for k, v in found.items()} == pytest.approx(expected, abs=1e-6)
    nothing = losses.batch_statistics(np.zeros(4, int), np.eye(4, 4, dtype="float32"), TripletLoss())
    assert float(nothing["active"]) == 0.0 and float(nothing["negative_distance"]) == 0.0
    assert float(nothing["spread"]) == pytest.approx(0.5)


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_model_that_gives_nan_shows_in_the_loss(name):
    labels = np.array([0, 0, 1, 1])
    embeddings = np.full((4, 3), np.nan, np.float32)
    assert np.isnan(float(losses.get(name)(labels, embeddings)))
