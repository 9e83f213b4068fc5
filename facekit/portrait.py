"""Draw a person: shaded skin, eyes, nose, mouth, hair, clothes and what is in front of them.

Shapes are in face units (see `facekit.likeness`); a `facekit.canvas.Canvas` brings them to pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from facekit.canvas import Canvas, View, ellipse, ribbon, spline
from facekit.likeness import Appearance, Identity

_DARK = np.array([34.0, 22.0, 20.0])
_EYE_WHITE = np.array([240.0, 236.0, 232.0])
_TEETH = np.array([244.0, 240.0, 230.0])
_IRIS_RADIUS = 0.105
_MIRROR = np.array([-1.0, 1.0])


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
        return spline(np.concatenate([[(0.0, -1.55)], right, [(0.0, chin)], (right * _MIRROR)[::-1]]), closed=True)

    def landmarks(self, view: View) -> np.ndarray:
        """The five landmarks in the picture, (5, 2) float64 pixels: eyes, tip of the nose, corners of the mouth."""
        return np.concatenate([
            view.place(self.eyes), view.place(self.nose[None], lift=0.1), view.place(self.mouth)
        ])  # fmt: skip

    def box(self, view: View) -> np.ndarray:
        """The face's box in the picture, (4,) float64 pixels: left, top, width, height; mid-forehead to chin."""
        edge = self.outline
        placed = view.place(edge[edge[:, 1] > -0.75], turn=_OUTLINE_TURN)
        low, high = placed.min(axis=0), placed.max(axis=0)
        return np.concatenate([low, high - low])


# The edge of a head is where it curves away: it follows a turn only in part.
_OUTLINE_TURN = 0.4


def paint_portrait(canvas: Canvas, sitter: Sitter, rng: np.random.Generator) -> None:
    """Paint a person over what is on the canvas.

    Args:
        canvas: its image is changed in place.
        sitter: who, and how.
        rng: for strands of hair.
    """
    _paint_hair_behind(canvas, sitter)
    _paint_body(canvas, sitter)
    _paint_skin(canvas, sitter)
    _paint_beard(canvas, sitter)
    _paint_marks(canvas, sitter)
    _paint_nose(canvas, sitter)
    _paint_mouth(canvas, sitter)
    for side in (0, 1):
        _paint_eye(canvas, sitter, side)
        _paint_brow(canvas, sitter, side)
    _light_face(canvas, sitter)
    _paint_hair(canvas, sitter, rng)
    if sitter.look.glasses:
        _paint_glasses(canvas, sitter)
    if sitter.look.occlusion != "none":
        {"cap": _paint_cap, "scarf": _paint_scarf, "hand": _paint_hand}[sitter.look.occlusion](canvas, sitter)


def _skin(sitter: Sitter, factor: float = 1.0) -> np.ndarray:
    """The skin's colour, darkened as skin darkens: blue first, red last."""
    return np.array(sitter.person.skin) * factor ** np.array([0.85, 1.1, 1.2])


def _hair(sitter: Sitter, factor: float = 1.0) -> np.ndarray:
    return np.clip(np.array(sitter.person.hair) * sitter.look.hair_shade * factor, 4, 250)


def _hair_edge(sitter: Sitter) -> np.ndarray:
    """Right half of the hair's outer edge, (4, 2), from the top down to the ear."""
    p = sitter.person
    volume, w = p.hair_volume * sitter.look.hair_volume * (1 + 0.8 * p.curl), p.face_width
    return np.array([
        (0.0, -1.52 - volume), (0.62 * w, -1.38 - 0.85 * volume), (w + 0.5 * volume, -0.72 - 0.2 * volume),
        (w + 0.6 * volume, 0.1),
    ])  # fmt: skip


def _wavy(edge: np.ndarray, curl: float) -> np.ndarray:
    """A closed edge with curls."""
    angle = np.linspace(0, 2 * np.pi, len(edge), endpoint=False)
    centre = edge.mean(axis=0)
    return centre + (edge - centre) * (1 + 0.035 * curl * np.sin(13 * angle) + 0.02 * curl * np.sin(29 * angle))[:, None]


