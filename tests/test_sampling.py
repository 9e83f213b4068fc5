"""Batches as pure functions of (seed, t), splits without leaks, pairs without repeats."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from facekit.sampling import PeopleSampler, TupletSampler, split_people, verification_pairs

LABELS = np.repeat(np.arange(30), [1] * 10 + [2] * 10 + [7] * 9 + [100])


def tuplets(seed=0, batch=6, negatives=4, labels=LABELS) -> TupletSampler:
    return TupletSampler(labels, batch, negatives, seed)


def test_a_tuplet_is_anchor_positive_and_other_people():
    for step in range(200):
        batch = tuplets().batch(step)
        people = LABELS[batch]
        assert batch.shape == (6, 6)
        assert (people[:, 0] == people[:, 1]).all() and (batch[:, 0] != batch[:, 1]).all()
        assert (people[:, 2:] != people[:, :1]).all()


def test_a_batch_depends_on_seed_and_step_only():
    one, other = tuplets(), tuplets()
    later = one.batch(500)
    for step in range(20):
        one.batch(step)
    np.testing.assert_array_equal(one.batch(500), later)
    np.testing.assert_array_equal(other.batch(500), later)
    assert (tuplets(seed=1).batch(500) != later).any() and (one.batch(501) != later).any()


def test_a_batch_is_the_same_in_another_process():
    code = (
        "import numpy as np; from facekit.sampling import TupletSampler\n"
        "labels = np.repeat(np.arange(30), [1] * 10 + [2] * 10 + [7] * 9 + [100])\n"
        "print(TupletSampler(labels, 6, 4, 0).batch(77).tolist())"
    )
    root = Path(__file__).parent.parent
    answer = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == str(tuplets().batch(77).tolist())


def test_every_person_with_two_pictures_is_anchor_once_a_pass():
    anchors = np.concatenate([LABELS[tuplets(batch=5).batch(step)[:, 0]] for step in range(8)])
    for turn in range(2):
        assert sorted(anchors[turn * 20 : (turn + 1) * 20]) == list(range(10, 30))
    assert (anchors[:20] != anchors[20:]).any()


def test_negatives_are_even_over_people_not_pictures():
    people = np.concatenate(
        [LABELS[tuplets(batch=20, negatives=8).batch(step)[:, 2:]].ravel() for step in range(300)]
    )
    counts = np.bincount(people, minlength=30)
    # 48,000 draws over 30 people, fewer for the 20 who are anchors: the one with 100 pictures is no favourite.
    expected = np.r_[[48000 * 20 / 20 / 29] * 10, [48000 * 19 / 20 / 29] * 20]
    assert (np.abs(counts - expected) < 6 * np.sqrt(expected)).all()


def test_anchor_and_positive_cover_all_pairs_of_a_person():
    drawn = {tuple(row[:2]) for step in range(2000) for row in tuplets().batch(step) if LABELS[row[0]] == 20}
    assert len(drawn) == 7 * 6


def test_people_times_pictures():
    sampler = PeopleSampler(LABELS, 12, 4, seed=0)
    for step in range(100):
        batch = sampler.batch(step)
        people = LABELS[batch].reshape(3, 4)
        for row, pictures in zip(people, batch.reshape(3, 4), strict=True):
            if row[0] >= 10:  # several pictures: one person, distinct pictures where they reach
                assert len(set(row)) == 1
                assert len(set(pictures)) == min(4, (LABELS == row[0]).sum())
            else:  # single pictures come together, each of another person
                assert len(set(row)) == 4 and (row < 10).all()
        # Nobody comes twice in a batch: people of several pictures are a row each, single ones distinct.
        several = [row[0] for row in people if row[0] >= 10]
        single = [person for row in people if row[0] < 10 for person in row]
        assert len(set(several)) == len(several) and len(set(single)) == len(single)
    drawn = {person for step in range(100) for person in LABELS[sampler.batch(step)]}
    assert drawn == set(range(30))


def test_a_batch_of_more_people_than_there_are_is_refused():
    with pytest.raises(ValueError, match="takes 30 people of 4 pictures a batch; there are 22"):
        PeopleSampler(LABELS, 120, 4, 0)


def test_people_sampler_repeats_by_seed_and_step():
    np.testing.assert_array_equal(
        PeopleSampler(LABELS, 12, 4, 3).batch(40), PeopleSampler(LABELS, 12, 4, 3).batch(40)
    )
    assert (PeopleSampler(LABELS, 12, 4, 3).batch(40) != PeopleSampler(LABELS, 12, 4, 4).batch(40)).any()


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [(np.zeros(5, int), "at least 2 people; found 1"), (np.arange(5), "All 5 people have a single picture")],
)
def test_too_few_people_are_refused(labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        tuplets(labels=labels)
    with pytest.raises(ValueError, match=sentence):
        PeopleSampler(labels, 8, 4, 0)


def test_a_split_takes_the_share_of_both_kinds_of_people():
    counts = np.r_[np.ones(100, int), np.full(50, 5)]
    held = split_people(counts, 0.2, seed=0)
    assert held[:100].sum() == 20 and held[100:].sum() == 10
    np.testing.assert_array_equal(held, split_people(counts, 0.2, seed=0))
    assert (held != split_people(counts, 0.2, seed=1)).any()


def test_a_split_of_few_people_leaves_both_sides_someone():
    held = split_people(np.array([3, 3, 1]), 0.01, seed=0)
    assert held[:2].sum() == 1


def test_pairs_are_half_genuine_and_never_twice():
    pairs, same = verification_pairs(LABELS, 400, seed=0)
    people = LABELS[pairs]
    assert ((people[:, 0] == people[:, 1]) == same).all()
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert same.sum() == (~same).sum() == 200
    assert len({tuple(sorted(row)) for row in pairs.tolist()}) == 400
    # Ten people of two pictures give 1 pair each, nine of seven 21 at most: the rest comes from the one of 100.
    counts = np.bincount(people[same, 0], minlength=30)
    assert (counts[10:20] == 1).all() and (counts[20:29] >= 18).all() and counts[29] <= 21


def test_pairs_shrink_to_what_there_is():
    labels = np.array([0, 0, 1, 2])
    pairs, same = verification_pairs(labels, 100, seed=0)
    assert same.tolist() == [True, False]
    np.testing.assert_array_equal(pairs, verification_pairs(labels, 100, seed=0)[0])


# ---- People who look alike ---------------------------------------------------------------------------------------


def neighbours_of(labels: np.ndarray, count: int, seed: int = 9) -> np.ndarray:
    """Random neighbours: of each person `count` different other people."""
    rng, people = np.random.default_rng(seed), len(np.unique(labels))
    rows = [rng.permutation(np.delete(np.arange(people), person))[:count] for person in range(people)]
    return np.array(rows, np.int32)


def test_without_neighbours_batches_are_those_of_the_first_release():
    # Drawn before samplers took neighbours; NumPy keeps its streams within a release of it.
    assert tuplets(batch=3).batch(7).tolist() == [
        [26, 27, 28, 0, 20, 8],
        [19, 18, 2, 2, 5, 30],
        [84, 85, 35, 57, 18, 3],
    ]
    assert tuplets(batch=3).batch(500, None)[0].tolist() == [21, 20, 4, 16, 2, 4]
    sampler = PeopleSampler(LABELS, 12, 4, 0)
    assert sampler.batch(0).tolist() == [34, 35, 31, 30, 22, 23, 22, 23, 26, 27, 26, 27]
    assert sampler.batch(5, None).tolist() == [14, 15, 14, 15, 16, 17, 16, 17, 8, 3, 7, 6]
    assert sampler.batch(77).tolist() == [91, 88, 87, 86, 26, 27, 26, 27, 56, 51, 52, 54]


@pytest.mark.parametrize(("negatives", "near"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (9, 4)])
def test_half_of_the_negatives_look_like_the_anchor(negatives: int, near: int):
    neighbours = neighbours_of(LABELS, 12)
    for step in range(100):
        batch = tuplets(negatives=negatives).batch(step, neighbours)
        assert batch.shape == (6, 2 + negatives)
        people = LABELS[batch]
        assert (people[:, 2:] != people[:, :1]).all()
        for row in people:
            alike = row[2 : 2 + near].tolist()
            assert len(set(alike)) == near and set(alike) <= set(neighbours[row[0]])
        # All other draws are those of the plain batch.
        plain = tuplets(negatives=negatives).batch(step)
        np.testing.assert_array_equal(batch[:, :2], plain[:, :2])
        np.testing.assert_array_equal(people[:, 2 + near :], LABELS[plain][:, 2 + near :])


def test_every_neighbour_is_drawn_evenly_and_the_rest_from_everyone():
    neighbours = neighbours_of(LABELS, 5)
    neighbours[12] = [0, 3, 29, 15, 20]
    people = LABELS[np.concatenate([tuplets(batch=20).batch(step, neighbours) for step in range(300)])]
    of_one = people[people[:, 0] == 12]
    assert len(of_one) == 300
    counts = np.bincount(of_one[:, 2:4].ravel(), minlength=30)
    assert np.flatnonzero(counts).tolist() == [0, 3, 15, 20, 29]
    assert (np.abs(counts[neighbours[12]] - 120) < 50).all()
    assert set(of_one[:, 4:].ravel()) == set(range(30)) - {12}


def test_neighbours_give_random_pictures():
    neighbours = np.full((30, 1), 29, np.int32)
    drawn = [tuplets(batch=20).batch(step, neighbours) for step in range(20)]
    hard = np.concatenate([batch[LABELS[batch[:, 0]] != 29, 2] for batch in drawn])
    assert (LABELS[hard] == 29).all() and len(set(hard)) > 90


def test_fewer_neighbours_than_half_leave_the_rest_random():
    neighbours = np.full((30, 3), -1, np.int32)
    neighbours[:15, 1] = (np.arange(15) + 1) % 30
    neighbours[10, 2] = 10  # nobody is their own neighbour
    for step in range(200):
        rows, plain = (LABELS[tuplets(negatives=8).batch(step, given)] for given in (neighbours, None))
        assert (rows[:, 2:] != rows[:, :1]).all()
        few = rows[:, 0] < 15
        assert (rows[few, 2] == rows[few, 0] + 1).all()
        assert (rows[~few, 2] == plain[~few, 2]).all() and (rows[:, 3:] == plain[:, 3:]).all()


def units_of(batch: np.ndarray, labels: np.ndarray, pictures: int) -> list[int]:
    """The person of each unit of a batch; -1 for people of one picture together."""
    rows = labels[batch].reshape(-1, pictures)
    assert all(len(set(row)) == (pictures if (labels == row[0]).sum() == 1 else 1) for row in rows)
    pictures_of = batch.reshape(-1, pictures)
    for row, own in zip(rows, pictures_of, strict=True):
        assert len(set(own)) == min(pictures, np.isin(labels, row).sum())
    people = [int(row[0]) if (labels == row[0]).sum() > 1 else -1 for row in rows]
    several = [person for person in people if person >= 0]
    single = labels[batch][np.repeat(np.array(people) < 0, pictures)].tolist()
    assert len(set(several)) == len(several) and len(set(single)) == len(single)
    return people


def groups_by_hand(order: list[int], first: int, p: int, counts: np.ndarray, neighbours: np.ndarray) -> list[int]:
    """The P units of the batch whose leaders start at `first` in the order of a pass; -1 for single pictures."""
    group = min(4, p)
    order = order[first:] + order[:first]
    leaders = order[: p // group]
    batch = []
    for leader in leaders:
        batch.append(leader)
        near = neighbours[leader] if leader >= 0 else []
        batch += [n for n in near if n >= 0 and counts[n] > 1 and n not in leaders + batch][: group - 1]
    batch += [unit for unit in order if unit not in batch][: p - len(batch)]
    return [max(unit, -1) for unit in batch]


@pytest.mark.parametrize("p", [1, 2, 3, 4, 5, 7, 8, 11, 12, 20, 25])
@pytest.mark.parametrize("near", [0, 1, 4, 29])
def test_a_batch_is_groups_of_a_leader_and_the_nearest_who_are_not_in_it(p: int, near: int):
    labels = np.repeat(np.arange(30), [5] * 10 + [1] * 10 + [2] * 10)
    counts = np.bincount(labels)
    neighbours = np.full((30, 29), -1, np.int32)
    neighbours[:, :near] = neighbours_of(labels, 29)[:, :near]
    sampler, one_by_one = PeopleSampler(labels, 2 * p, 2, seed=4), PeopleSampler(labels, 2, 2, seed=4)
    leaders = p // min(4, p)
    for step in range(60):
        turn, place = divmod(step, 25 // leaders)
        order = [units_of(one_by_one.batch(25 * turn + unit), labels, 2)[0] for unit in range(25)]
        order = [unit if unit >= 0 else -1 - number for number, unit in enumerate(order)]
        batch = units_of(sampler.batch(step, neighbours), labels, 2)
        assert len(batch) == p
        assert batch == groups_by_hand(order, place * leaders, p, counts, neighbours)


def test_everyone_leads_once_a_pass():
    labels = np.repeat(np.arange(30), 3)
    neighbours = neighbours_of(labels, 29)
    sampler = PeopleSampler(labels, 16, 2, seed=0)
    leaders = [units_of(sampler.batch(step, neighbours), labels, 2)[::4] for step in range(30)]
    for turn in range(2):
        assert sorted(sum(leaders[15 * turn : 15 * turn + 15], [])) == list(range(30))
    assert leaders[:15] != leaders[15:]


@pytest.mark.parametrize("make", [lambda labels: tuplets(labels=labels), lambda x: PeopleSampler(x, 12, 2, 0)])
def test_neighbours_are_numbered_by_sorted_labels(make):
    neighbours = neighbours_of(LABELS, 8)
    order = np.random.default_rng(0).permutation(len(LABELS))
    for step in range(20):
        batch = make(LABELS[order]).batch(step, neighbours)
        np.testing.assert_array_equal(batch, make(LABELS[order] * 10 - 50).batch(step, neighbours))
        people = LABELS[order][batch]
        if people.ndim == 2:
            assert all(set(row[2:4]) <= set(neighbours[row[0]]) for row in people)


@pytest.mark.parametrize("make", [tuplets, lambda: PeopleSampler(LABELS, 12, 2, 0)])
@pytest.mark.parametrize("people", [29, 31])
def test_neighbours_of_other_people_are_refused(make, people: int):
    with pytest.raises(ValueError, match=f"`neighbours` are of {people} people; there are 30"):
        make().batch(0, np.zeros((people, 4), np.int32))


@pytest.mark.parametrize("make", [tuplets, lambda seed=0: PeopleSampler(LABELS, 32, 4, seed)])
def test_a_batch_depends_on_seed_step_and_neighbours_only(make):
    neighbours = neighbours_of(LABELS, 10)
    before = neighbours.copy()
    one, later = make(), make().batch(41, neighbours)
    for step in range(10):
        one.batch(step, neighbours if step % 2 else None)
    np.testing.assert_array_equal(one.batch(41, neighbours), later)
    np.testing.assert_array_equal(neighbours, before)
    assert (make(seed=1).batch(41, neighbours) != later).any()
    assert (make().batch(42, neighbours) != later).any()
    assert (make().batch(41, neighbours_of(LABELS, 10, seed=8)) != later).any()
    assert (make().batch(41) != later).any()


def test_batches_of_look_alikes_are_the_same_in_another_process():
    code = (
        "import numpy as np; from facekit.sampling import PeopleSampler, TupletSampler\n"
        "labels = np.repeat(np.arange(30), [1] * 10 + [2] * 10 + [7] * 9 + [100])\n"
        "neighbours = np.stack([(np.arange(30) + shift) % 30 for shift in range(1, 12)], 1).astype(np.int32)\n"
        "samplers = TupletSampler(labels, 6, 4, 0), PeopleSampler(labels, 32, 4, 0)\n"
        "print([sampler.batch(77, neighbours).tolist() for sampler in samplers])"
    )
    neighbours = np.stack([(np.arange(30) + shift) % 30 for shift in range(1, 12)], 1).astype(np.int32)
    root = Path(__file__).parent.parent
    answer = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    expected = [s.batch(77, neighbours).tolist() for s in (tuplets(), PeopleSampler(LABELS, 32, 4, 0))]
    assert answer.stdout.strip() == str(expected)
