"""The benchmark of losses: its cubic form is the same loss, and its tables come out."""

from __future__ import annotations

import numpy as np
import pytest

from apps import bench
from apps.bench_losses import CASES, LossBench, bench_losses, cubic_semi_hard
from losses import TripletLoss


def test_the_cubic_form_is_the_same_loss():
    rng = np.random.default_rng(0)
    labels = np.arange(40) // 4
    rows = (rng.normal(size=(10, 8))[labels] + rng.normal(size=(40, 8))).astype("float32")
    ours = float(TripletLoss(margin=1.0, squared=True)(labels, rows))
    assert float(cubic_semi_hard(labels, rows)) == pytest.approx(ours, rel=1e-4)


def test_every_case_is_timed(monkeypatch):
    monkeypatch.setattr("apps.bench_losses.PEOPLE", 20)
    monkeypatch.setitem(CASES, "arcface, 1,057 of them sampled", {"loss": "arcface", "sampled": 400})
    monkeypatch.setitem(CASES, "tuplet_margin, memory of 8192", {"memory_size": 32, "memory_start": 0})
    settings = LossBench(
        batch_size=16, dimension=8, backbone="small", image_size=32, step_batch=4, cubic=(), warmup=1, steps=1
    )
    lines = list(bench_losses(settings))
    assert "A training step of small at 32 px" in lines[0]
    names = [line.split(" | ")[0].removeprefix("| ") for line in lines[3:] if line.startswith("|")]
    assert names[: len(CASES)] == list(CASES)


def test_an_unknown_backbone_is_named(capsys):
    assert bench.main(["losses", "--backbone", "resnet5"]) == 2
    assert "resnet50" in capsys.readouterr().err
