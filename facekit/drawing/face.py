"""Paint a face: skin, nose, mouth, eyes, brows, beard and marks, each over what is on the canvas already.

Shapes are in face units (see `facekit.drawing.likeness`); the canvas brings them to pixels.
"""

from __future__ import annotations

import numpy as np

from facekit.drawing.canvas import Canvas, ellipse, ribbon, spline
from facekit.drawing.likeness import MIRROR, OUTLINE_TURN, Sitter

_DARK = np.array([34.0, 22.0, 20.0])
_EYE_WHITE = np.array([242.0, 238.0, 234.0])
_TEETH = np.array([244.0, 240.0, 230.0])
_THROAT = np.array([70.0, 22.0, 24.0])
_WHITE = np.full(3, 255.0)
_IRIS_RADIUS = 0.108
_SIDES = (-1, 1)


def paint_face(canvas: Canvas, sitter: Sitter) -> None:
    """Paint ears, skin and features in even light.

    Args:
        canvas: its image is changed in place.
        sitter: who, and how.
    """
    _paint_ears(canvas, sitter)
    _paint_skin(canvas, sitter)
    _paint_wrinkles(canvas, sitter)
    _paint_beard(canvas, sitter)
    _paint_marks(canvas, sitter)
    _paint_nose(canvas, sitter)
    _paint_mouth(canvas, sitter)
    for side in (0, 1):
        _paint_eye(canvas, sitter, side)
        _paint_brow(canvas, sitter, side)


def _paint_ears(canvas: Canvas, sitter: Sitter) -> None:
    p = sitter.person
    for side in _SIDES:
        x = side * (p.face_width + 0.03)
        canvas.fill(ellipse(x, 0.22, 0.15 * p.ear_size, 0.3 * p.ear_size), sitter.skin(0.86), soft=0.012, turn=-0.3)
        canvas.fill(ellipse(x, 0.24, 0.07 * p.ear_size, 0.18 * p.ear_size), sitter.skin(0.6), 0.7, 0.03, turn=-0.3)


def _paint_skin(canvas: Canvas, sitter: Sitter) -> None:
    p, look = sitter.person, sitter.look
    canvas.fill(sitter.outline, sitter.skin(), soft=0.012, turn=OUTLINE_TURN)
    jaw = ellipse(0, sitter.chin_y + 0.02, 0.6 * p.face_width, 0.1)
    canvas.fill(jaw, sitter.skin(0.7), 0.4, 0.08, clip=sitter.outline, turn=OUTLINE_TURN)
    rosy = np.array(p.skin) * np.array([1.0, 0.72, 0.7])
    cheek = ellipse(0.66, 0.66, 0.26, 0.2)
    canvas.fill([cheek, cheek * MIRROR], rosy, p.blush + 0.3 * look.makeup, 0.1)
    bright = np.minimum(sitter.skin() * 1.12 + 6, 255)
    canvas.fill([ellipse(0, -0.62, 0.4, 0.18), ellipse(0, sitter.chin_y - 0.22, 0.16, 0.1)], bright, 0.4, 0.1)
    sockets = [ellipse(x, -0.02, 0.32, 0.2) for x in sitter.eyes[:, 0]]
    canvas.fill(sockets, sitter.skin(0.6), 0.7, 0.09)


def _paint_wrinkles(canvas: Canvas, sitter: Sitter) -> None:
    p, look = sitter.person, sitter.look
    folds = []
    for side in _SIDES:
        above, corner = (side * (p.nose_width + 0.06), p.nose_length), side * (p.mouth_width + 0.1)
        fold = spline([above, (corner, p.mouth_y - 0.12), (corner + 0.02 * side, p.mouth_y + 0.1)])
        folds.append(ribbon(fold, 0.045))
    canvas.fill(folds, sitter.skin(0.6), 0.1 + 0.3 * p.age + 0.2 * max(look.smile, 0.0), 0.025)
    if p.age > 0.6:
        lines = [ribbon(spline([(-0.4, y), (0.0, y - 0.03), (0.4, y)]), 0.025) for y in (-0.62, -0.76)]
        bags = [ribbon(spline([(x - 0.2, 0.2), (x, 0.27), (x + 0.2, 0.2)]), 0.04) for x in sitter.eyes[:, 0]]
        canvas.fill(lines + bags, sitter.skin(0.62), 0.9 * (p.age - 0.4), 0.015)


