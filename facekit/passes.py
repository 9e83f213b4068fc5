"""Endless passes over people: who comes when, each pass in a new order, without counting from the start."""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from facekit.draws import ORDER, SPREAD, generator

Units = NDArray[np.int64]
Balance = Literal["people", "sqrt", "pictures"]
"""How often a person comes: everyone equally often; by the square root of their pictures; by their pictures."""


def frequencies(counts: NDArray[np.integer], balance: Balance) -> NDArray[np.float64] | None:
    """How often people with so many pictures come in a pass: (people,) float64; None: everyone once.

    Raises:
        ValueError: there is no such balance.
    """
    if balance == "people":
        return None
    if balance == "pictures":
        return counts.astype(np.float64)
    if balance == "sqrt":
        return np.sqrt(counts)
    raise ValueError(f'`balance` must be "people", "sqrt" or "pictures". Received: {balance!r}.')


class Passes:
    """Endless passes over n units, each pass a new order; unit number k is found without the ones before.

    Only the orders of the last two passes are kept: 8 bytes for each unit of a pass.

    Args:
        count: n.
        seed: seed of every order.
        times: (n,) float, how often each unit comes in a pass; None: once. A unit that should come 2.3 times comes
            2 or 3 times, so that the mean over passes is exact (systematic sampling).
    """

    def __init__(self, count: int, seed: int, times: NDArray[np.float64] | None = None):
        self._count, self._seed, self._times = count, seed, times
        self._length = count if times is None else max(1, round(times.sum()))
        # Two: a batch may straddle two passes.
        self._permutation = lru_cache(maxsize=2)(self._drawn_permutation)
        self._sequence = lru_cache(maxsize=2)(self._drawn_sequence)
        self._table = lru_cache(maxsize=2)(self._drawn_table)

    def take(self, start: int, number: int) -> Units:
        """Units number `start` to `start + number - 1`, counted over all passes."""
        turns, places = np.divmod(np.arange(start, start + number), self._length)
        units = np.empty(number, np.int64)
        for turn in range(int(turns[0]), int(turns[-1]) + 1):
            units[turns == turn] = self._sequence(turn)[places[turns == turn]]
        return units

    def take_apart(self, batch: int, number: int, further: int = 0) -> tuple[int, Units]:
        """Units of a batch that never straddles two passes, all different.

        A pass in which each unit comes once leaves its rest of less than `number` out. Where units come more often,
        none is in more than all batches of a pass: what it cannot take is shared out among the others.

        Args:
            batch: number of the batch, over all passes.
            number: units in it, at most n.
            further: units to add, from which a batch can be filled up; among all returned there are as many
                different ones, or n.

        Returns:
            The number of the pass, and the units, those of the batch first.
        """
        if self._times is None:
            turn, place = divmod(batch, self._count // number)
            places = place * number + np.arange(number + further)
            return turn, np.take(self._permutation(turn), places, mode="wrap")
        turn, place = divmod(batch, self._batches(number))
        more = np.take(self._permutation(turn), place * number + np.arange(further), mode="wrap")
        return turn, np.concatenate([self._table(turn, number)[place], more])

    def _batches(self, number: int) -> int:
        return max(1, round(self._length / number))

    def _drawn_permutation(self, turn: int) -> Units:
        return generator(self._seed, ORDER, turn).permutation(self._count)

    def _drawn_sequence(self, turn: int) -> Units:
        """The units of a pass in order, each as often as it comes."""
        if self._times is None:
            return self._permutation(turn)
        rng = generator(self._seed, SPREAD, turn)
        expected = self._times * (self._length / self._times.sum())
        return rng.permutation(_spread(expected, self._length, rng))

    def _drawn_table(self, turn: int, number: int) -> Units:
        """(batches, number): the batches of a pass, no unit twice in one."""
        assert self._times is not None
        rng, batches = generator(self._seed, SPREAD, turn), self._batches(number)
        chances = _chances(self._times, number)
        # Those in every batch come first: their ends are whole numbers, which rounding cannot move.
        full = chances == 1
        order = np.concatenate([np.flatnonzero(full), rng.permutation(np.flatnonzero(~full))])
        units = order[_spread(batches * chances[order], batches * number, rng)]
        # A unit's places lie side by side, at most as many as there are batches: dealt out round the batches like
        # cards, no two fall in one (McNaughton 1959, wrap-around rule).
        return rng.permutation(units.reshape(number, batches).T)


def _spread(expected: NDArray[np.float64], length: int, rng: np.random.Generator) -> Units:
    """(length,) units, sorted: each the whole number below or above `expected`, by chance right in the mean."""
    places = np.arange(length) + rng.random()
    return np.minimum(np.searchsorted(np.cumsum(expected), places, side="right"), len(expected) - 1)


def _chances(times: NDArray[np.float64], number: int) -> NDArray[np.float64]:
    """The chance of each unit to be in a batch of `number` different ones: by `times`, but never above 1."""
    chances, free = np.ones(len(times)), np.ones(len(times), bool)
    while True:
        left = number - np.count_nonzero(~free)
        chances[free] = left * times[free] / times[free].sum()
        over = free & (chances >= 1)
        if not over.any():
            return chances
        chances[over], free[over] = 1.0, False