def _paint_hair_behind(canvas: Canvas, sitter: Sitter) -> None:
    p = sitter.person
    if p.bald:
        return
    tied = sitter.look.hair_tied
    end = min(p.hair_end, 0.35) if tied else p.hair_end
    width = _hair_edge(sitter)[-1, 0]
    low = [(width + 0.1, end), (0.8 * width, end + 0.1)] if end > 0.8 else [(0.93 * width, end)]
    right = np.concatenate([_hair_edge(sitter), low])
    edge = spline(np.concatenate([right, (right[1:] * _MIRROR)[::-1]]), closed=True)
    canvas.fill(_wavy(edge, p.curl), _hair(sitter, 0.62), soft=0.02, turn=_OUTLINE_TURN)
    if tied and p.hair_end > 0.8:
        canvas.fill(ellipse(0, -1.75 - p.hair_volume, 0.42, 0.36), _hair(sitter, 0.75), soft=0.02, turn=0.2)


def _paint_body(canvas: Canvas, sitter: Sitter) -> None:
    w, chin = sitter.person.face_width, sitter.chin_y
    cloth = np.array(sitter.look.clothes)
    right = np.array([(0.6, chin + 0.42), (1.0, chin + 0.66), (2.1, chin + 0.95), (2.75, chin + 1.6), (3.1, 6.5)])
    shoulders = spline(np.concatenate([right, (right * _MIRROR)[::-1]]), closed=True)
    canvas.fill(shoulders, cloth, soft=0.015, turn=0)
    half = 0.62 * w
    neck = spline(np.array([
        (-half, 0.9), (-half, chin), (-half - 0.12, chin + 0.5), (0.0, chin + 0.95), (half + 0.12, chin + 0.5),
        (half, chin), (half, 0.9),
    ]), closed=True)  # fmt: skip
    canvas.fill(neck, _skin(sitter, 0.82), soft=0.015, turn=0.1)
    shade = ellipse(0.1 * -sitter.look.light_x, chin + 0.05, 0.8 * w, 0.38)
    canvas.fill(shade, _skin(sitter, 0.45), opacity=0.75, soft=0.1, clip=neck, turn=0.1)
    for side in (-1, 1):
        fold = spline([(side * half, chin + 0.6), (side * 0.4, chin + 1.0), (side * 0.05, chin + 1.15)])
        canvas.fill(ribbon(fold, 0.09), cloth * 0.7, opacity=0.8, soft=0.015, turn=0)


def _paint_skin(canvas: Canvas, sitter: Sitter) -> None:
    p, look = sitter.person, sitter.look
    for side in (-1, 1):
        x = side * (p.face_width + 0.04)
        canvas.fill(ellipse(x, 0.22, 0.15 * p.ear_size, 0.3 * p.ear_size), _skin(sitter, 0.86), soft=0.012, turn=-0.3)
        canvas.fill(ellipse(x, 0.24, 0.07 * p.ear_size, 0.18 * p.ear_size), _skin(sitter, 0.6), 0.7, 0.03, turn=-0.3)
    canvas.fill(sitter.outline, _skin(sitter), soft=0.012, turn=_OUTLINE_TURN)
    rosy = np.array(p.skin) * np.array([1.0, 0.72, 0.7])
    cheek = ellipse(0.66, 0.66, 0.26, 0.2)
    canvas.fill([cheek, cheek * _MIRROR], rosy, p.blush + 0.3 * look.makeup, 0.1)
    sockets = [ellipse(x, -0.02, 0.32, 0.2) for x in sitter.eyes[:, 0]]
    canvas.fill(sockets, _skin(sitter, 0.66), 0.5, 0.1)
    folds = []
    for side in (-1, 1):
        fold = [(side * (p.nose_width + 0.06), p.nose_length), (side * (p.mouth_width + 0.1), p.mouth_y - 0.12)]
        folds.append(ribbon(spline([*fold, (side * (p.mouth_width + 0.12), p.mouth_y + 0.1)]), 0.045))
    canvas.fill(folds, _skin(sitter, 0.6), 0.15 + 0.35 * p.age + 0.2 * max(look.smile, 0), 0.025)
    if p.age > 0.6:
        lines = [ribbon(spline([(-0.4, y), (0.0, y - 0.03), (0.4, y)]), 0.025) for y in (-0.62, -0.76)]
        bags = [ribbon(spline([(x - 0.2, 0.2), (x, 0.27), (x + 0.2, 0.2)]), 0.04) for x in sitter.eyes[:, 0]]
        canvas.fill(lines + bags, _skin(sitter, 0.62), 0.9 * (p.age - 0.4), 0.015)


