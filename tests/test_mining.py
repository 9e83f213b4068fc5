"""Mining against slow float64 loops: masks, values, draws, and the layer that mines for any loss."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from facekit import checkpoint, mining
from facekit.miner import MINERS, STAGES, Miner
from facekit.pairwise import Pairs, negative_mask, pair_up, positive_mask, unit_rows
from losses import TripletLoss, TupletMarginLoss
from tests import contracts
from tests import reference_mining as oracle

DRAWN = ("random", "distance_weighted", "schedule")
COUNTS = (1, 3, 50)
MARGIN = 0.25
LABELS = np.array([0, 1, 0, 2, 0, 3, 1, 0, 4, 2, 1, 4, 5])


class Case:
    """Distances and masks of 24 anchors with 17 keys, some pairs of neither kind, and noise."""

    def __init__(self, kind: str, seed: int):
        rng = np.random.default_rng(seed)
        shape = (24, 17)
        of = rng.integers(0, 3, shape)
        of[0] = np.where(of[0] == 1, 2, of[0])  # no positive
        of[1] = np.where(of[1] == 2, 1, of[1])  # no negative
        of[2] = 0  # nothing
        of[3] = np.where(of[3] == 2, 1, of[3])
        of[3, 11] = 2  # one negative
        self.positive, self.negative = of == 1, of == 2
        far = np.where(self.positive, 0.4, 0.9)
        distances = {
            "random": rng.uniform(0, 2, shape),
            "clustered": far + 0.3 * rng.normal(size=shape).clip(-1, 1),
            "tied": rng.integers(0, 8, shape) / 8 + (rng.integers(0, 2, shape) > 0) * 0.75,
            "equal": np.full(shape, 0.5),
            "zero": np.zeros(shape),
        }[kind]
        self.distances = distances.astype("float32")
        self.noise = rng.uniform(size=shape).astype("float32")

    @property
    def masks(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return self.distances, self.positive, self.negative


KINDS = ("random", "clustered", "tied", "equal", "zero")
every_case = pytest.mark.parametrize("case", [Case(kind, seed) for kind in KINDS for seed in range(2)])

# Each function of masks on a case, and its oracle.
Masks = Callable[[Any, Case], Any]
FUNCTIONS: dict[str, Masks] = {
    "hardest_pair": lambda m, c: m.hardest_pair(*c.masks),
    "easy_positives": lambda m, c: m.easy_positives(c.distances, c.positive),
    "semi_hard": lambda m, c: m.semi_hard_negatives(*c.masks, MARGIN),
    "semi_hard-wide": lambda m, c: m.semi_hard_negatives(*c.masks, 1.5),
    **{f"random-{k}": partial(lambda k, m, c: m.random_negatives(c.noise, c.negative, k), k) for k in COUNTS},
    **{
        f"weighted-{d}-{k}": partial(
            lambda d, k, m, c: m.distance_weighted_negatives(c.noise, c.distances, c.negative, d, k), d, k
        )
        for d, k in ((2, 2), (5, 1), (64, 3), (512, 3), (512, 50))
    },
}


def both(function: Masks, module: Any, case: Case) -> np.ndarray:
    """One mask, or two, as (A, K, n) bool."""
    result = function(module, case)
    stacked = np.stack([np.asarray(x) for x in (result if isinstance(result, tuple) else (result,))], -1)
    assert stacked.dtype == bool
    return stacked


# ---- Masks against loops -------------------------------------------------------------------------------------


@every_case
@pytest.mark.parametrize("name", FUNCTIONS)
def test_masks_match_the_loops(name: str, case: Case) -> None:
    np.testing.assert_array_equal(both(FUNCTIONS[name], mining, case), both(FUNCTIONS[name], oracle, case))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_oracle_cases_are_not_trivial(name: str) -> None:
    found = [both(FUNCTIONS[name], oracle, Case(kind, 0)) for kind in ("random", "clustered", "tied")]
    assert all(f[4:].any(axis=(0, 1)).all() for f in found)
    assert any((f[..., -1].sum(1) != Case("random", 0).negative.sum(1)).any() for f in found) or "50" in name


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_masks_are_equal_in_graphs(jit_compile: bool) -> None:
    inputs, names = ("distances", "positive", "negative", "noise"), ("semi_hard", "random-3", "weighted-64-3")
    shape = (24, 17) if jit_compile else (None, None)
    types = (tf.float32, tf.bool, tf.bool, tf.float32)

    @tf.function(jit_compile=jit_compile, input_signature=[tf.TensorSpec(shape, t) for t in types])
    def masks(*arrays: Any) -> list[Any]:
        case: Any = SimpleNamespace(**dict(zip(inputs, arrays, strict=True)), masks=arrays[:3])
        return [FUNCTIONS[name](mining, case) for name in names]

    for kind in ("random", "tied"):
        case = Case(kind, 3)
        found = masks(*(tf.constant(getattr(case, name)) for name in inputs))
        for name, mask in zip(names, found, strict=True):
            np.testing.assert_array_equal(mask, FUNCTIONS[name](mining, case), err_msg=name)


@pytest.mark.parametrize("columns", [[0, 1, 2], [2, 1, 0], [1, 0, 2]])
def test_the_semi_hard_band_is_open_on_both_sides(columns: list[int]) -> None:
    positive = np.array([[True, False, False]])[:, columns]
    for far, kept in ((0.5, []), (0.75, [2]), (1.0, []), (0.25, [])):
        distances = np.array([[0.5, 0.125, far]], "float32")[:, columns]
        found = np.asarray(mining.semi_hard_negatives(distances, positive, ~positive, 0.5))[0]
        assert found.tolist() == [j in (kept or [1]) for j in columns]


def test_a_band_of_any_positive_counts() -> None:
    distances = np.array([[0.1, 0.5, 0.35, 0.55, 0.45, 0.9]], "float32")
    positive = np.array([[True, True, False, False, False, False]])
    found = mining.semi_hard_negatives(distances, positive, ~positive, 0.3)
    assert np.flatnonzero(found).tolist() == [2, 3]


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", KINDS)
def test_as_many_are_drawn_as_there_are(kind: str, count: int) -> None:
    case = Case(kind, 5)
    drawn = np.asarray(mining.random_negatives(case.noise, case.negative, count))
    np.testing.assert_array_equal(drawn.sum(1), np.minimum(case.negative.sum(1), count))
    assert not (drawn & ~case.negative).any()
    near = (case.negative & (case.distances < 1.4)).sum(1)
    of = np.where(near > 0, near, case.negative.sum(1))
    drawn = mining.distance_weighted_negatives(case.noise, case.distances, case.negative, 512, count)
    np.testing.assert_array_equal(np.asarray(drawn).sum(1), np.minimum(of, count))
    assert not (np.asarray(drawn) & ~case.negative).any()


@pytest.mark.parametrize("noise", [0.0, 1 - 2.0**-23, 0.5])
def test_equal_noise_draws_the_first(noise: float) -> None:
    negative = np.array([[False, True, True, False, True]])
    same = np.full((1, 5), noise, "float32")
    expected = [[False, True, True, False, False]]
    assert np.asarray(mining.random_negatives(same, negative, 2)).tolist() == expected
    flat = np.full((1, 5), 1.1, "float32")
    assert np.asarray(mining.distance_weighted_negatives(same, flat, negative, 512, 2)).tolist() == expected


def test_the_least_noise_orders_draws() -> None:
    noise = np.array([[2.0**-23, 0.0, 2.0**-22]], "float32")
    drawn = mining.distance_weighted_negatives(noise, np.ones((1, 3), "float32"), np.ones((1, 3), bool), 16, 2)
    assert np.asarray(drawn).tolist() == [[True, False, True]]


# ---- Values against loops ------------------------------------------------------------------------------------


@every_case
def test_values_match_the_loops(case: Case) -> None:
    for count in (1, 3, 30):
        found = np.asarray(mining.largest(case.distances, case.negative, count))
        for row, expected in zip(found, oracle.largest(case.distances, case.negative, count), strict=True):
            assert row.tolist() == expected + [-mining.FAR] * (count - len(expected))
        means = np.asarray(mining.nearest_mean(case.distances, case.negative, count))
        np.testing.assert_allclose(
            means[:, 0], oracle.nearest_mean(case.distances, case.negative, count), rtol=1e-6
        )
    in_place = np.asarray(mining.largest(case.distances, case.negative))
    np.testing.assert_array_equal(in_place, np.where(case.negative, case.distances, np.float32(-mining.FAR)))
    far, near, has = (np.asarray(x) for x in mining.hardest(*case.masks))
    masks = oracle.hardest_pair(*case.masks)
    np.testing.assert_array_equal(has, masks[0].any(1) & masks[1].any(1))
    np.testing.assert_array_equal(far[has], case.distances[masks[0] & has[:, None]])
    np.testing.assert_array_equal(near[has], case.distances[masks[1] & has[:, None]])


@every_case
def test_sorted_values_match_the_loops(case: Case) -> None:
    near, far, is_pair = (np.asarray(x) for x in mining.semi_hard(*case.masks))
    for row, expected in enumerate(oracle.semi_hard(*case.masks)):
        assert list(zip(near[row][is_pair[row]], far[row][is_pair[row]], strict=True)) == expected
    sums, counts = (np.asarray(x) for x in mining.violations(*case.masks, MARGIN))
    expected_sums, expected_counts = zip(*oracle.violations(*case.masks, MARGIN), strict=True)
    np.testing.assert_allclose(sums, expected_sums, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(counts, expected_counts)


# ---- Draws ---------------------------------------------------------------------------------------------------

MANY = 40_000


def shares(draw: Callable[[np.ndarray, np.ndarray], Any], negative: list[bool], seed: int = 0) -> np.ndarray:
    """How often each key is drawn by equal anchors."""
    noise = np.random.default_rng(seed).uniform(size=(MANY, len(negative))).astype("float32")
    return np.asarray(draw(noise, np.tile(negative, (MANY, 1)))).mean(0)


@pytest.mark.parametrize("count", [1, 2])
def test_random_draws_are_even(count: int) -> None:
    found = shares(lambda noise, n: mining.random_negatives(noise, n, count), [True, False, True, True, True, True])
    np.testing.assert_allclose(found, np.array([1, 0, 1, 1, 1, 1]) * count / 5, atol=0.012)


# One too far to be drawn, one no negative.
DISTANCES = [0.9, 1.0, 0.8, 1.41, 0.7, 1.2]
NEGATIVE = [True, True, False, True, True, True]


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("dimension", [2, 3, 8])
def test_weighted_draws_follow_the_weights(dimension: int, count: int) -> None:
    distances = np.tile(np.array(DISTANCES, "float32"), (MANY, 1))
    found = shares(
        lambda noise, n: mining.distance_weighted_negatives(noise, distances, n, dimension, count), NEGATIVE
    )
    drawn = [0, 1, 4, 5]
    weights = [np.exp(oracle.log_weight(DISTANCES[j], dimension)) for j in drawn]
    expected = np.zeros(6)
    expected[drawn] = oracle.inclusion(weights, count)
    np.testing.assert_allclose(found, expected, atol=0.012)
    assert count == 2 or dimension < 8 or found[4] > 4 * found[1]


def test_weighted_draws_are_even_below_the_lower_limit_and_where_all_are_far() -> None:
    for distances in ([0.0, 0.5, 0.2, 0.49], [1.4, 1.45, 2.0, 1.9]):
        rows = np.tile(np.array(distances, "float32"), (MANY, 1))
        draw = partial(lambda r, noise, n: mining.distance_weighted_negatives(noise, r, n, 512, 1), rows)
        found = shares(draw, [True] * 4)
        np.testing.assert_allclose(found, 0.25, atol=0.012)


def test_the_weight_at_512_numbers_is_as_documented() -> None:
    assert np.exp(oracle.log_weight(0.99, 512) - oracle.log_weight(1.0, 512)) == pytest.approx(31, abs=0.5)


# ---- The layer -----------------------------------------------------------------------------------------------


def make_pairs(form: str, seed: int = 0, clustered: bool = True) -> Pairs:
    """13 anchors: a flat batch; tuplets, with own keys; or a memory's 40 rows as keys, a third of them empty."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(60, 6)) * (1.0 if clustered else 0.0)
    if form == "tuplet":
        people = np.stack([rng.choice(50, 9, replace=False) for _ in range(13)])
        labels = np.concatenate([people[:, :1], people], axis=1)
        labels[2, 4], labels[5, 1] = labels[2, 0], 59
        rows = centres[labels] + 0.7 * rng.normal(size=(*labels.shape, 6))
        return pair_up(labels, rows)
    anchors = centres[LABELS] + 0.5 * rng.normal(size=(13, 6))
    if form == "flat":
        return pair_up(LABELS, anchors)
    labels, exists = rng.integers(0, 9, 40), rng.integers(0, 3, 40) > 0
    keys = centres[labels] + 0.5 * rng.normal(size=(40, 6))
    positive = positive_mask(tf.constant(LABELS), tf.constant(labels)) & exists
    return Pairs(
        unit_rows(anchors),
        unit_rows(keys),
        positive,
        negative_mask(LABELS, tf.constant(labels)) & exists,
        tf.identity,
    )


