"""The Keras model that `fit` trains: an embedding network around which tuplets are folded and unfolded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from facekit.objective import Objective
from facekit.pairwise import unit_rows

Tensor = Any

FROM_START = "from_start"
"""Name of the statistic that says how far embeddings moved from the start's: mean of 1 - cosine, 0 to 2."""


@keras.saving.register_keras_serializable(package="tupletface")
class MeanOfValues(keras.losses.Loss):
    """The mean of values that an objective computed: how Keras scales a loss for its replicas and its precision."""

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The values, (B,) float32, as they are."""
        return y_pred


class EmbeddingTrainer(keras.Model):
    """Trains `network` on pictures of any leading shape: (B, H, W, 3), or (B, 2 + N, H, W, 3) for tuplets.

    Compile it with `MeanOfValues`. Save `network`, not this wrapper: it is the product.

    Args:
        network: (n, H, W, 3) pictures to (n, D) unit rows; its last layer is the one that scales them.
        objective: what to minimise; its figures go into the logs, averaged over an epoch.
        start: embeds (n, H, W, 3) pictures as the network did before training, to (n, D) unit rows; a function,
            so that its weights are no part of this model. None: no distillation.
        distill: what the mean distance from the start's embeddings, 1 - cosine, is multiplied by before it is added
            to the objective (embedding distillation; for faces e.g. ShrinkTeaNet, https://arxiv.org/abs/1905.10620).
        as_in_use: compute in training as in use: batch norm on the statistics that it has, no dropout. Scales and
            shifts alone can serve many tasks (Mudrakarta et al. 2019, https://arxiv.org/abs/1810.10703).
    """

    def __init__(
        self,
        network: keras.Model,
        objective: Objective,
        start: Callable[[Tensor], Tensor] | None = None,
        distill: float = 0.0,
        as_in_use: bool = False,
    ):
        super().__init__(name="trainer")
        self._start, self._distill, self._as_in_use = start, distill, as_in_use
        self.network = network
        self.objective = objective
        # Counted by the `StepCounter` callback: an optimizer's own count passes over steps that overflowed.
        self.steps_taken = 0
        # Heads want the rows before they lose their length, and every loss on pairs scales them itself.
        self._unscaled = keras.Model(network.input, network.layers[-1].input)
        names = (*objective.names, FROM_START) if start else objective.names
        self._averages = {name: keras.metrics.Mean(name=name) for name in names}
        objective.build_for(int(network.output_shape[-1]))

    def call(self, images: Tensor, training: bool = False) -> Tensor:
        """Embed pictures: (..., H, W, 3) to (..., D) float32 rows, not yet scaled to length 1."""
        shape = ops.shape(images)
        pictures = ops.reshape(images, (-1, *shape[-3:]))
        rows = self._unscaled(pictures, training=training and not self._as_in_use)
        return ops.reshape(rows, (*shape[:-3], rows.shape[-1]))

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """The objective's mean on labels `y` and rows `y_pred`; its figures are averaged along the way."""
        values, statistics = self.objective(y_pred, y, training=training)
        if self._start is not None:
            moved = _distance_from(self._start, x, y_pred)
            # An anchor's share of the rows: values keep their count, and with it their scale on replicas.
            values = values + self._distill * ops.mean(ops.reshape(moved, (ops.shape(values)[0], -1)), axis=1)
            statistics = statistics | {FROM_START: ops.mean(moved)}
        for name, value in statistics.items():
            self._averages[name].update_state(value)
        return super().compute_loss(x, values, values, sample_weight, training)

    def compute_metrics(
        self, x: Tensor, y: Tensor, y_pred: Tensor, sample_weight: Tensor = None
    ) -> dict[str, Tensor]:
        """Running averages of the statistics, and of the loss."""
        return self.get_metrics_result()


def _distance_from(start: Callable[[Tensor], Tensor], images: Tensor, rows: Tensor) -> Tensor:
    """1 - cosine of each row, (..., D), with the start's embedding of the same picture: (n,) float32."""
    pictures = ops.reshape(images, (-1, *ops.shape(images)[-3:]))
    before = ops.stop_gradient(start(pictures))
    now = unit_rows(ops.reshape(rows, (-1, rows.shape[-1])))
    return 1.0 - ops.sum(now * unit_rows(before), axis=-1)


class Embedder:
    """Embeds pictures with a network, compiled once: `model.predict` costs 100 ms a call, this under 10.

    Args:
        network: (n, S, S, 3) pictures to (n, D) embeddings.
        batch_size: pictures at once; bounds memory.
    """

    def __init__(self, network: keras.Model, batch_size: int = 64):
        import tensorflow as tf

        self._size = batch_size
        self._width = int(network.output_shape[-1])
        side = network.input_shape[1]
        signature = [tf.TensorSpec((None, side, side, 3), tf.uint8)]
        self._embed = tf.function(lambda images: network(images, training=False), input_signature=signature)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed (n, S, S, 3) uint8 RGB pictures: (n, D) float32 unit rows."""
        batches = [self._embed(images[start : start + self._size]) for start in range(0, len(images), self._size)]
        return np.concatenate(batches) if batches else np.empty((0, self._width), np.float32)


def pair_distances(
    embeddings: NDArray[np.floating], first: NDArray[np.integer], second: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Euclidean distance of unit rows, pair by pair, in [0, 2]: row first[i] against row second[i]."""
    rows = embeddings.astype(np.float64)
    return np.linalg.norm(rows[first] - rows[second], axis=1)
