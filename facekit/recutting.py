"""Crops made again by another recipe, from the manifest's originals and landmarks: nothing is detected twice."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from facekit import manifest
from facekit.alignment import CropRecipe, crop_face
from facekit.cropping import prepare_worker, stamp
from facekit.images import UnreadableImageError, read_image, write_jpeg
from facekit.lock import locked
from facekit.manifest import CropFolder, Row
from facekit.workers import run_shards

ROWS_A_CHUNK = 64

# What decides where a face lies in a crop; the other entries of a recipe decide which faces there are.
GEOMETRY = ("method", "size", "margin", "template")


def cut_alike(one: CropRecipe, other: CropRecipe) -> bool:
    """Whether faces lie alike in the crops of two recipes."""
    return all(getattr(one, name) == getattr(other, name) for name in GEOMETRY)


def recut(crops: Path, target: Path, recipe: CropRecipe, processes: int = 0) -> int:
    """Cut the faces of a folder of crops anew, as another recipe has them, into another folder.

    The faces are those that were found; only how they lie in the crop changes. An earlier call that was stopped is
    gone on with.

    Args:
        crops: a folder that crop_faces.py made.
        target: where the new crops go, with their own manifest and marker.
        recipe: gives method, size, margin, template and quality; who finds faces stays as it was.
        processes: 0: one a core.

    Returns:
        How many crops were made now.

    Raises:
        ValueError: it is no such folder, or an original is gone or was changed since; names the first.
    """
    made = manifest.crop_folder(crops)
    if made is None:
        raise ValueError(f"{crops}: has no {manifest.MARKER}: it was not made by crop_faces.py.")
    rows = manifest.read(crops)
    source = Path(made.source)
    refuse_lost(crops, source, list(rows.values()))
    wanted = recipe_for(made.recipe, recipe)
    target.mkdir(parents=True, exist_ok=True)
    with locked(target):
        CropFolder(wanted, made.source, made.synthetic).write(target)
        done = manifest.read(target)
        left = [row for path, row in rows.items() if done.get(path) != row or not (target / row.crop).exists()]
        chunks = [left[start : start + ROWS_A_CHUNK] for start in range(0, len(left), ROWS_A_CHUNK)]
        work = partial(recut_rows, source, target, wanted)
        for part in run_shards(work, chunks, processes=processes, prepare=prepare_worker):
            manifest.append_rows(target, part)
        manifest.rewrite(target, manifest.read(target).values())
    return sum(bool(row.crop) for row in left)


def recipe_for(made: CropRecipe, wanted: CropRecipe) -> CropRecipe:
    """The recipe of recut crops: faces found as they were, cut as wanted."""
    values = {**made.to_dict(), **{name: getattr(wanted, name) for name in (*GEOMETRY, "quality")}}
    return CropRecipe.from_dict(values)


def refuse_lost(crops: Path, source: Path, rows: Sequence[Row]) -> None:
    """See that the originals of crops are there, and are those that the landmarks were found in.

    Raises:
        ValueError: they are not; names the first.
    """
    bad = [row.path for row in rows if row.crop and stamp(source / row.path) != (row.bytes, row.modified_ns)]
    if bad:
        raise ValueError(
            f"{crops}: its faces should be cut by another recipe, but {len(bad)} of their originals are gone from "
            f"{source} or were changed since ({bad[0]}). Crop the pictures anew with crop_faces.py; "
            "training takes the crops as they are with `keep_crops`."
        )


def recut_rows(source: Path, target: Path, recipe: CropRecipe, rows: Sequence[Row]) -> list[Row]:
    """Cut some faces in this process; a picture that can no longer be decoded gets a row that says so."""
    done = []
    for row in rows:
        face = row.face
        if row.crop and face is not None:
            try:
                image = read_image(source / row.path)
            except UnreadableImageError:
                row = row._replace(crop="", reason=manifest.UNREADABLE)
            else:
                write_jpeg(target / row.crop, crop_face(image, face.box, face.landmarks, recipe), recipe.quality)
        done.append(row)
    return done
