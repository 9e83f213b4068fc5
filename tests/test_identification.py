"""Identification: ranks, CMC, open set and counts, against slow loops over tied, doubled and lost pictures."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.metrics import top_k_accuracy_score

from facekit import similarities
from facekit.identification import CMC_RANKS, Identification, identify
from facekit.metrics import USUAL_RATES

quickly = settings(max_examples=100, deadline=None, derandomize=True)

# Few directions, so that ties and duplicates abound; the first is a picture without a face.
DIRECTIONS = [[math.nan] * 3, [1, 0, 0], [0, 1, 0], [0, 0, -1], [-1, 0, 0], [0.6, 0.8, 0], [0.8, 0.6, 0]]
PICTURE = st.sampled_from(range(len(DIRECTIONS)))
Shots = list[tuple[int, str]]


def shots(people: str, most: int) -> st.SearchStrategy[Shots]:
    return st.lists(st.tuples(PICTURE, st.sampled_from(people)), min_size=1, max_size=most)


def rows_of(places: list[int]) -> np.ndarray:
    return np.array([DIRECTIONS[place] for place in places], np.float32).reshape(-1, 3)


def unit_rows(n: int, seed: int = 0, width: int = 16) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal((n, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def looped_search(gallery: Shots, place: int, person: str | None) -> tuple[float, float]:
    """Rank of the person and distance of the nearest one, by the definitions."""
    nearest_of: dict[str, float] = {}
    for other, name in gallery:
        apart = np.array(DIRECTIONS[place], np.float32) - np.array(DIRECTIONS[other], np.float32)
        distance = round(math.sqrt(sum(float(part) ** 2 for part in apart)), 5)
        if not math.isnan(distance):
            nearest_of[name] = min(distance, nearest_of.get(name, math.inf))
    if person not in nearest_of:
        return math.inf, min(nearest_of.values(), default=math.inf)
    as_near = [name for name, distance in nearest_of.items() if distance <= nearest_of[person]]
    return len(as_near), min(nearest_of.values())


def looped_best(searches: list[tuple[float, float]], mated: list[bool], rate: float) -> tuple[float, float]:
    """The best TPIR, and the largest threshold, among those of at most floor(rate * non-mated) false alarms."""
    best = 0.0, 0.0
    non_mated = mated.count(False)
    for threshold in sorted({nearest for _, nearest in searches} | {math.inf}):
        alarms = sum(
            nearest < threshold for (_, nearest), is_mated in zip(searches, mated, strict=True) if not is_mated
        )
        right = sum(rank == 1 and nearest < threshold for rank, nearest in searches)
        if alarms <= math.floor(rate * non_mated + 1e-9):
            best = right / mated.count(True), threshold
    return best


@quickly
@given(shots("abc", 6), shots("abcd", 7), st.lists(PICTURE, max_size=5))
def test_searches_equal_the_loops(gallery: Shots, probes: Shots, others: list[int]) -> None:
    known = {person for _, person in gallery}
    assume(any(place for place, _ in gallery) and any(place for place, _ in probes))
    assume(any(person in known for _, person in probes))
    found = identify(
        rows_of([place for place, _ in gallery]),
        [person for _, person in gallery],
        rows_of([place for place, _ in probes]),
        [person for _, person in probes],
        rows_of(others),
    )
    everyone: list[tuple[int, str | None]] = [*probes, *((place, None) for place in others)]
    searches = [looped_search(gallery, place, person) for place, person in everyone]
    mated = [person in known for _, person in everyone]
    assert found.mated.tolist() == mated
    assert found.failed.tolist() == [place == 0 for place, _ in everyone]
    assert found.ranks.tolist() == [rank for rank, _ in searches]
    assert found.nearest.tolist() == pytest.approx([nearest for _, nearest in searches], abs=1e-4)

    ranks = [rank for (rank, _), is_mated in zip(searches, mated, strict=True) if is_mated]
    for rank in (1, 2, 3, CMC_RANKS):
        assert found.cmc[rank - 1] == sum(other <= rank for other in ranks) / len(ranks)

    for threshold in (0.0, 0.3, 1.0, 1.5, 2.1, math.inf):
        named = [nearest < threshold for _, nearest in searches]
        right = sum(is_named and rank == 1 for is_named, (rank, _) in zip(named, searches, strict=True))
        alarms = sum(is_named and not is_mated for is_named, is_mated in zip(named, mated, strict=True))
        at = found.at(threshold)
        assert (at.right, at.false_alarms) == (right, alarms)
        assert at.misnamed == sum(named) - right - alarms
        assert at.unknown_mated + at.unknown_non_mated == named.count(False)
        assert at.right + at.misnamed + at.unknown_mated == mated.count(True)
        assert at.tpir == right / mated.count(True)
        if mated.count(False):
            assert (at.fpir, at.resolves) == (alarms / mated.count(False), 3 / mated.count(False))
        else:
            assert math.isnan(at.fpir) and math.isnan(at.resolves)

    for claim, rate in zip(found.tpir_at_fpir(), USUAL_RATES, strict=True):
        assert claim.fpir == rate
        assert claim.claimable == (rate * mated.count(False) >= 3)
        if claim.claimable:
            tpir, threshold = looped_best(searches, mated, rate)
            assert (claim.tpir, claim.threshold) == (tpir, pytest.approx(threshold, abs=1e-4))
            assert found.at(claim.threshold).fpir <= rate
        else:
            assert math.isnan(claim.tpir) and math.isnan(claim.threshold)


def town(people: int = 60, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A gallery of two pictures a person and three noisy probes of each: rows and people of both."""
    rng = np.random.default_rng(seed)
    names = np.array([f"person {number}" for number in range(people)])
    ours, theirs = np.repeat(names, 2), np.repeat(names, 3)
    centres = unit_rows(people, seed + 1)

    def noisy(each: int) -> np.ndarray:
        rows = np.repeat(centres, each, axis=0) + 0.22 * rng.standard_normal((people * each, 16))
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    return noisy(2), ours, noisy(3), theirs


