"""The cross-batch memory against a deque, in losses, in training steps, saved and loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from facekit.checkpoint import restore_state, save_state
from facekit.memory import CrossBatchMemory
from facekit.pair_loss import PairLoss
from facekit.pairwise import Pairs, negative_mask, positive_mask, unit_rows
from losses import TripletLoss, TupletMarginLoss
from tests import reference

ROOT = Path(__file__).resolve().parent.parent
WIDTH = 5


def make(size: int = 12, start_step: int = 0) -> CrossBatchMemory:
    memory = CrossBatchMemory(size, start_step)
    memory.build((None, WIDTH))
    return memory


def batches(sizes: list[int], seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    for size in sizes:
        yield (10 * rng.normal(size=(size, WIDTH))).astype("float32"), rng.integers(0, 6, size)


def held(memory: CrossBatchMemory) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, labels and writing steps that exist, oldest first."""
    rows, labels, exists = map(np.asarray, memory.keys())
    order = np.roll(np.arange(memory.size), -int(memory.cursor))
    order = order[exists[order]]
    return rows[order], labels[order], np.asarray(memory.written)[order]


def runs_as(add: Callable[..., None], run: str) -> Callable[..., None]:
    if run == "eager":
        return add
    any_batch = [tf.TensorSpec((None, WIDTH), tf.float32), tf.TensorSpec((None,), tf.int64)]
    return tf.function(add, input_signature=any_batch, jit_compile=run == "xla")


# ---- The ring --------------------------------------------------------------------------------------------------


def check_against_deque(memory: CrossBatchMemory, add: Callable[..., None], sizes: list[int], seed: int) -> None:
    queue: deque[tuple[np.ndarray, int, int]] = deque(maxlen=memory.size)
    for step, (rows, labels) in enumerate(batches(sizes, seed)):
        add(rows, labels)
        if step >= memory.start_step:
            units = [reference.unit(row) for row in rows.astype("float64")]
            queue.extend((row, label, step) for row, label in zip(units, labels, strict=True))
        kept_rows, kept_labels, written = held(memory)
        assert len(kept_rows) == len(queue)
        if queue:
            np.testing.assert_allclose(kept_rows, [row for row, _, _ in queue], atol=1e-6)
        assert kept_labels.tolist() == [label for _, label, _ in queue]
        assert written.tolist() == [then for _, _, then in queue]
        assert float(memory.filled()) == pytest.approx(len(queue) / memory.size)
        ages = [step + 1 - then for _, _, then in queue]
        assert float(memory.age()) == pytest.approx(np.mean(ages) if ages else 0)
        assert int(memory.steps) == step + 1


@pytest.mark.parametrize(("size", "start_step"), [(12, 0), (12, 3), (1, 0), (7, 1), (64, 5)])
def test_it_is_a_deque(size: int, start_step: int):
    rng = np.random.default_rng(size)
    sizes = rng.integers(1, 2 * size + 2, 10).tolist() + rng.integers(1, 5, 8).tolist() + [size, size, 3 * size, 1]
    memory = make(size, start_step)
    check_against_deque(memory, memory.add, sizes, seed=size)


@pytest.mark.parametrize("run", ["graph", "xla"])
def test_it_is_a_deque_compiled(run: str):
    memory = make(12, 2)
    check_against_deque(memory, runs_as(memory.add, run), [5, 5, 5, 5, 30, 7, 12, 1, 5, 13, 5], seed=1)


@pytest.mark.parametrize("run", ["graph", "xla"])
def test_reading_compiled_is_reading(run: str):
    memory = make(12)
    for rows, labels in batches([5, 9]):
        memory.add(rows, labels)
    read = tf.function(lambda: (*memory.keys(), memory.filled(), memory.age()), jit_compile=run == "xla")
    for compiled, eager in zip(read(), (*memory.keys(), memory.filled(), memory.age()), strict=True):
        assert compiled.dtype == eager.dtype
        np.testing.assert_allclose(np.asarray(compiled, "float64"), np.asarray(eager, "float64"), rtol=1e-6)


