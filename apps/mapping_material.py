"""The pictures of a study of mappings: who competes, which pairs are listed, where the originals are.

In:  a folder of crops with its manifest; a list of pairs.
Out: a `Material`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekit import manifest
from facekit.alignment import CropRecipe
from facekit.manifest import Row
from facekit.protocols import read_pairs
from facekit.recutting import refuse_lost
from facekit.scored import refuse_one_class
from pictures import Crops, find_images


@dataclass(frozen=True)
class Material:
    """The pictures of a study.

    Attributes:
        recipe: how the folder's faces were found and cut.
        folder: where their originals are.
        rows: of the manifest, each with a face, by original.
        competing: (m) positions in `rows` of the pictures whose pairs compete.
        people: (m) the person of each.
        same: (n,) bool, the truth about the listed pairs.
        first: (n) positions in `rows` of each listed pair's first picture.
        second: (n) of its second.
        ids: the people of each pair's pictures, two lists of n names.
    """

    recipe: CropRecipe
    folder: Path
    rows: dict[str, Row]
    competing: NDArray[np.int64]
    people: NDArray[np.str_]
    same: NDArray[np.bool_]
    first: NDArray[np.int64]
    second: NDArray[np.int64]
    ids: tuple[list[str], list[str]]


def read_material(crops: Path, pairs_file: Path, most_each: int) -> Material:
    """The faces of a folder of crops that compete or are in the pairs.

    Args:
        crops: the folder, of people.
        pairs_file: the list.
        most_each: pictures of a person that compete, the first by name.

    Raises:
        ValueError: it was not made by crop_faces.py, originals are gone or were changed, the pairs are of one kind
            or do not agree with its folders about who is who, or one of their pictures has no face.
    """
    from facekit.validation import pictures_of_most

    pairs = read_pairs(pairs_file)
    refuse_one_class(pairs.same, str(pairs_file))
    images = find_images(crops, pairs.pictures(), "crops")
    if not isinstance(images, Crops):
        raise ValueError(
            f"{crops}: has no {manifest.MARKER}, so it holds no landmarks. Make it with crop_faces.py."
        )
    if lost := [name for name, row in images.rows.items() if row.face is None]:
        raise ValueError(
            f"{crops}: {lost[0]} has no face, nor have {len(lost) - 1} other pictures of {pairs_file}. "
            "Leave their pairs out, or crop with a lower --min_confidence."
        )
    named = [[images.rows[name].path for name in names] for names in (pairs.first, pairs.second)]
    ids = ([person_of(path) for path in named[0]], [person_of(path) for path in named[1]])
    refuse_other_people(pairs_file, ids, pairs.same)
    faces = {row.path: row for row in manifest.read(crops).values() if row.face is not None}
    paths = sorted(path for path in faces if "/" in path)
    competing = [paths[place] for place in pictures_of_most([*map(person_of, paths)], len(paths), most_each)]
    rows = {path: faces[path] for path in sorted({*named[0], *named[1], *competing})}
    source = Path(images.made.source)
    refuse_lost(crops, source, [*rows.values()])
    place = {path: position for position, path in enumerate(rows)}
    first, second, chosen = (np.array([place[path] for path in names], np.int64) for names in (*named, competing))
    people = np.array([person_of(path) for path in competing])
    return Material(images.made.recipe, source, rows, chosen, people, pairs.same, first, second, ids)


def person_of(path: str) -> str:
    """The person of a picture: its outermost folder; "" without one."""
    return path.split("/", 1)[0] if "/" in path else ""


def refuse_other_people(file: Path, ids: tuple[Sequence[str], Sequence[str]], same: NDArray[np.bool_]) -> None:
    """See that pairs and folders agree: else people would be on both sides of a fold.

    Raises:
        ValueError: they do not, or a picture has no folder.
    """
    for one, other, truth in zip(*ids, same, strict=True):
        if not one or not other or (one == other) != truth:
            kind = "one person" if truth else "two people"
            raise ValueError(
                f"{file}: has a pair of {kind} in the folders {one or '(none)'} and {other or '(none)'}. Here each "
                "person needs one folder, and each folder one person."
            )
