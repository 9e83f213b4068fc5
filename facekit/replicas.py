"""Cross-replica negatives: every replica's rows as keys, so that a split batch has the whole batch's loss.

Under `tf.distribute` each replica embeds its own part of a batch. Its anchors alone would see the negatives of that
part only: a loss that gets weaker with every device. Here they see all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from facekit.pairwise import Pairs, Tensor, negative_mask, positive_mask, unit_rows


class Gathered(NamedTuple):
    """The rows of all R replicas, in the order of the replicas."""

    rows: Tensor
    """(R * B, D). A gradient by them goes back to each replica's own rows, summed over the replicas."""
    labels: Tensor
    """(R * B,)."""
    offset: Tensor | int
    """Place of this replica's row 0 among them: a scalar int32, or 0."""
    total: Callable[[Tensor], Tensor]
    """The sum of a tensor over the replicas, of its shape, on each of them. A gradient by it is summed likewise."""


def gather_negatives(rows: Tensor, labels: Tensor) -> Gathered:
    """Every replica's rows, or these alone where there is one replica or a backend other than TensorFlow.

    Args:
        rows: (B, D) float32; B is the same on all replicas.
        labels: (B,) integers, as they are: numbers given to them on one replica mean nothing on another.

    Returns:
        The same rows and labels on each replica, with the place of its own.

    Raises:
        tf.errors.InvalidArgumentError: the replicas' rows differ in number.
    """
    context = _replica_context()
    if context is None:
        return Gathered(rows, labels, 0, lambda value: value)
    import tensorflow as tf

    def total(value: Tensor) -> Tensor:
        return context.all_reduce(tf.distribute.ReduceOp.SUM, value)

    replicas, count = context.num_replicas_in_sync, tf.shape(rows)[0]
    everyone = context.all_gather(rows, axis=0)
    tf.debugging.assert_equal(
        tf.shape(everyone)[0],
        count * replicas,
        f"A batch must split evenly over {replicas} replicas: choose a size that is a multiple of {replicas}.",
    )
    offset = context.replica_id_in_sync_group * count
    return Gathered(everyone, context.all_gather(labels, axis=0), offset, total)


def pair_across(rows: Tensor, labels: Tensor) -> tuple[Pairs, Gathered]:
    """This replica's rows as anchors, every replica's as keys: each is compared with all others of the batch.

    The mean over replicas of a loss's mean over anchors is then the loss of the whole batch, and the sum over
    replicas of its gradients, divided by their number, that loss's gradient.

    Args:
        rows: (B, D) of any float dtype and norms; B is the same on all R replicas.
        labels: (B,) integers, as they are.

    Returns:
        A = B anchors and K = R * B keys, on one replica what `pairwise.pair_up` returns; and the keys' rows and
        labels as they were gathered.
    """
    anchors = unit_rows(rows)
    keys = gather_negatives(anchors, labels)
    positive = positive_mask(labels, keys.labels, keys.offset)
    return Pairs(anchors, keys.rows, positive, negative_mask(labels, keys.labels), keys.total), keys


def _replica_context() -> Any:
    """The `tf.distribute` context of this replica, or None where it has no others."""
    if keras.config.backend() != "tensorflow":
        return None
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return context if context is not None and context.num_replicas_in_sync > 1 else None
