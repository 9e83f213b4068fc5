"""Probabilities from scores: against known posteriors, scikit-learn and exact loops."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, log_loss

from facekit.folds import folds_by_identity
from facekit.probability import (
    BINS,
    Method,
    ProbabilityMap,
    fit_probability,
    probability_figures,
    probability_quality,
)
from facekit.scored import ScoredPairs
from tests.pair_cases import crowd, quickly

METHODS: tuple[Method, ...] = ("platt", "isotonic")
SPREAD, GENUINE, IMPOSTOR = 0.2, 0.8, 1.2


def true_probability(distance: np.ndarray) -> np.ndarray:
    """Bayes' rule at even odds, for normal scores of one spread: exactly a sigmoid."""
    slope = (IMPOSTOR - GENUINE) / SPREAD**2
    return 1 / (1 + np.exp(slope * (distance - (GENUINE + IMPOSTOR) / 2)))


def normal_scores(genuine: int, impostor: int, seed: int = 0) -> ScoredPairs:
    rng = np.random.default_rng(seed)
    same = np.arange(genuine + impostor) < genuine
    return scored(rng.normal(np.where(same, GENUINE, IMPOSTOR), SPREAD), same)


def scored(distances: Any, same: Any, **people: Any) -> ScoredPairs:
    """Pairs, those of NaN failed."""
    values = np.asarray(distances, np.float64)
    return ScoredPairs(values, np.asarray(same, bool), np.isnan(values), **people)


def weights_of(same: np.ndarray) -> np.ndarray:
    return np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())


# ---- The fit ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "within"), [("platt", 0.01), ("isotonic", 0.08)])
@pytest.mark.parametrize("counts", [(10_000, 10_000), (4_000, 40_000)])
def test_the_true_posterior_is_found_however_many_impostors_there_are(
    method: Method, within: float, counts: tuple[int, int]
) -> None:
    distances = np.linspace(0.6, 1.4, 81)
    found = fit_probability(normal_scores(*counts), method).probability(distances)
    np.testing.assert_allclose(found, true_probability(distances), atol=within)
    assert np.abs(found - true_probability(distances)).mean() < within / 3


def test_another_prior_is_bayes_rule() -> None:
    fitted = fit_probability(normal_scores(10_000, 10_000))
    rng = np.random.default_rng(1)
    # Where 1 pair in 10 is genuine, the share of genuine pairs near a distance is the probability at that prior.
    same = rng.random(2_000_000) < 0.1
    drawn = rng.normal(np.where(same, GENUINE, IMPOSTOR), SPREAD)
    for distance in (0.8, 0.9, 1.0):
        near = np.abs(drawn - distance) < 0.005
        assert fitted.probability(distance, prior=0.1) == pytest.approx(same[near].mean(), abs=0.02)
    odds = (fitted.probability(0.9) / (1 - fitted.probability(0.9))) * 0.1 / 0.9
    assert fitted.probability(0.9, prior=0.1) == pytest.approx(odds / (1 + odds))
    assert fitted.probability(0.9, prior=0.5) == fitted.probability(0.9)


def test_platt_is_the_most_likely_sigmoid_for_the_targets() -> None:
    pairs = normal_scores(60, 140)
    genuine, impostor = 60, 140
    targets = np.where(pairs.same, (genuine + 1) / (genuine + 2), 1 / (impostor + 2))

    def cross_entropy(line: np.ndarray) -> float:
        log_odds = line[0] + line[1] * (pairs.distances - 1)
        terms = np.logaddexp(0, log_odds) - targets * log_odds
        return float(weights_of(pairs.same) @ terms)

    best = minimize(cross_entropy, [0.0, -1.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14}).x
    fitted = fit_probability(pairs, "platt")
    distances = np.array([0.0, 0.7, 1.0, 1.6])
    expected = 1 / (1 + np.exp(-(best[0] + best[1] * (distances - 1))))
    np.testing.assert_allclose(fitted.probability(distances), expected, rtol=1e-5)


