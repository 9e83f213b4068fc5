"""The doctor for a folder of people: what is broken, doubled, of bad quality or in the wrong folder.

In:  a folder a person, pictures inside, best made by crop_faces.py; a trained model, to doubt the labels too.
Out: report.html to look at, findings.csv, exclude.txt for the setting `exclude_pictures` of training, quality.csv
     for `picture_weights`.
Run: python dataset.py check crops --output_dir check --model runs/first/bundle
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray
from pydantic import Field

from check_findings import (
    Folder,
    ModelView,
    copy_groups,
    defects,
    duplicates,
    faces,
    model_figures,
    model_findings,
    model_words,
    person_of,
    quality,
    quality_table,
    speaking,
)
from check_report import write_page
from examining import Work, examine_folder, find_copies, list_pictures
from facekit import manifest, runtime
from facekit.files import check_writable, write_bytes, write_text
from facekit.findings import KINDS, Finding, counts, exclusion_list, findings_csv, in_order
from facekit.lock import locked
from facekit.name_list import names_text
from facekit.quality import NAMES, Limit, weights
from facekit.settings import Settings, parse
from facekit.tables import csv_bytes

RECORD, PLACE, EMBEDDINGS = "files.csv", "check.json", "embeddings"
VERSION = 2
"""Of what is kept for the next run. Raise it when a picture's figures or embeddings would come out otherwise."""


class CheckConfig(Settings):
    """Where good ends. What LFW's crops have is in the quality.csv of their check."""

    min_side: int = Field(40, ge=1)
    """Pixels of a picture's shorter side; fewer is too small. A face needs some 40 to be told from others."""

    min_eye_distance: float = Field(15.0, ge=0)
    """Pixels between the eyes in the original picture (crops only); fewer is too small, however large the crop."""

    min_sharpness: float = Field(0.1, ge=0)
    """Sharpness (no unit; see facekit.quality) below which a picture is blurred. LFW's crops: 1 % below 0.15."""

    min_brightness: float = Field(0.15, ge=0, le=1)
    """Mean grey, 0 to 1, below which a picture is underexposed. LFW's crops: 1 % below 0.30."""

    max_brightness: float = Field(0.85, ge=0, le=1)
    """Mean grey, 0 to 1, above which a picture is overexposed. LFW's crops: 1 % above 0.72."""

    max_clipped: float = Field(0.3, ge=0, le=1)
    """Share of black and white pixels above which a picture is clipped. LFW's crops: 1 % above 0.05."""

    max_yaw: float = Field(50.0, ge=0, le=90)
    """Degrees to either side, from the landmarks (crops only): above, half of the face is out of sight."""

    max_pitch: float = Field(50.0, ge=0, le=90)
    """Degrees up or down, likewise."""

    max_faces: int = Field(3, ge=1)
    """Faces in the original picture above which the choice among them is doubted (crops only)."""

    precision: float = Field(0.8, gt=0, lt=1)
    """Share of real errors to expect among the pictures unlike their folder, and among the folders of two people.
    Higher finds fewer, with less doubt."""

    false_doubles: float = Field(1.0, gt=0)
    """Pairs of different people that may be taken for one person by chance, in the whole folder."""

    min_pictures: int = Field(3, ge=2)
    """Pictures that a folder must have for its pictures to be compared with it: of two unlike ones, none is odd."""

    def limits(self) -> dict[str, tuple[Limit, ...]]:
        """What each kind of bad quality is measured by."""
        return {
            "too_small": (Limit("side", least=self.min_side), Limit("eye_distance", least=self.min_eye_distance)),
            "blurred": (Limit("sharpness", least=self.min_sharpness),),
            "dark": (Limit("brightness", least=self.min_brightness),),
            "bright": (Limit("brightness", most=self.max_brightness),),
            "clipped": (Limit("clipped", most=self.max_clipped),),
            "turned": (Limit("yaw", most=self.max_yaw), Limit("pitch", most=self.max_pitch)),
        }


class CheckCommand(CheckConfig):
    """Check every picture of a folder of people. Exit code 0: nothing found, 1: something, 2: wrong input."""

    directory: tyro.conf.Positional[Path]
    """A folder with one folder a person."""

    output_dir: Path | None = None
    """Where the report and lists go, and what is kept for the next run. None: runs/check/ and the folder's name."""

    model: Path | None = None
    """A trained bundle, to find wrong labels with. None: files, copies and quality only."""

    exclude_quality: bool = False
    """Also leave out pictures of bad quality (exclude.txt)."""

    processes: int = Field(0, ge=0)
    """Processes that decode pictures. 0: one for each core."""

    cluster: str = ""
    """Address of a cluster's scheduler whose workers decode instead; they must see the folder at the same path."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Write one JSON object to stdout; everything else goes to stderr."""


