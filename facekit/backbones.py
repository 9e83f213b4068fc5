"""Networks that turn a normalised picture into a feature map, each with the input normalisation that it expects.

Own networks carry the layer names of the PyTorch projects that they follow, so that a name map can import weights.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from facekit import dlib_file, dlib_resnet
from facekit.layers import ChannelNormalization

# Own networks. PyTorch's momentum 0.1 is Keras' 0.9; short runs need moving statistics that follow quickly.
BATCH_NORM = {"momentum": 0.9, "epsilon": 1e-3}

# Means and standard deviations of ImageNet, for pixels of 0..255. Caffe's channels are blue, green, red.
CAFFE_BGR_MEAN = (103.939, 116.779, 123.68)
IMAGENET_RGB_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_RGB_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)

# Keras has MobileNetV2's ImageNet weights for pictures of each of these sides; other sides get the last.
MOBILENET_SIZES = (96, 128, 160, 192, 224)


@dataclass(frozen=True)
class Backbone:
    """How to build a network, and what belongs to it."""

    build: Callable[[tuple[int, int, int], str | None], keras.Model]
    """From the input's shape, and None or "imagenet", to a model from normalised pictures to a feature map."""

    normalization: Callable[[], keras.layers.Layer]
    """Makes the layer from RGB 0..255 to what the network expects."""

    imagenet_file: str | None = None
    """Keras Applications' file of ImageNet weights, {size} being one of MOBILENET_SIZES. None: there is none."""


def build_backbone(name: str, image_size: int, weights: str | None = None) -> keras.Model:
    """Build a network without its classifier.

    Args:
        name: a key of `BACKBONES`.
        image_size: side of the square input in pixels.
        weights: None for random weights, "imagenet" for Keras Applications' download, or the path of that very
            file (`is_applications_file`).

    Returns:
        A model called `name`, (B, image_size, image_size, 3) normalised pictures to a (B, h, w, C) feature map.

    Raises:
        ValueError: an unknown name, other weights, or weights that could not be fetched or do not fit.
    """
    backbone = _find(name)
    if weights not in (None, "imagenet") and not is_applications_file(weights):
        raise ValueError(f'`weights` of a backbone must be None, "imagenet" or a Keras .h5. Received: {weights!r}.')
    if weights and not backbone.imagenet_file:
        raise ValueError(
            f"`weights`: {weights} cannot serve the backbone {name!r}, which Keras has no weights for."
        )
    try:
        network = backbone.build((image_size, image_size, 3), weights)
    except Exception as error:  # Keras raises a bare Exception where a download fails
        if weights is None:
            raise
        if weights == "imagenet":
            raise ValueError(_no_imagenet(name, image_size, error)) from error
        reason = str(error).splitlines()[0]
        raise ValueError(f"`weights`: {weights} cannot be loaded into {name} ({reason}).") from error
    network.name = name
    return network


def is_applications_file(weights: str | None) -> bool:
    """Whether a path is a file as Keras Applications publishes: .h5, but not Keras 3's own .weights.h5."""
    return bool(weights) and str(weights).endswith(".h5") and not str(weights).endswith(".weights.h5")


def build_normalization(name: str) -> keras.layers.Layer:
    """The layer, called "normalization", from RGB pixels of 0..255 to what the backbone expects.

    Raises:
        ValueError: an unknown backbone.
    """
    return _find(name).normalization()


def _find(name: str) -> Backbone:
    if name not in BACKBONES:
        nearest = difflib.get_close_matches(name, BACKBONES, n=1, cutoff=0.0)[0]
        raise ValueError(f"There is no backbone {name!r}: did you mean {nearest!r}?")
    return BACKBONES[name]


def _no_imagenet(name: str, image_size: int, error: Exception) -> str:
    size = image_size if image_size in MOBILENET_SIZES else max(MOBILENET_SIZES)
    file = str(BACKBONES[name].imagenet_file).format(size=size)
    folder = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"
    return (
        f"The ImageNet weights of {name} could not be loaded ({error}): put the file {file} into "
        f"{folder}, or set `weights` to its path, to a .keras file's, or to None."
    )