def test_isotonic_is_scikit_learns_with_one_pair_more_at_each_end() -> None:
    pairs = normal_scores(80, 150, seed=3)
    values = np.concatenate([pairs.distances, [pairs.distances.min(), pairs.distances.max()]])
    labels = np.append(pairs.same, [False, True])
    model = IsotonicRegression(increasing=False).fit(values, labels, sample_weight=weights_of(labels))
    found = fit_probability(pairs, "isotonic").probability(pairs.distances)
    np.testing.assert_allclose(found, model.predict(pairs.distances), rtol=1e-9)


def test_isotonic_claims_no_more_than_the_counts_support() -> None:
    # 3 of 9 genuine pairs are closer than all 19 impostor pairs.
    same = [True] * 3 + [False] * 10 + [True] * 6 + [False] * 9
    found = fit_probability(scored(np.arange(28.0), same), "isotonic")
    odds = 3 * 20 / 10
    assert found.probability(-5.0) == pytest.approx(odds / (1 + odds))
    assert found.probability(0.0) == pytest.approx(odds / (1 + odds))
    # 9 of 19 impostor pairs are farther than all genuine ones.
    assert found.probability(99.0) == pytest.approx((1 / 10) / (1 / 10 + 9 / 20))


@quickly
@given(
    st.lists(st.tuples(st.floats(-1e6, 1e6), st.booleans()), min_size=2, max_size=20).filter(
        lambda pairs: len({same for _, same in pairs}) == 2
    ),
    st.sampled_from(METHODS),
    st.sampled_from([1e-9, 0.2, 0.5, 1 - 1e-9]),
)
def test_a_map_never_rises_nor_says_never_or_always(
    pairs: list[tuple[float, bool]], method: Method, prior: float
) -> None:
    distances, same = (list(column) for column in zip(*pairs, strict=True))
    fitted = fit_probability(scored(distances, same), method)
    probabilities = fitted.probability(np.array([-np.inf, -1e9, *sorted(distances), 1e9, np.inf]), prior)
    assert (np.diff(probabilities) <= 1e-12).all()
    assert ((probabilities > 0) & (probabilities < 1)).all()


@pytest.mark.parametrize("method", METHODS)
def test_separable_scores_are_fitted(method: Method) -> None:
    same = np.arange(40) < 20
    apart = fit_probability(scored(np.where(same, 0.1, 1.9), same), method)
    assert 0.9 < float(apart.probability(0.1)) < 1
    assert 0 < float(apart.probability(1.9)) < 0.1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("method", METHODS)
def test_constant_scores_say_one_half(method: Method) -> None:
    same = np.arange(6) < 3
    # The mean of equal numbers may be another one by rounding: that difference is no scale.
    for value in np.linspace(0.01, 2, 300):
        constant = fit_probability(scored(np.full(6, value), same), method)
        np.testing.assert_allclose(constant.probability([0.0, value, 2 * value]), 0.5, atol=1e-9)
    almost = np.where(np.arange(40) == 39, np.nextafter(1.0, 2.0), 1.0)
    assert 0.4 < float(fit_probability(scored(almost, np.arange(40) < 20), method).probability(1.0)) < 0.6


@pytest.mark.parametrize("method", METHODS)
def test_scores_that_point_the_wrong_way_say_one_half(method: Method) -> None:
    pairs = normal_scores(500, 500)
    wrong = fit_probability(scored(-pairs.distances, pairs.same), method)
    np.testing.assert_allclose(wrong.probability(np.linspace(-3, 3, 7)), 0.5, atol=0.02)


@pytest.mark.parametrize("method", METHODS)
def test_failed_pairs_take_no_part_and_have_no_probability(method: Method) -> None:
    pairs = normal_scores(100, 100)
    longer = scored(np.append(pairs.distances, [np.nan, np.nan]), np.append(pairs.same, [True, False]))
    assert fit_probability(longer, method) == fit_probability(pairs, method)
    assert np.isnan(fit_probability(pairs, method).probability(np.nan))


def test_a_fit_needs_both_classes_and_a_known_method() -> None:
    with pytest.raises(ValueError, match="Of 3 pairs, 2 genuine and 0 impostor pairs have a score"):
        fit_probability(scored([0.1, 0.2, np.nan], [True, True, False]))
    with pytest.raises(ValueError, match="`method` must be platt or isotonic. Received: 'beta'"):
        fit_probability(normal_scores(5, 5), "beta")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"`prior` must be in \(0, 1\)"):
        fit_probability(normal_scores(5, 5)).probability(1.0, prior=1.0)


