"""Thresholds at a false-match rate and by cost: against loops, with their evidence; and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from facekit.bootstrap import bootstrap_interval
from facekit.calibration import calibrate_at_fmr, calibrate_by_cost
from facekit.intervals import rate_interval, threshold_interval
from facekit.metrics import rates_at
from facekit.scored import ScoredPairs
from tests import reference_metrics as reference
from tests.pair_cases import crowd, normal_pairs


def scored_pairs(n: int = 2000, failed: int = 20, seed: int = 0, known: bool = True) -> ScoredPairs:
    """Normal scores of 300 people's pairs, the first few lost to detection."""
    distances, same = normal_pairs(n, seed)
    lost = np.arange(n) < failed
    first, second, _ = crowd(n, 300, seed)
    return ScoredPairs(
        np.where(lost, np.nan, distances),
        same,
        lost,
        ids1=first if known else None,
        ids2=second if known else None,
    )


def as_cosines(scored: ScoredPairs) -> ScoredPairs:
    """The same pairs of unit vectors, scored by cosine."""
    return replace(scored, distances=scored.distances**2 / 2 - 1, kind="cosine")


@pytest.mark.parametrize("fmr", [0.003, 0.01, 0.1, 0.5])
def test_the_threshold_is_the_largest_within_the_rate(fmr: float) -> None:
    scored = scored_pairs()
    found = calibrate_at_fmr(scored, fmr)
    distances, same = scored.ranked.tolist(), scored.same.tolist()
    assert found.threshold == reference.best_within(distances, same, fmr)[1]
    rates = reference.rates(distances, same, found.threshold)
    assert (found.fmr, found.fnmr) == (rates["fpr"], rates["fnr"])
    assert str(fmr) in found.criterion


def test_failed_pairs_count_and_are_never_accepted() -> None:
    scored = scored_pairs(failed=200)
    found = calibrate_at_fmr(scored, 0.01)
    assert (found.genuine, found.impostor) == (1000, 1000)
    assert found.fnmr >= 100 / 1000
    assert found.fmr <= 0.01


def test_intervals_hold_the_figures_and_say_what_they_draw() -> None:
    for known, by in ((True, "identity"), (False, "pair")):
        found = calibrate_at_fmr(scored_pairs(known=known), 0.05)
        assert found.by == by
        assert found.threshold_interval[0] < found.threshold < found.threshold_interval[1]
        assert found.fmr_interval[0] < found.fmr < found.fmr_interval[1]
        assert found.fnmr_interval[0] < found.fnmr < found.fnmr_interval[1]


def test_people_are_drawn_where_they_are_known() -> None:
    ends = [calibrate_at_fmr(scored_pairs(known=known), 0.05).threshold_interval for known in (True, False)]
    assert ends[0] != ends[1]


def test_an_interval_ends_within_the_scores_though_many_pairs_failed() -> None:
    scored = scored_pairs(n=400, failed=240)
    found = calibrate_at_fmr(scored, 0.35)
    assert threshold_interval(scored.ranked, scored.same, 0.35, scored.ids1, scored.ids2)[1] == math.inf
    assert found.threshold_interval[1] == np.nanmax(scored.distances)


def test_intervals_are_those_of_the_decisions() -> None:
    scored = scored_pairs()
    found = calibrate_at_fmr(scored, 0.05)
    assert scored.ids1 is not None and scored.ids2 is not None
    for kind, interval in ((~scored.same, found.fmr_interval), (scored.same, found.fnmr_interval)):
        wrong = (scored.ranked[kind] < found.threshold) != scored.same[kind]
        assert interval == rate_interval(wrong, scored.ids1[kind], scored.ids2[kind])


def test_the_floor_is_the_rule_of_three() -> None:
    scored = scored_pairs(n=600, failed=0)
    found = calibrate_at_fmr(scored, 0.01)
    assert found.floor == 3 / 300
    assert found.claimable
    # The target is what is claimed, though the rate measured may be below the floor.
    tied = replace(scored, distances=np.where(scored.same, 0.5, np.where(np.arange(600) < 12, 0.9, 1.0)))
    assert calibrate_at_fmr(tied, 0.01).fmr == 0
    assert calibrate_at_fmr(tied, 0.01).claimable
    with pytest.raises(
        ValueError,
        match=r"An FMR of 0\.0099 needs 304 impostor pairs, there are 300: fewer cannot tell it from 0\.01",
    ):
        calibrate_at_fmr(scored, 0.0099)


