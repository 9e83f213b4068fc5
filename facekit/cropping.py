"""Crop the faces of some pictures of a folder: decode, detect, choose, align, write; a row for each picture."""

from __future__ import annotations

import hashlib
import os
import socket
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2

from facekit import manifest, runtime
from facekit.alignment import CropRecipe
from facekit.detection import Detector, Finding, crop_found, find_faces
from facekit.detectors import make_detector
from facekit.files import stamp
from facekit.images import Image, UnreadableImageError, is_picture, read_image, write_jpeg
from facekit.manifest import Row
from facekit.workers import peak_memory

# Decoded pictures held at once by a process, in bytes: 32 photos of 1.6 megapixels.
DECODED_BYTES = 160_000_000

# File systems take names of 255 bytes; a file that is written aside takes 10 more.
LONGEST_NAME = 240


@dataclass(frozen=True)
class Job:
    """One picture to crop: where it is and where its crop goes, both relative ("/" between parts)."""

    path: str
    crop: str

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True)
class Order:
    """What a run does with every picture, in whichever process and on whichever machine.

    Attributes:
        input_dir: folder of the pictures; absolute, so that it is the same place on each machine of a cluster.
        output_dir: folder of the crops, absolute; it holds the run's marker already.
        recipe: how faces are found and cut.
        min_side: pictures with a shorter side, in pixels, are skipped.
        aligner: weights of the "fast" detector; None with "mtcnn".
    """

    input_dir: Path
    output_dir: Path
    recipe: CropRecipe
    min_side: int
    aligner: Path | None = None


@dataclass(frozen=True)
class Done:
    """A worker's answer for a chunk: its rows, and the most memory its process has held, in bytes."""

    rows: list[Row]
    peak_memory: int


def find_pictures(folder: Path) -> list[str]:
    """All pictures below a folder, relative to it and sorted; links are followed, hidden names passed over.

    Links that lead round in a circle end there: each folder is read once. What only looks like a picture (a broken
    link, a pipe named x.jpg) is listed too, so that a run can say what became of it; a folder named x.jpg is read
    as a folder. A folder that may not be read is passed over with a warning that names it.

    Raises:
        ValueError: the folder is missing or holds no picture.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder. Give a folder of pictures.")
    found = sorted(_pictures_below(str(folder), "", set()))
    if not found:
        raise ValueError(f"{folder}: holds no pictures (.jpg, .png, .webp, .bmp, .tif), in it or below it.")
    return found


def _pictures_below(folder: str, prefix: str, visited: set[tuple[int, int]]) -> Iterator[str]:
    """Pictures in a folder and below it, each name after `prefix`."""
    status = os.stat(folder)
    if (status.st_dev, status.st_ino) in visited:
        return
    visited.add((status.st_dev, status.st_ino))
    subfolders: list[tuple[bool, str]] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    subfolders.append((entry.is_symlink(), entry.name))
                elif is_picture(entry.name):
                    yield prefix + entry.name
    except OSError as error:
        warnings.warn(f"{folder}: cannot be listed ({error.strerror}); what is in it is left out.", stacklevel=2)
    # Links last: a folder that is there twice keeps its own name.
    for _, name in sorted(subfolders):
        yield from _pictures_below(os.path.join(folder, name), f"{prefix}{name}/", visited)


def plan_crops(pictures: Sequence[str]) -> list[Job]:
    """A crop's name for every picture: the same for a JPEG, else with .jpg behind the whole name (1.png.jpg).

    A name never depends on the other pictures, and no two ever meet in one file: a JPEG that is itself called
    1.png.jpg becomes 1.png.jpg.jpg. A name too long for that is cut, with a part of its SHA-256 digest instead.
    """
    return [Job(path, _crop_name(path)) for path in pictures]


def _crop_name(path: str) -> str:
    folder, slash, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    if suffix.lower() not in ("jpg", "jpeg") or is_picture(stem):
        name += ".jpg"
    data = os.fsencode(name)
    if len(data) > LONGEST_NAME:
        name = f"{os.fsdecode(data[:180])}-{hashlib.sha256(data).hexdigest()[:16]}.jpg"
    return folder + slash + name


def prepare_worker() -> None:
    """Set up a process that shares the machine's cores with others of its kind; MTCNN needs no TensorFlow."""
    # Bad files are reported by name, by us; the decoders' own lines name none.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    cv2.setNumThreads(1)


