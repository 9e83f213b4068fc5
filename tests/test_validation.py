"""Held-out people while a model trains: which pictures stand for them, and what is drawn of them."""

from __future__ import annotations

import numpy as np
import pytest

from facekit import validation
from facekit.metrics import roc
from facekit.pairs import Pairs
from facekit.validation import (
    FIGURES,
    HELD_OUT_FIGURES,
    Everyone,
    HeldOut,
    pair_counts,
    pictures_of_most,
    tpr_at_fmr,
)


@pytest.fixture(scope="module")
def held_out() -> HeldOut:
    """Four people of three pictures each, measured by an embedding that is right about all but one pair."""
    files = [f"{person}/{picture}.jpg" for person in "abcd" for picture in range(3)]
    genuine = [(f"{person}/0.jpg", f"{person}/{n}.jpg") for person in "abcd" for n in (1, 2)]
    impostor = [(f"{one}/{n}.jpg", f"{other}/{n}.jpg") for one, other in ("ab", "cd", "bc", "da") for n in (1, 2)]
    first, second = (list(side) for side in zip(*genuine, *impostor, strict=True))
    pairs = Pairs(first, second, np.arange(16) < 8)
    images = np.arange(12, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    rows = np.repeat(np.eye(4, dtype=np.float32), 3, axis=0)
    rows[files.index("a/2.jpg")] = [0, 1, 0, 0]
    people = HeldOut(images, pairs)
    figures = people.measure(lambda pictures: rows[pictures[:, 0, 0, 0]])
    assert set(figures) == set(FIGURES) < set(HELD_OUT_FIGURES) and figures["auc"] < 1
    return people


def test_distances_are_told_apart_by_class(held_out):
    found = held_out.class_distances()
    np.testing.assert_array_equal(found["genuine"], held_out.distances[:8])
    np.testing.assert_array_equal(found["impostor"], held_out.distances[8:])


def test_everything_is_drawn(held_out):
    pictures = held_out.pictures()
    assert set(pictures) == {"roc", "det", "distances", "hardest_genuine", "hardest_impostor"}
    for picture in pictures.values():
        assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3 and picture.std() > 5


def test_the_hardest_pairs_are_those_most_wrong_and_named(held_out):
    genuine, impostor = held_out.hardest(1)
    assert (genuine.tolist(), impostor.tolist()) == ([1], [9])
    assert held_out._caption(1.414, 0, 2) == "1.41\na"
    assert held_out._caption(0.0, 2, 5) == "0.00\na / b"


def test_people_files_and_images_belong_together(held_out):
    people, files, images = held_out.pictures_at(np.array([7, 0]))
    assert (people, files) == (["c", "a"], ["c/1.jpg", "a/0.jpg"])
    assert images[:, 0, 0, 0].tolist() == [7, 0]


def test_people_of_most_pictures_are_chosen_and_always_the_same():
    people = ["b", "a", "c", "b", "c", "d", "b", "a"]
    assert pictures_of_most(people, 2).tolist() == [0, 3, 6, 1, 7]
    assert pictures_of_most(people, 2, 2).tolist() == [0, 3, 1, 7]
    assert pictures_of_most(people, 9).tolist() == [0, 3, 6, 1, 7, 2, 4, 5]


@pytest.mark.parametrize("fmr", [0.001, 0.01, 0.1, 0.29, 0.5])
def test_the_rate_over_all_pairs_is_the_roc_s(rng, monkeypatch, fmr):
    monkeypatch.setattr(validation, "_BLOCK", 7)
    labels = rng.integers(0, 12, 60)
    rows = rng.normal(size=(60, 4)) + 1.5 * rng.normal(size=(12, 4))[labels]
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    rows[10] = rows[3]  # a tie with everybody
    first, second = np.triu_indices(60, 1)
    same = labels[first] == labels[second]
    assert pair_counts(labels) == (same.sum(), (~same).sum())
    curve = roc(-(rows @ rows.T)[first, second], same)
    expected = curve.tpr[curve.last_within(fmr)]
    assert tpr_at_fmr(rows, labels, fmr) == pytest.approx(expected) and 0 <= expected <= 1


def test_an_embedding_that_is_no_number_is_told(rng):
    everyone = Everyone(np.zeros((4, 2, 2, 3), np.uint8), np.array([0, 0, 1, 1]), 0.5)
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        everyone.measure(lambda images: np.full((4, 2), np.nan, np.float32))
    rows = np.array([[1, 0], [0.8, 0.6], [0, 1], [0, 1]], np.float32)
    # Genuine cosines 0.8 and 1; impostors 0, 0, 0.6, 0.6: at most two of four accepted.
    assert everyone.measure(lambda images: rows) == {"tpr_at_fmr": 1.0}
