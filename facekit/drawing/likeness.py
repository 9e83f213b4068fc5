"""Who a drawn person is (`Identity`), and how one picture shows them (`Appearance`): numbers, no pixels.

Lengths are in units of the mean eye distance, in a face's own frame: the origin between the eyes, x to the right
of the picture, y down. Angles are in radians. Colours are RGB, 0 to 255.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

import numpy as np

from facekit.drawing.canvas import View, spline

Colour = tuple[float, float, float]
Beard = Literal["none", "stubble", "moustache", "goatee", "full"]
Occlusion = Literal["none", "cap", "scarf", "hand"]

# From the least melanin to the most, at equal steps.
_SKIN_TONES = ((243, 208, 186), (232, 188, 156), (214, 160, 122), (158, 108, 78), (98, 66, 52))
_HAIR_COLOURS = (
    (24, 20, 22),
    (52, 36, 28),
    (96, 62, 40),
    (150, 104, 62),
    (214, 176, 116),
    (152, 70, 36),
    (176, 172, 168),
)
_IRIS_COLOURS = ((58, 36, 24), (104, 66, 34), (128, 108, 56), (88, 120, 76), (84, 130, 176), (118, 134, 146))
_BEARDS: tuple[Beard, ...] = ("stubble", "moustache", "goatee", "full")

# Factor that brings the right half of a face to the left.
MIRROR = np.array([-1.0, 1.0])
# The edge of a head is where it curves away: it follows a turn only in part.
OUTLINE_TURN = 0.4
# Where a face's box begins, between the brows and the hairline.
_BOX_TOP = -0.92

# Streams of random numbers that must not be the same although their seeds are.
_IDENTITY_STREAM, _APPEARANCE_STREAM = 1, 2


def _between(low: float, high: float) -> Any:
    """A field that is drawn evenly from a range."""
    return field(metadata={"range": (low, high)})


def _draw_ranges(kind: type, rng: np.random.Generator) -> dict[str, Any]:
    return {f.name: float(rng.uniform(*f.metadata["range"])) for f in fields(kind) if "range" in f.metadata}


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What stays the same in all pictures of one person."""

    # Outline. Widths are half-widths; the next three are shares of `face_width`.
    face_width: float = _between(0.98, 1.22)
    forehead_width: float = _between(0.84, 0.97)
    jaw_width: float = _between(0.68, 0.92)
    chin_width: float = _between(0.22, 0.46)
    chin_y: float = _between(1.72, 2.06)
    hairline_y: float = _between(-1.2, -0.84)
    ear_size: float = _between(0.75, 1.25)

    # Eyes and brows.
    eye_distance: float = _between(0.9, 1.06)
    eye_width: float = _between(0.2, 0.26)
    eye_height: float = _between(0.075, 0.13)
    eye_tilt: float = _between(-0.12, 0.2)
    lid: float = _between(0.035, 0.1)
    brow_y: float = _between(-0.42, -0.27)
    brow_thickness: float = _between(0.035, 0.13)
    brow_arch: float = _between(-0.01, 0.09)
    brow_tilt: float = _between(-0.2, 0.22)
    brow_length: float = _between(0.95, 1.35)

    # Nose and mouth.
    nose_length: float = _between(0.5, 0.7)
    nose_width: float = _between(0.18, 0.32)
    nose_bridge: float = _between(0.07, 0.13)
    mouth_y: float = _between(1.04, 1.24)
    mouth_width: float = _between(0.32, 0.46)
    upper_lip: float = _between(0.035, 0.105)
    lower_lip: float = _between(0.06, 0.155)
    skew: float = _between(-0.035, 0.035)

    # Colours: 0 to 1, or RGB.
    blush: float = _between(0.0, 0.45)
    age: float = _between(0.0, 1.0)
    skin: Colour
    hair: Colour
    iris: Colour
    lips: Colour

    # Hair: how far it stands off, where it ends, how much falls on the forehead, where it parts, how curly.
    bald: bool
    hair_volume: float = _between(0.1, 0.42)
    hair_end: float
    fringe: float
    hair_part: float = _between(-0.8, 0.8)
    curl: float
    beard: Beard

    # Marks: (x, y, radius) each.
    moles: tuple[tuple[float, float, float], ...]
    freckles: tuple[tuple[float, float, float], ...]
    scar: tuple[float, float, float] | None
    """x, y, angle; or none."""
    glasses_share: float
    """Share of the pictures in which the person wears glasses."""

    @classmethod
    def from_seed(cls, seed: int, index: int) -> Identity:
        """The person number `index` of the population `seed`; a pure function of the two.

        Args:
            seed: 0 or more.
            index: 0 or more.

        Raises:
            ValueError: a number is negative.
        """
        rng = _stream(_IDENTITY_STREAM, seed, index)
        return cls(**_draw_ranges(cls, rng), **_draw_colours(rng), **_draw_hair(rng), **_draw_marks(rng))


