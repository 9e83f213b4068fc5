"""Pictures of an index, decoded in threads: what a batch is made of."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from facekit.images import Image, UnreadableImageError, read_square
from facekit.index import PeopleIndex


class PictureLoader:
    """Reads pictures by their position in an index, in threads, each picture of a batch once.

    A file that cannot be decoded is replaced by the next readable picture of the same person, so that a bad file
    never ends a long run and never makes a wrong label; it is remembered in `failures`.

    Args:
        index: the pictures.
        size: side of the result in pixels.
        threads: threads that decode; OpenCV lets go of Python's lock.
    """

    def __init__(self, index: PeopleIndex, size: int, threads: int = 4):
        self._index, self._size = index, size
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self.failures: dict[str, str] = {}
        self._hopeless: UnreadableImageError | None = None

    @contextmanager
    def errors_named(self) -> Iterator[None]:
        """Around work that reads through `tf.data`, which buries an error of ours under its own: give ours back.

        Raises:
            UnreadableImageError: a person has no readable picture at all.
        """
        try:
            yield
        except Exception:
            if self._hopeless is not None:
                raise self._hopeless from None
            raise

    def load(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Pictures at these positions.

        Args:
            positions: any shape of picture positions.

        Returns:
            positions.shape + (size, size, 3) uint8 RGB.

        Raises:
            UnreadableImageError: a person has no readable picture at all.
        """
        unique, inverse = np.unique(positions, return_inverse=True)
        images = np.stack(list(self._threads.map(self._read, unique)))
        return images[inverse.reshape(positions.shape)]

    def _read(self, position: np.int64) -> Image:
        for candidate in self._candidates(int(position)):
            path = self._index.paths[candidate]
            if path in self.failures:
                continue
            try:
                return read_square(self._index.root / path, self._size)
            except UnreadableImageError as error:
                self.failures[path] = str(error)
        person = self._index.people[self._index.labels[position]]
        self._hopeless = UnreadableImageError(
            f"{self._index.root / person}: none of its pictures can be read. Mend or remove the folder, or name it "
            "in the file of `exclude_people`."
        )
        raise self._hopeless

    def _candidates(self, position: int) -> Iterator[int]:
        """The position itself, then the person's other pictures in turn."""
        yield position
        own = np.flatnonzero(self._index.labels == self._index.labels[position])
        yield from np.roll(own, -int(np.searchsorted(own, position)))[1:].tolist()
