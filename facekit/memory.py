"""Cross-batch memory: earlier batches' rows, kept as further keys of a loss."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from facekit.pairwise import Tensor, unit_rows

EMPTY = -1


@keras.saving.register_keras_serializable(package="tupletface")
class CrossBatchMemory(keras.layers.Layer):
    """A ring of earlier batches' rows: Wang et al., "Cross-batch memory for embedding learning", CVPR 2020.

    Embeddings drift slowly (section 3.2), so rows of earlier steps still stand for their pictures and give each
    anchor thousands of further keys for the price of a product (section 3.3). They take no gradient.

    Unlike the paper, whose anchors also meet their own batch in the memory: `keys` are earlier batches' alone if
    `add` comes after them, so that the batch's own rows can keep their gradient as keys. And the memory fills batch
    by batch, where the paper fills it at once, after the warm-up, by embedding random pictures.

    Not called: `keys` reads, `add` writes, inside a training step or outside. Build it first, `build((None, D))`.
    With several replicas the first one's memory counts: add the gathered batch.

    Args:
        size: rows to keep, at least 1.
        start_step: how many first calls of `add` only count, at least 0: early rows drift fastest (section 3.2).
        **kwargs: `name`, as for every Keras layer.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, size: int = 8192, start_step: int = 0, **kwargs: Any):
        super().__init__(**kwargs)
        if size < 1 or start_step < 0:
            raise ValueError(
                f"`size` must be at least 1 and `start_step` at least 0. Received: {size=}, {start_step=}"
            )
        self.size = size
        self.start_step = start_step

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make the empty memory for batches of this shape: (B, D), of which only D matters.

        The weights, all saved and none trained: `rows` (size, D) float32; `labels` (size,); `written` (size,), the
        number of the `add` that wrote the row, from 0, or -1; `cursor`, where the next row goes; `steps`, how often
        `add` was called. Integers are Keras' "int": TensorFlow's int32 variables are out of XLA's reach on a GPU.
        """
        self.rows = self._weight("rows", (self.size, input_shape[-1]), "float32")
        self.labels = self._weight("labels", (self.size,))
        self.written = self._weight("written", (self.size,), start=EMPTY)
        self.cursor = self._weight("cursor")
        self.steps = self._weight("steps")

    def _weight(self, name: str, shape: tuple[Any, ...] = (), dtype: str = "int", start: int = 0) -> Any:
        return self.add_weight(
            name=name,
            shape=shape,
            dtype=dtype,
            initializer=keras.initializers.Constant(start),
            trainable=False,
            autocast=False,
            aggregation="only_first_replica",
        )

    def keys(self) -> tuple[Tensor, Tensor, Tensor]:
        """All places of the memory, in the order of the ring, without gradient.

        Returns:
            Rows (size, D) float32, unit or zero; labels (size,) int32; exists (size,) bool. A place that does not
            exist yet has row 0 and label 0: mask it.
        """
        rows = ops.stop_gradient(ops.convert_to_tensor(self.rows))
        return rows, ops.cast(self.labels, "int32"), self.written > EMPTY

    def add(self, rows: Tensor, labels: Tensor) -> None:
        """Write a batch over the oldest rows; of a batch larger than the memory, its last `size` rows.

        Args:
            rows: (B, D) of any float dtype and any norms; kept as unit rows, detached.
            labels: (B,) int, within int32.
        """
        rows = ops.stop_gradient(unit_rows(rows))[-self.size :]
        labels = ops.cast(labels, self.labels.dtype)[-self.size :]
        count = ops.shape(rows)[0]
        cursor, step = ops.convert_to_tensor(self.cursor), ops.convert_to_tensor(self.steps)
        recording = step >= self.start_step
        places = ops.mod(cursor + ops.arange(count, dtype=cursor.dtype), self.size)
        for weight, values in ((self.rows, rows), (self.labels, labels), (self.written, step)):
            # Not recording writes what is there: it touches B rows, where a choice between memories copies them.
            values = ops.where(recording, values, ops.take(weight, places, axis=0))
            weight.assign(ops.scatter_update(weight, places[:, None], values))
        self.cursor.assign(ops.mod(cursor + ops.where(recording, count, 0), self.size))
        self.steps.assign(step + 1)

    def filled(self) -> Tensor:
        """Share of the places that hold a row: float32 scalar in [0, 1]."""
        return ops.mean(ops.cast(self.written > EMPTY, "float32"))

    def age(self) -> Tensor:
        """Mean age of the rows in steps: float32 scalar, 0 where there are none.

        A row is 1 step old for the batch after its own: right after the first `add` the mean is 1.
        """
        exists = ops.cast(self.written > EMPTY, "float32")
        ages = ops.cast(self.steps - self.written, "float32")
        return ops.sum(ages * exists) / ops.maximum(ops.sum(exists), 1.0)

    def get_config(self) -> dict[str, Any]:
        """The arguments, for saving."""
        return super().get_config() | {"size": self.size, "start_step": self.start_step}
