"""A network as a LiteRT (.tflite) file, for phones and small computers: written, and at work without TensorFlow."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from facekit.files import write_bytes
from facekit.onnx_network import INPUT, OUTPUT, check_images

if TYPE_CHECKING:
    import keras

Quantize = Literal["float16", "int8"]

SIGNATURE = "serving_default"
IDENTIFIER = b"TFL3"
"""What bytes 4 to 8 of every .tflite file are."""


def write_litert(
    network: keras.Model,
    path: Path,
    quantize: Quantize | None = None,
    samples: NDArray[np.uint8] | None = None,
) -> None:
    """Write an embedding network as one .tflite file.

    Its input "image" is (n, S, S, 3) uint8 RGB, its output "embedding" (n, D) float32 unit rows, whatever is
    quantised inside; both for any n.

    Args:
        network: RGB pictures of 0..255 to unit rows; it normalises its input itself.
        path: the file, written whole or not at all.
        quantize: "float16" keeps weights in half precision; "int8" weights, channel by channel, and what flows
            between layers in 8 bits; what scales rows to length 1, and a cohort behind it, stays float32. None:
            float32.
        samples: (n, S, S, 3) uint8 crops of real faces whose range "int8" is made for; a hundred or more.

    Raises:
        ValueError: "int8" without samples.
        OSError: the file cannot be written.
    """
    import tensorflow as tf

    from facekit.cohort import CohortNorm
    from facekit.layers import UnitNorm
    from facekit.onnx_network import in_float32
    from facekit.runtime import stderr_silenced
    from facekit.saved_model import serving_module

    if quantize == "int8" and (samples is None or not len(samples)):
        raise ValueError("`samples`: int8 needs crops of real faces, by which the range of each layer is found.")
    module, embed = serving_module(in_float32(network))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([embed], module)
    again = tf.lite.TFLiteConverter.from_concrete_functions([embed], module)  # each converts once
    if quantize == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    with stderr_silenced():
        data = converter.convert()
        if quantize == "int8":
            last = [layer.name for layer in network.layers if isinstance(layer, (UnitNorm, CohortNorm))]
            data = _in_int8(again, data, last, samples)
    write_bytes(path, data)


def _in_int8(converter: Any, plain: bytes, last: Sequence[str], samples: NDArray[np.uint8] | None) -> bytes:
    """The network in 8 bits but for its last layers: lengths of 1 are lost in them.

    Args:
        converter: of the network, unused so far.
        plain: the float32 file, which names what the last layers compute.
        last: those layers' names.
        samples: (n, S, S, 3) uint8.
    """
    import tensorflow as tf

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TensorFlow's own tool uses the interpreter that it warns of
        interpreter = tf.lite.Interpreter(model_content=plain)
        every = [tensor["name"] for tensor in interpreter.get_tensor_details()]
        names = [name for name in every if any(f"/{layer}" in name for layer in last)]
        names += [tensor["name"] for tensor in interpreter.get_output_details()]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: _one_by_one(samples)
        # The converter itself has no setting that leaves operations out.
        tool = tf.lite.experimental.QuantizationDebugger(
            converter=converter,
            debug_dataset=lambda: iter([]),
            debug_options=tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=names),
        )
        return tool.get_nondebug_quantized_model()


def _one_by_one(samples: NDArray[np.uint8] | None) -> Iterator[list[NDArray[np.uint8]]]:
    assert samples is not None
    for place in range(len(samples)):
        yield [samples[place : place + 1]]


class LiteRTEmbedder:
    """Embeds pictures with a .tflite file on the CPU, as `facekit.trainer.Embedder` does with a Keras network.

    Args:
        path: a file of `write_litert`.
        batch_size: pictures at once; bounds memory.
        threads: threads to compute on. None: LiteRT's own choice, one.

    Attributes:
        side: side of the pictures in pixels.
        width: numbers in an embedding.

    Raises:
        ValueError: ai-edge-litert is not installed; the file is missing, damaged or of another kind.
    """

    def __init__(self, path: Path, batch_size: int = 64, threads: int | None = None):
        self._size = batch_size
        self._interpreter = _interpreter(path, threads)
        self._input, self._output = _ends(self._interpreter, path)
        self.side, self.width = int(self._input["shape"][1]), int(self._output["shape_signature"][1])
        self._count = 0

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed (n, S, S, 3) uint8 RGB pictures: (n, D) float32 unit rows.

        Raises:
            ValueError: pictures of another shape or kind.
        """
        check_images(images, self.side)
        starts = range(0, len(images), self._size)
        batches = [self._embed(images[start : start + self._size]) for start in starts]
        return np.concatenate(batches) if batches else np.empty((0, self.width), np.float32)

    def _embed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        if len(images) != self._count:
            self._interpreter.resize_tensor_input(self._input["index"], images.shape)
            self._interpreter.allocate_tensors()
            self._count = len(images)
        self._interpreter.set_tensor(self._input["index"], np.ascontiguousarray(images))
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output["index"])


def _interpreter(path: Path, threads: int | None) -> Any:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise ValueError("LiteRT files need ai-edge-litert: pip install 'ai-edge-litert>=2,<3'") from None

    if not path.is_file():
        raise ValueError(f"{path}: there is no such file.")
    data = path.read_bytes()
    try:
        if data[4:8] != IDENTIFIER:
            raise ValueError("its first bytes are another kind's")
        interpreter = Interpreter(model_content=data, num_threads=threads)
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"{path}: is damaged, or no LiteRT file ({str(error).splitlines()[0]}).") from None
    return interpreter


def _ends(interpreter: Any, path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the interpreter says of the file's input and output."""
    signature = interpreter.get_signature_list().get(SIGNATURE)
    if signature == {"inputs": [INPUT], "outputs": [OUTPUT]}:
        given, gives = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        shape = list(given["shape_signature"])
        uint8, float32 = given["dtype"] == np.uint8, gives["dtype"] == np.float32
        if uint8 and float32 and len(shape) == 4 and shape[1:] == [shape[1], shape[1], 3]:
            return given, gives
    raise ValueError(
        f"{path}: is a LiteRT file of another kind (an embedding network takes `{INPUT}` (n, S, S, 3) uint8 and "
        f"gives `{OUTPUT}` (n, D) float32)."
    )
