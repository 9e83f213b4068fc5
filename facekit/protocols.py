"""Read the lists that verification is judged on: LFW's pairs, CSV pairs, triplets. Every line is checked."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

# Header names of the first path, second path and label, as several projects write them.
_FIRST = {"path1", "file_x", "file1", "img1", "image1", "left", "a"}
_SECOND = {"path2", "file_y", "file2", "img2", "image2", "right", "b"}
_LABEL = {"label", "decision", "same", "issame", "is_same", "match"}
_YES = {"1", "1.0", "true", "yes", "same", "genuine", "match"}
_NO = {"0", "0.0", "false", "no", "different", "impostor", "mismatch"}


@dataclass(frozen=True)
class Pairs:
    """Pairs of pictures with the truth about each.

    Attributes:
        first: (n) path of one picture of each pair, relative to the folder of pictures, "/" between parts.
        second: (n) path of the other.
        same: (n,) bool, True for the same person.
        folds: (n,) int fold of each pair as the file has it; None where it has none.
    """

    first: list[str]
    second: list[str]
    same: NDArray[np.bool_]
    folds: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.first)

    def pictures(self) -> list[str]:
        """Every picture of any pair once, sorted."""
        return sorted({*self.first, *self.second})

    def people(self) -> tuple[list[str], list[str]] | None:
        """The person of each picture, by its folder: two lists of n names; None where folders aren't people."""
        first, second = ([Path(path).parent.as_posix() for path in paths] for paths in (self.first, self.second))
        told = [one == two for one, two in zip(first, second, strict=True)]
        return (first, second) if told == self.same.tolist() else None

    def without(self, pictures: Collection[str]) -> Pairs:
        """The pairs in which none of these pictures takes part."""
        lost = set(pictures)
        kept = np.array([lost.isdisjoint(pair) for pair in zip(self.first, self.second, strict=True)], bool)
        first, second = (
            [path for path, keep in zip(paths, kept, strict=True) if keep] for paths in (self.first, self.second)
        )
        return Pairs(first, second, self.same[kept], None if self.folds is None else self.folds[kept])


def read_pairs(path: Path) -> Pairs:
    """Read pairs in LFW's own format (pairs.txt with folds, pairsDev*.txt without) or as CSV.

    LFW: a first line `folds<TAB>pairs` (or `pairs`), then `name n1 n2` (same) and `name1 n1 name2 n2`
    (different), meaning name/name_0001.jpg. CSV: two paths and a label (1 = same), with or without a header;
    the separator is a comma, a semicolon or a tab.

    Raises:
        ValueError: the file is missing, empty, or has a malformed line, which is quoted with its number.
    """
    lines = _lines(path)
    cells = lines[0][1].split()
    if len(cells) <= 2 and all(cell.isdecimal() for cell in cells):
        return _read_lfw(path, lines)
    return _read_csv(path, lines)


def _lines(path: Path) -> list[tuple[int, str]]:
    """The file's lines that aren't blank, each with its number from 1."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not a text file in UTF-8.") from None
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise ValueError(f"{path}: is empty.")
    return lines


def _malformed(path: Path, number: int, line: str, expected: str) -> ValueError:
    return ValueError(f"{path}, line {number}: expected {expected}, found {line.strip()!r}.")


def _read_lfw(path: Path, lines: list[tuple[int, str]]) -> Pairs:
    header = [int(cell) for cell in lines[0][1].split()]
    folds, each = (header[0], header[1]) if len(header) == 2 else (1, header[0])
    if each < 1 or folds < 1 or (len(header) == 2 and folds < 2):
        raise ValueError(
            f"{path}: its first line must be `folds pairs`, at least 2 and 1, or `pairs`; found {header}."
        )
    wanted, found = 2 * folds * each, len(lines) - 1
    if found != wanted:
        raise ValueError(f"{path}: its first line promises {wanted} pairs ({header}), but {found} lines follow.")
    first, second, same = [], [], []
    for number, line in lines[1:]:
        # Names may hold spaces where tabs separate the cells.
        cells = line.strip().split("\t") if "\t" in line else line.split()
        if len(cells) == 3:
            cells = [cells[0], cells[1], cells[0], cells[2]]
            same.append(True)
        else:
            same.append(False)
        if len(cells) != 4 or not (cells[1].isdigit() and cells[3].isdigit()):
            raise _malformed(path, number, line, "`name n1 n2` or `name1 n1 name2 n2`")
        first.append(_lfw_path(cells[0], cells[1]))
        second.append(_lfw_path(cells[2], cells[3]))
    fold = np.repeat(np.arange(folds), 2 * each) if len(header) == 2 else None
    return Pairs(first, second, np.array(same), fold)


def _lfw_path(name: str, number: str) -> str:
    return f"{name}/{name}_{int(number):04d}.jpg"


def _separator(line: str) -> str:
    return max(",;\t", key=line.count)


def _read_csv(path: Path, lines: list[tuple[int, str]]) -> Pairs:
    separator = _separator(lines[0][1])
    rows = [(number, next(csv.reader([line], delimiter=separator)), line) for number, line in lines]
    columns = _columns([cell.strip().lower() for cell in rows[0][1]])
    if columns is not None:
        rows = rows[1:]
    one, two, label = columns or (0, 1, 2)
    first, second, same = [], [], []
    for number, cells, line in rows:
        if len(cells) <= max(one, two, label):
            raise _malformed(path, number, line, "two paths and a label, `path1,path2,label`")
        word = cells[label].strip().lower()
        if word not in _YES | _NO:
            raise _malformed(path, number, line, "a label of 1 (same person) or 0")
        first.append(_as_posix(cells[one]))
        second.append(_as_posix(cells[two]))
        same.append(word in _YES)
    if not rows:
        raise ValueError(f"{path}: has a header but no pairs.")
    return Pairs(first, second, np.array(same))


def _columns(header: Sequence[str]) -> tuple[int, int, int] | None:
    """Where a header has the paths and the label; None where it is no header."""
    places = [[i for i, name in enumerate(header) if name in names] for names in (_FIRST, _SECOND, _LABEL)]
    if not all(places):
        return None
    return places[0][0], places[1][0], places[2][0]


def _as_posix(text: str) -> str:
    return text.strip().replace("\\", "/")


def read_triplets(path: Path) -> list[tuple[str, str, str]]:
    """Read triplets: anchor, positive and negative path a line, separated by commas, semicolons, tabs or spaces.

    Raises:
        ValueError: the file is missing, empty, or has a malformed line, which is quoted with its number.
    """
    triplets = []
    for number, line in _lines(path):
        separator = next((mark for mark in ",;\t" if mark in line), None)
        cells = [_as_posix(cell) for cell in line.split(separator)]
        if len(cells) != 3 or not all(cells):
            raise _malformed(path, number, line, "three paths: anchor, positive, negative")
        triplets.append((cells[0], cells[1], cells[2]))
    return triplets


def pairs_csv(pairs: Pairs) -> str:
    """Pairs as CSV text that `read_pairs` reads back."""
    rows = zip(pairs.first, pairs.second, pairs.same.astype(int), strict=True)
    return csv_text([("path1", "path2", "label"), *rows])


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV text, quoted where a name holds a comma."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
