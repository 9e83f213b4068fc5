"""The network: from a picture to its embedding.

In:  a `Config` (image size, backbone, weights, pooling, dropout, embedding size, precision).
Out: a Keras model from RGB pictures of 0..255 to unit-length float32 embeddings; it normalises its input itself.
Run: python -m apps.bench model
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import keras

from config import Config
from facekit import dlib_file, runtime
from facekit.backbones import BATCH_NORM, build_backbone, build_normalization, is_applications_file
from facekit.bundle import NETWORK
from facekit.dlib_resnet import take_dlib
from facekit.dlib_source import dlib_weights
from facekit.layers import UnitNorm
from facekit.weights import load_weights

LOGGER = logging.getLogger(__name__)

# Whether batch norm follows the embedding layer of a backbone, where the settings do not say.
HEAD_NORM = {dlib_file.NAME: "none"}


def build_embedding_model(config: Config) -> keras.Model:
    """Build the network that `config` describes, on its starting weights.

    The backbone alone computes in `config.precision`: input normalisation and embedding head are always float32.
    Random weights follow Keras' global seed. Keras' global precision is left as it was.

    Args:
        config: the settings; read are image_size, backbone, weights, pooling, dropout, embedding_size, precision.

    Returns:
        A model from (B, image_size, image_size, 3) RGB, 0..255, uint8 or floating point, to (B, embedding_size)
        float32 unit rows.

    Raises:
        ValueError: weights that could not be fetched, read or fitted; one sentence naming the file and `weights`.
    """
    if config.weights not in (None, "imagenet", "dlib") and not Path(config.weights).exists():
        raise ValueError(f"`weights`: there is no file {config.weights}.")
    imagenet = config.weights == "imagenet" or is_applications_file(config.weights)
    fetched = config.weights if imagenet else None
    with _dtype_policy(config.precision):
        backbone = build_backbone(config.backbone, config.image_size, fetched)
    with _dtype_policy("float32"):
        image = keras.Input((config.image_size, config.image_size, 3), name="image")
        features = backbone(build_normalization(config.backbone)(image))
        model = keras.Model(image, _embed(features, config), name="embedding_model")
    if config.weights == "dlib":
        LOGGER.warning(take_dlib(model, dlib_weights(runtime.cache_dir(), LOGGER.warning)))
    elif config.weights and not fetched:
        LOGGER.warning(load_weights(model, weights_file(Path(config.weights)), config.backbone))
    return model


def weights_file(path: Path) -> Path:
    """The file that holds the weights: of a bundle's folder, its network."""
    return path / NETWORK if path.is_dir() else path


def _embed(features: Any, config: Config) -> Any:
    """The embedding head: pooling, dropout, a linear layer, mostly batch norm (as FaceNet has), unit length."""
    pooling = keras.layers.GlobalAveragePooling2D if config.pooling == "average" else keras.layers.Flatten
    x = pooling(name="pooling")(features)
    x = keras.layers.Dropout(config.dropout, name="dropout")(x)
    x = keras.layers.Dense(config.embedding_size, use_bias=False, name="embedding")(x)
    if (config.embedding_norm or HEAD_NORM.get(config.backbone, "batch")) == "batch":
        x = keras.layers.BatchNormalization(**BATCH_NORM, name="embedding_bn")(x)
    return UnitNorm(name="unit_norm")(x)


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Layers made inside have this precision; Keras offers a global setting only."""
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(previous)


def model_summary(model: keras.Model) -> dict[str, int]:
    """The size of a model.

    Returns:
        parameters: all weights, moving statistics included.
        trainable_parameters: those that training changes.
        flops: floating-point operations for one picture: 2 for each multiply-and-add of convolutions and dense
            layers. Normalisation, activations, pooling and additions, a few percent, are not counted.
        image_size: side of the square input in pixels.
    """
    return {
        "parameters": model.count_params(),
        "trainable_parameters": sum(prod(weight.shape) for weight in model.trainable_weights),
        "flops": 2 * _multiply_adds(model),
        "image_size": model.input_shape[1],
    }


def _multiply_adds(layer: keras.layers.Layer) -> int:
    """Multiply-and-adds of a layer for one picture: each weight of a kernel is used once a place of the output."""
    if isinstance(layer, keras.Model):
        return sum(_multiply_adds(inner) for inner in layer.layers)
    if isinstance(layer, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)):
        return prod(layer.kernel.shape) * prod(layer.output.shape[1:-1])
    return 0
