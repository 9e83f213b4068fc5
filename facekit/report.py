"""One verification report from scored pairs: plain numbers that go into JSON as they are.

Its keys: `auc`, `eer`, `accuracy`, `precision`, `recall`, `f1`, `tpr`, `fpr`, `fnr`, the four counts of decisions,
`fmr` (= `fpr`), `fnmr` (= `fnr`), `pairs`, `genuine`, `impostor`, `threshold` (of folds: the mean of theirs),
`eer_threshold`, `failed`, `kind` (of the scores) and `accuracy_from` in words. Then `kfold` (None with too few
pairs), `at_threshold` (rates at the threshold given, or None), `tpr_at_fpr` (a list), `cost` (None with a
`cost_note` where the scores have no such grid), `intervals` (95 %) and `survivors` (the same decisions on pairs
that did not fail; None where none failed). Undefined and infinite numbers are None.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from facekit.bootstrap import score_intervals
from facekit.folds import NO_DECISIONS, KFold, folds_by_identity, folds_by_pair, kfold_accuracy
from facekit.metrics import (
    BoolArray,
    FloatArray,
    IntArray,
    Rates,
    Roc,
    rates_at,
    rates_of,
    roc,
    tpr_at_fpr,
)
from facekit.plain import plain
from facekit.scored import ScoredPairs
from facekit.thresholds import cost_threshold

OWN_FOLDS = 10

People = tuple[IntArray, IntArray]


@dataclass(frozen=True)
class _Folding:
    """Accuracy over folds, their name in words, and how many pairs share a person with another fold."""

    name: str
    result: KFold
    shared_pairs: int | None

    @property
    def threshold(self) -> float:
        """The mean of the folds'; infinite where a fold did best by accepting everything."""
        return float(self.result.thresholds.mean())


@dataclass(frozen=True)
class _Headline:
    """The decisions that the report is about: where they come from, and what they are worth."""

    source: str
    threshold: float
    accepted: BoolArray
    rates: Rates


def verification_report(scored: ScoredPairs, threshold: float | None = None) -> dict[str, Any]:
    """Everything that scored pairs say about a verifier. The same pairs always give the same report.

    `accuracy` and the rates beside it come from the folds of the pairs file, where it has any (`accuracy` is then
    the mean of the folds, the rates those of all their decisions together); else from `threshold`; else from folds
    made here. `accuracy_from` says which. Their threshold is never chosen on the pairs that it decides. Failed
    pairs count as rejected everywhere but in `survivors`.

    Args:
        scored: the pairs.
        threshold: the system's own, chosen elsewhere, as an internal distance (`ScoredPairs.distances`).

    Returns:
        A dictionary for JSON, with the keys above. Every threshold in it is in the system's own scores.

    Raises:
        ValueError: there is no pair left, or there is only one class in the pairs.
    """
    values, labels = scored.ranked, scored.same
    folding = _fold(scored)
    headline = _decide(values, labels, threshold if scored.folds is None else None, folding)
    curve = roc(values, labels)
    figures = _figures(curve, headline.rates) | {
        "threshold": scored.native(headline.threshold),
        "eer_threshold": scored.native(curve.eer.threshold),
        "failed": int(scored.failed.sum()),
        "kind": scored.kind,
        "accuracy_from": headline.source,
        "kfold": folding and _kfold_part(folding, scored),
        "at_threshold": None if threshold is None else asdict(rates_at(values, labels, threshold)),
        "tpr_at_fpr": [
            asdict(claim) | {"threshold": scored.native(claim.threshold)} for claim in tpr_at_fpr(values, labels)
        ],
        **_cost_part(scored),
        "intervals": _intervals_part(values, labels, headline.accepted, scored.people),
        "survivors": _survivors_part(scored, headline.accepted) if scored.failed.any() else None,
    }
    report: dict[str, Any] = plain(figures)
    return report


def _fold(scored: ScoredPairs) -> _Folding | None:
    """The file's folds, or ours: by identity where people are known and two can be told apart, else by pair."""
    values, labels, people = scored.ranked, scored.same, scored.people
    if scored.folds is not None:
        result = kfold_accuracy(values, labels, scored.folds)
        return _Folding(f"{result.thresholds.size} folds of the pairs file", result, None)
    if values.size < 2:
        return None
    if people is not None and np.unique(people[0]).size >= 2:
        ours = folds_by_identity(*people, k=OWN_FOLDS)
        return _Folding(f"{ours.k} folds by identity", kfold_accuracy(values, labels, ours.folds), ours.shared)
    by_pair = folds_by_pair(values.size, k=OWN_FOLDS)
    return _Folding(f"{min(OWN_FOLDS, values.size)} folds by pair", kfold_accuracy(values, labels, by_pair), None)


def _decide(values: FloatArray, labels: BoolArray, threshold: float | None, folding: _Folding | None) -> _Headline:
    if threshold is not None:
        accepted = values < threshold
        return _Headline("the given threshold", float(threshold), accepted, rates_of(accepted, labels))
    if folding is None:
        return _Headline("nothing: too few pairs", math.nan, np.zeros_like(labels), NO_DECISIONS)
    result = folding.result
    rates = replace(result.rates, accuracy=result.accuracy)
    return _Headline(folding.name, folding.threshold, result.accepted, rates)


def _figures(curve: Roc, rates: Rates) -> dict[str, Any]:
    return {
        "auc": curve.auc,
        "eer": curve.eer.rate,
        **asdict(rates),
        "fmr": rates.fpr,
        "fnmr": rates.fnr,
        "pairs": curve.genuine + curve.impostor,
        "genuine": curve.genuine,
        "impostor": curve.impostor,
    }


def _kfold_part(folding: _Folding, scored: ScoredPairs) -> dict[str, Any]:
    result = folding.result
    return {
        "name": folding.name,
        "accuracy": result.accuracy,
        "standard_error": result.standard_error,
        "threshold": scored.native(folding.threshold),
        "accuracies": result.accuracies.tolist(),
        "thresholds": [scored.native(threshold) for threshold in result.thresholds.tolist()],
        "pooled": asdict(result.rates),
        "shared_pairs": folding.shared_pairs,
    }


def _cost_part(scored: ScoredPairs) -> dict[str, Any]:
    """The cost threshold, whose grid is one of distances between unit vectors."""
    distances = scored.unit_distances
    if distances is None:
        note = "The cost threshold is defined for distances of unit vectors and cosines; these scores are neither."
        return {"cost": None, "cost_note": note}
    cost = cost_threshold(distances, scored.same)
    if scored.kind == "cosine":
        found = asdict(cost) | {"threshold": 1 - cost.threshold**2 / 2}
        return {"cost": found, "cost_note": "The scores were taken as cosines s, of distance sqrt(2 - 2s)."}
    return {"cost": asdict(cost), "cost_note": ""}


def _intervals_part(
    values: FloatArray, labels: BoolArray, accepted: BoolArray, people: People | None
) -> dict[str, Any]:
    # In the pairs' own order: all systems then see the same draws of people, and their intervals agree everywhere.
    ids1, ids2 = people or (None, None)
    return asdict(score_intervals(values, labels, accepted, ids1, ids2))


def _survivors_part(scored: ScoredPairs, accepted: BoolArray) -> dict[str, Any]:
    kept = ~scored.failed
    if not kept.any():
        return {"pairs": 0}
    return _figures(roc(scored.distances[kept], scored.same[kept]), rates_of(accepted[kept], scored.same[kept]))
