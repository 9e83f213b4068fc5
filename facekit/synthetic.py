"""Faces drawn on demand, of people who do not exist, with exact labels: training data for a first run, test data.

Every picture is a pure function of (seed, person, picture). A person's geometry, colours and marks stay
(`Identity`); pose, expression, light, hair, clothes, background and camera change from picture to picture
(`Appearance`).
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from facekit.drawing.canvas import View, similarity
from facekit.drawing.likeness import Appearance, Identity, Sitter
from facekit.drawing.portrait import take_picture

__all__ = ["Appearance", "Identity", "Photo", "draw_crop", "draw_photo", "write_people"]

MARKER, LABELS = "synthetic.json", "labels.csv"
# Raised when the same numbers give other pictures than before.
_VERSION = 1
_JPEG_QUALITY = 95
_SMALLEST = 16
# The usual five points of a 112-pixel crop (ArcFace).
_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
# A detector's error: standard deviation of the points that a crop is aligned by, as a share of its side.
_CROP_JITTER = 0.008
_CROP_STREAM, _COUNT_STREAM = 3, 4
_POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
_COLUMNS = (
    "path",
    "person",
    "x",
    "y",
    "width",
    "height",
    *(f"{point}_{axis}" for point in _POINTS for axis in "xy"),
)


@dataclass(frozen=True)
class Photo:
    """A drawn picture and what is known about it.

    Attributes:
        image: (H, W, 3) uint8 RGB.
        identity: index of the person.
        box: (4,) float32, x, y, width, height of the face in pixels, from mid-forehead to chin.
        landmarks: (5, 2) float32 pixels, x then y: left eye in the picture, right eye, tip of the nose, left and
            right corner of the mouth.
    """

    image: np.ndarray
    identity: int
    box: np.ndarray
    landmarks: np.ndarray


@dataclass(frozen=True)
class _Order:
    """Which folder of pictures to write."""

    seed: int
    people: int
    pictures_per_person: int | tuple[int, int]
    size: int
    crops: bool

    def marker(self) -> dict[str, object]:
        count = self.pictures_per_person
        return {
            "synthetic": True,
            "seed": self.seed,
            "people": self.people,
            "pictures_per_person": count if isinstance(count, int) else list(count),
            "size": self.size,
            "crops": self.crops,
            "version": _VERSION,
        }

    def pictures(self, person: int) -> int:
        """How many pictures a person has."""
        count = self.pictures_per_person
        if isinstance(count, int):
            return count
        return int(np.random.default_rng([_COUNT_STREAM, self.seed, person]).integers(count[0], count[1] + 1))


def draw_photo(seed: int, person: int, picture: int, size: int = 250) -> Photo:
    """Draw a photo: head and shoulders before a background, the face on 36 to 60 % of the side.

    Args:
        seed: of the population, 0 or more.
        person: index of the person, 0 or more.
        picture: index of the picture, 0 or more.
        size: side of the picture in pixels, at least 16.

    Returns:
        The photo; its box lies inside the picture.

    Raises:
        ValueError: a number is out of its range.
    """
    sitter, view = _compose(seed, person, picture, size, crop=False)
    return _develop(sitter, view, person, size)


def draw_crop(seed: int, person: int, picture: int, size: int = 112) -> Photo:
    """Draw an aligned crop of the same person, looking the same, as in `draw_photo` with these numbers.

    Args:
        seed: of the population, 0 or more.
        person: index of the person, 0 or more.
        picture: index of the picture, 0 or more.
        size: side of the crop in pixels, at least 16.

    Returns:
        The crop. The similarity that fits the landmarks to the usual template best is the identity, up to a
        detector's error; the points themselves differ as faces do. Its box may reach beyond the crop.

    Raises:
        ValueError: a number is out of its range.
    """
    sitter, view = _compose(seed, person, picture, size, crop=True)
    return _develop(sitter, view, person, size)


def write_people(  # noqa: PLR0913 - numbers by name read better here than an object of numbers
    output_dir: Path | str,
    people: int,
    pictures_per_person: int | tuple[int, int],
    seed: int = 0,
    size: int = 250,
    crops: bool = False,
    *,
    processes: int = 1,
    progress: bool = False,
) -> Path:
    """Write a folder per person, `person_00000/0000.jpg` and so on, with `labels.csv` and `synthetic.json`.

    A folder that an earlier, interrupted call with the same numbers left is continued: pictures that are there
    are not drawn again.

    Args:
        output_dir: new, empty, or written by this function with the same numbers.
        people: number of people.
        pictures_per_person: pictures of each, or (low, high) for a number drawn per person, both ends included.
        seed: of the population.
        size: side of the pictures in pixels.
        crops: aligned crops (`draw_crop`) instead of photos (`draw_photo`).
        processes: processes that draw.
        progress: whether to show a progress bar.

    Returns:
        `output_dir`.

    Raises:
        ValueError: a number is out of its range, or the folder holds something else; in one sentence.
    """
    order = _Order(seed, people, pictures_per_person, size, crops)
    _check_order(order, processes)
    root = Path(output_dir)
    _claim(root, order)
    if _complete(root, order):
        return root
    tasks = [(root, order, person) for person in range(people)]
    with _mapper(min(processes, people)) as run:
        rows = [row for part in tqdm(run(_write_person, tasks), total=people, unit="person", disable=not progress)
                for row in part]  # fmt: skip
    _write_labels(root / LABELS, rows)
    return root


def _compose(seed: int, person: int, picture: int, size: int, crop: bool) -> tuple[Sitter, View]:
    """Who sits, and where the face lands in the picture."""
    if size < _SMALLEST:
        raise ValueError(f"`size` must be at least {_SMALLEST} pixels. Received: {size}.")
    identity = Identity.from_seed(seed, person)
    sitter = Sitter(identity, Appearance.from_seed(seed, person, picture, identity.glasses_share))
    return sitter, (_crop_view(sitter, size) if crop else _photo_view(sitter, size))


def _photo_view(sitter: Sitter, size: int) -> View:
    look = sitter.look
    turn = np.array([[np.cos(look.roll), -np.sin(look.roll)], [np.sin(look.roll), np.cos(look.roll)]])
    left, top, width, height = sitter.box(_view(look, turn, np.zeros(2)))
    scale = look.face_share * size / max(width, height)
    free = size - scale * np.array([width, height])
    return _view(look, scale * turn, free * (look.place_x, look.place_y) - scale * np.array([left, top]))


def _crop_view(sitter: Sitter, size: int) -> View:
    look = sitter.look
    jitter = np.random.default_rng([_CROP_STREAM, look.texture_seed]).normal(0, _CROP_JITTER, (5, 2))
    found = sitter.landmarks(View(look.yaw, look.pitch))
    matrix = similarity(found, (_TEMPLATE / 112 + jitter) * size)
    return _view(look, matrix[:, :2], matrix[:, 2])


def _view(look: Appearance, turn: np.ndarray, shift: np.ndarray) -> View:
    first, second = np.column_stack([turn, shift]).tolist()
    return View(look.yaw, look.pitch, (tuple(first), tuple(second)))


def _develop(sitter: Sitter, view: View, person: int, size: int) -> Photo:
    box, landmarks = sitter.box(view).astype(np.float32), sitter.landmarks(view).astype(np.float32)
    return Photo(take_picture(sitter, view, size), person, box, landmarks)


def _check_order(order: _Order, processes: int) -> None:
    count = order.pictures_per_person
    low, high = (count, count) if isinstance(count, int) else count
    if not 1 <= low <= high:
        raise ValueError(f"`pictures_per_person` must be at least 1, or a range (low, high). Received: {count}.")
    smallest = {"people": 1, "seed": 0, "size": _SMALLEST, "processes": 1}
    given = {"people": order.people, "seed": order.seed, "size": order.size, "processes": processes}
    for name, limit in smallest.items():
        if given[name] < limit:
            raise ValueError(f"`{name}` must be at least {limit}. Received: {given[name]}.")


def _claim(root: Path, order: _Order) -> None:
    """Put the marker into a new folder, or see that the folder is this order's."""
    advice = "choose another folder, or delete this one"
    if root.exists() and not root.is_dir():
        raise ValueError(f"{root}: is not a folder; {advice}.")
    marker = root / MARKER
    if marker.is_file():
        if _read_marker(marker) != order.marker():
            raise ValueError(f"{root}: holds synthetic pictures of other settings ({MARKER} differs); {advice}.")
        foreign = [p.name for p in root.iterdir() if p.is_dir() and not re.fullmatch(r"person_\d{5,}", p.name)]
        if foreign:
            raise ValueError(f"{root}: holds the folder {min(foreign)!r}, which is not synthetic; {advice}.")
        return
    if root.is_dir() and any(root.iterdir()):
        raise ValueError(f"{root}: holds other files and no {MARKER}; {advice}.")
    root.mkdir(parents=True, exist_ok=True)
    _write_bytes(marker, json.dumps(order.marker(), indent=2).encode() + b"\n")


