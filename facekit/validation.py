"""Verification on held-out people while a model trains: figures for the logs, pictures for TensorBoard."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from facekit.folds import folds_by_identity, folds_by_pair, kfold_accuracy
from facekit.metrics import roc
from facekit.plots import figure_to_image, pairs_strip, roc_figure, score_figure
from facekit.protocols import Pairs
from facekit.trainer import pair_distances

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

FIGURES = ("auc", "accuracy", "precision", "recall", "f1", "tpr", "fpr", "fnr", "eer", "threshold")
"""Names of what `HeldOut.measure` gives; threshold is the mean of those chosen on the other folds."""


class HeldOut:
    """Pairs of held-out people's pictures, kept in memory and judged again and again.

    Args:
        images: (n, S, S, 3) uint8, the pictures in the order of `pairs.pictures()`.
        pairs: which of them to compare.
    """

    def __init__(self, images: NDArray[np.uint8], pairs: Pairs):
        self.pairs = pairs
        self._images = images
        place = {path: position for position, path in enumerate(pairs.pictures())}
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
        self.embeddings = embed(self._images)
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

    def hardest(self, count: int = 8) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Pairs that the last measurement got most wrong: the farthest genuine and the nearest impostor ones."""
        genuine, impostor = np.flatnonzero(self.pairs.same), np.flatnonzero(~self.pairs.same)
        farthest = genuine[np.argsort(-self.distances[genuine], kind="stable")[:count]]
        nearest = impostor[np.argsort(self.distances[impostor], kind="stable")[:count]]
        return farthest, nearest

    def pictures(self) -> dict[str, NDArray[np.uint8]]:
        """The last measurement drawn: ROC curve, score histograms, strips of the hardest pairs."""
        curve = roc(self.distances, self.pairs.same)
        drawn = {
            "roc": figure_to_image(roc_figure({"held-out people": curve})),
            "distances": figure_to_image(score_figure(self.distances, self.pairs.same, self._threshold)),
        }
        for name, chosen in zip(("hardest_genuine", "hardest_impostor"), self.hardest(), strict=True):
            captions = [f"{self.distances[pair]:.2f}" for pair in chosen]
            left, right = self._images[self._first[chosen]], self._images[self._second[chosen]]
            drawn[name] = pairs_strip(left, right, captions)
        return drawn


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
