"""A network as an ONNX file: written with tf2onnx, and at work in onnxruntime, without TensorFlow."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from facekit.files import write_bytes

if TYPE_CHECKING:
    import keras

INPUT, OUTPUT = "image", "embedding"

OPSET = 17
"""Version of ONNX's operators: old enough for onnxruntime 1.12 of 2022."""


def write_onnx(
    network: keras.Model,
    path: Path,
    quantize: Literal["float16", "int8"] | None = None,
    samples: NDArray[np.uint8] | None = None,
) -> None:
    """Write an embedding network as one ONNX file, batch norm folded into the convolutions before it.

    The input "image" is (n, S, S, 3) uint8 RGB, the output "embedding" (n, D) float32 unit rows; both for any n. A
    network of mixed precision is written in float32.

    Args:
        network: RGB pictures of 0..255 to unit rows; it normalises its input itself.
        path: the file, written whole or not at all.
        quantize: "float16" or "int8" (`facekit.onnx_quantize`); None: float32.
        samples: (n, S, S, 3) uint8 crops of real faces whose range "int8" is made for; a hundred or more.

    Raises:
        ValueError: the network has an operation that ONNX has no word for; "int8" without samples.
        OSError: the file cannot be written.
    """
    from facekit.onnx_quantize import in_float16, in_int8

    model = onnx_model(network)
    if quantize == "float16":
        model = in_float16(model)
    if quantize == "int8":
        side = network.input_shape[1]
        model = in_int8(model, np.empty((0, side, side, 3), np.uint8) if samples is None else samples)
    write_bytes(path, model.SerializeToString())


def onnx_model(network: keras.Model) -> Any:
    """The `onnx.ModelProto` that `write_onnx` writes."""
    import tensorflow as tf
    import tf2onnx

    network = in_float32(network)
    side = network.input_shape[1]
    signature = [tf.TensorSpec((None, side, side, 3), tf.uint8, name=INPUT)]
    embed = tf.function(lambda image: network(image, training=False), input_signature=signature)
    model, _ = tf2onnx.convert.from_function(embed, input_signature=signature, opset=OPSET)
    _name_output(model)
    return model


def in_float32(network: keras.Model) -> keras.Model:
    """The network itself, or where a layer computes in another precision, a float32 copy on the same weights."""
    import keras

    from facekit.layers import all_layers

    if all(layer.compute_dtype == "float32" for layer in all_layers(network)):
        return network

    def plain(layer: keras.layers.Layer) -> keras.layers.Layer:
        return type(layer).from_config(layer.get_config() | {"dtype": "float32"})

    copy = keras.models.clone_model(network, clone_function=plain, recursive=True)
    copy.set_weights(network.get_weights())
    return copy


def _name_output(model: Any) -> None:
    """Call the one output "embedding" of (n, D), and the input's first axis n too."""
    graph = model.graph
    old = graph.output[0].name
    for node in graph.node:
        for names in (node.input, node.output):
            for place, name in enumerate(names):
                if name == old:
                    names[place] = OUTPUT
    graph.output[0].name = OUTPUT
    for value in (graph.input[0], graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "n"


class OnnxEmbedder:
    """Embeds pictures with an ONNX file on the CPU, as `facekit.trainer.Embedder` does with a Keras network.

    Args:
        path: a file of `write_onnx`.
        batch_size: pictures at once; bounds memory.
        threads: threads to compute on. None: one for each core.

    Attributes:
        side: side of the pictures in pixels.
        width: numbers in an embedding.

    Raises:
        ValueError: the file is missing, damaged, or of another kind; in one sentence.
    """

    def __init__(self, path: Path, batch_size: int = 64, threads: int | None = None):
        self._size = batch_size
        self._session = _session(path, threads)
        self.side, self.width = _sizes(self._session, path)

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed (n, S, S, 3) uint8 RGB pictures: (n, D) float32 unit rows.

        Raises:
            ValueError: pictures of another shape or kind.
        """
        check_images(images, self.side)
        starts = range(0, len(images), self._size)
        batches = [self._session.run([OUTPUT], {INPUT: images[start : start + self._size]})[0] for start in starts]
        return np.concatenate(batches) if batches else np.empty((0, self.width), np.float32)


def check_images(images: NDArray[np.uint8], side: int) -> None:
    """Refuse pictures that are not (n, side, side, 3) uint8.

    Raises:
        ValueError: says what was received.
    """
    if images.dtype != np.uint8 or images.shape[1:] != (side, side, 3):
        raise ValueError(
            f"Pictures must be (n, {side}, {side}, 3) uint8 in RGB. Received: {images.dtype} {images.shape}."
        )


def quiet_onnxruntime() -> Any:
    """The package onnxruntime, which keeps no identifier of this computer and sends nothing to its makers.

    Its releases do both from the moment they are imported, unless ORT_DISABLE_TELEMETRY is set by then
    (github.com/microsoft/onnxruntime/pull/27379): `disable_telemetry_events` comes too late. A value that is set
    already stays.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def _session(path: Path, threads: int | None) -> Any:
    onnxruntime = quiet_onnxruntime()
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what is wrong is said by the exception
    # Its threads would wait for the next call in a busy loop, and take a core from the search for faces meanwhile.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors share no class but this one
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path}: is damaged, or no ONNX file ({reason}).") from None


def _sizes(session: Any, path: Path) -> tuple[int, int]:
    """Side and width by the file's own words."""
    inputs = [(value.name, value.type, value.shape[1:]) for value in session.get_inputs()]
    outputs = [(value.name, value.type, len(value.shape)) for value in session.get_outputs()]
    if len(inputs) == 1 and outputs == [(OUTPUT, "tensor(float)", 2)]:
        name, kind, shape = inputs[0]
        width = session.get_outputs()[0].shape[1]
        if (name, kind) == (INPUT, "tensor(uint8)") and shape == [shape[0], shape[0], 3] and isinstance(width, int):
            return int(shape[0]), width
    raise ValueError(
        f"{path}: is an ONNX file of another kind (an embedding network takes `{INPUT}` (n, S, S, 3) uint8 and "
        f"gives `{OUTPUT}` (n, D) float32)."
    )
