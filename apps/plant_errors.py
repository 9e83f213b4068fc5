"""Measure the doctor for data: damage a copy of a folder in known ways, and score a check of it.

In:  a folder of people that is taken for right; later the folder that `python dataset.py check` wrote.
Out: the damaged folder (unchanged pictures are hard links where the disk allows) and truth.csv; precision and
     recall of each kind of finding as a Markdown table.
Run: python -m apps.plant_errors plant crops damaged
     python dataset.py check damaged --output_dir check --model runs/first/bundle
     python -m apps.plant_errors score damaged check
"""

from __future__ import annotations

import csv
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import tyro
from pydantic import Field

from examining import list_pictures
from facekit import manifest
from facekit.files import check_writable, write_bytes
from facekit.images import Image, encode_jpeg, read_image
from facekit.settings import Settings, parse
from facekit.tables import csv_bytes

TRUTH = "truth.csv"
SWAPPED, MERGED, FROM_MERGED, SPLIT = "swapped", "merged", "from_merged", "split"
WITHIN, ACROSS = "within", "across"


class PlantCommand(Settings):
    """Copy a folder of people and plant errors in the copy."""

    source: tyro.conf.Positional[Path]
    """A folder with one folder a person."""

    target: tyro.conf.Positional[Path]
    """The damaged copy: new or empty."""

    swapped: float = Field(0.05, ge=0, lt=1)
    """Share of pictures that are moved into somebody else's folder, drawn as often as it has pictures."""

    each: int = Field(40, ge=0)
    """Pictures of each other kind of damage, and copies of each kind, within a person and across people."""

    folders: int = Field(10, ge=0)
    """Pairs of folders that are merged, and folders that are split in two; each has 6 pictures or more."""

    seed: int = Field(0, ge=0)
    """Of all draws."""


class ScoreCommand(Settings):
    """Compare a check of a damaged folder with what was planted; prints a Markdown table."""

    damaged: tyro.conf.Positional[Path]
    """The folder that `plant` made."""

    check: tyro.conf.Positional[Path]
    """The folder that `python dataset.py check` wrote."""

    people: Annotated[tuple[Path, ...], tyro.conf.UseAppendAction] = ()
    """Text files of names: count only labels, and only these people's, such as who did not train the model."""


def _stored(quality: int = 90) -> Callable[[Image], bytes]:
    return lambda image: encode_jpeg(image, quality)


def _scaled(image: Image, factor: float) -> Image:
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=factor, fy=factor, interpolation=way)


def _edged(image: Image, share: float) -> Image:
    """Without a strip on two sides, as a hand would cut."""
    height, width = image.shape[:2]
    return image[round(share * height) :, : width - round(share * width)]


def _lit(image: Image, gain: float, offset: float) -> Image:
    return np.clip(image.astype(np.float32) * gain + offset, 0, 255).astype(np.uint8)


COPIES: dict[str, Callable[[Image], bytes]] = {
    "reencoded": lambda image: encode_jpeg(image, 50),
    "resized": lambda image: encode_jpeg(_scaled(image, 0.7), 85),
    "cropped": lambda image: encode_jpeg(_edged(image, 0.025), 90),
    "brightened": lambda image: encode_jpeg(_lit(image, 1.15, 20), 90),
}
"""How a photo is stored a second time; "exact" copies come beside these."""

