"""Pairs: who is on them, who is taken out, and the faults that distort figures."""

from __future__ import annotations

import unicodedata
from pathlib import PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facekit.pairs import Pairs, as_posix, fold_fault, fold_warnings, pair_faults, plain_name


def line(row: int) -> str:
    return f"line {row + 1}"


@pytest.fixture
def pairs() -> Pairs:
    return Pairs(
        ["Al_Gore/1.jpg", "Al_Gore/2.jpg", "Zoë/1.jpg", "Bo/1.jpg"],
        ["Al_Gore/2.jpg", "Bo/1.jpg", "Zoë/2.jpg", "Cy/1.jpg"],
        np.array([True, False, True, False]),
        np.array([0, 0, 1, 1]),
        groups=["x", "y", "", "x"],
        warnings=["A warning."],
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("George_W_Bush", "george w-bush"),
        ("  Al  Gore_", "AL\u2013GORE"),
        ("Zoë", unicodedata.normalize("NFD", "ZOË")),
        ("Strauß", "STRAUSS"),
        ("Ａｎｎａ", "anna"),
        ("Jean-Marie Le Pen", "jean_marie__le_pen"),
    ],
)
def test_one_name_in_several_spellings(one, other):
    assert plain_name(one) == plain_name(other)


@pytest.mark.parametrize(("one", "other"), [("1-23", "12-3"), ("Jean", "Jean 2"), ("Zoe", "Zoë"), ("n001", "n01")])
def test_different_names_stay_different(one, other):
    assert plain_name(one) != plain_name(other)


@given(st.text())
def test_a_plain_name_is_its_own_plain_name(name):
    assert plain_name(plain_name(name)) == plain_name(name)


@pytest.mark.parametrize(
    ("text", "path"),
    [(" a\\b/1.jpg ", "a/b/1.jpg"), ("./a//b.jpg", "a/b.jpg"), ("../a.jpg", "../a.jpg"), ("/a", "/a"), (" ", "")],
)
def test_a_path_has_one_form(text, path):
    assert as_posix(text) == path


@given(st.text("a./\\ ", max_size=8))
def test_a_path_is_as_pathlib_has_it(text):
    wanted = PurePosixPath(text.strip().replace("\\", "/")).as_posix() if text.strip() else ""
    assert as_posix(text) == wanted


def test_people_are_the_files_own_before_folders(pairs):
    assert pairs.people() == (["Al_Gore", "Al_Gore", "Zoë", "Bo"], ["Al_Gore", "Bo", "Zoë", "Cy"])
    told = Pairs(["1.jpg", "2.jpg"], ["3.jpg", "4.jpg"], np.array([True, False]), ids1=["a", "a"], ids2=["a", "b"])
    assert told.people() == (["a", "a"], ["a", "b"])


def test_folders_that_are_not_people_give_no_identities():
    assert Pairs(["x/1.jpg"], ["x/2.jpg"], np.array([False])).people() is None
    assert Pairs(["x/1.jpg"], ["y/2.jpg"], np.array([True])).people() is None
    for same in (True, False):  # without folders nothing is known, whatever the labels
        assert Pairs(["1.jpg"], ["2.jpg"], np.array([same])).people() is None


def test_pairs_without_pictures_keep_what_belongs_to_the_rest(pairs):
    left = pairs.without(["Bo/1.jpg"])
    assert left.first == ["Al_Gore/1.jpg", "Zoë/1.jpg"] and left.second == ["Al_Gore/2.jpg", "Zoë/2.jpg"]
    assert left.same.tolist() == [True, True] and left.folds.tolist() == [0, 1]
    assert left.groups == ["x", ""] and left.warnings == ["A warning."] and left.people() is not None


def test_people_are_left_out_under_any_spelling(pairs):
    left = pairs.without_people({"al gore", "nobody"})
    assert left.pictures() == ["Bo/1.jpg", "Cy/1.jpg", "Zoë/1.jpg", "Zoë/2.jpg"] and left.folds.tolist() == [1, 1]
    assert pairs.without_people({"CY"}).first == pairs.first[:3]  # the second picture's person counts as well
    told = Pairs(["1", "2"], ["3", "4"], np.array([True, False]), ids1=["a", "b"], ids2=["a", "c"])
    assert (told.without_people(["A"]).ids1, told.without_people(["A"]).ids2) == (["b"], ["c"])


def test_leaving_out_everybody_or_unknown_people_is_said(pairs):
    with pytest.raises(ValueError, match="No pair is left: each of the 4 pairs has a person of the exclusion list"):
        pairs.without_people(["al-gore", "zoë", "bo"])
    with pytest.raises(ValueError, match="the file names none, .* Add the columns id1 and id2"):
        Pairs(["1.jpg"], ["2.jpg"], np.array([True])).without_people(["a"])


def test_sound_pairs_have_no_fault(pairs):
    assert pair_faults(pairs.first, pairs.second, pairs.same, line) == []


def test_each_kind_of_fault_is_named_with_its_lines():
    first, second = ["a", "b", "c", "b", "a", "d", "b"], ["b", "a", "c", "c", "b", "d", "a"]
    same = np.array([True, True, True, False, False, True, True])
    words = [fault.words for fault in pair_faults(first, second, same, line)]
    assert words == [
        "line 3: compares c with itself; 2 such cases in all",
        "line 5: is the pair of line 1 (a, b) with the other label",
        "line 2: repeats the pair of line 1 (b, a); 2 such cases in all",
    ]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc"), st.booleans()), max_size=8))
def test_faults_are_found_as_by_comparing_all_with_all(rows):
    found = pair_faults([row[0] for row in rows], [row[1] for row in rows], np.array([r[2] for r in rows]), line)
    alike = [
        (one[2] == two[2]) for i, one in enumerate(rows) for two in rows[:i] if {one[0], one[1]} == {two[0], two[1]}
    ]
    words = " ".join(fault.words for fault in found)
    assert ("with itself" in words) == any(one == two for one, two, _ in rows)
    assert ("repeats" in words or "other label" in words) == bool(alike)
    assert ("other label" in words) == (False in alike)


def test_folds_that_cannot_serve_are_named():
    same = np.array([True, False, True, False])
    assert fold_fault(np.array([0, 0, 1, 1]), same) is None
    assert fold_fault(np.array([3, 3, 3, 3]), same).words == "all pairs are of one fold (3)"
    assert fold_fault(np.array([1, 1, 1, 2]), same).words == "fold 2 has impostor pairs only"
    assert fold_fault(np.array([7, 1, 1, 1]), same).words == "fold 7 has genuine pairs only"
    assert fold_fault(np.array([0, 0, 1, 1]), np.ones(4, bool)) is None  # one class in all is another matter


def test_folds_of_unequal_size_are_warned_of():
    assert fold_warnings(None) == [] and fold_warnings(np.array([5, 2, 2, 5])) == []
    (warning,) = fold_warnings(np.repeat([0, 1, 2], [4, 2, 3]))
    assert "The 3 folds are of unequal size (2 to 4 pairs)" in warning
