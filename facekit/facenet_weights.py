"""Take the weights of facenet-pytorch's InceptionResnetV1 (MIT, Tim Esler; after David Sandberg's FaceNet).

A file is read as tensors or not at all: no pickle of it is ever run.
"""

from __future__ import annotations

import json
import pickle
import shlex
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

NAME = "inception_resnet_v1"
SUFFIXES = (".pt", ".pth", ".safetensors")

HEAD = {
    "last_linear.weight": (512, 1792),
    "last_bn.weight": (512,),
    "last_bn.bias": (512,),
    "last_bn.running_mean": (512,),
    "last_bn.running_var": (512,),
}
"""The embedding head's tensors and their shapes."""

# What turns PyTorch's axes into Keras' by number of axes: a convolution's OIHW to HWIO, a dense layer's OI to IO.
AXES = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}

# Older ones can be made to run code by a prepared file even with weights_only (CVE-2025-32434).
OLDEST_TORCH = (2, 6)

# Names in an error, of each kind.
MOST_NAMES = 3


class Place(NamedTuple):
    """Where a tensor goes: the Keras variable, and the tensor's shape in PyTorch."""

    variable: Any
    shape: tuple[int, ...]


def load_facenet(model: keras.Model, path: Path, backbone: str = NAME) -> str:
    """Put facenet-pytorch's weights into an embedding model of this backbone.

    Nothing is changed unless every tensor of the file is known, there, of its shape and finite. The classifier
    (`logits.*`) and `num_batches_tracked` are left out.

    Args:
        model: its weights are replaced. Where its layers "embedding" (1792 to 512) and "embedding_bn" are not those
            of facenet-pytorch, they keep their start.
        path: a state dict, .pt or .pth (needs PyTorch) or .safetensors (does not).
        backbone: name of the layer that is the model's backbone.

    Returns:
        One sentence that says what was taken.

    Raises:
        ValueError: another backbone or kind of file, PyTorch is missing, the file is damaged or holds other things;
            one sentence naming the file and `weights`.
    """
    if backbone != NAME:
        raise ValueError(f"`weights`: {path} is for the backbone {NAME}; `backbone` is {backbone}.")
    trunk, head = _backbone_places(model.get_layer(NAME)), _head_places(model)
    tensors = {name: tensor for name, tensor in _read(path).items() if not _is_left_out(name)}
    _check_shapes(tensors, {name: place.shape for name, place in trunk.items()} | HEAD, path)
    values = {name: _to_numpy(tensors[name], name, path) for name in trunk | head}
    for name, place in (trunk | head).items():
        place.variable.assign(values[name].transpose(AXES[values[name].ndim]))
    taken = f"{len(values)} tensors, {sum(value.size for value in values.values()):,} parameters"
    if head:
        return f"{path}: all {taken} taken."
    return f"{path}: the embedding head differs and keeps its start, so only the backbone's {taken} were taken."


def _is_left_out(name: str) -> bool:
    return name.startswith("logits.") or name.endswith(".num_batches_tracked")


# ---- Names -------------------------------------------------------------------------------------------------


def _backbone_places(backbone: keras.Model) -> dict[str, Place]:
    """The tensors that fill a backbone: its layers carry facenet-pytorch's names."""
    return {name: place for layer in backbone.layers for name, place in _places(layer, layer.name).items()}


def _head_places(model: keras.Model) -> dict[str, Place]:
    """The tensors that fill the embedding head; none where it is not facenet-pytorch's."""
    layers = {layer.name: layer for layer in model.layers}
    places: dict[str, Place] = {}
    for ours, theirs in (("embedding", "last_linear"), ("embedding_bn", "last_bn")):
        if ours in layers:
            places |= _places(layers[ours], theirs)
    return places if {name: place.shape for name, place in places.items()} == HEAD else {}


def _places(layer: keras.layers.Layer, name: str) -> dict[str, Place]:
    """The tensors of one layer, by PyTorch's names."""
    variables: dict[str, Any] = {}
    if isinstance(layer, keras.layers.BatchNormalization):
        variables = {"weight": layer.gamma, "bias": layer.beta}
        variables |= {"running_mean": layer.moving_mean, "running_var": layer.moving_variance}
    elif isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
        variables = {"weight": layer.kernel} | ({"bias": layer.bias} if layer.use_bias else {})
    return {f"{name}.{part}": Place(variable, _torch_shape(variable)) for part, variable in variables.items()}