def test_an_empty_memory():
    memory = make(4)
    rows, labels, exists = memory.keys()
    assert rows.shape == (4, WIDTH) and rows.dtype == tf.float32
    assert labels.shape == (4,) and labels.dtype == tf.int32
    assert exists.dtype == tf.bool and not np.any(exists)
    assert np.all(np.asarray(memory.written) == -1)
    assert float(memory.filled()) == float(memory.age()) == 0


def test_a_row_is_one_step_old_for_the_next_batch():
    memory = make(4)
    ages = []
    for rows, labels in batches([2, 2, 2, 2]):
        memory.add(rows, labels)
        ages.append(float(memory.age()))
    assert ages == [1.0, 1.5, 1.5, 1.5]


def test_rows_of_any_float_dtype_are_kept_as_unit_rows():
    memory = make(3)
    rows = np.array([[300.0, 0, 0, 0, 400], [0, 0, 0, 0, 0], [0, -1e-3, 0, 0, 0]])
    memory.add(tf.constant(rows, tf.float16), tf.constant([3, 1, 2], tf.uint8))
    kept, labels, exists = memory.keys()
    np.testing.assert_allclose(kept, [[0.6, 0, 0, 0, 0.8], [0] * 5, [0, -1, 0, 0, 0]], atol=1e-6)
    assert np.asarray(labels).tolist() == [3, 1, 2] and np.all(exists)


def test_keys_read_before_are_of_before():
    memory = make(4)
    (first, first_labels), (second, second_labels) = batches([4, 4])
    memory.add(first, first_labels)
    before = memory.keys()
    memory.add(second, second_labels)
    np.testing.assert_allclose(before[0], unit_rows(first), atol=1e-6)
    np.testing.assert_array_equal(before[1], first_labels)


@pytest.mark.parametrize(("size", "start_step"), [(0, 0), (-1, 0), (4, -1)])
def test_a_wrong_argument_is_named(size: int, start_step: int):
    sentence = (
        r"`size` must be at least 1 and `start_step` at least 0\. Received: "
        f"size={size}, start_step={start_step}"
    )
    with pytest.raises(ValueError, match=sentence):
        CrossBatchMemory(size, start_step)


# ---- Losses ------------------------------------------------------------------------------------------------------


def semi_hard(anchors: list[reference.Anchor]) -> float:
    terms = []
    for anchor in anchors:
        negatives = [float(np.linalg.norm(anchor.row - n)) for n in anchor.negatives]
        for p in [float(np.linalg.norm(anchor.row - p)) for p in anchor.positives]:
            farther = [n for n in negatives if n > p]
            terms.append(max(p - (min(farther) if farther else max(negatives)) + 0.2, 0.0))
    return float(np.mean(terms))


def hard(anchors: list[reference.Anchor]) -> float:
    gaps = [
        max(np.linalg.norm(anchor.row - p) for p in anchor.positives)
        - min(np.linalg.norm(anchor.row - n) for n in anchor.negatives)
        for anchor in anchors
        if anchor.positives
    ]
    return float(np.mean([gap + 0.2 for gap in gaps if gap > -0.2]))


def tuplet_margin(anchors: list[reference.Anchor]) -> float:
    terms = []
    for anchor in anchors:
        hardest = sorted([anchor.row @ n for n in anchor.negatives], reverse=True)[:3]
        for p in anchor.positives:
            goal = np.cos(np.arccos(np.clip(anchor.row @ p, -1.0, 1.0)) - 0.1)
            terms.append(np.log(1.0 + sum(np.exp(16 * (s - goal)) for s in hardest)))
    return float(np.mean(terms))


LOSSES: dict[str, tuple[PairLoss, Callable[[list[reference.Anchor]], float]]] = {
    "semi_hard": (TripletLoss(0.2), semi_hard),
    "hard": (TripletLoss(0.2, mining="hard"), hard),
    "tuplet": (TupletMarginLoss(0.1, scale=16.0, hardest=3), tuplet_margin),
}


def pairs_with_memory(rows: Any, labels: Any, memory: CrossBatchMemory) -> Pairs:
    """The batch's rows as anchors; as keys the batch's rows, then the memory's."""
    anchors = unit_rows(rows)
    kept, kept_labels, exists = memory.keys()
    return Pairs(
        anchors,
        tf.concat([anchors, kept], 0),
        tf.concat([positive_mask(labels, labels, 0), positive_mask(labels, kept_labels) & exists], 1),
        tf.concat([negative_mask(labels, labels), negative_mask(labels, kept_labels) & exists], 1),
    )


