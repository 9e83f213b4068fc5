"""Findings as contact sheets: one HTML file with small pictures in it, to be looked at by a person."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2

from facekit.images import UnreadableImageError, limit_side, read_image

MOST_CARDS = 48
"""Findings of a kind that are best shown; the page stays below some megabytes, and all findings are in the CSV."""

MOST_NAMES = 200
"""The same of findings that have no picture."""

_SIDE, _QUALITY = 112, 75  # pixels and JPEG quality of a small picture
_TEMPLATE = "check_page.html.j2"


@dataclass(frozen=True)
class Strip:
    """Pictures side by side under a label.

    Attributes:
        label: above them; "": none.
        paths: of the files; one that cannot be read is shown as an empty frame.
    """

    label: str
    paths: Sequence[Path]


@dataclass(frozen=True)
class Card:
    """One finding.

    Attributes:
        title: the picture's or folder's name.
        strips: what to look at.
        reason: why it was found, with its number, and what to do.
        excluded: whether to say that training leaves it out.
    """

    title: str
    strips: Sequence[Strip]
    reason: str
    excluded: bool


@dataclass(frozen=True)
class Sheet:
    """All findings of a kind.

    Attributes:
        name: of the kind, for links.
        title: for people.
        meaning: what it means, and what to do.
        cards: those shown.
        names: what is listed by name alone, where there is no picture to look at.
        shown: how many of how many are here, in words; "": all.
        found: how many there are.
        excluded: how many of them training leaves out.
    """

    name: str
    title: str
    meaning: str
    cards: Sequence[Card]
    names: Sequence[str]
    shown: str
    found: int
    excluded: int

    @property
    def small(self) -> bool:
        """Whether its cards hold few pictures, so that more fit side by side."""
        return all(sum(len(strip.paths) for strip in card.strips) <= 2 for card in self.cards)


@dataclass(frozen=True)
class CheckPage:
    """The report of a check: a title, the result in sentences, a sheet for each kind of finding."""

    title: str
    summary: Sequence[str]
    sheets: Sequence[Sheet]


@dataclass(frozen=True)
class _Tile:
    name: str
    uri: str


@dataclass(frozen=True)
class _DrawnCard:
    title: str
    strips: Sequence[tuple[str, Sequence[_Tile]]]
    reason: str
    excluded: bool


def to_html(page: CheckPage) -> str:
    """The page as one HTML file with its pictures in it: no script, nothing loaded from elsewhere."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names come from users
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    sections = [(sheet, [_drawn(card) for card in sheet.cards]) for sheet in page.sheets]
    return environment.get_template(_TEMPLATE).render(page=page, sections=sections)


def _drawn(card: Card) -> _DrawnCard:
    strips = [
        (strip.label, [_Tile(path.name, _small_picture(path)) for path in strip.paths]) for strip in card.strips
    ]
    return _DrawnCard(card.title, strips, card.reason, card.excluded)


def _small_picture(path: Path) -> str:
    """A picture as a small JPEG in a data URI; "" where it cannot be read."""
    try:
        image, _ = limit_side(read_image(path), _SIDE)
    except UnreadableImageError:
        return ""
    parameters = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), parameters)
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode('ascii')}"