@dataclass(frozen=True)
class Check:
    """What a check found.

    Attributes:
        directory: the folder checked.
        output: where everything was written.
        folder: what was measured.
        examined: files looked at in this run, not in an earlier one.
        view: what the model says; None without one.
        findings: the gravest first.
        notes: sentences about what was not, or could not be, checked.
    """

    directory: Path
    output: Path
    folder: Folder
    examined: int
    view: ModelView | None
    findings: list[Finding]
    notes: list[str]

    @property
    def pictures(self) -> int:
        """Files looked at."""
        return len(self.folder.pictures) + len(self.folder.broken)

    @property
    def excluded(self) -> int:
        """Lines of exclude.txt."""
        return len(exclusion_list(self.findings))

    def to_dict(self) -> dict[str, Any]:
        """JSON values, plain numbers first."""
        judged = {} if self.view is None else model_figures(self.view)
        return {
            "pictures": self.pictures,
            "people": len({person_of(seen.path) for seen in (*self.folder.pictures, *self.folder.broken)}),
            "findings": len(self.findings),
            "excluded": self.excluded,
            "counts": counts(self.findings),
            "model": judged,
            "notes": self.notes,
            "directory": str(self.directory),
            "output": str(self.output),
        }

    def sentences(self) -> list[str]:
        """The check in words."""
        found = counts(self.findings)
        lines = [f"{self.pictures:,} files looked at ({self.examined:,} in this run)."]
        lines += [f"  {KINDS[kind][0]}: {number:,}" for kind, number in found.items()] or ["  Nothing was found."]
        return [*lines, *(model_words(self.view) if self.view else []), *self.notes]


def check(command: CheckCommand, asked: Callable[[], bool] = lambda: False) -> Check:
    """Check a folder and write report.html, findings.csv, exclude.txt and quality.csv.

    Raises:
        ValueError: the folder, the model or the output is wrong, or another process is writing there.
        KeyboardInterrupt: stopped; what was done is kept, and the next call goes on from there.
    """
    names = list_pictures(command.directory)
    output = command.output_dir or Path("runs") / "check" / command.directory.resolve().name
    check_writable(output, "output_dir")
    with locked(output):
        _claim_output(command.directory.resolve(), output)
        return _check_all(command, names, output, asked)


def _check_all(command: CheckCommand, names: Sequence[str], output: Path, asked: Callable[[], bool]) -> Check:
    """Check the pictures into an output folder that is ours."""
    root = command.directory
    verifier = _verifier(command.model)
    work = Work(command.processes, command.cluster, asked)
    rows, examined = examine_folder(root.absolute(), names, output / RECORD, work)
    pictures = [rows[name] for name in names if not rows[name].problem]
    broken = [rows[name] for name in names if rows[name].problem]
    crops = manifest.read(root) if manifest.crop_folder(root) else {}
    folder = Folder(
        pictures,
        broken,
        find_copies(root.absolute(), pictures, work),
        {row.crop: row for row in crops.values() if row.crop},
        sorted((row for row in crops.values() if not row.crop), key=lambda row: row.path),
    )
    copies = copy_groups(folder)
    view, notes = None, _notes(folder, bool(crops), verifier is not None)
    if verifier is not None and not pictures:
        notes.append("No picture is left to ask the model about.")
    elif verifier is not None:
        view, lost = _ask_model(verifier, command, folder, speaking(folder, copies), output, asked)
        notes += [f"{lost:,} pictures gave no face to the model: their labels were not doubted."] if lost else []
    table = quality_table(folder)
    table["side"] = np.array([min(seen.width, seen.height) for seen in pictures], np.float64)
    found = [
        *defects(folder),
        *duplicates(folder, copies, view),
        *(model_findings(folder, view) if view else ()),
        *faces(folder, command.max_faces),
        *quality(folder, table, command.limits(), command.exclude_quality),
    ]
    done = Check(root, output, folder, examined, view, in_order(found), notes)
    _write(done, table, command)
    return done


def _claim_output(root: Path, output: Path) -> None:
    """Mark the output folder with the folder that is checked; what an older version kept there goes.

    Raises:
        ValueError: it holds another folder's check, or a mark that cannot be read.
    """
    place = output / PLACE
    if place.exists():
        try:
            before = json.loads(place.read_text(encoding="utf-8"))
            checked, version = before["directory"], before.get("version", 1)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{place}: is not the mark of a check ({error}). Remove it.") from None
        if checked != str(root):
            raise ValueError(f"{output}: holds the check of {checked}. Choose another `output_dir` for {root}.")
        if version == VERSION:
            return
        (output / RECORD).unlink(missing_ok=True)
        shutil.rmtree(output / EMBEDDINGS, ignore_errors=True)
    write_text(place, json.dumps({"directory": str(root), "version": VERSION}) + "\n")


