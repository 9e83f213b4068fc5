"""Read the lists that verification is judged on: pairs, triplets, people. Every line is checked."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np

from facekit.cfp import cfp_protocol, read_cfp
from facekit.pairs import Pairs, as_posix, fold_warnings, pair_faults, plain_name, refuse_faults, refuse_folds
from facekit.tables import (
    PAIR_COLUMNS,
    Line,
    choose_separator,
    columns_csv,
    find_columns,
    malformed,
    read_columns,
    split_cells,
    text_lines,
    whole_number,
)
from facekit.tables import csv_text as csv_text  # its users know it by this module

_NAME_HEADERS = {"name", "person", "identity", "people", "id", "class_id", "subject"}


def read_pairs(path: Path) -> Pairs:
    """Read pairs in LFW's own format (pairs.txt with folds, pairsDev*.txt without), as CSV, or CFP's folders.

    LFW: a first line `folds<TAB>pairs` (or `pairs`), then `name n1 n2` (same) and `name1 n1 name2 n2`
    (different), meaning name/name_0001.jpg.

    CSV: two paths and a label (1 = same). A header may name these columns, in any order and letter case, and
    further ones: fold (or split), a whole number; group, any word; id1 and id2, the names of the two people.
    Without a header the first three columns count. The separator is a comma, a semicolon or a tab; names may
    stand in quotes.

    CFP: the folder `Protocol/Split/FF` or `Protocol/Split/FP`; see `facekit.cfp`.

    Raises:
        ValueError: the file is missing or empty, has a malformed line, compares a picture with itself, has a pair
            twice (in either order), or has folds that cannot serve. Names the line and what to do.
    """
    if path.is_dir():
        return read_cfp(*cfp_protocol(path))
    lines = text_lines(path)
    first = next(lines)
    header = [whole_number(cell) for cell in first[1].split()]
    if len(header) <= 2 and None not in header:
        return _read_lfw(path, [number for number in header if number is not None], list(lines))
    return _read_csv(path, first, lines)


def _read_lfw(path: Path, header: list[int], lines: list[Line]) -> Pairs:
    folds, each = (header[0], header[1]) if len(header) == 2 else (1, header[0])
    if each < 1 or folds < 1 or (len(header) == 2 and folds < 2):
        raise ValueError(
            f"{path}: its first line must be `folds pairs`, at least 2 and 1, or `pairs`; found {header}."
        )
    wanted, found = 2 * folds * each, len(lines)
    if found != wanted:
        raise ValueError(f"{path}: its first line promises {wanted} pairs ({header}), but {found} lines follow.")
    read = [_lfw_pair(path, *line) for line in lines]
    first, second = [pair[0] for pair in read], [pair[1] for pair in read]
    same = np.array([pair[2] for pair in read])
    for fold, genuine in enumerate(same.reshape(folds, 2 * each).sum(axis=1)):
        if genuine != each:
            start, end = (lines[row][0] for row in (2 * each * fold, 2 * each * (fold + 1) - 1))
            raise ValueError(
                f"{path}, lines {start} to {end}: expected {each} pairs of one person and {each} of two, as the "
                f"first line promises; found {genuine} and {2 * each - genuine}."
            )
    if len(header) < 2:
        refuse_faults(path, first, second, same, lambda row: f"line {lines[row][0]}")
        return Pairs(first, second, same)
    # A list with folds is a published protocol: a corrected one would be another, whose figures don't compare.
    faults = pair_faults(first, second, same, lambda row: f"line {lines[row][0]}")
    warnings = [f"{path}, {fault.words}. The list is judged as it was published." for fault in faults]
    return Pairs(first, second, same, np.repeat(np.arange(folds), 2 * each), warnings=warnings)


def _lfw_pair(path: Path, number: int, line: str) -> tuple[str, str, bool]:
    """One line of LFW's format: two pictures, and whether they are of one person."""
    # Names may hold spaces where tabs separate the cells.
    cells = [cell.strip() for cell in line.strip().split("\t")] if "\t" in line else line.split()
    same = len(cells) == 3
    if same:
        cells.insert(2, cells[0])
    pictures = [whole_number(cell) or 0 for cell in cells[1::2]]
    if len(cells) != 4 or min(pictures) < 1 or not (cells[0] and cells[2]):
        raise malformed(path, number, line, "`name n1 n2` or `name1 n1 name2 n2`")
    if not same and cells[0] == cells[2]:
        raise malformed(path, number, line, "two people, or `name n1 n2` for one")
    first, second = (f"{name}/{name}_{picture:04d}.jpg" for name, picture in zip(cells[::2], pictures, strict=True))
    return first, second, same


