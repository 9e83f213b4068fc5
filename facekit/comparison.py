"""Several systems on the same pairs, side by side: who is better, and whether these pairs can tell.

Differences have paired 95 % intervals: each draw of people weighs the pairs of all systems alike, so that what is
hard for every system cancels. Where an interval leaves out 0, a difference is called clear. That is so by chance in
one of twenty comparisons of equal systems: of a long table, believe the clearest differences only.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from facekit.bootstrap import (
    bootstrap_interval,
    roc_band,
    score_intervals,
    weighted_auc,
    weighted_rates,
    weighted_tpr_at_fpr,
)
from facekit.folds import KFold, folds_by_identity, folds_by_pair, kfold_accuracy
from facekit.metrics import FloatArray, IntArray, Roc, TprAtFpr, rates_at, roc, tpr_at_fpr
from facekit.scored import ScoredPairs

RATES = (0.1, 0.01, 0.001)
"""False-match rates of the table."""
OWN_FOLDS = 10

Row = dict[str, Any]


def compare_systems(systems: Mapping[str, ScoredPairs], thresholds: Mapping[str, float | None]) -> list[Row]:
    """Figures of each system, and their differences to the first. Failed pairs count as rejected.

    Args:
        systems: the same pairs in the same order, with each system's scores, by name. The first is the reference.
        thresholds: each system's own threshold, an internal distance chosen on other pairs; None or absent: none.

    Returns:
        A dictionary of JSON values for each system. What is undefined is None.

        `name`, `reference` (bool), `pairs`, `genuine`, `impostor`, `failed`, `auc`, `eer`;
        `accuracy`: mean over the folds, each at the threshold that is best on the others;
        `accuracy_from`: whose folds, the same for all;
        `tpr_at_fpr`: a list of `fpr`, `tpr`, `claimable` and `needs` (impostor pairs);
        `at_threshold`: `threshold` in the system's own scores, `accuracy`, `fmr`, `fnmr`; None without a threshold;
        `intervals`: low and high (95 %) of `auc`, of `accuracy` and, in a list, of `tpr_at_fpr`, as in a report on
        the system alone; `by`: "identity", or "pair" where people are unknown;
        `differences` to the reference, None there: `auc`, `accuracy` and, in a list, `tpr_at_fpr`, each with
        `difference`, `interval` and `clear`. The folds' thresholds are held fixed.

    Raises:
        ValueError: there is no system, one class only, or the systems' pairs differ.
    """
    if not systems:
        raise ValueError("There is no system to compare.")
    shared = _shared_pairs(systems)
    judged = {name: _judge(scored, shared.folds) for name, scored in systems.items()}
    apart = _differences(list(judged.values()), shared)
    return [
        {
            "name": name,
            "reference": place == 0,
            **_figures(judged[name], scored),
            "accuracy_from": shared.folds_name,
            "at_threshold": _at_threshold(scored, thresholds.get(name)),
            "intervals": _own_intervals(judged[name], scored, shared),
            "differences": apart[place] if place else None,
        }
        for place, (name, scored) in enumerate(systems.items())
    ]


class _Shared(NamedTuple):
    """What the systems' pairs have in common: people where any system knows them, and one set of folds."""

    pairs: int
    ids1: IntArray | None
    ids2: IntArray | None
    folds: IntArray
    folds_name: str


def _shared_pairs(systems: Mapping[str, ScoredPairs]) -> _Shared:
    """The pairs that all systems were scored on; raises ValueError where they differ or are of one class."""
    (reference, known), *others = systems.items()
    if known.same.all() or not known.same.any():
        only = "genuine" if known.same.any() else "impostor"
        raise ValueError(f"All {len(known):,} pairs are {only}: systems are compared on both kinds.")
    for name, scored in others:
        differs = _difference_of_pairs(known, scored)
        if differs:
            raise ValueError(
                f"{name} and {reference} were scored on different pairs: {differs}. Give all systems the same "
                "pairs in the same order."
            )
    people = next((found for scored in systems.values() if (found := scored.people) is not None), None)
    numbers = next((scored.folds for scored in systems.values() if scored.folds is not None), None)
    if numbers is not None:
        name = f"{np.unique(numbers).size} folds of the pairs file"
    elif people is not None and np.unique(people[0]).size >= 2:
        numbers, k, _ = folds_by_identity(*people, k=OWN_FOLDS)
        name = f"{k} folds by identity"
    else:
        numbers, name = folds_by_pair(len(known), k=OWN_FOLDS), f"{min(OWN_FOLDS, len(known))} folds by pair"
    ids1, ids2 = people or (None, None)
    return _Shared(len(known), ids1, ids2, numbers, name)


