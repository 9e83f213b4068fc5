"""Copies: hashes against SciPy's transform, the search against brute force, the sieves, the groups."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from facekit.copies import ALIGNED_ALIKE, RADIUS, THUMBNAILS_ALIKE, candidates, confirm, groups
from facekit.images import decode, encode_jpeg, write_jpeg
from facekit.perceptual_hash import (
    aligned_likeness,
    for_alignment,
    hashes,
    near_pairs,
    thumbnail,
    thumbnail_likeness,
)
from facekit.synthetic import draw_crop

STORED = {
    "re-encoded": lambda image: decode(encode_jpeg(image, 40)),
    "smaller": lambda image: cv2.resize(image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA),
    "larger": lambda image: cv2.resize(image, None, fx=1.7, fy=1.7, interpolation=cv2.INTER_CUBIC),
    "brighter": lambda image: np.clip(image * 1.15 + 20.0, 0, 255).astype(np.uint8),
    "darker": lambda image: (image * 0.6).astype(np.uint8),
    "cut": lambda image: image[2:, :-2],
}


@pytest.fixture(scope="module")
def faces() -> list[np.ndarray]:
    return [draw_crop(seed=4, person=person, picture=picture).image for person in range(20) for picture in (0, 1)]


def distance(one: np.ndarray, two: np.ndarray) -> int:
    codes = hashes(np.stack([thumbnail(one), thumbnail(two)]))
    return int(np.bitwise_count(codes[0] ^ codes[1]))


def brute(codes: np.ndarray, radius: int) -> np.ndarray:
    near = np.bitwise_count(codes[:, None] ^ codes[None, :]) <= radius
    return np.argwhere(np.triu(near, 1))


def crowded(rng: np.random.Generator, count: int) -> np.ndarray:
    """Codes with many near ones: a few centres, some bits flipped."""
    codes = rng.choice(rng.integers(0, 2**63, 12, np.uint64), count)
    for _ in range(9):
        codes = codes ^ (np.uint64(1) << rng.integers(0, 64, count).astype(np.uint64))
    return codes


def test_a_hash_is_the_signs_of_the_lowest_frequencies():
    # One wave along a row: frequency (0, 1) comes first but for the mean, so the first bit is set, and it alone.
    wave = 128 + 100 * np.cos(np.pi * (np.arange(16) + 0.5) / 16)
    code = hashes(np.tile(wave, (1, 16, 1)).round().astype(np.uint8))[0]
    assert int(code) >> 63 == 1
    down = hashes(np.tile(wave[:, None], (1, 1, 16)).round().astype(np.uint8))[0]
    assert (int(down) >> 62) & 0b11 == 0b01


def test_a_hash_ignores_brightness_and_contrast():
    rows = np.random.default_rng(0).integers(20, 120, (5, 16, 16), np.uint8)
    assert np.array_equal(hashes(rows), hashes(rows * 2 + 10))
    assert not np.array_equal(hashes(rows), hashes(255 - rows))


def test_flat_pictures_hash_to_zero():
    assert hashes(np.stack([np.full((16, 16), grey, np.uint8) for grey in (0, 7, 255)])).tolist() == [0, 0, 0]


@pytest.mark.parametrize("way", STORED)
def test_a_copy_passes_every_sieve(way: str, faces: list[np.ndarray]):
    likeness, thumbs, bits = [], [], []
    for face in faces[:12]:
        copy = STORED[way](face)
        bits.append(distance(face, copy))
        thumbs.append(thumbnail_likeness(np.stack([thumbnail(face), thumbnail(copy)]), np.array([[0, 1]]))[0])
        likeness.append(aligned_likeness(for_alignment(face), for_alignment(copy)))
    assert np.median(bits) <= RADIUS and min(thumbs) > THUMBNAILS_ALIKE and min(likeness) > ALIGNED_ALIKE


def test_different_pictures_do_not_pass_the_last_sieve(faces: list[np.ndarray]):
    likeness = [
        aligned_likeness(for_alignment(one), for_alignment(two))
        for place, one in enumerate(faces)
        for two in faces[place + 1 : place + 6]
    ]
    assert max(likeness) < ALIGNED_ALIKE


def test_flat_pictures_are_like_nothing():
    flat, face = np.full((64, 64), 80, np.float32), for_alignment(draw_crop(1, 1, 1).image)
    assert aligned_likeness(flat, flat) == 0 and aligned_likeness(flat, face) == 0
    thumbs = np.full((2, 16, 16), 9, np.uint8)
    assert thumbnail_likeness(thumbs, np.array([[0, 1]])).tolist() == [0]


def test_thumbnail_likeness_is_the_correlation():
    thumbs = np.random.default_rng(1).integers(0, 256, (6, 16, 16), np.uint8)
    pairs = np.array([[0, 1], [2, 5], [4, 4]])
    expected = [np.corrcoef(thumbs[one].ravel(), thumbs[two].ravel())[0, 1] for one, two in pairs]
    assert thumbnail_likeness(thumbs, pairs) == pytest.approx(expected)


@pytest.mark.parametrize("radius", [0, 1, 5, 8, 12])
@pytest.mark.parametrize("count", [2, 40, 700])
def test_the_search_finds_exactly_what_comparing_all_with_all_finds(
    radius: int, count: int, rng: np.random.Generator
):
    codes = crowded(rng, count)
    pairs, distances = near_pairs(codes, radius)
    assert np.array_equal(pairs, brute(codes, radius))
    assert np.array_equal(distances, np.bitwise_count(codes[pairs[:, 0]] ^ codes[pairs[:, 1]]))


@pytest.mark.parametrize("agreeing", [1, 2, 3, 4])
def test_however_many_bands_must_agree_each_pair_comes_once(
    agreeing: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("facekit.perceptual_hash._agreeing", lambda count, radius: agreeing)
    codes = crowded(rng, 300)
    assert np.array_equal(near_pairs(codes, 8)[0], brute(codes, 8))


def test_groups_larger_than_a_block_are_searched_whole(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("facekit.perceptual_hash._BLOCK", 32)
    codes = np.arange(100, dtype=np.uint64) % 7
    assert np.array_equal(near_pairs(codes, 1)[0], brute(codes, 1))


def test_no_hashes_have_no_pairs():
    for count in (0, 1):
        pairs, distances = near_pairs(np.zeros(count, np.uint64), 8)
        assert pairs.shape == (0, 2) and distances.shape == (0,)


def test_a_radius_out_of_range_is_refused():
    with pytest.raises(ValueError, match="`radius` must be in 0 to 16. Received: radius=17"):
        near_pairs(np.zeros(3, np.uint64), 17)


def test_candidates_are_equal_files_and_near_pictures_each_once(faces: list[np.ndarray]):
    pictures = [faces[0], faces[2], faces[0], STORED["re-encoded"](faces[2]), faces[4]]
    thumbs = np.stack([thumbnail(picture) for picture in pictures])
    found = candidates(["a", "b", "a", "c", "d"], thumbs)
    assert found.equal.tolist() == [[0, 2]] and found.near.tolist() == [[1, 3]]


def test_flat_pictures_are_candidates_only_as_equal_files():
    # A faint gradient, such as an empty wall has, is no picture either.
    thumbs = np.full((4, 16, 16), 200, np.uint8) + (np.arange(16) // 3).astype(np.uint8)
    thumbs[1] -= 100
    found = candidates(["a", "b", "c", "a"], thumbs)
    assert found.equal.tolist() == [[0, 3]] and found.near.shape == (0, 2)


def test_no_pictures_have_no_candidates():
    found = candidates([], np.empty((0, 16, 16), np.uint8))
    assert found.equal.shape == found.near.shape == (0, 2)


def test_a_crowd_of_one_picture_is_tied_to_its_first():
    rng = np.random.default_rng(2)
    picture = rng.integers(0, 256, (16, 16)).astype(np.uint8)
    found = candidates([str(number) for number in range(300)], np.repeat(picture[None], 300, axis=0))
    assert len(found.near) == 50 * 49 // 2 + 250
    assert [group.size for group in groups(found.near, 300)] == [300]


def test_confirming_reads_the_files_and_takes_a_lost_one_for_unlike(tmp_path: Path, faces: list[np.ndarray]):
    write_jpeg(tmp_path / "a.jpg", faces[0])
    write_jpeg(tmp_path / "b.jpg", faces[0], 40)
    write_jpeg(tmp_path / "c.jpg", faces[6])
    pairs = [("a.jpg", "b.jpg"), ("a.jpg", "c.jpg"), ("a.jpg", "gone.jpg")]
    likeness = confirm(pairs, tmp_path)
    assert likeness[0] > ALIGNED_ALIKE > likeness[1] and likeness[2] == 0


def test_groups_hold_what_pairs_tie_together():
    found = groups(np.array([[0, 4], [4, 2], [7, 8]]), 10)
    assert [group.tolist() for group in found] == [[0, 2, 4], [7, 8]]
    assert groups(np.empty((0, 2), np.int64), 10) == []
