"""How fast the alignment network is beside MTCNN: the same pictures, in turns, one process, one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import PositiveInt

from apps.timing import row
from facekit import runtime
from facekit.aligner import FastAligner, FastDetector
from facekit.alignment import CropRecipe
from facekit.cropping import find_pictures
from facekit.detection import Detector, MtcnnDetector, crop_found, find_faces
from facekit.images import Image, decode, encode_jpeg
from facekit.settings import Settings

# Pictures that our own detectors are given at once, as crop_faces.py does.
TOGETHER = 32


class AlignerBench(Settings):
    """Pictures a second of the alignment network and of MTCNN, with and without decoding, warping and encoding."""

    images: Path
    """Folder of pictures with a face in the middle of each, best all of one size."""

    weights: Path
    """Weights of the alignment network, made by `python -m apps.train_aligner`."""

    pictures: PositiveInt = 64
    """Pictures to use, drawn at random."""

    rounds: PositiveInt = 5
    """Times that the contenders take turns; the median counts."""


class Speed(NamedTuple):
    """Pictures a second, by the clock and by the processor time of all threads."""

    wall: float
    processor: float


def find_all(detector: Detector, images: Sequence[Image]) -> None:
    """Points only, of decoded pictures."""
    for start in range(0, len(images), TOGETHER):
        detector.detect(images[start : start + TOGETHER])


def find_one_by_one(images: Sequence[Image]) -> Callable[[], None]:
    """The mtcnn package as its manual has it: a picture a call."""
    from mtcnn import MTCNN

    network = MTCNN(device="CPU:0")

    def call() -> None:
        for image in images:
            network.detect_faces(image)

    return call


def crop_all(detector: Detector, files: Sequence[bytes], recipe: CropRecipe) -> None:
    """The whole way of a picture: decode, find, align, encode."""
    for start in range(0, len(files), TOGETHER):
        images = [image for file in files[start : start + TOGETHER] if (image := decode(file)) is not None]
        for image, finding in zip(images, find_faces(images, detector, recipe), strict=True):
            crop = crop_found(image, finding, recipe)
            if crop is not None:
                encode_jpeg(crop, recipe.quality)


def take_turns(calls: dict[str, Callable[[], None]], count: int, rounds: int) -> dict[str, Speed]:
    """Time each call `rounds` times in turn, after one that is not counted; medians, in pictures a second."""
    for call in calls.values():
        call()
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            wall, processor = time.perf_counter(), time.process_time()
            call()
            seconds[name].append((time.perf_counter() - wall, time.process_time() - processor))
    return {
        name: Speed(*(count / statistics.median(turn[clock] for turn in turns) for clock in (0, 1)))
        for name, turns in seconds.items()
    }


def bench_aligner(settings: AlignerBench) -> Iterator[str]:
    """Measure; yields the lines of a Markdown table. The process is left with one thread and without a GPU.

    Raises:
        ValueError: an input is wrong; in one sentence.
    """
    runtime.use_cpu_only()
    runtime.limit_threads(1)
    names = find_pictures(settings.images)
    rng = np.random.default_rng(0)
    chosen = rng.choice(names, min(settings.pictures, len(names)), replace=False)
    files = [(settings.images / name).read_bytes() for name in chosen]
    images = [image for file in files if (image := decode(file)) is not None]
    if len(images) < len(files):
        raise ValueError(f"{settings.images}: {len(files) - len(images)} of {len(files)} pictures are unreadable.")
    fast, mtcnn, recipe = FastDetector(FastAligner(settings.weights)), MtcnnDetector(), CropRecipe()
    package = "points: mtcnn package, one by one"
    calls: dict[str, Callable[[], None]] = {
        package: find_one_by_one(images),
        "points: MtcnnDetector": lambda: find_all(mtcnn, images),
        "points: alignment network": lambda: find_all(fast, images),
        "crops: MtcnnDetector": lambda: crop_all(mtcnn, files, recipe),
        "crops: alignment network": lambda: crop_all(fast, files, recipe),
    }
    speeds = take_turns(calls, len(images), settings.rounds)
    yield f"{len(images)} pictures, median of {settings.rounds} rounds; one thread.\n"
    yield row(["what", "pictures/s", "a second of processor time", "times the package"])
    yield row(["---", "---:", "---:", "---:"])
    for name, speed in speeds.items():
        times = speed.processor / speeds[package].processor
        yield row([name, f"{speed.wall:.0f}", f"{speed.processor:.0f}", f"{times:.1f}"])
