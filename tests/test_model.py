"""The networks and what the embedding model promises: shapes, precision, saving, weights, size."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from apps import bench
from combinations import BACKBONES_WITH_IMAGENET, SMALLEST_IMAGE
from config import Config
from facekit.backbones import BACKBONES, build_backbone, build_normalization
from facekit.layers import UnitNorm
from model import build_embedding_model, model_summary

ROOT = Path(__file__).parent.parent
LIGHT = ("small", "resnet18", "mobilenet_v2")
HEAVY = tuple(pytest.param(name, marks=pytest.mark.slow) for name in SMALLEST_IMAGE if name not in LIGHT)


@pytest.fixture(autouse=True)
def seed() -> None:
    keras.utils.set_random_seed(0)


def pictures(size: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def assert_unit_rows(embeddings: Any, shape: tuple[int, int]) -> None:
    assert embeddings.shape == shape
    assert embeddings.dtype == tf.float32
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=-1), 1.0, atol=1e-5)


def with_varied_weights(model: keras.Model) -> keras.Model:
    """New batch norms compute the identity: give them, too, values that a mix-up would show."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if len(weight.shape) == 1:
            weight.assign(generator.uniform(0.5, 1.5, weight.shape))
    return model


# ---- Outputs -----------------------------------------------------------------------------------------------


def test_registry_and_settings_name_the_same_backbones() -> None:
    assert set(BACKBONES) == set(SMALLEST_IMAGE)
    assert {name for name, backbone in BACKBONES.items() if backbone.imagenet_file} == set(BACKBONES_WITH_IMAGENET)


@pytest.mark.parametrize("backbone", SMALLEST_IMAGE)
def test_smallest_picture_gives_unit_rows(backbone: str) -> None:
    size = SMALLEST_IMAGE[backbone]
    model = build_embedding_model(Config(backbone=backbone, image_size=size, embedding_size=16))
    assert_unit_rows(model(pictures(size)), (3, 16))


@pytest.mark.parametrize("backbone", [*LIGHT, *HEAVY])
def test_usual_picture_gives_unit_rows(backbone: str) -> None:
    size = {"small": 64, "inception_resnet_v1": 160}.get(backbone, 112)
    model = build_embedding_model(Config(backbone=backbone, image_size=size))
    assert_unit_rows(model(pictures(size)), (3, 128))


@pytest.mark.parametrize("pooling", ["average", "flatten"])
def test_pooling(pooling: Any) -> None:
    model = build_embedding_model(Config(image_size=64, pooling=pooling, embedding_size=8))
    assert model.get_layer("embedding").kernel.shape == (256 * (4 if pooling == "flatten" else 1), 8)
    assert_unit_rows(model(pictures(64)), (3, 8))


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_uint8_and_float_pictures_give_the_same(precision: Any) -> None:
    model = build_embedding_model(Config(precision=precision))
    batch = pictures(64)
    np.testing.assert_array_equal(model(batch), model(batch.astype(np.float32)))


def test_seed_decides_the_random_weights() -> None:
    batch = pictures(32)
    first = build_embedding_model(Config(image_size=32))(batch)
    keras.utils.set_random_seed(0)
    np.testing.assert_array_equal(build_embedding_model(Config(image_size=32))(batch), first)


# ---- Normalisation -----------------------------------------------------------------------------------------


def torch_style(batch: np.ndarray) -> np.ndarray:
    return keras.applications.imagenet_utils.preprocess_input(batch, mode="torch")


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("resnet50", keras.applications.resnet50.preprocess_input),
        ("inception_v3", keras.applications.inception_v3.preprocess_input),
        ("mobilenet_v2", keras.applications.mobilenet_v2.preprocess_input),
        ("efficientnet_b0", torch_style),
        ("small", lambda batch: (batch - 127.5) / 128),
        ("resnet18", lambda batch: (batch - 127.5) / 128),
        ("inception_resnet_v1", lambda batch: (batch - 127.5) / 128),
    ],
)
def test_normalization_is_what_the_weights_were_trained_on(
    backbone: str, expected: Callable[[np.ndarray], np.ndarray]
) -> None:
    batch = pictures(8).astype(np.float32)
    ours = build_normalization(backbone)(batch)
    np.testing.assert_allclose(ours, expected(batch.copy()), rtol=1e-5, atol=1e-5)


