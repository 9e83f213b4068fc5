"""A figure of several training runs: their losses and what they reached on validation people, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from facekit.panels import curve_style, plain_text

_WIDE = 20
"""Losses that lie farther apart than this, as a factor, are drawn on a logarithmic axis."""


class Line(NamedTuple):
    """A run: its name, a row of figures for each epoch ("epoch", "loss", "auc"), and the row of its best epoch."""

    name: str
    history: Sequence[Mapping[str, float]]
    best: Mapping[str, float]


def runs_figure(lines: Sequence[Line]) -> Figure:
    """Draw loss and AUC over the epochs; a legend names the runs, the highest end first, with their best AUC.

    Args:
        lines: the runs, at least one of them with an epoch; figures that a row lacks leave a gap.

    Raises:
        ValueError: no run has an epoch.
    """
    drawn = [line for line in lines if line.history]
    if not drawn:
        raise ValueError("There is no run with an epoch to draw.")
    figure = Figure(figsize=(14, max(5.5, 0.25 * len(drawn))), layout="constrained")
    loss, auc = figure.subplots(1, 2)
    curves = []
    for number, line in enumerate(drawn):
        style = curve_style(number)
        if len(line.history) == 1:
            style |= {"linestyle": "None", "marker": "o"}  # a line through one point cannot be seen
        for axes, name in ((loss, "loss"), (auc, "auc")):
            epochs, values = ([row.get(key, math.nan) for row in line.history] for key in ("epoch", name))
            (curve,) = axes.plot(epochs, values, **style)
            if line.best:
                axes.plot(line.best["epoch"], line.best.get(name, math.nan), "o", color=style["color"])
        curves.append(curve)
    loss.set(title="Training loss", ylabel="Loss (different losses do not compare)")
    auc.set(title="Validation people", ylabel="AUC")
    for axes in (loss, auc):
        axes.set_xlabel("Epoch (dot: the best)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    losses = [row["loss"] for line in drawn for row in line.history if row.get("loss", 0) > 0]
    if losses and max(losses) > _WIDE * min(losses):
        loss.set_yscale("log")
    _name_curves(auc, drawn, curves)
    return figure


def _name_curves(axes: Axes, lines: Sequence[Line], curves: Sequence[Line2D]) -> None:
    """A legend right of the axes, in the order in which the curves end."""

    def end(place: int) -> float:
        last = lines[place].history[-1].get("auc", math.nan)
        return last if math.isfinite(last) else -math.inf

    order = sorted(range(len(lines)), key=end, reverse=True)
    best = [f"  {line.best['auc']:.3f}" if "auc" in line.best else "" for line in lines]
    axes.legend(
        [curves[place] for place in order],
        [plain_text(lines[place].name) + best[place] for place in order],
        loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False, handlelength=3.5, title="Run, best AUC",
    )  # fmt: skip
