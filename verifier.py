"""A bundle at work: which one, pictures to embeddings, two embeddings to a verdict.

In:  a bundle's folder, "pretrained", or nothing for the default; pictures.
Out: a `Verifier`: faces found, crops, embeddings, comparisons.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from facekit import runtime
from facekit.bundle import ONNX, BundleRecord, read_network, read_record
from facekit.detection import LOW_CONFIDENCE, MANY_FACES, NO_FACE, Detector, Finding, crop_found, find_faces
from facekit.detectors import ALIGNER, make_detector
from facekit.images import Image, as_stored, read_image, resize_square
from facekit.mirror import with_mirror

ADVICE = {
    NO_FACE: "no face was found. Use a picture in which the face is sharp, upright and at least 20 pixels wide",
    LOW_CONFIDENCE: "no face was found with enough confidence. Use a sharper or more frontal picture",
    MANY_FACES: "several faces were found, and this model takes pictures of one. Cut the picture down to one",
}


class NoFaceError(ValueError):
    """A picture without a face to compare; the message says why and what to do."""


@dataclass(frozen=True)
class Comparison:
    """Two faces compared.

    Attributes:
        distance: Euclidean distance of the unit embeddings, 0 to 2; small means alike.
        cosine: of the angle between them, -1 to 1.
        same: the verdict, distance < threshold; None where the model has no threshold.
        probability: that it is one person, 0 to 1, where both answers are equally likely beforehand; None where the
            model was calibrated without `probability`.
    """

    distance: float
    cosine: float
    same: bool | None
    probability: float | None = None


def find_bundle(runs_dir: Path = Path("runs")) -> Path:
    """The newest bundle below `runs_dir` that was trained on real pictures; else the pretrained one.

    The newest is the one that was made last; calibrating one makes it no newer. Of several the first by name. A
    bundle that is damaged or of another version is passed over with a word.

    Raises:
        ValueError: there is none, and the pretrained one cannot be had.
    """
    bundles = sorted(runs_dir.glob("*/bundle/bundle.json"), key=lambda path: (-_made_at(path), path))
    for path in bundles:
        try:
            if not read_record(path.parent).synthetic:
                return path.parent
        except ValueError as error:
            print(f"Passed over: {error}", file=sys.stderr)
    from pretrained import pretrained_bundle

    return pretrained_bundle()


def _made_at(path: Path) -> float:
    """When the bundle of this bundle.json was made, in seconds since 1970.

    A record that cannot be read counts as the newest, so that it is told of; one without a date as the oldest.
    """
    try:
        created = json.loads(path.read_text(encoding="utf-8"))["created"]
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf
    try:
        return datetime.fromisoformat(created).timestamp()
    except (ValueError, TypeError):
        return -math.inf


def named_bundle(model: Path | None) -> Path:
    """The bundle that `--model` names: a folder, "pretrained", or by default `find_bundle`'s.

    Raises:
        ValueError: there is no such folder, and "pretrained" may have been meant.
    """
    if model is None:
        return find_bundle()
    if model.exists():
        return model
    if str(model) == "pretrained":
        from pretrained import pretrained_bundle

        return pretrained_bundle()
    if get_close_matches(str(model), ["pretrained"], cutoff=0.8):
        raise ValueError(f"`model` {model}: there is no such folder. Did you mean `pretrained`?")
    return model


class Verifier:
    """A bundle at work: pictures in, embeddings and verdicts out.

    Args:
        bundle: the bundle's folder, or "pretrained". None: as for `--model`, see `find_bundle`.
        flip: whether embeddings are averaged with the mirror image's. None: as the bundle says. Its threshold and
            probability hold for the way they were found: with the other one there is no verdict.
        engine: "onnx" computes with the bundle's ONNX form, without TensorFlow, where it has one; "tensorflow" with
            its Keras network, on a GPU where there is one. Their embeddings agree to about 1e-6.

    Raises:
        ValueError: it is no bundle, or a damaged one.
    """

    def __init__(
        self,
        bundle: Path | str | None = None,
        flip: bool | None = None,
        engine: Literal["onnx", "tensorflow"] = "onnx",
    ):
        self.bundle = named_bundle(None if bundle is None else Path(bundle))
        stored = read_record(self.bundle)
        self.record: BundleRecord = with_flip(stored, flip)
        self.no_threshold = why_no_threshold(stored, self.record)
        self.engine = engine if (self.bundle / ONNX).is_file() else "tensorflow"
        self._detector: Detector | None = None

    @cached_property
    def _embedder(self) -> Any:
        embed = self._onnx_embedder() if self.engine == "onnx" else self._keras_embedder()
        return with_mirror(embed) if self.record.flip else embed

    def _onnx_embedder(self) -> Any:
        from facekit.onnx_network import OnnxEmbedder

        return OnnxEmbedder(self.bundle / ONNX)

    def _keras_embedder(self) -> Any:
        from facekit.trainer import Embedder

        runtime.start_quietly()
        network = read_network(self.bundle)
        side = network.input_shape[1]
        if side != self.record.image_size:
            raise ValueError(
                f"{self.bundle}: its bundle.json says `image_size` {self.record.image_size}, but its network takes "
                f"{side}."
            )
        return Embedder(network)

    def find(self, images: Sequence[Image]) -> list[Finding]:
        """The face of each picture by the model's own recipe; a model of whole pictures looks for none."""
        recipe = self.record.recipe
        if recipe is None:
            return [Finding(None, 0) for _ in images]
        if self._detector is None:
            self._detector = make_detector(recipe, self.bundle / ALIGNER)
        return find_faces(images, self._detector, recipe)

    def crop(self, image: Image, finding: Finding) -> Image | None:
        """The network's view of a picture, (size, size, 3) uint8 as crop_faces.py would store it; None: no face."""
        if self.record.recipe is None:
            return image
        crop = crop_found(image, finding, self.record.recipe)
        return None if crop is None else as_stored(crop, self.record.recipe.quality)

    def embed_crops(self, crops: Sequence[Image]) -> NDArray[np.float32]:
        """Embed crops of any size: (n, D) float32 unit rows."""
        size = self.record.image_size
        batch = np.empty((len(crops), size, size, 3), np.uint8)
        for row, crop in zip(batch, crops, strict=True):
            row[:] = resize_square(crop, size)
        return self._embedder(batch)

    def embed(self, pictures: Sequence[Image | Path | str]) -> NDArray[np.float32]:
        """Detect, align and embed whole pictures: (n, D) float32 unit rows; NaN where there is no face.

        Args:
            pictures: files, or (H, W, 3) uint8 arrays in RGB order (OpenCV reads BGR: give it paths instead).

        Raises:
            ValueError: a file cannot be read, or an array is of another kind.
        """
        images = [_as_image(picture) for picture in pictures]
        crops = [self.crop(image, finding) for image, finding in zip(images, self.find(images), strict=True)]
        rows = np.full((len(images), self.record.embedding_size), np.nan, np.float32)
        there = [position for position, crop in enumerate(crops) if crop is not None]
        if there:
            rows[there] = self.embed_crops([crop for crop in crops if crop is not None])
        return rows

    def compare(self, embedding1: NDArray[np.float32], embedding2: NDArray[np.float32]) -> Comparison:
        """Compare two embeddings (D,) and judge by the bundle's threshold."""
        one, two = embedding1.astype(np.float64), embedding2.astype(np.float64)
        distance = float(np.linalg.norm(one - two))
        threshold, chances = self.record.threshold, self.record.probability
        return Comparison(
            distance,
            float(one @ two),
            None if threshold is None else distance < threshold.value,
            None if chances is None else float(chances.probability(distance)),
        )

    def verify(self, picture1: Image | Path | str, picture2: Image | Path | str) -> Comparison:
        """Compare the faces of two whole pictures: files, or (H, W, 3) uint8 arrays in RGB order.

        Raises:
            NoFaceError: a picture has no face.
            ValueError: as `embed`.
        """
        rows = self.embed([picture1, picture2])
        for number, row in enumerate(rows, 1):
            if np.isnan(row).any():
                raise NoFaceError(f"Picture {number}: {ADVICE[NO_FACE]}.")
        return self.compare(rows[0], rows[1])


def with_flip(record: BundleRecord, flip: bool | None) -> BundleRecord:
    """A record for embeddings with or without flips; what was found the other way is taken out of it."""
    if flip is None or flip == record.flip:
        return record
    found = record.threshold if record.threshold and record.threshold.flip == flip else None
    return replace(record, flip=flip, threshold=found, probability=None)


def why_no_threshold(stored: BundleRecord, used: BundleRecord) -> str:
    """Why a bundle that is `used` with or without flips has no threshold, in words; "" where it has one."""
    if used.threshold is not None:
        return ""
    if stored.threshold is None:
        return "uncalibrated"
    found, wanted = ("with", "without") if stored.threshold.flip else ("without", "with them")
    return (
        f"its threshold was found {found} flips; `python evaluate.py calibrate --flip {not stored.threshold.flip}` "
        f"finds one {wanted}"
    )


def _as_image(picture: Image | Path | str) -> Image:
    if isinstance(picture, str | Path):
        return read_image(Path(picture))
    image = np.asarray(picture)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"A picture must be a path or an (H, W, 3) uint8 array in RGB. Received: {image.dtype} {image.shape}."
        )
    return image