def _paint_beard(canvas: Canvas, sitter: Sitter) -> None:
    p = sitter.person
    if p.beard == "none":
        return
    w, chin, lip = p.face_width, sitter.chin_y, p.mouth_y
    top = p.nose_length + 0.22
    moustache = spline([
        (0.0, top), (0.25, top + 0.03), (p.mouth_width + 0.1, lip + 0.08), (0.2, lip - 0.05), (0.0, lip - 0.06),
        (-0.2, lip - 0.05), (-p.mouth_width - 0.1, lip + 0.08), (-0.25, top + 0.03),
    ], closed=True)  # fmt: skip
    right = np.array([
        (0.97 * w, 0.1), (0.97 * w, 0.5), (p.jaw_width * w, 1.2), (p.chin_width, chin), (0.0, chin + 0.05),
    ])  # fmt: skip
    inner = np.array([(0.0, lip + 0.3), (p.mouth_width + 0.08, lip + 0.1), (0.7 * w, 0.85), (0.88 * w, 0.3)])
    full = spline(np.concatenate([right, (right[:-1] * _MIRROR)[::-1], inner[:0:-1] * _MIRROR, inner]), closed=True)
    goatee = ellipse(0, (lip + chin) / 2 + 0.16, 0.3, (chin - lip) / 2 - 0.08, power=2.6)
    shapes = {"moustache": [moustache], "goatee": [moustache, goatee], "full": [moustache, full],
              "stubble": [moustache, full]}[p.beard]  # fmt: skip
    strong = p.beard != "stubble"
    canvas.fill(shapes, _hair(sitter, 0.8), 0.86 if strong else 0.3, 0.035 if strong else 0.07)


def _paint_marks(canvas: Canvas, sitter: Sitter) -> None:
    p = sitter.person
    if p.freckles:
        spots = [ellipse(x, y, radius, radius, points=8) for x, y, radius in p.freckles]
        canvas.fill(spots, _skin(sitter, 0.62), 0.65)
    if p.moles:
        spots = [ellipse(x, y, radius, radius, points=12) for x, y, radius in p.moles]
        canvas.fill(spots, _skin(sitter, 0.34), 0.9, 0.006)
    if p.scar:
        x, y, angle = p.scar
        along = 0.2 * np.array([np.sin(angle), np.cos(angle)])
        line = np.linspace((x, y) - along, (x, y) + along, 8)
        canvas.fill(ribbon(line, 0.05), np.minimum(_skin(sitter) * (1.1, 0.9, 0.9) + 20, 255), 0.8, 0.01)


