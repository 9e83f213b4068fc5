"""A bundle's network in a form for other programs: written with all that a reader needs, and held against Keras."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from facekit.bundle import CARD, BundleRecord
from facekit.files import write_text
from facekit.model_card import model_card
from facekit.onnx_network import INPUT, OUTPUT

if TYPE_CHECKING:
    import keras

Form = Literal["saved_model", "onnx", "litert"]
Quantize = Literal["float16", "int8"]
Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]

FILES: dict[Form, str] = {"saved_model": "saved_model", "onnx": "model.onnx", "litert": "model.tflite"}
"""What the network is called in the folder of an export."""

RECORD = "export.json"
FORMAT = 1

BOUNDS: dict[Quantize | None, float] = {None: 1e-4, "float16": 1e-3, "int8": 0.02}
"""Largest cosine difference that an export may have from Keras on any crop.

float32 gives about 1e-6 and float16 about 1e-5: their bounds catch mistakes. 8 bits cost 0.006 on dlib's network,
whose threshold is at cosine 0.9: more than 0.02 would change verdicts.
"""


def write_network(
    form: Form, network: keras.Model, path: Path, quantize: Quantize | None, samples: NDArray[np.uint8] | None
) -> None:
    """Write a network in a form.

    Args:
        form: which one.
        network: RGB pictures of 0..255 to unit rows.
        path: the file, or the folder of a SavedModel.
        quantize: as `facekit.onnx_network.write_onnx` and `facekit.litert_network.write_litert` have it.
        samples: (n, S, S, 3) uint8 crops for "int8".

    Raises:
        ValueError: a SavedModel was to be quantised.
    """
    refuse_quantized_saved_model(form, quantize)
    if form == "saved_model":
        from facekit.saved_model import write_saved_model

        write_saved_model(network, path)
    elif form == "onnx":
        from facekit.onnx_network import write_onnx

        write_onnx(network, path, quantize, samples)
    else:
        from facekit.litert_network import write_litert

        write_litert(network, path, quantize, samples)


def refuse_quantized_saved_model(form: Form, quantize: Quantize | None) -> None:
    """TensorFlow 2.21 has no tool for it.

    Raises:
        ValueError: it is asked for.
    """
    if form == "saved_model" and quantize is not None:
        raise ValueError(f"`quantize` {quantize}: a saved_model stays float32. Take --to onnx or --to litert.")


def read_embedder(form: Form, path: Path, threads: int) -> Embed:
    """What was written, at work: (n, S, S, 3) uint8 to (n, D) float32.

    Args:
        form: which one.
        path: as `write_network` got it.
        threads: threads to compute on; a SavedModel takes those of TensorFlow.

    Raises:
        ValueError: the file is damaged, or LiteRT is not installed.
    """
    if form == "saved_model":
        from facekit.saved_model import SavedModelEmbedder

        return SavedModelEmbedder(path)
    if form == "onnx":
        from facekit.onnx_network import OnnxEmbedder

        return OnnxEmbedder(path, threads=threads)
    from facekit.litert_network import LiteRTEmbedder

    return LiteRTEmbedder(path, threads=threads)


def cosine_difference(rows: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Largest 1 - cosine between rows of two (n, D) arrays, each scaled to length 1; infinite where one is NaN."""
    one, two = rows.astype(np.float64), expected.astype(np.float64)
    cosines = np.sum(one * two, axis=1) / (np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1))
    return float(np.max(1 - cosines)) if np.isfinite(cosines).all() else float("inf")


def check_bound(name: str, difference: float, quantize: Quantize | None, pictures: int) -> None:
    """Refuse an export that differs too much.

    Raises:
        ValueError: it does; says by how much, and that nothing is kept.
    """
    bound = BOUNDS[quantize]
    if not difference < bound:
        other = " Export it without --quantize, or give more --images to calibrate on." if quantize else ""
        raise ValueError(
            f"{name}: its embeddings differ from the Keras network's by a cosine of {difference:.2g} on {pictures} "
            f"crops, and {bound:g} is allowed; nothing was kept.{other}"
        )


def record_values(
    record: BundleRecord, form: Form, quantize: Quantize | None, digest: str, parity: dict[str, Any]
) -> dict[str, Any]:
    """What export.json holds, for readers in any language.

    Args:
        record: the bundle's, its licence filled in.
        form: of the export.
        quantize: None for float32.
        digest: SHA-256 of the file; of a folder, see `digest_of`.
        parity: how it was compared with Keras, and what came of it.
    """
    side = record.image_size
    threshold = record.threshold
    return {
        "format": FORMAT,
        "name": record.name,
        "licence": record.licence,
        "form": form,
        "quantize": quantize,
        "file": FILES[form],
        "sha256": digest,
        "input": {"name": INPUT, "shape": ["n", side, side, 3], "dtype": "uint8"},
        "output": {"name": OUTPUT, "shape": ["n", record.embedding_size], "dtype": "float32", "length": 1},
        "embedding_size": record.embedding_size,
        "preprocessing": record.preprocessing(),
        "threshold": asdict(threshold) | {"text": threshold.text()} if threshold else None,
        "backbone": record.backbone,
        "data": record.data,
        "synthetic": record.synthetic,
        "created": record.created,
        "versions": record.versions,
        "parity": parity,
    }


@contextmanager
def export_folder(folder: Path) -> Iterator[Path]:
    """Give a folder aside to write to, which replaces `folder` once the block has ended well, and else is removed.

    Raises:
        ValueError: `folder` holds something that is no export; it is left alone.
    """
    if folder.exists() and not (folder / RECORD).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder}: is there and holds no export. Name another folder with `output`.")
    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    aside.mkdir(parents=True)
    try:
        yield aside
        replaced = aside.with_name(f"{aside.name}.old")
        if folder.exists():
            os.replace(folder, replaced)
        os.replace(aside, folder)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_record(folder: Path, record: BundleRecord, values: dict[str, Any]) -> None:
    """Write export.json and the model card."""
    write_text(folder / RECORD, json.dumps(values, indent=2) + "\n")
    write_text(folder / CARD, model_card(record))


def digest_of(path: Path) -> str:
    """SHA-256 of a file; of a folder, that of its files' names and digests in order ("NAME DIGEST", one a line)."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = [f"{file.relative_to(path).as_posix()} {digest_of(file)}\n" for file in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def size_of(path: Path) -> int:
    """Bytes of a file, or of a folder's files."""
    return path.stat().st_size if path.is_file() else sum(size_of(file) for file in path.iterdir())