FORMS = ("flat", "tuplet", "bank")
every_form = pytest.mark.parametrize("form", FORMS)
every_kind = pytest.mark.parametrize("kind", MINERS)


def masks_of(pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(pairs.positive), np.asarray(pairs.negative)


def expected_masks(kind: str, pairs: Pairs, count: int, margin: float, noise: Any) -> tuple[np.ndarray, np.ndarray]:
    """What the loops choose; `noise` is what the layer drew."""
    positive, negative = masks_of(pairs)
    distances = np.asarray(pairs.distances())
    if kind in ("random", "schedule"):
        negative = oracle.random_negatives(noise, negative, count)
    elif kind == "semi_hard":
        negative = oracle.semi_hard_negatives(distances, positive, negative, margin)
    elif kind == "hard":
        positive, negative = oracle.hardest_pair(distances, positive, negative)
    elif kind == "easy_positive":
        positive = oracle.easy_positives(distances, positive)
    elif kind == "distance_weighted":
        negative = oracle.distance_weighted_negatives(noise, distances, negative, 6, count)
    return positive, negative


@every_kind
@every_form
def test_layer_matches_the_loops(kind: str, form: str) -> None:
    pairs, miner = make_pairs(form), Miner(kind, count=2, margin=0.4, seed=9)
    for draw in range(2):
        mined = miner(pairs)
        seed = keras.random.SeedGenerator(9)
        seed.state.assign([9, draw])
        noise = np.asarray(keras.random.uniform(pairs.negative.shape, seed=seed))
        for found, expected in zip(masks_of(mined), expected_masks(kind, pairs, 2, 0.4, noise), strict=True):
            np.testing.assert_array_equal(found, expected)
        assert mined.anchors is pairs.anchors and mined.keys is pairs.keys and mined.total is pairs.total
        fewer = any((a != b).any() for a, b in zip(masks_of(mined), masks_of(pairs), strict=True))
        assert fewer != (kind == "all" or (kind, form) == ("easy_positive", "tuplet"))


def step_on(miner: Miner, pairs: Pairs, jit_compile: bool) -> Callable[..., Any]:
    """The miner as a compiled function of a batch's arrays; outside XLA their sizes are unknown."""
    shapes = [(None, 6), (*[None] * (len(pairs.keys.shape) - 1), 6), (None, None), (None, None)]
    types = (tf.float32, tf.float32, tf.bool, tf.bool)
    signature = [tf.TensorSpec(s, t) for s, t in zip(shapes, types, strict=True)]
    return tf.function(
        lambda *arrays: miner(Pairs(*arrays))[2:4],
        jit_compile=jit_compile,
        input_signature=None if jit_compile else signature,
    )


@pytest.mark.parametrize(("kind", "form"), [*((kind, "tuplet") for kind in MINERS), ("semi_hard", "bank")])
def test_layer_in_a_graph_of_unknown_size(kind: str, form: str) -> None:
    pairs = make_pairs(form, 1)
    alone, compiled = Miner(kind, count=2), Miner(kind, count=2)
    step = step_on(compiled, pairs, jit_compile=False)
    for _ in range(2):
        for found, expected in zip(step(*pairs[:4]), masks_of(alone(pairs)), strict=True):
            np.testing.assert_array_equal(found, expected)
    few = pairs._replace(
        **{name: getattr(pairs, name)[:4] for name in ("anchors", "positive", "negative")},
        keys=pairs.keys[:4] if form == "tuplet" else pairs.keys,
    )
    for found, expected in zip(step(*few[:4]), masks_of(alone(few)), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["random", "hard", "easy_positive", "distance_weighted"])
def test_layer_under_xla(kind: str) -> None:
    """Random numbers are others there: their masks are compared in size. Other kinds: see the schedule's test."""
    pairs = make_pairs("tuplet" if kind in ("hard", "random") else "bank", 1)
    step, drawn = step_on(Miner(kind, count=2), pairs, jit_compile=True), []
    for _ in range(2):
        positive, negative = (np.asarray(mask) for mask in step(*pairs[:4]))
        expected_positive, expected = masks_of(Miner(kind, count=2)(pairs))
        np.testing.assert_array_equal(positive, expected_positive)
        assert not (negative & ~np.asarray(pairs.negative)).any()
        np.testing.assert_array_equal(negative.sum(1), expected.sum(1))
        assert kind in DRAWN or (negative == expected).all()
        drawn.append(negative)
    assert (drawn[0] != drawn[1]).any() == (kind in DRAWN)


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
def test_schedule_moves_on_without_a_new_graph(jit_compile: bool) -> None:
    pairs, miner, traces = make_pairs("flat", 2), Miner("schedule", count=3), list[None]()

    @tf.function(jit_compile=jit_compile, autograph=False)
    def masks() -> Any:
        traces.append(None)
        return miner(pairs)[2:4]

    found = [[np.asarray(mask) for mask in masks()]]
    for name in ("semi_hard", "hard", "hard"):
        assert miner.advance() == name and miner.stage_name == name
        found.append([np.asarray(mask) for mask in masks()])
    assert len(traces) == 1 and int(miner.level) == 2
    np.testing.assert_array_equal(found[0][1].sum(1), np.minimum(np.asarray(pairs.negative).sum(1), 3))
    for name, masks_now in zip(("semi_hard", "hard", "hard"), found[1:], strict=True):
        for now, expected in zip(masks_now, masks_of(Miner(name)(pairs)), strict=True):
            np.testing.assert_array_equal(now, expected)


def test_schedule_starts_with_random_draws() -> None:
    pairs, schedule, plain = make_pairs("bank", 2), Miner("schedule", seed=4), Miner("random", seed=4)
    assert schedule.stage_name == STAGES[0] == "random" and int(schedule.level) == 0
    assert not schedule.trainable_variables and len(schedule.variables) == 2
    assert schedule.level.aggregation == "only_first_replica"
    np.testing.assert_array_equal(schedule(pairs).negative, plain(pairs).negative)
    assert plain.stage_name == "random"
    with pytest.raises(ValueError, match=r'`advance` needs Miner\("schedule"\)\. Received: kind=\'random\''):
        plain.advance()


def test_schedule_under_a_distribution_strategy() -> None:
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        miner = Miner("schedule")
    assert [miner.stage_name, *(miner.advance() for _ in range(3))] == ["random", "semi_hard", "hard", "hard"]


# ---- Random states -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", DRAWN)
def test_draws_differ_from_call_to_call_and_repeat_with_the_seed(kind: str) -> None:
    pairs = make_pairs("flat", 3, clustered=False)
    draws = [[np.asarray(m(pairs).negative) for _ in range(3)] for m in (Miner(kind, 2, seed=s) for s in (1, 1, 2))]
    assert all((draws[0][i] != draws[0][j]).any() for i, j in ((0, 1), (0, 2), (1, 2)))
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0][0] != draws[2][0]).any()


