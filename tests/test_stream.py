"""Training streams: batches that depend on seed and step alone, and an honest account of waiting."""

from __future__ import annotations

import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from facekit.images import read_square
from facekit.index import index_people
from facekit.loading import PictureLoader
from facekit.sampling import PeopleSampler, TupletSampler
from facekit.stream import Waiting, WaitMeter, batches


class Shifts:
    """Adds to each picture a number drawn from seed, step and place."""

    def plan(self, seed, step, count):
        return Shift(np.random.default_rng([seed, step]).integers(1, 50, count).tolist())


class Shift:
    def __init__(self, numbers):
        self.numbers = numbers

    def apply(self, place, image):
        return image + np.uint8(self.numbers[place])


@pytest.fixture(scope="module")
def index(crops):
    return index_people(crops)


def collected(stream):
    return [(images.numpy(), labels.numpy()) for images, labels in stream]


def test_a_stream_gives_the_pictures_of_its_labels_changed_by_their_place(index):
    sampler, seed = TupletSampler(index.labels, 3, 2, seed=0), 5
    stream = batches(sampler, PictureLoader(index, 32), index.labels, range(4, 6), Shifts(), seed)
    assert stream.element_spec == (
        tf.TensorSpec((3, 4, 32, 32, 3), tf.uint8),
        tf.TensorSpec((3, 4), tf.int32),
    )
    for step, (images, labels) in zip((4, 5), collected(stream), strict=True):
        positions = sampler.batch(step)
        np.testing.assert_array_equal(labels, index.labels[positions])
        plan = Shifts().plan(seed, step, positions.size)
        for place, position in enumerate(positions.ravel()):
            expected = plan.apply(place, read_square(index.root / index.paths[position], 32))
            np.testing.assert_array_equal(images.reshape(-1, 32, 32, 3)[place], expected)


@pytest.mark.parametrize("threads", [1, 4])
def test_a_stream_can_start_anywhere_with_any_number_of_threads(index, threads):
    sampler = PeopleSampler(index.labels, 8, 2, seed=3)
    whole = collected(batches(sampler, PictureLoader(index, 32, 2), index.labels, range(12), Shifts(), 7))
    late = collected(batches(sampler, PictureLoader(index, 32, threads), index.labels, range(9, 12), Shifts(), 7))
    assert len(whole) == 12 and len(late) == 3 and whole[0][0].shape == (8, 32, 32, 3)
    for (images, labels), (same_images, same_labels) in zip(whole[9:], late, strict=True):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)
    other = collected(batches(sampler, PictureLoader(index, 32), index.labels, range(1), Shifts(), 8))
    assert (other[0][0] != whole[0][0]).any() and (other[0][1] == whole[0][1]).all()


def test_neighbours_are_asked_for_by_step(index):
    sampler, asked = TupletSampler(index.labels, 3, 2, seed=0), []
    near = np.roll(np.arange(16), -1).astype(np.int32)[:, None]

    def neighbours(step):
        asked.append(step)
        return near

    stream = batches(sampler, PictureLoader(index, 16), index.labels, range(4, 8), neighbours=neighbours)
    for step, (_, labels) in zip(range(4, 8), collected(stream), strict=True):
        np.testing.assert_array_equal(labels, index.labels[sampler.batch(step, near)])
    assert sorted(asked) == [4, 5, 6, 7]


def test_batches_keep_their_content_while_later_ones_are_made(index):
    """Memory of batches is used again: not while somebody still has the batch."""
    sampler = TupletSampler(index.labels, 3, 2, seed=0)
    stream = batches(sampler, PictureLoader(index, 32), index.labels, range(30))
    held = list(stream)
    for step, (images, _) in enumerate(held):
        expected = PictureLoader(index, 32, 1).load(sampler.batch(step))
        np.testing.assert_array_equal(images.numpy(), expected)


def slow_source(seconds: float, count: int, ahead: int = 2) -> tf.data.Dataset:
    def wait(number):
        time.sleep(seconds)
        return number

    def step(number):
        return tf.ensure_shape(tf.numpy_function(wait, [number], tf.int64), ())

    return tf.data.Dataset.range(count).map(step, num_parallel_calls=1).prefetch(ahead)


@pytest.mark.parametrize(("source", "consumer"), [(0.04, 0.0), (0.04, 0.02), (0.005, 0.04)])
def test_waiting_is_what_a_clock_around_the_consumer_says(source, consumer):
    meter, clock, got = WaitMeter(), 0.0, []
    elements = iter(meter.watch(slow_source(source, 25)))
    next(elements)  # the first one waits for the pipeline to start
    before, began = meter.seconds, time.perf_counter()
    for _ in range(20):
        asked = time.perf_counter()
        got.append(int(next(elements)))
        clock += time.perf_counter() - asked
        time.sleep(consumer)
    total = time.perf_counter() - began
    measured = meter.seconds - before
    assert got == list(range(1, 21))
    assert abs(measured - clock) < 0.1 * total
    if consumer > source:
        assert measured < 0.3 * total
    if not consumer:
        assert measured > 0.7 * total


def test_the_meter_changes_no_element_and_ends_with_the_stream(index):
    sampler = TupletSampler(index.labels, 3, 2, seed=0)
    stream = batches(sampler, PictureLoader(index, 32), index.labels, range(5))
    measured = WaitMeter().watch(stream)
    assert measured.element_spec == stream.element_spec
    for (images, labels), (same_images, same_labels) in zip(collected(stream), collected(measured), strict=True):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)


@pytest.mark.parametrize(("source", "training", "least", "most"), [(0.05, 0.0, 0.6, 1.0), (0.0, 0.05, 0.0, 0.3)])
def test_fit_logs_the_share_of_an_epoch_that_was_waiting(source, training, least, most):
    class Slow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            time.sleep(training)

    class Keep(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            shares.append(logs["waiting"])

    shares, meter = [], WaitMeter()
    stream = slow_source(source, 30).map(lambda number: (tf.cast([[number]], tf.float32), [[0.0]]))
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    callbacks = [Waiting(meter), Slow(), Keep()]
    model.fit(meter.watch(stream), epochs=3, steps_per_epoch=10, verbose=0, callbacks=callbacks)
    assert len(shares) == 3
    assert least < np.median(shares[1:]) <= most