def _paint_nose(canvas: Canvas, sitter: Sitter) -> None:
    p, look = sitter.person, sitter.look
    x, tip = sitter.nose
    width, base = p.nose_width, tip + 0.1
    for side in (-1, 1):
        away = 0.5 - 0.5 * side * look.light_x
        flank = spline([
            (side * p.nose_bridge, 0.0), (side * (p.nose_bridge + 0.02), 0.3 * tip), (x + side * 0.7 * width, base - 0.1),
            (x + side * 0.9 * width, base), (x + side * (p.nose_bridge + 0.16), 0.5 * tip), (side * 0.26, -0.02),
        ], closed=True)  # fmt: skip
        canvas.fill(flank, _skin(sitter, 0.6), 0.15 + 0.5 * away * look.light_strength, 0.05)
        wing = spline([(x + side * 0.8 * width, base - 0.16), (x + side * width, base - 0.03), (x + side * 0.75 * width, base + 0.06)])
        canvas.fill(ribbon(wing, 0.045), _skin(sitter, 0.52), 0.6, 0.012)
    canvas.fill(ellipse(x, base + 0.14, 0.8 * width, 0.08), _skin(sitter, 0.55), 0.4, 0.05)
    nostrils = [ellipse(x + side * 0.48 * width, base + 0.035, 0.28 * width, 0.035) for side in (-1, 1)]
    canvas.fill(nostrils, _skin(sitter, 0.26), 0.85, 0.014)
    shine = np.minimum(_skin(sitter) * 1.22 + 12, 255)
    ridge = ribbon(spline([(0.0, -0.05), (0.5 * x, 0.4 * tip), (x, tip - 0.02)]), 0.09)
    canvas.fill(ridge, shine, 0.45, 0.035)
    canvas.fill(ellipse(x + 0.03 * look.light_x, tip - 0.03, 0.08, 0.065), shine, 0.6, 0.03)


def _paint_mouth(canvas: Canvas, sitter: Sitter) -> None:
    p, look = sitter.person, sitter.look
    left, right = sitter.mouth
    middle, half, y = (left[0] + right[0]) / 2, (right[0] - left[0]) / 2, left[1]
    sag = 0.06 * look.smile - 0.03
    gap = look.mouth_open

    def line(*heights: float) -> np.ndarray:
        """A curve from corner to corner through heights at the given inner points."""
        inner = np.linspace(-1, 1, len(heights) + 2)[1:-1]
        points = [(middle + half * x, y + sag + h) for x, h in zip(inner, heights, strict=True)]
        return spline([tuple(left), *points, tuple(right)])

    upper = p.upper_lip
    top = line(-0.5 * upper, -1.05 * upper, -0.85 * upper, -1.05 * upper, -0.5 * upper)
    seam = line(0.0, -0.1 * gap, 0.0)
    floor = line(0.75 * gap, gap, 0.75 * gap)
    bottom = line(0.7 * p.lower_lip + 0.7 * gap, p.lower_lip + gap, 0.7 * p.lower_lip + 0.7 * gap)
    lips = np.array(p.lips) * (1, 1 - 0.35 * look.makeup, 1 - 0.3 * look.makeup)
    canvas.fill(ellipse(middle, y + sag + gap + p.lower_lip + 0.1, 0.6 * half, 0.05), _skin(sitter, 0.55), 0.45, 0.04)
    inside = np.concatenate([seam, floor[::-1]])
    if gap > 0:
        canvas.fill(inside, np.array([70.0, 22.0, 24.0]), soft=0.006)
        teeth = np.concatenate([seam, line(0.35 * gap, 0.5 * gap, 0.35 * gap)[::-1]])
        canvas.fill(teeth, _TEETH, 0.92, 0.01, clip=inside)
    canvas.fill(np.concatenate([top, seam[::-1]]), lips * 0.84, 0.92, 0.01)
    canvas.fill(np.concatenate([floor, bottom[::-1]]), lips, 0.92, 0.012)
    canvas.fill(ellipse(middle, y + sag + gap + 0.5 * p.lower_lip, 0.4 * half, 0.022), np.minimum(lips * 1.3, 255), 0.5, 0.02)
    if gap == 0:
        canvas.fill(ribbon(seam, 0.03, 0.5, 0.5), lips * 0.36, 0.85, 0.006)