def test_normalization_is_exact_in_mixed_precision() -> None:
    model = build_embedding_model(Config(precision="mixed_bfloat16"))
    normalized = keras.Model(model.input, model.get_layer("normalization").output)
    batch = pictures(64) + np.float32(0.3)
    np.testing.assert_allclose(normalized(batch), (batch - 127.5) / 128, atol=1e-6)


def test_efficientnet_equals_keras_imagenet_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keras' file holds ImageNet's mean and, as "variance", its deviation; here with random other weights."""
    plain = keras.applications.EfficientNetB0(include_top=False, weights=None, input_shape=(32, 32, 3))
    inside = next(layer for layer in plain.layers if isinstance(layer, keras.layers.Normalization))
    inside.adapt_mean.assign([0.485, 0.456, 0.406])
    inside.adapt_variance.assign([0.229, 0.224, 0.225])
    path = tmp_path / "imagenet.weights.h5"
    plain.save_weights(path)
    monkeypatch.setattr("keras.src.utils.file_utils.get_file", lambda *_args, **_options: str(path))

    theirs = keras.applications.EfficientNetB0(include_top=False, weights="imagenet", input_shape=(32, 32, 3))
    ours = build_backbone("efficientnet_b0", 32, "imagenet")
    batch = pictures(32).astype(np.float32)
    expected = theirs(batch).numpy()
    features = ours(build_normalization("efficientnet_b0")(batch)).numpy()
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


# ---- The head's numerics -----------------------------------------------------------------------------------


def test_unit_norm_keeps_zero_rows_zero_with_a_small_gradient() -> None:
    rows = tf.Variable([[0.0, 0.0], [3.0, 4.0], [1e-20, 0.0]])
    with tf.GradientTape() as tape:
        normalized = UnitNorm()(rows)
        total = tf.reduce_sum(normalized * [[1.0, 2.0]])
    np.testing.assert_allclose(normalized, [[0.0, 0.0], [0.6, 0.8], [0.0, 0.0]], atol=1e-7)
    gradient: np.ndarray = tape.gradient(total, rows).numpy()
    assert np.abs(gradient).max() < 10
    # d(x / |x|) v = (v - (v . y) y) / |x|, y = (0.6, 0.8), v = (1, 2).
    np.testing.assert_allclose(gradient[1], [(1 - 2.2 * 0.6) / 5, (2 - 2.2 * 0.8) / 5], atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_gradient_of_a_zero_picture_is_finite(training: bool) -> None:
    model = build_embedding_model(Config(image_size=32, embedding_size=8))
    with tf.GradientTape() as tape:
        embeddings = model(np.zeros((2, 32, 32, 3), np.float32), training=training)
        total = tf.reduce_sum(embeddings * tf.range(8.0))
    assert np.isfinite(embeddings).all()
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(total, model.trainable_variables))


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision(precision: Any) -> None:
    before = keras.config.dtype_policy()
    model = build_embedding_model(Config(image_size=32, precision=precision))
    assert keras.config.dtype_policy() == before
    assert model.get_layer("small").get_layer("conv1").compute_dtype == precision.removeprefix("mixed_")
    assert all(weight.dtype == "float32" for weight in model.trainable_weights)
    with tf.GradientTape() as tape:
        embeddings = model(pictures(32), training=True)
        total = tf.reduce_sum(embeddings * tf.random.stateless_normal((3, 128), seed=(0, 0)))
    assert_unit_rows(embeddings, (3, 128))
    assert all(np.isfinite(gradient).all() for gradient in tape.gradient(total, model.trainable_variables))


def test_precision_of_the_caller_neither_leaks_in_nor_is_lost() -> None:
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = build_embedding_model(Config(image_size=32))
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")
    layers = [*model.layers, *model.get_layer("small").layers]
    assert {layer.compute_dtype for layer in layers} == {"float32"}


# ---- Saving ------------------------------------------------------------------------------------------------

LOAD_AND_EMBED = """
import sys
import keras, numpy as np
import model
for path in sys.argv[2:]:
    loaded = keras.models.load_model(path)
    batch = np.load(sys.argv[1])[:, : loaded.input_shape[1], : loaded.input_shape[1]]
    np.save(path + ".npy", loaded(batch))
