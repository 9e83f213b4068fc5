"""Compare training runs: one table and one plot.

In:  folders of runs, finished or not; train.py and evaluate.py wrote them.
Out: the settings that differ, and figures on validation and test people, on stdout and in compare.md, compare.csv
     and compare.png.
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

TPR_AT_FMR = figure_of("tpr")[0]

_FEW = 4
"""More settings than these, in which runs differ, get a table of their own: a line a setting, a column a run."""

_SHORT = 20
"""Letters of a setting's value."""


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
        fmr: the lowest false-match rate of which the pairs say something; None: there is none.
        tpr: share of genuine pairs recognised at it.
    """

    pairs: str
    auc: float
    interval: tuple[float, float] | None
    accuracy: float | None
    fmr: float | None = None
    tpr: float | None = None

    @property
    def text(self) -> str:
        """AUC with its interval, accuracy, and TPR."""
        within = f" ({self.interval[0]:.3f} to {self.interval[1]:.3f})" if self.interval else ""
        tpr = "" if self.fmr is None else f", {_number(self.tpr)} at {self.fmr:g}"
        return f"{self.auc:.3f}{within}, {_number(self.accuracy)}{tpr}"


def _own_accuracy(report: Mapping[str, Any]) -> float | None:
    """At the model's own threshold: the report's headline is that of folds where the pairs file has them."""
    at = report.get("at_threshold")
    return at.get("accuracy") if at else None


def _lowest_rate(report: Mapping[str, Any]) -> tuple[float, float] | tuple[None, None]:
    """The lowest false-match rate of which the pairs say something, and the TPR there."""
    claims = [(claim["fpr"], claim["tpr"]) for claim in report.get("tpr_at_fpr", []) if claim["tpr"] is not None]
    return min(claims, default=(None, None))


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
        product: the figures of the model in its bundle; empty where there is none.
        faults: sentences on what could not be read.
    """

    name: str
    settings: Mapping[str, Value]
    planned: int
    history: Sequence[Mapping[str, float]]
    people: str | None
    tests: Mapping[str, Test]
    finished: bool
    product: Mapping[str, Any]
    faults: Sequence[str] = field(default_factory=list)

    @property
    def best(self) -> Mapping[str, float]:
        """The figures of the epoch that the run's `monitor` calls the best; empty where no epoch has ended."""
        monitor, larger = figure_of(str(self.settings["monitor"]))
        sign = 1 if larger else -1
        judged = [row for row in self.history if math.isfinite(row.get(monitor, math.nan))]
        return max(judged, key=lambda row: sign * row[monitor], default={})

    @property
    def figures(self) -> Mapping[str, Any]:
        """Those of the product, which may have a cohort or lie between epochs; else those of the best epoch."""
        return {**self.best, **self.product}

    @property
    def tpr_name(self) -> str | None:
        """What to call its true-match rate, by its rate; None: it has none."""
        return f"TPR@FMR {self.settings['monitor_fmr']:g}" if self.figures.get(TPR_AT_FMR) is not None else None

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
    record = folder / "bundle" / "bundle.json"
    finished = record.exists()
    bundle = _tried(faults, {}, _read_json, record) if finished else {}
    if not finished:
        done = sum(row["epoch"] > 0 for row in history)
        faults.append(f"{name} is not finished: {done} of {planned} epochs. train.py --resume goes on.")
    return Run(
        name=name,
        settings=_kept({key: value for key, value in flat(settings).items() if key not in PLACES}, bundle),
        planned=planned,
        history=history,
        people=dict(data["digests"]).get("validation"),
        tests={test.pairs: test for test in tests if test},
        finished=finished,
        product=bundle.get("figures") or {},
        faults=faults,
    )


