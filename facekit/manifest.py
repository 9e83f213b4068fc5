"""The record that goes with a folder of crops: which recipe made them, and what became of every picture."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from facekit.alignment import CropRecipe
from facekit.detection import Face
from facekit.files import write_text

MANIFEST, MARKER = "manifest.csv", "crops.json"
UNREADABLE, TOO_SMALL = "unreadable", "too_small"

_BOX = ("x", "y", "width", "height")
_POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
_LANDMARKS = tuple(f"{point}_{axis}" for point in _POINTS for axis in "xy")
COLUMNS = ("path", "crop", "reason", "faces", "confidence", *_BOX, *_LANDMARKS, "bytes", "modified_ns")


@dataclass(frozen=True)
class Row:
    """What became of one picture.

    Attributes:
        path: the picture, relative to the input folder, "/" between parts.
        crop: its crop, relative to the output folder; "" where there is none.
        reason: why there is none: "unreadable", "too_small", "no_face", "low_confidence", "many_faces"; else "".
        faces: faces found in it.
        face: box, score and landmarks of the chosen face, in pixels of the upright picture; None without one.
        bytes: size of the picture's file.
        modified_ns: its time of change, by which a changed picture is known.
    """

    path: str
    crop: str
    reason: str
    faces: int
    face: Face | None
    bytes: int
    modified_ns: int

    def cells(self) -> list[str]:
        """The row as text, in the order of `COLUMNS`."""
        numbers: list[str] = [""] * (1 + len(_BOX) + len(_LANDMARKS))
        if self.face is not None:
            places = [*self.face.box, *self.face.landmarks.ravel()]
            numbers = [f"{self.face.confidence:.6f}", *(f"{value:.2f}" for value in places)]
        ends = [str(self.bytes), str(self.modified_ns)]
        return [self.path, self.crop, self.reason, str(self.faces), *numbers, *ends]

    @classmethod
    def from_cells(cls, cells: Sequence[str]) -> Row:
        """The row that `cells` wrote. Raises ValueError where the text is not such a row."""
        if len(cells) != len(COLUMNS):
            raise ValueError(f"expected {len(COLUMNS)} cells, found {len(cells)}")
        path, crop, reason, faces, confidence, *places, size, modified = cells
        face = None
        if confidence:
            values = np.array([float(value) for value in places], np.float32)
            face = Face(values[:4], float(confidence), values[4:].reshape(5, 2))
        return cls(path, crop, reason, int(faces), face, int(size), int(modified))


def _csv_text(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def append_rows(folder: Path, rows: Sequence[Row]) -> None:
    """Add rows to the folder's manifest, in one write."""
    path = folder / MANIFEST
    header = "" if path.exists() else _csv_text([COLUMNS])
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(header + _csv_text(row.cells() for row in rows))


def rewrite(folder: Path, rows: Iterable[Row]) -> None:
    """Write the folder's manifest anew, sorted by path, whole or not at all."""
    ordered = sorted(rows, key=lambda row: row.path)
    write_text(folder / MANIFEST, _csv_text([COLUMNS, *(row.cells() for row in ordered)]))


def read(folder: Path) -> dict[str, Row]:
    """Rows of a folder's manifest by picture; the last one where a picture has several.

    A row cut short by a killed run is passed over: its picture is simply done again. Without a manifest: {}.
    """
    path = folder / MANIFEST
    if not path.exists():
        return {}
    rows = {}
    with path.open(encoding="utf-8", newline="") as file:
        for cells in list(csv.reader(file))[1:]:
            try:
                row = Row.from_cells(cells)
            except ValueError:
                continue
            rows[row.path] = row
    return rows


@dataclass(frozen=True)
class CropFolder:
    """What a folder of crops says of itself.

    Attributes:
        recipe: how its pictures were cropped.
        source: the folder of the original pictures.
        synthetic: whether those were drawn by this project, not photographed.
    """

    recipe: CropRecipe
    source: str
    synthetic: bool

    def write(self, folder: Path) -> None:
        """Write the marker into the folder."""
        values = {"recipe": self.recipe.to_dict(), "source": self.source, "synthetic": self.synthetic}
        write_text(folder / MARKER, json.dumps(values, indent=2) + "\n")


def crop_folder(folder: Path) -> CropFolder | None:
    """The marker of a folder of crops; None where crop_faces.py did not make it.

    Raises:
        ValueError: the marker is there but cannot be understood.
    """
    path = folder / MARKER
    if not path.exists():
        return None
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        recipe = CropRecipe.from_dict(values["recipe"])
        return CropFolder(recipe, str(values["source"]), bool(values["synthetic"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: is not a record of crops ({error}). Make the crops again.") from None
