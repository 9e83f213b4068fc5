"""Intervals: against slow loops and known distributions."""

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekit.bootstrap import Interval, bootstrap_interval, score_intervals, weighted_auc, weighted_rates
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


def test_intervals_end_at_the_rule_of_three_where_nothing_went_wrong() -> None:
    distances, same = np.r_[np.zeros(100), np.ones(300)], np.arange(400) < 100
    found = score_intervals(distances, same, distances < 0.5)
    assert (found.by, found.resamples) == ("pair", 1000)
    assert found.fmr == (0.0, 0.01)
    assert found.fnmr == (0.0, 0.03)
    assert found.auc == (1.0, 1.0)


def test_intervals_refuse_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="belong together"):
        score_intervals([0.1, 0.2], [True, False], [True, False], ids1=["a", "b"])
    with pytest.raises(ValueError, match="one entry a pair. Received: 3 for 2 pairs"):
        score_intervals([0.1, 0.2], [True, False], [True, False], ["a"] * 3, ["a"] * 3)
    with pytest.raises(ValueError, match=r"shapes \(1,\) and \(2,\)"):
        score_intervals([0.1, 0.2], [True, False], [True])


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


def test_a_thousand_resamples_of_6000_pairs_take_seconds() -> None:
    distances, _ = normal_pairs(6000)
    first, second, same = crowd(6000, 2000)
    start = time.process_time()
    found = score_intervals(distances, same, distances < 1, first, second)
    assert time.process_time() - start < 10
    assert (found.by, found.resamples) == ("identity", 1000)
