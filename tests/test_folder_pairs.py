"""Pairs of a folder of people: all genuine ones, all or a fair draw of impostor ones."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from facekit.folder_pairs import all_pairs, genuine_count

NAMES = ["a/1", "a/2", "a/3", "b/1", "c/1", "c/2"]
PEOPLE = [name[0] for name in NAMES]


def unordered(pairs) -> set[frozenset[str]]:
    return {frozenset(pair) for pair in zip(pairs.first, pairs.second, strict=True)}


def brute_force(names, people):
    genuine = {
        frozenset((names[i], names[j])) for i, j in combinations(range(len(names)), 2) if people[i] == people[j]
    }
    everything = {frozenset(pair) for pair in combinations(names, 2)}
    return genuine, everything - genuine


@pytest.mark.parametrize("limit", [0, 11, 1000])
def test_without_a_limit_every_pair_is_there_once(limit) -> None:
    pairs = all_pairs(NAMES, PEOPLE, limit)
    genuine, impostor = brute_force(NAMES, PEOPLE)
    assert len(pairs) == 15 and int(pairs.same.sum()) == 4
    assert unordered(pairs.chosen(pairs.same)) == genuine
    assert unordered(pairs.chosen(~pairs.same)) == impostor
    ids1, ids2 = pairs.people() or ([], [])
    assert [name[0] for name in pairs.first] == ids1 and [name[0] for name in pairs.second] == ids2


def test_pictures_of_a_person_need_not_lie_side_by_side(rng) -> None:
    order = rng.permutation(len(NAMES))
    mixed = all_pairs([NAMES[i] for i in order], [PEOPLE[i] for i in order], 0)
    assert unordered(mixed.chosen(mixed.same)) == brute_force(NAMES, PEOPLE)[0]


@pytest.mark.parametrize("limit", [5, 8, 10])
def test_a_limit_draws_so_many_different_impostor_pairs(limit) -> None:
    pairs = all_pairs(NAMES, PEOPLE, limit)
    drawn = pairs.chosen(~pairs.same)
    assert len(drawn) == len(unordered(drawn)) == limit and int(pairs.same.sum()) == 4
    assert unordered(drawn) <= brute_force(NAMES, PEOPLE)[1]
    assert unordered(all_pairs(NAMES, PEOPLE, limit)) == unordered(pairs)


@pytest.mark.parametrize("limit", [3, 8])
def test_the_draw_is_fair(limit) -> None:
    _, impostor = brute_force(NAMES, PEOPLE)
    counts = dict.fromkeys(impostor, 0)
    for seed in range(2000):
        pairs = all_pairs(NAMES, PEOPLE, limit, seed)
        for pair in unordered(pairs.chosen(~pairs.same)):
            counts[pair] += 1
    expected = 2000 * limit / len(impostor)
    # 6 standard deviations of a count: a fair draw passes, one that favours people of many pictures does not.
    assert max(abs(count - expected) for count in counts.values()) < 6 * np.sqrt(expected)


def test_folders_without_two_kinds_of_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="2 pictures of 2 people give no genuine pair: at least two people"):
        all_pairs(["a/1", "b/1"], ["a", "b"], 0)
    with pytest.raises(ValueError, match="2 pictures of 1 people give no impostor pair"):
        all_pairs(["a/1", "a/2"], ["a", "a"], 0)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 9])
def test_a_limit_draws_so_many_different_genuine_pairs(limit) -> None:
    pairs = all_pairs(NAMES, PEOPLE, 5, genuine_limit=limit)
    drawn = pairs.chosen(pairs.same)
    assert len(drawn) == len(unordered(drawn)) == min(limit, 4) == int(pairs.same.sum())
    assert unordered(drawn) <= brute_force(NAMES, PEOPLE)[0] and len(pairs) == min(limit, 4) + 5
    assert unordered(all_pairs(NAMES, PEOPLE, 5, genuine_limit=limit)) == unordered(pairs)
    ids1, ids2 = pairs.people() or ([], [])
    assert [name[0] for name in pairs.first] == ids1 and [name[0] for name in pairs.second] == ids2


@pytest.mark.parametrize("limit", [2, 3])
def test_the_draw_of_genuine_pairs_is_fair(limit) -> None:
    genuine, _ = brute_force(NAMES, PEOPLE)
    counts = dict.fromkeys(genuine, 0)
    for seed in range(2000):
        for pair in unordered((drawn := all_pairs(NAMES, PEOPLE, 1, seed, limit)).chosen(drawn.same)):
            counts[pair] += 1
    expected = 2000 * limit / 4
    assert max(abs(count - expected) for count in counts.values()) < 5 * np.sqrt(expected)


def test_genuine_pairs_are_counted(rng) -> None:
    people = rng.choice([*"abcdefg"], 200).tolist()
    assert genuine_count(people) == sum(one == other for one, other in combinations(people, 2))
    assert genuine_count(["a", "b"]) == genuine_count([]) == 0


def test_a_large_folder_gives_no_more_pairs_than_fit_into_memory() -> None:
    people = [f"{number:04d}" for number in range(300) for _ in range(100)]
    names = [f"{person}/{number}" for number, person in enumerate(people)]
    pairs = all_pairs(names, people, 2000, genuine_limit=3000)
    assert genuine_count(people) == 300 * 4950 and int(pairs.same.sum()) == 3000 and len(pairs) == 5000
    with pytest.raises(
        ValueError, match="give 1,000,000 genuine and 448,500,000 impostor pairs, more than fit into"
    ):
        all_pairs(names, people, 0)
