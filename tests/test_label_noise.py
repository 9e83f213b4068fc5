"""Wrong labels on made embeddings whose truth is known: what is found, and what that costs."""

from __future__ import annotations

import numpy as np
import pytest

from facekit.folder_doubts import doubles, splits
from facekit.label_noise import Judged, centred, judge, misfits


def people(
    rng: np.random.Generator, folders: int, pictures: int, spread_of: float, size: int = 32
) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows of people: a centre each, and pictures around it."""
    centres = rng.standard_normal((folders, size))
    labels = np.repeat(np.arange(folders), pictures)
    rows = centres[labels] + spread_of * rng.standard_normal((len(labels), size))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def swapped(rng: np.random.Generator, labels: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels with a share given to another person, and which those are."""
    wrong = np.zeros(len(labels), bool)
    wrong[rng.permutation(len(labels))[: round(share * len(labels))]] = True
    given = labels.copy()
    given[wrong] = (labels[wrong] + rng.integers(1, labels.max(), wrong.sum())) % (labels.max() + 1)
    return given, wrong


def test_centred_rows_have_length_one_and_no_common_part(rng: np.random.Generator):
    rows = rng.standard_normal((500, 8)).astype(np.float32) + 5
    result = centred(rows / np.linalg.norm(rows, axis=1, keepdims=True))
    assert np.linalg.norm(result, axis=1) == pytest.approx(np.ones(500), abs=1e-5)
    assert np.abs(result.mean(axis=0)).max() < 0.05 and result.dtype == np.float32


def test_the_threshold_separates_two_known_normals(rng: np.random.Generator):
    right, wrong = rng.normal(0, 1, 9500), rng.normal(-5, 1, 500)
    judged = judge(np.concatenate([right, wrong]), rng.normal(-5, 1, 4000), 0.9)
    assert judged.share == pytest.approx(0.05, abs=0.012) and judged.share > 0.045
    false = (right < judged.threshold).sum()
    assert judged.found == false + (wrong < judged.threshold).sum() and (wrong < judged.threshold).mean() > 0.9
    assert false / judged.found == pytest.approx(0.1, abs=0.05)
    assert judged.expected_right == pytest.approx(0.1 * judged.found, rel=0.05)


def test_more_precision_finds_no_more(rng: np.random.Generator):
    seen = np.concatenate([rng.normal(0, 1, 9500), rng.normal(-2.5, 1, 500)])
    found = [judge(seen, rng.normal(-2.5, 1, 4000), precision).found for precision in (0.5, 0.8, 0.95)]
    assert found == sorted(found, reverse=True) and found[0] > found[-1]


def test_where_right_and_wrong_look_alike_nothing_is_said(rng: np.random.Generator):
    seen, made_up = rng.normal(0, 1, 5000), rng.normal(-0.3, 1, 5000)
    judged = judge(np.concatenate([seen[:4900], made_up[:100]]), made_up, 0.5)
    assert judged.found == 0 and judged.threshold == -np.inf and judged.share > 0.3


def test_of_too_few_scores_nothing_is_said():
    assert judge(np.arange(49.0), np.arange(1000.0), 0.5) == Judged(-np.inf, 0.0, 0, 0.0)


