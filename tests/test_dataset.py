"""The commands on folders of people, and the streams that training takes."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import dataset
from config import AugmentConfig, Config
from dataset import (
    crop_frame,
    fitted,
    make_augmentation,
    make_loader,
    make_sampler,
    steps_per_epoch,
    training_stream,
    validation_pairs,
)
from facekit.alignment import CropRecipe
from facekit.images import read_image, read_square
from facekit.index import index_people
from facekit.manifest import CropFolder
from facekit.protocols import read_pairs
from splits import make_split, open_people

STILL = AugmentConfig(**{name: {"probability": 0} for name in AugmentConfig.model_fields})


@pytest.fixture
def people(crops, tmp_path) -> Path:
    """A copy of the drawn people to change, with two of one picture."""
    folder = tmp_path / "people"
    shutil.copytree(crops, folder)
    for person in sorted(path for path in folder.iterdir() if path.is_dir())[:2]:
        for picture in sorted(person.iterdir())[1:]:
            picture.unlink()
    return folder


def config(folder: Path, **settings) -> Config:
    return Config(**{"train_dir": folder, "image_size": 32, "batch_size": 4, "negatives_per_tuplet": 3, **settings})


def batches(folder: Path, settings: Config, steps: range) -> list:
    index = open_people(folder, "train_dir")
    stream = training_stream(index, settings, make_loader(index, settings), steps)
    return [(images.numpy(), labels.numpy()) for images, labels in stream]


def test_a_stream_gives_the_pictures_of_its_labels(people):
    index, settings = index_people(people), config(people, augment=STILL)
    ((images, labels),) = batches(people, settings, range(3, 4))
    assert images.shape == (4, 5, 32, 32, 3) and images.dtype == np.uint8 and labels.shape == (4, 5)
    positions = make_sampler(index, settings).batch(3)
    np.testing.assert_array_equal(labels, index.labels[positions])
    for image, position in zip(images.reshape(-1, 32, 32, 3), positions.ravel(), strict=True):
        np.testing.assert_array_equal(image, read_square(people / index.paths[position], 32))


@pytest.mark.parametrize("sampler", ["tuplet", "people"])
def test_a_stream_can_start_anywhere_and_changes_pictures_at_every_step(people, sampler):
    settings = config(people, sampler=sampler, batch_size=8)
    whole, late = batches(people, settings, range(6)), batches(people, settings, range(4, 6))
    assert len(whole) == 6 and len(late) == 2
    for (images, labels), (same_images, same_labels) in zip(whole[4:], late, strict=True):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)
    still = batches(people, settings.model_copy(update={"augment": STILL}), range(6))
    assert all((one[1] == other[1]).all() for one, other in zip(whole, still, strict=True))
    assert np.mean([(one[0] != other[0]).mean() for one, other in zip(whole, still, strict=True)]) > 0.5
    if sampler == "people":
        assert whole[0][0].shape == (8, 32, 32, 3) and whole[0][1].shape == (8,)


@pytest.mark.parametrize("cache", ["memory", "file"])
def test_a_cache_changes_no_batch_and_spares_the_files(people, tmp_path, cache):
    settings = config(people, cache=cache, cache_dir=tmp_path / "cache", steps_per_epoch=3)
    plain = batches(people, config(people), range(40))
    index = open_people(people, "train_dir")
    loader = make_loader(index, settings)
    loader.load(np.arange(len(index)))
    for path in people.rglob("*.jpg"):
        path.unlink()
    kept = training_stream(index, settings, loader, range(40))
    for (images, labels), (same_images, same_labels) in zip(plain, kept, strict=True):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)
    assert not loader.failures


def test_a_packed_folder_gives_the_same_batches_and_people(people, tmp_path, capsys):
    (people / "person_00007" / "0000.jpg").write_bytes(b"broken")
    packed = tmp_path / "packed"
    assert dataset.main(["pack", str(people), "--output_dir", str(packed), "--processes", "1"]) == 0
    assert "1 pictures could not be read and were left out" in capsys.readouterr().err
    (people / "person_00007" / "0000.jpg").unlink()
    plain, same = (batches(folder, config(folder), range(5)) for folder in (people, packed))
    for one, other in zip(plain, same, strict=True):
        np.testing.assert_array_equal(one[0], other[0])
        np.testing.assert_array_equal(one[1], other[1])
    one, other = (make_split(config(folder, validation_share=0.25)) for folder in (people, packed))
    assert one.train.digest == other.train.digest and one.validation.digest == other.validation.digest


def test_a_batch_shrinks_to_the_people_that_there_are(people):
    index = index_people(people)
    settings = config(people, sampler="people", batch_size=320, pictures_per_person=4)
    # 14 people with several pictures; the two with one make no group of four.
    assert fitted(settings, index).batch_size == 14 * 4 == make_sampler(index, settings).batch(0).size
    assert steps_per_epoch(index, settings) == round(86 / 56)
    assert fitted(settings.model_copy(update={"batch_size": 8}), index).batch_size == 8
    assert fitted(config(people, batch_size=999), index).batch_size == 999


def test_an_epoch_shows_about_as_many_pictures_as_there_are(people):
    index = index_people(people)
    assert steps_per_epoch(index, config(people)) == round(86 / 20)
    assert steps_per_epoch(index, config(people, steps_per_epoch=7)) == 7


def test_validation_pairs_name_pictures(people):
    index = index_people(people)
    pairs = validation_pairs(index, config(people, validation_pairs=60))
    assert len(pairs) == 60 and pairs.same.sum() == 30 and pairs.people() is not None
    assert all((people / name).is_file() for name in pairs.pictures())


def test_hold_out_writes_lists_that_exclude_and_test(people, tmp_path, capsys):
    output = tmp_path / "lists"
    options = ["--output_dir", str(output), "--share", "0.25", "--pairs", "40"]
    assert dataset.main(["hold_out", str(people), *options]) == 0
    names = set((output / "test_people.txt").read_text().split())
    pairs = read_pairs(output / "test_pairs.csv")
    assert len(names) == 4 and {path.split("/")[0] for path in pairs.pictures()} <= names
    said = capsys.readouterr().out
    assert "Held out" in said and "negatives" not in said
    next_step = f"Next: python train.py --train_dir {people} --exclude_people {output / 'test_people.txt'}"
    assert said.endswith(f"{next_step}\n")
    left_out = tmp_path / "exclude.txt"
    left_out.write_text(f"{read_pairs(output / 'test_pairs.csv').first[0]}\n")
    assert dataset.main(["hold_out", str(people), *options, "--exclude_pictures", str(left_out)]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"1 line of {left_out} left out.\n")
    assert said.endswith(f"{next_step} --exclude_pictures {left_out}\n")
    split = make_split(config(people, validation_share=0.25, exclude_people=output / "test_people.txt"))
    assert not names & {*split.train.people, *split.validation.people}


def test_index_says_what_training_would_make_of_a_folder(people, capsys, tmp_path):
    saved = tmp_path / "config.json"
    saved.write_text(config(people, validation_share=0.25, steps_per_epoch=5).to_json())
    assert dataset.main(["index", str(people), "--config", str(saved), "--min_images", "2"]) == 0
    told = capsys.readouterr().out
    assert "86 pictures of 16 people, 1 to 6 each" in told and "Held out: " in told
    assert "An epoch is 5 steps of 20 pictures" in told
    assert dataset.main(["index", str(people), "--min_images", "7"]) == 0
    assert "Not to train on with these settings: " in capsys.readouterr().out


def test_preview_draws_every_change(people, tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    options = ["--output", str(sheet), "--pictures", "2", "--columns", "3", "--image_size", "64"]
    assert dataset.main(["preview", str(people), *options]) == 0
    rows = len(AugmentConfig.model_fields) + 2
    assert f"{rows} rows of 3 pictures" in capsys.readouterr().out
    assert read_image(sheet).shape[0] > rows * 112


def test_random_changes_are_placed_as_the_crops_were_cut(people):
    assert (make_augmentation(config(people)).margin, make_augmentation(config(people)).layout) == (0, "arcface")
    for recipe, layout in (
        (CropRecipe(margin=0.2, template="dlib_close"), "dlib_close"),
        # Boxes have no layout: their faces lie nowhere exactly.
        (CropRecipe("box", margin=0.2, template="dlib_close"), "arcface"),
    ):
        CropFolder(recipe, "photos", False).write(people)
        assert crop_frame(people) == (0.2, layout)
        assert (make_augmentation(config(people)).margin, make_augmentation(config(people)).layout) == (0.2, layout)


def test_check_finds_a_broken_file_and_its_list_leaves_it_out(people, tmp_path, capsys):
    (people / "person_00007" / "0003.jpg").write_bytes(b"broken")
    output = tmp_path / "check"
    assert dataset.main(["check", str(people), "--output_dir", str(output), "--processes", "1"]) == 1
    assert "person_00007/0003.jpg" in (output / "exclude.txt").read_text().split("\n")
    split = make_split(config(people, validation_share=0.25, exclude_pictures=output / "exclude.txt"))
    assert "person_00007/0003.jpg" not in {*split.train.paths, *split.validation.paths}
    weights = splits_weights(people, output / "quality.csv")
    assert len(weights) == 86 and (weights > 0).all() and (weights <= 1).all()


def splits_weights(people: Path, table: Path) -> np.ndarray:
    from splits import picture_weights

    weights = picture_weights(index_people(people), config(people, picture_weights=table))
    assert weights is not None
    return weights


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["index", "nowhere"], "nowhere: there is no such folder"),
        (["preview", "nowhere", "--output", "a.jpg"], "`output` must end in .png"),
        (["pack", "nowhere"], "`output_dir` is required"),
        (["check", "nowhere"], "nowhere"),
        (["idex"], "no command 'idex'"),
        ([], "usage: python dataset.py COMMAND"),
    ],
)
def test_wrong_arguments_exit_with_2(arguments, sentence, capsys):
    assert dataset.main(arguments) == 2
    assert sentence in capsys.readouterr().err


def test_a_wrong_share_is_one_sentence(capsys):
    with pytest.raises(SystemExit) as stop:
        dataset.main(["hold_out", "x", "--output_dir", "y", "--share", "2"])
    assert stop.value.code == 2 and "less than 1" in capsys.readouterr().err


def test_help_names_every_command(capsys):
    assert dataset.main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(f"  {name} " in told for name in dataset.COMMANDS)
