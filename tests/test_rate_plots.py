"""Figures about error rates: they show the rates that counting gives, and can be read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import StepPatch
from matplotlib.text import Text
from scipy.special import ndtri

from facekit.metrics import roc
from facekit.overlay import Overlay
from facekit.panels import curve_style
from facekit.plots import GREY, figure_to_image
from facekit.rate_plots import Band, Point, det_figure, roc_figure, score_figure, threshold_figure


def scores(n: int = 600, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    same = np.arange(n) % 2 == 0
    return np.where(same, rng.normal(0.8, 0.2, n), rng.normal(1.3, 0.2, n)), same


def counted(distances: np.ndarray, same: np.ndarray, threshold: float) -> tuple[float, float]:
    """FMR and FNMR by counting."""
    accepted = [bool(distance < threshold) for distance in distances]
    false_matches = sum(yes for yes, one in zip(accepted, same, strict=True) if not one)
    false_non_matches = sum(not yes for yes, one in zip(accepted, same, strict=True) if one)
    return false_matches / np.sum(~same), false_non_matches / np.sum(same)


def data(line: Line2D) -> np.ndarray:
    return np.array(line.get_data(), dtype=np.float64)


def labelled(axes: Axes, start: str) -> Line2D:
    (line,) = (line for line in axes.lines if str(line.get_label()).startswith(start))
    return line


def legend(figure: Figure) -> list[str]:
    """All texts of the legends inside and below the panels."""
    inside = [axes.get_legend() for axes in figure.axes]
    return [text.get_text() for found in (*inside, *figure.legends) if found for text in found.get_texts()]


BAND = Band(np.array([0.01, 0.1, 1.0]), np.array([0.2, 0.5, 0.9]), np.array([0.4, 0.7, 1.0]))
POINT = Point(0.002, 0.3, "threshold 0.9")
PUBLISHED = Overlay("human_cropped $1", np.array([0.0, 0.1, 1.0]), np.array([0.0, 0.9, 1.0]))
NAMES = ("_first $x$", "a name as long as names of runs and of their folders can be", "c", "d", "e")
FIGURES: dict[str, Callable[[], Figure]] = {
    "roc": lambda: roc_figure({"first": roc(*scores())}, {"first": BAND}, {"first": POINT}),
    "roc of many": lambda: roc_figure({name: roc(*scores()) for name in NAMES}, overlays=[PUBLISHED] * 3),
    "roc of a million": lambda: roc_figure({"m": roc(*scores(2_000_000))}),
    "det": lambda: det_figure({"first": roc(*scores()), "second": roc(*scores(200))}, {"first": BAND}),
    "det of many": lambda: det_figure({name: roc(*scores()) for name in NAMES}),
    "scores": lambda: score_figure(*scores(), threshold=1.05),
    "similarities": lambda: score_figure(*scores(), threshold=1.05, kind="similarity"),
    "threshold": lambda: threshold_figure(roc(*scores()), 1.05, intervals=((0.1, 0.2), (0.0, 0.05))),
}


@pytest.mark.parametrize("name", FIGURES)
def test_text_is_large_enough_inside_the_figure_and_names_every_axis(name: str) -> None:
    figure = FIGURES[name]()
    figure_to_image(figure)
    for text in figure.findobj(Text):
        assert not text.get_text() or float(text.get_fontsize()) >= 9, text
    drawn = figure.get_tightbbox()
    assert drawn.x0 >= 0 and drawn.y0 >= 0
    assert drawn.x1 <= figure.get_figwidth() and drawn.y1 <= figure.get_figheight()
    for axes in figure.axes:
        assert axes.get_title() and axes.get_xlabel() and axes.get_ylabel()


def test_roc_draws_points_of_the_curve_down_to_what_the_pairs_resolve() -> None:
    curve = roc(*scores())
    whole, low = roc_figure({"model": curve}).axes
    fpr, tpr = data(whole.lines[0])
    best = dict(zip(curve.fpr, curve.tpr, strict=True))  # the last of equal ones
    assert dict(zip(fpr, tpr, strict=True)) == best
    assert low.get_xlim() == (3 / 300, 1)
    assert data(low.lines[0])[:, 0].tolist() == [3 / 300, curve.tpr[curve.last_within(3 / 300)]]
    assert f"AUC {curve.auc:.4f}" in str(whole.lines[0].get_label())


def test_low_false_match_rates_start_at_the_edge_where_no_point_of_the_curve_is() -> None:
    _, low = roc_figure({"tied": roc([0.1] + [0.5] * 10, [True] + [False] * 10)}).axes
    assert data(low.lines[0])[:, 0].tolist() == [0.3, 1.0]


def test_failed_pairs_leave_the_best_rate_that_is_left_at_every_larger_false_match_rate() -> None:
    curve = roc([0.1, np.inf, 0.2, np.inf, np.inf], [True, True, False, False, False])
    whole, low = roc_figure({"model": curve}).axes
    assert data(whole.lines[0])[:, -1].tolist() == [1 / 3, 0.5]
    assert data(low.lines[0])[:, -1].tolist() == [1, 0.5]


def test_curves_of_many_pairs_are_thinned_to_points_that_they_have() -> None:
    curve = roc(*scores(200_000))
    for figure in (roc_figure({"model": curve}), det_figure({"model": curve}), threshold_figure(curve)):
        assert all(data(line).shape[1] < 2500 for axes in figure.axes for line in axes.lines)
    whole, low = roc_figure({"model": curve}).axes
    fpr, tpr = data(whole.lines[0])
    assert set(zip(fpr, tpr, strict=True)) <= set(zip(curve.fpr, curve.tpr, strict=True))
    assert low.get_xlim()[0] == 3e-5


def test_figures_without_a_curve_are_refused() -> None:
    for draw in (roc_figure, det_figure):
        with pytest.raises(ValueError, match="no curves"):
            draw({})
        with pytest.raises(ValueError, match="'mine' has pairs of one class only"):
            draw({"mine": roc([0.1, 0.2], [True, True])})
    with pytest.raises(ValueError, match="one class only"):
        threshold_figure(roc([0.1], [True]))
    with pytest.raises(ValueError, match="no finite distance"):
        threshold_figure(roc([np.inf, np.inf], [True, False]))
    with pytest.raises(ValueError, match="no finite distance"):
        score_figure([np.inf], [True])


@pytest.mark.parametrize("draw", [roc_figure, det_figure])
def test_curves_differ_in_colour_and_in_style(draw: Callable[..., Figure]) -> None:
    axes = draw({name: roc(*scores()) for name in "abcdefghi"}).axes[0]
    lines = [line for line in axes.lines if line.get_color() != GREY]
    assert len(lines) == 9
    assert [line.get_color() for line in lines] == [curve_style(number)["color"] for number in range(9)]
    assert [line.get_linestyle() for line in lines[:4]] == ["-", "--", "-.", ":"]
    assert (lines[0].get_color(), lines[0].get_linestyle()) != (lines[7].get_color(), lines[7].get_linestyle())


def test_bands_and_operating_points_stand_where_they_belong() -> None:
    curve = roc(*scores())
    for axes, left in zip(
        roc_figure({"model": curve}, {"model": BAND}, {"model": POINT}).axes, (0, 0.01), strict=True
    ):
        (band,) = (part for part in axes.collections if isinstance(part, PolyCollection))
        corners = set(map(tuple, np.asarray(band.get_paths()[0].vertices)))
        assert corners >= {(0.01, 0.2), (0.1, 0.5), (1.0, 0.9), (0.01, 0.4), (0.1, 0.7), (1.0, 1.0)}
        assert data(labelled(axes, "threshold 0.9"))[:, 0].tolist() == [max(0.002, left), 0.7]
    (axes,) = det_figure({"model": curve}, {"model": BAND}, {"model": POINT}).axes
    corners = set(map(tuple, np.asarray(axes.collections[0].get_paths()[0].vertices).round(9)))
    assert corners >= {(0.01, 0.8), (0.1, 0.5), (1.0, 0.1), (0.01, 0.6), (0.1, 0.3)}
    point = labelled(axes, "threshold 0.9")
    assert data(point)[:, 0].tolist() == [0.01, 0.3]
    assert "FMR 0.20 %, FNMR 30.00 %" in str(point.get_label())


def test_points_and_bands_of_unknown_names_and_undefined_points_are_left_out() -> None:
    curve = roc(*scores())
    figure = roc_figure({"model": curve}, {"other": BAND}, {"model": Point(np.nan, 0.1, "threshold")})
    assert not figure.axes[0].collections
    assert not any("threshold" in text for text in legend(figure))


def test_published_curves_are_thin_and_grey_and_named() -> None:
    figure = roc_figure({"model": roc(*scores())}, overlays=[PUBLISHED])
    for axes in figure.axes:
        line = labelled(axes, "human_cropped")
        assert data(line).tolist() == [[0, 0.1, 1], [0, 0.9, 1]]
        assert line.get_color() == GREY and line.get_linewidth() < axes.lines[0].get_linewidth()
    assert r"human_cropped \$1 (published)" in legend(figure)


def test_many_names_stand_below_the_panels_and_few_inside() -> None:
    few, many = (roc_figure({name: roc(*scores()) for name in names}) for names in ("ab", "abcdef"))
    assert not few.legends and few.axes[0].get_legend() is not None
    assert many.axes[0].get_legend() is None
    assert len(legend(many)) == 7  # and chance
    assert many.get_figheight() > few.get_figheight()


def test_det_draws_counted_rates_between_what_the_pairs_resolve_and_the_deviates_of_a_normal_distribution() -> None:
    distances, same = scores(400)
    (axes,) = det_figure({"model": roc(distances, same)}).axes
    possible = {counted(distances, same, threshold) for threshold in [*distances, np.inf]}
    fmr, fnmr = data(axes.lines[0])
    inside = (fmr > 3 / 200) & (fmr < 1) & (fnmr > 3 / 200)
    assert inside.sum() > 20
    # 1 - (1 - rate) is the rate but for its last digit.
    assert {(round(x, 12), round(y, 12)) for x, y in zip(fmr[inside], fnmr[inside], strict=True)} <= {
        (round(x, 12), round(y, 12)) for x, y in possible
    }
    assert axes.get_xlim()[0] == axes.get_ylim()[0] == 3 / 200
    for axis in (axes.xaxis, axes.yaxis):
        rates = np.array([0.001, 0.02, 0.5, 0.9])
        np.testing.assert_allclose(axis.get_transform().transform(rates), ndtri(rates), atol=1e-9)
        np.testing.assert_allclose(axis.get_transform().inverted().transform(ndtri(rates)), rates, atol=1e-9)


def test_det_of_separated_classes_and_of_failures_stays_on_its_axes() -> None:
    (perfect,) = det_figure({"model": roc([0.1] * 50 + [1.0] * 50, [True] * 50 + [False] * 50)}).axes
    assert np.isfinite(data(perfect.lines[0])).all() and perfect.get_ylim()[0] == 3 / 50
    failing = np.where(np.arange(100) < 90, np.inf, 0.5)
    (lost,) = det_figure({"model": roc(failing, np.arange(100) % 2 == 0)}).axes
    assert data(lost.lines[0])[1] == pytest.approx([1, 0.9, 0.9])
    assert lost.get_ylim() == (3 / 50, 0.995)


def test_score_histograms_show_each_class_as_shares_and_the_rates_at_the_threshold() -> None:
    distances, same = scores()
    distances[:6] = np.inf
    figure = score_figure(distances, same, 1.05)
    (axes,) = figure.axes
    outline = axes.patches[1]
    assert isinstance(outline, StepPatch)
    assert outline.get_data()[0].sum() == pytest.approx(100 * 297 / 300)
    fmr, fnmr = counted(distances, same, 1.05)
    assert legend(figure) == [
        "genuine: 300 pairs",
        "impostor: 300 pairs",
        f"threshold 1.0500: FMR {100 * fmr:.2f} %, FNMR {100 * fnmr:.2f} %",
    ]
    assert "6 failed pairs not shown" in axes.get_xlabel()
    assert data(axes.lines[0])[0, 0] == 1.05


def test_similarities_are_shown_as_such() -> None:
    distances, same = scores()
    (axes,) = score_figure(distances, same, 1.05, kind="similarity").axes
    (plain,) = score_figure(distances, same, 1.05).axes
    assert data(axes.lines[0])[0, 0] == -1.05
    assert axes.get_xlabel() == "Score (large: same person)"
    for turned, usual in zip(axes.patches, plain.patches, strict=True):
        assert isinstance(turned, StepPatch) and isinstance(usual, StepPatch)
        np.testing.assert_allclose(turned.get_data()[0][::-1], usual.get_data()[0])
        np.testing.assert_allclose(turned.get_data()[1][::-1], -usual.get_data()[1])


def test_score_histograms_without_threshold_or_with_one_class_or_one_value() -> None:
    assert not score_figure(*scores()).axes[0].lines
    assert not score_figure(*scores(), threshold=np.inf).axes[0].lines
    score_figure([0.5, 0.5], [True, True], 0.4)


@pytest.mark.parametrize("kind", ["distance", "similarity"])
def test_the_threshold_curve_holds_the_counted_rates_everywhere(kind: str) -> None:
    distances, same = scores(60)
    distances[:4] = np.inf
    sign = 1 if kind == "distance" else -1
    (axes,) = threshold_figure(roc(distances, same), kind=kind).axes  # type: ignore[arg-type]
    (places, fnmr), (also, fmr) = data(axes.lines[0]), data(axes.lines[1])
    assert (places == also).all() and axes.lines[0].get_drawstyle() == "steps-pre"
    internal = sign * places
    finite = np.sort(distances[np.isfinite(distances)])
    between = (finite[1:] + finite[:-1]) / 2
    for threshold in (*between, *finite[1:-1]):
        step = int(np.searchsorted(internal, threshold))
        assert (fmr[step], fnmr[step]) == pytest.approx(counted(distances, same, threshold))
    assert (fmr[-1], fnmr[-1]) == pytest.approx(counted(distances, same, np.finfo(float).max))


def test_a_far_score_does_not_hide_how_the_others_lie() -> None:
    distances, same = scores(5000)
    distances[0] = 1e6
    (axes,) = threshold_figure(roc(distances, same)).axes
    middle = (data(axes.lines[0])[0] > 0.5) & (data(axes.lines[0])[0] < 1.5)
    assert middle.sum() > 500


def test_the_threshold_curve_marks_the_operating_point_its_intervals_and_the_equal_error_rate() -> None:
    curve = roc(*scores())
    figure = threshold_figure(curve, 1.05, "cosine", ((0.1, 0.2), (0.0, 0.05)))
    (axes,) = figure.axes
    assert data(labelled(axes, "threshold -1.0500"))[0].tolist() == [-1.05, -1.05]
    assert data(labelled(axes, "equal error rate"))[:, 0].tolist() == [-curve.eer.threshold, curve.eer.rate]
    false_matches, false_non_matches = axes.lines[-2:]
    assert data(false_matches)[1].tolist() == [0.1, 0.2]
    assert false_matches.get_color() == axes.lines[1].get_color()
    assert data(false_non_matches)[1].tolist() == [0.0, 0.05]
    assert not any("threshold" in text for text in legend(threshold_figure(curve, np.inf)))
