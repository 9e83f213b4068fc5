"""Runs that start from weights: what stays, what moves, what is kept, and that a stopped one goes on exactly."""

from __future__ import annotations

import csv
import json
import shutil
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pytest

import train
import training_words
from config import Config
from facekit.bundle import read_network, read_record
from facekit.dlib_source import LICENCE
from facekit.layers import UnitNorm, freeze
from facekit.objective import Objective
from facekit.settings import read_settings
from facekit.trainer import EmbeddingTrainer, MeanOfValues
from facekit.validation import FIGURES
from interpolating import SHARES, between, interpolate
from losses import get
from model import build_embedding_model
from product import Made, origin
from runs import RunFolder
from session import build_trainer
from tests.test_session import check_same_state, resume, stop_after
from tests.test_train import arguments, events

TUNING = {
    "layer_decay": 0.5, "distill": 2.0, "interpolate": "", "monitor": "tpr", "monitor_fmr": 0.05,
    "optimizer": "adam", "learning_rate": 1e-3,
}  # fmt: skip


def tuning(crops: Path, runs: Path, name: str, weights: Path, **settings: object) -> list[str]:
    """A small run from weights, with everything that looks back to its start."""
    chosen = {**TUNING, "weights": weights, **settings}
    words = arguments(crops, runs, name, **chosen)
    return [word for word in words if word]  # a flag has no value


@pytest.fixture(scope="module")
def weights(crops, tmp_path_factory) -> Path:
    """A network that learned for a few steps."""
    runs = tmp_path_factory.mktemp("first")
    assert train.main(arguments(crops, runs, "first", steps_per_epoch=8)) == 0
    return runs / "first" / "bundle" / "model.keras"


@pytest.fixture(scope="module")
def whole(crops, weights, tmp_path_factory) -> Path:
    """A run from weights that nobody interrupted."""
    runs = tmp_path_factory.mktemp("tuned")
    assert train.main(tuning(crops, runs, "whole", weights)) == 0
    return runs / "whole"


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.open()))


