"""What training minimises: losses on pairs and classification heads, with mining, memory and class centres."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from facekit.formulas import Terms
from facekit.heads import Head
from facekit.identities import ClassCentres
from facekit.memory import CrossBatchMemory
from facekit.miner import Miner
from facekit.pair_loss import PairLoss
from facekit.pairwise import Pairs, Tensor, negative_mask, pair_up, positive_mask
from facekit.replicas import Gathered, pair_across

PAIR_FIGURES = ("active", "positive_distance", "negative_distance", "spread", "norm")
MEMORY_FIGURES = ("memory_filled", "memory_age")


class Objective(keras.layers.Layer):
    """A weighted sum of losses on a batch's embeddings; trains with the network and is dropped with it.

    Args:
        losses: losses on pairs.
        heads: classifiers of the training people.
        weights: what the values are multiplied by: of the losses, then of the heads.
        whole_batch: True: every row is an anchor, every other person's row its negative, across replicas. False:
            tuplets as they are, each with its own negatives.
        miner: leaves fewer pairs to the losses.
        memory: gives the losses rows of earlier batches as further keys. Needs `whole_batch`.
        centres: follows the people's centres, for hard-identity batches.

    Raises:
        ValueError: nothing to minimise, or as many weights as losses and heads are not given.
    """

    def __init__(
        self,
        losses: Sequence[PairLoss] = (),
        heads: Sequence[Head] = (),
        weights: Sequence[float] = (1.0,),
        whole_batch: bool = True,
        miner: Miner | None = None,
        memory: CrossBatchMemory | None = None,
        centres: ClassCentres | None = None,
    ):
        super().__init__(name="objective", dtype="float32")
        if len(weights) != len(losses) + len(heads) or not weights:
            raise ValueError(
                f"An objective needs a weight for each loss and head. Received: {len(losses)} losses, {len(heads)} "
                f"heads, {len(weights)} weights."
            )
        self.losses_on_pairs, self.heads = list(losses), list(heads)
        self.loss_weights, self.head_weights = weights[: len(losses)], weights[len(losses) :]
        self.whole_batch, self.miner, self.memory, self.centres = whole_batch, miner, memory, centres

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the statistics that a call gives."""
        memory = MEMORY_FIGURES if self.memory else ()
        return PAIR_FIGURES + memory + (("class_accuracy",) if self.heads else ())

    def build_for(self, dimension: int) -> None:
        """Make the weights of all parts, for embeddings of so many numbers."""
        for part in (*self.heads, self.memory, self.centres):
            if part is not None and not part.built:
                part.build((None, dimension))
        self.built = True

    def do_nothing_value(self, positives: int, negatives: int) -> float:
        """The value where all embeddings are equal, with so many keys an anchor: that of a collapsed model.

        As things are now: with the memory as full and the miner as far as they are.
        """
        if self.memory is not None:
            # Nearly all of its rows are other people's.
            negatives += round(float(self.memory.filled()) * self.memory.size)
        if self.miner is not None:
            positives, negatives = self.miner.kept_of_equals(positives, negatives)
        values = [loss.do_nothing_value(positives, negatives) for loss in self.losses_on_pairs]
        values += [head.do_nothing_value() for head in self.heads]
        return sum(w * value for w, value in zip((*self.loss_weights, *self.head_weights), values, strict=True))

    def call(self, rows: Tensor, labels: Tensor, training: bool = True) -> tuple[Tensor, dict[str, Tensor]]:
        """The value of each anchor, and figures that show how training goes.

        Args:
            rows: (B, D), or (B, 2 + N, D) for tuplets: embeddings before they are scaled to length 1.
            labels: (B,) or (B, 2 + N) int, the people.
            training: whether memory, centres and running statistics move on.

        Returns:
            (B,) float32 whose mean is the objective (of all replicas, where their means are averaged), and float32
            scalars, 0 where there is nothing to average:

            - active: share of the first loss's terms that push, in [0, 1]: those above 0, or above 1e-3 where a
              term is never 0; without losses on pairs, the first head's rows whose value is above 1e-3.
            - positive_distance, negative_distance: mean distance of the batch's pairs, in [0, 2].
            - spread: 1 - |mean of the unit rows|, in [0, 1]. 0: collapsed to a point.
            - norm: mean length of the rows.
            - memory_filled, memory_age: share of the memory in use, and mean age of its rows in steps.
            - class_accuracy: share of rows whose own class is the likeliest to the last head.
        """
        flat_rows = ops.reshape(ops.cast(rows, "float32"), (-1, rows.shape[-1]))
        flat_labels = ops.reshape(labels, (-1,))
        pairs, gathered = pair_across(flat_rows, flat_labels)
        unit = pairs.anchors
        if not self.whole_batch:
            pairs = pair_up(labels, rows)._replace(total=gathered.total)
        statistics = _pair_statistics(pairs, flat_rows, unit)
        values, active = self._pair_values(self._widen(pairs, flat_labels))
        for weight, head in zip(self.head_weights, self.heads, strict=True):
            own, correct = head.outcome(flat_rows, flat_labels, training)
            values = values + weight * ops.mean(ops.reshape(own, (ops.shape(values)[0], -1)), axis=1)
            statistics["class_accuracy"] = ops.mean(correct)
            active = ops.mean(ops.cast(own > 1e-3, "float32")) if active is None else active
        statistics["active"] = active
        self._remember(gathered, training, statistics)
        return values, {name: ops.stop_gradient(statistics[name]) for name in self.names}

    def _widen(self, pairs: Pairs, labels: Tensor) -> Pairs:
        """Add the memory's rows to the keys, then let the miner choose."""
        if self.memory is not None:
            rows, key_labels, exists = self.memory.keys()
            positive = ops.logical_and(positive_mask(labels, key_labels), exists)
            negative = ops.logical_and(negative_mask(labels, key_labels), exists)
            pairs = pairs._replace(
                keys=ops.concatenate([pairs.keys, rows]),
                positive=ops.concatenate([pairs.positive, positive], axis=1),
                negative=ops.concatenate([pairs.negative, negative], axis=1),
            )
        return pairs if self.miner is None else self.miner(pairs)

    def _pair_values(self, pairs: Pairs) -> tuple[Tensor, Tensor | None]:
        values: Tensor = ops.zeros((ops.shape(pairs.anchors)[0],))
        active = None
        for weight, loss in zip(self.loss_weights, self.losses_on_pairs, strict=True):
            terms = loss.terms(pairs)
            values = values + weight * loss.mean(pairs, terms)
            active = _active_share(terms[0]) if active is None else active
        return values, active

    def _remember(self, gathered: Gathered, training: bool, statistics: dict[str, Tensor]) -> None:
        if self.memory is not None:
            statistics |= {"memory_filled": self.memory.filled(), "memory_age": self.memory.age()}
        for part in (self.memory and self.memory.add, self.centres and self.centres.update):
            if part and training:
                part(gathered.rows, gathered.labels)


def _pair_statistics(pairs: Pairs, rows: Tensor, unit: Tensor) -> dict[str, Tensor]:
    distances = pairs.distances()
    return {
        "positive_distance": _mean_where(distances, pairs.positive),
        "negative_distance": _mean_where(distances, pairs.negative),
        "spread": 1.0 - ops.norm(ops.mean(unit, axis=0)),
        "norm": ops.mean(ops.norm(rows, axis=1)),
    }


def _active_share(terms: Terms) -> Tensor:
    return ops.sum(terms.active) / ops.maximum(ops.sum(terms.valid), 1.0)


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    mask = ops.cast(mask, "float32")
    return ops.sum(values * mask) / ops.maximum(ops.sum(mask), 1.0)
