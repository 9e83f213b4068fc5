"""A report page as data, rendered twice: one HTML file that needs nothing else, and Markdown with pictures."""

from __future__ import annotations

import base64
import io
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from facekit.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Picture = NDArray[np.uint8]

PICTURES = "pictures"
"""Folder of the Markdown report's pictures, beside it."""

_CSS_PIXELS = 92  # on screen, of an inch of a figure
_PNG_DOTS = 140  # likewise, in the files beside the Markdown
_WIDE, _WIDE_TABLE = 760, 62  # CSS pixels and letters across, above which they have a row of their own
_WORDS = 16  # letters of a column of words
_JPEG_QUALITY = 88
_PICTURE_LINK = re.compile(rf"^!\[.*\]\({PICTURES}/([\w-]+\.png)\)$", re.MULTILINE)
_UNIT = re.compile(r"(?<=\d) %")  # a number and its unit stay on one line
_TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Attributes:
        header: k column names.
        rows: k cells each; the first names the row.
        caption: what it shows, above it.
        align: a letter a column, l or r; "": the first left, the others right.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    align: str = ""

    @property
    def sides(self) -> list[str]:
        """Where each column's cells stand: "left" or "right"."""
        letters = self.align or "l" + "r" * (len(self.header) - 1)
        return ["left" if letter == "l" else "right" for letter in letters]

    @property
    def wide(self) -> bool:
        """Whether it needs a row of its own on the page: words can be broken into lines, numbers cannot."""
        letters = [max(map(len, column)) for column in zip(self.header, *self.rows, strict=True)]
        kept = [
            width if side == "right" else min(width, _WORDS)
            for width, side in zip(letters, self.sides, strict=True)
        ]
        return sum(kept) > _WIDE_TABLE


@dataclass(frozen=True, eq=False)
class Illustration:
    """A plot or photograph.

    Attributes:
        figure: a matplotlib Figure, or (H, W, 3) uint8 RGB.
        caption: below it.
        name: of its file, without ending.
        alt: what it shows, for those who cannot see it; "": the caption.
    """

    figure: Figure | Picture
    caption: str
    name: str
    alt: str = ""


@dataclass(frozen=True, eq=False)
class Section:
    """A part of a page: words, then pictures, then tables, then text to copy."""

    title: str
    words: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Illustration] = ()
    code: str = ""


@dataclass(frozen=True)
class Headline:
    """A chief figure: its name, its value, the interval it lies within, and what it means in a few words."""

    name: str
    value: str
    within: str = ""
    hint: str = ""


@dataclass(frozen=True, eq=False)
class Page:
    """A report.

    Attributes:
        title: of the page.
        subtitle: below it.
        headline: the chief figures.
        warnings: sentences that a reader must not miss.
        sections: the rest, in order.
        facts: names and values of data and settings, at the end.
        summary: the result in sentences, at the beginning.
    """

    title: str
    subtitle: str = ""
    headline: Sequence[Headline] = ()
    warnings: Sequence[str] = ()
    sections: Sequence[Section] = ()
    facts: Sequence[tuple[str, str]] = ()
    summary: Sequence[str] = ()


@dataclass(frozen=True)
class Drawn:
    """A picture of a page, encoded.

    Attributes:
        file: its file name, one of a kind on the page.
        caption: below it.
        alt: in words.
        png: the file.
        kind: what `inner` is, "svg+xml" or "jpeg".
        inner: the same for the HTML: plots that are sharp at any size, photographs that are small.
        width: in CSS pixels.
        height: in CSS pixels.
    """

    file: str
    caption: str
    alt: str
    png: bytes
    kind: str
    inner: bytes
    width: int
    height: int

    @property
    def wide(self) -> bool:
        """Whether it needs a row of its own."""
        return self.width > _WIDE

    @property
    def uri(self) -> str:
        """The picture as a data URI. Unlike SVG in the page itself, its names and styles stay its own."""
        return f"data:image/{self.kind};base64,{base64.b64encode(self.inner).decode('ascii')}"


def draw(page: Page) -> list[list[Drawn]]:
    """Encode the pictures of each section: the slow part of writing a page, in common to both renderings."""
    drawn: list[list[Drawn]] = []
    taken: set[str] = set()
    for section in page.sections:
        drawn.append([_draw(picture, _file_name(picture.name, taken)) for picture in section.pictures])
    return drawn


def _file_name(name: str, taken: set[str]) -> str:
    stem = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "picture"
    numbered = (stem if number == 1 else f"{stem}-{number}" for number in range(1, len(taken) + 2))
    file = next(f"{free}.png" for free in numbered if f"{free}.png" not in taken)
    taken.add(file)
    return file


def _draw(picture: Illustration, file: str) -> Drawn:
    alt = picture.alt or picture.caption
    if isinstance(picture.figure, np.ndarray):
        height, width = picture.figure.shape[:2]
        return Drawn(file, picture.caption, alt, *_encode(picture.figure), width, height)
    across, down = (round(_CSS_PIXELS * inches) for inches in picture.figure.get_size_inches())
    return Drawn(file, picture.caption, alt, *_plot(picture.figure, file), across, down)


