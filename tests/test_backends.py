"""The losses and heads on Keras' other backends: the oracles' values and gradients, and TensorFlow nowhere.

Keras takes one backend a process: `KERAS_BACKEND=jax python -m tests.test_backends FILE` computes, pytest compares.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from facekit import heads
from tests.loss_cases import BATCHES, VARIANTS, make, oracle, slope

pytestmark = pytest.mark.backend

ROOT = Path(__file__).resolve().parent.parent
Arrays = dict[str, np.ndarray]
Batch = tuple[np.ndarray, np.ndarray]
Loss = Callable[[Any, Any], Any]

PORTABLE = [
    "losses",
    *(f"facekit.{name}" for name in ("arguments", "formulas", "heads", "memory", "miner", "mining")),
    *(f"facekit.{name}" for name in ("pair_loss", "pairwise", "replicas", "weighted_sum")),
]


def odd_batches(labels: np.ndarray, rows: np.ndarray) -> dict[str, Batch]:
    """Degenerate batches, of the shape of a usual one: nothing is compiled again."""
    numbers = np.arange(labels.size).reshape(labels.shape)
    batches = {
        "one identity": (np.zeros_like(labels), rows),
        "all singletons": (numbers, rows),
        "all equal": (labels, np.ones_like(rows)),
        "all zero": (labels, np.zeros_like(rows)),
        "a zero row": (labels, np.where(numbers[..., None] == 0, 0.0, rows)),
        "duplicates": (labels, rows.reshape(-1, rows.shape[-1])[labels % 7]),
        "antipodal": (labels, np.ones_like(rows) * (-1.0) ** numbers[..., None]),
        "near duplicates": (labels, 1.0 + 1e-7 * np.arange(rows.size).reshape(rows.shape)),
    }
    return {name: (labels, rows.astype("float32")) for name, (labels, rows) in batches.items()}


USUAL = {form: {kind: BATCHES[form](kind, 0) for kind in ("random", "clustered")} for form in BATCHES}
ODD = {form: odd_batches(*USUAL[form]["random"]) for form in BATCHES}

HEADS: dict[str, dict[str, Any]] = {**{name: {} for name in heads.HEADS}, "arcface-subcentres": {"subcentres": 3}}
HEAD_BATCH = np.array([0, 3, 1, 1, 6, 2, 5, 3]), np.random.default_rng(0).normal(scale=9, size=(8, 5)).astype("f4")


def head_loss(name: str) -> Loss:
    """The mean value of a head with the same centres everywhere."""
    head = heads.get(name.partition("-")[0], classes=7, **HEADS[name])
    head.build((None, HEAD_BATCH[1].shape[1]))
    head.centres.assign(np.random.default_rng(1).normal(size=head.centres.shape))
    return lambda labels, rows: keras.ops.mean(head(rows, labels))


# ---- The process of another backend ----------------------------------------------------------------------------


def jax_outcome(loss: Loss, labels: Any, rows: Any) -> tuple[Any, Any]:
    import jax

    return jax.value_and_grad(lambda at: loss(labels, at))(rows)


def torch_outcome(loss: Loss, labels: Any, rows: Any) -> tuple[Any, Any]:
    import torch

    at = torch.tensor(rows, requires_grad=True)
    value = loss(labels, at)
    return value.detach(), torch.autograd.grad(value, at)[0]


def outcomes(of_one: Callable[..., Any], losses: dict[str, Loss], labels: Any, rows: Any) -> dict[str, Any]:
    """Value and gradient of each loss."""
    return {name: of_one(loss, labels, rows) for name, loss in losses.items()}


def runs() -> dict[str, Callable[..., dict[str, Any]]]:
    """The ways to run on this process's backend; a compiled one compiles all losses at once, to be quick."""
    if keras.config.backend() == "torch":
        return {"eager": partial(outcomes, torch_outcome)}
    import jax

    def compiled(losses: dict[str, Loss], labels: Any, rows: Any) -> dict[str, Any]:
        return jitted(tuple(losses), labels, rows)

    jitted = jax.jit(
        lambda names, labels, rows: outcomes(jax_outcome, {n: make(n) for n in names}, labels, rows),
        static_argnums=0,
    )
    return {"eager": partial(outcomes, jax_outcome), "compiled": compiled}


if __name__ == "__main__":
    main()