def anchors_with_memory(labels: np.ndarray, memory: CrossBatchMemory, rows: np.ndarray) -> list[reference.Anchor]:
    kept, kept_labels, exists = (np.asarray(values) for values in memory.keys())
    earlier = [
        (row.astype("float64"), label) for row, label, there in zip(kept, kept_labels, exists, strict=True) if there
    ]
    return [
        reference.Anchor(
            anchor.row,
            anchor.positives + [row for row, other in earlier if other == label],
            anchor.negatives + [row for row, other in earlier if other != label],
        )
        for anchor, label in zip(reference.batch_anchors(labels, rows), labels, strict=True)
    ]


def filled_memory(before: list[int]) -> CrossBatchMemory:
    memory = make(20)
    for rows, labels in batches(before, seed=5):
        memory.add(rows, labels)
    return memory


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("before", [[], [7], [9, 9, 9]], ids=["empty", "part", "full"])
def test_a_loss_takes_the_memory_as_keys(name: str, before: list[int]):
    loss, formula = LOSSES[name]
    memory = filled_memory(before)
    # Label 0 is also that of places that do not exist.
    labels, rows = np.array([0, 0, 1, 1, 2, 5, 7], "int32"), next(batches([7], seed=6))[0]

    def oracle(rows: np.ndarray) -> float:
        return formula(anchors_with_memory(labels, memory, rows))

    with tf.GradientTape() as tape:
        batch = tf.constant(rows)
        tape.watch(batch)
        values = loss.values(pairs_with_memory(batch, labels, memory))
        value = tf.reduce_mean(values)
    assert values.shape == (7,)
    assert float(value) == pytest.approx(oracle(rows), rel=5e-5)
    slope = reference.slope(oracle, rows, step=1e-4)
    assert np.abs(tape.gradient(value, batch) - slope).max() <= 2e-3 * np.abs(slope).max() + 1e-7


def test_the_memory_changes_the_loss():
    labels, rows = np.array([0, 0, 1, 1], "int32"), next(batches([4], seed=6))[0]
    values = {
        tuple(before): float(
            tf.reduce_mean(TripletLoss().values(pairs_with_memory(rows, labels, filled_memory(before))))
        )
        for before in ([], [7], [9, 9])
    }
    assert len(set(values.values())) == 3


def test_no_gradient_reaches_the_memory():
    memory = filled_memory([9])
    rows, labels = next(batches([6], seed=6))
    labels = labels.astype("int32")
    with tf.GradientTape(persistent=True) as tape:
        batch = tf.constant(rows)
        tape.watch(batch)
        tape.watch(memory.rows.value)
        pairs = pairs_with_memory(batch, labels, memory)
        memory.add(batch, labels)
        kept = tf.reduce_sum(memory.keys()[0])
        value = tf.reduce_mean(TupletMarginLoss().values(pairs))
    assert tape.gradient(value, memory.rows.value) is None
    assert tape.gradient(kept, batch) is None
    assert np.abs(tape.gradient(value, batch)).max() > 0


