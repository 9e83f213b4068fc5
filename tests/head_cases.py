"""The heads that the tests try, the batches that they try them on, and their oracles."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from facekit import heads
from tests import reference_heads as oracle

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "softmax": ("softmax", {}),
    "softmax-3": ("softmax", {"subcentres": 3}),
    "arcface": ("arcface", {}),
    "arcface-3": ("arcface", {"subcentres": 3, "margin": 0.8, "scale": 8.0}),
    "cosface": ("cosface", {}),
    "cosface-3": ("cosface", {"subcentres": 3, "margin": 0.6, "scale": 8.0}),
    "adaface": ("adaface", {}),
    "adaface-3": ("adaface", {"subcentres": 3, "margin": 0.7, "h": 0.6, "scale": 8.0}),
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_head = pytest.mark.parametrize("name", heads.HEADS)

# Six classes, unequal, two of them absent, in no order.
CLASSES = 6
LABELS = np.array([0, 4, 0, 1, 2, 0, 1, 4])
# Running averages at which some of the batches' rows have a quality beyond -1 and 1, and some are between.
MEAN, STD = 20.0, 4.0


@pytest.fixture(autouse=True, scope="module")
def exact_products() -> Iterator[None]:
    """For modules that import it: the oracles judge formulas, not how a GPU rounds the factors of products."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    yield
    tf.config.experimental.enable_tensor_float_32_execution(before)


def batch(kind: str, seed: int, subcentres: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Rows (8, 4) with norms from 4 to 40, and centres (6, subcentres, 4)."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(CLASSES, subcentres, 4))
    rows = rng.normal(size=(len(LABELS), 4))
    if kind == "clustered":
        rows = centres[LABELS, rng.integers(subcentres)] + 0.2 * rows
    rows *= np.geomspace(4, 40, len(LABELS))[:, None] / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype("float32"), centres.astype("float32")


def make(name: str, centres: np.ndarray, **options: Any) -> heads.Head:
    """A head with these centres, AdaFace's averages near the batches' norms."""
    head = heads.get(name, len(centres), **{"subcentres": centres.shape[1], **options})
    head.build((None, centres.shape[-1]))
    head.centres.assign(centres)
    if name == "adaface":
        head.norm_mean.assign(MEAN)
        head.norm_std.assign(STD)
    return head


def expected(name: str, rows: np.ndarray, labels: np.ndarray, centres: np.ndarray, **options: Any) -> np.ndarray:
    """The oracle's values with a head of `make`'s; `judged` are the rows whose norms AdaFace judges."""
    judged, h = options.pop("judged", rows), options.pop("h", 0.333)
    options.pop("subcentres", None)
    if name == "adaface":
        options.setdefault("quality", oracle.quality_of(judged, MEAN, STD, h))
    return oracle.values(name, rows, labels, centres, **options)


def outcome(
    head: heads.Head, rows: Any, labels: Any, training: bool = False, run: str = "eager"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, and the gradients of their mean by rows and by centres, run "eager", as a "graph" or with "xla"."""

    def step(rows: Any, labels: Any) -> tuple[Any, ...]:
        with tf.GradientTape() as tape:
            tape.watch(rows)
            values = head(rows, labels, training=training)
            mean = tf.reduce_mean(values)
        by_rows, by_centres = tape.gradient(mean, [rows, head.centres.value])
        return values, by_rows, tf.convert_to_tensor(by_centres)

    if run != "eager":
        step = tf.function(step, jit_compile=run == "xla")
    values, by_rows, by_centres = step(tf.convert_to_tensor(rows), tf.constant(labels))
    assert values.dtype == tf.float32 and values.shape == (len(labels),)
    return values.numpy(), np.asarray(by_rows, "float64"), by_centres.numpy()


def assert_near(found: np.ndarray, right: np.ndarray, share: float = 2e-3) -> None:
    """Within a share of the largest."""
    assert np.abs(found - right).max() <= share * np.abs(right).max() + 1e-7