def loops(rows: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Margins by the definition, picture by picture."""
    margins = []
    for place, row in enumerate(rows.astype(np.float64)):
        likeness = {}
        for folder in np.unique(labels):
            others = [other for other in np.flatnonzero(labels == folder) if other != place]
            likeness[folder] = sum(row @ rows[other] for other in others) / (len(others) + 1)
        own = likeness.pop(labels[place])
        margins.append(own - max(likeness.values()))
    return np.array(margins)


def test_margins_are_those_of_the_definition(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("facekit.label_noise._BLOCK", 7)
    rows, labels = people(rng, 6, 5, 0.5)
    order = rng.permutation(len(labels))
    rows, labels = rows[order], labels[order]
    assert misfits(rows, labels, rounds=1).margin == pytest.approx(loops(rows, labels), abs=1e-5)


def test_swapped_pictures_are_found_with_the_precision_asked_for(rng: np.random.Generator):
    rows, truth = people(rng, 150, 12, 1.1)
    labels, wrong = swapped(rng, truth, 0.05)
    found = misfits(centred(rows), labels, precision=0.9)
    assert (found.wrong & wrong).sum() / wrong.sum() > 0.9
    assert (found.wrong & wrong).sum() / found.wrong.sum() > 0.75
    assert (found.other[found.wrong & wrong] == truth[found.wrong & wrong]).mean() > 0.8
    assert found.judged.share == pytest.approx(0.05, abs=0.02)


def test_a_folder_without_errors_is_left_in_peace(rng: np.random.Generator):
    rows, labels = people(rng, 150, 10, 0.9)
    assert misfits(centred(rows), labels).wrong.mean() < 0.005


def test_folders_of_few_pictures_are_not_judged(rng: np.random.Generator):
    rows, labels = people(rng, 60, 6, 0.8)
    labels = np.where((labels == 3) & (np.arange(360) % 6 >= 2), 4, labels)
    found = misfits(centred(rows), labels, fewest=3)
    assert np.isnan(found.margin[labels == 3]).all() and np.isfinite(found.margin[labels != 3]).all()
    assert not found.wrong[labels == 3].any()


def test_pictures_that_are_not_trusted_do_not_speak_for_their_folder(rng: np.random.Generator):
    rows, labels = people(rng, 80, 8, 0.9)
    # One picture of a stranger four times in folder 0, where copies vouch for each other.
    rows[:4] = people(rng, 1, 1, 0.0)[0]
    trusted = np.ones(len(labels), bool)
    vouched = misfits(centred(rows), labels, trusted)
    trusted[:4] = False
    found = misfits(centred(rows), labels, trusted)
    assert vouched.margin[:4].min() > found.margin[:4].max() + 0.2
    assert found.margin[:4].max() < np.quantile(found.margin[trusted], 0.02)


def test_further_copies_change_nothing_for_the_others(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("facekit.label_noise.judge", lambda *_given: Judged(-np.inf, 0.0, 0, 0.0))
    rows, labels = people(rng, 60, 6, 0.5)
    without = misfits(rows, labels)
    trusted = np.arange(len(labels) + 30) < len(labels)
    beside = misfits(np.concatenate([rows, rows[:30]]), np.concatenate([labels, labels[:30]]), trusted)
    assert beside.margin[trusted] == pytest.approx(without.margin, abs=1e-6)


def test_half_a_person_s_pictures_are_not_in_the_wrong_folder(rng: np.random.Generator):
    rows, truth = people(rng, 100, 10, 0.5)
    labels, _ = swapped(rng, truth, 0.05)
    halved = np.flatnonzero(truth == 40)
    labels[halved] = np.where(np.arange(10) < 5, 40, 100)
    found = misfits(centred(rows), labels)
    assert not found.wrong[halved].any() and (found.margin[halved] < 0).mean() > 0.5
    pairs = doubles(centred(rows), labels, ~found.wrong).pairs
    assert [40, 100] in pairs.tolist()


def test_two_people_are_too_few_to_judge(rng: np.random.Generator):
    rows, labels = people(rng, 2, 60, 0.5)
    found = misfits(rows, labels)
    assert not found.wrong.any() and found.judged.threshold == -np.inf


def test_a_person_in_two_folders_is_found_and_hardly_anybody_else(rng: np.random.Generator):
    rows, labels = people(rng, 200, 8, 0.8)
    truth = labels.copy()
    for number in range(5):
        own = np.flatnonzero(truth == 10 * number)
        labels[own[::2]] = 200 + number
    found = doubles(centred(rows), labels, np.ones(len(labels), bool))
    pairs = {tuple(pair) for pair in found.pairs.tolist()}
    assert {(10 * number, 200 + number) for number in range(5)} <= pairs and len(pairs) <= 7
    assert (np.diff(found.likeness) <= 0).all() and found.likeness.min() >= found.threshold


def test_likeness_of_folders_is_the_cosine_of_their_means(rng: np.random.Generator):
    rows, labels = people(rng, 60, 6, 0.5)
    labels[labels == 59] = np.where(np.arange(6) < 3, 58, 59)
    found = doubles(rows, labels, np.ones(len(labels), bool), expected_false=50)
    for (one, two), likeness in zip(found.pairs, found.likeness, strict=True):
        means = [rows[labels == folder].mean(axis=0) for folder in (one, two)]
        assert likeness == pytest.approx(means[0] @ means[1] / np.prod(np.linalg.norm(means, axis=1)), abs=1e-5)


@pytest.mark.parametrize("expected", [1.0, 10.0])
def test_as_many_different_people_look_alike_as_expected(expected: float):
    """Over ten folders without any double; the tail of random directions is known to be nearly normal."""
    found = []
    for seed in range(10):
        rows, labels = people(np.random.default_rng(seed), 150, 4, 2.5, size=16)
        every = np.ones(len(labels), bool)
        result = doubles(rows, labels, every, expected_false=expected)
        if result.threshold < np.inf:
            found.append(len(result.pairs))
    assert np.mean(found) < 3 * expected


def test_few_folders_give_no_doubles(rng: np.random.Generator):
    rows, labels = people(rng, 8, 5, 0.5)
    found = doubles(rows, labels, np.ones(len(labels), bool))
    assert found.pairs.shape == (0, 2) and found.threshold == np.inf


def test_merged_folders_are_found_and_cut_where_they_were_joined(rng: np.random.Generator):
    rows, truth = people(rng, 320, 8, 0.9)
    labels = truth.copy()
    for number in range(20):
        labels[truth == 300 + number] = number
    found = splits(centred(rows), labels, np.ones(len(labels), bool), precision=0.7)
    assert len(set(found.folders.tolist()) & set(range(20))) >= 19 and len(found.folders) <= 36
    own = labels == found.folders[0]
    assert len({tuple(pair) for pair in zip(truth[own], found.part[own], strict=True)}) == 2


def test_an_outlier_is_no_second_person(rng: np.random.Generator):
    rows, truth = people(rng, 100, 8, 0.7)
    labels = truth.copy()
    labels[[8 * folder for folder in range(20)]] = 50 + np.arange(20)
    assert len(splits(centred(rows), labels, np.ones(len(labels), bool)).folders) <= 2


def test_an_outlier_is_set_aside_and_the_two_people_beside_it_are_told_apart(rng: np.random.Generator):
    rows, truth = people(rng, 60, 8, 0.3)
    labels = truth.copy()
    labels[truth == 1] = 0
    stranger = int(np.flatnonzero(truth == 2)[0])
    labels[stranger] = 0
    rows[stranger] = -rows[labels == 0].mean(axis=0)
    rows[stranger] /= np.linalg.norm(rows[stranger])
    found = splits(centred(rows), labels, np.ones(len(labels), bool))
    assert np.isfinite(found.gap[0]) and found.gap[0] == np.nanmin(found.gap)
    assert found.part[stranger] == -1 and set(found.part[truth == 0]) != set(found.part[truth == 1])