# ---- Normalisations ----------------------------------------------------------------------------------------


def _minus_one_to_one() -> keras.layers.Layer:
    """0..255 to -1..1, as Inception and MobileNet had it."""
    return keras.layers.Rescaling(1 / 127.5, offset=-1.0, name="normalization")


def _facenet() -> keras.layers.Layer:
    """(x - 127.5) / 128, FaceNet's and ours."""
    return keras.layers.Rescaling(1 / 128, offset=-127.5 / 128, name="normalization")


def _caffe() -> keras.layers.Layer:
    """BGR less ImageNet's mean, as the ResNets of Caffe had it."""
    return ChannelNormalization(CAFFE_BGR_MEAN, (1.0, 1.0, 1.0), reverse=True, name="normalization")


def _imagenet() -> keras.layers.Layer:
    """RGB to ImageNet's mean 0 and deviation 1."""
    return ChannelNormalization(IMAGENET_RGB_MEAN, IMAGENET_RGB_STD, name="normalization")


def _dlib() -> keras.layers.Layer:
    """RGB less dlib's mean, divided by 256."""
    return ChannelNormalization(dlib_resnet.MEAN_RGB, (dlib_resnet.DIVISOR,) * 3, name="normalization")


# ---- ResNets (He et al. 2015, https://arxiv.org/abs/1512.03385) ----------------------------------------------


def _small(shape: tuple[int, int, int], _weights: str | None) -> keras.Model:
    """ResNet-10 of 32 to 256 channels, 1.3 M parameters: plain 3 x 3 convolutions, which CPUs are best at.

    Every stage halves the map, the first one too: at 64 pixels the stages work on 16, 8, 4 and 2 cells a side.
    """
    return _resnet(shape, stem=32, stages=((32, 2, 1), (64, 2, 1), (128, 2, 1), (256, 2, 1)))


def _resnet18(shape: tuple[int, int, int], _weights: str | None) -> keras.Model:
    """ResNet-18 of torchvision, 11.2 M parameters, but for the stem: 3 x 3, stride 2, without max pooling.

    A face of 112 pixels thus gets the maps (56, 28, 14, 7 cells a side) that torchvision gives a picture of 224;
    its 7 x 7 stem with pooling would leave 4 cells. A stem of stride 1, usual for faces too, costs four times more.
    """
    return _resnet(shape, stem=64, stages=((64, 1, 2), (128, 2, 2), (256, 2, 2), (512, 2, 2)))


def _resnet(shape: tuple[int, int, int], stem: int, stages: Sequence[tuple[int, int, int]]) -> keras.Model:
    """A stem of stride 2 and stages of (channels, stride, blocks), with torchvision's layer names."""
    image = keras.Input(shape)
    x = _conv(image, stem, 3, "conv1", strides=2)
    x = _relu(_batch_norm(x, "bn1"), "relu")
    for stage, (channels, stride, blocks) in enumerate(stages, start=1):
        for block in range(blocks):
            x = _residual(x, channels, stride if block == 0 else 1, f"layer{stage}.{block}")
    return keras.Model(image, x)


def _residual(x: Any, channels: int, strides: int, name: str) -> Any:
    """Two 3 x 3 convolutions and a shortcut, which is a convolution only where the shape changes."""
    shortcut = x
    if strides > 1 or x.shape[-1] != channels:
        shortcut = _conv(x, channels, 1, f"{name}.downsample.0", strides=strides)
        shortcut = _batch_norm(shortcut, f"{name}.downsample.1")
    x = _batch_norm(_conv(x, channels, 3, f"{name}.conv1", strides=strides), f"{name}.bn1")
    x = _relu(x, f"{name}.relu1")
    x = _batch_norm(_conv(x, channels, 3, f"{name}.conv2"), f"{name}.bn2")
    return _relu(keras.layers.Add(name=f"{name}.add")([x, shortcut]), f"{name}.relu2")