def _paint_beard(canvas: Canvas, sitter: Sitter) -> None:
    p = sitter.person
    if p.beard == "none":
        return
    w, chin, lip = p.face_width, sitter.chin_y, p.mouth_y
    top = p.nose_length + 0.22
    half = np.array([(0.25, top + 0.03), (p.mouth_width + 0.1, lip + 0.08), (0.2, lip - 0.05)])
    moustache = spline(
        np.concatenate([[(0.0, top)], half, [(0.0, lip - 0.06)], (half * MIRROR)[::-1]]), closed=True
    )
    edge = np.array([(0.97 * w, 0.1), (0.97 * w, 0.5), (p.jaw_width * w, 1.2), (p.chin_width, chin)])
    inner = np.array([(p.mouth_width + 0.08, lip + 0.1), (0.7 * w, 0.85), (0.88 * w, 0.3)])
    outside = np.concatenate([edge, [(0.0, chin + 0.05)], (edge * MIRROR)[::-1]])
    full = spline(np.concatenate([outside, inner[::-1] * MIRROR, [(0.0, lip + 0.3)], inner]), closed=True)
    goatee = ellipse(0, (lip + chin) / 2 + 0.14, 0.36, (chin - lip) / 2 - 0.08, power=2.8)
    cheek = [ellipse(side * (p.mouth_width + 0.02), lip + 0.16, 0.07, 0.22) for side in _SIDES]
    shapes = {
        "moustache": [moustache],
        "goatee": [moustache, goatee, *cheek],
        "full": [moustache, full],
        "stubble": [moustache, full],
    }[p.beard]
    thick = p.beard != "stubble"
    canvas.fill(shapes, sitter.hair(0.8), 0.72 if thick else 0.3, 0.035 if thick else 0.07)


def _paint_marks(canvas: Canvas, sitter: Sitter) -> None:
    p = sitter.person
    if p.freckles:
        spots = [ellipse(x, y, radius, radius, points=8) for x, y, radius in p.freckles]
        canvas.fill(spots, sitter.skin(0.62), 0.65)
    if p.moles:
        spots = [ellipse(x, y, radius, radius, points=12) for x, y, radius in p.moles]
        canvas.fill(spots, sitter.skin(0.34), 0.9, 0.006)
    if p.scar:
        x, y, angle = p.scar
        along = 0.2 * np.array([np.sin(angle), np.cos(angle)])
        line = np.linspace((x, y) - along, (x, y) + along, 8)
        canvas.fill(ribbon(line, 0.05), np.minimum(sitter.skin() * (1.1, 0.9, 0.9) + 20, 255), 0.8, 0.01)


def _paint_nose(canvas: Canvas, sitter: Sitter) -> None:
    p, look = sitter.person, sitter.look
    x, tip = sitter.nose
    width, base = p.nose_width, tip + 0.1
    for side in _SIDES:
        flank = np.array([
            (side * p.nose_bridge, 0.0), (side * (p.nose_bridge + 0.02), 0.3 * tip),
            (x + side * 0.7 * width, base - 0.1), (x + side * 0.9 * width, base),
            (x + side * (p.nose_bridge + 0.16), 0.5 * tip), (side * 0.26, -0.02),
        ])  # fmt: skip
        away = 0.5 - 0.5 * side * look.light_x
        canvas.fill(spline(flank, closed=True), sitter.skin(0.6), 0.22 + 0.7 * away * look.light_strength, 0.055)
        wing = [(x + side * share * width, base + drop) for share, drop in ((0.8, -0.16), (1, -0.03), (0.75, 0.06))]
        canvas.fill(ribbon(spline(wing), 0.045), sitter.skin(0.48), 0.8, 0.014)
    canvas.fill(ellipse(x, base + 0.14, 0.8 * width, 0.08), sitter.skin(0.5), 0.55, 0.05)
    nostrils = [ellipse(x + side * 0.48 * width, base + 0.035, 0.28 * width, 0.035) for side in _SIDES]
    canvas.fill(nostrils, sitter.skin(0.24), 1.0, 0.016)
    shine = np.minimum(sitter.skin() * 1.22 + 12, 255)
    ridge = spline([(0.0, -0.05), (0.5 * x, 0.4 * tip), (x, tip - 0.02)])
    canvas.fill(ribbon(ridge, p.nose_bridge), shine, 0.6, 0.04)
    canvas.fill(ellipse(x + 0.03 * look.light_x, tip - 0.03, 0.08, 0.065), shine, 0.8, 0.03)


