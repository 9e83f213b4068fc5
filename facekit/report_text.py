"""Reports as short tables in words, for the terminal. What they are made of: the dictionaries that go to JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Report = Mapping[str, Any]


def verification_text(report: Report) -> str:
    """The report on pairs."""
    intervals, kfold, cost = report["intervals"], report["kfold"], report["cost"]

    def line(name: str, figure: str, interval: str = "") -> str:
        return f"  {name:<26}{_number(report[figure])}{_within(intervals[interval] if interval else None)}"

    lines = [
        *_facts(report),
        f"{report['genuine']:,} genuine and {report['impostor']:,} impostor pairs; {report['failed']:,} lost to "
        "detection, counted as rejected",
        f"Accuracy and rates at: {report['accuracy_from']} ({_number(report['threshold'])}). Intervals by "
        f"{intervals['by']}.",
        line("accuracy", "accuracy", "accuracy"),
        line("AUC", "auc", "auc"),
        line("EER", "eer"),
        line("FMR (FPR)", "fmr", "fmr"),
        line("FNMR (FNR)", "fnmr", "fnmr"),
        line("precision", "precision"),
        line("recall (TPR)", "recall"),
        line("F1", "f1"),
    ]
    if kfold:
        spread = f"{_number(kfold['accuracy'])} +- {_number(kfold['standard_error'])}"
        lines.append(f"  {kfold['name']:<26}{spread} accuracy")
    lines += _claims("TPR at FPR", report["tpr_at_fpr"], "fpr", "tpr", "impostor pairs")
    if cost:
        lines.append(
            f"  {'cost threshold':<26}{_number(cost['threshold'])} (0.8 FPR + 0.2 FNR = {_number(cost['cost'])})"
        )
    if report["survivors"]:
        lines.append(f"  without lost pairs        {_number(report['survivors'].get('accuracy'))} accuracy")
    return "\n".join([*lines, *_ending(report)])


def identification_text(report: Report) -> str:
    """The report on a gallery and probes."""
    lines = [
        *_facts(report),
        f"Gallery {report['gallery_pictures']:,} pictures of {report['gallery_people']:,} people; probes "
        f"{report['mated']:,} mated, {report['non_mated']:,} non-mated; {report['failed_probes']:,} without a "
        "face, counted as missed",
        f"  {'rank-1':<26}{_number(report['rank1'])}{_within(report['intervals'].get('rank1'))}",
        f"  {'rank-5':<26}{_number(report['rank5'])}",
        *_claims("TPIR at FPIR", report["tpir_at_fpir"], "fpir", "tpir", "non-mated probes"),
        *_claims("TPR at FPR", report["id_rate"], "fpr", "tpr", "pairs"),
    ]
    return "\n".join([*lines, *_ending(report)])


def triplet_text(report: Report) -> str:
    """The report on triplets."""
    within = _within(report["intervals"]["ordered"])
    lines = [
        *_facts(report),
        f"{report['triplets']:,} triplets; {report['failed']:,} lost to detection, counted as wrong",
        f"  {'ordered right':<26}{_number(report['ordered'])}{within}",
        f"  {'mean margin':<26}{_number(report['margin_mean'])} (distance to the negative less to the positive)",
    ]
    return "\n".join([*lines, *_ending(report)])


def comparison_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Systems side by side: what fits a terminal; the report has the rest."""
    shown = [
        place
        for place, name in enumerate(header)
        if name in ("system", "AUC", "accuracy (folds)", "TPR at FPR 0.01", "AUC, difference")
    ]
    return table_text([header[place] for place in shown], [[row[place] for place in shown] for row in rows])


def table_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in columns of equal width: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(row: Sequence[str]) -> str:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        return "  ".join([row[0].ljust(widths[0]), *cells[1:]]).rstrip()

    return "\n".join(line(row) for row in (header, *rows))


def _facts(report: Report) -> list[str]:
    model = f"Model {report['model']}" + (" (trained on drawn faces)" if report.get("synthetic") else "")
    return [model, str(report["data"])]


def _ending(report: Report) -> list[str]:
    overlap = report["overlap"]["words"]
    return [
        *([] if overlap in report["warnings"] else [overlap]),
        *(f"WARNING: {warning}" for warning in report["warnings"]),
        f"Written: {report['output']}: report.html, report.md, report.json and what they show",
    ]


def _claims(name: str, claims: Sequence[Report], rate: str, figure: str, what: str) -> list[str]:
    cells = [
        f"{claim[figure]:.4f}" if claim["claimable"] else f"needs {claim['needs']:,} {what}" for claim in claims
    ]
    return [f"  {f'{name} {claim[rate]:g}':<26}{cell}" for claim, cell in zip(claims, cells, strict=True)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _within(ends: Sequence[float | None] | None) -> str:
    if ends is None or None in ends:
        return ""
    return f"   95 % {ends[0]:.3f} to {ends[1]:.3f}"