def test_cmc_equals_scikit_learns_top_k_accuracy() -> None:
    gallery, ours, probes, theirs = town()
    found = identify(gallery, ours, probes, theirs)
    distances = np.linalg.norm(probes[:, None].astype(float) - gallery, axis=2)
    nearest = np.stack([distances[:, ours == name].min(axis=1) for name in np.unique(ours)], axis=1)
    truth = np.unique(theirs, return_inverse=True)[1]
    for rank in (1, 2, 5, 10, 50):
        assert found.cmc[rank - 1] == pytest.approx(top_k_accuracy_score(truth, -nearest, k=rank))
    assert 0.3 < found.cmc[0] < 0.95
    assert found.cmc.size == 60
    assert found.cmc[-1] == 1


def test_a_tie_counts_against_the_probe() -> None:
    twins = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    found = identify(twins, ["ann", "bob", "cid"], twins, ["ann", "bob", "cid"])
    assert found.ranks.tolist() == [2, 2, 1]
    assert found.at(0.5).misnamed == 2
    # Two equal pictures of one person are no tie.
    assert identify(twins, ["ann", "ann", "cid"], twins[:1], ["ann"]).cmc[0] == 1


def test_near_duplicates_are_told_apart() -> None:
    one = unit_rows(1, width=512)[0].astype(np.float64)
    aside = unit_rows(2, seed=1, width=512).astype(np.float64)
    gallery = np.array([one + 2e-4 * aside[0], one + 1e-4 * aside[1]]).astype(np.float32)
    found = identify(gallery, ["far", "near"], one[None].astype(np.float32), ["near"])
    assert found.ranks.tolist() == [1]
    assert found.nearest[0] == pytest.approx(1e-4, rel=0.01)


def test_people_may_be_numbers_and_the_gallery_in_any_order() -> None:
    gallery, ours, probes, theirs = town()
    expected = identify(gallery, ours, probes, theirs)
    number = {name: 1000 - place for place, name in enumerate(np.unique(ours))}
    order = np.random.default_rng(5).permutation(len(ours))
    found = identify(
        gallery[order], [number[name] for name in ours[order]], probes, [number[name] for name in theirs]
    )
    assert found.ranks.tolist() == expected.ranks.tolist()
    np.testing.assert_allclose(found.nearest, expected.nearest, rtol=1e-6)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    gallery, ours, probes, theirs = town()
    probes[[0, 40]] = np.nan
    whole = identify(gallery, ours, probes, theirs, unit_rows(50, 9))
    monkeypatch.setattr(similarities, "_AT_ONCE", 700)
    cut = identify(gallery, ours, probes, theirs, unit_rows(50, 9))
    assert cut.ranks.tolist() == whole.ranks.tolist()
    np.testing.assert_allclose(cut.nearest, whole.nearest, rtol=1e-6)
    for name in ("genuine", "impostor", "distractor"):
        assert (getattr(cut.similarities, name).counts == getattr(whole.similarities, name).counts).all()
    assert [claim.tpr for claim in cut.similarities.id_rate] == [claim.tpr for claim in whole.similarities.id_rate]


def half_known() -> Identification:
    """Everything that can be lost is lost somewhere; the last 10 of 60 people are not in the gallery."""
    gallery, ours, probes, theirs = town()
    gallery[[0, 1, 2]] = np.nan  # both pictures of the first person, one of the second
    probes[[0, 5, 179]] = np.nan
    others = unit_rows(400, 7)
    others[:4] = np.nan
    return identify(gallery[:100], ours[:100], probes, theirs, others)


