"""The main job from nothing, on faces that the project draws: draw, crop, train, evaluate, verify.

Run: python -m apps.demo    (`make train` sets everything up and runs it)
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import crop_faces
import dataset
import evaluate
import inference
import train
from apps import synthetic
from facekit import runtime
from facekit.settings import Settings, parse

Command = Callable[[Sequence[str]], int]


class DemoConfig(Settings):
    """Run the main job on drawn faces. What an earlier call finished is not done again."""

    data_dir: Path = Path("data/synthetic")
    """Where photos, crops and lists of the drawn people go."""

    runs_dir: Path = Path("runs")
    """Where the run goes."""

    name: str = "demo"
    """Name of the run."""

    people: int = 150
    """People to draw."""

    pictures_per_person: int = 10
    """Photos of each."""

    epochs: int = 10
    """Epochs to train."""

    steps_per_epoch: int = 20
    """Steps an epoch: more than the few pictures would fill, so that validation takes little of the time."""


def steps(config: DemoConfig) -> list[tuple[Command, list[str]]]:
    """The commands of the main job with their arguments, in order."""
    data, run = config.data_dir, config.runs_dir / config.name
    photos, crops, lists = str(data / "photos"), str(data / "crops"), data / "lists"
    people, each = str(config.people), str(config.pictures_per_person)
    training = ["--train_dir", crops, "--exclude_people", str(lists / "test_people.txt"), "--name", config.name]
    training += ["--runs_dir", str(config.runs_dir), "--epochs", str(config.epochs)]
    training += ["--steps_per_epoch", str(config.steps_per_epoch)]
    if (run / "config.json").exists():
        training = ["--resume", "--name", config.name, "--runs_dir", str(config.runs_dir)]
        training += ["--epochs", str(config.epochs)]
    return [
        (synthetic.main, ["--output_dir", photos, "--people", people, "--pictures_per_person", each]),
        (crop_faces.main, ["--input_dir", photos, "--output_dir", crops]),
        (dataset.main, ["hold_out", crops, "--output_dir", str(lists), "--share", "0.2"]),
        (train.main, training),
        (
            evaluate.main,
            ["--model", str(run / "bundle"), "--pairs", str(lists / "test_pairs.csv"), "--images", crops],
        ),
    ]


def plain(command: Command, arguments: Sequence[str]) -> str:
    """The command as a user types it."""
    module = command.__module__
    program = f"-m {module}" if "." in module else f"{module}.py"
    return f"python {program} {shlex.join(arguments)}"


def call(command: Command, arguments: Sequence[str], fine: Sequence[int] = (0,)) -> None:
    """Run a command in this process.

    Raises:
        SystemExit: with its exit code, where that is not among `fine`.
    """
    print(f"\n$ {plain(command, arguments)}", flush=True)
    code = command(arguments)
    if code not in fine:
        raise SystemExit(code)


def verify_two(config: DemoConfig) -> Path:
    """Verify one test person against themselves and against another; returns the picture drawn of it."""
    bundle = config.runs_dir / config.name / "bundle"
    names = (config.data_dir / "lists" / "test_people.txt").read_text(encoding="utf-8").split()
    photos = [sorted((config.data_dir / "photos" / name).iterdir()) for name in names[:2]]
    drawing = bundle.parent / "verified.png"
    model = ["--model", str(bundle)]
    call(inference.main, [str(photos[0][0]), str(photos[0][1]), *model, "--output", str(drawing)], fine=(0, 1))
    call(inference.main, [str(photos[0][0]), str(photos[1][0]), *model], fine=(0, 1))
    return drawing


def main(argv: Sequence[str] | None = None) -> int:
    """Run the main job; returns 0, or the exit code of the command that failed."""
    config = parse(DemoConfig, argv)
    started = time.monotonic()
    runtime.start_quietly()
    try:
        for command, arguments in steps(config):
            call(command, arguments)
        drawing = verify_two(config)
    except SystemExit as stop:
        return int(stop.code or 0)
    run = config.runs_dir / config.name
    print(
        f"\nDone in {time.monotonic() - started:.0f} s.\n"
        f"  people     {config.data_dir / 'photos'} (drawn), {config.data_dir / 'crops'} (cropped, aligned)\n"
        f"  model      {run / 'bundle'} (network, preprocessing, threshold)\n"
        f"  evaluation {run / 'evaluation-test_pairs-crops'} (report.html, report.json, scores.csv), {drawing}\n"
        "Next, with your own pictures, a folder a person:\n"
        "  .venv/bin/python crop_faces.py --input_dir YOUR_PHOTOS --output_dir data/yours\n"
        "  .venv/bin/python train.py --train_dir data/yours --name yours      (settings: config.py)\n"
        f"  .venv/bin/tensorboard --logdir {config.runs_dir}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
