"""Compare training runs: one table and one plot.

In:  folders of runs, finished or not; train.py and evaluate.py wrote them.
Out: the settings that differ, and figures of the best epochs on validation and test people, on stdout and in
     compare.md, compare.csv and compare.png.
Run: python -m apps.compare runs/*
"""

from __future__ import annotations

import csv
import json
import math
import os
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from config import Config
from facekit import runtime
from facekit.files import check_writable, write_text
from facekit.plots import save_figure
from facekit.run_plots import Line, runs_figure
from facekit.setting_table import Value, flat
from facekit.settings import Settings, parse
from facekit.tables import csv_text
from runs import PLACES, figure_of

_LONGEST = 40


class CompareCommand(Settings):
    """Compare training runs: the settings in which they differ, and what came of them."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Folders of runs; others are passed over."""

    output: Path | None = None
    """Folder for compare.md, compare.csv and compare.png. None: the folder that holds the runs."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Write one JSON object to stdout instead of the table."""


@dataclass(frozen=True)
class Test:
    """What evaluate.py found of a run's model on pairs of people whom it has not seen.

    Attributes:
        pairs: which ones, in short.
        auc: area under the ROC curve.
        interval: its 95 % interval; None where it is not known.
        accuracy: share of right decisions at the model's own threshold.
    """

    pairs: str
    auc: float
    interval: tuple[float, float] | None
    accuracy: float | None

    @property
    def text(self) -> str:
        """AUC with its interval, and accuracy."""
        within = f" ({self.interval[0]:.3f} to {self.interval[1]:.3f})" if self.interval else ""
        return f"{self.auc:.3f}{within}, {_number(self.accuracy)}"


def _own_accuracy(report: Mapping[str, Any]) -> float | None:
    """At the model's own threshold: the report's headline is that of folds where the pairs file has them."""
    at = report.get("at_threshold")
    return at.get("accuracy") if at else None


@dataclass(frozen=True)
class Run:
    """A run's folder, read.

    Attributes:
        name: what to call it.
        settings: flat, without those that only say where it lives.
        planned: epochs that it was to have.
        history: a row of figures for each epoch.
        people: digest of whom it was validated on; None: not known.
        tests: by the pairs.
        finished: whether it has its product.
        faults: sentences on what could not be read.
    """

    name: str
    settings: Mapping[str, Value]
    planned: int
    history: Sequence[Mapping[str, float]]
    people: str | None
    tests: Mapping[str, Test]
    finished: bool
    faults: Sequence[str] = field(default_factory=list)

    @property
    def best(self) -> Mapping[str, float]:
        """The figures of the epoch that the run's `monitor` calls the best; empty where no epoch has ended."""
        monitor, larger = figure_of(str(self.settings["monitor"]))
        sign = 1 if larger else -1
        judged = [row for row in self.history if math.isfinite(row.get(monitor, math.nan))]
        return max(judged, key=lambda row: sign * row[monitor], default={})

    @property
    def speed(self) -> float | None:
        """Pictures a second, the median of the epochs: the first one compiles."""
        speeds = [row["images_per_second"] for row in self.history if "images_per_second" in row]
        return statistics.median(speeds) if speeds else None

    @property
    def done(self) -> str:
        """Epochs that have ended, and of how many where some are missing."""
        done = self.epochs_done
        return str(done) if done == self.planned else f"{done} of {self.planned}"

    @property
    def epochs_done(self) -> int:
        """Epochs that have ended; the start, epoch 0 of a run from weights, is none."""
        return sum(row["epoch"] > 0 for row in self.history)


