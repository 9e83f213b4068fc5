"""Take the weights of a file into a model."""

from __future__ import annotations

import warnings
from pathlib import Path
from zipfile import is_zipfile

import keras

from facekit.cohort import without_cohort
from facekit.facenet_weights import SUFFIXES, load_facenet


def load_weights(model: keras.Model, path: Path, backbone: str) -> str:
    """Copy the weights of a file into a model.

    Args:
        model: an embedding model; its weights are replaced.
        path: a `.keras` file of an embedding model, a `.weights.h5` file of this very architecture, or a `.pt`,
            `.pth` or `.safetensors` file of facenet-pytorch. Where the embedding head differs from that of a
            `.keras` or facenet-pytorch's file, the backbone's weights alone are taken.
        backbone: name of the layer that is the model's backbone.

    Returns:
        One sentence that says what was taken.

    Raises:
        ValueError: no such file, another kind of file, or weights that do not fit; one sentence naming `weights`.
    """
    if not path.is_file():
        raise ValueError(f"`weights`: there is no file {path}.")
    if path.suffix == ".keras":
        return _take_from_model(model, path, backbone)
    if path.name.endswith(".weights.h5"):
        return _take_from_weights(model, path)
    if path.suffix in SUFFIXES:
        return load_facenet(model, path, backbone)
    raise ValueError(
        f"`weights`: expected a .keras, .weights.h5, {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]} file. "
        f"Received: {path}."
    )


def _take_from_model(model: keras.Model, path: Path, backbone: str) -> str:
    if not is_zipfile(path):
        # Keras would say that there is no such file.
        raise ValueError(f"`weights`: {path} cannot be read as a Keras model (it is damaged, or of another kind).")
    try:
        whole = keras.models.load_model(path, compile=False)
    except Exception as error:  # a damaged zip, a foreign layer, another Keras: each raises its own kind
        raise ValueError(
            f"`weights`: {path} cannot be read as a Keras model ({_first_sentence(error)})."
        ) from error
    source = without_cohort(whole)
    left = "" if source is whole else " Its cohort stays behind: `cohort` makes one of the training people."
    if backbone not in [layer.name for layer in source.layers]:
        raise ValueError(f"`weights`: {path} holds no backbone {backbone!r}.")
    if _shapes(source) == _shapes(model):
        model.set_weights(source.get_weights())
        return f"{path}: all weights taken.{left}"
    old, new = source.get_layer(backbone), model.get_layer(backbone)
    if _shapes(old) != _shapes(new):
        raise ValueError(f"`weights`: the backbone {backbone!r} in {path} has weights of other shapes.")
    new.set_weights(old.get_weights())
    return f"{path}: its embedding head differs, so only the backbone's weights were taken.{left}"


def _take_from_weights(model: keras.Model, path: Path) -> str:
    try:
        with warnings.catch_warnings():
            # Keras warns of each layer that it misses, hundreds of lines, before it raises.
            warnings.simplefilter("ignore", UserWarning)
            model.load_weights(path)
    except Exception as error:  # h5py and Keras raise several kinds
        raise ValueError(
            f"`weights`: {path} does not fit this backbone and embedding size ({_first_sentence(error)})."
        ) from error
    return f"{path}: all weights taken."


def _shapes(layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]


def _first_sentence(error: Exception) -> str:
    """The heart of an error whose text may run over many lines."""
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return first_line.split(". ")[0].rstrip(".")
