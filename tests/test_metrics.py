"""Metrics, thresholds, folds, intervals, report: against slow loops, scikit-learn and known distributions."""

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score, roc_curve

from facekit.bootstrap import Interval, bootstrap_interval, score_intervals, weighted_auc, weighted_rates
from facekit.folds import folds_by_identity, folds_by_pair, kfold_accuracy, number_people
from facekit.metrics import auc, check_pairs, eer, rates_at, roc, tpr_at_fpr, with_failures
from facekit.report import verification_report
from facekit.thresholds import COST_GRID, best_accuracy_threshold, cost_threshold, threshold_at_fmr
from tests import reference_metrics as reference

Scores = tuple[list[float], list[bool]]

quickly = settings(max_examples=150, deadline=None, derandomize=True)

TIED = st.sampled_from([0.0, 0.1, 0.2501, 0.25, 0.5, 0.7, 1.0, 1.5, 1.9, math.inf])
ANY = st.floats(min_value=-3, max_value=3, allow_nan=False)


def scored_pairs(min_size: int = 2) -> st.SearchStrategy[Scores]:
    """Short lists of distances and labels, with many ties and both classes."""
    pair = st.tuples(st.one_of(TIED, TIED, ANY), st.booleans())
    lists = st.lists(pair, min_size=min_size, max_size=14)
    lists = lists.filter(lambda pairs: {same for _, same in pairs} == {True, False})
    return lists.map(lambda pairs: ([float(d) for d, _ in pairs], [same for _, same in pairs]))


