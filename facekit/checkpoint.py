"""The whole state of a training run in one file, so that a stopped run goes on exactly where it was."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zipfile import BadZipFile

import keras
import numpy as np
from numpy.typing import NDArray

from facekit.files import written_aside

_RECORD = "record"
_BESIDE = "beside/"


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Weights, batch-norm statistics, dropout's seeds, and the optimizer's slots and step, in a stable order."""
    return [*model.variables, *model.optimizer.variables]


def save_state(
    path: Path, model: keras.Model, record: dict[str, Any], beside: Mapping[str, NDArray] = MappingProxyType({})
) -> None:
    """Write all variables of a compiled model and its optimizer, whole or not at all.

    Args:
        path: an .npz file.
        model: compiled, with its optimizer built.
        record: JSON values to keep beside them (history, best figures).
        beside: further arrays, by name.
    """
    arrays = {f"{number:05d}": np.asarray(variable) for number, variable in enumerate(_variables(model))}
    arrays |= {_BESIDE + name: array for name, array in beside.items()}
    with written_aside(path) as aside:
        np.savez(aside, **(arrays | {_RECORD: np.array(json.dumps(record))}))  # type: ignore[arg-type]


def read_record(path: Path) -> dict[str, Any]:
    """The record in a file that `save_state` wrote.

    Raises:
        ValueError: the file is missing or damaged.
    """
    return _read(path)[0]


def restore_state(path: Path, model: keras.Model) -> tuple[dict[str, Any], dict[str, NDArray]]:
    """Load what `save_state` wrote into a model that was built the same way.

    Returns:
        The record saved beside the variables, and the further arrays.

    Raises:
        ValueError: the file is missing, damaged, or of another model.
    """
    record, arrays = _read(path)
    beside = {name.removeprefix(_BESIDE): arrays.pop(name) for name in [*arrays] if name.startswith(_BESIDE)}
    variables, values = _variables(model), [arrays[name] for name in sorted(arrays)]
    if [value.shape for value in values] != [tuple(variable.shape) for variable in variables]:
        raise ValueError(
            f"{path}: holds another model's state; resume with the settings that the run started with."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return record, beside


def _read(path: Path) -> tuple[dict[str, Any], dict[str, NDArray]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files if name != _RECORD}
            record: dict[str, Any] = json.loads(str(file[_RECORD]))
    except (OSError, EOFError, TypeError, ValueError, KeyError, BadZipFile) as error:
        raise ValueError(f"{path}: is not a checkpoint that can be read ({error}).") from None
    return record, arrays