def test_layer_draws_evenly() -> None:
    """Over calls, for each anchor."""
    pairs, miner = make_pairs("flat", 3), Miner("random", count=2)
    step = tf.function(lambda: tf.cast(miner(pairs).negative, tf.float32))
    share = sum(np.asarray(step()) for _ in range(2000)) / 2000
    negative = np.asarray(pairs.negative)
    np.testing.assert_allclose(share, negative * 2 / negative.sum(1, keepdims=True), atol=0.05)


class Trained(keras.Model):
    """A model that keeps a miner, as a trainer does."""

    def __init__(self, seed: int):
        super().__init__()
        self.dense = keras.layers.Dense(2)
        self.miner = Miner("schedule", count=2, seed=seed)
        self.compile("sgd", "mse")
        self.optimizer.build(self.trainable_variables)

    def call(self, rows: Any) -> Any:
        return self.dense(rows)


def test_a_checkpoint_repeats_the_draws_and_the_stage(tmp_path: Path) -> None:
    pairs, model, resumed = make_pairs("flat", 4), Trained(0), Trained(5)
    model.miner(pairs)
    checkpoint.save_state(tmp_path / "early.npz", model, {})
    expected = [np.asarray(model.miner(pairs).negative) for _ in range(2)]
    model.miner.advance()
    checkpoint.save_state(tmp_path / "late.npz", model, {})
    checkpoint.restore_state(tmp_path / "early.npz", resumed)
    np.testing.assert_array_equal([np.asarray(resumed.miner(pairs).negative) for _ in range(2)], expected)
    checkpoint.restore_state(tmp_path / "late.npz", resumed)
    assert resumed.miner.stage_name == "semi_hard"


