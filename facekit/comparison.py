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

from facekit.bootstrap import bootstrap_interval, weighted_auc, weighted_rates
from facekit.folds import folds_by_identity, folds_by_pair, kfold_accuracy
from facekit.metrics import BoolArray, FloatArray, IntArray, Roc, TprAtFpr, rates_at, roc, tpr_at_fpr
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
        A dictionary of JSON values for each system: `name`, `reference` (bool), `pairs`, `genuine`, `impostor`,
        `failed`, `auc`, `eer`, `accuracy` (mean over the folds, each at the threshold that is best on the others),
        `accuracy_from` (whose folds; the same for all), `tpr_at_fpr` (a list of `fpr`, `tpr`, `claimable`,
        `needs`), `at_threshold` (`threshold` in the system's own scores, `accuracy`, `fmr`, `fnmr`; None without a
        threshold), `intervals` (95 %, low and high: `auc`, `accuracy`, its thresholds held fixed, and `tpr_at_fpr`,
        a list; `by` says whether people or pairs were drawn), and `differences` to the reference, None there:
        `auc`, `accuracy`, and `tpr_at_fpr`, a list, each with `difference`, `interval` and `clear`. What is
        undefined is None.

    Raises:
        ValueError: there is no system, one class only, or the systems' pairs differ.
    """
    if not systems:
        raise ValueError("There is no system to compare.")
    shared = _shared_pairs(systems)
    judged = {name: _judge(scored, shared.folds) for name, scored in systems.items()}
    figures = np.array([found.figures for found in judged.values()])
    low, high = _paired_intervals([found.statistic for found in judged.values()], shared)
    rows: list[Row] = []
    for place, (name, scored) in enumerate(systems.items()):
        own = [_ends(ends) for ends in zip(low[0, place], high[0, place], strict=True)]
        apart = [
            _difference(float(gap), _ends(ends))
            for gap, *ends in zip(figures[place] - figures[0], low[1, place], high[1, place], strict=True)
        ]
        rows.append(
            {
                "name": name,
                "reference": place == 0,
                **_figures(judged[name], scored),
                "accuracy_from": shared.folds_name,
                "at_threshold": _at_threshold(scored, thresholds.get(name)),
                "intervals": {"by": shared.by, "auc": own[0], "accuracy": own[1], "tpr_at_fpr": own[2:]},
                "differences": _named(apart) if place else None,
            }
        )
    return rows


class _Shared(NamedTuple):
    """What the systems' pairs have in common: people where any system knows them, and one set of folds."""

    pairs: int
    ids1: IntArray | None
    ids2: IntArray | None
    folds: IntArray
    folds_name: str

    @property
    def by(self) -> str:
        return "pair" if self.ids1 is None else "identity"


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
    """One system's curve, its accuracy over the folds, and both with TPR at FPR as a function of weights."""

    curve: Roc
    accuracy: float
    claims: list[TprAtFpr]
    statistic: Callable[[FloatArray], FloatArray]

    @property
    def figures(self) -> list[float]:
        """AUC, accuracy, and the TPR at each rate: NaN where it cannot be claimed."""
        return [self.curve.auc, self.accuracy, *(claim.tpr for claim in self.claims)]


def _judge(scored: ScoredPairs, folds: IntArray) -> _Judged:
    values, same = scored.ranked, scored.same
    claims = tpr_at_fpr(values, same, RATES)
    kfold = kfold_accuracy(values, same, folds)
    area, rates = weighted_auc(values, same), weighted_rates(kfold.accepted, same)
    tprs = weighted_tpr_at_fpr(values, same, [claim.fpr if claim.claimable else math.nan for claim in claims])

    def statistic(weights: FloatArray) -> FloatArray:
        return np.concatenate([[area(weights), rates(weights)[0]], tprs(weights)])

    return _Judged(roc(values, same), kfold.accuracy, claims, statistic)


