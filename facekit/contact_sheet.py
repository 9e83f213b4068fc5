"""A labelled grid of pictures: a row of pictures below each title."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from facekit.images import Image

_LINE = 22  # pixels of a title's line
_GAP = 4
_PAPER, _INK = (250, 250, 250), (30, 30, 30)


def contact_sheet(rows: Sequence[Sequence[Image]], titles: Sequence[str], tile: int = 112) -> Image:
    """Draw rows of pictures, each below its title.

    Args:
        rows: pictures, (H, W, 3) uint8 of any size; rows may differ in length.
        titles: one a row; letters that the font lacks become question marks.
        tile: side of the square that each picture is fitted into, keeping its shape, in pixels.

    Returns:
        (H, W, 3) uint8, as wide as the longest row or title.

    Raises:
        ValueError: no rows, or another number of titles.
    """
    if not rows or len(rows) != len(titles):
        raise ValueError(f"A contact sheet needs a title for each row: {len(rows)} rows, {len(titles)} titles.")
    plain = [title.encode("ascii", "replace").decode() for title in titles]
    text = max(_text_width(title) for title in plain)
    width = max(text + 2 * _GAP, max(map(len, rows)) * (tile + _GAP) + _GAP)
    height = len(rows) * (_LINE + tile + _GAP) + _GAP
    sheet: Image = np.full((height, width, 3), _PAPER, np.uint8)
    for number, (row, title) in enumerate(zip(rows, plain, strict=True)):
        top = number * (_LINE + tile + _GAP) + _GAP
        cv2.putText(sheet, title, (_GAP, top + 15), cv2.FONT_HERSHEY_SIMPLEX, 0.45, _INK, 1, cv2.LINE_AA)
        for place, image in enumerate(row):
            fitted = _fit(image, tile)
            y = top + _LINE + (tile - fitted.shape[0]) // 2
            x = _GAP + place * (tile + _GAP) + (tile - fitted.shape[1]) // 2
            sheet[y : y + fitted.shape[0], x : x + fitted.shape[1]] = fitted
    return sheet


def _text_width(title: str) -> int:
    return cv2.getTextSize(title, cv2.FONT_HERSHEY_SIMPLEX, 0.45, 1)[0][0]


def _fit(image: Image, tile: int) -> Image:
    """The picture scaled so that its longer side is `tile`."""
    height, width = image.shape[:2]
    scale = tile / max(height, width)
    if scale == 1:
        return image
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