# ---- The map as JSON -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_map_survives_json(method: Method) -> None:
    fitted = fit_probability(normal_scores(200, 300), method)
    again = ProbabilityMap.from_dict(json.loads(json.dumps(fitted.to_dict())))
    assert again == fitted
    np.testing.assert_array_equal(again.probability([0.7, 1.3]), fitted.probability([0.7, 1.3]))


GOOD = {"method": "isotonic", "distances": [0.5, 1.0], "log_odds": [2.0, -1.0]}


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ({"method": "beta"}, "`method` must be platt or isotonic, found 'beta'"),
        ({"distances": [1.0, 0.5]}, "`distances` must rise"),
        ({"distances": [1.0, 1.0]}, "`distances` must rise"),
        ({"log_odds": [-1.0, 2.0]}, "`log_odds` must not rise"),
        ({"log_odds": [2.0]}, "must have one length, one or more, found 2 and 1"),
        ({"distances": [], "log_odds": []}, "must have one length, one or more, found 0 and 0"),
        ({"method": "platt", "distances": [1.0], "log_odds": [1.0]}, "must have one length, two, found 1 and 1"),
        ({"log_odds": [2.0, math.nan]}, "`log_odds` must be a list of finite numbers"),
        ({"distances": [0.5, "1"]}, "`distances` must be a list of finite numbers"),
        ({"distances": "0.5"}, "`distances` must be a list of finite numbers"),
        ({"extra": 1}, "expected distances, log_odds, method, found distances, extra, log_odds, method"),
    ],
)
def test_a_damaged_map_says_what_is_wrong(damage: dict[str, Any], sentence: str) -> None:
    assert ProbabilityMap.from_dict(GOOD)
    with pytest.raises(ValueError, match=sentence) as error:
        ProbabilityMap.from_dict(GOOD | damage)
    assert "The map from scores to probabilities is damaged" in str(error.value)


def test_a_map_that_is_no_dictionary_is_refused() -> None:
    with pytest.raises(ValueError, match="expected distances, log_odds, method, found list"):
        ProbabilityMap.from_dict([1, 2])  # type: ignore[arg-type]


