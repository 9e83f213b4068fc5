"""Bundles and checkpoints: what is written is what is read, and damage is noticed."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

from facekit.alignment import CropRecipe
from facekit.bundle import read_network, read_record, write_bundle
from facekit.checkpoint import restore_state, save_state
from facekit.model_card import model_card
from facekit.trainer import Embedder, pair_distances

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def copy(bundle, tmp_path) -> Path:
    return Path(shutil.copytree(bundle, tmp_path / "bundle"))


def test_a_record_is_read_back(bundle):
    record = read_record(bundle)
    assert record.recipe == CropRecipe() and record.threshold is not None
    assert record.threshold.fmr_interval == (0.0, 0.3) and record.image_size == 32
    assert "FMR 0.1 (" in record.threshold.text() and "2020-01-01" in record.threshold.text()


def test_the_network_gives_the_same_in_a_fresh_process(bundle, rng, tmp_path):
    images = rng.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, numpy as np; from pathlib import Path; from facekit.bundle import read_network\n"
        "images = np.load(sys.argv[2])\n"
        "np.save(sys.argv[2], np.asarray(read_network(Path(sys.argv[1]))(images, training=False)))"
    )
    command = [sys.executable, "-c", code, str(bundle), str(tmp_path / "images.npy")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    expected = np.asarray(read_network(bundle)(images, training=False))
    np.testing.assert_allclose(np.load(tmp_path / "images.npy"), expected, atol=1e-6)


def test_earlier_bundles_keep_their_hash_and_only_unequal_weights_are_named(copy):
    record = replace(read_record(copy), image_size=150, flip=True)
    old = CropRecipe(size=150, template="dlib", min_confidence=0.8, quality=100, detector="mtcnn:exact")
    before = replace(record, recipe=old).preprocessing()
    # Of the pretrained model's second edition.
    assert before["sha256"] == "e0feea1260a49b006905ee60620a9beb115b76b30c1253f8a69550ba9d9e924b"
    assert "weights" not in before and "weights" not in replace(record, recipe=None).preprocessing()
    now = replace(record, recipe=replace(old, template="dlib_close")).preprocessing()
    assert now["weights"] == [4, 4, 2, 1, 1] and now["sha256"] != before["sha256"]


def test_writing_over_a_bundle_replaces_it_whole(copy):
    record = read_record(copy)
    write_bundle(copy, read_network(copy), record)
    assert sorted(path.name for path in copy.parent.iterdir()) == ["bundle"]
    files = ["bundle.json", "model.keras", "model.onnx", "model_card.md"]
    assert sorted(path.name for path in copy.iterdir()) == files
    assert read_record(copy) == record


def test_a_failed_write_leaves_the_old_bundle(copy):
    class Broken:
        def save(self, path):
            Path(path).write_bytes(b"half")
            raise OSError("disk full")

    before = read_record(copy)
    with pytest.raises(OSError, match="disk full"):
        write_bundle(copy, Broken(), before)
    assert read_record(copy) == before and [path.name for path in copy.parent.iterdir()] == ["bundle"]


def test_damage_is_named(copy, tmp_path):
    with pytest.raises(ValueError, match=r"is not a model bundle .*python train\.py"):
        read_record(tmp_path)
    (copy / "model.keras").write_bytes((copy / "model.keras").read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"model\.keras: is damaged or was changed"):
        read_record(copy)
    values = json.loads((copy / "bundle.json").read_text())
    for broken in ("{", json.dumps({**values, "format": 99}), json.dumps({**values, "recipe": {"sise": 1}})):
        (copy / "bundle.json").write_text(broken)
        with pytest.raises(ValueError, match=r"bundle\.json: cannot be understood"):
            read_record(copy)


def test_a_damaged_network_is_named(copy):
    data = bytearray((copy / "model.keras").read_bytes())
    data[len(data) // 2] ^= 255
    (copy / "model.keras").write_bytes(bytes(data))
    with pytest.raises(ValueError, match=r"model\.keras: cannot be loaded as a network"):
        read_network(copy)


def test_an_embedder_gives_the_same_in_batches(bundle, rng):
    network = read_network(bundle)
    images = rng.integers(0, 256, (7, 32, 32, 3)).astype(np.uint8)
    expected = np.asarray(network(images, training=False))
    np.testing.assert_allclose(Embedder(network, batch_size=3)(images), expected, atol=1e-5)
    assert Embedder(network)(images[:0]).shape == (0, 16)


def test_pair_distances_are_euclidean():
    rows = np.array([[1, 0], [0, 1], [-1, 0]], np.float32)
    np.testing.assert_allclose(pair_distances(rows, np.array([0, 0, 0]), np.array([0, 1, 2])), [0, 2**0.5, 2])


def little_model() -> keras.Model:
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Dense(4),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.5),
        keras.layers.Dense(1),
    ]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile(keras.optimizers.AdamW(0.01), "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def test_a_restored_state_continues_exactly(tmp_path, rng):
    x, y = rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=(8, 1)).astype(np.float32)
    model = little_model()
    for _ in range(3):
        model.train_on_batch(x, y)
    save_state(tmp_path / "state.npz", model, {"best": 0.5})
    for _ in range(3):
        model.train_on_batch(x, y)
    other = little_model()
    assert restore_state(tmp_path / "state.npz", other) == ({"best": 0.5}, {})
    assert int(other.optimizer.iterations) == 3
    for _ in range(3):
        other.train_on_batch(x, y)
    for one, two in zip(model.variables, other.variables, strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_wrong_state_is_named(tmp_path):
    model = little_model()
    with pytest.raises(ValueError, match=r"none\.npz: is not a checkpoint"):
        restore_state(tmp_path / "none.npz", model)
    save_state(tmp_path / "state.npz", model, {})
    data = (tmp_path / "state.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"cut\.npz: is not a checkpoint"):
        restore_state(tmp_path / "cut.npz", model)
    other = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    other.compile("adam", "mse")
    other.optimizer.build(other.trainable_variables)
    with pytest.raises(ValueError, match="holds another model's state"):
        restore_state(tmp_path / "state.npz", other)


@pytest.mark.parametrize(
    ("path", "value", "sentence"),
    [
        (("probability",), [], "cannot be understood"),
        (("threshold", "fmr"), None, "`threshold.fmr` must be a valid number"),
        (("threshold",), "x", "cannot be understood"),
        (("image_size",), "big", "`image_size` must be a valid integer"),
        (("training",), None, "`training` must be"),
        (("threshold", "fmr_interval"), [0.1], "fmr_interval"),
    ],
)
def test_a_record_changed_by_hand_is_named(bundle, tmp_path, path, value, sentence):
    shutil.copytree(bundle, tmp_path / "b")
    record = json.loads((tmp_path / "b" / "bundle.json").read_text())
    inside = record
    for name in path[:-1]:
        inside = inside[name]
    inside[path[-1]] = value
    (tmp_path / "b" / "bundle.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="bundle.json: cannot be understood") as error:
        read_record(tmp_path / "b")
    assert sentence in str(error.value)


def test_the_card_says_no_more_than_there_is_to_say(bundle):
    figures = {"auc": 0.91, "accuracy": 0.8, "fpr": 0.1, "eer": 0.2, "threshold": 0.77, "tpr_at_fmr": 0.5}
    training = {"steps": 0, "best_epoch": 0, "interpolation": None, "candidates": 1, "monitor_fmr": 0.002}
    record = dataclasses.replace(read_record(bundle), figures=figures, training=training)
    card = model_card(record)
    data, measured = card.split("## Data\n")[1].split("## Figures\n")
    assert [line for line in data.splitlines() if line.startswith("- ")] == ["- candidates: 1"]
    untrained = model_card(dataclasses.replace(record, training={**training, "steps": 9}))
    assert "- best epoch: none beat the start\n" in untrained
    rows = re.findall(r"^\| ([^|]+) \| ([0-9.]+) \|$", measured, re.MULTILINE)
    assert rows == [
        ("AUC", "0.91"), ("accuracy", "0.8"), ("FPR", "0.1"), ("EER", "0.2"), ("TPR at FMR 0.002", "0.5"),
    ]  # fmt: skip
    assert "thresholds from other folds" in measured and "0.77" not in card and "\n\n\n" not in card
    intervals = {"intervals": {"AUC": (0.9, 0.8, 0.95)}, "note": "A note."}
    for one in (intervals, {**figures, **intervals}):
        card = model_card(dataclasses.replace(record, figures=one))
        assert "\n\n| figure | value | 95 % interval |\n" in card and "\n\n\n" not in card
    assert "thresholds from other folds" not in model_card(dataclasses.replace(record, figures=intervals))
