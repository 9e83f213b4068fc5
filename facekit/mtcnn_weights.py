"""The weights of MTCNN's three networks, from the installed `mtcnn` package."""

from __future__ import annotations

import hashlib
import io
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Weights = list[NDArray[np.float32]]
"""A network's arrays in the package's order: kernel (rows, columns, channels in, out) or (in, out), bias and,
after all but the output layers, PReLU's slopes."""

# The files are pickles, which can run any code when they are loaded: only these very bytes are.
_CHECKSUMS = {
    "pnet": "ea6b0c3e685ebee3165326ad6484acc95f2ef78f1c94fbf40a55704fa989f7b5",
    "rnet": "cb00e6460f3c98b0bfafaba3c0a0ded4bdf6e62cee7174d969e8670d7e757fee",
    "onet": "94f6ea2f4cf985275ee958cdd762d17b6009348a4fb9d8c6be39ba73ffd22ca3",
}


def read_weights(network: str, folder: Path | None = None) -> Weights:
    """Read a network's weights; the package's own code is not run, and TensorFlow not imported.

    Args:
        network: "pnet", "rnet" or "onet".
        folder: where `pnet.lz4`, `rnet.lz4` and `onet.lz4` lie; None: the installed package's.

    Raises:
        ValueError: the file is not there, or not the one of mtcnn 1.0.0.
    """
    import joblib  # type: ignore[import-untyped]

    path = (folder or _package_folder()) / f"{network}.lz4"
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}). Run: pip install mtcnn==1.0.0") from None
    if hashlib.sha256(data).hexdigest() != _CHECKSUMS[network]:
        raise ValueError(f"{path}: is not the file of mtcnn 1.0.0. Run: pip install --force-reinstall mtcnn==1.0.0")
    return joblib.load(io.BytesIO(data))


def _package_folder() -> Path:
    spec = find_spec("mtcnn")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            "MTCNN's weights come with the package `mtcnn`, which is missing. Run: pip install mtcnn==1.0.0"
        )
    return Path(spec.submodule_search_locations[0]) / "assets" / "weights"
