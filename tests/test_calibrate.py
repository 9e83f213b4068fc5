"""Calibration: a bundle gets a threshold from the user's own pictures, and every verdict uses it."""

from __future__ import annotations

import dataclasses
import datetime
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import evaluate
import inference
import pretrained
from facekit.alignment import CropRecipe
from facekit.bundle import read_network, read_record, write_bundle, write_record


@pytest.fixture
def model(bundle, tmp_path) -> Path:
    """The fixture's network as a model of whole pictures without a threshold."""
    record = dataclasses.replace(read_record(bundle), recipe=None, threshold=None)
    write_bundle(tmp_path / "model", read_network(bundle), record)
    return tmp_path / "model"


@pytest.fixture
def calibrate(model, crops, tmp_path, capsys):
    """Runs the command with --json on the drawn crops; gives the exit code and what it wrote."""

    def run(*more: object, images: Path = crops):
        capsys.readouterr()
        words = ["calibrate", "--model", model, "--images", images, "--cache", tmp_path / "cache", "--json", *more]
        code = evaluate.main([str(word) for word in words])
        said = capsys.readouterr()
        return code, json.loads(said.out) if code == 0 else said.err

    return run


def scores(model: Path, crops: Path, tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    words = ["--model", model, "--images", crops, "--output", tmp_path / "report", "--json"]
    assert evaluate.main([str(word) for word in words]) == 0
    rows = [line.split(",") for line in (tmp_path / "report" / "scores.csv").read_text().splitlines()[1:]]
    return np.array([float(row[3]) for row in rows]), np.array([row[2] == "1" for row in rows])


def test_the_threshold_is_the_largest_within_the_rate_and_goes_into_the_bundle(calibrate, model, crops, tmp_path):
    distances, same = scores(model, crops, tmp_path)
    code, said = calibrate("--fmr", "0.1")
    impostors = np.sort(distances[~same])
    assert code == 0 and said["impostor"] == impostors.size and said["genuine"] == same.sum()
    assert (impostors < said["threshold"]).mean() <= 0.1 < (impostors <= said["threshold"]).mean()
    threshold = read_record(model).threshold
    assert threshold is not None
    assert threshold.value == said["threshold"] and threshold.fmr == pytest.approx(said["fmr"])
    assert threshold.data == str(crops) and threshold.by == "identity" and "0.1" in threshold.criterion
    low, high = threshold.value_interval
    assert low <= threshold.value <= high
    low, high = said["intervals"]["fmr_on_others"]
    assert low <= said["intervals"]["fmr"][0] <= said["intervals"]["fmr"][1] <= high
    assert said["before"] is None and said["intervals"]["fmr"][0] <= said["fmr"] <= said["intervals"]["fmr"][1]


def test_verdicts_use_it_and_say_uncalibrated_before(calibrate, model, crops, capsys):
    two = [str(path) for path in sorted(crops.glob("*/*.jpg"))[:2]]
    assert inference.main([*two, "--model", str(model)]) == 2
    said = capsys.readouterr().out
    assert "NO VERDICT (uncalibrated)" in said and "uncalibrated" in said
    calibrate("--fmr", "0.2", "--probability", "platt")
    assert inference.main([*two, "--model", str(model)]) in (0, 1)
    said = capsys.readouterr().out
    assert f"{crops}, {datetime.date.today():%Y-%m-%d}" in said
    assert "Probability of one person 0." in said
    assert inference.main([*two, "--model", str(model), "--json"]) in (0, 1)
    values = json.loads(capsys.readouterr().out)
    assert 0 < values["probability"] < 1
    assert values["probability"] == pytest.approx(
        float(read_record(model).probability.probability(values["distance"]))
    )


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_probabilities_fall_with_the_distance_and_are_judged_on_others(calibrate, model, method):
    code, said = calibrate("--fmr", "0.2", "--probability", method)
    assert code == 0 and 0 < said["probability"]["brier"] < 0.3
    chances = read_record(model).probability.probability(np.linspace(0, 2, 50))
    assert (np.diff(chances) <= 0).all() and chances[0] > chances[-1]


def test_later_reports_judge_the_probabilities(calibrate, model, crops, tmp_path):
    calibrate("--fmr", "0.2", "--probability", "isotonic")
    scores(model, crops, tmp_path)
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["probability"]["method"] == "isotonic" and 0 < report["probability"]["brier"] < 0.25
    assert "Probabilities" in (tmp_path / "report" / "report.html").read_text()


def test_the_threshold_before_is_told_with_its_flips(calibrate, model, capsys):
    _, first = calibrate("--fmr", "0.2", "--probability", "platt")
    assert first["before"] is None and first["flip"] is False
    _, other = calibrate("--fmr", "0.2", "--flip", "True")
    assert (other["before"], other["before_flip"], other["flip"]) == (first["threshold"], False, True)
    assert any("earlier fit of probabilities is gone" in warning for warning in other["warnings"])
    assert read_record(model).flip and read_record(model).threshold.flip and read_record(model).probability is None
    data = read_record(model).threshold.data
    words = ["--model", str(model), "--images", data, "--fmr", "0.2", "--flip", "False"]
    assert evaluate.main(["calibrate", *words]) == 0
    said = capsys.readouterr().out
    assert f"It was {other['threshold']:.4f}, " in said
    assert "; found with each face's embedding averaged with its mirror image's." in said


def test_crops_taken_as_they_are_are_told_in_the_evidence(calibrate, model, crops):
    record = dataclasses.replace(read_record(model), recipe=CropRecipe(size=150))
    write_record(model, record)
    code, said = calibrate("--fmr", "0.2", "--as_crops")
    assert code == 0 and any("taken as faces already cut" in warning for warning in said["warnings"])
    assert said["data"] == f"{crops} (taken as faces already cut, whoever cut them)"
    assert read_record(model).threshold.data == said["data"] and read_record(model).recipe == record.recipe
    assert "found with" not in said["data"]


def test_the_pretrained_model_can_be_reset(calibrate, model, monkeypatch, tmp_path):
    _, said = calibrate("--fmr", "0.2")
    assert not any("pretrained.py --reset" in warning for warning in said["warnings"])
    monkeypatch.setenv("TUPLETFACE_CACHE", str(tmp_path))
    model.rename(tmp_path / f"{pretrained.BACKBONE}-{pretrained.EDITION}")
    code, said = calibrate("--fmr", "0.2", "--model", tmp_path / f"{pretrained.BACKBONE}-{pretrained.EDITION}")
    assert code == 0 and any("`python pretrained.py --reset` gives back" in warning for warning in said["warnings"])


def test_a_bundle_that_cannot_be_written_is_refused_before_the_work(calibrate, monkeypatch):
    def read_only(folder, setting):
        raise ValueError(f"{folder}: cannot be written. Choose another folder with `{setting}`.")

    monkeypatch.setattr("calibrate.check_writable", read_only)
    monkeypatch.setattr("scoring.embed", lambda *_: pytest.fail("embedded first"))
    code, error = calibrate("--cost")
    assert code == 2 and "cannot be written. Choose another folder with `model`" in error


def test_by_cost(calibrate, model):
    code, said = calibrate("--cost")
    assert code == 0 and 0.1 <= said["threshold"] <= 1.5
    assert read_record(model).threshold.value == said["threshold"]


def test_too_few_pairs_for_a_rate_leave_the_bundle_as_it_was(calibrate, model):
    before = (model / "bundle.json").read_bytes()
    code, error = calibrate("--fmr", "0.0001")
    assert code == 2 and "impostor pairs" in error and "30,000" in error
    assert (model / "bundle.json").read_bytes() == before


def test_one_way_to_choose_must_be_named(calibrate):
    for more in ((), ("--fmr", "0.1", "--cost")):
        code, error = calibrate(*more)
        assert code == 2 and "Name one way to choose" in error


def test_people_can_be_left_out_and_training_people_are_warned_of(calibrate, model, crops, tmp_path):
    people = sorted(path.name for path in crops.iterdir() if path.is_dir())
    (tmp_path / "out.txt").write_text(f"{people[0].replace('_', ' ')}\n")
    _, whole = calibrate("--fmr", "0.1")
    _, less = calibrate("--fmr", "0.1", "--exclude_people", tmp_path / "out.txt")
    assert whole["genuine"] - less["genuine"] == 15
    (tmp_path / "train_people.txt").write_text(f"{people[3]}\n")
    (tmp_path / "validation_people.txt").write_text("")
    _, met = calibrate("--fmr", "0.1")
    assert "1 of these people trained this model" in " ".join(met["warnings"])
    assert "1 of whose people trained the model or" in read_record(model).threshold.data


def test_a_folder_of_one_person_is_refused(calibrate, crops, tmp_path):
    person = next(path for path in crops.iterdir() if path.is_dir())
    shutil.copytree(person, tmp_path / "one" / person.name)
    code, error = calibrate("--fmr", "0.1", images=tmp_path / "one")
    assert code == 2 and "holds a single person" in error


def test_lost_pictures_do_not_make_the_rate_look_small(calibrate, model, crops, tmp_path):
    """A pair without two faces gets no verdict in use either."""
    shutil.copytree(crops, tmp_path / "crops")
    pictures = sorted((tmp_path / "crops").glob("*/*.jpg"))
    for path in pictures[::5]:
        path.write_bytes(b"no picture")
    code, said = calibrate("--fmr", "0.1", images=tmp_path / "crops")
    for path in pictures[::5]:
        path.unlink()
    _, without = calibrate("--fmr", "0.1", images=tmp_path / "crops")
    assert code == 0 and any("were left out" in warning for warning in said["warnings"])
    for name in ("threshold", "fmr", "genuine", "impostor"):
        assert said[name] == pytest.approx(without[name])


def test_pairs_that_cannot_be_judged_leave_the_bundle_as_it_was(calibrate, model, crops, tmp_path):
    names = [path.relative_to(crops).as_posix() for path in sorted(crops.glob("*/*.jpg"))]
    (tmp_path / "two.csv").write_text(f"path1,path2,label\n{names[0]},{names[1]},1\n{names[0]},{names[-1]},0\n")
    before = (model / "bundle.json").read_bytes()
    code, error = calibrate("--cost", "--pairs", tmp_path / "two.csv")
    assert code == 2 and "at least 2 impostor pairs" in error
    assert (model / "bundle.json").read_bytes() == before


def test_a_probability_stays_when_only_the_threshold_changes(calibrate, model):
    calibrate("--fmr", "0.2", "--probability", "platt")
    fitted = read_record(model).probability
    calibrate("--fmr", "0.1")
    assert read_record(model).probability == fitted is not None


def test_a_report_on_the_calibrations_own_pairs_says_so(calibrate, model, crops, tmp_path):
    def warnings(*more: object) -> str:
        words = ["--model", model, "--images", crops, "--output", tmp_path / "report", "--json", *more]
        assert evaluate.main([str(word) for word in words]) == 0
        return " ".join(json.loads((tmp_path / "report" / "report.json").read_text())["warnings"])

    calibrate("--fmr", "0.2")
    assert "chosen on these very pairs" in warnings()
    people = sorted(path.name for path in crops.iterdir() if path.is_dir())
    (tmp_path / "one.txt").write_text("\n".join(people[:8]))
    (tmp_path / "two.txt").write_text("\n".join(people[8:]))
    calibrate("--fmr", "0.2", "--exclude_people", tmp_path / "one.txt")
    assert "chosen on these very pairs" in warnings("--exclude_people", tmp_path / "one.txt")
    assert "chosen on these very pairs" not in warnings("--exclude_people", tmp_path / "two.txt")
    shutil.copytree(crops, tmp_path / "others")
    calibrate("--fmr", "0.2", images=tmp_path / "others")
    assert "chosen on these very pairs" not in warnings()
