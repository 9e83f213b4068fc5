"""Axes with fixed margins, legends and labels: what the figures about error rates share.

Margins are given in inches instead of being searched for, which makes drawing twice as fast.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from facekit.plots import COLOURS, LINE_STYLES

_LEGEND_LINE, _LEGEND_COLUMNS = 0.23, 2  # inches, entries a line
_MOST_INSIDE = 4  # entries of a legend that fit into the axes
_LEFT, _RIGHT, _TOP, _BOTTOM, _BETWEEN = 0.85, 0.25, 0.45, 0.65, 0.95  # inches


def panels(count: int, height: float = 4.6, legend: int = 0, margin: float = _LEFT) -> tuple[Figure, list[Axes]]:
    """A figure with one panel, 6.6 inches wide, or two side by side, 11 inches wide; each with a faint grid.

    Args:
        count: panels in a row.
        height: of the figure without the legend, in inches.
        legend: entries of a legend below the panels, for which to make room.
        margin: left of the first panel, in inches.
    """
    width = 6.6 if count == 1 else 11.0
    below = math.ceil(legend / _LEGEND_COLUMNS) * _LEGEND_LINE + 0.1 * bool(legend)
    figure = Figure(figsize=(width, height + below))
    across = (width - margin - _RIGHT - (count - 1) * _BETWEEN) / count
    inches = [(margin + number * (across + _BETWEEN), _BOTTOM + below) for number in range(count)]
    size = across / width, (height - _TOP - _BOTTOM) / (height + below)
    axes = [figure.add_axes((left / width, bottom / (height + below), *size)) for left, bottom in inches]
    for panel in axes:
        panel.grid(alpha=0.3)
    return figure, axes


Place = Literal["best", "below", "lower left", "lower right", "upper left", "upper right"]


def add_legend(axes: Axes, place: Place = "best") -> None:
    """Write the axes' legend into them, or, an entry a line, below all panels."""
    if place != "below":
        axes.legend(loc=place)
        return
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure(root=True)
    if isinstance(figure, Figure):
        lines = [label.replace("\n", ": ") for label in labels]
        figure.legend(handles, lines, loc="lower center", ncols=_LEGEND_COLUMNS, frameon=False)


def entries_below(entries: int) -> int:
    """How many of a legend's entries to write below: all where they would hide the panel, or none."""
    return entries if entries > _MOST_INSIDE else 0


def curve_style(number: int) -> dict[str, Any]:
    """Colour and line style of a figure's curve number 0, 1, ...; the first 49 all differ, the first 7 in both."""
    turn = number // len(COLOURS)
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": LINE_STYLES[(number + turn) % len(LINE_STYLES)],
        "linewidth": 2,
    }


def plain_text(name: str, longest: int = 40) -> str:
    """A user's name as matplotlib draws it: dollars are no formulas, a first underscore hides nothing."""
    line = "".join(letter for letter in " ".join(name.split()) if letter.isprintable())
    short = line if len(line) <= longest else f"{line[: longest - 1]}…"
    escaped = short.replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def percent(rate: float) -> str:
    """A rate in words: "1.50 %", with more digits where it is small, or "undefined"."""
    if math.isnan(rate):
        return "undefined"
    return f"{100 * rate:.2f} %" if rate >= 0.001 or rate == 0 else f"{100 * rate:.2g} %"


def score_text(value: float) -> str:
    """A score or threshold: four decimals, or five digits where it is large or tiny."""
    return f"{value:.4f}" if value == 0 or 0.01 <= abs(value) < 1000 else f"{value:.5g}"


def log_ticks(lowest: float) -> list[float]:
    """Powers of ten from `lowest` to 1, and twice and five times them where they are few."""
    decades = [10.0**power for power in range(math.floor(math.log10(lowest)), 1)]
    steps = (1, 2, 5) if sum(decade >= lowest for decade in decades) <= 2 else (1,)
    return [step * decade for decade in decades for step in steps if lowest <= step * decade <= 1]
