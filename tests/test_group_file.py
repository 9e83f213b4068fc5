"""Group files: read, looked up, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from facekit.group_file import groups_of_pairs, read_groups


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "groups.csv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["path", "Identity", "Name", "who is it"])
def test_a_file_becomes_a_dictionary_for_each_column(tmp_path: Path, separator: str, header: str) -> None:
    rows = [(header, "sex", "camera"), ("Ann_Lee", "F", "gate"), ("Bo", "M", ""), ("Cy/Cy_0001.jpg", "", " phone ")]
    text = "\n".join(separator.join(row) for row in rows) + "\n\n"
    assert read_groups(written(tmp_path, text)) == {
        "sex": {"Ann_Lee": "F", "Bo": "M"},
        "camera": {"Ann_Lee": "gate", "Cy/Cy_0001.jpg": "phone"},
    }


def test_names_may_be_quoted_and_paths_written_any_way(tmp_path: Path) -> None:
    path = written(tmp_path, 'path,sex\n"Lee, Ann",F\n.\\Bo\\1.jpg,M\n')
    assert read_groups(path) == {"sex": {"Lee, Ann": "F", "Bo/1.jpg": "M"}}


def test_the_same_row_twice_is_fine(tmp_path: Path) -> None:
    assert read_groups(written(tmp_path, "person,sex\nAnn,F\nAnn,F\n")) == {"sex": {"Ann": "F"}}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", r"groups\.csv: is empty"),
        ("person,sex\n", r"groups\.csv: has a header but no rows"),
        (
            "person\nAnn\n",
            r"groups\.csv, line 1: expected a header that names two or more different columns.*'person'",
        ),
        ("person,sex,sex\nAnn,F,F\n", r"line 1: expected a header that names two or more different columns"),
        ("person,\nAnn,F\n", r"line 1: expected a header that names two or more different columns"),
        ("Ann/1.jpg,F\nBo/1.jpg,M\n", r"line 1: expected a header, such as `person,sex`, .*found 'Ann/1.jpg,F'"),
        ("Ann,F\nBo,M\nEve,F\n", r"line 1: expected a header, such as `person,sex`, before the first picture"),
        ("person,sex\nAnn,F\n\nBo\n", r"groups\.csv, line 4: expected 2 cells, as the header has, .* found 'Bo'"),
        ("person,sex\nAnn,F,old\n", r"line 2: expected 2 cells, as the header has"),
        ("person,sex\n,F\n", r"line 2: expected 2 cells, as the header has, the first one a picture or person"),
        ('person,sex\n"Ann,F\n', r"line 2: expected 2 cells"),
        (
            "person,sex,age\nAnn,F,20\nBo,M,30\n./Ann,M,20\n",
            r"groups\.csv, line 4: Ann is M, 20 here, but F, 20 on line 2\. Keep one",
        ),
    ],
)
def test_a_wrong_file_gets_its_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_groups(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.csv: cannot be read"):
        read_groups(tmp_path / "nowhere.csv")


# ---- Look-up ---------------------------------------------------------------------------------------------------


def test_a_picture_is_looked_up_first_then_its_person() -> None:
    table = {
        "sex": {"Ann": "F", "Bo": "M"},
        "camera": {"Ann/1.jpg": "gate", "Ann": "phone", "Bo/1.jpg": "gate"},
    }
    found = groups_of_pairs(table, ["Ann/1.jpg", "Ann/2.jpg", "Cy/1.jpg"], ["Ann/2.jpg", "Bo/1.jpg", "Bo/2.jpg"])
    assert {column: (one.tolist(), two.tolist()) for column, (one, two) in found.items()} == {
        "sex": (["F", "F", ""], ["F", "M", "M"]),
        "camera": (["gate", "phone", ""], ["phone", "gate", ""]),
    }


def test_people_are_found_below_other_folders_and_by_their_own_names() -> None:
    table = {"sex": {"Ann": "F", "set/Ann": "M"}}
    one, two = groups_of_pairs(table, ["set/Ann/1.jpg", "Ann"], ["other/Ann/1.jpg", "x\\Ann\\2.jpg"])["sex"]
    assert (one.tolist(), two.tolist()) == (["M", "F"], ["F", "F"])


def test_a_file_of_other_people_is_refused() -> None:
    with pytest.raises(
        ValueError,
        match=r"none of the 2 pictures of the pairs, and none of their people.*'Cy/1\.jpg'.*such as 'Ann'",
    ):
        groups_of_pairs({"sex": {"Ann": "F"}}, ["Cy/1.jpg"], ["Cy/2.jpg"])
