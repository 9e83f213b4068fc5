"""Class centres against a loop, neighbours against brute force, snapshots against the clock of training."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from facekit import identities
from facekit.identities import ClassCentres, Snapshots, nearest_people
from facekit.sampling import PeopleSampler
from tests import reference

PEOPLE, WIDTH = 9, 5


def make(rate: float = 0.1) -> ClassCentres:
    centres = ClassCentres(PEOPLE, rate)
    centres.build((None, WIDTH))
    return centres


def batches(sizes: list[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of people 0 to 6: seven and eight never come."""
    rng = np.random.default_rng(0)
    for size in sizes:
        yield (10 * rng.normal(size=(size, WIDTH))).astype("float32"), rng.integers(0, 7, size)


class Loop:
    """The centres, person by person, in float64."""

    def __init__(self, rate: float):
        self.rate = rate
        self.centres = np.zeros((PEOPLE, WIDTH))
        self.seen = np.zeros(PEOPLE, int)

    def update(self, rows: np.ndarray, labels: np.ndarray) -> None:
        for person in np.unique(labels):
            own = [reference.unit(row) for row in rows[labels == person].astype("float64")]
            mean = np.mean(own, axis=0)
            if self.seen[person]:
                mean = (1 - self.rate) * self.centres[person] + self.rate * mean
            self.centres[person] = reference.unit(mean)
            self.seen[person] += len(own)


# ---- Centres -----------------------------------------------------------------------------------------------------


def check_against_loop(centres: ClassCentres, update: Callable[..., None]) -> None:
    loop = Loop(centres.rate)
    for rows, labels in batches([1, 4, 12, 12, 30, 2]):
        update(rows, labels)
        loop.update(rows, labels)
        np.testing.assert_allclose(centres.centres, loop.centres, atol=2e-6)
        np.testing.assert_array_equal(centres.seen, loop.seen)


@pytest.mark.parametrize("rate", [0.1, 0.7, 1.0])
def test_centres_are_those_of_a_loop(rate: float):
    centres = make(rate)
    check_against_loop(centres, centres.update)


@pytest.mark.parametrize("run", ["graph", "xla"])
def test_centres_are_those_of_a_loop_compiled(run: str):
    centres = make()
    any_batch = [tf.TensorSpec((None, WIDTH), tf.float32), tf.TensorSpec((None,), tf.int64)]
    check_against_loop(centres, tf.function(centres.update, input_signature=any_batch, jit_compile=run == "xla"))


def test_rows_of_any_length_and_dtype_weigh_the_same():
    centres = make()
    rows = tf.constant([[300.0, 0, 0, 0, 0], [0, 1e-3, 0, 0, 0], [0, 0, 0, 0, 0]], tf.float16)
    centres.update(rows, tf.constant([4, 4, 2], tf.uint8))
    np.testing.assert_allclose(centres.centres[4], [0.5**0.5, 0.5**0.5, 0, 0, 0], atol=1e-6)
    assert np.asarray(centres.seen).tolist() == [0, 0, 1, 0, 2, 0, 0, 0, 0]
    assert np.abs(centres.centres).sum(1).astype(bool).sum() == 1  # a mean of nothing has no direction


def test_centres_take_no_gradient():
    centres = make()
    with tf.GradientTape() as tape:
        rows = tf.random.normal((4, WIDTH))
        tape.watch(rows)
        centres.update(rows, tf.constant([0, 1, 1, 2]))
        value = tf.reduce_sum(centres.centres.value)
    assert tape.gradient(value, rows) is None
    assert centres.trainable_weights == []
    assert {weight.aggregation for weight in centres.weights} == {"only_first_replica"}
    assert [weight.name for weight in centres.weights] == ["centres", "seen"]
    # TensorFlow keeps int32 variables off the GPU, where a compiled step cannot reach them.
    assert [weight.dtype for weight in centres.weights] == ["float32", "int64"]


@pytest.mark.parametrize(("people", "rate"), [(0, 0.1), (3, 0.0), (3, 1.5), (3, -0.1)])
def test_a_wrong_argument_is_named(people: int, rate: float):
    sentence = rf"`people` must be at least 1 and `rate` in \(0, 1\]\. Received: people={people}, rate={rate}"
    with pytest.raises(ValueError, match=sentence):
        ClassCentres(people, rate)


class Follower(keras.layers.Layer):
    """Updates centres inside a call."""

    def __init__(self, centres: ClassCentres):
        super().__init__(dtype="mixed_float16", autocast=False)
        self.centres = centres

    def call(self, rows: np.ndarray, labels: np.ndarray) -> None:
        self.centres.update(rows, labels)


def test_mixed_precision_leaves_them_alone():
    centres = make()
    check_against_loop(centres, Follower(centres))


