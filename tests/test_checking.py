"""The doctor for data, end to end: each kind of error is planted and found; a stopped check goes on."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import checking
import examining
import kept_embeddings
from check_findings import Folder, ModelView, duplicates
from checking import CheckCommand, check, main
from examining import Tie
from facekit import manifest
from facekit.alignment import CropRecipe
from facekit.examination import Examined, examine_pictures
from facekit.folder_doubts import Doubles, Splits
from facekit.images import encode_jpeg, read_image
from facekit.label_noise import Misfits, nothing_told
from facekit.lock import locked
from facekit.manifest import CropFolder
from verifier import Verifier


@pytest.fixture
def folder(crops: Path, tmp_path: Path) -> Path:
    """A copy of the drawn crops that may be damaged."""
    target = tmp_path / "people"
    shutil.copytree(crops, target)
    return target


def command(folder: Path, **settings: Any) -> CheckCommand:
    # Drawn crops of 64 pixels: no process is worth starting.
    usual = {"directory": folder, "output_dir": folder.parent / "out", "processes": 1}
    return CheckCommand(**(usual | settings))


def found(done: checking.Check) -> dict[str, set[str]]:
    kinds: dict[str, set[str]] = {}
    for finding in done.findings:
        kinds.setdefault(finding.problem, set()).add(finding.path or finding.person)
    return kinds


def excluded(folder: Path) -> list[str]:
    return (folder.parent / "out" / "exclude.txt").read_text(encoding="utf-8").splitlines()


def change(path: Path, function: Any) -> None:
    path.write_bytes(encode_jpeg(function(read_image(path))))


def test_a_clean_folder_has_no_findings(folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(folder), "--output_dir", str(folder.parent / "out"), "--processes", "1"]) == 0
    assert "96 files looked at (96 in this run)." in capsys.readouterr().out
    assert excluded(folder) == [] and "Nothing was found." in (folder.parent / "out/report.html").read_text()


def test_every_defect_is_found_and_excluded(folder: Path):
    person = folder / "person_00003"
    data = (person / "0000.jpg").read_bytes()
    (person / "0000.jpg").write_bytes(data[: len(data) // 2])
    (person / "0001.jpg").write_bytes(b"")
    (person / "0002.jpg").write_text("not a picture")
    (person / "link.jpg").symlink_to("gone.jpg")
    done = check(command(folder))
    assert found(done) == {
        "truncated": {"person_00003/0000.jpg"},
        "empty": {"person_00003/0001.jpg"},
        "not_a_picture": {"person_00003/0002.jpg"},
        "unreadable": {"person_00003/link.jpg"},
    }
    assert excluded(folder) == sorted(finding.path for finding in done.findings) and len(excluded(folder)) == 4


def test_of_a_person_s_copies_the_best_stays(folder: Path):
    person = folder / "person_00001"
    image = read_image(person / "0000.jpg")
    shutil.copy(person / "0000.jpg", person / "same.jpg")
    small = cv2.resize(image, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
    (person / "small.jpg").write_bytes(encode_jpeg(small, 80))
    done = check(command(folder))
    assert found(done) == {"duplicate": {"person_00001/same.jpg", "person_00001/small.jpg"}}
    assert {finding.other_path for finding in done.findings} == {"person_00001/0000.jpg"}
    assert [finding.value for finding in done.findings if finding.path.endswith("same.jpg")] == [1.0]
    assert excluded(folder) == ["person_00001/same.jpg", "person_00001/small.jpg"]


def test_copies_across_people_are_both_excluded_without_a_model(folder: Path):
    shutil.copy(folder / "person_00001/0000.jpg", folder / "person_00002/copy.jpg")
    done = check(command(folder))
    both = {"person_00001/0000.jpg", "person_00002/copy.jpg"}
    assert found(done) == {"duplicate_across": both} and set(excluded(folder)) == both
    assert {(one.path, one.other_path, one.other_person) for one in done.findings} == {
        ("person_00001/0000.jpg", "person_00002/copy.jpg", "person_00002"),
        ("person_00002/copy.jpg", "person_00001/0000.jpg", "person_00001"),
    }


def test_bad_quality_is_found_and_excluded_only_where_asked(folder: Path):
    person = folder / "person_00005"
    change(person / "0000.jpg", lambda image: cv2.GaussianBlur(image, (0, 0), 4))
    change(person / "0001.jpg", lambda image: (image * 0.1).astype(np.uint8))
    change(person / "0002.jpg", lambda image: np.clip(image * 1.2 + 130.0, 0, 255).astype(np.uint8))
    change(person / "0003.jpg", lambda image: cv2.resize(image, (30, 30), interpolation=cv2.INTER_AREA))
    kinds = found(check(command(folder)))
    # What is nearly white is clipped too.
    assert "person_00005/0002.jpg" in kinds.pop("clipped")
    assert kinds == {
        "blurred": {"person_00005/0000.jpg"},
        "dark": {"person_00005/0001.jpg"},
        "bright": {"person_00005/0002.jpg"},
        "too_small": {"person_00005/0003.jpg"},
    }
    assert excluded(folder) == []
    check(command(folder, exclude_quality=True))
    assert excluded(folder) == [f"person_00005/000{number}.jpg" for number in range(4)]


def with_manifest(folder: Path) -> list[manifest.Row]:
    """A manifest for the crops, with a face of 40 pixels between the eyes, straight, for each."""
    numbers = "0.99,10,10,80,90,30,50,70,50,50,75,34,96,66,96".split(",")
    names = examining.list_pictures(folder)
    rows = [manifest.Row.from_cells([name, name, "", "1", *numbers, "5", "6"]) for name in names]
    manifest.rewrite(folder, rows)
    CropFolder(CropRecipe(), str(folder), True).write(folder)
    return rows


def test_the_manifest_tells_of_faces_sizes_and_poses(folder: Path):
    rows = {row.path: row.cells() for row in with_manifest(folder)}
    rows["person_00000/0000.jpg"][3] = "5"  # faces
    rows["person_00000/0001.jpg"][9:19] = "30 50 38 50 34 55 31 59 37 59".split()  # eyes 8 pixels apart
    rows["person_00000/0002.jpg"][9:19] = "30 50 70 50 110 75 34 96 66 96".split()  # nose beside the eyes
    lost = ["person_00000/lost.jpg", "", "no_face", "0", *[""] * 15, "5", "6"]
    manifest.rewrite(folder, [manifest.Row.from_cells(cells) for cells in (*rows.values(), lost)])
    done = check(command(folder))
    assert found(done) == {
        "no_face": {"person_00000/lost.jpg"},
        "many_faces": {"person_00000/0000.jpg"},
        "too_small": {"person_00000/0001.jpg"},
        "turned": {"person_00000/0002.jpg"},
    }
    assert excluded(folder) == [] and done.notes == ["No model was named (--model): labels were not doubted."]
    lines = list(csv.DictReader((folder.parent / "out/quality.csv").read_text().splitlines()))
    by_path = {line["path"]: line for line in lines}
    assert float(by_path["person_00000/0001.jpg"]["eye_distance"]) == 8
    assert float(by_path["person_00000/0001.jpg"]["weight"]) == pytest.approx(8 / 15, abs=1e-3)
    assert float(by_path["person_00001/0001.jpg"]["weight"]) == 1 and len(lines) == 96


def fake_model(monkeypatch: pytest.MonkeyPatch, rows: Any) -> None:
    """A model that gives the rows of a function of the pictures' paths."""

    def embed(_verifier: Any, _folder: Path, pictures: Any, *_rest: Any) -> np.ndarray:
        return rows([seen.path for seen in pictures])

    monkeypatch.setattr(kept_embeddings, "embed_folder", embed)
    monkeypatch.setattr(checking, "_verifier", lambda model: object())


