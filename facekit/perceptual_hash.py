"""Copies of one picture among many: a hash that survives re-encoding, an exact search, and a confirmation.

Three sieves, each finer and slower than the one before:

1. `hashes`: the signs of 64 low frequencies of the grey picture's cosine transform (the "pHash" of Zauner,
   "Implementation and benchmarking of perceptual image hash functions", 2010, with signs about zero, so that
   brightness and contrast cancel). `near_pairs` finds all pairs that differ in few bits, exactly.
2. `thumbnail_likeness`: correlation of the thumbnails that the hashes are made of.
3. `aligned_likeness`: correlation of fine detail after one picture is laid over the other (Evangelidis and
   Psarakis, "Parametric image alignment using enhanced correlation coefficient maximization", PAMI 2008). Aligned
   faces all look alike to a hash; their fine detail does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from math import comb

import cv2
import numpy as np
from numpy.typing import NDArray

from facekit.images import Image

THUMBNAIL = 16
"""Side of a thumbnail, pixels."""

ALIGNED = 64
"""Side at which pictures are laid over each other, pixels."""

Hashes = NDArray[np.uint64]
Pairs = NDArray[np.int64]

_BITS = 64
_FINE = 3.0  # standard deviation of the blur that fine detail is what remains after, pixels of `ALIGNED`
_BORDER = 5  # left out of the comparison: what a shift uncovers there was never seen
_STEPS = 30
_LARGE_GROUP = 48  # hashes that share a key: compared all with all as a block; fewer, neighbour by neighbour
_BLOCK = 2048


def thumbnail(image: Image) -> NDArray[np.uint8]:
    """The grey picture squeezed to (16, 16) uint8."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)


def _lowest_frequencies() -> NDArray[np.int64]:
    """Places of the 64 lowest frequencies in a flattened cosine transform, without the mean, low ones first."""
    places = [(row + column, row, column) for row in range(THUMBNAIL) for column in range(THUMBNAIL)]
    return np.array([row * THUMBNAIL + column for _, row, column in sorted(places)[1 : _BITS + 1]])


def hashes(thumbnails: NDArray[np.uint8]) -> Hashes:
    """Perceptual hashes: (n, 16, 16) uint8 to (n,) uint64. The distance of two is the number of bits that differ.

    The mean has no bit: it would be the same for all. A flat picture gives 0; it is like no other, only flat.
    """
    from scipy.fft import dctn

    if not len(thumbnails):
        return np.empty(0, np.uint64)
    spectra = dctn(thumbnails.astype(np.float32), axes=(1, 2), norm="ortho").reshape(len(thumbnails), -1)
    # A flat picture's frequencies are rounding errors of either sign.
    bits = spectra[:, _lowest_frequencies()] > 1e-3
    return np.ascontiguousarray(np.packbits(bits, axis=1)).view(">u8").ravel().astype(np.uint64)


def near_pairs(codes: Hashes, radius: int) -> tuple[Pairs, NDArray[np.int64]]:
    """All pairs of hashes that differ in at most `radius` bits: exactly those that comparing all with all finds.

    The bits are cut into b bands. Two hashes that differ in r bits agree in at least b - r bands whole, so sorting
    by every choice of b - r bands brings each pair together at least once (Manku et al., "Detecting near-duplicates
    for web crawling", WWW 2007). Time grows far slower than with the square of n; memory with n and with the pairs
    found.

    Args:
        codes: (n,) uint64. Equal hashes are pairs too: many equal ones are better grouped beforehand.
        radius: bits, 0 to 16.

    Returns:
        (m, 2) int64 positions, the smaller first, in order; and (m,) int64 distances.
    """
    if not 0 <= radius <= 16:
        raise ValueError(f"`radius` must be in 0 to 16. Received: radius={radius}")
    bands = _bands(radius + _agreeing(len(codes), radius))
    found: list[Pairs] = [np.empty((0, 2), np.int64)]
    for chosen in combinations(range(len(bands)), len(bands) - radius):
        mask = np.bitwise_or.reduce(bands[list(chosen)])
        for first, second in _pairs_of_equal_keys(codes, codes & mask, radius):
            # A pair that agrees in more bands comes up again: it counts for the first choice of bands alone.
            mine = _first_choice(codes[first] ^ codes[second], bands, chosen)
            found.append(np.stack([first[mine], second[mine]], axis=1))
    pairs = np.sort(np.concatenate(found), axis=1)
    pairs = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return pairs, np.bitwise_count(codes[pairs[:, 0]] ^ codes[pairs[:, 1]]).astype(np.int64)


def _agreeing(count: int, radius: int) -> int:
    """Bands that must agree: more of them compare fewer pairs, but sort more often."""

    def work(agreeing: int) -> float:
        bands = radius + agreeing
        # A hash's part in a sort costs as much as some 30 comparisons. Faces agree more often than chance: of five
        # bits, four count (measured on LFW).
        sharing = 2.0 ** (-_BITS * agreeing / bands * 4 / 5)
        return comb(bands, agreeing) * (30 + count * sharing)

    return min(range(1, 6), key=work)


