"""The losses and heads on Keras' other backends: their oracles' values and gradients, TensorFlow nowhere in sight.

Keras takes one backend a process: `KERAS_BACKEND=jax python -m tests.test_backends INPUTS RESULTS`.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from facekit import heads
from tests.loss_cases import BATCHES, VARIANTS, make

ROOT = Path(__file__).resolve().parent.parent
Arrays = dict[str, np.ndarray]
Step = Callable[[Callable[[Any], Any], np.ndarray], tuple[Any, Any]]

PORTABLE = (
    "losses", "facekit.arguments", "facekit.formulas", "facekit.heads", "facekit.memory", "facekit.miner",
    "facekit.mining", "facekit.pair_loss", "facekit.pairwise", "facekit.replicas", "facekit.weighted_sum",
)  # fmt: skip

NOTHING = {
    "one row": (np.zeros(1, int), np.ones((1, 3))),
    "tuplets without a pair": (np.array([[0, 1, 0, 0], [2, 0, 2, 2]]), np.ones((2, 4, 3))),
}
ODD = {
    "one identity": (np.zeros(4, int), np.eye(4, 3)),
    "all singletons": (np.arange(4), np.ones((4, 3))),
    "all equal": (np.array([0, 0, 1, 1]), np.ones((4, 3))),
    "all zero": (np.array([0, 0, 1, 1]), np.zeros((4, 3))),
    "a zero row": (np.array([0, 0, 1, 1]), np.array([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]])),
    "duplicates": (np.array([0, 0, 1, 1]), np.array([[1.0, 2, 3], [1, 2, 3], [1, 2, 3], [3, 1, 2]])),
    "antipodal": (np.array([0, 0, 1, 1]), np.array([[1.0, 0, 0], [-1, 0, 0], [1, 0, 0], [-1, 0, 0]])),
    "near duplicates": (np.array([0, 0, 1, 1]), np.ones((4, 3)) + 1e-7 * np.arange(12).reshape(4, 3)),
    "tuplets all equal": (np.array([[0, 0, 1, 2], [1, 1, 0, 2]]), np.ones((2, 4, 3))),
}
USUAL = {f"{form} {kind}": BATCHES[form](kind, 0) for form in BATCHES for kind in ("random", "clustered")}

HEAD_LABELS = np.array([0, 3, 1, 1, 6, 2, 5, 3])
HEAD_ROWS = (20.0 * np.random.default_rng(0).normal(size=(8, 5))).astype("float32")
HEAD_CENTRES = np.random.default_rng(1).normal(size=(7, 1, 5)).astype("float32")


# ---- The process of another backend ----------------------------------------------------------------------------


def jax_step(value: Callable[[Any], Any], rows: np.ndarray) -> tuple[Any, Any]:
    import jax

    return jax.value_and_grad(value)(rows)


def jax_compiled_step(value: Callable[[Any], Any], rows: np.ndarray) -> tuple[Any, Any]:
    import jax

    return jax.jit(jax.value_and_grad(value))(rows)


def torch_step(value: Callable[[Any], Any], rows: np.ndarray) -> tuple[Any, Any]:
    import torch

    at = torch.tensor(rows, requires_grad=True)
    found = value(at)
    return found.detach(), torch.autograd.grad(found, at)[0]


def tensorflow_step(value: Callable[[Any], Any], rows: np.ndarray) -> tuple[Any, Any]:
    import tensorflow as tf

    at = tf.constant(rows)
    with tf.GradientTape() as tape:
        tape.watch(at)
        found = value(at)
    return found, tape.gradient(found, at)


STEPS: dict[str, dict[str, Step]] = {
    "jax": {"eager": jax_step, "compiled": jax_compiled_step},
    "torch": {"eager": torch_step},
    "tensorflow": {"eager": tensorflow_step},
}


def head_named(name: str) -> heads.Head:
    head = heads.get(name, classes=len(HEAD_CENTRES))
    head.build((None, HEAD_ROWS.shape[1]))
    head.centres.assign(HEAD_CENTRES)
    return head


def values_and_gradients() -> Arrays:
    """Of every loss on every batch and every head, in each way to run on the backend of this process."""
    functions = {f"head {name}": (head_mean(name), HEAD_ROWS) for name in heads.HEADS}
    for variant in VARIANTS:
        for batch, (labels, rows) in (USUAL | NOTHING | ODD).items():
            functions[f"{variant} {batch}"] = (loss_of(variant, labels), rows.astype("float32"))
    found = {}
    for run, step in STEPS[keras.config.backend()].items():
        for case, (function, rows) in functions.items():
            value, gradient = step(function, rows)
            found |= {f"{run} {case} value": np.asarray(value), f"{run} {case} gradient": np.asarray(gradient)}
    return found


def loss_of(variant: str, labels: np.ndarray) -> Callable[[Any], Any]:
    loss = make(variant)
    return lambda rows: loss(labels, rows)


def head_mean(name: str) -> Callable[[Any], Any]:
    head = head_named(name)
    return lambda rows: keras.ops.mean(head(rows, HEAD_LABELS))


def main() -> None:
    for module in PORTABLE:
        importlib.import_module(module)
    np.savez(sys.argv[1], **values_and_gradients())


if __name__ == "__main__":
    main()
