"""The faces that forms of a network are compared on and calibrated with.

In:  a bundle, and which faces are `Wanted`: a folder of pictures of people and pairs of them, or drawn ones.
Out: a `Material`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekit.bundle import BundleRecord
from facekit.detectors import ALIGNER
from facekit.images import Image, resize_square
from facekit.pairs import Pairs
from pictures import Images, PictureReader, find_images, people_pictures
from scoring import read_task


@dataclass(frozen=True)
class Wanted:
    """Which faces forms are to be compared on.

    Attributes:
        images: folder of people: pictures or crops. None: faces are drawn.
        as_crops: `images` are faces already cut, whoever cut them.
        pairs: pairs of these pictures; None: pictures alone.
        pictures: most of them where no pairs are named.
        calibration: crops for int8; 0: it is not asked for.
        cache: folder for crops of original pictures.
    """

    images: Path | None
    as_crops: bool
    pairs: Path | None
    pictures: int
    calibration: int
    cache: Path


@dataclass(frozen=True, eq=False)
class Material:
    """What forms are compared on.

    Attributes:
        crops: (n, S, S, 3) uint8.
        names: (n) of the pictures.
        words: where they come from.
        samples: (m, S, S, 3) uint8 for int8; empty where it is not asked for.
        pairs: those whose two pictures gave a face; None: no pairs are named.
    """

    crops: NDArray[np.uint8]
    names: list[str]
    words: str
    samples: NDArray[np.uint8]
    pairs: Pairs | None


def drawn(record: BundleRecord, count: int, calibration: int) -> Material:
    """Faces of people who do not exist, drawn."""
    from facekit.synthetic import draw_crop

    side = record.image_size
    faces = [draw_crop(11, person, 0, side).image for person in range(count + calibration)]
    names = [f"drawn/{person}" for person in range(count)]
    stacked = np.stack(faces)
    return Material(stacked[:count], names, f"{count} drawn faces", stacked[count:], None)


def read_material(wanted: Wanted, record: BundleRecord, bundle: Path) -> Material:
    """Pictures and pairs as they are wanted; drawn faces where no pictures are named.

    Raises:
        ValueError: a folder or the pairs are wrong, or no picture has a face.
    """
    if wanted.images is None:
        return drawn(record, min(wanted.pictures, 100), wanted.calibration)
    if wanted.as_crops:
        record = replace(record, recipe=None)
    people = people_pictures(wanted.images, "images")[0]
    if wanted.pairs is not None:
        task = read_task(wanted.pairs, wanted.images, 0, None)
        pairs, images = task.pairs, task.images
        names = pairs.pictures()
    else:
        pairs, names = None, evenly(people, wanted.pictures)
        images = find_images(wanted.images, names)
    kept, crops = read_crops(record, images, wanted.cache, bundle, names)
    samples = np.empty((0, *crops.shape[1:]), np.uint8)
    if wanted.calibration:
        # Others than are judged, as far as the folder has them.
        taken = set(names)
        chosen = evenly([name for name in people if name not in taken] or people, wanted.calibration)
        samples = read_crops(record, find_images(wanted.images, chosen), wanted.cache, bundle, chosen)[1]
    taken_as = ", taken as faces already cut, whoever cut them" if wanted.as_crops else ""
    words = f"{len(kept)} pictures of {wanted.images}{taken_as}"
    lost = set(names) - set(kept)
    return Material(crops, kept, words, samples, None if pairs is None else pairs.without(lost))


def evenly(names: Sequence[str], count: int) -> list[str]:
    """At most `count` names, evenly spaced."""
    places = np.unique(np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int))
    return [names[place] for place in places]


def read_crops(
    record: BundleRecord, images: Images, cache: Path, bundle: Path, names: Sequence[str]
) -> tuple[list[str], NDArray[np.uint8]]:
    """The network's view of pictures: the names of those with a face, and (n, S, S, 3) uint8 crops.

    Raises:
        ValueError: none has a face.
    """
    reader = PictureReader(record.recipe, images, cache, bundle / ALIGNER)
    crops: dict[str, Image] = {}
    for name in names:
        crop = reader.read(name)
        if crop is not None:
            crops[name] = resize_square(crop, record.image_size)
    if not crops:
        raise ValueError(
            f"None of the {len(names)} pictures of `images` has a face: there is nothing to compare on."
        )
    return list(crops), np.stack(list(crops.values()))
