"""The classification heads against slow float64 oracles, in every run and corner."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from facekit import heads
from tests import reference_heads as oracle
from tests.head_cases import (
    CLASSES,
    LABELS,
    MEAN,
    STD,
    VARIANTS,
    assert_near,
    batch,
    every_head,
    every_variant,
    exact_products,  # noqa: F401
    expected,
    make,
    outcome,
)
from tests.reference import slope

# ---- Values and gradients ------------------------------------------------------------------------------------


@every_variant
@pytest.mark.parametrize("kind", ["random", "clustered"])
def test_value_and_gradients_match_the_oracle(variant: str, kind: str) -> None:
    name, options = VARIANTS[variant]
    rows, centres = batch(kind, 0, options.get("subcentres", 1))
    values, by_rows, by_centres = outcome(make(name, centres, **options), rows, LABELS)
    right = partial(expected, name, labels=LABELS, judged=rows, **options)
    assert right(rows=rows, centres=centres).mean() > 1e-3
    np.testing.assert_allclose(values, right(rows=rows, centres=centres), rtol=5e-5, atol=1e-7)
    assert_near(by_rows, slope(lambda at: right(rows=at, centres=centres).mean(), rows))
    assert_near(by_centres, slope(lambda at: right(rows=rows, centres=at).mean(), centres))


@every_head
def test_values_of_a_larger_batch(name: str) -> None:
    rng = np.random.default_rng(1)
    labels, centres = rng.integers(0, 50, 40), rng.normal(size=(50, 2, 16)).astype("float32")
    rows = (3 * centres[labels, 0] + 3 * rng.normal(size=(40, 16))).astype("float32")
    values = make(name, centres)(rows, labels)
    np.testing.assert_allclose(values, expected(name, rows, labels, centres), rtol=5e-5, atol=1e-7)


@every_head
def test_eager_graph_and_xla_agree(name: str) -> None:
    rows, centres = batch("clustered", 2, 2)
    values, by_rows, by_centres = outcome(make(name, centres), rows, LABELS, training=True)
    for run in ("graph", "xla"):
        other = outcome(make(name, centres), rows, LABELS, training=True, run=run)
        np.testing.assert_allclose(other[0], values, rtol=2e-5, atol=1e-6, err_msg=run)
        assert_near(other[1], by_rows, 1e-4)
        assert_near(other[2], by_centres, 1e-4)


def test_unknown_batch_size_in_a_graph() -> None:
    rows, centres = batch("random", 3)
    head = make("arcface", centres, sampled=5)
    signature = [tf.TensorSpec([None, 4]), tf.TensorSpec([None], tf.int64)]
    step = tf.function(lambda rows, labels: head(rows, labels, training=True), input_signature=signature)
    assert step(rows, LABELS).shape == (8,) and step(rows[:3], LABELS[:3]).shape == (3,)


@every_head
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_rows_of_norm_300(name: str, dtype: str) -> None:
    rows, centres = batch("random", 4)
    half = tf.cast(300 * rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype)
    for training in (False, True):
        values, by_rows, by_centres = outcome(make(name, centres), half, LABELS, training)
        assert np.isfinite(values).all() and np.isfinite(by_rows).all() and np.isfinite(by_centres).all()
        assert by_rows.any() and by_centres.any()
    rows = tf.cast(half, "float64").numpy()
    values = make(name, centres)(half, LABELS)
    np.testing.assert_allclose(values, expected(name, rows, LABELS, centres), rtol=5e-5, atol=1e-6)


@every_head
@pytest.mark.parametrize("dtype", ["float16", "mixed_bfloat16"])
def test_float32_whatever_is_asked(name: str, dtype: str) -> None:
    rows = batch("random", 4)[0].astype("float16")
    head = heads.HEADS[name](CLASSES, dtype=dtype)
    for training in (False, True):
        values = head(rows.astype("float32"), LABELS, training=training)
        assert values.dtype == tf.float32
        np.testing.assert_allclose(head.outcome(rows, LABELS)[0], values, rtol=1e-6)
    assert head.centres.dtype == head.compute_dtype == "float32"


@pytest.mark.parametrize("dtype", ["int8", "uint8", "uint16", "int32", "uint32", "int64", "uint64"])
def test_labels_of_any_integer(dtype: str) -> None:
    rows, centres = batch("random", 5)
    head, rows, labels = make("arcface", centres, sampled=5), rows[:5], LABELS[:5]
    np.testing.assert_array_equal(head(rows, labels.astype(dtype)), head(rows, labels))
    assert np.isfinite(head(rows, labels.astype(dtype), training=True)).all()


@pytest.mark.parametrize("name", ["arcface", "cosface"])
def test_the_length_of_rows_and_centres_does_not_matter(name: str) -> None:
    rows, centres = batch("clustered", 6)
    lengths = np.random.default_rng(0).uniform(0.01, 100, (8, 1)).astype("float32")
    values = make(name, centres * 7)(rows * lengths, LABELS)
    np.testing.assert_allclose(values, make(name, centres)(rows, LABELS), rtol=2e-5, atol=1e-6)


# ---- Degenerate batches --------------------------------------------------------------------------------------

AXES = np.eye(4)[:3, None]
ODD: dict[str, tuple[Any, Any]] = {
    "zero rows": (np.zeros((3, 4)), AXES),
    "zero centres": (AXES[:, 0], 0 * AXES),
    "everything zero": (np.zeros((3, 4)), 0 * AXES),
    "rows equal to their centres": (AXES[:, 0], AXES),
    "antipodal to their centres": (-AXES[:, 0], AXES),
    "all the same": (np.ones((3, 4)), np.ones((3, 1, 4))),
    "all the same, three subcentres": (np.ones((3, 4)), np.ones((3, 3, 4))),
    "tiny": (1e-20 * AXES[:, 0], AXES),
}


@every_head
@pytest.mark.parametrize("case", ODD)
def test_odd_batches_are_finite_and_right(name: str, case: str) -> None:
    rows, centres = (array.astype("float32") for array in ODD[case])
    labels = np.array([0, 1, 1])
    values, by_rows, by_centres = outcome(make(name, centres), rows, labels)
    rows = np.where(np.abs(rows) < 1e-12, 0, rows)
    np.testing.assert_allclose(values, expected(name, rows, labels, centres), rtol=2e-3, atol=2e-2)
    assert np.isfinite(by_rows).all() and np.isfinite(by_centres).all()
    assert max(np.abs(by_rows).max(), np.abs(by_centres).max()) < 64 * 4e3


@every_head
def test_one_class_is_exactly_zero(name: str) -> None:
    rows, centres = batch("random", 7, 2)
    head = make(name, centres[:1])
    values, by_rows, by_centres = outcome(head, rows, 0 * LABELS, training=True)
    assert not values.any() and not by_rows.any() and not by_centres.any()
    assert head.do_nothing_value() == 0.0
    assert float(head.statistics(rows, 0 * LABELS)["class_accuracy"]) == 1.0


def at_angle(theta: float) -> np.ndarray:
    return np.array([[np.cos(theta), np.sin(theta)]], "float32")


PLANE = np.array([[[1.0, 0.0]], [[0.0, 1.0]]], "float32")


@pytest.mark.parametrize("margin", [0.3, 0.5, 1.2])
@pytest.mark.parametrize("step", [-1e-3, 1e-3])
def test_arcface_just_below_and_beyond_pi(margin: float, step: float) -> None:
    theta = np.pi - margin + step
    target = np.cos(theta + margin) if step < 0 else np.cos(theta) - margin * np.sin(margin)
    values = make("arcface", PLANE, margin=margin, scale=10.0)(at_angle(theta), np.array([0]))
    assert float(values[0]) == pytest.approx(np.logaddexp(0, 10 * (np.sin(theta) - target)), rel=1e-4)


# Quality, and a cosine's angle for which theta - margin q is beyond the clip, just inside, or far inside.
ANGLES = [(1.0, 0.3), (1.0, 0.402), (1.0, 2.0), (-1.0, 2.8), (-1.0, 2.71), (-1.0, 0.5), (0.0, 1.0)]


@pytest.mark.parametrize(("q", "theta"), ANGLES)
def test_adaface_clips_the_angle(q: float, theta: float) -> None:
    head = make("adaface", PLANE, h=1.0)
    row = at_angle(theta) * (MEAN + q * (STD + 1e-3))
    values, by_rows, _ = outcome(head, row, np.array([0]))
    np.testing.assert_allclose(values, expected("adaface", row, np.array([0]), PLANE, h=1.0), rtol=2e-4)
    right = slope(lambda at: expected("adaface", at, np.array([0]), PLANE, judged=row, h=1.0)[0], row)
    assert_near(by_rows, right, 4e-3)


def test_adaface_where_rounding_takes_cosines_beyond_1() -> None:
    centres = np.random.default_rng(0).normal(size=(64, 1, 16)).astype("float32")
    rows, labels = 60 * centres[:, 0], np.arange(64)
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert (np.sum(units * units, axis=1) > 1).any()
    values = make("adaface", centres)(rows, labels)
    np.testing.assert_allclose(values, expected("adaface", rows, labels, centres), rtol=2e-3, atol=1e-6)


@every_head
def test_a_model_that_gives_nan_shows_in_the_loss(name: str) -> None:
    _, centres = batch("random", 8)
    assert np.isnan(make(name, centres)(np.full((8, 4), np.nan, "float32"), LABELS)).all()


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_a_label_out_of_range_shows_in_the_loss(label: int) -> None:
    rows, centres = batch("random", 8)
    values, _ = make("cosface", centres).outcome(rows[:2], np.array([0, label]))
    assert np.isfinite(values[0]) and np.isnan(values[1])


@pytest.mark.parametrize(
    ("name", "options", "own"),
    [
        ("softmax", {}, 0.0),
        ("arcface", {}, 64 * np.cos(np.pi / 2 + 0.5)),
        ("arcface", {"margin": 0.2, "scale": 8}, 8 * np.cos(np.pi / 2 + 0.2)),
        ("cosface", {}, -64 * 0.35),
        ("adaface", {"scale": 4}, -4 * 0.4),
    ],
)
def test_do_nothing_value(name: str, options: dict[str, Any], own: float) -> None:
    for sampled, seen in ((None, 100), (100, 100), (1000, 100), (10, 10), (1, 1)):
        value = heads.get(name, 100, sampled=sampled, **options).do_nothing_value()
        assert isinstance(value, float)
        assert value == pytest.approx(np.log(1 + (seen - 1) * np.exp(-own)))
    head = make(name, np.ones((100, 1, 4), "float32"), **options)
    nothing = np.array([[MEAN, -MEAN, MEAN, -MEAN]], "float32") / 2
    assert float(head(nothing, np.array([3]))[0]) == pytest.approx(head.do_nothing_value(), rel=1e-5)
    assert np.isfinite(heads.get(name, 10**9, **({} if name == "softmax" else {"scale": 1e6})).do_nothing_value())


# ---- AdaFace's averages --------------------------------------------------------------------------------------


def test_adaface_averages_before_it_judges_and_in_training_only() -> None:
    rows, centres = batch("random", 9)
    head = heads.get("adaface", CLASSES)
    head.build((None, 4))
    head.centres.assign(centres)
    mean, std = 20.0, 100.0
    for step in range(6):
        now = rows * (step + 1)  # the last ones beyond norm 100
        mean, std = oracle.running(now, mean, std)
        values = head(now, LABELS, training=True)
        right = oracle.values("adaface", now, LABELS, centres, quality=oracle.quality_of(now, mean, std))
        np.testing.assert_allclose(values, right, rtol=5e-5, atol=1e-6)
        assert (float(head.norm_mean), float(head.norm_std)) == pytest.approx((mean, std), rel=1e-5)
    head(now, LABELS, training=False)
    head.statistics(now, LABELS)
    head.outcome(now, LABELS)
    assert (float(head.norm_mean), float(head.norm_std)) == pytest.approx((mean, std), rel=1e-5)
    assert [w.path.split("/")[-1] for w in head.non_trainable_weights] == ["norm_mean", "norm_std"]
    assert {w.aggregation for w in head.non_trainable_weights} == {"mean"}  # over replicas


@pytest.mark.parametrize("norm", [0.0, 1.0, 1e6])
def test_adaface_on_one_row(norm: float) -> None:
    head = make("adaface", PLANE)
    values, by_rows, by_centres = outcome(head, norm * at_angle(1.0), np.array([0]), training=True)
    assert np.isfinite([values.sum(), by_rows.sum(), by_centres.sum()]).all()
    assert float(head.norm_mean) == pytest.approx(0.99 * MEAN + 0.01 * np.clip(norm, 1e-3, 100), rel=1e-6)
    assert float(head.norm_std) == pytest.approx(0.99 * STD, rel=1e-6)


# ---- Figures for logs ----------------------------------------------------------------------------------------


@every_variant
def test_class_accuracy_matches_loops(variant: str) -> None:
    name, options = VARIANTS[variant]
    rows, centres = batch("clustered", 21, options.get("subcentres", 1))
    rows[[1, 5]] = rows[[5, 1]]
    right = oracle.recognised(name, rows, LABELS, centres)
    assert 0 < sum(right) < len(right)
    head = make(name, centres, **options)
    found = head.statistics(rows, LABELS)
    assert list(found) == ["class_accuracy"] and found["class_accuracy"].dtype == tf.float32
    assert float(found["class_accuracy"]) == pytest.approx(np.mean(right))
    np.testing.assert_array_equal(head.outcome(rows, LABELS)[1], np.array(right, "float32"))


def test_nobody_is_recognised_by_a_collapsed_model() -> None:
    head = make("arcface", np.ones((3, 1, 4), "float32"))
    assert float(head.statistics(np.ones((2, 4)), np.array([0, 2]))["class_accuracy"]) == 0.0
    assert float(head.statistics(np.zeros((2, 4)), np.array([0, 2]))["class_accuracy"]) == 0.0


# ---- Arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("arcface", {"margin": 3.0}, r"`margin` must be in \(0, pi/2\)\. Received: margin=3\.0"),
        ("arcface", {"margin": 0}, r"`margin` must be in \(0, pi/2\)\. Received: margin=0"),
        ("arcface", {"scale": 0}, r"`scale` must be in \(0, inf\)\. Received: scale=0"),
        ("cosface", {"margin": 2}, r"`margin` must be in \(0, 2\)\. Received: margin=2"),
        ("cosface", {"scale": float("nan")}, r"`scale` must be in \(0, inf\)\. Received: scale=nan"),
        ("adaface", {"margin": 1.6}, r"`margin` must be in \(0, pi/2\)\. Received: margin=1\.6"),
        ("adaface", {"h": 0.0}, r"`h` must be in \(0, inf\)\. Received: h=0\.0"),
        ("softmax", {"classes": 0}, r"`classes` must be an integer of at least 1\. Received: classes=0"),
        ("softmax", {"classes": None}, r"`classes` must be an integer of at least 1\. Received: classes=None"),
        ("softmax", {"classes": 2.0}, r"`classes` must be an integer of at least 1\. Received: classes=2\.0"),
        ("softmax", {"subcentres": 0}, r"`subcentres` must be an integer of at least 1\. Received: subcentres=0"),
        ("softmax", {"sampled": 0}, r"`sampled` must be None or an integer of at least 1\. Received: sampled=0"),
        (
            "arcfase",
            {},
            r"There is no head 'arcfase': did you mean `arcface`\? There are softmax, arcface, cosface, adaface\.",
        ),
        ("arcface", {"margine": 0.1}, r"The head 'arcface' has no option `margine`: did you mean `margin`\?"),
        ("cosface", {"h": 0.3}, r"'cosface' has no option `h`.*There are margin, scale, subcentres, sampled, seed"),
        (
            "softmax",
            {"margin": 0.3},
            r"'softmax' has no option `margin`.*There are subcentres, sampled, seed, name",
        ),
        ("softmax", {"layer_options": {}}, r"has no option `layer_options`"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        heads.get(name, **{"classes": 10, **options})


def test_options() -> None:
    assert {name: heads.options(name) for name in heads.HEADS} == {
        "softmax": ("subcentres", "sampled"),
        "arcface": ("margin", "scale", "subcentres", "sampled"),
        "cosface": ("margin", "scale", "subcentres", "sampled"),
        "adaface": ("margin", "h", "scale", "subcentres", "sampled"),
    }
    with pytest.raises(ValueError, match=r"There is no head 'softmacks': did you mean `softmax`\?"):
        heads.options("softmacks")


def test_get_takes_numpy_numbers() -> None:
    numbers: dict[str, Any] = {"classes": np.int64(5), "margin": np.float32(0.25), "sampled": np.int32(4)}
    head = heads.get("arcface", **numbers)
    assert json.loads(json.dumps(head.get_config())) == head.get_config()
    assert (head.classes, head.margin, head.sampled) == (5, 0.25, 4)


@pytest.mark.parametrize(
    "shapes", [((8, 4), (8, 1)), ((8, 4), (7,)), ((8, 2, 4), (8,)), ((4,), (4,)), ((8, 4), ())]
)
def test_shapes_that_do_not_fit(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    head = make("arcface", batch("random", 0)[1])
    message = f"Expected rows (B, D) with labels (B,). Received: rows {shapes[0]}, labels {shapes[1]}."
    with pytest.raises(ValueError) as error:
        head.outcome(np.ones(shapes[0], "float32"), np.zeros(shapes[1], int))
    assert str(error.value) == message