def _bands(number: int) -> NDArray[np.uint64]:
    """The masks of a number of bands of about equal width, with low and high frequencies in each."""
    masks = [sum(1 << bit for bit in range(band, _BITS, number)) for band in range(number)]
    return np.array(masks, np.uint64)


def _first_choice(differing: Hashes, bands: NDArray[np.uint64], chosen: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether the chosen bands are the first ones in which each pair agrees."""
    agree = (differing[:, None] & bands) == 0
    before = agree[:, : chosen[-1] + 1].sum(axis=1)
    return before == len(chosen)


def _pairs_of_equal_keys(codes: Hashes, keys: Hashes, radius: int) -> Iterator[tuple[Pairs, Pairs]]:
    """Pairs within the radius among hashes that share a key, in portions."""
    order = np.argsort(keys, kind="stable")
    keys, codes = keys[order], codes[order]
    starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])) if len(keys) else np.empty(0, int)
    sizes = np.diff(np.append(starts, len(keys)))
    for start, size in zip(starts[sizes >= _LARGE_GROUP], sizes[sizes >= _LARGE_GROUP], strict=True):
        for first, second in _within_group(codes[start : start + size], radius):
            yield order[start + first], order[start + second]
    small = np.repeat(sizes < _LARGE_GROUP, sizes)
    at, step = np.flatnonzero(small), 1
    while True:
        at = at[at + step < len(keys)]
        at = at[keys[at + step] == keys[at]]
        if not at.size:
            return
        near = at[np.bitwise_count(codes[at] ^ codes[at + step]) <= radius]
        if near.size:
            yield order[near], order[near + step]
        step += 1


def _within_group(codes: Hashes, radius: int) -> Iterator[tuple[Pairs, Pairs]]:
    """Pairs within the radius in a group, block by block."""
    for top in range(0, len(codes), _BLOCK):
        for left in range(top, len(codes), _BLOCK):
            rows, columns = codes[top : top + _BLOCK], codes[left : left + _BLOCK]
            first, second = np.nonzero(np.bitwise_count(rows[:, None] ^ columns[None, :]) <= radius)
            first, second = first + top, second + left
            yield first[first < second], second[first < second]


def thumbnail_likeness(thumbnails: NDArray[np.uint8], pairs: Pairs) -> NDArray[np.float64]:
    """Correlation of the grey values of each pair's thumbnails, -1 to 1; 0 where one is flat.

    Args:
        thumbnails: (n, 16, 16) uint8.
        pairs: (m, 2) positions.
    """
    likeness = np.empty(len(pairs))
    for start in range(0, len(pairs), _BLOCK * 16):
        part = pairs[start : start + _BLOCK * 16]
        one, two = (_standardised(thumbnails[column].reshape(len(part), -1)) for column in part.T)
        likeness[start : start + len(part)] = (one * two).sum(axis=1)
    return likeness


def _standardised(rows: NDArray[np.generic]) -> NDArray[np.float64]:
    values = rows.astype(np.float64)
    values -= values.mean(axis=1, keepdims=True)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6)


def for_alignment(image: Image) -> NDArray[np.float32]:
    """What `aligned_likeness` compares: the grey picture at (64, 64) float32."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    shrink = min(grey.shape) >= ALIGNED
    squeezed = cv2.resize(grey, (ALIGNED, ALIGNED), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    return squeezed.astype(np.float32)


def aligned_likeness(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    """Correlation of the fine detail of two pictures, one moved, turned and stretched onto the other; -1 to 1.

    Args:
        one: (64, 64) float32 of `for_alignment`.
        two: likewise.

    Returns:
        0 where no way was found to lay one over the other, or one of them is flat.
    """
    if min(one.std(), two.std()) < 1:
        return 0.0
    criteria = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, _STEPS, 1e-3)
    start = np.eye(2, 3, dtype=np.float32)
    try:
        _, warp = cv2.findTransformECC(two, one, start, cv2.MOTION_AFFINE, criteria, None, 5)
    except cv2.error:  # does not converge: the pictures have nothing in common
        return 0.0
    size = (ALIGNED, ALIGNED)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(one, warp, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    first, second = _fine_detail(moved), _fine_detail(two)
    spread = float(first.std() * second.std())
    return 0.0 if spread < 1e-6 else float(((first - first.mean()) * (second - second.mean())).mean()) / spread


def _fine_detail(grey: NDArray[np.float32]) -> NDArray[np.float64]:
    detail = grey - cv2.GaussianBlur(grey, (0, 0), _FINE)
    return detail[_BORDER:-_BORDER, _BORDER:-_BORDER].astype(np.float64)
