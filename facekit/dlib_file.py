"""Read dlib's face recognition network from the file that dlib wrote, in NumPy alone.

The format is dlib's `serialize` of a `loss_metric` network (dlib.net, dnn_face_recognition_ex.cpp): tagged
integers, floats of integers, tensors of raw float32. Nothing in it is executed. Every byte must be understood.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

NAME = "dlib_resnet29"
"""What the settings call the network."""

SIDE, WIDTH = 150, 128
"""Side in pixels of the pictures that the published weights know, and the size of their embedding."""

LAYERS = {
    "con": 29, "affine": 29, "relu": 29, "add_prev": 14, "avg_pool": 5, "max_pool": 1, "fc": 1,
}  # fmt: skip
"""How many layers of each kind the network has."""

PARAMETERS = 5_614_592
"""Learned numbers of the network, biases and affine layers included."""

# Layers by their versions in the file's preamble: 2 is a layer, 1 a tag or skip, 3 the innermost one.
_VERSIONS = 130
_SPECIAL = {32000: float("inf"), 32001: float("-inf"), 32002: float("nan")}


@dataclass(frozen=True)
class DlibNetwork:
    """What the file holds.

    Attributes:
        mean: (3,) mean RGB, 0..255, which is subtracted from pictures.
        size: side of the pictures in pixels.
        convolutions: kernel (h, w, in, out) and bias (out,) of each, in forward order.
        affines: scale and shift, (channels,) each, which stand where training had batch norm; forward order.
        dense: (256, 128) the embedding layer, without bias.
    """

    mean: Array
    size: int
    convolutions: list[tuple[Array, Array]]
    affines: list[tuple[Array, Array]]
    dense: Array


def read_dlib(path: Path) -> DlibNetwork:
    """Read `dlib_face_recognition_resnet_model_v1.dat`.

    Raises:
        ValueError: it cannot be read, or is not that network; in one sentence naming the file.
    """
    try:
        return _read_network(_Reader(path.read_bytes()))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from None
    except (ValueError, IndexError) as error:
        raise ValueError(f"{path}: is not dlib's face recognition network ({error}).") from None


class _Reader:
    """The primitives of dlib's format, read one after the other."""

    def __init__(self, data: bytes):
        self._data, self._place = data, 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if self._place + count > len(self._data):
            raise ValueError(f"it ends after {len(self._data):,} bytes")
        part = self._data[self._place : self._place + count]
        self._place += count
        return part

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._place

    def integer(self) -> int:
        """A control byte (sign, and how many bytes follow), then the magnitude, little-endian."""
        control = self.take(1)[0]
        if not 1 <= control & 0x0F <= 8 or control & 0x70:
            raise ValueError(f"byte {self._place - 1:,} is no integer's")
        value = int.from_bytes(self.take(control & 0x0F), "little")
        return -value if control & 0x80 else value

    def integers(self, count: int) -> list[int]:
        """Several integers."""
        return [self.integer() for _ in range(count)]

    def number(self) -> float:
        """Mantissa and binary exponent, an integer each."""
        mantissa, exponent = self.integers(2)
        return _SPECIAL[exponent] if exponent in _SPECIAL else float(mantissa) * 2.0**exponent

    def text(self) -> str:
        """A length, then as many bytes."""
        return self.take(self.integer()).decode("latin-1")

    def boolean(self) -> bool:
        """One digit, 0 or 1."""
        digit = self.take(1)
        if digit not in (b"0", b"1"):
            raise ValueError(f"byte {self._place - 1:,} is no truth value")
        return digit == b"1"

    def tensor(self) -> Array:
        """Version 2, four dimensions, raw float32."""
        self.expect(2, "a tensor's version")
        shape = self.integers(4)
        if min(shape) < 0:
            raise ValueError(f"a tensor of shape {shape}")
        raw = self.take(4 * int(np.prod(shape)))
        return np.frombuffer(raw, "<f4").astype(np.float32).reshape(shape)

    def alias(self) -> list[int]:
        """The shape of a part of another tensor: version 1, four dimensions, no data."""
        self.expect(1, "an alias tensor's version")
        return self.integers(4)

    def expect(self, value: int, what: str) -> None:
        """Read an integer that can only be this one."""
        if (found := self.integer()) != value:
            raise ValueError(f"{what} is {found}, not {value}")