DAMAGES: dict[str, Callable[[Image], bytes]] = {
    "truncated": lambda image: encode_jpeg(image)[: len(encode_jpeg(image)) * 2 // 3],
    "empty": lambda _image: b"",
    "not_a_picture": lambda _image: b"<html><body>404 Not Found</body></html>\n",
    "blurred": lambda image: encode_jpeg(cv2.GaussianBlur(image, (0, 0), 0.03 * image.shape[1])),
    "dark": lambda image: encode_jpeg(_lit(image, 0.2, 0)),
    "bright": lambda image: encode_jpeg(_lit(image, 1.2, 110)),
    "too_small": lambda image: encode_jpeg(_scaled(image, 28 / min(image.shape[:2]))),
}
"""What is done to a picture in its place. The names are those of the findings."""


@dataclass
class Plan:
    """Which file of the damaged folder comes from where.

    Attributes:
        source: the picture in the source folder that each file shows.
        change: what is done to it; absent: the file itself.
        truth: rows of truth.csv: kind, path, other.
    """

    source: dict[str, str] = field(default_factory=dict)
    change: dict[str, Callable[[Image], bytes]] = field(default_factory=dict)
    truth: list[tuple[str, str, str]] = field(default_factory=list)


def make_plan(names: Sequence[str], command: PlantCommand) -> Plan:
    """Draw who and what is damaged; no picture is damaged twice.

    Raises:
        ValueError: there are too few pictures or people for so much damage.
    """
    rng = np.random.default_rng(command.seed)
    plan = Plan({name: name for name in names})
    drawn = iter(rng.permutation(np.array(sorted(names))).tolist())
    moved = round(command.swapped * len(names))
    wanted = moved + command.each * (len(DAMAGES) + 2 * (len(COPIES) + 1))
    if wanted > len(names) // 2:
        raise ValueError(
            f"`each` {command.each}: {wanted} of {len(names)} pictures would be damaged. Ask for fewer."
        )
    owners = [name.split("/")[0] for name in names]
    _plan_folders(plan, owners, command, rng)

    def elsewhere(name: str) -> str:
        person = name.split("/")[0]
        while (other := owners[rng.integers(len(owners))]) == person:
            continue
        return other

    for name in (next(drawn) for _ in range(moved)):
        _move(plan, name, elsewhere(name))
    for kind, damage in DAMAGES.items():
        for name in (next(drawn) for _ in range(command.each)):
            place = _place(plan, name)
            plan.change[place] = damage
            plan.truth.append((kind, place, name))
    for kind in ("exact", *COPIES):
        for where in (WITHIN, ACROSS):
            for name in (next(drawn) for _ in range(command.each)):
                _copy(plan, name, kind, where, elsewhere(name))
    return plan


def _place(plan: Plan, name: str) -> str:
    """Where a source picture lies in the damaged folder."""
    return name if plan.source.get(name) == name else next(p for p, s in plan.source.items() if s == name)


def _plan_folders(plan: Plan, owners: Sequence[str], command: PlantCommand, rng: np.random.Generator) -> None:
    large = sorted(person for person, number in Counter(owners).items() if number >= 6)
    if len(large) < 3 * command.folders:
        raise ValueError(
            f"`folders` {command.folders}: needs {3 * command.folders} folders of 6 pictures, found {len(large)}."
        )
    chosen = rng.permutation(large)[: 3 * command.folders].tolist()
    for kept, gone in zip(chosen[: command.folders], chosen[command.folders : 2 * command.folders], strict=True):
        plan.truth.append((MERGED, kept, gone))
        for name in [name for name in plan.source if name.startswith(f"{gone}/")]:
            place = f"{kept}/{gone}__{name.split('/', 1)[1]}"
            plan.source[place] = plan.source.pop(name)
            plan.truth.append((FROM_MERGED, place, name))
    for person in chosen[2 * command.folders :]:
        plan.truth.append((SPLIT, person, f"{person}__2"))
        for name in [name for name in plan.source if name.startswith(f"{person}/")][1::2]:
            plan.source[f"{person}__2/{name.split('/', 1)[1]}"] = plan.source.pop(name)


def _move(plan: Plan, name: str, person: str) -> None:
    place = _place(plan, name)
    target = f"{person}/moved__{name.replace('/', '__')}"
    plan.source[target] = plan.source.pop(place)
    plan.truth.append((SWAPPED, target, name))


def _copy(plan: Plan, name: str, kind: str, where: str, person: str) -> None:
    place = _place(plan, name)
    folder = place.split("/")[0] if where == WITHIN else person
    target = f"{folder}/{kind}__{name.replace('/', '__')}"
    plan.source[target] = name
    if kind in COPIES:
        plan.change[target] = COPIES[kind]
    plan.truth.append((f"{kind} {where}", target, place))


def plant(command: PlantCommand) -> Plan:
    """Write the damaged folder and its truth.csv.

    Raises:
        ValueError: the source holds no pictures, or too few, or the target is not empty.
    """
    names = list_pictures(command.source)
    if command.target.is_dir() and any(command.target.iterdir()):
        raise ValueError(f"{command.target}: is not empty. Choose a new folder.")
    plan = make_plan(names, command)
    check_writable(command.target, "target")
    for place, name in plan.source.items():
        path, origin = command.target / place, command.source / name
        path.parent.mkdir(exist_ok=True)
        if place in plan.change:
            write_bytes(path, plan.change[place](read_image(origin)))
        else:
            _link(origin, path)
    _write_manifest(command, plan)
    write_bytes(command.target / TRUTH, csv_bytes([("kind", "path", "other"), *plan.truth]))
    return plan


def _link(origin: Path, path: Path) -> None:
    try:
        os.link(origin.resolve(), path)
    except OSError:  # another disk, or one without links
        shutil.copy2(origin, path)


def _write_manifest(command: PlantCommand, plan: Plan) -> None:
    """The manifest of a folder of crops, with the new names; the originals know nothing of these."""
    made = manifest.crop_folder(command.source)
    if made is None:
        return
    rows = {row.crop: row for row in manifest.read(command.source).values() if row.crop}
    made.write(command.target)
    known = ((place, rows[name]) for place, name in plan.source.items() if name in rows)
    manifest.rewrite(command.target, [row._replace(path=place, crop=place) for place, row in known])


@dataclass(frozen=True)
class Line:
    """One kind of error: how many were planted, could be found, were found; reports of that kind, and true ones."""

    kind: str
    planted: int
    findable: int
    found: int
    reported: int | None
    true: int | None

    def markdown(self) -> str:
        """The line of the table."""
        precision = "" if self.reported is None or self.true is None else _share(self.true, self.reported)
        reported = "" if self.reported is None else str(self.reported)
        counts = [str(self.planted), str(self.findable), str(self.found)]
        recalls = [_share(self.found, self.findable), _share(self.found, self.planted)]
        cells = [self.kind, *counts, *recalls, reported, precision]
        return f"| {' | '.join(cells)} |"


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.3f}" if whole else ""


