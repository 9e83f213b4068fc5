"""Cost of losses, mining, memory and heads: in a training step's time, and against the published cubic form."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import Field, NonNegativeInt, PositiveInt

from apps.timing import device, median_seconds, row
from config import Config
from facekit import runtime
from facekit.settings import Settings
from facekit.workers import peak_memory
from objectives import build_objective

# What is timed: settings of config.py.
CASES: dict[str, dict[str, Any]] = {
    "tuplet_margin": {},
    "tuplet_margin, hardest 2": {"hardest": 2},
    "tuplet_margin_ipv": {"loss": "tuplet_margin_ipv"},
    "triplet, semi_hard": {"loss": "triplet"},
    "triplet, all": {"loss": "triplet", "mining": "all"},
    "triplet, hard": {"loss": "triplet", "mining": "hard"},
    "contrastive": {"loss": "contrastive"},
    "n_pair": {"loss": "n_pair"},
    "multi_similarity": {"loss": "multi_similarity"},
    "circle": {"loss": "circle"},
    "supcon": {"loss": "supcon"},
    "tuplet_margin, mining random": {"mining": "random"},
    "tuplet_margin, mining semi_hard": {"mining": "semi_hard"},
    "tuplet_margin, mining distance_weighted": {"mining": "distance_weighted"},
    "tuplet_margin, memory of 8192": {"memory_size": 8192, "memory_start": 0},
    "arcface, 10,575 people": {"loss": "arcface"},
    "arcface, 1,057 of them sampled": {"loss": "arcface", "sampled": 1057},
}
PEOPLE = 10_575
PER_PERSON = 4


class LossBench(Settings):
    """Time of value and gradient of each loss, as a share of a network's training step."""

    batch_size: PositiveInt = 512
    """Rows in a batch, four of each person."""

    dimension: PositiveInt = 512
    """Numbers in a row."""

    backbone: str = "resnet50"
    """Network whose training step the losses are compared with; see config.py."""

    image_size: PositiveInt = 112
    """Side of its input, in pixels."""

    step_batch: PositiveInt = 32
    """Pictures in its measured step, from which that of batch_size is reckoned: 512 would not fit in memory."""

    cubic: tuple[PositiveInt, ...] = (128, 256, 512)
    """Batch sizes at which semi-hard mining is compared with the published form, which tiles the distances."""

    warmup: NonNegativeInt = 2
    """Calls before the clock starts."""

    steps: int = Field(7, ge=1)
    """Timed calls; the median counts."""


def bench_losses(settings: LossBench) -> Iterator[str]:
    """Measure everything in one run; yields the lines of two Markdown tables.

    Raises:
        ValueError: an unknown backbone.
    """
    step = _step_seconds(settings)
    yield (
        f"Batch {settings.batch_size} x {settings.dimension}, value and gradient, median of {settings.steps}; "
        f"{device()}. A training step of {settings.backbone} at {settings.image_size} px takes "
        f"{step:.1f} s for that batch, reckoned from {settings.step_batch} pictures.\n"
    )
    yield row(["loss", "ms", "share of the step"])
    yield row(["---", "---:", "---:"])
    for name, changes in CASES.items():
        seconds = _seconds(_objective_step(Config(**changes), settings), settings)
        yield row([name, f"{1000 * seconds:.1f}", f"{seconds / step:.2%}"])
    yield ""
    yield row(["batch", "semi-hard here, ms", "cubic form, ms", "times", "here, MB more", "cubic, MB more"])
    yield row(["---:"] * 6)
    for size in settings.cubic:
        (here, here_mb), (cubic, cubic_mb) = (_alone(kind, size, settings) for kind in ("here", "cubic"))
        cells = [f"{1000 * here:.1f}", f"{1000 * cubic:.0f}", f"{cubic / here:.0f}", f"{here_mb:.0f}"]
        yield row([str(size), *cells, f"{cubic_mb:.0f}"])


