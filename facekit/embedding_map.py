"""A map of embeddings in two dimensions, epoch by epoch: how people gather as a network learns to tell them apart.

While a run trains, `begin` and `keep` write the embeddings of a few people's pictures into its folder. `draw`
makes an animated GIF of them, and a PNG of the last epoch. Each epoch is centred on its own mean, so that what
moves is how pictures lie to each other; a map of two dimensions shows only a part of that.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection, PathCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from facekit.files import write_bytes, write_text
from facekit.images import Image, read_image, resize_square, write_png
from facekit.panels import plain_text
from facekit.plots import COLOURS

FOLDER = "embeddings"
"""Below a run's folder: pictures.json, faces.png, and epoch_0001.npy (n, D) float16 and so on."""

GIF = "embedding_map.gif"

MOST_PEOPLE, MOST_EACH = 12, 20
"""People whom colours and shapes still tell apart, and pictures of each."""

Method = Literal["pca", "umap"]
Points = NDArray[np.float64]

_FACE = 64
_MARKERS = "os^DvPX*<>ph"
# About 100 frames: 4 MB at most, and a few seconds to draw.
_MOST_STOPS, _BETWEEN = 25, 3
_MOVING, _RESTING, _LAST = 50, 150, 3000  # milliseconds that a frame is shown


def begin(folder: Path, people: Sequence[str], files: Sequence[str], images: NDArray[np.uint8]) -> None:
    """Write whose pictures will be kept, and the first face of each.

    Args:
        folder: of the embeddings.
        people: (n) the person of each picture, person by person.
        files: (n) the pictures' paths.
        images: (n, S, S, 3) uint8 RGB.
    """
    write_text(
        folder / "pictures.json", json.dumps({"people": list(people), "files": list(files)}, indent=1) + "\n"
    )
    firsts = [list(people).index(person) for person in dict.fromkeys(people)]
    write_png(folder / "faces.png", np.hstack([resize_square(images[place], _FACE) for place in firsts]))


def keep(folder: Path, epoch: int, embeddings: NDArray[np.floating]) -> None:
    """Write the embeddings (n, D) of an epoch, from 1, over those of the same epoch."""
    data = io.BytesIO()
    np.save(data, embeddings.astype(np.float16))
    write_bytes(folder / f"epoch_{epoch:04d}.npy", data.getvalue())


@dataclass(frozen=True, eq=False)
class Course:
    """How embeddings went from epoch to epoch.

    Attributes:
        people: (n) the person of each picture.
        faces: a picture of each person, by name.
        epochs: (e) numbers of the epochs, rising.
        embeddings: (e, n, D) float64.
    """

    people: list[str]
    faces: dict[str, Image]
    epochs: list[int]
    embeddings: NDArray[np.float64]


def read_course(folder: Path) -> Course:
    """Read what `begin` and `keep` wrote.

    Raises:
        ValueError: there is nothing, or a file is damaged or of another run; names it.
    """
    paths = sorted(folder.glob("epoch_*.npy"))
    if not paths:
        raise ValueError(
            f"{folder}: holds no embeddings. train.py keeps them at each epoch's end; an older run has none."
        )
    try:
        people = json.loads((folder / "pictures.json").read_text(encoding="utf-8"))["people"]
        strip = read_image(folder / "faces.png")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder}: pictures.json or faces.png cannot be read ({error}).") from None
    arrays = []
    for path in paths:
        try:
            arrays.append(np.load(path).astype(np.float64))
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path}: is damaged ({error}). Remove it: its epoch is left out.") from None
        if arrays[-1].shape != (len(people), *arrays[0].shape[1:]) or arrays[-1].ndim != 2:
            raise ValueError(
                f"{path}: expected {len(people)} rows as in pictures.json, found {arrays[-1].shape}. Remove it."
            )
    names = list(dict.fromkeys(people))
    faces = dict(zip(names, np.split(strip, len(names), axis=1), strict=True))
    return Course(people, faces, [int(path.stem.rpartition("_")[2]) for path in paths], np.stack(arrays))


