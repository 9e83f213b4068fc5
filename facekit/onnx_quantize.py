"""ONNX files in fewer bits: half precision, or 8 bits by the range of real crops."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit.onnx_network import INPUT, quiet_onnxruntime

FEW = 1024
"""Tensors of fewer numbers stay float32: biases and constants, a thousandth of a network."""


def in_float16(model: Any) -> Any:
    """A copy of a model with its weights kept in float16, which are turned to float32 when a session opens.

    Half the size, the same speed, and no sum that overflows: arithmetic stays float32, as LiteRT has it.

    Args:
        model: an `onnx.ModelProto` of `facekit.onnx_network.onnx_model`.
    """
    import onnx

    half = onnx.ModelProto()
    half.CopyFrom(model)
    casts = []
    for tensor in half.graph.initializer:
        if tensor.data_type != onnx.TensorProto.FLOAT or prod(tensor.dims) < FEW:
            continue
        name, values = tensor.name, onnx.numpy_helper.to_array(tensor)
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), f"{name}/float16"))
        casts.append(onnx.helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *half.graph.node]
    del half.graph.node[:]
    half.graph.node.extend(nodes)
    return half


def in_int8(model: Any, samples: NDArray[np.uint8]) -> Any:
    """A model whose convolutions and matrix products are in 8 bits; all else, a cohort's among it, stays float32.

    Weights have a scale a channel and 7 bits: with 8, sums saturate on CPUs without VNNI instructions, and a file
    would give other numbers on another machine (onnxruntime's `reduce_range`).

    Args:
        model: an `onnx.ModelProto` of `facekit.onnx_network.onnx_model`.
        samples: (n, S, S, 3) uint8 crops of real faces, by which the range of each layer is found; a hundred or
            more.

    Raises:
        ValueError: there are no samples.
    """
    import onnx

    quiet_onnxruntime()
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from facekit.cohort import NAME as COHORT

    if not len(samples):
        raise ValueError("`samples`: int8 needs crops of real faces, by which the range of each layer is found.")

    class Samples(quantization.CalibrationDataReader):
        """Gives the samples one by one."""

        def __init__(self) -> None:
            self._waiting = ({INPUT: samples[place : place + 1]} for place in range(len(samples)))

        def get_next(self) -> dict[str, Any] | None:
            return next(self._waiting, None)

    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, plain, found = (Path(folder) / f"{name}.onnx" for name in ("source", "plain", "int8"))
        onnx.save(model, source)
        quant_pre_process(str(source), str(plain), skip_symbolic_shape=True)
        quantization.quantize_static(
            str(plain),
            str(found),
            Samples(),
            op_types_to_quantize=["Conv", "MatMul"],
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[node.name for node in model.graph.node if f"/{COHORT}" in node.name],
            per_channel=True,
            reduce_range=True,
        )
        return onnx.load(found)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep onnxruntime's hints, given through the root logger, off the console."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
