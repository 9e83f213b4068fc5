"""Figures of identification and triplets: what they show, and that they can be read."""

import json
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from matplotlib.text import Text

from facekit.identification import Identification, identify
from facekit.identification_plots import cmc_figure, margin_figure, similarity_figure, tpir_figure
from facekit.plots import figure_to_image
from facekit.similarities import compare_probes
from facekit.triplets import judge_triplets


def unit_rows(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@cache
def result(noise: float = 0.2, people: int = 60, distractors: int = 300, seed: int = 0) -> Identification:
    rng = np.random.default_rng(seed)
    centres = unit_rows(rng.standard_normal((people, 16)))
    names = np.repeat(np.arange(people), 3)
    probes = unit_rows(centres[names] + noise * rng.standard_normal((3 * people, 16)))
    probes[0] = np.nan
    return identify(centres, np.arange(people), probes, names, unit_rows(rng.standard_normal((distractors, 16))))


def judged() -> dict:
    rng = np.random.default_rng(0)
    near, far = rng.uniform(0, 1.2, 500), rng.uniform(0.5, 1.5, 500)
    return judge_triplets(near, far, np.arange(500) < 3, np.arange(500) // 10)


FIGURES: dict[str, Callable[[], Figure]] = {
    "cmc": lambda: cmc_figure({"first": result(), "second": result(0.4)}),
    "tpir": lambda: tpir_figure({"first": result(), "second": result(0.4)}, {"first": 0.9}),
    "similarity": lambda: similarity_figure(result().similarities),
    "margin": lambda: margin_figure(judged()),
}


def legend(axes: Axes) -> list[str]:
    found = axes.get_legend()
    assert found is not None
    return [text.get_text() for text in found.get_texts()]


def steps(axes: Axes) -> list[np.ndarray]:
    """Heights of the histograms' outlines."""
    return [patch.get_data()[0] for patch in axes.patches if isinstance(patch, StepPatch) and not patch.get_fill()]


@pytest.mark.parametrize("name", FIGURES)
def test_text_is_large_enough_and_axes_say_what_they_are(name: str) -> None:
    figure = FIGURES[name]()
    figure_to_image(figure)
    for text in figure.findobj(Text):
        assert not text.get_text() or float(text.get_fontsize()) >= 9, text
    (axes,) = figure.axes
    assert axes.get_title() and axes.get_xlabel() and axes.get_ylabel()


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_written_lies_outside_the_picture(name: str) -> None:
    figure = FIGURES[name]()
    figure_to_image(figure)
    whole = figure.bbox
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text() and text.axes is not None:
            box = text.get_window_extent()
            if 0 < box.width < whole.width:
                labels = {*text.axes.get_xticklabels(), *text.axes.get_yticklabels()}
                assert text in labels or (box.x0 >= 0 and box.x1 <= whole.width), text
                assert text in labels or (box.y0 >= 0 and box.y1 <= whole.height), text


@pytest.mark.parametrize("name", ["cmc", "tpir"])
def test_lines_differ_in_colour_and_in_style(name: str) -> None:
    lines = [line for line in FIGURES[name]().axes[0].lines if str(line.get_label())[:5] in ("first", "secon")]
    assert len({line.get_color() for line in lines}) == len({str(line.get_linestyle()) for line in lines}) == 2


def test_cmc_figure_draws_shares_chance_and_the_interval_of_rank1() -> None:
    found = result(0.4)
    axes = cmc_figure({"mine": found}).axes[0]
    chance, curve, bar = axes.lines
    assert np.array(curve.get_ydata()).tolist() == found.cmc[:50].tolist()
    assert np.array(curve.get_xdata()).tolist() == list(range(1, 51))
    assert np.array(chance.get_ydata())[-1] == 50 / 60
    assert np.array(bar.get_ydata()).tolist() == list(found.rank1_interval[:2])
    assert axes.get_xlim()[0] < np.array(bar.get_xdata())[0] < 1
    low, high, _ = found.rank1_interval
    assert f"mine: rank-1 {found.cmc[0]:.3f} (95 %: {low:.3f} to {high:.3f})" in legend(axes)
    assert axes.get_title() == "CMC: 60 people in the gallery, 180 mated probes"
    assert axes.get_xticks()[:3].tolist() == [1, 5, 10]


@pytest.mark.parametrize("people", [1, 2, 8])
def test_cmc_figure_ends_with_a_small_gallery(people: int) -> None:
    axes = cmc_figure({"mine": result(people=people)}).axes[0]
    assert axes.get_xticks().tolist() == list(range(1, people + 1))
    assert np.size(axes.lines[1].get_xdata()) == people


def test_tpir_figure_draws_points_of_the_curve_down_to_what_the_probes_resolve() -> None:
    found = result(0.3)
    axes = tpir_figure({"mine": found}, {"mine": 0.9}).axes[0]
    assert axes.get_xlim() == (3 / 300, 1)
    fpir, tpir = np.array(axes.lines[0].get_data())
    assert fpir[0] == 3 / 300
    assert tpir[0] == found.open_set.tpr[found.open_set.last_within(3 / 300)]
    assert (fpir[-1], tpir[-1]) == (1, found.cmc[0])
    points = set(zip(found.open_set.fpr, found.open_set.tpr, strict=True))
    assert set(zip(fpir[1:], tpir[1:], strict=True)) <= points
    at = found.at(0.9)
    assert np.array(axes.lines[1].get_data()).ravel().tolist() == [at.fpir, at.tpir]
    assert legend(axes)[1] == f"at threshold 0.9000: TPIR {at.tpir:.3f}, FPIR {at.fpir:.3f}"
    assert "300 non-mated probes" in legend(axes)[0]


def test_tpir_figure_marks_no_threshold_that_it_was_not_given() -> None:
    assert len(tpir_figure({"mine": result()}, {"another": 1.0}).axes[0].lines) == 1
    # One with no false alarm is marked on the left edge.
    axes = tpir_figure({"mine": result()}, {"mine": 0.1}).axes[0]
    assert np.array(axes.lines[1].get_xdata())[0] == 3 / 300


def test_tpir_figure_starts_at_its_left_edge_where_no_point_of_the_curve_is() -> None:
    stranger = np.array([[0.6, 0.8]] * 10, np.float32)
    known = np.eye(2, dtype=np.float32)
    found = identify(known, ["ann", "bob"], known, ["ann", "bob"], stranger)
    axes = tpir_figure({"tied": found}).axes[0]
    assert np.array(axes.lines[0].get_data()).tolist() == [[0.3, 1.0, 1.0], [1.0, 1.0, 1.0]]


def test_tpir_figure_stays_small_with_many_probes() -> None:
    axes = tpir_figure({"mine": result(people=5, distractors=50_000)}).axes[0]
    assert np.size(axes.lines[0].get_xdata()) <= 1001
    assert axes.get_xlim()[0] == 3 / 50_000


def test_similarity_figure_shows_each_kind_as_shares_and_the_thresholds() -> None:
    pairs = result().similarities
    axes = similarity_figure(pairs).axes[0]
    assert [heights.sum() for heights in steps(axes)] == pytest.approx([100, 100, 100])
    for heights, kind in zip(steps(axes), (pairs.genuine, pairs.impostor, pairs.distractor), strict=True):
        compared = kind.pairs - kind.lost
        assert heights == pytest.approx(100 * (kind.counts[::2] + kind.counts[1::2]) / compared)
    assert legend(axes)[0] == f"genuine pairs of probes: 178, mean {pairs.genuine.mean:.2f}"
    lines = [np.array(line.get_xdata())[0] for line in axes.lines]
    assert lines == [1 - claim.threshold**2 / 2 for claim in pairs.id_rate if claim.claimable]
    assert "479 pairs without a face not shown" in axes.get_xlabel()  # of the first probe


def test_similarity_figure_names_thresholds_only_where_there_is_room() -> None:
    # All within a hundredth of a cosine: an untrained network.
    rows = np.append(np.ones((60, 1)), 0.005 * np.random.default_rng(0).standard_normal((60, 4)), axis=1)
    pairs = compare_probes(unit_rows(rows), np.arange(60) // 2, np.empty((0, 5), np.float32))
    axes = similarity_figure(pairs).axes[0]
    assert len(axes.lines) == 6  # 1,740 impostor pairs claim all but the least rate
    (upper,) = axes.child_axes
    assert [label.get_text() for label in upper.get_xticklabels()] == ["0.5"]
    assert len(legend(axes)) == 2


def test_margin_figure_splits_right_from_wrong_and_gives_the_interval() -> None:
    report = json.loads(json.dumps(judged()))
    axes = margin_figure(report).axes[0]
    wrong, right = steps(axes)
    assert wrong.sum() == pytest.approx(100 * report["ordered_wrong"] / 497)
    assert right.sum() == pytest.approx(100 * report["ordered_right"] / 497)
    low, high = report["intervals"]["ordered"]
    assert axes.get_title() == f"Triplets: {report['ordered']:.3f} ordered right (95 %: {low:.3f} to {high:.3f})"
    assert np.array(axes.lines[0].get_xdata())[0] == report["margin_median"]
    assert axes.get_xlabel().endswith("3 without a face not shown")


def test_ties_are_drawn_with_the_wrong_ones() -> None:
    wrong, right = steps(margin_figure(judge_triplets([0.5] * 3, [0.5, 0.5, 0.6], [False] * 3)).axes[0])
    assert wrong.sum() == pytest.approx(200 / 3)
    assert right.sum() == pytest.approx(100 / 3)


def test_what_cannot_be_drawn_is_refused() -> None:
    for draw in (cmc_figure, tpir_figure):
        with pytest.raises(ValueError, match="no results to draw"):
            draw({})
    with pytest.raises(ValueError, match="'mine' has no non-mated probe"):
        tpir_figure({"mine": result(distractors=0)})
    with pytest.raises(ValueError, match="one gallery and the same probes"):
        cmc_figure({"one": result(), "other": result(people=8)})
    nobody = compare_probes(np.full((2, 3), np.nan, np.float32), np.array([0, 0]), np.empty((0, 3), np.float32))
    with pytest.raises(ValueError, match="no pair of pictures with faces"):
        similarity_figure(nobody)
