"""Figures of identification and of triplets: results in, a matplotlib `Figure` out. As in `facekit.plots`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from facekit.identification import CMC_RANKS, Identification
from facekit.metrics import IntArray, TprAtFpr
from facekit.plots import BLACK, COLOURS, DIFFERENT_COLOUR, GREEN, GREY, LINE_STYLES, SAME_COLOUR
from facekit.similarities import COSINE_EDGES, Similarities

_CURVE_POINTS = 1000


def cmc_figure(results: Mapping[str, Identification]) -> Figure:
    """Draw how often the true person is among the nearest ones, with rank-1 and its interval.

    Args:
        results: by their names for the legend, all of one gallery and the same probes.

    Raises:
        ValueError: there is no result, or they are of different galleries or probes.
    """
    _refuse_none(results)
    sizes = {(result.gallery_people, int(result.mated.sum())) for result in results.values()}
    if len(sizes) > 1:
        raise ValueError(f"CMCs compare on one gallery and the same probes. Received: (people, probes) {sizes}.")
    people, mated = sizes.pop()
    last = min(CMC_RANKS, people)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    ranks = np.arange(1, last + 1)
    axes.plot(ranks, ranks / people, color=GREY, linewidth=1, linestyle=":", label="chance")
    for number, (name, result) in enumerate(results.items()):
        low, high, _ = result.rank1_interval
        label = f"{name}: rank-1 {result.cmc[0]:.3f} (95 %: {low:.3f} to {high:.3f})"
        axes.plot(
            ranks, result.cmc[:last], marker="o" if last <= 20 else "", markersize=4, label=label, **_style(number)
        )
        # Beside rank 1, one left of the other, so that several can be told apart.
        bar = 1 - 0.012 * last * (number + 1)
        axes.plot([bar, bar], [low, high], color=COLOURS[number % len(COLOURS)], linewidth=4, solid_capstyle="butt")
    axes.set(
        title=f"CMC: {people:,} people in the gallery, {mated:,} mated probes",
        xlabel="Rank (people of the gallery, nearest first); bars: 95 % intervals of rank-1",
        ylabel="Share of mated probes with that rank or better",
        xlim=(1 - 0.012 * last * (len(results) + 1.5), 1.02 * last),
        ylim=(0, 1.02),
    )
    step = math.ceil(last / 50) * 5 if last > 20 else 1
    axes.set_xticks([rank for rank in range(1, last + 1) if rank == 1 or rank % step == 0])
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    return figure


def tpir_figure(results: Mapping[str, Identification], thresholds: Mapping[str, float] | None = None) -> Figure:
    """Draw TPIR over FPIR, logarithmic, down to 3 / non-mated probes, the least rate that they resolve.

    Args:
        results: by their names for the legend, each with non-mated probes.
        thresholds: by the same names, thresholds chosen elsewhere, whose points are marked.

    Raises:
        ValueError: there is no result, or one has no non-mated probe.
    """
    _refuse_none(results)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    floors = [_draw_tpir(axes, name, result, number) for number, (name, result) in enumerate(results.items())]
    left = min(floors)
    for number, (name, result) in enumerate(results.items()):
        if thresholds and name in thresholds:
            _mark_threshold(axes, result, thresholds[name], left, COLOURS[number % len(COLOURS)])
    _set_log_rates(axes, left)
    axes.set(
        title="Open set: right names over false alarms",
        xlabel=f"FPIR (share of non-mated probes that get a name), down to what they resolve ({left:.2g})",
        ylabel="TPIR (share of mated probes that get the right name)",
        ylim=(0, 1.02),
    )
    axes.grid(alpha=0.3)
    axes.legend(loc="best")
    return figure


def _draw_tpir(axes: Axes, name: str, result: Identification, number: int) -> float:
    """Draw one result's curve; return the least FPIR that its non-mated probes resolve."""
    curve = result.open_set
    if curve.one_class:
        raise ValueError(f"Result {name!r} has no non-mated probe: there is no FPIR to draw.")
    floor = min(3 / curve.impostor, 0.5)
    # Enough exact points, evenly spread, even where there are 100,000.
    rates = np.geomspace(floor, 1, _CURVE_POINTS)
    points = np.unique(np.searchsorted(curve.fpr, rates, side="right") - 1)
    label = f"{name}: rank-1 {result.cmc[0]:.3f}; {curve.impostor:,} non-mated probes"
    shown, heights = np.maximum(curve.fpr[points], floor), curve.tpr[points]
    axes.step(np.append(shown, 1), np.append(heights, heights[-1]), where="post", label=label, **_style(number))
    return floor


def _mark_threshold(axes: Axes, result: Identification, threshold: float, left: float, colour: str) -> None:
    at = result.at(threshold)
    label = f"at threshold {threshold:.4f}: TPIR {at.tpir:.3f}, FPIR {at.fpir:.3f}"
    place = [max(at.fpir, left)], [at.tpir]
    axes.plot(*place, "o", color=colour, markersize=9, markeredgecolor=BLACK, label=label, clip_on=False)