def _paint_eye(canvas: Canvas, sitter: Sitter, side: int) -> None:
    """Paint the left (0) or the right (1) eye of the picture."""
    p, look = sitter.person, sitter.look
    centre, outward = sitter.eyes[side], (-1.0, 1.0)[side]
    e, high = p.eye_width, p.eye_height * look.eyes_open

    def curve(*points: tuple[float, float]) -> np.ndarray:
        """A curve through points (outwards as a share of the half-width, down), tilted with the eye."""
        given = np.array([(x * e, y - p.eye_tilt * x * e) for x, y in points])
        return centre + spline(given) * (outward, 1.0)

    upper = curve((-1, 0.02), (-0.5, -0.72 * high), (0.05, -high), (0.6, -0.72 * high), (1, 0))
    lower = curve((-1, 0.02), (-0.4, 0.62 * high), (0.2, 0.74 * high), (0.7, 0.45 * high), (1, 0))
    almond = np.concatenate([upper, lower[::-1]])
    lid = np.concatenate([upper + (0, -p.lid), upper[::-1]])
    canvas.fill(lid, _skin(sitter, 0.72) * (1, 1 - 0.2 * look.makeup, 1), 0.55 + 0.3 * look.makeup, 0.02)
    canvas.fill(almond, _EYE_WHITE, soft=0.006)
    x, y = centre + (look.gaze_x, look.gaze_y - 0.01)
    iris = np.array(p.iris)
    canvas.fill(ellipse(x, y, _IRIS_RADIUS, _IRIS_RADIUS), iris * 0.5, clip=almond)
    canvas.fill(ellipse(x, y + 0.008, 0.8 * _IRIS_RADIUS, 0.8 * _IRIS_RADIUS), np.minimum(iris * 1.15, 255), 0.9, 0.012, clip=almond)
    canvas.fill(ellipse(x, y, 0.046, 0.046), _DARK * 0.4, 0.95, clip=almond)
    canvas.fill(lid + (0, 0.8 * p.lid), _DARK, 0.3, 0.02, clip=almond)
    canvas.fill(ellipse(x + 0.035 * look.light_x, y - 0.035, 0.022, 0.022), np.full(3, 255.0), 0.9, 0.004, clip=almond)
    canvas.fill(ribbon(upper, 0.035 + 0.03 * look.makeup, 0.4, 0.8), _DARK, 0.88, 0.006)
    canvas.fill(ribbon(lower, 0.018), _skin(sitter, 0.4), 0.6, 0.008)
    canvas.fill(ribbon(upper + (0, -p.lid), 0.024), _skin(sitter, 0.42), 0.6, 0.01)


def _paint_brow(canvas: Canvas, sitter: Sitter, side: int) -> None:
    p, look = sitter.person, sitter.look
    outward = (-1.0, 1.0)[side]
    x, _ = sitter.eyes[side]
    e, y = p.eye_width * p.brow_length, p.brow_y - look.brow_raise
    points = np.array([(-0.95, 0.03), (-0.3, -0.02), (0.4, -p.brow_arch), (1.2, 0.05)])
    curve = np.array([(x + outward * u * e, y + v - p.brow_tilt * u * e) for u, v in points])
    # Brows are seldom fairer than a middle brown.
    colour = np.minimum(_hair(sitter, 0.72), (120, 92, 66))
    canvas.fill(ribbon(spline(curve), p.brow_thickness, 0.75, 0.15), colour, 0.85, 0.014)


def _light_face(canvas: Canvas, sitter: Sitter) -> None:
    """Shade the head as an ellipsoid under one lamp and an even light."""
    look, view = sitter.look, canvas.view
    height, width = canvas.image.shape[:2]
    columns, rows = np.meshgrid(np.linspace(0, width, 40), np.linspace(0, height, 40))
    matrix = np.asarray(view.matrix)
    pixels = np.stack([columns, rows], axis=-1) - matrix[:, 2]
    local = pixels @ matrix[:, :2] / view.scale**2
    nx = np.clip(local[..., 0] / (sitter.person.face_width + 0.12), -1, 1)
    ny = np.clip((local[..., 1] - 0.3) / 1.9, -1, 1)
    nz = np.sqrt(np.maximum(1 - nx**2 - ny**2, 0))
    lamp = np.array([look.light_x, look.light_y, 0.9])
    lamp /= np.linalg.norm(lamp)
    facing = np.maximum(nx * lamp[0] + ny * lamp[1] + nz * lamp[2], 0)
    # Faces towards the camera keep about their colour whatever the lamp's strength.
    shade = (1 + look.light_strength * (facing - 0.85)).astype(np.float32)
    shade = cv2.resize(shade, (width, height), interpolation=cv2.INTER_LINEAR)
    lit = canvas.image * shade[..., None] ** np.array([0.85, 1.05, 1.15], np.float32)
    ear = ellipse(sitter.person.face_width + 0.04, 0.22, 0.15, 0.3)
    canvas.fill([sitter.outline, ear, ear * _MIRROR], lit, soft=0.02, turn=_OUTLINE_TURN)


