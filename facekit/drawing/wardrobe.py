"""Paint what surrounds a face and what is in front of it: hair, clothes, glasses, cap, scarf, hand.

Shapes are in face units (see `facekit.drawing.likeness`); the canvas brings them to pixels.
"""

from __future__ import annotations

import numpy as np

from facekit.drawing.canvas import Canvas, ellipse, ribbon, spline
from facekit.drawing.likeness import MIRROR, OUTLINE_TURN, Sitter

_SHADOW = np.array([34.0, 22.0, 20.0])
_GLASS = np.array([225.0, 235.0, 240.0])
_WHITE = np.full(3, 255.0)
# Hair that ends above this height ends at the ears; below, it falls on the neck.
_LONG = 0.8


def _hair_end(sitter: Sitter) -> float:
    return min(sitter.person.hair_end, 0.35) if sitter.look.hair_tied else sitter.person.hair_end


def _hair_edge(sitter: Sitter) -> np.ndarray:
    """Right half of the hair's outer edge, (4, 2), from the top down to the ear."""
    p, end = sitter.person, _hair_end(sitter)
    volume, w = p.hair_volume * sitter.look.hair_volume * (1 + 0.8 * p.curl), p.face_width
    ear = (w + 0.6 * volume, 0.1) if end > _LONG else (w + 0.02 + 0.25 * volume, min(0.0, end - 0.1))
    temple = (w + (0.5 if end > _LONG else 0.4) * volume, -0.72 - 0.2 * volume)
    return np.array([(0.0, -1.52 - volume), (0.62 * w, -1.38 - 0.85 * volume), temple, ear])


def _curled(edge: np.ndarray, curl: float) -> np.ndarray:
    """A closed edge (N, 2) with curls."""
    angle = np.linspace(0, 2 * np.pi, len(edge), endpoint=False)
    centre = edge.mean(axis=0)
    wave = 1 + curl * (0.03 * np.sin(13 * angle) + 0.02 * np.sin(29 * angle))
    return centre + (edge - centre) * wave[:, None]


def paint_hair_behind(canvas: Canvas, sitter: Sitter) -> None:
    """Paint the hair behind head and neck."""
    p, end = sitter.person, _hair_end(sitter)
    if p.bald:
        return
    edge = _hair_edge(sitter)
    width = edge[-1, 0]
    low = [(width + 0.1, end), (0.8 * width, end + 0.1)] if end > _LONG else [(0.85 * width, end)]
    right = np.concatenate([edge, low])
    mass = spline(np.concatenate([right, (right[1:] * MIRROR)[::-1]]), closed=True)
    canvas.fill(_curled(mass, p.curl), sitter.hair(0.62), soft=0.02, turn=OUTLINE_TURN)
    if sitter.look.hair_tied and p.hair_end > _LONG:
        canvas.fill(ellipse(0, -1.75 - p.hair_volume, 0.42, 0.36), sitter.hair(0.75), soft=0.02, turn=0.2)


def paint_body(canvas: Canvas, sitter: Sitter) -> None:
    """Paint neck, shoulders and clothes."""
    chin, half = sitter.chin_y, 0.62 * sitter.person.face_width
    cloth = np.array(sitter.look.clothes)
    right = np.array([(0.6, chin + 0.42), (1.0, chin + 0.66), (2.1, chin + 0.95), (2.75, chin + 1.6), (3.1, 6.5)])
    shoulders = spline(np.concatenate([right, (right * MIRROR)[::-1]]), closed=True)
    canvas.fill(shoulders, cloth, soft=0.015, turn=0)
    dim = [
        ribbon(spline([(side * 2.0, chin + 1.2), (side * 1.7, 4.0), (side * 1.6, 6.0)]), 0.3) for side in (-1, 1)
    ]
    canvas.fill(dim, cloth * 0.6, 0.5, 0.15, turn=0)
    right = np.array([(half + 0.12, chin + 0.5), (half, chin), (half, 0.9)])
    neck = spline(np.concatenate([[(0.0, chin + 0.95)], right, (right * MIRROR)[::-1]]), closed=True)
    canvas.fill(neck, sitter.skin(0.82), soft=0.015, turn=0.1)
    shade = ellipse(-0.1 * sitter.look.light_x, chin + 0.05, 1.3 * half, 0.38)
    canvas.fill(shade, sitter.skin(0.45), 0.75, 0.1, clip=neck, turn=0.1)
    for side in (-1, 1):
        fold = spline([(side * half, chin + 0.6), (side * 0.4, chin + 1.0), (side * 0.05, chin + 1.15)])
        canvas.fill(ribbon(fold, 0.09), cloth * 0.7, 0.8, 0.015, turn=0)