def project(embeddings: NDArray[np.float64], method: Method = "pca") -> Points:
    """Lay all epochs into the plane of the last one, so that points move smoothly.

    Args:
        embeddings: (e, n, D), n at least 2, D at least 2.
        method: pca: the two directions in which the last epoch's rows differ most; umap: a map of near neighbours.

    Returns:
        (e, n, 2). The same embeddings always give the same points.

    Raises:
        ValueError: umap-learn is not installed.
    """
    centred = embeddings - embeddings.mean(axis=1, keepdims=True)
    fitted = _umap(centred[-1]) if method == "umap" else _pca(centred[-1])
    return np.stack([fitted(rows) for rows in centred])


def _pca(last: Points) -> Callable[[Points], Points]:
    from sklearn.decomposition import PCA

    # Its signs are fixed by the largest entries: no epoch and no machine mirrors the map.
    model = PCA(2, svd_solver="full").fit(last)
    return model.transform


def _umap(last: Points) -> Callable[[Points], Points]:
    try:
        from umap import UMAP  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ValueError(
            "`method` umap needs a package that is not installed: pip install umap-learn. Or take pca."
        ) from None
    return UMAP(n_neighbors=min(15, len(last) - 1), random_state=0, n_jobs=1).fit(last).transform


def eased(points: Points, between: int) -> Points:
    """Add positions between the stops of each point, slow near the stops.

    Args:
        points: (e, n, 2).
        between: positions to add between two stops.

    Returns:
        ((e - 1) * (between + 1) + 1, n, 2).
    """
    times = np.arange(1, between + 2) / (between + 1)
    ways = times**2 * (3 - 2 * times)
    moves = [start + way * (end - start) for start, end in zip(points, points[1:], strict=False) for way in ways]
    return np.stack([points[0], *moves])


def draw(course: Course, figures: Mapping[int, float], output: Path, method: Method = "pca") -> None:
    """Write the map as an animated GIF, and its last frame as a PNG beside it.

    Args:
        course: the embeddings.
        figures: AUC by epoch, for the title; epochs may be missing.
        output: the GIF's path.
        method: see `project`.

    Raises:
        ValueError: see `project`.
    """
    stops = np.unique(np.linspace(0, len(course.epochs) - 1, _MOST_STOPS).round().astype(int))
    points = eased(project(course.embeddings[stops], method), _BETWEEN)
    titles = [_title(course.epochs[stop], course.epochs[-1], figures) for stop in stops]
    canvas = _Map(course, titles, points, f"{method.upper()} of the last epoch's embeddings.")
    frames = [canvas.frame(number) for number in range(len(points))]
    write_png(output.with_suffix(".png"), frames[-1])
    shown = [_RESTING if number % (_BETWEEN + 1) == 0 else _MOVING for number in range(len(frames))]
    write_bytes(output, _gif(frames, [*shown[:-1], _LAST]))


class _Person(NamedTuple):
    """A person in the figure: which of the points, their marks, and a line from each to the middle of all."""

    members: NDArray[np.int64]
    marks: PathCollection
    spokes: LineCollection


