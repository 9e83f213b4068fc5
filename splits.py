"""Who trains, who is held out, and which of their pictures count.

In:  a `Config`: folders, lists of what to leave out, how few and how many pictures a person may have.
Out: a `Split`, no person on both sides, and a weight for each training picture.
Run: python dataset.py index crops --min_images 10     (says what is left)
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from config import Config
from facekit.index import PeopleIndex, index_people
from facekit.name_list import read_names
from facekit.packed import PackedPictures, is_packed
from facekit.sampling import split_people


def open_people(folder: Path, setting: str, fresh: bool = False) -> PeopleIndex:
    """The people and pictures of a folder, or of a folder packed by `python dataset.py pack`.

    Args:
        folder: the folder.
        setting: the setting that named it, for messages.
        fresh: list every file again, whatever is kept from an earlier run.

    Raises:
        ValueError: missing, empty, damaged, or without at least two people.
    """
    return PackedPictures(folder).index() if is_packed(folder) else index_people(folder, setting, fresh)


@dataclass(frozen=True)
class Split:
    """Who trains and who is held out: no person is on both sides."""

    train: PeopleIndex
    validation: PeopleIndex


def make_split(config: Config) -> Split:
    """Index the folders of the config, leave out what it excludes, hold people out, and limit who trains.

    Raises:
        ValueError: a folder or a list is wrong, or a side is left without a person with two pictures.
    """
    people = _without_excluded(open_people(config.train_dir, "train_dir"), config, must_match=True)
    if not (people.counts >= 2).any():
        raise ValueError(
            f"{config.train_dir}: every one of its {len(people.people)} people has a single picture. Training "
            "needs people with two or more, to see what one person has in common."
        )
    split = _apart(people, config) if config.validation_dir else _held_out(people, config)
    return Split(limited(split.train, config), split.validation)


def held_out_at(config: Config, shares: Sequence[float]) -> Iterator[PeopleIndex]:
    """Whom the config would hold out with each `validation_share`; lists that match nothing are no matter here.

    Raises:
        ValueError: a folder or a list is wrong.
    """
    setting = "validation_dir" if config.validation_dir else "train_dir"
    people = open_people(config.validation_dir or config.train_dir, setting)
    people = _without_excluded(people, config, must_match=False)
    for share in shares:
        held = split_people(people.counts, share, config.seed)
        yield people if config.validation_dir else people.choose(held)


def _apart(people: PeopleIndex, config: Config) -> Split:
    """Training people and those of `validation_dir`."""
    assert config.validation_dir is not None
    index = open_people(config.validation_dir, "validation_dir")
    validation = _without_excluded(index, config, must_match=False)
    both = sorted(set(people.people) & set(validation.people))
    if both:
        raise ValueError(
            f"{config.validation_dir}: {len(both)} of its people are in train_dir too (such as {both[0]}). "
            "Validate on other people than you train on."
        )
    return Split(people, validation)


def _held_out(people: PeopleIndex, config: Config) -> Split:
    """Training people and a share of them set aside."""
    held = split_people(people.counts, config.validation_share, config.seed)
    split = Split(people.choose(~held), people.choose(held))
    for side, index in (("training", split.train), ("validation", split.validation)):
        if len(index.people) < 2 or not (index.counts >= 2).any():
            raise ValueError(
                f"{config.train_dir}: too few people to hold some out: the {side} side would have "
                f"{index.describe(trains=side == 'training')}. Add people, change `validation_share`, or set "
                "`validation_dir`."
            )
    return split


def _without_excluded(index: PeopleIndex, config: Config, must_match: bool) -> PeopleIndex:
    """The index without the people and pictures of the lists.

    A list that matches nothing of the training folder is an error, since it was surely meant to; a line that
    matches nothing, beside others that do, is told: a test person by a wrong name would train.
    """
    left, gone = index, set[str]()
    if config.exclude_people:
        names = read_names(config.exclude_people, "exclude_people")
        left, gone = index.without(names), set(names)
        if must_match:
            unknown = sorted(gone.difference(index.people))
            _tell_unknown(index, config.exclude_people, names, unknown, "exclude_people")
    if config.exclude_pictures:
        names = read_names(config.exclude_pictures, "exclude_pictures")
        left, unknown = without_pictures(left, names)
        if must_match:
            # A picture of a person who is left out already is no stranger.
            unknown = [name for name in unknown if name.split("/", 1)[0] not in gone]
            _tell_unknown(index, config.exclude_pictures, names, unknown, "exclude_pictures")
    return left


def without_pictures(index: PeopleIndex, names: Sequence[str]) -> tuple[PeopleIndex, list[str]]:
    """The index without pictures (person/picture.jpg) and whole people, and the names that it does not hold."""
    whole = {name for name in names if "/" not in name}
    left, unknown = index.without(whole).without_pictures([name for name in names if "/" in name])
    gone = whole & set(index.people)
    return left, [name for name in unknown if name.split("/", 1)[0] not in gone] + sorted(whole - gone)


def _tell_unknown(
    index: PeopleIndex, file: Path, names: Sequence[str], unknown: Sequence[str], setting: str
) -> None:
    """Tell lines that match nothing.

    Raises:
        ValueError: none matches.
    """
    if not unknown:
        return
    wants = "folder names" if setting == "exclude_people" else "person/picture.jpg, as exclude.txt has them"
    what = "a folder" if setting == "exclude_people" else "a picture"
    if len(unknown) == len(set(names)):
        raise ValueError(
            f"{file}: none of its {len(names)} lines is {what} of {index.root}. `{setting}` wants {wants}."
        )
    print(
        f"{file}: {len(unknown)} of its {len(names)} lines match nothing in {index.root} (such as {unknown[0]!r}); "
        "the others are left out.",
        file=sys.stderr,
    )


def limited(index: PeopleIndex, config: Config) -> PeopleIndex:
    """The index with `min_images` and `max_images` kept.

    Raises:
        ValueError: fewer than two people, or nobody with two pictures, is left.
    """
    left = index
    if config.min_images > 1:
        left = left.with_at_least(config.min_images)
    if config.max_images is not None:
        left = left.at_most(config.max_images, config.seed)
    if left is not index and (len(left.people) < 2 or not (left.counts >= 2).any()):
        most = int(index.counts.max())
        raise ValueError(
            f"{index.root}: `min_images` {config.min_images} and `max_images` {config.max_images} leave "
            f"{left.describe()}. Training needs at least two people, one of them with two pictures; the largest "
            f"folder has {most}."
        )
    return left


def picture_weights(index: PeopleIndex, config: Config) -> NDArray[np.float64] | None:
    """How often each picture is drawn among those of its person: (n,) in (0, 1]; None without `picture_weights`.

    Raises:
        ValueError: the file cannot be read, has no such columns, a weight out of range, or no picture of these.
    """
    if config.picture_weights is None:
        return None
    weights = _read_weights(config.picture_weights)
    if not any(path in weights for path in index.paths):
        raise ValueError(
            f"{config.picture_weights}: names no picture of {index.root}. `picture_weights` wants a column path "
            "with person/picture.jpg, as quality.csv of `python dataset.py check` has it."
        )
    return np.array([weights.get(path, 1.0) for path in index.paths])


def _read_weights(file: Path) -> Mapping[str, float]:
    try:
        with file.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            rows = csv.DictReader(text)
            names = rows.fieldnames or []
            if not {"path", "weight"} <= set(names):
                raise ValueError(
                    f"{file}: has no columns path and weight (found: {', '.join(names) or 'nothing'}). See "
                    "`picture_weights`."
                )
            return {row["path"]: _weight(row["weight"], file, rows.line_num) for row in rows}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file}: cannot be read ({error}). See `picture_weights`.") from None


def _weight(text: str, file: Path, line: int) -> float:
    try:
        weight = float(text)
    except (TypeError, ValueError):
        weight = float("nan")
    if not 0 < weight <= 1:
        raise ValueError(f"{file}, line {line}: a weight must be in (0, 1]. Received: {text!r}.")
    return weight
