"""Figures about training and single pairs: arrays in, a matplotlib `Figure` or a picture out.

Figures are made as objects, never through pyplot, so that nothing global changes and any thread may draw. Colours
are Okabe and Ito's, which colour-blind people can tell apart; line styles differ too, for grey print.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from facekit.files import written_aside

Picture = NDArray[np.uint8]
Box = tuple[float, float, float, float]

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, BLACK, GREY = "#CC79A7", "#56B4E9", "#000000", "#767676"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK)
LINE_STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (1, 1)))

SAME_COLOUR, DIFFERENT_COLOUR = BLUE, VERMILION

# The figures of a learning curve that are shares, by the end of their names, and how they are written.
SHARES = {"auc": "AUC", "accuracy": "accuracy", "eer": "EER", "tpr_at_fmr": "TPR at FMR"}


class Panel(NamedTuple):
    """What a panel of a learning curve shows: the lines by their names, its title, and its axis."""

    lines: Mapping[str, Sequence[float]]
    title: str
    label: str
    scale: str = "linear"


def learning_curve_figure(
    history: Mapping[str, Sequence[float]], first: int = 1, fmr: float | None = None
) -> Figure:
    """Draw what a training run logged: losses, each share (AUC, accuracy, EER, TPR at FMR), the learning rate.

    Each share has its own panel and range: 0.9990 and 0.9994 are told apart beside an EER of 0.01.

    Args:
        history: a list a name, one number an epoch, as Keras' `History.history`. Names with "loss" are losses;
            those that end in "auc", "accuracy", "eer" or "tpr_at_fmr" shares; "learning_rate" is the rate. Others
            are not drawn. NaN leaves a gap.
        first: number of the first epoch; 0: the start.
        fmr: the false-match rate of "tpr_at_fmr", to be named.

    Raises:
        ValueError: no name is one of these.
    """
    panels = _panels(history, f"{SHARES['tpr_at_fmr']} {fmr:g}" if fmr else SHARES["tpr_at_fmr"])
    if not panels:
        raise ValueError(f"There is no loss, AUC, accuracy, EER or learning rate among {sorted(history)}.")
    rows = 1 if len(panels) <= 3 else 2
    columns = math.ceil(len(panels) / rows)
    figure = Figure(figsize=(5 * columns, 4.2 * rows), layout="constrained")
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for empty in places[len(panels) :]:
        empty.remove()
    for axes, panel in zip(places, panels, strict=False):
        _draw_lines(axes, panel.lines, first)
        axes.set(title=panel.title, xlabel="Epoch (0: the start)" if first == 0 else "Epoch", ylabel=panel.label)
        axes.set_yscale(panel.scale)
        if panel.scale == "linear":
            axes.ticklabel_format(axis="y", useOffset=False)
        axes.set_xlim(first - 0.5, first + max(map(len, panel.lines.values())) - 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def _panels(history: Mapping[str, Sequence[float]], tpr: str) -> list[Panel]:
    """The panels that have something to show; `tpr` is the title of the TPR's."""
    losses = {name: values for name, values in history.items() if "loss" in name}
    rate = {name: values for name, values in history.items() if name == "learning_rate"}
    panels = [Panel(losses, "Loss", "Loss (no unit)")]
    for share, title in {**SHARES, "tpr_at_fmr": tpr}.items():
        lines = {name: values for name, values in history.items() if name.endswith(share)}
        better = "less is better" if share == "eer" else "more is better"
        panels.append(Panel(lines, title[0].upper() + title[1:], f"Share of pairs, {better}"))
    panels.append(Panel(rate, "Learning rate", "Learning rate (no unit)", "log"))
    return [panel for panel in panels if panel.lines]


def _draw_lines(axes: Axes, lines: Mapping[str, Sequence[float]], first: int) -> None:
    for number, (name, values) in enumerate(lines.items()):
        finite = [value for value in values if math.isfinite(value)]
        last = f", last {finite[-1]:.4g}" if finite else ""
        axes.plot(
            range(first, first + len(values)),
            values,
            color=COLOURS[number % len(COLOURS)],
            linestyle=LINE_STYLES[number % len(LINE_STYLES)],
            marker="o" if len(values) <= 30 else "",
            markersize=4,
            label=f"{_readable(name)}{last}",
        )


