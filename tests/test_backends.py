"""The losses and heads on Keras' other backends: the oracles' values and gradients, and TensorFlow nowhere.

Keras takes one backend a process: `KERAS_BACKEND=jax python -m tests.test_backends FILE` computes, pytest compares.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
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
Arrays = dict[str, Any]
Batch = tuple[np.ndarray, np.ndarray]
Loss = Callable[[Any, Any], Any]

# Of facekit, what must run without TensorFlow; `losses` is imported above.
PORTABLE = "arguments formulas heads memory miner mining pair_loss pairwise replicas weighted_sum".split()


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


KINDS = {"flat": ("random", "clustered"), "tuplet": ("clustered",)}
USUAL = {form: {kind: BATCHES[form](kind, 0) for kind in kinds} for form, kinds in KINDS.items()}
ALL = {form: USUAL[form] | odd_batches(*USUAL[form]["clustered"]) for form in KINDS}
# What each backend runs, and how. Op by op, JAX compiles each operation for each shape: one form is enough.
WAYS = {
    "jax": {
        ("eager", "flat"): USUAL["flat"],
        ("compiled", "flat"): ALL["flat"],
        ("compiled", "tuplet"): ALL["tuplet"],
    },
    "torch": {("eager", "flat"): ALL["flat"], ("eager", "tuplet"): ALL["tuplet"]},
}

HEADS: dict[str, dict[str, Any]] = {**{name: {} for name in heads.HEADS}, "arcface-subcentres": {"subcentres": 3}}
HEAD_LABELS = np.array([0, 3, 1, 1, 6, 2, 5, 3])
HEAD_ROWS = np.random.default_rng(0).normal(scale=9.0, size=(8, 5)).astype("float32")


def head_loss(name: str) -> Loss:
    """The mean value of a head whose centres are the same on each backend."""
    head = heads.get(name.partition("-")[0], classes=7, **HEADS[name])
    head.build((None, HEAD_ROWS.shape[1]))
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


def runners(losses: dict[str, Loss]) -> dict[str, Callable[..., dict[str, Any]]]:
    """From labels and rows to the outcomes, in each way of this process's backend."""
    if keras.config.backend() == "torch":
        return {"eager": partial(outcomes, torch_outcome, losses)}
    import jax

    eager = partial(outcomes, jax_outcome, losses)
    return {"eager": eager, "compiled": jax.jit(eager)}


def compute() -> Arrays:
    """Values and gradients: of the losses as "way form batch loss value", of the heads as "head name value"."""
    found: Arrays = {}
    run = runners({variant: make(variant) for variant in VARIANTS})
    for (way, form), batches in WAYS[keras.config.backend()].items():
        for batch, (labels, rows) in batches.items():
            found |= named(f"{way} {form} {batch}", run[way](labels, rows))
    *_, run_heads = runners({name: head_loss(name) for name in HEADS}).values()
    return found | named("head", run_heads(HEAD_LABELS, HEAD_ROWS))


def named(case: str, outcomes: dict[str, Any]) -> Arrays:
    parts = ("value", "gradient")
    return {f"{case} {name} {parts[i]}": np.asarray(both[i]) for name, both in outcomes.items() for i in range(2)}


def main() -> None:
    assert "tensorflow" not in sys.modules
    sys.modules["tensorflow"] = None  # type: ignore[assignment] # whoever imports it from here on fails
    for name in PORTABLE:
        importlib.import_module(f"facekit.{name}")
    np.savez(sys.argv[1], **compute())


# ---- The comparison --------------------------------------------------------------------------------------------

expected_slope = cache(lambda variant, form, kind: slope(variant, *USUAL[form][kind]))


@pytest.fixture(scope="module", params=WAYS)
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Arrays]:
    """A backend's name, and what its process computed."""
    backend = request.param
    if find_spec(backend) is None:
        pytest.skip(f"Keras' backend {backend} is not installed: `pip install {backend}` runs the losses on it")
    path = tmp_path_factory.mktemp(backend) / "found.npz"
    command = [sys.executable, "-m", "tests.test_backends", str(path)]
    # JAX spends its time compiling: without optimising it takes half.
    settings = {"KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, **settings})
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(path) as arrays:
        return backend, dict(arrays)


@pytest.mark.parametrize("variant", VARIANTS)
def test_losses_match_their_oracles(found: tuple[str, Arrays], variant: str) -> None:
    backend, arrays = found
    for way, form in WAYS[backend]:
        for kind, (labels, rows) in USUAL[form].items():
            case = f"{way} {form} {kind} {variant}"
            value, expected = float(arrays[f"{case} value"]), oracle(variant, labels, rows)
            assert value == pytest.approx(expected, rel=5e-5, abs=1e-7), case
            gradient = expected_slope(variant, form, kind)
            slack = 2e-3 * np.abs(gradient).max() + 1e-7
            np.testing.assert_allclose(arrays[f"{case} gradient"], gradient, rtol=0, atol=slack, err_msg=case)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_batch_is_finite(found: tuple[str, Arrays], variant: str) -> None:
    backend, arrays = found
    for (way, form), batches in WAYS[backend].items():
        for batch in batches:
            for part in ("value", "gradient"):
                assert np.isfinite(arrays[f"{way} {form} {batch} {variant} {part}"]).all(), (way, form, batch)


@pytest.mark.parametrize("name", HEADS)
def test_heads_give_tensorflows_values(found: tuple[str, Arrays], name: str) -> None:
    from tests import contracts

    value, gradient = contracts.value_and_gradient(head_loss(name), HEAD_LABELS, HEAD_ROWS)
    _, arrays = found
    assert float(arrays[f"head {name} value"]) == pytest.approx(value, rel=1e-5)
    slack = 1e-5 * np.abs(gradient).max()
    np.testing.assert_allclose(arrays[f"head {name} gradient"], gradient, rtol=0, atol=slack)


if __name__ == "__main__":
    main()
