"""A batch split over replicas has one device's losses and gradients.

Logical devices are made before TensorFlow's first operation, and one process takes one strategy: each split runs in
a process of its own, `python -m tests.test_replicas REPLICAS MODE FILE`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from facekit.pairwise import pair_up
from facekit.replicas import gather_negatives, pair_across

ROOT = Path(__file__).resolve().parent.parent
Arrays = dict[str, Any]

# Of its halves the first has most of identity 0, the second all of identity 4. Large labels: as floats they merge.
LABELS = np.array([0, 0, 0, 1, 2, 3, 1, 1, 4, 4, 0, 5]) + 2**40
INPUTS = np.random.default_rng(0).normal(size=(len(LABELS), 6)).astype("float32")
# Four batches of the same people, each in another order.
FIT_LABELS = np.concatenate([LABELS, LABELS[::-1], np.roll(LABELS, 2), np.roll(LABELS, 5)])
FIT_INPUTS = (
    np.random.default_rng(1).normal(size=(6, 6))[FIT_LABELS - 2**40]
    + np.random.default_rng(2).normal(size=(len(FIT_LABELS), 6))
).astype("float32")

# By number of replicas: all losses; one, of which a batch mean has a gradient through all replicas.
NAMES = {2: list(losses.LOSSES), 4: ["intra_pair_variance"]}

# ---- What both sides run ---------------------------------------------------------------------------------------


def dense() -> keras.Model:
    kernel = np.random.default_rng(3).normal(size=(6, 4)).astype("float32")
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, use_bias=False)])
    model.set_weights([kernel])
    return model


def value_and_gradients(model: keras.Model, loss: Any, inputs: Any, labels: Any, replicas: int) -> Arrays:
    """A replica's part of the loss, and its gradients by its embeddings and by the weights."""
    with tf.GradientTape() as tape:
        rows = model(inputs)
        value = tf.reduce_mean(loss.values(pair_across(rows, labels)[0])) / replicas
    by_rows, by_weights = tape.gradient(value, [rows, model.trainable_variables[0]])
    return {"value": value, "rows": by_rows, "weights": by_weights}


class Objective(keras.losses.Loss):
    """Values that are computed already: `fit` scales their mean to the number of replicas."""

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return y_pred


class Trainer(keras.Model):
    """The smallest model that trains on all replicas' negatives, or on its own replica's."""

    def __init__(self, gathers: bool):
        super().__init__()
        self.network, self.objective, self.gathers = dense(), losses.get("tuplet_margin_ipv", scale=8.0), gathers

    def call(self, x: Any) -> Any:
        return self.network(x)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        pairs = pair_across(y_pred, y)[0] if self.gathers else pair_up(y, y_pred)
        return super().compute_loss(x, y, self.objective.values(pairs), sample_weight, training)


def fit(gathers: bool) -> np.ndarray:
    """The loss of each of 3 epochs of plain gradient descent."""
    model = Trainer(gathers)
    model.compile(keras.optimizers.SGD(0.3), Objective())
    data = tf.data.Dataset.from_tensor_slices((FIT_INPUTS, FIT_LABELS)).batch(len(LABELS))
    return np.array(model.fit(data, epochs=3, verbose=0).history["loss"])


# ---- The process of a split batch ------------------------------------------------------------------------------


def run_split(replicas: int, gathers: bool) -> Arrays:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])
    with strategy.scope():
        return {**losses_on(strategy), "fit": fit(gathers), "uneven": complaint_about_uneven_parts(strategy)}


def complaint_about_uneven_parts(strategy: tf.distribute.Strategy) -> str:
    def sizes() -> Any:
        size = 4 - tf.distribute.get_replica_context().replica_id_in_sync_group
        return tf.shape(gather_negatives(tf.ones((size, 2)), tf.range(size)).rows)

    try:
        strategy.run(tf.function(sizes))
    except tf.errors.InvalidArgumentError as error:
        return str(error)
    return ""