def test_the_start_is_judged_first(whole, weights):
    rows = rows_of(whole / "history.csv")
    assert [row["epoch"] for row in rows] == ["0", "1", "2"]
    assert not rows[0]["loss"] and all(0 <= float(row["tpr_at_fmr"]) <= 1 for row in rows)
    assert float(rows[0]["auc"]) == pytest.approx(read_record(weights.parent).figures["auc"], abs=1e-6)
    assert not rows[0]["from_start"] and float(rows[2]["from_start"]) > float(rows[1]["from_start"]) > 0
    for found, given in zip(
        read_network(whole / "checkpoints" / "start.keras").get_weights(),
        read_network(weights).get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(found, given)
    assert "verification/tpr_at_fmr" in events(whole).Tags()["tensors"]


def test_batch_norm_of_the_backbone_stays_and_the_rest_moves(whole):
    before, after = (read_network(whole / "checkpoints" / f"{name}.keras") for name in ("start", "best"))
    assert read_record(whole / "bundle").training["best_epoch"] > 0, "this seed learns nothing: choose another"
    start, trained = before.get_layer("small"), after.get_layer("small")
    for layer in start.layers:
        for old, new in zip(layer.get_weights(), trained.get_layer(layer.name).get_weights(), strict=True):
            assert np.array_equal(old, new) == isinstance(layer, keras.layers.BatchNormalization), layer.name
    # The head's statistics follow the new embeddings.
    mean = [network.get_layer("embedding_bn").get_weights()[2] for network in (before, after)]
    assert not np.array_equal(*mean)


def test_batch_norm_can_learn_or_be_frozen_by_hand():
    image = keras.Input((4, 4, 3))
    inner = keras.Model(image, keras.layers.BatchNormalization(name="bn")(keras.layers.Conv2D(2, 3)(image)))
    outer = keras.Input((4, 4, 3))
    x = keras.layers.Dense(2)(keras.layers.Flatten()(inner(outer)))
    network = keras.Model(outer, keras.layers.BatchNormalization(name="head_bn")(x))
    freeze(network, (), batch_norm=True)
    assert not inner.get_layer("bn").trainable and network.get_layer("head_bn").trainable
    before = [np.array(value) for value in inner.get_layer("bn").get_weights()]
    network(np.full((2, 4, 4, 3), 9.0, "float32"), training=True)
    for old, new in zip(before, inner.get_layer("bn").get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    freeze(network, ())
    network(np.full((2, 4, 4, 3), 9.0, "float32"), training=True)
    assert not np.array_equal(before[2], inner.get_layer("bn").get_weights()[2])


@pytest.mark.parametrize("steps", [2, 3])  # inside an epoch, and at its end
def test_a_stopped_run_goes_on_exactly_without_the_file_it_started_from(
    whole, crops, weights, tmp_path, steps, monkeypatch
):
    copy = Path(shutil.copy(weights, tmp_path / "copy.keras"))
    stop_after(steps, monkeypatch, tuning(crops, whole.parent, f"stopped-{steps}", copy))
    copy.unlink()
    told = resume(whole.parent, f"stopped-{steps}")
    assert f"Going on after step {steps}" in told and "\nstart: " not in told
    run = whole.parent / f"stopped-{steps}"
    check_same_state(run, whole)
    # Keras' means of the steps begin anew in an epoch that was stopped inside; measures are the same.
    for name in ("history.csv", "interpolation.csv"):
        for mine, other in zip(rows_of(run / name), rows_of(whole / name), strict=True):
            assert [mine[key] for key in (*FIGURES, "tpr_at_fmr")] == [
                other[key] for key in (*FIGURES, "tpr_at_fmr")
            ]
    ends = [read_network(path / "bundle").get_weights() for path in (run, whole)]
    assert all(np.array_equal(*pair) for pair in zip(*ends, strict=True))


def test_learning_that_only_harms_leaves_the_start_in_the_bundle(crops, weights, tmp_path, capsys):
    poison = {"learning_rate": 3.0, "warmup_epochs": 0, "monitor": "auc"}
    command = tuning(crops, tmp_path, "poisoned", weights, **poison)
    assert train.main([*command, "--no-stop_on_collapse"]) == 0
    told = capsys.readouterr().out
    assert "No epoch beat the start, so the bundle holds the network as it started: held-out people: AUC" in told
    assert "\nstart: held-out people: AUC" in told
    record = read_record(tmp_path / "poisoned" / "bundle")
    assert (record.training["best_epoch"], record.training["interpolation"]) == (0, None)
    assert not (tmp_path / "poisoned" / "interpolation.csv").exists()
    assert "the last epoch's weights are no numbers, so there is no way back" in told
    for kept, given in zip(
        read_network(tmp_path / "poisoned" / "bundle").get_weights(),
        read_network(weights).get_weights(),
        strict=True,
    ):
        np.testing.assert_array_equal(kept, given)


def test_the_best_weights_between_start_and_best_are_kept(whole, capsys):
    rows = rows_of(whole / "interpolation.csv")
    assert [float(row["share"]) for row in rows] == list(SHARES)
    values = [float(row["tpr_at_fmr"]) for row in rows]
    record = read_record(whole / "bundle")
    share = record.training["interpolation"]
    assert share == SHARES[values.index(max(values))]
    assert record.figures["tpr_at_fmr"] == pytest.approx(max(values), abs=1e-6)
    assert record.training["candidates"] == 3 + 9, "start, two epochs, and what lies between, without its ends"
    note = "The best of 12 networks by these very people: the figures are optimistic; judge it on others."
    assert record.figures["note"] == note
    card = (whole / "bundle" / "model_card.md").read_text()
    assert note in card and f"\n| TPR at FMR 0.05 | {max(values):.4g} |\n" in card
    said = training_words.closing_words(read_settings(whole / "config.json", Config), record)
    assert f"\n{note}\nThreshold " in said
    assert f"  TPR {max(values):.4f} at FMR 0.05 (thresholds" in said
    start, best, kept = (
        read_network(path).get_weights()
        for path in (whole / "checkpoints" / "start.keras", whole / "checkpoints" / "best.keras", whole / "bundle")
    )
    for first, last, found in zip(start, best, kept, strict=True):
        np.testing.assert_allclose(found, first + share * (last.astype(float) - first), rtol=1e-5, atol=1e-6)


def test_the_ends_of_the_line_are_exact(rng):
    start, best = ([rng.normal(size=5).astype(np.float32)] for _ in range(2))
    np.testing.assert_array_equal(between(start, best, 0.0), start)
    np.testing.assert_array_equal(between(start, best, 1.0), best)
    np.testing.assert_allclose(between(start, best, 0.3)[0], start[0] + 0.3 * (best[0] - start[0]), rtol=1e-5)


@pytest.mark.parametrize(("monitor", "share"), [("auc", 0.3), ("eer", 0.8)])
def test_the_choice_follows_the_monitor_and_ties_go_to_the_start(tmp_path, monitor, share):
    """Networks of one number: their embedding is 10 times the share."""
    folder = RunFolder(tmp_path, tmp_path, tmp_path)
    image = keras.Input((2, 2, 3))
    network = keras.Model(image, keras.layers.Dense(1, use_bias=False)(keras.layers.Flatten()(image)))
    for path, value in ((folder.start, 0.0), (folder.best, 1.0)):
        network.set_weights([np.full((12, 1), value, np.float32)])
        network.save(path)

    def measure(embed):
        place = round(float(embed(np.ones((1, 2, 2, 3), np.uint8))[0, 0]) / 1.2)
        return {"auc": 0.9 if place in (3, 4) else 0.5, "eer": 0.1 if place in (8, 9) else 0.3}

    told: list[str] = []
    assert interpolate(Config(monitor=monitor), folder, None, measure, told.append) == share
    assert f", by {monitor.upper()} on held-out people: start 0." in told[0]
    assert f"kept {share} with" in told[0]
    np.testing.assert_allclose(read_network(folder.interpolated).get_weights()[0], share, rtol=1e-6)


def test_without_a_better_epoch_the_line_goes_to_the_last(tmp_path):
    """Networks of one number, as above: the best is the start, the last epoch's is 1, and beyond 0.7 no numbers."""
    folder = RunFolder(tmp_path, tmp_path, tmp_path)
    image = keras.Input((2, 2, 3))
    network = keras.Model(image, keras.layers.Dense(1, use_bias=False)(keras.layers.Flatten()(image)))
    network.set_weights([np.zeros((12, 1), np.float32)])
    for path in (folder.start, folder.best):
        network.save(path)

    def measure(embed):
        place = round(float(embed(np.ones((1, 2, 2, 3), np.uint8))[0, 0]) / 1.2)
        if place > 7:
            raise FloatingPointError
        return {"auc": 0.9 if place == 2 else 0.5}

    told: list[str] = []
    last = [np.ones((12, 1), np.float32)]
    assert interpolate(Config(monitor="auc"), folder, last, measure, told.append) == 0.2
    assert told[0] == "At 0.8 of the way embeddings are no numbers; left out." and "the last epoch (1)" in told[-1]
    assert len(rows_of(tmp_path / "interpolation.csv")) == 8
    np.testing.assert_allclose(read_network(folder.interpolated).get_weights()[0], 0.2, rtol=1e-6)


def thawing(crops: Path, runs: Path, name: str, weights: Path) -> list[str]:
    """A run whose early layers come in its second stage; rates fall from the head in both."""
    plan = runs / f"{name}.json"
    first = {"epochs": 1, "freeze": ["conv1", "bn1", "layer1", "layer2"], "layer_decay": 0.7}
    plan.write_text(json.dumps({"stages": [first, {"epochs": 2, "layer_decay": 0.5}]}))
    words = arguments(crops, runs, name, weights=weights, distill=1.0, optimizer="adam", learning_rate=1e-3)
    return [*words, "--config", str(plan)]


@pytest.fixture(scope="module")
def thawed(crops, weights, tmp_path_factory) -> Path:
    """Runs that nobody interrupted: with thawing and falling rates."""
    runs = tmp_path_factory.mktemp("thawed")
    assert train.main(thawing(crops, runs, "whole", weights)) == 0
    return runs


@pytest.mark.parametrize("steps", [3, 5])  # at the end of the frozen stage, and inside the next
def test_thawing_with_falling_rates_goes_on_exactly(thawed, crops, weights, steps, monkeypatch):
    name = f"stopped-{steps}"
    stop_after(steps, monkeypatch, thawing(crops, thawed, name, weights))
    assert f"Going on after step {steps}" in resume(thawed, name)
    check_same_state(thawed / name, thawed / "whole")
    ends = [read_network(thawed / run / "checkpoints" / "best.keras").get_weights() for run in (name, "whole")]
    assert all(np.array_equal(*pair) for pair in zip(*ends, strict=True))


@pytest.mark.parametrize("whole_batch", [True, False])
def test_distillation_is_the_same_compiled_with_xla(rng, whole_batch):
    images = rng.uniform(0, 255, (3, 4, 8, 8, 3)).astype("float32")
    labels = np.array([[0, 0, 1, 2], [1, 1, 0, 2], [2, 2, 1, 0]])
    found = {}
    for xla in (False, True):
        keras.utils.set_random_seed(3)
        image = keras.Input((8, 8, 3))
        x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3)(image))
        network = keras.Model(image, UnitNorm()(keras.layers.Dense(4)(keras.layers.Flatten()(x))))
        start = partial(keras.models.clone_model(network), training=False)
        trainer = EmbeddingTrainer(network, Objective([get("contrastive")], whole_batch=whole_batch), start, 2.0)
        trainer.compile(keras.optimizers.SGD(0.1), MeanOfValues(), jit_compile=xla)
        figures = [trainer.train_on_batch(images, labels, return_dict=True) for _ in range(3)]
        found[xla] = [*(one[name] for one in figures for name in ("loss", "from_start")), *network.get_weights()]
    assert found[False][1] > 0.05, "the start is another network"
    for plain, compiled in zip(found[False], found[True], strict=True):
        np.testing.assert_allclose(compiled, plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("whole_batch", [True, False])
def test_distillation_adds_the_mean_distance_from_the_start(rng, whole_batch):
    image = keras.Input((2, 2, 3))
    network = keras.Model(image, UnitNorm()(keras.layers.Dense(4)(keras.layers.Flatten()(image))))
    start = keras.models.clone_model(network)
    images = rng.uniform(0, 1, (3, 4, 2, 2, 3)).astype("float32")
    labels = np.array([[0, 0, 1, 2], [1, 1, 0, 2], [2, 2, 1, 0]])
    values = {}
    for distill in (0.0, 3.0):
        objective = Objective([get("contrastive")], whole_batch=whole_batch)
        trainer = EmbeddingTrainer(network, objective, lambda x: start(x, training=False), distill)
        trainer.compile(keras.optimizers.SGD(0.0), MeanOfValues())
        values[distill] = trainer.train_on_batch(images, labels, return_dict=True)
        assert len(trainer.variables) - len(trainer.metrics_variables) <= len(network.variables) + 2
    rows, before = (np.asarray(one(images.reshape(-1, 2, 2, 3)), np.float64) for one in (network, start))
    moved = np.mean([1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(rows, before, strict=True)])
    assert moved > 0.05
    assert values[3.0]["from_start"] == pytest.approx(moved, rel=1e-4)
    assert values[3.0]["loss"] - values[0.0]["loss"] == pytest.approx(3 * moved, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"distill": 1.0}, "`distill` keeps embeddings near the start's, so it needs `weights`"),
        ({"interpolate": True}, "`interpolate` goes back towards the start, so it needs `weights`"),
        ({"layer_decay": 0.0}, "`layer_decay` must be greater than 0"),
        ({"layer_decay": 1.5}, "`layer_decay` must be less than or equal to 1"),
        ({"learning_rates": {"small": 0.0}}, "must be greater than 0"),
        ({"stages": ({"epochs": 1, "interpolate": True},)}, "`interpolate` belongs to the whole run"),
    ],
)
def test_wrong_settings_are_one_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Config(**settings)


