"""Score files: the scores that any system gave to pairs, as CSV with a header. Every line is checked.

    score,label[,fold][,group][,id1,id2][,path1,path2]

The score may be named by what it is, such as `similarity` or `distance`. A label of 1 means the same person. An
empty score means that a picture of the pair gave no face: the pair counts as rejected.
"""

from __future__ import annotations

from math import isfinite, nan
from pathlib import Path
from typing import Any

import numpy as np

from facekit.metrics import BoolArray, FloatArray
from facekit.pairs import as_posix, refuse_faults, refuse_folds
from facekit.scored import Kind, ScoredPairs
from facekit.tables import (
    PAIR_COLUMNS,
    Table,
    choose_separator,
    columns_csv,
    find_columns,
    malformed,
    read_columns,
    split_cells,
    text_lines,
)

DISTANCES = frozenset({"distance", "dist", "dissimilarity", "cosine_distance", "euclidean", "l2"})
NOT_OF_UNIT_VECTORS = frozenset({"dissimilarity", "cosine_distance"})
SIMILARITIES = frozenset({"similarity", "sim", "cosine", "cos", "cosine_similarity", "similarity_score"})
_COLUMNS = {**PAIR_COLUMNS, "score": frozenset({"score", "scores"}) | DISTANCES | SIMILARITIES}
LARGEST = 1e100
_OVER = 1e-6  # by which a rounded cosine may pass 1


def read_scores(path: Path, distance: bool) -> tuple[ScoredPairs, list[str] | None]:
    """Read scored pairs.

    What the scores are is told from their range. With `distance`: "distance", of unit vectors, where all lie in
    0 to 2 and the column isn't called a cosine distance, else "dissimilarity". Without: "cosine" where all lie
    in -1 to 1, else "similarity". Probabilities and other scores from 0 to 1 thus count as cosines, and
    dissimilarities of small range as distances; that bears on the cost threshold only, whose grid is one of unit
    vectors' distances.

    Args:
        path: a CSV file; see the module. Its separator is a comma, a semicolon or a tab.
        distance: whether small scores mean the same person.

    Returns:
        The pairs, with folds, names of people and pictures where the file has them, and the group of each pair, ""
        where its cell is empty; None where the file has no group column. Folds may differ in size:
        `facekit.pairs.fold_warnings` says so.

    Raises:
        ValueError: the file is missing or empty; a column is missing; a line is malformed; a score is not a finite
            number; there is one class only; a pair of pictures occurs twice; people contradict labels; folds cannot
            serve; or the score column's name contradicts `distance`. Names the line and what to do.
    """
    table, column = _read_table(path, distance)
    scores, same = _scores(table), table.truths()
    if same.all() or not same.any():
        kind = "genuine (label 1)" if same.all() else "impostor (label 0)"
        raise ValueError(f"{path}: all {same.size:,} pairs are {kind}. Figures need pairs of both kinds.")
    failed = np.isnan(scores)
    if failed.all():
        raise ValueError(f"{path}: no line has a score: there is nothing to judge.")
    first, second = _pictures(table, same)
    folds = table.whole_numbers("fold")
    refuse_folds(path, folds, same)
    id1, id2 = (_name_array(names) for names in table.people(same))
    kind, turned = _kind(scores[~failed], column, distance), scores if distance else -scores
    scored = ScoredPairs(turned, same, failed, kind, folds, id1, id2, first, second)
    return scored, table.columns.get("group")


def _read_table(path: Path, distance: bool) -> tuple[Table, str]:
    """The file's columns, and the name of the one with the scores."""
    lines = text_lines(path)
    number, header = next(lines)
    separator = choose_separator(header, 2)
    cells = split_cells(header, separator) or []
    places = find_columns(path, cells, _COLUMNS)
    missing = [what for what in ("score", "label") if what not in places]
    if missing:
        raise malformed(path, number, header, f"a header with a {missing[0]} column, such as `score,label`")
    column = cells[places["score"]]
    _check_direction(path, column, distance)
    table = read_columns(path, lines, separator, places, len(cells), "as many cells as the header has")
    if not len(table):
        raise ValueError(f"{path}: has a header but no pairs.")
    return table, column.lower()


def _check_direction(path: Path, column: str, distance: bool) -> None:
    small = column.lower() in DISTANCES
    if small == distance or column.lower() not in DISTANCES | SIMILARITIES:
        return
    size, remedy = ("small", "Add `--distance`") if small else ("large", "Leave `--distance` out")
    raise ValueError(
        f"{path}: its column `{column}` says that a {size} score means the same person. {remedy}, or name the "
        "column `score`."
    )


def _scores(table: Table) -> FloatArray:
    """The scores as they stand: (n,) float64, NaN where the cell is empty."""
    scores: list[float] = []
    for row, cell in enumerate(table.columns["score"]):
        try:
            score = float(cell) if cell else nan
        except ValueError:
            raise table.malformed(row, "score", "a number with a decimal point, or nothing for no face") from None
        # Sums and squares of larger ones would overflow.
        if cell and (not isfinite(score) or abs(score) > LARGEST or "_" in cell):
            raise table.malformed(
                row, "score", "a finite number below 1e100 (where a picture gave no face, an empty cell)"
            )
        scores.append(score)
    return np.array(scores)


def _pictures(table: Table, same: BoolArray) -> tuple[list[str] | None, list[str] | None]:
    """The names of the pictures, where the file has them; refuses pairs that distort figures."""
    first, second = table.both("first", "second")
    if first is None or second is None:
        return None, None
    first, second = [as_posix(name) for name in first], [as_posix(name) for name in second]
    refuse_faults(table.path, first, second, same, table.where)
    return first, second


def _name_array(names: list[str] | None) -> Any:
    """Names as `ScoredPairs` takes them, beside numbers: (n,) object, which holds each name once."""
    return None if names is None else np.array(names, dtype=object)


def _kind(scores: FloatArray, column: str, distance: bool) -> Kind:
    if distance:
        fits = scores.min() >= 0 and scores.max() <= 2 and column not in NOT_OF_UNIT_VECTORS
        return "distance" if fits else "dissimilarity"
    return "cosine" if np.abs(scores).max() <= 1 + _OVER else "similarity"


def scores_csv(scored: ScoredPairs, groups: list[str] | None = None) -> str:
    """Scored pairs as CSV text that `read_scores` reads back, to the last digit.

    Columns: path1,path2,label, then `distance` (read with `distance`) or `similarity`, then fold, group, id1,id2;
    those that there are. A failed pair has an empty score.

    Args:
        scored: n pairs.
        groups: (n) group of each.
    """
    pairs = zip(scored.distances.tolist(), scored.failed.tolist(), strict=True)
    columns = {
        "path1": scored.first,
        "path2": scored.second,
        "label": scored.same.astype(int).tolist(),
        "similarity" if scored.large_means_same else "distance": [
            "" if failed else scored.native(distance) for distance, failed in pairs
        ],
        "fold": None if scored.folds is None else scored.folds.tolist(),
        "group": groups,
        "id1": None if scored.ids1 is None else scored.ids1.tolist(),
        "id2": None if scored.ids2 is None else scored.ids2.tolist(),
    }
    return columns_csv(columns)
