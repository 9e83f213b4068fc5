"""What losses on pairs share: both forms of a batch, exact labels, float32, the level of a collapsed model."""

from __future__ import annotations

from abc import abstractmethod

import keras
import numpy as np
from keras import ops

from facekit.formulas import Terms
from facekit.pairwise import Pairs, Tensor, number_identities, pair_up


class PairLoss(keras.losses.Loss):
    """Base of the losses: a subclass has `terms`, and gets both forms, exact labels and float32 with it.

    Called on (labels, embeddings) it returns a scalar, or under `reduction=None` the value of each anchor.
    """

    def __init__(self, name: str | None = None, reduction: str | None = "sum_over_batch_size"):
        super().__init__(name=name, reduction=reduction, dtype="float32")

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """The reduced loss. Labels are numbered first: Keras casts them to float32, which merges large ones."""
        return super().__call__(number_identities(y_true), y_pred, sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(B,) float32, per anchor, whose mean is the loss."""
        return self.values(pair_up(y_true, y_pred))

    def values(self, pairs: Pairs) -> Tensor:
        """(A,) float32, per anchor, whose mean is the loss on these pairs."""
        return self.mean(pairs, self.terms(pairs))

    def mean(self, pairs: Pairs, terms: tuple[Terms, ...]) -> Tensor:
        """`values`, where the terms are known."""
        values = [pairs.mean_per_anchor(part.total, part.count) for part in terms]
        return sum(values[1:], values[0])

    @abstractmethod
    def terms(self, pairs: Pairs) -> tuple[Terms, ...]:
        """The formula on a batch's pairs: the loss is the sum of the means of each of these."""
        raise NotImplementedError

    def do_nothing_value(self, positives: int, negatives: int) -> float:
        """The loss of equal embeddings, the level of a collapsed model, with so many keys an anchor."""
        keys = positives + negatives
        positive = np.arange(keys)[None] < positives
        same = Pairs(ops.ones((1, 1)), ops.ones((keys, 1)), ops.array(positive), ops.array(~positive))
        return float(ops.mean(self.values(same)))
