"""A page says the same in HTML and in Markdown, whatever users call their people and files."""

from __future__ import annotations

import base64
import io
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from facekit import page as pages
from facekit.page import Headline, Illustration, Page, Section, Table, draw, to_html, to_markdown, write_page

NASTY = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "a|b *c* _d_ __e__ `f` [g](h) ~~i~~ $j$ &amp; \\k",
    "# no heading",
    "1. no list",
    "2) x",
    "1.50 %",
    "-0.35",
    "- no list",
    "---",
    "+ x",
    "line\nbreak",
    "Ed_Smart/Ed_Smart_0001.jpg",
    "{{ page.title }} {% raw %}",
    "山田 🙂 Ünï",
    "</td></table></body>",
    "![x](y)",
]


def plot(name: str = "curve") -> Illustration:
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot([0, 1], label="<b>")
    return Illustration(figure, "A caption.", name, "What it shows.")


def photo() -> Illustration:
    noise = np.random.default_rng(0).integers(0, 255, (40, 900, 3), dtype=np.uint8)
    noise[:20] = (255, 0, 0)
    return Illustration(noise, "Two faces.", "Hardest pairs!")


def example() -> Page:
    return Page(
        title="How well it works",
        subtitle="On pairs.",
        headline=[Headline("FMR", "1.00 %", "95 %: 0.50 to 2.00 %", "strangers accepted")],
        warnings=["Look out."],
        sections=[
            Section("First", ["Some words.", "More."], [Table(("A", "B"), [("x", "1"), ("y", "2")], "A table")]),
            Section("Second", pictures=[plot(), photo()], code="run --me `now`"),
        ],
        facts=[("Model", "runs/x")],
        summary=["It works."],
    )


def page_of(text: str) -> Page:
    """A page with one text in every place."""
    table = Table((text, text), [(text, text)], text)
    section = Section(text, [text], [table], [Illustration(np.zeros((4, 4, 3), np.uint8), text, text, text)], text)
    return Page(text, text, [Headline(text, text, text, text)], [text], [section], [(text, text)], [text])


class Reader(HTMLParser):
    """Collects what a browser would see, and notes what is open."""

    VOID = {"meta", "img", "br", "link"}

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], []) and data.strip():
            self.texts.append(data.strip())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def markdown(text: str) -> Reader:
    renderer = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return read(renderer.render(text))


def images(html: str) -> Iterator[tuple[str, bytes]]:
    for image in read(html).of("img"):
        found = re.fullmatch(r"data:image/([a-z+]+);base64,(.*)", image["src"] or "")
        assert found
        yield found[1], base64.b64decode(found[2])


def decoded(data: bytes) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert picture is not None
    return np.asarray(picture)


def test_html_is_one_file_that_loads_nothing_and_runs_nothing() -> None:
    html = to_html(example())
    reader = read(html)
    assert {tag for tag, _ in reader.tags} & {"script", "link", "iframe", "object", "base", "form"} == set()
    for tag, attributes in reader.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "poster", "data"):
                assert (value or "").startswith(("data:image/", "#")), (tag, name)
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in html
    assert "prefers-color-scheme: dark" in style and "@media print" in style


def test_html_holds_every_part() -> None:
    texts = read(to_html(example())).texts
    for part in (
        "How well it works",
        "On pairs.",
        "It works.",
        "FMR",
        "strangers accepted",
        "Look out.",
        "A table",
    ):
        assert part in texts
    for part in ("Some words.", "More.", "First", "x", "2", "A caption.", "run --me `now`", "Model", "runs/x"):
        assert part in texts
    assert "1.00\u00a0%" in texts  # number and unit are not parted at a line's end


