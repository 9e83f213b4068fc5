"""Intervals of shares: against SciPy's exact one, and against what drawing people must give."""

import numpy as np
import pytest
from scipy.stats import binomtest

from facekit.shares import share_interval


@pytest.mark.parametrize(("right", "answers"), [(0, 5), (1, 1), (3, 7), (40, 40), (90, 100)])
def test_without_people_the_interval_is_clopper_and_pearsons(right: int, answers: int) -> None:
    low, high, by_people = share_interval(np.arange(answers) < right)
    expected = binomtest(right, answers).proportion_ci(method="exact")
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert not by_people


def test_one_person_only_gives_the_exact_interval_too() -> None:
    right = np.arange(10) < 4
    assert share_interval(right, ["ann"] * 10) == share_interval(right)


def test_people_are_drawn_and_not_their_answers() -> None:
    rng = np.random.default_rng(0)
    # Each of 80 people is either always recognised or never: 1600 answers say no more than 80.
    known = rng.random(80) < 0.7
    low, high, by_people = share_interval(np.repeat(known, 20), np.repeat(np.arange(80), 20))
    half = 1.96 * known.std() / np.sqrt(80)
    assert by_people
    assert (low, high) == pytest.approx((known.mean() - half, known.mean() + half), abs=0.02)


def test_people_of_many_answers_weigh_more() -> None:
    # One person with 90 right answers, nine with one wrong one each: the share is 90 / 99, unless that one is lost.
    right, people = np.arange(99) < 90, np.append(np.zeros(90, int), np.arange(1, 10))
    low, high, _ = share_interval(right, people)
    assert low < 0.01
    assert high > 90 / 99


def test_all_right_or_none_is_bounded_by_the_number_of_people() -> None:
    people = np.repeat(np.arange(50), 4)
    far = binomtest(0, 50).proportion_ci(method="exact").high
    assert share_interval(np.ones(200, bool), people)[:2] == (pytest.approx(1 - far), 1.0)
    assert share_interval(np.zeros(200, bool), people)[:2] == (0.0, pytest.approx(far))


def test_the_true_share_lies_within_where_people_differ() -> None:
    rng = np.random.default_rng(0)
    people, inside = np.repeat(np.arange(60), 5), 0
    for _ in range(200):
        able = rng.beta(20, 1, 60)  # mean 20 / 21
        low, high, _ = share_interval((rng.random((60, 5)) < able[:, None]).ravel(), people)
        inside += low <= 20 / 21 <= high
    assert inside >= 0.93 * 200


def test_lists_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="two lists of one length, at least 1"):
        share_interval([])
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(3,\)"):
        share_interval([True, False], ["a", "b", "c"])
