"""Verification on held-out people while a model trains: figures for the logs, pictures for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekit.folds import folds_by_identity, folds_by_pair, kfold_accuracy
from facekit.metrics import most_within, roc
from facekit.pairs import Pairs
from facekit.panels import plain_text
from facekit.plots import figure_to_image, pairs_strip
from facekit.rate_plots import det_figure, roc_figure, score_figure
from facekit.trainer import pair_distances

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

# Rows whose cosines with all others are looked at together.
_BLOCK = 1024

FIGURES = ("auc", "accuracy", "precision", "recall", "f1", "tpr", "fpr", "fnr", "eer", "threshold")
"""Names of what `HeldOut.measure` gives; threshold is the mean of those chosen on the other folds."""

TPR_AT_FMR = "tpr_at_fmr"
"""Name of what `Everyone.measure` gives."""

HELD_OUT_FIGURES = (*FIGURES, TPR_AT_FMR, "triplets_ordered")
"""Those, and the user's own triplets' share ordered right."""

CHIEF_FIGURES = ("auc", "accuracy", "eer", TPR_AT_FMR)
"""Those by which runs compare."""


class HeldOut:
    """Pairs of held-out people's pictures, kept in memory and judged again and again.

    Args:
        images: (n, S, S, 3) uint8, the pictures in the order of `pairs.pictures()`.
        pairs: which of them to compare.

    Attributes:
        images: (n, S, S, 3) uint8.
        files: (n) their paths.
        people: (n) their folders, which are people.
        embeddings: (n, D) float32 unit rows, of the last measurement.
        distances: of the pairs, at the last measurement.
    """

    def __init__(self, images: NDArray[np.uint8], pairs: Pairs):
        self.pairs, self.images = pairs, images
        self.files = pairs.pictures()
        self.people = [Path(path).parent.as_posix() for path in self.files]
        place = {path: position for position, path in enumerate(self.files)}
        self._first = np.array([place[path] for path in pairs.first])
        self._second = np.array([place[path] for path in pairs.second])
        people = pairs.people()
        # Folds of very few people say little about each other; folds of pairs do.
        by_identity = people is not None and len({*people[0]}) >= 10
        self._folds = folds_by_identity(*people).folds if people and by_identity else folds_by_pair(len(pairs))
        self.distances = np.full(len(pairs), np.nan)
        self.embeddings = np.empty((0, 0), np.float32)
        self._threshold = float("nan")

    def measure(self, embed: Embed) -> dict[str, float]:
        """Embed every picture once and judge the pairs: the figures named in `FIGURES`.

        Accuracy and rates come from thresholds chosen on the other folds, never on the pairs they decide.

        Raises:
            FloatingPointError: an embedding is NaN or infinite.
        """
        self.embeddings = embed(self.images)
        if not np.isfinite(self.embeddings).all():
            raise FloatingPointError("The embeddings of held-out people became NaN or infinite")
        self.distances = pair_distances(self.embeddings, self._first, self._second)
        curve = roc(self.distances, self.pairs.same)
        folding = kfold_accuracy(self.distances, self.pairs.same, self._folds)
        # Where accepting everything is best the threshold is infinite; unit rows are never farther apart than 2.
        self._threshold = float(np.mean(np.minimum(folding.thresholds, 2.0)))
        rates = {name: getattr(folding.rates, name) for name in ("precision", "recall", "f1", "tpr", "fpr", "fnr")}
        return {
            "auc": curve.auc,
            "accuracy": folding.accuracy,
            **rates,
            "eer": curve.eer.rate,
            "threshold": self._threshold,
        }

    def hardest(self, count: int = 6) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs that the last measurement got most wrong: the farthest genuine and the nearest impostor ones."""
        genuine, impostor = np.flatnonzero(self.pairs.same), np.flatnonzero(~self.pairs.same)
        farthest = genuine[np.argsort(-self.distances[genuine], kind="stable")[:count]]
        nearest = impostor[np.argsort(self.distances[impostor], kind="stable")[:count]]
        return farthest, nearest

    def class_distances(self) -> dict[str, NDArray[np.float64]]:
        """The last measurement's distances of genuine and of impostor pairs."""
        return {"genuine": self.distances[self.pairs.same], "impostor": self.distances[~self.pairs.same]}

    def pictures_at(self, places: NDArray[np.int64]) -> tuple[list[str], list[str], NDArray[np.uint8]]:
        """People, files and images of some of the pictures."""
        return (
            [self.people[place] for place in places],
            [self.files[place] for place in places],
            self.images[places],
        )

    def pictures(self) -> dict[str, NDArray[np.uint8]]:
        """The last measurement drawn: ROC and DET curves, score histograms, strips of the hardest pairs."""
        curve = roc(self.distances, self.pairs.same)
        figures = {
            "roc": roc_figure({"held-out people": curve}),
            "det": det_figure({"held-out people": curve}),
            "distances": score_figure(self.distances, self.pairs.same, self._threshold),
        }
        drawn = {name: figure_to_image(figure) for name, figure in figures.items()}
        for name, chosen in zip(("hardest_genuine", "hardest_impostor"), self.hardest(), strict=True):
            left, right = self._first[chosen], self._second[chosen]
            captions = [self._caption(*pair) for pair in zip(self.distances[chosen], left, right, strict=True)]
            # Narrow: TensorBoard shows pictures small.
            drawn[name] = pairs_strip(self.images[left], self.images[right], captions, columns=2)
        return drawn

    def _caption(self, distance: float, left: int, right: int) -> str:
        people = dict.fromkeys(self.people[place] for place in (left, right))
        return f"{distance:.2f}\n" + " / ".join(plain_text(name, 18) for name in people)