def _verifier(model: Path | None) -> Any:
    """The model at work, before hours of looking at files: a wrong bundle shows at once."""
    if model is None:
        return None
    from verifier import Verifier

    verifier = Verifier(model, engine="tensorflow")
    runtime.start_quietly()
    return verifier


def _ask_model(
    verifier: Any,
    command: CheckCommand,
    folder: Folder,
    spoken: NDArray[np.bool_],
    output: Path,
    asked: Callable[[], bool],
) -> tuple[ModelView, int]:
    """What the model says of the pictures, and how many gave it no face."""
    from facekit import folder_doubts, label_noise
    from kept_embeddings import embed_folder

    rows = embed_folder(verifier, command.directory, folder.pictures, output, asked, command.cluster)
    people, labels = np.unique([person_of(seen.path) for seen in folder.pictures], return_inverse=True)
    seen = np.asarray(np.isfinite(rows).all(axis=1))
    shown, own = label_noise.centred(rows[seen]), labels[seen]
    trusted = spoken[seen]
    misfits = label_noise.misfits(shown, own, trusted, command.precision, command.min_pictures)
    trusted = trusted & ~misfits.wrong
    splits = folder_doubts.splits(shown, own, trusted, command.precision)
    view = ModelView(
        people.tolist(),
        labels,
        spoken,
        replace(
            misfits,
            margin=_among_all(misfits.margin, seen, np.nan),
            other=_among_all(misfits.other, seen, 0),
            wrong=_among_all(misfits.wrong, seen, False),
        ),
        folder_doubts.doubles(shown, own, trusted, command.false_doubles),
        replace(splits, part=_among_all(splits.part, seen, -1)),
    )
    return view, int((~seen).sum())


def _among_all(values: NDArray[Any], chosen: NDArray[np.bool_], rest: Any) -> NDArray[Any]:
    """What is known of the chosen pictures as a row of all, with `rest` for the others."""
    row = np.full(len(chosen), rest, values.dtype)
    row[chosen] = values
    return row


def _notes(folder: Folder, crops: bool, model: bool) -> list[str]:
    notes = []
    if not crops:
        notes.append("No manifest of crops: faces, size of faces and pose were not checked.")
    elif lacking := sum(seen.path not in folder.rows for seen in folder.pictures):
        notes.append(f"{lacking:,} pictures are not in the manifest of crops: their faces were not checked.")
    if not model:
        notes.append("No model was named (--model): labels were not doubted.")
    return notes


def _write(done: Check, table: Mapping[str, NDArray[np.float64]], command: CheckCommand) -> None:
    limits = [limit for of_kind in command.limits().values() for limit in of_kind]
    write_bytes(done.output / "findings.csv", findings_csv(done.findings))
    write_text(done.output / "exclude.txt", names_text(exclusion_list(done.findings)))
    write_bytes(done.output / "quality.csv", _quality_csv(done.folder, table, weights(table, limits)))
    write_page(done.output / "report.html", done.directory, done.folder, done.view, done.findings, done.sentences())


def _quality_csv(folder: Folder, table: Mapping[str, NDArray[np.float64]], worth: NDArray[np.float64]) -> bytes:
    """A line a picture: path, the figures, weight in (0, 1]; nothing where a figure is unknown."""
    rows = [["path", *NAMES, "weight"]]
    columns = [table[name].tolist() for name in NAMES]
    for number, seen in enumerate(folder.pictures):
        figures = ["" if np.isnan(column[number]) else f"{column[number]:.4f}" for column in columns]
        rows.append([seen.path, *figures, f"{worth[number]:.4f}"])
    return csv_bytes(rows)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 nothing found, 1 something, 2 wrong input, 130 interrupted."""
    command = parse(CheckCommand, argv, program="dataset.py check")
    # Bad files are reported by name, by us; the decoder's own lines name none. Worker processes inherit this.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    try:
        with runtime.stop_requests("finishing the pictures under way") as asked:
            done = check(command, asked)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. Nothing done is lost: run the same command again to go on.", file=sys.stderr)
        return runtime.INTERRUPTED
    if command.as_json:
        print(json.dumps(done.to_dict(), indent=2))
    else:
        print("\n".join([f"{done.directory}:", *done.sentences(), *_next_steps(done)]))
    return 1 if done.findings else 0


def _next_steps(done: Check) -> list[str]:
    lines = [f"Look: {done.output / 'report.html'}   All findings: {done.output / 'findings.csv'}"]
    if done.excluded:
        excluded = shlex.quote(str(done.output / "exclude.txt"))
        lines.append(
            f"Training without {done.excluded:,} of them: python train.py --train_dir "
            f"{shlex.quote(str(done.directory))} --exclude_pictures {excluded}"
        )
    return lines


if __name__ == "__main__":
    sys.exit(main())
