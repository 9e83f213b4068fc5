"""Find faces with MTCNN, and choose the one that a picture is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from facekit.alignment import CropRecipe, Points, crop_face
from facekit.images import Image, limit_side
from facekit.mtcnn_cascade import Cascade

CHOICES = ("largest_centred", "largest", "most_confident", "only")

NO_FACE, LOW_CONFIDENCE, MANY_FACES = "no_face", "low_confidence", "many_faces"


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
    """MTCNN (Zhang et al., "Joint Face Detection and Alignment", SPL 2016) as the `mtcnn` package has it.

    Faces, boxes, scores and landmarks are those of mtcnn 1.0.0 for one picture at a time, computed from its weights
    by `facekit.mtcnn_cascade` without TensorFlow. A picture is searched by itself on one thread: its answer never
    depends on the pictures beside it. Several cores are used by several processes, each with a detector. A search
    takes some 25 bytes of memory a pixel.

    Args:
        min_face: side of the smallest face to look for, in pixels of the picture given, at least 12. Large
            pictures are searched faster without their smallest faces.
        rounded: give whole pixels, as the package does.

    Raises:
        ValueError: `min_face` is below 12, or the weights of mtcnn 1.0.0 are not installed.
    """

    def __init__(self, *, min_face: float = 20, rounded: bool = True):
        from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

        self._cascade = Cascade(min_face)
        self._threads = ThreadpoolController()
        self._rounded = rounded

    def detect(self, images: Sequence[Image]) -> list[list[Face]]:
        """All faces of each picture.

        Args:
            images: (H, W, 3) uint8 RGB each, of any sizes.

        Returns:
            A list of faces for each picture, in the given order, each in falling order of confidence; empty where
            none was found.
        """
        # The products are too small to be worth sharing between threads, and processes use the other cores.
        with self._threads.limit(limits=1, user_api="blas"):
            return [self._faces(image) for image in images]

    def _faces(self, image: Image) -> list[Face]:
        found = self._cascade(image)
        boxes = np.concatenate([found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]], axis=1)
        landmarks = found.landmarks
        if self._rounded:
            boxes, landmarks = boxes.round(), landmarks.round()
        parts = zip(boxes.astype(np.float32), found.scores, landmarks.astype(np.float32), strict=True)
        return [Face(box, float(score), points) for box, score, points in parts]


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
