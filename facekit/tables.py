"""Text files of rows: lines with their numbers, CSV columns by the names that people give them, quoted faults."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Line = tuple[int, str]
"""A line's number, from 1, and its text."""

PAIR_COLUMNS: Mapping[str, frozenset[str]] = {
    "first": frozenset({"path1", "file_x", "file1", "img1", "image1", "left", "a"}),
    "second": frozenset({"path2", "file_y", "file2", "img2", "image2", "right", "b"}),
    "label": frozenset({"label", "decision", "same", "issame", "is_same", "match"}),
    "fold": frozenset({"fold", "split"}),
    "group": frozenset({"group"}),
    "id1": frozenset({"id1", "id_1", "identity1", "identity_1", "person1", "person_1", "name1"}),
    "id2": frozenset({"id2", "id_2", "identity2", "identity_2", "person2", "person_2", "name2"}),
}
"""What a column of pairs can mean, and the names, in lower case, that several projects give it."""

_YES = {"1", "1.0", "true", "yes", "same", "genuine", "match"}
_NO = {"0", "0.0", "false", "no", "different", "impostor", "mismatch"}
_TRUTH = dict.fromkeys(_YES, True) | dict.fromkeys(_NO, False)
# Tab first: names hold commas more often than semicolons, and semicolons more often than tabs.
_SEPARATORS = "\t;,"
_QUOTED = 120  # characters of a line that a message shows


def text_lines(path: Path) -> Iterator[Line]:
    """The lines of a UTF-8 file that aren't blank, one by one, without their ends.

    Raises:
        ValueError: the file is missing, no text, or has no such line.
    """
    found = False
    try:
        with path.open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, 1):
                if not line.isspace():
                    found = True
                    yield number, line.rstrip("\n")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not a text file in UTF-8. Save it again as such.") from None
    if not found:
        raise ValueError(f"{path}: is empty.")


def malformed(path: Path, number: int, found: str, expected: str) -> ValueError:
    """The error for a line that isn't as expected, with what was found there, cut where it is long."""
    found = found.strip()
    shown = found if len(found) <= _QUOTED else found[:_QUOTED] + "..."
    return ValueError(f"{path}, line {number}: expected {expected}, found {shown!r}.")


def whole_number(text: str) -> int | None:
    """A whole number of at most nine digits (1, -1, 1.0); None for any other text."""
    digits = text.strip().removesuffix(".0")
    return int(digits) if digits.removeprefix("-").isdecimal() and len(digits) <= 9 else None


def split_cells(line: str, separator: str) -> list[str] | None:
    """The cells of one line of CSV, without the space around them; None where a quote isn't closed."""
    try:
        return [cell.strip() for cell in next(csv.reader([line], **_dialect(separator)))]
    except csv.Error:
        return None


def choose_separator(line: str, least: int) -> str:
    """The tab, semicolon or comma that splits a line into at least so many cells; a comma where none does."""
    return next((mark for mark in _SEPARATORS if len(split_cells(line, mark) or ()) >= least), ",")


def find_columns(path: Path, header: Sequence[str], meanings: Mapping[str, Collection[str]]) -> dict[str, int]:
    """Where a file's header has each column that it names: from meaning to position.

    Raises:
        ValueError: two columns could mean the same.
    """
    names = [name.strip().lower() for name in header]
    found = {what: [i for i, name in enumerate(names) if name in known] for what, known in meanings.items()}
    for what, places in found.items():
        if len(places) > 1:
            columns = " and ".join(f"`{header[place]}`" for place in places)
            raise ValueError(f"{path}: its header names the {what} column twice ({columns}). Rename or remove one.")
    return {what: places[0] for what, places in found.items() if places}