def many_people(folder: Path, people: int = 60, pictures: int = 8) -> None:
    """A folder of many people for a model that looks at names: pictures of noise, all different."""
    rng = np.random.default_rng(0)
    for person in range(people):
        (folder / f"p{person:02d}").mkdir(parents=True)
        for picture in range(pictures):
            noise = cv2.GaussianBlur(rng.integers(0, 256, (48, 48, 3), np.uint8), (0, 0), 1.5)
            data = encode_jpeg(np.clip((noise - 127.0) * 3 + 127, 0, 255).astype(np.uint8))
            (folder / f"p{person:02d}" / f"{picture}_p{person:02d}.jpg").write_bytes(data)


def by_name(paths: list[str]) -> np.ndarray:
    """Embeddings of the person that a file's name ends with."""
    rows = []
    for path in paths:
        person = path.rsplit("_", 1)[1][1:3]
        centre = np.random.default_rng(int(person)).standard_normal(32)
        own = np.random.default_rng([int(person), ord(path.rsplit("/", 1)[1][0])]).standard_normal(32)
        rows.append(centre + 0.5 * own)
    array = np.array(rows, np.float32)
    return array / np.linalg.norm(array, axis=1, keepdims=True)


def test_a_model_finds_wrong_labels_and_doubtful_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "people"
    many_people(folder)
    moved = [folder / f"p{number:02d}/0_p{number:02d}.jpg" for number in range(20, 50)]
    for path in moved:
        path.rename(folder / f"p{(int(path.parent.name[1:]) + 7) % 60:02d}" / path.name)
    (folder / "p08_again").mkdir()
    for number in range(4):
        (folder / f"p08/{number}_p08.jpg").rename(folder / f"p08_again/{number}_p08.jpg")
    for path in sorted((folder / "p10").iterdir()):
        path.rename(folder / "p11" / path.name)
    fake_model(monkeypatch, by_name)
    done = check(command(folder, precision=0.7))
    kinds = found(done)
    wrong = {f"p{(number + 7) % 60:02d}/0_p{number:02d}.jpg" for number in range(20, 50)}
    assert len(kinds["wrong_label"] & wrong) >= 28 and len(kinds["wrong_label"] - wrong) <= 12
    assert kinds["same_person"] == {"p08"}
    assert kinds["wrong_label"] <= set(excluded(folder)) and "p08" not in excluded(folder)