# ---- With losses ---------------------------------------------------------------------------------------------


class Mined:
    """A loss on mined pairs, as a function of a batch."""

    def __init__(self, loss: Any, miner: Miner):
        self.loss, self.miner = loss, miner

    def __call__(self, labels: Any, rows: Any) -> Any:
        return keras.ops.mean(self.loss.values(self.miner(pair_up(labels, rows))))


def batch(form: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = LABELS if form == "flat" else np.stack([rng.choice(30, 7, replace=False) for _ in range(9)])
    labels = labels if form == "flat" else np.concatenate([labels[:, :1], labels], axis=1)
    rows = rng.normal(size=(30, 6))[labels] + 0.8 * rng.normal(size=(*labels.shape, 6))
    return labels, rows.astype("float32")


@pytest.mark.parametrize("form", ["flat", "tuplet"])
@pytest.mark.parametrize("seed", range(3))
def test_all_triplets_of_hard_pairs_are_the_hard_triplets(form: str, seed: int) -> None:
    labels, rows = batch(form, seed)
    mined = contracts.value_and_gradient(Mined(TripletLoss(mining="all"), Miner("hard")), labels, rows)
    value, gradient = contracts.value_and_gradient(TripletLoss(mining="hard"), labels, rows)
    assert value > 0 and mined[0] == pytest.approx(value, rel=1e-6)
    np.testing.assert_allclose(mined[1], gradient, atol=1e-6)


@every_kind
@pytest.mark.parametrize("form", FORMS)
def test_tuplet_margin_on_mined_pairs(kind: str, form: str) -> None:
    mined = Miner(kind, count=3)(make_pairs(form, 4))
    expected = oracle.tuplet_margin(np.asarray(mined.cosines()), *masks_of(mined), own_keys=form == "tuplet")
    assert float(np.mean(TupletMarginLoss().values(mined))) == pytest.approx(expected, rel=5e-5)


@every_kind
def test_memory_is_that_of_pairs(kind: str) -> None:
    labels, rows = np.arange(64) % 20, np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    contracts.check_loss_keeps_to_pairs(Mined(TupletMarginLoss(), Miner(kind, count=2)), labels, rows)


ODD = {
    "equal": np.ones((5, 3)),
    "zero": np.zeros((5, 3)),
    "antipodal": np.array([[1.0], [-1], [1], [-1], [0]]),
    "one-hot": np.eye(5, 3),
}


@every_kind
def test_odd_batches_stay_finite_and_a_broken_model_shows(kind: str) -> None:
    labels, mined = np.array([0, 0, 1, 1, 2]), Mined(TupletMarginLoss(), Miner(kind, count=2))
    for rows in ODD.values():
        contracts.check_loss_is_finite(mined, labels, rows.astype("float32"))
    assert contracts.check_loss_is_finite(mined, np.zeros(5, int), np.eye(5, 3, dtype="float32"))[0] == 0.0
    for loss in (TupletMarginLoss(), TripletLoss(mining="all"), TripletLoss(mining="hard")):
        for broken in (np.full((5, 3), np.nan), np.diag([1.0, np.nan, 1, 1, 1])):
            assert np.isnan(float(Mined(loss, Miner(kind, count=2))(labels, broken.astype("float32"))))


# ---- Configuration -------------------------------------------------------------------------------------------


@every_kind
def test_configuration(kind: str) -> None:
    options: dict[str, Any] = {"count": np.int64(3), "margin": np.float32(0.5), "seed": 7}
    miner = Miner(kind, **options, name="miner")
    config = miner.get_config()
    assert json.loads(json.dumps(config)) == config
    own = {name: config[name] for name in ("name", "kind", "count", "margin", "seed")}
    assert own == {"name": "miner", "kind": kind, "count": 3, "margin": 0.5, "seed": 7}
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(miner))
    assert type(again) is Miner and again.get_config() == config
    pairs = make_pairs("flat")
    np.testing.assert_array_equal(again(pairs).negative, miner(pairs).negative)


