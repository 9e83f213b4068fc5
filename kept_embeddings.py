"""Embeddings of a folder's pictures, kept in a folder so that each picture is embedded once.

In:  a bundle, a folder of people, the pictures that can be decoded.
Out: (n, D) rows; a part file for every few thousand pictures, from which a stopped or later run goes on.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekit import manifest, runtime
from facekit.bundle import NETWORK, read_record
from facekit.detectors import ALIGNER
from facekit.examination import Examined
from facekit.files import written_aside
from facekit.images import Image, UnreadableImageError, read_image
from facekit.workers import run_shards
from pictures import Crops, PictureReader, find_images
from verifier import Verifier

PART = 4096
"""Pictures in a part file: what a killed run loses at most."""

_AT_ONCE = 512
_THREADS = 4

Embedded = tuple[list[int], NDArray[np.float32]]
"""Positions of a shard's pictures and their (n, D) rows."""


@dataclass(frozen=True)
class Shard:
    """Pictures to be embedded at once.

    Attributes:
        positions: where they stand among all.
        names: their paths.
        read: gives the network's view of each, None where there is no face.
    """

    positions: list[int]
    names: list[str]
    read: Callable[[str], Image | None]

    def __str__(self) -> str:
        """The first picture, which names the shard in a message."""
        return self.names[0]


def embed_folder(
    verifier: Verifier,
    folder: Path,
    pictures: Sequence[Examined],
    output: Path,
    asked: Callable[[], bool] = lambda: False,
    cluster: str = "",
) -> NDArray[np.float32]:
    """Embed pictures of a folder, as the model's bundle says, or take what an earlier run kept.

    Args:
        verifier: the model.
        folder: original pictures, or crops made by crop_faces.py.
        pictures: those to embed.
        output: where the embeddings are kept, and the crops of original pictures.
        asked: whether to stop.
        cluster: address of a scheduler whose workers embed and see the folders at the same paths; "": none.

    Returns:
        (n, D) float32 unit rows; NaN where the model finds no face.

    Raises:
        ValueError: crops of another recipe than the model's whose originals are gone; or a cluster out of order.
        KeyboardInterrupt: stopped; what was embedded is kept.
    """
    digest = network_digest(verifier.bundle)
    place = output / "embeddings" / digest
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
        reader_of = _readers(verifier, folder.absolute(), [pictures[at].path for at in missing], output)
        step = min(_AT_ONCE, PART)
        chosen = [missing[start : start + step] for start in range(0, len(missing), step)]
        shards = [Shard(part, names := [pictures[at].path for at in part], reader_of(names)) for part in chosen]
        embed = partial(embed_shard, verifier)
        if cluster:
            embed = partial(embed_with_bundle, verifier.bundle.absolute(), digest)
        _embed_missing(embed, shards, pictures, rows, place, cluster, asked)
    return rows


def _embed_missing(
    embed: Callable[[Shard], Embedded],
    shards: Sequence[Shard],
    pictures: Sequence[Examined],
    rows: NDArray[np.float32],
    place: Path,
    cluster: str,
    asked: Callable[[], bool],
) -> None:
    """Embed shards into their rows and keep them, part by part; also what is done when it ends early."""
    from tqdm import tqdm

    done: list[int] = []
    answered = 0
    try:
        with tqdm(total=sum(len(shard.positions) for shard in shards), unit="images", desc="embedding") as bar:
            # Without a cluster one process: TensorFlow uses all cores by itself.
            for positions, found in run_shards(
                embed, shards, processes=1, cluster=cluster, asked=asked, prepare=runtime.start_quietly
            ):
                rows[positions] = found
                done += positions
                answered += 1
                bar.update(len(positions))
                if len(done) >= PART:
                    _write_part(place, pictures, done, rows)
                    done = []
    finally:
        _write_part(place, pictures, done, rows)
    if answered < len(shards):
        raise KeyboardInterrupt


def embed_shard(verifier: Verifier, shard: Shard) -> Embedded:
    """Read and embed a shard's pictures; NaN where the model finds no face."""
    rows = np.full((len(shard.names), verifier.record.embedding_size), np.nan, np.float32)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="decode") as threads:
        crops = dict(enumerate(threads.map(shard.read, shard.names)))
    there = [row for row, crop in crops.items() if crop is not None]
    if there:
        rows[there] = verifier.embed_crops([crop for crop in crops.values() if crop is not None])
    return shard.positions, rows


def embed_with_bundle(bundle: Path, digest: str, shard: Shard) -> Embedded:
    """The same on a cluster's worker, which loads the model once.

    Args:
        bundle: its folder, which workers see at the same path.
        digest: of its network, see `network_digest`.
        shard: what to embed.

    Raises:
        ValueError: the folder holds no bundle there, or another model's.
    """
    return embed_shard(_loaded(bundle, digest), shard)


@lru_cache(maxsize=1)
def _loaded(bundle: Path, digest: str) -> Verifier:
    verifier = Verifier(bundle, engine="tensorflow")
    if network_digest(bundle) != digest:
        raise ValueError(f"{bundle}: the worker sees another model there than the one that is asked for.")
    return verifier


def network_digest(bundle: Path) -> str:
    """What tells a bundle's embeddings from another's: its network's SHA-256, and whether flips are averaged."""
    with (bundle / NETWORK).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
    return f"{digest}-flip" if read_record(bundle).flip else digest


class _FolderReader(PictureReader):
    """A reader of a whole folder, which gives readers of some of its pictures."""

    def part(self, names: Sequence[str]) -> PictureReader:
        """One that is small enough to be sent to another machine, and crops nothing that is cropped already."""
        images = self._images
        assert isinstance(images, Crops)  # originals were cropped when this reader was made
        rows = {name: images.rows[name] for name in names}
        return PictureReader(self._recipe, Crops(images.folder.absolute(), images.made, rows), Path())


def _readers(
    verifier: Verifier, folder: Path, names: Sequence[str], output: Path
) -> Callable[[Sequence[str]], Callable[[str], Image | None]]:
    """How the model sees some pictures: crops of its own recipe as they are, others through its recipe."""
    made, recipe = manifest.crop_folder(folder), verifier.record.recipe
    if recipe is None or (made is not None and made.recipe == recipe):
        return lambda some: partial(_read_plain, folder)
    images = find_images(folder, names, "directory")
    whole = _FolderReader(recipe, images, output / "crops", verifier.bundle / ALIGNER)
    return lambda some: whole.part(some).read


def _read_plain(folder: Path, name: str) -> Image | None:
    try:
        return read_image(folder / name)
    except UnreadableImageError:  # gone since it was examined
        return None


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
        try:
            with np.load(path) as part:
                names = part["names"].tobytes().decode("utf-8", "surrogateescape").split("\0")
                found = list(zip(names, part["stamps"].tolist(), part["rows"], strict=True))
        except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
            # Cut by a full disk or a crash: its pictures are embedded again.
            continue
        kept.update({name: ((stamp[0], stamp[1]), row) for name, stamp, row in found})
    return kept
