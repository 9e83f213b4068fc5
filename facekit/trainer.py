"""The Keras model that `fit` trains: an embedding network around which tuplets are folded and unfolded."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from facekit.objective import Objective

Tensor = Any


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
    """

    def __init__(self, network: keras.Model, objective: Objective):
        super().__init__(name="trainer")
        self.network = network
        self.objective = objective
        # Counted by the `StepCounter` callback: an optimizer's own count passes over steps that overflowed.
        self.steps_taken = 0
        # Heads want the rows before they lose their length, and every loss on pairs scales them itself.
        self._unscaled = keras.Model(network.input, network.layers[-1].input)
        self._averages = {name: keras.metrics.Mean(name=name) for name in objective.names}
        objective.build_for(int(network.output_shape[-1]))

    def call(self, images: Tensor, training: bool = False) -> Tensor:
        """Embed pictures: (..., H, W, 3) to (..., D) float32 rows, not yet scaled to length 1."""
        shape = ops.shape(images)
        rows = self._unscaled(ops.reshape(images, (-1, *shape[-3:])), training=training)
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
        for name, value in statistics.items():
            self._averages[name].update_state(value)
        return super().compute_loss(x, values, values, sample_weight, training)

    def compute_metrics(
        self, x: Tensor, y: Tensor, y_pred: Tensor, sample_weight: Tensor = None
    ) -> dict[str, Tensor]:
        """Running averages of the statistics, and of the loss."""
        return self.get_metrics_result()


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
