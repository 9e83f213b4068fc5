"""Pictures of an index, decoded in threads: what a batch is made of."""

from __future__ import annotations

import errno
import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import NoReturn, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from facekit.images import MOST_BYTES, Image, UnreadableImageError, decoded, resize_square
from facekit.index import PeopleIndex
from facekit.workers import cores

T = TypeVar("T")

Read = Callable[[str], bytes]
"""Gives the encoded bytes of a picture by its path in the index; OSError where it cannot."""

# A disk or server that does not answer may answer again: seconds to wait before each further try.
PAUSES = (0.1, 1.0)
PASSING = frozenset(
    getattr(errno, name)
    for name in ("EIO", "ESTALE", "EAGAIN", "EINTR", "EMFILE", "ENFILE", "EBUSY", "ETIMEDOUT", "ECONNRESET")
    if hasattr(errno, name)
)
# Pictures one after the other that a disk may fail to give before it is taken to be gone.
MOST_PASSING = 10

# Pieces of a batch for each thread: with one, all wait for the slowest; with many, handing them out costs.
PIECES = 4
# TensorFlow takes an array as it is, without a copy, where it begins at a multiple of this.
ALIGNMENT = 64


class NoAnswerError(UnreadableImageError):
    """A file that the disk or server does not give at present, which says nothing about the picture."""


class Plan(Protocol):
    """What is to happen to each picture of a batch."""

    def apply(self, place: int, image: Image) -> Image:
        """The changed picture of one place of the batch; `image` stays as it is. Safe in threads."""
        ...


class Cache(Protocol):
    """Keeps decoded pictures; see `facekit.picture_cache`."""

    def get(self, position: int) -> Image | None:
        """The picture of a position in the index, if it is kept. Not to be changed."""
        ...

    def put(self, position: int, image: Image) -> None:
        """Keep a picture."""
        ...


