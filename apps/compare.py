"""Compare training runs: one table and one plot.

In:  folders of runs, finished or not; train.py and evaluate.py wrote them.
Out: the settings that differ, and figures on validation and test people, on stdout and in compare.md, compare.csv
     and compare.png.
Run: python -m apps.compare runs/*
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from apps.compared_runs import TPR_AT_FMR, Run, figure_text, read_run
from facekit import runtime
from facekit.files import check_writable, write_text
from facekit.plots import save_figure
from facekit.run_plots import Line, runs_figure
from facekit.settings import Settings, parse
from facekit.tables import csv_text

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
            *(figure_text(found.get(name)) for name in ("auc", "accuracy", "eer")),
            *(figure_text(found[TPR_AT_FMR] if run.tpr_name == rate else None) for rate in rates),
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