"""


@pytest.mark.parametrize(
    "backbones",
    [
        ("small", "resnet18", "efficientnet_b0"),
        pytest.param(("inception_resnet_v1", "resnet50"), marks=pytest.mark.slow),
    ],
)
def test_keras_file_gives_identical_outputs_in_a_fresh_process(backbones: tuple[str, ...], tmp_path: Path) -> None:
    batch = pictures(112)
    np.save(tmp_path / "batch.npy", batch)
    expected = {}
    for name in backbones:
        size = max(64, SMALLEST_IMAGE[name])
        # One of them in mixed precision, which has to be kept as well.
        precision: Any = "mixed_bfloat16" if name == "small" else "float32"
        config = Config(backbone=name, image_size=size, embedding_size=16, precision=precision)
        model = with_varied_weights(build_embedding_model(config))
        path = str(tmp_path / f"{name}.keras")
        model.save(path)
        expected[path] = model(batch[:, :size, :size]).numpy()
    subprocess.run(
        [sys.executable, "-c", LOAD_AND_EMBED, str(tmp_path / "batch.npy"), *expected],
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        check=True,
    )
    for path, embeddings in expected.items():
        np.testing.assert_array_equal(np.load(path + ".npy"), embeddings, err_msg=path)


# ---- Weights -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained() -> Iterator[keras.Model]:
    keras.utils.set_random_seed(1)
    yield with_varied_weights(build_embedding_model(Config(image_size=32, embedding_size=8)))


@pytest.mark.parametrize("file_name", ["trained.keras", "trained.weights.h5"])
def test_weights_of_a_file(trained: keras.Model, tmp_path: Path, file_name: str) -> None:
    path = tmp_path / file_name
    trained.save(path) if path.suffix == ".keras" else trained.save_weights(path)
    model = build_embedding_model(Config(image_size=32, embedding_size=8, weights=str(path)))
    np.testing.assert_array_equal(model(pictures(32)), trained(pictures(32)))


def test_weights_of_a_file_with_another_head_and_size(
    trained: keras.Model, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "trained.keras"
    trained.save(path)
    model = build_embedding_model(Config(image_size=48, embedding_size=16, weights=str(path)))
    assert "only the backbone's weights were taken" in caplog.text
    for new, old in zip(model.get_layer("small").weights, trained.get_layer("small").weights, strict=True):
        np.testing.assert_array_equal(new, old)


def test_weights_that_do_not_fit(trained: keras.Model, tmp_path: Path) -> None:
    whole, weights = tmp_path / "trained.keras", tmp_path / "trained.weights.h5"
    trained.save(whole)
    trained.save_weights(weights)
    damaged = tmp_path / "damaged.keras"
    damaged.write_bytes(whole.read_bytes()[:1000])
    (tmp_path / "weights.ckpt").touch()
    (tmp_path / "text.keras").write_text("text")
    cases: list[tuple[dict[str, Any], Path, str]] = [
        (dict(backbone="resnet18"), whole, r"`weights`: .*trained\.keras holds no backbone 'resnet18'"),
        (
            dict(embedding_size=4),
            weights,
            r"`weights`: .*trained\.weights\.h5 does not fit this backbone and embedding size",
        ),
        ({}, damaged, r"`weights`: .*damaged\.keras cannot be read as a Keras model"),
        ({}, tmp_path / "text.keras", r"text\.keras cannot be read as a Keras model \(it is damaged, or of"),
        ({}, tmp_path / "gone.keras", r"`weights`: there is no file .*gone\.keras"),
        (
            {},
            tmp_path / "weights.ckpt",
            r"`weights`: expected a \.keras, \.weights\.h5, \.pt, \.pth or \.safetensors file",
        ),
    ]
    for settings, path, message in cases:
        config = Config(**({"image_size": 32, "embedding_size": 8} | settings), weights=str(path))
        with pytest.raises(ValueError, match=message) as caught:
            build_embedding_model(config)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("backbone", "size"), [*((name, 112) for name in BACKBONES_WITH_IMAGENET), ("mobilenet_v2", 96)]
)
def test_imagenet_without_internet(
    backbone: str, size: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []

    def unreachable(url: str, *_rest: Any) -> None:
        asked.append(url)
        raise urllib.error.URLError("no route to host")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    monkeypatch.setattr("keras.src.utils.file_utils.urlretrieve", unreachable)
    with pytest.raises(ValueError, match="no route to host") as caught:
        build_embedding_model(Config(backbone=backbone, image_size=size, weights="imagenet"))
    file = asked[0].rsplit("/", 1)[1]
    assert f"put the file {file} into {tmp_path / 'models'}, or set `weights`" in str(caught.value)


@pytest.mark.parametrize("backbone", ["mobilenet_v2", "efficientnet_b0"])
def test_a_file_of_keras_applications_is_taken_by_its_path(backbone: str, tmp_path: Path) -> None:
    from keras.src.legacy.saving import legacy_h5_format

    keras.utils.set_random_seed(3)
    constructor = {
        "mobilenet_v2": keras.applications.MobileNetV2,
        "efficientnet_b0": keras.applications.EfficientNetB0,
    }
    theirs = constructor[backbone](include_top=False, weights=None, input_shape=(96, 96, 3))
    path = tmp_path / f"{backbone}_notop.h5"
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, theirs)
    keras.utils.set_random_seed(4)
    model = build_embedding_model(Config(backbone=backbone, image_size=96, weights=str(path)))
    ours = model.get_layer(backbone).get_weights()
    kept = [layer for layer in theirs.layers if not isinstance(layer, keras.layers.Normalization)]
    expected = [weight for layer in kept for weight in layer.get_weights()]
    assert len(ours) == len(expected) and all(np.array_equal(a, b) for a, b in zip(ours, expected, strict=True))
    with pytest.raises(ValueError, match=r"`weights`: .*_notop\.h5 cannot be loaded into resnet50"):
        build_embedding_model(Config(backbone="resnet50", image_size=96, weights=str(path)))
    with pytest.raises(ValueError, match=r"`weights`: .*there is no file .*none\.h5"):
        build_embedding_model(Config(backbone="mobilenet_v2", image_size=96, weights=str(tmp_path / "none.h5")))


def test_wrong_arguments_of_a_backbone() -> None:
    with pytest.raises(ValueError, match="There is no backbone 'resnet81': did you mean 'resnet18'?"):
        build_backbone("resnet81", 64)
    with pytest.raises(ValueError, match="There is no backbone 'smal': did you mean 'small'?"):
        build_normalization("smal")
    with pytest.raises(ValueError, match="`weights`: imagenet cannot serve the backbone 'small'"):
        build_backbone("small", 64, "imagenet")
    with pytest.raises(ValueError, match="`weights` of a backbone must be None, "):
        build_backbone("small", 64, "vggface2")


# ---- Architecture and size ---------------------------------------------------------------------------------


def conv(inputs: int, outputs: int, area: int) -> int:
    """Trainable parameters of a convolution without bias and its batch norm."""
    return inputs * outputs * area + 2 * outputs


def inception_resnet_v1_parameters() -> int:
    """Of FaceNet's network up to its features, counted from its published layer sizes."""
    stem = (
        conv(3, 32, 9) + conv(32, 32, 9) + conv(32, 64, 9) + conv(64, 80, 1) + conv(80, 192, 9) + conv(192, 256, 9)
    )
    block35 = 3 * conv(256, 32, 1) + 3 * conv(32, 32, 9) + (96 * 256 + 256)
    mixed_6a = conv(256, 384, 9) + conv(256, 192, 1) + conv(192, 192, 9) + conv(192, 256, 9)
    block17 = 2 * conv(896, 128, 1) + 2 * conv(128, 128, 7) + (256 * 896 + 896)
    mixed_7a = 3 * conv(896, 256, 1) + conv(256, 384, 9) + 3 * conv(256, 256, 9)
    block8 = 2 * conv(1792, 192, 1) + 2 * conv(192, 192, 3) + (384 * 1792 + 1792)
    return stem + 5 * block35 + mixed_6a + 10 * block17 + mixed_7a + 6 * block8