def test_a_model_knows_whose_a_copy_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "people"
    many_people(folder)
    for number in range(30, 50):  # wrong labels, for the threshold
        (folder / f"p{number}/1_p{number}.jpg").rename(folder / f"p{number - 20}/1_p{number}.jpg")
    shutil.copy(folder / "p03/2_p03.jpg", folder / "p04/2_p03.jpg")
    fake_model(monkeypatch, by_name)
    done = check(command(folder))
    advice = {
        one.path: (one.excluded, one.suggestion) for one in done.findings if one.problem == "duplicate_across"
    }
    assert advice == {
        "p03/2_p03.jpg": (False, "keep: the model finds that it belongs here"),
        "p04/2_p03.jpg": (True, "leave out: the model finds it in the wrong folder"),
    }


@pytest.mark.parametrize(
    ("wrong", "margin", "stay"),
    [
        ((False, True), (0.2, -0.6), {"a/1.jpg"}),
        ((True, False), (-0.6, 0.2), {"b/1.jpg"}),
        ((False, False), (0.2, 0.2), set()),
        ((True, True), (-0.6, -0.6), set()),
        ((False, True), (np.nan, -0.6), set()),
    ],
)
def test_a_copy_stays_only_where_the_model_is_sure_of_one_person(
    wrong: tuple[bool, bool], margin: tuple[float, float], stay: set[str]
):
    pictures = [Examined(path, 1, 1, "", 9, 9, "d", (0.3,) * 5) for path in ("a/1.jpg", "b/1.jpg")]
    whole = Folder(pictures, [], [Tie(0, 1, 1.0)])
    misfits = Misfits(np.array(margin), np.array([1, 0]), np.array(wrong), nothing_told())
    no_pairs = np.empty((0, 2), np.int64)
    view = ModelView(
        ["a", "b"],
        np.array([0, 1]),
        np.zeros(2, bool),
        misfits,
        Doubles(no_pairs, np.empty(0), np.inf, 1.0),
        Splits(np.full(2, np.nan), np.full(2, -1), no_pairs[:, 0], nothing_told()),
    )
    findings = list(duplicates(whole, [[0, 1]], view))
    assert {one.path for one in findings if not one.excluded} == stay and len(findings) == 2


def test_a_picture_without_a_face_is_not_doubted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "people"
    many_people(folder, people=20, pictures=5)

    def rows(paths: list[str]) -> np.ndarray:
        array = by_name(paths)
        array[::10] = np.nan
        return array

    fake_model(monkeypatch, rows)
    done = check(command(folder))
    assert "10 pictures gave no face to the model: their labels were not doubted." in done.notes