def paint_hair(canvas: Canvas, sitter: Sitter, rng: np.random.Generator) -> np.ndarray | None:
    """Paint the hair over head and forehead.

    Args:
        canvas: its image is changed in place.
        sitter: who, and how.
        rng: for the strands.

    Returns:
        Outline of the hair, (N, 2) in face units; none where there is no hair.
    """
    p, look = sitter.person, sitter.look
    if p.bald:
        return None
    edge, line = _front_hair(sitter)
    mass = _curled(np.concatenate([edge, line]), p.curl)
    canvas.fill(ribbon(line + (0, 0.04), 0.16), sitter.skin(0.5), 0.5, 0.05, clip=sitter.outline, turn=OUTLINE_TURN)
    canvas.fill(mass, sitter.hair(), soft=0.018, turn=OUTLINE_TURN)
    strands = _strands(edge, line[::-1], p.curl, rng)
    canvas.fill(list(strands[::2]), sitter.hair(0.62), 0.45, 0.012, clip=mass, turn=OUTLINE_TURN)
    canvas.fill(list(strands[1::2]), np.minimum(sitter.hair(1.35) + 8, 255), 0.35, 0.012, mass, OUTLINE_TURN)
    top, w = -1.38 - 0.4 * p.hair_volume, 0.7 * p.face_width
    shine = ribbon(spline([(-w, -1.15), (0.1 * look.light_x, top), (w, -1.15)]), 0.22)
    bright = np.minimum(sitter.hair(1.7) + 18, 255)
    canvas.fill(shine, bright, 0.4 * look.light_strength, 0.1, clip=mass, turn=OUTLINE_TURN)
    return mass


def _front_hair(sitter: Sitter) -> tuple[np.ndarray, np.ndarray]:
    """Outer edge from right to left over the top, and hairline back from left to right."""
    p = sitter.person
    w, top, end = p.face_width, p.hairline_y, _hair_end(sitter)
    outer = _hair_edge(sitter)
    # Sideburns reach down to a beard; long hair falls past the ears.
    side_y = 1.0 if end > _LONG else (0.4 if p.beard in ("full", "stubble") else outer[-1, 1] + 0.12)
    corner = np.array([(outer[-1, 0] + 0.05 if end > _LONG else 1.0 * w, side_y)])
    right = np.concatenate([corner, outer[:0:-1]])
    edge = spline(np.concatenate([right, outer[:1], (right * MIRROR)[::-1]]))
    fall, part = max(p.fringe + sitter.look.fringe_shift, -0.1), 0.45 * p.hair_part
    slope = 0.3 * fall * np.sign(part)
    half = np.array([(0.42 * w, top + 0.1 + 0.6 * fall), (0.8 * w, top + 0.32 + 0.3 * fall)])
    down = np.array([(0.95 * w, -0.3), (0.97 * w, side_y)])
    left, right = (half + (0, -slope)) * MIRROR, half + (0, slope)
    middle = np.array([(part, top + 0.4 * max(fall, 0.0))])
    brow = np.concatenate([left[::-1], middle, right])
    # Hair stays clear of the eyes.
    brow[:, 1] = np.minimum(brow[:, 1], p.brow_y)
    line = spline(np.concatenate([(down * MIRROR)[::-1], brow, down]))
    return edge, line


def _strands(roots: np.ndarray, ends: np.ndarray, curl: float, rng: np.random.Generator) -> np.ndarray:
    """Ribbons from along one curve to along another, (40, N, 2)."""
    count, t = 40, np.linspace(0, 1, 6)[:, None]
    start = roots[np.linspace(3, len(roots) - 4, count).astype(int)] + rng.normal(0, 0.06, (count, 2))
    end = ends[np.linspace(3, len(ends) - 4, count).astype(int)] + rng.normal(0, 0.06, (count, 2))
    bend = (start + end) / 2 + rng.normal(0, 0.06 + 0.14 * curl, (count, 2)) - (0, 0.1)
    line = (1 - t) ** 2 * start[:, None] + 2 * t * (1 - t) * bend[:, None] + t**2 * end[:, None]
    return ribbon(line, 0.035)


