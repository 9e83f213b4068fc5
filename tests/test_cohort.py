"""Score normalisation by a cohort, as a layer: against the formula, in files, and at the end of a run."""

from __future__ import annotations

import shutil
from dataclasses import replace

import keras
import numpy as np
import pytest

import train
from cohort import normalise
from config import Config
from facekit.bundle import read_network, read_record
from facekit.cohort import WIDTH, CohortNorm, crowding, fit_cohort, with_cohort, without_cohort
from facekit.index import index_people
from facekit.litert_network import LiteRTEmbedder, write_litert
from facekit.onnx_network import OnnxEmbedder, write_onnx
from facekit.weights import load_weights
from tests.test_train import arguments
from training_words import closing_words


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def people(rng: np.random.Generator, count: int, each: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows in a cone, as of faces: half of the people lie four times as close together as the others."""
    axis = np.eye(64)[0]
    spread = np.where(np.arange(count) % 2, 0.35, 0.09)[:, None]
    # The crowd has its own middle, away from the others'.
    middle = axis + np.where(np.arange(count) % 2, 0.0, 0.5)[:, None] * np.eye(64)[1]
    centres = middle + spread * unit(rng.normal(size=(count, 64)))
    labels = np.repeat(np.arange(count), each)
    noise = 0.45 * spread[labels] * unit(rng.normal(size=(len(labels), 64)))
    return unit(centres[labels] + noise).astype(np.float32), labels


@pytest.fixture(scope="module")
def cohort() -> np.ndarray:
    return people(np.random.default_rng(0), 300)[0]


def test_crowding_is_the_mean_cosine_with_the_nearest_others(cohort):
    expected = [np.sort(np.delete(cohort @ row, place))[::-1][:5].mean() for place, row in enumerate(cohort)]
    np.testing.assert_allclose(crowding(cohort, 5), expected, atol=1e-6)


def test_rows_stay_of_length_one_and_grow(cohort):
    rows = np.asarray(fit_cohort(cohort, 10)(cohort[:50]))
    assert rows.shape == (50, 64 + WIDTH) and rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    # Whoever is least crowded is left as it was.
    loneliest = crowding(cohort, 10)[:50].argmin()
    np.testing.assert_allclose(rows[loneliest, :64], cohort[loneliest], atol=0.02)


def test_cosines_are_the_normalised_scores_of_the_formula(cohort):
    probes, _ = people(np.random.default_rng(1), 200)
    rows = np.asarray(fit_cohort(cohort, 10, width=4096)(probes), np.float64)
    near = np.array([np.sort(cohort @ row)[::-1][:10].mean() for row in probes])
    level, floor = crowding(cohort, 10).mean(), np.percentile(crowding(cohort, 10), 10)
    first, second = np.triu_indices(len(probes), 1)
    cosines = (probes @ probes.T)[first, second]
    # Whoever is less crowded than the floor gives nothing, and gets nothing.
    taken = np.maximum(near - floor, 0)
    product = (1 - taken[first] / (2 * level)) * (1 - taken[second] / (2 * level)) * cosines
    found = (rows @ rows.T)[first, second]
    np.testing.assert_allclose(found, product, atol=0.01)  # what is left is psi's noise
    about = np.abs(cosines - level) < 0.05
    scores = (cosines - (taken[first] + taken[second]) / 2)[about]
    assert about.sum() > 1000
    np.testing.assert_allclose(found[about], scores, atol=0.01)


def true_matches(rows: np.ndarray, labels: np.ndarray, fmr: float) -> float:
    first, second = np.triu_indices(len(labels), 1)
    cosines, same = (rows @ rows.T)[first, second], labels[first] == labels[second]
    impostor = np.sort(cosines[~same])[::-1]
    return float((cosines[same] > impostor[int(fmr * len(impostor))]).mean())


def test_people_in_a_crowd_are_told_apart_at_one_threshold(cohort):
    probes, labels = people(np.random.default_rng(2), 200, each=4)
    plain = true_matches(probes, labels, 1e-3)
    spread = true_matches(np.asarray(fit_cohort(cohort, 10)(probes)), labels, 1e-3)
    assert spread > plain + 0.1, (plain, spread)


def test_the_same_seed_gives_the_same_layer(cohort):
    first, again, other = (fit_cohort(cohort, 10, seed=seed).get_weights() for seed in (3, 3, 4))
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])


def test_too_few_people_and_strangers_far_apart_are_refused(cohort):
    with pytest.raises(ValueError, match="`cohort` 30 needs more than 30 training people; there are 30"):
        fit_cohort(cohort[:30], 30)
    far = np.eye(64, dtype=np.float32)
    with pytest.raises(ValueError, match="no region of the embedding is crowded"):
        fit_cohort(far, 5)


def test_strangers_who_cannot_be_told_apart_and_no_numbers_are_refused(cohort):
    one = np.tile(cohort[:1], (40, 1))
    nearly = unit(one + 1e-4 * np.random.default_rng(7).normal(size=one.shape)).astype(np.float32)
    for rows in (one, nearly, np.concatenate([cohort, one])):
        with pytest.raises(ValueError, match="have all but the same embedding as their nearest strangers"):
            fit_cohort(rows, 5)
    lost = cohort.copy()
    lost[3] = np.nan
    with pytest.raises(ValueError, match="embeddings of training people are NaN or infinite"):
        fit_cohort(lost, 5)


def test_strangers_hardly_see_what_is_added(cohort):
    layer = fit_cohort(cohort, 10)
    phases = unit(np.random.default_rng(8).normal(size=(400, 64))) @ layer.get_weights()[1]
    own = np.concatenate([np.cos(phases), np.sin(phases)], axis=1) * (WIDTH / 2) ** -0.5
    noise = (own @ own.T)[np.triu_indices(len(own), 1)]
    assert np.std(noise) == pytest.approx(WIDTH**-0.5, rel=0.1)


@pytest.fixture(scope="module")
def network(cohort) -> tuple[keras.Model, keras.Model]:
    """A small embedding network, and the same with a cohort."""
    from model import build_embedding_model

    keras.utils.set_random_seed(0)
    plain = build_embedding_model(Config(image_size=32, embedding_size=64))
    return plain, with_cohort(plain, fit_cohort(cohort, 10))


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (7, 32, 32, 3)).astype(np.uint8)


def test_saved_and_loaded_it_gives_the_same(network, pictures, tmp_path):
    network[1].save(tmp_path / "model.keras")
    loaded = read_network(tmp_path / "model.keras")
    assert isinstance(loaded.layers[-1], CohortNorm)
    np.testing.assert_allclose(loaded(pictures), network[1](pictures), atol=1e-6)


def test_onnx_gives_the_same(network, pictures, tmp_path):
    write_onnx(network[1], tmp_path / "model.onnx")
    np.testing.assert_allclose(OnnxEmbedder(tmp_path / "model.onnx")(pictures), network[1](pictures), atol=1e-5)


def test_training_starts_from_the_network_without_its_cohort(network, pictures, tmp_path):
    from model import build_embedding_model

    plain, normalised = network
    normalised.save(tmp_path / "model.keras")
    fresh = build_embedding_model(Config(image_size=32, embedding_size=64))
    told = load_weights(fresh, tmp_path / "model.keras", "small")
    assert told.endswith("all weights taken. Its cohort stays behind: `cohort` makes one of the training people.")
    np.testing.assert_allclose(fresh(pictures), plain(pictures), atol=1e-6)
    assert without_cohort(plain) is plain


@pytest.mark.parametrize("asked", [5, 500])
def test_a_run_judges_it_and_keeps_the_better(crops, tmp_path, capsys, asked):
    assert train.main(arguments(crops, tmp_path, "run", cohort=asked, steps_per_epoch=4)) == 0
    told, bundle = capsys.readouterr().out, tmp_path / "run" / "bundle"
    record, network = read_record(bundle), read_network(bundle)
    kept = "held-out people is" in told and told.split("without ")[1].split("\n")[0].endswith(": kept.")
    assert ("needs more than 500 training people" in told) == (asked == 500)
    assert isinstance(network.layers[-1], CohortNorm) == kept == bool(record.training["cohort"])
    # A cohort that could not be made was no candidate.
    assert record.training["candidates"] == 2 + (asked == 5)
    base = read_network(tmp_path / "run" / "checkpoints" / "best.keras").output_shape[-1]
    assert record.embedding_size == network.output_shape[-1] == base + (WIDTH if kept else 0)
    assert ("normalised by a cohort of" in told.split("Best epoch")[1]) == kept
    assert ("embeddings of training people" in (bundle / "model_card.md").read_text()) == kept


def test_without_a_picture_that_can_be_read_the_network_stays_as_it_is(crops, network, tmp_path):
    index = index_people(shutil.copytree(crops, tmp_path / "gone"))
    shutil.rmtree(tmp_path / "gone")
    told: list[str] = []
    config = Config(image_size=32, cohort=5)
    kept, people = normalise(config, index, network[0], lambda embed: {"auc": 0.5}, told.append)
    assert kept is network[0] and people is None
    assert told == ["`cohort` 5 needs more than 5 training people; there are 0. The network stays as it is."]


@pytest.mark.parametrize("kind", ["onnx", "litert"])
def test_in_8_bits_nearness_stays_exact(network, cohort, tmp_path, kind):
    # The network before the layer loses what 8 bits lose; the layer must lose no more.
    samples = np.random.default_rng(6).integers(0, 256, (64, 32, 32, 3)).astype(np.uint8)
    if kind == "litert":
        pytest.importorskip("ai_edge_litert")
    losses = []
    for place, model in enumerate(network):
        rows = np.asarray(model(samples))
        if kind == "onnx":
            write_onnx(model, tmp_path / f"{place}.onnx", "int8", samples)
            found = OnnxEmbedder(tmp_path / f"{place}.onnx")(samples)
        else:
            write_litert(model, tmp_path / f"{place}.tflite", "int8", samples)
            found = LiteRTEmbedder(tmp_path / f"{place}.tflite")(samples)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
        losses.append(float(np.max(1 - (rows * found).sum(axis=1))))
    assert losses[1] < 2 * losses[0] + 1e-4, losses


def test_without_an_epoch_the_start_gets_a_threshold_and_a_cohort(crops, tmp_path, capsys):
    assert train.main(arguments(crops, tmp_path, "first", steps_per_epoch=4, epochs=1)) == 0
    start = tmp_path / "first" / "bundle"
    assert train.main(arguments(crops, tmp_path, "as-it-is", weights=start, epochs=0, cohort=3)) == 0
    told = capsys.readouterr().out
    record = read_record(tmp_path / "as-it-is" / "bundle")
    assert "0 epochs: nothing is trained" in told and "The bundle holds the network as it started" in told
    opening = told.split("as-it-is: ")[1].split("0 epochs")[0]
    assert "nothing is trained.\nHeld out: " in opening and "\nFor the cohort: " in opening
    assert "tuplet" not in opening and "Training on" not in opening
    # There is no curve of no epochs.
    assert "learning_curve" not in told.split("0 epochs")[1]
    assert not (tmp_path / "as-it-is" / "learning_curve.png").exists()
    assert "epoch by epoch" not in told.split("0 epochs")[1]
    default = "Where no --model is named, inference.py and evaluate.py take it from now on."
    assert default not in told, "a model of drawn faces is never the default"
    assert default in closing_words(Config(), replace(record, synthetic=False))
    assert record.threshold and record.training["steps"] == 0
    kept = without_cohort(read_network(tmp_path / "as-it-is" / "bundle"))
    for found, given in zip(kept.get_weights(), without_cohort(read_network(start)).get_weights(), strict=True):
        np.testing.assert_array_equal(found, given)
    # Another cohort, or none, needs no training again.
    again = ["--resume", "--name", "as-it-is", "--runs_dir", str(tmp_path), "--cohort", "0"]
    assert train.main(again) == 0
    assert "\nOf no use here: " in capsys.readouterr().out
    record = read_record(tmp_path / "as-it-is" / "bundle")
    assert (record.training["cohort"], record.training["candidates"]) == (0, 1) and "note" not in record.figures
    assert record.training["pictures"] == "none: the network is as it started"
    with pytest.raises(ValueError, match="`epochs` 0 leaves the network as it starts, so it needs `weights`"):
        Config(epochs=0)