def test_html_is_accessible() -> None:
    reader = read(to_html(example()))
    assert reader.of("html") == [{"lang": "en"}]
    assert all(image["alt"] and image["width"] and image["height"] for image in reader.of("img"))
    assert [image["alt"] for image in reader.of("img")] == ["What it shows.", "Two faces."]
    assert {cell["scope"] for cell in reader.of("th")} == {"col", "row"}
    assert len(reader.of("h1")) == len(reader.of("main")) == 1
    targets = {attributes["id"] for _, attributes in reader.tags if "id" in attributes}
    assert all(link["href"] == "#facts" or (link["href"] or "")[1:] in targets for link in reader.of("a"))
    named = {attributes["aria-labelledby"] for _, attributes in reader.tags if "aria-labelledby" in attributes}
    assert named <= targets


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return sum(weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_colours_contrast_as_the_accessibility_guidelines_ask() -> None:
    style = to_html(Page("x"))
    for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        pairs = [(ink, paper) for ink in ("ink", "quiet", "link") for paper in ("paper", "card")]
        for ink, paper in [*pairs, ("alarm-ink", "alarm")]:
            light, dark = sorted((luminance(colours[ink]), luminance(colours[paper])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (ink, paper)
    assert style.count(":root {") == 3  # light, dark, print


def test_plots_are_drawings_with_their_text_and_photographs_small() -> None:
    page = example()
    (kind, drawing), (photo_kind, data) = images(to_html(page))
    assert (kind, photo_kind) == ("svg+xml", "jpeg")
    svg = ElementTree.fromstring(drawing)
    assert "0.4" in [text.strip() for text in svg.itertext()]
    picture = decoded(data)
    assert picture.shape == (40, 900, 3)
    assert picture[5, 450] == pytest.approx([254, 0, 0], abs=6)  # red is red
    html = read(to_html(page))
    assert [figure.get("class") for figure in html.of("figure")] == [None, "wide"]
    assert [(image["width"], image["height"]) for image in html.of("img")] == [("368", "276"), ("900", "40")]


def test_the_same_page_gives_the_same_bytes() -> None:
    assert to_html(example()) == to_html(example())
    assert to_markdown(example()) == to_markdown(example())


@pytest.mark.parametrize("text", NASTY)
def test_html_shows_users_texts_and_does_not_obey_them(text: str) -> None:
    plain, nasty = read(to_html(page_of("plain"))), read(to_html(page_of(text)))
    assert [tag for tag, _ in nasty.tags] == [tag for tag, _ in plain.tags]
    unit = re.sub(r"(?<=\d) %", "\u00a0%", text)  # does not part from its number
    assert nasty.texts.count(unit) == plain.texts.count("plain") == 20
    assert [image["alt"] for image in nasty.of("img")] == [unit]


@pytest.mark.parametrize("text", NASTY)
def test_markdown_shows_users_texts_and_does_not_obey_them(text: str) -> None:
    plain, nasty = (markdown(to_markdown(page_of(part))[0]) for part in ("plain", text))
    assert [tag for tag, _ in nasty.tags] == [tag for tag, _ in plain.tags]
    seen, wanted = "".join(nasty.texts), "".join(plain.texts).replace("plain", text)
    assert "".join(seen.split()) == "".join(wanted.split())
    assert [image["alt"] for image in nasty.of("img")] == [" ".join(text.split())]


def test_markdown_holds_every_part_and_links_its_pictures() -> None:
    text, files = to_markdown(example(), "my pictures")
    reader = markdown(text)
    for part in ("How well it works", "It works.", "Look out.", "Some words.", "A table", "runs/x", "1.00 %"):
        assert part in reader.texts
    assert [image["src"] for image in reader.of("img")] == [f"my%20pictures/{name}" for name in files]
    assert list(files) == ["curve.png", "hardest-pairs.png"]
    assert [image["alt"] for image in reader.of("img")] == ["What it shows.", "Two faces."]
    curve, faces = map(decoded, files.values())
    assert curve.shape == (420, 560, 3) and faces.shape == (40, 900, 3)
    assert faces[5, 450].tolist() == [255, 0, 0]
    aligned = [cell.get("style") for cell in reader.of("th")]
    assert "text-align:left" in aligned and "text-align:right" in aligned


def test_markdown_leaves_plain_names_and_numbers_as_they_are() -> None:
    for text in ("1.50 %", "-0.35", "Ed_Smart/Ed_Smart_0001.jpg", "184 of 1,000", "95 %: 1.10 to 2.00 %"):
        assert f"| {text} |" in to_markdown(page_of(text))[0]


def test_code_is_copied_as_it_is() -> None:
    code = "a\n```\n~~~~ <b> `x`"
    page = Page("x", sections=[Section("y", code=code)])
    assert markdown(to_markdown(page)[0]).texts[-1] == code
    assert read(to_html(page)).texts[-1] == code


def test_pictures_of_one_name_get_names_of_their_own() -> None:
    names = ["roc", "ROC", "roc", "山田", "../../etc/x", "roc-2"]
    page = Page("x", sections=[Section("y", pictures=[plot(name) for name in names[:3]])])
    page = Page("x", sections=[*page.sections, Section("z", pictures=[plot(name) for name in names[3:]])])
    files = [drawn.file for section in draw(page) for drawn in section]
    assert files == ["roc.png", "roc-2.png", "roc-3.png", "picture.png", "etc-x.png", "roc-2-2.png"]


def test_tables_are_aligned_by_letters_and_wide_ones_have_a_row_of_their_own() -> None:
    assert Table(("a", "b", "c"), []).sides == ["left", "right", "right"]
    assert Table(("a", "b"), [], align="rl").sides == ["right", "left"]
    assert not Table(("a", "b"), [("x" * 200, "1")]).wide  # words are broken into lines
    assert Table(("a", "b"), [("x", "1" * 80)]).wide
    with pytest.raises(ValueError):
        to_html(Page("x", sections=[Section("y", tables=[Table(("a", "b"), [("only one",)])])]))


def test_a_report_is_written_with_its_pictures_in_place_of_an_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "mine.png").write_bytes(b"mine")
    (tmp_path / "report.json").write_text("{}")
    write_page(tmp_path, Page("old (pictures/mine.png)", sections=[Section("x", pictures=[plot("a"), plot("b")])]))
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["a.png", "b.png", "mine.png"]
    page = Page("new", sections=[Section("x", pictures=[plot("b"), plot("c")])])
    write_page(tmp_path, page)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "pictures",
        "report.html",
        "report.json",
        "report.md",
    ]
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["b.png", "c.png", "mine.png"]
    text, files = to_markdown(page)
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == text
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == to_html(page)
    assert (tmp_path / "pictures" / "c.png").read_bytes() == files["c.png"]
    write_page(tmp_path / "new" / "folder", Page("no pictures"))
    assert (tmp_path / "new" / "folder" / "report.html").is_file()


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("failing", ["draw", "write_bytes", "to_html"])
def test_a_report_that_fails_leaves_the_earlier_one_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    write_page(tmp_path, example())
    before = everything(tmp_path)
    real, calls = getattr(pages, failing), iter(range(10))

    def fail(*given: object) -> object:
        if failing != "write_bytes" or next(calls) == 2:
            raise OSError("the disk is full")
        return real(*given)

    monkeypatch.setattr(pages, failing, fail)
    with pytest.raises(OSError, match="disk is full"):
        write_page(tmp_path, Page("new", sections=[Section("x", pictures=[plot("a"), plot("curve")])]))
    assert everything(tmp_path) == before


def test_each_plot_is_drawn_once_for_the_page_and_once_for_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    formats = []
    real = Figure.savefig

    def count(figure: Figure, target: io.BytesIO, **options: Any) -> None:
        formats.append(options["format"])
        real(figure, target, **options)

    monkeypatch.setattr(Figure, "savefig", count)
    write_page(tmp_path, Page("x", sections=[Section("y", pictures=[plot("a"), plot("b")])]))
    assert sorted(map(str, formats)) == ["png", "png", "svg", "svg"]


def test_nothing_heavy_is_loaded_before_it_is_needed() -> None:
    code = (
        "import sys, facekit.page as p; p.to_html(p.Page('x'))\n"
        "assert not {'matplotlib', 'cv2', 'tensorflow', 'scipy'} & set(sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
