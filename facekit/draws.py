"""What samplers draw with: numbered random streams, and pictures of people, evenly or by weight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]

# Streams keep draws for different purposes independent under one seed.
ORDER, PICTURES, SPLIT, PAIRS, SINGLES, SPREAD = range(6)


def generator(seed: int, stream: int, step: int = 0) -> np.random.Generator:
    """A counter-based generator for one purpose at one step: O(1) to reach, equal on every machine."""
    return np.random.Generator(np.random.Philox(key=[(seed << 8) | stream, step]))


class People:
    """Pictures grouped by person: where each person's pictures are, how many, and how much each weighs.

    A person's number is the place of the label among the sorted labels.

    Args:
        labels: (n,) int, the person of each picture.
        weights: (n,) float in (0, 1], how often a picture is drawn among its person's; None: all alike.

    Raises:
        ValueError: the weights are not n numbers in (0, 1].
    """

    def __init__(self, labels: NDArray[np.integer], weights: NDArray[np.floating] | None = None):
        self.positions = np.argsort(labels, kind="stable").astype(np.int64)
        _, self.starts, self.counts = np.unique(labels[self.positions], return_index=True, return_counts=True)
        self._weights = None if weights is None else _checked(weights, len(labels))[self.positions]
        if self._weights is not None:
            # Of each picture the share of its person's weight that ends with it: the last one's is exactly 1.
            # Measured by the person's largest, or one running sum would swallow a person of tiny weights.
            largest = np.maximum.reduceat(self._weights, self.starts)
            self._weights = self._weights / np.repeat(largest, self.counts)
            ends = np.cumsum(self._weights)
            ends -= np.repeat(ends[self.starts] - self._weights[self.starts], self.counts)
            self._ends = ends / np.repeat(ends[self.starts + self.counts - 1], self.counts)
            # The numbers of people before them: one rising line, searched for all draws of a batch at once.
            self._line = self._ends + np.repeat(np.arange(len(self.counts)), self.counts)

    def draw(self, person: NDArray[np.int64], rng: np.random.Generator) -> Positions:
        """A random picture of each of these people: the positions, of the shape of `person`."""
        if self._weights is None:
            return self.positions[self.starts[person] + rng.integers(self.counts[person])]
        return self.positions[self._at(person, rng.random(person.shape))]

    def draw_two(self, person: NDArray[np.int64], rng: np.random.Generator) -> Positions:
        """Two different pictures of each of these people, who have two or more: (m,) to (m, 2) positions.

        By weight, the second is drawn by the weights of those that the first leaves.
        """
        start, count = self.starts[person], self.counts[person]
        if self._weights is None:
            one = rng.integers(count)
            other = (one + rng.integers(1, count)) % count
            return self.positions[start[:, None] + np.stack([one, other], axis=1)]
        first = self._at(person, rng.random(person.shape))
        begin = np.where(first == start, 0.0, self._ends[first - 1])
        share = self._ends[first] - begin
        # A place on the person's line with the first one's part cut out.
        place = rng.random(person.shape) * (1.0 - share)
        second = self._at(person, place + np.where(place >= begin, share, 0.0))
        # Rounding may hit the part cut out.
        second = np.where(second == first, start + (first - start + 1) % count, second)
        return self.positions[np.stack([first, second], axis=1)]

    def draw_several(self, person: int, number: int, rng: np.random.Generator) -> Positions:
        """(number,) pictures of a person, all different; where there are fewer, they come again.

        By weight, one after the other without putting back (Efraimidis and Spirakis 2006).
        """
        start, count = self.starts[person], self.counts[person]
        if self._weights is None:
            order = rng.permutation(count)
        else:
            order = np.argsort(rng.standard_exponential(count) / self._weights[start : start + count])
        return self.positions[start + np.resize(order, number)]

    def _at(self, person: NDArray[np.int64], share: NDArray[np.float64]) -> NDArray[np.int64]:
        """Where, among the sorted pictures, these shares in [0, 1) of the people's weights fall."""
        places = np.searchsorted(self._line, person + share, side="right")
        return np.minimum(places, self.starts[person] + self.counts[person] - 1)


def _checked(weights: NDArray[np.floating], count: int) -> NDArray[np.float64]:
    wrong = weights.shape != (count,)
    if wrong or not ((weights > 0) & (weights <= 1)).all():
        found = f"an array of shape {weights.shape}" if wrong else f"{weights.min():g} to {weights.max():g}"
        raise ValueError(f"`weights` must be {count} numbers in (0, 1], one a picture. Received: {found}.")
    return weights.astype(np.float64)
