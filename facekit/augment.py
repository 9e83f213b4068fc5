"""Random changes to training pictures: each picture its own draw, each step a probability and a strength."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any

import tensorflow as tf

Tensor = Any

# A number per random decision keeps the draws of one picture independent of each other.
(_FLIP, _TURN, _ANGLE, _BRIGHTEN, _SHIFT, _CONTRAST, _FACTOR, _CUT, _ROW, _COLUMN) = range(10)


@dataclass(frozen=True)
class Augmentation:
    """A function for `tf.data.Dataset.map`: uint8 pictures and a seed in, changed float32 pictures out.

    The same pictures and seed give the same result, eager or in a graph. Probabilities are 0 to 1 and per
    picture; see `config.AugmentConfig` for what each strength means.
    """

    flip_probability: float = 0.5
    rotation_probability: float = 0.5
    rotation_degrees: float = 10.0
    brightness_probability: float = 0.5
    brightness_delta: float = 0.2
    contrast_probability: float = 0.5
    contrast_delta: float = 0.2
    cutout_probability: float = 0.25
    cutout_size: float = 0.3

    def __call__(self, images: Tensor, seed: Tensor) -> Tensor:
        """Change each picture.

        Args:
            images: (n, H, W, 3), uint8 or float, 0..255.
            seed: (2,) int.

        Returns:
            (n, H, W, 3) float32, 0..255.
        """
        images = tf.cast(images, tf.float32)
        draws = _Draws(tf.cast(seed, tf.int64), tf.shape(images)[0])
        images = self._flip_and_rotate(images, draws)
        images = self._contrast(images, draws)
        images = self._brightness(images, draws)
        images = tf.clip_by_value(images, 0.0, 255.0)
        return self._cutout(images, draws)

    def _flip_and_rotate(self, images: Tensor, draws: _Draws) -> Tensor:
        """Both in one warp, about the centre; what comes in from outside mirrors the border."""
        mirror = tf.where(draws.happens(_FLIP, self.flip_probability), -1.0, 1.0)
        turned = draws.happens(_TURN, self.rotation_probability)
        limit = self.rotation_degrees * pi / 180
        angle = tf.where(turned, draws.uniform(_ANGLE, -limit, limit), 0.0)
        cosine, sine, zero = tf.cos(angle), tf.sin(angle), tf.zeros_like(angle)
        x0 = (tf.cast(tf.shape(images)[2], tf.float32) - 1) / 2
        y0 = (tf.cast(tf.shape(images)[1], tf.float32) - 1) / 2
        # Output pixel -> input pixel: centre + R (p - centre), x mirrored first.
        a0, a1, b0, b1 = cosine * mirror, -sine, sine * mirror, cosine
        transforms = tf.stack([a0, a1, x0 - a0 * x0 - a1 * y0, b0, b1, y0 - b0 * x0 - b1 * y0, zero, zero], axis=1)
        return tf.raw_ops.ImageProjectiveTransformV3(
            images=images,
            transforms=transforms,
            output_shape=tf.shape(images)[1:3],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="REFLECT",
        )

    def _contrast(self, images: Tensor, draws: _Draws) -> Tensor:
        factor = draws.uniform(_FACTOR, 1 - self.contrast_delta, 1 + self.contrast_delta)
        factor = tf.where(draws.happens(_CONTRAST, self.contrast_probability), factor, 1.0)[:, None, None, None]
        mean = tf.reduce_mean(images, axis=(1, 2, 3), keepdims=True)
        return mean + (images - mean) * factor

    def _brightness(self, images: Tensor, draws: _Draws) -> Tensor:
        limit = 255 * self.brightness_delta
        shift = draws.uniform(_SHIFT, -limit, limit)
        shift = tf.where(draws.happens(_BRIGHTEN, self.brightness_probability), shift, 0.0)
        return images + shift[:, None, None, None]

    def _cutout(self, images: Tensor, draws: _Draws) -> Tensor:
        """Hide a square, centred anywhere in the picture, under mid-grey."""
        height, width = tf.shape(images)[1], tf.shape(images)[2]
        hidden = tf.ones_like(images[:, :, :, :1], tf.bool)
        for draw, length, shape in ((_ROW, height, (1, -1, 1, 1)), (_COLUMN, width, (1, 1, -1, 1))):
            length = tf.cast(length, tf.float32)
            centre = draws.uniform(draw, 0.0, 1.0)[:, None, None, None] * length
            place = tf.reshape(tf.range(length) + 0.5, shape)
            hidden &= tf.abs(place - centre) < self.cutout_size * length / 2
        hidden &= draws.happens(_CUT, self.cutout_probability)[:, None, None, None]
        return tf.where(hidden, 127.5, images)


class _Draws:
    """Random numbers for n pictures, one vector for each decision."""

    def __init__(self, seed: Tensor, count: Tensor):
        self._seed, self._count = seed, count

    def uniform(self, decision: int, low: float, high: float) -> Tensor:
        seed = tf.stack([self._seed[0], self._seed[1] * 16 + decision])
        unit = tf.random.stateless_uniform((self._count,), seed)
        return low + (high - low) * unit

    def happens(self, decision: int, probability: float) -> Tensor:
        return self.uniform(decision, 0.0, 1.0) < probability