def read_run(folder: Path, name: str) -> Run:
    """Read a run's folder.

    Raises:
        ValueError: its settings cannot be read; all else that cannot is said in the run's `faults`.
    """
    saved = _read_json(folder / "config.json")
    settings = {**Config().model_dump(mode="json"), **saved}
    faults: list[str] = []
    data = {"digests": {}, **_tried(faults, {}, _read_json, folder / "data.json")}
    # As it was found, not as it was typed: one folder has one name.
    settings["train_dir"] = data.get("train_dir", settings["train_dir"])
    history = _tried(faults, [], _read_history, folder / "history.csv")
    tests = [_tried(faults, None, _read_test, path) for path in sorted(folder.glob("*/report.json"))]
    try:
        planned = sum(stage["epochs"] for stage in settings["stages"]) or int(settings["epochs"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder / 'config.json'}: is damaged, its epochs cannot be counted ({error!r})."
        ) from None
    finished = (folder / "bundle" / "bundle.json").exists()
    if not finished:
        done = sum(row["epoch"] > 0 for row in history)
        faults.append(f"{name} is not finished: {done} of {planned} epochs. train.py --resume goes on.")
    return Run(
        name=name,
        settings={key: value for key, value in flat(settings).items() if key not in PLACES},
        planned=planned,
        history=history,
        people=dict(data["digests"]).get("validation"),
        tests={test.pairs: test for test in tests if test},
        finished=finished,
        faults=faults,
    )


def _tried(faults: list[str], instead: Any, read: Callable[[Path], Any], path: Path) -> Any:
    """What a file holds; where it cannot be read, a fault and what stands in."""
    try:
        return read(path)
    except ValueError as error:
        faults.append(str(error))
        return instead


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise ValueError(f"{path}: is damaged, it is not JSON ({error}).") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: is damaged, it holds no JSON object.")
    return values


def _read_history(path: Path) -> list[dict[str, float]]:
    """The rows of history.csv; none where no epoch has ended."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [{name: float(text) for name, text in row.items() if text} for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: is damaged ({error}); the run's figures are left out.") from None


def _read_test(path: Path) -> Test | None:
    """What a report of evaluate.py says; None where it is about something else than pairs."""
    report = _read_json(path)
    if "auc" not in report:
        return None
    try:
        name = Path(report.get("pairs_file") or report.get("images") or path.parent).name
        pairs = f"{name}, {report['genuine']:,} + {report['impostor']:,} pairs"
        low, high = (report.get("intervals") or {}).get("auc") or (None, None)
        interval = None if low is None or high is None else (float(low), float(high))
        return Test(pairs, float(report["auc"]), interval, _own_accuracy(report))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: is no report of evaluate.py ({error!r}); it is left out.") from None


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: those on the same validation people together, the best AUC first.
        differing: names of the settings in which they differ.
        tests: names of the test pairs that at least one run was judged on.
        notes: sentences on what is missing, damaged, or does not compare.
    """

    runs: Sequence[Run]
    differing: Sequence[str]
    tests: Sequence[str]
    notes: Sequence[str]


def compare(folders: Sequence[Path]) -> Comparison:
    """Read runs and set them side by side.

    Raises:
        ValueError: none of the folders is a run.
    """
    found = [folder for folder in folders if (folder / "config.json").exists()]
    others = [folder.name for folder in folders if folder not in found and not folder.is_file()]
    notes = [f"{name} is passed over: there is no run in it (no config.json)." for name in others]
    runs = []
    for folder in dict.fromkeys(folder.resolve() for folder in found):
        try:
            runs.append(read_run(folder, folder.relative_to(common_folder(found)).as_posix()))
        except ValueError as error:
            notes.append(f"{folder.name} is left out. {error}")
    if not runs:
        raise ValueError(" ".join(["There is no run to compare.", *notes]))
    # Figures on different people are no ranking: the largest group of runs on the same people comes first.
    sizes = Counter(run.people for run in runs)
    runs.sort(key=lambda run: (-sizes[run.people], run.people or "", -run.best.get("auc", -1)))
    notes += [fault for run in runs for fault in run.faults]
    names = dict.fromkeys(name for run in runs for name in run.settings)
    differing = [name for name in names if len({run.settings.get(name) for run in runs}) > 1]
    tests = list(dict.fromkeys(name for run in runs for name in run.tests))
    return Comparison(runs, differing, tests, [*notes, *_people_warning(runs)])


def common_folder(folders: Sequence[Path]) -> Path:
    """The folder that holds all of these."""
    return Path(os.path.commonpath([folder.resolve().parent for folder in folders]))


def _people_warning(runs: Sequence[Run]) -> list[str]:
    """A sentence where not all runs were validated on the same people."""
    if len({run.people for run in runs}) == 1:
        return []
    return [
        "WARNING: these runs were not validated on the same people: AUC, accuracy and EER compare only between "
        'runs with the same number in the column "people".'
    ]


