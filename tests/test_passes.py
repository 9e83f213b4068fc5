"""Passes over people: everyone as often as they should come, no one twice in a batch, any place found at once."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facekit.passes import Passes, _chances, frequencies

TIMES = st.lists(st.floats(0.5, 40), min_size=2, max_size=12)


def test_a_pass_is_everyone_once_in_a_new_order():
    units = Passes(7, 0).take(0, 28).reshape(4, 7)
    assert all(sorted(row) == list(range(7)) for row in units)
    assert len({tuple(row) for row in units}) == 4


@settings(deadline=None, max_examples=50, derandomize=True)
@given(TIMES, st.integers(0, 50), st.integers(1, 90), st.booleans())
def test_any_stretch_is_found_without_what_comes_before(times, start, number, even):
    given_times = None if even else np.array(times)
    stretch = Passes(len(times), 3, given_times).take(start, number)
    one_by_one = Passes(len(times), 3, given_times)
    assert stretch.tolist() == [int(one_by_one.take(start + k, 1)[0]) for k in range(number)]


@settings(deadline=None, max_examples=50, derandomize=True)
@given(TIMES, st.integers(0, 1000))
def test_a_unit_comes_the_whole_number_below_or_above_its_times(times, turn):
    wanted = np.array(times)
    length = max(1, round(wanted.sum()))
    counts = np.bincount(Passes(len(times), 0, wanted).take(turn * length, length), minlength=len(times))
    expected = wanted * length / wanted.sum()
    assert (counts >= np.floor(expected - 1e-9)).all() and (counts <= np.ceil(expected + 1e-9)).all()


def test_a_unit_that_comes_often_is_spread_over_the_pass():
    times = np.array([20.0, 20, 20])
    passes = Passes(3, 0, times)
    for turn in range(5):
        units = passes.take(60 * turn, 60)
        assert np.count_nonzero(np.diff(units)) > 20 and (np.bincount(units) == 20).all()
    # Of batches too: 20 of the 30 of a pass, not one after the other.
    there = np.array([0 in passes.take_apart(batch, 2)[1] for batch in range(30)])
    assert there.sum() == 20 and np.count_nonzero(np.diff(there)) > 6


def test_the_mean_over_passes_is_exact():
    times = np.array([0.3, 1.7, 2.45, 0.05, 4.5])  # 9 a pass
    counts = np.bincount(Passes(5, 0, times).take(0, 9 * 8000), minlength=5) / 8000
    # Of each pass the part above the whole number is a coin with that chance.
    chance = times % 1
    assert (np.abs(counts - times) < 5 * np.sqrt(chance * (1 - chance) / 8000)).all()


@settings(deadline=None, max_examples=50, derandomize=True)
@given(TIMES, st.data())
def test_no_unit_is_twice_in_a_batch(times, data):
    number = data.draw(st.integers(1, len(times)))
    passes = Passes(len(times), 1, np.array(times))
    for batch in range(30):
        turn, units = passes.take_apart(batch, number)
        assert len(set(units.tolist())) == number == len(units) and turn >= 0
    even = [Passes(len(times), 1).take_apart(batch, number) for batch in range(30)]
    per_pass = len(times) // number
    assert [turn for turn, _ in even] == [batch // per_pass for batch in range(30)]
    first_pass = np.concatenate([units for _, units in even[:per_pass]])
    assert len(set(first_pass.tolist())) == per_pass * number


@settings(deadline=None, max_examples=50, derandomize=True)
@given(TIMES, st.data(), st.booleans())
def test_enough_others_are_there_to_fill_a_batch(times, data, even):
    number = data.draw(st.integers(1, len(times)))
    further = data.draw(st.integers(number, len(times)))
    passes = Passes(len(times), 1, None if even else np.array(times))
    for batch in range(10):
        _, units = passes.take_apart(batch, number, further)
        assert units[:number].tolist() == passes.take_apart(batch, number)[1].tolist()
        assert len(set(units.tolist())) >= further


def test_batches_of_a_pass_hold_everyone_by_their_chance():
    times = np.array([1.0, 2, 3, 4, 40])
    passes = Passes(5, 0, times)
    drawn = np.array([passes.take_apart(batch, 3)[1] for batch in range(6000)])
    # The last would come 2.4 times a batch; it comes once, and 2 places are left for 1 : 2 : 3 : 4.
    chance = np.array([0.2, 0.4, 0.6, 0.8, 1])
    assert (np.abs(np.bincount(drawn.ravel()) / 6000 - chance) < 0.02).all()
    # Which of them meet changes from batch to batch.
    assert len({tuple(sorted(row)) for row in drawn.tolist()}) == 6


@settings(deadline=None, max_examples=50, derandomize=True)
@given(TIMES, st.data())
def test_chances_are_shares_cut_at_one(times, data):
    number = data.draw(st.integers(1, len(times)))
    chances = _chances(np.array(times), number)
    assert chances.sum() == pytest.approx(number) and (chances <= 1).all() and (chances > 0).all()
    free = chances < 1
    if free.any():
        rate = chances[free] / np.array(times)[free]
        assert rate == pytest.approx(rate[0]) and (np.array(times)[~free] * rate[0] >= 1 - 1e-9).all()


def test_a_late_batch_is_found_as_fast_as_the_first():
    times = np.random.default_rng(0).uniform(1, 800, 10_000)
    seconds = []
    for step in (0, 10**12):
        passes = Passes(10_000, 0, times)
        start = time.process_time()
        passes.take_apart(step, 80), passes.take(step, 80)
        seconds.append(time.process_time() - start)
    assert seconds[1] < 5 * seconds[0] + 0.5


def test_frequencies_by_name():
    counts = np.array([1, 4, 9])
    assert frequencies(counts, "people") is None
    assert frequencies(counts, "pictures").tolist() == [1, 4, 9] and frequencies(counts, "sqrt").tolist() == [
        1,
        2,
        3,
    ]
    with pytest.raises(ValueError, match='`balance` must be "people", "sqrt" or "pictures". Received: \'faces\''):
        frequencies(counts, "faces")