def prepare_network_worker() -> None:
    """The same for a detector that is a TensorFlow network."""
    runtime.start_quietly()
    runtime.use_cpu_only()
    runtime.limit_threads(1)


@lru_cache(maxsize=1)
def _detector(recipe: CropRecipe, aligner: Path | None) -> Detector:
    """This process's detector, made once."""
    return make_detector(recipe, aligner)


@lru_cache(maxsize=1)
def _see_folders(order: Order) -> None:
    """Refuse to work where the run's folders are not: every picture would be missing, each crop lost."""
    for folder, name in ((order.input_dir, ""), (order.output_dir, manifest.MARKER)):
        # Listing it anew, since a network disk may remember for a while that a new file is not there.
        if not folder.is_dir() or (name and name not in os.listdir(folder)):
            raise ValueError(
                f"{folder / name}: is not there on {socket.gethostname()}. Every machine must see the pictures "
                "and the crops' folder under the same path."
            )


def crop_chunk(order: Order, jobs: Sequence[Job]) -> Done:
    """Crop some pictures in this process. A picture that fails gets a row with the reason; it harms no other.

    Raises:
        ValueError: this machine does not see the run's folders, or lacks the detector's weights.
    """
    _see_folders(order)
    rows: list[Row] = []
    begun: list[Job] = []
    images: dict[str, Image] = {}
    reasons: dict[str, str] = {}
    stamps: dict[str, tuple[int, int]] = {}
    for job in jobs:
        begun.append(job)
        # Before it is read: a picture that is replaced from here on is known as changed by the next run.
        stamps[job.path] = stamp(order.input_dir / job.path)
        try:
            image = read_image(order.input_dir / job.path)
        except UnreadableImageError:
            reasons[job.path] = manifest.UNREADABLE
            continue
        if min(image.shape[:2]) < order.min_side:
            reasons[job.path] = manifest.TOO_SMALL
        else:
            images[job.path] = image
        # Large photos are detected a few at a time: memory stays bounded whatever the camera.
        if sum(image.size for image in images.values()) > DECODED_BYTES:
            rows += _crop_decoded(begun, images, reasons, stamps, order)
            begun, images = [], {}
    rows += _crop_decoded(begun, images, reasons, stamps, order)
    return Done(rows, peak_memory())


def _crop_decoded(
    jobs: Sequence[Job],
    images: Mapping[str, Image],
    reasons: Mapping[str, str],
    stamps: Mapping[str, tuple[int, int]],
    order: Order,
) -> list[Row]:
    """Detect, choose, align and write; a row for each job, with its reason where it has no image."""
    recipe = order.recipe
    findings = {}
    if images:
        detector = _detector(recipe, order.aligner)
        findings = dict(zip(images, find_faces(list(images.values()), detector, recipe), strict=True))
    rows = []
    for job in jobs:
        finding = findings.get(job.path, Finding(None, 0, reasons.get(job.path, "")))
        crop = crop_found(images[job.path], finding, recipe) if job.path in images else None
        if crop is not None:
            write_jpeg(order.output_dir / job.crop, crop, recipe.quality)
        else:
            # The picture may have had a face before it changed: its crop must not stay for training.
            (order.output_dir / job.crop).unlink(missing_ok=True)
        name = job.crop if crop is not None else ""
        rows.append(Row.of(job.path, name, finding, *stamps[job.path]))
    return rows