def test_a_rate_that_every_face_meets_has_no_threshold() -> None:
    scored = scored_pairs(n=200, failed=150)
    with pytest.raises(
        ValueError, match=r"Accepting every pair with a face in both pictures has an FMR of 0\.2500"
    ):
        calibrate_at_fmr(scored, 0.3)


@pytest.mark.parametrize("fmr", [0.0, 1.0, -0.1, math.nan])
def test_a_rate_must_be_a_share(fmr: float) -> None:
    with pytest.raises(ValueError, match=r"`fmr` must be in \(0, 1\)"):
        calibrate_at_fmr(scored_pairs(), fmr)


@pytest.mark.parametrize("calibrate", [lambda scored: calibrate_at_fmr(scored, 0.1), calibrate_by_cost])
@pytest.mark.parametrize(("kind", "label"), [("genuine", True), ("impostor", False)])
def test_one_class_is_refused(calibrate, kind: str, label: bool) -> None:
    scored = scored_pairs()
    with pytest.raises(ValueError, match=f"All 1,000 pairs are {kind}"):
        calibrate(scored.chosen(scored.same == label))


def test_the_cost_threshold_is_that_of_the_loops() -> None:
    distances, same = normal_pairs(60)
    found = calibrate_by_cost(ScoredPairs(distances, same, np.zeros(60, bool)))
    assert found.threshold == reference.cost_threshold(distances.tolist(), same.tolist())[0]
    assert "0.8 FMR + 0.2 FNMR" in found.criterion


def test_the_cost_threshold_of_cosines_is_the_same_in_cosines() -> None:
    scored = scored_pairs()
    by_distance, by_cosine = calibrate_by_cost(scored), calibrate_by_cost(as_cosines(scored))
    assert by_cosine.threshold == pytest.approx(by_distance.threshold**2 / 2 - 1)
    assert by_cosine.threshold_interval == pytest.approx(
        tuple(end**2 / 2 - 1 for end in by_distance.threshold_interval)
    )
    assert (by_cosine.fmr, by_cosine.fnmr) == (by_distance.fmr, by_distance.fnmr)
    rates = rates_at(as_cosines(scored).ranked, scored.same, by_cosine.threshold)
    assert rates.fpr == by_cosine.fmr


def test_the_interval_of_the_cost_threshold_is_that_of_repeated_searches() -> None:
    scored = scored_pairs(n=80, failed=2)
    values, same, people = scored.ranked, scored.same, scored.people
    assert people is not None

    def searched(weights: np.ndarray) -> float:
        times = weights.astype(int)
        drawn, kinds = np.repeat(values, times), np.repeat(same, times)
        if kinds.all() or not kinds.any():
            return math.nan
        grid = np.arange(1000, 15001) / 10000
        fmr = (drawn[~kinds][:, None] < grid).mean(axis=0)
        fnmr = (drawn[kinds][:, None] >= grid).mean(axis=0)
        # Rounded, so that equal costs that were added up in another order stay equal.
        return float(grid[np.argmin(np.round(0.8 * fmr + 0.2 * fnmr, 12))])

    expected = bootstrap_interval(searched, 80, *people)
    found = calibrate_by_cost(scored)
    assert found.threshold_interval == pytest.approx((expected.low, expected.high), abs=1e-3)


def test_a_cost_needs_distances_of_unit_vectors() -> None:
    scored = replace(scored_pairs(), kind="similarity")
    with pytest.raises(ValueError, match="of the kind similarity. Choose a false-match rate"):
        calibrate_by_cost(scored)


def test_a_cost_is_claimable_where_its_rate_is() -> None:
    found = calibrate_by_cost(scored_pairs())
    assert found.claimable is (found.fmr >= found.floor)
    clean = scored_pairs(n=200, failed=0)
    apart = replace(clean, distances=np.where(clean.same, 0.5, 1.2))
    assert calibrate_by_cost(apart).fmr == 0
    assert not calibrate_by_cost(apart).claimable


@pytest.mark.slow
def test_the_true_rate_lies_in_the_interval() -> None:
    # Impostor scores are normal, so that the true rate at any threshold is known.
    inside = 0
    for seed in range(200):
        found = calibrate_at_fmr(scored_pairs(failed=0, seed=seed), 0.05)
        true = 0.5 * math.erfc((1.3 - found.threshold) / 0.2 / math.sqrt(2))
        inside += found.fmr_interval[0] <= true <= found.fmr_interval[1]
    assert inside >= 0.93 * 200
