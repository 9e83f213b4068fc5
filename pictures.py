"""The pictures of an evaluation: where they are, and the network's view of each, by the model's own recipe.

In:  names of pictures and the folder that they start from: original pictures, or crops made by crop_faces.py; or
     pictures packed into one file.
Out: crops, embeddings, and the reason for every picture that gives none. Originals are cropped once and kept.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from config import CropConfig
from facekit import manifest
from facekit.alignment import CropRecipe, crop_face
from facekit.files import check_writable
from facekit.images import SUFFIXES, Image, UnreadableImageError, as_stored, decode, read_image
from facekit.manifest import CropFolder, Row

LOGGER = logging.getLogger(__name__)

# Crops read and embedded at once: bounds memory.
PICTURES_AT_ONCE = 512


@dataclass(frozen=True)
class Originals:
    """A folder of original pictures and, for each name, its file below the folder."""

    folder: Path
    files: Mapping[str, str]


@dataclass(frozen=True)
class Crops:
    """A folder of crops and, for each name, its row in the folder's manifest."""

    folder: Path
    made: CropFolder
    rows: Mapping[str, Row]


@dataclass(frozen=True)
class Packed:
    """Encoded pictures by name, cropped by somebody else: taken as they are."""

    pictures: Mapping[str, bytes]


Images = Originals | Crops | Packed


def find_images(folder: Path, names: Sequence[str], setting: str = "images") -> Originals | Crops:
    """Find every named picture in a folder, before any model is loaded.

    Raises:
        ValueError: the folder or a picture is missing; names the first and counts them.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder. Set `{setting}` to where the pictures' paths start.")
    made = manifest.crop_folder(folder)
    outside = [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise ValueError(f"{outside[0]}: the pictures' paths must lie below {folder}, and be written from there.")
    if made is None:
        found = {name: _existing(folder, name) for name in names}
        _refuse_missing(folder, [name for name, file in found.items() if file is None], setting)
        return Originals(folder, {name: file for name, file in found.items() if file is not None})
    rows = manifest.read(folder)
    # A list may name the originals or the crops.
    by_name = {row.crop: row for row in rows.values() if row.crop} | rows
    _refuse_missing(folder, [name for name in names if name not in by_name], setting)
    return Crops(folder, made, {name: by_name[name] for name in names})


def _existing(folder: Path, name: str) -> str | None:
    """The name itself, or with another picture suffix: LFW's format writes .jpg whatever the files are."""
    if (folder / name).is_file():
        return name
    stem = name.rpartition(".")[0]
    return next((stem + suffix for suffix in sorted(SUFFIXES) if (folder / (stem + suffix)).is_file()), None)


def _refuse_missing(folder: Path, missing: list[str], setting: str) -> None:
    if missing:
        raise ValueError(
            f"{folder / missing[0]}: the list names this picture, but it is not there ({len(missing)} missing in "
            f"all). Check `{setting}`."
        )


def people_pictures(folder: Path, setting: str) -> tuple[list[str], list[str]]:
    """Every picture of a folder of people and its person, in order: two lists of n names.

    In a folder of crops the pictures without a face are there too, as failures.

    Raises:
        ValueError: the folder is missing or holds no person.
    """
    from facekit.index import index_people

    if folder.is_dir() and manifest.crop_folder(folder) is not None:
        return _crops_of_people(folder, setting)
    index = index_people(folder, setting)
    return index.paths, [index.people[label] for label in index.labels]


def _crops_of_people(folder: Path, setting: str) -> tuple[list[str], list[str]]:
    """The crops that are there; and, of the people who are, the pictures that gave none."""
    rows = manifest.read(folder).values()
    there = {path.name for path in folder.iterdir() if path.is_dir()}
    kept = [row for row in rows if "/" in row.path and (not row.crop or (folder / row.crop).is_file())]
    names = sorted(name for row in kept if (name := row.crop or row.path).split("/", 1)[0] in there)
    if not names:
        raise ValueError(
            f"`{setting}` {folder}: has {manifest.MARKER}, but its {manifest.MANIFEST} names none of its pictures. "
            "Copy both files along with crops, or make the crops again."
        )
    return names, [name.split("/", 1)[0] for name in names]


