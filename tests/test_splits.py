"""Who trains, who is held out, and what of theirs is left out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from config import Config
from facekit.files import write_text
from facekit.index import index_people
from held_out import check_enough_impostors, least_rate
from splits import limited, make_split, picture_weights


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
    with pytest.raises(ValueError, match="none of its 1 lines is a folder of"):
        make_split(config(people, exclude_people=tmp_path / "nobody.txt"))
    with pytest.raises(ValueError, match=r"none\.txt: cannot be read .*`exclude_people`"):
        make_split(config(people, validation_share=0.25, exclude_people=tmp_path / "none.txt"))


def test_excluded_pictures_are_on_no_side(people, tmp_path, capsys):
    out = tmp_path / "exclude.txt"
    out.write_text("person_00004/0001.jpg\nperson_00009\nperson_00009/0000.jpg\n\nperson_00005/0000.jpg\n")
    split = make_split(config(people, validation_share=0.25, exclude_pictures=out))
    left = {*split.train.paths, *split.validation.paths}
    every = set(index_people(people).paths)
    nine = {path for path in every if path.startswith("person_00009/")}
    assert every - left == {"person_00004/0001.jpg", "person_00005/0000.jpg"} | nine
    assert capsys.readouterr().err == ""


def test_lines_that_match_no_picture_are_told_and_a_list_that_matches_none_is_refused(people, tmp_path, capsys):
    out = tmp_path / "exclude.txt"
    out.write_text("person_00004/0001.jpg\nperson_00004/none.jpg\nnobody\n")
    make_split(config(people, validation_share=0.25, exclude_pictures=out))
    assert "2 of its 3 lines match nothing" in capsys.readouterr().err
    out.write_text("crops/person_00004/0001.jpg\n")
    with pytest.raises(ValueError, match=r"exclude\.txt: none of its 1 lines is a picture of"):
        make_split(config(people, exclude_pictures=out))


def test_the_limits_change_who_trains_and_never_who_is_held_out(people):
    plain = make_split(config(people, validation_share=0.25))
    few = make_split(config(people, validation_share=0.25, min_images=2, max_images=4))
    assert few.validation.paths == plain.validation.paths
    assert set(few.train.counts) == {4} and set(few.train.paths) < set(plain.train.paths)
    again = make_split(config(people, validation_share=0.25, min_images=2, max_images=4))
    other = make_split(config(people, validation_share=0.25, min_images=2, max_images=4, seed=1))
    assert again.train.paths == few.train.paths
    assert set(other.train.paths) & set(few.train.paths) and other.train.paths != few.train.paths


def test_limits_that_leave_nobody_say_how_many_there_are(people):
    with pytest.raises(ValueError, match="`min_images` 7 and `max_images` None leave .*the largest folder has 6"):
        limited(index_people(people), config(people, min_images=7))
    with pytest.raises(ValueError, match="`max_images` 1 leave .* 1 each.*one of them with two pictures"):
        limited(index_people(people), config(people, max_images=1))


def test_weights_come_by_path_and_are_1_where_none_is_named(people, tmp_path):
    table = tmp_path / "quality.csv"
    table.write_text("path,sharpness,weight\nperson_00004/0001.jpg,3,0.25\nperson_00005/0000.jpg,2,1\n")
    index = index_people(people)
    weights = picture_weights(index, config(people, picture_weights=table))
    assert weights[index.paths.index("person_00004/0001.jpg")] == 0.25
    assert np.sort(weights)[1:].tolist() == [1.0] * (len(index) - 1)
    assert picture_weights(index, config(people)) is None


def test_names_that_are_no_utf_8_are_left_out_and_weighed_too(people, tmp_path):
    name = b"person_00004/\xff.jpg"
    shutil.copyfile(people / "person_00004/0001.jpg", os.fsencode(people) + b"/" + name)
    (tmp_path / "exclude.txt").write_bytes(name + b"\n")
    (tmp_path / "quality.csv").write_bytes(b"path,weight\n" + name + b",0.5\n")
    index = index_people(people)
    weights = picture_weights(index, config(people, picture_weights=tmp_path / "quality.csv"))
    assert weights is not None and weights[index.paths.index(os.fsdecode(name))] == 0.5
    split = make_split(config(people, validation_share=0.25, exclude_pictures=tmp_path / "exclude.txt"))
    assert len(split.train) + len(split.validation) == len(index) - 1
    write_text(tmp_path / "names.txt", os.fsdecode(name))
    assert (tmp_path / "names.txt").read_bytes() == name


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("path,weight\nperson_00004/0001.jpg,0\n", r"line 2: a weight must be in \(0, 1\]\. Received: '0'"),
        ("path,weight\nperson_00004/0001.jpg,heavy\n", "Received: 'heavy'"),
        ("path,weight\nperson_00004/0001.jpg\n", "line 2: a weight must be in"),
        ("path,sharpness\n", r"has no columns path and weight \(found: path, sharpness\)"),
        ("", r"\(found: nothing\)"),
        ("path,weight\na/b.jpg,1\n", "names no picture of"),
    ],
)
def test_wrong_weights_are_named(people, tmp_path, text, sentence):
    table = tmp_path / "quality.csv"
    table.write_text(text)
    with pytest.raises(ValueError, match=sentence):
        picture_weights(index_people(people), config(people, picture_weights=table))


def test_a_name_with_a_line_break_goes_through_a_list(tmp_path):
    from facekit.name_list import names_text, read_names

    names = ["New\nLine", "plain", '"quoted"', " spaced", "Ann\r", "d\u00fcrer", "a/b c.jpg"]
    (tmp_path / "names.txt").write_bytes(names_text(names).encode("utf-8"))
    assert read_names(tmp_path / "names.txt", "exclude_people") == names
    (tmp_path / "own.txt").write_text('"not json\n\nplain\n')
    assert read_names(tmp_path / "own.txt", "exclude_people") == ['"not json', "plain"]


def test_people_of_a_list_who_are_not_there_are_told(people, tmp_path, capsys):
    (tmp_path / "out.txt").write_text("person_00004\nperson_0005\n")
    make_split(config(people, validation_share=0.25, exclude_people=tmp_path / "out.txt"))
    told = capsys.readouterr().err
    assert "out.txt: 1 of its 2 lines match nothing" in told and "'person_0005'" in told


def test_too_few_impostors_name_a_share_and_a_rate_that_do(tmp_path):
    for person in range(60):
        (tmp_path / f"{person:02}").mkdir()
        for picture in range(3):
            (tmp_path / f"{person:02}" / f"{picture}.jpg").touch()
    config = Config(train_dir=tmp_path, monitor="tpr", monitor_fmr=0.001, validation_share=0.1)
    with pytest.raises(ValueError, match="needs 3000 impostor pairs") as caught:
        check_enough_impostors(config)
    # 27 people of 60 have 81 pictures: 81 x 80 / 2 - 27 x 3 pairs; 26 have 78: 2,925. 3 / 135 = 0.0222.
    assert str(caught.value).endswith(
        "gives 135 and 18. Set `validation_share` to 0.45, which gives 3,159 and 81, or set `monitor_fmr` to 0.03."
    )
    check_enough_impostors(config.model_copy(update={"validation_share": 0.45}))
    check_enough_impostors(config.model_copy(update={"monitor_fmr": 0.03}))
    for changed in ({"validation_share": 0.44}, {"monitor_fmr": 0.02}):
        with pytest.raises(ValueError, match="needs"):
            check_enough_impostors(config.model_copy(update=changed))
    with pytest.raises(ValueError, match=r"gives 135 and 18\. Add people, or set `monitor_fmr` to 0\.03\.$"):
        check_enough_impostors(config.model_copy(update={"monitor_fmr": 0.0001}))
    with pytest.raises(ValueError, match=r"Add people, or set `monitor_fmr` to 0\.0002\.$"):
        check_enough_impostors(config.model_copy(update={"monitor_fmr": 0.0001, "validation_dir": tmp_path}))


@pytest.mark.parametrize(("impostor", "rate"), [(150, 0.02), (1655, 0.002), (3000, 0.001), (2999, 0.002), (4, 0.8)])
def test_the_least_rate_follows_the_rule_of_three(impostor, rate):
    assert least_rate(impostor) == rate >= 3 / impostor
