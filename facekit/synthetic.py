"""Faces drawn on demand, with exact labels: training data for a first run, and test data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from facekit.drawing.canvas import View, similarity
from facekit.drawing.likeness import Appearance, Identity, Sitter
from facekit.drawing.portrait import take_picture

_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
# Small pictures are drawn at this many pixels or more, then reduced: OpenCV's thinnest line is a pixel wide.
_SMALLEST_DRAWING = 200
_CROP_JITTER = 0.008


@dataclass(frozen=True)
class Photo:
    image: np.ndarray
    identity: int
    box: np.ndarray
    landmarks: np.ndarray


def draw_photo(seed: int, person: int, picture: int, size: int = 250) -> Photo:
    identity, look = _likeness(seed, person, picture)
    sitter = Sitter(identity, look)
    return _develop(sitter, _photo_view(sitter, size), person, size)


def draw_crop(seed: int, person: int, picture: int, size: int = 112) -> Photo:
    identity, look = _likeness(seed, person, picture)
    sitter = Sitter(identity, look)
    return _develop(sitter, _crop_view(sitter, size), person, size)


def _likeness(seed, person, picture):
    identity = Identity.from_seed(seed, person)
    return identity, Appearance.from_seed(seed, person, picture, identity.glasses_share)


def _photo_view(sitter: Sitter, size: int) -> View:
    look = sitter.look
    c, s = np.cos(look.roll), np.sin(look.roll)
    turned = View(look.yaw, look.pitch, ((c, -s, 0.0), (s, c, 0.0)))
    left, top, width, height = sitter.box(turned)
    scale = look.face_share * size / max(width, height)
    shift = (size - scale * np.array([width, height])) * (look.place_x, look.place_y) - scale * np.array(
        [left, top]
    )
    return View(look.yaw, look.pitch, ((scale * c, -scale * s, shift[0]), (scale * s, scale * c, shift[1])))


def _crop_view(sitter: Sitter, size: int) -> View:
    look = sitter.look
    turned = View(look.yaw, look.pitch)
    rng = np.random.default_rng([look.texture_seed, 1])
    target = (_TEMPLATE / 112 + rng.normal(0, _CROP_JITTER, (5, 2))) * size
    matrix = similarity(sitter.landmarks(turned), target)
    return View(look.yaw, look.pitch, tuple(map(tuple, matrix.tolist())))


def _develop(sitter, view, person, size):
    return Photo(
        take_picture(sitter, view, size),
        person,
        sitter.box(view).astype(np.float32),
        sitter.landmarks(view).astype(np.float32),
    )
