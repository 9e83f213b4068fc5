"""Pictures cut as a network expects them: its recipe decides, not the user's memory.

In:  a `Config` whose `weights` know how faces are cut (dlib, a bundle), and its folders.
Out: the same settings with folders of crops cut so, made from the originals where they were not.
Run: python train.py --weights dlib --backbone dlib_resnet29 --train_dir photos
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from config import Config, CropConfig
from facekit.alignment import CropRecipe
from facekit.bundle import read_record
from facekit.detectors import ALIGNER
from facekit.files import check_writable
from facekit.manifest import crop_folder
from facekit.packed import is_packed
from facekit.recutting import cut_alike, recut
from pictures import same_search


def recipe_of_weights(weights: str | None) -> CropRecipe | None:
    """How the network that training starts from wants faces cut; None where that is not known.

    Raises:
        ValueError: a bundle that is damaged.
    """
    if weights == "dlib":
        from pretrained import RECIPE

        return RECIPE
    if weights and Path(weights).is_dir():
        return read_record(Path(weights)).recipe
    return None


def side_of_weights(weights: str | None) -> int:
    """Side of the pictures that the network saw which training starts from, in pixels; its recipe is known."""
    if weights == "dlib":
        from facekit.dlib_file import SIDE

        return SIDE
    return read_record(Path(weights or "")).image_size


def cut_for_weights(config: Config) -> Config:
    """The settings with train_dir and validation_dir cut as `weights` wants them.

    Crops of another recipe are made again from their originals, originals are cropped; both into `recut_dir`.

    Raises:
        ValueError: the originals are gone, or the folder is packed; names it.
    """
    recipe = recipe_of_weights(config.weights)
    if recipe is None or config.keep_crops:
        return config
    if (side := side_of_weights(config.weights)) != config.image_size:
        print(f"`weights` know faces of {side} px, `image_size` is {config.image_size}: expect less of the start.")
    aligner = Path(config.weights or "") / ALIGNER
    train = _cut(config.train_dir, recipe, config.recut_dir, aligner)
    validation = config.validation_dir and _cut(config.validation_dir, recipe, config.recut_dir, aligner)
    return config.model_copy(update={"train_dir": train, "validation_dir": validation})


def _cut(folder: Path, recipe: CropRecipe, kept: Path, aligner: Path) -> Path:
    """A folder whose faces are cut by the recipe: the folder itself, or crops made from it."""
    made = crop_folder(folder) if folder.is_dir() else None
    if made is not None and cut_alike(made.recipe, recipe):
        return folder
    if is_packed(folder):
        raise ValueError(
            f"{folder}: is packed, so its crops cannot be cut as `weights` wants them ({recipe.template} template, "
            f"{recipe.size} px). Name the folder that it was packed from, or set `keep_crops`."
        )
    key = hashlib.sha256(f"{folder.resolve()} {recipe.to_dict()}".encode()).hexdigest()[:8]
    target = kept / f"{folder.resolve().name}-{recipe.template}{recipe.size}-{key}"
    check_writable(target.parent, "recut_dir")
    if made is not None:
        count = recut(folder, target, recipe)
        now = f"{count:,} crops made from the originals" if count else "crops were made from the originals before"
        print(f"{folder}: cut otherwise than `weights` wants; {now} in {target}.")
        if not same_search(made.recipe, recipe):
            print(
                f"Their faces were found with {search_words(made.recipe)}, and the model will look for them so; "
                f"`weights` had {search_words(recipe)}: to follow that, name the original pictures."
            )
        return target
    return _crop(folder, recipe, target, aligner)


def search_words(recipe: CropRecipe) -> str:
    """Who finds faces, and from which confidence on."""
    return f"detector {recipe.detector}, confidence {recipe.min_confidence:g} or more"


def _crop(folder: Path, recipe: CropRecipe, target: Path, aligner: Path) -> Path:
    from crop_faces import crop_faces, settings_of

    print(f"{folder}: original pictures; their faces are cut for `weights` into {target}.", flush=True)
    settings = settings_of(recipe, aligner)
    print(crop_faces(CropConfig(input_dir=folder, output_dir=target, **settings)).text())
    return target
