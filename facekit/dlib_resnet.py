"""dlib's face recognition network, ResNet-29 of narrow 3 x 3 layers, as an ordinary Keras backbone.

Davis King, dlib.net (dnn_face_recognition_ex.cpp); the published weights are in the public domain (CC0).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np

from facekit.dlib_file import NAME, SIDE, DlibNetwork, read_dlib

STAGES = ((32, 3), (64, 4), (128, 3), (256, 3), (256, 1))
"""Channels and blocks of each stage; every stage but the first halves the map in its first block."""

MEAN_RGB, DIVISOR = (122.782, 117.001, 104.298), 256.0
"""What is subtracted from pixels of 0..255, and what they are divided by afterwards."""

# dlib's batch norm of its training time; at var = 1 - epsilon the layer is dlib's affine one.
BATCH_NORM = {"momentum": 0.9, "epsilon": 1e-4}


def dlib_resnet29(shape: tuple[int, int, int], _weights: str | None = None) -> keras.Model:
    """The network up to its last map, 5.6 M parameters, on random weights.

    Convolutions of stride 2 are unpadded, and where a halved branch then has fewer cells than its shortcut, it is
    filled with zeros at the bottom and right, as dlib adds tensors of unequal size.

    Args:
        shape: (side, side, 3); 150 gives maps of 72, 35, 17, 8, 4 and 2 cells a side.
    """
    image = keras.Input(shape)
    x = _conv(image, 32, 7, "conv1", strides=2)
    x = keras.layers.ReLU(name="relu")(_batch_norm(x, "bn1"))
    x = keras.layers.MaxPooling2D(3, 2, name="maxpool")(x)
    for stage, (channels, blocks) in enumerate(STAGES, start=1):
        for block in range(blocks):
            x = _block(x, channels, down=stage > 1 and block == 0, name=f"layer{stage}.{block}")
    return keras.Model(image, x)


def take_dlib(model: keras.Model, path: Path) -> str:
    """Put dlib's published weights into an embedding model of this backbone.

    Args:
        model: its backbone is `NAME`; where its embedding layer is 256 to 128 without batch norm behind it, that
            layer is taken too, else it keeps its start.
        path: dlib_face_recognition_resnet_model_v1.dat.

    Returns:
        One sentence that says what was taken.

    Raises:
        ValueError: the file is another, or the model is; names the file.
    """
    source = read_dlib(path)
    _check(source, path)
    backbone = model.get_layer(NAME)
    convolutions, norms = _in_order(backbone)
    for layer, (kernel, _) in zip(convolutions, source.convolutions, strict=True):
        _assign(layer, [kernel], path)
    for layer, (gamma, beta), (_, bias) in zip(norms, source.affines, source.convolutions, strict=True):
        # The convolution's bias passes through the affine layer behind it.
        variance = np.full_like(gamma, 1 - BATCH_NORM["epsilon"])
        _assign(layer, [gamma, beta + gamma * bias, np.zeros_like(gamma), variance], path)
    numbers = sum(one.size + other.size for one, other in [*source.convolutions, *source.affines])
    count = 2 * (len(source.convolutions) + len(source.affines))
    dense = model.get_layer("embedding")
    if tuple(dense.kernel.shape) != source.dense.shape or "embedding_bn" in [layer.name for layer in model.layers]:
        return (
            f"{path.name}: {count} tensors, {numbers:,} numbers; the embedding layer differs and keeps its start."
        )
    _assign(dense, [source.dense], path)
    return f"{path.name}: all {count + 1} tensors, {numbers + source.dense.size:,} numbers."


def _check(source: DlibNetwork, path: Path) -> None:
    if source.size != SIDE or not np.allclose(source.mean, MEAN_RGB, atol=1e-4):
        raise ValueError(f"{path}: takes pictures of {source.size} pixels with mean {source.mean.tolist()}.")


def _in_order(backbone: keras.Model) -> tuple[list[keras.layers.Layer], list[keras.layers.Layer]]:
    """Convolutions and batch norms in forward order, which is the order of their names."""
    names = ["1"] + [
        f"layer{stage}.{block}.{part}"
        for stage, (_, blocks) in enumerate(STAGES, start=1)
        for block in range(blocks)
        for part in (1, 2)
    ]

    def named(kind: str) -> list[keras.layers.Layer]:
        return [backbone.get_layer(f"{kind}1" if name == "1" else f"{name[:-1]}{kind}{name[-1]}") for name in names]

    return named("conv"), named("bn")


def _assign(layer: keras.layers.Layer, values: list[Any], path: Path) -> None:
    expected = [tuple(weight.shape) for weight in layer.weights]
    found = [value.shape for value in values]
    if expected != found:
        raise ValueError(f"{path}: the layer {layer.name} takes weights of shapes {expected}, not {found}.")
    layer.set_weights(values)


def _block(x: Any, channels: int, down: bool, name: str) -> Any:
    """Two 3 x 3 convolutions and a shortcut without weights: pooled, and widened with zeros, where it shrinks."""
    branch = _conv(x, channels, 3, f"{name}.conv1", strides=2 if down else 1)
    branch = keras.layers.ReLU(name=f"{name}.relu1")(_batch_norm(branch, f"{name}.bn1"))
    branch = _batch_norm(_conv(branch, channels, 3, f"{name}.conv2"), f"{name}.bn2")
    if down:
        x = _shrink(x, channels, name)
        if missing := x.shape[1] - branch.shape[1]:
            branch = keras.layers.ZeroPadding2D(((0, missing), (0, missing)), name=f"{name}.fill")(branch)
    return keras.layers.ReLU(name=f"{name}.relu2")(keras.layers.Add(name=f"{name}.add")([branch, x]))


def _shrink(x: Any, channels: int, name: str) -> Any:
    """2 x 2 means; where channels double, the new ones are zero."""
    x = keras.layers.AveragePooling2D(2, 2, name=f"{name}.pool")(x)
    if channels > x.shape[-1]:
        zeros = keras.layers.Rescaling(0.0, name=f"{name}.zeros")(x)
        x = keras.layers.Concatenate(name=f"{name}.widen")([x, zeros])
    return x


def _conv(x: Any, channels: int, kernel: int, name: str, strides: int = 1) -> Any:
    padding = "valid" if strides > 1 else "same"
    return keras.layers.Conv2D(
        channels, kernel, strides, padding, use_bias=False, kernel_initializer="he_normal", name=name
    )(x)


def _batch_norm(x: Any, name: str) -> Any:
    return keras.layers.BatchNormalization(**BATCH_NORM, name=name)(x)
