"""What `apps.bench_input` compares: ways to turn files into batches, each an endless stream of pictures counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit.index import PeopleIndex
from facekit.sampling import Neighbours

Counts = Iterator[int]
"""Pictures of each batch (or of each pass of the bare decoder), as it is there."""

# Of the picture's range, of a full turn, and of the side: the project's defaults, said in Keras' terms.
BRIGHTNESS, CONTRAST, DEGREES, CUTOUT = 0.2, 0.2, 10.0, 0.3
FIVE = {
    "flip": (0.5, 1.0),
    "rotation": (0.5, DEGREES),
    "brightness": (0.5, BRIGHTNESS),
    "contrast": (0.5, CONTRAST),
    "cutout": (0.25, CUTOUT),
}


class ShuffledSampler:
    """Every picture once in a pass, in a new order each time, as Keras' utility draws them.

    Not tuplets as in training: they repeat some pictures, which are decoded once, and the comparison is by decoded
    pictures. What is left of a pass and fills no batch is passed over.

    Args:
        count: pictures there are.
        batch: pictures a batch, at most `count`.
    """

    def __init__(self, count: int, batch: int):
        self._count, self._batch = count, batch

    def batch(self, step: int, neighbours: Neighbours | None = None) -> NDArray[np.int64]:
        """Positions of the pictures of batch `step`, (batch,), all different."""
        turn, place = divmod(step, self._count // self._batch)
        return _order(self._count, turn)[place * self._batch : (place + 1) * self._batch]


# A pass has many batches.
@lru_cache(maxsize=2)
def _order(count: int, turn: int) -> NDArray[np.int64]:
    return np.random.default_rng([0, turn]).permutation(count)


@dataclass(frozen=True)
class Work:
    """The pictures of a comparison.

    Attributes:
        index: the pictures, in folders of people.
        packed: the same, packed.
        size: side of the network's input.
        batch: pictures a batch, at most those of the index.
        threads: threads that decode.
    """

    index: PeopleIndex
    packed: Path
    size: int
    batch: int
    threads: int

    def sampler(self) -> ShuffledSampler:
        """Draws the pictures of all our streams."""
        return ShuffledSampler(len(self.index), self.batch)

    def encoded(self, count: int) -> list[NDArray[np.uint8]]:
        """Bytes of as many pictures as our streams draw them: the bare decoder gets the same mixture."""
        sampler, found = self.sampler(), []
        for step in range(-(-count // self.batch)):
            for position in sampler.batch(step).ravel():
                found.append(np.fromfile(self.index.root / self.index.paths[position], np.uint8))
        return found[:count]


def bare_decoder(work: Work) -> Counts:
    """The limit: `cv2.imdecode` in a loop over bytes in memory, in a thread for each core."""
    import cv2

    data = work.encoded(2000)

    def decode(first: int) -> None:
        for place in range(first, len(data), work.threads):
            cv2.imdecode(data[place], cv2.IMREAD_COLOR)

    with ThreadPoolExecutor(work.threads) as pool:
        while True:
            list(pool.map(decode, range(work.threads)))
            yield len(data)


def ours(work: Work, kind: str) -> Counts:
    """Our stream: "files", "augmented", "cached", "packed" or "cached, augmented"."""
    from facekit.augment import Augmentation
    from facekit.loading import PictureLoader
    from facekit.packed import reader
    from facekit.picture_cache import MemoryCache
    from facekit.stream import batches

    read = reader(work.packed) if "packed" in kind else None
    cache = MemoryCache(len(work.index), work.size, 1e3) if "cached" in kind else None
    loader = PictureLoader(work.index, work.size, work.threads, read, cache)
    if cache is not None:
        loader.load(np.arange(len(work.index)))
    augmentation = Augmentation(FIVE) if "augmented" in kind else None
    stream = batches(work.sampler(), loader, work.index.labels, range(10**9), augmentation)
    return _counted(stream)


def keras_folder(work: Work, augmented: bool) -> Counts:
    """`keras.utils.image_dataset_from_directory`, with Keras' augmentation layers or without."""
    import keras
    import tensorflow as tf

    stream = keras.utils.image_dataset_from_directory(
        work.index.root,
        label_mode="int",
        batch_size=work.batch,
        image_size=(work.size, work.size),
        seed=0,
        verbose=False,
    ).repeat()
    if augmented:
        layers = keras.Sequential(
            [
                keras.layers.RandomFlip("horizontal"),
                keras.layers.RandomRotation(DEGREES / 360),
                keras.layers.RandomBrightness(BRIGHTNESS),
                keras.layers.RandomContrast(CONTRAST),
            ]
        )
        stream = stream.map(lambda x, y: (layers(x, training=True), y), num_parallel_calls=tf.data.AUTOTUNE)
    return _counted(stream.prefetch(tf.data.AUTOTUNE))


def plain_map(work: Work) -> Counts:
    """A plain `tf.data` map: read, decode, four stateless random changes of each picture, batch."""
    import tensorflow as tf

    files = [f"{work.index.root}/{path}" for path in work.index.paths]

    def load(number: Any, path: Any) -> Any:
        image = tf.io.decode_jpeg(tf.io.read_file(path), channels=3, dct_method="INTEGER_ACCURATE")
        image = tf.image.resize(image, (work.size, work.size))
        seed = tf.stack([tf.constant(0, tf.int64), number])
        image = tf.image.stateless_random_flip_left_right(image, seed)
        image = tf.image.stateless_random_brightness(image, 255 * BRIGHTNESS, seed)
        image = tf.image.stateless_random_contrast(image, 1 - CONTRAST, 1 + CONTRAST, seed)
        image = tf.image.stateless_random_saturation(image, 0.8, 1.2, seed)
        return tf.clip_by_value(image, 0, 255), number

    stream = tf.data.Dataset.from_tensor_slices(files).shuffle(len(files), seed=0).repeat().enumerate()
    stream = stream.map(load, num_parallel_calls=tf.data.AUTOTUNE).batch(work.batch)
    return _counted(stream.prefetch(tf.data.AUTOTUNE))


def _counted(stream: Any) -> Counts:
    for images, _ in stream:
        yield int(np.prod(images.shape[:-3]))


CONTENDERS: dict[str, Callable[[Work], Counts]] = {
    "cv2.imdecode alone": bare_decoder,
    "ours": lambda work: ours(work, "files"),
    "ours, packed": lambda work: ours(work, "packed"),
    "ours, cached": lambda work: ours(work, "cached"),
    "ours, 5 augmentations": lambda work: ours(work, "augmented"),
    "ours, cached, 5 augmentations": lambda work: ours(work, "cached, augmented"),
    "image_dataset_from_directory": lambda work: keras_folder(work, augmented=False),
    "image_dataset_from_directory, 4 Keras layers": lambda work: keras_folder(work, augmented=True),
    "tf.data map, 4 stateless augmentations": plain_map,
}
"""By name; the first one is the limit."""
