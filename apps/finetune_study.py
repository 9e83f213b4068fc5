"""What fine-tuning gains on people whom nothing saw: folds by identity, seeds, intervals.

In:  a folder of crops; a JSON file of training settings that start from weights.
Out: a run folder for each fold and seed below `output_dir`; study.json, table.md.
Run: python -m apps.finetune_study data/lfw_close --config configs/finetune_light.json --output_dir runs/study

A fold's people neither train, nor validate, nor are in the cohort. Judged are all pairs among them, at most 5
pictures a person: true-match rates at low false-match rates. Four networks of each run: its start and its tuned
weights, both as they are and normalised by the cohort.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tyro
from numpy.typing import NDArray
from pydantic import Field

from apps.timing import row
from config import Config
from facekit import runtime
from facekit.files import write_text
from facekit.name_list import names_text, read_names
from facekit.settings import Settings, parse, read_settings
from runs import PLACES, RunFolder

if TYPE_CHECKING:
    from facekit.index import PeopleIndex

ROOT = Path(__file__).resolve().parent.parent

FMRS = (1e-3, 1e-4, 1e-5)
"""False-match rates at which people are to be recognised."""

NETWORKS = ("start", "tuned", "start + cohort", "tuned + cohort")


class StudyCommand(Settings):
    """Fine-tune on all folds but one, judge on that one, and say what was gained. Nothing done is done again."""

    crops: tyro.conf.Positional[Path]
    """Folder of crops, one folder a person."""

    config: Path
    """JSON file of training settings with `weights` and `cohort`; train_dir is `crops`."""

    output_dir: Path = Path("runs/finetune_study")
    """Where the runs and the tables go."""

    folds: int = Field(5, ge=2, le=20)
    """Folds by identity."""

    seeds: int = Field(3, ge=1)
    """Runs of each fold, with other seeds."""

    most_each: int = Field(5, ge=2)
    """Pictures of a person that are judged, the first by name."""


def fold_of_people(people: int, folds: int) -> NDArray[np.int64]:
    """The fold of each person: (people,) in 0..folds - 1, drawn once for all studies."""
    drawn = np.empty(people, np.int64)
    drawn[np.random.default_rng(0).permutation(people)] = np.arange(people) % folds
    return drawn


def base_config(command: StudyCommand) -> Config:
    """The settings that all runs share; faces are cut as the weights know them.

    Raises:
        ValueError: they do not start from weights, have no cohort, or exclude people, as the folds do.
    """
    from recutting import cut_for_weights

    base = Config(**read_settings(command.config, Config).model_dump() | {"train_dir": command.crops})
    if base.weights is None or not base.cohort:
        raise ValueError(f"{command.config}: a study of fine-tuning needs `weights` and `cohort`.")
    if base.exclude_people is not None:
        raise ValueError(
            f"{command.config}: `exclude_people` is the study's own, for its folds. Leave it out, and take people "
            f"who must not take part out of {command.crops}."
        )
    return cut_for_weights(base.model_copy(update={"runs_dir": command.output_dir}))


def run_config(base: Config, fold: int, seed: int, people: Sequence[str]) -> Config:
    """The settings of one run, which never sees the fold's people; their names go to a file.

    Raises:
        ValueError: an earlier study of the folder held out others: its runs saw people of this fold.
    """
    held = base.runs_dir / f"fold-{fold}.txt"
    if held.exists() and read_names(held, "output_dir") != [*people]:
        raise ValueError(
            f"{held}: an earlier study with other `folds` or crops held out other people there. Choose another "
            "--output_dir."
        )
    write_text(held, names_text(people))
    return base.model_copy(update={"exclude_people": held, "seed": seed, "name": f"fold-{fold}-seed-{seed}"})


def train_one(config: Config) -> None:
    """Train a run with the project's own command, or go on with it, unless its bundle is there.

    Raises:
        ValueError: it failed, and its output says why; or what is there is a run of other settings.
    """
    folder = RunFolder.of(config)
    settings = config.runs_dir / f"{config.name}.json"
    if settings.exists():
        refuse_other(settings, config)
    if (folder.bundle / "bundle.json").exists():
        return
    write_text(settings, config.to_json())
    resumed = ["--resume", "--name", config.name, "--runs_dir", str(config.runs_dir)]
    words = resumed if folder.config.exists() else ["--config", str(settings.resolve())]
    if code := run_to_its_end([sys.executable, str(ROOT / "train.py"), *words]):
        raise ValueError(f"train.py {' '.join(words)}: ended with exit code {code}; see above.")


def run_to_its_end(command: Sequence[str]) -> int:
    """Run a program and give its exit code; an interruption, which it gets too, waits until it has saved."""
    with subprocess.Popen(command) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise


def refuse_other(settings: Path, config: Config) -> None:
    """See that a run of an earlier call was made by these settings, but for where and how pictures are read.

    Raises:
        ValueError: it was not; names a setting.
    """
    before, now = read_settings(settings, Config).model_dump(), config.model_dump()
    if changed := [name for name in now if name not in PLACES and before[name] != now[name]]:
        raise ValueError(
            f"{settings}: an earlier study made this run with `{changed[0]}` {before[changed[0]]}, not "
            f"{now[changed[0]]}. Choose another --output_dir."
        )


def judge(config: Config, index: PeopleIndex, most_each: int) -> dict[str, list[float]]:
    """True-match rates at `FMRS` of a run's networks among people of whom it saw nothing.

    Args:
        config: settings of a finished run.
        index: those people.
        most_each: pictures of each.
    """
    from cohort import cohort_rows
    from facekit.bundle import read_network
    from facekit.cohort import fit_cohort, with_cohort, without_cohort
    from facekit.validation import tpr_at_fmr
    from product import embedder
    from splits import make_split

    folder, train = RunFolder.of(config), make_split(config).train
    images, labels = pictures_of(index, config.image_size, most_each)
    rates = {}
    for name, path in (("start", folder.start), ("tuned", folder.bundle)):
        network = without_cohort(read_network(path))
        rows = cohort_rows(config, train, embedder(network, config))
        normalised = with_cohort(network, fit_cohort(rows, config.cohort, seed=config.seed))
        for kind, judged in ((name, network), (f"{name} + cohort", normalised)):
            embeddings = embedder(judged, config)(images)
            rates[kind] = [tpr_at_fmr(embeddings, labels, fmr) for fmr in FMRS]
    return rates


def pictures_of(index: PeopleIndex, size: int, most_each: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The first pictures of each person by name: (n, size, size, 3), and whose they are, (n,)."""
    from held_out import read_all

    of_person: dict[int, list[str]] = {}
    for label, path in sorted(zip(index.labels.tolist(), index.paths, strict=True)):
        of_person.setdefault(label, []).append(path)
    people = {path: label for label, paths in of_person.items() for path in paths[:most_each]}
    images, _ = read_all(index, people, size)
    return np.stack([*images.values()]), np.array([people[name] for name in images], np.int64)


