"""The bootstrap and intervals of scores: against slow loops and known distributions."""

import math
import time
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekit.bootstrap import (
    Interval,
    bootstrap_interval,
    roc_band,
    score_intervals,
    weighted_auc,
    weighted_rates,
    weighted_tpr_at_fpr,
)
from facekit.intervals import rate_interval
from facekit.metrics import FloatArray
from tests import reference_metrics as reference
from tests.pair_cases import Scores, crowd, normal_pairs, quickly, scored_pairs


@quickly
@given(scored_pairs(), st.lists(st.integers(min_value=0, max_value=3), min_size=14, max_size=14))
def test_a_weight_is_a_repetition(pairs: Scores, times: list[int]) -> None:
    distances, same = pairs
    times = times[: len(same)]
    repeated = [i for i, count in enumerate(times) for _ in range(count)]
    weights, labels = np.array(times, dtype=float), np.array(same)
    accepted = np.array(distances) < 0.5
    area, rates = weighted_auc(distances, same)(weights), weighted_rates(accepted, labels)(weights)
    if len({same[i] for i in repeated}) < 2:
        assert math.isnan(area)
        assert np.isnan(rates).all()
        return
    drawn, kinds = [distances[i] for i in repeated], [same[i] for i in repeated]
    assert area == pytest.approx(reference.auc(drawn, kinds), abs=1e-12)
    expected = reference.rates(drawn, kinds, 0.5)
    assert rates[1:].tolist() == pytest.approx([expected["fpr"], expected["fnr"]], abs=1e-12)
    share = labels.mean()
    right = share * (1 - expected["fnr"]) + (1 - share) * (1 - expected["fpr"])
    assert rates[0] == pytest.approx(right, abs=1e-12)


def _drawn(
    pairs: int, resamples: int, ids1: list[str] | None = None, ids2: list[str] | None = None
) -> tuple[list[np.ndarray], Interval]:
    """The weights of all resamples, and the interval of the first pair's."""
    seen: list[np.ndarray] = []

    def first_weight(weights: np.ndarray) -> float:
        seen.append(weights)
        return float(weights[0])

    return seen, bootstrap_interval(first_weight, pairs, ids1, ids2, resamples)


def test_people_are_drawn_and_their_pairs_count_with_them() -> None:
    ids1, ids2 = [*"abcde", *"abcab"], [*"abcde", *"bcdec"]
    seen, _ = _drawn(10, 50, ids1, ids2)
    for weights in seen:
        times = dict(zip("abcde", weights[:5], strict=True))
        assert sum(times.values()) == 5
        assert weights[5:].tolist() == [times[a] * times[b] for a, b in zip(ids1[5:], ids2[5:], strict=True)]
    assert len({tuple(weights) for weights in seen}) > 20


def test_without_people_pairs_are_drawn() -> None:
    seen, interval = _drawn(8, 400)
    assert all(weights.sum() == 8 for weights in seen)
    assert (interval.low, interval.high) == tuple(np.quantile([weights[0] for weights in seen], [0.025, 0.975]))


@quickly
@given(scored_pairs(), st.lists(st.integers(min_value=0, max_value=3), min_size=14, max_size=14))
def test_tpr_at_fpr_of_weighted_pairs_is_that_of_repeated_ones(pairs: Scores, times: list[int]) -> None:
    distances, same = pairs
    rates = [0.0, 0.1, 0.25, 0.5, 0.7, 1.0]
    statistic = weighted_tpr_at_fpr(distances, same, [*rates, math.nan])
    repeated = [i for i, count in enumerate(times[: len(same)]) for _ in range(count)]
    drawn, kinds = [distances[i] for i in repeated], [same[i] for i in repeated]
    found = statistic(np.array(times[: len(same)], dtype=float))
    assert math.isnan(found[-1])
    if len(set(kinds)) < 2:
        assert np.isnan(found).all()
    else:
        expected = [reference.best_within(drawn, kinds, rate)[0] for rate in rates]
        assert found[:-1].tolist() == pytest.approx(expected, abs=1e-12)


# ---- Intervals of scores ---------------------------------------------------------------------------------------


def test_score_intervals_are_those_of_their_rates() -> None:
    distances, _ = normal_pairs(600)
    first, second, same = crowd(600, 40)
    accepted = distances < 1
    by_pair = score_intervals(distances, same, accepted)
    assert (by_pair.by, by_pair.resamples) == ("pair", 1000)
    assert by_pair.fmr == pytest.approx(rate_interval(accepted[~same]), abs=1e-12)
    found = score_intervals(distances, same, accepted, first, second)
    assert (found.by, found.resamples) == ("identity", 1000)
    expected = rate_interval(accepted[~same], first[~same], second[~same])
    assert found.fmr == pytest.approx(expected, abs=1e-12) != by_pair.fmr
    assert found.fnmr == pytest.approx(rate_interval(~accepted[same], first[same], second[same]), abs=1e-12)
    interval = bootstrap_interval(weighted_auc(distances, same), 600, first, second)
    assert found.auc == (interval.low, interval.high)
    again = score_intervals(distances, same, accepted, first, second, seed=1)
    assert again.fmr == found.fmr
    assert again.auc != found.auc


