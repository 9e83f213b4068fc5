"""Pairs of probes and distractors: distances of near duplicates, every pair once, the ID rate against loops."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facekit import similarities
from facekit.metrics import USUAL_RATES, tpr_at_fpr
from facekit.similarities import COSINE_EDGES, Similarities, blocks, compare_probes, squared_distances
from tests import reference_metrics as reference

quickly = settings(max_examples=100, deadline=None, derandomize=True)

# Few directions, so that ties and duplicates abound; 0 is a picture without a face.
DIRECTIONS = [[math.nan] * 3, [1, 0, 0], [0, 1, 0], [0, 0, -1], [-1, 0, 0], [0.6, 0.8, 0], [0.8, 0.6, 0]]


def unit_rows(n: int, seed: int = 0, width: int = 8) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def looped(probes: np.ndarray, people: np.ndarray, others: np.ndarray) -> dict[str, list[float]]:
    """Distances of the three kinds of pairs, infinite where a picture has no face."""

    def distance(one: np.ndarray, other: np.ndarray) -> float:
        apart = float(np.linalg.norm(one.astype(np.float64) - other.astype(np.float64)))
        return math.inf if math.isnan(apart) else round(apart, 5)

    kinds: dict[str, list[float]] = {"genuine": [], "impostor": [], "distractor": []}
    for i, j in itertools.combinations(range(len(probes)), 2):
        kinds["genuine" if people[i] == people[j] else "impostor"].append(distance(probes[i], probes[j]))
    for probe, other in itertools.product(probes, others):
        kinds["distractor"].append(distance(probe, other))
    return kinds


def test_near_duplicates_keep_their_distance_and_equal_rows_have_none() -> None:
    rows = unit_rows(40, width=512)
    step = unit_rows(40, seed=1, width=512)
    for apart in (1e-5, 1e-4, 1e-3):
        near = rows.astype(np.float64) + apart * step
        squares = squared_distances(rows, near)
        exact = np.linalg.norm(rows.astype(np.longdouble) - near, axis=1)
        np.testing.assert_allclose(np.sqrt(np.diag(squares)), exact.astype(float), rtol=1e-4)
    assert (np.diag(squared_distances(rows, rows.astype(np.float64))) == 0).all()
    assert squares.dtype == np.float32


def test_distances_equal_those_of_differences() -> None:
    rows, keys = unit_rows(30), unit_rows(20, seed=1).astype(np.float64)
    expected = np.linalg.norm(rows[:, None].astype(np.float64) - keys, axis=2) ** 2
    np.testing.assert_allclose(squared_distances(rows, keys), expected, rtol=1e-6)


@pytest.mark.parametrize(("rows", "width"), [(0, 5), (1, 10**9), (7, 3), (10**7, 2)])
def test_blocks_cover_every_row_once_within_the_bound(rows: int, width: int) -> None:
    covered = 0
    for block in blocks(rows, width):
        assert block.start == covered
        covered = block.stop
        assert block.stop - block.start == 1 or (block.stop - block.start) * width <= 2**22
    assert covered == rows


@quickly
@given(
    st.lists(st.tuples(st.sampled_from(range(7)), st.integers(0, 2)), min_size=1, max_size=7),
    st.lists(st.sampled_from(range(7)), max_size=4),
    st.sampled_from([0, similarities.EXACT_PAIRS]),
)
def test_counts_and_id_rate_equal_the_loops(probes: list[tuple[int, int]], others: list[int], exact: int) -> None:
    rows = np.array([DIRECTIONS[place] for place, _ in probes], np.float32)
    people = np.array([person for _, person in probes])
    distractors = np.array([DIRECTIONS[place] for place in others], np.float32).reshape(-1, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarities, "EXACT_PAIRS", exact)
        found = compare_probes(rows, people, distractors)
    kinds = looped(rows, people, distractors)
    for name, distances in kinds.items():
        kind = getattr(found, name)
        known = [1 - d * d / 2 for d in distances if math.isfinite(d)]
        assert (kind.pairs, kind.lost) == (len(distances), len(distances) - len(known))
        assert kind.counts.sum() == len(known)
        assert kind.mean == pytest.approx(np.mean(known), abs=1e-4) if known else math.isnan(kind.mean)
    negatives = kinds["impostor"] + kinds["distractor"]
    together = kinds["genuine"] + negatives
    same = [True] * len(kinds["genuine"]) + [False] * len(negatives)
    for claim in found.id_rate:
        assert claim.claimable == (bool(kinds["genuine"]) and claim.fpr * len(negatives) >= 3)
        if claim.claimable:
            tpr, threshold = reference.best_within(together, same, claim.fpr)
            assert claim.tpr == tpr
            assert claim.threshold == pytest.approx(threshold, abs=1e-4)


def crowd() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """400 probes of 40 people, and 300 distractors, three of each without a face."""
    rng = np.random.default_rng(3)
    people = np.repeat(np.arange(40), 10)
    probes = unit_rows(40, 4, 16)[people] + 0.25 * rng.standard_normal((400, 16))
    probes = (probes / np.linalg.norm(probes, axis=1, keepdims=True)).astype(np.float32)
    others = unit_rows(300, 5, 16)
    probes[[0, 1, 399]] = others[:3] = np.nan
    return probes, people, others


def all_pairs(probes: np.ndarray, people: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every pair's distance, infinite where one is lost, and whether it is genuine."""
    first, second = np.triu_indices(len(probes), 1)
    of_probes = np.linalg.norm(probes[first].astype(float) - probes[second], axis=1)
    of_others = np.linalg.norm(probes[:, None].astype(float) - others, axis=2).ravel()
    distances = np.append(of_probes, of_others)
    same = np.append(people[first] == people[second], np.zeros(of_others.size, bool))
    return np.where(np.isnan(distances), np.inf, distances), same


