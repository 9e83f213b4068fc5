"""How far the forms of a network agree with the Keras one: embeddings, accuracy on pairs, size and time.

In:  forms at work, each a `Contender` and Keras the first; faces, a `Material`; the bundle's record.
Out: a `Measured` of each, as a Markdown table with notes, and as values for export.json.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apps.export_material import Material
from apps.timing import median_seconds, row
from facekit import export
from facekit.bundle import BundleRecord
from facekit.export import Embed, Quantize
from facekit.metrics import rates_at, roc
from facekit.mirror import averaged, mirror_words, mirrored
from facekit.pairs import Pairs
from facekit.thresholds import most_accurate
from scoring import Embedded, distances_of

RATES = (1e-2, 1e-3)
# Times are medians of this many turns of this many calls.
ROUNDS, CALLS = 5, 30
COLUMNS = ("form", "MB", "largest cosine difference", "accuracy", "TPR@FPR 1e-2", "TPR@FPR 1e-3", "ms an image")


@dataclass(frozen=True)
class Figures:
    """How well pairs are told apart.

    Attributes:
        accuracy: at the threshold.
        tpr: best TPR at each of `RATES`, as counted: too few pairs to claim the last one give a hint only.
    """

    accuracy: float
    tpr: tuple[float, ...]


@dataclass(frozen=True)
class Measured:
    """A form of the network, measured.

    Attributes:
        name: for the table.
        size: bytes.
        milliseconds: median for one picture.
        difference: largest cosine difference from Keras; 0 for Keras itself.
        figures: on the pairs; None where none are named.
    """

    name: str
    size: int
    milliseconds: float
    difference: float
    figures: Figures | None


@dataclass(frozen=True, eq=False)
class Contender:
    """A form of the network at work.

    Attributes:
        name: for the table.
        embed: (n, S, S, 3) uint8 to (n, D) float32 unit rows.
        path: its file or folder.
    """

    name: str
    embed: Embed
    path: Path


def measure(contenders: Sequence[Contender], material: Material, record: BundleRecord) -> list[Measured]:
    """Measure forms on the same crops and pairs; the first is Keras, whom the others are held against."""
    rows = [contender.embed(material.crops) for contender in contenders]
    figures: list[Figures | None] = [None] * len(contenders)
    if material.pairs is not None:
        scored = [
            _distances(contender.embed, material, found, record.flip)
            for contender, found in zip(contenders, rows, strict=True)
        ]
        threshold = _threshold(record, scored[0], material.pairs)
        figures = [_figures(distances, material.pairs, threshold) for distances in scored]
    times = latencies([contender.embed for contender in contenders], material.crops[:1])
    return [
        Measured(
            contender.name,
            export.size_of(contender.path),
            milliseconds,
            export.cosine_difference(found, rows[0]),
            told,
        )
        for contender, found, milliseconds, told in zip(contenders, rows, times, figures, strict=True)
    ]


def _distances(embed: Embed, material: Material, rows: NDArray[np.float32], flip: bool) -> NDArray[np.float64]:
    """The pairs' distances; embeddings are averaged with the mirror image's where the bundle has it so."""
    assert material.pairs is not None
    if flip:
        rows = averaged(rows, embed(mirrored(material.crops)))
    pictures = Embedded(material.names, rows)
    return distances_of(rows, pictures.places(material.pairs.first), pictures.places(material.pairs.second))


def _threshold(record: BundleRecord, distances: NDArray[np.float64], pairs: Pairs) -> float:
    """The bundle's; where it has none, Keras' most accurate one on these pairs."""
    return record.threshold.value if record.threshold else most_accurate(roc(distances, pairs.same))


def _figures(distances: NDArray[np.float64], pairs: Pairs, threshold: float) -> Figures:
    curve = roc(distances, pairs.same)
    tpr = tuple(float(curve.tpr[curve.last_within(rate)]) for rate in RATES)
    return Figures(rates_at(distances, pairs.same, threshold).accuracy, tpr)


def latencies(embeds: Sequence[Embed], picture: NDArray[np.uint8]) -> list[float]:
    """Median milliseconds for one picture, of `ROUNDS` turns that the forms take one after the other."""
    turns = [[median_seconds(lambda: embed(picture), 5, CALLS) for embed in embeds] for _ in range(ROUNDS)]  # noqa: B023
    return [1e3 * statistics.median(times) for times in zip(*turns, strict=True)]


# ---- Telling -----------------------------------------------------------------------------------------------


def table(measured: Sequence[Measured]) -> str:
    """The forms as Markdown; figures of the others as changes from Keras'."""
    keras = measured[0]
    lines = [row(COLUMNS), row(["---"] * len(COLUMNS))]
    for one in measured:
        difference = "" if one is keras else f"{one.difference:.1e}"
        cells = [
            one.name,
            f"{one.size / 1e6:.1f}",
            difference,
            *_figure_cells(one, keras),
            f"{one.milliseconds:.1f}",
        ]
        lines.append(row(cells))
    return "\n".join(lines)


def _figure_cells(one: Measured, keras: Measured) -> list[str]:
    if one.figures is None or keras.figures is None:
        return ["", "", ""]
    values, starts = ((each.accuracy, *each.tpr) for each in (one.figures, keras.figures))
    if one is keras:
        return [f"{value:.4f}" for value in values]
    return [f"{value - start:+.4f}" for value, start in zip(values, starts, strict=True)]


def notes(material: Material, record: BundleRecord, threads: int) -> list[str]:
    """What the table's figures were counted on, in sentences."""
    words = [f"Compared on {material.words}; times are medians for one picture on {threads} threads of the CPU."]
    pairs = material.pairs
    if pairs is not None:
        impostor = int(np.sum(~pairs.same))
        which = "the bundle's" if record.threshold else "Keras' best on these pairs"
        words.append(
            f"{len(pairs)} pairs whose faces were found, {impostor} of two people; {mirror_words(record.flip)}; "
            f"accuracy at {which} threshold."
        )
        short = [f"{rate:g}" for rate in RATES if impostor * rate < 3]
        if short:
            words.append(
                f"FPR {' and '.join(short)}: too few pairs to claim a TPR (3 / FPR are needed); a hint only."
            )
    elif material.words.endswith("drawn faces"):
        words.append("They are drawn: name real ones with --images, and pairs of them with --pairs.")
    return words


def parity_values(
    material: Material, keras: Measured, measured: Measured, quantize: Quantize | None, threads: int
) -> dict[str, Any]:
    """The comparison of one form for export.json."""
    return {
        "pictures": len(material.crops),
        "source": material.words,
        "largest_cosine_difference": measured.difference,
        "allowed": export.BOUNDS[quantize],
        "calibration_crops": len(material.samples) if quantize == "int8" else 0,
        "pairs": None if material.pairs is None else len(material.pairs),
        "threads": threads,
        "keras": _measured_values(keras),
        "export": _measured_values(measured),
    }


def _measured_values(one: Measured) -> dict[str, Any]:
    figures = one.figures
    return {
        "bytes": one.size,
        "milliseconds": round(one.milliseconds, 3),
        "accuracy": figures and figures.accuracy,
        "tpr_at_fpr": figures and {f"{rate:g}": value for rate, value in zip(RATES, figures.tpr, strict=True)},
    }
