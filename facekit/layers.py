"""Layers of our own, registered under the package name "tupletface" so that saved models find them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import keras

# Squared length below which a row counts as zero. An untrained MobileNetV2 gives rows of 1e-11: well above.
ZERO_SQUARED = 1e-30


@keras.saving.register_keras_serializable(package="tupletface")
class UnitNorm(keras.layers.Layer):
    """Scale each row to length 1.

    A row shorter than 1e-15 passes unchanged, its gradient too: a zero row stays zero, without the infinite or
    enormous gradient (1e12 in `keras.layers.UnitNormalization`) that the norm has there.

    Call: (..., D) float32 to the same shape and dtype.
    """

    def call(self, inputs: Any) -> Any:
        """Normalise a batch."""
        squared = keras.ops.sum(keras.ops.square(inputs), axis=-1, keepdims=True)
        # The replaced value, not only the result, must be harmless: a gradient flows through both branches.
        return inputs * keras.ops.rsqrt(keras.ops.where(squared < ZERO_SQUARED, 1.0, squared))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape."""
        return input_shape


@keras.saving.register_keras_serializable(package="tupletface")
class ChannelNormalization(keras.layers.Layer):
    """Subtract a mean and divide by a deviation, channel by channel, after turning RGB into BGR where asked.

    Args:
        mean: one number a channel, in the order after the turn.
        std: one number a channel, above 0.
        reverse: turn the channels' order first.

    Call: (..., C) floating point to the same shape and dtype.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], reverse: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.reverse = reverse

    def call(self, inputs: Any) -> Any:
        """Normalise a batch."""
        ordered = keras.ops.flip(inputs, axis=-1) if self.reverse else inputs
        mean = keras.ops.convert_to_tensor(self.mean, dtype=inputs.dtype)
        std = keras.ops.convert_to_tensor(self.std, dtype=inputs.dtype)
        return (ordered - mean) / std

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """The arguments, for saving."""
        return super().get_config() | {"mean": self.mean, "std": self.std, "reverse": self.reverse}


def freeze(network: keras.Model, names: Sequence[str], batch_norm: bool = False) -> None:
    """Freeze the layers of these names, and thaw all others.

    Args:
        network: its layers, and those of networks inside it.
        names: whole names or their beginnings, in which * stands for anything; a network's name stands for all of
            it. Frozen batch norm keeps and uses its moving statistics.
        batch_norm: freeze all batch norm of networks inside it too; that of the network itself, its embedding
            head's, learns on.

    Raises:
        ValueError: no layer's name begins so, or nothing is left to train.
    """
    layers = list(all_layers(network))
    for layer in (network, *layers):
        layer.trainable = True
    for name in names:
        found = [layer for layer in layers if fnmatchcase(layer.name, f"{name}*")]
        if not found:
            outer = ", ".join(layer.name for layer in network.layers if layer.weights)
            raise ValueError(f"`freeze`: no layer's name begins with {name!r}. The outer ones are {outer}.")
        for layer in found:
            layer.trainable = False
    head = {id(layer) for layer in network.layers}
    for layer in layers if batch_norm else ():
        if isinstance(layer, keras.layers.BatchNormalization) and id(layer) not in head:
            layer.trainable = False
    if not network.trainable_weights:
        raise ValueError(f"`freeze`: {', '.join(names)} leaves nothing to train.")


def all_layers(network: keras.Model) -> Iterator[keras.layers.Layer]:
    """A network's layers, and those of networks inside it."""
    for layer in network.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from all_layers(layer)
