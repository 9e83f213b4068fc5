"""Lists of pairs, triplets and people: every accepted form, every wrong line named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facekit.protocols import Pairs, csv_text, pairs_csv, read_pairs, read_people, read_triplets

ON_FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


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


def test_lfws_folds_may_mix_their_kinds(tmp_path):
    pairs = read(tmp_path, "1\nA\t1\tB\t1\nA\t1\t2\n")
    assert pairs.same.tolist() == [False, True]


def test_lfws_own_file(lfw):
    pairs = read_pairs(lfw / "pairsDevTrain.txt")
    assert len(pairs) == 2200 and pairs.same.sum() == 1100 and pairs.warnings == []
    assert pairs.people() is not None
    assert all((lfw / "images" / name).is_file() for name in pairs.pictures())


@pytest.mark.parametrize(
    "text",
    [
        "a/1.jpg,a/2.jpg,1\na/1.jpg,b/1.jpg,0\n",
        "path1,path2,label\na/1.jpg,a/2.jpg,1\na/1.jpg,b/1.jpg,0\n",
        "label;path2;path1\nsame;a/2.jpg;a/1.jpg\ndifferent;b/1.jpg;a/1.jpg\n",
        "file_x\tfile_y\tDecision\na/1.jpg\ta/2.jpg\tYes\na/1.jpg\tb/1.jpg\tNo\n",
        '\ufeffimg1,img2,same\r\n"a/1.jpg", a/2.jpg ,TRUE\r\n\r\na\\1.jpg,b/1.jpg,False\r\n',
        ",File_X,File_Y,DECISION,note\n0,./a/1.jpg,a//2.jpg,Yes,x\n1,a/1.jpg,b/1.jpg,No,\n",
        "a/1.jpg\ta/2.jpg\t1\ra/1.jpg\tb/1.jpg\t0",
        "path1,path2,label,distance\na/1.jpg,a/2.jpg,1,0.4\na/1.jpg,b/1.jpg,0,\n",
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
        ("path1,path2,truth\na,b,1\n", r"line 1: expected a label .*\(or a header that names the columns\)"),
        ("path1,path2,label\na.jpg,,1\n", "line 2: expected a name in the second column, found ''"),
        ("path1,path2,label\nDoe, Jane/1.jpg,b.jpg,1\n", "line 2: expected two paths and a label"),
        ('"a.jpg,b.jpg,1\n', "line 1: expected cells whose quotes close right before a separator"),
        ("path1,path2,label,same\na,b,1,1\n", r"names the label column twice \(`label` and `same`\)"),
        ("1\nA\t1\t²\nA\t1\tB\t1\n", "line 2: expected `name n1 n2`"),
        ("1\nA\t1\t0\nA\t1\tB\t1\n", "line 2: expected `name n1 n2`"),
        ("1\nA\t1\t2\nA\t1\tA\t3\n", "line 3: expected two people, or `name n1 n2` for one"),
        ("0\n", "its first line must be `folds pairs`"),
        ("1 5\n", "its first line must be `folds pairs`"),
    ],
)
def test_a_malformed_line_is_quoted(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        read(tmp_path, text)
    assert "pairs.txt" in str(caught.value)


def test_lfws_promise_of_equal_folds_is_kept(tmp_path):
    text = "2\t1\nA\t1\t2\nB\t1\t2\nC\t1\tD\t1\nC\t1\tD\t2\n"
    with pytest.raises(ValueError, match="lines 2 to 3: expected 1 pairs of one person and 1 of two, .* 2 and 0"):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,b,1\nc,d,0\n\nb,a,1\n", r"line 4: repeats the pair of line 1 \(b, a\)\. Remove one of the lines"),
        ("a,b,1\na\\x,c,0\na/x,./c,0\na,b,1", r"line 3: repeats the pair of line 2 .*2 such cases in all\. "),
        ("a,b,1\nb,a,0\n", r"line 2: is the pair of line 1 \(b, a\) with the other label\. Keep the line that"),
        ("a,b,1\nc,c,1\n", "line 2: compares c with itself. Remove the line"),
        ("1\nA\t2\t02\nA\t1\tB\t1\n", "line 2: compares A/A_0002.jpg with itself"),
        ("2\nA\t2\t1\nA\t1\t2\nA\t1\tB\t1\nA\t1\tB\t2", "line 3: repeats the pair of line 2"),
        ("path1,path2,label,fold\na,b,1,1\na,c,0,1\n", "all pairs are of one fold.*remove the fold column"),
        ("path1,path2,label,fold\na,b,1,1\na,c,0,1\nd,e,0,2\n", "fold 2 has impostor pairs only.*both kinds"),
        ("path1,path2,label,split\na,b,1,test\na,c,0,test\n", "line 2: expected a whole number in the fold column"),
    ],
)
def test_pairs_that_distort_figures_are_refused(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        read(tmp_path, text)


def test_csv_tells_folds_groups_and_people(tmp_path):
    text = "Fold;Path1;Path2;Label;Group;Person1;Person2\n1;1;2;1;x;Zoë; Zoë\n1;1;3;0;;Zoë;Bo\n"
    text += "2;4;5;1;y;C;C\n2;4;6;0;y;C;D\n"
    pairs = read(tmp_path, text)
    assert pairs.folds is not None and pairs.folds.tolist() == [1, 1, 2, 2] and pairs.warnings == []
    assert pairs.groups == ["x", "", "y", "y"]
    assert pairs.people() == (["Zoë", "Zoë", "C", "C"], ["Zoë", "Bo", "C", "D"])
    with pytest.raises(ValueError, match="line 3: the label says different people, but id1 is 'Zoë' and id2 'Zoë'"):
        read(tmp_path, text.replace("Zoë;Bo", "Zoë;Zoë"))


def test_folds_of_unequal_size_are_read_with_a_warning(tmp_path):
    pairs = read(tmp_path, "path1,path2,label,fold\na,b,1,1\na,c,0,1\nd,e,0,2\nd,f,1,2\nd,g,1,2\n")
    assert len(pairs.warnings) == 1 and "unequal size (2 to 3 pairs)" in pairs.warnings[0]
    assert "pairs.txt" in pairs.warnings[0]


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.txt: cannot be read"):
        read_pairs(tmp_path / "none.txt")
    (tmp_path / "b.txt").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"b\.txt: is not a text file"):
        read_pairs(tmp_path / "b.txt")


def test_a_folder_that_is_no_protocol_is_named(tmp_path):
    with pytest.raises(ValueError, match="is a folder. Expected a pairs file, or CFP's `Protocol/Split/FF`"):
        read_pairs(tmp_path)


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


def test_whole_pairs_are_read_back(tmp_path):
    text = "path1,path2,label,fold,group,id1,id2\na,b,1,0,x,P,P\na,c,0,0,,P,Q\nd,e,1,1,y,R,R\nd,f,0,1,y,R,P\n"
    assert pairs_csv(read(tmp_path, text)) == text
    assert csv_text([("a", "b,c")]) == 'a,"b,c"\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a b c\nd e d\n", r"line 2: expected three different pictures \(remove the line\), found 'd e d'"),
        ("a,a,c\n", "line 1: expected three different pictures"),
        ("a,b,./b\n", "line 1: expected three different pictures"),
        ("a b c\na c b\n\na\tb\tc\n", "line 4: repeats the triplet of line 1. Remove one"),
        ("a,b,\n", "line 1: expected three paths"),
        ("Anchor,Positive,Negative\n", "has a header but no triplets"),
    ],
)
def test_triplets_that_say_nothing_are_refused(tmp_path, text, sentence):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        read_triplets(tmp_path / "t.txt")


def test_triplets_may_have_a_header_and_quotes(tmp_path):
    (tmp_path / "t.txt").write_text('anchor,positive,negative\n"Doe, J/1","Doe, J/2",b\\1\n')
    assert read_triplets(tmp_path / "t.txt") == [("Doe, J/1", "Doe, J/2", "b/1")]


def people(tmp_path, text: str) -> set[str]:
    (tmp_path / "people.txt").write_text(text, encoding="utf-8")
    return read_people(tmp_path / "people.txt")


@pytest.mark.parametrize(
    "text",
    [
        "Zoë Ray\n Bo_Lee \n\nZoë Ray\n",
        "\ufeff# known overlaps\r\nZoë Ray\r\nBo_Lee\r\n  # the end\r\n",
        "Name,Pictures\nZoë Ray,3\nBo_Lee,4\n",
        "Bo_Lee;x\nZoë Ray;y\n",
        "name\nBo_Lee\nZoë Ray\n",
        "2\nBo_Lee\t4\nZoë Ray\t2\n",
        "2\n1\nBo_Lee\t4\n1\nZoë Ray\t2\n",
        'class_id, name\n"Zoë Ray", "x, y"\nBo_Lee, z\n',
    ],
)
def test_lists_of_people(tmp_path, text):
    assert people(tmp_path, text) == {"Zoë Ray", "Bo_Lee"}


def test_a_name_may_hold_a_comma_a_mark_or_be_a_number(tmp_path):
    assert people(tmp_path, "Doe, Jane\nBo\n") == {"Doe, Jane", "Bo"}
    assert people(tmp_path, '"Doe, Jane"\nBo\n') == {"Doe, Jane", "Bo"}
    assert people(tmp_path, "Person #3\n0000045\n") == {"Person #3", "0000045"}


def test_lfws_own_list_of_people(lfw):
    names = read_people(lfw / "peopleDevTrain.txt")
    assert len(names) == int((lfw / "peopleDevTrain.txt").read_text().split("\n", 1)[0])
    assert names >= {person for pair in read_pairs(lfw / "pairsDevTrain.txt").people() for person in pair}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("# nobody\n", "names nobody"),
        ("name\n", "names nobody"),
        ("A\n-_\n", "line 2: expected a p"),
    ],
)
def test_a_list_of_nobody_is_named(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=sentence):
        people(tmp_path, text)


# Random text rarely comes near a format; text made of the formats' own words does.
WORDS = st.sampled_from(
    [*'\n\n\n,,;\t\t  12AB"#', "path1", "path2", "label", "fold", "id1", "id2", "yes", "a/1", "\r", "²"]
)
FILES = st.binary(max_size=60) | st.lists(WORDS, max_size=40).map(lambda words: "".join(words).encode())


@ON_FILES
@given(data=FILES)
def test_any_file_is_read_or_refused_in_a_sentence(tmp_path: Path, data: bytes):
    path = tmp_path / "any.txt"
    path.write_bytes(data)
    for reader in (read_pairs, read_triplets, read_people):
        try:
            assert len(reader(path)) > 0
        except ValueError as error:
            assert (
                type(error) is ValueError and str(error).startswith(str(path)) and str(error).endswith((".", ")"))
            )
