"""What every loss must do, whatever its formula."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def value_and_gradient(loss: keras.losses.Loss, labels: Any, rows: Any, run: str = "eager") -> tuple[float, Any]:
    """The loss and its gradient by the rows, run "eager", as a "graph", or compiled with "xla"."""

    def step(labels: Any, rows: Any) -> tuple[Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(rows)
            value = loss(labels, rows)
        return value, tape.gradient(value, rows)

    if run != "eager":
        step = tf.function(step, jit_compile=run == "xla")
    value, gradient = step(tf.constant(labels), tf.constant(rows))
    return float(value), np.asarray(gradient, "float64")


def check_loss_runs_everywhere(loss: keras.losses.Loss, labels: Any, rows: Any) -> None:
    """Eager = graph = XLA, in value and gradient."""
    value, gradient = value_and_gradient(loss, labels, rows)
    for run in ("graph", "xla"):
        other, other_gradient = value_and_gradient(loss, labels, rows, run)
        np.testing.assert_allclose(other, value, rtol=2e-5, err_msg=run)
        np.testing.assert_allclose(other_gradient, gradient, atol=1e-4 * np.abs(gradient).max(), err_msg=run)


def check_loss_config(loss: keras.losses.Loss, labels: Any, rows: Any) -> None:
    """The configuration, as JSON too, makes an equal loss."""
    restored = type(loss).from_config(loss.get_config())
    assert restored.get_config() == loss.get_config()
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert type(again) is type(loss) and again.get_config() == loss.get_config()
    assert float(again(labels, rows)) == float(loss(labels, rows))


def check_loss_is_per_anchor(loss: keras.losses.Loss, labels: Any, rows: Any) -> None:
    """`call` gives a float32 vector of one value per anchor, whose mean is the loss."""
    values = loss.call(tf.constant(labels), tf.constant(rows))
    assert values.shape == (len(labels),) and values.dtype == tf.float32
    np.testing.assert_allclose(float(loss(labels, rows)), np.mean(values), rtol=1e-5)


def check_loss_is_finite(loss: keras.losses.Loss, labels: Any, rows: Any) -> tuple[float, np.ndarray]:
    """Value and gradient are finite, and are returned."""
    value, gradient = value_and_gradient(loss, labels, rows)
    assert np.isfinite(value) and value >= 0
    assert np.isfinite(gradient).all()
    return value, gradient


def check_loss_keeps_to_pairs(loss: keras.losses.Loss, labels: Any, rows: Any) -> None:
    """No tensor of the step, gradient included, is larger than a few (rows, rows) matrices."""
    many = int(np.size(labels))

    @tf.function
    def step(labels: Any, rows: Any) -> Any:
        return tf.gradients(loss(labels, rows), rows)

    graph = step.get_concrete_function(tf.constant(labels), tf.constant(rows)).graph
    assert not any("While" in op.type for op in graph.get_operations())
    shapes = [tensor.shape for op in graph.get_operations() for tensor in op.outputs]
    known = [shape.num_elements() for shape in shapes if shape.is_fully_defined()]
    assert max(known) <= 4 * many**2


def tiny_model(size: int, form: str) -> keras.Model:
    """Rows of 6 numbers to embeddings, one by one ("flat") or tuplet by tuplet ("tuplet")."""
    return keras.Sequential([keras.Input((6,) if form == "flat" else (None, 6)), keras.layers.Dense(size)])


def check_loss_fits(loss: keras.losses.Loss, labels: Any, rows: Any) -> None:
    """A few steps of `fit` lower the loss."""
    keras.utils.set_random_seed(0)
    model = tiny_model(4, "flat" if np.ndim(labels) == 1 else "tuplet")
    model.compile(keras.optimizers.Adam(0.05), loss)
    history = model.fit(rows, labels, batch_size=len(labels), epochs=10, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert history.history["loss"][-1] < history.history["loss"][0]


def save_with_loss(loss: keras.losses.Loss, labels: Any, rows: Any, path: Path) -> float:
    """Save a compiled model; returns what `evaluate` says, for a fresh process to repeat."""
    model = tiny_model(4, "flat" if np.ndim(labels) == 1 else "tuplet")
    model.compile("sgd", loss)
    value = model.evaluate(rows, labels, batch_size=len(labels), verbose=0)
    model.save(path)
    return float(value)