def test_a_killed_check_goes_on_where_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch):
    looked: list[str] = []

    def watched(names: Any, root: Path) -> Any:
        if len(looked) >= 40:
            raise RuntimeError("killed")
        looked.extend(names)
        return examine_pictures(names, root)

    monkeypatch.setattr(examining, "_A_SHARD", 10)
    monkeypatch.setattr(examining, "examine_pictures", watched)
    with pytest.raises(RuntimeError, match="killed"):
        check(command(folder))
    record = folder.parent / "out/files.csv"
    record.write_bytes(record.read_bytes()[:-100])
    monkeypatch.setattr(examining, "examine_pictures", examine_pictures)
    assert check(command(folder)).examined == 96 - 39
    assert check(command(folder)).examined == 0


def test_asked_to_stop_it_keeps_what_is_done(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(examining, "_A_SHARD", 10)
    answers = iter([False, False, *[True] * 99])
    with pytest.raises(KeyboardInterrupt):
        check(command(folder), lambda: next(answers))
    assert not (folder.parent / "out/report.html").exists()
    assert check(command(folder)).examined == 96 - 20


def test_changed_new_and_deleted_files_are_seen(folder: Path):
    check(command(folder))
    (folder / "person_00001/0001.jpg").write_bytes(b"")
    os.utime(folder / "person_00002/0002.jpg", ns=(5, 5))
    shutil.copy(folder / "person_00003/0000.jpg", folder / "person_00003/new.jpg")
    (folder / "person_00004/0000.jpg").unlink()
    done = check(command(folder))
    assert (done.examined, done.pictures) == (3, 96)
    assert found(done) == {"empty": {"person_00001/0001.jpg"}, "duplicate": {"person_00003/new.jpg"}}
    assert "person_00004/0000.jpg" not in (folder.parent / "out/files.csv").read_text()


def test_two_processes_find_the_same_as_one(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder / "person_00001/0001.jpg").write_bytes(b"")
    shutil.copy(folder / "person_00003/0000.jpg", folder / "person_00004/copy.jpg")
    monkeypatch.setattr(examining, "_A_SHARD", 40)
    one = check(command(folder))
    two = check(command(folder, output_dir=folder.parent / "out2", processes=2))
    assert one.findings == two.findings
    files = [(folder.parent / out / "files.csv").read_bytes() for out in ("out", "out2")]
    assert files[0] == files[1]


def test_json_holds_plain_numbers_first(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "person_00001/0001.jpg").write_bytes(b"")
    code = main([str(folder), "--output_dir", str(folder.parent / "out"), "--processes", "1", "--json"])
    values = json.loads(capsys.readouterr().out)
    assert code == 1 and values["counts"] == {"empty": 1} and values["excluded"] == 1 and values["people"] == 16


def test_findings_csv_holds_every_finding(folder: Path):
    shutil.copy(folder / "person_00001/0000.jpg", folder / "person_00001/ä, b.jpg")
    check(command(folder))
    with (folder.parent / "out/findings.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1 and rows[0]["problem"] == "duplicate" and rows[0]["excluded"] == "yes"
    assert {rows[0]["path"], rows[0]["other_path"]} == {"person_00001/0000.jpg", "person_00001/ä, b.jpg"}


def test_wrong_input_is_one_sentence(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = ["--output_dir", str(tmp_path / "out")]
    assert main([str(tmp_path / "none"), *out]) == 2
    assert "there is no such folder" in capsys.readouterr().err
    (tmp_path / "bare").mkdir()
    assert main([str(tmp_path / "bare"), *out]) == 2
    assert "holds no pictures in folders of people" in capsys.readouterr().err
    assert main([str(folder), *out, "--model", str(tmp_path)]) == 2
    assert "is not a model bundle" in capsys.readouterr().err


def test_another_folder_s_check_is_not_written_over(folder: Path, crops: Path):
    check(command(folder))
    with pytest.raises(ValueError, match="holds the check of .*people. Choose another `output_dir`"):
        check(command(crops, output_dir=folder.parent / "out"))


def test_two_checks_do_not_write_into_one_folder(folder: Path, capsys: pytest.CaptureFixture[str]):
    (folder.parent / "out").mkdir()
    with locked(folder.parent / "out"):
        assert main([str(folder), "--output_dir", str(folder.parent / "out"), "--processes", "1"]) == 2
    assert f"process {os.getpid()} on " in capsys.readouterr().err
    assert not (folder.parent / "out/files.csv").exists()
    check(command(folder))
    assert not (folder.parent / "out/.lock").exists()


def test_figures_of_another_version_are_not_used_again(folder: Path):
    out = folder.parent / "out"
    check(command(folder))
    assert check(command(folder)).examined == 0
    (out / "embeddings").mkdir()
    mark = json.loads((out / "check.json").read_text())
    for older in (mark | {"version": mark["version"] - 1}, {"directory": mark["directory"]}):
        (out / "check.json").write_text(json.dumps(older))
        assert check(command(folder)).examined == 96 and not (out / "embeddings").exists()
    assert json.loads((out / "check.json").read_text()) == mark
    for broken in ("[]", "{", "{}"):
        (out / "check.json").write_text(broken)
        with pytest.raises(ValueError, match=r"check\.json: is not the mark of a check"):
            check(command(folder))


def counting(embed: Any, numbers: list[int]) -> Any:
    """The function, which also notes how many pictures it was given."""

    def embed_counted(images: Any) -> np.ndarray:
        numbers.append(len(images))
        return embed(images)

    return embed_counted


def test_embeddings_are_kept_and_only_changed_pictures_are_embedded_again(
    folder: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with_manifest(folder)
    verifier = Verifier(bundle)
    embedded: list[int] = []
    real = verifier.embed_crops
    monkeypatch.setattr(verifier, "embed_crops", counting(real, embedded))
    monkeypatch.setattr(kept_embeddings, "PART", 30)
    pictures = examine_pictures(examining.list_pictures(folder), folder)
    first = kept_embeddings.embed_folder(verifier, folder, pictures, tmp_path)
    assert sum(embedded) == 96 and np.linalg.norm(first, axis=1) == pytest.approx(np.ones(96), abs=1e-5)
    assert np.allclose(first[5:6], real([read_image(folder / pictures[5].path)]), atol=1e-5)
    embedded.clear()
    assert np.array_equal(kept_embeddings.embed_folder(verifier, folder, pictures, tmp_path), first)
    assert not embedded
    shutil.copy(folder / pictures[9].path, folder / pictures[2].path)
    again = examine_pictures([seen.path for seen in pictures], folder)
    second = kept_embeddings.embed_folder(verifier, folder, again, tmp_path)
    assert embedded == [1] and np.allclose(second[2], first[9], atol=1e-5)


def test_a_stopped_embedding_goes_on(folder: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with_manifest(folder)
    verifier = Verifier(bundle)
    monkeypatch.setattr(kept_embeddings, "_AT_ONCE", 16)
    pictures = examine_pictures(examining.list_pictures(folder), folder)
    answers = iter([False, False, True])
    with pytest.raises(KeyboardInterrupt):
        kept_embeddings.embed_folder(verifier, folder, pictures, tmp_path, lambda: next(answers))
    embedded: list[int] = []
    real = verifier.embed_crops
    monkeypatch.setattr(verifier, "embed_crops", counting(real, embedded))
    rows = kept_embeddings.embed_folder(verifier, folder, pictures, tmp_path)
    assert sum(embedded) == 96 - 32 and np.isfinite(rows).all()


def test_the_report_shows_each_finding_with_its_pictures(folder: Path):
    shutil.copy(folder / "person_00001/0000.jpg", folder / "person_00001/<b>.jpg")
    (folder / "person_00002/0001.jpg").write_bytes(b"")
    check(command(folder))
    html = (folder.parent / "out/report.html").read_text(encoding="utf-8")
    assert html.count("data:image/jpeg;base64,") == 2 and "&lt;b&gt;.jpg" in html and "<b>.jpg" not in html
    assert "person_00002/0001.jpg" in html and "Likeness 1.000" in html and "<script" not in html


def test_the_report_says_how_many_it_does_not_show(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("check_report.MOST_CARDS", 3)
    for number in range(5):
        shutil.copy(folder / f"person_0000{number}/0000.jpg", folder / f"person_0000{number}/copy.jpg")
    check(command(folder))
    html = (folder.parent / "out/report.html").read_text(encoding="utf-8")
    assert "3 of 5 are shown; all are in findings.csv." in html and html.count("data:image/jpeg") == 6
