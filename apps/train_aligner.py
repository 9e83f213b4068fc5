"""Train the small network that aligns faces which are already cropped: `crop_faces.py --aligner fast`.

In:  drawn faces with exact points, and folders of crops made by crop_faces.py, whose MTCNN points are the teacher.
Out: one file of weights (below 1.5 MB), and a table of errors on people who were held out.
Run: python -m apps.train_aligner --output aligner.keras --teacher crops
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt

from facekit import manifest, runtime
from facekit.aligner import FastAligner, central_square, square_place, to_picture, to_view
from facekit.alignment import Points
from facekit.detectors import needs_aligner
from facekit.files import check_writable, written_aside
from facekit.images import Image, UnreadableImageError, read_image
from facekit.manifest import Row
from facekit.pairs import plain_name
from facekit.protocols import read_people
from facekit.settings import Settings, parse
from facekit.synthetic import draw_photo

# TensorFlow is imported on use: `runtime.start_quietly` has to come before it.
if TYPE_CHECKING:
    from facekit.aligner_views import Faces

# Faces drawn for training and for the test are of other people.
TRAINING_PEOPLE, TEST_PEOPLE = 0, 1
DRAWN_SIDE = 250

Known = tuple[Image, Points]
"""A picture, and the points of its face."""

Item = TypeVar("Item")


class AlignerTraining(Settings):
    """Train the alignment network on drawn faces and on MTCNN's points of your own pictures."""

    output: Path
    """File of weights to write, ending in .keras."""

    teacher: tuple[Path, ...] = ()
    """Folders of crops made by crop_faces.py; the original pictures are read again from where they were. Without
    any, the network learns from drawn faces alone, which serves drawn faces alone."""

    exclude_people: Path | None = None
    """People to hold out from training and to measure the error on, one name a line; a person is the folder of
    the picture. None: a tenth of the people, drawn by `seed`."""

    faces: PositiveInt = 20_000
    """The most pictures of the teacher's to train on, drawn at random where there are more; 16 KB each."""

    drawn: PositiveInt = 3_000
    """Drawn faces to train on."""

    drawn_share: float = Field(0.25, gt=0, lt=1)
    """Share of drawn faces in each batch, where there is a teacher."""

    test_faces: PositiveInt = 2_000
    """The most held-out pictures to measure on, and a tenth as many drawn ones."""

    epochs: PositiveInt = 24
    """Epochs of 100 batches of 128 views; the run's state is kept after each."""

    seed: int = Field(0, ge=0, lt=2**31)
    """Fixes the drawn people, the choice of pictures, the initial weights and every batch."""


@dataclass(frozen=True)
class Material:
    """Faces of one kind to learn from, and how to tell a guess from knowledge.

    Attributes:
        faces: for training.
        mean_shape: (5, 2) mean of their points in the unit square of each picture's central square.
    """

    faces: Faces
    mean_shape: Points