def _draw_colours(rng: np.random.Generator) -> dict[str, Any]:
    melanin, undertone = rng.beta(1.2, 1.2), rng.uniform(-1, 1)
    steps = np.linspace(0, 1, len(_SKIN_TONES))
    skin = np.array([np.interp(melanin, steps, channel) for channel in np.transpose(_SKIN_TONES)])
    skin = skin + undertone * np.array([5.0, -2.0, -9.0])
    # Fair hair and eyes get rarer with melanin, as in life.
    fair = max(0.06, 1.0 - 1.5 * melanin)
    weights = np.array([1.0, 1.0, 0.8, 0.6 * fair, 0.7 * fair, 0.5 * fair, 0.35])
    hair = np.array(_HAIR_COLOURS[rng.choice(len(_HAIR_COLOURS), p=weights / weights.sum())])
    weights = np.array([1.5, 1.0, 0.7 * fair, 0.7 * fair, 1.2 * fair, 0.6 * fair])
    iris = np.array(_IRIS_COLOURS[rng.choice(len(_IRIS_COLOURS), p=weights / weights.sum())])
    lips = skin * np.array([0.86, 0.62, 0.64]) + rng.uniform(-1, 1) * np.array([14.0, 8.0, 4.0])
    hair = hair * rng.uniform(0.8, 1.2) + rng.uniform(-6, 6, 3)
    return {"skin": _colour(skin), "hair": _colour(hair), "iris": _colour(iris + rng.uniform(-10, 10, 3)),
            "lips": _colour(lips)}  # fmt: skip


def _draw_hair(rng: np.random.Generator) -> dict[str, Any]:
    bearded = rng.random() < 0.32
    long = rng.random() < (0.12 if bearded else 0.6)
    return {
        "beard": _BEARDS[rng.integers(len(_BEARDS))] if bearded else "none",
        "bald": bool(not long and rng.random() < 0.08),
        "hair_end": float(rng.uniform(1.1, 2.8) if long else rng.uniform(-0.15, 0.45)),
        "fringe": float(rng.uniform(0.4, 0.7) if rng.random() < 0.25 else rng.uniform(-0.1, 0.3)),
        "curl": float(rng.uniform(0.4, 1.0) if rng.random() < 0.3 else 0.0),
    }


def _draw_marks(rng: np.random.Generator) -> dict[str, Any]:
    def spots(count: int, low: tuple[float, ...], high: tuple[float, ...]) -> tuple[Any, ...]:
        return tuple(map(tuple, rng.uniform(low, high, (count, 3)).tolist()))

    freckled = rng.random() < 0.22
    return {
        "moles": spots(int(rng.poisson(0.9)), (-0.75, -0.6, 0.022), (0.75, 1.5, 0.05)),
        "freckles": spots(int(rng.integers(25, 60)) if freckled else 0, (-0.7, 0.2, 0.01), (0.7, 0.85, 0.022)),
        "scar": tuple(rng.uniform((-0.7, -0.7, -1.2), (0.7, 1.4, 1.2)).tolist()) if rng.random() < 0.08 else None,
        "glasses_share": 0.7 if rng.random() < 0.25 else 0.05,
    }


@dataclass(frozen=True, kw_only=True)
class Appearance:
    """What differs between two pictures of one person."""

    # Pose and place: radians, and shares of what is free.
    roll: float = _between(-0.18, 0.18)
    yaw: float = _between(-0.3, 0.3)
    pitch: float = _between(-0.2, 0.2)
    face_share: float = _between(0.36, 0.6)
    """Height of the face's box as a share of the picture's side."""
    place_x: float = _between(0.25, 0.75)
    place_y: float = _between(0.32, 0.62)

    # Expression.
    mouth_open: float
    smile: float = _between(-0.25, 1.0)
    eyes_open: float = _between(0.62, 1.15)
    brow_raise: float = _between(-0.04, 0.07)
    gaze_x: float = _between(-0.05, 0.05)
    gaze_y: float = _between(-0.02, 0.02)

    # Light and camera.
    light_x: float = _between(-0.9, 0.9)
    light_y: float = _between(-0.9, 0.25)
    light_strength: float = _between(0.2, 0.65)
    exposure: float = _between(0.75, 1.2)
    temperature: float = _between(-0.1, 0.1)
    contrast: float = _between(0.85, 1.15)
    blur: float
    """Standard deviation as a share of the picture's side."""
    noise: float = _between(0.5, 6.0)
    """Standard deviation in grey levels."""
    jpeg_quality: int

    # What the person has on, and where they are.
    hair_tied: bool
    hair_volume: float = _between(0.75, 1.35)
    hair_shade: float = _between(0.82, 1.2)
    fringe_shift: float = _between(-0.12, 0.15)
    makeup: float
    glasses: bool
    rims: Colour
    rim_roundness: float = _between(2.0, 5.0)
    occlusion: Occlusion
    side: float
    """-1 or 1: from which side a hand comes."""
    clothes: Colour
    accessory: Colour
    texture_seed: int
    """Seed of the background, of strands of hair and of the camera's noise."""

    @classmethod
    def from_seed(cls, seed: int, person: int, picture: int, glasses_share: float) -> Appearance:
        """How picture `picture` of a person shows them; a pure function of the arguments.

        Args:
            seed: the population's, 0 or more.
            person: the person's index, 0 or more.
            picture: the picture's index, 0 or more.
            glasses_share: chance of glasses, 0 to 1.

        Raises:
            ValueError: a number is negative.
        """
        rng = _stream(_APPEARANCE_STREAM, seed, person, picture)
        return cls(
            **_draw_ranges(cls, rng),
            mouth_open=float(rng.uniform(0.05, 0.24)) if rng.random() < 0.35 else 0.0,
            blur=float(rng.uniform(0.0, 0.006)) if rng.random() < 0.5 else 0.0,
            jpeg_quality=int(rng.integers(45, 97)),
            hair_tied=bool(rng.random() < 0.3),
            makeup=float(rng.uniform(0.2, 0.8)) if rng.random() < 0.2 else 0.0,
            glasses=bool(rng.random() < glasses_share),
            rims=_colour(rng.uniform(15, 90) + rng.uniform(-12, 40, 3)),
            occlusion=_draw_occlusion(rng),
            side=float(rng.choice((-1.0, 1.0))),
            clothes=_colour(rng.uniform(20, 235, 3)),
            accessory=_colour(rng.uniform(25, 225, 3)),
            texture_seed=int(rng.integers(2**31)),
        )