def gains(rates: Mapping[str, NDArray[np.float64]], network: str) -> list[tuple[float, float, float]]:
    """What a network gains over the start, with 95 % intervals: Student's t over folds, each fold's seeds averaged.

    Args:
        rates: (folds, seeds, rates) by network.
        network: one of them.

    Returns:
        Gain, low and high end for each of `FMRS`.
    """
    from scipy import stats

    paired = (rates[network] - rates["start"]).mean(axis=1)
    mean = paired.mean(axis=0)
    half = stats.t.ppf(0.975, len(paired) - 1) * paired.std(axis=0, ddof=1) / len(paired) ** 0.5
    return [
        (float(gain), float(gain - around), float(gain + around)) for gain, around in zip(mean, half, strict=True)
    ]


def table(rates: Mapping[str, NDArray[np.float64]]) -> str:
    """The study as Markdown: means, folds, gains with intervals."""
    folds, seeds, _ = rates["start"].shape
    names = [f"{fmr:g}" for fmr in FMRS]
    lines = [
        f"True-match rates at false-match rates {', '.join(names)}; means of {folds} folds by identity and {seeds} "
        "seeds; gains over the start with 95 % intervals (Student's t over folds).",
        "",
        row(["network", *names, *(f"gain at {name}" for name in names)]),
        row(["---"] * (1 + 2 * len(names))),
    ]
    for network in NETWORKS:
        means = [f"{value:.3f}" for value in rates[network].mean(axis=(0, 1))]
        found = [f"{gain:+.3f} ({low:+.3f} to {high:+.3f})" for gain, low, high in gains(rates, network)]
        lines.append(row([network, *means, *(found if network != "start" else [""] * len(names))]))
    lines += ["", row(["fold", *NETWORKS]), row(["---"] * (1 + len(NETWORKS)))]
    for fold in range(folds):
        cells = [" / ".join(f"{value:.3f}" for value in rates[network][fold].mean(axis=0)) for network in NETWORKS]
        lines.append(row([str(fold), *cells]))
    return "\n".join(lines) + "\n"


def judged_once(config: Config, index: PeopleIndex, most_each: int) -> dict[str, list[float]]:
    """`judge` of a run, kept beside it: an interrupted study judges no run twice."""
    file = RunFolder.of(config).root / f"judged-{most_each}.json"
    if not file.exists():
        rates = judge(config, index, most_each)
        write_text(file, json.dumps(rates, indent=2) + "\n")
    found: dict[str, list[float]] = json.loads(file.read_text(encoding="utf-8"))
    return found


def study(command: StudyCommand) -> str:
    """Run what is not there yet, and write study.json and table.md; returns the table.

    Raises:
        ValueError: the folder or the settings are wrong, or a run failed.
    """
    from facekit.index import index_people

    base = base_config(command)
    index = index_people(base.train_dir)
    fold_of = fold_of_people(len(index.people), command.folds)
    found: dict[str, NDArray[np.float64]] = {
        name: np.zeros((command.folds, command.seeds, len(FMRS))) for name in NETWORKS
    }
    for seed, fold in np.ndindex(command.seeds, command.folds):
        held_out = index.choose(fold_of == fold)
        config = run_config(base, fold, seed, held_out.people)
        train_one(config)
        rates = judged_once(config, held_out, command.most_each)
        for name in NETWORKS:
            found[name][fold, seed] = rates[name]
        words = "; ".join(f"{name} {' / '.join(f'{value:.3f}' for value in rates[name])}" for name in NETWORKS)
        print(f"Fold {fold}, seed {seed}: {words}", flush=True)
    text = table(found)
    values: dict[str, Any] = {"fmrs": FMRS, "rates": {name: rates.tolist() for name, rates in found.items()}}
    write_text(command.output_dir / "study.json", json.dumps(values, indent=2) + "\n")
    write_text(command.output_dir / "table.md", text)
    return text


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 2 wrong input or a failed run, 130 interrupted."""
    command = parse(StudyCommand, argv)
    runtime.start_quietly()
    try:
        print(study(command))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return runtime.INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
