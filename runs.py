"""Where a training run lives: its folder, its records, and what may change when it is resumed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from config import Config, read_settings
from facekit import runtime
from facekit.files import check_writable, write_text

if TYPE_CHECKING:
    from dataset import Split

# A resumed run may change these; anything else would make it another run.
MAY_CHANGE = {"epochs", "early_stopping_patience", "checkpoint_steps", "target_fmr"}


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what."""

    root: Path
    checkpoints: Path
    tensorboard: Path

    @classmethod
    def of(cls, config: Config) -> RunFolder:
        """The folders that a config with a name asks for."""
        root = config.runs_dir / config.name
        return cls(
            root, config.checkpoint_dir or root / "checkpoints", config.tensorboard_dir or root / "tensorboard"
        )

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.root / "config.json"

    @property
    def state(self) -> Path:
        """The state to resume from."""
        return self.checkpoints / "state.npz"

    @property
    def best(self) -> Path:
        """The network of the best epoch."""
        return self.checkpoints / "best.keras"

    @property
    def bundle(self) -> Path:
        """The product."""
        return self.root / "bundle"


def saved_settings(runs_dir: Path, name: str) -> Config:
    """The settings of a run, or of the newest run where `name` is empty.

    Raises:
        ValueError: there is no such run.
    """
    if not name:
        states = sorted(runs_dir.glob("*/config.json"), key=lambda path: path.stat().st_mtime)
        if not states:
            raise ValueError(f"{runs_dir}: holds no run to resume. Start one without --resume.")
        name = states[-1].parent.name
    if not (runs_dir / name / "config.json").exists():
        raise ValueError(
            f"{runs_dir / name}: there is no such run to resume. Give its --name, or start without --resume."
        )
    return read_settings(runs_dir / name / "config.json", Config)


def refuse_changes(saved: Config, config: Config) -> None:
    """See that a resumed run keeps the settings that make it the same run.

    Raises:
        ValueError: another setting changed; names it.
    """
    new, old = config.model_dump(), saved.model_dump()
    changed = [name for name in old if old[name] != new[name] and name not in MAY_CHANGE]
    if changed:
        raise ValueError(
            f"`{changed[0]}` cannot change in a resumed run (it was {old[changed[0]]!r}). These can: "
            f"{', '.join(sorted(MAY_CHANGE))}. Start a new run with --config {RunFolder.of(saved).config}."
        )


def open_run(folder: RunFolder, config: Config, split: Split, resume: bool) -> None:
    """Write down what the run starts from, or see that a resumed run still finds it.

    Raises:
        ValueError: a run of the name exists, the data have changed since, or the folder cannot be written.
    """
    digests = {"train": split.train.digest, "validation": split.validation.digest}
    if resume:
        saved = json.loads((folder.root / "data.json").read_text(encoding="utf-8"))["digests"]
        if saved != digests:
            raise ValueError(
                f"{config.train_dir}: its people or pictures are no longer those that the run {config.name} began "
                "with, so it cannot go on exactly. Start a new run."
            )
        write_text(folder.config, config.to_json())
        return
    if folder.root.exists() and any(folder.root.iterdir()):
        raise ValueError(
            f"{folder.root}: a run of this name exists. Choose another --name, or go on with it: "
            f"python train.py --resume --name {config.name}"
        )
    for path, setting in ((folder.root, "runs_dir"), (folder.checkpoints, "checkpoint_dir")):
        check_writable(path, setting)
    words = {"train": split.train.describe(), "validation": split.validation.describe()}
    record = {"train_dir": str(config.train_dir.resolve()), **words, "digests": digests}
    write_text(folder.root / "data.json", json.dumps(record, indent=2) + "\n")
    write_text(folder.root / "environment.json", json.dumps(runtime.environment(), indent=2) + "\n")
    for side, index in (("train", split.train), ("validation", split.validation)):
        write_text(folder.root / f"{side}_people.txt", "".join(f"{name}\n" for name in index.people))
    write_text(folder.config, config.to_json())


def write_history(folder: RunFolder, rows: Sequence[dict[str, float]]) -> None:
    """history.csv and learning_curve.png of all epochs so far."""
    from facekit.plots import learning_curve_figure, save_figure

    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[-1]), lineterminator="\n", restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder.root / "history.csv", text.getvalue())
    columns = {name: [row.get(name, float("nan")) for row in rows] for name in rows[-1]}
    save_figure(learning_curve_figure(columns), folder.root / "learning_curve.png")
