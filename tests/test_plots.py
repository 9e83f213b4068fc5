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
from matplotlib.patches import StepPatch
from matplotlib.text import Text

from facekit.metrics import roc
from facekit.plots import (
    COLOURS,
    DIFFERENT_COLOUR,
    LINE_STYLES,
    SAME_COLOUR,
    comparison_figure,
    figure_to_image,
    learning_curve_figure,
    pairs_strip,
    roc_figure,
    save_figure,
    score_figure,
)

HISTORY: dict[str, list[float]] = {
    "loss": [3.0, 2.0, 1.0],
    "val_loss": [3.5, 2.5, float("nan")],
    "val_auc": [0.7, 0.8, 0.9],
    "val_eer": [0.3, 0.2, 0.1],
    "learning_rate": [1e-3, 5e-4, 1e-5],
    "steps": [10, 10, 10],
}


def scores(n: int = 600) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    same = np.arange(n) % 2 == 0
    return np.where(same, rng.normal(0.8, 0.2, n), rng.normal(1.3, 0.2, n)), same


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
    "roc": lambda: roc_figure({"first": roc(*scores()), "second": roc(*scores(200))}),
    "scores": lambda: score_figure(*scores(), threshold=1.05),
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


def test_lines_differ_in_colour_and_in_style() -> None:
    assert len(set(COLOURS)) == len(COLOURS) == len(LINE_STYLES) == len(set(LINE_STYLES))
    figure = roc_figure({"a": roc(*scores()), "b": roc(*scores(300)), "c": roc(*scores(200))})
    lines = figure.axes[0].lines[1:]
    assert len({line.get_color() for line in lines}) == 3
    assert len({str(line.get_linestyle()) for line in lines}) == 3


def test_roc_figure_draws_points_of_the_curve_down_to_what_the_pairs_resolve() -> None:
    curve = roc(*scores())
    whole, low = roc_figure({"model": curve}).axes
    fpr, tpr = np.array(whole.lines[1].get_data())
    assert set(zip(fpr, tpr, strict=True)) <= set(zip(curve.fpr, curve.tpr, strict=True))
    assert (fpr[-1], tpr[-1]) == (1, 1)
    assert low.get_xlim() == (3 / 300, 1)
    start, best = np.array(low.lines[1].get_data())[:, 0]
    assert start == 3 / 300
    assert best == curve.tpr[curve.last_within(3 / 300)]
    assert f"AUC {curve.auc:.4f}" in legend(whole)[1]


def test_roc_figure_starts_at_its_left_edge_where_no_point_of_the_curve_is() -> None:
    _, low = roc_figure({"tied": roc([0.1] + [0.5] * 10, [True] + [False] * 10)}).axes
    assert np.array(low.lines[1].get_data())[:, 0].tolist() == [0.3, 1.0]


def test_roc_figure_stays_small_with_many_pairs() -> None:
    whole, low = roc_figure({"model": roc(*scores(200_000))}).axes
    assert np.size(whole.lines[1].get_xdata()) < 2500
    assert low.get_xlim()[0] == 3e-5


def test_roc_figure_refuses_what_has_no_curve() -> None:
    with pytest.raises(ValueError, match="no curves"):
        roc_figure({})
    with pytest.raises(ValueError, match="'mine' has pairs of one class only"):
        roc_figure({"mine": roc([0.1, 0.2], [True, True])})


def test_score_figure_shows_each_class_as_shares_and_the_rates_at_the_threshold() -> None:
    distances, same = scores()
    distances[:6] = np.inf
    axes = score_figure(distances, same, 1.05).axes[0]
    outline = axes.patches[1]
    assert isinstance(outline, StepPatch)
    assert outline.get_data()[0].sum() == pytest.approx(100 * 297 / 300)
    texts = legend(axes)
    assert texts[:2] == ["genuine: 300 pairs", "impostor: 300 pairs"]
    assert "FMR" in texts[2] and "FNMR" in texts[2]
    assert "6 failed pairs not shown" in axes.get_xlabel()
    assert np.ravel(axes.lines[0].get_xdata())[0] == 1.05


def test_score_figure_without_threshold_or_with_one_class_or_one_value() -> None:
    assert not score_figure(*scores()).axes[0].lines
    assert not score_figure(*scores(), threshold=np.inf).axes[0].lines
    score_figure([0.5, 0.5], [True, True], 0.4)
    with pytest.raises(ValueError, match="no finite distance"):
        score_figure([np.inf], [True])


def test_learning_curve_has_a_panel_a_kind_and_leaves_out_what_is_missing() -> None:
    titles = [axes.get_title() for axes in learning_curve_figure(HISTORY).axes]
    assert titles == ["Loss", "Verification", "Learning rate"]
    (only,) = learning_curve_figure({"loss": [2.0]}).axes
    assert legend(only)[0] == "loss, last 2"
    with pytest.raises(ValueError, match=r"no loss, AUC, .* among \['steps'\]"):
        learning_curve_figure({"steps": [1]})


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
    assert (image.dtype, image.shape) == (np.uint8, (420, 1500, 3))
    assert image.min() < 50 and image.max() == 255
    path = tmp_path / "new" / "curve.png"
    for _ in range(2):
        save_figure(figure, path)
    written = cv2.imread(str(path))
    assert written is not None and written.shape == (504, 1800, 3)
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