def test_too_few_impostors_are_told_before_training(crops, tmp_path, capsys):
    assert train.main(arguments(crops, tmp_path, "few", monitor="tpr")) == 2
    error = capsys.readouterr().err
    assert "`monitor_fmr` 0.001 needs 3000 impostor pairs" in error and "gives 150 and 40" in error
    assert not (tmp_path / "few").exists()


def test_stages_thaw_with_frozen_batch_norm_and_own_rates(crops, weights, tmp_path):
    stages = [
        {"epochs": 1, "freeze": ["small"]},
        {"epochs": 1, "layer_decay": 0.5, "learning_rates": {"layer1": 0.1}, "freeze": ["conv1"]},
    ]
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"stages": stages, "weights": str(weights)}))
    assert train.main([*arguments(crops, tmp_path, "staged"), "--config", str(plan)]) == 0
    assert [row["epoch"] for row in rows_of(tmp_path / "staged" / "history.csv")] == ["0", "1", "2"]


def test_flips_averaged_are_judged_as_the_bundle_embeds(crops, weights, tmp_path):
    command = [*arguments(crops, tmp_path, "flipped", epochs=1, weights=weights), "--flip"]
    assert train.main(command) == 0
    record = read_record(tmp_path / "flipped" / "bundle")
    assert record.flip and record.threshold.flip
    best = max(rows_of(tmp_path / "flipped" / "history.csv"), key=lambda row: float(row["auc"]))
    assert record.figures["auc"] == pytest.approx(float(best["auc"]), abs=1e-6)


