"""What an epoch shows, against counts by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from facekit import epoch
from facekit.epoch import Epoch, count_epoch
from facekit.sampling import PeopleSampler, TupletSampler

LABELS = np.repeat(np.arange(30), [1] * 10 + [2] * 10 + [7] * 9 + [100])


@pytest.mark.parametrize("make", [lambda: TupletSampler(LABELS, 4, 3, 0), lambda: PeopleSampler(LABELS, 20, 4, 0)])
def test_shares_are_counted_from_the_batches(make):
    counted = count_epoch(make(), 9, LABELS, first_step=18)
    shown = Counter(int(place) for step in range(18, 27) for place in make().batch(step).ravel())
    assert counted.shown.tolist() == [shown[place] for place in range(len(LABELS))]
    assert counted.pictures_seen == len(shown) / len(LABELS)
    people = Counter(LABELS[place] for place in shown.elements())
    assert counted.people_seen == len(people) / 30
    assert counted.shown_of_person.tolist() == [people[person] for person in range(30)]
    assert (counted.steps, counted.counted, counted.pictures_a_step) == (9, 9, 20)


def made(shown: list[int], labels: list[int], steps: int = 10, pictures: int = 2, counted: int = 10) -> Epoch:
    return Epoch(steps, pictures, counted, np.array(shown), np.array(labels))


def test_an_epoch_in_words():
    assert made([1, 1, 1, 0, 2, 0, 0, 1], [0, 0, 0, 0, 1, 2, 2, 3], steps=4, counted=4).in_words() == (
        "An epoch is 4 steps of 2 pictures, about as many as the 8 there are. It shows 75 % of the people and 62 % "
        "of the pictures at least once. Half of the people are shown 2 times or more, the one with the most "
        "pictures (4) 3 times."
    )
    long = made([1, 2], [0, 1], steps=1200, pictures=2, counted=10).in_words()
    assert "pictures, 1,200 times as many as the 2 there are. Its first 10 steps show all of the people" in long
    assert "pictures, 0.25 times as many as" in made([1] * 8, [0] * 8, steps=1, counted=1).in_words()


@pytest.mark.parametrize(
    ("seen", "of", "words"),
    [(1000, 1000, "all"), (999, 1000, "more than 99 %"), (990, 1000, "99 %"), (1, 1000, "less than 1 %")],
)
def test_all_means_all(seen, of, words):
    shown = [1] * seen + [0] * (of - seen)
    assert f"people and {words} of the pictures" in made(shown, [0] * of).in_words()


def test_of_a_long_epoch_the_beginning_is_counted(monkeypatch):
    monkeypatch.setattr(epoch, "MOST_STEPS", 5)
    sampler = TupletSampler(LABELS, 4, 3, 0)
    counted = count_epoch(sampler, 400, LABELS)
    assert counted.counted == 5 and counted.shown.sum() == 100 and "Its first 5 steps show" in counted.in_words()
    monkeypatch.setattr(epoch, "MOST_PICTURES", 61)
    assert count_epoch(sampler, 400, LABELS).counted == 3
    assert count_epoch(sampler, 2, LABELS).counted == 2