@dataclass(frozen=True)
class Table:
    """Columns of a CSV file, as text.

    Attributes:
        path: the file.
        columns: from what a column means to its cells, without the space around them.
        lines: (n) line number of each row.
    """

    path: Path
    columns: Mapping[str, list[str]]
    lines: Sequence[int]

    def __len__(self) -> int:
        return len(self.lines)

    def where(self, row: int) -> str:
        """A row's place in words."""
        return f"line {self.lines[row]}"

    def malformed(self, row: int, what: str, expected: str) -> ValueError:
        """The error for one cell."""
        return malformed(self.path, self.lines[row], self.columns[what][row], expected)

    def truths(self) -> NDArray[np.bool_]:
        """The label column: (n,) bool, True for the same person.

        Raises:
            ValueError: a label is no such word; quotes it.
        """
        labels = [_TRUTH.get(cell.lower()) for cell in self.columns["label"]]
        if None in labels:
            row = labels.index(None)
            expected = "a label of 1 (same person) or 0"
            if row == 0:
                expected += " (or a header that names the columns)"
            raise self.malformed(row, "label", expected)
        return np.array(labels, np.bool_)

    def whole_numbers(self, what: str) -> NDArray[np.int64] | None:
        """A column of whole numbers: (n,) int64; None where the file has no such column.

        Raises:
            ValueError: a cell holds something else; quotes it.
        """
        if what not in self.columns:
            return None
        numbers = [whole_number(cell) for cell in self.columns[what]]
        if None in numbers:
            raise self.malformed(numbers.index(None), what, f"a whole number in the {what} column")
        return np.array(numbers, np.int64)

    def both(self, one: str, two: str) -> tuple[list[str] | None, list[str] | None]:
        """Two columns of names that belong together; twice None where the file has neither.

        Raises:
            ValueError: one column without the other, or an empty cell.
        """
        if one not in self.columns and two not in self.columns:
            return None, None
        for what in (one, two):
            if what not in self.columns:
                raise ValueError(f"{self.path}: the {one} and {two} columns belong together; the {what} one lacks.")
            if "" in self.columns[what]:
                raise self.malformed(self.columns[what].index(""), what, f"a name in the {what} column")
        return self.columns[one], self.columns[two]

    def people(self, same: NDArray[np.bool_]) -> tuple[list[str] | None, list[str] | None]:
        """The columns of people's names, id1 and id2; twice None where the file has none.

        Args:
            same: (n,) bool, the labels, which the names must bear out.

        Raises:
            ValueError: one column without the other, an empty name, or names that contradict a label.
        """
        first, second = self.both("id1", "id2")
        if first is None or second is None:
            return None, None
        for row, (one, two, label) in enumerate(zip(first, second, same.tolist(), strict=True)):
            if (one == two) != label:
                told = "same person" if label else "different people"
                raise ValueError(
                    f"{self.path}, {self.where(row)}: the label says {told}, but id1 is {one!r} and id2 {two!r}. "
                    "Correct the label or the names."
                )
        return first, second


def read_columns(
    path: Path, lines: Iterable[Line], separator: str, places: Mapping[str, int], width: int, row_form: str
) -> Table:
    """Read rows of CSV into columns.

    Args:
        path: the file, for messages.
        lines: its lines below the header.
        separator: between cells.
        places: position of each wanted column.
        width: cells of a row; further ones must be empty.
        row_form: what a row should be, for messages.

    Raises:
        ValueError: a row has too few or too many cells, or a quote that isn't closed in its line.
    """
    columns: dict[str, list[str]] = {what: [] for what in places}
    adders = [(columns[what].append, place) for what, place in places.items()]
    numbers: list[int] = []
    least = 1 + max(places.values())
    for number, cells in _rows(path, lines, separator):
        if len(cells) < least or (len(cells) > width and any(map(str.strip, cells[width:]))):
            raise malformed(path, number, separator.join(cells), row_form)
        numbers.append(number)
        for add, place in adders:
            add(cells[place].strip())
    return Table(path, columns, numbers)


def _rows(path: Path, lines: Iterable[Line], separator: str) -> Iterator[tuple[int, list[str]]]:
    """The cells of each line, with its number. A row never goes on in the next line."""
    number, line, rows = 0, "", 0
    expected = "cells whose quotes close right before a separator"

    def texts() -> Iterator[str]:
        nonlocal number, line
        for following in lines:
            if reader.line_num > rows:  # the reader asks for more though the last line has not become a row
                raise malformed(path, number, line, expected)
            number, line = following
            yield line

    reader = csv.reader(texts(), **_dialect(separator))
    try:
        for cells in reader:
            rows += 1
            yield number, cells
    except csv.Error:
        raise malformed(path, number, line, expected) from None


def _dialect(separator: str) -> dict[str, Any]:
    return {"delimiter": separator, "strict": True, "skipinitialspace": True}


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV text, quoted where a name holds a comma, a quote or an end of line."""
    text = io.StringIO()
    plain = csv.writer(text, lineterminator="\n")
    # Before Python 3.13 the module leaves a carriage return bare, and then takes it for a row's end.
    quoting = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        (quoting if any(isinstance(cell, str) and "\r" in cell for cell in row) else plain).writerow(row)
    return text.getvalue()


def csv_bytes(rows: Iterable[Sequence[object]]) -> bytes:
    """Rows as a CSV file's bytes; names that are not UTF-8, as old archives have, keep theirs.

    Python reads it back with `encoding="utf-8", errors="surrogateescape", newline=""`.
    """
    return csv_text(rows).encode("utf-8", "surrogateescape")


def columns_csv(columns: Mapping[str, Sequence[object] | None]) -> str:
    """Columns of equal length as CSV text under their names; those that are None are left out."""
    written = {name: column for name, column in columns.items() if column is not None}
    return csv_text([tuple(written), *zip(*written.values(), strict=True)])
