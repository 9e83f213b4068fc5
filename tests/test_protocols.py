"""Lists of pairs and triplets: every accepted form, every malformed line quoted."""

from __future__ import annotations

import numpy as np
import pytest

from facekit.protocols import Pairs, pairs_csv, read_pairs, read_triplets


def read(tmp_path, text: str) -> Pairs:
    path = tmp_path / "pairs.txt"
    path.write_text(text, encoding="utf-8")
    return read_pairs(path)


def test_lfws_development_form(tmp_path):
    pairs = read(tmp_path, "2\nAnna\t1\t12\nBob Lee\t3\t4\nAnna\t1\tBob Lee\t2\nBob Lee\t1\tCy\t1\n")
    assert pairs.first == [
        "Anna/Anna_0001.jpg",
        "Bob Lee/Bob Lee_0003.jpg",
        "Anna/Anna_0001.jpg",
        "Bob Lee/Bob Lee_0001.jpg",
    ]
    assert pairs.second[0] == "Anna/Anna_0012.jpg" and pairs.second[3] == "Cy/Cy_0001.jpg"
    assert pairs.same.tolist() == [True, True, False, False] and pairs.folds is None
    assert pairs.people() == (["Anna", "Bob Lee", "Anna", "Bob Lee"], ["Anna", "Bob Lee", "Bob Lee", "Cy"])


def test_lfws_folds(tmp_path):
    pairs = read(tmp_path, "2\t1\nA\t1\t2\nA\t1\tB\t1\nC\t1\t2\nC\t1\tD\t1\n")
    assert pairs.folds is not None and pairs.folds.tolist() == [0, 0, 1, 1]
    assert pairs.same.tolist() == [True, False, True, False]


def test_lfws_own_file(lfw):
    pairs = read_pairs(lfw / "pairsDevTrain.txt")
    assert len(pairs) == 2200 and pairs.same.sum() == 1100
    assert all((lfw / "images" / name).is_file() for name in pairs.pictures())


@pytest.mark.parametrize(
    "text",
    [
        "a/1.jpg,a/2.jpg,1\na/1.jpg,b/1.jpg,0\n",
        "path1,path2,label\na/1.jpg,a/2.jpg,1\na/1.jpg,b/1.jpg,0\n",
        "label;path2;path1\nsame;a/2.jpg;a/1.jpg\ndifferent;b/1.jpg;a/1.jpg\n",
        "file_x\tfile_y\tDecision\na/1.jpg\ta/2.jpg\tYes\na/1.jpg\tb/1.jpg\tNo\n",
        '\ufeffimg1,img2,same\r\n"a/1.jpg", a/2.jpg ,TRUE\r\n\r\na\\1.jpg,b/1.jpg,False\r\n',
    ],
)
def test_csv_forms(tmp_path, text):
    pairs = read(tmp_path, text)
    assert pairs.first == ["a/1.jpg", "a/1.jpg"] and pairs.second == ["a/2.jpg", "b/1.jpg"]
    assert pairs.same.tolist() == [True, False]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("3\nA\t1\t2\n", r"promises 6 pairs .* but 1 lines follow"),
        ("1\nA\t1\t2\nA\t1\tB\n", r"line 3: expected `name n1 n2` or `name1 n1 name2 n2`, found 'A\\t1\\tB'"),
        ("1\nA\t1\tx\nA\t1\tB\t2\n", "line 2: expected"),
        ("a.jpg,b.jpg,1\na.jpg,c.jpg,maybe\n", r"line 2: expected a label of 1 \(same person\) or 0, found"),
        ("a.jpg,b.jpg,1\na.jpg\n", "line 2: expected two paths and a label"),
        ("path1,path2,label\n", "has a header but no pairs"),
    ],
)
def test_a_malformed_line_is_quoted(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        read(tmp_path, text)
    assert "pairs.txt" in str(caught.value)


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.txt: cannot be read"):
        read_pairs(tmp_path / "none.txt")
    (tmp_path / "b.txt").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"b\.txt: is not a text file"):
        read_pairs(tmp_path / "b.txt")


def test_folders_that_are_not_people_give_no_identities():
    assert Pairs(["x/1.jpg"], ["x/2.jpg"], np.array([False])).people() is None
    assert Pairs(["1.jpg"], ["2.jpg"], np.array([False])).people() is None


def test_written_pairs_are_read_back(tmp_path):
    pairs = Pairs(["Doe, Jane/1.jpg", 'b "x"/1.jpg'], ["Doe, Jane/2.jpg", "c/1.jpg"], np.array([True, False]))
    again = read(tmp_path, pairs_csv(pairs))
    assert (again.first, again.second, again.same.tolist()) == (pairs.first, pairs.second, [True, False])


@pytest.mark.parametrize("separator", [",", "\t", " ", " ; "])
def test_triplets(tmp_path, separator):
    path = tmp_path / "t.txt"
    path.write_text(separator.join(["a/1.jpg", "a/2.jpg", "b/1.jpg"]) + "\n\n")
    assert read_triplets(path) == [("a/1.jpg", "a/2.jpg", "b/1.jpg")]


def test_a_malformed_triplet_is_quoted(tmp_path):
    (tmp_path / "t.txt").write_text("a b c\na b\n")
    with pytest.raises(
        ValueError, match=r"t\.txt, line 2: expected three paths: anchor, positive, negative, found 'a b'"
    ):
        read_triplets(tmp_path / "t.txt")
