"""Figures about parts of a result: rates by group, accuracy by fold, reliability of probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter
from numpy.typing import ArrayLike

from facekit.metrics import FloatArray
from facekit.panels import add_legend, log_ticks, panels, percent, plain_text
from facekit.plots import BLACK, DIFFERENT_COLOUR, GREY, SAME_COLOUR

_LONGEST_NAME = 26


class Bars(NamedTuple):
    """k rates, 0 to 1, with the two ends of their intervals; NaN where one is undefined."""

    rates: FloatArray
    low: FloatArray
    high: FloatArray


def group_figure(names: Sequence[str], fmr: Bars, fnmr: Bars) -> Figure:
    """Draw the error rates of k groups with their intervals, the false-match rate logarithmically.

    A rate of zero has no place on a logarithmic axis: it is drawn hollow at the left edge.

    Args:
        names: k >= 1 groups, drawn from top to bottom.
        fmr: (k,) false-match rates.
        fnmr: (k,) false-non-match rates.

    Raises:
        ValueError: there is no group, or the lists differ in length.
    """
    count = len(names)
    if not count or {len(part) for part in (*fmr, *fnmr)} != {count}:
        raise ValueError("`names` and all rates must have one length, at least 1.")
    figure, (left, right) = panels(2, height=1.5 + 0.3 * count, margin=2.7)
    least = _least_positive(fmr)
    _draw_bars(left, fmr, DIFFERENT_COLOUR, edge=least)
    _draw_bars(right, fnmr, SAME_COLOUR, edge=0.0)
    for axes in (left, right):
        axes.set(ylim=(count - 0.5, -0.5), xlabel="Rate and its 95 % interval")
    left.set(title="False-match rate, logarithmic", ylabel="Group", xscale="log", xlim=(least, 1))
    ticks = log_ticks(least)
    left.set_xticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
    left.xaxis.set_minor_formatter(NullFormatter())
    left.set_yticks(range(count), [plain_text(name, _LONGEST_NAME) for name in names])
    right.set_yticks(range(count), [""] * count)
    right.set(title="False-non-match rate", ylabel="Group", xlim=(0, None))
    right.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    return figure


def _least_positive(bars: Bars) -> float:
    """Where a logarithmic axis begins: below all that is positive."""
    positive = [value for part in bars for value in np.asarray(part, dtype=np.float64).tolist() if value > 0]
    return 0.7 * min(positive, default=1e-3)


def _draw_bars(axes: Axes, bars: Bars, colour: str, edge: float) -> None:
    """Draw a dot and a bar a row; where the dot is below the edge, a hollow one at it."""
    rates, low, high = (np.asarray(part, dtype=np.float64) for part in bars)
    rows = np.arange(rates.size)
    axes.hlines(rows, np.maximum(low, edge), high, color=colour, linewidth=2)
    below = rates < edge
    for which, at, face in ((~below, rates, colour), (below, np.full(rates.size, edge), "white")):
        if which.any():
            axes.plot(at[which], rows[which], "o", color=face, markeredgecolor=colour, clip_on=False)


def fold_figure(accuracies: Sequence[float], standard_error: float) -> Figure:
    """Draw the accuracy of each fold, their mean, and the mean's standard error.

    Args:
        accuracies: k >= 1 shares, 0 to 1, in the order of the folds.
        standard_error: of their mean.

    Raises:
        ValueError: there is no fold.
    """
    if not len(accuracies):
        raise ValueError("There are no folds to draw.")
    figure, (axes,) = panels(1, margin=1.1)
    mean = float(np.mean(accuracies))
    words = f"mean {percent(mean)}; shaded: ± {100 * standard_error:.2f} % (standard error)"
    axes.axhspan(mean - standard_error, mean + standard_error, color=GREY, alpha=0.25, linewidth=0)
    axes.axhline(mean, color=BLACK, linestyle="--", linewidth=1.5, label=words)
    axes.plot(np.arange(1, len(accuracies) + 1), accuracies, "o", color=SAME_COLOUR, label="one fold")
    axes.set(title="Accuracy by fold", xlabel="Fold", ylabel="Accuracy on this fold")
    axes.margins(y=0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    add_legend(axes, "lower left")
    return figure


def reliability_figure(points: ArrayLike) -> Figure:
    """Draw how often pairs of one predicted probability really are genuine: on the diagonal, just as often.

    Args:
        points: (k, 2) predicted probability and observed share, 0 to 1; k at least 1.

    Raises:
        ValueError: the shape is another, or there is no point.
    """
    table = np.asarray(points, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] != 2 or not table.size:
        raise ValueError(f"`points` must be (k, 2), k at least 1. Received: shape {table.shape}.")
    figure, (axes,) = panels(1)
    predicted, observed = table[np.argsort(table[:, 0], kind="stable")].T
    axes.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1.5, label="perfect")
    axes.plot(predicted, observed, color=SAME_COLOUR, marker="o", linewidth=2, label="these probabilities")
    axes.set(
        title="Reliability of the probabilities",
        xlabel="Predicted probability that a pair is genuine",
        ylabel="Share that is genuine",
        xlim=(-0.02, 1.02),
        ylim=(-0.02, 1.02),
    )
    add_legend(axes, "upper left")
    return figure
