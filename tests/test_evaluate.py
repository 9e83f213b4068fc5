"""Judging a model on pairs: which pictures it sees, what it reports, what it refuses."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import sklearn.metrics

import crop_faces
import evaluate
import pictures
from dataset import draw_pairs
from facekit.bundle import read_network, read_record, write_bundle
from facekit.images import read_image
from facekit.index import index_people
from facekit.protocols import pairs_csv
from verifier import Verifier


@pytest.fixture(scope="module")
def pairs(photos, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    path.write_text(pairs_csv(draw_pairs(index_people(photos), 60, 0)))
    return path


@pytest.fixture(scope="module")
def cropped(photos, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cropped")
    assert crop_faces.main(["--input_dir", str(photos), "--output_dir", str(folder), "--processes", "1"]) == 0
    return folder


@pytest.fixture
def judge(bundle, pairs, tmp_path, capsys):
    """Runs the command with --json on some images; gives the report."""

    def run(images: Path, *more: object, model: Path = bundle, pairs: Path = pairs) -> dict:
        arguments = ["--model", model, "--pairs", pairs, "--images", images, "--cache", tmp_path / "cache"]
        arguments += ["--output", tmp_path / "report", "--json", *more]
        capsys.readouterr()
        assert evaluate.main([str(argument) for argument in arguments]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_originals_and_crops_of_the_recipe_give_the_same(judge, photos, cropped):
    originals, crops = judge(photos), judge(cropped)
    assert originals["auc"] == pytest.approx(crops["auc"], abs=0.01)
    assert originals["pairs"] == 60 and originals["genuine"] == originals["impostor"] == 30


def test_the_figures_are_those_of_the_distances(judge, cropped, bundle, pairs, tmp_path):
    report = judge(cropped)
    lines = [line.split(",") for line in (tmp_path / "report" / "scores.csv").read_text().splitlines()[1:]]
    same = np.array([int(line[2]) for line in lines])
    distances = np.array([float(line[3]) for line in lines])
    assert report["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(same, -distances))
    assert report["accuracy"] == pytest.approx(np.mean((distances < 0.5) == (same == 1)))
    assert report["threshold"] == 0.5 and "threshold" in report["accuracy_from"]
    verifier = Verifier(bundle)
    rows = verifier.embed_crops([read_image(cropped / lines[0][side]) for side in (0, 1)])
    assert distances[0] == pytest.approx(np.linalg.norm(rows[0] - rows[1]), abs=1e-5)


def test_json_starts_with_plain_numbers_and_files_are_written(judge, cropped, tmp_path):
    report = judge(cropped)
    first = list(report.items())[:12]
    assert all(isinstance(value, int | float) for _, value in first)
    assert {"auc", "eer", "accuracy", "threshold", "pairs", "failed"} <= set(report)
    assert json.loads((tmp_path / "report" / "report.json").read_text()) == report
    for path in (tmp_path / "report" / "pictures").glob("*.png"):
        assert read_image(path).std() > 5
    assert len(list((tmp_path / "report" / "pictures").glob("*.png"))) >= 5
    page = (tmp_path / "report" / "report.html").read_text()
    assert f"{report['auc']:.4f}" in page
    assert not any(mark in page for mark in ("<script", 'src="http', "<link", 'href="http'))


def test_text_says_the_same(bundle, pairs, cropped, tmp_path, capsys):
    arguments = ["--model", bundle, "--pairs", pairs, "--images", cropped, "--output", tmp_path]
    assert evaluate.main([str(argument) for argument in arguments]) == 0
    said = capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert f"{report['auc']:.4f}" in said and f"{report['accuracy']:.4f}" in said and "folds by identity" in said
    assert "0.001" in said and "impostor pairs" in said  # a rate that 30 impostor pairs cannot show
    assert "WARNING: Overlap with the training people: unchecked" in said


def test_pictures_beyond_one_batch_are_embedded(judge, cropped, monkeypatch):
    whole = judge(cropped)
    monkeypatch.setattr(pictures, "PICTURES_AT_ONCE", 5)
    assert judge(cropped)["auc"] == pytest.approx(whole["auc"], abs=1e-6)


def test_names_that_leave_the_folder_are_refused_and_nothing_is_written_over(bundle, photos, tmp_path, capsys):
    files = sorted(photos.glob("*/*.jpg"))
    before = files[0].read_bytes()
    outside = f"../{photos.name}/{files[0].relative_to(photos)}"
    for one in (str(files[0]), outside):
        (tmp_path / "pairs.csv").write_text(f"{one},{files[1].relative_to(photos)},1\n{one},b/2.jpg,0\n")
        arguments = ["--model", bundle, "--pairs", tmp_path / "pairs.csv", "--images", photos]
        assert evaluate.main([str(argument) for argument in arguments]) == 2
        assert "must lie below" in capsys.readouterr().err
    assert files[0].read_bytes() == before


def test_no_face_at_all_is_said(bundle, pairs, photos, tmp_path, capsys):
    for path in photos.glob("*/*.jpg"):
        (tmp_path / "in" / path.parent.name).mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (60, 60)).save(tmp_path / "in" / path.relative_to(photos))
    arguments = ["--model", bundle, "--pairs", pairs, "--images", tmp_path / "in", "--cache", tmp_path / "cache"]
    assert evaluate.main([str(argument) for argument in arguments]) == 2
    assert "None of the" in capsys.readouterr().err


def test_another_choice_of_face_is_searched_again(judge, photos, pairs, bundle, tmp_path):
    strict = tmp_path / "strict"
    arguments = ["--input_dir", photos, "--output_dir", strict, "--processes", 1, "--min_confidence", 0.9999]
    crop_faces.main([str(argument) for argument in arguments])
    assert judge(strict)["failed"] == judge(photos)["failed"]


def test_lfws_form_with_folds(judge, photos, tmp_path):
    people = sorted(path.name for path in photos.iterdir() if path.is_dir())
    folder = tmp_path / "lfw"
    for person in people:
        (folder / person).mkdir(parents=True)
        for number, picture in enumerate(sorted((photos / person).iterdir()), 1):
            shutil.copy(picture, folder / person / f"{person}_{number:04d}.jpg")
    lines = ["2\t2"]
    for a, b in [(0, 1), (2, 3)]:
        lines += [f"{people[a]}\t1\t2", f"{people[b]}\t1\t3"]
        lines += [f"{people[a]}\t1\t{people[b]}\t1", f"{people[a]}\t2\t{people[b]}\t2"]
    (tmp_path / "pairs.txt").write_text("\n".join(lines) + "\n")
    report = judge(folder, pairs=tmp_path / "pairs.txt")
    assert report["pairs"] == 8 and len(report["kfold"]["accuracies"]) == 2
    assert report["accuracy"] == pytest.approx(np.mean(report["kfold"]["accuracies"]))


def test_crops_are_cached(judge, photos, tmp_path, monkeypatch):
    first = judge(photos)
    monkeypatch.setattr(crop_faces, "crop_chunk", lambda *_: pytest.fail("cropped again"))
    assert judge(photos) == first


def with_recipe(bundle: Path, folder: Path, **changes) -> Path:
    record = read_record(bundle)
    assert record.recipe is not None
    changed = dataclasses.replace(record, recipe=dataclasses.replace(record.recipe, **changes))
    write_bundle(folder, read_network(bundle), changed)
    return folder


def test_crops_of_another_recipe_are_made_again_from_their_originals(judge, photos, cropped, bundle, tmp_path):
    other = with_recipe(bundle, tmp_path / "other", margin=0.2)
    assert judge(cropped, model=other)["auc"] == pytest.approx(judge(photos, model=other)["auc"], abs=0.02)
    assert judge(cropped, model=other)["auc"] != judge(cropped)["auc"]


def test_crops_of_another_recipe_without_originals_are_refused(photos, pairs, bundle, tmp_path, capsys):
    shutil.copytree(photos, tmp_path / "in")
    crop_faces.main(
        ["--input_dir", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out"), "--processes", "1"]
    )
    shutil.rmtree(tmp_path / "in")
    other = with_recipe(bundle, tmp_path / "other", margin=0.2)
    arguments = ["--model", other, "--pairs", pairs, "--images", tmp_path / "out"]
    assert evaluate.main([str(argument) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert "crops of another recipe than the model's" in said and "take crops as they are with --as_crops" in said
    assert evaluate.main([str(argument) for argument in [*arguments, "--as_crops"]]) == 0, "told so"
    assert "WARNING: The pictures were taken as faces already cut, whoever cut them" in capsys.readouterr().out


def test_crops_are_taken_as_they_are_when_told_and_the_report_says_so(judge, cropped, bundle, tmp_path):
    other = with_recipe(bundle, tmp_path / "other", margin=0.2)
    told, own = judge(cropped, "--as_crops", model=other), judge(cropped)
    assert told["auc"] == own["auc"] and told["kfold"] == own["kfold"], "the same crops, the same network"
    assert told["as_crops"] and told["recipe"] is None and not own["as_crops"] and own["recipe"]
    assert any("taken as faces already cut" in warning for warning in told["warnings"])
    assert not any("taken as faces already cut" in warning for warning in own["warnings"])
    judge(cropped, "--as_crops", "--baselines", model=other)
    for name in ("report.html", "report.md"):
        assert "none: taken as faces already cut" in (tmp_path / "report" / name).read_text()


def test_whole_pictures_are_taken_as_faces_when_told(judge, photos, bundle, tmp_path):
    write_bundle(tmp_path / "whole", read_network(bundle), dataclasses.replace(read_record(bundle), recipe=None))
    told, whole = judge(photos, "--as_crops"), judge(photos, model=tmp_path / "whole")
    assert told["auc"] == whole["auc"] != judge(photos)["auc"]


def test_scores_are_no_crops(tmp_path, capsys):
    (tmp_path / "s.csv").write_text("score,label\n0.1,1\n0.2,0\n")
    assert evaluate.main(["--scores", str(tmp_path / "s.csv"), "--as_crops"]) == 2
    assert "`as_crops` goes with `pairs` or `triplets` or `gallery` or `images`" in capsys.readouterr().err


def test_lost_pictures_count_as_rejected(judge, photos, pairs, tmp_path):
    folder = tmp_path / "photos"
    shutil.copytree(photos, folder)
    names = [line.split(",") for line in pairs.read_text().splitlines()[1:]]
    lost = names[0][0]
    PIL.Image.new("RGB", (250, 250)).save(folder / lost)
    report = judge(folder)
    touched = [line for line in names if lost in line[:2]]
    assert report["failed"] == len(touched) > 0
    assert report["survivors"]["pairs"] == 60 - len(touched)
    assert report["fnr"] >= sum(line[2] == "1" for line in touched) / 30


def test_a_model_of_whole_pictures_reads_crops_as_they_are(judge, crops, bundle, tmp_path):
    write_bundle(tmp_path / "whole", read_network(bundle), dataclasses.replace(read_record(bundle), recipe=None))
    path = tmp_path / "p.csv"
    path.write_text(pairs_csv(draw_pairs(index_people(crops), 40, 0)))
    assert judge(crops, model=tmp_path / "whole", pairs=path)["failed"] == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{0}/0000.jpg,{0}/gone.jpg,1\n{0}/0000.jpg,{1}/0000.jpg,0\n", "gone.jpg: the list names this picture"),
        ("{0}/0000.jpg,{0}/0001.jpg,1\n", "all 1 pairs are genuine"),
        ("{0}/0000.jpg,{1}/0000.jpg,0\n", "all 1 pairs are impostor"),
        ("{0}/0000.jpg\n", "line 1: expected two paths and a label"),
    ],
)
def test_a_wrong_list_is_refused_before_any_model_is_loaded(photos, tmp_path, text, sentence, capsys):
    (tmp_path / "pairs.csv").write_text(text.format("person_00000", "person_00001"))
    arguments = ["--model", "nowhere", "--pairs", tmp_path / "pairs.csv", "--images", photos]
    assert evaluate.main([str(argument) for argument in arguments]) == 2
    assert sentence in capsys.readouterr().err


def test_a_wrong_folder_or_model_is_named(pairs, photos, bundle, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    for model, images, output, sentence in [
        (bundle, tmp_path / "none", tmp_path, "none: there is no such folder. Set `images`"),
        (tmp_path, photos, tmp_path, "is not a model bundle"),
        (bundle, photos, tmp_path / "file", "Choose another folder with `output`"),
    ]:
        arguments = ["--model", model, "--pairs", pairs, "--images", images, "--output", output]
        assert evaluate.main([str(argument) for argument in arguments]) == 2
        assert sentence in capsys.readouterr().err


def test_a_part_of_a_folder_of_crops_is_judged_by_what_is_there(cropped, bundle, tmp_path, capsys):
    part = tmp_path / "part"
    people = sorted(path.name for path in cropped.iterdir() if path.is_dir())[:3]
    for name in people:
        shutil.copytree(cropped / name, part / name)
    shutil.copy(cropped / "crops.json", part)
    words = ["--images", part, "--model", bundle, "--output", tmp_path / "report", "--json"]
    assert evaluate.main([str(word) for word in words]) == 2
    assert "its manifest.csv names none of its pictures" in capsys.readouterr().err
    shutil.copy(cropped / "manifest.csv", part)
    assert evaluate.main([str(word) for word in words]) == 0
    report = json.loads(capsys.readouterr().out)
    count = sum(1 for _ in part.glob("*/*.jpg"))
    assert report["pairs"] - report["failed"] == count * (count - 1) // 2
