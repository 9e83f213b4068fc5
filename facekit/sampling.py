"""Which pictures make batch t: pure functions of (seed, t), so that a stopped run goes on exactly where it was.

Batches of people who look alike are pure functions of (seed, t, neighbours). Neighbours come from
`facekit.identities`: (people, M) int32, row p the numbers of other people, all different, the nearest to person p
first, -1 where there are fewer. A person's number is the place among the sorted labels: the label itself where
labels are 0 to people - 1.

Everything here is NumPy on picture positions and labels; nothing reads a file.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from facekit.draws import PAIRS, PICTURES, SINGLES, SPLIT, People, Positions, generator
from facekit.pair_numbers import first_of_each, pair_count, pair_of
from facekit.passes import Balance, Passes, frequencies

Neighbours = NDArray[np.int32]

# People of a batch who come together because they look alike, where neighbours are known. Three impostors near each
# anchor are hard enough; more would leave a batch few groups, so little of the variety that easier pairs bring.
GROUP = 4


class Sampler(Protocol):
    """Draws the pictures of a batch."""

    def batch(self, step: int, neighbours: Neighbours | None = None) -> Positions:
        """Positions of the pictures of batch `step`, in the batch's shape; of people who look alike, if known.

        Raises:
            ValueError: the neighbours are of more or fewer people than the sampler's.
        """
        ...


class TupletSampler:
    """Anchor, positive, and negatives of other people.

    The anchors' people are all those with two pictures or more. Each is anchor once a pass, in a new order every
    pass; with another balance as often as they have pictures, or the square root of that.
    Negatives are drawn by person first, so that someone with 500 pictures is no more often an impostor than
    someone with one; people with a single picture are negatives only.

    With neighbours, half of a tuplet's negatives, and at least one, are of different neighbours of the anchor's
    person, drawn evenly; as many as there are. The others stay random: hard negatives alone can collapse a model.

    Args:
        labels: (n,) int, the person of each picture.
        batch_size: tuplets a batch.
        negatives: negatives a tuplet.
        seed: seed of every draw.
        balance: how often people are anchors: "people" alike, "pictures" by how many they have, "sqrt" between.
        weights: (n,) float in (0, 1], how often each picture is drawn among its person's; None: alike.

    Raises:
        ValueError: fewer than two people, none with two pictures, or wrong weights.
    """

    def __init__(
        self,
        labels: NDArray[np.integer],
        batch_size: int,
        negatives: int,
        seed: int,
        balance: Balance = "people",
        weights: NDArray[np.floating] | None = None,
    ):
        self._people = People(labels, weights)
        _check_enough(self._people.counts)
        self._anchors = np.flatnonzero(self._people.counts >= 2)
        self._passes = Passes(len(self._anchors), seed, frequencies(self._people.counts[self._anchors], balance))
        self._batch_size, self._negatives, self._seed = batch_size, negatives, seed

    def batch(self, step: int, neighbours: Neighbours | None = None) -> Positions:
        """(batch_size, 2 + negatives) picture positions: column 0 anchors, 1 positives, the rest negatives.

        Those of neighbours come first among the negatives.

        Raises:
            ValueError: the neighbours are of more or fewer people than the sampler's.
        """
        rng = generator(self._seed, PICTURES, step)
        person = self._anchors[self._passes.take(step * self._batch_size, self._batch_size)]
        pair = self._people.draw_two(person, rng)
        others = rng.integers(len(self._people.counts) - 1, size=(self._batch_size, self._negatives))
        others += others >= person[:, None]  # skip the anchor's person
        if neighbours is not None:
            _check_of_all(neighbours, self._people)
            self._put_look_alikes(others, neighbours[person], person, rng)
        return np.concatenate([pair, self._people.draw(others, rng)], axis=1)

    def _put_look_alikes(
        self, others: NDArray[np.int64], near: Neighbours, person: NDArray[np.int64], rng: np.random.Generator
    ) -> None:
        """Replace the first half of each row of other people by neighbours of the row's person."""
        exists = (near >= 0) & (near != person[:, None])
        # A random order, in which those who do not exist are last.
        order = np.argsort(np.where(exists, rng.random(near.shape), 1.0), axis=1)[:, : max(1, self._negatives // 2)]
        first = others[:, : order.shape[1]]
        near, exists = (np.take_along_axis(values, order, axis=1) for values in (near, exists))
        first[exists] = near[exists]


class PeopleSampler:
    """P people times K pictures each: the batch of triplet training (Hermans et al. 2017, section 3).

    Everyone comes once a pass, in a new order every pass, never twice in a batch; with another balance as often as
    they have pictures, or the square root of that, but never more than once a batch. People with one picture come K
    of them together, as negatives. A person with fewer than K pictures gives some of them again.

    With neighbours, a batch is groups of 4 people (one of P, where P is less): a leader, and the leader's nearest
    neighbours who have two pictures or more and are not in the batch yet. Everyone leads as often as they would
    come otherwise, so that a pass takes 4 times the batches. Where a leader has too few neighbours, or 4 does not
    divide P, other people of the pass fill the batch.

    Args:
        labels: (n,) int, the person of each picture.
        batch_size: P times K.
        pictures_per_person: K.
        seed: seed of every draw.
        balance: how often people come: "people" alike, "pictures" by how many they have, "sqrt" between.
        weights: (n,) float in (0, 1], how often each picture is drawn among its person's; None: alike.

    Raises:
        ValueError: fewer than two people, none with two pictures, fewer than a batch takes, or wrong weights.
    """

    def __init__(
        self,
        labels: NDArray[np.integer],
        batch_size: int,
        pictures_per_person: int,
        seed: int,
        balance: Balance = "people",
        weights: NDArray[np.floating] | None = None,
    ):
        self._people = People(labels, weights)
        counts = self._people.counts
        _check_enough(counts)
        self._several, self._single = np.flatnonzero(counts >= 2), np.flatnonzero(counts == 1)
        self._k, self._p, self._seed = pictures_per_person, batch_size // pictures_per_person, seed
        units = _units(counts, self._k)
        if units < self._p:
            raise ValueError(
                f"`batch_size` {batch_size} takes {self._p} people of {self._k} pictures a batch; there are "
                f"{units}. Make `batch_size` smaller."
            )
        # K people of one picture each count as somebody with one picture.
        times = frequencies(
            np.append(counts[self._several], np.ones(units - len(self._several), np.int64)), balance
        )
        self._passes = Passes(units, seed, times)
        # In each pass another order, in which K after K come together.
        self._singles = lru_cache(maxsize=2)(lambda turn: generator(seed, SINGLES, turn).permutation(self._single))

    def batch(self, step: int, neighbours: Neighbours | None = None) -> Positions:
        """(P * K,) picture positions, each person's together, and each group's.

        Raises:
            ValueError: the neighbours are of more or fewer people than the sampler's.
        """
        rng = generator(self._seed, PICTURES, step)
        if neighbours is None:
            turn, drawn = self._passes.take_apart(step, self._p)
            units = drawn.tolist()
        else:
            _check_of_all(neighbours, self._people)
            turn, units = self._units_alike(step, neighbours)
        return np.concatenate([self._of_unit(unit, turn, rng) for unit in units])

    def _of_unit(self, unit: int, turn: int, rng: np.random.Generator) -> Positions:
        """K pictures of a person, or of K people of one picture."""
        if unit < len(self._several):
            return self._people.draw_several(int(self._several[unit]), self._k, rng)
        first = (unit - len(self._several)) * self._k
        return self._people.positions[self._people.starts[self._singles(turn)[first : first + self._k]]]

    def _units_alike(self, step: int, neighbours: Neighbours) -> tuple[int, list[int]]:
        """The pass, and the P units of a batch of groups: places in `_several`, or beyond it K single ones."""
        group = min(GROUP, self._p)
        number = self._p // group
        turn, drawn = self._passes.take_apart(step, number, self._p)
        leaders, window = drawn[:number].tolist(), drawn[number:].tolist()
        units: list[int] = []
        used = set(leaders)
        for leader in leaders:
            units.append(leader)
            if leader < len(self._several):
                fresh = [unit for unit in self._units_near(leader, neighbours) if unit not in used][: group - 1]
                units += fresh
                used.update(fresh)
        return turn, (units + [unit for unit in window if unit not in used])[: self._p]

    def _units_near(self, unit: int, neighbours: Neighbours) -> list[int]:
        """Units of a person's neighbours who have two pictures or more, nearest first."""
        near = neighbours[self._several[unit]]
        near = near[near >= 0]
        return np.searchsorted(self._several, near[self._people.counts[near] >= 2]).tolist()


def people_a_batch(counts: NDArray[np.integer], batch_size: int, pictures_per_person: int) -> int:
    """How many people the batches of `PeopleSampler` can hold: P, or fewer where there are fewer.

    Args:
        counts: (people,) pictures of each.
        batch_size: P times K.
        pictures_per_person: K; so many people of one picture count as one.
    """
    return min(batch_size // pictures_per_person, _units(counts, pictures_per_person))


def _units(counts: NDArray[np.integer], pictures_per_person: int) -> int:
    """People of several pictures, and groups of those of one."""
    several = int(np.count_nonzero(counts >= 2))
    return several + (len(counts) - several) // pictures_per_person


def _check_of_all(neighbours: Neighbours, people: People) -> None:
    if len(neighbours) != len(people.counts):
        raise ValueError(f"`neighbours` are of {len(neighbours)} people; there are {len(people.counts)}.")


def _check_enough(counts: NDArray[np.int64]) -> None:
    if len(counts) < 2:
        raise ValueError(f"Training needs pictures of at least 2 people; found {len(counts)}.")
    if not (counts >= 2).any():
        raise ValueError(
            f"All {len(counts)} people have a single picture: someone needs 2 to give a positive pair."
        )


def split_people(counts: NDArray[np.integer], share: float, seed: int) -> NDArray[np.bool_]:
    """Choose whole people to hold out.

    People with one picture and people with several are split alike, so that both sides get genuine pairs.

    Args:
        counts: (people,) pictures of each.
        share: share of people to hold out, in (0, 1); at least one of those with several pictures, where two are.
        seed: seed of the draw.

    Returns:
        (people,) bool, True where held out.
    """
    held = np.zeros(len(counts), bool)
    for stratum, group in enumerate((np.flatnonzero(counts >= 2), np.flatnonzero(counts < 2))):
        number = round(share * len(group))
        if stratum == 0 and len(group) >= 2:
            number = min(max(number, 1), len(group) - 1)
        held[generator(seed, SPLIT, stratum).permutation(group)[:number]] = True
    return held


def verification_pairs(
    labels: NDArray[np.integer], count: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Draw pairs to verify on: half genuine, half impostor, no pair twice.

    Genuine pairs go round the people, one pair each a round, so that nobody with many pictures dominates;
    impostor pairs join two people drawn at random. Where the people give fewer than count / 2 genuine pairs,
    both halves shrink to that.

    Args:
        labels: (n,) int, the person of each picture.
        count: pairs wanted.
        seed: seed of the draw.

    Returns:
        (m, 2) int64 positions of the pictures, and (m,) bool, True for genuine; genuine first.

    Raises:
        ValueError: no genuine or no impostor pair exists.
    """
    people = People(labels)
    _check_enough(people.counts)
    rng = generator(seed, PAIRS)
    genuine = _genuine_pairs(people, count // 2, rng)
    impostor = _impostor_pairs(people, len(genuine), rng)
    same = np.repeat([True, False], [len(genuine), len(impostor)])
    return np.concatenate([genuine, impostor]), same


def _genuine_pairs(people: People, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    order = rng.permutation(np.flatnonzero(people.counts >= 2))
    possible = pair_count(people.counts[order])
    given = _in_rounds(possible, wanted)
    numbers = [
        rng.choice(pairs, number, replace=False)
        for pairs, number in zip(possible.tolist(), given.tolist(), strict=True)
        if number
    ]
    first, second = pair_of(np.concatenate([np.empty(0, np.int64), *numbers]))
    starts = np.repeat(people.starts[order], given)
    turn = np.arange(given.sum()) - np.repeat(np.cumsum(given) - given, given)
    return people.positions[starts[:, None] + np.stack([first, second], axis=1)][np.argsort(turn, kind="stable")]


def _in_rounds(possible: NDArray[np.int64], wanted: int) -> NDArray[np.int64]:
    """How many each gives, going round in this order as long as they have any, until `wanted` are there."""
    rounds, too_many = 0, int(possible.max()) + 1
    while too_many - rounds > 1:
        middle = (rounds + too_many) // 2
        rounds, too_many = (middle, too_many) if np.minimum(possible, middle).sum() <= wanted else (rounds, middle)
    given = np.minimum(possible, rounds)
    given[np.flatnonzero(possible > rounds)[: wanted - given.sum()]] += 1
    return given


def _impostor_pairs(people: People, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    total = len(people.positions)
    possible = (total * total - int((people.counts**2).sum())) // 2
    chosen = np.empty(0, np.int64)
    while len(chosen) < min(wanted, possible):
        first = rng.integers(len(people.counts), size=wanted)
        second = rng.integers(len(people.counts) - 1, size=wanted)
        second += second >= first
        drawn = np.sort(np.stack([people.draw(first, rng), people.draw(second, rng)], axis=1), axis=1)
        chosen = first_of_each(np.concatenate([chosen, drawn[:, 0] * total + drawn[:, 1]]))
    return np.stack(np.divmod(chosen[:wanted], total), axis=1)