def _paint_hair(canvas: Canvas, sitter: Sitter, rng: np.random.Generator) -> None:
    p, look = sitter.person, sitter.look
    if p.bald:
        return
    w, top = p.face_width, p.hairline_y
    fall = max(p.fringe + look.fringe_shift, -0.1)
    side_y = 0.35 if p.beard in ("full", "stubble") else (0.1 if p.hair_end < 0.8 or look.hair_tied else 0.8)
    outer = _hair_edge(sitter)
    edge = spline(np.concatenate([[(outer[-1, 0], side_y)], outer[:0:-1], outer[:1], outer[1:] * _MIRROR,
                                  [(-outer[-1, 0], side_y)]]))  # fmt: skip
    part = 0.45 * p.hair_part
    slope = 0.3 * fall * np.sign(p.hair_part)
    line = spline([
        (-0.99 * w, side_y), (-0.96 * w, -0.3), (-0.8 * w, top + 0.32 + 0.3 * fall - slope), (-0.42 * w, top + 0.1 + 0.6 * fall - slope),
        (part, top + 0.4 * max(fall, 0.0)),
        (0.42 * w, top + 0.1 + 0.6 * fall + slope), (0.8 * w, top + 0.32 + 0.3 * fall + slope), (0.96 * w, -0.3), (0.99 * w, side_y),
    ])  # fmt: skip
    mass = _wavy(np.concatenate([edge, line]), p.curl)
    canvas.fill(line + (0, 0.08), _skin(sitter, 0.5), 0.4, 0.05, clip=sitter.outline, turn=_OUTLINE_TURN)
    canvas.fill(mass, _hair(sitter), soft=0.018, turn=_OUTLINE_TURN)
    # Strands run from the outer edge to the hairline.
    count = 44
    ends = np.stack([edge[np.linspace(2, len(edge) - 3, count).astype(int)],
                     line[::-1][np.linspace(2, len(line) - 3, count).astype(int)]])  # fmt: skip
    ends = ends + rng.normal(0, 0.06, ends.shape)
    for factor, chosen in ((0.62, range(0, count, 2)), (1.5, range(1, count, 2))):
        strands = []
        for index in chosen:
            start, end = ends[0, index], ends[1, index]
            bend = (start + end) / 2 + (0.25 * (part - end[0]) * p.curl, -0.08) + rng.normal(0, 0.05 + 0.1 * p.curl, 2)
            strands.append(ribbon(spline([start, bend, end], steps=4), 0.035))
        canvas.fill(strands, _hair(sitter, factor) + 6, 0.4, 0.012, clip=mass, turn=_OUTLINE_TURN)
    shine = spline([(-0.7 * w, -1.15), (0.1 * look.light_x, -1.38 - 0.4 * p.hair_volume), (0.7 * w, -1.15)])
    canvas.fill(ribbon(shine, 0.22), np.minimum(_hair(sitter, 1.7) + 18, 255), 0.35 * look.light_strength, 0.1, clip=mass, turn=_OUTLINE_TURN)


