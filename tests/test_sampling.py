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