def test_id_rate_is_tpr_at_fpr_of_all_pairs() -> None:
    distances, same = all_pairs(*crowd())
    found = compare_probes(*crowd()).id_rate
    for ours, theirs in zip(found, tpr_at_fpr(distances, same), strict=True):
        assert (ours.fpr, ours.claimable, ours.needs, ours.tpr) == (
            theirs.fpr,
            theirs.claimable,
            theirs.needs,
            theirs.tpr,
        )
        assert ours.threshold == pytest.approx(theirs.threshold, abs=1e-6)
    assert [claim.fpr for claim in found] == list(USUAL_RATES)
    assert all(claim.claimable for claim in found)


def test_of_too_many_pairs_rates_are_exact_at_thresholds_from_a_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = compare_probes(*crowd())
    monkeypatch.setattr(similarities, "EXACT_PAIRS", 100)
    monkeypatch.setattr(similarities, "_AT_ONCE", 5_000)  # and many blocks
    found = compare_probes(*crowd())
    distances, same = all_pairs(*crowd())
    genuine, impostor = same.sum(), (~same).sum()
    for claim, best in zip(found.id_rate, exact.id_rate, strict=True):
        accepted = distances < claim.threshold
        assert (accepted & ~same).sum() <= math.floor(claim.fpr * impostor)
        assert claim.tpr == (accepted & same).sum() / genuine
        assert claim.tpr == pytest.approx(best.tpr, abs=2e-3)
        # The lower end of the step, 2e-6 of a cosine, that holds the exact one.
        assert -1e-9 < best.threshold**2 - claim.threshold**2 < 4e-6 + 1e-9
        assert claim.threshold != best.threshold
    for name in ("genuine", "impostor", "distractor"):
        one, other = getattr(found, name), getattr(exact, name)
        assert (one.pairs, one.lost) == (other.pairs, other.lost)
        assert (one.counts == other.counts).all()
        assert one.mean == pytest.approx(other.mean, abs=1e-9)


def test_histograms_are_those_of_the_cosines() -> None:
    probes, people, others = crowd()
    found = compare_probes(probes, people, others)
    cosines = (probes[2:399].astype(float) @ others[3:].T.astype(float)).ravel()
    # NumPy's bins hold their lower edge, ours the upper: no cosine here is on an edge.
    expected, _ = np.histogram(cosines, COSINE_EDGES)
    assert (found.distractor.counts == expected).all()
    assert found.distractor.mean == pytest.approx(cosines.mean(), abs=1e-6)


def test_equal_and_opposite_rows_are_in_the_outermost_bins() -> None:
    found = compare_probes(np.array([[1, 0], [1, 0], [-1, 0]], np.float32), np.array([0, 0, 1]), np.empty((0, 2)))
    assert found.genuine.counts[-1] == found.genuine.pairs == 1
    assert found.impostor.counts[0] == found.impostor.pairs == 2


def test_nothing_to_compare_claims_nothing() -> None:
    def check(found: Similarities, lost: int) -> None:
        assert (found.genuine.pairs, found.genuine.lost) == (lost, lost)
        assert math.isnan(found.genuine.mean)
        assert not any(claim.claimable for claim in found.id_rate)

    none = np.empty((0, 8), np.float32)
    check(compare_probes(unit_rows(1), np.array([0]), none), 0)
    check(compare_probes(np.full((2, 8), np.nan, np.float32), np.array([0, 0]), none), 1)
