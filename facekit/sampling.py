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

Positions = NDArray[np.int64]
Neighbours = NDArray[np.int32]

# Streams keep draws for different purposes independent under one seed.
_ORDER, _PICTURES, _SPLIT, _PAIRS = range(4)

# People of a batch who come together because they look alike, where neighbours are known. Three impostors near each
# anchor are hard enough; more would leave a batch few groups, so little of the variety that easier pairs bring.
GROUP = 4


def generator(seed: int, stream: int, step: int = 0) -> np.random.Generator:
    """A counter-based generator for one purpose at one step: O(1) to reach, equal on every machine."""
    return np.random.Generator(np.random.Philox(key=[(seed << 8) | stream, step]))


class Sampler(Protocol):
    """Draws the pictures of a batch."""

    def batch(self, step: int, neighbours: Neighbours | None = None) -> Positions:
        """Positions of the pictures of batch `step`, in the batch's shape; of people who look alike, if known.

        Raises:
            ValueError: the neighbours are of more or fewer people than the sampler's.
        """
        ...


class _Order:
    """Endless passes over n units, each pass a new order; unit number k is found without the ones before."""

    def __init__(self, count: int, seed: int):
        self._count = count
        # Two: a batch may straddle two passes.
        self._permutation = lru_cache(maxsize=2)(lambda turn: generator(seed, _ORDER, turn).permutation(count))

    def take_within(self, batch: int, number: int, width: int | None = None) -> Positions:
        """Units of a batch that never straddles two passes, so that none comes twice; each pass leaves its rest.

        With `width`, the batch's `number` units come first, then those after them in the pass, round its end.
        """
        turn, place = divmod(batch, self._count // number)
        return np.take(self._permutation(turn), place * number + np.arange(width or number), mode="wrap")

    def take(self, start: int, number: int) -> Positions:
        ks = np.arange(start, start + number)
        turns, places = np.divmod(ks, self._count)
        return np.array([self._permutation(int(t))[p] for t, p in zip(turns, places, strict=True)], np.int64)


class _People:
    """Pictures grouped by person: where each person's pictures are, and how many."""

    def __init__(self, labels: NDArray[np.integer]):
        self.positions = np.argsort(labels, kind="stable").astype(np.int64)
        _, self.starts, self.counts = np.unique(labels[self.positions], return_index=True, return_counts=True)

    def draw(self, person: NDArray[np.int64], rng: np.random.Generator) -> Positions:
        """A random picture of each of these people."""
        return self.positions[self.starts[person] + rng.integers(self.counts[person])]

    def check(self, neighbours: Neighbours) -> None:
        if len(neighbours) != len(self.counts):
            raise ValueError(f"`neighbours` are of {len(neighbours)} people; there are {len(self.counts)}.")


class TupletSampler:
    """Anchor, positive, and negatives of other people.

    The anchors' people are all those with two pictures or more, each once a pass, in a new order every pass.
    Negatives are drawn by person first, so that someone with 500 pictures is no more often an impostor than
    someone with one; people with a single picture are negatives only.

    With neighbours, half of a tuplet's negatives, and at least one, are of different neighbours of the anchor's
    person, drawn evenly; as many as there are. The others stay random: hard negatives alone can collapse a model.

    Args:
        labels: (n,) int, the person of each picture.
        batch_size: tuplets a batch.
        negatives: negatives a tuplet.
        seed: seed of every draw.

    Raises:
        ValueError: fewer than two people, or none with two pictures.
    """

    def __init__(self, labels: NDArray[np.integer], batch_size: int, negatives: int, seed: int):
        self._people = _People(labels)
        _check_enough(self._people.counts)
        self._anchors = np.flatnonzero(self._people.counts >= 2)
        self._order = _Order(len(self._anchors), seed)
        self._batch_size, self._negatives, self._seed = batch_size, negatives, seed

    def batch(self, step: int, neighbours: Neighbours | None = None) -> Positions:
        """(batch_size, 2 + negatives) picture positions: column 0 anchors, 1 positives, the rest negatives.

        Those of neighbours come first among the negatives.

        Raises:
            ValueError: the neighbours are of more or fewer people than the sampler's.
        """
        rng = generator(self._seed, _PICTURES, step)
        person = self._anchors[self._order.take(step * self._batch_size, self._batch_size)]
        count, start = self._people.counts[person], self._people.starts[person]
        anchor = rng.integers(count)
        positive = (anchor + rng.integers(1, count)) % count  # any other picture of the person
        pair = self._people.positions[start[:, None] + np.stack([anchor, positive], axis=1)]
        others = rng.integers(len(self._people.counts) - 1, size=(self._batch_size, self._negatives))
        others += others >= person[:, None]  # skip the anchor's person
        if neighbours is not None:
            self._people.check(neighbours)
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

    People with one picture come K of them together, as negatives. A person with fewer than K pictures gives
    some of them again.

    With neighbours, a batch is groups of 4 people (one of P, where P is less): a leader, and the leader's nearest
    neighbours who have two pictures or more and are not in the batch yet. Everyone leads once a pass, which takes 4
    times the batches. Where a leader has too few neighbours, or 4 does not divide P, the next people of the pass
    fill the batch.

    Args:
        labels: (n,) int, the person of each picture.
        batch_size: P times K.
        pictures_per_person: K.
        seed: seed of every draw.

    Raises:
        ValueError: fewer than two people, none with two pictures, or fewer than a batch takes.
    """

    def __init__(self, labels: NDArray[np.integer], batch_size: int, pictures_per_person: int, seed: int):
        self._people = _People(labels)
        _check_enough(self._people.counts)
        self._several = np.flatnonzero(self._people.counts >= 2)
        self._single = np.flatnonzero(self._people.counts == 1)
        self._k, self._p, self._seed = pictures_per_person, batch_size // pictures_per_person, seed
        units = len(self._several) + len(self._single) // self._k
        if units < self._p:
            raise ValueError(
                f"`batch_size` {batch_size} takes {self._p} people of {self._k} pictures a batch; there are "
                f"{units}. Make `batch_size` smaller."
            )
        self._order = _Order(units, seed)

    def batch(self, step: int, neighbours: Neighbours | None = None) -> Positions:
        """(P * K,) picture positions, each person's together, and each group's.

        Raises:
            ValueError: the neighbours are of more or fewer people than the sampler's.
        """
        rng = generator(self._seed, _PICTURES, step)
        if neighbours is None:
            units = self._order.take_within(step, self._p).tolist()
        else:
            self._people.check(neighbours)
            units = self._units_alike(step, neighbours)
        singles = rng.permutation(self._single)
        rows, used = [], 0
        for unit in units:
            if unit < len(self._several):
                rows.append(self._of_person(int(self._several[unit]), rng))
            else:
                rows.append(self._people.positions[self._people.starts[singles[used : used + self._k]]])
                used += self._k
        return np.concatenate(rows)

    def _units_alike(self, step: int, neighbours: Neighbours) -> list[int]:
        """The P units of a batch of groups: each is a place in `_several`, or beyond it K people of one picture."""
        group = min(GROUP, self._p)
        number = self._p // group
        window = self._order.take_within(step, number, self._p).tolist()
        leaders = window[:number]
        units: list[int] = []
        used = set(leaders)
        for leader in leaders:
            units.append(leader)
            if leader < len(self._several):
                fresh = [unit for unit in self._units_near(leader, neighbours) if unit not in used][: group - 1]
                units += fresh
                used.update(fresh)
        return (units + [unit for unit in window if unit not in used])[: self._p]

    def _units_near(self, unit: int, neighbours: Neighbours) -> list[int]:
        """Units of a person's neighbours who have two pictures or more, nearest first."""
        near = neighbours[self._several[unit]]
        near = near[near >= 0]
        return np.searchsorted(self._several, near[self._people.counts[near] >= 2]).tolist()

    def _of_person(self, person: int, rng: np.random.Generator) -> Positions:
        start, count = self._people.starts[person], self._people.counts[person]
        order = rng.permutation(count)
        return self._people.positions[start + np.resize(order, self._k)]


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
        held[generator(seed, _SPLIT, stratum).permutation(group)[:number]] = True
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
    people = _People(labels)
    _check_enough(people.counts)
    rng = generator(seed, _PAIRS)
    genuine = _genuine_pairs(people, count // 2, rng)
    impostor = _impostor_pairs(people, len(genuine), rng)
    same = np.repeat([True, False], [len(genuine), len(impostor)])
    return np.concatenate([genuine, impostor]), same


def _genuine_pairs(people: _People, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    queues = []
    for person in rng.permutation(np.flatnonzero(people.counts >= 2)):
        start, count = people.starts[person], int(people.counts[person])
        first, second = np.triu_indices(count, k=1)
        # A person of 500 pictures has 124,750 pairs; no more than `wanted` of them can be needed.
        keep = rng.permutation(len(first))[:wanted]
        queues.append(people.positions[start + np.stack([first[keep], second[keep]], axis=1)])
    chosen = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    return np.array(chosen[:wanted], np.int64)


def _impostor_pairs(people: _People, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    total = len(people.positions)
    possible = (total * total - int((people.counts**2).sum())) // 2
    chosen: dict[tuple[int, int], None] = {}
    while len(chosen) < min(wanted, possible):
        first = rng.integers(len(people.counts), size=wanted)
        second = rng.integers(len(people.counts) - 1, size=wanted)
        second += second >= first
        drawn = np.sort(np.stack([people.draw(first, rng), people.draw(second, rng)], axis=1), axis=1)
        chosen |= dict.fromkeys(map(tuple, drawn.tolist()))
    return np.array(list(chosen)[:wanted], np.int64)
