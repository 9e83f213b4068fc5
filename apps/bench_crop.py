"""Speed, memory and agreement of face detectors: the `mtcnn` package, ours, and what else is installed."""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, PositiveInt

from apps.timing import row
from facekit import runtime
from facekit.detection import Detector, Face, MtcnnDetector
from facekit.dlib_detector import DlibDetector
from facekit.images import Image, UnreadableImageError, encode_jpeg, is_picture, read_image
from facekit.mtcnn_boxes import overlaps
from facekit.settings import Settings
from facekit.synthetic import draw_photo
from facekit.workers import cores, peak_memory

KEYPOINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
# Overlap above which two boxes are the same face.
SAME_FACE = 0.5
# 12 megapixels.
LARGE_SIDE = 3464
COLUMNS = (
    "detector",
    "images/s",
    "CPU ms an image",
    "times the first",
    "the first's faces found",
    "further faces",
    "IoU: median, least",
    "landmarks px: median, most",
    "peak MB a process",
)


class CropBench(Settings):
    """Face detection on the same pictures by every detector, in rounds one after the other."""

    images: Path | None = None
    """Folder of pictures, of which evenly spaced ones are taken; by default photos of 250 px are drawn."""

    pictures: PositiveInt = 96
    """Pictures."""

    rounds: PositiveInt = 3
    """Times that each detector goes through the pictures; the median counts."""

    processes: PositiveInt = 2
    """Processes that share the pictures in the row of several processes."""

    min_faces: tuple[Annotated[float, Field(ge=12)], ...] = (40, 80)
    """Smallest faces in the rows that leave smaller ones, in pixels; the package's is 20."""

    large: bool = False
    """Measure one drawn photo of 12 megapixels too, each search in a process of its own."""


class PackageMtcnn:
    """The `mtcnn` package as it is: pictures of one size go in together.

    Args:
        batch_size: pictures at once; 1 gives what the package says of a picture alone.
    """

    def __init__(self, batch_size: int = 1):
        from mtcnn import MTCNN

        self._network = MTCNN()
        self._batch_size = batch_size

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        """All faces of each picture, as `facekit.detection.Detector` gives them."""
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for position, image in enumerate(images):
            by_shape.setdefault(image.shape, []).append(position)
        found: list[list[Face]] = [[] for _ in images]
        for positions in by_shape.values():
            for start in range(0, len(positions), self._batch_size):
                batch = positions[start : start + self._batch_size]
                answers = self._network.detect_faces([images[position] for position in batch])
                for position, answer in zip(batch, answers, strict=True):
                    found[position] = [_face(face) for face in answer]
        return found


def _face(answer: dict[str, Any]) -> Face:
    points = [answer["keypoints"][name] for name in KEYPOINTS]
    return Face(np.array(answer["box"], np.float32), float(answer["confidence"]), np.array(points, np.float32))


