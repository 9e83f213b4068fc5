"""Batches as a `tf.data` stream, and how long the training waits for them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from facekit.loading import PictureLoader, Plan
from facekit.sampling import Neighbours, Sampler

# Batches that are made at the same time: while the last pictures of one are decoded, threads go on with the next.
AT_ONCE = 2
# Batches read before they are needed. Hard-identity batches lean on it being well below `hard_identity_steps`.
READ_AHEAD = 4


class Augmentation(Protocol):
    """Draws what happens to the pictures of a batch; see `facekit.augment`."""

    def plan(self, seed: int, step: int, count: int) -> Plan:
        """What happens to each of `count` pictures: a pure function of seed and step."""
        ...


def batches(
    sampler: Sampler,
    loader: PictureLoader,
    labels: NDArray[np.int64],
    steps: range,
    augmentation: Augmentation | None = None,
    seed: int = 0,
    neighbours: Callable[[int], Neighbours | None] = lambda step: None,
) -> tf.data.Dataset:
    """A stream of the batches of these steps.

    Args:
        sampler: says which pictures make a batch.
        loader: reads them.
        labels: (n,) the person of each picture of the loader's index.
        steps: numbers of the batches.
        augmentation: changes the pictures; None: they stay.
        seed: seed of the augmentation.
        neighbours: of a batch's number, the people who look like each person; see `facekit.identities.Snapshots`.

    Returns:
        A dataset of `(images, labels)`: uint8 of shape S + (size, size, 3) and int32 of shape S, where S is the
        shape of the sampler's batches. Batch t is the same whatever the first step and the number of threads.
    """
    shape = sampler.batch(steps.start).shape

    def make(step: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        number = int(step)
        positions = sampler.batch(number, neighbours(number))
        plan = augmentation.plan(seed, number, positions.size) if augmentation else None
        # A picture that cannot be read may have somebody else stand in for it: labels are of what is shown.
        images, shown = loader.read(positions, plan)
        return images, labels[shown].astype(np.int32)

    def load(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, people = tf.numpy_function(make, [step], [tf.uint8, tf.int32])
        return tf.ensure_shape(images, (*shape, loader.size, loader.size, 3)), tf.ensure_shape(people, shape)

    stream = tf.data.Dataset.range(steps.start, steps.stop, steps.step)
    stream = stream.map(load, num_parallel_calls=AT_ONCE, deterministic=True)
    return stream.prefetch(READ_AHEAD)


class WaitMeter:
    """Adds up how long the consumer of a stream waits for its elements.

    Attributes:
        seconds: waited so far.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    def watch(self, stream: tf.data.Dataset) -> tf.data.Dataset:
        """The same stream, measured. Has to be the last step: what comes after it would be measured instead.

        A clock zipped before the stream is read when the consumer asks; a map after both, when the element has
        come. Neither is parallel or prefetched, and `tf.data` is told not to make them so. Costs 0.1 ms a batch.
        Under a distribution strategy the consumer is the strategy's own prefetching, not the training step.
        """
        clock = tf.data.Dataset.counter().map(lambda _: tf.timestamp())

        def stop(asked: tf.Tensor, element: Any) -> Any:
            with tf.control_dependencies([tf.numpy_function(self._add, [tf.timestamp() - asked], [])]):
                return tf.nest.map_structure(tf.identity, element)

        measured = tf.data.Dataset.zip((clock, stream)).map(stop)
        options = tf.data.Options()
        options.experimental_optimization.inject_prefetch = False
        options.experimental_optimization.map_parallelization = False
        return measured.with_options(options)

    def _add(self, seconds: NDArray[np.float64]) -> None:
        self.seconds += float(seconds)


class Waiting(keras.callbacks.Callback):
    """Puts the share of an epoch's time in which training waited for its pictures into the logs, as `waiting`.

    Stands before callbacks that measure at an epoch's end, whose time is not training time.

    Args:
        meter: watches the training stream.
    """

    def __init__(self, meter: WaitMeter):
        super().__init__()
        self._meter = meter
        self._began, self._before = 0.0, 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Start the clock."""
        self._began, self._before = time.monotonic(), self._meter.seconds

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Log the share, 0 to 1."""
        if logs is not None:
            logs["waiting"] = (self._meter.seconds - self._before) / (time.monotonic() - self._began)
