"""Whether a model has met the people that it is judged on: by name, and by its own eyes.

In:  a bundle beside its run's lists of people; names and embeddings of the pictures it is judged on.
Out: what is known, in words and numbers; the likeliest doubles, to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facekit.images import Image
from facekit.model_card import clauses
from facekit.protocols import plain_name

if TYPE_CHECKING:
    from facekit.bundle import BundleRecord
    from pictures import PictureReader
    from scoring import Embedded
    from systems import System

Read = Callable[[str], Image | None]

PICTURES_PER_PERSON = 3
SUSPECTS = 8

# Two files of one photograph: other crops and compressions of it stay below this distance.
SAME_PHOTOGRAPH = 0.15


@dataclass(frozen=True)
class Overlap:
    """What is known of test people among the people that a model was trained on.

    Attributes:
        words: one sentence.
        names: how many people are in both lists by name; None: unchecked.
        photographs: how many people have a photograph that looks like a training picture; None: not compared.
        doubles: (test picture, training picture, distance) of each test person's nearest training picture, the
            nearest first; empty where embeddings were not compared.
        strip: the nearest of them side by side, by caption.
    """

    words: str
    names: int | None = None
    photographs: int | None = None
    doubles: list[tuple[str, str, float]] = field(default_factory=list)
    strip: dict[str, NDArray[np.uint8]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The overlap as JSON values."""
        nearest = [
            {"test": test, "training": known, "distance": round(distance, 4)}
            for test, known, distance in self.doubles
        ]
        return {
            "words": self.words,
            "names": self.names,
            "photographs": self.photographs,
            "nearest": nearest[:100],
        }

    @property
    def warnings(self) -> list[str]:
        """A sentence where the check found something or was not made."""
        unchecked = self.names is None and self.photographs is None
        return [self.words] if self.names or self.photographs or unchecked else []


def people_seen(bundle: Path, people: Collection[str] | None) -> int | None:
    """How many people the bundle's run trained or validated on, by folder name; None: unknown.

    Names are compared by `plain_name`. Numbers are no names: where a side has them, nothing is known.
    """
    lists = [bundle.parent / f"{side}_people.txt" for side in ("train", "validation")]
    if people is None or not all(path.is_file() for path in lists):
        return None
    from facekit.name_list import read_names

    known = {plain_name(name) for path in lists for name in read_names(path, path.stem)}
    tested = {plain_name(Path(name).name) for name in people}
    if not _are_names(known) or not _are_names(tested):
        return None
    return len(tested & known)


def _are_names(people: Collection[str]) -> bool:
    """Whether most of them have letters; the folders 0000045 of two data sets are not one person."""
    return 2 * sum(any(letter.isalpha() for letter in name) for name in people) > len(people)


def by_names(bundle: Path | None, people: Collection[str] | None, record: BundleRecord | None = None) -> Overlap:
    """The check that costs nothing: names of people.

    Args:
        bundle: the model's folder; None: somebody else's scores.
        people: the test people's names; None: unknown.
        record: what the bundle says of itself; None: not read.
    """
    seen = None if bundle is None else people_seen(bundle, people)
    if seen is None and record is not None and not record.training.get("train_dir"):
        return Overlap(f"{overlap_words(None)} {unknown_pictures(record.training)}")
    return Overlap(f"{overlap_words(seen)} Their faces were not compared (`evaluate.py --check_overlap`).", seen)


def unknown_pictures(training: Mapping[str, Any]) -> str:
    """Why the pictures cannot be compared with those that trained the model, and its author's word on it.

    Args:
        training: of a record that names no folder of training pictures.
    """
    gone = "are not public" if training.get("made_by") else "are not on record"
    return " ".join([f"The model's training pictures {gone}.", *clauses(training)])


def overlap_words(seen: int | None) -> str:
    """What the names say of test people among the training people."""
    if seen is None:
        return "Overlap with the training people: unchecked."
    if seen:
        return f"{seen} of these people trained this model or were held out in its run: this is no test of it."
    return "None of these people trained this model or were held out in its run, by name."


def by_embeddings(
    system: System, training: Training, pictures: Embedded, people: Sequence[str] | None, read: Read
) -> Overlap:
    """Compare the test pictures with pictures of the training people, by the model's own embeddings.

    Up to three pictures of each training person are embedded. A photograph that is in both sets is found wherever
    it is; the same person on other photographs as well as the model can tell people apart, so the nearest are
    shown, for somebody to look at.

    Args:
        system: a bundle.
        training: its training pictures.
        pictures: of the test people.
        people: (n) the person of each of them; None: unknown, each picture stands for itself.
        read: gives a test picture by its name.
    """
    from scoring import embed

    known = embed(system, training.reader, training.names)
    seen = None if system.bundle is None else people_seen(system.bundle, people)
    doubles = nearest_of_each(pictures, people, known)
    same = sum(distance < SAME_PHOTOGRAPH for *_, distance in doubles)
    words = (
        f"{overlap_words(seen)} By faces: {same} of {len(doubles)} have a photograph that looks like one of the "
        f"training pictures (nearer than {SAME_PHOTOGRAPH}). Look at the nearest in the report."
    )
    strip = _strip(doubles[:SUSPECTS], read, training.reader.read)
    return Overlap(words, seen, same, doubles, strip)


