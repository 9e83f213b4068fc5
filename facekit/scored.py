"""Scored pairs: what every figure of verification is computed from, whichever system gave the scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from facekit.folds import number_people
from facekit.metrics import BoolArray, FloatArray, IntArray

Names = NDArray[Any]
"""(n,) people: integers, or texts."""

Kind = Literal["distance", "dissimilarity", "cosine", "similarity"]
"""What a system's scores are. distance: of unit vectors, 0 to 2, small means same; dissimilarity: any other numbers
of which small ones mean same; cosine: of unit vectors, -1 to 1; similarity: any other of which large ones do."""


@dataclass(frozen=True, eq=False)
class ScoredPairs:
    """Pairs with the score that a system gave each, turned so that small means same.

    Attributes:
        distances: (n,) float64, small for the same person: the scores, or minus the scores where large means same;
            NaN exactly where `failed`.
        same: (n,) bool, True for a genuine pair.
        failed: (n,) bool, pairs of which a picture gave no face. They count as rejected.
        kind: what the scores are; see `Kind`.
        folds: (n,) int64, the folds that the pairs' file defines; None where it has none.
        ids1: (n,) number or name of each pair's first person; None: unknown.
        ids2: (n,) of the second; equal to `ids1` in genuine pairs and in no others. None: unknown.
        first: (n) names of the first pictures, for tables and strips; None: unknown.
        second: (n) of the second pictures; None: unknown.
    """

    distances: FloatArray
    same: BoolArray
    failed: BoolArray
    kind: Kind = "distance"
    folds: IntArray | None = None
    ids1: Names | None = None
    ids2: Names | None = None
    first: list[str] | None = None
    second: list[str] | None = None

    def __post_init__(self) -> None:
        """See that the parts fit together.

        Raises:
            ValueError: there is no pair, lengths differ, NaN and `failed` disagree, or people contradict `same`.
        """
        if not len(self.distances):
            raise ValueError("There are no pairs: `distances` is empty.")
        for name in ("same", "failed", "folds", "ids1", "ids2"):
            part = getattr(self, name)
            if part is not None and np.shape(part) != self.distances.shape:
                raise ValueError(
                    f"`{name}` and `distances` must be two lists of one length. "
                    f"Received: shapes {np.shape(part)} and {self.distances.shape}."
                )
        unscored = np.flatnonzero(np.isnan(self.distances) != self.failed)
        if unscored.size:
            raise ValueError(
                f"Pair {unscored[0]}: `failed` must mark the pairs whose distance is NaN, and no others."
            )
        if (self.ids1 is None) != (self.ids2 is None):
            raise ValueError("`ids1` and `ids2` belong together: give both, or neither.")
        if self.ids1 is not None and self.ids2 is not None:
            wrong = np.flatnonzero((self.ids1 == self.ids2) != self.same)
            if wrong.size:
                raise ValueError(
                    f"`ids1` and `ids2` contradict `same` in {wrong.size} of {self.same.size} pairs, first at "
                    f"index {wrong[0]}."
                )

    def __len__(self) -> int:
        return self.distances.size

    @property
    def ranked(self) -> FloatArray:
        """(n,) the distances with failed pairs at infinity, where no threshold accepts them."""
        return np.where(self.failed, np.inf, self.distances)

    @property
    def people(self) -> tuple[IntArray, IntArray] | None:
        """Each pair's two people, numbered from 0; None where they are unknown."""
        return None if self.ids1 is None or self.ids2 is None else number_people(self.ids1, self.ids2)

    @property
    def large_means_same(self) -> bool:
        """Whether the system's own scores are similarities."""
        return self.kind in ("cosine", "similarity")

    def native(self, distance: float) -> float:
        """A distance or threshold in the system's own scores."""
        return -distance if self.large_means_same else distance

    @property
    def unit_distances(self) -> FloatArray | None:
        """(n,) distances of unit vectors, 0 to 2, failed pairs at infinity; None where the scores are no such."""
        if self.kind == "distance":
            return self.ranked
        if self.kind == "cosine":
            return np.where(self.failed, np.inf, np.sqrt(np.maximum(2 + 2 * self.distances, 0)))
        return None

    def chosen(self, which: BoolArray) -> ScoredPairs:
        """The pairs of a mask (n,) bool."""

        def kept(names: list[str] | None) -> list[str] | None:
            return None if names is None else [name for name, keep in zip(names, which, strict=True) if keep]

        folds, ids1, ids2 = (None if part is None else part[which] for part in (self.folds, self.ids1, self.ids2))
        return ScoredPairs(
            self.distances[which],
            self.same[which],
            self.failed[which],
            self.kind,
            folds,
            ids1,
            ids2,
            kept(self.first),
            kept(self.second),
        )


def refuse_one_class(same: BoolArray, where: str = "The list") -> None:
    """See that there are pairs of both kinds.

    Args:
        same: (n,) bool.
        where: the list, for the sentence.

    Raises:
        ValueError: there are not.
    """
    if same.all() or not same.any():
        kind = "genuine" if same.all() else "impostor"
        raise ValueError(f"{where}: all {same.size} pairs are {kind}. A verifier is judged on both kinds.")