def _torch_shape(variable: Any) -> tuple[int, ...]:
    """The shape before `AXES` turned it."""
    axes = AXES[len(variable.shape)]
    return tuple(int(variable.shape[axes.index(axis)]) for axis in range(len(axes)))


def _check_shapes(tensors: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]], path: Path) -> None:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = [
        f"{name} {shapes[name]} instead of {shape}"
        for name, shape in expected.items()
        if shapes.get(name, shape) != shape
    ]
    found = {
        "missing": [name for name in expected if name not in shapes],
        "unexpected": [name for name in shapes if name not in expected],
        "of another shape": wrong,
    }
    problems = [f"{len(names)} {kind} ({_some(names)})" for kind, names in found.items() if names]
    if problems:
        raise ValueError(
            f"`weights`: {path} is not facenet-pytorch's InceptionResnetV1 of {len(expected)} tensors: "
            f"{', '.join(problems)}."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMES] + (["..."] if len(names) > MOST_NAMES else []))


# ---- Files -------------------------------------------------------------------------------------------------


def _read(path: Path) -> dict[str, Any]:
    """A file's tensors by name, of NumPy or PyTorch."""
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in SUFFIXES:
        return _read_torch(path)
    raise ValueError(f"`weights`: expected a {', '.join(SUFFIXES)} file of facenet-pytorch. Received: {path}.")


def _read_safetensors(path: Path) -> dict[str, Any]:
    import safetensors
    from safetensors.numpy import load_file

    try:
        return load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise ValueError(f"`weights`: {path} cannot be read as safetensors ({_first_line(error)}).") from error
    except (KeyError, TypeError, ValueError, AttributeError):  # a type that NumPy has not
        raise ValueError(
            f"`weights`: {path} holds numbers of a type that NumPy has not; save them as float32."
        ) from None


def _read_torch(path: Path) -> dict[str, Any]:
    try:
        import torch
    except ImportError:
        raise ValueError(
            f"`weights`: {path} needs PyTorch to be read. Run: pip install 'torch>=2.6' - or, where PyTorch is, "
            f"turn it into {path.with_suffix('.safetensors').name}: {_conversion(path)}"
        ) from None
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < OLDEST_TORCH:
        raise ValueError(
            f"`weights`: {path} is not read with PyTorch {torch.__version__}, which a prepared file can make run "
            "code. Run: pip install 'torch>=2.6'"
        )
    try:
        with warnings.catch_warnings():
            # Of another protocol of pickles; what it cannot read it refuses.
            warnings.simplefilter("ignore", UserWarning)
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        # PyTorch's own text proposes to run the file's code.
        raise ValueError(
            f"`weights`: {path} is damaged, or holds more than tensors, and such a file is never read: it could "
            "run code."
        ) from None
    except Exception as error:  # of a damaged file: RuntimeError, EOFError, KeyError, ValueError and more
        reason = f"{type(error).__name__}: {_first_line(error)}"
        raise ValueError(
            f"`weights`: {path} cannot be read by PyTorch: it is damaged or of another kind ({reason})."
        ) from error
    if isinstance(state, dict) and all(isinstance(item, torch.Tensor) for item in state.values()):
        return {str(name): tensor for name, tensor in state.items()}
    raise ValueError(f"`weights`: {path} is not a state dict, which has a tensor for each name.")


def _conversion(path: Path) -> str:
    """The shell command that turns a .pt file into safetensors."""
    source, target = json.dumps(path.name), json.dumps(path.with_suffix(".safetensors").name)
    program = (
        f"import torch, safetensors.torch as s; s.save_file(torch.load({source}, weights_only=True), {target})"
    )
    return f"python -c {shlex.quote(program)}"


def _to_numpy(tensor: Any, name: str, path: Path) -> Any:
    """One tensor as float32 of NumPy."""
    try:
        value = tensor if isinstance(tensor, np.ndarray) else tensor.detach().float().numpy()
    except (RuntimeError, TypeError) as error:  # quantised, sparse, without storage
        raise ValueError(f"`weights`: {path} has no plain numbers in {name} ({_first_line(error)}).") from error
    value = value.astype(np.float32)
    if not np.isfinite(value).all():
        raise ValueError(f"`weights`: {path} is damaged: {name} holds numbers that are not finite.")
    return value


def _first_line(error: Exception) -> str:
    """The heart of an error whose text may run over many lines."""
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
