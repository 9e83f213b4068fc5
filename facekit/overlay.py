"""Published ROC curves, to lay ours over: text files as on the results page of Labeled Faces in the Wild."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from facekit.metrics import FloatArray
from facekit.tables import malformed, text_lines

_EXPECTED = "two numbers from 0 to 1: the true and the false positive rate"

# Curves averaged over folds may fall a little from point to point.
_ROUNDING = 0.02


@dataclass(frozen=True, eq=False)
class Overlay:
    """A published ROC curve.

    Attributes:
        name: for legends.
        fpr: (k,) false positive rates, 0 to 1, rising; k at least 2.
        tpr: (k,) true positive rates, 0 to 1.
        note: what was done to read it, in words; "" where nothing had to be.
    """

    name: str
    fpr: FloatArray
    tpr: FloatArray
    note: str = ""


def read_overlay(path: Path) -> Overlay:
    """Read a ROC curve: a point a line, first the true, then the false positive rate.

    That is the order of the results page of Labeled Faces in the Wild, whose scripts draw `using 2:1`. A file whose
    points lie below the diagonal is one of the other order, and is read so. Spaces, tabs, commas or semicolons
    separate; # starts a comment.

    Args:
        path: the file. Its name without ending names the curve.

    Raises:
        ValueError: the file cannot be read, a line is no point, there are fewer than two points, or the curve fits
            neither order.
    """
    numbered = [
        (number, _point(path, number, text))
        for number, line in text_lines(path)
        if (text := line.partition("#")[0].strip())
    ]
    if len(numbered) < 2:
        raise ValueError(f"{path}: a ROC curve needs two points at least, found {len(numbered)}. Check the file.")
    tpr, fpr = np.array([point for _, point in numbered]).T
    note = ""
    if (tpr <= fpr).all() and (tpr < fpr).any():
        tpr, fpr = fpr, tpr
        note = f"{path.name}: read with its columns swapped: it gives the false positive rate first."
    order = np.lexsort((tpr, fpr))
    tpr, fpr = tpr[order], fpr[order]
    falls, below = np.maximum.accumulate(tpr) - tpr, fpr - tpr
    if falls.max() > _ROUNDING or below.mean() > 0:
        worst = order[np.argmax(falls if falls.max() > _ROUNDING else below)]
        raise ValueError(
            f"{path}, line {numbered[worst][0]}: this is no point of a ROC curve, in either order of the columns: "
            "the true positive rate must rise with the false one, and lie above it. Check the file."
        )
    return Overlay(_readable(path.stem), fpr, tpr, note)


def _point(path: Path, number: int, text: str) -> tuple[float, float]:
    cells = text.replace(",", " ").replace(";", " ").split()
    try:
        first, second = map(float, cells)
    except ValueError:
        raise malformed(path, number, text, _EXPECTED) from None
    # NaN is in no range.
    if not (0 <= first <= 1 and 0 <= second <= 1):
        raise malformed(path, number, text, _EXPECTED)
    return first, second


def _readable(stem: str) -> str:
    """A file's stem as a name: "human-cropped_roc" is "human cropped roc"."""
    words = stem.replace("_", " ").replace("-", " ").split()
    return " ".join(words) or stem