def test_the_accuracys_variance_is_that_of_the_bootstrap_with_fixed_shares() -> None:
    distances, _ = normal_pairs(2000)
    first, second, same = crowd(2000, 100)
    person = np.random.default_rng(0).normal(0, 0.2, 100)
    accepted = distances + person[first] + person[second] < 1.05
    rates, drawn = weighted_rates(accepted, same), []

    def accuracy(weights: FloatArray) -> float:
        drawn.append(rates(weights)[0])
        return 0.0

    bootstrap_interval(accuracy, 2000, first, second, 1500)
    low, high = score_intervals(distances, same, accepted, first, second).accuracy
    assert low < np.mean(accepted == same) < high
    # The interval is exact, not normal, and widened for 100 people: a little more than 2 x 1.96 deviations.
    assert (high - low) / (2 * 1.96 * np.std(drawn)) == pytest.approx(1.05, abs=0.07)


def test_people_with_more_genuine_pairs_do_not_count_as_worse_in_the_accuracy() -> None:
    rng = np.random.default_rng(0)
    same = np.arange(2000) % 2 == 0
    # Many genuine pairs of the first people, and most genuine pairs are rejected at random.
    first = np.where(same, 100 * rng.random(2000) ** 2, 100 * rng.random(2000)).astype(int)
    second = np.where(same, first, (first + rng.integers(1, 100, 2000)) % 100)
    accepted = rng.random(2000) < np.where(same, 0.3, 0.02)
    by_pair = score_intervals(accepted, same, accepted).accuracy
    by_identity = score_intervals(accepted, same, accepted, first, second).accuracy
    assert by_identity[1] - by_identity[0] < 1.8 * (by_pair[1] - by_pair[0])


def test_classes_that_do_not_overlap_still_have_intervals() -> None:
    distances, same = np.r_[np.zeros(100), np.ones(300)], np.arange(400) < 100
    found = score_intervals(distances, same, distances < 0.5)
    assert found.fmr == (0, pytest.approx(1 - 0.025 ** (1 / 300)))
    assert found.fnmr == (0, pytest.approx(1 - 0.025 ** (1 / 100)))
    assert found.accuracy == (pytest.approx(0.025 ** (1 / 400)), 1)
    assert found.auc == (pytest.approx(0.025 ** (1 / 100)), 1)
    assert score_intervals(-distances, same, same).auc == (0, pytest.approx(1 - 0.025 ** (1 / 100)))
    ids1, ids2 = np.arange(400) // 2, np.where(same, np.arange(400) // 2, np.arange(400) // 2 + 200)
    by_identity = score_intervals(distances, same, distances < 0.5, ids1, ids2)
    assert by_identity.auc[0] < found.auc[0]
    assert 1 - by_identity.accuracy[0] > 2 * (1 - found.accuracy[0])
    assert by_identity.fmr[1] > 2 * found.fmr[1]


def test_intervals_of_one_class_are_nan() -> None:
    found = score_intervals([0.1, 0.2], [False, False], [True, False])
    assert np.isnan([found.auc, found.accuracy, found.fmr, found.fnmr]).all()
    assert np.isnan(roc_band([0.1, 0.2], [False, False], [0.1, 0.5])).all()


def test_intervals_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="belong together"):
        score_intervals([0.1, 0.2], [True, False], [True, False], ids1=["a", "b"])
    with pytest.raises(ValueError, match="one entry a pair. Received: 3 for 2 pairs"):
        score_intervals([0.1, 0.2], [True, False], [True, False], ["a"] * 3, ["a"] * 3)
    with pytest.raises(ValueError, match=r"shapes \(1,\) and \(2,\)"):
        score_intervals([0.1, 0.2], [True, False], [True])
    with pytest.raises(ValueError, match="`fprs` must be rates, 0 to 1. Received: 0.1 to 1.1"):
        roc_band([0.1, 0.2], [True, False], [0.1, 1.1])
    with pytest.raises(ValueError, match="belong together"):
        roc_band([0.1, 0.2], [True, False], [0.1], ids1=["a", "b"])


def _cover(studies: int, resamples: int) -> dict[str, float]:
    """How often intervals hold the truth: independent pairs drawn as pairs, people's pairs drawn both ways."""
    held = {"auc": 0, "fmr": 0, "identity": 0, "pair": 0}
    normal = math.erf(0.5 / math.sqrt(0.08) / math.sqrt(2)) / 2 + 0.5  # P(genuine < impostor): 0.5 apart, sd 0.2
    for study in range(studies):
        distances, same = normal_pairs(400, seed=study)
        found = score_intervals(distances, same, distances < 1.3, resamples=resamples, seed=study)
        held["auc"] += found.auc[0] <= normal <= found.auc[1]
        # The impostors' mean is 1.3: half of them are below it.
        held["fmr"] += found.fmr[0] <= 0.5 <= found.fmr[1]
        rng = np.random.default_rng(study)
        first, second, same = crowd(1200, 60, seed=study)
        person = rng.normal(0, 0.2, 60)
        distances = 1.3 + person[first] + person[second] + rng.normal(0, 0.1, 1200)
        for by, (ids1, ids2) in {"identity": (first, second), "pair": (None, None)}.items():
            found = score_intervals(distances, same, distances < 1.3, ids1, ids2, resamples, study)
            held[by] += found.fmr[0] <= 0.5 <= found.fmr[1]
    return {name: times / studies for name, times in held.items()}


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    held = _cover(studies=80, resamples=150)
    assert held["auc"] > 0.87
    assert held["fmr"] > 0.87
    assert held["identity"] > 0.87
    assert held["pair"] < 0.75, "people's pairs are not independent: drawing pairs must show too narrow here"


