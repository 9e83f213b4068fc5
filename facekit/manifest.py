"""The record that goes with a folder of crops: which recipe made them, and what became of every picture."""

from __future__ import annotations

import builtins
import csv
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import numpy as np

from facekit.alignment import CropRecipe
from facekit.detection import Face, Finding
from facekit.files import write_text, written_aside
from facekit.tables import csv_bytes

MANIFEST, MARKER = "manifest.csv", "crops.json"
UNREADABLE, TOO_SMALL = "unreadable", "too_small"

_BOX = ("x", "y", "width", "height")
_POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")
_LANDMARKS = tuple(f"{point}_{axis}" for point in _POINTS for axis in "xy")
COLUMNS = ("path", "crop", "reason", "faces", "confidence", *_BOX, *_LANDMARKS, "bytes", "modified_ns")


# A face as a row keeps it: 64 bytes instead of two arrays, for manifests of half a million rows.
_FACE = Struct("=d14f")


class Row(NamedTuple):
    """What became of one picture.

    Attributes:
        path: the picture, relative to the input folder, "/" between parts.
        crop: its crop, relative to the output folder; "" where there is none.
        reason: why there is none: "unreadable", "too_small", "no_face", "low_confidence", "many_faces"; else "".
        faces: faces found in it.
        numbers: the chosen face's confidence, box and landmarks, packed; empty without one.
        bytes: size of the picture's file.
        modified_ns: its time of change, by which a changed picture is known.
    """

    path: str
    crop: str
    reason: str
    faces: int
    numbers: builtins.bytes
    bytes: int
    modified_ns: int

    @classmethod
    def of(cls, path: str, crop: str, finding: Finding, size: int, modified_ns: int) -> Row:
        """A row from what the search in a picture gave."""
        numbers = b""
        if (face := finding.face) is not None:
            numbers = _FACE.pack(face.confidence, *face.box.tolist(), *face.landmarks.ravel().tolist())
        return cls(path, crop, finding.reason, finding.count, numbers, size, modified_ns)

    @property
    def face(self) -> Face | None:
        """Box, score and landmarks of the chosen face, in pixels of the upright picture; None without one."""
        if not self.numbers:
            return None
        confidence, *places = _FACE.unpack(self.numbers)
        values = np.array(places, np.float32)
        return Face(values[:4], confidence, values[4:].reshape(5, 2))

    def cells(self) -> list[str]:
        """The row as text, in the order of `COLUMNS`."""
        numbers = [""] * (1 + len(_BOX) + len(_LANDMARKS))
        if self.numbers:
            confidence, *places = _FACE.unpack(self.numbers)
            numbers = [f"{confidence:.6f}", *("%.2f " * len(places) % tuple(places)).split()]
        ends = [str(self.bytes), str(self.modified_ns)]
        return [self.path, self.crop, self.reason, str(self.faces), *numbers, *ends]

    @classmethod
    def from_cells(cls, cells: Sequence[str]) -> Row:
        """The row that `cells` wrote. Raises ValueError where the text is not such a row."""
        if len(cells) != len(COLUMNS):
            raise ValueError(f"expected {len(COLUMNS)} cells, found {len(cells)}")
        path, crop, reason, faces, *numbers, size, modified = cells
        # One string for both names, which are mostly equal, and for each reason.
        crop = path if crop == path else crop
        packed = _FACE.pack(*map(float, numbers)) if numbers[0] else b""
        return cls(path, crop, sys.intern(reason), int(faces), packed, int(size), int(modified))


def append_rows(folder: Path, rows: Sequence[Row]) -> None:
    """Add rows to the folder's manifest, in one write."""
    path = folder / MANIFEST
    header = b"" if path.exists() else csv_bytes([COLUMNS])
    with path.open("ab") as file:
        file.write(header + csv_bytes(row.cells() for row in rows))


def rewrite(folder: Path, rows: Iterable[Row]) -> None:
    """Write the folder's manifest anew, sorted by path, whole or not at all."""
    ordered = iter(sorted(rows, key=lambda row: row.path))
    with written_aside(folder / MANIFEST) as aside, aside.open("wb") as file:
        file.write(csv_bytes([COLUMNS]))
        while part := [row.cells() for row in islice(ordered, 10_000)]:
            file.write(csv_bytes(part))


def read(folder: Path) -> dict[str, Row]:
    """Rows of a folder's manifest by picture; the last one where a picture has several.

    A row cut short by a killed run is passed over: its picture is simply done again. Without a manifest: {}.
    Half a million rows take about 5 seconds and 250 MB.
    """
    path = folder / MANIFEST
    if not path.exists():
        return {}
    rows = {}
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        cells = csv.reader(file)
        next(cells, None)
        for row in _whole_rows(cells):
            rows[row.path] = row
    return rows


def _whole_rows(lines: Iterable[list[str]]) -> Iterator[Row]:
    for cells in lines:
        try:
            yield Row.from_cells(cells)
        except ValueError:
            continue


def is_cut(folder: Path) -> bool:
    """Whether the manifest's last row was cut short: rows added behind it would be lost with it."""
    path = folder / MANIFEST
    if not path.exists() or not path.stat().st_size:
        return False
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() != b"\n"


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
