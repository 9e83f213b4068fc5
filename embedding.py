"""A folder of pictures as one file of embeddings.

In:  a model; a folder of pictures, or of crops that crop_faces.py made.
Out: FILE.npz (`paths`, `embeddings` (n, D) float32 unit rows, NaN without a face, `reasons`; what made them:
     `model`, `network_sha256`, `flip`, `preprocessing_sha256`, `as_crops`), or FILE.parquet, where its metadata
     say what made them; stopped, the next call goes on from the parts kept in FILE.parts.
Run: python inference.py --embed photos --output embeddings.npz
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facekit.bundle import NETWORK
from facekit.cropping import find_pictures, stamp
from facekit.detectors import ALIGNER
from facekit.files import check_writable, written_aside
from facekit.manifest import crop_folder
from pictures import Originals, PictureReader, find_images, people_pictures

if TYPE_CHECKING:
    from verifier import Verifier

PART = 512
"""Pictures between two saves."""

SUFFIXES = (".npz", ".parquet")

CACHE = Path("runs/cache")
"""Where crops of original pictures are kept."""

Part = tuple[NDArray[np.float32], list[str]]
"""Rows and reasons of some pictures."""


@dataclass(frozen=True)
class Embedded:
    """What became of a folder.

    Attributes:
        output: the file.
        pictures: how many there are.
        faces: how many of them have an embedding.
        reused: how many an earlier call had done.
        as_crops: whether the pictures were taken as faces already cut.
    """

    output: Path
    pictures: int
    faces: int
    reused: int
    as_crops: bool = False

    def text(self) -> str:
        """In words."""
        before = f", {self.reused:,} of them by an earlier call" if self.reused else ""
        faces = "taken as faces already cut" if self.as_crops else "with a face"
        return f"{self.pictures:,} pictures, {self.faces:,} {faces}{before}: {self.output}"


def embed_folder(verifier: Verifier, folder: Path, output: Path, as_crops: bool = False) -> Embedded:
    """Embed every picture of a folder into one file.

    Args:
        verifier: the model.
        folder: pictures in it and below it; original pictures are cropped first, and the crops kept.
        output: .npz or .parquet; one that is there is replaced once the new one is whole.
        as_crops: take the pictures as faces already cut, whoever cut them.

    Raises:
        ValueError: the folder, the file's suffix or the model's crops are wrong; in one sentence.
        KeyboardInterrupt: stopped; what was done is kept.
    """
    if output.suffix.lower() not in SUFFIXES:
        raise ValueError(f"`output` {output}: must end in {' or '.join(SUFFIXES)}.")
    if output.is_dir():
        raise ValueError(f"`output` {output}: is a folder. Name a file.")
    parquet = output.suffix.lower() == ".parquet"
    if parquet:
        _arrow(output)
    made = crop_folder(folder) if folder.is_dir() else None
    names = find_pictures(folder) if made is None else people_pictures(folder, "embed")[0]
    if parquet:
        _refuse_foreign_names(folder, names)
    check_writable(output.parent, "output")
    recipe = None if as_crops else verifier.record.recipe
    # Of originals what cannot be read (a broken link, a pipe) is told of with its reason, and stops nothing.
    images = find_images(folder, names, "embed") if made else Originals(folder, {name: name for name in names})
    reader = PictureReader(recipe, images, CACHE, verifier.bundle / ALIGNER)
    parts = output.with_name(output.name + ".parts")
    _claim(parts, _key(verifier, folder, names, as_crops))
    rows, reasons, reused = _embed_parts(verifier, reader, names, parts)
    with written_aside(output) as aside:
        _write(aside, names, rows, reasons, made_by(verifier, as_crops))
    shutil.rmtree(parts)
    return Embedded(output, len(names), int((~np.isnan(rows[:, 0])).sum()), reused, as_crops)


def _refuse_foreign_names(folder: Path, names: Sequence[str]) -> None:
    """Parquet's text is UTF-8; a file's name need not be."""
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"{str(folder / name)!a}: its name is no UTF-8, which .parquet needs. Rename it, or choose .npz."
            ) from None


def _key(verifier: Verifier, folder: Path, names: Sequence[str], as_crops: bool) -> str:
    """What parts must agree on to belong together: model, recipe, flips, part size, pictures and their stamps."""
    stamps = [(name, *stamp(folder / name)) for name in names]
    made = made_by(verifier, as_crops)
    values = [
        *(made[name] for name in ("network_sha256", "preprocessing_sha256", "flip", "as_crops")),
        PART,
        stamps,
    ]
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


def made_by(verifier: Verifier, as_crops: bool) -> dict[str, Any]:
    """Which model made embeddings, and how the pictures came to it: rows that differ in the hashes or `flip` are no
    more comparable than two models'.
    """  # noqa: D205
    with (verifier.bundle / NETWORK).open("rb") as file:
        network = hashlib.file_digest(file, "sha256").hexdigest()
    record = verifier.record
    return {
        "model": record.name,
        "network_sha256": network,
        "flip": record.flip,
        "preprocessing_sha256": record.preprocessing()["sha256"],
        "as_crops": as_crops,
    }


def _claim(parts: Path, key: str) -> None:
    """An empty folder for parts of this key, or the one that an earlier call of the same work left."""
    marker = parts / "key.txt"
    if marker.is_file() and marker.read_text(encoding="utf-8") == key:
        return
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    marker.write_text(key, encoding="utf-8")


def _embed_parts(
    verifier: Verifier, reader: PictureReader, names: Sequence[str], parts: Path
) -> tuple[NDArray[np.float32], list[str], int]:
    """Rows and reasons of all pictures, and how many of them lay in parts already."""
    from tqdm import tqdm

    rows = np.full((len(names), verifier.record.embedding_size), np.nan, np.float32)
    reasons, reused = [""] * len(names), 0
    with tqdm(total=len(names), unit="images", desc="embedding") as bar:
        for start in range(0, len(names), PART):
            chunk, file = list(names[start : start + PART]), parts / f"{start:09d}.npz"
            kept = _read_part(file)
            reused += 0 if kept is None else len(chunk)
            found = kept or _embed_part(verifier, reader, chunk, file)
            rows[start : start + len(chunk)], reasons[start : start + len(chunk)] = found
            bar.update(len(chunk))
    return rows, reasons, reused


def _read_part(file: Path) -> Part | None:
    """What an earlier call kept; None where there is nothing, or it was cut by a full disk or a crash."""
    try:
        with np.load(file) as kept:
            return kept["rows"], [str(reason) for reason in kept["reasons"]]
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None


def _embed_part(verifier: Verifier, reader: PictureReader, names: Sequence[str], file: Path) -> Part:
    rows = np.full((len(names), verifier.record.embedding_size), np.nan, np.float32)
    crops = {place: crop for place, name in enumerate(names) if (crop := reader.read(name)) is not None}
    if crops:
        rows[list(crops)] = verifier.embed_crops(list(crops.values()))
    reasons = ["" if place in crops else reader.failures[name] for place, name in enumerate(names)]
    with written_aside(file) as aside:
        np.savez(aside, rows=rows, reasons=np.array(reasons, np.str_))
    return rows, reasons


def _write(
    path: Path, names: Sequence[str], rows: NDArray[np.float32], reasons: Sequence[str], made: dict[str, Any]
) -> None:
    if path.suffix.lower() == ".npz":
        arrays: dict[str, Any] = {name: np.array(value) for name, value in made.items()}
        arrays |= {"paths": np.array(names, np.str_), "reasons": np.array(reasons, np.str_)}
        np.savez_compressed(path, embeddings=rows, **arrays)
        return
    pa, parquet = _arrow(path)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
    table = pa.table({"path": list(names), "embedding": vectors, "reason": list(reasons)})
    told = {name: value if isinstance(value, str) else json.dumps(value) for name, value in made.items()}
    parquet.write_table(table.replace_schema_metadata(told), path)


def _arrow(output: Path):  # type: ignore[no-untyped-def]  # an optional package
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ValueError(
            f"`output` {output} needs pyarrow. Run: pip install 'pyarrow>=18,<27' - or choose .npz."
        ) from None
    return pyarrow, pyarrow.parquet
