"""Compare settings fairly: train each on the same data and budget, and write one table with intervals.

In:  a JSON plan: `base` settings, named `settings` that change them, how many `seeds` the `finalists` get, the
     `reference` that all are compared with, and the test pairs.
Out: a run folder for each setting and seed, below `runs_dir`; table.md and table.csv.
Run: python -m apps.campaign configs/campaigns/lfw.json

Validation people choose: all settings train with seed 0, those of best validation AUC again with further seeds,
which had no part in that choice and are other people too: a gain over the reference is that of these seeds. It is
called better only where its interval, with people drawn anew, is above 0 and each of the seeds agrees. Test people
are scored at the end and choose nothing.
"""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from pydantic import Field

from config import Config
from facekit import runtime
from facekit.bootstrap import bootstrap_interval, weighted_auc
from facekit.bundle import read_network, read_record
from facekit.files import write_text, written_aside
from facekit.settings import Settings, parse, read_settings

ROOT = Path(__file__).resolve().parent.parent
RESAMPLES = 500


class Plan(Settings):
    """What a campaign compares."""

    base: dict[str, Any]
    """Settings of all runs, as in config.py."""

    settings: dict[str, dict[str, Any]]
    """Named changes to them."""

    reference: str
    """The one of `settings` that all others are compared with."""

    seeds: int = Field(3, ge=1)
    """Seeds of the finalists and the reference: 0, 1, ... A seed is also another split of validation people."""

    finalists: int = Field(3, ge=1)
    """How many settings, best on validation people with seed 0, get all seeds."""

    test_pairs: Path
    """Pairs of people whom no run trains or validates on."""

    test_images: Path
    """Folder that the pairs' paths start from."""

    def model_post_init(self, _context: Any) -> None:
        """See that every run's settings are right before the first one trains."""
        if self.reference not in self.settings:
            raise ValueError(
                f"`reference` must be one of {', '.join(self.settings)}. Received: {self.reference!r}."
            )
        for name in self.settings:
            try:
                self.config(name, 0, Path("runs"))
            except ValueError as error:
                raise ValueError(f"`settings`, {name}: {error}") from None

    def config(self, name: str, seed: int, runs_dir: Path) -> Config:
        """The settings of one run."""
        where = {"name": f"{name}-{seed}", "runs_dir": runs_dir, "seed": seed}
        return Config(**{**self.base, **self.settings[name], **where})


class CampaignCommand(Settings):
    """Train every setting of a plan and compare them. What an earlier call finished is not done again."""

    plan: tyro.conf.Positional[Path]
    """JSON file: base, settings, reference, seeds, finalists, test_pairs, test_images."""

    runs_dir: Path = Path("runs/campaign")
    """Where the runs and the table go."""


@dataclass(frozen=True)
class Scores:
    """A run's distances on some pairs."""

    distances: NDArray[np.float64]
    same: NDArray[np.bool_]
    first: NDArray[np.str_]
    second: NDArray[np.str_]

    def auc(self, weights: NDArray[np.float64] | None = None) -> float:
        """Area under the ROC curve."""
        return weighted_auc(self.distances, self.same)(np.ones(len(self.same)) if weights is None else weights)


def call(*words: str) -> int:
    """Run one of the project's programs, with its output passed on; returns its exit code.

    Raises:
        ValueError: its input was wrong, or it was interrupted.
    """
    code = subprocess.run([sys.executable, *words], cwd=ROOT).returncode
    if code not in (0, 1):
        raise ValueError(f"python {' '.join(words)}: ended with exit code {code}; see above.")
    return code


def train_one(config: Config) -> Path | None:
    """Train a run, or go on with it, unless its bundle is there. Returns its folder; None where training failed."""
    folder = (config.runs_dir / config.name).resolve()
    if not (folder / "bundle" / "bundle.json").exists():
        settings = folder.parent / f"{config.name}.json"
        write_text(settings, config.to_json())
        resumed = (folder / "config.json").exists()
        where = ["--resume", "--name", config.name, "--runs_dir", str(folder.parent)]
        if call("train.py", *(where if resumed else ["--config", str(settings), "--runs_dir", str(folder.parent)])):
            return None
    return folder


def validation_auc(folder: Path) -> float:
    """AUC of a run's best epoch on its validation people."""
    return float(read_record(folder / "bundle").figures["auc"])


def validation_scores(folder: Path) -> Scores:
    """Distances of a run's best network on its validation pairs, kept beside it."""
    kept = folder / "validation_scores.npz"
    if not kept.exists():
        from held_out import held_out_people
        from product import embedder
        from splits import make_split

        config = read_settings(folder / "config.json", Config)
        held_out = held_out_people(make_split(config).validation, config)
        held_out.measure(embedder(read_network(folder / "bundle"), config))
        first, second = held_out.pairs.people() or (held_out.pairs.first, held_out.pairs.second)
        with written_aside(kept) as aside:
            np.savez(aside, distances=held_out.distances, same=held_out.pairs.same, first=first, second=second)
    with np.load(kept) as file:
        return Scores(file["distances"], file["same"], file["first"], file["second"])


