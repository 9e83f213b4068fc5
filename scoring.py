"""From pictures to scored pairs: each picture embedded once by a system, each pair's distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekit.folder_pairs import all_pairs
from facekit.packed_pairs import as_pairs, read_bin
from facekit.pairs import Pairs, plain_name
from facekit.protocols import read_pairs, read_people
from facekit.scored import ScoredPairs, refuse_one_class
from pictures import Images, Packed, PictureReader, embed_pictures, find_images, people_pictures
from systems import System

# Pairs whose distances are computed at once: bounds memory.
PAIRS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class Task:
    """What is to be judged: pairs, their pictures, and what was left out, in words ("" for nothing)."""

    pairs: Pairs
    images: Images
    left_out: str


def read_task(path: Path | None, folder: Path | None, impostor_limit: int, exclude_people: Path | None) -> Task:
    """The pairs of a file, or of a whole folder of people, less those of people to leave out, and their pictures.

    Args:
        path: pairs file; None: genuine pairs of the folder, a million at most, and impostor pairs.
        folder: the pictures; None: the pairs file is a .bin, which brings its own.
        impostor_limit: the most impostor pairs of a folder; 0: all.
        exclude_people: names of people to leave out, one a line.

    Raises:
        ValueError: a file or the folder is wrong, nobody of the list is there, no pair is left, or all are of one
            kind.
    """
    if path is not None and (folder is None) != (path.suffix.lower() == ".bin"):
        needs = (
            "needs `images`, where its paths start" if folder is None else "brings its pictures: leave `images` out"
        )
        raise ValueError(f"`pairs` {path} {needs}.")
    if folder is None:
        assert path is not None
        if exclude_people is not None:
            raise ValueError(f"{path}: names no people, so `exclude_people` cannot leave any out.")
        packed = read_bin(path)
        pairs, images = as_pairs(packed), Packed(packed.by_name())
        refuse_one_class(pairs.same, str(path))
        return Task(pairs, images, "")
    pairs = _pairs_of_folder(folder, impostor_limit, exclude_people) if path is None else read_pairs(path)
    left_out = ""
    if exclude_people is not None:
        lost = people_to_leave_out(
            exclude_people, known_people(pairs) if path else people_pictures(folder, "images")[1]
        )
        pairs = pairs.without_people(lost) if path else pairs
        left_out = f"{len(lost)} people of {exclude_people} left out"
    refuse_one_class(pairs.same, str(path or folder))
    return Task(pairs, find_images(folder, pairs.pictures()), left_out)


def _pairs_of_folder(folder: Path, impostor_limit: int, exclude_people: Path | None) -> Pairs:
    names, people = people_pictures(folder, "images")
    if exclude_people is not None:
        lost = people_to_leave_out(exclude_people, people)
        kept = [pair for pair in zip(names, people, strict=True) if plain_name(pair[1]) not in lost]
        names, people = [name for name, _ in kept], [person for _, person in kept]
    return all_pairs(names, people, impostor_limit)


def people_to_leave_out(path: Path, people: Sequence[str] | None) -> set[str]:
    """Who of a list of people is there, by plain name.

    Raises:
        ValueError: nobody is: the list must be of other people, or of another spelling.
    """
    listed = {plain_name(name) for name in read_people(path)}
    there = listed if people is None else listed & {plain_name(name) for name in people}
    if not there:
        raise ValueError(
            f"{path}: none of its {len(listed)} people is in the data. Check how the names are written."
        )
    return there


def known_people(pairs: Pairs) -> list[str] | None:
    """The people of pairs; None where nobody knows them."""
    people = pairs.people()
    return None if people is None else sorted({*people[0], *people[1]})


@dataclass(frozen=True)
class Embedded:
    """Pictures and what a system made of them: (n) names and (n, D) float32 rows, NaN where there is no face."""

    names: list[str]
    rows: NDArray[np.float32]

    def places(self, names: Sequence[str]) -> NDArray[np.int64]:
        """The rows of some names."""
        place = {name: position for position, name in enumerate(self.names)}
        return np.fromiter((place[name] for name in names), np.int64, len(names))


def embed(system: System, reader: PictureReader, names: list[str]) -> Embedded:
    """Embed each picture once.

    Raises:
        ValueError: not one of them has a face.
    """
    rows = embed_pictures(system.embed, reader, names)
    if np.isnan(rows).all():
        raise ValueError(f"None of the {len(names)} pictures has a face: there is nothing to judge.")
    return Embedded(names, rows)


def score(system: System, pictures: Embedded, pairs: Pairs) -> ScoredPairs:
    """The distance of each pair by a system's embeddings.

    Raises:
        ValueError: no pair has a face in both of its pictures.
    """
    first, second = pictures.places(pairs.first), pictures.places(pairs.second)
    distances = distances_of(pictures.rows, first, second)
    failed = np.isnan(distances)
    if failed.all():
        raise ValueError("No pair has a face in both of its pictures: there is nothing to judge.")
    people = pairs.people()
    # As objects: a million names as fixed-width text would be as long as the longest one each.
    ids1, ids2 = (None, None) if people is None else (np.array(side, dtype=object) for side in people)
    return ScoredPairs(
        distances, pairs.same, failed, system.kind, pairs.folds, ids1, ids2, pairs.first, pairs.second
    )


def distances_of(
    rows: NDArray[np.float32], first: NDArray[np.integer], second: NDArray[np.integer]
) -> NDArray[np.float64]:
    """Euclidean distances, pair by pair, (n,) float64, NaN where a row is; a block of pairs at a time."""
    from facekit.trainer import pair_distances

    starts = range(0, len(first), PAIRS_AT_ONCE)
    blocks = [slice(start, start + PAIRS_AT_ONCE) for start in starts]
    return np.concatenate([pair_distances(rows, first[block], second[block]) for block in blocks])