@dataclass(frozen=True)
class Training:
    """Pictures of the people that a model was trained on: up to three of each, and their reader."""

    reader: PictureReader
    names: list[str]


def training_pictures(system: System, cache: Path) -> Training:
    """Find the training pictures of a bundle.

    Args:
        system: a bundle.
        cache: folder for crops of originals.

    Raises:
        ValueError: they are gone, or the bundle doesn't say where they are.
    """
    from facekit.index import index_people
    from facekit.name_list import read_names
    from pictures import PictureReader, find_images

    folder, listed = training_folder(system)
    assert system.record is not None
    index, trained = index_people(folder), set(read_names(listed, "train_people"))
    within = np.arange(len(index)) - np.searchsorted(index.labels, index.labels)
    chosen = [
        index.paths[place]
        for place in np.flatnonzero(within < PICTURES_PER_PERSON)
        if index.people[index.labels[place]] in trained
    ]
    if not chosen:
        raise ValueError(
            f"{listed}: none of its people is in {folder}, so `check_overlap` has nothing to compare with."
        )
    images = find_images(folder, chosen, "train_dir")
    return Training(PictureReader(system.record.recipe, images, cache, system.aligner), chosen)


def training_folder(system: System) -> tuple[Path, Path]:
    """The folder of a bundle's training pictures and the list of its people; costs nothing.

    Raises:
        ValueError: as `training_pictures`.
    """
    from facekit.packed import is_packed

    if system.bundle is None or system.record is None:
        raise ValueError("`check_overlap` needs a bundle that train.py made.")
    training, listed = system.record.training, system.bundle.parent / "train_people.txt"
    if not training.get("train_dir"):
        raise ValueError(f"`check_overlap` has nothing to compare with. {unknown_pictures(training)}")
    folder = Path(training["train_dir"])
    if not folder.is_dir() or not listed.is_file():
        raise ValueError(
            f"{system.bundle}: its training pictures ({folder}) or the list of its people ({listed}) are not "
            "there, so `check_overlap` has nothing to compare with. Run it where the model was trained."
        )
    if is_packed(folder):
        raise ValueError(
            f"{folder}: the training pictures are packed, and `check_overlap` wants them as files. Leave it out, "
            "or train from the folder that was packed."
        )
    return folder, listed


def nearest_of_each(
    pictures: Embedded, people: Sequence[str] | None, known: Embedded
) -> list[tuple[str, str, float]]:
    """Each test person's nearest training picture: (test picture, training picture, distance); nearest first."""
    from facekit.trainer import pair_distances

    there = np.flatnonzero(~np.isnan(pictures.rows[:, 0]))
    there_known = np.flatnonzero(~np.isnan(known.rows[:, 0]))
    best = np.empty(there.size, np.int64)
    for start in range(0, there.size, 1024):
        block = pictures.rows[there[start : start + 1024]]
        best[start : start + 1024] = np.argmax(block @ known.rows[there_known].T, axis=1)
    # The search is by cosine in float32; the distance told is exact.
    both = np.concatenate([pictures.rows[there], known.rows[there_known[best]]])
    distances = pair_distances(both, np.arange(there.size), np.arange(there.size) + there.size)
    found: dict[str, tuple[str, str, float]] = {}
    for place in np.argsort(distances, kind="stable"):
        name = pictures.names[there[place]]
        person = name if people is None else people[there[place]]
        found.setdefault(person, (name, known.names[there_known[best[place]]], float(distances[place])))
    return list(found.values())


def _strip(doubles: Sequence[tuple[str, str, float]], read: Read, read_known: Read) -> dict[str, NDArray[np.uint8]]:
    from facekit.plots import pairs_strip

    drawn = [
        (one, other, f"{_short(test)}\n{_short(name)}\n{distance:.2f}")
        for test, name, distance in doubles
        if (one := read(test)) is not None and (other := read_known(name)) is not None
    ]
    if not drawn:
        return {}
    left, right, captions = zip(*drawn, strict=True)
    return {"Test people (left) and their nearest training pictures": pairs_strip(left, right, captions)}


def _short(name: str) -> str:
    """A picture's name with its person: LFW's files say it themselves, others lie in a folder that does."""
    path = Path(name)
    told = plain_name(path.stem).startswith(plain_name(path.parent.name))
    return path.stem if told else path.with_suffix("").as_posix()
