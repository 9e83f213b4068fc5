"""The ONNX form of a network: the same numbers as Keras, without TensorFlow."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

from combinations import SMALLEST_IMAGE
from config import Config
from facekit.layers import UnitNorm
from facekit.onnx_network import OnnxEmbedder, write_onnx
from facekit.synthetic import draw_crop
from model import build_embedding_model

ROOT = Path(__file__).resolve().parent.parent
SIDE = 32


def faces(count: int, side: int = SIDE) -> np.ndarray:
    return np.stack([draw_crop(7, number, 0, side).image for number in range(count)])


def network(backbone: str = "small", side: int = SIDE, **settings: object) -> keras.Model:
    """Untrained, with batch norms that do something."""
    keras.utils.set_random_seed(0)
    model = build_embedding_model(Config(backbone=backbone, image_size=side, embedding_size=16, **settings))
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    return model


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> tuple[keras.Model, Path]:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    model = network()
    write_onnx(model, path)
    return model, path


HEAVY = ("inception_resnet_v1", "resnet50", "inception_v3", "efficientnet_b0", "dlib_resnet29")


@pytest.mark.parametrize(
    "backbone",
    [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in SMALLEST_IMAGE],
)
def test_every_backbone_gives_keras_numbers(backbone: str, tmp_path):
    side = SMALLEST_IMAGE[backbone]
    model = network(backbone, side)
    write_onnx(model, tmp_path / "model.onnx")
    images = faces(3, side)
    expected = np.asarray(model(images, training=False))
    found = OnnxEmbedder(tmp_path / "model.onnx")(images)
    assert found.dtype == np.float32 and found.shape == (3, 16)
    assert np.abs(found @ found.T - expected @ expected.T).max() < 1e-4
    assert (1 - np.sum(found * expected, axis=1)).max() < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_batches_of_any_size_and_none(written):
    model, path = written
    images = faces(7)
    embed = OnnxEmbedder(path, batch_size=3, threads=1)
    np.testing.assert_allclose(embed(images), np.asarray(model(images, training=False)), atol=1e-5)
    np.testing.assert_allclose(embed(images[:1]), embed(images)[:1], atol=1e-6)
    assert embed(images[:0]).shape == (0, 16) and (embed.side, embed.width) == (SIDE, 16)


def test_threads_that_wait_leave_the_cores_to_others(written):
    options = OnnxEmbedder(written[1])._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_batch_norm_is_folded_and_values_are_named(written):
    model = onnx.load(written[1])
    onnx.checker.check_model(model, full_check=True)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["Conv"] == 13 and "BatchNormalization" not in kinds
    assert model.graph.input[0].name == "image" and model.graph.output[0].name == "embedding"


def test_mixed_precision_is_written_in_float32(tmp_path):
    mixed = network(precision="mixed_bfloat16")
    plain = network()
    plain.set_weights(mixed.get_weights())
    write_onnx(mixed, tmp_path / "model.onnx")
    images = faces(4)
    expected = np.asarray(plain(images, training=False))
    np.testing.assert_allclose(OnnxEmbedder(tmp_path / "model.onnx")(images), expected, atol=1e-5)
    assert np.abs(np.asarray(mixed(images, training=False)) - expected).max() > 1e-4
    assert mixed.get_layer("small").layers[1].compute_dtype == "bfloat16"


@pytest.mark.parametrize(("quantize", "share", "bound"), [("float16", 0.55, 1e-5), ("int8", 0.3, 0.02)])
def test_fewer_bits_are_smaller_and_close(written, tmp_path, quantize, share, bound):
    model, plain = written
    path = tmp_path / "model.onnx"
    write_onnx(model, path, quantize, faces(20))
    assert path.stat().st_size < share * plain.stat().st_size
    images = faces(30)[20:]
    rows = OnnxEmbedder(path)(images)
    assert 1e-9 < (1 - np.sum(rows * np.asarray(model(images, training=False)), axis=1)).max() < bound
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)


def test_long_rows_do_not_overflow_float16(tmp_path):
    image = keras.Input((4, 4, 3), name="image")
    rows = keras.layers.Dense(8, use_bias=False)(keras.layers.Flatten()(image))
    model = keras.Model(image, UnitNorm()(rows))
    model.set_weights([np.random.default_rng(0).uniform(0, 2, (48, 8)).astype(np.float32)])
    write_onnx(model, tmp_path / "model.onnx", "float16")
    images = faces(3, 16)[:, 6:10, 6:10]
    expected = np.asarray(model(images, training=False))
    np.testing.assert_allclose(OnnxEmbedder(tmp_path / "model.onnx")(images), expected, atol=2e-3)


def test_int8_needs_samples(written, tmp_path):
    with pytest.raises(ValueError, match="`samples`: int8 needs crops of real faces"):
        write_onnx(written[0], tmp_path / "model.onnx", "int8")


def test_a_zero_row_stays_zero(tmp_path):
    image = keras.Input((4, 4, 3), name="image")
    model = keras.Model(image, UnitNorm()(keras.layers.GlobalAveragePooling2D()(image)))
    write_onnx(model, tmp_path / "model.onnx")
    rows = OnnxEmbedder(tmp_path / "model.onnx")(np.zeros((2, 4, 4, 3), np.uint8))
    np.testing.assert_array_equal(rows, np.zeros((2, 3)))


def test_it_runs_without_tensorflow(written, tmp_path):
    model, path = written
    np.save(tmp_path / "images.npy", faces(2))
    code = (
        "import sys, numpy as np; from pathlib import Path; from facekit.onnx_network import OnnxEmbedder\n"
        "np.save(sys.argv[2], OnnxEmbedder(Path(sys.argv[1]))(np.load(sys.argv[2])))\n"
        "assert not {'tensorflow', 'keras', 'tf2onnx', 'onnx'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code, str(path), str(tmp_path / "images.npy")]
    subprocess.run(command, cwd=ROOT, check=True)
    expected = np.asarray(model(faces(2), training=False))
    np.testing.assert_allclose(np.load(tmp_path / "images.npy"), expected, atol=1e-5)


def test_onnxruntime_leaves_no_identifier_behind(written, tmp_path):
    """In a process without CI in its environment: there onnxruntime is silent by itself."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom facekit.onnx_network import OnnxEmbedder\n"
        "OnnxEmbedder(Path(sys.argv[1]))"
    )
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": os.environ["PATH"]}
    subprocess.run([sys.executable, "-B", "-c", code, str(written[1])], cwd=ROOT, check=True, env=home)
    assert list(tmp_path.rglob("*")) == []


