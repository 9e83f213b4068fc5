"""Systems to compare: bundles, and the baselines that a model must beat."""

from __future__ import annotations

import shutil
import sys
import types
from dataclasses import replace

import numpy as np
import pytest

import systems
from facekit.bundle import read_network, read_record, write_bundle
from facekit.cohort import fit_cohort, with_cohort
from facekit.images import read_image
from verifier import Verifier


@pytest.fixture(scope="module")
def faces(crops) -> list:
    return [read_image(path) for path in sorted(crops.glob("*/*.jpg"))[:12]]


def test_a_bundle_embeds_as_inference_does(bundle, faces) -> None:
    (system,) = systems.bundle_systems([bundle])
    assert (system.name, system.threshold, system.bundle) == ("fixture", 0.5, bundle)
    np.testing.assert_array_equal(system.embed(faces), Verifier(bundle, engine="tensorflow").embed_crops(faces))


def test_runs_of_one_name_are_told_apart_by_their_folders(bundle, tmp_path) -> None:
    shutil.copytree(bundle, tmp_path / "copy")
    names = [system.name for system in systems.bundle_systems([bundle, tmp_path / "copy"])]
    assert names == [str(bundle), str(tmp_path / "copy")]
    with pytest.raises(ValueError, match="names a bundle twice"):
        systems.bundle_systems([bundle, bundle])


def test_pixels_are_unit_rows_of_grey_values(faces) -> None:
    rows = systems.pixels(None).embed([*faces, np.zeros((50, 40, 3), np.uint8)])
    np.testing.assert_allclose(np.linalg.norm(rows[:-1], axis=1), 1, atol=1e-5)
    assert not rows[-1].any()
    brighter = [np.minimum(face.astype(int) + 20, 255).astype(np.uint8) for face in faces]
    assert np.linalg.norm(systems.pixels(None).embed(brighter) - rows[:-1], axis=1).max() < 0.3
    assert rows[0] @ rows[1] == pytest.approx(np.asarray(np.corrcoef(rows[:2]))[0, 1], abs=1e-5)


def test_the_untrained_network_has_other_weights_and_the_same_shape(bundle, faces) -> None:
    (model,) = systems.bundle_systems([bundle])
    found, _ = systems.baselines(model)
    untrained = found[0]
    rows = untrained.embed(faces)
    assert untrained.name == "untrained network" and rows.shape == model.embed(faces).shape
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    assert np.abs(rows - model.embed(faces)).max() > 0.01
    again, _ = systems.baselines(model)
    np.testing.assert_array_equal(again[0].embed(faces), rows)


def test_a_model_with_a_cohort_has_its_untrained_network_too(bundle, faces, tmp_path) -> None:
    network, folder = read_network(bundle), tmp_path / "cohort"
    rows = np.random.default_rng(0).normal(size=(40, network.output_shape[-1])) + 1
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    normalised = with_cohort(network, fit_cohort(rows, 5))
    write_bundle(folder, normalised, replace(read_record(bundle), embedding_size=normalised.output_shape[-1]))
    (model,) = systems.bundle_systems([folder])
    untrained = systems.baselines(model)[0][0]
    np.testing.assert_allclose(np.linalg.norm(untrained.embed(faces), axis=1), 1, atol=1e-5)


def test_face_recognition_has_a_row_where_it_is_installed_and_a_sentence_where_not(
    bundle, faces, monkeypatch
) -> None:
    (model,) = systems.bundle_systems([bundle])
    monkeypatch.setattr(systems, "find_spec", lambda name: None)
    found, missing = systems.baselines(model)
    assert [system.name for system in found] == ["untrained network", "raw pixels"]
    assert missing == [
        'face_recognition is not installed (pip install dlib-bin "setuptools<81"; pip install --no-deps '
        "face_recognition face_recognition_models), so it has no row."
    ]

    def encodings(crop, known_face_locations):
        assert known_face_locations == [(0, crop.shape[1], crop.shape[0], 0)]
        return [np.full(128, crop.mean())]

    package = types.SimpleNamespace(face_encodings=encodings)
    monkeypatch.setitem(sys.modules, "face_recognition", package)
    monkeypatch.setattr(systems, "find_spec", lambda name: object())
    found, missing = systems.baselines(model)
    assert missing == [] and found[2].kind == "dissimilarity"
    assert found[2].embed(faces).shape == (len(faces), 128)


def test_face_recognition_finds_faces_by_itself_where_pictures_are_whole(bundle, monkeypatch) -> None:
    """The face in the middle is chosen, and a picture without one is NaN: it counts as not recognised."""
    small, middle = (0, 20, 20, 0), (30, 70, 70, 30)
    found = {10: [small, middle], 20: []}
    package = types.SimpleNamespace(
        face_locations=lambda picture: found[int(picture[0, 0, 0])],
        face_encodings=lambda picture, known_face_locations: [np.full(128, sum(known_face_locations[0]))],
    )
    monkeypatch.setitem(sys.modules, "face_recognition", package)
    monkeypatch.setattr(systems, "find_spec", lambda name: object())
    (model,) = systems.bundle_systems([bundle])
    whole = systems.baselines(model, originals=True)[0][-1]
    assert whole.recipe is None and whole.name == "face_recognition (dlib), its own detector"
    rows = whole.embed([np.full((100, 100, 3), value, np.uint8) for value in (10, 20)])
    assert (rows[0] == sum(middle)).all() and np.isnan(rows[1]).all() and rows.shape == (2, 128)
    names = [system.name for system in systems.baselines(model)[0]]
    assert "face_recognition (dlib)" in names and whole.name not in names
    (cut,) = systems.bundle_systems([bundle], as_crops=True)
    assert whole.name not in [system.name for system in systems.baselines(cut, originals=True)[0]]
