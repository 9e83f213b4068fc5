"""Read the protocol of "Celebrities in Frontal-Profile in the Wild" (CFP): its folder holds lists of numbers.

    Protocol/Pair_list_F.txt        `number path` of each frontal picture
    Protocol/Pair_list_P.txt        `number path` of each profile picture
    Protocol/Split/FF/01/same.txt   `i,j`: two numbers of the frontal list, of one person; diff.txt: of two
    Protocol/Split/FP/01/same.txt   `i,j`: a number of the frontal list and one of the profile list

FF and FP have ten folds each, 01 to 10. The listed paths are like ../Data/Images/001/frontal/01.jpg; the part after
`Data/` names a picture here, so that the folder of pictures to give is CFP's `Data`.

Source: Sengupta et al., "Frontal to Profile Face Verification in the Wild", WACV 2016.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import numpy as np

from facekit.pairs import Pairs, as_posix, fold_warnings, pair_faults
from facekit.tables import malformed, text_lines, whole_number

Kind = Literal["FF", "FP"]
FOLDS = 10

_POSES = {"F": "frontal", "P": "profile"}


def cfp_protocol(folder: Path) -> tuple[Path, Kind]:
    """The protocol folder and the kind that a path such as `Protocol/Split/FP` stands for.

    Raises:
        ValueError: the path is another folder.
    """
    whole = folder.absolute()
    protocol = whole.parent.parent
    if whole.parent.name == "Split" and (protocol / "Pair_list_F.txt").is_file():
        if whole.name == "FF":
            return protocol, "FF"
        if whole.name == "FP":
            return protocol, "FP"
    if (folder / "Pair_list_F.txt").is_file():
        raise ValueError(
            f"{folder}: holds two protocols. Choose {folder / 'Split' / 'FF'} (frontal with frontal) or "
            f"{folder / 'Split' / 'FP'} (frontal with profile)."
        )
    raise ValueError(
        f"{folder}: is a folder. Expected a pairs file, or CFP's `Protocol/Split/FF` or `Protocol/Split/FP` with "
        "Pair_list_F.txt and Pair_list_P.txt in `Protocol`."
    )


def read_cfp(protocol: Path, kind: Kind) -> Pairs:
    """Read CFP's frontal-frontal or frontal-profile pairs.

    A picture with itself and a pair that occurs twice are warned of, not refused: the published list is judged as
    it is.

    Args:
        protocol: CFP's folder `Protocol`.
        kind: "FF" or "FP".

    Returns:
        Pairs with folds 0 to 9 and the names of the people's folders. Paths start below CFP's `Data`.

    Raises:
        ValueError: a file is missing or has a malformed line, or a pair's people contradict its file's name.
    """
    frontal = _read_list(protocol, "F")
    partners = frontal if kind == "FF" else _read_list(protocol, "P")
    split = protocol / "Split" / kind
    pairs = [
        pair
        for fold in range(FOLDS)
        for same in (True, False)
        for pair in _read_part(split, fold, same, frontal, partners)
    ]
    first, second = [pair.first for pair in pairs], [pair.second for pair in pairs]
    same, folds = np.array([pair.same for pair in pairs]), np.array([pair.fold for pair in pairs])
    faults = pair_faults(first, second, same, lambda row: pairs[row].place)
    warnings = [f"{split}, {fault.words}. The list is judged as it was published." for fault in faults]
    warnings += [f"{split}: {warning}" for warning in fold_warnings(folds)]
    ids1, ids2 = ([_person(path) for path in paths] for paths in (first, second))
    return Pairs(first, second, same, folds, ids1, ids2, warnings=warnings)


class _Pair(NamedTuple):
    first: str
    second: str
    same: bool
    fold: int
    place: str


def _read_part(
    split: Path, fold: int, same: bool, frontal: Mapping[int, str], partners: Mapping[int, str]
) -> Iterator[_Pair]:
    """The pairs of one fold and label."""
    file = split / f"{fold + 1:02d}" / ("same.txt" if same else "diff.txt")
    for number, line in text_lines(file):
        one, _, two = line.partition(",")
        first, second = frontal.get(whole_number(one) or 0), partners.get(whole_number(two) or 0)
        if first is None or second is None:
            raise malformed(file, number, line, "`i,j`, two numbers that Pair_list_F.txt and Pair_list_P.txt have")
        if (_person(first) == _person(second)) != same:
            people = "pictures of one person" if same else "pictures of two people"
            raise malformed(file, number, f"{line.strip()}: {first}, {second}", people)
        yield _Pair(first, second, same, fold, f"{file.parent.name}/{file.name} line {number}")


def _read_list(protocol: Path, letter: str) -> dict[int, str]:
    """The listed pictures of one pose by their numbers, as paths below CFP's `Data`."""
    file = protocol / f"Pair_list_{letter}.txt"
    pose = _POSES[letter]
    listed: dict[int, str] = {}
    for number, line in text_lines(file):
        key, _, path = line.strip().partition(" ")
        parts = PurePosixPath(as_posix(path)).parts
        below = parts[parts.index("Data") + 1 :] if "Data" in parts else ()
        place = whole_number(key)
        if not place or len(below) < 3 or below[-2] != pose:
            raise malformed(file, number, line, f"`number ../Data/Images/person/{pose}/picture`")
        if place in listed:
            raise malformed(file, number, line, "a number that no earlier line has")
        listed[place] = "/".join(below)
    return listed


def _person(path: str) -> str:
    return path.split("/")[-3]