def _draw_occlusion(rng: np.random.Generator) -> Occlusion:
    kinds: tuple[Occlusion, ...] = ("none", "cap", "scarf", "hand")
    return kinds[rng.choice(len(kinds), p=(0.82, 0.08, 0.07, 0.03))]


def _colour(values: np.ndarray) -> Colour:
    red, green, blue = np.clip(values, 8, 250).tolist()
    return red, green, blue


def _stream(stream: int, *numbers: int) -> np.random.Generator:
    if min(numbers) < 0:
        raise ValueError(f"Seeds, people and pictures are numbered from 0. Received: {numbers}.")
    return np.random.default_rng([stream, *numbers])


@dataclass(frozen=True)
class Sitter:
    """A person as one picture shows them: where the features are, in face units."""

    person: Identity
    look: Appearance

    @cached_property
    def eyes(self) -> np.ndarray:
        """Middles of the eyes, (2, 2), left in the picture first."""
        half = self.person.eye_distance / 2
        return np.array([[-half, 0.0], [half, 0.0]])

    @cached_property
    def nose(self) -> np.ndarray:
        """Tip of the nose, (2,)."""
        return np.array([self.person.skew, self.person.nose_length])

    @cached_property
    def mouth(self) -> np.ndarray:
        """Corners of the mouth, (2, 2), left in the picture first."""
        half = self.person.mouth_width * (1 + 0.16 * self.look.smile - 0.4 * self.look.mouth_open)
        y = self.person.mouth_y - 0.05 * self.look.smile + 0.25 * self.look.mouth_open
        return np.array([[-half - 0.5 * self.person.skew, y], [half - 0.5 * self.person.skew, y]])

    @cached_property
    def chin_y(self) -> float:
        """Lowest point of the chin."""
        return self.person.chin_y + 0.5 * self.look.mouth_open

    @cached_property
    def outline(self) -> np.ndarray:
        """Edge of the face, a polygon (N, 2)."""
        p, drop = self.person, self.look.mouth_open
        w, chin = p.face_width, self.chin_y
        right = np.array([
            (0.5 * w, -1.42), (p.forehead_width * w, -0.9), (w, -0.1), (0.98 * w, 0.45),
            (p.jaw_width * w, 1.18 + 0.2 * drop), (p.chin_width, chin - 0.1),
        ])  # fmt: skip
        return spline(np.concatenate([[(0.0, -1.55)], right, [(0.0, chin)], (right * MIRROR)[::-1]]), closed=True)

    def landmarks(self, view: View) -> np.ndarray:
        """The five landmarks in the picture, (5, 2) float64 pixels: eyes, tip of the nose, corners of the mouth."""
        return np.concatenate([
            view.place(self.eyes), view.place(self.nose[None], lift=0.1), view.place(self.mouth)
        ])  # fmt: skip

    def box(self, view: View) -> np.ndarray:
        """The face's box in the picture, (4,) float64 pixels: left, top, width, height; mid-forehead to chin."""
        edge = self.outline
        placed = view.place(edge[edge[:, 1] > _BOX_TOP], turn=OUTLINE_TURN)
        low, high = placed.min(axis=0), placed.max(axis=0)
        return np.concatenate([low, high - low])

    def skin(self, factor: float = 1.0) -> np.ndarray:
        """The skin's colour, (3,) RGB, darkened by a factor as skin darkens: blue first, red last."""
        return np.minimum(np.array(self.person.skin) * factor ** np.array([0.85, 1.1, 1.2]), 255)

    def hair(self, factor: float = 1.0) -> np.ndarray:
        """The hair's colour, (3,) RGB, darkened by a factor."""
        return np.clip(np.array(self.person.hair) * self.look.hair_shade * factor, 4, 250)
