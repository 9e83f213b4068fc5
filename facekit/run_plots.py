"""A figure of several training runs: their losses and what they reached on validation people, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
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
    """Draw loss and AUC over the epochs; each run's name stands where its line ends, with its best AUC.

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
    for number, line in enumerate(drawn):
        style = curve_style(number)
        for axes, name in ((loss, "loss"), (auc, "auc")):
            epochs, values = ([row.get(key, math.nan) for row in line.history] for key in ("epoch", name))
            axes.plot(epochs, values, **style)
            if line.best:
                axes.plot(line.best["epoch"], line.best.get(name, math.nan), "o", color=style["color"])
    loss.set(title="Training loss", ylabel="Loss (different losses do not compare)")
    auc.set(title="Validation people", ylabel="AUC")
    for axes in (loss, auc):
        axes.set_xlabel("Epoch (dot: the best)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
    losses = [row["loss"] for line in drawn for row in line.history if row.get("loss", 0) > 0]
    if losses and max(losses) > _WIDE * min(losses):
        loss.set_yscale("log")
    _name_lines(auc, drawn)
    return figure


def _name_lines(axes: Axes, lines: Sequence[Line]) -> None:
    """Write names right of the axes, in the order in which the lines end, a thin line to each end."""
    ends = [(line.history[-1].get("auc", math.nan), number) for number, line in enumerate(lines)]
    ends = sorted((end for end in ends if math.isfinite(end[0])), reverse=True)
    for place, (auc, number) in enumerate(ends):
        line, style = lines[number], curve_style(number)
        height = 1 - (place + 0.5) / len(ends)
        leader = {"arrowstyle": "-", "color": style["color"], "linewidth": 0.6}
        last = (line.history[-1]["epoch"], auc)
        axes.annotate("", last, (1.06, height), textcoords="axes fraction", arrowprops=leader)
        axes.plot([1.06, 1.16], [height, height], transform=axes.transAxes, clip_on=False, **style)
        best = f"  {line.best['auc']:.3f}" if "auc" in line.best else ""
        axes.text(1.17, height, plain_text(line.name) + best, transform=axes.transAxes, va="center", fontsize=10)