def _paint_mouth(canvas: Canvas, sitter: Sitter) -> None:
    p, look = sitter.person, sitter.look
    left, right = sitter.mouth
    middle, half, y = (left[0] + right[0]) / 2, (right[0] - left[0]) / 2, left[1] + 0.07 * look.smile - 0.005
    up, low, gap = p.upper_lip, p.lower_lip, look.mouth_open

    def line(*heights: float) -> np.ndarray:
        """A curve from corner to corner through points evenly between, so far below the lips' seam."""
        inner = np.linspace(-1, 1, len(heights) + 2)[1:-1]
        between = [(middle + half * x, y + height) for x, height in zip(inner, heights, strict=True)]
        return spline(np.concatenate([[left], between, [right]]))

    seam, floor = line(0.0, -0.1 * gap, 0.0), line(0.75 * gap, gap, 0.75 * gap)
    top = line(-0.5 * up, -1.05 * up, -0.85 * up, -1.05 * up, -0.5 * up)
    bottom = line(0.7 * (low + gap), low + gap, 0.7 * (low + gap))
    lips = np.array(p.lips) * (1, 1 - 0.35 * look.makeup, 1 - 0.3 * look.makeup)
    canvas.fill(ellipse(middle, y + gap + low + 0.1, 0.6 * half, 0.05), sitter.skin(0.55), 0.45, 0.04)
    if gap > 0:
        inside = np.concatenate([seam, floor[::-1]])
        canvas.fill(inside, _THROAT, soft=0.006)
        teeth = np.concatenate([seam, line(0.4 * gap, 0.55 * gap, 0.4 * gap)[::-1]])
        canvas.fill(teeth, _TEETH, 0.92, 0.01, clip=inside)
    canvas.fill(np.concatenate([top, seam[::-1]]), lips * 0.84, 0.92, 0.01)
    canvas.fill(np.concatenate([floor, bottom[::-1]]), lips, 0.92, 0.012)
    canvas.fill(ellipse(middle, y + gap + 0.5 * low, 0.4 * half, 0.022), np.minimum(lips * 1.3, 255), 0.5, 0.02)
    if gap == 0:
        canvas.fill(ribbon(seam, 0.03, 0.5, 0.5), lips * 0.36, 0.85, 0.006)


def _eye_curves(sitter: Sitter, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges of the upper and the lower lid, from the inner corner to the outer one."""
    p = sitter.person
    high = p.eye_height * sitter.look.eyes_open

    def curve(*points: tuple[float, float]) -> np.ndarray:
        """A curve through points: outwards as a share of the eye's half-width, down as a share of its height."""
        given = np.array(points) * (p.eye_width, high)
        given[:, 1] -= p.eye_tilt * given[:, 0]
        return sitter.eyes[side] + spline(given) * ((-1.0, 1.0)[side], 1.0)

    upper = curve((-1, 0.15), (-0.5, -0.72), (0.05, -1), (0.6, -0.72), (1, 0))
    return upper, curve((-1, 0.15), (-0.4, 0.62), (0.2, 0.74), (0.7, 0.45), (1, 0))


def _paint_eye(canvas: Canvas, sitter: Sitter, side: int) -> None:
    """Paint the left (0) or the right (1) eye of the picture."""
    p, look = sitter.person, sitter.look
    upper, lower = _eye_curves(sitter, side)
    almond = np.concatenate([upper, lower[::-1]])
    crease = upper - (0, p.lid)
    lid = np.concatenate([crease, upper[::-1]])
    canvas.fill(lid, sitter.skin(0.72) * (1, 1 - 0.2 * look.makeup, 1), 0.55 + 0.3 * look.makeup, 0.02)
    canvas.fill(almond, _EYE_WHITE, soft=0.006)
    x, y = sitter.eyes[side] + (look.gaze_x, look.gaze_y - 0.01)
    iris, r = np.array(p.iris), _IRIS_RADIUS
    canvas.fill(ellipse(x, y, r, r), iris * 0.5, clip=almond)
    canvas.fill(ellipse(x, y + 0.008, 0.8 * r, 0.8 * r), np.minimum(iris * 1.15, 255), 0.9, 0.012, clip=almond)
    canvas.fill(ellipse(x, y, 0.046, 0.046), _DARK * 0.4, 0.95, clip=almond)
    canvas.fill(lid + (0, 0.8 * p.lid), _DARK, 0.3, 0.02, clip=almond)
    canvas.fill(ellipse(x + 0.035 * look.light_x, y - 0.035, 0.022, 0.022), _WHITE, 0.9, 0.004, clip=almond)
    canvas.fill(ribbon(upper, 0.05 + 0.03 * look.makeup, 0.4, 0.8), _DARK, 0.9, 0.006)
    canvas.fill(ribbon(lower, 0.024), sitter.skin(0.36), 0.7, 0.008)
    canvas.fill(ribbon(crease, 0.024), sitter.skin(0.42), 0.6, 0.01)


def _paint_brow(canvas: Canvas, sitter: Sitter, side: int) -> None:
    p, look = sitter.person, sitter.look
    e, y = p.eye_width * p.brow_length, p.brow_y - look.brow_raise
    curve = np.array([(-0.95, 0.03), (-0.3, -0.02), (0.4, -p.brow_arch), (1.2, 0.05)]) * (e, 1)
    curve[:, 1] += y - p.brow_tilt * curve[:, 0]
    brow = spline(curve) * ((-1.0, 1.0)[side], 1) + (sitter.eyes[side, 0], 0)
    # Brows are seldom fairer than a middle brown.
    colour = np.minimum(sitter.hair(0.66), (104, 80, 58))
    canvas.fill(ribbon(brow, p.brow_thickness, 0.75, 0.15), colour, 0.9, 0.014)
