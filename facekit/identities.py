"""Hard identities: who looks like whom, from running centres of people's embeddings.

After Smirnov et al., "Doppelganger mining for face representation learning", ICCV Workshops 2017, who keep for each
person the most similar others and draw them into the same batch. They find them with the weights and the scores of
a classifier; here there need be none: a person's centre is a running mean of the person's embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from facekit.pairwise import Tensor, unit_rows

# Cosines held at once while neighbours are searched: about 100 MB with what sorts them.
BLOCK_CELLS = 1 << 22
NOBODY = -1
_NUMBER_BITS = 31
_PREFIX = "neighbours_"


@keras.saving.register_keras_serializable(package="tupletface")
class ClassCentres(keras.layers.Layer):
    """Running centres of people's unit rows.

    Not called: `update` writes, inside a training step or outside; `centres` and `seen` are read as weights. Build
    it first, `build((None, D))`. With several replicas the first one's centres count: give it the gathered batch.

    Args:
        people: how many people there are, at least 1.
        rate: weight of a batch's mean, in (0, 1]: the centre remembers about 1 / rate of a person's batches.
        **kwargs: `name`, as for every Keras layer.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, people: int, rate: float = 0.1, **kwargs: Any):
        super().__init__(**kwargs)
        if people < 1 or not 0 < rate <= 1:
            raise ValueError(f"`people` must be at least 1 and `rate` in (0, 1]. Received: {people=}, {rate=}")
        self.people = people
        self.rate = rate

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the weights for batches of this shape: (B, D), of which only D matters.

        Both are saved and not trained: `centres` (people, D) float32, unit rows, or 0 for people not seen yet;
        `seen` (people,), how many rows of each came so far. Its dtype is Keras' "int": TensorFlow's int32 variables
        are out of XLA's reach on a GPU.
        """
        self.centres = self._weight("centres", (self.people, input_shape[-1]), "float32")
        self.seen = self._weight("seen", (self.people,), "int")

    def _weight(self, name: str, shape: tuple[Any, ...], dtype: str) -> Any:
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer="zeros",
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    def update(self, rows: Tensor, labels: Tensor) -> None:
        """Move the centre of each person of a batch: to unit((1 - rate) centre + rate mean), first to unit(mean).

        Args:
            rows: (B, D) of any float dtype and any norms; the mean is that of the person's unit rows. Detached.
            labels: (B,) int, in [0, people).
        """
        rows, labels = ops.stop_gradient(unit_rows(rows)), ops.cast(labels, "int32")
        # A product, not a sum by segments: threads would add those up in any order, and a resumed run must find the
        # same last bits. All rows of a person write what the first of them found.
        same = ops.cast(ops.equal(labels[:, None], labels), "float32")
        first = ops.argmax(same, axis=1)
        counts = ops.sum(same, axis=1)
        means = ops.take(ops.matmul(same, rows) / counts[:, None], first, axis=0)

        centres, seen = ops.take(self.centres, labels, axis=0), ops.take(self.seen, labels, axis=0)
        # Someone new has a centre of 0: scaled to length 1 this is the mean alone.
        moved = unit_rows((1.0 - self.rate) * centres + self.rate * means)
        self.centres.assign(ops.scatter_update(self.centres, labels[:, None], moved))
        seen = seen + ops.cast(counts, seen.dtype)
        self.seen.assign(ops.scatter_update(self.seen, labels[:, None], seen))

    def get_config(self) -> dict[str, Any]:
        """The arguments, for saving."""
        return super().get_config() | {"people": self.people, "rate": self.rate}


def nearest_people(centres: NDArray[np.float32], seen: NDArray[np.bool_], count: int) -> NDArray[np.int32]:
    """Each person's nearest other people by cosine; about 100 MB, however many people there are.

    Args:
        centres: (C, D) float32, of any norms; a zero row is at cosine 0 from everyone.
        seen: (C,) bool: the others are nobody's neighbours and have none.
        count: how many neighbours, at least 1.

    Returns:
        (C, count) int32: people's numbers, nearest first, of equally near ones (to 1e-9) the lower number first; -1
        where there are fewer.
    """
    neighbours = np.full((len(centres), count), NOBODY, np.int32)
    people = np.flatnonzero(seen)
    number = min(count, len(people) - 1)
    if number < 1:
        return neighbours
    rows = centres[people].astype(np.float32, copy=False)
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    block = max(1, BLOCK_CELLS // len(people))
    for start in range(0, len(people), block):
        keys = _sort_keys(rows[start : start + block] @ rows.T)
        own = np.arange(start, start + len(keys))
        keys[own - start, own] = np.iinfo(np.int64).max
        keys.partition(number - 1, axis=1)
        nearest = np.sort(keys[:, :number], axis=1)
        neighbours[people[own], :number] = people[nearest & ((1 << _NUMBER_BITS) - 1)]
    return neighbours


def _sort_keys(cosines: NDArray[np.float32]) -> NDArray[np.int64]:
    """(Q, K) cosines to integers that sort by falling cosine, then by column, which is in their low bits.

    A partial sort of unique integers has one answer, where that of cosines leaves ties to chance.
    """
    keys = (cosines * np.float32(-(2.0**30))).astype(np.int64)  # fixed-point numbers
    keys <<= _NUMBER_BITS
    keys |= np.arange(cosines.shape[1])
    return keys


class Snapshots:
    """The neighbours that batches are drawn from: with them, batch t is a pure function of (seed, t, snapshots).

    Batches are read ahead of training, so a snapshot serves one interval late: number j (from 1), taken when
    j * every steps are finished, serves the batches t with (j + 1) * every <= t < (j + 2) * every. A reader may so
    be `every` batches ahead of training and still draw what it would draw just in time.

    One thread may take while others read: a new dict replaces the old one, which Python does in one step.

    Args:
        every: steps between snapshots, at least 1; more than the batches that are read ahead.
        count: neighbours of each person, at least 1.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, every: int, count: int = 16):
        if every < 1 or count < 1:
            raise ValueError(f"`every` and `count` must be at least 1. Received: {every=}, {count=}")
        self.every = every
        self.count = count
        self._taken: dict[int, NDArray[np.int32]] = {}

    def is_due(self, step: int) -> bool:
        """Whether a snapshot is to be taken when `step` steps are finished."""
        return step > 0 and step % self.every == 0

    def take(self, step: int, centres: NDArray[np.float32], seen: NDArray[np.bool_]) -> None:
        """Find everyone's neighbours and keep them, and the snapshot before, which still serves.

        Args:
            step: how many steps are finished.
            centres: (C, D) float32, as `ClassCentres` keeps them.
            seen: (C,) bool, who has a centre.

        Raises:
            ValueError: no snapshot is due at this step.
        """
        if not self.is_due(step):
            raise ValueError(f"A snapshot is due every {self.every} steps, from then on; not after {step}.")
        number = step // self.every
        kept = {before: taken for before, taken in self._taken.items() if before == number - 1}
        self._taken = kept | {number: nearest_people(centres, seen, self.count)}

    def at(self, step: int) -> NDArray[np.int32] | None:
        """The neighbours for batch `step`: (C, count) int32 as `nearest_people` gives them; None at first.

        Raises:
            RuntimeError: they were not taken yet, or are gone.
        """
        number = step // self.every - 1
        if number < 1:
            return None
        neighbours = self._taken.get(number)
        if neighbours is None:
            raise RuntimeError(
                f"Batch {step} is drawn from the snapshot after {number * self.every} steps, which is not here. "
                f"Take one every {self.every} steps, and read at most as many batches ahead of training."
            )
        return neighbours

    def arrays(self) -> dict[str, NDArray[np.int32]]:
        """The snapshots that can still be needed, by name, for a checkpoint."""
        return {f"{_PREFIX}{number}": neighbours for number, neighbours in self._taken.items()}

    def restore(self, arrays: Mapping[str, NDArray[np.int32]]) -> None:
        """Go on from what `arrays` gave."""
        self._taken = {int(name.removeprefix(_PREFIX)): neighbours for name, neighbours in arrays.items()}
