"""Batches as pure functions of (seed, t), splits without leaks, pairs without repeats."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from facekit.sampling import PeopleSampler, TupletSampler, people_a_batch, split_people, verification_pairs

LABELS = np.repeat(np.arange(30), [1] * 10 + [2] * 10 + [7] * 9 + [100])
SEVERAL = LABELS[10:] - 10  # the same people without those of one picture


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


@pytest.mark.parametrize(("counts", "people"), [([1] * 9 + [5, 2], 4), ([3] * 30, 10), ([1] * 400, 10), ([2], 1)])
def test_a_batch_can_be_made_as_small_as_the_people_need(counts, people):
    assert people_a_batch(np.array(counts), 40, 4) == people
    labels = np.repeat(np.arange(len(counts)), counts)
    if max(counts) > 1 and len(counts) > 1:
        assert len(set(PeopleSampler(labels, 4 * people, 4, 0).batch(0))) >= people
        with pytest.raises(ValueError, match="Make `batch_size` smaller"):
            PeopleSampler(labels, 4 * (people_a_batch(np.array(counts), 10**9, 4) + 1), 4, 0)


def test_everyone_with_one_picture_comes_once_a_pass():
    labels = np.repeat(np.arange(27), [3] * 5 + [1] * 22)  # 5 people, and 5 groups of 4 of 22
    sampler = PeopleSampler(labels, 8, 4, seed=2)
    passes = [np.concatenate([sampler.batch(5 * turn + step) for step in range(5)]) for turn in range(12)]
    singles = [set(drawn[drawn >= 15].tolist()) for drawn in passes]
    assert all(
        len(single) == 20 and (drawn >= 15).sum() == 20 for single, drawn in zip(singles, passes, strict=True)
    )
    assert set.union(*singles) == set(range(15, 37))
    groups = {tuple(sorted(row)) for drawn in passes for row in drawn.reshape(-1, 4).tolist() if row[0] >= 15}
    assert len(groups) > 50, "the same people come together in every pass"


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
    sampler = PeopleSampler(SEVERAL, 12, 4, 0)
    assert sampler.batch(0).tolist() == [138, 83, 110, 92, 12, 13, 12, 13, 16, 17, 16, 17]
    assert sampler.batch(5, None).tolist() == [36, 37, 38, 39, 11, 10, 11, 10, 32, 27, 30, 31]
    assert sampler.batch(77).tolist() == [17, 16, 17, 16, 42, 45, 47, 43, 53, 50, 49, 48]


def test_batches_with_people_of_one_picture_stay_what_they_are():
    sampler = PeopleSampler(LABELS, 12, 4, 0)
    assert sampler.batch(0).tolist() == [30, 35, 34, 31, 23, 22, 23, 22, 26, 27, 26, 27]
    assert sampler.batch(5, None).tolist() == [15, 14, 15, 14, 17, 16, 17, 16, 8, 5, 7, 9]


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


# ---- Balance and weights -----------------------------------------------------------------------------------------

UNEQUAL = np.repeat(np.arange(12), [2, 2, 3, 4, 5, 6, 8, 10, 12, 20, 30, 40])
SHARES = {"people": np.ones(12), "sqrt": np.sqrt(np.bincount(UNEQUAL)), "pictures": np.bincount(UNEQUAL)}


@pytest.mark.parametrize("balance", ["people", "sqrt", "pictures"])
def test_anchors_come_by_their_balance(balance):
    sampler = TupletSampler(UNEQUAL, 10, 2, 0, balance)
    people = UNEQUAL[np.concatenate([sampler.batch(step) for step in range(2000)])]
    assert (people[:, 0] == people[:, 1]).all() and (people[:, 2:] != people[:, :1]).all()
    expected = 20000 * SHARES[balance] / SHARES[balance].sum()
    # Each pass gives everyone their due to within one: far closer than chance would.
    passes = 20000 / SHARES[balance].sum()
    assert (np.abs(np.bincount(people[:, 0]) - expected) < 4 * np.sqrt(passes) + 12).all()
    # Negatives stay even over people, but for those who are anchors more often.
    negatives = np.bincount(people[:, 2:].ravel(), minlength=12)
    even = (20000 - expected) * 2 / 11
    assert (np.abs(negatives - even) < 6 * np.sqrt(even)).all()


def test_a_pass_of_anchors_shows_everyone_as_often_as_they_have_pictures():
    sampler = TupletSampler(UNEQUAL, 1, 1, 5, "pictures")
    for turn in range(3):
        anchors = [int(UNEQUAL[sampler.batch(142 * turn + step)[0, 0]]) for step in range(142)]
        assert np.bincount(anchors).tolist() == np.bincount(UNEQUAL).tolist()
        assert anchors != sorted(anchors)


@pytest.mark.parametrize("balance", ["people", "sqrt", "pictures"])
def test_people_of_a_batch_come_by_their_balance_and_never_twice(balance):
    labels = np.repeat(np.arange(32), np.r_[np.bincount(UNEQUAL), np.ones(20, int)])
    sampler = PeopleSampler(labels, 9, 3, 0, balance)
    batches = [labels[sampler.batch(step)].reshape(3, 3) for step in range(3000)]
    assert all(len(set(batch[:, 0])) == 3 and len(set(batch[-1])) in (1, 3) for batch in batches)
    counts = np.bincount(np.concatenate([row if row[0] >= 12 else row[:1] for b in batches for row in b]))
    share = {"people": np.ones(32), "sqrt": np.sqrt(np.bincount(labels)), "pictures": np.bincount(labels)}[balance]
    # 20 people of one picture are 6 groups of 3: 18 of them come once a pass.
    share = share * np.r_[np.ones(12), np.full(20, 18 / 20)]
    expected = 9000 * share / (share[:12].sum() + 6)
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_nobody_comes_more_than_once_a_batch_however_many_pictures_they_have():
    labels = np.repeat(np.arange(6), [1000, 900, 4, 3, 2, 2])
    sampler = PeopleSampler(labels, 8, 2, 1, "pictures")
    people = labels[np.array([sampler.batch(step) for step in range(1000)])][:, ::2]
    assert all(len(set(row)) == 4 for row in people)
    # Two take part in every batch; the two other places are shared out as 4 : 3 : 2 : 2.
    counts = np.bincount(people.ravel())
    assert counts[:2].tolist() == [1000, 1000]
    assert (np.abs(counts[2:] - 2000 * np.array([4, 3, 2, 2]) / 11) < 60).all()


@pytest.mark.parametrize("balance", ["sqrt", "pictures"])
@pytest.mark.parametrize("p", [1, 3, 4, 9, 12])
def test_groups_of_look_alikes_have_no_person_twice_under_any_balance(balance, p):
    neighbours = neighbours_of(UNEQUAL, 4)
    sampler = PeopleSampler(UNEQUAL, 2 * p, 2, 3, balance)
    leaders = []
    for step in range(300):
        people = UNEQUAL[sampler.batch(step, neighbours)][::2].tolist()
        assert len(set(people)) == len(people) == p
        leaders.append(people[0])
        if p >= 4:
            others = [n for n in neighbours[people[0]] if n in people[1:4]]
            assert others == people[1:4] or p > 4
    counts = np.bincount(leaders, minlength=12)
    assert counts[11] > 2 * counts[0]


@pytest.mark.parametrize("make", [TupletSampler, PeopleSampler])
@pytest.mark.parametrize("balance", ["people", "sqrt", "pictures"])
def test_balanced_and_weighted_batches_depend_on_seed_and_step_only(make, balance):
    weights = np.random.default_rng(1).uniform(0.1, 1, len(UNEQUAL))
    neighbours = neighbours_of(UNEQUAL, 4)

    def sampler(seed=0, w=weights):
        return make(UNEQUAL, 8, 2, seed, balance, w)

    one = sampler()
    later = one.batch(10**6)
    for step in range(40):
        one.batch(step, neighbours if step % 2 else None)
    np.testing.assert_array_equal(one.batch(10**6), later)
    np.testing.assert_array_equal(sampler().batch(10**6, neighbours), one.batch(10**6, neighbours))
    assert (sampler(seed=1).batch(10**6) != later).any() and (one.batch(10**6 + 1) != later).any()
    assert any((sampler(w=None).batch(step) != one.batch(step)).any() for step in range(5))


def test_weights_decide_among_a_persons_pictures_only():
    rng = np.random.default_rng(0)
    weights = rng.uniform(0.05, 1, len(UNEQUAL))
    sampler = TupletSampler(UNEQUAL, 12, 4, 0, weights=weights)
    batches = np.concatenate([sampler.batch(step) for step in range(2500)])
    plain = np.concatenate([TupletSampler(UNEQUAL, 12, 4, 0).batch(step) for step in range(2500)])
    assert (batches[:, 0] != batches[:, 1]).all()
    np.testing.assert_array_equal(UNEQUAL[batches[:, 0]], UNEQUAL[plain[:, 0]])
    share = weights / np.bincount(UNEQUAL, weights)[UNEQUAL]
    for column, drawn in ((0, batches[:, 0]), (2, batches[:, 2:].ravel())):
        expected = np.bincount(UNEQUAL[drawn])[UNEQUAL] * share
        assert (np.abs(np.bincount(drawn, minlength=len(UNEQUAL)) - expected) < 5.5 * np.sqrt(expected)).all(), (
            column
        )


def test_weights_decide_in_batches_of_people_too():
    weights = np.random.default_rng(0).uniform(0.05, 1, len(UNEQUAL))
    sampler = PeopleSampler(UNEQUAL, 24, 2, 0, weights=weights)
    batches = np.array([sampler.batch(step).reshape(12, 2) for step in range(4000)]).reshape(-1, 2)
    assert (UNEQUAL[batches[:, 0]] == UNEQUAL[batches[:, 1]]).all() and (batches[:, 0] != batches[:, 1]).all()
    share = weights / np.bincount(UNEQUAL, weights)[UNEQUAL]
    first = np.bincount(batches[:, 0], minlength=len(UNEQUAL))
    assert (np.abs(first - 4000 * share) < 5 * np.sqrt(4000 * share)).all()


# ---- Many pictures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 9, 40, 200, 500, 2000, 10**6])
def test_genuine_pairs_go_round_the_people(count):
    counts = np.array([1, 2, 3, 7, 30, 1, 12])
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(7), counts))
    pairs, same = verification_pairs(labels, count, seed=4)
    genuine = pairs[same]
    assert (labels[genuine[:, 0]] == labels[genuine[:, 1]]).all() and (genuine[:, 0] != genuine[:, 1]).all()
    assert len({tuple(sorted(pair)) for pair in genuine.tolist()}) == len(genuine)
    # Round by round, one pair of each person who has any left, by hand.
    left, given = counts * (counts - 1) // 2, []
    order = list(dict.fromkeys(labels[genuine[:, 0]].tolist()))
    while len(given) < min(count // 2, 1 + 3 + 21 + 435 + 66) and left.any():
        given += [person for person in order if left[person]]
        left = np.maximum(left - 1, 0)
    assert labels[genuine[:, 0]].tolist() == given[: count // 2]


def test_every_pair_of_a_person_is_drawn_equally_often():
    labels = np.repeat(np.arange(3), [6, 4, 5])
    counts = np.zeros((15, 15))
    for seed in range(3000):
        pairs, same = verification_pairs(labels, 12, seed)
        np.add.at(counts, tuple(np.sort(pairs[same], axis=1).T), 1)
    for start, end in ((0, 6), (6, 10), (10, 15)):
        of_one = counts[start:end, start:end][np.triu_indices(end - start, 1)]
        assert of_one.sum() == 6000 and (np.abs(of_one - of_one.mean()) < 5 * np.sqrt(of_one.mean())).all()


def test_half_a_million_pictures_take_no_list_of_all_pairs():
    counts = np.full(600, 800)
    labels = np.repeat(np.arange(600), counts)
    tracemalloc.start()
    pairs, same = verification_pairs(labels, 3000, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(pairs) == 3000 and peak < 60e6  # all 191,760,000 pairs would take 3 GB
    assert sorted(np.bincount(labels[pairs[same, 0]])) == [2] * 300 + [3] * 300