def test_inception_resnet_v1_is_facenets() -> None:
    """The total is facenet-pytorch's: with last_linear (no bias) and last_bn, without the classifier."""
    model = build_embedding_model(Config(backbone="inception_resnet_v1", image_size=160, embedding_size=512))
    backbone = model.get_layer("inception_resnet_v1")
    assert backbone.output.shape == (None, 3, 3, 1792)
    parameters = model_summary(model)["trainable_parameters"]
    assert parameters == inception_resnet_v1_parameters() + 1792 * 512 + 2 * 512 == 23_482_624
    scales = [layer.scale for layer in backbone.layers if isinstance(layer, keras.layers.Rescaling)]
    assert scales == [0.17] * 5 + [0.1] * 10 + [0.2] * 5 + [1.0]
    assert isinstance(backbone.layers[-1], keras.layers.Add)  # the last block has no ReLU
    norms = [layer for layer in backbone.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert {(layer.epsilon, layer.momentum) for layer in norms} == {(1e-3, 0.9)}


def test_resnets_have_their_papers_maps() -> None:
    assert build_backbone("resnet18", 112).output.shape == (None, 7, 7, 512)
    assert build_backbone("small", 64).output.shape == (None, 2, 2, 256)
    assert 0.5e6 < build_backbone("small", 64).count_params() < 1.5e6


def test_flops_of_resnet50_are_the_published_ones() -> None:
    summary = model_summary(build_embedding_model(Config(backbone="resnet50", image_size=224)))
    assert 7.5e9 < summary["flops"] < 8.5e9
    assert summary["image_size"] == 224
    # Keras documents 23.6 M without the classifier; the head has 2048 x 128, and 4 x 128 for batch norm.
    assert summary["parameters"] == 23_587_712 + 2048 * 128 + 4 * 128
    assert summary["parameters"] - summary["trainable_parameters"] == 53_120 + 2 * 128


def test_flops_by_hand() -> None:
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(5, 3, strides=2, padding="same")(image)
    x = keras.layers.DepthwiseConv2D(3, padding="same")(x)
    model = keras.Model(image, keras.layers.Dense(7)(keras.layers.GlobalAveragePooling2D()(x)))
    assert model_summary(model)["flops"] == 2 * (16 * 9 * 3 * 5 + 16 * 9 * 5 + 5 * 7)


# ---- The bench ---------------------------------------------------------------------------------------------


def test_bench_writes_a_row_for_each_precision(capsys: pytest.CaptureFixture[str]) -> None:
    options = "--image_size 32 --backbones small --batch_size 2 --warmup 1 --steps 1"
    assert bench.main(["model", *options.split(), "--precisions", "float32", "mixed_bfloat16"]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert len(cells) == 4 and {len(row) for row in cells} == {len(bench.MODEL_COLUMNS)}
    assert [row[:2] for row in cells[2:]] == [["small", "float32"], ["small", "mixed_bfloat16"]]
    assert cells[2][5] == "1.00"


def test_bench_refuses_wrong_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["network"]) == 2
    assert "usage: python -m apps.bench {model,losses,index,input,crop,aligner,verify}" in capsys.readouterr().err
    assert bench.main(["model", "--backbones", "smal"]) == 2
    assert "error: `backbone` must be 'small'" in capsys.readouterr().err
    assert bench.main(["--help"]) == 0
