"""MTCNN's three networks as matrix products on one thread of a CPU.

Activations are (channels, rows, columns) of one picture, or (channels, rows, columns, crops): with the longest axis
last every step runs over long stretches of memory. The networks are so small that a framework's start costs more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from facekit.mtcnn_weights import Weights, read_weights

Floats = NDArray[np.float32]

CELL, STRIDE = 12, 2
"""P-Net looks at squares of 12 pixels, one every 2."""


@dataclass(frozen=True)
class Layer:
    """A matrix product, a bias and PReLU.

    Attributes:
        weights: (out, in) float32; of a convolution `in` is kernel row, kernel column, channel.
        bias: (out, 1) float32.
        slopes: (out, 1) float32, PReLU's below 0; None: linear.
        side: of the convolution's square kernel.
    """

    weights: Floats
    bias: Floats
    slopes: Floats | None = None
    side: int = 1

    def __call__(self, values: Floats) -> Floats:
        """The layer on (channels, rows, columns, ...): a convolution without padding."""
        size, (rows, columns) = self.side, (side - self.side + 1 for side in values.shape[1:3])
        patches = np.empty((size, size, len(values), rows, columns, *values.shape[3:]), np.float32)
        for row in range(size):
            for column in range(size):
                patches[row, column] = values[:, row : row + rows, column : column + columns]
        product = self.dense(patches.reshape(self.weights.shape[1], -1))
        return product.reshape(-1, rows, columns, *values.shape[3:])

    def dense(self, values: Floats) -> Floats:
        """The layer on (in, n): a column for each sample."""
        product = self.weights @ values
        product += self.bias
        if self.slopes is None:
            return product
        bent = product * self.slopes
        # The greater of the two; where the slope exceeds 1, the lesser.
        for channel in np.flatnonzero(self.slopes > 1):
            np.minimum(product[channel], bent[channel], out=bent[channel])
            product[channel] = bent[channel]
        return np.maximum(product, bent, out=bent)


def max_pool(values: Floats, size: int) -> Floats:
    """Maximum over windows of `size` at every second place; the last one may be cut by the edge."""
    return _pool_axis(_pool_axis(values, size, 1), size, 2)


def _pool_axis(values: Floats, size: int, axis: int) -> Floats:
    count = -(-(values.shape[axis] - size) // 2) + 1
    before = (slice(None),) * axis
    highest = values[(*before, slice(0, 2 * count - 1, 2))].copy()
    for offset in range(1, size):
        other = values[(*before, slice(offset, offset + 2 * count - 1, 2))]
        there = highest[(*before, slice(0, other.shape[axis]))]
        np.maximum(there, other, out=there)
    return highest


def _convolution(kernel: Floats, bias: Floats, slopes: Floats) -> Layer:
    weights = np.ascontiguousarray(kernel.reshape(-1, kernel.shape[-1]).T)
    return Layer(weights, bias[:, None], slopes.reshape(-1, 1), kernel.shape[0])


def _convolutions(weights: Weights) -> list[Layer]:
    return [_convolution(*weights[start : start + 3]) for start in range(0, len(weights), 3)]


def _dense(kernel: Floats, bias: Floats, slopes: Floats | None = None) -> Layer:
    return Layer(np.ascontiguousarray(kernel.T), bias[:, None], None if slopes is None else slopes.reshape(-1, 1))


def _flattened(side: int, kernel: Floats, bias: Floats, slopes: Floats) -> Layer:
    """A dense layer on a (channels, side, side) picture, whose inputs the package has columns first."""
    by_place = kernel.reshape(side, side, -1, kernel.shape[-1])
    return _dense(by_place.transpose(2, 1, 0, 3).reshape(kernel.shape), bias, slopes)


def _face_score(kernel: Floats, bias: Floats) -> Layer:
    """The difference of the two classes' logits: all that their softmax depends on."""
    return _dense(kernel[..., 1:] - kernel[..., :1], bias[1:] - bias[:1])


def _probability(logits: Floats) -> Floats:
    """Softmax of two classes, of the difference of their logits."""
    with np.errstate(over="ignore"):
        return np.reciprocal(1 + np.exp(-logits))


class Cells(NamedTuple):
    """The squares that P-Net takes for faces, in the order of rows."""

    rows: NDArray[np.intp]
    """(n,) in steps of `STRIDE` pixels."""

    columns: NDArray[np.intp]
    """(n,) in steps of `STRIDE` pixels."""

    scores: Floats
    """(n,) 0 to 1."""

    offsets: Floats
    """(n, 4) of left, top, right and bottom, in sides of the square."""


class ProposalNetwork:
    """P-Net: every square of 12 pixels of a picture, at a stride of 2."""

    def __init__(self) -> None:
        *features, kernel, bias, face_kernel, face_bias = read_weights("pnet")
        self._first, *self._rest = _convolutions(features)
        self._offsets = _dense(kernel[0, 0], bias)
        self._score = _face_score(face_kernel[0, 0], face_bias)

    def __call__(self, picture: Floats, threshold: float) -> Cells:
        """The squares above the threshold.

        Args:
            picture: (3, H, W), -1 to 1, no side below 12.
            threshold: of the score.
        """
        values = max_pool(self._first(picture), 2)
        for layer in self._rest:
            values = layer(values)
        logits = self._score.dense(values.reshape(len(values), -1)).reshape(values.shape[1:])
        rows, columns = np.nonzero(logits > math.log(threshold / (1 - threshold)))
        offsets = self._offsets.dense(values[:, rows, columns])
        return Cells(rows, columns, _probability(logits[rows, columns]), offsets.T)


class RefinementNetwork:
    """R-Net: is it a face, and where is its box?"""

    side = 24

    def __init__(self) -> None:
        *features, kernel, bias, face_kernel, face_bias = read_weights("rnet")
        self._first, self._second, self._third = _convolutions(features[:9])
        self._dense = _flattened(3, *features[9:])
        self._offsets = _dense(kernel, bias)
        self._score = _face_score(face_kernel, face_bias)

    def __call__(self, crops: Floats) -> tuple[Floats, Floats]:
        """Scores (n,) 0 to 1 and offsets (n, 4) in sides of the crop, of (3, 24, 24, n) crops, -1 to 1."""
        values = max_pool(self._first(crops), 3)
        values = max_pool(self._second(values), 3)
        values = self._third(values)
        values = self._dense.dense(values.reshape(-1, crops.shape[-1]))
        return _probability(self._score.dense(values)[0]), self._offsets.dense(values).T


class OutputNetwork:
    """O-Net: is it a face, where is its box, and where are its five points?"""

    side = 48

    def __init__(self) -> None:
        *features, kernel, bias, points_kernel, points_bias, face_kernel, face_bias = read_weights("onet")
        self._first, self._second, self._third, self._fourth = _convolutions(features[:12])
        self._dense = _flattened(3, *features[12:])
        self._offsets = _dense(kernel, bias)
        self._points = _dense(points_kernel, points_bias)
        self._score = _face_score(face_kernel, face_bias)

    def __call__(self, crops: Floats) -> tuple[Floats, Floats, Floats]:
        """As R-Net, of (3, 48, 48, n) crops; third the points (n, 2, 5), x before y, in sides of the crop."""
        values = max_pool(self._first(crops), 3)
        values = max_pool(self._second(values), 3)
        values = max_pool(self._third(values), 2)
        values = self._fourth(values)
        values = self._dense.dense(values.reshape(-1, crops.shape[-1]))
        points = self._points.dense(values).T.reshape(-1, 2, 5)
        return _probability(self._score.dense(values)[0]), self._offsets.dense(values).T, points
