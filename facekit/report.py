"""One verification report from scored pairs: plain numbers that go into JSON as they are.

Its keys: `auc`, `eer`, `accuracy`, `precision`, `recall`, `f1`, `tpr`, `fpr`, `fnr`, the four counts of decisions,
`pairs`, `genuine`, `impostor`, `threshold` (of folds: the mean of theirs), `eer_threshold`, `failed`, and
`accuracy_from` in words. Then `kfold` (None with too few pairs), `at_threshold` (rates at the threshold given, or
None), `tpr_at_fpr` (a list), `cost`, `intervals` (95 %) and `survivors` (the same decisions on pairs that did not
fail; None where none failed). Undefined and infinite numbers are None.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from facekit.bootstrap import score_intervals
from facekit.folds import NO_DECISIONS, KFold, folds_by_identity, folds_by_pair, kfold_accuracy, number_people
from facekit.metrics import (
    BoolArray,
    FloatArray,
    IntArray,
    Rates,
    rates_at,
    rates_of,
    roc,
    tpr_at_fpr,
    with_failures,
)
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


def verification_report(
    distances: ArrayLike,
    same: ArrayLike,
    threshold: float | None = None,
    folds: ArrayLike | None = None,
    ids1: ArrayLike | None = None,
    ids2: ArrayLike | None = None,
    failed: ArrayLike | None = None,
) -> dict[str, Any]:
    """Everything that scored pairs say about a verifier. The same pairs always give the same report.

    `accuracy` and the rates beside it come from the folds of the pairs file, where it has any (`accuracy` is then
    the mean of the folds, the rates those of all their decisions together); else from `threshold`; else from folds
    made here. `accuracy_from` says which. Their threshold is never chosen on the pairs that it decides.

    Args:
        distances: (n,) float; those of failed pairs are not looked at.
        same: (n,) bool.
        threshold: the model's own, chosen elsewhere.
        folds: (n,) int, the folds that the pairs file defines.
        ids1: (n,) name or number of each pair's first person, for folds and intervals by identity.
        ids2: (n,) of the second person, equal to `ids1` in genuine pairs and in no others.
        failed: (n,) bool, pairs lost to detection. They count as rejected everywhere but in `survivors`.

    Returns:
        A dictionary for JSON, with the keys above.

    Raises:
        ValueError: there are no pairs, lengths differ, a distance is NaN, or the people contradict `same`.
    """
    lost = np.zeros(np.shape(distances), dtype=np.bool_) if failed is None else np.asarray(failed, dtype=np.bool_)
    values, labels, *_ = with_failures(distances, same, lost)
    people = _people(ids1, ids2, labels)
    folding = _fold(values, labels, folds, people)
    headline = _decide(values, labels, threshold if folds is None else None, folding)
    figures = _figures(values, labels, headline.rates) | {
        "threshold": headline.threshold,
        "eer_threshold": roc(values, labels).eer.threshold,
        "failed": int(lost.sum()),
        "accuracy_from": headline.source,
        "kfold": folding and _kfold_part(folding),
        "at_threshold": None if threshold is None else asdict(rates_at(values, labels, threshold)),
        "tpr_at_fpr": [asdict(claim) for claim in tpr_at_fpr(values, labels)],
        "cost": asdict(cost_threshold(values, labels)),
        "intervals": _intervals_part(values, labels, headline.accepted, people),
        "survivors": _survivors_part(values, labels, lost, headline.accepted) if lost.any() else None,
    }
    plain: dict[str, Any] = _plain(figures)
    return plain


def _people(ids1: ArrayLike | None, ids2: ArrayLike | None, same: BoolArray) -> People | None:
    """The people's numbers, or None where they are unknown."""
    if ids1 is None and ids2 is None:
        return None
    if ids1 is None or ids2 is None:
        raise ValueError("`ids1` and `ids2` belong together: give both, or neither.")
    first, second = number_people(ids1, ids2)
    if first.shape != same.shape:
        raise ValueError(f"`ids1` and `ids2` must have one entry a pair. Received: {first.size} for {same.size}.")
    wrong = np.flatnonzero((first == second) != same)
    if wrong.size:
        raise ValueError(
            f"`ids1` and `ids2` contradict `same` in {wrong.size} of {same.size} pairs, first at index {wrong[0]}."
        )
    return first, second


def _fold(values: FloatArray, labels: BoolArray, folds: ArrayLike | None, people: People | None) -> _Folding | None:
    """The file's folds, or ours: by identity where people are known and two can be told apart, else by pair."""
    if folds is not None:
        result = kfold_accuracy(values, labels, folds)
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


def _figures(values: FloatArray, labels: BoolArray, rates: Rates) -> dict[str, Any]:
    curve = roc(values, labels)
    return {
        "auc": curve.auc,
        "eer": curve.eer.rate,
        **asdict(rates),
        "pairs": values.size,
        "genuine": curve.genuine,
        "impostor": curve.impostor,
    }


def _kfold_part(folding: _Folding) -> dict[str, Any]:
    result = folding.result
    return {
        "name": folding.name,
        "accuracy": result.accuracy,
        "standard_error": result.standard_error,
        "threshold": folding.threshold,
        "accuracies": result.accuracies.tolist(),
        "thresholds": result.thresholds.tolist(),
        "pooled": asdict(result.rates),
        "shared_pairs": folding.shared_pairs,
    }


def _intervals_part(
    values: FloatArray, labels: BoolArray, accepted: BoolArray, people: People | None
) -> dict[str, Any]:
    # In the order of the distances, the bootstrap's sums run straight through memory: twice as fast for millions.
    order = np.argsort(values)
    ids1, ids2 = (None, None) if people is None else (people[0][order], people[1][order])
    return asdict(score_intervals(values[order], labels[order], accepted[order], ids1, ids2))


def _survivors_part(values: FloatArray, labels: BoolArray, lost: BoolArray, accepted: BoolArray) -> dict[str, Any]:
    if lost.all():
        return {"pairs": 0}
    return _figures(values[~lost], labels[~lost], rates_of(accepted[~lost], labels[~lost]))


def _plain(value: Any) -> Any:
    """Numbers that JSON has no word for (NaN, infinity) as None, all the way down."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