def paint_glasses(canvas: Canvas, sitter: Sitter) -> None:
    """Paint glasses on the nose."""
    look, colour = sitter.look, np.array(sitter.look.rims)
    half = 0.4 * sitter.person.eye_distance
    for side, (x, y) in zip((-1, 1), sitter.eyes, strict=True):
        rim = ellipse(x, y + 0.04, half, 0.29, look.rim_roundness, points=32)
        canvas.fill(rim, _GLASS, 0.06)
        glint = spline([(x - 0.2, y + 0.15), (x + 0.02, y - 0.18)])
        canvas.fill(ribbon(glint, 0.08), _WHITE, 0.12, 0.02)
        canvas.fill(ribbon(np.concatenate([rim, rim[:2]]), 0.04, 1, 1), colour, 0.9, 0.004)
        arm = spline([(x + side * half, y - 0.05), (side * (sitter.person.face_width + 0.02), y)])
        canvas.fill(ribbon(arm, 0.045, 1, 1), colour * 0.8, 0.9, 0.005, turn=0.7)
    inner = sitter.eyes[1, 0] - half
    canvas.fill(ribbon(spline([(-inner, 0.0), (0.0, -0.05), (inner, 0.0)]), 0.045, 1, 1), colour, 0.92, 0.004)


def paint_occlusion(canvas: Canvas, sitter: Sitter) -> None:
    """Paint what hides a part of the head, if anything does."""
    if sitter.look.occlusion == "cap":
        _paint_cap(canvas, sitter)
    elif sitter.look.occlusion == "scarf":
        _paint_scarf(canvas, sitter)
    elif sitter.look.occlusion == "hand":
        _paint_hand(canvas, sitter)


def _paint_cap(canvas: Canvas, sitter: Sitter) -> None:
    colour, w, brow = np.array(sitter.look.accessory), sitter.person.face_width + 0.14, -0.8
    right = np.array([(0.6 * w, -1.95), (w, -1.3), (w, brow + 0.1)])
    dome = np.concatenate([[(0.0, -2.12)], right, [(0.0, brow - 0.15)], (right * MIRROR)[::-1]])
    canvas.fill(spline(dome, closed=True), colour, soft=0.015, turn=OUTLINE_TURN)
    canvas.fill(ribbon(spline([(0.0, -2.1), (0.0, -1.5), (0.0, -0.95)]), 0.04), colour * 0.7, 0.8, 0.01, turn=0.6)
    right = np.array([(0.5 * w, brow - 0.2), (w, brow), (0.5 * w, brow - 0.02)])
    brim = spline(np.concatenate([right, (right * MIRROR)[::-1]]), closed=True)
    canvas.fill(brim + (0, 0.1), _SHADOW, 0.25, 0.05, turn=0.6)
    canvas.fill(brim, colour * 0.75, soft=0.01, turn=0.6)


def _paint_scarf(canvas: Canvas, sitter: Sitter) -> None:
    colour, chin = np.array(sitter.look.accessory), sitter.chin_y
    top = [(-1.3, chin - 0.2), (-0.6, chin - 0.02), (0.0, chin - 0.04), (0.7, chin + 0.02), (1.3, chin - 0.25)]
    cloth = spline([*top, (1.5, chin + 1.0), (-1.5, chin + 1.0)], closed=True)
    canvas.fill(cloth, colour, soft=0.02, turn=0.1)
    for drop in (0.2, 0.45, 0.7):
        fold = spline([(-1.3, chin + drop - 0.2), (-0.2, chin + drop + 0.05), (1.3, chin + drop - 0.1)])
        canvas.fill(ribbon(fold, 0.08), colour * 0.65, 0.7, 0.03, turn=0.1)


def _paint_hand(canvas: Canvas, sitter: Sitter) -> None:
    side, w, chin = sitter.look.side, sitter.person.face_width, sitter.chin_y
    canvas.fill(ellipse(side * 1.15 * w, chin - 0.1, 0.36, 0.6), sitter.skin(0.8), soft=0.02, turn=0)
    for index in range(4):
        knuckle = (side * (1.2 - 0.08 * index) * w, chin - 0.5 + 0.2 * index)
        tip = (side * (0.98 - 0.1 * index) * w, 0.65 + 0.24 * index)
        finger = spline([knuckle, tip])
        canvas.fill(ribbon(finger, 0.22, 0.9, 0.7), sitter.skin(0.6), soft=0.025, turn=0)
        canvas.fill(ribbon(finger, 0.18, 0.9, 0.7), sitter.skin(0.88), soft=0.015, turn=0)
