"""What a check finds, as rows: for a person to read, and for training to leave out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from facekit.tables import csv_bytes

COLUMNS = ("path", "person", "problem", "value", "other_path", "other_person", "suggestion", "excluded")

KINDS: dict[str, tuple[str, str]] = {
    "not_permitted": ("Not permitted", "The file may not be read by this user."),
    "unreadable": ("Unreadable", "The file cannot be read, or is no link to a file any more."),
    "empty": ("Empty", "The file has no bytes."),
    "truncated": ("Truncated", "The file begins as a picture and cannot be decoded to its end."),
    "not_a_picture": ("Not a picture", "The file's name says picture; its bytes don't."),
    "heic": ("HEIC or AVIF", "A phone's format that is not decoded here; save the picture as JPEG first."),
    "too_large": ("Too large", "More than 512 MiB, or the file declares more than 2^28 pixels: it is not decoded."),
    "duplicate": ("Copies within a person", "The same photo twice in one folder: it counts twice in training."),
    "duplicate_across": ("Copies across people", "The same photo in two folders: one of the labels is wrong."),
    "wrong_label": ("Unlike their folder", "The picture resembles another folder more than the others of its own."),
    "same_person": ("Two folders, one person", "The two folders look like the same person."),
    "two_people": ("One folder, two people", "The folder falls into two parts, as unlike as two people."),
    "no_face": ("No face", "The detector found no face, so there is no crop."),
    "low_confidence": ("No certain face", "The detector was not certain enough of any face, so there is no crop."),
    "many_faces": ("Many faces", "Several faces: the one that was chosen may be somebody else's."),
    "too_small": ("Too small", "Too few pixels for a face."),
    "blurred": ("Blurred", "Less fine detail than a face has."),
    "dark": ("Underexposed", "The face is nearly black."),
    "bright": ("Overexposed", "The face is nearly white."),
    "clipped": ("Clipped", "Much of the face is plain black or plain white: its detail is lost."),
    "turned": ("Turned away", "The face is turned or tilted far from the camera."),
}
"""Kinds of findings, the gravest first: their names for people, and what they mean."""

DEFECTS = ("not_permitted", "unreadable", "empty", "truncated", "not_a_picture", "heic", "too_large")


@dataclass(frozen=True)
class Finding:
    """One thing found.

    Attributes:
        problem: a name of `KINDS`.
        person: the folder.
        path: the picture; "" where the folder as a whole is meant.
        value: the number behind it.
        other_path: the picture that it is a copy of; else "".
        other_person: the folder that it belongs to, or looks like; else "".
        suggestion: what to do, in words.
        excluded: whether it goes into the list of what training leaves out.
    """

    problem: str
    person: str
    path: str = ""
    value: float = 0.0
    other_path: str = ""
    other_person: str = ""
    suggestion: str = ""
    excluded: bool = False

    def cells(self) -> list[str]:
        """The finding as text, in the order of `COLUMNS`."""
        ends = [self.other_path, self.other_person, self.suggestion, "yes" if self.excluded else "no"]
        return [self.path, self.person, self.problem, f"{self.value:.4g}", *ends]


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """The gravest kind first, then by place; within a kind of the models' as they came, the clearest first."""
    kinds = list(KINDS)
    return sorted(findings, key=lambda finding: kinds.index(finding.problem))


def findings_csv(findings: Sequence[Finding]) -> bytes:
    """The findings as CSV with a header."""
    return csv_bytes([COLUMNS, *(finding.cells() for finding in findings)])


def exclusion_list(findings: Iterable[Finding]) -> list[str]:
    """What training should leave out: a picture, or a whole folder, each once, sorted."""
    return sorted({finding.path or finding.person for finding in findings if finding.excluded})


def counts(findings: Iterable[Finding]) -> dict[str, int]:
    """How many of each kind, the gravest first; kinds not found are left out."""
    found = [finding.problem for finding in findings]
    return {kind: found.count(kind) for kind in KINDS if kind in found}
