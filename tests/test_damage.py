"""A folder that falls apart while a run learns from it: the run goes on, counts what is lost, and names it."""

from __future__ import annotations

import csv
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import train
from config import Config
from facekit.synthetic import write_people
from runs import RunFolder

PEOPLE, EACH, SINGLE, STEPS = 40, 10, 12, 300
SHARE = 0.03


@pytest.fixture
def folder(tmp_path) -> Path:
    """Crops of 40 drawn people, to be destroyed: 10 of most, a single one of 12."""
    root = write_people(tmp_path / "people", people=PEOPLE, pictures_per_person=EACH, seed=11, size=32, crops=True)
    for number in range(SINGLE):
        for picture in sorted((root / f"person_{number:05d}").iterdir())[1:]:
            picture.unlink()
    return root


def destroy(path: Path, way: int) -> None:
    """Cut a file short, delete it, or write something else over it."""
    if way == 0:
        path.write_bytes(path.read_bytes()[:-200])
    elif way == 1:
        path.unlink()
    else:
        path.write_text("not a picture any more")


def destroy_while_training(paths: list[Path], run: Path, gone: list[Path]) -> None:
    """Once the run has written its first checkpoint, destroy its pictures one by one."""
    until = time.monotonic() + 120
    while not (run / "history.csv").exists() and time.monotonic() < until:
        time.sleep(0.05)
    for number, path in enumerate(paths):
        destroy(path, number % 3)
        gone.append(path)
        time.sleep(0.05)


def test_300_steps_finish_while_3_percent_of_the_files_are_destroyed(folder, tmp_path, capsys):
    config = Config(
        train_dir=folder,
        runs_dir=tmp_path / "runs",
        name="damaged",
        image_size=32,
        embedding_size=16,
        batch_size=8,
        negatives_per_tuplet=3,
        epochs=10,
        steps_per_epoch=STEPS // 10,
        validation_pairs=40,
    )
    run = RunFolder.of(config)
    every = sorted(folder.rglob("*.jpg"))
    # Among them three people's only pictures: others must stand in, under their own names.
    order = SINGLE + np.random.default_rng(0).permutation(len(every) - SINGLE)
    doomed = every[:3] + [every[place] for place in order[: round(SHARE * len(every)) - 3]]
    gone: list[Path] = []
    breaker = threading.Thread(target=destroy_while_training, args=(doomed, run.root, gone), daemon=True)
    breaker.start()
    record = train.train(config)
    breaker.join(timeout=10)
    assert len(gone) == len(doomed) == 9 and record.threshold is not None

    with (run.root / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    counted = [float(row["unreadable"]) for row in rows]
    with run.unreadable.open(newline="") as file:
        named = {row["path"]: row["reason"] for row in csv.DictReader(file)}
    held_out = set((run.root / "validation_people.txt").read_text().split())
    trained = {path.relative_to(folder).as_posix() for path in gone if path.parent.name not in held_out}
    assert len(rows) == 10 and counted == sorted(counted) and counted[0] == 0
    # Held-out people's pictures were read before; of the others, 300 steps come by every one.
    assert set(named) == trained and counted[-1] <= len(named)
    reasons = " ".join(named.values())
    assert "truncated or not a picture" in reasons and "No such file" in reasons
    told = capsys.readouterr().err
    assert f"{len(named)} pictures could not be read" in told and str(run.unreadable) in told
    assert sum(path in told for path in named) == min(10, len(named))