def _people_numbers(runs: Sequence[Run]) -> dict[str | None, str]:
    """A number for each set of validation people; "?" where they are unknown."""
    known = dict.fromkeys(run.people for run in runs if run.people)
    return {None: "?", **{people: str(number) for number, people in enumerate(known, 1)}}


def table(comparison: Comparison) -> list[list[str]]:
    """Header and a line for each run, as texts."""
    people = _people_numbers(comparison.runs)
    figures = ["AUC", "accuracy", "EER"]
    header = ["run", *comparison.differing, "done", "best", *figures, "people", "images/s", *comparison.tests]
    lines = [header]
    for run in comparison.runs:
        best = run.best
        lines.append([
            run.name,
            *(str(run.settings.get(name)) for name in comparison.differing),
            run.done,
            f"{best['epoch']:.0f}" if best else "-",
            *(_number(best.get(name)) for name in ("auc", "accuracy", "eer")),
            people[run.people],
            "-" if run.speed is None else f"{run.speed:.0f}",
            *(run.tests[name].text if name in run.tests else "-" for name in comparison.tests),
        ])  # fmt: skip
    return lines


def markdown(comparison: Comparison) -> str:
    """The table and the notes, for people to read; it is as readable where Markdown is not drawn."""
    lines = [[_cell(text) for text in line] for line in table(comparison)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    legend = (
        "Done, best: epochs. AUC, accuracy, EER: after the best epoch, on the run's validation people (same "
        "number: the same people)."
        + " Test pairs: AUC (95 %), accuracy at the model's threshold."
        * bool(comparison.tests)
    )
    notes = [f"- {note}" for note in comparison.notes]
    return "\n".join([rows[0], rule, *rows[1:], "", legend, *([""] if notes else []), *notes]) + "\n"


def _cell(text: str) -> str:
    short = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
    return short.replace("|", "\\|")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def records(comparison: Comparison) -> list[dict[str, Any]]:
    """A line for each run, as plain values; None where there is none."""
    people = _people_numbers(comparison.runs)
    return [
        {
            "run": run.name,
            "settings": {name: run.settings.get(name) for name in comparison.differing},
            "epochs_done": run.epochs_done,
            "epochs_planned": run.planned,
            "finished": run.finished,
            "best_epoch": int(run.best["epoch"]) if run.best else None,
            **{name: run.best.get(name) for name in ("auc", "accuracy", "eer")},
            "validation_people": people[run.people],
            "images_per_second": run.speed,
            "tests": [asdict(test) for test in run.tests.values()],
        }
        for run in comparison.runs
    ]


def csv_of(comparison: Comparison) -> str:
    """The records as CSV, with four columns for each list of test pairs."""
    rows = []
    for record, run in zip(records(comparison), comparison.runs, strict=True):
        del record["tests"]
        record = {"run": record.pop("run"), **record.pop("settings"), **record}
        for name in comparison.tests:
            test = run.tests.get(name)
            low, high = test.interval or (None, None) if test else (None, None)
            record |= {f"{name}: auc": test and test.auc, f"{name}: auc_low": low, f"{name}: auc_high": high}
            record[f"{name}: accuracy"] = test and test.accuracy
        rows.append(record)
    return csv_text([list(rows[0]), *(["" if cell is None else cell for cell in row.values()] for row in rows)])


def run(command: CompareCommand) -> Comparison:
    """Compare as the command says, and write the files.

    Raises:
        ValueError: there is no run, or the folder cannot be written.
    """
    comparison = compare(command.runs)
    output = command.output or common_folder(command.runs)
    check_writable(output, "output")
    write_text(output / "compare.md", markdown(comparison))
    write_text(output / "compare.csv", csv_of(comparison))
    lines = [Line(run.name, run.history, run.best) for run in comparison.runs]
    if any(line.history for line in lines):
        save_figure(runs_figure(lines), output / "compare.png")
    print(f"Written: {output}: compare.md, compare.csv, compare.png", file=sys.stderr)
    return comparison


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 2 wrong input, 130 interrupted."""
    command = parse(CompareCommand, argv)
    try:
        comparison = run(command)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return runtime.INTERRUPTED
    if command.as_json:
        print(json.dumps({"runs": records(comparison), "notes": list(comparison.notes)}, indent=2))
    else:
        print(markdown(comparison), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
