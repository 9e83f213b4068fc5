"""The verification report: it says what metrics, folds and intervals say, in plain JSON."""

import json
import subprocess
import sys

import numpy as np
import pytest

from facekit.bootstrap import score_intervals
from facekit.folds import folds_by_identity, kfold_accuracy
from facekit.metrics import auc, eer, rates_at
from facekit.report import verification_report
from facekit.scored import ScoredPairs
from tests.pair_cases import crowd, normal_pairs


def report_of(distances, same, threshold=None, *, kind="distance", **parts) -> dict:
    """The report of pairs given as lists."""
    distances = np.asarray(distances, float)
    failed = np.asarray(parts.pop("failed", np.zeros(len(distances), bool)))
    parts = {name: np.asarray(part) for name, part in parts.items()}
    return verification_report(ScoredPairs(distances, np.asarray(same, bool), failed, kind, **parts), threshold)


def test_report_takes_its_accuracy_from_the_folds_of_the_file_first() -> None:
    distances, same = normal_pairs(400)
    folds = np.arange(400) // 2 % 10
    report, result = report_of(distances, same, 0.9, folds=folds), kfold_accuracy(distances, same, folds)
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
    report = report_of(distances, same, 1.0, ids1=first, ids2=second)
    assert (report["accuracy_from"], report["threshold"]) == ("the given threshold", 1.0)
    assert report["accuracy"] == rates_at(distances, same, 1.0).accuracy
    assert report["kfold"]["name"] == "10 folds by identity"
    assert report["kfold"]["shared_pairs"] == folds_by_identity(first, second).shared
    expected = score_intervals(distances, same, distances < 1.0, first, second)
    assert (report["intervals"]["by"], report["intervals"]["fnmr"]) == ("identity", list(expected.fnmr))
    assert report["intervals"]["auc"] == list(expected.auc)
    assert report_of([0.5, 0.5], [True, False], 0.5)["true_accepts"] == 0


def test_report_makes_folds_where_nothing_is_given() -> None:
    distances, _ = normal_pairs(400)
    first, second, same = crowd(400, 30)
    by_identity = report_of(distances, same, ids1=first, ids2=second)
    assert by_identity["accuracy_from"] == by_identity["kfold"]["name"] == "10 folds by identity"
    assert by_identity["threshold"] == pytest.approx(np.mean(by_identity["kfold"]["thresholds"]))
    by_pair = report_of(distances, same)
    assert (by_pair["accuracy_from"], by_pair["intervals"]["by"]) == ("10 folds by pair", "pair")
    one_first_person = report_of([0.1, 0.2, 0.9], [1, 1, 0], ids1=[*"aaa"], ids2=[*"aab"])
    assert one_first_person["kfold"]["name"] == "3 folds by pair"
    assert report_of([0.1], [True])["accuracy_from"] == "nothing: too few pairs"


def test_report_counts_failed_pairs_against_the_headline_alone() -> None:
    distances, same = normal_pairs(400)
    failed = np.arange(400) < 20
    with_nan = np.where(failed, np.nan, distances)
    report = report_of(with_nan, same, threshold=1.05, failed=failed)
    survivors = rates_at(distances[20:], same[20:], 1.05)
    assert (report["failed"], report["survivors"]["pairs"]) == (20, 380)
    assert report["survivors"]["tpr"] == survivors.tpr
    assert report["survivors"]["auc"] == auc(distances[20:], same[20:])
    assert report["true_accepts"] == survivors.true_accepts
    assert report["tpr"] == survivors.true_accepts / 200 < survivors.tpr
    assert report_of([np.nan] * 2, [True, False], 1.0, failed=[True, True])["survivors"] == {"pairs": 0}


def test_report_is_plain_json_and_the_same_each_time() -> None:
    distances, same = normal_pairs(300)
    report = report_of(distances, same, threshold=1)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report_of(distances, same, threshold=1) == report
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
        report_of([0.1, 0.2], [True, False], ids1=["a", "b"], ids2=["a", "b"])
    with pytest.raises(ValueError, match="belong together"):
        report_of([0.1, 0.2], [True, False], ids2=["a", "b"])
    with pytest.raises(ValueError, match="`ids1` and `distances` must be two lists of one length"):
        report_of([0.1, 0.2], [True, False], ids1=["a"], ids2=["a"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [True, False])
def test_report_of_one_class_has_none_where_the_other_is_needed(kind: bool) -> None:
    report = report_of([0.1, 0.2, 0.2, 0.7], [kind] * 4, threshold=0.5)
    assert (report["auc"], report["intervals"]["fmr"]) == (None, [None, None])
    json.dumps(report, allow_nan=False)


def test_cosines_give_the_same_report_in_their_own_numbers() -> None:
    distances, same = normal_pairs(400)
    distances = np.clip(distances, 0.05, 1.95)
    cosines = 1 - distances**2 / 2
    by_distance = report_of(distances, same, 0.9)
    by_cosine = report_of(-cosines, same, -(1 - 0.9**2 / 2), kind="cosine")
    for name in ("auc", "accuracy", "fmr", "fnmr", "intervals"):
        assert by_cosine[name] == by_distance[name]
    assert by_cosine["threshold"] == pytest.approx(1 - 0.9**2 / 2)
    assert by_cosine["cost"]["cost"] == pytest.approx(by_distance["cost"]["cost"], abs=1e-9)
    assert by_cosine["cost"]["threshold"] == pytest.approx(1 - by_distance["cost"]["threshold"] ** 2 / 2)
    for one, other in zip(by_cosine["tpr_at_fpr"], by_distance["tpr_at_fpr"], strict=True):
        assert one["tpr"] == other["tpr"]
        if one["claimable"]:
            assert one["threshold"] == pytest.approx(1 - other["threshold"] ** 2 / 2)
    assert by_cosine["kfold"]["threshold"] == pytest.approx(np.mean(by_cosine["kfold"]["thresholds"]))


def test_other_scores_have_no_cost_threshold_in_words() -> None:
    distances, same = normal_pairs(100)
    report = report_of(-distances * 40, same, kind="similarity")
    assert report["cost"] is None and "neither" in report["cost_note"]


def test_report_refuses_distances_that_are_no_numbers() -> None:
    with pytest.raises(ValueError, match="There are no pairs: `distances` is empty."):
        report_of([], [])
    with pytest.raises(ValueError, match="Pair 1: `failed` must mark"):
        report_of([0.1, float("nan")], [True, False])


def test_metrics_bring_no_tensorflow() -> None:
    code = "import sys, facekit.report; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