def test_configuration_and_weights_make_them_again(tmp_path: Path):
    centres = ClassCentres(PEOPLE, 0.3, name="people")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(WIDTH)])
    model.centres = centres
    centres.build((None, WIDTH))
    for rows, labels in batches([4, 9]):
        centres.update(rows, labels)
    model.save_weights(tmp_path / "model.weights.h5")
    again = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(keras.saving.serialize_keras_object(centres)))
    )
    assert (again.people, again.rate, again.name, ClassCentres(3).rate) == (PEOPLE, 0.3, "people", 0.1)
    other = keras.Sequential([keras.Input((2,)), keras.layers.Dense(WIDTH)])
    other.centres = again
    if not again.built:
        again.build((None, WIDTH))
    other.load_weights(tmp_path / "model.weights.h5")
    for weight, same in zip(again.weights, centres.weights, strict=True):
        np.testing.assert_array_equal(weight, same)
    assert np.any(again.seen)


# ---- Neighbours --------------------------------------------------------------------------------------------------


def brute_force(centres: np.ndarray, seen: np.ndarray, count: int) -> np.ndarray:
    units = [reference.unit(row) for row in centres.astype("float64")]
    neighbours = np.full((len(units), count), -1)
    for person in np.flatnonzero(seen):
        others = [other for other in np.flatnonzero(seen) if other != person]
        nearest = sorted(others, key=lambda other: (-float(units[person] @ units[other]), other))[:count]
        neighbours[person, : len(nearest)] = nearest
    return neighbours


@pytest.mark.parametrize("cells", [1 << 22, 300, 1])
@pytest.mark.parametrize(("people", "count", "share"), [(60, 7, 1.0), (60, 7, 0.6), (20, 30, 0.8), (3, 1, 1.0)])
def test_neighbours_are_those_of_brute_force(
    monkeypatch: pytest.MonkeyPatch, cells: int, people: int, count: int, share: float
):
    monkeypatch.setattr(identities, "BLOCK_CELLS", cells)
    rng = np.random.default_rng(people)
    centres = (rng.normal(size=(people, 8)) * rng.lognormal(0, 3, (people, 1))).astype("float32")
    seen = rng.random(people) < share
    before = centres.copy()
    neighbours = nearest_people(centres, seen, count)
    assert neighbours.dtype == np.int32
    np.testing.assert_array_equal(neighbours, brute_force(centres, seen, count))
    np.testing.assert_array_equal(centres, before)


def test_ties_go_to_the_lower_number():
    # Cosines are exactly 1, 0 or -1, many of each.
    rng = np.random.default_rng(0)
    centres = (np.eye(4)[rng.integers(0, 4, 300)] * rng.choice([-1, 1], (300, 1))).astype("float32")
    centres[::7] = 0
    seen = rng.random(300) < 0.9
    for count in (1, 10, 40, 300):
        np.testing.assert_array_equal(nearest_people(centres, seen, count), brute_force(centres, seen, count))


def test_cosines_next_to_each_other_are_told_apart():
    angles = 1.0 + np.array([0.0, 3e-3, -2e-3, 1e-3, -4e-3])
    centres = np.stack([np.cos(angles), np.sin(angles)], 1).astype("float32")
    assert nearest_people(centres, np.ones(5, bool), 4)[0].tolist() == [3, 2, 1, 4]


@pytest.mark.parametrize("seen", [[], [0], [1]], ids=str)
def test_nobody_else_gives_nobody(seen: list[int]):
    mask = np.isin(np.arange(2), seen)
    assert nearest_people(np.ones((2, 3), "float32"), mask, 4).tolist() == [[-1] * 4] * 2


def test_two_people_are_each_others():
    assert nearest_people(np.array([[1, 0], [-1, 0]], "float32"), np.ones(2, bool), 2).tolist() == [
        [1, -1],
        [0, -1],
    ]


# ---- Snapshots ---------------------------------------------------------------------------------------------------


def centres_after(step: int) -> np.ndarray:
    return np.random.default_rng(step).normal(size=(20, 4)).astype("float32")


EVERYONE = np.ones(20, bool)


def train(snapshots: Snapshots, first: int, last: int) -> Iterator[int]:
    """Each step's number when it may be drawn, then its end."""
    for step in range(first, last):
        yield step
        if snapshots.is_due(step + 1):
            snapshots.take(step + 1, centres_after(step + 1), EVERYONE)


