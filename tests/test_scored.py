"""Scored pairs: parts that must agree, and scores in either direction."""

from __future__ import annotations

import numpy as np
import pytest

from facekit.scored import ScoredPairs

SAME = np.array([True, False, True])
FINE = np.zeros(3, bool)


def scored(distances=(0.1, 0.9, 0.3), same=SAME, failed=FINE, **parts) -> ScoredPairs:
    return ScoredPairs(np.array(distances), same, failed, **parts)


def test_failed_pairs_rank_last() -> None:
    failed = np.array([False, True, False])
    assert scored((0.1, np.nan, 0.3), failed=failed).ranked.tolist() == [0.1, np.inf, 0.3]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"distances": ()}, "no pairs"),
        ({"same": SAME[:2]}, "`same` and `distances` must be two lists of one length"),
        ({"folds": np.zeros(2, int)}, "`folds` and `distances`"),
        ({"distances": (0.1, np.nan, 0.3)}, "Pair 1: `failed` must mark"),
        ({"failed": np.array([False, False, True])}, "Pair 2: `failed` must mark"),
        ({"ids1": np.arange(3)}, "belong together"),
        ({"ids1": np.array([1, 2, 3]), "ids2": np.array([1, 2, 3])}, "contradict `same` in 1 of 3 pairs, first at"),
    ],
)
def test_parts_that_do_not_fit_are_refused(changes, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        scored(**changes)


def test_thresholds_come_back_in_the_systems_own_scores() -> None:
    assert scored().native(0.4) == 0.4
    assert scored(kind="similarity").native(-0.4) == 0.4


def test_cosines_have_distances_of_unit_vectors_and_others_have_none() -> None:
    cosines = np.array([1.0, -1.0, 0.5])
    found = scored(-cosines, kind="cosine").unit_distances
    assert found is not None
    assert found.tolist() == pytest.approx([0, 2, 1])
    assert scored(kind="dissimilarity").unit_distances is None


def test_chosen_pairs_keep_all_their_parts() -> None:
    whole = scored(folds=np.array([0, 1, 2]), ids1=np.array([1, 2, 3]), ids2=np.array([1, 9, 3]), first=[*"abc"])
    part = whole.chosen(np.array([True, False, True]))
    assert part.distances.tolist() == [0.1, 0.3] and part.first == ["a", "c"] and part.second is None
    assert part.folds is not None and part.folds.tolist() == [0, 2]
    assert part.people is not None and part.people[0].tolist() == [0, 1]
