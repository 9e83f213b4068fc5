"""The trainer with everything in its objective: one step on two replicas is one device's step.

`python -m tests.test_trainer REPLICAS` prints the figures of a few steps: one process takes one strategy.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import losses
from facekit import heads
from facekit.identities import ClassCentres
from facekit.layers import UnitNorm
from facekit.memory import CrossBatchMemory
from facekit.objective import Objective
from facekit.trainer import EmbeddingTrainer, MeanOfValues

ROOT = Path(__file__).resolve().parent.parent
LABELS = np.array([0, 0, 1, 1, 1, 2, 3, 3])
EXACT = ("loss", "norm", "class_accuracy", "memory_filled", "memory_age")


def figures(replicas: int) -> dict[str, list[float]]:
    """Four steps of plain gradient descent, on one device or so many replicas."""
    strategy = tf.distribute.get_strategy()
    if replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
        strategy = tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(replicas)])
    with strategy.scope():
        keras.utils.set_random_seed(0)
        image = keras.Input((4, 4, 3))
        rows = keras.layers.Dense(6)(keras.layers.Flatten()(image))
        head, memory, centres = heads.get("arcface", 4), CrossBatchMemory(12), ClassCentres(4)
        loss = losses.get("tuplet_margin_ipv", scale=8.0)
        objective = Objective([loss], [head], weights=[1.0, 0.1], memory=memory, centres=centres)
        trainer = EmbeddingTrainer(keras.Model(image, UnitNorm()(rows)), objective)
        trainer.compile(keras.optimizers.SGD(0.05), MeanOfValues())
    images = np.random.default_rng(0).uniform(0, 1, (8, 4, 4, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((images, LABELS)).batch(8).repeat()
    history = trainer.fit(data, epochs=4, steps_per_epoch=1, shuffle=False, verbose=0).history
    kept = {name: [float(value) for value in history[name]] for name in EXACT}
    kept["labels"] = np.asarray(memory.labels).tolist()
    kept["centres"] = np.asarray(centres.centres).ravel().tolist()
    kept["head"] = np.asarray(head.centres).ravel().tolist()
    return kept


def test_two_replicas_take_one_device_s_steps():
    command = [sys.executable, "-m", "tests.test_trainer", "2"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr[-2000:]
    split = json.loads(answer.stdout.splitlines()[-1])
    for name, expected in figures(1).items():
        assert split[name] == pytest.approx(expected, rel=1e-4, abs=1e-6), name


if __name__ == "__main__":
    sys.stdout.write(json.dumps(figures(int(sys.argv[1]))) + "\n")