class PictureReader:
    """Gives the network's view of each picture, by a recipe.

    Original pictures are cropped first, into `cache`, where the next evaluation finds them. Crops of the recipe
    are read as they are; crops of another are made again from their originals.

    Args:
        recipe: how the model wants faces cut; None: it takes whole pictures.
        images: where the pictures are.
        cache: folder for crops of originals.
        aligner: weights of a recipe's fast detector; a model has them in its bundle.

    Attributes:
        failures: pictures read so far that gave no face, with the reason.

    Raises:
        ValueError: crops of another recipe whose originals are gone, or no room for crops.
    """

    def __init__(self, recipe: CropRecipe | None, images: Images, cache: Path, aligner: Path | None = None):
        self._recipe = recipe
        self.failures: dict[str, str] = {}
        if isinstance(images, Crops) and recipe is not None and not same_search(images.made.recipe, recipe):
            # Another choice of face: its landmarks are of no use, the originals are searched again.
            _refuse_lost_originals(images)
            _say_recut(images.folder)
            images = Originals(Path(images.made.source), {name: row.path for name, row in images.rows.items()})
        if isinstance(images, Originals) and recipe is not None:
            images = _crop_originals(images, recipe, cache, aligner)
        self._images = images
        self._again = isinstance(images, Crops) and recipe not in (None, images.made.recipe)
        if isinstance(images, Crops) and self._again:
            _refuse_lost_originals(images)
            _say_recut(images.folder)

    def read(self, name: str) -> Image | None:
        """A picture's crop, or the whole picture for a model of whole pictures; None where there is no face."""
        try:
            image, reason = self._read(name)
        except UnreadableImageError as error:
            image, reason = None, str(error)
        if image is None:
            self.failures[name] = reason
        return image

    def _read(self, name: str) -> tuple[Image | None, str]:
        images = self._images
        if isinstance(images, Packed):
            return decode(images.pictures[name]), "cannot be decoded"
        if isinstance(images, Originals):
            return read_image(images.folder / images.files[name]), ""
        row = images.rows[name]
        if row.face is None:
            return None, row.reason
        if not self._again or self._recipe is None:
            return read_image(images.folder / row.crop), ""
        original = read_image(Path(images.made.source) / row.path)
        crop = crop_face(original, row.face.box, row.face.landmarks, self._recipe)
        return as_stored(crop, self._recipe.quality), ""


def same_search(one: CropRecipe, other: CropRecipe) -> bool:
    """Whether two recipes find and choose the same faces."""
    names = ("detector", "choose", "min_confidence", "max_side")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _crop_originals(images: Originals, recipe: CropRecipe, cache: Path, aligner: Path | None) -> Crops:
    from crop_faces import crop_faces, settings_of

    folder = str(images.folder.resolve())
    key = hashlib.sha256(json.dumps([folder, recipe.to_dict()]).encode()).hexdigest()[:16]
    settings = settings_of(recipe, aligner)
    config = CropConfig(input_dir=images.folder, output_dir=cache / key, min_side=1, **settings)
    check_writable(config.output_dir, "cache")
    crop_faces(config, list(images.files.values()))
    rows, made = manifest.read(config.output_dir), manifest.crop_folder(config.output_dir)
    if made is None:
        raise ValueError(f"{config.output_dir}: the crops just made are gone. Run the command again.")
    return Crops(config.output_dir, made, {name: rows[file] for name, file in images.files.items()})


@cache
def _say_recut(folder: Path) -> None:
    """Tell, once a folder, that what is judged are not the crops as they lie there."""
    LOGGER.warning("%s: crops of another recipe than the model's: their originals are cut anew.", folder)


def _refuse_lost_originals(images: Crops) -> None:
    source = Path(images.made.source)
    lost = [row.path for row in images.rows.values() if row.face is not None and not (source / row.path).is_file()]
    if lost:
        raise ValueError(
            f"{images.folder}: holds crops of another recipe than the model's ({images.made.recipe}), and their "
            f"originals are not in {source} any more ({lost[0]} and {len(lost) - 1} others). Set `images` to the "
            "original pictures; evaluate.py, inference.py and apps.export take crops as they are with --as_crops."
        )


def embed_pictures(
    embed: Callable[[Sequence[Image]], NDArray[np.float32]], reader: PictureReader, names: Sequence[str]
) -> NDArray[np.float32]:
    """Embed each picture once: (n, D) float32 rows, NaN where a picture has no face; (n, 1) where none has."""
    from tqdm import tqdm

    rows: dict[int, NDArray[np.float32]] = {}
    with tqdm(total=len(names), unit="images", desc="embedding") as bar:
        for start in range(0, len(names), PICTURES_AT_ONCE):
            chunk = range(start, min(start + PICTURES_AT_ONCE, len(names)))
            crops = {place: crop for place in chunk if (crop := reader.read(names[place])) is not None}
            if crops:
                rows |= dict(zip(crops, embed(list(crops.values())), strict=True))
            bar.update(len(chunk))
    width = next(iter(rows.values())).size if rows else 1
    embeddings = np.full((len(names), width), np.nan, np.float32)
    for place, row in rows.items():
        embeddings[place] = row
    return embeddings
