"""Folders of people: what an index says, who is held out, what a stream gives."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

import dataset
from config import AugmentConfig, Config
from dataset import make_split, steps_per_epoch, training_stream, validation_pairs
from facekit import loading
from facekit.images import UnreadableImageError, read_square
from facekit.index import index_people
from facekit.loading import PictureLoader
from facekit.protocols import read_pairs

STILL = AugmentConfig(
    flip_probability=0,
    rotation_probability=0,
    brightness_probability=0,
    contrast_probability=0,
    cutout_probability=0,
)


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


def test_an_index_lists_people_and_pictures(people):
    index = index_people(people)
    assert len(index.people) == 16 and len(index) == 14 * 6 + 2
    assert index.paths == sorted(index.paths) and (np.diff(index.labels) >= 0).all()
    assert all(
        path.split("/")[0] == index.people[label] for path, label in zip(index.paths, index.labels, strict=True)
    )
    assert index.describe() == (
        "86 pictures of 16 people: 14 with several (84 pictures), 2 with one picture, who serve as negatives only"
    )
    (people / "person_00003" / ".hidden.jpg").write_bytes(b"x")
    (people / "person_00003" / "notes.txt").write_text("x")
    (people / "no pictures").mkdir()
    assert index_people(people).digest == index.digest
    (people / "person_00003" / "new.jpg").write_bytes(b"x")
    assert index_people(people).digest != index.digest


def test_part_of_an_index_keeps_names_and_pictures_together(people):
    index = index_people(people).without(["person_00000", "person_00005"])
    assert len(index.people) == 14 and "person_00005" not in index.people
    assert all(
        path.split("/")[0] == index.people[label] for path, label in zip(index.paths, index.labels, strict=True)
    )


def test_wrong_folders_are_named(tmp_path):
    cases = {
        "none": (lambda path: None, "there is no such folder. Set `train_dir`"),
        "empty": (lambda path: path.mkdir(), "holds no pictures in folders of people"),
        "loose": (lambda path: [path.mkdir(), (path / "a.jpg").touch()], "holds pictures but no folders of people"),
        "one": (
            lambda path: [(path / "Ann").mkdir(parents=True), (path / "Ann" / "a.jpg").touch()],
            "a single person",
        ),
    }
    for name, (make, sentence) in cases.items():
        make(tmp_path / name)
        with pytest.raises(ValueError, match=sentence) as caught:
            index_people(tmp_path / name)
        assert str(tmp_path / name) in str(caught.value)


def test_people_with_one_picture_only_are_refused(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    with pytest.raises(ValueError, match="every one of its 3 people has a single picture"):
        make_split(config(tmp_path))


def test_too_few_people_to_hold_out_are_refused(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        for number in "12":
            (tmp_path / name / f"{number}.jpg").touch()
    with pytest.raises(ValueError, match="too few people to hold some out"):
        make_split(config(tmp_path))


def test_no_person_is_on_both_sides(people):
    split = make_split(config(people, validation_share=0.25))
    assert not set(split.train.people) & set(split.validation.people)
    assert len(split.train.people) + len(split.validation.people) == 16
    assert len(split.validation.people) == 4
    again = make_split(config(people, validation_share=0.25))
    assert again.train.people == split.train.people
    assert make_split(config(people, validation_share=0.25, seed=1)).train.people != split.train.people


def test_a_folder_of_its_own_for_validation(people, photos, crops, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(crops, other)
    with pytest.raises(ValueError, match=r"16 of its people are in train_dir too \(such as person_00000\)"):
        make_split(config(people, validation_dir=other))
    for person in [path for path in other.iterdir() if path.is_dir()]:
        person.rename(other / f"x{person.name}")
    assert len(make_split(config(people, validation_dir=other)).validation.people) == 16
    (tmp_path / "out.txt").write_text("person_00003\nxperson_00004\n")
    split = make_split(config(people, validation_dir=other, exclude_people=tmp_path / "out.txt"))
    assert "person_00003" not in split.train.people and "xperson_00004" not in split.validation.people


def test_excluded_people_are_in_no_side(people, tmp_path):
    (tmp_path / "out.txt").write_text("person_00004\nperson_00009\n\nnobody\n")
    split = make_split(config(people, validation_share=0.25, exclude_people=tmp_path / "out.txt"))
    assert not {"person_00004", "person_00009"} & {*split.train.people, *split.validation.people}
    (tmp_path / "bom.txt").write_bytes(b"\xef\xbb\xbfperson_00004\r\nperson_00009\r\n")
    split = make_split(config(people, validation_share=0.25, exclude_people=tmp_path / "bom.txt"))
    assert not {"person_00004", "person_00009"} & {*split.train.people, *split.validation.people}
    (tmp_path / "nobody.txt").write_text("nobody\n")
    with pytest.raises(ValueError, match="none of its 1 names is a folder of"):
        make_split(config(people, exclude_people=tmp_path / "nobody.txt"))
    with pytest.raises(ValueError, match=r"none\.txt: cannot be read .*`exclude_people`"):
        make_split(config(people, validation_share=0.25, exclude_people=tmp_path / "none.txt"))


def test_a_stream_gives_the_pictures_of_its_labels(people):
    index, settings = index_people(people), config(people, augment=STILL)
    images, labels = next(iter(training_stream(index, settings, PictureLoader(index, 32), 3, 1)))
    assert images.shape == (4, 5, 32, 32, 3) and images.dtype == "float32" and labels.shape == (4, 5)
    positions = dataset.make_sampler(index, settings).batch(3)
    np.testing.assert_array_equal(labels, index.labels[positions])
    for image, position in zip(images.numpy().reshape(-1, 32, 32, 3), positions.ravel(), strict=True):
        np.testing.assert_array_equal(image, read_square(people / index.paths[position], 32))


@pytest.mark.parametrize("sampler", ["tuplet", "people"])
def test_a_stream_can_start_anywhere(people, sampler):
    index, settings = index_people(people), config(people, sampler=sampler, batch_size=8)
    loader = PictureLoader(index, 32)
    whole = list(training_stream(index, settings, loader, 0, 6))
    late = list(training_stream(index, settings, loader, 4, 2))
    assert len(whole) == 6 and len(late) == 2
    for (images, labels), (same_images, same_labels) in zip(whole[4:], late, strict=True):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)
    assert np.abs(whole[0][0] - whole[1][0]).mean() > 1
    # The same pictures are changed in another way at another step, and under another seed.
    flat = [loader.load(dataset.make_sampler(index, settings).batch(0))] * 2
    from facekit.augment import Augmentation

    one, two = (Augmentation()(images.reshape(-1, 32, 32, 3), (0, step)) for step, images in enumerate(flat))
    assert np.abs(one - two).mean() > 1
    if sampler == "people":
        assert whole[0][0].shape == (8, 32, 32, 3) and whole[0][1].shape == (8,)


def test_a_picture_is_read_once_a_batch(people, monkeypatch):
    index = index_people(people)
    reads = []
    monkeypatch.setattr(loading, "read_square", lambda path, size: (reads.append(path), read_square(path, size))[1])
    images = PictureLoader(index, 32).load(np.array([[3, 3, 5], [5, 7, 3]]))
    assert len(reads) == 3 and (images[0, 0] == images[1, 2]).all() and (images[0, 2] == images[1, 0]).all()


def test_a_bad_file_is_replaced_by_the_same_persons_next_picture_and_remembered(people):
    index = index_people(people)
    bad = index.paths.index("person_00005/0003.jpg")
    (people / index.paths[bad]).write_bytes(b"broken")
    loader = PictureLoader(index, 32)
    for _ in range(2):
        images = loader.load(np.array([bad, bad + 1]))
        np.testing.assert_array_equal(images[0], read_square(people / index.paths[bad + 1], 32))
    assert list(loader.failures) == ["person_00005/0003.jpg"]
    last = index.paths.index("person_00005/0005.jpg")
    (people / index.paths[last]).write_bytes(b"")
    np.testing.assert_array_equal(
        loader.load(np.array([last]))[0], read_square(people / "person_00005/0000.jpg", 32)
    )


def test_a_person_without_a_readable_picture_is_named(people):
    index = index_people(people)
    (people / "person_00000" / "0000.jpg").write_bytes(b"broken")
    with pytest.raises(UnreadableImageError, match="person_00000: none of its pictures can be read"):
        PictureLoader(index, 32).load(np.array([0]))


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
    assert (
        dataset.main(["hold_out", str(people), "--output_dir", str(output), "--share", "0.25", "--pairs", "40"])
        == 0
    )
    names = set((output / "test_people.txt").read_text().split())
    pairs = read_pairs(output / "test_pairs.csv")
    assert len(names) == 4 and {path.split("/")[0] for path in pairs.pictures()} <= names
    assert "Held out" in capsys.readouterr().out
    split = make_split(config(people, validation_share=0.25, exclude_people=output / "test_people.txt"))
    assert not names & {*split.train.people, *split.validation.people}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["index", "nowhere"], "nowhere: there is no such folder"),
        (["hold_out", "x", "--output_dir", "y", "--share", "2"], "`share` must be between 0 and 1"),
    ],
)
def test_wrong_arguments_exit_with_2(arguments, sentence, capsys):
    assert dataset.main(arguments) == 2
    assert sentence in capsys.readouterr().err
