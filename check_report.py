"""The report of a check: for every finding the pictures that let a person judge it.

In:  what was measured of a folder, the findings.
Out: report.html.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from check_findings import Folder, ModelView, person_of
from facekit.check_page import MOST_CARDS, MOST_NAMES, Card, CheckPage, Sheet, Strip, to_html
from facekit.files import write_bytes
from facekit.findings import DEFECTS, KINDS, Finding

_SHOWN = 4  # pictures of a folder beside a finding

_NUMBERS = {
    "duplicate": "Copy of {path}. Likeness {:.3f}.",
    "duplicate_across": "Copy of {path}. Likeness {:.3f}.",
    "wrong_label": "Resembles its folder less than {other} by {:.2f}.",
    "same_person": "Cosine of the two folders' means {:.3f}.",
    "two_people": "The parts are less alike than each in itself by {:.2f}.",
    "many_faces": "{:.0f} faces.",
    "too_small": "{:.0f} pixels.",
    "blurred": "Sharpness {:.3f}.",
    "dark": "Brightness {:.3f}.",
    "bright": "Brightness {:.3f}.",
    "clipped": "{:.2f} of the pixels.",
    "turned": "{:.0f} degrees.",
}
_MAGNITUDES = ("wrong_label", "two_people", "turned")
"""Whose sign says nothing that the words don't."""


def write_page(
    path: Path,
    root: Path,
    folder: Folder,
    view: ModelView | None,
    findings: Sequence[Finding],
    summary: Sequence[str],
) -> None:
    """Write the page, whole or not at all.

    Args:
        path: of the page.
        root: the folder that was checked.
        folder: what was measured.
        view: what the model said; None without one.
        findings: the gravest first.
        summary: the check in sentences; indented ones, the counts, are left to the page's table.
    """
    by_kind: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        by_kind[finding.problem].append(finding)
    pictures = _Pictures(root, folder, view)
    sheets = [_sheet(kind, found, pictures) for kind, found in by_kind.items()]
    words = [sentence for sentence in summary if not sentence.startswith(" ")]
    # A name that is not UTF-8 is shown with question marks.
    html = to_html(CheckPage(f"Check of {root}", words, sheets))
    write_bytes(path, html.encode("utf-8", "replace"))


def _sheet(kind: str, findings: Sequence[Finding], pictures: _Pictures) -> Sheet:
    """The sheet of a kind: cards to look at, or names where there is nothing to see; each pair of copies once."""
    shown = _pairs_once(findings) if kind in ("duplicate", "duplicate_across") else findings
    blind = kind in DEFECTS
    most = MOST_NAMES if blind else MOST_CARDS
    # What is the same for all is said once.
    advice, out = {finding.suggestion for finding in findings}, {finding.excluded for finding in findings}
    title, meaning = KINDS[kind]
    common = [meaning, *([_sentence(*advice)] if len(advice) == 1 else [])]
    common += [_sentence("training leaves them out")] if out == {True} else []
    rest = f"{most:,} of {len(shown):,} are shown; all are in findings.csv." if len(shown) > most else ""
    return Sheet(
        kind,
        title,
        " ".join(common),
        [] if blind else [_card(one, pictures, len(advice) > 1, len(out) > 1) for one in shown[:most]],
        [finding.path for finding in shown[:most]] if blind else [],
        rest,
        len(findings),
        sum(finding.excluded for finding in findings),
    )


def _pairs_once(findings: Sequence[Finding]) -> list[Finding]:
    """Copies without those that show the same two pictures again, the least alike, so the most doubtful, first."""
    seen: set[frozenset[str]] = set()
    once = []
    for finding in sorted(findings, key=lambda finding: finding.value):
        pair = frozenset((finding.path, finding.other_path))
        if pair not in seen:
            seen.add(pair)
            once.append(finding)
    return once


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}." if words else ""


class _Pictures:
    """Which pictures show what a finding means."""

    def __init__(self, root: Path, folder: Folder, view: ModelView | None):
        self.root, self._view = root, view
        self._people: dict[str, list[str]] = defaultdict(list)
        self._parts: dict[str, int] = {}
        for place, seen in enumerate(folder.pictures):
            if view is None or (view.speaking[place] and not view.misfits.wrong[place]):
                self._people[person_of(seen.path)].append(seen.path)
            if view is not None:
                self._parts[seen.path] = int(view.splits.part[place])

    def of(self, person: str, part: int | None = None, without: str = "") -> list[Path]:
        """A few pictures of a folder, spread over it; of one of its two parts."""
        paths = [
            path
            for path in self._people[person]
            if path != without and (part is None or self._parts.get(path) == part)
        ]
        chosen = np.unique(np.linspace(0, len(paths) - 1, min(_SHOWN, len(paths))).round().astype(int))
        return [self.root / paths[place] for place in chosen] if paths else []


def _card(finding: Finding, pictures: _Pictures, advise: bool, tell: bool) -> Card:
    number = abs(finding.value) if finding.problem in _MAGNITUDES else finding.value
    words = _NUMBERS.get(finding.problem, "").format(number, other=finding.other_person, path=finding.other_path)
    reason = " ".join(filter(None, [words, _sentence(finding.suggestion) if advise else ""]))
    return Card(_title(finding), _strips(finding, pictures), reason, tell and finding.excluded)


def _title(finding: Finding) -> str:
    if finding.problem == "same_person":
        return f"{finding.person} and {finding.other_person}"
    return finding.path or finding.person


def _strips(finding: Finding, pictures: _Pictures) -> list[Strip]:
    own, other = finding.person, finding.other_person
    itself = [pictures.root / finding.path]
    if finding.problem == "wrong_label":
        return [
            Strip("this picture", itself),
            Strip(f"its folder, {own}", pictures.of(own, without=finding.path)),
            Strip(f"most alike, {other}", pictures.of(other)),
        ]
    if finding.problem == "same_person":
        return [Strip(own, pictures.of(own)), Strip(other, pictures.of(other))]
    if finding.problem == "two_people":
        return [Strip("the larger part", pictures.of(own, 0)), Strip("the smaller part", pictures.of(own, 1))]
    if finding.other_path:
        return [Strip("", [*itself, pictures.root / finding.other_path])]
    return [Strip("", itself)]  # of a picture without a crop: an empty frame, but its name
