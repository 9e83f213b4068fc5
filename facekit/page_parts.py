"""What the pages of all protocols share: numbers in words, definitions, facts about data and settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from facekit.model_card import CLAUSES, clauses
from facekit.page import Illustration, Section, Table
from facekit.panels import percent, score_text

Report = Mapping[str, Any]

MOST_LISTED = 40
"""Rows of a list of failures; more are in report.json or scores.csv."""

_DEFINITIONS = {
    "genuine, impostor": ("mated, non-mated; positive, negative", "A pair of one person; a pair of two people."),
    "score": (
        "similarity, distance",
        "How alike (similarity) or unlike (distance) two faces are to the system.",
    ),
    "threshold": (
        "operating point",
        "Pairs are called one person below it (distances) or above it (similarities).",
    ),
    "FMR": (
        "false-match rate; FPR, FAR, fall-out",
        "Share of impostor pairs that are accepted: how often a stranger passes for you.",
    ),
    "FNMR": (
        "false-non-match rate; FNR, FRR, miss rate",
        "Share of genuine pairs that are rejected: how often you are turned away.",
    ),
    "TPR": ("true-match rate; TAR, recall, VAL", "Share of genuine pairs that are accepted: 1 - FNMR."),
    "accuracy": ("", "Share of all decisions that are right. It depends on how many pairs of each kind there are."),
    "precision": ("positive predictive value", "Share of the accepted pairs that are genuine."),
    "F1": ("", "The harmonic mean of precision and TPR."),
    "ROC": ("receiver operating characteristic", "TPR over FMR as the threshold moves."),
    "DET": ("detection error trade-off", "FNMR over FMR; its axes are stretched so that small rates can be read."),
    "AUC": (
        "area under the ROC curve",
        "How often a genuine pair scores better than an impostor pair. 0.5 is chance, 1 is perfect.",
    ),
    "EER": ("equal error rate", "Where FMR and FNMR are equal. It compares systems; its threshold is no advice."),
    "95 % interval": (
        "confidence interval",
        "A test is a sample. In 95 of 100 such tests, this range holds what endless pairs would give.",
    ),
    "k folds": (
        "cross-validation",
        "Pairs cut into k parts; each is decided by the threshold that is best on the others.",
    ),
    "rule of three": (
        "",
        "No error among N pairs shows no more than a rate below 3 / N. Smaller rates are not claimed.",
    ),
    "rank-1": (
        "CMC at rank 1",
        "Share of mated probes whose person is the nearest in the gallery; rank-5: among the five nearest.",
    ),
    "gallery, probe": ("enrolment, query", "The pictures of known people; a picture to be named."),
    "TPIR": ("1 - FNIR", "Share of mated probes (of people in the gallery) that get the right name."),
    "FPIR": ("false-positive identification rate", "Share of probes of unknown people that get anybody's name."),
    "triplet": ("anchor, positive, negative", "A picture, another of the same person, one of somebody else."),
    "margin": ("", "How much farther the negative is from the anchor than the positive. Above 0 is right."),
}


def glossary(*terms: str) -> Section:
    """Definitions of some terms, the classical names beside."""
    rows = [(term, *_DEFINITIONS[term]) for term in terms]
    return Section("What the words mean", tables=[Table(("Term", "Also called", "Meaning"), rows, align="lll")])


def share(value: float | None) -> str:
    """A rate, 0 to 1, in percent; "undefined" for None."""
    return "undefined" if value is None else percent(value)


def number(value: float | None) -> str:
    """A score, threshold or other figure; "undefined" for None."""
    return "undefined" if value is None else score_text(value)


def within(ends: Sequence[float | None] | None, plain: bool = False) -> str:
    """An interval of a rate in percent, or of another figure as it is; "" where an end is unknown."""
    if ends is None or ends[0] is None or ends[1] is None:
        return ""
    low, high = float(ends[0]), float(ends[1])
    return f"{low:.4f} to {high:.4f}" if plain else f"{percent(low).removesuffix(' %')} to {percent(high)}"


def short_name(report: Report) -> str:
    """The system's name for titles and legends: its record's; else of a run's bundle the run."""
    if name := report.get("model_name"):
        return str(name)
    path = Path(str(report.get("model") or "the system"))
    return (path.parent.name or path.name) if path.name == "bundle" else path.name or str(path)


AS_CROPS = "none: taken as faces already cut, whoever cut them (as_crops)"


def interval_words(report: Report) -> str:
    """What the intervals take for independent."""
    by = str((report.get("intervals") or {}).get("by", "pair"))
    if by == "identity":
        return "The 95 % intervals are by person: they allow for pairs that share people."
    if by == "pair":
        return (
            "The 95 % intervals take pairs for independent, as it is unknown whom they show: they are too narrow "
            "where people are in several pairs."
        )
    return f"The 95 % intervals are by {by}."


def facts_of(report: Report) -> list[tuple[str, str]]:
    """Data, model and preprocessing, for the end of a page. Whatever is unknown is left out."""
    overlap = report.get("overlap") or {}
    names = {
        "Model": report.get("model"),
        "Trained with": report.get("training"),
        "Protocol": report.get("protocol"),
        "Data": report.get("data"),
        "Pairs file": report.get("pairs_file"),
        "Scores file": report.get("scores_file"),
        "Pictures": report.get("images"),
        "Preprocessing of the pictures": AS_CROPS if report.get("as_crops") else report.get("recipe"),
        "Threshold": report.get("threshold_words"),
        "Overlap with the training people": overlap.get("words"),
        "Report folder": report.get("output"),
    }
    return [(name, _words(value)) for name, value in names.items() if value not in (None, "", {}, [])]


def _words(value: object) -> str:
    if isinstance(value, Mapping):
        facts = ", ".join(
            f"{str(key).replace('_', ' ')} {part}" for key, part in value.items() if key not in CLAUSES
        )
        return ". ".join(filter(None, [facts, *clauses(value)]))
    return str(value)


def reproduction(report: Report) -> list[Section]:
    """The command that made the report, where it is known."""
    command = report.get("command")
    return [Section("How to make this report again", code=str(command))] if command else []


def lost_pictures(report: Report) -> list[Table]:
    """The pictures without a face and why, where the report names them."""
    lost = report.get("lost_pictures") or []
    rows = [(str(row.get("picture", "")), str(row.get("reason", ""))) for row in lost[:MOST_LISTED]]
    caption = "Pictures without a face" + listed(len(rows), len(lost), "report.json")
    return [Table(("Picture", "Why"), rows, caption, "ll")] if rows else []


def listed(shown: int, whole: int, file: str) -> str:
    """How many of a list are shown, in words; "" where all are."""
    return "" if shown == whole else f" (the first {shown} of {whole:,}; all are in {file})"


def overlap_section(report: Report, strips: Mapping[str, Any]) -> list[Section]:
    """What is known of test people among the training people, with the likeliest doubles to look at."""
    words = str((report.get("overlap") or {}).get("words") or "")
    pictures = [Illustration(strip, f"{caption}.", caption) for caption, strip in strips.items()]
    return [Section("Overlap with the training people", [words], pictures=pictures)] if words and pictures else []