def weighted_tpr_at_fpr(
    distances: FloatArray, same: BoolArray, rates: Sequence[float]
) -> Callable[[FloatArray], FloatArray]:
    """The best TPR at false-match rates as a function of the pairs' weights, each draw with its own thresholds.

    Args:
        distances: (n,) float, infinite for pairs that are never accepted.
        same: (n,) bool.
        rates: (k) false-match rates; NaN for one to be left out.

    Returns:
        A statistic that returns (k,): NaN for rates left out, and where a class has no weight.
    """
    order = np.argsort(distances)
    ranked, genuine = distances[order], same[order].astype(np.float64)
    # How many pairs each threshold accepts: those of equal distance enter together, infinite ones never.
    accepted = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True) & (ranked < np.inf)) + 1
    accepted = np.append(0, accepted)
    # Weights are whole numbers: the least more than rate x total stands for a rounded product.
    limits = np.asarray(rates) * (1 + 1e-12)

    def statistic(weights: FloatArray) -> FloatArray:
        ordered = weights[order]
        of_genuine = np.append(0.0, np.cumsum(ordered * genuine))
        of_impostor = np.append(0.0, np.cumsum(ordered)) - of_genuine
        if not of_genuine[-1] or not of_impostor[-1]:
            return np.full(limits.shape, np.nan)
        last = np.searchsorted(of_impostor[accepted], limits * of_impostor[-1], side="right") - 1
        return np.where(np.isnan(limits), np.nan, of_genuine[accepted[last]] / of_genuine[-1])

    return statistic


def _paired_intervals(
    statistics: Sequence[Callable[[FloatArray], FloatArray]], shared: _Shared
) -> tuple[FloatArray, FloatArray]:
    """Ends of the intervals of all systems' k figures, and of their differences to the first: (2, systems, k)."""

    def together(weights: FloatArray) -> FloatArray:
        figures = np.array([statistic(weights) for statistic in statistics])
        return np.stack([figures, figures - figures[0]])

    # As many draws as for one system's intervals: fewer above 200,000 pairs.
    times = max(200, min(1000, 200_000_000 // shared.pairs))
    low, high = bootstrap_interval(together, shared.pairs, shared.ids1, shared.ids2, times)
    return low, high


def _figures(judged: _Judged, scored: ScoredPairs) -> Row:
    return {
        "pairs": len(scored),
        "genuine": judged.curve.genuine,
        "impostor": judged.curve.impostor,
        "failed": int(scored.failed.sum()),
        "auc": judged.curve.auc,
        "eer": judged.curve.eer.rate,
        "accuracy": judged.accuracy,
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


def _named(differences: list[Row]) -> Row:
    auc, accuracy, *tprs = differences
    return {
        "auc": auc,
        "accuracy": accuracy,
        "tpr_at_fpr": [{"fpr": fpr, **found} for fpr, found in zip(RATES, tprs, strict=True)],
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
    columns: dict[str, Callable[[Row], str]] = {
        "system": lambda row: str(row["name"]),
        "AUC": lambda row: _with_interval(row["auc"], row["intervals"]["auc"]),
        "accuracy": lambda row: _with_interval(row["accuracy"], row["intervals"]["accuracy"]),
        "EER": lambda row: f"{row['eer']:.4f}",
    }
    for place, rate in enumerate(RATES):
        columns[f"TPR at FPR {rate:g}"] = partial(_claim_cell, place)
    columns["lost pairs"] = lambda row: f"{row['failed']:,}"
    if any(row["at_threshold"] for row in rows):
        columns["FMR at own threshold"] = partial(_own_cell, "fmr")
        columns["FNMR at own threshold"] = partial(_own_cell, "fnmr")
    if len(rows) > 1:
        columns["AUC, difference"] = partial(_difference_cell, lambda apart: apart["auc"])
        columns["accuracy, difference"] = partial(_difference_cell, lambda apart: apart["accuracy"])
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