HEADER = """| planted | number | could be found | found | recall of those | recall of all | reports | precision |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"""


def score(command: ScoreCommand) -> list[Line]:
    """Count what a check found of what was planted.

    Raises:
        ValueError: a file is missing.
    """
    truth = [(row["kind"], row["path"], row["other"]) for row in _rows(command.damaged / TRUTH)]
    findings = _rows(command.check / "findings.csv")
    chosen = {name for path in command.people for name in path.read_text(encoding="utf-8").splitlines()}
    origin = {path: other.split("/")[0] for kind, path, other in truth if kind in (SWAPPED, FROM_MERGED)}
    if chosen:
        truth = [row for row in truth if (row[2] if "/" in row[2] else row[1]).split("/")[0] in chosen]
        findings = [row for row in findings if origin.get(row["path"], row["person"]) in chosen]
    sizes = Counter(name.split("/")[0] for name in list_pictures(command.damaged))
    by_problem: dict[str, list[dict[str, str]]] = {}
    for row in findings:
        by_problem.setdefault(row["problem"], []).append(row)
    labels = [
        _label_line(truth, by_problem.get("wrong_label", []), sizes, origin),
        _folder_line(MERGED, truth, by_problem.get("two_people", [])),
        _folder_line(SPLIT, truth, by_problem.get("same_person", [])),
    ]
    if chosen:  # a copy has two owners, and no model looks for damage
        return labels
    return [
        *(_picture_line(kind, truth, by_problem.get(kind, [])) for kind in DAMAGES),
        *_copy_lines(truth, by_problem),
        *labels,
    ]


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from None


def _picture_line(kind: str, truth: Sequence[tuple[str, str, str]], findings: Sequence[dict[str, str]]) -> Line:
    planted = {path for name, path, _ in truth if name == kind}
    reported = {row["path"] for row in findings}
    return Line(kind, len(planted), len(planted), len(planted & reported), len(reported), len(planted & reported))


def _copy_lines(truth: Sequence[tuple[str, str, str]], by_problem: dict[str, list[dict[str, str]]]) -> list[Line]:
    lines = []
    for where, problem in ((WITHIN, "duplicate"), (ACROSS, "duplicate_across")):
        reported = [{row["path"], row["other_path"]} for row in by_problem.get(problem, [])]
        kinds = [f"{kind} {where}" for kind in ("exact", *COPIES)]
        planted = {kind: [{path, other} for name, path, other in truth if name == kind] for kind in kinds}
        named = set().union(*reported) if reported else set()
        for kind, pairs in planted.items():
            found = sum(pair <= named for pair in pairs)
            lines.append(Line(f"copies: {kind}", len(pairs), len(pairs), found, None, None))
        every = [pair for pairs in planted.values() for pair in pairs]
        found, true = sum(pair <= named for pair in every), sum(pair in every for pair in reported)
        lines.append(Line(f"copies {where}, all", len(every), len(every), found, len(reported), true))
    return lines


def _label_line(
    truth: Sequence[tuple[str, str, str]],
    findings: Sequence[dict[str, str]],
    sizes: Counter[str],
    origin: dict[str, str],
) -> Line:
    """Moved pictures. A report is true of any picture in a folder that is not its person's, or in half of one."""
    planted = {path for kind, path, _ in truth if kind == SWAPPED}
    findable = {path for path in planted if sizes[path.split("/")[0]] >= 3}
    halves = {frozenset((path, other)) for kind, path, other in truth if kind == SPLIT}
    reported = {row["path"] for row in findings}
    true = sum(
        row["path"] in origin or frozenset((row["person"], row["other_person"])) in halves for row in findings
    )
    return Line("label: moved picture", len(planted), len(findable), len(planted & reported), len(reported), true)


def _folder_line(kind: str, truth: Sequence[tuple[str, str, str]], findings: Sequence[dict[str, str]]) -> Line:
    planted = [(path, other) for name, path, other in truth if name == kind]
    if kind == MERGED:
        wanted = {frozenset((path,)) for path, _ in planted}
        reported = {frozenset((row["person"],)) for row in findings}
    else:
        wanted = {frozenset(pair) for pair in planted}
        reported = {frozenset((row["person"], row["other_person"])) for row in findings}
    both = len(wanted & reported)
    return Line(f"folder: {kind}", len(wanted), len(wanted), both, len(reported), both)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `plant` or `score`; returns the exit code: 0 done, 2 wrong input."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["plant"]:
            plan = plant(parse(PlantCommand, words[1:], program="apps.plant_errors plant"))
            counted = Counter(kind for kind, _, _ in plan.truth)
            print("\n".join(f"{kind}: {number:,}" for kind, number in counted.items()))
            return 0
        if words[:1] == ["score"]:
            lines = score(parse(ScoreCommand, words[1:], program="apps.plant_errors score"))
            print("\n".join([HEADER, *(line.markdown() for line in lines)]))
            return 0
        raise ValueError("Name what to do: plant SOURCE TARGET, or score DAMAGED CHECK (--help after either).")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