def _read_network(reader: _Reader) -> DlibNetwork:
    reader.expect(1, "the file's version")
    if (name := reader.text()) != "loss_metric_2":
        raise ValueError(f"its loss is {name!r}")
    reader.number(), reader.number()  # the loss' margin and threshold
    versions = reader.integers(_VERSIONS)
    if Counter(versions) != Counter({2: 107, 1: 22, 3: 1}):
        raise ValueError("its layers are others")
    if (name := reader.text()) != "input_rgb_image_sized":
        raise ValueError(f"its input is {name!r}")
    mean = np.array([reader.number() for _ in range(3)], np.float32)
    height, width = reader.integers(2)
    details = list(_read_details(reader, sum(version != 1 for version in versions)))
    if reader.left:
        raise ValueError(f"{reader.left:,} bytes are left over")
    return _assemble(mean, height, width, details)


def _read_details(reader: _Reader, count: int) -> Iterator[tuple[str, Any]]:
    """Kind and parameters of each layer, innermost first, which is forward order."""
    for position in range(count):
        name = reader.text()
        kind = name.rstrip("0123456789").rstrip("_")
        if kind not in _PAYLOADS:
            raise ValueError(f"layer {position + 1} is of the unknown kind {name!r}")
        yield kind, _PAYLOADS[kind](reader, name)
        # What each layer keeps beside its details: three flags and three tensors, all empty here.
        for _ in range(3):
            reader.boolean()
        if any(reader.tensor().size for _ in range(3)):
            raise ValueError(f"layer {position + 1} holds a state")
        if position == 0:
            reader.integer()


def _convolution(reader: _Reader, name: str) -> tuple[Array, Array]:
    flat = reader.tensor().ravel()
    filters, rows, columns, *_strides_and_padding = reader.integers(7)
    kernel, bias = reader.alias(), reader.alias()
    for _ in range(4):  # learning rates and weight decays
        reader.number()
    for _ in range({"con_4": 0, "con_5": 1, "con_6": 2}[name]):
        reader.boolean()
    if kernel[0] != filters or kernel[2:] != [rows, columns] or flat.size != np.prod(kernel) + np.prod(bias):
        raise ValueError(f"a convolution's {flat.size:,} numbers do not fit {kernel} and {bias}")
    weights = flat[: int(np.prod(kernel))].reshape(kernel).transpose(2, 3, 1, 0)
    return np.ascontiguousarray(weights), flat[int(np.prod(kernel)) :]


def _affine(reader: _Reader, _name: str) -> tuple[Array, Array]:
    flat = reader.tensor().ravel()
    gamma, beta = reader.alias(), reader.alias()
    reader.integer()
    if flat.size != np.prod(gamma) + np.prod(beta) or np.prod(gamma) != np.prod(beta):
        raise ValueError(f"an affine layer's {flat.size:,} numbers do not fit {gamma} and {beta}")
    return flat[: flat.size // 2], flat[flat.size // 2 :]


def _dense(reader: _Reader, _name: str) -> Array:
    outputs, inputs = reader.integers(2)
    weights = reader.tensor()
    reader.alias(), reader.alias(), reader.integer()
    for _ in range(4):
        reader.number()
    if weights.size != inputs * outputs:
        raise ValueError(f"the embedding layer's {weights.size:,} numbers are not {inputs} x {outputs}")
    return weights.reshape(inputs, outputs)


def _pool(reader: _Reader, _name: str) -> list[int]:
    return reader.integers(6)


def _nothing(_reader: _Reader, _name: str) -> None:
    return None


_PAYLOADS = {
    "con": _convolution,
    "affine": _affine,
    "fc": _dense,
    "max_pool": _pool,
    "avg_pool": _pool,
    "relu": _nothing,
    "add_prev": _nothing,
}


def _assemble(mean: Array, height: int, width: int, details: list[tuple[str, Any]]) -> DlibNetwork:
    if (found := Counter(kind for kind, _ in details)) != Counter(LAYERS):
        raise ValueError(f"its layers are {dict(found)}")
    of = {kind: [payload for name, payload in details if name == kind] for kind in ("con", "affine", "fc")}
    network = DlibNetwork(mean, height, of["con"], of["affine"], of["fc"][0])
    pairs = [*network.convolutions, *network.affines]
    count = network.dense.size + sum(one.size + other.size for one, other in pairs)
    if count != PARAMETERS or height != width:
        raise ValueError(f"it holds {count:,} parameters at {height} x {width}, not {PARAMETERS:,}")
    return network
