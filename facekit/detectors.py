"""The one place where a crop recipe's detector is made."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from facekit.alignment import CropRecipe
from facekit.detection import Detector, MtcnnDetector

MTCNN, FAST, DLIB = "mtcnn", "fast", "dlib"

ALIGNER = "aligner.keras"
"""Name of the fast detector's weights in a folder of crops and in a bundle, whose recipe names their digest."""

MIN_FACE = 20
"""Side in pixels of the smallest face that MTCNN looks for, where a recipe says nothing else."""


_MTCNN_NAME = re.compile(rf"{MTCNN}(?P<exact>:exact)?(:(?P<min_face>[0-9]+))?")


def detector_name(
    aligner: Path | None = None, min_face: int = MIN_FACE, finder: str = FAST, exact: bool = False
) -> str:
    """What a recipe's `detector` says, everything that decides which faces are found.

    Args:
        aligner: weights of the alignment network; None: MTCNN.
        min_face: MTCNN's smallest face, in pixels.
        finder: with weights, who says where the face is: "fast", the middle of the picture; "dlib", dlib.
        exact: MTCNN's boxes and landmarks as computed, not rounded to whole pixels.

    Returns:
        "mtcnn", "mtcnn:exact", "mtcnn:40" where it looks for no face below 40 pixels, "mtcnn:exact:40", or "fast:"
        or "dlib:" and the first 16 digits of the weights' SHA-256 digest.

    Raises:
        ValueError: there is no such file of weights.
    """
    if aligner is not None:
        return f"{finder}:{weights_digest(aligner)}"
    return MTCNN + ":exact" * exact + (f":{min_face}" if min_face != MIN_FACE else "")


def weights_digest(path: Path) -> str:
    """The first 16 hexadecimal digits of a file's SHA-256 digest.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    except OSError as error:
        raise ValueError(
            f"{path}: the alignment weights cannot be read ({error.strerror}); `python -m apps.train_aligner "
            "--output aligner.keras --teacher CROPS` makes them from your own crops."
        ) from None


def needs_aligner(recipe: CropRecipe) -> bool:
    """Whether the recipe's detector has weights of its own, which must travel with crops and models."""
    return finder_of(recipe) in (FAST, DLIB)


def finder_of(recipe: CropRecipe) -> str:
    """Who finds faces in a recipe: "mtcnn", "fast" or "dlib"."""
    return recipe.detector.partition(":")[0]


def min_face(recipe: CropRecipe) -> int:
    """MTCNN's smallest face in a recipe, in pixels."""
    name = _MTCNN_NAME.fullmatch(recipe.detector)
    return int(name["min_face"] or MIN_FACE) if name else MIN_FACE


def is_exact(recipe: CropRecipe) -> bool:
    """Whether a recipe takes MTCNN's boxes and landmarks as computed, not rounded to whole pixels."""
    name = _MTCNN_NAME.fullmatch(recipe.detector)
    return bool(name and name["exact"])


def check_detector(recipe: CropRecipe, aligner: Path | None) -> None:
    """Refuse what `make_detector` could not make, before any work.

    Args:
        recipe: of crops or of a model.
        aligner: weights of the fast detector, which the recipe names by their digest.

    Raises:
        ValueError: the recipe's detector is unknown here, or its weights are missing or other ones.
    """
    if _MTCNN_NAME.fullmatch(recipe.detector):
        return
    name, _, value = recipe.detector.partition(":")
    if name not in (FAST, DLIB):
        raise ValueError(f"The crop recipe names the detector {recipe.detector!r}; it is from another version.")
    if aligner is None or not aligner.is_file():
        raise ValueError(
            f"{aligner or ALIGNER}: the alignment weights are missing. The crop recipe was made with the file "
            f"whose SHA-256 digest begins with {value}: put it there."
        )
    if (found := weights_digest(aligner)) != value:
        raise ValueError(
            f"{aligner}: holds other alignment weights ({found}) than the crop recipe's ({value}). Put those "
            "there, or crop anew."
        )


def make_detector(recipe: CropRecipe, aligner: Path | None = None) -> Detector:
    """The detector that a recipe names; arguments and errors as in `check_detector`."""
    check_detector(recipe, aligner)
    if aligner is None or not needs_aligner(recipe):
        return MtcnnDetector(min_face=min_face(recipe), rounded=not is_exact(recipe))
    from facekit.aligner import FastAligner, FastDetector

    network = FastAligner(aligner)
    if finder_of(recipe) == FAST:
        return FastDetector(network)
    from facekit.dlib_detector import DlibDetector

    return DlibDetector(network.landmarks)
