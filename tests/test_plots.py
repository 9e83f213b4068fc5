"""Figures: what they show, that they can be read, and that nothing global changes."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from facekit.plots import (
    COLOURS,
    DIFFERENT_COLOUR,
    LINE_STYLES,
    SAME_COLOUR,
    comparison_figure,
    figure_to_image,
    learning_curve_figure,
    pairs_strip,
    save_figure,
)

HISTORY: dict[str, list[float]] = {
    "loss": [3.0, 2.0, 1.0],
    "val_loss": [3.5, 2.5, float("nan")],
    "val_auc": [0.7, 0.8, 0.9],
    "val_eer": [0.3, 0.2, 0.1],
    "learning_rate": [1e-3, 5e-4, 1e-5],
    "steps": [10, 10, 10],
}


def picture(height: int, width: int, grey: int) -> np.ndarray:
    return np.full((height, width, 3), grey, np.uint8)


def compared() -> Figure:
    landmarks = [[30, 40], [70, 40], [50, 60], [35, 80], [65, 80]]
    return comparison_figure(
        picture(100, 100, 80),
        picture(50, 120, 160),
        ((20, 20, 60, 70), None),
        (landmarks, None),
        "Different people: distance 1.21",
        DIFFERENT_COLOUR,
    )


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


FIGURES: dict[str, Callable[[], Figure]] = {
    "learning": lambda: learning_curve_figure(HISTORY),
    "comparison": compared,
}


@pytest.mark.parametrize("name", FIGURES)
def test_text_is_large_enough_and_axes_say_what_they_are(name: str) -> None:
    figure = FIGURES[name]()
    figure_to_image(figure)
    for text in figure.findobj(Text):
        assert not text.get_text() or float(text.get_fontsize()) >= 9, text
    for axes in figure.axes:
        if axes.axison:
            assert axes.get_title() and axes.get_xlabel() and axes.get_ylabel()


def test_as_many_line_styles_as_colours_so_that_every_line_differs_in_both() -> None:
    assert len(set(COLOURS)) == len(COLOURS) == len(LINE_STYLES) == len(set(LINE_STYLES))
    figure = learning_curve_figure({"loss": [1.0], "val_loss": [2.0], "other_loss": [3.0]})
    lines = figure.axes[0].lines
    assert len({line.get_color() for line in lines}) == len({str(line.get_linestyle()) for line in lines}) == 3


def test_learning_curve_has_a_panel_a_kind_and_leaves_out_what_is_missing() -> None:
    titles = [axes.get_title() for axes in learning_curve_figure(HISTORY).axes]
    assert titles == ["Loss", "AUC", "EER", "Learning rate"]
    (only,) = learning_curve_figure({"loss": [2.0]}).axes
    assert legend(only)[0] == "loss, last 2"
    with pytest.raises(ValueError, match=r"no loss, AUC, .* among \['steps'\]"):
        learning_curve_figure({"steps": [1]})


def test_learning_curve_shows_the_start_and_tells_figures_near_one_apart() -> None:
    history = {
        "loss": [float("nan"), 2.0, 1.0], "auc": [0.9990, 0.9993, 0.9994], "eer": [0.012, 0.011, 0.010],
        "tpr_at_fmr": [0.89, 0.91, 0.92], "tpr": [0.98, 0.98, 0.99],
    }  # fmt: skip
    figure = learning_curve_figure(history, first=0, fmr=1e-3)
    figure_to_image(figure)
    loss, auc, eer, tpr = figure.axes
    assert tpr.get_title() == "TPR at FMR 0.001" and legend(tpr) == ["TPR at FMR, last 0.92"]
    for axes in figure.axes:
        assert np.array_equal(axes.lines[0].get_xdata(), [0, 1, 2]) and axes.get_xlabel() == "Epoch (0: the start)"
    heights = auc.transAxes.inverted().transform(auc.transData.transform([[0, 0.9990], [0, 0.9994]]))[:, 1]
    assert heights[1] - heights[0] > 0.5
    shown = [text.get_text() for text in auc.get_yticklabels()]
    assert "0.99920" in shown and not auc.yaxis.get_offset_text().get_text()


def test_pairs_strip_takes_pictures_of_any_size() -> None:
    left = [picture(60, 50, 10), picture(30, 90, 60), picture(112, 112, 90)]
    strip = pairs_strip(left, left[::-1], ["one", "two\nlines", "three"], columns=2)
    assert (strip.dtype, strip.ndim, strip.shape[2]) == (np.uint8, 3, 3)
    assert 10 in strip and 90 in strip
    assert pairs_strip(left[:1], left[:1], ["one"]).shape[1] < strip.shape[1]
    with pytest.raises(ValueError, match="Received: 3, 2 and 3"):
        pairs_strip(left, left[:2], ["", "", ""])
    with pytest.raises(ValueError, match="at least 1"):
        pairs_strip([], [], [])


def test_comparison_marks_what_was_found_and_says_where_nothing_was() -> None:
    first, second = compared().axes
    assert (len(first.patches), len(first.collections)) == (2, 1)
    assert (len(second.patches), len(second.collections)) == (0, 0)
    assert second.get_title() == "no face found"
    assert compared().get_suptitle() == "Different people: distance 1.21"
    assert SAME_COLOUR != DIFFERENT_COLOUR


def test_a_figure_becomes_a_picture_and_a_file(tmp_path: Path) -> None:
    figure = learning_curve_figure(HISTORY)
    image = figure_to_image(figure)
    assert (image.dtype, image.shape) == (np.uint8, (840, 1000, 3))
    assert image.min() < 50 and image.max() == 255
    path = tmp_path / "new" / "curve.png"
    for _ in range(2):
        save_figure(figure, path)
    written = cv2.imread(str(path))
    assert written is not None and written.shape == (1008, 1200, 3)
    save_figure(figure, tmp_path / "new" / "curve.svg")
    assert sorted(p.name for p in path.parent.iterdir()) == ["curve.png", "curve.svg"]


def test_a_figure_that_cannot_be_written_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "curve.jpgg"
    path.write_text("old")
    with pytest.raises(ValueError, match="jpgg"):
        save_figure(learning_curve_figure(HISTORY), path)
    assert [p.name for p in tmp_path.iterdir()] == ["curve.jpgg"]
    assert path.read_text() == "old"


def test_plots_never_touch_pyplot() -> None:
    code = "import sys, facekit.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