def losses_on(strategy: tf.distribute.Strategy) -> Arrays:
    found: Arrays = {}
    model, replicas = dense(), strategy.num_replicas_in_sync

    def part_of(array: np.ndarray) -> Any:
        parts = np.split(array, replicas)
        return strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(parts[context.replica_id_in_sync_group])
        )

    inputs, labels = part_of(INPUTS), part_of(LABELS)
    for name in NAMES[replicas]:
        # Without a graph, which `fit` has: tracing them all takes longer than they do.
        split = strategy.run(value_and_gradients, (model, losses.get(name), inputs, labels, replicas))
        parts = {key: strategy.experimental_local_results(value) for key, value in split.items()}
        found |= {f"{name} value": np.sum(parts["value"]), f"{name} weights": np.sum(parts["weights"], axis=0)}
        found[f"{name} rows"] = np.concatenate(parts["rows"])
    return found


def main() -> None:
    replicas, gathers, path = sys.argv[1:]
    np.savez(path, **run_split(int(replicas), gathers == "gathers"))


# ---- The comparison --------------------------------------------------------------------------------------------

Split = dict[int, Future[Arrays]]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Split]:
    """What 2 replicas found, gathering in `fit`, and 4, which do not; they run at the same time."""
    folder = tmp_path_factory.mktemp("replicas")

    def run(replicas: int, mode: str) -> Arrays:
        path = folder / f"{replicas}.npz"
        command = [sys.executable, "-m", "tests.test_replicas", str(replicas), mode, str(path)]
        quiet = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=quiet)
        assert done.returncode == 0, done.stderr[-3000:]
        with np.load(path) as arrays:
            return dict(arrays)

    with ThreadPoolExecutor() as pool:
        yield {2: pool.submit(run, 2, "gathers"), 4: pool.submit(run, 4, "apart")}


@pytest.mark.parametrize(("replicas", "name"), [(replicas, name) for replicas in NAMES for name in NAMES[replicas]])
def test_a_split_batch_has_one_devices_loss_and_gradients(split: Split, replicas: int, name: str) -> None:
    found = split[replicas].result()
    whole = value_and_gradients(dense(), losses.get(name), INPUTS, tf.constant(LABELS), replicas=1)
    assert float(whole["value"]) > 0 and np.abs(whole["weights"]).max() > 0
    for key, expected in whole.items():
        slack = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(found[f"{name} {key}"], expected, rtol=0, atol=slack, err_msg=key)


def test_fit_on_two_replicas_is_fit_on_one(split: Split) -> None:
    alone = fit(gathers=True)
    np.testing.assert_allclose(split[2].result()["fit"], alone, rtol=1e-5)
    assert alone[-1] < alone[0]


def test_fit_without_gathering_is_another(split: Split) -> None:
    assert np.abs(split[4].result()["fit"] / split[2].result()["fit"] - 1).min() > 0.01


def test_uneven_parts_are_refused_in_a_sentence(split: Split) -> None:
    message = str(split[2].result()["uneven"])
    assert "A batch must split evenly over 2 replicas: choose a size that is a multiple of 2." in message


def test_one_replica_gathers_its_own_rows() -> None:
    gathered = gather_negatives(tf.constant(INPUTS), tf.constant(LABELS))
    np.testing.assert_array_equal(gathered.rows, INPUTS)
    np.testing.assert_array_equal(gathered.labels, LABELS)
    assert gathered.offset == 0 and gathered.total(3.0) == 3.0


def test_pairs_of_one_replica_are_the_batchs() -> None:
    here, expected = pair_across(tf.constant(INPUTS), tf.constant(LABELS))[0], pair_up(LABELS, INPUTS)
    for one, other in zip(here[:4], expected[:4], strict=True):
        np.testing.assert_array_equal(one, other)


if __name__ == "__main__":
    main()