def test_scores(folder: Path, plan: Plan) -> tuple[Scores, dict[str, Any]]:
    """Distances of a run's bundle on the test pairs, and evaluate.py's report of them."""
    output = folder / "test"
    if not (output / "report.json").exists():
        model, pairs = ["--model", str(folder / "bundle")], ["--pairs", str(plan.test_pairs.resolve())]
        images = ["--images", str(plan.test_images.resolve())]
        call("evaluate.py", *model, *pairs, *images, "--output", str(output))
    with (output / "scores.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    people = [np.array([Path(row[column]).parent.as_posix() for row in rows]) for column in ("path1", "path2")]
    distances = np.array([float(row["distance"]) for row in rows])
    same = np.array([row["label"] == "1" for row in rows])
    return Scores(distances, same, *people), json.loads((output / "report.json").read_text(encoding="utf-8"))


def mean_auc(runs: Sequence[Scores], others: Sequence[Scores] = ()) -> tuple[float, float, float]:
    """Mean AUC over seeds, or its difference from other runs on the same pairs, with its 95 % interval over people.

    Where all seeds have the same pairs, the same people are drawn for all of them.
    """
    pairs = [*zip(runs, others, strict=True)] if others else [(run, None) for run in runs]

    def difference(run: Scores, other: Scores | None, weights: NDArray[np.float64] | None = None) -> float:
        return run.auc(weights) - (other.auc(weights) if other else 0.0)

    value = float(np.mean([difference(run, other) for run, other in pairs]))
    one_list = all(np.array_equal(run.first, runs[0].first) for run in runs)
    if one_list:
        low, high = bootstrap_interval(
            lambda weights: float(np.mean([difference(run, other, weights) for run, other in pairs])),
            len(runs[0].same), runs[0].first, runs[0].second, RESAMPLES,
        )  # fmt: skip
        return value, float(low), float(high)
    # Other people for each seed: independent intervals of a mean add up like deviations.
    ends = [
        bootstrap_interval(partial(difference, run, other), len(run.same), run.first, run.second, RESAMPLES)
        for run, other in pairs
    ]
    half = np.sqrt(np.sum([((high - low) / 2) ** 2 for low, high in ends])) / len(runs)
    return value, value - float(half), value + float(half)


def row_of(name: str, folders: Sequence[Path], reference: Sequence[Path], plan: Plan) -> dict[str, Any]:
    """One setting's line of the table."""
    validation = [validation_scores(folder) for folder in folders]
    against = [validation_scores(folder) for folder in reference[: len(folders)]]
    tested, reports = zip(*(test_scores(folder, plan) for folder in folders), strict=True)
    figures = [read_record(folder / "bundle").figures for folder in folders]
    # Seed 0 chose the finalists: its luck must not count for them.
    fresh = len(folders) > 1 and folders[0] != reference[0]
    gain = mean_auc(validation[1:], against[1:]) if fresh else (float("nan"),) * 3
    wins = all(one.auc() > other.auc() for one, other in zip(validation[1:], against[1:], strict=True))
    return {
        "setting": name,
        "seeds": len(folders),
        "validation_auc": float(np.mean([run.auc() for run in validation])),
        "validation_auc_seed_0": validation[0].auc(),
        "validation_accuracy": float(np.mean([figure["accuracy"] for figure in figures])),
        **dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True)),
        "better": fresh and gain[1] > 0 and wins,
        **dict(zip(("test_auc", "test_auc_low", "test_auc_high"), mean_auc(tested), strict=True)),
        "test_accuracy": float(np.mean([report["accuracy"] for report in reports])),
    }


def markdown(rows: Sequence[Mapping[str, Any]], reference: str) -> str:
    """The table for people to read."""
    lines = [
        f"| setting | seeds | validation AUC, seed 0 | all seeds | gain over {reference}, further seeds (95 %) | "
        "test AUC (95 %) | test accuracy |",
        "| --- | ---: | ---: | ---: | --- | --- | ---: |",
    ]
    for row in rows:
        gain = "one seed"
        if row["seeds"] > 1:
            gain = f"{row['gain']:+.3f} ({row['gain_low']:+.3f} to {row['gain_high']:+.3f})"
        cells = [
            row["setting"],
            str(row["seeds"]),
            f"{row['validation_auc_seed_0']:.3f}",
            f"{row['validation_auc']:.3f}" if row["seeds"] > 1 else "",
            "reference" if row["setting"] == reference else gain + (", better" if row["better"] else ""),
            f"{row['test_auc']:.3f} ({row['test_auc_low']:.3f} to {row['test_auc_high']:.3f})",
            f"{row['test_accuracy']:.3f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def campaign(plan: Plan, runs_dir: Path) -> str:
    """Train, choose finalists, train them with all seeds, judge; returns the table."""
    runs: dict[str, list[Path]] = {}
    for name in plan.settings:
        folder = train_one(plan.config(name, 0, runs_dir))
        if folder is None:
            print(f"{name}: training failed; it has no line in the table.", flush=True)
        else:
            runs[name] = [folder]
    if plan.reference not in runs:
        raise ValueError(f"{plan.reference}: the reference could not be trained; see above.")
    ranking = sorted(runs, key=lambda name: -validation_auc(runs[name][0]))
    finalists = dict.fromkeys([*ranking[: plan.finalists], plan.reference])
    print(f"Finalists: {', '.join(finalists)}.", flush=True)
    for name in finalists:
        further = [train_one(plan.config(name, seed, runs_dir)) for seed in range(1, plan.seeds)]
        runs[name] += [folder for folder in further if folder]
    rows = [row_of(name, runs[name], runs[plan.reference], plan) for name in runs]
    rows.sort(key=lambda row: (-row["seeds"], -row["validation_auc"]))
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(runs_dir / "table.csv", text.getvalue())
    table = markdown(rows, plan.reference)
    write_text(runs_dir / "table.md", table)
    return table


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 2 wrong input or a run that failed, 130 interrupted."""
    command = parse(CampaignCommand, argv)
    try:
        plan = read_settings(command.plan, Plan)
        runtime.start_quietly()
        print(campaign(plan, command.runs_dir))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on.", file=sys.stderr)
        return runtime.INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
