"""Batches whose pictures are read and decoded on other hosts, by the `tf.data` service.

What is sent to a worker is a graph of TensorFlow's own operations: it reads files of a folder that all hosts see
under one path, and decodes JPEG or PNG files of the network's size, such as crop_faces.py writes. It knows no EXIF
rotation: photos as cameras write them are not for it. A batch that no worker could make (a bad file, another format
or size, a worker lost) is made here, from the same numbers. So the stream is the one of `facekit.stream.batches`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from facekit.index import PeopleIndex
from facekit.loading import PictureLoader
from facekit.sampling import Sampler
from facekit.stream import Augmentation

# Batches that may come before the one that is due, until that one is made here: more than are under way at a time.
PATIENCE = 16

Numbered = tuple[int, NDArray[np.uint8]]


def served_batches(
    address: str,
    sampler: Sampler,
    loader: PictureLoader,
    index: PeopleIndex,
    steps: range,
    augmentation: Augmentation | None = None,
    seed: int = 0,
) -> tf.data.Dataset:
    """The stream of `facekit.stream.batches`, decoded by a `tf.data` service; changed and put in order here.

    Which pictures make a batch is worked out for all steps at the start: people who look alike, who are found along
    the way, cannot be drawn together.

    Args:
        address: of the dispatcher, "host:port"; see `apps.input_service`.
        sampler: says which pictures make a batch.
        loader: makes the batches that the service does not.
        index: the pictures. Every host sees its root under this path.
        steps: numbers of the batches.
        augmentation: changes the pictures; None: they stay.
        seed: seed of the augmentation.

    Returns:
        A dataset of `(images, labels)` as in `facekit.stream.batches`, in the order of the steps.
    """
    positions = np.stack([sampler.batch(step) for step in steps])
    shape = positions.shape[1:]
    stream = _decoded(index, positions.reshape(len(steps), -1), steps, loader.size)
    policy = tf.data.experimental.service.ShardingPolicy.DYNAMIC
    stream = stream.apply(
        tf.data.experimental.service.distribute(processing_mode=policy, service=f"grpc://{address}")
    )

    made_here: dict[int, NDArray[np.int64]] = {}

    def make(step: int) -> NDArray[np.uint8]:
        images, made_here[step] = loader.read(positions[steps.index(step)].ravel())
        return images

    def generate() -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int32]]]:
        arriving = ((int(step), images) for step, images in stream.as_numpy_iterator())
        for row, (step, images) in enumerate(in_order(arriving, steps, make)):
            if augmentation is not None:
                images = loader.changed(images, augmentation.plan(seed, step, len(images)))
            shown = made_here.pop(step, positions[row]).reshape(shape)
            yield images.reshape(*shape, *images.shape[1:]), index.labels[shown].astype(np.int32)

    picture = (loader.size, loader.size, 3)
    signature = (tf.TensorSpec((*shape, *picture), tf.uint8), tf.TensorSpec(shape, tf.int32))
    return tf.data.Dataset.from_generator(generate, output_signature=signature).prefetch(2)


def in_order(
    arriving: Iterable[Numbered], steps: range, make: Callable[[int], NDArray[np.uint8]], patience: int = PATIENCE
) -> Iterator[Numbered]:
    """Numbered batches in the order of the steps, each once.

    Args:
        arriving: batches in any order; some may be missing or come twice.
        steps: their numbers, as they are due.
        make: makes a batch that is missing: when `patience` later ones have come, or no more come.
        patience: see `make`.
    """
    early: dict[int, NDArray[np.uint8]] = {}
    source = iter(arriving)
    missing = object()
    for step in steps:
        while step not in early and len(early) < patience:
            item = next(source, missing)
            if not isinstance(item, tuple):
                break
            # What comes after it was made here is of no use any more.
            if steps.index(item[0]) >= steps.index(step):
                early[item[0]] = item[1]
        yield step, early.pop(step) if step in early else make(step)


def _decoded(index: PeopleIndex, positions: NDArray[np.int64], steps: range, size: int) -> tf.data.Dataset:
    """A dataset of (step, (n, size, size, 3) uint8) of TensorFlow's own operations; bad batches are left out."""
    numbers = tf.data.Dataset.from_tensor_slices((np.array(steps, np.int64), positions.astype(np.int32)))
    paths = tf.constant([f"{index.root.resolve()}/{path}" for path in index.paths])

    def read(path: tf.Tensor) -> tf.Tensor:
        # The accurate transform gives the pixels of `facekit.images.read_image`, bit for bit.
        data = tf.io.read_file(path)
        image = tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE")
        return tf.ensure_shape(image, (size, size, 3))

    def load(step: tf.Tensor, row: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return step, tf.map_fn(read, tf.gather(paths, row), fn_output_signature=tf.uint8)

    # One batch a core at a time: what is made early waits here, and is lost with its worker.
    stream = numbers.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=False)
    return stream.ignore_errors(log_warning=False)