def normal_pairs(n: int, seed: int = 0, shift: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    same = np.arange(n) % 2 == 0
    return np.where(same, rng.normal(0.8, 0.2, n), rng.normal(0.8 + shift, 0.2, n)), same


def crowd(pairs: int, people: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First and second person of random pairs, every second one genuine."""
    rng = np.random.default_rng(seed)
    same = np.arange(pairs) % 2 == 0
    first = rng.integers(people, size=pairs)
    return first, np.where(same, first, (first + rng.integers(1, people, size=pairs)) % people), same


# ---- The curve and rates ---------------------------------------------------------------------------------------


@quickly
@given(scored_pairs())
def test_roc_points_are_what_their_thresholds_give(pairs: Scores) -> None:
    distances, same = pairs
    curve = roc(distances, same)
    assert curve.thresholds.tolist() == reference.candidates(distances)
    for threshold, fpr, tpr in zip(curve.thresholds, curve.fpr, curve.tpr, strict=True):
        expected = reference.rates(distances, same, threshold)
        assert (fpr, tpr) == (expected["fpr"], expected["tpr"])


@quickly
@given(scored_pairs())
def test_auc_and_eer_equal_the_loops(pairs: Scores) -> None:
    distances, same = pairs
    assert auc(distances, same) == pytest.approx(reference.auc(distances, same), abs=1e-12)
    assert eer(distances, same).rate == pytest.approx(reference.eer(distances, same), abs=1e-12)


def test_auc_and_roc_equal_scikit_learn_with_ties() -> None:
    distances, same = normal_pairs(3001)
    distances = np.round(distances, 2)
    assert auc(distances, same) == pytest.approx(roc_auc_score(same, -distances), abs=1e-12)
    fpr, tpr, thresholds = roc_curve(same, -distances, drop_intermediate=False)
    curve = roc(distances, same)
    # scikit-learn accepts at its threshold, we below it: its points are ours, each one threshold earlier.
    np.testing.assert_allclose(curve.fpr, fpr)
    np.testing.assert_allclose(curve.tpr, tpr)
    np.testing.assert_allclose(curve.thresholds[:-1], -thresholds[1:])


def test_eer_is_on_the_line_between_two_points_and_names_a_threshold() -> None:
    # The points (FMR, FNMR): (0, 1), (0, 1/2), (1/3, 1/2), (2/3, 1/2), ...: they cross at FMR = FNMR = 1/2.
    rate, threshold = eer([0.1, 0.2, 0.3, 0.4, 0.5], [True, False, False, True, False])
    assert rate == pytest.approx(0.5)
    assert threshold == 0.3  # FMR 1/3 and FNMR 1/2 there: as close as the next point, and lower


@quickly
@given(scored_pairs(), st.one_of(TIED, ANY))
def test_rates_equal_the_loops(pairs: Scores, threshold: float) -> None:
    distances, same = pairs
    rates = rates_at(distances, same, threshold)
    for name, value in reference.rates(distances, same, threshold).items():
        assert getattr(rates, name) == pytest.approx(value, abs=1e-12), name
    counts = (rates.true_accepts, rates.false_accepts, rates.true_rejects, rates.false_rejects)
    assert counts == reference.counts(distances, same, threshold)


def test_rates_equal_scikit_learn() -> None:
    distances, same = normal_pairs(999)
    rates, accepted = rates_at(distances, same, 1.0), distances < 1.0
    for name, score in (
        ("accuracy", accuracy_score),
        ("precision", precision_score),
        ("recall", recall_score),
        ("f1", f1_score),
    ):
        assert getattr(rates, name) == pytest.approx(score(same, accepted)), name


def test_a_pair_at_the_threshold_is_not_accepted() -> None:
    assert rates_at([0.5, 0.5], [True, False], 0.5).true_accepts == 0
    assert rates_at([0.5, 0.5], [True, False], np.nextafter(0.5, 1)).true_accepts == 1
    at_nothing = rates_at([0.5, 0.5], [True, False], 0.5)
    assert (at_nothing.precision, at_nothing.f1, at_nothing.recall) == (0.0, 0.0, 0.0)


def test_float32_distances_keep_their_exact_thresholds() -> None:
    distances, same = normal_pairs(500)
    single = distances.astype(np.float32)
    threshold = best_accuracy_threshold(single, same)
    assert np.float32(threshold) == threshold
    assert rates_at(single, same, threshold).true_accepts == int((single < np.float32(threshold))[same].sum())


# ---- Rates that the pairs can claim ----------------------------------------------------------------------------


@quickly
@given(scored_pairs(), st.sampled_from([0.1, 0.25, 0.3, 0.5, 0.6, 0.75, 0.9, 1.0]))
def test_tpr_at_fpr_equals_the_loops_and_never_exceeds_its_rate(pairs: Scores, rate: float) -> None:
    distances, same = pairs
    impostor = same.count(False)
    (claim,) = tpr_at_fpr(distances, same, [rate])
    assert claim.claimable == (rate * impostor >= 3)
    if claim.claimable:
        assert (claim.tpr, claim.threshold) == reference.best_within(distances, same, rate)
        assert rates_at(distances, same, claim.threshold).fpr <= rate
        assert rates_at(distances, same, claim.threshold).tpr == claim.tpr
    else:
        assert math.isnan(claim.tpr)
        assert math.isnan(claim.threshold)
        assert claim.text == f"needs {claim.needs} impostor pairs"


@pytest.mark.parametrize(("rate", "impostor"), [(0.1, 30), (0.29, 100), (0.57, 100), (0.7, 10), (0.001, 3000)])
def test_the_allowed_false_accepts_are_floored_exactly(rate: float, impostor: int) -> None:
    # As floats 0.29 * 100 and 0.57 * 100 fall just short of a whole number.
    distances = np.arange(impostor + 1) / impostor
    same = np.zeros(impostor + 1, dtype=bool)
    same[-1] = True
    (claim,) = tpr_at_fpr(distances, same, [rate])
    assert rates_at(distances, same, claim.threshold).false_accepts == round(rate * impostor)
    assert threshold_at_fmr(distances, same, rate).fmr == rate


def test_a_rate_needs_three_over_it_impostor_pairs() -> None:
    for impostor, claimable in ((2999, False), (3000, True)):
        distances, same = np.linspace(0, 1, impostor + 5), np.arange(impostor + 5) < 5
        claim = tpr_at_fpr(distances, same)[-1]
        assert (claim.fpr, claim.claimable, claim.needs) == (0.001, claimable, 3000)
    assert tpr_at_fpr(distances, same, [0.3])[0].needs == 10
    with pytest.raises(ValueError, match=r"rate must be in \(0, 1\]. Received: 0.0"):
        tpr_at_fpr(distances, same, [0.0])


# ---- Thresholds ------------------------------------------------------------------------------------------------


@quickly
@given(scored_pairs())
def test_best_accuracy_threshold_equals_the_loops(pairs: Scores) -> None:
    assert best_accuracy_threshold(*pairs) == reference.best_accuracy_threshold(*pairs)


@quickly
@given(scored_pairs(), st.sampled_from([0.05, 0.1, 0.3, 0.5, 0.7, 0.9]))
def test_threshold_at_fmr_is_the_largest_within_its_target(pairs: Scores, target: float) -> None:
    distances, same = pairs
    found = threshold_at_fmr(distances, same, target)
    assert found.threshold == reference.best_within(distances, same, target)[1]
    at_it = reference.rates(distances, same, found.threshold)
    assert found.fmr == at_it["fpr"] <= target
    assert found.fnmr == pytest.approx(at_it["fnr"])
    assert found.floor == 3 / same.count(False)
    assert found.claimable == (target * same.count(False) >= 3)
    if found.threshold < math.inf:
        assert reference.rates(distances, same, np.nextafter(found.threshold, math.inf))["fpr"] > target


def test_threshold_at_fmr_refuses_a_target_that_is_no_rate() -> None:
    with pytest.raises(ValueError, match=r"`fmr` must be in \(0, 1\). Received: 1"):
        threshold_at_fmr([0.1, 0.2], [True, False], 1)


# Without shrinking: after a failure it would repeat the loops over 14,001 thresholds for minutes.
@settings(max_examples=10, deadline=None, derandomize=True, phases=[Phase.generate])
@given(scored_pairs())
def test_cost_threshold_equals_the_loops(pairs: Scores) -> None:
    found, (threshold, cost) = cost_threshold(*pairs), reference.cost_threshold(*pairs)
    assert found.threshold == threshold
    assert found.cost == pytest.approx(float(cost), abs=1e-12)
    assert found.cost == pytest.approx(0.8 * found.fpr + 0.2 * found.fnr, abs=1e-12)


def test_the_cost_grid_is_exact_and_ties_go_to_its_lowest_value() -> None:
    assert (COST_GRID.size, COST_GRID[0], COST_GRID[1], COST_GRID[-1]) == (14_001, 0.1, 0.1001, 1.5)
    assert COST_GRID[6000] == 0.7
    assert cost_threshold([0.7, 1.4], [True, False]).threshold == 0.7001
    assert cost_threshold([1.6, 1.7], [True, False]).threshold == 0.1


# ---- Folds -----------------------------------------------------------------------------------------------------


@quickly
@given(scored_pairs(min_size=4), st.integers(min_value=2, max_value=4))
def test_kfold_equals_the_loops(pairs: Scores, k: int) -> None:
    distances, same = pairs
    folds = [10 * (i % k) for i in range(len(same))]
    result = kfold_accuracy(distances, same, folds)
    thresholds, accuracies = reference.kfold(distances, same, folds)
    assert result.thresholds.tolist() == thresholds
    assert result.accuracies.tolist() == pytest.approx(accuracies)
    assert result.accuracy == pytest.approx(sum(accuracies) / len(accuracies))
    variance = sum((a - result.accuracy) ** 2 for a in accuracies) / (len(accuracies) - 1)
    assert result.standard_error == pytest.approx(math.sqrt(variance / len(accuracies)), abs=1e-12)
    used = [thresholds[i % k] for i in range(len(same))]
    shifted = [-1.0 if d < t else 1.0 for d, t in zip(distances, used, strict=True)]
    for name, value in reference.rates(shifted, same, 0.0).items():
        assert getattr(result.rates, name) == pytest.approx(value, abs=1e-12), name


def test_a_fold_has_no_say_in_its_own_threshold() -> None:
    # Each fold is separable alone, at thresholds that fail on the other: peeking would score above a half.
    result = kfold_accuracy([0.1, 0.2, 0.8, 0.9], [True, False, True, False], [0, 0, 1, 1])
    assert result.thresholds.tolist() == [0.9, 0.2]
    assert result.accuracy == 0.5
    distances, same = normal_pairs(400)
    folds = np.arange(400) % 10
    moved = np.where(folds == 3, distances + 5, distances)
    before, after = kfold_accuracy(distances, same, folds), kfold_accuracy(moved, same, folds)
    assert before.thresholds[3] == after.thresholds[3]
    assert before.thresholds[4] == best_accuracy_threshold(distances[folds != 4], same[folds != 4])


def test_kfold_refuses_folds_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="`folds` must name at least two folds. Received: 1"):
        kfold_accuracy([0.1, 0.2], [True, False], [0, 0])
    with pytest.raises(ValueError, match=r"shapes \(3,\) and \(2,\)"):
        kfold_accuracy([0.1, 0.2], [True, False], [0, 1, 2])


def test_groups_that_never_meet_go_to_folds_whole() -> None:
    first, second, same = crowd(4000, 20)
    group = np.arange(4000) // 2 % 40
    first, second = first + 100 * group, second + 100 * group
    made = folds_by_identity(first.astype(str), second.astype(str))
    assert (made.k, made.shared) == (10, 0)
    assert len({(g, f) for g, f in zip(group, made.folds, strict=True)}) == 40
    assert np.bincount(made.folds).tolist() == [400] * 10


def test_people_who_all_meet_go_to_folds_and_the_pairs_that_share_them_are_counted() -> None:
    first, second, same = crowd(600, 50)
    made = folds_by_identity(first, second, k=5, seed=1)
    fold_of: dict[int, int] = {}
    for person, fold in zip(first, made.folds, strict=True):
        assert fold_of.setdefault(person, fold) == fold
    assert made.shared == reference.shared_pairs(first, second, made.folds) > 0
    assert np.bincount(made.folds).min() > 600 / 5 * 0.7
    np.testing.assert_array_equal(made.folds, folds_by_identity(first, second, k=5, seed=1).folds)
    assert not np.array_equal(made.folds, folds_by_identity(first, second, k=5, seed=2).folds)


def test_a_long_chain_of_people_is_one_group() -> None:
    people = np.arange(2000)
    made = folds_by_identity(np.r_[people, people[:-1]], np.r_[people, people[1:]], k=2)
    assert made.k == 2
    assert made.shared > 0


def test_folds_by_identity_with_few_people() -> None:
    made = folds_by_identity(["a", "b", "a"], ["a", "b", "b"])
    assert made.k == 2
    with pytest.raises(ValueError, match="at least two different first people"):
        folds_by_identity(["a", "a"], ["a", "b"])
    with pytest.raises(ValueError, match="`k` must be at least 2. Received: 1"):
        folds_by_identity(["a", "b"], ["a", "b"], k=1)
    with pytest.raises(ValueError, match=r"shapes \(2,\) and \(1,\)"):
        number_people(["a", "b"], ["a"])


def test_folds_by_pair_are_even_and_random() -> None:
    folds = folds_by_pair(103)
    assert sorted(np.bincount(folds)) == [10] * 7 + [11] * 3
    assert not np.array_equal(folds, np.arange(103) % 10)


# ---- Intervals -------------------------------------------------------------------------------------------------


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


# ---- Failures, one class, wrong input --------------------------------------------------------------------------


def test_failed_pairs_are_rejections_in_the_headline_and_absent_from_the_survivors() -> None:
    distances, same = [0.1, np.nan, 0.9, 0.2], [True, True, False, False]
    split = with_failures(distances, same, [False, True, False, True])
    assert split.distances.tolist() == [0.1, math.inf, 0.9, math.inf]
    assert split.surviving_distances.tolist() == [0.1, 0.9]
    assert split.surviving_same.tolist() == [True, False]
    assert rates_at(split.distances, split.same, math.inf).recall == 0.5
    with pytest.raises(ValueError, match="1 of 4 distances are NaN, the first at index 1"):
        with_failures(distances, same, [False] * 4)
    with pytest.raises(ValueError, match=r"shapes \(1,\) and \(4,\)"):
        with_failures(distances, same, [True])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [True, False])
def test_one_class_gives_nan_and_no_crash(kind: bool) -> None:
    distances, same = [0.1, 0.2, 0.2, 0.7], [kind] * 4
    curve, rates = roc(distances, same), rates_at(distances, same, 0.5)
    assert np.isnan(curve.fpr).all() == kind
    assert np.isnan(curve.tpr).all() != kind
    assert math.isnan(rates.fpr) == kind
    assert math.isnan(rates.tpr) != kind
    fmr, cost, folds = (
        threshold_at_fmr(distances, same, 0.5),
        cost_threshold(distances, same),
        kfold_accuracy(distances, same, [0, 0, 1, 1]),
    )
    nothing = [auc(distances, same), *eer(distances, same), best_accuracy_threshold(distances, same)]
    nothing += [fmr.threshold, fmr.fmr, cost.threshold, cost.cost, folds.accuracy, folds.standard_error]
    nothing += [rates.precision, rates.f1, tpr_at_fpr(distances, same)[0].tpr, *folds.thresholds]
    assert np.isnan(nothing).all()
    report = verification_report(distances, same, threshold=0.5)
    assert (report["auc"], report["intervals"]["fmr"]) == (None, [None, None])
    json.dumps(report, allow_nan=False)


@pytest.mark.parametrize(
    ("distances", "same", "sentence"),
    [
        ([], [], "There are no pairs: `distances` is empty."),
        ([0.1, math.nan, 0.3, math.nan], [1, 0, 1, 0], "2 of 4 distances are NaN, the first at index 1."),
        ([0.1, 0.2], [True], r"shapes \(2,\) and \(1,\)"),
        ([[0.1, 0.2]], [[True, False]], r"shapes \(1, 2\) and \(1, 2\)"),
        ([0.1, 0.2], [1, 2], "`same` must be true or false"),
    ],
)
@pytest.mark.parametrize("function", [check_pairs, roc, auc, best_accuracy_threshold, verification_report])
def test_wrong_input_is_refused_in_a_sentence(
    function: Callable[..., object], distances: list[float], same: list[bool], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        function(distances, same)


def test_a_threshold_that_is_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="`threshold` must be a number"):
        rates_at([0.1, 0.2], [True, False], math.nan)


# ---- The report ------------------------------------------------------------------------------------------------


def test_report_takes_its_accuracy_from_the_folds_of_the_file_first() -> None:
    distances, same = normal_pairs(400)
    folds = np.arange(400) // 2 % 10
    report, result = verification_report(distances, same, 0.9, folds), kfold_accuracy(distances, same, folds)
    assert report["accuracy_from"] == "10 folds of the pairs file"
    assert (report["accuracy"], report["f1"]) == (result.accuracy, result.rates.f1)
    assert report["threshold"] == pytest.approx(result.thresholds.mean())
    assert report["at_threshold"]["accuracy"] == rates_at(distances, same, 0.9).accuracy
    assert report["auc"] == auc(distances, same)
    assert report["eer"] == eer(distances, same).rate
    assert (report["pairs"], report["genuine"], report["impostor"], report["failed"]) == (400, 200, 200, 0)


def test_report_takes_it_from_the_threshold_given_next_with_our_folds_beside() -> None:
    distances, _ = normal_pairs(400)
    first, second, same = crowd(400, 30)
    report = verification_report(distances, same, 1.0, ids1=first, ids2=second)
    assert (report["accuracy_from"], report["threshold"]) == ("the given threshold", 1.0)
    assert report["accuracy"] == rates_at(distances, same, 1.0).accuracy
    assert report["kfold"]["name"] == "10 folds by identity"
    assert report["kfold"]["shared_pairs"] == folds_by_identity(first, second).shared
    order = np.argsort(distances)  # the order in which the report draws
    ordered, people = distances[order], (first[order], second[order])
    expected = score_intervals(ordered, same[order], ordered < 1.0, *people)
    assert (report["intervals"]["by"], report["intervals"]["fnmr"]) == ("identity", list(expected.fnmr))
    assert report["intervals"]["auc"] == list(expected.auc)
    assert verification_report([0.5, 0.5], [True, False], 0.5)["true_accepts"] == 0


def test_report_makes_folds_where_nothing_is_given() -> None:
    distances, _ = normal_pairs(400)
    first, second, same = crowd(400, 30)
    by_identity = verification_report(distances, same, ids1=first, ids2=second)
    assert by_identity["accuracy_from"] == by_identity["kfold"]["name"] == "10 folds by identity"
    assert by_identity["threshold"] == pytest.approx(np.mean(by_identity["kfold"]["thresholds"]))
    by_pair = verification_report(distances, same)
    assert (by_pair["accuracy_from"], by_pair["intervals"]["by"]) == ("10 folds by pair", "pair")
    one_first_person = verification_report([0.1, 0.2, 0.9], [1, 1, 0], ids1=[*"aaa"], ids2=[*"aab"])
    assert one_first_person["kfold"]["name"] == "3 folds by pair"
    assert verification_report([0.1], [True])["accuracy_from"] == "nothing: too few pairs"


def test_report_counts_failed_pairs_against_the_headline_alone() -> None:
    distances, same = normal_pairs(400)
    failed = np.arange(400) < 20
    with_nan = np.where(failed, np.nan, distances)
    report = verification_report(with_nan, same, threshold=1.05, failed=failed)
    survivors = rates_at(distances[20:], same[20:], 1.05)
    assert (report["failed"], report["survivors"]["pairs"]) == (20, 380)
    assert report["survivors"]["tpr"] == survivors.tpr
    assert report["survivors"]["auc"] == auc(distances[20:], same[20:])
    assert report["true_accepts"] == survivors.true_accepts
    assert report["tpr"] == survivors.true_accepts / 200 < survivors.tpr
    assert verification_report([np.nan] * 2, [True, False], 1.0, failed=[True, True])["survivors"] == {"pairs": 0}


def test_report_is_plain_json_and_the_same_each_time() -> None:
    distances, same = normal_pairs(300)
    report = verification_report(distances, same, threshold=1)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert verification_report(distances, same, threshold=1) == report
    assert report["tpr_at_fpr"][-1] == {
        "fpr": 0.001,
        "tpr": None,
        "threshold": None,
        "claimable": False,
        "needs": 3000,
    }
    low, high = report["intervals"]["accuracy"]
    assert low < report["accuracy"] < high


def test_report_refuses_people_who_contradict_the_labels() -> None:
    with pytest.raises(ValueError, match="contradict `same` in 1 of 2 pairs, first at index 1"):
        verification_report([0.1, 0.2], [True, False], ids1=["a", "b"], ids2=["a", "b"])
    with pytest.raises(ValueError, match="belong together"):
        verification_report([0.1, 0.2], [True, False], ids2=["a", "b"])
    with pytest.raises(ValueError, match="one entry a pair. Received: 1 for 2"):
        verification_report([0.1, 0.2], [True, False], ids1=["a"], ids2=["a"])


# ---- Size, and what importing brings ---------------------------------------------------------------------------


def test_a_million_and_a_half_scores_take_seconds() -> None:
    distances, same = normal_pairs(1_500_000)
    distances = distances.astype(np.float32)
    start = time.process_time()
    area, table = auc(distances, same), tpr_at_fpr(distances, same)
    kfold_accuracy(distances, same, np.arange(distances.size) % 10)
    cost_threshold(distances, same)
    assert time.process_time() - start < 20
    assert area == pytest.approx(roc_auc_score(same, -distances), abs=1e-9)
    assert all(claim.claimable for claim in table)


def test_a_thousand_resamples_of_6000_pairs_take_seconds() -> None:
    distances, _ = normal_pairs(6000)
    first, second, same = crowd(6000, 2000)
    start = time.process_time()
    found = score_intervals(distances, same, distances < 1, first, second)
    assert time.process_time() - start < 10
    assert (found.by, found.resamples) == ("identity", 1000)


def test_metrics_bring_no_tensorflow() -> None:
    code = "import sys, facekit.report; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
