"""Embeddings of a folder's pictures, kept in a folder so that each picture is embedded once.

In:  a bundle, a folder of people, the pictures that can be decoded.
Out: (n, D) rows; a part file for every few thousand pictures, from which a stopped or later run goes on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekit import manifest
from facekit.bundle import NETWORK
from facekit.detectors import ALIGNER
from facekit.examination import Examined
from facekit.files import written_aside
from facekit.images import Image, UnreadableImageError, read_image
from inference import Verifier
from pictures import PictureReader, find_images

PART = 4096
"""Pictures in a part file: what a killed run loses at most."""

_AT_ONCE = 512
_THREADS = 4


def embed_folder(
    verifier: Verifier,
    folder: Path,
    pictures: Sequence[Examined],
    output: Path,
    asked: Callable[[], bool] = lambda: False,
) -> NDArray[np.float32]:
    """Embed pictures of a folder, as the model's bundle says, or take what an earlier run kept.

    Args:
        verifier: the model.
        folder: original pictures, or crops made by crop_faces.py.
        pictures: those to embed.
        output: where the embeddings are kept, and the crops of original pictures.
        asked: whether to stop.

    Returns:
        (n, D) float32 unit rows; NaN where the model finds no face.

    Raises:
        ValueError: crops of another recipe than the model's whose originals are gone.
        KeyboardInterrupt: stopped; what was embedded is kept.
    """
    with (verifier.bundle / NETWORK).open("rb") as file:
        place = output / "embeddings" / hashlib.file_digest(file, "sha256").hexdigest()[:16]
    kept = _read_parts(place)
    rows = np.full((len(pictures), verifier.record.embedding_size), np.nan, np.float32)
    missing = []
    for position, picture in enumerate(pictures):
        stamp, row = kept.get(picture.path, ((-1, -1), None))
        if row is not None and stamp == (picture.size, picture.modified_ns):
            rows[position] = row
        else:
            missing.append(position)
    if missing:
        _embed_missing(verifier, folder, pictures, missing, rows, (output, place), asked)
    return rows


def _embed_missing(
    verifier: Verifier,
    folder: Path,
    pictures: Sequence[Examined],
    missing: Sequence[int],
    rows: NDArray[np.float32],
    places: tuple[Path, Path],
    asked: Callable[[], bool],
) -> None:
    """Embed the missing pictures into their rows and keep them, part by part."""
    from tqdm import tqdm

    output, place = places
    read = _reader(verifier, folder, [pictures[position].path for position in missing], output)
    with (
        ThreadPoolExecutor(_THREADS, thread_name_prefix="decode") as threads,
        tqdm(total=len(missing), unit="images", desc="embedding") as bar,
    ):
        for start in range(0, len(missing), PART):
            part = missing[start : start + PART]
            for begin in range(0, len(part), _AT_ONCE):
                some = part[begin : begin + _AT_ONCE]
                if asked():
                    _write_part(place, pictures, part[:begin], rows)
                    raise KeyboardInterrupt
                crops = dict(zip(some, threads.map(read, [pictures[at].path for at in some]), strict=True))
                there = [at for at, crop in crops.items() if crop is not None]
                if there:
                    rows[there] = verifier.embed_crops([crop for crop in crops.values() if crop is not None])
                bar.update(len(some))
            _write_part(place, pictures, part, rows)


def _reader(verifier: Verifier, folder: Path, names: Sequence[str], output: Path) -> Callable[[str], Image | None]:
    """How the model sees a picture: crops of its own recipe as they are, others through its recipe."""
    made, recipe = manifest.crop_folder(folder), verifier.record.recipe
    if recipe is not None and (made is None or made.recipe != recipe):
        images = find_images(folder, names, "directory")
        return PictureReader(recipe, images, output / "crops", verifier.bundle / ALIGNER).read

    def read(name: str) -> Image | None:
        try:
            return read_image(folder / name)
        except UnreadableImageError:  # gone since it was examined
            return None

    return read


def _write_part(place: Path, pictures: Sequence[Examined], part: Sequence[int], rows: NDArray[np.float32]) -> None:
    if not part:
        return
    chosen = [pictures[position] for position in part]
    stamps = np.array([(picture.size, picture.modified_ns) for picture in chosen], np.int64)
    number = 1 + max((int(path.stem) for path in place.glob("[0-9]*.npz")), default=-1)
    names = "\0".join(picture.path for picture in chosen).encode("utf-8", "surrogateescape")
    with written_aside(place / f"{number:06d}.npz") as aside:
        np.savez(aside, names=np.frombuffer(names, np.uint8), stamps=stamps, rows=rows[list(part)])


def _read_parts(place: Path) -> dict[str, tuple[tuple[int, int], NDArray[np.float32]]]:
    """What is kept, by picture: its file's size and time, and its row; of several the last."""
    kept = {}
    for path in sorted(place.glob("[0-9]*.npz")):
        with np.load(path) as part:
            names = part["names"].tobytes().decode("utf-8", "surrogateescape").split("\0")
            for name, stamp, row in zip(names, part["stamps"].tolist(), part["rows"], strict=True):
                kept[name] = ((stamp[0], stamp[1]), row)
    return kept
