"""What figures share: numbers in words, ticks, names as they are."""

from __future__ import annotations

import pytest
from matplotlib.figure import Figure

from facekit.panels import curve_style, log_ticks, panels, percent, plain_text, score_text
from facekit.plots import figure_to_image


@pytest.mark.parametrize(
    ("rate", "text"),
    [(0.0, "0.00 %"), (1.0, "100.00 %"), (0.184, "18.40 %"), (0.00012, "0.012 %"), (1e-6, "0.0001 %")],
)
def test_rates_in_percent_never_round_to_nothing(rate: float, text: str) -> None:
    assert percent(rate) == text


def test_an_undefined_rate_says_so() -> None:
    assert percent(float("nan")) == "undefined"


@pytest.mark.parametrize(
    ("score", "text"),
    [(1.21447, "1.2145"), (-0.35, "-0.3500"), (0.0, "0.0000"), (0.000123, "0.000123"), (4096.5, "4096.5")],
)
def test_scores_keep_four_decimals_or_five_digits(score: float, text: str) -> None:
    assert score_text(score) == text


def test_ticks_are_powers_of_ten_and_between_them_where_few() -> None:
    assert log_ticks(1e-3) == pytest.approx([1e-3, 1e-2, 0.1, 1])
    assert log_ticks(0.03) == pytest.approx([0.05, 0.1, 0.2, 0.5, 1])


@pytest.mark.parametrize("name", ["$x$ and _y_", "_hidden", "<b>&amp;", "a\x00b\n c", r"\frac{1}{0} $ $"])
def test_any_name_is_drawn_as_it_is(name: str) -> None:
    figure = Figure()
    axes = figure.subplots()
    axes.plot([0, 1], label=plain_text(name))
    legend = axes.legend()
    figure_to_image(figure)
    assert len(legend.get_texts()) == 1
    shown = legend.get_texts()[0].get_text().replace(r"\$", "$").strip()
    assert shown == " ".join(name.replace("\x00", "").split())


def test_long_names_are_cut() -> None:
    assert plain_text("a" * 50) == "a" * 39 + "…"
    assert plain_text("a" * 40) == "a" * 40


def test_the_first_49_curves_all_look_different() -> None:
    assert len({str(curve_style(number)) for number in range(49)}) == 49


def test_room_for_a_legend_is_made_below_and_panels_keep_their_size() -> None:
    (without, plain), (with_room, raised) = panels(2), panels(2, legend=5)
    assert with_room.get_figheight() - without.get_figheight() == pytest.approx(3 * 0.23 + 0.1)
    for one, other in zip(plain, raised, strict=True):
        height, taller = (
            axes.get_position().height * figure.get_figheight()
            for axes, figure in ((one, without), (other, with_room))
        )
        assert height == pytest.approx(taller)