def _kept(settings: dict[str, Value], bundle: Mapping[str, Any]) -> dict[str, Value]:
    """Settings, with a word at what was tried and is not in the bundle: it was no better."""
    training = bundle.get("training") or {}
    for name, record in (("cohort", "cohort"), ("interpolate", "interpolation")):
        if settings[name] and record in training and not training[record]:
            settings[name] = f"{settings[name]} (left out)"
    return settings


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
        return Test(pairs, float(report["auc"]), interval, _own_accuracy(report), *_lowest_rate(report))
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
    """Header and a line for each run, as texts; settings only where they are few."""
    people = _people_numbers(comparison.runs)
    rates = _rates(comparison)
    figures = ["AUC", "accuracy", "EER", *rates]
    settings = comparison.differing if len(comparison.differing) <= _FEW else []
    header = ["run", *settings, "done", "best", *figures, "people", "images/s", *comparison.tests]
    lines = [header]
    for run in comparison.runs:
        best, found = run.best, run.figures
        lines.append([
            run.name,
            *(_shortened(str(run.settings.get(name))) for name in settings),
            run.done,
            f"{best['epoch']:.0f}" if best else "-",
            *(_number(found.get(name)) for name in ("auc", "accuracy", "eer")),
            *(_number(found[TPR_AT_FMR] if run.tpr_name == rate else None) for rate in rates),
            people[run.people],
            "-" if run.speed is None else f"{run.speed:.0f}",
            *(run.tests[name].text if name in run.tests else "-" for name in comparison.tests),
        ])  # fmt: skip
    return lines


def _rates(comparison: Comparison) -> list[str]:
    """Names of the columns of true-match rates."""
    return list(dict.fromkeys(run.tpr_name for run in comparison.runs if run.tpr_name))


def setting_lines(comparison: Comparison) -> list[list[str]]:
    """Header and a line for each setting in which the runs differ, as texts, a column for each run."""
    lines = [
        [name, *(_shortened(str(run.settings.get(name))) for run in comparison.runs)]
        for name in comparison.differing
    ]
    return [["setting", *(run.name for run in comparison.runs)], *lines]


def markdown(comparison: Comparison) -> str:
    """Tables and notes, for people to read; they are as readable where Markdown is not drawn."""
    apart = len(comparison.differing) > _FEW
    legend = (
        "Done, best: epochs. AUC, accuracy, EER, TPR: of the finished model, else after the best epoch, on the "
        "run's validation people (same number: the same people)."
    )
    if comparison.tests:
        legend += (
            " Test pairs: AUC (95 %), accuracy at the model's threshold, TPR at the lowest false-match rate of "
            "which the pairs say something."
        )
    parts = [_drawn(table(comparison)), [legend]]
    parts += [_drawn(setting_lines(comparison))] if apart else []
    parts += [[f"- {note}" for note in comparison.notes]] if comparison.notes else []
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _drawn(cells: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table, its columns below each other."""
    lines = [[text.replace("|", "\\|") for text in line] for line in cells]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    ]
    return [rows[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *rows[1:]]


def _shortened(text: str) -> str:
    """A long text without its middle: paths differ at their ends."""
    half = _SHORT // 2
    return text if len(text) <= _SHORT else f"{text[: half - 1]}…{text[-half:]}"


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
            **{name: run.figures.get(name) for name in ("auc", "accuracy", "eer", TPR_AT_FMR)},
            "monitor_fmr": run.settings["monitor_fmr"] if run.tpr_name else None,
            "validation_people": people[run.people],
            "images_per_second": run.speed,
            "tests": [asdict(test) for test in run.tests.values()],
        }
        for run in comparison.runs
    ]


def csv_of(comparison: Comparison) -> str:
    """The records as CSV, with six columns for each list of test pairs."""
    rows = []
    for record, run in zip(records(comparison), comparison.runs, strict=True):
        del record["tests"]
        record = {"run": record.pop("run"), **record.pop("settings"), **record}
        for name in comparison.tests:
            test = run.tests.get(name)
            low, high = test.interval or (None, None) if test else (None, None)
            record |= {f"{name}: auc": test and test.auc, f"{name}: auc_low": low, f"{name}: auc_high": high}
            record |= {f"{name}: accuracy": test and test.accuracy}
            record |= {f"{name}: fmr": test and test.fmr, f"{name}: tpr": test and test.tpr}
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
