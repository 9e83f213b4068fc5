"""Planted errors: the damaged folder holds what truth.csv says, and the score counts what a check found of it."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from apps.plant_errors import COPIES, DAMAGES, PlantCommand, ScoreCommand, main, plant, score
from examining import list_pictures
from facekit import manifest
from facekit.alignment import CropRecipe
from facekit.examination import examine
from facekit.findings import COLUMNS
from facekit.images import read_image
from facekit.manifest import CropFolder


def command(source: Path, target: Path, **settings: Any) -> PlantCommand:
    usual = {"source": source, "target": target, "swapped": 0.1, "each": 1, "folders": 2}
    return PlantCommand(**(usual | settings))


def truth_of(folder: Path) -> list[tuple[str, str, str]]:
    with (folder / "truth.csv").open(encoding="utf-8", newline="") as file:
        return [(row["kind"], row["path"], row["other"]) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def damaged(crops: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("planted") / "damaged"
    plant(command(crops, target))
    return target


def test_every_kind_is_planted_as_often_as_asked(damaged: Path):
    counts = Counter(kind for kind, _, _ in truth_of(damaged))
    assert counts.pop("from_merged") == 12 and counts.pop("swapped") == 10
    assert counts.pop("merged") == counts.pop("split") == 2
    copies = {f"{kind} {where}": 1 for kind in ("exact", *COPIES) for where in ("within", "across")}
    assert counts == {kind: 1 for kind in DAMAGES} | copies


def test_the_files_are_what_the_truth_says(damaged: Path, crops: Path):
    names = set(list_pictures(damaged))
    truth = truth_of(damaged)
    assert len(names) == 96 + 10  # ten copies
    for kind, path, other in truth:
        if kind in ("truncated", "empty", "not_a_picture"):
            assert examine(damaged, path).problem == kind
        elif kind == "swapped":
            assert path in names and path.split("/")[0] != other.split("/")[0]
            assert (damaged / path).read_bytes() == (crops / other).read_bytes()
        elif " " in kind:
            assert {path, other} <= names
            assert (path.split("/")[0] == other.split("/")[0]) == kind.endswith("within")
        elif kind == "merged":
            assert (damaged / path).is_dir() and not (damaged / other).exists()
        elif kind == "split":
            assert (damaged / path).is_dir() and (damaged / other).is_dir()
    assert read_image(damaged / next(path for kind, path, _ in truth if kind == "too_small")).shape[0] == 28


def test_nothing_is_damaged_twice_and_the_source_stays(damaged: Path, crops: Path):
    places = [path for kind, path, _ in truth_of(damaged) if kind in {"swapped", *DAMAGES} or " " in kind]
    assert len(places) == len(set(places))
    assert len(list_pictures(crops)) == 96 and not any(
        examine(crops, name).problem for name in list_pictures(crops)
    )


def test_the_same_seed_plants_the_same(crops: Path, tmp_path: Path, damaged: Path):
    plant(command(crops, tmp_path / "again"))
    plant(command(crops, tmp_path / "other", seed=1))
    assert truth_of(tmp_path / "again") == truth_of(damaged) != truth_of(tmp_path / "other")


def test_a_manifest_follows_its_crops(crops: Path, tmp_path: Path):
    import shutil

    source = tmp_path / "source"
    shutil.copytree(crops, source)
    numbers = ["0.99", *"10 10 80 90 30 50 70 50 50 75 34 96 66 96".split()]
    rows = [manifest.Row.from_cells([name, name, "", "1", *numbers, "5", "6"]) for name in list_pictures(source)]
    manifest.rewrite(source, rows)
    CropFolder(CropRecipe(), str(source), True).write(source)
    plant(command(source, tmp_path / "target"))
    assert manifest.crop_folder(tmp_path / "target") == manifest.crop_folder(source)
    assert set(manifest.read(tmp_path / "target")) == set(list_pictures(tmp_path / "target"))


def write_findings(folder: Path, rows: list[dict[str, str]]) -> None:
    folder.mkdir(exist_ok=True)
    with (folder / "findings.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        writer.writerows({"person": row.get("path", "").split("/")[0]} | row for row in rows)


def test_the_score_counts_what_was_found(damaged: Path, tmp_path: Path):
    truth = truth_of(damaged)
    empty = next(path for kind, path, _ in truth if kind == "empty")
    copy, original = next((path, other) for kind, path, other in truth if kind == "exact within")
    one, two = next((path, other) for kind, path, other in truth if kind == "resized across")
    moved = [path for kind, path, _ in truth if kind == "swapped"][:3]
    right = next(name for name in list_pictures(damaged) if "__" not in name)
    merged = next(path for kind, path, _ in truth if kind == "merged")
    split, half = next((path, other) for kind, path, other in truth if kind == "split")
    write_findings(tmp_path / "check", [
        {"problem": "empty", "path": empty},
        {"problem": "dark", "path": right},
        {"problem": "duplicate", "path": original, "other_path": copy},
        {"problem": "duplicate_across", "path": one, "other_path": two},
        {"problem": "duplicate_across", "path": two, "other_path": one},
        *({"problem": "wrong_label", "path": path} for path in [*moved, right]),
        {"problem": "two_people", "person": merged},
        {"problem": "same_person", "person": half, "other_person": split},
    ])  # fmt: skip
    lines = {line.kind: line for line in score(ScoreCommand(damaged=damaged, check=tmp_path / "check"))}
    figures = {kind: (line.planted, line.found, line.reported, line.true) for kind, line in lines.items()}
    assert figures["empty"] == (1, 1, 1, 1) and figures["truncated"] == (1, 0, 0, 0)
    assert figures["dark"] == (1, 0, 1, 0)
    assert figures["copies: exact within"][:2] == (1, 1) and figures["copies within, all"] == (5, 1, 1, 1)
    assert figures["copies across, all"] == (5, 1, 2, 2)
    assert figures["label: moved picture"] == (10, 3, 4, 3)
    assert figures["folder: merged"] == (2, 1, 1, 1) and figures["folder: split"] == (2, 1, 1, 1)
    assert lines["label: moved picture"].markdown().endswith("| 4 | 0.750 |")


def test_the_score_of_some_people_counts_only_what_is_theirs(damaged: Path, tmp_path: Path):
    moved = [(path, other) for kind, path, other in truth_of(damaged) if kind == "swapped"]
    write_findings(tmp_path / "check", [{"problem": "wrong_label", "path": path} for path, _ in moved])
    owner = moved[0][1].split("/")[0]
    (tmp_path / "people.txt").write_text(f"{owner}\n")
    settings = {"damaged": damaged, "check": tmp_path / "check", "people": (tmp_path / "people.txt",)}
    line = score(ScoreCommand(**settings))[0]
    own = sum(other.split("/")[0] == owner for _, other in moved)
    assert (line.kind, line.planted, line.found, line.reported) == ("label: moved picture", own, own, own)


def test_wrong_input_is_one_sentence(crops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["plant", str(crops), str(tmp_path / "t"), "--each", "9"]) == 2
    assert "`each` 9: 158 of 96 pictures would be damaged" in capsys.readouterr().err
    assert main(["plant", str(crops), str(tmp_path / "t"), "--each", "1", "--folders", "9"]) == 2
    assert "`folders` 9: needs 27 folders of 6 pictures, found 16" in capsys.readouterr().err
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").touch()
    assert main(["plant", str(crops), str(tmp_path / "full")]) == 2
    assert "is not empty" in capsys.readouterr().err
    assert main(["score", str(tmp_path), str(tmp_path)]) == 2
    assert "truth.csv: cannot be read" in capsys.readouterr().err
    assert main([]) == 2 and "Name what to do" in capsys.readouterr().err
