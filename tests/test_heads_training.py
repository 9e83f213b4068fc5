"""The heads in training: sampled classes, optimizers, whole models, saving."""

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

from facekit import checkpoint, heads
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
    make,
    outcome,
)
from tests.reference import slope

ROOT = Path(__file__).resolve().parent.parent

# ---- Sampled classes -----------------------------------------------------------------------------------------

MANY = 60


def sampling_head(
    name: str = "softmax", sampled: int | None = 12, seed: int = 3, subcentres: int = 1, **options: Any
) -> heads.Head:
    centres = np.random.default_rng(5).normal(size=(MANY, subcentres, 4)).astype("float32")
    return make(name, centres, sampled=sampled, seed=seed, **options)


def labels_of_many(seed: int) -> np.ndarray:
    """Eight rows of five classes among many."""
    rng = np.random.default_rng(seed)
    return rng.choice(MANY, 5, replace=False)[[0, 1, 0, 2, 3, 4, 4, 0]]


def seen_classes(head: heads.Head, rows: np.ndarray, labels: np.ndarray, **how: Any) -> list[int]:
    """The classes whose centres get a gradient in a training step."""
    _, _, by_centres = outcome(head, rows, labels, training=True, **how)
    return np.flatnonzero(np.abs(by_centres).max(axis=(1, 2))).tolist()


@pytest.mark.parametrize(
    ("name", "subcentres", "run"),
    [(name, 1, "eager") for name in heads.HEADS] + [("adaface", 2, "graph"), ("arcface", 2, "xla")],
)
def test_a_sampled_step_is_the_oracle_on_its_classes(name: str, subcentres: int, run: str) -> None:
    rows, labels = batch("random", 10)[0] / 9, labels_of_many(0)
    scale = 1.0 if name == "softmax" else 4.0  # so small that float32 holds every class's gradient
    options: dict[str, Any] = {} if name == "softmax" else {"scale": scale}
    head = sampling_head(name, subcentres=subcentres, **options)
    centres = head.centres.numpy()
    values, by_rows, by_centres = outcome(head, rows, labels, training=True, run=run)
    classes = np.flatnonzero(np.abs(by_centres).max(axis=(1, 2)))
    assert len(classes) == 12 and set(labels) <= set(classes)
    quality = oracle.quality_of(rows, *oracle.running(rows, MEAN, STD))
    right = partial(oracle.values, name, labels=labels, classes=classes.tolist(), scale=scale, quality=quality)
    np.testing.assert_allclose(values, right(rows=rows, centres=centres), rtol=5e-5, atol=1e-6)
    assert_near(by_rows, slope(lambda at: right(rows=at, centres=centres).mean(), rows))

    def value_by_seen(seen: np.ndarray) -> float:
        changed = centres.astype("float64")
        changed[classes] = seen
        return float(right(rows=rows, centres=changed).mean())

    assert_near(by_centres[classes], slope(value_by_seen, centres[classes]))


@pytest.mark.parametrize("sampled", [MANY, MANY + 1, 10**6])
def test_as_many_as_there_are_means_all(sampled: int) -> None:
    rows, labels = batch("random", 11)[0], labels_of_many(1)
    found = outcome(sampling_head(sampled=sampled), rows, labels, training=True)
    for one, other in zip(found, outcome(sampling_head(sampled=None), rows, labels), strict=True):
        np.testing.assert_array_equal(one, other)


def test_draws_hold_the_batch_and_change_and_reach_everyone() -> None:
    head, rows = sampling_head(sampled=20), batch("random", 12)[0] / 9
    step = tf.function(lambda rows, labels: tape_centres(head, rows, labels))
    drawn = []
    for number in range(80):
        labels = labels_of_many(number)
        classes = np.flatnonzero(np.abs(step(rows, labels)).max(axis=(1, 2)))
        assert len(classes) == 20 and set(labels) <= set(classes)
        drawn.append(set(classes.tolist()) - set(labels.tolist()))
    counts = [sum(c in others for others in drawn) for c in range(MANY)]
    assert 8 <= min(counts) and max(counts) <= 38  # 80 times 15 others of 55: 22 each
    assert len({frozenset(others) for others in drawn}) == 80


def test_draws_hold_the_batch_among_very_many() -> None:
    labels = np.arange(0, 5000, 625)
    head = make("softmax", np.ones((5000, 1, 4), "float32"), sampled=8)
    for _ in range(5):
        assert np.isfinite(head(np.ones((8, 4), "float32"), labels, training=True)).all()


