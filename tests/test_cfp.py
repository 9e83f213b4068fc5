"""CFP's folder of numbers: read as its authors lay it out, and refused where it is laid out otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from facekit.cfp import read_cfp
from facekit.protocols import pairs_csv, read_pairs

PEOPLE, PROFILES = 20, 2


def frontal(person: int, picture: int) -> int:
    return 3 * person + picture


def profile(person: int, picture: int) -> int:
    return PROFILES * person + picture


@pytest.fixture
def protocol(tmp_path: Path) -> Path:
    """Twenty people, two a fold, with three frontal and two profile pictures each; numbers start at 1."""
    folder = tmp_path / "Protocol"
    for letter, pose, count in (("F", "frontal", 3), ("P", "profile", PROFILES)):
        names = [
            f"{person + 1:03d}/{pose}/{picture + 1:02d}" for person in range(PEOPLE) for picture in range(count)
        ]
        lines = [f"{number} ../Data/Images/{name}.jpg\n" for number, name in enumerate(names, 1)]
        folder.mkdir(exist_ok=True)
        (folder / f"Pair_list_{letter}.txt").write_text("".join(lines), newline="\r\n")
    for fold in range(10):
        one, two = 2 * fold, 2 * fold + 1
        write(folder, "FF", fold, "same", [(frontal(one, 1), frontal(one, 3)), (frontal(two, 2), frontal(two, 1))])
        write(folder, "FF", fold, "diff", [(frontal(one, 1), frontal(two, 3)), (frontal(two, 2), frontal(one, 1))])
        write(folder, "FP", fold, "same", [(frontal(one, 1), profile(one, 2)), (frontal(two, 2), profile(two, 1))])
        write(folder, "FP", fold, "diff", [(frontal(one, 1), profile(two, 2)), (frontal(two, 2), profile(one, 1))])
    return folder


def write(folder: Path, kind: str, fold: int, name: str, pairs: list[tuple[int, int]]) -> None:
    file = folder / "Split" / kind / f"{fold + 1:02d}" / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{one},{two}\n" for one, two in pairs))


def test_frontal_pairs_take_both_pictures_from_one_list(protocol):
    pairs = read_cfp(protocol, "FF")
    assert len(pairs) == 40 and pairs.folds.tolist() == [fold for fold in range(10) for _ in range(4)]
    assert pairs.same.tolist() == [True, True, False, False] * 10 and pairs.warnings == []
    assert pairs.first[4:8] == [
        "Images/003/frontal/01.jpg",
        "Images/004/frontal/02.jpg",
        "Images/003/frontal/01.jpg",
        "Images/004/frontal/02.jpg",
    ]
    assert pairs.second[4:8] == [
        "Images/003/frontal/03.jpg",
        "Images/004/frontal/01.jpg",
        "Images/004/frontal/03.jpg",
        "Images/003/frontal/01.jpg",
    ]
    first, second = pairs.people()
    assert first[4:8] == ["003", "004", "003", "004"] and second[4:8] == ["003", "004", "004", "003"]


def test_profile_pairs_take_the_second_picture_from_the_other_list(protocol):
    pairs = read_cfp(protocol, "FP")
    assert pairs.first == read_cfp(protocol, "FF").first
    assert pairs.second[:4] == [
        "Images/001/profile/02.jpg",
        "Images/002/profile/01.jpg",
        "Images/002/profile/02.jpg",
        "Images/001/profile/01.jpg",
    ]


@pytest.mark.parametrize("kind", ["FF", "FP"])
def test_a_pairs_path_may_be_a_split_of_it(protocol, kind, monkeypatch, tmp_path):
    wanted = read_cfp(protocol, kind)
    assert read_pairs(protocol / "Split" / kind).second == wanted.second
    monkeypatch.chdir(protocol / "Split" / kind)
    assert read_pairs(Path(".")).second == wanted.second
    (tmp_path / "copy.csv").write_text(pairs_csv(wanted))
    assert read_pairs(tmp_path / "copy.csv").people() == wanted.people()


def test_the_choice_between_the_two_is_the_users(protocol):
    with pytest.raises(
        ValueError, match=r"holds two protocols. Choose .*Split/FF \(frontal with frontal\) or .*FP"
    ):
        read_pairs(protocol)
    (protocol / "Pair_list_F.txt").unlink()
    for folder in (protocol, protocol / "Split", protocol / "Split" / "FF"):
        with pytest.raises(ValueError, match=r"is a folder. Expected a pairs file, or CFP's `Protocol/Split/FF`"):
            read_pairs(folder)


def change(file: str, number: int, line: str) -> Callable[[Path], None]:
    def apply(protocol: Path) -> None:
        lines = (protocol / file).read_text().splitlines()
        lines[number - 1] = line
        (protocol / file).write_text("\n".join(lines) + "\n")

    return apply


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "Pair_list_P.txt").unlink(), r"Pair_list_P\.txt: cannot be read"),
        (lambda folder: (folder / "Split/FP/10/diff.txt").unlink(), r"10/diff\.txt: cannot be read"),
        (change("Split/FP/03/same.txt", 2, "1"), r"03/same\.txt, line 2: expected `i,j`, two numbers"),
        (change("Split/FP/03/same.txt", 2, "1,2,3"), "line 2: expected `i,j`, two numbers"),
        (change("Split/FP/03/same.txt", 1, "61,1"), "line 1: expected `i,j`, two numbers .* found '61,1'"),
        (change("Split/FP/03/same.txt", 1, "1,41"), "line 1: expected `i,j`, two numbers .* found '1,41'"),
        (change("Split/FP/03/same.txt", 1, "0,1"), "line 1: expected `i,j`, two numbers"),
        (
            change("Split/FP/03/same.txt", 1, "1,3"),
            r"line 1: expected pictures of one person, found '1,3: Images/001",
        ),
        (
            change("Split/FP/03/diff.txt", 1, "1,1"),
            r"line 1: expected pictures of two people, found '1,1: Images/001",
        ),
        (
            change("Pair_list_F.txt", 4, "3 ../Data/Images/002/frontal/01.jpg"),
            "line 4: expected a number that no earl",
        ),
        (
            change("Pair_list_F.txt", 4, "4 ../Data/Images/002/profile/01.jpg"),
            "expected `number ../Data/Images/perso",
        ),
        (
            change("Pair_list_P.txt", 4, "4 ../Images/002/profile/01.jpg"),
            "expected `number ../Data/Images/person/pro",
        ),
        (change("Pair_list_P.txt", 4, "4 ../Data/profile/01.jpg"), "line 4: expected `number"),
        (change("Pair_list_P.txt", 4, "x ../Data/Images/002/profile/01.jpg"), "line 4: expected `number"),
    ],
)
def test_another_layout_is_refused_at_its_line(protocol, damage, sentence):
    damage(protocol)
    with pytest.raises(ValueError, match=sentence):
        read_cfp(protocol, "FP")


def test_what_was_published_is_judged_with_a_warning(protocol):
    write(protocol, "FF", 1, "same", [(7, 9), (9, 7), (8, 9)])
    pairs = read_cfp(protocol, "FF")
    assert len(pairs) == 41 and len(pairs.warnings) == 2
    assert "02/same.txt line 2: repeats the pair of 02/same.txt line 1" in pairs.warnings[0]
    assert "unequal size (4 to 5 pairs)" in pairs.warnings[1]


def test_listed_paths_may_lie_elsewhere(protocol):
    file = protocol / "Pair_list_F.txt"
    file.write_text(file.read_text().replace("../Data", "C:\\faces\\CFP\\Data"))
    assert read_cfp(protocol, "FF").first[0] == "Images/001/frontal/01.jpg"