@dataclass
class Contender:
    """A detector in processes of its own, and what was measured of it."""

    name: str
    make: Callable[[], Detector]
    processes: int = 1
    workers: list[ProcessPoolExecutor] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    found: list[list[Face]] = field(default_factory=list)
    peak: float = 0

    def start(self, settings: CropBench, stack: ExitStack) -> None:
        """Start the processes, each with its detector and its share of the pictures, and warm them up."""
        context = multiprocessing.get_context("spawn")
        for number in range(self.processes):
            worker = stack.enter_context(ProcessPoolExecutor(1, mp_context=context))
            worker.submit(_prepare, self.make, settings, number, self.processes).result()
            self.workers.append(worker)

    def run(self) -> None:
        """Go through all pictures once."""
        start = time.perf_counter()
        rounds = [worker.submit(_run) for worker in self.workers]
        answers = [one.result() for one in rounds]
        self.wall.append(time.perf_counter() - start)
        self.cpu.append(sum(answer.cpu for answer in answers))
        self.peak = max(answer.peak for answer in answers)
        count = sum(len(answer.found) for answer in answers)
        self.found = [answers[n % self.processes].found[n // self.processes] for n in range(count)]


@dataclass(frozen=True)
class Round:
    """A process's answer: CPU seconds, peak megabytes and the faces of its pictures."""

    cpu: float
    peak: float
    found: list[list[Face]]


@dataclass(frozen=True)
class Agreement:
    """How the faces of one detector are those of another.

    Attributes:
        total: faces of the other one.
        overlap: of each face that both have, the boxes' intersection over union.
        distance: of each of these the mean distance of the landmarks, in pixels.
        further: faces that the other one lacks.
    """

    total: int
    overlap: list[float]
    distance: list[float]
    further: int


def agreement(found: Sequence[Sequence[Face]], wanted: Sequence[Sequence[Face]]) -> Agreement:
    """Compare the faces of the same pictures; a face is the same where the boxes' IoU exceeds 0.5."""
    shares: list[float] = []
    distances: list[float] = []
    for faces, others in zip(found, wanted, strict=True):
        if not faces or not others:
            continue
        table = overlaps(_corners(others), _corners(faces))
        for _ in range(min(table.shape)):
            one, other = divmod(int(np.argmax(table)), table.shape[1])
            if table[one, other] <= SAME_FACE:
                break
            shares.append(float(table[one, other]))
            gaps = np.linalg.norm(others[one].landmarks - faces[other].landmarks, axis=1)
            distances.append(float(gaps.mean()))
            table[one], table[:, other] = -1, -1
    total, ours = (sum(len(faces) for faces in of) for of in (wanted, found))
    return Agreement(total, shares, distances, ours - len(shares))


def _corners(faces: Sequence[Face]) -> np.ndarray:
    boxes = np.array([face.box for face in faces], np.float64)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)


def bench_crop(settings: CropBench) -> Iterator[str]:
    """Measure every detector, in rounds, so that a disturbance of the machine meets all of them.

    Yields:
        The lines of a Markdown table, and of another one with `large`.

    Raises:
        ValueError: the folder holds no readable picture.
    """
    count = len(_pictures(settings))
    contenders = _contenders(settings)
    with ExitStack() as stack:
        for contender in contenders:
            contender.start(settings, stack)
        for _ in range(settings.rounds):
            for contender in contenders:
                contender.run()
    yield f"{count} pictures, median of {settings.rounds} rounds; {cores()} cores.\n"
    yield row(COLUMNS)
    yield row(["---", *["---:"] * (len(COLUMNS) - 1)])
    for contender in contenders:
        yield _line(contender, contenders[0], count)
    if settings.large:
        yield from _of_large_photo(settings)


def _contenders(settings: CropBench) -> list[Contender]:
    contenders = [
        Contender("mtcnn package, one by one", PackageMtcnn),
        Contender("mtcnn package, batches of 8", partial(PackageMtcnn, 8)),
        Contender("mtcnn package, batches of 32", partial(PackageMtcnn, 32)),
        Contender("ours, 1 process", MtcnnDetector),
        Contender(f"ours, {settings.processes} processes", MtcnnDetector, settings.processes),
        *_by_smallest_face(settings),
    ]
    if find_spec("dlib"):
        contenders.append(Contender("dlib, boxes only", partial(DlibDetector, _middles)))
    return contenders


def _by_smallest_face(settings: CropBench) -> list[Contender]:
    return [
        Contender(f"ours, faces from {side:g} px", partial(MtcnnDetector, min_face=side))
        for side in settings.min_faces
    ]


def _of_large_photo(settings: CropBench) -> Iterator[str]:
    """A table of our searches of one photo, each in a process of its own that reads it from a file."""
    yield "\nOne drawn photo of {0} x {0} pixels, median of {1} searches.\n".format(LARGE_SIDE, settings.rounds)
    columns = ("detector", "seconds", "CPU seconds", "faces", "peak MB")
    yield row(columns)
    yield row(["---", *["---:"] * (len(columns) - 1)])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "photo.jpg").write_bytes(encode_jpeg(draw_photo(0, 0, 0, LARGE_SIDE).image))
        alone = settings.model_copy(update={"images": Path(folder), "pictures": 1})
        for contender in [Contender("ours", MtcnnDetector), *_by_smallest_face(settings)]:
            with ExitStack() as stack:
                contender.start(alone, stack)
                for _ in range(settings.rounds):
                    contender.run()
            wall, cpu = statistics.median(contender.wall), statistics.median(contender.cpu)
            faces = sum(len(found) for found in contender.found)
            yield row([contender.name, f"{wall:.1f}", f"{cpu:.1f}", str(faces), f"{contender.peak:.0f}"])


def _middles(images: Sequence[Image], boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stands in for a network of landmarks: all points in the middle of the box."""
    return np.repeat((boxes[:, :2] + boxes[:, 2:] / 2)[:, None], 5, axis=1), np.ones(len(boxes), np.float32)


def _line(contender: Contender, first: Contender, count: int) -> str:
    wall, first_wall = (statistics.median(of.wall) for of in (contender, first))
    same = agreement(contender.found, first.found)
    overlap, distance = same.overlap or [0.0], same.distance or [0.0]
    return row(
        [
            contender.name,
            f"{count / wall:.1f}",
            f"{1000 * statistics.median(contender.cpu) / count:.1f}",
            f"{first_wall / wall:.1f}",
            f"{len(same.overlap)} of {same.total}",
            str(same.further),
            f"{statistics.median(overlap):.3f}, {min(overlap):.3f}",
            f"{statistics.median(distance):.2f}, {max(distance):.2f}",
            f"{contender.peak:.0f}",
        ]
    )


def _pictures(settings: CropBench) -> list[Image]:
    """The pictures that all detectors get."""
    if settings.images is None:
        return [draw_photo(0, person, 0).image for person in range(settings.pictures)]
    paths = sorted(path for path in settings.images.rglob("*") if is_picture(path))
    step = max(1, len(paths) // settings.pictures)
    images = []
    for path in paths[::step][: settings.pictures]:
        try:
            images.append(read_image(path))
        except UnreadableImageError:
            continue
    if not images:
        raise ValueError(
            f"{settings.images}: holds no readable picture. Name a folder of pictures with `--images`."
        )
    return images


# A worker's detector and pictures: they stay from round to round.
_state: dict[str, Any] = {}


def _prepare(make: Callable[[], Detector], settings: CropBench, number: int, processes: int) -> None:
    """Set this process up: every `processes`-th picture from `number` on."""
    if make is PackageMtcnn or getattr(make, "func", None) is PackageMtcnn:
        runtime.start_quietly()
    _state["images"] = _pictures(settings)[number::processes]
    _state["detector"] = make()
    _state["detector"].detect(_state["images"])


def _run() -> Round:
    start = time.process_time()
    found = _state["detector"].detect(_state["images"])
    return Round(time.process_time() - start, peak_memory() / 1e6, found)