def _plot(figure: Figure, file: str) -> tuple[bytes, str, bytes]:
    """A plot as PNG and as SVG, whose text stays text: a third of the time and size of an equally sharp PNG."""
    from matplotlib import rc_context

    png, svg = io.BytesIO(), io.BytesIO()
    with warnings.catch_warnings(), rc_context({"svg.fonttype": "none", "svg.hashsalt": file}):
        # Names in letters that the PNG's font lacks are right in the SVG and in the tables.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(png, format="png", dpi=_PNG_DOTS, pil_kwargs={"compress_level": 1})
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return png.getvalue(), "svg+xml", svg.getvalue()


def _encode(picture: Picture) -> tuple[bytes, str, bytes]:
    """A photograph as PNG and as JPEG."""
    import cv2

    turned = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    png, jpeg = (
        cv2.imencode(ending, turned, options)[1].tobytes()
        for ending, options in ((".png", []), (".jpg", [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]))
    )
    return png, "jpeg", jpeg


def to_html(page: Page, drawn: Sequence[Sequence[Drawn]] | None = None) -> str:
    """The page as one HTML file with all its pictures in it: no script, nothing loaded from elsewhere.

    Args:
        page: the report.
        drawn: its pictures, where `draw` has made them already.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # names come from users
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=lambda value: _UNIT.sub("\u00a0%", value) if isinstance(value, str) else value,
    )
    parts = zip(page.sections, draw(page) if drawn is None else drawn, strict=True)
    return environment.get_template(_TEMPLATE).render(page=page, parts=list(parts))


def to_markdown(
    page: Page, picture_folder: str = PICTURES, drawn: Sequence[Sequence[Drawn]] | None = None
) -> tuple[str, dict[str, bytes]]:
    """The page as Markdown (of GitHub's kind, for the tables), and its pictures.

    Args:
        page: the report.
        picture_folder: where its links look for pictures, from beside it.
        drawn: its pictures, where `draw` has made them already.

    Returns:
        The text, and the PNG files by their names.
    """
    pictures = draw(page) if drawn is None else drawn
    blocks = [f"# {_escaped(page.title)}", _escaped(page.subtitle), *map(_escaped, page.summary)]
    if page.headline:
        cells = [(chief.name, chief.value, chief.within, chief.hint) for chief in page.headline]
        blocks += _table_blocks(Table(("Figure", "Value", "Interval", "Meaning"), cells, align="lrll"))
    if page.warnings:
        blocks += ["**Read this first**", "\n".join(f"- {_escaped(warning)}" for warning in page.warnings)]
    for section, shown in zip(page.sections, pictures, strict=True):
        blocks += [f"## {_escaped(section.title)}", *map(_escaped, section.words)]
        for picture in shown:
            blocks.append(f"![{_escaped(picture.alt)}]({quote(picture_folder)}/{picture.file})")
            blocks.append(picture.caption and f"*{_escaped(picture.caption)}*")
        for table in section.tables:
            blocks += _table_blocks(table)
        if section.code:
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", section.code)), default=0))
            blocks.append(f"{fence}\n{section.code}\n{fence}")
    if page.facts:
        blocks += ["## Data and settings", *_table_blocks(Table(("What", "Value"), page.facts, align="ll"))]
    files = {picture.file: picture.png for shown in pictures for picture in shown}
    return "\n\n".join(block for block in blocks if block) + "\n", files


def _table_blocks(table: Table) -> Iterator[str]:
    if table.caption:
        yield f"**{_escaped(table.caption)}**"
    marks = [":--" if side == "left" else "--:" for side in table.sides]
    rows = [[_escaped(cell) for cell in row] for row in (table.header, *table.rows)]
    lines = [f"| {' | '.join(row)} |" for row in (rows[0], marks, *rows[1:])]
    yield "\n".join(lines)


def _escaped(text: str) -> str:
    """A user's text on one line, in which Markdown and HTML find nothing to act on."""
    line = re.sub(r"([\\`*\[\]<>|~$#&]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", " ".join(text.split()))
    # What makes a list or a rule at a line's beginning.
    return re.sub(r"^([-+=](?=[-+=\s]|$)|\d+(?=[.)](?:\s|$)))", _escaped_start, line)


def _escaped_start(found: re.Match[str]) -> str:
    return f"{found[0]}\\" if found[0].isdigit() else f"\\{found[0]}"


def write_page(folder: Path, page: Page) -> None:
    """Write report.html, report.md and its pictures, in place of an earlier report and its pictures.

    Everything is drawn and written aside before anything that is there changes.

    Raises:
        OSError: the folder cannot be made or written.
    """
    drawn = draw(page)
    text, files = to_markdown(page, PICTURES, drawn)
    whole: Mapping[str, bytes] = {
        **{f"{PICTURES}/{name}": data for name, data in files.items()},
        "report.md": text.encode("utf-8"),
        "report.html": to_html(page, drawn).encode("utf-8"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    earlier = _earlier_pictures(folder)
    with tempfile.TemporaryDirectory(prefix=".report-", dir=folder) as aside:
        for name, data in whole.items():
            write_bytes(Path(aside) / name, data)
        for name in whole:
            (folder / name).parent.mkdir(exist_ok=True)
            os.replace(Path(aside) / name, folder / name)
    for name in earlier - files.keys():
        (folder / PICTURES / name).unlink(missing_ok=True)


def _earlier_pictures(folder: Path) -> set[str]:
    """Pictures that an earlier report shows. Others in their folder are the user's own and stay."""
    try:
        return set(_PICTURE_LINK.findall((folder / "report.md").read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        return set()
