"""Systems side by side: against a bootstrap of loops, and systems whose difference is known."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from facekit.bootstrap import bootstrap_interval, roc_band, score_intervals
from facekit.comparison import RATES, compare_systems, comparison_rows
from facekit.folds import folds_by_identity, folds_by_pair, kfold_accuracy
from facekit.metrics import eer, tpr_at_fpr
from facekit.scored import ScoredPairs
from tests import reference_metrics as reference
from tests.pair_cases import crowd


def system(
    pairs: int = 800, gap: float = 0.4, seed: int = 1, people: int = 200, failed: int = 0, noise: float = 0.1
) -> ScoredPairs:
    """Scores on pairs that are the same for every seed and gap, as is most of what makes a pair hard."""
    first, second, same = crowd(pairs, people)
    hard = np.random.default_rng(0).normal(0, 0.2, pairs)
    distances = 0.8 + hard + np.random.default_rng(seed).normal(0, noise, pairs) + np.where(same, 0, gap)
    lost = np.arange(pairs) < failed
    return ScoredPairs(np.where(lost, np.nan, distances), same, lost, ids1=first, ids2=second)


def without_people(scored: ScoredPairs) -> ScoredPairs:
    return replace(scored, ids1=None, ids2=None)


# ---- Figures ---------------------------------------------------------------------------------------------------


def test_figures_are_those_of_each_system_with_failures_as_rejections() -> None:
    systems = {"ours": system(failed=30), "theirs": system(gap=0.3, seed=2)}
    rows = compare_systems(systems, {"ours": 0.9, "theirs": None})
    people = systems["ours"].people
    assert people is not None
    folds = folds_by_identity(*people).folds
    for row, (name, scored) in zip(rows, systems.items(), strict=True):
        values = scored.ranked
        assert row["name"] == name
        assert row["auc"] == pytest.approx(reference.auc(values.tolist(), scored.same.tolist()))
        assert row["eer"] == eer(values, scored.same).rate
        assert row["accuracy"] == kfold_accuracy(values, scored.same, folds).accuracy
        assert row["accuracy_from"] == "10 folds by identity"
        assert (row["pairs"], row["genuine"], row["impostor"]) == (800, 400, 400)
        for found, claim in zip(row["tpr_at_fpr"], tpr_at_fpr(values, scored.same, RATES), strict=True):
            assert (found["claimable"], found["needs"]) == (claim.claimable, claim.needs)
            assert found["tpr"] == (claim.tpr if claim.claimable else None)
    assert [row["failed"] for row in rows] == [30, 0]
    assert [row["reference"] for row in rows] == [True, False]
    own = reference.rates(systems["ours"].ranked.tolist(), systems["ours"].same.tolist(), 0.9)
    assert rows[0]["at_threshold"] == {
        "threshold": 0.9,
        "accuracy": pytest.approx(own["accuracy"]),
        "fmr": own["fpr"],
        "fnmr": own["fnr"],
    }
    assert rows[1]["at_threshold"] is None
    json.dumps(rows, allow_nan=False)


def test_thresholds_are_told_in_the_systems_own_scores() -> None:
    (row,) = compare_systems({"cosines": replace(system(), kind="cosine")}, {"cosines": -0.3})
    assert row["at_threshold"]["threshold"] == 0.3
    assert row["differences"] is None


def test_folds_of_the_file_come_first_then_people_then_pairs() -> None:
    scored, folds = system(), np.arange(800) % 5
    with_folds = replace(scored, folds=folds)
    # One system knows folds and people, the other does not: both are judged alike.
    rows = compare_systems({"a": without_people(scored), "b": with_folds}, {})
    assert [row["accuracy_from"] for row in rows] == ["5 folds of the pairs file"] * 2
    assert rows[0]["accuracy"] == kfold_accuracy(scored.ranked, scored.same, folds).accuracy
    assert rows[0]["intervals"]["by"] == "identity"
    (row,) = compare_systems({"a": without_people(scored)}, {})
    assert (row["accuracy_from"], row["intervals"]["by"]) == ("10 folds by pair", "pair")
    assert row["accuracy"] == kfold_accuracy(scored.ranked, scored.same, folds_by_pair(800)).accuracy


# ---- Intervals and differences ---------------------------------------------------------------------------------


def test_differences_equal_a_bootstrap_of_loops_with_the_same_weights() -> None:
    systems = {"a": system(pairs=80, people=30, noise=0.2), "b": system(pairs=80, people=30, gap=0.3, seed=2)}
    rows = compare_systems(systems, {})
    same = systems["a"].same
    people = systems["a"].people
    assert people is not None
    drawn: list[np.ndarray] = []

    def keep(weights: np.ndarray) -> float:
        drawn.append(weights.astype(int))
        return 0.0

    bootstrap_interval(keep, 80, *people)
    folds = folds_by_identity(*people).folds
    accepted = {name: kfold_accuracy(s.ranked, same, folds).accepted for name, s in systems.items()}
    samples: dict[str, list[list[float]]] = {"a": [], "b": []}
    for weights in drawn:
        kinds = np.repeat(same, weights)
        for name, scored in systems.items():
            if kinds.all() or not kinds.any():
                continue
            values, right = np.repeat(scored.ranked, weights), np.repeat(accepted[name] == same, weights)
            accuracy = (right[kinds].mean() + right[~kinds].mean()) / 2  # both classes are half of the pairs
            tpr = reference.best_within(values.tolist(), kinds.tolist(), 0.1)[0]
            near, far = values[kinds], values[~kinds]
            area = ((near[:, None] < far).sum() + (near[:, None] == far).sum() / 2) / (near.size * far.size)
            samples[name].append([area, accuracy, tpr])
    a, b = (np.array(samples[name]) for name in ("a", "b"))
    apart = np.quantile(b - a, [0.025, 0.975], axis=0)
    differences = rows[1]["differences"]
    for place, found in enumerate((differences["auc"], differences["accuracy"], differences["tpr_at_fpr"][0])):
        np.testing.assert_allclose(found["interval"], apart[:, place], atol=1e-9)
    assert differences["auc"]["difference"] == rows[1]["auc"] - rows[0]["auc"]


def test_own_intervals_are_those_of_a_report_on_the_system_alone() -> None:
    systems = {"a": system(), "b": without_people(system(seed=2, failed=9))}
    people = systems["a"].people
    assert people is not None
    folds = folds_by_identity(*people).folds
    for row, scored in zip(compare_systems(systems, {}), systems.values(), strict=True):
        values, same = scored.ranked, scored.same
        expected = score_intervals(values, same, kfold_accuracy(values, same, folds).accepted, *people)
        low, high = roc_band(values, same, RATES[:2], *people)
        assert row["intervals"] == {
            "by": "identity",
            "auc": list(expected.auc),
            "accuracy": list(expected.accuracy),
            "tpr_at_fpr": [[low[0], high[0]], [low[1], high[1]], None],
        }


def test_unclaimable_rates_have_no_figure_no_interval_and_no_difference() -> None:
    rows = compare_systems({"a": system(), "b": system(seed=2)}, {})
    claim, found = rows[1]["tpr_at_fpr"][2], rows[1]["differences"]["tpr_at_fpr"][2]
    assert (claim["claimable"], claim["tpr"], claim["needs"]) == (False, None, 3000)
    assert rows[1]["intervals"]["tpr_at_fpr"][2] is None
    assert found == {"fpr": 0.001, "difference": None, "interval": None, "clear": False}


def all_differences(row: dict[str, Any]) -> list[dict[str, Any]]:
    apart = row["differences"]
    return [apart["auc"], apart["accuracy"], *(found for found in apart["tpr_at_fpr"] if found["interval"])]


def test_identical_systems_differ_by_exactly_nothing() -> None:
    scored = system()
    rows = compare_systems({"a": scored, "b": replace(scored)}, {})
    for found in all_differences(rows[1]):
        assert (found["difference"], found["interval"], found["clear"]) == (0.0, [0.0, 0.0], False)


def test_a_better_system_is_found_and_a_worse_one_too() -> None:
    systems = {"old": system(pairs=3000), "new": system(pairs=3000, gap=0.5, seed=2)}
    for found in all_differences(compare_systems(systems, {})[1]):
        assert found["clear"] and found["interval"][0] > 0
    turned = dict(reversed(systems.items()))
    for found in all_differences(compare_systems(turned, {})[1]):
        assert found["clear"] and found["interval"][1] < 0


def test_pairing_finds_what_two_separate_intervals_do_not() -> None:
    rows = compare_systems({"old": system(noise=0.02), "new": system(gap=0.43, seed=2, noise=0.02)}, {})
    old, new = (row["intervals"]["auc"] for row in rows)
    assert old[1] > new[0]  # the intervals overlap
    assert rows[1]["differences"]["auc"]["clear"]


def test_equal_systems_are_seldom_called_different() -> None:
    called = 0
    for seed in range(20):
        pair = {"a": system(pairs=300, seed=2 * seed + 1), "b": system(pairs=300, seed=2 * seed + 2)}
        called += compare_systems(pair, {})[1]["differences"]["auc"]["clear"]
    assert called <= 3


def test_four_systems_on_6000_pairs_take_seconds() -> None:
    systems = {str(seed): system(pairs=6000, people=1500, seed=seed, failed=5) for seed in range(4)}
    compare_systems({"0": system(100)}, {})
    start = time.process_time()
    compare_systems(systems, {})
    assert time.process_time() - start < 5


# ---- What is refused -------------------------------------------------------------------------------------------


def test_other_pairs_are_refused_in_a_sentence() -> None:
    scored = replace(system(), folds=np.arange(800) % 5, first=["x"] * 800, second=["y"] * 800)
    assert scored.ids1 is not None
    moved = np.where(scored.same, scored.ids1, scored.ids1 + 1000)
    cases = {
        "700 and 800": scored.chosen(np.arange(800) >= 100),
        "their labels differ": replace(scored, same=~scored.same, ids1=None, ids2=None),
        "their folds differ": replace(scored, folds=np.arange(800) % 4),
        "their first pictures differ": replace(scored, first=["x"] * 799 + ["z"]),
        "their second pictures differ": replace(scored, second=["y"] * 799 + ["z"]),
        "their people differ": replace(scored, ids1=moved),
    }
    for difference, other in cases.items():
        with pytest.raises(
            ValueError, match=r"theirs and ours were scored on different pairs: .*Give all"
        ) as error:
            compare_systems({"ours": scored, "theirs": other}, {})
        words = {"800 and 700": "700 and 800"}.get(difference, difference)
        assert words in str(error.value)


def test_people_of_other_names_are_the_same_people() -> None:
    scored = system()
    assert scored.ids1 is not None and scored.ids2 is not None
    renamed = replace(scored, ids1=scored.ids1 + 5, ids2=scored.ids2 + 5)
    assert len(compare_systems({"a": scored, "b": renamed}, {})) == 2


def test_nothing_and_one_class_are_refused() -> None:
    with pytest.raises(ValueError, match="There is no system to compare"):
        compare_systems({}, {})
    scored = system()
    with pytest.raises(ValueError, match="All 400 pairs are impostor"):
        compare_systems({"a": scored.chosen(~scored.same)}, {})


# ---- The table -------------------------------------------------------------------------------------------------


def test_the_table_has_a_cell_for_each_column() -> None:
    systems = {"old": system(pairs=3000, failed=7), "new": system(pairs=3000, gap=0.5, seed=2)}
    rows = compare_systems(systems, {"new": 0.9})
    header, cells = comparison_rows(rows)
    assert header == [
        "system",
        "AUC",
        "AUC, difference",
        "accuracy (folds)",
        "EER",
        "TPR at FPR 0.1",
        "TPR at FPR 0.01",
        "TPR at FPR 0.001",
        "lost pairs",
        "FMR at own threshold",
        "FNMR at own threshold",
        "accuracy (folds), difference",
        "TPR at FPR 0.01, difference",
    ]
    old, new = (dict(zip(header, row, strict=True)) for row in cells)
    low, high = rows[1]["intervals"]["auc"]
    assert new["AUC"] == f"{rows[1]['auc']:.4f} ({low:.4f} to {high:.4f})"
    assert new["EER"] == f"{rows[1]['eer']:.4f}"
    assert old["TPR at FPR 0.001"] == "needs 3,000 impostor pairs"
    assert (old["lost pairs"], new["lost pairs"]) == ("7", "0")
    assert (old["FMR at own threshold"], old["AUC, difference"]) == ("uncalibrated", "reference")
    assert new["FMR at own threshold"] == f"{rows[1]['at_threshold']['fmr']:.4f}"
    assert new["FNMR at own threshold"] == f"{rows[1]['at_threshold']['fnmr']:.4f}"
    apart = rows[1]["differences"]["tpr_at_fpr"][1]
    expected = f"+{apart['difference']:.4f} (+{apart['interval'][0]:.4f} to +{apart['interval'][1]:.4f}), clear"
    assert new["TPR at FPR 0.01, difference"] == expected


def test_a_difference_that_may_be_chance_is_not_called_clear() -> None:
    header, cells = comparison_rows(compare_systems({"a": system(), "b": system(seed=2)}, {}))
    row = dict(zip(header, cells[1], strict=True))
    assert "clear" not in row["AUC, difference"]
    assert " to " in row["AUC, difference"]


def test_one_system_alone_has_no_differences() -> None:
    header, cells = comparison_rows(compare_systems({"a": system(pairs=20, people=10)}, {}))
    assert header[-1] == "lost pairs"
    assert len(cells[0]) == len(header)