def read_below(root: Path, path: str) -> bytes:
    """The bytes of the file `root`/`path`. Raises OSError. Faster than `Path.read_bytes`."""
    # Not blocking: a pipe that took the place of a file gives nothing, instead of waiting for a writer for ever.
    descriptor = os.open(f"{root}/{path}", os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        size = os.fstat(descriptor).st_size
        if size > MOST_BYTES:
            raise OSError(errno.EFBIG, f"it is larger than {MOST_BYTES:,} bytes, too large for a picture")
        data = os.read(descriptor, size)
        # Some file systems give less than asked for at once.
        while 0 < len(data) < size and (more := os.read(descriptor, size - len(data))):
            data += more
    finally:
        os.close(descriptor)
    return data


def read_picture(read: Read, root: Path, path: str, size: int) -> Image:
    """A picture of an index as the network's input.

    Args:
        read: gives its bytes.
        root: where the index's paths start, for messages.
        path: the picture.
        size: side of the result in pixels.

    Returns:
        (size, size, 3) uint8 RGB.

    Raises:
        NoAnswerError: the disk or server does not give it, also after some waiting.
        UnreadableImageError: it cannot be read or decoded; names it.
    """
    name = f"{root}/{path}"
    return resize_square(decoded(_patiently(read, path, name), name), size)


def _patiently(read: Read, path: str, name: str) -> bytes:
    """The bytes of a picture, asked for again after an error that may pass."""
    for pause in (*PAUSES, None):
        try:
            return read(path)
        except OSError as error:
            if error.errno not in PASSING:
                raise UnreadableImageError(f"{name}: cannot be read ({error.strerror}).") from None
            if pause is None:
                raise NoAnswerError(f"{name}: cannot be read ({error.strerror}).") from None
        time.sleep(pause)
    raise AssertionError("The last pause is None.")


class PictureLoader:
    """Reads pictures by their position in an index, in threads, each picture of a batch once.

    A file that cannot be decoded is replaced by the next readable picture of the same person, or of the next person
    where nobody's is left, so that a bad file never ends a long run; `read` says which picture is shown, so that
    it never makes a wrong label. It is remembered in `failures`.

    Args:
        index: the pictures.
        size: side of the result in pixels.
        threads: threads that decode; 0: one a core. OpenCV lets go of Python's lock.
        read: where the bytes come from; None: files below the index's root.
        cache: keeps decoded pictures, so that each is decoded once a run; None: nothing is kept.

    Attributes:
        size: as given.
        failures: why a picture could not be read, by its path; without those that could be later on.
    """

    def __init__(
        self, index: PeopleIndex, size: int, threads: int = 0, read: Read | None = None, cache: Cache | None = None
    ):
        self._index, self.size, self._cache = index, size, cache
        self._read_bytes = read or partial(read_below, index.root)
        self._most = PIECES * (threads or cores())
        self._threads = ThreadPoolExecutor(threads or cores(), thread_name_prefix="decode")
        self._memory = _Memory()
        self.failures: dict[str, str] = {}
        self._lost: set[str] = set()
        self._hopeless: UnreadableImageError | None = None

    @contextmanager
    def errors_named(self) -> Iterator[None]:
        """Around work that reads through `tf.data`, which buries an error of ours under its own: give ours back.

        Raises:
            UnreadableImageError: as in `read`.
        """
        try:
            yield
        except Exception:
            if self._hopeless is not None:
                raise self._hopeless from None
            raise

    def load(self, positions: NDArray[np.int64], plan: Plan | None = None) -> NDArray[np.uint8]:
        """The first half of what `read` gives."""
        return self.read(positions, plan)[0]

    def read(
        self, positions: NDArray[np.int64], plan: Plan | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Pictures at these positions.

        Args:
            positions: any shape of picture positions.
            plan: changes the picture of each place, counted through the flattened positions; None: none does.

        Returns:
            positions.shape + (size, size, 3) uint8 RGB; and positions.shape int64, what is shown: the position
            itself or that of the picture that stands in.

        Raises:
            UnreadableImageError: more than half of all pictures cannot be read.
            NoAnswerError: the disk gives nothing any more.
        """
        shown = positions.astype(np.int64).ravel()
        batch = self._memory.take((positions.size, self.size, self.size, 3))
        unique, inverse = np.unique(positions, return_inverse=True)
        order = np.argsort(inverse.ravel(), kind="stable")
        places = np.split(order, np.cumsum(np.bincount(inverse.ravel()))[:-1]) if len(order) else []
        work = list(zip(unique.tolist(), [same.tolist() for same in places], strict=True))
        for _ in self._threads.map(partial(self._fill, batch, shown, plan), self._pieces(work)):
            pass
        return batch.reshape(*positions.shape, *batch.shape[1:]), shown.reshape(positions.shape)

    def changed(self, images: NDArray[np.uint8], plan: Plan) -> NDArray[np.uint8]:
        """Pictures that are there already, (n, size, size, 3) uint8, changed as a plan says; in threads."""
        batch = self._memory.take(images.shape)

        def change(places: Sequence[int]) -> None:
            for place in places:
                batch[place] = plan.apply(place, images[place])

        for _ in self._threads.map(change, self._pieces(range(len(images)))):
            pass
        return batch

    def _pieces(self, work: Sequence[T]) -> list[Sequence[T]]:
        each = max(1, -(-len(work) // self._most))
        return [work[start : start + each] for start in range(0, len(work), each)]

    def _fill(
        self,
        batch: NDArray[np.uint8],
        shown: NDArray[np.int64],
        plan: Plan | None,
        piece: Sequence[tuple[int, list[int]]],
    ) -> None:
        """Put pictures, each read once, into their places of the batch, and write down which ones they are."""
        for position, places in piece:
            found, image = self._picture(position)
            for place in places:
                batch[place] = image if plan is None else plan.apply(place, image)
                shown[place] = found

    def _picture(self, position: int) -> tuple[int, Image]:
        """The picture of a position, or the one that stands in for it, with its own position."""
        unanswered = 0
        for candidate in self._candidates(position):
            path = self._index.paths[candidate]
            if path in self._lost:
                continue
            try:
                image = self._read(candidate, path)
            except NoAnswerError as error:
                unanswered += 1
                self.failures[path] = str(error)
                if unanswered == MOST_PASSING:
                    self._give_up(
                        NoAnswerError(f"{error} So were {unanswered - 1} others: is the disk still there?")
                    )
            except UnreadableImageError as error:
                self._lose(path, str(error))
            else:
                self.failures.pop(path, None)
                return candidate, image
        self._give_up(UnreadableImageError(f"{self._index.root}: none of its pictures can be read."))

    def _lose(self, path: str, reason: str) -> None:
        """Never try a picture again; a folder that has lost most of its pictures is no folder to learn from."""
        self.failures[path] = reason
        self._lost.add(path)
        if 2 * len(self._lost) > len(self._index):
            lost = f"{len(self._lost):,} of {len(self._index):,}"
            self._give_up(
                UnreadableImageError(f"{self._index.root}: {lost} pictures cannot be read, the last one: {reason}")
            )

    def _give_up(self, error: UnreadableImageError) -> NoReturn:
        self._hopeless = error
        raise error

    def _read(self, position: int, path: str) -> Image:
        kept = self._cache.get(position) if self._cache else None
        if kept is not None:
            return kept
        image = read_picture(self._read_bytes, self._index.root, path, self.size)
        if self._cache:
            self._cache.put(position, image)
        return image

    def _candidates(self, position: int) -> Iterator[int]:
        """The position itself, the person's other pictures in turn, then those of the people who come next."""
        yield position
        by_person, people = self._by_person, len(self._index.people)
        first = int(self._index.labels[position])
        for label in range(first, first + people):
            start, end = np.searchsorted(self._index.labels, [label % people, label % people + 1], sorter=by_person)
            own = by_person[start:end]
            yield from (np.roll(own, -int(np.searchsorted(own, position)))[1:] if label == first else own).tolist()

    @cached_property
    def _by_person(self) -> NDArray[np.int64]:
        """Positions of all pictures, each person's together and in their order."""
        return np.argsort(self._index.labels, kind="stable")


class _Memory:
    """Memory of batches, used again once nobody holds it: new memory costs the kernel a pass of zeros over it."""

    def __init__(self) -> None:
        self._free: list[NDArray[np.uint8]] = []

    def take(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """An array of any content."""
        size = int(np.prod(shape))
        try:
            owner = self._free.pop()
        except IndexError:
            owner = np.empty(0, np.uint8)
        if len(owner) != size + ALIGNMENT:
            owner = np.empty(size + ALIGNMENT, np.uint8)
        # Every view of a view keeps the array that took its memory from a buffer: with it the last user has gone.
        array = np.frombuffer(owner.data, np.uint8, size, offset=-owner.ctypes.data % ALIGNMENT)
        weakref.finalize(array, self._free.append, owner).atexit = False
        return array.reshape(shape)
