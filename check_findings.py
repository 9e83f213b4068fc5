"""What a check makes of what it measured: findings, with a suggestion each, and what training should leave out.

In:  what was seen of every file, pairs of copies, the manifest of crops, embeddings where there is a model.
Out: findings. Certain defects are excluded, of copies all but the best, copies across people altogether unless the
     model knows whose they are, pictures unlike their folder; bad quality only where asked. A doubtful folder is
     never excluded: it is a person's whole data, and one look at its pictures mends it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from examining import Tie
from facekit.copies import groups
from facekit.examination import Examined
from facekit.findings import DEFECTS, KINDS, Finding
from facekit.folder_doubts import Doubles, Splits
from facekit.label_noise import Misfits
from facekit.manifest import Row
from facekit.quality import NAMES, PIXELS, Limit, eye_distances, pose

REMOVE = "leave out"
_MENDS = {
    "not_permitted": "allow it to be read, or leave it out",
    "heic": "save it as JPEG, or leave it out",
    "too_large": "make it smaller, or leave it out",
}


@dataclass(frozen=True)
class Folder:
    """What was measured of a folder's pictures.

    Attributes:
        pictures: n that can be decoded.
        broken: those that cannot.
        ties: pairs of copies among the n.
        rows: the manifest's rows by crop, where the folder holds crops; else none.
        faceless: the manifest's rows of pictures that gave no crop.
    """

    pictures: Sequence[Examined]
    broken: Sequence[Examined]
    ties: Sequence[Tie] = ()
    rows: Mapping[str, Row] = field(default_factory=dict)
    faceless: Sequence[Row] = ()


@dataclass(frozen=True)
class ModelView:
    """What a model says of n pictures.

    Attributes:
        people: names of the folders.
        labels: (n,) int64 positions in `people`.
        speaking: (n,) bool: pictures that speak for their folder; further copies of a picture don't.
        misfits: pictures against folders.
        doubles: folders alike.
        splits: folders of two people.
    """

    people: Sequence[str]
    labels: NDArray[np.int64]
    speaking: NDArray[np.bool_]
    misfits: Misfits
    doubles: Doubles
    splits: Splits


def person_of(path: str) -> str:
    """The folder that a picture lies in."""
    return path.split("/", 1)[0]


def quality_table(folder: Folder) -> dict[str, NDArray[np.float64]]:
    """The figures of `facekit.quality.Quality` of all pictures, a column of n each; NaN where landmarks lack."""
    n = len(folder.pictures)
    table = {name: np.full(n, np.nan) for name in NAMES}
    if n:
        table |= dict(zip(PIXELS, np.array([row.pixels for row in folder.pictures]).T, strict=True))
    faces = {place: row.face for place, seen in enumerate(folder.pictures) if (row := folder.rows.get(seen.path))}
    points = {place: face.landmarks for place, face in faces.items() if face is not None}
    if points:
        places, landmarks = list(points), np.stack(list(points.values()))
        table["eye_distance"][places] = eye_distances(landmarks)
        for name, angles in zip(("yaw", "pitch", "roll"), pose(landmarks), strict=True):
            table[name][places] = angles
    return table


def defects(folder: Folder) -> Iterator[Finding]:
    """Files that hold no whole picture."""
    for seen in folder.broken:
        assert seen.problem in DEFECTS
        mend = _MENDS.get(seen.problem, "get it again, or delete it")
        yield Finding(seen.problem, person_of(seen.path), seen.path, seen.size, suggestion=mend, excluded=True)


def faces(folder: Folder, most: int) -> Iterator[Finding]:
    """Pictures without a crop, by the manifest's reason, and crops chosen among more than `most` faces."""
    for row in folder.faceless:
        if row.reason in KINDS and row.reason not in DEFECTS and "/" in row.path:
            advice = "none needed: there is no crop; see whether the picture shows a face"
            yield Finding(row.reason, person_of(row.path), row.path, row.faces, suggestion=advice)
    for seen in folder.pictures:
        found = folder.rows.get(seen.path)
        if found is not None and found.faces > most:
            advice = "see whether the chosen face is the person's"
            yield Finding("many_faces", person_of(seen.path), seen.path, found.faces, suggestion=advice)


def quality(
    folder: Folder,
    table: Mapping[str, NDArray[np.float64]],
    limits: Mapping[str, Sequence[Limit]],
    exclude: bool,
) -> Iterator[Finding]:
    """Pictures beyond the limits of each kind of quality; the value is of the limit that is missed most."""
    for problem, of_kind in limits.items():
        missed = np.stack([limit.misses(table[limit.name]) for limit in of_kind])
        worst = missed.argmax(axis=0)
        beyond = missed.max(axis=0)
        for place in sorted(np.flatnonzero(beyond > 1).tolist(), key=lambda place: -beyond[place]):
            path, value = folder.pictures[place].path, table[of_kind[worst[place]].name][place]
            advice = REMOVE if exclude else "look at it; --exclude_quality leaves such pictures out"
            yield Finding(problem, person_of(path), path, float(value), suggestion=advice, excluded=exclude)


def copy_groups(folder: Folder) -> list[list[int]]:
    """Groups of copies, positions, the best first: most pixels, then sharpest, then by name."""
    pairs = np.array([(tie.one, tie.two) for tie in folder.ties], np.int64).reshape(-1, 2)

    def rank(place: int) -> tuple[int, float, str]:
        seen = folder.pictures[place]
        return -seen.width * seen.height, -seen.pixels[0], seen.path

    return [sorted(map(int, group), key=rank) for group in groups(pairs, len(folder.pictures))]