def _conv(
    x: Any, channels: int, kernel: int | tuple[int, int], name: str, strides: int = 1, padding: str = "same"
) -> Any:
    layer = keras.layers.Conv2D(
        channels, kernel, strides, padding, use_bias=False, kernel_initializer="he_normal", name=name
    )
    return layer(x)


def _batch_norm(x: Any, name: str) -> Any:
    return keras.layers.BatchNormalization(**BATCH_NORM, name=name)(x)


def _relu(x: Any, name: str) -> Any:
    return keras.layers.ReLU(name=name)(x)


# ---- FaceNet's Inception-ResNet v1 (Szegedy et al. 2016, https://arxiv.org/abs/1602.07261) -------------------
# The architecture and the layer names are those of facenet-pytorch, whose channels differ from the paper's.


def _inception_resnet_v1(shape: tuple[int, int, int], _weights: str | None) -> keras.Model:
    """facenet-pytorch's InceptionResnetV1 up to `block8`: 1792 channels, 22.6 M parameters."""
    image = keras.Input(shape)
    x = _basic(image, 32, 3, "conv2d_1a", strides=2, padding="valid")
    x = _basic(x, 32, 3, "conv2d_2a", padding="valid")
    x = _basic(x, 64, 3, "conv2d_2b")
    x = keras.layers.MaxPooling2D(3, 2, name="maxpool_3a")(x)
    x = _basic(x, 80, 1, "conv2d_3b")
    x = _basic(x, 192, 3, "conv2d_4a", padding="valid")
    x = _basic(x, 256, 3, "conv2d_4b", strides=2, padding="valid")
    for block in range(5):
        x = _block35(x, f"repeat_1.{block}")
    x = _mixed_6a(x, "mixed_6a")
    for block in range(10):
        x = _block17(x, f"repeat_2.{block}")
    x = _mixed_7a(x, "mixed_7a")
    for block in range(5):
        x = _relu(_block8(x, 0.2, f"repeat_3.{block}"), f"repeat_3.{block}.relu")
    return keras.Model(image, _block8(x, 1.0, "block8"))


def _basic(
    x: Any, channels: int, kernel: int | tuple[int, int], name: str, strides: int = 1, padding: str = "same"
) -> Any:
    """Convolution, batch norm, ReLU."""
    x = _conv(x, channels, kernel, f"{name}.conv", strides, padding)
    return _relu(_batch_norm(x, f"{name}.bn"), f"{name}.relu")


def _block35(x: Any, name: str) -> Any:
    first = _basic(x, 32, 1, f"{name}.branch0")
    second = _basic(x, 32, 1, f"{name}.branch1.0")
    second = _basic(second, 32, 3, f"{name}.branch1.1")
    third = _basic(x, 32, 1, f"{name}.branch2.0")
    third = _basic(third, 32, 3, f"{name}.branch2.1")
    third = _basic(third, 32, 3, f"{name}.branch2.2")
    return _relu(_add_scaled(x, [first, second, third], 0.17, name), f"{name}.relu")


def _block17(x: Any, name: str) -> Any:
    first = _basic(x, 128, 1, f"{name}.branch0")
    second = _basic(x, 128, 1, f"{name}.branch1.0")
    second = _basic(second, 128, (1, 7), f"{name}.branch1.1")
    second = _basic(second, 128, (7, 1), f"{name}.branch1.2")
    return _relu(_add_scaled(x, [first, second], 0.1, name), f"{name}.relu")


def _block8(x: Any, scale: float, name: str) -> Any:
    """The block without its last ReLU, which the network's very last block has not."""
    first = _basic(x, 192, 1, f"{name}.branch0")
    second = _basic(x, 192, 1, f"{name}.branch1.0")
    second = _basic(second, 192, (1, 3), f"{name}.branch1.1")
    second = _basic(second, 192, (3, 1), f"{name}.branch1.2")
    return _add_scaled(x, [first, second], scale, name)


