"""A network as TensorFlow's SavedModel: one folder that TensorFlow, TF Serving and its converters read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facekit.onnx_network import INPUT, OUTPUT, check_images, in_float32

if TYPE_CHECKING:
    import keras

SIGNATURE = "serving_default"


def write_saved_model(network: keras.Model, folder: Path) -> None:
    """Write an embedding network as a SavedModel folder, in float32.

    Its signature "serving_default" takes "image", (n, S, S, 3) uint8 RGB, and gives "embedding", (n, D) float32
    unit rows.

    Args:
        network: RGB pictures of 0..255 to unit rows; it normalises its input itself.
        folder: the folder to make; what it holds is written over.

    Raises:
        OSError: it cannot be written.
    """
    import tensorflow as tf

    module, embed = serving_module(in_float32(network))
    tf.saved_model.save(module, str(folder), signatures={SIGNATURE: embed})


def serving_module(network: keras.Model) -> tuple[Any, Any]:
    """A `tf.Module` that owns the network's weights, and the concrete function from "image" to "embedding"."""
    import tensorflow as tf

    side = network.input_shape[1]
    module = tf.Module()
    module.weights = [weight.value for weight in network.variables]
    module.embed = tf.function(
        lambda image: {OUTPUT: network(image, training=False)},
        input_signature=[tf.TensorSpec((None, side, side, 3), tf.uint8, name=INPUT)],
    )
    return module, module.embed.get_concrete_function()


class SavedModelEmbedder:
    """Embeds pictures with a SavedModel, as `facekit.trainer.Embedder` does with a Keras network.

    Args:
        folder: of `write_saved_model`.
        batch_size: pictures at once; bounds memory.

    Raises:
        ValueError: the folder is no SavedModel, or one of another kind.
    """

    def __init__(self, folder: Path, batch_size: int = 64):
        import tensorflow as tf

        self._size = batch_size
        try:
            self._module = tf.saved_model.load(str(folder))
            self._embed = self._module.signatures[SIGNATURE]
            shape = self._embed.structured_input_signature[1][INPUT].shape
            self.side, self.width = int(shape[1]), int(self._embed.structured_outputs[OUTPUT].shape[1])
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ValueError(f"{folder}: is no SavedModel of an embedding network ({reason}).") from None

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Embed (n, S, S, 3) uint8 RGB pictures: (n, D) float32 unit rows."""
        import tensorflow as tf

        check_images(images, self.side)
        starts = range(0, len(images), self._size)
        batches = [
            self._embed(**{INPUT: tf.constant(images[start : start + self._size])})[OUTPUT].numpy()
            for start in starts
        ]
        return np.concatenate(batches) if batches else np.empty((0, self.width), np.float32)
