"""Score files of any system: what is read, what it is taken for, and which line is wrong."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from facekit.score_file import read_scores, scores_csv
from facekit.scored import Kind, ScoredPairs

ON_FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def read(tmp_path: Path, text: str, distance: bool = False) -> tuple[ScoredPairs, list[str] | None]:
    path = tmp_path / "scores.csv"
    path.write_text(text, encoding="utf-8", newline="")
    return read_scores(path, distance)


def test_large_scores_mean_the_same_person_unless_said_otherwise(tmp_path):
    text = "score,label\n0.9,1\n-0.25,0\n"
    scored, groups = read(tmp_path, text)
    assert scored.distances.tolist() == [-0.9, 0.25] and scored.same.tolist() == [True, False]
    assert scored.native(scored.distances[0]) == 0.9 and scored.large_means_same
    assert groups is None and scored.folds is None and scored.people is None and scored.first is None
    scored, _ = read(tmp_path, text.replace("-", ""), distance=True)
    assert scored.distances.tolist() == [0.9, 0.25] and not scored.large_means_same


@pytest.mark.parametrize(
    ("scores", "distance", "kind"),
    [
        ((0, 2), True, "distance"),
        ((0, 2.001), True, "dissimilarity"),
        ((-0.001, 1), True, "dissimilarity"),
        ((-1, 1), False, "cosine"),
        ((-1.0000005, 1.0000005), False, "cosine"),
        ((0, 1.00001), False, "similarity"),
        ((-1.00001, 0), False, "similarity"),
        ((0.1, 0.9), False, "cosine"),
    ],
)
def test_the_kind_is_told_from_the_range(tmp_path, scores, distance, kind):
    scored, _ = read(tmp_path, f"score,label\n{scores[0]},1\n{scores[1]},0\n,1\n", distance)
    assert scored.kind == kind


def test_an_empty_score_is_a_pair_that_failed(tmp_path):
    scored, _ = read(tmp_path, "label,score\n1,0.5\n0,\n1, \n0,-3\n")
    assert scored.failed.tolist() == [False, True, True, False]
    assert np.isnan(scored.distances[[1, 2]]).all() and scored.ranked.tolist() == [-0.5, np.inf, np.inf, 3]


def test_every_column_is_found_in_any_order(tmp_path):
    text = (
        "\ufeffGroup;ID2;id1;Label;File1;img2;Fold;Cosine\r\n"
        '"x, y";Zoë; Zoë ;Yes;a\\1.jpg;./a/2.jpg;1;0.5\r\n\r\n'
        ";Bo;Zoë;No;a/1.jpg;b/1.jpg;1;0.1\r\n"
        "z;C;C;Yes;c;d;2;-0.25\r\nz;D;C;No;c;e;2;0\r\n"
    )
    scored, groups = read(tmp_path, text)
    assert groups == ["x, y", "", "z", "z"]
    assert scored.first == ["a/1.jpg", "a/1.jpg", "c", "c"] and scored.second == ["a/2.jpg", "b/1.jpg", "d", "e"]
    assert scored.folds.tolist() == [1, 1, 2, 2] and scored.distances.tolist() == [-0.5, -0.1, 0.25, 0]
    assert scored.ids1.tolist() == ["Zoë", "Zoë", "C", "C"] and scored.ids2.tolist() == ["Zoë", "Bo", "C", "D"]
    assert [side.tolist() for side in scored.people] == [[0, 0, 1, 1], [0, 2, 1, 3]]


def test_the_projects_own_scores_are_read(tmp_path):
    scored, _ = read(tmp_path, "path1,path2,label,distance\na/1,a/2,1,1.026606\na/1,b/1,0,\na/1,c/1,0,1.5\n", True)
    assert scored.kind == "distance" and scored.first == ["a/1", "a/1", "a/1"]
    assert scored.ranked.tolist() == [1.026606, np.inf, 1.5]


HEAD = "score,label\n0.5,1\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("0.5,1\n0.6,0\n", "line 1: expected a header with a score column, such as `score,label`, found '0.5,1'"),
        ("score,truth\n0.5,1\n", "line 1: expected a header with a label column"),
        ("score\n0.5\n", "line 1: expected a header with a label column"),
        ("score,label\n", "has a header but no pairs"),
        ("score,cosine,label\n", r"names the score column twice \(`score` and `cosine`\)"),
        (HEAD + "\nx,0\n", "line 4: expected a number with a decimal point, or nothing for no face, found 'x'"),
        ("score;label\n0,5;1\n", "line 2: expected a number with a decimal point"),
        (HEAD + "1_0,0\n", "line 3: expected a finite number"),
        (HEAD + "0.5,maybe\n", "line 3: expected a label of 1"),
        (HEAD + "0.5\n", "line 3: expected as many cells as the header has, found '0.5'"),
        (HEAD + "0.5,0,7\n", "line 3: expected as many cells"),
        (HEAD + "0.6,1\n", r"all 2 pairs are genuine \(label 1\). Figures need pairs of both kinds"),
        (HEAD.replace(",1", ",0"), r"all 1 pairs are impostor \(label 0\)"),
        ("score,label\n,1\n,0\n", "no line has a score"),
        ("score,label,id1\n1,1,a\n0,0,a\n", "the id1 and id2 columns belong together; the id2 one lacks"),
        ("score,label,path2\n1,1,a\n0,0,b\n", "the first and second columns belong together; the first one lacks"),
        ("score,label,id1,id2\n1,1,a,a\n0,0,b,b\n", "line 3: the label says different people, but id1 is 'b' and"),
        (
            "score,label,id1,id2\n1,1,a,b\n0,0,b,c\n",
            "line 2: the label says same person, but id1 is 'a' and id2 'b'",
        ),
        ("score,label,id1,id2\n1,1,a,a\n0,0,b,\n", "line 3: expected a name in the id2 column"),
        ("score,label,path1,path2\n1,1,a,b\n0,0,c,d\n1,1,b,a\n", r"line 4: repeats the pair of line 2 \(b, a\)"),
        ("score,label,path1,path2\n1,1,a,b\n0,0,a,b\n", "line 3: is the pair of line 2 .* with the other label"),
        ("score,label,path1,path2\n1,1,a,b\n0,0,c,c\n", "line 3: compares c with itself"),
        ("score,label,fold\n1,1,1\n0,0,1\n", r"all pairs are of one fold \(1\)"),
        ("score,label,fold\n1,1,1\n0,0,1\n1,1,2\n", "fold 2 has genuine pairs only"),
        ("score,label,fold\n1,1,1\n0,0,\n", "line 3: expected a whole number in the fold column, found ''"),
        ('score,label\n"0.5,1\n0.6,0\n', "line 2: expected cells whose quotes close right"),
    ],
)
def test_a_wrong_file_is_named_with_its_line(tmp_path, text, sentence):
    with pytest.raises(ValueError, match=rf"scores\.csv[:,].*{sentence}"):
        read(tmp_path, text)


@pytest.mark.parametrize("cell", ["nan", "NaN", "inf", "-Infinity", "1e999", "-1e101"])
def test_nan_and_infinity_are_no_way_to_say_no_face(tmp_path, cell):
    expected = r"a finite number below 1e100 \(where a picture gave no face, an empty cell\)"
    sentence = rf"line 3: expected {expected}, found '{cell}'"
    with pytest.raises(ValueError, match=sentence):
        read(tmp_path, HEAD + f"{cell},0\n")


def test_a_columns_name_must_not_contradict_the_direction(tmp_path):
    text = "{},label\n0.5,1\n0.6,0\n"
    for name in ("Distance", "dist", "cosine_distance"):
        with pytest.raises(
            ValueError, match=f"`{name}` says that a small score means .* Add `--distance`, or name"
        ):
            read(tmp_path, text.format(name))
        kind = read(tmp_path, text.format(name), distance=True)[0].kind
        assert kind == ("dissimilarity" if name.startswith("cosine") else "distance")
    for name in ("similarity", "Cosine"):
        with pytest.raises(
            ValueError, match=f"`{name}` says that a large score means .* Leave `--distance` out, or"
        ):
            read(tmp_path, text.format(name), distance=True)
        assert read(tmp_path, text.format(name))[0].kind == "cosine"


def everything(kind: Kind, n: int = 40) -> tuple[ScoredPairs, list[str]]:
    rng = np.random.default_rng(1)
    failed, same = rng.random(n) < 0.2, np.arange(n) % 2 == 0
    wide = 50.0 if kind in ("dissimilarity", "similarity") else 1.0
    distances = np.where(failed, np.nan, rng.random(n) * wide)
    ids1 = np.array([f"person, {i % 7}" for i in range(n)], object)
    ids2 = np.array([one if label else f"{one}'s twin" for one, label in zip(ids1, same, strict=True)], object)
    first, second = [f"{i} a.jpg" for i in range(n)], [f'{i} "b".jpg' for i in range(n)]
    scored = ScoredPairs(distances, same, failed, kind, np.arange(n) // 10, ids1, ids2, first, second)
    return scored, [f"group {i % 3}" if i % 5 else "" for i in range(n)]


@pytest.mark.parametrize("kind", get_args(Kind))
def test_written_scores_are_read_back_to_the_last_digit(tmp_path, kind):
    scored, groups = everything(kind)
    again, groups_again = read(tmp_path, scores_csv(scored, groups), kind in ("distance", "dissimilarity"))
    for name in ("distances", "same", "failed", "folds", "ids1", "ids2", "first", "second"):
        np.testing.assert_array_equal(getattr(again, name), getattr(scored, name))
    assert again.kind == kind and groups_again == groups


def test_a_plain_file_is_written_as_plainly(tmp_path):
    scored, groups = read(tmp_path, "score,label\n0.5,1\n,0\n0.25,0\n")
    assert scores_csv(scored, groups) == "label,similarity\n1,0.5\n0,\n0,0.25\n"


def test_the_header_of_distances_is_the_one_of_old(tmp_path):
    scored, _ = read(tmp_path, "path1,path2,label,distance\na,b,1,0.5\na,c,0,1.5\n", True)
    assert scores_csv(scored) == "path1,path2,label,distance\na,b,1,0.5\na,c,0,1.5\n"


def test_six_thousand_lines_are_read_at_once_and_without_heavy_imports(tmp_path):
    rng = np.random.default_rng(0)
    rows = "".join(f"{score:.6f},{row % 2}\n" for row, score in enumerate(rng.random(6000)))
    (tmp_path / "scores.csv").write_text("score,label\n" + rows)
    seconds = []
    for _ in range(3):  # the best of three: the machine may be busy
        start = time.process_time()
        scored, _ = read_scores(tmp_path / "scores.csv", False)
        seconds.append(time.process_time() - start)
    assert len(scored) == 6000 and min(seconds) < 0.05
    check = (
        "import sys, facekit.score_file; assert not {'tensorflow', 'keras', 'sklearn', 'pandas'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", check], check=True, cwd=Path(__file__).parents[1])


WORDS = st.sampled_from(
    [*'\n\n\n\n,,,;10."', "score,label\n", "id1", "id2", "path1", "path2", "fold", "-0.5", "nan"]
)
FILES = st.binary(max_size=60) | st.lists(WORDS, max_size=40).map(lambda words: "".join(words).encode())
LINES = st.lists(
    st.sampled_from(["1,1", "0,0", ",1", "2,0", "-1,yes", "x,0", "1", "", "1,1,1", '"1",0']), max_size=8
)
FILES |= LINES.map(lambda lines: "\n".join(["score,label", *lines]).encode())


@ON_FILES
@given(data=FILES, distance=st.booleans())
def test_any_file_is_read_or_refused_in_a_sentence(tmp_path: Path, data: bytes, distance: bool):
    path = tmp_path / "any.csv"
    path.write_bytes(data)
    try:
        scored, _ = read_scores(path, distance)
        assert scored.same.any() and not scored.same.all() and not scored.failed.all()
    except ValueError as error:
        assert type(error) is ValueError and str(error).startswith(str(path)) and str(error).endswith((".", ")"))