def test_report_has_plain_numbers_first_and_is_json() -> None:
    found = half_known()
    report = found.to_report(0.9)
    plain = [name for name, value in report.items() if not isinstance(value, dict | list)]
    assert plain == list(report)[: len(plain)]
    expected = {
        "gallery_people": 50,
        "gallery_pictures": 100,
        "probes": 180,
        "distractors": 400,
        "mated": 150,
        "non_mated": 430,
        "failed_gallery": 3,
        "failed_probes": 3,
        "failed_distractors": 4,
        "lost_people": 1,
        "probes_of_lost_people": 2,
    }
    assert {name: report[name] for name in expected} == expected
    assert (report["rank1"], report["rank5"], report["rank10"]) == tuple(found.cmc[[0, 4, 9]])
    assert [point["rank"] for point in report["cmc"]] == list(range(1, 51))
    assert [point["share"] for point in report["cmc"]] == found.cmc[:50].tolist()
    assert report["cmc"][-1]["share"] == pytest.approx(146 / 150)
    at = found.at(0.9)
    assert (report["threshold"], report["tpir"], report["fpir"]) == (0.9, at.tpir, at.fpir)
    assert report["at_threshold"]["unknown_mated"] == at.unknown_mated
    assert report["id_rate"][0]["cosine"] == pytest.approx(1 - found.similarities.id_rate[0].threshold ** 2 / 2)
    assert report["tpir_at_fpir"][-1] == {
        "fpir": 0.001,
        "tpir": None,
        "threshold": None,
        "claimable": False,
        "needs": 3000,
    }
    assert sum(report["similarities"]["distractor"]["counts"]) == 177 * 396
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_survivors_stand_beside_the_headline() -> None:
    found = half_known()
    right = int((found.ranks == 1).sum())
    # Of 150 mated probes two have no face, and two more no picture of their person left.
    assert found.to_report()["survivors"] == {"mated": 146, "rank1": right / 146}
    assert found.cmc[0] == right / 150
    assert identify(*town()).to_report()["survivors"] is None


def test_rank1_has_an_interval_by_probe_person() -> None:
    found = half_known()
    low, high, by_people = found.rank1_interval
    assert by_people
    assert low < found.cmc[0] < high
    assert found.to_report()["intervals"] == {"by": "probe person", "rank1": [low, high]}
    # People, not probes: doubling every probe says nothing new.
    gallery, ours, probes, theirs = town()
    once = identify(gallery, ours, probes, theirs).rank1_interval
    twice = identify(gallery, ours, np.repeat(probes, 2, 0), np.repeat(theirs, 2)).rank1_interval
    assert twice == pytest.approx(once, abs=2e-3)
    one = identify(gallery, ours, probes[:3], theirs[:3])
    assert one.to_report()["intervals"]["by"] == "probe"


def test_without_non_mated_probes_nothing_of_the_open_set_is_claimed() -> None:
    found = identify(*town())
    report = found.to_report(1.0)
    assert report["fpir"] is None
    assert report["tpir"] == found.at(1.0).tpir
    assert not any(claim["claimable"] for claim in report["tpir_at_fpir"])
    assert found.open_set.one_class
    without = found.to_report()
    assert (without["threshold"], without["tpir"], without["fpir"], without["at_threshold"]) == (None,) * 4


def test_claims_need_enough_strangers() -> None:
    claims = half_known().tpir_at_fpir()
    assert claims[0].claimable and not claims[-1].claimable and claims[-1].needs == 3000


def test_wrong_input_gets_its_sentence() -> None:
    gallery, ours, probes, theirs = town()
    lost = np.full_like(gallery, np.nan)
    with pytest.raises(ValueError, match="gallery is empty"):
        identify(gallery[:0], ours[:0], probes, theirs)
    with pytest.raises(ValueError, match="None of the gallery's 120 pictures gave a face"):
        identify(lost, ours, probes, theirs)
    with pytest.raises(ValueError, match="None of the 120 probes gave a face"):
        identify(gallery, ours, lost, ours)
    with pytest.raises(ValueError, match="None of the 180 probes shows a person of the gallery"):
        identify(gallery, ours, probes, [f"another {name}" for name in theirs])
    with pytest.raises(ValueError, match="None of the 0 probes"):
        identify(gallery, ours, probes[:0], theirs[:0])
    with pytest.raises(ValueError, match=r"one width. Received: gallery \(120, 16\), probes \(180, 8\)"):
        identify(gallery, ours, probes[:, :8], theirs)
    with pytest.raises(ValueError, match="one width"):
        identify(gallery, ours, probes, theirs, probes[:, :8])
    with pytest.raises(ValueError, match="one width"):
        identify(gallery[0], ours[:1], probes, theirs)
    with pytest.raises(ValueError, match="119 people for 120 pictures"):
        identify(gallery, ours[1:], probes, theirs)
    with pytest.raises(ValueError, match="179 for 180 probes"):
        identify(gallery, ours, probes, theirs[1:])
    probes[7] *= 2
    with pytest.raises(ValueError, match=r"Row 7 of the probes has length 2 \(1 of 180"):
        identify(gallery, ours, probes, theirs)
    with pytest.raises(ValueError, match="`threshold` must be a number"):
        half_known().at(math.nan)


def test_no_tensorflow_is_needed() -> None:
    check = (
        "import sys, facekit.identification, facekit.triplets\n"
        "assert not {'tensorflow', 'keras', 'matplotlib', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", check], check=True)