def _step_seconds(settings: LossBench) -> float:
    """Seconds of the network's training step for `batch_size` pictures."""
    import tensorflow as tf

    from apps.bench import training_step
    from model import build_embedding_model

    config = Config(backbone=settings.backbone, image_size=settings.image_size, embedding_size=settings.dimension)
    shape = (settings.step_batch, settings.image_size, settings.image_size, 3)
    step = training_step(build_embedding_model(config), tf.random.stateless_uniform(shape, (0, 0), maxval=255.0))
    return _seconds(step, settings) * settings.batch_size / settings.step_batch


def _seconds(call: Callable[[], Any], settings: LossBench) -> float:
    return median_seconds(lambda: call().numpy(), settings.warmup, settings.steps)


def _batch(size: int, dimension: int) -> tuple[Any, Any]:
    """Clustered rows, so that mining has something to choose between, and their labels."""
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    labels = np.arange(size) // PER_PERSON
    rows = rng.normal(size=(size, dimension))[labels] + rng.normal(size=(size, dimension))
    return tf.constant(rows, tf.float32), tf.constant(labels, tf.int32)


def _objective_step(config: Config, settings: LossBench) -> Callable[[], Any]:
    """Value and gradient, by rows and by a head's centres, compiled to a graph."""
    import tensorflow as tf

    objective = build_objective(config, PEOPLE)
    objective.build_for(settings.dimension)
    rows, labels = _batch(settings.batch_size, settings.dimension)

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(rows)
            values, _ = objective(rows, labels, training=True)
            loss = tf.reduce_mean(values)
        watched = [rows, *(weight.value for weight in objective.trainable_weights)]
        gradients = tape.gradient(loss, watched)
        # Of sampled centres there are a few rows only; made whole they would be charged for the others.
        return sum(tf.reduce_sum(getattr(gradient, "values", gradient)) for gradient in gradients)

    return step


def _alone(kind: str, size: int, settings: LossBench) -> tuple[float, float]:
    """Seconds and further megabytes at the peak of semi-hard mining, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_semi_hard_cost, (kind, size, settings))


def _semi_hard_cost(kind: str, size: int, settings: LossBench) -> tuple[float, float]:
    runtime.start_quietly()
    import tensorflow as tf

    from losses import TripletLoss

    rows, labels = _batch(size, settings.dimension)
    loss = TripletLoss(margin=1.0, squared=True) if kind == "here" else cubic_semi_hard

    @tf.function
    def step() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(rows)
            value = loss(labels, rows)
        return tape.gradient(value, rows)

    step.get_concrete_function()
    before = peak_memory()
    return _seconds(step, settings), (peak_memory() - before) / 1e6


def cubic_semi_hard(labels: Any, rows: Any, margin: float = 1.0) -> Any:
    """Semi-hard triplet loss by comparing every pair with every negative: (B, B, B) tensors.

    The form that TensorFlow Addons' `TripletSemiHardLoss` had, as its documentation describes it; for comparison.

    Args:
        labels: (B,) int.
        rows: (B, D) float32.
        margin: of squared distances.

    Returns:
        The loss, a float32 scalar.
    """
    import tensorflow as tf

    units = tf.math.l2_normalize(rows, axis=1)
    squares = tf.maximum(2.0 - 2.0 * tf.matmul(units, units, transpose_b=True), 0.0)
    same = labels[:, None] == labels[None]
    positive = tf.cast(same & ~tf.eye(tf.shape(labels)[0], dtype=tf.bool), tf.float32)
    farther = ~same[:, None, :] & (squares[:, None, :] > squares[:, :, None])
    nearest = tf.reduce_min(tf.where(farther, squares[:, None, :], tf.float32.max), axis=2)
    farthest = tf.reduce_max(tf.where(same, 0.0, squares), axis=1, keepdims=True)
    chosen = tf.where(tf.reduce_any(farther, axis=2), nearest, farthest)
    terms = tf.maximum(squares - chosen + margin, 0.0)
    return tf.reduce_sum(terms * positive) / tf.reduce_sum(positive)
