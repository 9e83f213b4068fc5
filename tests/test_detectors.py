"""A recipe names its detector with all that decides its answers, and only that very detector is made."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec

import pytest

from facekit.aligner import FastDetector
from facekit.alignment import CropRecipe
from facekit.detection import MtcnnDetector
from facekit.detectors import (
    check_detector,
    detector_name,
    finder_of,
    is_exact,
    make_detector,
    min_face,
    needs_aligner,
)
from facekit.dlib_detector import DlibDetector


@pytest.fixture(scope="module")
def aligner(tmp_path_factory):
    """Untrained weights."""
    from facekit.aligner_training import build_aligner

    path = tmp_path_factory.mktemp("aligner") / "weights.keras"
    build_aligner(width=4).save(path)
    return path


def test_names_say_what_decides_the_answers(aligner):
    assert detector_name() == detector_name(min_face=20) == CropRecipe().detector == "mtcnn"
    assert detector_name(min_face=40) == "mtcnn:40"
    assert detector_name(exact=True) == "mtcnn:exact" and detector_name(min_face=40, exact=True) == "mtcnn:exact:40"
    digest = hashlib.sha256(aligner.read_bytes()).hexdigest()[:16]
    assert detector_name(aligner) == f"fast:{digest}"
    assert detector_name(aligner, finder="dlib") == f"dlib:{digest}"


def test_the_named_detector_is_made(aligner, monkeypatch):
    seen = []
    monkeypatch.setattr(
        MtcnnDetector, "__init__", lambda self, *, min_face, rounded: seen.append((min_face, rounded))
    )
    assert isinstance(make_detector(CropRecipe()), MtcnnDetector)
    for name in ("mtcnn:40", "mtcnn:exact", "mtcnn:exact:40"):
        assert isinstance(make_detector(CropRecipe(detector=name), aligner), MtcnnDetector)
    assert seen == [(20, True), (40, True), (20, False), (40, False)]
    fast = CropRecipe(detector=detector_name(aligner))
    assert isinstance(make_detector(fast, aligner), FastDetector)
    assert [needs_aligner(recipe) for recipe in (CropRecipe(), fast)] == [False, True]
    names = ("mtcnn", "mtcnn:40", "mtcnn:exact", "mtcnn:exact:30", "fast:1234", "fast:exact")
    assert [min_face(CropRecipe(detector=name)) for name in names] == [20, 40, 20, 30, 20, 20]
    assert [is_exact(CropRecipe(detector=name)) for name in names] == [False, False, True, True, False, False]


def test_dlib_is_made_with_the_networks_points_or_its_package_is_named(aligner):
    recipe = CropRecipe(detector=detector_name(aligner, finder="dlib"))
    assert needs_aligner(recipe) and finder_of(recipe) == "dlib"
    if find_spec("dlib") is None:
        with pytest.raises(ValueError, match="pip install dlib-bin"):
            make_detector(recipe, aligner)
    else:
        assert isinstance(make_detector(recipe, aligner), DlibDetector)


@pytest.mark.parametrize("name", ["retina", "mtcnn:many", "mtcnn:-3", "mtcnn:40:exact", "mtcnn:", "mtcnn 40", ""])
def test_an_unknown_detector_is_named(name):
    with pytest.raises(ValueError, match=rf"names the detector '{name}'; it is from another version"):
        make_detector(CropRecipe(detector=name))


def test_missing_and_other_weights_are_named(aligner, tmp_path):
    recipe = CropRecipe(detector="fast:0123456789abcdef")
    with pytest.raises(ValueError, match=r"aligner\.keras: the alignment weights are missing.*0123456789abcdef"):
        check_detector(recipe, None)
    with pytest.raises(ValueError, match=r"none\.keras: the alignment weights are missing"):
        check_detector(recipe, tmp_path / "none.keras")
    with pytest.raises(ValueError, match=r"weights\.keras: holds other alignment weights .*0123456789abcdef"):
        make_detector(recipe, aligner)
    with pytest.raises(ValueError, match=r"none\.keras: the alignment weights cannot be read \(No such file"):
        detector_name(tmp_path / "none.keras")
