"""Figures about parts of a result: groups, folds, probabilities."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.lines import Line2D
from matplotlib.text import Text

from facekit.breakdown_plots import Bars, fold_figure, group_figure, reliability_figure
from facekit.plots import figure_to_image

FMR = Bars(np.array([0.01, 0.0, np.nan]), np.array([0.005, 0.0, np.nan]), np.array([0.02, 0.03, np.nan]))
FNMR = Bars(np.array([0.2, 0.1, 0.3]), np.array([0.15, 0.05, 0.2]), np.array([0.25, 0.2, 0.4]))
NAMES = ["_women $x$", "men", "a name that is much longer than there is room for"]
FIGURES = {
    "groups": lambda: group_figure(NAMES, FMR, FNMR),
    "one group": lambda: group_figure(["all"], Bars(*np.zeros((3, 1))), Bars(*np.zeros((3, 1)))),
    "folds": lambda: fold_figure([0.98125, 0.97, 0.99], 0.0025),
    "one fold": lambda: fold_figure([1.0], 0.0),
    "reliability": lambda: reliability_figure([(0.9, 0.8), (0.1, 0.2)]),
}


def data(line: Line2D) -> np.ndarray:
    return np.array(line.get_data(), dtype=np.float64)


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


def test_groups_are_dots_with_bars_and_no_error_is_hollow_at_the_edge() -> None:
    left, right = group_figure(NAMES, FMR, FNMR).axes
    assert left.get_xscale() == "log" and right.get_xscale() == "linear"
    edge = left.get_xlim()[0]
    assert 0 < edge < 0.005
    filled, hollow = left.lines
    assert data(filled)[:, 0].tolist() == [0.01, 0]
    assert data(hollow).tolist() == [[edge], [1]]
    assert hollow.get_markerfacecolor() == "white"
    assert data(right.lines[0]).tolist() == [[0.2, 0.1, 0.3], [0, 1, 2]]
    bars = [np.asarray(path.vertices)[:, 0].tolist() for path in right.collections[0].get_paths()]
    assert bars == [[0.15, 0.25], [0.05, 0.2], [0.2, 0.4]]
    assert left.get_ylim()[0] > left.get_ylim()[1]  # the first on top
    shown = [text.get_text() for text in left.get_yticklabels()]
    assert shown[0] == r" _women \$x\$" and shown[1] == "men" and shown[2].endswith("…")


def test_groups_and_rates_must_fit_together() -> None:
    with pytest.raises(ValueError, match="one length, at least 1"):
        group_figure(NAMES[:2], FMR, FNMR)
    with pytest.raises(ValueError, match="one length, at least 1"):
        group_figure([], Bars(*np.zeros((3, 0))), Bars(*np.zeros((3, 0))))


def test_folds_are_dots_around_their_mean_with_its_standard_error() -> None:
    (axes,) = fold_figure([0.8, 0.9], 0.03).axes
    mean, dots = axes.lines
    assert data(mean)[1, 0] == pytest.approx(0.85)
    assert data(dots).tolist() == [[1, 2], [0.8, 0.9]]
    band = axes.patches[0].get_extents().transformed(axes.transData.inverted())
    assert (band.y0, band.y1) == pytest.approx((0.82, 0.88))
    assert "± 3.00 %" in str(mean.get_label())
    with pytest.raises(ValueError, match="no folds"):
        fold_figure([], 0.0)


def test_reliability_joins_its_points_from_left_to_right() -> None:
    (axes,) = reliability_figure(np.array([(0.9, 0.8), (0.1, 0.2)])).axes
    diagonal, points = axes.lines
    assert data(diagonal).tolist() == [[0, 1], [0, 1]]
    assert data(points).tolist() == [[0.1, 0.9], [0.2, 0.8]]
    for wrong in (np.zeros((0, 2)), np.zeros((2, 3)), np.zeros(2)):
        with pytest.raises(ValueError, match=r"must be \(k, 2\)"):
            reliability_figure(wrong)