def test_the_preset_is_the_recipe():
    config = Config(**json.loads((Path(__file__).parent.parent / "configs" / "finetune.json").read_text()))
    assert (config.loss, config.negatives_per_tuplet, config.hardest) == ("tuplet_margin", 8, 2)
    assert (config.optimizer, config.learning_rate, config.batch_size) == ("adam", 1e-4, 32)
    assert (config.weights, config.monitor, config.interpolate) == ("dlib", "tpr", True)


def test_scales_and_shifts_alone_can_learn():
    frozen = ("conv1", "layer*.conv", "layer*.downsample.0", "embedding")
    config = Config(image_size=32, dropout=0, freeze_batch_norm="statistics", freeze=frozen)
    keras.utils.set_random_seed(0)
    network = build_embedding_model(config)
    before = [np.array(value) for value in network.get_weights()]
    pictures = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    build_trainer(config, network, people=4).train_on_batch(pictures, np.arange(8) // 2)
    moved = {
        weight.path
        for weight, old in zip(network.weights, before, strict=True)
        if not np.array_equal(weight.numpy(), old)
    }
    assert moved == {weight.path for weight in network.get_layer("small").weights if "gamma" in weight.path} | {
        weight.path for weight in network.get_layer("small").weights if "beta" in weight.path
    }


def test_dropout_does_not_go_with_kept_statistics():
    with pytest.raises(ValueError, match='`freeze_batch_norm="statistics"` trains the network as it computes'):
        Config(freeze_batch_norm="statistics")


@pytest.mark.parametrize(
    ("weights", "made", "data", "licence"),
    [
        (None, Made(9, 3), "faces", ""),
        ("dlib", Made(0, 0), "about three million pictures", LICENCE),
        ("dlib", Made(9, 0), "about three million pictures", LICENCE),
        ("dlib", Made(9, 0, cohort=50), "its cohort is of faces", ""),
        ("dlib", Made(9, 3), "faces, from a start that was trained on about three million", ""),
        ("dlib", Made(9, 0, interpolation=0.2), "faces, from a start that was trained on about three million", ""),
    ],
)
def test_a_bundle_says_whose_pictures_taught_it(weights, made, data, licence):
    config = Config(backbone="dlib_resnet29", image_size=150, weights=weights, data_name="faces")
    found, terms = origin(config, made)
    assert data in found and terms == licence
    assert origin(config.model_copy(update={"licence": "mine"}), made)[1] == "mine"


def test_a_bundle_that_starts_from_a_bundle_names_its_data(weights):
    record = read_record(weights.parent)
    config = Config(weights=str(weights.parent), data_name="faces")
    assert origin(config, Made(0, 0)) == (record.data, record.licence)
    assert origin(config, Made(5, 2)) == (f"faces, from a start that was trained on {record.data}", "")
