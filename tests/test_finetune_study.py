"""The study of fine-tuning: its folds, its intervals, its table, and a small one from end to end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from scipy import stats

import train
from apps import finetune_study
from apps.finetune_study import FMRS, NETWORKS, fold_of_people, gains, run_config, table, train_one
from config import Config
from facekit.index import index_people
from facekit.name_list import read_names
from tests.test_train import arguments


def test_folds_are_of_equal_size_and_always_the_same():
    folds = fold_of_people(103, 5)
    assert sorted(np.bincount(folds)) == [20, 20, 21, 21, 21]
    np.testing.assert_array_equal(folds, fold_of_people(103, 5))


@pytest.fixture
def rates() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    start = rng.uniform(0.5, 0.9, (5, 3, len(FMRS)))
    return {name: start + 0.02 * place + rng.normal(0, 0.01, start.shape) for place, name in enumerate(NETWORKS)}


def test_gains_are_students_intervals_over_folds(rates):
    paired = (rates["tuned"] - rates["start"]).mean(axis=1)
    for place, (gain, low, high) in enumerate(gains(rates, "tuned")):
        expected = stats.ttest_1samp(paired[:, place], 0).confidence_interval(0.95)
        assert gain == pytest.approx(paired[:, place].mean())
        assert (low, high) == pytest.approx((expected.low, expected.high))


def test_the_table_names_every_network_and_fold(rates):
    lines = table(rates).splitlines()
    assert "means of 5 folds by identity and 3 seeds" in lines[0]
    cells = {line.split(" | ")[0].strip("| "): line.split(" | ") for line in lines if line.startswith("|")}
    assert {*NETWORKS, *"01234"} <= set(cells)
    assert cells["tuned"][1] == f"{rates['tuned'][..., 0].mean():.3f}"
    assert cells["3"][1] == " / ".join(f"{value:.3f}" for value in rates["start"][3].mean(axis=0))


def test_settings_without_weights_or_cohort_are_refused(crops, tmp_path, capsys):
    (tmp_path / "plain.json").write_text(Config(image_size=32).to_json())
    assert finetune_study.main([str(crops), "--config", str(tmp_path / "plain.json")]) == 2
    assert "plain.json: a study of fine-tuning needs `weights` and `cohort`" in capsys.readouterr().err


def test_people_whom_the_settings_exclude_are_not_taken_back_in_silence(crops, tmp_path, capsys):
    config = Config(image_size=32, weights="imagenet", backbone="mobilenet_v2", cohort=2, exclude_people=tmp_path)
    (tmp_path / "few.json").write_text(config.to_json())
    assert finetune_study.main([str(crops), "--config", str(tmp_path / "few.json")]) == 2
    assert "few.json: `exclude_people` is the study's own, for its folds" in capsys.readouterr().err


def test_runs_of_another_study_are_not_taken_for_this_ones(tmp_path, monkeypatch):
    base = Config(runs_dir=tmp_path, learning_rate=0.001)
    config = run_config(base, 0, 0, ["Ann", "Bob"])
    assert run_config(base, 0, 1, ["Ann", "Bob"]).exclude_people == config.exclude_people
    with pytest.raises(ValueError, match="fold-0.txt: an earlier study with other `folds` or crops"):
        run_config(base, 0, 0, ["Ann", "Eve"])
    (tmp_path / f"{config.name}.json").write_text(config.to_json())
    (tmp_path / config.name / "bundle").mkdir(parents=True)
    (tmp_path / config.name / "bundle" / "bundle.json").write_text("{}")
    monkeypatch.setattr(finetune_study, "run_to_its_end", None)
    train_one(config)
    train_one(config.model_copy(update={"read_threads": 7}))
    other = config.model_copy(update={"learning_rate": 0.002})
    with pytest.raises(ValueError, match="fold-0-seed-0.json: .* this run with `learning_rate` 0.001, not 0.002"):
        train_one(other)


def test_a_run_that_was_stopped_before_its_first_checkpoint_goes_on(tmp_path, monkeypatch):
    config = run_config(Config(runs_dir=tmp_path), 0, 0, ["Ann"])
    called = []

    def trained(words):
        called.append(words[2:])
        return 0

    monkeypatch.setattr(finetune_study, "run_to_its_end", trained)
    train_one(config)
    (tmp_path / config.name).mkdir()
    (tmp_path / config.name / "config.json").write_text(config.to_json())
    train_one(config)
    assert [words[0] for words in called] == ["--config", "--resume"]


@pytest.mark.skipif(os.name != "posix", reason="signals to a group of processes")
def test_an_interrupted_run_is_not_killed_while_it_saves(tmp_path):
    run = (
        "import pathlib, signal, sys, time\n"
        "folder = pathlib.Path(sys.argv[1])\n"
        "def save(*_):\n    time.sleep(1)\n    (folder / 'saved').touch()\n    sys.exit(130)\n"
        "signal.signal(signal.SIGINT, save)\n"
        "(folder / 'started').touch()\ntime.sleep(60)\n"
    )
    study = (
        "import signal, sys\nfrom apps.finetune_study import run_to_its_end\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whoever runs the tests may ignore it
        "try:\n    run_to_its_end([sys.executable, '-c', sys.argv[1], sys.argv[2]])\n"
        "except KeyboardInterrupt:\n    sys.exit(3)\n"
    )
    words = [sys.executable, "-c", study, run, str(tmp_path)]
    process = subprocess.Popen(words, cwd=finetune_study.ROOT, start_new_session=True)
    until = time.monotonic() + 120
    while not (tmp_path / "started").exists() and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 3 and (tmp_path / "saved").exists()


@pytest.mark.slow
def test_a_small_study_from_end_to_end(crops, tmp_path, capsys, monkeypatch):
    assert train.main(arguments(crops, tmp_path, "first", steps_per_epoch=8)) == 0
    words = arguments(crops, tmp_path, "x", weights=tmp_path / "first" / "bundle", cohort=2)
    config, _ = train.read_command(words)
    (tmp_path / "few.json").write_text(config.to_json())
    command = [str(crops), "--config", str(tmp_path / "few.json"), "--output_dir", str(tmp_path / "study")]
    command += ["--folds", "2", "--seeds", "1"]
    assert finetune_study.main(command) == 0
    told = capsys.readouterr().out
    assert "start + cohort" in told and (tmp_path / "study" / "table.md").read_text() in told
    found = json.loads((tmp_path / "study" / "study.json").read_text())["rates"]
    assert np.shape(found["tuned"]) == (2, 1, 3) and 0 < np.mean(found["start"]) <= 1
    # Nobody of a fold is among those who trained or were validated on.
    people = {*index_people(crops).people}
    held = [{*read_names(tmp_path / "study" / f"fold-{fold}.txt", "names")} for fold in (0, 1)]
    assert held[0] | held[1] == people and not held[0] & held[1]
    for fold in (0, 1):
        lists = [path.read_text() for path in (tmp_path / "study" / f"fold-{fold}-seed-0").glob("*people*")]
        assert lists and not any(name in text.split() for name in held[fold] for text in lists)
    # Nothing is done twice.
    monkeypatch.setattr(finetune_study, "judge", None)
    assert finetune_study.main(command) == 0