@pytest.mark.parametrize("every", [1, 3, 10])
def test_a_snapshot_serves_one_interval_late(every: int):
    snapshots = Snapshots(every, count=3)
    for step in train(snapshots, 0, 8 * every):
        neighbours = snapshots.at(step)
        if step < 2 * every:
            assert neighbours is None
        else:
            taken = (step // every - 1) * every
            np.testing.assert_array_equal(neighbours, nearest_people(centres_after(taken), EVERYONE, 3))


@pytest.mark.parametrize("every", [1, 3, 10])
def test_reading_an_interval_ahead_gives_what_just_in_time_gives(every: int):
    late = Snapshots(every, 3)
    expected = [late.at(step) for step in train(late, 0, 7 * every)]
    ahead = Snapshots(every, 3)
    # While step t trains, batch t + every is read.
    drawn = [ahead.at(step) for step in range(every)]
    drawn += [ahead.at(step + every) for step in train(ahead, 0, 6 * every)]
    for one, other in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_batches_depend_on_seed_step_and_snapshots_only():
    labels = np.repeat(np.arange(20), 3)
    sampler, every = PeopleSampler(labels, 16, 2, seed=1), 4
    late, ahead = Snapshots(every, 3), Snapshots(every, 3)
    expected = [sampler.batch(step, late.at(step)) for step in train(late, 0, 24)]
    other = PeopleSampler(labels, 16, 2, seed=1)
    for step in train(ahead, 0, 24 - every):
        np.testing.assert_array_equal(other.batch(step + every, ahead.at(step + every)), expected[step + every])


def test_reading_too_far_ahead_is_said():
    snapshots = Snapshots(10)
    for step in train(snapshots, 0, 25):
        snapshots.at(step)
    assert snapshots.at(39) is not None
    sentence = (
        r"Batch 40 is drawn from the snapshot after 30 steps, which is not here\. "
        r"Take one every 10 steps, and read at most as many batches ahead of training\."
    )
    with pytest.raises(RuntimeError, match=sentence):
        snapshots.at(40)


def test_only_what_can_be_needed_is_kept():
    snapshots = Snapshots(5, 2)
    sizes = []
    for _ in train(snapshots, 0, 40):
        sizes.append(len(snapshots.arrays()))
    assert sizes == [0] * 5 + [1] * 5 + [2] * 30
    assert sorted(snapshots.arrays()) == ["neighbours_7", "neighbours_8"]
    with pytest.raises(RuntimeError, match="Batch 39 is drawn from the snapshot after 30 steps"):
        snapshots.at(39)


@pytest.mark.parametrize("step", [0, -10, 7, 11])
def test_a_snapshot_that_is_not_due_is_refused(step: int):
    snapshots = Snapshots(10)
    assert not snapshots.is_due(step)
    with pytest.raises(ValueError, match=f"A snapshot is due every 10 steps, from then on; not after {step}"):
        snapshots.take(step, centres_after(0), EVERYONE)


@pytest.mark.parametrize("stop", [3, 5, 9, 10, 14, 15, 23])
def test_a_restored_run_goes_on(stop: int, tmp_path: Path):
    whole = Snapshots(5, 2)
    expected = [whole.at(step) for step in train(whole, 0, 40)]
    stopped = Snapshots(5, 2)
    for step in train(stopped, 0, stop):
        stopped.at(step)
    np.savez(tmp_path / "state.npz", **stopped.arrays())  # type: ignore[arg-type]
    resumed = Snapshots(5, 2)
    resumed.take(35, centres_after(0), EVERYONE)  # what it had is forgotten
    with np.load(tmp_path / "state.npz") as file:
        resumed.restore(dict(file))
    assert sorted(resumed.arrays()) == sorted(stopped.arrays())
    for step in train(resumed, stop, 40):
        np.testing.assert_array_equal(resumed.at(step), expected[step])


def test_unseen_people_have_no_neighbours_in_a_snapshot():
    snapshots = Snapshots(1)
    assert snapshots.count == 16
    snapshots.take(1, centres_after(1), EVERYONE & (np.arange(20) != 4))
    neighbours = snapshots.at(2)
    assert neighbours.shape == (20, 16)
    assert (neighbours[4] == -1).all() and not (neighbours == 4).any()


def test_one_thread_reads_while_another_takes():
    snapshots, wrong = Snapshots(1, 2), []
    taken = threading.Event()

    def read() -> None:
        while not taken.is_set():
            held = snapshots.arrays()
            numbers = sorted(int(name.split("_")[1]) for name in held)
            if numbers and numbers != list(range(numbers[0], numbers[-1] + 1)):
                wrong.append(numbers)

    reader = threading.Thread(target=read)
    reader.start()
    for step in range(1, 300):
        snapshots.take(step, centres_after(1), EVERYONE)
    taken.set()
    reader.join()
    assert not wrong


@pytest.mark.parametrize(("every", "count"), [(0, 3), (5, 0)])
def test_wrong_intervals_are_named(every: int, count: int):
    sentence = rf"`every` and `count` must be at least 1\. Received: every={every}, count={count}"
    with pytest.raises(ValueError, match=sentence):
        Snapshots(every, count)