def _difference_of_pairs(one: ScoredPairs, other: ScoredPairs) -> str:
    """How two lists of pairs differ, in words; "" where all that both know agrees."""
    if len(one) != len(other):
        return f"{len(other):,} and {len(one):,}"
    parts = {
        "labels": (one.same, other.same),
        "folds": (one.folds, other.folds),
        "first pictures": (one.first, other.first),
        "second pictures": (one.second, other.second),
        "people": (one.people, other.people),
    }
    for what, (mine, theirs) in parts.items():
        if mine is not None and theirs is not None and not np.array_equal(mine, theirs):
            return f"their {what} differ"
    return ""


@dataclass(frozen=True, eq=False)
class _Judged:
    """One system's curve, its decisions over the folds, and both with TPR at FPR as a function of weights."""

    curve: Roc
    kfold: KFold
    claims: list[TprAtFpr]
    statistic: Callable[[FloatArray], FloatArray]

    @property
    def figures(self) -> list[float]:
        """AUC, accuracy, and the TPR at each rate: NaN where it cannot be claimed."""
        return [self.curve.auc, self.kfold.accuracy, *(claim.tpr for claim in self.claims)]


def _judge(scored: ScoredPairs, folds: IntArray) -> _Judged:
    values, same = scored.ranked, scored.same
    claims = tpr_at_fpr(values, same, RATES)
    kfold = kfold_accuracy(values, same, folds)
    area, rates = weighted_auc(values, same), weighted_rates(kfold.accepted, same)
    tprs = weighted_tpr_at_fpr(values, same, [claim.fpr if claim.claimable else math.nan for claim in claims])

    def statistic(weights: FloatArray) -> FloatArray:
        return np.concatenate([[area(weights), rates(weights)[0]], tprs(weights)])

    return _Judged(roc(values, same), kfold, claims, statistic)


def _differences(judged: Sequence[_Judged], shared: _Shared) -> list[Row]:
    """Each system's differences to the first, with the intervals of draws that are the same for all."""
    figures = np.array([found.figures for found in judged])

    def to_first(weights: FloatArray) -> FloatArray:
        drawn = np.array([found.statistic(weights) for found in judged])
        return drawn - drawn[0]

    times = None if len(judged) > 1 else 1
    low, high = bootstrap_interval(to_first, shared.pairs, shared.ids1, shared.ids2, times)
    rows = []
    for gaps, lows, highs in zip(figures - figures[0], low, high, strict=True):
        auc, accuracy, *tprs = (
            _difference(float(gap), _ends((one, other))) for gap, one, other in zip(gaps, lows, highs, strict=True)
        )
        at_rates = [{"fpr": fpr, **found} for fpr, found in zip(RATES, tprs, strict=True)]
        rows.append({"auc": auc, "accuracy": accuracy, "tpr_at_fpr": at_rates})
    return rows


def _own_intervals(judged: _Judged, scored: ScoredPairs, shared: _Shared) -> Row:
    """The intervals that a report on this system alone has."""
    values, same = scored.ranked, scored.same
    found = score_intervals(values, same, judged.kfold.accepted, shared.ids1, shared.ids2)
    band = roc_band(values, same, RATES, shared.ids1, shared.ids2)
    tprs = [_ends(ends) if claim.claimable else None for claim, *ends in zip(judged.claims, *band, strict=True)]
    return {"by": found.by, "auc": _ends(found.auc), "accuracy": _ends(found.accuracy), "tpr_at_fpr": tprs}