def _read_csv(path: Path, header: Line, lines: Iterable[Line]) -> Pairs:
    row_form = "two paths and a label, `path1,path2,label`"
    separator = choose_separator(header[1], 3)
    cells = split_cells(header[1], separator)
    if cells is None:
        raise malformed(path, *header, "cells whose quotes close right before a separator")
    places = find_columns(path, cells, PAIR_COLUMNS)
    if not {"first", "second", "label"} <= places.keys():
        places, lines = {"first": 0, "second": 1, "label": 2}, chain([header], lines)
    table = read_columns(path, lines, separator, places, len(cells), row_form)
    if not len(table):
        raise ValueError(f"{path}: has a header but no pairs.")
    same = table.truths()
    first, second = ([as_posix(name) for name in names or ()] for names in table.both("first", "second"))
    refuse_faults(path, first, second, same, table.where)
    folds = table.whole_numbers("fold")
    refuse_folds(path, folds, same)
    ids1, ids2 = table.people(same)
    warnings = [f"{path}: {warning}" for warning in fold_warnings(folds)]
    return Pairs(first, second, same, folds, ids1, ids2, table.columns.get("group"), warnings)


def read_triplets(path: Path) -> list[tuple[str, str, str]]:
    """Read triplets: anchor, positive and negative path a line, separated by commas, semicolons, tabs or spaces.

    A first line `anchor,positive,negative` is passed over.

    Raises:
        ValueError: the file is missing, empty, or has a malformed line, which is quoted with its number; a line
            names a picture twice or repeats another line.
    """
    triplets: dict[tuple[str, str, str], int] = {}
    for number, line in text_lines(path):
        cells = split_cells(line, choose_separator(line, 3)) or []
        if len(cells) == 1:
            cells = line.split()
        if len(cells) != 3 or not all(cells):
            raise malformed(path, number, line, "three paths: anchor, positive, negative")
        if not triplets and [cell.lower() for cell in cells] == ["anchor", "positive", "negative"]:
            continue
        triplet = (as_posix(cells[0]), as_posix(cells[1]), as_posix(cells[2]))
        if len({*triplet}) < 3:
            raise malformed(path, number, line, "three different pictures (remove the line)")
        earlier = triplets.setdefault(triplet, number)
        if earlier != number:
            raise ValueError(f"{path}, line {number}: repeats the triplet of line {earlier}. Remove one of them.")
    if not triplets:
        raise ValueError(f"{path}: has a header but no triplets.")
    return list(triplets)


def read_people(path: Path) -> set[str]:
    """Read names of people, as written; compare them by `plain_name`.

    One name a line, or a CSV file with the name in the first column, with or without a header; LFW's lists of
    people are such files. Lines that begin with # are comments. A file counts as CSV where each of its lines has
    equally many cells; otherwise a comma belongs to the name.

    Raises:
        ValueError: the file is missing, empty, or names nobody.
    """
    lines = [(number, line.strip()) for number, line in text_lines(path) if not line.lstrip().startswith("#")]
    if any("\t" in line for _, line in lines):
        # LFW's people.txt: counts of people stand alone between lines of `name<TAB>pictures`.
        lines = [(number, line) for number, line in lines if "\t" in line or whole_number(line) is None]
    separator = choose_separator(lines[0][1], 2) if lines else ","
    rows = [split_cells(line, separator) for _, line in lines]
    if len({len(row or ()) for row in rows}) == 1:
        names = [row[0] if row else line for row, (_, line) in zip(rows, lines, strict=True)]
    else:
        names = [line for _, line in lines]
    if names and names[0].lower() in _NAME_HEADERS:
        names, lines = names[1:], lines[1:]
    for name, (number, line) in zip(names, lines, strict=True):
        if not plain_name(name):
            raise malformed(path, number, line, "a person's name")
    if not names:
        raise ValueError(f"{path}: names nobody.")
    return set(names)


def pairs_csv(pairs: Pairs) -> str:
    """Pairs as CSV text that `read_pairs` reads back, with the columns that there are."""
    return columns_csv(
        {
            "path1": pairs.first,
            "path2": pairs.second,
            "label": pairs.same.astype(int).tolist(),
            "fold": None if pairs.folds is None else pairs.folds.tolist(),
            "group": pairs.groups,
            "id1": pairs.ids1,
            "id2": pairs.ids2,
        }
    )
