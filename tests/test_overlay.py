"""Published ROC curves as they are found in files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from facekit.overlay import read_overlay

# As on the results page of Labeled Faces in the Wild: true positive rate first, from strict to lenient.
LFW = "0.0 0.0\n0.2103333 0.0003333\n0.9060000 0.0500000\n1.0 1.0\n"


def written(folder: Path, text: str, name: str = "curve.txt") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_true_positive_rate_comes_first(tmp_path: Path) -> None:
    overlay = read_overlay(written(tmp_path, LFW, "eigenfaces-original_roc.txt"))
    assert overlay.name == "eigenfaces original roc"
    assert overlay.tpr.tolist() == [0, 0.2103333, 0.906, 1]
    assert overlay.fpr.tolist() == [0, 0.0003333, 0.05, 1]
    assert overlay.note == ""


@pytest.mark.parametrize(
    "text",
    [
        LFW.replace(" ", "\t"),
        LFW.replace(" ", ", "),
        LFW.replace(" ", ";"),
        "# tpr fpr\n\n" + LFW.replace("\n", "  # a comment\n", 1),
        "\n".join(reversed(LFW.splitlines())),
        "\ufeff" + LFW.replace("\n", "\r\n"),
        LFW.replace("0.0003333", "3.333e-4"),
    ],
)
def test_separators_comments_and_the_order_of_lines_do_not_matter(tmp_path: Path, text: str) -> None:
    plain, other = (read_overlay(written(tmp_path, part, name)) for part, name in ((LFW, "a.txt"), (text, "b.txt")))
    np.testing.assert_array_equal(plain.fpr, other.fpr)
    np.testing.assert_array_equal(plain.tpr, other.tpr)


def test_swapped_columns_are_swapped_back_and_said(tmp_path: Path) -> None:
    swapped = "\n".join(" ".join(reversed(line.split())) for line in LFW.splitlines())
    overlay = read_overlay(written(tmp_path, swapped))
    assert overlay.tpr.tolist() == [0, 0.2103333, 0.906, 1]
    assert overlay.fpr.tolist() == [0, 0.0003333, 0.05, 1]
    assert "curve.txt: read with its columns swapped" in overlay.note


@pytest.mark.parametrize("text", ["0 0\n1 1\n", "0.5 0.4\n0.6 0.61\n0.9 0.7\n", "0 0\n0.9 0.1\n0.89 0.15\n1 1\n"])
def test_chance_and_nearly_chance_and_averaged_curves_are_read_as_they_are(tmp_path: Path, text: str) -> None:
    overlay = read_overlay(written(tmp_path, text))
    first = sorted(float(line.split()[0]) for line in text.splitlines())
    assert sorted(overlay.tpr.tolist()) == first and overlay.note == ""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.1 0.0\n0.5 1.2\n", r"curve\.txt, line 2: expected two numbers from 0 to 1.*found '0\.5 1\.2'"),
        ("0.1 0.0\n-0.5 0.2\n", "line 2"),
        ("0.1 0.0\n1.5 0.2\n", "line 2"),
        ("# head\n0.1 0.0\nnan 0.2\n", "line 3"),
        ("tpr fpr\n0.1 0.0\n", "line 1.*found 'tpr fpr'"),
        ("0.1 0.0\n0.5\n", "line 2"),
        ("0.1 0.0\n0.5 0.2 0.3\n", "line 2"),
        ("50 10\n90 40\n", "line 1"),
        ("0.1 0.0\n# 0.5 0.4\n", "needs two points at least, found 1"),
        ("", "is empty"),
        ("0 0\n0.9 0.1\n0.2 0.5\n1 1\n", "line 3: this is no point of a ROC curve"),
        ("1 1\n0.2 0.5\n0.9 0.1\n0 0\n", "line 2: this is no point of a ROC curve"),
        ("0 0\n0.1 0.6\n0.3 0.7\n0.95 0.9\n", "line 2: this is no point of a ROC curve"),
    ],
)
def test_what_is_no_curve_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_overlay(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.txt: cannot be read"):
        read_overlay(tmp_path / "nowhere.txt")
