"""The Keras model that `fit` trains: an embedding network around which tuplets are folded and unfolded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

Tensor = Any
Statistics = Callable[[Tensor, Tensor], dict[str, Tensor]]


class EmbeddingTrainer(keras.Model):
    """Trains `network` on pictures of any leading shape: (B, H, W, 3), or (B, 2 + N, H, W, 3) for tuplets.

    Save `network`, not this wrapper: it is the product.

    Args:
        network: (n, H, W, 3) pictures to (n, D) embeddings.
        whole_batch: True: the loss sees all pictures of the batch as one flat batch. False: tuplets as they are,
            each with its own negatives.
        statistics: from labels and embeddings (in the form that the loss sees) to named scalars, which `fit`
            averages over an epoch and puts into its logs.
        names: the names that `statistics` returns.
    """

    def __init__(self, network: keras.Model, whole_batch: bool, statistics: Statistics, names: tuple[str, ...]):
        super().__init__(name="trainer")
        self.network = network
        # Counted by the `StepCounter` callback: an optimizer's own count passes over steps that overflowed.
        self.steps_taken = 0
        self._whole_batch = whole_batch
        self._statistics = statistics
        self._averages = {name: keras.metrics.Mean(name=name) for name in names}

    def call(self, images: Tensor, training: bool = False) -> Tensor:
        """Embed pictures: (..., H, W, 3) to (..., D) float32 unit rows."""
        shape = ops.shape(images)
        embeddings = self.network(ops.reshape(images, (-1, *shape[-3:])), training=training)
        return ops.reshape(embeddings, (*shape[:-3], embeddings.shape[-1]))

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """The compiled loss on labels and embeddings in the form that `whole_batch` says."""
        labels, embeddings = self._form(y, y_pred)
        return super().compute_loss(x, labels, embeddings, sample_weight, training)

    def compute_metrics(
        self, x: Tensor, y: Tensor, y_pred: Tensor, sample_weight: Tensor = None
    ) -> dict[str, Tensor]:
        """Running averages of the statistics, and of the loss."""
        labels, embeddings = self._form(y, y_pred)
        for name, value in self._statistics(labels, embeddings).items():
            self._averages[name].update_state(value)
        return self.get_metrics_result()

    def _form(self, labels: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        if not self._whole_batch:
            return labels, embeddings
        return ops.reshape(labels, (-1,)), ops.reshape(embeddings, (-1, embeddings.shape[-1]))


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
