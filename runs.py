"""Where a training run lives: its folder, its records, and what may change when it is resumed."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from config import Config
from facekit import runtime
from facekit.files import check_writable, write_text
from facekit.name_list import names_text
from facekit.settings import read_settings

if TYPE_CHECKING:
    from splits import Split

# How pictures are read: the same pictures, sooner or later.
READING = {"cache", "cache_gb", "cache_dir", "input_service", "read_threads"}

# These say where a run lives and how it reads, not what it is: runs do not differ by them.
PLACES = {"name", "runs_dir", "checkpoint_dir", "tensorboard_dir"} | READING

# A resumed run may change these; anything else would make it another run.
MAY_CHANGE = {
    "runs_dir", "epochs", "early_stopping_patience", "checkpoint_steps", "target_fmr", "stop_on_collapse",
    "interpolate", "cohort", *READING,
}  # fmt: skip


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
        # Below a folder of the user's, each run has its own: two runs must not write over each other.
        checkpoints = config.checkpoint_dir / config.name if config.checkpoint_dir else root / "checkpoints"
        tensorboard = config.tensorboard_dir / config.name if config.tensorboard_dir else root / "tensorboard"
        return cls(root, checkpoints, tensorboard)

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
    def start(self) -> Path:
        """The network before its first step, of a run that starts from weights."""
        return self.checkpoints / "start.keras"

    @property
    def interpolated(self) -> Path:
        """The network between the start and the best epoch's."""
        return self.checkpoints / "interpolated.keras"

    @property
    def unreadable(self) -> Path:
        """The training pictures that could not be read, with the reason."""
        return self.root / "unreadable.csv"

    @property
    def curve(self) -> Path:
        """Figures epoch by epoch, drawn; of a run without an epoch there is none."""
        return self.root / "learning_curve.png"

    @property
    def bundle(self) -> Path:
        """The product."""
        return self.root / "bundle"


def figure_of(monitor: str) -> tuple[str, bool]:
    """The figure in history.csv that the setting `monitor` follows, and whether more of it is better."""
    return {"tpr": "tpr_at_fmr"}.get(monitor, monitor), monitor != "eer"


def monitor_words(config: Config) -> str:
    """The same figure as text names it."""
    words = {"auc": "AUC", "eer": "EER", "tpr": f"TPR at FMR {config.monitor_fmr:g}"}
    return words.get(config.monitor, config.monitor)


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
    if config.stages and new["epochs"] != old["epochs"]:
        raise ValueError("`epochs` cannot change in a run of `stages`: theirs count. Start a new run.")
    if changed:
        raise ValueError(
            f"`{changed[0]}` cannot change in a resumed run (it was {old[changed[0]]}). These can: "
            f"{', '.join(sorted(MAY_CHANGE))}. Start a new run with --config {RunFolder.of(saved).config}."
        )


def _digests(split: Split, config: Config) -> dict[str, str]:
    digests = {"train": split.train.digest, "validation": split.validation.digest}
    if config.picture_weights is not None:
        digests["weights"] = hashlib.sha256(config.picture_weights.read_bytes()).hexdigest()
    return digests


def check_resumable(folder: RunFolder, config: Config, split: Split) -> None:
    """See that a resumed run still finds what it started from.

    Raises:
        ValueError: its data have changed, or its records or its state are gone.
    """
    try:
        saved = json.loads((folder.root / "data.json").read_text(encoding="utf-8"))["digests"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder.root / 'data.json'}: cannot be read ({error}). Start a new run.") from None
    found = _digests(split, config)
    if saved.get("weights") != found.get("weights"):
        raise ValueError(
            f"{config.picture_weights}: is not the file of weights that the run {config.name} began with, so it "
            "cannot go on exactly. Bring it back, or start a new run."
        )
    if saved != found:
        raise ValueError(
            f"{config.train_dir}: its people or pictures are no longer those that the run {config.name} began "
            "with, so it cannot go on exactly. Start a new run."
        )
    if not folder.state.exists() and (folder.root / "history.csv").exists():
        raise ValueError(f"{folder.state}: the run's checkpoint is gone; it cannot go on. Start a new run.")


def check_free(folder: RunFolder, config: Config) -> None:
    """See that no run of the name exists.

    Raises:
        ValueError: one does.
    """
    taken = [path for path in (folder.root, folder.checkpoints) if path.exists() and any(path.iterdir())]
    if taken:
        raise ValueError(
            f"{taken[0]}: a run of this name exists. Choose another --name, or go on with it: "
            f"python train.py --resume --name {config.name}"
        )


def open_run(folder: RunFolder, config: Config, split: Split) -> None:
    """Make the run's folder and write down what it starts from.

    Raises:
        ValueError: a folder cannot be written; names the setting.
    """
    places = {"runs_dir": folder.root, "checkpoint_dir": folder.checkpoints, "tensorboard_dir": folder.tensorboard}
    for setting, path in places.items():
        check_writable(path, setting)
    digests = _digests(split, config)
    words = {"train": split.train.describe(), "validation": split.validation.describe(trains=False)}
    record = {"train_dir": str(config.train_dir.resolve()), **words, "digests": digests}
    write_text(folder.root / "data.json", json.dumps(record, indent=2) + "\n")
    write_text(folder.root / "environment.json", json.dumps(runtime.environment(), indent=2) + "\n")
    for side, index in (("train", split.train), ("validation", split.validation)):
        write_text(folder.root / f"{side}_people.txt", names_text(index.people))
    write_text(folder.config, config.to_json())


def write_history(folder: RunFolder, fmr: float, rows: Sequence[dict[str, float]]) -> None:
    """history.csv and learning_curve.png of all epochs so far; `fmr` is the rate of the monitored TPR."""
    from facekit.plots import learning_curve_figure, save_figure

    text = io.StringIO()
    # Stages may log different figures.
    names = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(text, fieldnames=names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder.root / "history.csv", text.getvalue())
    columns = {name: [row.get(name, float("nan")) for row in rows] for name in names}
    # The start alone, whose row has no loss, is no curve.
    if any(row["epoch"] > 0 for row in rows):
        save_figure(learning_curve_figure(columns, int(rows[0]["epoch"]), fmr), folder.curve)