def _paint_glasses(canvas: Canvas, sitter: Sitter) -> None:
    look, colour = sitter.look, np.array(sitter.look.rims)
    half = 0.43 * sitter.person.eye_distance
    for side, (x, y) in zip((-1, 1), sitter.eyes, strict=True):
        rim = ellipse(x, y + 0.04, half, 0.31, look.rim_roundness, points=32)
        canvas.fill(rim, np.array([225.0, 235.0, 240.0]), 0.1)
        glint = spline([(x - 0.2, y + 0.15), (x + 0.02, y - 0.18)], steps=4)
        canvas.fill(ribbon(glint, 0.1), np.full(3, 255.0), 0.16, 0.02)
        closed = np.concatenate([rim, rim[:2]])
        canvas.fill(ribbon(closed, 0.05, 1, 1), colour, 0.92, 0.004)
        arm = spline([(x + side * half, y - 0.05), (side * (sitter.person.face_width + 0.02), y)], steps=4)
        canvas.fill(ribbon(arm, 0.05, 1, 1), colour * 0.8, 0.9, 0.005, turn=0.7)
    inner = sitter.eyes[1, 0] - half
    canvas.fill(ribbon(spline([(-inner, 0.0), (0.0, -0.05), (inner, 0.0)]), 0.05, 1, 1), colour, 0.92, 0.004)


def _paint_cap(canvas: Canvas, sitter: Sitter) -> None:
    colour, w = np.array(sitter.look.accessory), sitter.person.face_width + 0.14
    brow = -0.78
    dome = spline([(-w, brow + 0.1), (-w, -1.3), (-0.6 * w, -1.95), (0.0, -2.12), (0.6 * w, -1.95), (w, -1.3), (w, brow + 0.1),
                   (0.0, brow - 0.15)], closed=True)  # fmt: skip
    canvas.fill(dome, colour, soft=0.015, turn=_OUTLINE_TURN)
    canvas.fill(ribbon(spline([(0.0, -2.1), (0.0, -1.5), (0.0, -0.95)]), 0.04, 1, 1), colour * 0.7, 0.8, 0.01, turn=0.6)
    brim = spline([(-w, brow), (-0.5 * w, brow - 0.2), (0.5 * w, brow - 0.2), (w, brow), (0.5 * w, brow - 0.02), (-0.5 * w, brow - 0.02)],
                  closed=True)  # fmt: skip
    canvas.fill(brim + (0, 0.12), _DARK, 0.3, 0.05, turn=0.6)
    canvas.fill(brim, colour * 0.75, soft=0.01, turn=0.6)


def _paint_scarf(canvas: Canvas, sitter: Sitter) -> None:
    colour, chin = np.array(sitter.look.accessory), sitter.chin_y
    edge = spline([(-1.3, chin - 0.2), (-0.6, chin - 0.02), (0.0, chin - 0.06), (0.7, chin + 0.02), (1.3, chin - 0.25),
                   (1.5, chin + 1.0), (-1.5, chin + 1.0)], closed=True)  # fmt: skip
    canvas.fill(edge, colour, soft=0.02, turn=0.1)
    for drop in (0.2, 0.45, 0.7):
        fold = spline([(-1.3, chin + drop - 0.2), (-0.2, chin + drop + 0.05), (1.3, chin + drop - 0.1)])
        canvas.fill(ribbon(fold, 0.08), colour * 0.65, 0.7, 0.03, turn=0.1)


def _paint_hand(canvas: Canvas, sitter: Sitter) -> None:
    side, w, chin = sitter.look.side, sitter.person.face_width, sitter.chin_y
    palm = ellipse(side * 1.15 * w, chin - 0.1, 0.36, 0.6)
    canvas.fill(palm, _skin(sitter, 0.8), soft=0.02, turn=0)
    for index in range(4):
        base, tip = (1.2 - 0.08 * index, chin - 0.5 + 0.2 * index), (0.98 - 0.13 * index, 0.55 + 0.24 * index)
        finger = spline([(side * base[0] * w, base[1]), (side * tip[0] * w, tip[1])])
        canvas.fill(ribbon(finger, 0.22, 0.9, 0.7), _skin(sitter, 0.6), soft=0.025, turn=0)
        canvas.fill(ribbon(finger, 0.18, 0.9, 0.7), _skin(sitter, 0.88), soft=0.015, turn=0)