def tape_centres(head: heads.Head, rows: Any, labels: Any) -> Any:
    with tf.GradientTape() as tape:
        values = head(rows, labels, training=True)
    return tf.convert_to_tensor(tape.gradient(values, head.centres.value))


def test_draws_follow_the_seed_and_evaluation_draws_none() -> None:
    rows, labels = batch("random", 14)[0] / 9, labels_of_many(3)
    one, same, other = sampling_head(seed=1), sampling_head(seed=1), sampling_head(seed=2)
    first = [seen_classes(one, rows, labels) for _ in range(2)]
    again = [seen_classes(same, rows, labels)]
    everyone = sampling_head(sampled=None)(rows, labels)
    np.testing.assert_allclose(same(rows, labels), everyone, rtol=1e-6)
    np.testing.assert_allclose(same(rows, labels, training=False), everyone, rtol=1e-6)
    same.statistics(rows, labels)
    again.append(seen_classes(same, rows, labels))
    assert first == again and first[0] != first[1]
    assert seen_classes(other, rows, labels) != first[0]


def test_too_few_for_the_rows() -> None:
    rows, labels = batch("random", 15)[0], labels_of_many(4)
    head = sampling_head(sampled=7)
    message = r"`sampled` must be at least the number of rows, 8\. Received: sampled=7"
    with pytest.raises(ValueError, match=message):
        head(rows, labels, training=True)
    head(rows, labels)
    sampling_head(sampled=8)(rows, labels, training=True)


def test_too_few_for_rows_that_nobody_knew_shows_in_the_loss() -> None:
    head, rows = sampling_head(sampled=3), batch("random", 15)[0]
    signature = [tf.TensorSpec([None, 4]), tf.TensorSpec([None], tf.int64)]
    step = tf.function(lambda rows, labels: head(rows, labels, training=True), input_signature=signature)
    assert np.isnan(step(rows, np.arange(8))).sum() == 5


def test_class_accuracy_among_the_sampled_classes() -> None:
    rng = np.random.default_rng(0)
    labels, head = labels_of_many(6), sampling_head(sampled=8)
    centres = head.centres.numpy()
    rows = (centres[labels, 0] + rng.normal(size=(8, 4))).astype("float32")
    found = {float(head.statistics(rows, labels)["class_accuracy"]) for _ in range(5)}
    least, most = (
        np.mean(oracle.recognised("softmax", rows, labels, centres, c)) for c in (range(MANY), {*labels})
    )
    assert len(found) == 1 and least < found.pop() <= most
    correct = sampling_head(sampled=8).outcome(rows, labels, training=True)[1].numpy()
    seen = seen_classes(sampling_head(sampled=8), rows, labels)
    np.testing.assert_array_equal(correct, np.array(oracle.recognised("softmax", rows, labels, centres, seen)))


# ---- In a model ----------------------------------------------------------------------------------------------


def classifier(head: heads.Head) -> keras.Model:
    """Rows of 5 numbers and labels to the head's values."""
    rows, labels = keras.Input((5,)), keras.Input((), dtype="int32")
    return keras.Model([rows, labels], head(keras.layers.Dense(4)(rows), labels))


