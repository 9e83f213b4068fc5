"""The whole state of a training run in one file, so that a stopped run goes on exactly where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import keras
import numpy as np

from facekit.files import written_aside

_RECORD = "record"


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Weights, batch-norm statistics, dropout's seeds, and the optimizer's slots and step, in a stable order."""
    return [*model.variables, *model.optimizer.variables]


def save_state(path: Path, model: keras.Model, record: dict[str, Any]) -> None:
    """Write all variables of a compiled model and its optimizer, whole or not at all.

    Args:
        path: an .npz file.
        model: compiled, with its optimizer built.
        record: JSON values to keep beside them (history, best figures).
    """
    arrays = {f"{number:05d}": np.asarray(variable) for number, variable in enumerate(_variables(model))}
    with written_aside(path) as aside:
        np.savez(aside, **(arrays | {_RECORD: np.array(json.dumps(record))}))  # type: ignore[arg-type]


def restore_state(path: Path, model: keras.Model) -> dict[str, Any]:
    """Load what `save_state` wrote into a model that was built the same way.

    Returns:
        The record saved beside the variables.

    Raises:
        ValueError: the file is missing, damaged, or of another model.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = [file[key] for key in sorted(file.files) if key != _RECORD]
            record: dict[str, Any] = json.loads(str(file[_RECORD]))
    except (OSError, EOFError, TypeError, ValueError, KeyError, BadZipFile) as error:
        raise ValueError(f"{path}: is not a checkpoint that can be read ({error}).") from None
    variables = _variables(model)
    shapes = [tuple(variable.shape) for variable in variables]
    if [array.shape for array in arrays] != shapes:
        raise ValueError(
            f"{path}: holds another model's state; resume with the settings that the run started with."
        )
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)
    return record
