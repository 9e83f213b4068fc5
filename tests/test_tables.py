"""Tables of text: which cells a line has, which columns a header names, which line a fault is on."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekit.tables import (
    PAIR_COLUMNS,
    Table,
    choose_separator,
    columns_csv,
    csv_bytes,
    find_columns,
    malformed,
    read_columns,
    split_cells,
    text_lines,
    whole_number,
)


def table_of(tmp_path, text: str, places: dict[str, int], width: int, separator: str = ",") -> Table:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return read_columns(path, text_lines(path), separator, places, width, "three cells")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_keep_their_numbers_whatever_ends_them(tmp_path, end):
    path = tmp_path / "t.txt"
    path.write_bytes(("\ufeff" + end.join(["one", "", "  ", "four", ""])).encode())
    assert list(text_lines(path)) == [(1, "one"), (4, "four")]


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\r\n \t\n", "is empty"),
        ("Müller".encode("latin-1"), "is not a text file in UTF-8"),
        ("a,b".encode("utf-16"), "is not a text file in UTF-8"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, data, sentence):
    path = tmp_path / "t.txt"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"t\.txt: {sentence}"):
        list(text_lines(path))


def test_a_file_that_cannot_be_opened_is_named(tmp_path):
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(ValueError, match=rf"{path.name}: cannot be read \("):
            list(text_lines(path))


@pytest.mark.parametrize(
    ("text", "number"),
    [("7", 7), (" -3 ", -3), ("2.0", 2), ("007", 7), ("", None), ("-", None), ("--1", None), ("1.5", None)]
    + [("²", None), ("1e3", None), ("9" * 5000, None), ("x", None), ("1_000", None)],
)
def test_whole_numbers(text, number):
    assert whole_number(text) == number


@pytest.mark.parametrize(
    ("line", "separator"),
    [
        ("a,b,1", ","),
        ("a;b;1", ";"),
        ("a\tb\t1", "\t"),
        ("Doe, Jane/1.jpg;Doe, Jane/2.jpg;1", ";"),
        ("Doe, J;r/1.jpg\tDoe, J;r/2.jpg\t1", "\t"),
        ('"Doe; Jane; Dr/1.jpg",b,1', ","),
        ("a b 1", ","),
    ],
)
def test_the_separator_is_the_one_that_splits_the_line(line, separator):
    assert choose_separator(line, 3) == separator


def test_a_header_is_known_in_any_case_and_order(tmp_path):
    places = find_columns(tmp_path, ["", " Decision", "FILE_Y", "file_x", "other"], PAIR_COLUMNS)
    assert places == {"first": 3, "second": 2, "label": 1}
    with pytest.raises(ValueError, match="names the label column twice \\(`Label` and `same`\\). Rename or remove"):
        find_columns(tmp_path, ["Label", "same"], PAIR_COLUMNS)


def test_columns_are_those_of_the_csv_module(tmp_path):
    rows = [["Doe, Jane", 'a "b"', "1"], ["Zoë", "x;y", "0"], ["", " ", "2"]]
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    table = table_of(tmp_path, text.getvalue(), {"x": 0, "z": 2, "y": 1}, 3)
    assert table.columns == {"x": ["Doe, Jane", "Zoë", ""], "y": ['a "b"', "x;y", ""], "z": ["1", "0", "2"]}
    assert len(table) == 3 and [table.where(row) for row in range(3)] == ["line 1", "line 2", "line 3"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a,b,1\n\na,b\n", 3),
        ("a,b,1\na,b,1,c\n", 2),
        ('a,b,1\n"a,b,1\nc,d,0\n', 2),
        ('a,b,1\nc,d,0\n\n"a,b,1', 4),
        ('a,b,1\n"a"x,b,1\nc,d,0\n', 2),
        ("a,b,1\na,b," + "1" * 200_000 + "\nc,d,0\n", 2),
    ],
)
def test_a_row_of_another_form_is_found_at_its_own_line(tmp_path, text, line):
    with pytest.raises(ValueError, match=rf"t\.csv, line {line}: expected ") as caught:
        table_of(tmp_path, text, {"x": 0, "y": 2}, 3)
    assert len(str(caught.value)) < len(str(tmp_path)) + 300


def test_a_quote_may_follow_a_space(tmp_path):
    assert table_of(tmp_path, 'a, "Doe, Jane", 1\n', {"x": 0, "y": 1, "z": 2}, 3).columns["y"] == ["Doe, Jane"]


def test_empty_cells_at_the_end_are_no_fault(tmp_path):
    assert table_of(tmp_path, "a,b,1, ,\nc,d,0\n", {"x": 0, "z": 2}, 3).columns == {
        "x": ["a", "c"],
        "z": ["1", "0"],
    }


def test_labels_in_the_words_of_several_projects(tmp_path):
    words = {"1": True, "Yes": True, "SAME": True, "genuine": True, "true": True, "1.0": True, "match": True}
    words |= {"0": False, "No": False, "different": False, "Impostor": False, "FALSE": False, "0.0": False}
    table = Table(tmp_path, {"label": list(words)}, range(1, 14))
    assert table.truths().dtype == np.bool_ and table.truths().tolist() == list(words.values())


@pytest.mark.parametrize("cell", ["2", "", "-1", "maybe"])
def test_another_label_is_quoted_with_its_line(tmp_path, cell):
    table = Table(tmp_path / "t.csv", {"label": ["1", "0", cell]}, [2, 3, 5])
    with pytest.raises(ValueError, match=rf"t\.csv, line 5: expected a label of 1 .* or 0, found '{cell}'\."):
        table.truths()


def test_people_must_bear_out_the_labels(tmp_path):
    def people(id1: list[str], id2: list[str]) -> tuple[list[str] | None, list[str] | None]:
        table = Table(tmp_path / "t.csv", {"id1": id1, "id2": id2}, [2, 3])
        return table.people(np.array([True, False]))

    assert people(["a", "a"], ["a", "b"]) == (["a", "a"], ["a", "b"])
    with pytest.raises(ValueError, match="line 3: the label says different people, but id1 is 'b' and id2 'b'"):
        people(["a", "b"], ["a", "b"])
    with pytest.raises(ValueError, match="line 2: the label says same person, but id1 is 'c' and id2 'a'"):
        people(["c", "a"], ["a", "b"])
    with pytest.raises(ValueError, match="line 3: expected a name in the id2 column, found ''"):
        people(["a", "a"], ["a", ""])
    with pytest.raises(ValueError, match="the id1 and id2 columns belong together; the id2 one lacks"):
        Table(tmp_path, {"id1": ["a"]}, [2]).people(np.array([True]))
    assert Table(tmp_path, {}, []).people(np.array([True])) == (None, None)


def test_a_long_line_is_cut(tmp_path):
    assert str(malformed(tmp_path, 3, "x" * 500, "less")).endswith("x" * 120 + "...'.")


@given(st.lists(st.text(st.characters(exclude_characters="\0\r\n", codec="utf-8")), min_size=2, max_size=5))
def test_written_cells_are_read_back(cells):
    line = columns_csv({"one": cells[:1], "none": None, "two": cells[1:2]}).split("\n", 1)[1].rstrip("\n")
    assert split_cells(line, ",") == [cell.strip() for cell in cells[:2]]


CELLS = st.lists(st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0")), min_size=2)


@given(st.lists(CELLS, min_size=1))
def test_every_cell_comes_back(rows):
    text = csv_bytes(rows).decode("utf-8", "surrogateescape")
    assert list(csv.reader(io.StringIO(text, newline=""))) == rows


def test_names_that_are_no_utf8_and_carriage_returns_come_back_from_a_file(tmp_path):
    rows = [["a\rb", "1"], ["c", "d\r"], [b"J\xf6rg".decode("utf-8", "surrogateescape"), "\r\n"]]
    (tmp_path / "t.csv").write_bytes(csv_bytes(rows))
    with (tmp_path / "t.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        assert list(csv.reader(file)) == rows
    assert b"J\xf6rg" in (tmp_path / "t.csv").read_bytes()
