"""Figures about error rates: ROC and DET curves, histograms of scores, both errors over the threshold.

Distances and thresholds are internal ones throughout (small means same; see `facekit.scored`); `kind` says what
they are, and axes show the system's own scores. Figures are matplotlib objects, never pyplot's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator, PercentFormatter
from numpy.typing import ArrayLike

from facekit.metrics import FloatArray, IntArray, Roc, check_pairs, rates_at
from facekit.overlay import Overlay
from facekit.panels import (
    add_legend,
    curve_style,
    entries_below,
    log_ticks,
    panels,
    percent,
    plain_text,
    score_text,
)
from facekit.plots import BLACK, DIFFERENT_COLOUR, GREY, SAME_COLOUR
from facekit.scored import Kind

AXIS_WORDS: Mapping[Kind, str] = {
    "distance": "Distance of the two embeddings (0: equal)",
    "dissimilarity": "Score (small: same person)",
    "cosine": "Cosine similarity of the two embeddings (1: equal)",
    "similarity": "Score (large: same person)",
}

Curves = Mapping[str, Roc]

_CURVE_POINTS = 1000
_BINS = 60
_OVERLAY_DASHES = ((0, (6, 2)), (0, (3, 1.5)), (0, (6, 2, 1, 2)), (0, (12, 3)))
_DET_TICKS = (1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
_LARGEST_FMR = 0.6  # of the DET: beyond it nobody operates
_NORMAL = NormalDist()


class Band(NamedTuple):
    """A 95 % band around a ROC curve: k rising false-match rates, and the lowest and highest true-match rates."""

    fprs: FloatArray
    low: FloatArray
    high: FloatArray


class Point(NamedTuple):
    """Where a system is operated: its error rates, 0 to 1, and words for the legend."""

    fmr: float
    fnmr: float
    words: str


Bands = Mapping[str, Band]
Points = Mapping[str, Point]


def roc_figure(
    curves: Curves, bands: Bands | None = None, points: Points | None = None, overlays: Sequence[Overlay] = ()
) -> Figure:
    """Draw ROC curves twice: whole, and with a logarithmic false-match rate, where verification happens.

    The logarithmic panel ends on the left at 3 / impostor pairs, the least rate that the pairs can resolve. Curves
    of millions of pairs are thinned to points that they really have.

    Args:
        curves: the curves by their names for the legend, each with pairs of both classes.
        bands: shaded, for some of the names.
        points: marked, for some of the names.
        overlays: published curves, drawn thin and grey.

    Raises:
        ValueError: there is no curve, or one has pairs of one class only.
    """
    left = _least_rate(curves)
    below = entries_below(1 + len(curves) + len(points or {}) + len(overlays))
    figure, (whole, low) = panels(2, height=5, legend=below)
    for axes in (whole, low):
        for number, (name, curve) in enumerate(curves.items()):
            label = f"{plain_text(name)}\nAUC {curve.auc:.4f}, EER {percent(curve.eer.rate)}"
            fpr, tpr = _thinned(curve)
            if axes is low:
                fpr, tpr = _from_floor(fpr, tpr, _floor(curve.impostor))
            axes.step(fpr, tpr, where="post", label=label, **curve_style(number))
            _draw_band(axes, bands, name, number)
        for number, overlay in enumerate(overlays):
            _draw_overlay(axes, overlay, number)
        chance = np.geomspace(1e-9, 1, 400)
        axes.plot(chance, chance, color=GREY, linewidth=1, linestyle=":", label="chance")
        _draw_points(axes, curves, points, left if axes is low else 0.0)
        axes.set(ylim=(0, 1.02), ylabel="True-match rate (share of genuine pairs accepted)")
    whole.set(title="ROC", xlim=(-0.01, 1), xlabel="False-match rate (share of impostor pairs accepted)")
    low.set(title="ROC at low false-match rates", xscale="log", xlim=(left, 1))
    _label_decades(low, left)
    low.set_xlabel(f"False-match rate, logarithmic (the pairs resolve {left:.2g})")
    add_legend(whole, "below" if below else "lower right")
    return figure


def det_figure(curves: Curves, bands: Bands | None = None, points: Points | None = None) -> Figure:
    """Draw DET curves: the false-non-match over the false-match rate, on normal-deviate axes.

    Scores of normal distribution give straight lines (Martin et al. 1997). Each axis ends at 3 / pairs of its
    class, the least rate that the pairs can resolve.

    Args:
        curves: as for `roc_figure`.
        bands: of the ROC curves, for some of the names.
        points: marked, for some of the names.

    Raises:
        ValueError: there is no curve, or one has pairs of one class only.
    """
    left = _least_rate(curves)
    bottom = min(_floor(curve.genuine) for curve in curves.values())
    entries = len(curves) + len(points or {})
    # Several curves cross the whole panel: no corner is free.
    below = entries if len(curves) > 2 else entries_below(entries)
    figure, (axes,) = panels(1, legend=below)
    # What lies below the axis has no deviate: it is drawn just outside.
    least = bottom / 2
    highest = 0.5
    for number, (name, curve) in enumerate(curves.items()):
        fmr, tmr = _from_floor(*_thinned(curve), _floor(curve.impostor))
        highest = max(highest, float(1 - tmr[0]))
        label = f"{plain_text(name)}\nEER {percent(curve.eer.rate)}"
        axes.step(fmr, np.maximum(1 - tmr, least), where="post", label=label, **curve_style(number))
        _draw_band(axes, bands, name, number, lambda tmr: np.maximum(1 - tmr, least))
    _draw_points(axes, curves, points, left, bottom)
    ends = {"x": (left, _LARGEST_FMR), "y": (bottom, min(0.995, 1.05 * highest))}
    axes.set_xscale("function", functions=(_deviate, _undeviate))
    axes.set_yscale("function", functions=(_deviate, _undeviate))
    axes.set(xlim=ends["x"], ylim=ends["y"])
    for axis, (first, last) in zip((axes.xaxis, axes.yaxis), ends.values(), strict=True):
        ticks = [tick for tick in _DET_TICKS if first <= tick <= last]
        axis.set_ticks(ticks, [f"{100 * tick:g} %" for tick in ticks])
        axis.set_minor_locator(NullLocator())
    axes.set(
        title="DET: the two errors against each other",
        xlabel=f"False-match rate (the pairs resolve {percent(left)})",
        ylabel="False-non-match rate",
    )
    add_legend(axes, "below" if below else "upper right" if highest < 0.9 else "lower left")
    return figure


def score_figure(
    distances: ArrayLike, same: ArrayLike, threshold: float | None = None, kind: Kind = "distance"
) -> Figure:
    """Draw how genuine and impostor pairs score, and what a threshold makes of it.

    Args:
        distances: (n,) float; infinite ones (failed pairs) are counted in a note, not drawn.
        same: (n,) bool.
        threshold: drawn as a line, with its error rates, where it is a finite number.
        kind: what the scores are.

    Raises:
        ValueError: as `facekit.metrics`, or no distance is finite.
    """
    values, labels = check_pairs(distances, same)
    finite, sign = np.isfinite(values), _sign(kind)
    if not finite.any():
        raise ValueError("There is no finite distance to draw.")
    figure, (axes,) = panels(1, legend=4)
    edges = np.histogram_bin_edges(sign * values[finite], bins=_BINS)
    for name, chosen, colour, style in (
        ("genuine", labels, SAME_COLOUR, "-"),
        ("impostor", ~labels, DIFFERENT_COLOUR, "--"),
    ):
        counts, _ = np.histogram(sign * values[chosen & finite], edges)
        total = int(chosen.sum())
        share = 100 * counts / max(total, 1)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.25)
        axes.stairs(share, edges, color=colour, linestyle=style, linewidth=2, label=f"{name}: {total:,} pairs")
    if threshold is not None and math.isfinite(threshold):
        rates = rates_at(values, labels, threshold)
        label = f"threshold {score_text(sign * threshold)}\nFMR {percent(rates.fpr)}, FNMR {percent(rates.fnr)}"
        axes.axvline(sign * threshold, color=BLACK, linestyle=":", linewidth=2, label=label)
    failed = f"; {int((~finite).sum()):,} failed pairs not shown" if not finite.all() else ""
    axes.set(
        title="Scores of genuine and impostor pairs",
        xlabel=f"{AXIS_WORDS[kind]}{failed}",
        ylabel="Share of the class per bin (%)",
    )
    axes.set_ylim(bottom=0)
    add_legend(axes, "below")
    return figure


def threshold_figure(
    curve: Roc,
    threshold: float | None = None,
    kind: Kind = "distance",
    intervals: tuple[Sequence[float], Sequence[float]] | None = None,
) -> Figure:
    """Draw both error rates over the threshold, with the operating point and the equal error rate.

    Args:
        curve: of pairs of both classes, one distance at least finite.
        threshold: where the system is operated; drawn where it is a finite number.
        kind: what the scores are.
        intervals: (low, high) of the FMR and of the FNMR at the threshold, drawn as bars.

    Raises:
        ValueError: there are pairs of one class only, or no finite distance.
    """
    _refuse_no_curve({"": curve})
    finite, sign = curve.thresholds[np.isfinite(curve.thresholds)], _sign(kind)
    if not finite.size:
        raise ValueError("There is no finite distance to draw.")
    places = _spread(finite, curve.thresholds.size - 1)
    # Each point's rates hold from the distance before it on; all that is finite is accepted just beyond the last.
    at = sign * np.minimum(curve.thresholds[places], finite[-1])
    figure, (axes,) = panels(1, legend=4)
    for name, rates, colour, style in (
        ("FNMR: same person turned away", 1 - curve.tpr[places], SAME_COLOUR, "-"),
        ("FMR: different people accepted", curve.fpr[places], DIFFERENT_COLOUR, "--"),
    ):
        axes.step(at, rates, where="pre", color=colour, linestyle=style, linewidth=2, label=name)
    if math.isfinite(curve.eer.threshold):
        label = f"equal error rate {percent(curve.eer.rate)} at {score_text(sign * curve.eer.threshold)}"
        axes.plot(
            sign * curve.eer.threshold, curve.eer.rate, "D", color="white", markeredgecolor=BLACK, label=label
        )
    if threshold is not None and math.isfinite(threshold):
        label = f"threshold {score_text(sign * threshold)}" + (", with 95 % intervals" if intervals else "")
        axes.axvline(sign * threshold, color=BLACK, linestyle=":", linewidth=1.5, label=label)
        # Beside the line, so that the two bars stay apart.
        beside = 0.01 * float(finite[-1] - finite[0])
        for ends, colour, to in zip(
            intervals or (), (DIFFERENT_COLOUR, SAME_COLOUR), (beside, -beside), strict=False
        ):
            axes.plot([sign * threshold + to] * 2, ends, "_-", color=colour, linewidth=3, markersize=9)
    axes.set(title="Both errors over the threshold", xlabel=AXIS_WORDS[kind], ylabel="Error rate", ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    add_legend(axes, "below")
    return figure


def _least_rate(curves: Curves) -> float:
    """The least false-match rate that one of the curves resolves; raises ValueError where there is no ROC."""
    _refuse_no_curve(curves)
    return min(_floor(curve.impostor) for curve in curves.values())


def _refuse_no_curve(curves: Curves) -> None:
    if not curves:
        raise ValueError("There are no curves to draw.")
    for name, curve in curves.items():
        if curve.one_class:
            raise ValueError(f"Curve {name!r} has pairs of one class only: there is no ROC to draw.")


def _floor(pairs: int) -> float:
    """The least rate that a number of pairs resolves (rule of three), below which nothing is drawn."""
    return min(3 / pairs, 0.5)


def _thinned(curve: Roc) -> tuple[FloatArray, FloatArray]:
    """Enough exact points (fpr, tpr) of a curve, evenly spread in both panels, even where it has millions."""
    rates = np.union1d(np.linspace(0, 1, _CURVE_POINTS), np.geomspace(1 / curve.impostor, 1, _CURVE_POINTS))
    points = np.union1d(0, np.searchsorted(curve.fpr, rates, side="right") - 1)
    return curve.fpr[points], curve.tpr[points]


def _spread(finite: FloatArray, last: int) -> IntArray:
    """Places among rising distances, evenly spread over the axis and over the pairs, and the last of all."""
    even = np.linspace(0, 1, _CURVE_POINTS)
    across = np.searchsorted(finite, finite[0] + even * (finite[-1] - finite[0]))
    return np.union1d(np.union1d(across, (even * finite.size).astype(np.int64)), last)


def _from_floor(fpr: FloatArray, tpr: FloatArray, floor: float) -> tuple[FloatArray, FloatArray]:
    """The best true-match rate at each false-match rate from `floor` to 1, whatever failed pairs leave out."""
    start = int(np.searchsorted(fpr, floor, side="right")) - 1
    return np.append(np.maximum(fpr[start:], floor), 1.0), np.append(tpr[start:], tpr[-1])


def _draw_band(
    axes: Axes,
    bands: Bands | None,
    name: str,
    number: int,
    turn: Callable[[FloatArray], FloatArray] = lambda tpr: tpr,
) -> None:
    band = (bands or {}).get(name)
    if band is not None:
        colour = curve_style(number)["color"]
        axes.fill_between(band.fprs, turn(band.low), turn(band.high), color=colour, alpha=0.18, linewidth=0)


def _draw_points(
    axes: Axes, curves: Curves, points: Points | None, left: float, bottom: float | None = None
) -> None:
    """Mark operating points in the colour of their curve, inside the left edge and, in a DET, the lower one."""
    for number, name in enumerate(curves):
        point = (points or {}).get(name)
        if point is not None and math.isfinite(point.fmr + point.fnmr):
            x, y = max(point.fmr, left), 1 - point.fnmr if bottom is None else max(point.fnmr, bottom)
            label = f"{point.words}\nFMR {percent(point.fmr)}, FNMR {percent(point.fnmr)}"
            colour = curve_style(number)["color"]
            axes.plot(x, y, "o", color=colour, markeredgecolor=BLACK, markersize=9, clip_on=False, label=label)


def _draw_overlay(axes: Axes, overlay: Overlay, number: int) -> None:
    every = math.ceil(overlay.fpr.size / (2 * _CURVE_POINTS))
    dashes = _OVERLAY_DASHES[number % len(_OVERLAY_DASHES)]
    axes.plot(
        overlay.fpr[::every],
        overlay.tpr[::every],
        color=GREY,
        linestyle=dashes,
        linewidth=1.2,
        label=f"{plain_text(overlay.name)} (published)",
    )


def _label_decades(axes: Axes, lowest: float) -> None:
    ticks = log_ticks(lowest)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())


def _deviate(rates: ArrayLike) -> FloatArray:
    """Normal deviates of rates, kept off 0 and 1, whose deviates are infinite."""
    inside = np.clip(np.asarray(rates, dtype=np.float64), 1e-9, 1 - 1e-9)
    return np.array([_NORMAL.inv_cdf(rate) for rate in inside.ravel().tolist()]).reshape(inside.shape)


def _undeviate(deviates: ArrayLike) -> FloatArray:
    values = np.asarray(deviates, dtype=np.float64)
    return np.array([_NORMAL.cdf(value) for value in values.ravel().tolist()]).reshape(values.shape)


def _sign(kind: Kind) -> int:
    """What turns distances into the system's own scores."""
    return -1 if kind in ("cosine", "similarity") else 1
