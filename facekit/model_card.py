"""A model card: what a model is for, what it was made of, how good it is, and what to doubt.

Mitchell et al., "Model Cards for Model Reporting", FAT* 2019 (https://arxiv.org/abs/1810.03993).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from facekit.mirror import mirror_words

if TYPE_CHECKING:
    from facekit.bundle import BundleRecord

USES = """\
For: telling whether two pictures, each with one chosen face, show the same person (1:1 verification), where
somebody can look at doubtful cases; grouping one's own photos; research.

Not for: decisions that deprive anyone of anything without a human's review; finding strangers on sight; telling
age, sex, origin or mood; pictures whose people did not agree, where the law asks for it.
"""

LIMITS = """\
- **No liveness.** A photo of a photo, a screen or a mask counts as the face. A system that lets people in needs a
  separate check that somebody is there.
- A look-alike, above all a sibling or twin, may be accepted at any threshold.
- The rates above hold for pictures like those they were counted on. Other cameras, ages, light or groups of people
  need their own: `python evaluate.py calibrate`, `python evaluate.py --group`.
- Faces have to be found first: sharp, fairly upright, at least 20 pixels wide. Pictures without one get no verdict.
"""

COHORT = """\
- The network holds embeddings of training people, one picture each, by which it normalises others. They are
  biometric data: whoever may not have those may not have the network.
"""


CLAUSES = ("overlap_with_lfw",)
"""Facts on the training data that are clauses of a sentence, and no values of a name."""


def clauses(training: Mapping[str, Any]) -> list[str]:
    """Those facts as sentences."""
    texts = [str(training[name]) for name in CLAUSES if training.get(name)]
    return [f"{text[0].upper()}{text[1:]}." for text in texts]


FIGURES = {"auc": "AUC", "eer": "EER", "f1": "F1", "tpr": "TPR", "fpr": "FPR", "fnr": "FNR"}
"""Figures whose names are abbreviations."""


def said(name: str, value: Any) -> bool:
    """Whether a fact on the training data goes among the data: none that is no fact, and no rate of a figure."""
    return name != "monitor_fmr" and value not in (None, "", 0)


def model_card(record: BundleRecord) -> str:
    """The card of a bundle as Markdown."""
    return "\n".join(
        [
            f"# Model card: {record.name}",
            "",
            _made(record),
            "## Uses",
            "",
            USES,
            "## Data",
            "",
            _data(record),
            "## Figures",
            "",
            _figures(record),
            "## Groups",
            "",
            _groups(record),
            "## Limits",
            "",
            LIMITS + (COHORT if record.training.get("cohort") else ""),
        ]
    )


def _made(record: BundleRecord) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in record.versions.items()) or "not recorded"
    recipe = record.recipe
    cut = "whole pictures, as they are"
    if recipe is not None:
        where = f"five points onto the {recipe.template} template" if recipe.method == "align" else "the face's box"
        cut = f"{recipe.detector} finds the face; {where}, {recipe.size} x {recipe.size} pixels"
    drawn = "\n**Trained on drawn faces: for trying the commands only.**\n" if record.synthetic else ""
    return f"""\
Network {record.backbone}, from a face of {record.image_size} x {record.image_size} pixels (RGB, 0 to 255) to
{record.embedding_size} numbers of unit length; {mirror_words(record.flip)}. Preprocessing: {cut}; its SHA-256 is
{record.preprocessing()["sha256"]}. Made {record.created} with {versions}.
Licence: {record.licence or "unstated; the terms of the training data decide"}.
{drawn}"""


def _data(record: BundleRecord) -> str:
    lines = [f"Trained on {record.data or 'data without a name'}."]
    facts = {name: value for name, value in record.training.items() if name not in CLAUSES and said(name, value)}
    if record.training.get("steps") and record.training.get("best_epoch") == 0:
        facts["best_epoch"] = "none beat the start"
    lines += [f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items()]
    lines += [f"- {sentence}" for sentence in clauses(record.training)]
    return "\n".join([*lines, ""])


def _figures(record: BundleRecord) -> str:
    threshold = record.threshold
    lines = ["No threshold was chosen: the model gives distances and no verdicts.", ""]
    if threshold is not None:
        lines = [f'"Same person" means a distance below {threshold.text()}; intervals by {threshold.by}.', ""]
    rows = {name: value for name, value in record.figures.items() if isinstance(value, int | float)}
    # The mean threshold of the folds is not the bundle's, which the table's figures do not belong to.
    folds = rows.pop("threshold", None) is not None
    if rows:
        at = "; accuracy, precision, recall, F1, TPR, FPR and FNR at thresholds from other folds" if folds else ""
        lines += [f"On people who did not train it{at}:", "", "| figure | value |", "| --- | --- |"]
        lines += [f"| {_named(name, record)} | {value:.4g} |" for name, value in rows.items()]
    if note := record.figures.get("note"):
        lines += [*_apart(lines), note]
    intervals = record.figures.get("intervals", {})
    if intervals:
        lines += [*_apart(lines), "| figure | value | 95 % interval |", "| --- | --- | --- |"]
        lines += [
            f"| {name} | {value:.4f} | {low:.4f} to {high:.4f} |" for name, (value, low, high) in intervals.items()
        ]
    return "\n".join([*lines, ""])


def _apart(lines: list[str]) -> list[str]:
    """The blank line that parts what comes from what is there, where it is missing."""
    return [""] if lines[-1] else []


def _named(figure: str, record: BundleRecord) -> str:
    """The name of a figure as text has it."""
    if figure == "tpr_at_fmr":
        fmr = record.training.get("monitor_fmr")
        return f"TPR at FMR {fmr:g}" if fmr else "TPR at the FMR of `monitor_fmr`"
    return FIGURES.get(figure, figure.replace("_", " "))


def _groups(record: BundleRecord) -> str:
    groups = record.figures.get("groups")
    if groups:
        return "\n".join([f"- {name}: {words}" for name, words in groups.items()] + [""])
    return (
        "Not measured: nobody has given groups (sex, age band, skin tone, camera). Networks of this kind are\n"
        "known to err more often on some of them (Grother et al., NIST IR 8280, 2019). Measure it on your own\n"
        "pictures before you rely on it: `python evaluate.py --group`.\n"
    )
