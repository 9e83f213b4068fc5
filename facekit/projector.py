"""Files for TensorBoard's projector: embeddings in three dimensions, each point the face that it stands for.

Keras' own callback for it is broken with Keras 3 (keras#20210), so the files are written here: `FOLDER` holds the
points, what they are and their pictures; CONFIG, beside a run's event files, names them.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekit.files import write_text
from facekit.images import resize_square, write_png

MOST_POINTS = 1000
"""Points that stay quick to turn and to tell apart."""

CONFIG, FOLDER = "projector_config.pbtxt", "projector"

_CELL = 64
_MOST_PIXELS = 8192  # TensorBoard draws no larger sprite.


def write_faces(folder: Path, people: Sequence[str], files: Sequence[str], images: NDArray[np.uint8]) -> None:
    """Write what the points are and their pictures, once a run. TensorBoard looks for nothing yet.

    Args:
        folder: of the run's event files.
        people: (n) the person of each point, n at least 1.
        files: (n) the picture's file.
        images: (n, S, S, 3) uint8 RGB.
    """
    rows = [("person", "file"), *zip(people, files, strict=True)]
    text = "".join("\t".join(" ".join(cell.split()) for cell in row) + "\n" for row in rows)
    write_text(folder / FOLDER / "metadata.tsv", text)
    write_png(folder / FOLDER / "sprite.png", sprite(images))


def write_points(folder: Path, embeddings: NDArray[np.floating], side: int) -> None:
    """Write the points, in the order of their pictures, and what names all files to TensorBoard.

    Args:
        folder: of the run's event files.
        embeddings: (n, D).
        side: of the pictures, in pixels.
    """
    text = io.StringIO()
    np.savetxt(text, embeddings, fmt="%.5g", delimiter="\t")
    write_text(folder / FOLDER / "tensors.tsv", text.getvalue())
    cell = cell_size(len(embeddings), side)
    write_text(
        folder / CONFIG,
        "embeddings {\n"
        '  tensor_name: "held-out people"\n'
        f'  tensor_path: "{FOLDER}/tensors.tsv"\n'
        f'  metadata_path: "{FOLDER}/metadata.tsv"\n'
        f'  sprite {{ image_path: "{FOLDER}/sprite.png" single_image_dim: {cell} single_image_dim: {cell} }}\n'
        "}\n",
    )


def cell_size(count: int, side: int) -> int:
    """Side in pixels that each of `count` pictures of `side` pixels has in the sprite."""
    return min(side, _CELL, _MOST_PIXELS // math.ceil(math.sqrt(count)))


def sprite(images: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Pictures row by row in one square picture, as TensorBoard wants them; empty cells are white.

    Args:
        images: (n, S, S, 3) uint8, n at least 1.
    """
    across, cell = math.ceil(math.sqrt(len(images))), cell_size(len(images), images.shape[1])
    cells = np.full((across * across, cell, cell, 3), 255, np.uint8)
    for place, image in enumerate(images):
        cells[place] = resize_square(image, cell)
    return cells.reshape(across, across, cell, cell, 3).swapaxes(1, 2).reshape(across * cell, across * cell, 3)