class _Map:
    """The figure of all frames; only what moves is changed between them.

    Args:
        course: whose pictures, and their faces.
        titles: of the stops.
        points: (f, n, 2), a place of each picture for each frame.
        note: a sentence below the map.
    """

    def __init__(self, course: Course, titles: Sequence[str], points: Points, note: str):
        self._titles, self._points = titles, points
        self._figure = Figure(figsize=(8.8, 6.8), dpi=100)
        self._canvas = FigureCanvasAgg(self._figure)
        self._title = self._figure.text(0.02, 0.945, "", fontsize=17, fontweight="bold", animated=True)
        self._figure.text(0.02, 0.02, f"A mark is a picture; its line leads to the middle of its person. {note}")
        self._axes = self._figure.add_axes((0.02, 0.06, 0.7, 0.86))
        self._axes.set(xticks=[], yticks=[], **_limits(points))
        self._people = [self._person(course, place, name) for place, name in enumerate(course.faces)]
        self._canvas.draw()
        # What does not move is drawn once: four times as fast.
        self._still = self._canvas.copy_from_bbox(self._figure.bbox)

    def _person(self, course: Course, place: int, name: str) -> _Person:
        """A person's marks in the map, and their line in the list of people beside it."""
        colour, marker = COLOURS[place % len(COLOURS)], _MARKERS[place % len(_MARKERS)]
        spokes = LineCollection([], colors=colour, alpha=0.3, linewidths=1, animated=True)
        self._axes.add_collection(spokes)
        marks = self._axes.scatter(
            [], [], s=46, color=colour, marker=marker, edgecolors="white", linewidths=0.5, animated=True
        )
        row = self._figure.add_axes((0.74, 0.92 - 0.86 * (place + 1) / MOST_PEOPLE, 0.26, 0.86 / MOST_PEOPLE))
        row.set(xlim=(0, 5.2), ylim=(-0.52, 0.52), aspect="equal", anchor="W")
        row.set_axis_off()
        row.imshow(course.faces[name], extent=(0.04, 0.96, -0.46, 0.46), aspect="equal")
        row.scatter(1.3, 0, s=60, color=colour, marker=marker)
        row.text(1.6, 0, plain_text(name, 17), va="center", fontsize=10)
        members = np.flatnonzero(np.array(course.people) == name)
        return _Person(members, marks, spokes)

    def frame(self, number: int) -> Image:
        """The picture of a frame: (H, W, 3) uint8 RGB."""
        self._canvas.restore_region(self._still)
        for person in self._people:
            places = self._points[number][person.members]
            person.marks.set_offsets(places)
            person.spokes.set_segments([(place, places.mean(axis=0)) for place in places])
            self._axes.draw_artist(person.spokes)
        for person in self._people:
            self._axes.draw_artist(person.marks)
        self._title.set_text(self._titles[number // (_BETWEEN + 1)])
        self._figure.draw_artist(self._title)
        return np.array(self._canvas.buffer_rgba())[..., :3].copy()


def _limits(points: Points) -> dict[str, tuple[float, float]]:
    """Limits of both axes that hold every point of every frame, with a margin."""
    low, high = points.min(axis=(0, 1)), points.max(axis=(0, 1))
    margin = 0.06 * np.maximum(high - low, 1e-6)
    (left, bottom), (right, top) = (low - margin).tolist(), (high + margin).tolist()
    return {"xlim": (left, right), "ylim": (bottom, top)}


def _title(epoch: int, last: int, figures: Mapping[int, float]) -> str:
    auc = f"   AUC {figures[epoch]:.3f}" if epoch in figures else ""
    return f"Epoch {epoch} of {last}{auc}"


def _gif(frames: Sequence[Image], milliseconds: Sequence[int]) -> bytes:
    """Frames as a GIF that repeats, in the colours of the last one."""
    from PIL import Image as Pillow

    pictures = [Pillow.fromarray(frame) for frame in frames]
    colours = np.array(pictures[-1].quantize(255).getpalette() or [], np.uint8).reshape(-1, 3)
    # Pillow looks colours up by their upper six bits: a near white would stand in for the background's white.
    colours = colours[colours.min(axis=1) < 240]
    palette = Pillow.new("P", (1, 1))
    palette.putpalette([255, 255, 255, *colours.ravel().tolist()])
    first, *others = (picture.quantize(palette=palette, dither=Pillow.Dither.NONE) for picture in pictures)
    data = io.BytesIO()
    first.save(data, "GIF", save_all=True, append_images=others, duration=list(milliseconds), loop=0)
    return data.getvalue()
