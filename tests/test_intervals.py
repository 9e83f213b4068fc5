"""Intervals of rates and thresholds: against loops and known distributions, and how often they hold the truth."""

import math
import time
from pathlib import Path
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from facekit.bootstrap import bootstrap_interval
from facekit.images import read_image
from facekit.intervals import binomial_interval, prediction_interval, rate_interval, threshold_interval
from facekit.metrics import FloatArray, IntArray
from facekit.thresholds import threshold_at_fmr
from tests import reference_metrics as reference
from tests.pair_cases import crowd, normal_pairs, quickly

TARGETS = (0.1, 0.01, 0.005)

# ---- Rates -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("errors", "trials"), [(0, 1), (1, 1), (0, 300), (300, 300), (3, 10), (17, 2000), (1, 9)])
def test_the_binomial_interval_is_the_exact_one(errors: int, trials: int) -> None:
    expected = stats.binomtest(errors, trials).proportion_ci(method="exact")
    assert binomial_interval(errors, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_independent_pairs_have_the_binomial_interval() -> None:
    errors = np.arange(500) < 20
    assert rate_interval(errors) == pytest.approx(binomial_interval(20, 500), abs=1e-12)
    assert rate_interval(~errors) == pytest.approx(binomial_interval(480, 500), abs=1e-12)
    assert rate_interval(errors & False) == pytest.approx((0, 1 - 0.025 ** (1 / 500)), abs=1e-12)
    # Each genuine pair of a person of its own, and impostor pairs of people who are in no other, share nobody.
    assert rate_interval(errors, np.arange(500), np.arange(500)) == pytest.approx(binomial_interval(20, 500))


PEOPLE = st.integers(min_value=0, max_value=4)


def _loops(errors: list[bool], ids1: list[int], ids2: list[int]) -> tuple[float, float]:
    """The interval of effective numbers, the long way."""
    pairs, rate = len(errors), sum(errors) / len(errors)
    from_people, from_couples = reference.variance_parts(errors, ids1, ids2)
    variance = max(max(from_people, 0) + from_couples, rate * (1 - rate) / pairs)
    few = max(min(reference.equal_people(ids1, ids2), pairs) - 1, 1)
    caution = (stats.t.ppf(0.975, max(pairs - 1, 1)) / stats.t.ppf(0.975, few)) ** 2
    trials = caution * rate * (1 - rate) / variance
    return binomial_interval(rate * trials, trials)


@quickly
@given(st.lists(st.tuples(PEOPLE, PEOPLE, st.booleans()), min_size=2, max_size=12))
def test_the_effective_number_of_pairs_equals_the_loops(rows: list[tuple[int, int, bool]]) -> None:
    ids1, ids2 = [a for a, _, _ in rows], [b for _, b, _ in rows]
    errors = [wrong for _, _, wrong in rows]
    found = rate_interval(errors, ids1, ids2)
    if len(set(errors)) == 2:
        assert found == pytest.approx(_loops(errors, ids1, ids2), abs=1e-9)
    names = [[f"person {number}" for number in ids] for ids in (ids1, ids2)]
    assert rate_interval(errors, *names) == pytest.approx(found, abs=1e-12)
    flipped = rate_interval([not wrong for wrong in errors], ids1, ids2)
    assert (1 - flipped[1], 1 - flipped[0]) == pytest.approx(found, abs=1e-9)


def test_the_variance_is_that_of_the_bootstrap_over_people() -> None:
    first, second, _ = crowd(1500, 60)
    impostor = first != second
    first, second = first[impostor], second[impostor]
    rng = np.random.default_rng(0)
    person = rng.normal(0, 0.2, 60)
    errors = person[first] + person[second] + rng.normal(0, 0.2, first.size) < -0.3
    drawn: list[float] = []

    def rate(weights: np.ndarray) -> float:
        drawn.append(float(weights @ errors / weights.sum()))
        return 0.0

    bootstrap_interval(rate, first.size, first, second, resamples=2000)
    parts = reference.variance_parts(errors.tolist(), first.tolist(), second.tolist())
    assert sum(parts) == pytest.approx(np.var(drawn), rel=0.15)


def test_no_error_is_worth_what_one_would_leave() -> None:
    first, second = np.triu_indices(40, 1)
    nothing = np.zeros(first.size, dtype=bool)
    low, high = rate_interval(nothing, first, second)
    assert low == 0
    assert 10 / first.size < high < 13 / first.size
    one = nothing.copy()
    one[7] = True
    assert high < rate_interval(one, first, second)[1]
    assert rate_interval(~nothing, first, second) == pytest.approx((1 - high, 1))
    assert rate_interval(np.zeros(500, bool), np.arange(500), np.arange(500))[1] == pytest.approx(
        3.67 / 500, rel=0.01
    )


def test_few_people_have_wide_intervals() -> None:
    errors = np.arange(400) % 10 == 0
    widths = []
    for people in (2, 3, 10, 100):
        person = np.arange(400) // 10 % people
        low, high = rate_interval(errors, person, person)
        widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[0] > 3 * widths[-1]
    # One person with most of the pairs counts as few people.
    heavy = np.where(np.arange(400) < 300, 0, np.arange(400))
    low, high = rate_interval(errors, heavy, heavy)
    assert high - low > 1.5 * widths[-1]


def test_rates_refuse_what_does_not_fit() -> None:
    assert np.isnan(rate_interval([])).all()
    assert rate_interval([True]) == pytest.approx((0.025, 1))
    with pytest.raises(ValueError, match="belong together"):
        rate_interval([True, False], ids2=["a", "b"])
    with pytest.raises(ValueError, match="one entry a pair. Received: 3 for 2 pairs"):
        rate_interval([True, False], ["a"] * 3, ["a"] * 3)
    for errors, trials in ((0, 0), (3, 2), (-1, 2), (math.nan, 2)):
        with pytest.raises(ValueError, match="`trials` must be above 0 and `errors` 0 to `trials`"):
            binomial_interval(errors, trials)


# ---- How often they hold the truth, at thresholds chosen on the same pairs -------------------------------------


def _impostors(
    people: int, spread: float, pairs: int | None, rng: np.random.Generator
) -> tuple[FloatArray, IntArray, IntArray]:
    """Distances with an effect of each person and one of each pair (of deviation 1), and the pairs' people."""
    first, second = np.triu_indices(people, 1)
    if pairs:
        kept = rng.choice(first.size, pairs, replace=False)
        first, second = first[kept], second[kept]
    effect = rng.normal(0, spread, people)
    return effect[first] + effect[second] + rng.normal(0, 1, first.size), first, second


def _cover(
    people: int | None, spread: float, pairs: int | None, target: float, studies: int
) -> tuple[float, float, float]:
    """How often the interval of the FMR, and of the threshold, holds the truth; and how wide the first is.

    The width is relative to that of the true FMR's own distribution over the studies.
    """
    normal = NormalDist(0, math.sqrt(1 + 2 * spread**2))
    within_fmr = within_threshold = 0
    truths, widths = [], []
    for study in range(studies):
        rng = np.random.default_rng(study)
        if people:
            distances, *ids = _impostors(people, spread, pairs, rng)
        else:
            distances, ids = rng.normal(0, 1, pairs), []
        # One genuine pair, of one more person, closer than all: both classes must be there.
        values, same = np.append(distances, -50), np.append(np.zeros(distances.size, bool), True)
        found = threshold_at_fmr(values, same, target)
        low, high = rate_interval(distances < found.threshold, *ids)
        truths.append(normal.cdf(found.threshold))
        widths.append(high - low)
        within_fmr += low <= truths[-1] <= high
        low, high = threshold_interval(values, same, target, *(np.append(numbers, -1) for numbers in ids))
        within_threshold += low <= normal.inv_cdf(target) <= high
    ideal = np.subtract(*np.quantile(truths, [0.975, 0.025]))
    return within_fmr / studies, within_threshold / studies, float(np.median(widths) / ideal)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("pairs", [300, 3000])
def test_over_200_studies_of_independent_pairs_the_intervals_hold_the_truth(pairs: int, target: float) -> None:
    fmr, threshold, width = _cover(None, 0, pairs, target, studies=200)
    assert fmr >= 0.93
    assert threshold >= 0.93
    assert width < 1.25


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(
    ("people", "spread", "pairs"),
    [(30, 0.5, None), (30, 1, None), (60, 1, None), (60, 0.5, 600), (200, 0.5, 1000), (200, 1, 3000)],
)
def test_over_200_studies_of_people_the_intervals_hold_the_truth(
    people: int, spread: float, pairs: int | None, target: float
) -> None:
    fmr, threshold, width = _cover(people, spread, pairs, target, studies=200)
    assert fmr >= 0.93
    assert threshold >= 0.93
    assert width < 2.5


def test_people_counted_as_independent_pairs_would_not_hold_it() -> None:
    within = 0
    for study in range(200):
        distances, *_ = _impostors(60, 1, None, np.random.default_rng(study))
        threshold = np.sort(distances)[distances.size // 10]
        low, high = rate_interval(distances < threshold)
        within += low <= NormalDist(0, math.sqrt(3)).cdf(threshold) <= high
    assert within < 0.5 * 200


@pytest.mark.slow
@pytest.mark.parametrize("target", [*TARGETS, 0.001])
@pytest.mark.parametrize("people", [30, 60, 200])
@pytest.mark.parametrize("spread", [0, 0.5, 1])
@pytest.mark.parametrize("every", [True, False])
def test_over_500_studies_the_intervals_hold_the_truth(
    people: int, spread: float, every: bool, target: float
) -> None:
    fmr, threshold, _ = _cover(people, spread, None if every else 3 * people, target, studies=500)
    # 500 studies are off by up to 0.02; 200 people whose differences are as large as those of pairs come closest.
    assert fmr >= 0.92
    assert threshold >= 0.92


# ---- Thresholds ------------------------------------------------------------------------------------------------


def test_the_threshold_interval_ends_at_the_thresholds_of_the_rates_interval() -> None:
    distances, same = np.append(np.arange(1000.0), -1), np.arange(1001) == 1000
    low, high = binomial_interval(50, 1000)
    # The i-th smallest of these impostor distances is i - 1.
    assert threshold_interval(distances, same, 0.05) == (int(1000 * low) - 1, int(1000 * high) - 1)
    shuffled = np.random.default_rng(0).permutation(1001)
    assert threshold_interval(distances[shuffled], same[shuffled], 0.05) == threshold_interval(
        distances, same, 0.05
    )
    # At a rate of 0.003 none of 1000 is below the true threshold in 5 % of studies: no impostor pair bounds it.
    assert threshold_interval(distances, same, 0.003)[0] == -1
    assert threshold_interval([0.1, 0.9], [True, False], 0.5) == (0.1, 0.9)
    assert np.isnan(threshold_interval([0.1, 0.9], [False, False], 0.5)).all()
    with pytest.raises(ValueError, match=r"`fmr` must be in \(0, 1\)"):
        threshold_interval(distances, same, 1.0)


# ---- Predictions -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pairs", [300, 10_000])
@pytest.mark.parametrize("second", [100, 3000, 100_000])
@pytest.mark.parametrize("accepted", [0, 1, 3, 30])
def test_a_prediction_for_independent_pairs_holds_as_often_as_it_says(
    pairs: int, second: int, accepted: int
) -> None:
    low, high = prediction_interval(np.arange(pairs) < accepted, second)
    # A threshold at the (k + 1)-th smallest of n distances accepts a beta-binomial number of others.
    exact = stats.betabinom(second, accepted + 1, pairs - accepted)
    above, below = exact.sf(math.floor(high * second)), exact.cdf(math.ceil(low * second) - 1)
    assert above < 0.026
    assert below < 0.026
    if accepted == 30 and second > 100:
        assert min(above, below) > 0.01


def test_a_prediction_is_wider_than_the_interval_and_nears_it_as_the_second_sample_grows() -> None:
    distances, first, second = _impostors(100, 0.5, None, np.random.default_rng(0))
    accepted = distances < -2
    low, high = rate_interval(accepted, first, second)
    ends = [
        prediction_interval(accepted, people * (people - 1) // 2, people, first, second)
        for people in (10, 100, 1000, 10**6)
    ]
    assert all(one[0] < other[0] < low * 1.1 for one, other in zip(ends, ends[1:], strict=False))
    assert all(one[1] > other[1] > high * 0.9 for one, other in zip(ends, ends[1:], strict=False))
    assert ends[-1] == pytest.approx((low, high), rel=0.1)
    # Few pairs of many people leave the chance of a small count, with the bootstrap's three times its variance.
    rate, few_pairs = accepted.mean(), prediction_interval(accepted, 100, 10**6, first, second)
    assert few_pairs[1] - rate > 1.96 * math.sqrt(3 * rate * (1 - rate) / 100)
    # Many pairs of few people still leave the chance of who these people are.
    few_people = prediction_interval(accepted, 10**9, 20, first, second)
    assert few_people[1] - few_people[0] > 1.5 * (high - low)


def test_predictions_refuse_what_does_not_fit() -> None:
    assert prediction_interval([False, False], 10)[1] == 1
    with pytest.raises(ValueError, match="needs at least 2 impostor pairs in the first sample and 1 in the second"):
        prediction_interval([True], 10)
    with pytest.raises(ValueError, match="Received: 2 and 0"):
        prediction_interval([True, False], 0)
    for people, ids in ((5, None), (None, [1, 2]), (1, [1, 2])):
        with pytest.raises(ValueError, match="`people` must be at least 2 with `ids1` and `ids2`, None without"):
            prediction_interval([True, False], 10, people, ids, ids)


def _observed(
    distances: FloatArray, people: IntArray, splits: int, share: float, targets: tuple[float, ...]
) -> tuple[float, float]:
    """Calibrate on some people, count on the others: how often a prediction holds the rate, and an interval does.

    Args:
        distances: (n, n) between all pictures.
        people: (n,) the person of each, from 0.
        splits: how often to part the people.
        share: of the people who calibrate.
        targets: false-match rates asked for. The lowest share over them is returned.
    """
    total = int(people.max()) + 1
    calibrating = round(total * share)
    predicted, confident = np.zeros(len(targets)), np.zeros(len(targets))
    for split in range(splits):
        chosen = np.isin(people, np.random.default_rng(split).permutation(total)[:calibrating])
        sides = []
        for side in (np.flatnonzero(chosen), np.flatnonzero(~chosen)):
            one, two = (side[index] for index in np.triu_indices(side.size, 1))
            impostor = people[one] != people[two]
            sides.append((one[impostor], two[impostor]))
        first, second = (distances[side] for side in sides)
        ids = people[sides[0][0]], people[sides[0][1]]
        for place, target in enumerate(targets):
            threshold = np.partition(first, int(target * first.size))[int(target * first.size)]
            accepted, rate = first < threshold, float(np.mean(second < threshold))
            low, high = prediction_interval(accepted, second.size, total - calibrating, *ids)
            predicted[place] += low <= rate <= high
            low, high = rate_interval(accepted, *ids)
            confident[place] += low <= rate <= high
    return float(predicted.min() / splits), float(confident.min() / splits)


@pytest.mark.parametrize("share", [2 / 3, 1 / 2, 1 / 3])
def test_calibrated_on_some_drawn_people_the_rate_of_others_is_as_predicted(share: float) -> None:
    rng = np.random.default_rng(0)
    effect, noise = rng.normal(0, 0.5, 200), np.triu(rng.normal(0, 1, (200, 200)), 1)
    distances = effect[:, None] + effect + noise + noise.T
    predicted, confident = _observed(distances, np.arange(200), 200, share, (0.1, 0.01))
    assert predicted >= 0.93
    # An interval of the true rate lacks the second sample's noise.
    assert confident < min(predicted, 0.96)


@pytest.mark.lfw
@pytest.mark.parametrize("share", [1 / 2, 1 / 3])
def test_calibrated_on_some_people_of_lfw_the_rate_of_others_is_as_predicted(lfw: Path, share: float) -> None:
    folders = sorted(folder for folder in (lfw / "images").iterdir() if folder.is_dir())[:300]
    pictures = [(number, path) for number, folder in enumerate(folders) for path in sorted(folder.iterdir())[:2]]
    # Nothing trained: grey values of the middle in blocks of 5 x 5 pixels, as unit vectors.
    rows = [read_image(path)[75:175, 75:175].mean(axis=2) for _, path in pictures]
    blocks = np.stack(rows).reshape(len(rows), 20, 5, 20, 5).mean(axis=(2, 4)).reshape(len(rows), 400)
    unit = blocks - blocks.mean(axis=1, keepdims=True)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    distances = np.sqrt(np.maximum(2 - 2 * unit @ unit.T, 0))
    people = np.array([number for number, _ in pictures])
    predicted, _ = _observed(distances, people, 200, share, (0.1, 0.01, 0.001))
    assert predicted >= 0.93


# ---- Size ------------------------------------------------------------------------------------------------------


def test_a_million_and_a_half_pairs_take_seconds() -> None:
    distances, _ = normal_pairs(1_500_000)
    first, second, same = crowd(1_500_000, 5000)
    start = time.process_time()
    threshold_interval(distances, same, 0.001, first, second)
    assert time.process_time() - start < 6
