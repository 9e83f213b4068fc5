"""Metrics, thresholds and folds: against slow loops and scikit-learn."""

import math
import time
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score, roc_auc_score, roc_curve

from facekit.folds import folds_by_identity, folds_by_pair, kfold_accuracy, number_people
from facekit.metrics import auc, check_pairs, eer, rates_at, roc, tpr_at_fpr
from facekit.thresholds import COST_GRID, best_accuracy_threshold, cost_threshold, threshold_at_fmr
from tests import reference_metrics as reference
from tests.pair_cases import ANY, TIED, Scores, crowd, normal_pairs, quickly, scored_pairs

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


@pytest.mark.parametrize(("pairs", "decimals"), [(2, 9), (3, 0), (7, 0), (10, 1), (3001, 2), (3001, 0), (3001, 16)])
def test_auc_and_roc_equal_scikit_learn_with_few_pairs_and_with_ties(pairs: int, decimals: int) -> None:
    distances, same = normal_pairs(pairs)
    distances = np.round(distances, decimals)
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


# ---- Failures, one class, wrong input --------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [True, False])
def test_one_class_gives_nan_and_no_crash(kind: bool) -> None:
    distances, same = [0.1, 0.2, 0.2, 0.7], [kind] * 4
    curve, rates = roc(distances, same), rates_at(distances, same, 0.5)
    for point, threshold in enumerate(curve.thresholds):
        accepted = reference.counts(distances, same, threshold)[:2]
        assert (curve.accepted_genuine[point], curve.accepted_impostor[point]) == accepted
    counts = (rates.true_accepts, rates.false_accepts, rates.true_rejects, rates.false_rejects)
    assert counts == reference.counts(distances, same, 0.5)
    assert rates.accuracy == (0.75 if kind else 0.25)
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
@pytest.mark.parametrize("function", [check_pairs, roc, auc, best_accuracy_threshold])
def test_wrong_input_is_refused_in_a_sentence(
    function: Callable[..., object], distances: list[float], same: list[bool], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        function(distances, same)


def test_a_threshold_that_is_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="`threshold` must be a number"):
        rates_at([0.1, 0.2], [True, False], math.nan)


# ---- Size ------------------------------------------------------------------------------------------------------


def test_a_million_and_a_half_scores_with_ties_give_scikit_learns_curve_in_seconds() -> None:
    distances, same = normal_pairs(1_500_000)
    distances = np.round(distances, 4)
    start = time.process_time()
    curve, area, equal, table = (
        roc(distances, same),
        auc(distances, same),
        eer(distances, same),
        tpr_at_fpr(distances, same),
    )
    assert time.process_time() - start < 10
    fpr, tpr, _ = roc_curve(same, -distances, drop_intermediate=False)
    np.testing.assert_allclose(curve.fpr, fpr, atol=1e-12)
    np.testing.assert_allclose(curve.tpr, tpr, atol=1e-12)
    assert area == pytest.approx(roc_auc_score(same, -distances), abs=1e-9)
    # The line between two points of scikit-learn's curve, at the place where FMR + TPR = 1.
    assert equal.rate == pytest.approx(np.interp(1, fpr + tpr, fpr), abs=1e-9)
    for claim in table:
        assert claim.claimable
        assert claim.tpr == pytest.approx(tpr[fpr <= claim.fpr].max(), abs=1e-12)
        assert rates_at(distances, same, claim.threshold).fpr <= claim.fpr
        assert rates_at(distances, same, claim.threshold).tpr == claim.tpr
        assert threshold_at_fmr(distances, same, claim.fpr).threshold == claim.threshold


def test_thresholds_of_a_million_and_a_half_scores_equal_plain_counts_in_seconds() -> None:
    distances, same = normal_pairs(1_500_000)
    start = time.process_time()
    best, cost = best_accuracy_threshold(distances, same), cost_threshold(distances, same)
    folds = kfold_accuracy(distances, same, np.arange(distances.size) // 2 % 10)
    assert time.process_time() - start < 20
    genuine, impostor = np.sort(distances[same]), np.sort(distances[~same])
    candidates = np.append(np.sort(distances), np.inf)
    right = np.searchsorted(genuine, candidates) + impostor.size - np.searchsorted(impostor, candidates)
    assert best == candidates[right.argmax()]
    assert auc(distances, same) == pytest.approx(
        np.searchsorted(genuine, impostor).mean() / genuine.size, abs=1e-12
    )
    costs = 0.8 * np.searchsorted(impostor, COST_GRID) / impostor.size
    costs += 0.2 - 0.2 * np.searchsorted(genuine, COST_GRID) / genuine.size
    assert cost.cost == pytest.approx(costs.min(), abs=1e-12)
    assert cost.threshold == COST_GRID[costs.argmin()]
    # Two normals of deviation 0.2 that are 0.5 apart: 1.25 deviations to the middle between them.
    assert folds.accuracy == pytest.approx(NormalDist().cdf(1.25), abs=1e-3)
    assert best == pytest.approx(1.05, abs=0.02)
