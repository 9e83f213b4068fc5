"""Group files: which sex, age band, ethnicity, camera or anything else pictures or people belong to, as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from facekit.pairs import as_posix
from facekit.tables import Line, choose_separator, malformed, split_cells, text_lines

Names = NDArray[np.str_]


def read_groups(path: Path) -> dict[str, dict[str, str]]:
    """Read what groups pictures or people belong to.

    A CSV file with a header, separated by commas, semicolons or tabs. The first column (`path`, `picture`,
    `identity`, `person`, `name`, or any other word) holds pictures or people's names; each further column is a
    grouping of its own, such as `sex`. An empty cell: unknown.

    Returns:
        From each further column's name to a dictionary from picture or person to value, where known.

    Raises:
        ValueError: the file is missing or empty, has no header or no further column, or a row has too few or too
            many cells, no name, or other values than an earlier row of the same name.
    """
    lines = list(text_lines(path))
    header, rows = _read_rows(path, lines)
    _check_header(path, lines[0], header, [cells for _, cells in rows])
    values: dict[str, list[str]] = {}
    seen: dict[str, int] = {}
    for number, (written, *cells) in rows:
        name = as_posix(written)
        if values.setdefault(name, cells) != cells:
            raise ValueError(
                f"{path}, line {number}: {name} is {', '.join(cells)} here, but {', '.join(values[name])} on line "
                f"{seen[name]}. Keep one of the two lines."
            )
        seen.setdefault(name, number)
    return {
        column: {name: cells[place] for name, cells in values.items() if cells[place]}
        for place, column in enumerate(header[1:])
    }


def _read_rows(path: Path, lines: Sequence[Line]) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The cells of the header, and of each row with its line number."""
    separator = choose_separator(lines[0][1], 2)
    header = split_cells(lines[0][1], separator) or []
    rows = []
    for number, line in lines[1:]:
        cells = split_cells(line, separator)
        if cells is None or len(cells) != len(header) or not cells[0]:
            expected = f"{len(header)} cells, as the header has, the first one a picture or person"
            raise malformed(path, number, line, expected)
        rows.append((number, cells))
    return header, rows


def _check_header(path: Path, line: Line, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Refuse a first line that is not the different names of two or more columns, or has nothing below it."""
    if len(header) < 2 or "" in header or len(set(header)) < len(header):
        expected = "a header that names two or more different columns, such as `person,sex`"
        raise malformed(path, *line, expected)
    # A path, or a word that is found below in its column, is a value and no name of a column.
    values = {(place, cell) for row in rows for place, cell in enumerate(row)}
    if "/" in as_posix(header[0]) or not values.isdisjoint(enumerate(header)):
        raise malformed(path, *line, "a header, such as `person,sex`, before the first picture or person")
    if not rows:
        raise ValueError(f"{path}: has a header but no rows. Give each picture or person a line.")


def groups_of_pairs(
    table: Mapping[str, Mapping[str, str]],
    first: Sequence[str],
    second: Sequence[str],
    people: tuple[Sequence[str], Sequence[str]] | None = None,
) -> dict[str, tuple[Names, Names]]:
    """The groups of each pair's two pictures, looked up by picture, then by person, then by the picture's folder.

    Args:
        table: what `read_groups` gave.
        first: (n) first picture of each pair, such as `Ed_Smart/Ed_Smart_0001.jpg`, or its person.
        second: (n) second picture, likewise.
        people: the person of each first and of each second picture, where somebody says; None: folders alone.

    Returns:
        Of each column, the values of the first and of the second pictures: two (n,) arrays of str, "" for unknown.

    Raises:
        ValueError: the table knows none of the pictures and people.
    """
    known: set[str] = set().union(*table.values())
    owners = dict(zip([*first, *second], [*people[0], *people[1]], strict=True)) if people else {}
    names = {name: _lookups(name, owners.get(name)) for name in dict.fromkeys([*first, *second])}
    if not any(known.intersection(lookups) for lookups in names.values()):
        wanted, held = next(iter(names), ""), next(iter(known), "")
        raise ValueError(
            f"The group file knows none of the {len(names):,} pictures of the pairs, and none of their people. The "
            f"first picture is {wanted!r}; the file has names such as {held!r}. Name pictures or people as the "
            "pairs do."
        )
    found = {}
    for column, values in table.items():
        of = {name: next((values[key] for key in keys if key in values), "") for name, keys in names.items()}
        found[column] = (
            np.array([of[name] for name in first], np.str_),
            np.array([of[name] for name in second], np.str_),
        )
    return found


def _lookups(name: str, person: str | None) -> list[str]:
    """Where a picture is looked up: itself, its person, its folder's whole path, its folder's name."""
    path = PurePosixPath(as_posix(name))
    return [path.as_posix(), *([person] if person else []), path.parent.as_posix(), path.parent.name]
