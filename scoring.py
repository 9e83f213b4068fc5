"""From pictures to scored pairs: each picture embedded once by a system, each pair's distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekit.folder_pairs import all_pairs
from facekit.packed_pairs import as_pairs, read_bin
from facekit.protocols import Pairs, plain_name, read_pairs, read_people
from facekit.scored import ScoredPairs
from pictures import Packed, PictureReader, embed_pictures, people_pictures
from systems import System

# Pairs whose distances are computed at once: bounds memory.
PAIRS_AT_ONCE = 1 << 16


def pairs_to_judge(
    path: Path | None, folder: Path, impostor_limit: int, exclude_people: Path | None = None
) -> Pairs:
    """The pairs of a file, or of a whole folder of people, less those of people to leave out.

    Args:
        path: pairs file; None: all genuine pairs of the folder, and impostor pairs.
        folder: the pictures.
        impostor_limit: the most impostor pairs of a folder; 0: all.
        exclude_people: names of people to leave out, one a line.

    Raises:
        ValueError: a file or the folder is wrong, or no pair is left.
    """
    if path is not None:
        pairs = read_pairs(path)
        return pairs if exclude_people is None else pairs.without_people(read_people(exclude_people))
    names, people = people_pictures(folder, "images")
    if exclude_people is not None:
        lost = {plain_name(name) for name in read_people(exclude_people)}
        kept = [pair for pair in zip(names, people, strict=True) if plain_name(pair[1]) not in lost]
        names, people = [name for name, _ in kept], [person for _, person in kept]
    return all_pairs(names, people, impostor_limit)


def packed_pairs(path: Path) -> tuple[Pairs, Packed]:
    """The pairs and pictures of an InsightFace .bin file; the pictures are crops already."""
    packed = read_bin(path)
    pairs = as_pairs(packed)
    return pairs, Packed(packed.by_name())


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

    @property
    def lost(self) -> int:
        """How many pictures have no face."""
        return int(np.isnan(self.rows[:, 0]).sum())


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
    ids1, ids2 = (None, None) if people is None else (np.array(people[0]), np.array(people[1]))
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