def test_a_map_is_used_without_scikit_learn() -> None:
    code = (
        "import sys\n"
        "from facekit.probability import ProbabilityMap\n"
        "print(ProbabilityMap('platt', [0.0, 1.0], [4.0, -4.0]).probability(0.5))\n"
        "assert not {'sklearn', 'scipy', 'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    assert float(answer.stdout) == 0.5


# ---- How good it is --------------------------------------------------------------------------------------------


def loop_ece(probabilities: list[float], same: list[bool]) -> Fraction:
    """Sort into bins by the middle of each probability's weight, in exact fractions."""
    genuine, impostor = sum(same), len(same) - sum(same)
    weight = {True: Fraction(1, 2 * genuine), False: Fraction(1, 2 * impostor)}
    bins: dict[int, list[tuple[Fraction, Fraction, int]]] = {}
    for value in set(probabilities):
        below = sum((weight[s] for p, s in zip(probabilities, same, strict=True) if p < value), Fraction(0))
        here = [(weight[s], Fraction(p), int(s)) for p, s in zip(probabilities, same, strict=True) if p == value]
        middle = below + sum((w for w, _, _ in here), Fraction(0)) / 2
        bins.setdefault(math.floor(BINS * middle), []).extend(here)
    gaps = [abs(sum((w * (p - s) for w, p, s in members), Fraction(0))) for members in bins.values()]
    return sum(gaps, Fraction(0))


PROBABILITY = st.one_of(st.sampled_from([0.1, 0.25, 0.5, 0.9]), st.floats(0.001, 0.999))


@quickly
@given(
    st.lists(st.tuples(PROBABILITY, st.booleans()), min_size=2, max_size=40).filter(
        lambda pairs: len({same for _, same in pairs}) == 2
    )
)
def test_figures_equal_scikit_learn_and_the_loops(pairs: list[tuple[float, bool]]) -> None:
    probabilities, same = np.array([p for p, _ in pairs]), np.array([s for _, s in pairs])
    found = probability_figures(probabilities, same)
    weights = weights_of(same)
    assert found["brier"] == pytest.approx(brier_score_loss(same, probabilities, sample_weight=weights))
    assert found["log_loss"] == pytest.approx(log_loss(same, probabilities, sample_weight=weights))
    assert found["ece"] == pytest.approx(float(loop_ece(probabilities.tolist(), same.tolist())), abs=1e-12)
    assert len(found["reliability"]) <= BINS
    assert sum(point["genuine"] for point in found["reliability"]) == same.sum()
    assert sum(point["impostor"] for point in found["reliability"]) == (~same).sum()
    assert sum(point["weight"] for point in found["reliability"]) == pytest.approx(1)


def test_bins_hold_equal_weight_and_order_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    same = np.arange(900) < 300
    probabilities = rng.uniform(0.06, 0.94, 900)
    found = probability_figures(probabilities, same)
    assert [point["weight"] for point in found["reliability"]] == pytest.approx([1 / BINS] * BINS, abs=0.005)
    tied = np.round(probabilities, 1)
    order = rng.permutation(900)
    shuffled = probability_figures(tied[order], same[order])
    assert shuffled["ece"] == pytest.approx(probability_figures(tied, same)["ece"])
    assert len(shuffled["reliability"]) == 9


def test_who_knows_nothing_scores_a_quarter() -> None:
    found = probability_figures(np.full(10, 0.5), np.arange(10) < 3)
    assert (found["brier"], found["log_loss"]) == (pytest.approx(0.25), pytest.approx(math.log(2)))
    assert found["ece"] == pytest.approx(0)


@pytest.mark.parametrize("method", METHODS)
def test_quality_is_near_that_of_the_true_posterior(method: Method) -> None:
    pairs = normal_scores(3000, 3000)
    found = probability_quality(pairs, method)
    best = probability_figures(true_probability(pairs.distances), pairs.same)
    assert found["brier"] == pytest.approx(best["brier"], abs=0.003)
    assert found["log_loss"] == pytest.approx(best["log_loss"], abs=0.01)
    assert found["ece"] < 0.03
    assert (found["by"], found["folds"], found["shared_pairs"], found["method"]) == ("pair", 10, None, method)
    json.dumps(found, allow_nan=False)


def test_quality_is_judged_on_people_that_the_map_did_not_see() -> None:
    # Each person's pairs are all alike, and tell nothing of others: only who has seen a person does well.
    rng = np.random.default_rng(0)
    people = np.repeat(np.arange(60), 20)
    same = np.repeat(rng.random(60) < 0.5, 20)
    distances = np.repeat(rng.random(60), 20)
    others = np.where(same, people, people + 60)
    pairs = scored(distances, same, ids1=people, ids2=others)
    seen = probability_figures(fit_probability(pairs, "isotonic").probability(distances), same)
    found = probability_quality(pairs, "isotonic")
    assert found["by"] == "identity"
    assert found["shared_pairs"] == 0
    assert seen["brier"] < 0.25 < found["brier"]
    by_pair = probability_quality(scored(distances, same), "isotonic")
    assert by_pair["brier"] < found["brier"] - 0.03


def test_each_fold_is_judged_by_a_map_fitted_on_the_others() -> None:
    first, second, same = crowd(400, 60)
    rng = np.random.default_rng(0)
    distances = rng.normal(np.where(same, 0.8, 1.2), 0.2)
    distances[:6] = np.nan
    pairs = scored(distances, same, ids1=first, ids2=second)
    found = probability_quality(pairs, "platt")
    kept = pairs.chosen(~pairs.failed)
    folds, k, shared = folds_by_identity(first[6:], second[6:], k=10)
    expected = np.empty(394)
    for fold in range(k):
        fitted = fit_probability(kept.chosen(folds != fold), "platt")
        expected[folds == fold] = fitted.probability(kept.distances[folds == fold])
    assert found["brier"] == probability_figures(expected, kept.same)["brier"]
    assert (found["failed"], found["shared_pairs"], found["folds"]) == (6, shared, k)


def test_too_few_people_to_judge_is_said() -> None:
    with pytest.raises(ValueError, match="3 pairs are too few to judge probabilities: .* no genuine pairs left"):
        probability_quality(scored([0.1, 0.9, 1.0], [True, False, False]))
