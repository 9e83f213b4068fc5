"""What a run is validated on: pairs of held-out people, and the user's own triplets."""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from config import Config
from dataset import validation_pairs
from facekit.files import write_text
from facekit.images import UnreadableImageError, read_square
from facekit.index import PeopleIndex
from facekit.loading import read_picture
from facekit.manifest import crop_folder
from facekit.packed import reader
from facekit.protocols import read_triplets
from facekit.tables import csv_text
from facekit.validation import Embed, Everyone, HeldOut, ordered_share, pair_counts
from splits import held_out_at

# Pictures named on the console; all of them are in a file.
NAMED = 10

# Pictures of each held-out person in `everyone_measure`: a few famous people must not be most genuine pairs.
OF_EACH = 5


def check_same_recipe(config: Config) -> None:
    """See that training and validation pictures were cut alike, and say so where they were not cut at all.

    Raises:
        ValueError: they were cut by different recipes.
    """
    crops = crop_folder(config.train_dir)
    if crops is None:
        print(f"{config.train_dir} was not made by crop_faces.py: the model will take whole pictures as they are.")
    if config.validation_dir is None:
        return
    other = crop_folder(config.validation_dir)
    if (crops and crops.recipe) != (other and other.recipe):
        raise ValueError(
            f"{config.validation_dir}: its pictures were not cropped by the recipe of {config.train_dir}."
        )


def held_out_people(index: PeopleIndex, config: Config) -> HeldOut:
    """The validation pairs of held-out people, with their pictures in memory; pairs of bad files are left out.

    Raises:
        ValueError: no genuine or no impostor pair is left.
    """
    pairs = validation_pairs(index, config)
    images, failures = read_all(index, pairs.pictures(), config.image_size)
    report_failures(failures, "their pairs are left out of validation")
    good = pairs.without(failures)
    if good.same.all() or not good.same.any():
        raise ValueError(f"{index.root}: too few of the held-out people's pictures can be read to validate on.")
    impostor = int((~good.same).sum())
    if config.target_fmr is not None and config.target_fmr < 3 / impostor:
        raise ValueError(
            f"`target_fmr` {config.target_fmr} needs {3 / config.target_fmr:.0f} impostor pairs of held-out "
            f"people, but {index.root} gives {impostor}. Hold out more people, or ask for a higher rate."
        )
    return HeldOut(np.stack([images[name] for name in good.pictures()]), good)


def read_all(
    index: PeopleIndex, names: Iterable[str], size: int
) -> tuple[dict[str, NDArray[np.uint8]], dict[str, str]]:
    """The pictures of these names, and the reasons of those that cannot be read."""
    images, failures, read = {}, {}, reader(index.root)
    for name in names:
        try:
            images[name] = read_picture(read, index.root, name, size)
        except UnreadableImageError as error:
            failures[name] = str(error)
    return images, failures


def further_measures(index: PeopleIndex, config: Config) -> Callable[[Embed], dict[str, float]]:
    """What is measured besides the validation pairs: the user's triplets, and all pairs where `monitor` is tpr.

    Raises:
        ValueError: pictures cannot be read, or are too few for `monitor_fmr`.
    """
    measures = [triplet_measure(config), everyone_measure(index, config)]
    return lambda embed: {name: value for measure in measures for name, value in measure(embed).items()}


def everyone_measure(index: PeopleIndex, config: Config) -> Callable[[Embed], dict[str, float]]:
    """With `monitor` tpr, reads the first pictures of every held-out person, by name; measures all their pairs.

    Raises:
        ValueError: there are fewer impostor pairs than `monitor_fmr` needs, or no genuine one.
    """
    if config.monitor != "tpr":
        return lambda embed: {}
    people = first_pictures(index)
    images, _ = read_all(index, people, config.image_size)
    labels = np.array([people[name] for name in images], np.int64)
    refuse_few_impostors(labels, index, config)
    return Everyone(np.stack([*images.values()]), labels, config.monitor_fmr).measure


def first_pictures(index: PeopleIndex) -> dict[str, int]:
    """The first `OF_EACH` pictures of each person by name, and whose they are."""
    of_person: dict[int, list[str]] = {}
    for label, path in sorted(zip(index.labels.tolist(), index.paths, strict=True)):
        of_person.setdefault(label, []).append(path)
    return {path: label for label, paths in of_person.items() for path in paths[:OF_EACH]}