def test_wrong_pictures_are_refused(written):
    embed = OnnxEmbedder(written[1])
    with pytest.raises(ValueError, match=r"\(n, 32, 32, 3\) uint8 in RGB\. Received: uint8 \(2, 48, 48, 3\)"):
        embed(faces(2, 48))
    with pytest.raises(ValueError, match=r"Received: float32 \(2, 32, 32, 3\)"):
        embed(faces(2).astype(np.float32))


def test_a_missing_damaged_or_foreign_file_is_named(written, tmp_path):
    path = tmp_path / "model.onnx"
    with pytest.raises(ValueError, match=r"model\.onnx: there is no such file"):
        OnnxEmbedder(path)
    data = written[1].read_bytes()
    for broken in (b"", b"no ONNX at all", data[: len(data) // 2]):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=r"model\.onnx: is (damaged, or no ONNX|an ONNX) file") as caught:
            OnnxEmbedder(path)
        assert "\n" not in str(caught.value)
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3])
    other = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3])
    graph = onnx.helper.make_graph([onnx.helper.make_node("Abs", ["x"], ["y"])], "g", [value], [other])
    opset = [onnx.helper.make_opsetid("", 17)]
    path.write_bytes(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())
    with pytest.raises(ValueError, match=r"is an ONNX file of another kind \(an embedding network takes `image`"):
        OnnxEmbedder(path)