def _figures(judged: _Judged, scored: ScoredPairs) -> Row:
    return {
        "pairs": len(scored),
        "genuine": judged.curve.genuine,
        "impostor": judged.curve.impostor,
        "failed": int(scored.failed.sum()),
        "auc": judged.curve.auc,
        "eer": judged.curve.eer.rate,
        "accuracy": judged.kfold.accuracy,
        "tpr_at_fpr": [
            {"fpr": claim.fpr, "tpr": _number(claim.tpr), "claimable": claim.claimable, "needs": claim.needs}
            for claim in judged.claims
        ],
    }


def _at_threshold(scored: ScoredPairs, threshold: float | None) -> Row | None:
    if threshold is None:
        return None
    rates = rates_at(scored.ranked, scored.same, threshold)
    return {
        "threshold": scored.native(threshold),
        "accuracy": rates.accuracy,
        "fmr": rates.fpr,
        "fnmr": rates.fnr,
    }


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _ends(ends: Iterable[float]) -> list[float] | None:
    low, high = (float(end) for end in ends)
    return None if math.isnan(low) else [low, high]


def _difference(value: float, ends: list[float] | None) -> Row:
    return {
        "difference": _number(value),
        "interval": ends,
        "clear": ends is not None and (ends[0] > 0 or ends[1] < 0),
    }


def comparison_rows(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The comparison as a table of text, for Markdown, HTML or a terminal.

    The columns of each system's own threshold are there where one has a threshold, those of differences where there
    are several systems; of TPR, only the difference at the lowest false-match rate that can be claimed. "clear"
    stands by a difference whose interval leaves out 0.

    Args:
        rows: what `compare_systems` gave.

    Returns:
        The header, and a list of as many cells for each system.
    """
    apart: dict[str, Callable[[Row], str]] = {}
    if len(rows) > 1:
        apart["AUC, difference"] = partial(_difference_cell, lambda differences: differences["auc"])
    columns: dict[str, Callable[[Row], str]] = {
        "system": lambda row: str(row["name"]),
        "AUC": lambda row: _with_interval(row["auc"], row["intervals"]["auc"]),
        # The answer to the question stands beside the figure, not behind a dozen others.
        **apart,
        "accuracy (folds)": lambda row: _with_interval(row["accuracy"], row["intervals"]["accuracy"]),
        "EER": lambda row: f"{row['eer']:.4f}",
    }
    for place, rate in enumerate(RATES):
        columns[f"TPR at FPR {rate:g}"] = partial(_claim_cell, place)
    columns["lost pairs"] = lambda row: f"{row['failed']:,}"
    if any(row["at_threshold"] for row in rows):
        columns["FMR at own threshold"] = partial(_own_cell, "fmr")
        columns["FNMR at own threshold"] = partial(_own_cell, "fnmr")
    if len(rows) > 1:
        columns["accuracy (folds), difference"] = partial(_difference_cell, lambda apart: apart["accuracy"])
        claimed = [place for place, claim in enumerate(rows[0]["tpr_at_fpr"]) if claim["claimable"]]
        if claimed:
            name = f"TPR at FPR {RATES[claimed[-1]]:g}, difference"
            columns[name] = partial(_difference_cell, lambda apart: apart["tpr_at_fpr"][claimed[-1]])
    return list(columns), [[cell(row) for cell in columns.values()] for row in rows]


def _with_interval(value: float, ends: Sequence[float] | None) -> str:
    return f"{value:.4f}" if ends is None else f"{value:.4f} ({ends[0]:.4f} to {ends[1]:.4f})"


def _claim_cell(place: int, row: Row) -> str:
    claim = row["tpr_at_fpr"][place]
    if not claim["claimable"]:
        return f"needs {claim['needs']:,} impostor pairs"
    return _with_interval(claim["tpr"], row["intervals"]["tpr_at_fpr"][place])


def _own_cell(rate: str, row: Row) -> str:
    return f"{row['at_threshold'][rate]:.4f}" if row["at_threshold"] else "uncalibrated"


def _difference_cell(chosen: Callable[[Row], Row], row: Row) -> str:
    if row["differences"] is None:
        return "reference"
    found = chosen(row["differences"])
    words = f"{found['difference']:+.4f}"
    if found["interval"] is not None:
        words += f" ({found['interval'][0]:+.4f} to {found['interval'][1]:+.4f})"
    return f"{words}, clear" if found["clear"] else words