def test_defaults_and_precision() -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        miner = Miner("random")
    finally:
        keras.config.set_dtype_policy("float32")
    assert (miner.count, miner.margin, miner.seed, miner.dtype_policy.name) == (8, 0.2, 0, "float32")
    assert miner.built and Miner("hard", dtype="bfloat16").compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "semihard"}, r"There is no miner 'semihard': did you mean `semi_hard`\? There are all, random, "),
        ({"kind": None}, r"There is no miner None: did you mean `"),
        ({"kind": "random", "count": 0}, r"`count` must be an integer of at least 1\. Received: count=0"),
        ({"kind": "random", "count": None}, r"`count` must be an integer of at least 1\. Received: count=None"),
        ({"kind": "random", "count": 2.0}, r"`count` must be an integer of at least 1\. Received: count=2\.0"),
        ({"kind": "random", "count": True}, r"`count` must be an integer of at least 1\. Received: count=True"),
        ({"kind": "semi_hard", "margin": 2.0}, r"`margin` must be in \(0, 2\)\. Received: margin=2\.0"),
        ({"kind": "semi_hard", "margin": 0}, r"`margin` must be in \(0, 2\)\. Received: margin=0"),
        ({"kind": "random", "seed": 0.5}, r"`seed` must be an integer\. Received: seed=0\.5"),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Miner(**options)
