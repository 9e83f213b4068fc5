"""The LiteRT form of a network: Keras' numbers, or close to them in fewer bits, without TensorFlow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from facekit.litert_network import LiteRTEmbedder, write_litert
from tests.test_onnx_network import ROOT, faces, network

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed: pip install 'ai-edge-litert>=2,<3'")


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return network()


@pytest.fixture(scope="module")
def written(model, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("litert") / "model.tflite"
    write_litert(model, path)
    return path


def lost(model: keras.Model, path: Path, images: np.ndarray) -> float:
    """Largest cosine difference against Keras."""
    expected = np.asarray(model(images, training=False))
    return float((1 - np.sum(LiteRTEmbedder(path)(images) * expected, axis=1)).max())


def test_it_gives_keras_numbers_in_batches_of_any_size(model, written):
    images = faces(7)
    embed = LiteRTEmbedder(written, batch_size=3, threads=2)
    np.testing.assert_allclose(embed(images), np.asarray(model(images, training=False)), atol=1e-5)
    np.testing.assert_allclose(embed(images[:1]), embed(images)[:1], atol=1e-6)
    assert embed(images[:0]).shape == (0, 16) and (embed.side, embed.width) == (32, 16)
    assert embed(images).dtype == np.float32


@pytest.mark.parametrize(("quantize", "share", "bound"), [("float16", 0.55, 1e-5), ("int8", 0.3, 0.02)])
def test_fewer_bits_are_smaller_and_close(model, written, tmp_path, quantize, share, bound):
    path = tmp_path / "model.tflite"
    write_litert(model, path, quantize, faces(20))
    assert path.stat().st_size < share * written.stat().st_size
    assert 1e-9 < lost(model, path, faces(30)[20:]) < bound
    np.testing.assert_allclose(np.linalg.norm(LiteRTEmbedder(path)(faces(3)), axis=1), 1, atol=1e-5)


def test_int8_needs_samples(model, tmp_path):
    with pytest.raises(ValueError, match="`samples`: int8 needs crops of real faces"):
        write_litert(model, tmp_path / "model.tflite", "int8")


def test_dlibs_network_and_mixed_precision(tmp_path):
    dlib = network("dlib_resnet29", 150)
    write_litert(dlib, tmp_path / "dlib.tflite")
    assert lost(dlib, tmp_path / "dlib.tflite", faces(2, 150)) < 1e-4
    mixed, plain = network(precision="mixed_bfloat16"), network()
    plain.set_weights(mixed.get_weights())
    write_litert(mixed, tmp_path / "mixed.tflite")
    assert lost(plain, tmp_path / "mixed.tflite", faces(4)) < 1e-6


def test_it_runs_without_tensorflow(model, written, tmp_path):
    np.save(tmp_path / "images.npy", faces(2))
    code = (
        "import sys, numpy as np; from pathlib import Path; from facekit.litert_network import LiteRTEmbedder\n"
        "np.save(sys.argv[2], LiteRTEmbedder(Path(sys.argv[1]))(np.load(sys.argv[2])))\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(written), str(tmp_path / "images.npy")]
    subprocess.run(command, cwd=ROOT, check=True)
    expected = np.asarray(model(faces(2), training=False))
    np.testing.assert_allclose(np.load(tmp_path / "images.npy"), expected, atol=1e-5)


def test_a_missing_damaged_or_foreign_file_is_named(written, tmp_path):
    path = tmp_path / "model.tflite"
    with pytest.raises(ValueError, match=r"model\.tflite: there is no such file"):
        LiteRTEmbedder(path)
    data = written.read_bytes()
    for broken in (b"", b"no LiteRT at all", data[: len(data) // 2], data[:8] + bytes(100)):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"model\.tflite: is damaged, or no LiteRT file \(.+\)\.$"):
            LiteRTEmbedder(path)
    square = tf.function(lambda x: x * x, input_signature=[tf.TensorSpec((None, 3))])
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([square.get_concrete_function()]).convert())
    with pytest.raises(ValueError, match=r"is a LiteRT file of another kind \(an embedding network takes `image`"):
        LiteRTEmbedder(path)


def test_wrong_pictures_are_refused(written):
    with pytest.raises(ValueError, match=r"Received: uint8 \(2, 48, 48, 3\)"):
        LiteRTEmbedder(written)(faces(2, 48))
