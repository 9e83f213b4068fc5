"""Overlap of training and test people: by name, and by the model's own eyes."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

import evaluate
import overlap
from facekit.bundle import read_network, read_record, write_bundle, write_record
from overlap import Overlap
from pictures import PictureReader, find_images
from scoring import Embedded, embed
from systems import bundle_systems


@pytest.fixture
def run(bundle, crops, tmp_path) -> Path:
    """A run's folder whose model takes whole pictures and was trained on six of the people of `crops`."""
    people = sorted(path.name for path in crops.iterdir() if path.is_dir())
    record = dataclasses.replace(read_record(bundle), recipe=None, training={"train_dir": str(crops)})
    write_bundle(tmp_path / "run" / "bundle", read_network(bundle), record)
    (tmp_path / "run" / "train_people.txt").write_text("".join(f"{name}\n" for name in people[:6]))
    (tmp_path / "run" / "validation_people.txt").write_text(f"{people[6]}\n")
    return tmp_path / "run"


def test_names_are_compared_in_their_plain_form(run) -> None:
    names = (run / "train_people.txt").read_text().split() + (run / "validation_people.txt").read_text().split()
    told = [names[0].upper().replace("_", " "), f"some/folder/{names[1]}", names[6], "somebody else"]
    assert overlap.people_seen(run / "bundle", told) == 3
    found = overlap.by_names(run / "bundle", told)
    assert found.names == 3 and found.warnings and "3 of these people trained this model" in found.words


def test_what_cannot_be_checked_is_called_unchecked(run) -> None:
    assert overlap.people_seen(run / "bundle", None) is None
    (run / "validation_people.txt").unlink()
    found = overlap.by_names(run / "bundle", ["anybody"])
    assert "unchecked" in found.words and found.warnings == [found.words]
    assert overlap.by_names(None, ["anybody"]).names is None


def test_no_name_in_common_is_no_warning(run) -> None:
    found = overlap.by_names(run / "bundle", ["somebody else"])
    assert found.names == 0 and found.warnings == [] and "None of these people" in found.words


def test_a_training_photograph_under_another_name_is_found(run, crops, tmp_path) -> None:
    """Test people of their own, and one whose only picture is a training person's, saved under another name."""
    people = sorted(path.name for path in crops.iterdir() if path.is_dir())
    folder = tmp_path / "test"
    for name in people[8:11]:
        shutil.copytree(crops / name, folder / name)
    stolen = sorted((crops / people[2]).iterdir())[1]
    (folder / "stranger").mkdir()
    shutil.copy(stolen, folder / "stranger" / "0.jpg")
    names = sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*"))
    (system,) = bundle_systems([run / "bundle"])
    reader = PictureReader(None, find_images(folder, names), tmp_path / "cache")
    owners = [name.split("/")[0] for name in names]
    training = overlap.training_pictures(system, tmp_path / "cache")
    assert len(training.names) == 6 * overlap.PICTURES_PER_PERSON
    found = overlap.by_embeddings(system, training, embed(system, reader, names), owners, reader.read)
    assert found.doubles[0][:2] == ("stranger/0.jpg", stolen.relative_to(crops).as_posix())
    assert found.doubles[0][2] == pytest.approx(0, abs=1e-6)
    assert found.photographs is not None and found.photographs >= 1 and found.warnings == [found.words]
    assert len(found.doubles) == 4 and found.to_dict()["nearest"][0]["test"] == "stranger/0.jpg"
    (strip,) = found.strip.values()
    assert strip.dtype == np.uint8 and strip.std() > 10


def test_nearest_pictures_are_those_of_a_loop(rng) -> None:
    def unit(count):
        rows = rng.normal(size=(count, 8))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    test = Embedded([f"t{i}" for i in range(7)], unit(7))
    known = Embedded([f"k{i}" for i in range(9)], unit(9))
    test.rows[3], known.rows[5] = np.nan, np.nan
    people = [*"aabbccd"]
    found = {test: (name, distance) for test, name, distance in overlap.nearest_of_each(test, people, known)}
    best: dict[str, tuple[float, str, str]] = {}
    for i in range(7):
        for j in range(9):
            distance = float(np.linalg.norm(test.rows[i].astype(float) - known.rows[j].astype(float)))
            if distance < best.get(people[i], (9.0,))[0]:
                best[people[i]] = (distance, f"t{i}", f"k{j}")
    assert {name: (other, pytest.approx(distance)) for distance, name, other in best.values()} == found


def test_lost_training_pictures_are_named(run, tmp_path) -> None:
    record = dataclasses.replace(read_record(run / "bundle"), training={"train_dir": str(tmp_path / "gone")})
    write_bundle(run / "bundle", read_network(run / "bundle"), record)
    (system,) = bundle_systems([run / "bundle"])
    with pytest.raises(ValueError, match="gone.*so `check_overlap` has nothing to compare with"):
        overlap.training_pictures(system, tmp_path / "cache")


def test_pictures_that_are_not_on_record_are_told_and_refused_before_anything_is_written(
    run, crops, tmp_path, capsys
) -> None:
    (run / "train_people.txt").unlink()
    for path in shutil.copytree(crops, tmp_path / "others").glob("*/*.jpg"):
        path.write_bytes(path.read_bytes() + b"another file")
    author = {
        "made_by": "somebody",
        "overlap_with_lfw": "its author says that he avoided people of LFW; not checked",
    }
    for training, words in (
        (author, "are not public. Its author says that he avoided people of LFW; not checked."),
        ({}, "are not on record."),
    ):
        record = dataclasses.replace(read_record(run / "bundle"), training=training)
        write_record(run / "bundle", record)
        words = f"The model's training pictures {words}"
        found = overlap.by_names(run / "bundle", ["anybody"], record)
        assert found.warnings == [f"Overlap with the training people: unchecked. {words}"]
        for protocol in (["--images", crops], ["--gallery", crops, "--probes", tmp_path / "others"]):
            command = [*protocol, "--model", run / "bundle", "--check_overlap", "--output", tmp_path / "report"]
            assert evaluate.main([str(word) for word in command]) == 2
            said = capsys.readouterr().err
            assert said == f"error: `check_overlap` has nothing to compare with. {words}\n"
        assert not (tmp_path / "report").exists()


def test_numbers_are_no_names(run):
    (run / "train_people.txt").write_text("0000045\n0000099\n")
    assert overlap.people_seen(run / "bundle", ["0000045", "0000077"]) is None
    assert overlap.people_seen(run / "bundle", ["Ann", "Bob"]) is None
    (run / "train_people.txt").write_text("Ann\nBob\n")
    assert overlap.people_seen(run / "bundle", ["001", "002"]) is None
    assert overlap.people_seen(run / "bundle", ["ann", "Eve 2"]) == 1


def test_a_check_that_was_made_is_no_unchecked_warning() -> None:
    assert Overlap("fine", names=None, photographs=0).warnings == []
