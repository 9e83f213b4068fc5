"""Find faces with MTCNN, and choose the one that a picture is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from facekit.alignment import CropRecipe, Points, crop_face
from facekit.images import Image, limit_side

CHOICES = ("largest_centred", "largest", "most_confident", "only")

# MTCNN's memory grows with the pixels of a batch (some 200 bytes each): above this the batch is cut.
PIXELS_AT_ONCE = 2_500_000

NO_FACE, LOW_CONFIDENCE, MANY_FACES = "no_face", "low_confidence", "many_faces"

KEYPOINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")


@dataclass(frozen=True)
class Face:
    """A detected face.

    Attributes:
        box: (4,) float32, x, y, width, height in pixels of the picture given.
        confidence: the detector's score, 0 to 1.
        landmarks: (5, 2) float32, in the order of `facekit.alignment.Points`.
    """

    box: NDArray[np.float32]
    confidence: float
    landmarks: Points

    def scaled(self, factor: float) -> Face:
        """The same face in the picture scaled by `factor`."""
        return Face(self.box * np.float32(factor), self.confidence, self.landmarks * np.float32(factor))


@dataclass(frozen=True)
class Finding:
    """What a search in one picture gave: the chosen face, or the reason why there is none.

    Attributes:
        face: the chosen face, None where `reason` says why not.
        count: faces found, those of low confidence included.
        reason: "", "no_face", "low_confidence" or "many_faces".
    """

    face: Face | None
    count: int
    reason: str = ""


class Detector(Protocol):
    """Finds all faces in pictures."""

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        """All faces of each picture; pictures may differ in size."""
        ...


class MtcnnDetector:
    """The `mtcnn` package (Zhang et al., "Joint Face Detection and Alignment", SPL 2016), used safely.

    The package takes its own errors for "no face" and then loses a whole batch, answers differently where sizes
    are mixed in one, and needs gigabytes for large pictures. So pictures go in by equal size, few enough at
    once, and a batch without any face is repeated one by one.

    Args:
        batch_size: pictures of one size detected at once.
        device: TensorFlow device name, e.g. "CPU:0" or "GPU:0".
    """

    def __init__(self, batch_size: int = 32, device: str = "CPU:0"):
        from mtcnn import MTCNN

        self._network = MTCNN(device=device)
        self._batch_size = batch_size

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        """All faces of each picture.

        Args:
            images: (H, W, 3) uint8 RGB each, of any sizes.

        Returns:
            A list of faces for each picture, in the given order; empty where none was found.
        """
        found: list[list[Face]] = [[] for _ in images]
        for positions in _batches_of_equal_size(images, self._batch_size):
            batch = [images[position] for position in positions]
            faces = self._detect_batch(batch)
            if len(batch) > 1 and not any(faces):
                faces = [self._detect_batch([image])[0] for image in batch]
            for position, of_image in zip(positions, faces, strict=True):
                found[position] = of_image
        return found

    def _detect_batch(self, images: list[Image]) -> list[list[Face]]:
        return [[_face(answer) for answer in of_image] for of_image in self._network.detect_faces(images)]


def _batches_of_equal_size(images: Sequence[Image], batch_size: int) -> list[list[int]]:
    """Positions of the images in batches of one shape, none larger than `PIXELS_AT_ONCE` allows."""
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for position, image in enumerate(images):
        by_shape.setdefault(image.shape, []).append(position)
    batches = []
    for shape, positions in by_shape.items():
        size = max(1, min(batch_size, PIXELS_AT_ONCE // (shape[0] * shape[1])))
        batches += [positions[start : start + size] for start in range(0, len(positions), size)]
    return batches


def _face(answer: dict[str, Any]) -> Face:
    points = [answer["keypoints"][name] for name in KEYPOINTS]
    return Face(np.array(answer["box"], np.float32), float(answer["confidence"]), np.array(points, np.float32))


def choose_face(faces: Sequence[Face], shape: tuple[int, ...], policy: str) -> Face | None:
    """The face that a picture is about.

    Args:
        faces: candidates, at least one.
        shape: the picture's shape, height first.
        policy: "largest_centred": the largest box area less twice the squared distance of its centre from the
            picture's (as in FaceNet's align_dataset_mtcnn); "largest": box area; "most_confident"; "only": the
            face where there is just one, else None.

    Raises:
        ValueError: no such policy.
    """
    if policy not in CHOICES:
        raise ValueError(f"`choose` must be one of {', '.join(CHOICES)}. Received: {policy!r}.")
    if policy == "only":
        return faces[0] if len(faces) == 1 else None
    centre = np.array([shape[1], shape[0]], np.float32) / 2

    def merit(face: Face) -> float:
        if policy == "most_confident":
            return face.confidence
        area = float(face.box[2] * face.box[3])
        if policy == "largest":
            return area
        offset = face.box[:2] + face.box[2:] / 2 - centre
        return area - 2 * float(offset @ offset)

    return max(faces, key=merit)


def find_faces(images: Sequence[Image], detector: Detector, recipe: CropRecipe) -> list[Finding]:
    """Detect in each picture, at `recipe.max_side` at most, and choose by `recipe.choose`.

    Returns:
        A finding for each picture, in the given order, in pixels of the picture as given.
    """
    limited = [limit_side(image, recipe.max_side) for image in images]
    found = detector.detect([image for image, _ in limited])
    findings = []
    for (image, scale), faces in zip(limited, found, strict=True):
        sure = [face for face in faces if face.confidence >= recipe.min_confidence]
        if not sure:
            findings.append(Finding(None, len(faces), LOW_CONFIDENCE if faces else NO_FACE))
            continue
        face = choose_face(sure, image.shape, recipe.choose)
        findings.append(
            Finding(face.scaled(1 / scale), len(faces)) if face else Finding(None, len(faces), MANY_FACES)
        )
    return findings


def crop_found(image: Image, finding: Finding, recipe: CropRecipe) -> Image | None:
    """The crop of a finding's face, (size, size, 3) uint8; None where no face was chosen."""
    if finding.face is None:
        return None
    return crop_face(image, finding.face.box, finding.face.landmarks, recipe)