def speaking(folder: Folder, copies: Sequence[Sequence[int]]) -> NDArray[np.bool_]:
    """Which pictures speak for their folder, (n,) bool: of copies the best one; across people none."""
    spoken = np.ones(len(folder.pictures), bool)
    for group in copies:
        across = len({person_of(folder.pictures[place].path) for place in group}) > 1
        spoken[group[0 if across else 1 :]] = False
    return spoken


def duplicates(folder: Folder, copies: Sequence[Sequence[int]], view: ModelView | None) -> Iterator[Finding]:
    """Copies: of a person's all but the best go; of several people's all, unless the model knows whose they are."""
    likeness: dict[int, float] = {}
    for tie in folder.ties:
        for place in (tie.one, tie.two):
            likeness[place] = max(likeness.get(place, 0.0), tie.likeness)
    for group in copies:
        owners = {place: person_of(folder.pictures[place].path) for place in group}
        across = len(set(owners.values())) > 1
        kept = _kept(group, owners, view) if across else group[0]
        for place in group:
            if place == kept and not across:
                continue
            # Shown beside it: the one that stays, or the best of another person.
            beside = (
                kept
                if kept not in (None, place)
                else next(p for p in group if p != place and (not across or owners[p] != owners[place]))
            )
            yield Finding(
                "duplicate_across" if across else "duplicate",
                owners[place],
                folder.pictures[place].path,
                likeness[place],
                folder.pictures[beside].path,
                owners[beside],
                _advice(across, place == kept, kept is not None),
                place != kept,
            )


def _advice(across: bool, stays: bool, known: bool) -> str:
    if not across:
        return "leave out: the other is as good or better"
    if stays:
        return "keep: the model finds that it belongs here"
    return "leave out: the model finds it in the wrong folder" if known else "leave out both, or see whose it is"


def _kept(group: Sequence[int], owners: Mapping[int, str], view: ModelView | None) -> int | None:
    """The copy to keep of one photo in several folders: where it alone is no stranger; None: nobody can tell."""
    if view is None:
        return None
    judged = {place: view.misfits.margin[place] for place in group}
    if not np.isfinite(list(judged.values())).all():
        return None
    at_home = {owners[place] for place in group if not view.misfits.wrong[place]}
    if len(at_home) != 1:
        return None
    return next(place for place in group if owners[place] in at_home)


def model_findings(folder: Folder, view: ModelView) -> Iterator[Finding]:
    """What the model finds: pictures unlike their folder, folders alike, folders of two people."""
    wrong = np.flatnonzero(view.misfits.wrong & view.speaking)
    for place in wrong[np.argsort(view.misfits.margin[wrong], kind="stable")]:
        path, other = folder.pictures[place].path, view.people[view.misfits.other[place]]
        advice = f"leave out, or move to {other} where it is that person"
        margin = float(view.misfits.margin[place])
        yield Finding("wrong_label", person_of(path), path, margin, "", other, advice, excluded=True)
    for (one, two), likeness in zip(view.doubles.pairs.tolist(), view.doubles.likeness.tolist(), strict=True):
        advice = "put both into one folder, if it is one person"
        yield Finding("same_person", view.people[one], "", likeness, "", view.people[two], advice)
    for person in view.splits.folders.tolist():
        advice = "make two folders of it, if it is two people"
        yield Finding("two_people", view.people[person], "", float(view.splits.gap[person]), suggestion=advice)


def model_figures(view: ModelView) -> dict[str, Any]:
    """The thresholds of the model's findings and what they expect, as JSON values."""
    wrong, split = view.misfits.judged, view.splits.judged

    def plain(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return {
        "margin_threshold": plain(wrong.threshold),
        "wrong_share": wrong.share,
        "expected_false_alarms": wrong.expected_right,
        "judged": int(np.isfinite(view.misfits.margin).sum()),
        "likeness_threshold": plain(view.doubles.threshold),
        "expected_false_doubles": view.doubles.expected_false,
        "gap_threshold": plain(split.threshold),
        "expected_false_splits": split.expected_right,
    }


def model_words(view: ModelView) -> list[str]:
    """What the model's findings are worth, in words."""
    wrong, split = view.misfits.judged, view.splits.judged
    able = int(np.isfinite(view.misfits.margin).sum())
    lines = [
        f"Labels: {able:,} of {len(view.labels):,} pictures could be compared with their folder. About "
        f"{100 * wrong.share:.1f} % of them seem to be somebody else (an upper estimate). {wrong.found:,} are "
        f"below the threshold; about {wrong.expected_right:.0f} of these are expected to be right all the same "
        f"({100 * wrong.expected_right / max(1, able):.2f} % of all)."
        if wrong.found
        else f"Labels: {able:,} of {len(view.labels):,} pictures could be compared with their folder; the model "
        "cannot tell a wrong label from a right one there with the precision asked for."
    ]
    if np.isfinite(view.doubles.threshold):
        lines.append(
            f"Pairs of folders alike (a cosine above {view.doubles.threshold:.3f}): {len(view.doubles.pairs):,}; "
            f"{view.doubles.expected_false:g} or fewer of two different people are expected by chance."
        )
    if split.found:
        lines.append(
            f"Folders of two people: {split.found:,}, of which about {split.expected_right:.0f} are expected to be "
            "of one all the same."
        )
    return lines