# ---- In a model --------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="tests")
class Trainer(keras.Model):
    """A dense layer trained with a memory."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(WIDTH)
        self.memory = CrossBatchMemory(10, 1)
        self.memory.build((None, WIDTH))

    def build(self, input_shape: Any) -> None:
        self.dense.build(input_shape)

    def call(self, inputs: Any) -> Any:
        return self.dense(inputs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True) -> Any:
        y = tf.cast(y, tf.int32)
        values = TupletMarginLoss().values(pairs_with_memory(y_pred, y, self.memory))
        self.memory.add(y_pred, y)
        return tf.reduce_mean(values)


@pytest.mark.parametrize("run", [{"run_eagerly": True}, {"jit_compile": True}], ids=["eager", "xla"])
def test_training_fills_it(run: dict[str, bool]):
    rng = np.random.default_rng(0)
    rows, labels = rng.normal(size=(24, 4)).astype("float32"), np.arange(24) % 5
    model = Trainer()
    model.compile(keras.optimizers.SGD(0.0), **run)
    model.fit(rows, labels, 4, epochs=2, shuffle=False, verbose=0)
    assert len(model.trainable_variables) == 2
    assert int(model.memory.steps) == 12 and int(model.memory.cursor) == 11 * 4 % 10
    kept, kept_labels, written = held(model.memory)
    np.testing.assert_allclose(kept, unit_rows(model(rows))[-10:], atol=1e-5)
    np.testing.assert_array_equal(kept_labels, labels[-10:])
    assert written.tolist() == [9] * 2 + [10] * 4 + [11] * 4


def test_its_weights():
    memory = make(6)
    assert [weight.name for weight in memory.weights] == ["rows", "labels", "written", "cursor", "steps"]
    assert [weight.shape for weight in memory.weights] == [(6, WIDTH), (6,), (6,), (), ()]
    # TensorFlow keeps int32 variables off the GPU, where a compiled step cannot reach them.
    assert [weight.dtype for weight in memory.weights] == ["float32"] + ["int64"] * 4
    assert memory.trainable_weights == []
    assert {weight.aggregation for weight in memory.weights} == {"only_first_replica"}


class Reader(keras.layers.Layer):
    """Adds rows and reads all, inside a call."""

    def __init__(self, memory: CrossBatchMemory):
        super().__init__(dtype="mixed_float16", autocast=False)
        self.memory = memory

    def call(self, rows: Any, labels: Any) -> Any:
        self.memory.add(rows, labels)
        return self.memory.keys()[0]


def test_mixed_precision_leaves_it_alone():
    rows, labels = next(batches([4]))
    kept = Reader(make(6))(rows, labels)
    assert kept.dtype == tf.float32
    np.testing.assert_allclose(kept[:4], unit_rows(rows), atol=1e-6)


def test_its_configuration_makes_it_again():
    memory = CrossBatchMemory(6, 3, name="bank")
    again = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(keras.saving.serialize_keras_object(memory)))
    )
    assert (again.size, again.start_step, again.name) == (6, 3, "bank")
    assert CrossBatchMemory().get_config()["size"] == 8192 and CrossBatchMemory().get_config()["start_step"] == 0


def trainer(sizes: list[int]) -> Trainer:
    model = Trainer()
    model.build((None, 4))
    model.compile(keras.optimizers.SGD(0.01))
    model.optimizer.build(model.trainable_variables)
    for rows, labels in batches(sizes):
        model.memory.add(rows, labels)
    return model


def goes_on(model: Trainer) -> list[Any]:
    """The memory's weights, and again after another batch."""
    before = [np.asarray(weight).tolist() for weight in model.memory.weights]
    model.memory.add(*next(batches([3], seed=9)))
    return [before, [np.asarray(weight).tolist() for weight in model.memory.weights]]


def test_saved_and_loaded_in_a_fresh_process(tmp_path: Path):
    model = trainer([3, 4, 7])
    model.save(tmp_path / "model.keras")
    code = (
        "import json, sys, keras\n"
        "from tests.test_memory import Trainer, goes_on\n"
        "model = keras.saving.load_model(sys.argv[1])\n"
        "assert type(model) is Trainer\n"
        "print(json.dumps(goes_on(model)))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "model.keras")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(answer.stdout.splitlines()[-1]) == goes_on(model)


def test_weights_and_checkpoints_hold_it(tmp_path: Path):
    model = trainer([3, 4, 7])
    model.save_weights(tmp_path / "model.weights.h5")
    save_state(tmp_path / "state.npz", model, {})
    expected = goes_on(model)
    for restore in (
        lambda again: again.load_weights(tmp_path / "model.weights.h5"),
        lambda again: restore_state(tmp_path / "state.npz", again),
    ):
        again = trainer([])
        restore(again)
        assert goes_on(again) == expected


def test_the_oracle_of_gradients_uses_the_memory():
    labels, rows = np.array([0, 1]), next(batches([2], seed=6))[0]
    oracle = partial(anchors_with_memory, labels)
    assert [len(anchor.negatives) for anchor in oracle(filled_memory([]), rows)] == [1, 1]
    assert sum(len(anchor.negatives) + len(anchor.positives) for anchor in oracle(filled_memory([7]), rows)) == 16