@pytest.mark.slow
def test_intervals_hold_the_truth_over_many_studies() -> None:
    held = _cover(studies=800, resamples=500)
    assert 0.925 < held["auc"] < 0.975
    assert 0.925 < held["fmr"] < 0.975
    assert 0.92 < held["identity"] < 0.99
    assert held["pair"] < 0.7


# ---- The ROC's band --------------------------------------------------------------------------------------------


def _band_covers(people: int, spread: float, apart: float, studies: int) -> tuple[float, FloatArray]:
    """Of some false-match rates, the least share of studies in which the band holds the true TPR; median widths.

    Distances have an effect of each person, which impostor pairs take from both of theirs, and one of each pair.
    """
    normal, rates = NormalDist(), np.array([0.3, 0.1, 0.03])
    thresholds = [normal.inv_cdf(rate) * math.sqrt(1 + 2 * spread**2) for rate in rates]
    truth = np.array([normal.cdf((threshold + apart) / math.sqrt(1 + spread**2)) for threshold in thresholds])
    ones, twos = np.triu_indices(people, 1)
    person = np.repeat(np.arange(people), 3)
    first, second = np.append(person, ones), np.append(person, twos)
    same = first == second
    within, widths = np.zeros(rates.size), []
    for study in range(studies):
        rng = np.random.default_rng(study)
        effect, of_one = rng.normal(0, spread, people), rng.normal(0, spread, people)
        distances = np.where(same, of_one[first] - apart, effect[first] + effect[second])
        distances += rng.normal(0, 1, same.size)
        low, high = roc_band(distances, same, rates, first, second, resamples=100, seed=study)
        within += (low <= truth) & (truth <= high)
        widths.append(high - low)
    return float(within.min() / studies), np.median(widths, axis=0)


@pytest.mark.parametrize(("spread", "apart"), [(0.5, 2), (0.5, 4.5)])
def test_the_band_holds_the_true_curve(spread: float, apart: float) -> None:
    covered, widths = _band_covers(40, spread, apart, studies=60)
    assert covered >= 0.93
    assert widths.max() < 0.6
    wider = _band_covers(20, spread, apart, studies=10)[1]
    assert (wider > widths).all()


@pytest.mark.slow
@pytest.mark.parametrize(("spread", "apart"), [(0.5, 2), (1, 2), (0.5, 4.5), (1, 4.5)])
def test_the_band_holds_the_true_curve_over_many_studies(spread: float, apart: float) -> None:
    assert _band_covers(60, spread, apart, studies=400)[0] >= 0.92


def test_the_band_of_few_people_is_wide() -> None:
    rng = np.random.default_rng(0)
    person, same = np.arange(600) // 100 % 3, np.arange(600) < 300
    distances = np.where(same, 0.8 + 0.1 * person, 1.3) + rng.normal(0, 0.2, 600)
    low, high = roc_band(distances, same, [0.1], person, np.where(same, person, (person + 1) % 3))
    assert high - low > 0.4  # Student's t doubles the 0.2 that the draws alone give


def test_the_band_knows_its_ends_and_needs_no_order() -> None:
    distances, same = normal_pairs(400)
    distances[same.argmax()] = math.inf  # a pair that failed: no threshold accepts it
    low, high = roc_band(distances, same, [0.0, 0.1, 1.0])
    assert ((low >= 0) & (high <= 1) & (low < high)).all()
    assert low[2] < 1 - 1 / 200 < high[2]
    order = np.random.default_rng(0).permutation(400)
    again = roc_band(distances[order], same[order], [0.0, 0.1, 1.0])
    np.testing.assert_array_equal([low, high], again)


# ---- Size ------------------------------------------------------------------------------------------------------


def test_a_thousand_resamples_of_6000_pairs_take_seconds() -> None:
    distances, _ = normal_pairs(6000)
    first, second, same = crowd(6000, 2000)
    start = time.process_time()
    found = score_intervals(distances, same, distances < 1, first, second)
    assert time.process_time() - start < 2
    assert (found.by, found.resamples) == ("identity", 1000)


@pytest.mark.slow
def test_a_million_and_a_half_pairs_take_seconds() -> None:
    distances, _ = normal_pairs(1_500_000)
    first, second, same = crowd(1_500_000, 5000)
    start = time.process_time()
    score_intervals(distances, same, distances < 1, first, second)
    roc_band(distances, same, np.geomspace(1e-5, 1, 80), first, second)
    assert time.process_time() - start < 40
