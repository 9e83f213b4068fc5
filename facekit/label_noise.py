"""Wrong labels, found by embeddings: pictures unlike their folder.

Every threshold comes from the data itself, and says what it expects to be wrong. Where a wrong label can be made up
(give a picture somebody else's label), the scores of made-up errors are known, and the scores seen are a mixture of
right labels and of as many errors as there are (the two-groups model: Efron, "Microarrays, empirical Bayes and the
two-groups model", Statistical Science 23, 2008):

    F(t) = share F_wrong(t) + (1 - share) F_right(t),    so    share <= F(t) / F_wrong(t) at every t.

The expected share of real errors among all that score below t is share F_wrong(t) / F(t).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float32]
Numbers = NDArray[np.float64]
Labels = NDArray[np.int64]

_BLOCK = 1024
_PRIOR = 1.0  # of a picture that resembles nobody, added to each folder: the mean of few pictures is uncertain
_FEWEST = 50  # scores below which a distribution's tail is not looked at
_SHARES = np.linspace(0.1, 0.9, 17)  # of made-up errors: where the share of errors is looked for
_MOST_ERRORS = 0.3  # estimated share above which the model, not the data, is taken to be at fault


def centred(embeddings: Rows) -> Rows:
    """Unit rows with what all of them have in common taken away: (n, D) float32 unit rows again.

    `misfits` and `facekit.folder_doubts` want such rows. Where every two faces have a large cosine (embeddings that
    were trained for distances, such as dlib's), that common part says nothing of who is who.
    """
    return unit_rows(embeddings - embeddings.mean(axis=0))


@dataclass(frozen=True)
class Judged:
    """What a threshold on some scores says; low scores are suspicious.

    Attributes:
        threshold: wrong below it; -inf where nothing can be told.
        share: estimate of the share of errors among all, 0 to 1 (not below the truth).
        found: how many lie below the threshold.
        expected_right: how many of those are expected to be right all the same (false alarms).
    """

    threshold: float
    share: float
    found: int
    expected_right: float


def judge(seen: Numbers, made_up: Numbers, precision: float) -> Judged:
    """The largest threshold below which the expected share of real errors is at least `precision`.

    Where right and made-up labels score alike the share of errors cannot be told, and its bound is large: above
    0.3 nothing is found.

    Args:
        seen: (n,) scores of the data, low ones suspicious.
        made_up: (k,) scores that errors would have.
        precision: 0 to 1.
    """
    if min(len(seen), len(made_up)) < _FEWEST:
        return nothing_told()
    seen, made_up = np.sort(seen), np.sort(made_up)
    places = np.quantile(made_up, _SHARES)
    below = np.searchsorted(seen, places, side="right")
    # A standard deviation and one more than counted: the least of several counts is too small by chance.
    share = min(1.0, float(np.min((below + np.sqrt(below) + 1) / (len(seen) * _SHARES))))
    if share > _MOST_ERRORS:
        return Judged(-np.inf, share, 0, 0.0)
    errors = share * np.searchsorted(made_up, seen, side="right") / len(made_up) * len(seen)
    counted = np.arange(1, len(seen) + 1)
    good = np.flatnonzero((np.minimum(errors / counted, 1.0) >= precision) & (errors >= 0.5))
    if not good.size:
        return Judged(-np.inf, share, 0, 0.0)
    last = int(good[-1])
    # Between this score and the next, so that rounding decides nothing.
    threshold = float(np.nextafter(seen[last], np.inf))
    return Judged(threshold, share, last + 1, float(max(0.0, last + 1 - errors[last])))


@dataclass(frozen=True)
class Misfits:
    """Pictures against their folders.

    Attributes:
        margin: (n,) how much more a picture resembles its own folder than the best other one; NaN: not judged.
        other: (n,) int64, the folder that it resembles most of the others.
        wrong: (n,) bool.
        judged: the threshold on `margin`.
    """

    margin: Numbers
    other: Labels
    wrong: NDArray[np.bool_]
    judged: Judged


def misfits(
    embeddings: Rows,
    labels: Labels,
    trusted: NDArray[np.bool_] | None = None,
    precision: float = 0.8,
    fewest: int = 3,
    rounds: int = 2,
    seed: int = 0,
) -> Misfits:
    """Pictures unlike the others of their folder.

    A picture resembles a folder by its cosines with the folder's pictures, the sum divided by one more than their
    number, which keeps folders of few from matching by chance; its own folder without itself. The margin is that of
    its own folder less that of the best other. An error is made up by taking a picture for one of another folder,
    drawn as often as it has pictures. Pictures found are left out of the folders' sums in the next round. Where
    more than half of a folder resembles one and the same other folder, its pictures are not found: the folders are
    alike as a whole, which is for `facekit.folder_doubts.doubles` to say.

    Memory: n rows, one sum a folder, and a block of pictures times folders.

    Args:
        embeddings: (n, D) unit rows, of `centred`.
        labels: (n,) folders, 0 and up.
        trusted: (n,) bool: pictures that speak for their folder and set the threshold; the others, such as further
            copies of a picture, are judged by these. None: all.
        precision: expected share of real errors among those found, 0 to 1.
        fewest: trusted pictures that a folder must have for its pictures to be judged; at least 2.
        rounds: see above.
        seed: of the made-up errors.
    """
    rng = np.random.default_rng(seed)
    given = np.ones(len(labels), bool) if trusted is None else trusted
    counts = np.bincount(labels[given], minlength=int(labels.max()) + 1)
    judgeable = counts[labels] >= max(2, fewest)
    speaking = given
    result = Misfits(np.full(len(labels), np.nan), labels.copy(), np.zeros(len(labels), bool), nothing_told())
    if np.count_nonzero(counts) < 3:
        return result
    for _ in range(rounds):
        claimed = labels[rng.permutation(len(labels))]
        margin, made_up, other = _margins(embeddings, labels, claimed, speaking)
        fair = given & judgeable & (claimed != labels) & (counts[claimed] >= fewest)
        judged = judge(margin[judgeable & given], made_up[fair], precision)
        wrong = judgeable & (margin < judged.threshold)
        wrong &= ~_as_a_whole(wrong & given, labels, other, counts)
        result = Misfits(np.where(judgeable, margin, np.nan), other, wrong, judged)
        speaking = given & ~wrong
    return result


def _as_a_whole(
    wrong: NDArray[np.bool_], labels: Labels, other: Labels, counts: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which pictures, (n,) bool, go with more than half of their folder to the same other folder."""
    ways = labels * len(counts) + other
    taken, number = np.unique(ways[wrong], return_counts=True)
    return np.isin(ways, taken[2 * number > counts[taken // len(counts)]])


def nothing_told() -> Judged:
    """What is said where there is too little to judge by."""
    return Judged(-np.inf, 0.0, 0, 0.0)


def _margins(
    embeddings: Rows, labels: Labels, claimed: Labels, trusted: NDArray[np.bool_]
) -> tuple[Numbers, Numbers, Labels]:
    """Each picture's margin in its folder, the one that it would have in a claimed folder, and its best other."""
    folders = int(labels.max()) + 1
    counts = np.bincount(labels[trusted], minlength=folders).astype(np.float32)
    sums = folder_sums(embeddings, labels, folders, trusted)
    n = len(labels)
    margin, made_up, other = np.empty(n), np.empty(n), np.empty(n, np.int64)
    for start in range(0, n, _BLOCK):
        part = slice(start, start + _BLOCK)
        rows, own, claim = embeddings[part], labels[part], claimed[part]
        lines, itself = np.arange(len(rows)), trusted[part].astype(np.float32)
        likeness = rows @ sums.T
        own_sum = likeness[lines, own] - itself * np.einsum("nd,nd->n", rows, rows)
        likeness /= counts + _PRIOR
        likeness[lines, own] = own_sum / (counts[own] - itself + _PRIOR)
        own_likeness, claim_likeness = likeness[lines, own], likeness[lines, claim]
        likeness[lines, own] = -np.inf
        other[part] = likeness.argmax(axis=1)
        margin[part] = own_likeness - likeness.max(axis=1)
        likeness[lines, own] = own_likeness
        likeness[lines, claim] = -np.inf
        made_up[part] = claim_likeness - likeness.max(axis=1)
    return margin, made_up, other


def folder_sums(embeddings: Rows, labels: Labels, folders: int, trusted: NDArray[np.bool_]) -> Rows:
    """(folders, D) sums of the trusted rows of each folder."""
    order = np.flatnonzero(trusted)
    order = order[np.argsort(labels[order], kind="stable")]
    sums = np.zeros((folders, embeddings.shape[1]), np.float32)
    if order.size:
        starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
        sums[labels[order][starts]] = np.add.reduceat(embeddings[order], starts, axis=0)
    return sums


def unit_rows(rows: Rows) -> Rows:
    """Rows scaled to length 1: (n, D); a row of zeros stays."""
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