def _add_scaled(x: Any, branches: Sequence[Any], scale: float, name: str) -> Any:
    """X + scale * convolution of the branches. The small scale keeps the deep sum stable (section 3.3)."""
    joined = keras.layers.Concatenate(name=f"{name}.concat")(branches)
    residual = keras.layers.Conv2D(x.shape[-1], 1, name=f"{name}.conv2d")(joined)
    residual = keras.layers.Rescaling(scale, name=f"{name}.scale")(residual)
    return keras.layers.Add(name=f"{name}.add")([x, residual])


def _mixed_6a(x: Any, name: str) -> Any:
    """256 channels to 896 of half the size."""
    first = _basic(x, 384, 3, f"{name}.branch0", strides=2, padding="valid")
    second = _basic(x, 192, 1, f"{name}.branch1.0")
    second = _basic(second, 192, 3, f"{name}.branch1.1")
    second = _basic(second, 256, 3, f"{name}.branch1.2", strides=2, padding="valid")
    pooled = keras.layers.MaxPooling2D(3, 2, name=f"{name}.branch2")(x)
    return keras.layers.Concatenate(name=f"{name}.concat")([first, second, pooled])


def _mixed_7a(x: Any, name: str) -> Any:
    """896 channels to 1792 of half the size."""
    first = _basic(x, 256, 1, f"{name}.branch0.0")
    first = _basic(first, 384, 3, f"{name}.branch0.1", strides=2, padding="valid")
    second = _basic(x, 256, 1, f"{name}.branch1.0")
    second = _basic(second, 256, 3, f"{name}.branch1.1", strides=2, padding="valid")
    third = _basic(x, 256, 1, f"{name}.branch2.0")
    third = _basic(third, 256, 3, f"{name}.branch2.1")
    third = _basic(third, 256, 3, f"{name}.branch2.2", strides=2, padding="valid")
    pooled = keras.layers.MaxPooling2D(3, 2, name=f"{name}.branch3")(x)
    return keras.layers.Concatenate(name=f"{name}.concat")([first, second, third, pooled])


# ---- Keras Applications ------------------------------------------------------------------------------------


def _application(constructor: Callable[..., keras.Model]) -> Callable[..., keras.Model]:
    """The builder of a Keras Applications network."""

    def build(shape: tuple[int, int, int], weights: str | None) -> keras.Model:
        return constructor(include_top=False, weights=weights, input_shape=shape)

    return build


def _efficientnet_b0(shape: tuple[int, int, int], weights: str | None) -> keras.Model:
    """Keras' EfficientNetB0 behind its own normalisation.

    Keras normalises inside, and differently with ImageNet weights than without: a model could not take over the
    other's weights. With `_imagenet` before it, this one equals Keras' ImageNet network.
    """
    network = keras.applications.EfficientNetB0(include_top=False, weights=weights, input_shape=shape)
    return keras.Model(network.get_layer("stem_conv_pad").input, network.output)


BACKBONES: dict[str, Backbone] = {
    "small": Backbone(_small, _facenet),
    "resnet18": Backbone(_resnet18, _facenet),
    "inception_resnet_v1": Backbone(_inception_resnet_v1, _facenet),
    "resnet50": Backbone(
        _application(keras.applications.ResNet50), _caffe, "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    ),
    "inception_v3": Backbone(
        _application(keras.applications.InceptionV3),
        _minus_one_to_one,
        "inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
    "mobilenet_v2": Backbone(
        _application(keras.applications.MobileNetV2),
        _minus_one_to_one,
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_{size}_no_top.h5",
    ),
    dlib_file.NAME: Backbone(dlib_resnet.dlib_resnet29, _dlib),
    "efficientnet_b0": Backbone(_efficientnet_b0, _imagenet, "efficientnetb0_notop.h5"),
}
"""Every network by its name in the settings."""