def people(seed: int, rows: int = 48) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n, 5) around the centres of ten people."""
    rng = np.random.default_rng(seed)
    labels = np.arange(rows) % 10
    return (rng.normal(size=(10, 5))[labels] + 0.1 * rng.normal(size=(rows, 5))).astype("float32"), labels


def fit(model: keras.Model, optimizer: Any, epochs: int = 8) -> list[float]:
    rows, labels = people(0)
    model.compile(optimizer, loss=lambda _, values: values)
    history = model.fit([rows, labels], 0 * labels, batch_size=12, epochs=epochs, shuffle=False, verbose=0)
    return history.history["loss"]


@every_head
def test_fit_lowers_the_loss_and_recognises(name: str) -> None:
    keras.utils.set_random_seed(0)
    head = heads.get(name, 10, subcentres=2)
    losses = fit(classifier(head), keras.optimizers.Adam(0.05), epochs=12)
    assert np.isfinite(losses).all() and losses[-1] < 0.5 * losses[0]


OPTIMIZERS: dict[str, Callable[[], Any]] = {
    "adamw": lambda: keras.optimizers.AdamW(0.05, global_clipnorm=5.0),
    "sgd": lambda: keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True, global_clipnorm=5.0),
    "adam": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.05, global_clipnorm=5.0)),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_fit_with_sampled_classes(optimizer: str) -> None:
    keras.utils.set_random_seed(0)
    losses = fit(classifier(heads.get("arcface", 40, sampled=13)), OPTIMIZERS[optimizer]())
    assert np.isfinite(losses).all() and losses[-1] < 0.9 * losses[0]


def test_clipping_counts_each_sampled_centre_once() -> None:
    rows, labels = batch("random", 16)[0] / 9, labels_of_many(5)
    head = sampling_head("cosface")
    before = head.centres.numpy()
    with tf.GradientTape() as tape:
        mean = tf.reduce_mean(head(rows, labels, training=True))
    gradient = tape.gradient(mean, head.centres.value)
    dense = tf.convert_to_tensor(gradient).numpy()
    keras.optimizers.SGD(1.0, global_clipnorm=0.5).apply([gradient], [head.centres])
    moved = head.centres.numpy() - before
    assert np.linalg.norm(moved) == pytest.approx(0.5, rel=1e-4)
    assert_near(-moved, 0.5 * dense / np.linalg.norm(dense), 1e-4)


def test_a_restored_run_draws_on(tmp_path: Path) -> None:
    def trained(epochs: int) -> keras.Model:
        keras.utils.set_random_seed(0)
        model = classifier(heads.get("adaface", 40, sampled=13, seed=4))
        fit(model, keras.optimizers.Adam(0.05), epochs)
        return model

    model = trained(2)
    checkpoint.save_state(tmp_path / "state.npz", model, {})
    straight = model.fit(*training_data(), batch_size=12, epochs=2, shuffle=False, verbose=0).history["loss"]
    model = trained(1)
    checkpoint.restore_state(tmp_path / "state.npz", model)
    resumed = model.fit(*training_data(), batch_size=12, epochs=2, shuffle=False, verbose=0).history["loss"]
    assert resumed == straight


def training_data() -> tuple[list[np.ndarray], np.ndarray]:
    rows, labels = people(0)
    return [rows, labels], 0 * labels


def test_loads_in_a_fresh_process(tmp_path: Path) -> None:
    rows, labels = people(1)
    np.savez(tmp_path / "batch.npz", rows=rows, labels=labels)
    saved = {}
    for name in heads.HEADS:
        head = heads.get(name, 10, subcentres=2, sampled=9)
        model = classifier(head)
        head(100 * rows[:9, :4], labels[:9], training=True)  # moves AdaFace's averages
        model.save(tmp_path / f"{name}.keras")
        saved[name] = model([rows, labels]).numpy().tolist()
    script = (
        "import sys, json, keras, numpy, facekit.heads\n"
        "b = numpy.load(sys.argv[1])\n"
        "models = [keras.saving.load_model(p) for p in sys.argv[2:]]\n"
        "values = [m([b['rows'], b['labels']]).numpy().tolist() for m in models]\n"
        "sys.stdout.write(json.dumps([values, [m.layers[-1].get_config() for m in models]]))\n"
    )
    paths = [str(tmp_path / f"{name}.keras") for name in heads.HEADS]
    command = [sys.executable, "-c", script, str(tmp_path / "batch.npz"), *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    values, configs = json.loads(done.stdout.splitlines()[-1])
    assert dict(zip(heads.HEADS, values, strict=True)) == saved
    assert all(c["subcentres"] == 2 and c["sampled"] == 9 and c["classes"] == 10 for c in configs)


@every_variant
def test_the_configuration_makes_an_equal_head(variant: str) -> None:
    name, options = VARIANTS[variant]
    rows, centres = batch("random", 17, options.get("subcentres", 1))
    head = heads.get(name, CLASSES, sampled=5, seed=9, name="face", **options)
    config = json.loads(json.dumps(head.get_config()))
    assert config.items() >= {**options, "classes": CLASSES, "sampled": 5, "seed": 9, "name": "face"}.items()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(head))
    for other in (type(head).from_config(config), again):
        assert type(other) is type(head) and other.get_config() == head.get_config()
        np.testing.assert_array_equal(other(rows, LABELS), head(rows, LABELS))


@every_head
def test_first_centres(name: str) -> None:
    centres = [heads.get(name, 200, subcentres=2, seed=seed) for seed in (0, 0, 1)]
    for head in centres:
        head.build((None, 32))
        assert [w.path.split("/")[-1] for w in head.trainable_weights] == ["centres"]
    first, same, other = (head.centres.numpy() for head in centres)
    assert first.shape == (200, 2, 32) and first.std() == pytest.approx(0.01, rel=0.05) and abs(first.mean()) < 1e-3
    assert (first == same).all() and (first != other).any()