def _set_log_rates(axes: Axes, left: float) -> None:
    """A logarithmic axis from `left` to 1 with plain numbers; between powers of ten too, where these are few."""
    axes.set(xscale="log", xlim=(left, 1))
    steps = (1.0, 2.0, 5.0) if left > 1e-3 else (1.0,)
    axes.xaxis.set_major_locator(LogLocator(subs=steps, numticks=20))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def similarity_figure(pairs: Similarities) -> Figure:
    """Draw the cosines of genuine, impostor and probe-distractor pairs, and the thresholds of the ID-rate table.

    Raises:
        ValueError: no pair was compared.
    """
    kinds = (
        ("genuine pairs of probes", pairs.genuine, SAME_COLOUR, "-"),
        ("impostor pairs of probes", pairs.impostor, DIFFERENT_COLOUR, "--"),
        ("probe and distractor", pairs.distractor, GREEN, ":"),
    )
    edges = COSINE_EDGES[::2]
    filled = np.flatnonzero(sum(_two_by_two(kind.counts) for _, kind, _, _ in kinds))
    if not filled.size:
        raise ValueError("There is no pair of pictures with faces to draw.")
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for name, kind, colour, style in kinds:
        compared = kind.pairs - kind.lost
        if compared:
            share = 100 * _two_by_two(kind.counts) / compared
            label = f"{name}: {compared:,}, mean {kind.mean:.2f}"
            axes.stairs(share, edges, fill=True, color=colour, alpha=0.15)
            axes.stairs(share, edges, color=colour, linestyle=style, linewidth=2, label=label)
    lost = pairs.genuine.lost + pairs.impostor.lost + pairs.distractor.lost
    note = f"; {lost:,} pairs without a face not shown" if lost else ""
    axes.set(
        title="How alike probes are",
        xlabel=f"Cosine of the two embeddings (1: equal, no unit){note}",
        ylabel="Share of the kind per bin of 0.02 (%)",
        xlim=(max(-1, edges[filled[0]] - 0.05), min(1, edges[filled[-1] + 1] + 0.05)),
    )
    axes.set_ylim(bottom=0)
    _draw_rates(axes, pairs.id_rate)
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _two_by_two(counts: IntArray) -> IntArray:
    """Counts of bins twice as wide: smoother where pairs are few."""
    return counts.reshape(-1, 2).sum(axis=1)


def _draw_rates(axes: Axes, claims: Sequence[TprAtFpr]) -> None:
    """Faint lines at the table's thresholds, named by their FPR on the upper edge where there is room."""
    left, right = axes.get_xlim()
    places: list[float] = []
    names: list[str] = []
    for claim in claims:
        cosine = 1 - claim.threshold**2 / 2
        if math.isfinite(cosine):
            axes.axvline(cosine, color=GREY, linewidth=1, linestyle=(0, (1, 2)))
            if not places or cosine - places[-1] > 0.02 * (right - left):
                places.append(cosine)
                names.append(f"{claim.fpr:g}")
    if places:
        upper = axes.secondary_xaxis("top")
        upper.set_xticks(places, names, rotation=60, fontsize=9)
        upper.set_xlabel("FPR of the ID-rate table at the faint lines")


def margin_figure(judged: Mapping[str, Any]) -> Figure:
    """Draw the margins of triplets: those above 0 are ordered right.

    Args:
        judged: what `facekit.triplets.judge_triplets` gave, or the same read back from JSON.
    """
    edges, counts = (np.asarray(judged["histogram"][name], dtype=np.float64) for name in ("edges", "counts"))
    shares = 100 * counts / counts.sum()
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    wrong = judged["ordered_wrong"] + judged["ties"]
    for name, triplets, chosen, colour, style in (
        ("wrong (ties included)", wrong, edges[1:] <= 0, DIFFERENT_COLOUR, "--"),
        ("right", judged["ordered_right"], edges[1:] > 0, SAME_COLOUR, "-"),
    ):
        part = np.flatnonzero(chosen)
        ends = edges[part[0] : part[-1] + 2]
        axes.stairs(shares[part], ends, fill=True, color=colour, alpha=0.25)
        axes.stairs(
            shares[part], ends, color=colour, linestyle=style, linewidth=2, label=f"{name}: {triplets:,} triplets"
        )
    median = judged["margin_median"]
    axes.axvline(median, color=BLACK, linewidth=2, linestyle=":", label=f"median {median:.3f}")
    low, high = judged["intervals"]["ordered"]
    lost = f"; {judged['failed']:,} without a face not shown" if judged["failed"] else ""
    filled = np.flatnonzero(counts)
    axes.set(
        title=f"Triplets: {judged['ordered']:.3f} ordered right (95 %: {low:.3f} to {high:.3f})",
        xlabel=f"Margin: anchor-negative minus anchor-positive distance (no unit){lost}",
        ylabel="Share of triplets per bin of 0.04 (%)",
        xlim=(min(edges[filled[0]], 0) - 0.08, max(edges[filled[-1] + 1], 0) + 0.08),
    )
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _style(number: int) -> dict[str, Any]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": LINE_STYLES[number % len(LINE_STYLES)],
        "linewidth": 2,
    }


def _refuse_none(results: Mapping[str, Identification]) -> None:
    if not results:
        raise ValueError("There are no results to draw.")