def _read_marker(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


def _complete(root: Path, order: _Order) -> bool:
    pictures = (_picture_path(p, k) for p in range(order.people) for k in range(order.pictures(p)))
    return (root / LABELS).is_file() and all((root / path).is_file() for path in pictures)


def _picture_path(person: int, picture: int) -> str:
    return f"person_{person:05d}/{picture:04d}.jpg"


def _write_person(task: tuple[Path, _Order, int]) -> list[list[str]]:
    """Draw a person's missing pictures; the rows of labels.csv for all of them."""
    root, order, person = task
    (root / f"person_{person:05d}").mkdir(exist_ok=True)
    rows = []
    for picture in range(order.pictures(person)):
        sitter, view = _compose(order.seed, person, picture, order.size, order.crops)
        name = _picture_path(person, picture)
        if not (root / name).is_file():
            pixels = cv2.cvtColor(take_picture(sitter, view, order.size), cv2.COLOR_RGB2BGR)
            _, data = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])
            _write_bytes(root / name, data.tobytes())
        numbers = np.concatenate([sitter.box(view), sitter.landmarks(view).ravel()])
        rows.append([name, f"person_{person:05d}", *(f"{number:.3f}" for number in numbers)])
    return rows


def _write_labels(path: Path, rows: list[list[str]]) -> None:
    aside = path.with_name(path.name + ".part")
    with aside.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([list(_COLUMNS), *rows])
    os.replace(aside, path)


def _write_bytes(path: Path, data: bytes) -> None:
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(data)
    os.replace(aside, path)


@contextmanager
def _mapper(processes: int) -> Iterator[type[map]]:
    """`map`, or the same over several processes."""
    if processes == 1:
        yield map
        return
    # Spawned: a fork of a process that has run TensorFlow may hang.
    with ProcessPoolExecutor(processes, get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        yield pool.map  # type: ignore[misc]