class Everyone:
    """All pairs of held-out people's pictures: enough impostors for low false-match rates.

    Args:
        images: (n, S, S, 3) uint8.
        labels: (n) the person of each.
        fmr: the false-match rate at which people are to be recognised, in (0, 1).
    """

    def __init__(self, images: NDArray[np.uint8], labels: NDArray[np.integer], fmr: float):
        self._images, self._labels, self._fmr = images, labels, fmr

    def measure(self, embed: Embed) -> dict[str, float]:
        """Embed every picture once: the true-match rate at the false-match rate.

        Raises:
            FloatingPointError: an embedding is NaN or infinite.
        """
        embeddings = embed(self._images)
        if not np.isfinite(embeddings).all():
            raise FloatingPointError("The embeddings of held-out people became NaN or infinite")
        return {TPR_AT_FMR: tpr_at_fmr(embeddings, self._labels, self._fmr)}


def pair_counts(labels: NDArray[np.integer]) -> tuple[int, int]:
    """Genuine and impostor pairs among pictures of these people."""
    counts = np.unique(labels, return_counts=True)[1]
    genuine = int((counts * (counts - 1)).sum()) // 2
    return genuine, len(labels) * (len(labels) - 1) // 2 - genuine


def tpr_at_fmr(embeddings: NDArray[np.floating], labels: NDArray[np.integer], fmr: float) -> float:
    """Share of all genuine pairs accepted by the threshold that accepts at most this share of all impostor pairs.

    The same as `facekit.metrics.roc` of all pairs gives, block by block: n^2 cosines never lie in memory at once.

    Args:
        embeddings: (n, D) unit rows.
        labels: (n) the person of each; at least one genuine and one impostor pair.
        fmr: in (0, 1).
    """
    rows, genuine = embeddings.astype(np.float32), []
    accepted = most_within(fmr, pair_counts(labels)[1])
    nearest = np.empty(0, np.float32)
    for start in range(0, len(rows), _BLOCK):
        block = slice(start, start + _BLOCK)
        cosines = rows[block] @ rows[start:].T
        later = np.triu(np.ones(cosines.shape, bool), 1)
        same = labels[block, None] == labels[None, start:]
        genuine.append(cosines[later & same])
        nearest = np.append(nearest, cosines[later & ~same])
        if len(nearest) > accepted + 1:
            nearest = np.partition(nearest, -accepted - 1)[-accepted - 1 :]
    return float(np.mean(np.concatenate(genuine) > nearest.min()))


def pictures_of_most(people: Sequence[str], most_people: int, most_each: int | None = None) -> NDArray[np.int64]:
    """Positions of the first pictures of those people who have most of them, the same ones every time.

    Args:
        people: (n) the person of each picture.
        most_people: people at most; of equally many pictures, by name.
        most_each: pictures of each at most; None: all.

    Returns:
        Positions in `people`, person by person, who has most first.
    """
    of_each: dict[str, list[int]] = {}
    for position, person in enumerate(people):
        of_each.setdefault(person, []).append(position)
    chosen = sorted(of_each, key=lambda person: (-len(of_each[person]), person))[:most_people]
    return np.array([position for person in chosen for position in of_each[person][:most_each]], np.int64)


def ordered_share(embeddings: NDArray[np.floating], triplets: NDArray[np.integer]) -> float:
    """Share of triplets whose anchor is nearer to the positive than to the negative; a tie counts as wrong.

    Args:
        embeddings: (n, D) unit rows.
        triplets: (m, 3) rows of `embeddings`: anchor, positive, negative.
    """
    anchor, positive, negative = triplets.T
    return float(
        np.mean(pair_distances(embeddings, anchor, positive) < pair_distances(embeddings, anchor, negative))
    )