def check_enough_impostors(config: Config) -> None:
    """With `monitor` tpr, count pairs by the names of the pictures alone, before their faces are cut.

    Raises:
        ValueError: even if every one has a face there are fewer pairs than `monitor_fmr` needs.
    """
    if config.monitor == "tpr":
        (index,) = held_out_at(config, [config.validation_share])
        labels = np.array([*first_pictures(index).values()], np.int64)
        if pair_counts(labels)[0]:  # of people with one picture each, the split says more
            refuse_few_impostors(labels, index, config)


def refuse_few_impostors(labels: NDArray[np.integer], index: PeopleIndex, config: Config) -> None:
    """See that pairs of these pictures can show a rate as low as `monitor_fmr` (rule of three).

    Args:
        labels: (n,) the person of each picture.
        index: the held-out people.
        config: settings of the run.

    Raises:
        ValueError: they cannot, or there is no genuine pair; says which settings would do.
    """
    genuine, impostor = pair_counts(labels)
    if genuine and config.monitor_fmr >= 3 / max(impostor, 1):
        return
    ways = ["add people"] if config.validation_dir else [share_that_does(config) or "add people"]
    if genuine and impostor > 3:
        ways.append(f"set `monitor_fmr` to {least_rate(impostor):g}")
    words = ", or ".join(ways)
    raise ValueError(
        f"`monitor_fmr` {config.monitor_fmr:g} needs {3 / config.monitor_fmr:.0f} impostor pairs and a genuine one "
        f"among the first {OF_EACH} pictures of each held-out person, but {index.root} gives {impostor:,} and "
        f"{genuine:,}. {words[0].upper()}{words[1:]}."
    )


def share_that_does(config: Config) -> str:
    """The least `validation_share`, below 0.5, whose held-out people make pairs enough, in words; "": none does."""
    shares = [hundredths / 100 for hundredths in range(1, 50) if hundredths / 100 > config.validation_share]
    for share, index in zip(shares, held_out_at(config, shares), strict=True):
        genuine, impostor = pair_counts(np.array([*first_pictures(index).values()], np.int64))
        if genuine and config.monitor_fmr >= 3 / max(impostor, 1):
            return f"set `validation_share` to {share:g}, which gives {impostor:,} and {genuine:,}"
    return ""


def least_rate(impostor: int) -> float:
    """The least false-match rate that so many pairs can show (rule of three), rounded up to one digit."""
    exponent = math.floor(math.log10(3 / impostor))
    return float(f"{math.ceil(3 / impostor / 10**exponent - 1e-9)}e{exponent}")


def triplet_measure(config: Config) -> Callable[[Embed], dict[str, float]]:
    """Reads `test_triplets` and its pictures; gives the function that measures the share ordered right."""
    if config.test_triplets is None:
        return lambda embed: {}
    triplets = read_triplets(config.test_triplets)
    names = sorted({path for triplet in triplets for path in triplet})
    place = {name: position for position, name in enumerate(names)}
    rows = np.array([[place[path] for path in triplet] for triplet in triplets])
    try:
        images = np.stack([read_square(config.test_triplets.parent / name, config.image_size) for name in names])
    except UnreadableImageError as error:
        raise ValueError(f"{config.test_triplets}: {error}") from None
    return lambda embed: {"triplets_ordered": ordered_share(embed(images), rows)}


def report_failures(failures: Mapping[str, str], consequence: str, file: Path | None = None) -> None:
    """Name the pictures that could not be read: their reasons by their names.

    Args:
        failures: the reason for each picture.
        consequence: what was done about them.
        file: where all of them are written down; without, the first ten are told.
    """
    if not failures:
        return
    print(f"{len(failures)} pictures could not be read; {consequence}:", file=sys.stderr)
    for reason in list(failures.values())[:NAMED]:
        print(f"  {reason}", file=sys.stderr)
    if file:
        write_text(file, csv_text([("path", "reason"), *sorted((_named_before(file) | dict(failures)).items())]))
        print(f"  All of them: {file}", file=sys.stderr)


def _named_before(file: Path) -> dict[str, str]:
    """What an earlier part of the same run wrote down."""
    try:
        with file.open(encoding="utf-8", errors="surrogateescape", newline="") as text:
            return {row["path"]: row["reason"] for row in csv.DictReader(text)}
    except (OSError, KeyError, csv.Error):
        return {}
