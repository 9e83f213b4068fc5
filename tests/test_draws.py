"""Pictures of people by weight: shares as wished, never the same twice, at the edges of rounding too."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from facekit.draws import People

LABELS = np.array([5, 5, 2, 5, 2, 9, 2, 2])  # sorted: person 0 is 2, person 1 is 5, person 2 is 9
WEIGHTS = np.array([0.2, 0.6, 0.1, 0.7, 0.3, 0.01, 0.6, 1.0])
DRAWS = 40_000


def shares(person: int) -> dict[int, float]:
    own = np.flatnonzero(person == LABELS)
    return {int(place): WEIGHTS[place] / WEIGHTS[own].sum() for place in own}


def close(count: float, chance: float) -> bool:
    return abs(count - DRAWS * chance) <= 5 * np.sqrt(DRAWS * chance * max(0, 1 - chance)) + 1e-6


def test_a_picture_is_drawn_by_its_share(rng):
    drawn = People(LABELS, WEIGHTS).draw(np.repeat([[0], [1], [2]], DRAWS, axis=1), rng)
    for number, person in enumerate((2, 5, 9)):
        counts = np.bincount(drawn[number], minlength=8)
        assert set(np.flatnonzero(counts)) == set(shares(person))
        assert all(close(counts[place], share) for place, share in shares(person).items())


def test_two_pictures_are_different_and_the_second_by_what_is_left(rng):
    for number, person in enumerate((2, 5)):
        pairs = People(LABELS, WEIGHTS).draw_two(np.full(DRAWS, number), rng).tolist()
        share = shares(person)
        for one, other in permutations(share, 2):
            assert close(pairs.count([one, other]), share[one] * share[other] / (1 - share[one]))


def test_several_pictures_are_drawn_one_after_the_other_without_putting_back(rng):
    people, share = People(LABELS, WEIGHTS), shares(2)
    drawn = [tuple(people.draw_several(0, 3, rng).tolist()) for _ in range(DRAWS)]
    for one, two, three in permutations(share, 3):
        chance = share[one] * share[two] / (1 - share[one]) * share[three] / (1 - share[one] - share[two])
        assert close(drawn.count((one, two, three)), chance)
    assert sorted(people.draw_several(1, 3, rng).tolist()) == [0, 1, 3]
    assert people.draw_several(2, 3, rng).tolist() == [5, 5, 5]
    again = people.draw_several(1, 7, rng).tolist()
    assert again[:3] == again[3:6] and again[6] == again[0] and len(set(again)) == 3


def test_equal_weights_are_no_weights(rng):
    people = People(LABELS, np.full(8, 0.3))
    counts = np.bincount(people.draw(np.zeros(DRAWS, int), rng), minlength=8)
    assert all(close(counts[place], 0.25) for place in (2, 4, 6, 7)) and counts.sum() == DRAWS


def test_one_picture_that_outweighs_all_others_leaves_them_their_place(rng):
    labels = np.repeat(np.arange(20_000), 3)
    weights = np.tile([1e-300, 1.0, 1e-300], 20_000)
    people = People(labels, weights)
    person = rng.integers(20_000, size=50_000)
    pairs = people.draw_two(person, rng)
    assert (labels[pairs] == person[:, None]).all() and (pairs[:, 0] != pairs[:, 1]).all()
    assert (pairs[:, 0] % 3 == 1).all()
    assert (labels[people.draw(person, rng)] == person).all()


class Highest:
    """A generator whose every draw is the highest there is below 1."""

    def random(self, shape):
        return np.full(shape, np.nextafter(1.0, 0.0))


def test_rounding_never_leads_to_the_next_person():
    labels = np.repeat(np.arange(50_000), 2)
    people, last = People(labels, np.full(100_000, 0.7)), np.array([0, 1, 30_000, 49_999])
    assert people.draw(last, Highest()).tolist() == (2 * last + 1).tolist()
    assert people.draw_two(last, Highest()).tolist() == np.stack([2 * last + 1, 2 * last], axis=1).tolist()


@pytest.mark.parametrize(
    ("weights", "found"),
    [
        (np.ones(7), r"an array of shape \(7,\)"),
        (np.ones((8, 1)), r"an array of shape \(8, 1\)"),
        (np.r_[np.ones(7), 0], "0 to 1"),
        (np.r_[np.ones(7), 1.5], "1 to 1.5"),
        (np.r_[np.ones(7), np.nan], "nan"),
    ],
)
def test_wrong_weights_are_refused(weights, found):
    with pytest.raises(
        ValueError, match=r"`weights` must be 8 numbers in \(0, 1\], one a picture. Received: " + found
    ):
        People(LABELS, weights)


def test_a_person_of_tiny_weights_keeps_their_own_pictures():
    labels = np.repeat(np.arange(500), 4)
    weights = np.ones(len(labels))
    weights[labels == 499] = 1e-17
    people = People(labels, weights)
    person = np.full(3000, 499)
    drawn = people.draw(person, np.random.default_rng(0))
    assert (labels[drawn] == 499).all() and (np.bincount(drawn - drawn.min()) > 600).all()
    two = people.draw_two(person, np.random.default_rng(1))
    assert (labels[two] == 499).all() and (two[:, 0] != two[:, 1]).all()