def split_teacher(
    rows: Sequence[tuple[Path, Row]], listed: set[str] | None, seed: int
) -> tuple[list[tuple[Path, Row]], list[tuple[Path, Row]]]:
    """The teacher's pictures of people to train on, and of those held out.

    Args:
        rows: the source folder and the row of each picture with a face.
        listed: plain names of the people to hold out; None: a tenth of those there are.
        seed: draws that tenth.

    Raises:
        ValueError: nobody would be left on one of the sides.
    """
    person = [plain_name(Path(row.path).parent.name) for _, row in rows]
    if listed is None:
        people = sorted(set(person))
        listed = set(np.random.default_rng(seed).permutation(people)[: max(1, len(people) // 10)].tolist())
    train = [row for row, name in zip(rows, person, strict=True) if name not in listed]
    held = [row for row, name in zip(rows, person, strict=True) if name in listed]
    if not train or not held:
        raise ValueError(
            f"`teacher`: {len(train)} pictures to train on and {len(held)} of held-out people; both are needed. "
            "Take a folder with several people, one folder each, and `exclude_people` that names some of them."
        )
    return train, held


def read_teacher(folders: Sequence[Path]) -> list[tuple[Path, Row]]:
    """All pictures with a face in folders of crops, each with the folder of its original.

    Raises:
        ValueError: a folder was not made by crop_faces.py, holds no face, or its originals are gone.
    """
    found = []
    for folder in folders:
        made = manifest.crop_folder(folder)
        if made is None:
            raise ValueError(
                f"{folder}: holds no {manifest.MARKER}; `teacher` takes folders that crop_faces.py made."
            )
        if needs_aligner(made.recipe):
            raise ValueError(f"{folder}: its points are this network's own; `teacher` takes crops made with MTCNN.")
        rows = [row for row in manifest.read(folder).values() if row.face is not None]
        if not rows:
            raise ValueError(f"{folder}: its manifest names no face, so there is nothing to learn from.")
        source = Path(made.source)
        if not (source / rows[0].path).is_file():
            raise ValueError(f"{folder}: was made of {source}, and {rows[0].path} is not there any more.")
        found += [(source, row) for row in rows]
    return found


def some(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """At most `count` of the items, drawn at random, in their order."""
    if len(items) <= count:
        return list(items)
    chosen = np.sort(np.random.default_rng(seed).choice(len(items), count, replace=False))
    return [items[place] for place in chosen]


def read_known(item: tuple[Path, Row]) -> Known | None:
    """A teacher's picture and its points; None where it cannot be read any more."""
    source, row = item
    assert row.face is not None
    try:
        return read_image(source / row.path), row.face.landmarks
    except UnreadableImageError:
        return None


def draw_known(number: int, seed: int, kind: int) -> Known:
    """A drawn photo and its exact points, of a person of its own."""
    photo = draw_photo(2 * seed + kind, number, 0, DRAWN_SIDE)
    return photo.image, photo.landmarks


def learn_from(make: Callable[[Any], Known | None], items: Sequence[Any], pool: Executor, words: str) -> Material:
    """Make the pictures, a few at a time, and keep what training needs of each.

    Raises:
        ValueError: no picture could be read.
    """
    from tqdm import tqdm

    from facekit.aligner_views import patch, stack

    patches, shapes = [], []
    answers = pool.map(make, items, chunksize=16)
    for known in tqdm(answers, total=len(items), unit="faces", desc=words):
        if known is not None:
            image, points = known
            patches.append(patch(image, points))
            shapes.append(to_view(square_place(central_square(image.shape)), points))
    if not patches:
        raise ValueError(f"No picture could be read while {words}.")
    return Material(stack(patches), np.mean(shapes, axis=0).astype(np.float32))


def chunks(items: Iterator[Known | None], size: int) -> Iterator[list[Known]]:
    """Lists of at most `size` of the items that are there."""
    waiting: list[Known] = []
    for item in items:
        if item is not None:
            waiting.append(item)
        if len(waiting) == size:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


def measure(aligner: FastAligner, known: Iterator[Known | None], mean_shape: Points) -> dict[str, NDArray[Any]]:
    """Errors in percent of the eye distance: of the network, of the mean shape; and the confidences.

    Returns:
        "network", "mean shape" and "confidence", (n,) each.
    """
    from facekit.aligner_training import point_errors

    found: dict[str, list[NDArray[Any]]] = {"network": [], "mean shape": [], "confidence": []}
    for chunk in chunks(known, 32):
        images, truth = [image for image, _ in chunk], np.stack([points for _, points in chunk])
        points, sure = aligner.landmarks(images)
        guess = np.stack([to_picture(square_place(central_square(image.shape)), mean_shape) for image in images])
        found["network"].append(point_errors(points, truth))
        found["mean shape"].append(point_errors(guess, truth))
        found["confidence"].append(sure)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def table_rows(kind: str, figures: dict[str, NDArray[Any]]) -> list[str]:
    """Two lines of the table: the network on one kind of faces, and the mean shape."""
    lines = []
    for system in ("network", "mean shape"):
        errors = figures[system]
        numbers = [errors.mean(), np.median(errors), np.percentile(errors, 95)]
        cells = [kind, f"{len(errors):,}", system, *(f"{number:.1f}" for number in numbers)]
        refused = f"{100 * np.mean(figures['confidence'] < 0.9):.1f}" if system == "network" else ""
        lines.append("| " + " | ".join([*cells, refused]) + " |")
    return lines


HEADER = (
    "| faces | pictures | points from | mean error, % of eye distance | median | 95 % below | unsure, % |\n"
    "| --- | ---: | --- | ---: | ---: | ---: | ---: |"
)


def train(settings: AlignerTraining) -> str:
    """Gather faces, train, write the weights, measure; returns the table of errors.

    Raises:
        ValueError: an input is wrong; in one sentence.
    """
    if settings.output.suffix != ".keras":
        raise ValueError(f"`output` must end in .keras. Received: {settings.output}.")
    check_writable(settings.output.parent, "output")
    if settings.exclude_people is not None and not settings.teacher:
        raise ValueError("`exclude_people` names people of `teacher`, and there is none. Leave it out.")
    teach: list[tuple[Path, Row]] = []
    held: list[tuple[Path, Row]] = []
    if settings.teacher:
        listed = settings.exclude_people and {plain_name(name) for name in read_people(settings.exclude_people)}
        teach, held = split_teacher(read_teacher(settings.teacher), listed or None, settings.seed)
    draw = partial(draw_known, seed=settings.seed)
    cores = os.cpu_count() or 1
    # Drawing is Python's work, decoding is OpenCV's: processes for the one, threads for the other.
    with ProcessPoolExecutor(cores, get_context("spawn")) as processes, ThreadPoolExecutor(cores) as threads:
        numbers = range(settings.drawn)
        materials = [learn_from(partial(draw, kind=TRAINING_PEOPLE), numbers, processes, "drawing")]
        if teach:
            chosen = some(teach, settings.faces, settings.seed)
            materials.append(learn_from(read_known, chosen, threads, "reading"))
        fit(settings, [material.faces for material in materials])
        aligner = FastAligner(settings.output)
        numbers = range(max(1, settings.test_faces // 10))
        pictures = processes.map(partial(draw, kind=TEST_PEOPLE), numbers, chunksize=16)
        lines = table_rows("drawn, exact points", measure(aligner, pictures, materials[0].mean_shape))
        if held:
            chosen = some(held, settings.test_faces, settings.seed)
            figures = measure(aligner, map(read_known, chosen), materials[1].mean_shape)
            lines += table_rows("held-out people, MTCNN's points", figures)
    return "\n".join([HEADER, *lines])


def fit(settings: AlignerTraining, sets: Sequence[Faces]) -> None:
    """Train on the sets (drawn faces first) and write the weights; a stopped run goes on."""
    from tqdm import tqdm

    from facekit.aligner_training import train_aligner

    shares = [settings.drawn_share, 1 - settings.drawn_share] if len(sets) == 2 else [1.0]
    state = settings.output.with_name(f"{settings.output.stem}.state.npz")
    with tqdm(total=settings.epochs, unit="epochs", desc="training") as bar:

        def show(epoch: int, loss: float) -> None:
            bar.update(epoch - bar.n)
            bar.set_postfix(loss=f"{loss:.4f}")

        network = train_aligner(
            sets, shares, epochs=settings.epochs, seed=settings.seed, state=state, on_epoch=show
        )
    with written_aside(settings.output) as aside:
        network.save(aside)
    state.unlink(missing_ok=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 2 wrong input, 130 interrupted."""
    settings = parse(AlignerTraining, argv)
    try:
        runtime.start_quietly()
        print(train(settings))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on after the last whole epoch.", file=sys.stderr)
        return runtime.INTERRUPTED
    print(f"Weights: {settings.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