def _readable(name: str) -> str:
    words = {**SHARES, "tpr": "TPR", "fmr": "FMR"}
    return " ".join(words.get(word, word) for word in name.split("_"))


def pairs_strip(
    images_left: Sequence[Picture], images_right: Sequence[Picture], captions: Sequence[str], columns: int = 4
) -> Picture:
    """Draw pairs of pictures, each with a caption below, into one picture; e.g. the hardest pairs.

    Args:
        images_left: n >= 1 pictures, each (H, W, 3) uint8 RGB, of any sizes.
        images_right: n pictures, the partners.
        captions: n short texts (about 30 characters a line), of one line or several.
        columns: pairs in a row.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: there is no pair, or the three lists differ in length.
    """
    count = len(captions)
    if not count or len(images_left) != count or len(images_right) != count:
        raise ValueError(
            "`images_left`, `images_right` and `captions` must have one length, at least 1. "
            f"Received: {len(images_left)}, {len(images_right)} and {count}."
        )
    across = min(columns, count)
    down = math.ceil(count / across)
    # Each line of a caption has its room: it must not press the pictures small.
    lines = max(caption.count("\n") for caption in captions) + 1
    figure = Figure(figsize=(2.8 * across, (1.4 + 0.22 * lines) * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, left, right, caption in zip(panels, images_left, images_right, captions, strict=False):
        axes.imshow(_side_by_side(left, right))
        size = 10 if lines == 1 else 8
        axes.text(0.5, -0.04, caption, ha="center", va="top", fontsize=size, transform=axes.transAxes)
    return figure_to_image(figure)


def _side_by_side(left: Picture, right: Picture, side: int = 112, gap: int = 4) -> Picture:
    """Both pictures at `side` pixels' height, a white gap of `gap` pixels between them."""
    import cv2

    scaled = [
        cv2.resize(
            picture, (max(1, round(side * picture.shape[1] / picture.shape[0])), side), interpolation=cv2.INTER_AREA
        )
        for picture in (left, right)
    ]
    return np.hstack([scaled[0], np.full((side, gap, 3), 255, np.uint8), scaled[1]])


def comparison_figure(
    image1: Picture,
    image2: Picture,
    boxes: tuple[Box | None, Box | None],
    landmarks: tuple[ArrayLike | None, ArrayLike | None],
    caption: str,
    colour: str,
) -> Figure:
    """Draw two pictures side by side with the faces found in them, and the verdict as the title.

    Args:
        image1: (H, W, 3) uint8 RGB.
        image2: the other, of any size.
        boxes: of each picture, its face's (x, y, width, height) in pixels, or None where no face was found.
        landmarks: of each picture, its (5, 2) x and y in pixels, or None.
        caption: the verdict in words; the colour must not say it alone.
        colour: `SAME_COLOUR` or `DIFFERENT_COLOUR`, or any other matplotlib colour.
    """
    figure = Figure(figsize=(9, 5), layout="constrained")
    figure.suptitle(caption, color=colour, fontsize=15, fontweight="bold")
    for axes, image, box, points in zip(figure.subplots(1, 2), (image1, image2), boxes, landmarks, strict=True):
        axes.imshow(image)
        axes.set_axis_off()
        if box is None:
            axes.set_title("no face found")
        else:
            x, y, width, height = box
            axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor="white", linewidth=4))
            axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=2))
        if points is not None:
            across, down = np.asarray(points, dtype=np.float64).T
            axes.scatter(across, down, s=36, color=colour, edgecolors="white", linewidths=1)
    return figure


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure, its format by the path's ending (.png, .svg, .pdf). A file there is replaced in one step.

    Raises:
        ValueError: matplotlib knows no such format.
        OSError: the folder cannot be made or written.
    """
    with written_aside(path) as aside:
        figure.savefig(aside, dpi=120)


def figure_to_image(figure: Figure) -> Picture:
    """Draw a figure into a picture, (H, W, 3) uint8 RGB at the figure's own resolution, e.g. for TensorBoard."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3].copy()
