"""Pictures packed into a few large files: TFRecord shards, and an index by which `facekit.packed` reads any one.

Half a million small files are slow to list, copy and read on a network disk. TFRecord rather than ArrayRecord:
TensorFlow, which is here anyway, reads and writes it, and so do PyTorch's, JAX's and Spark's readers; ArrayRecord
needs a package more, on one system only, for a random access that our own index gives.

A packed folder holds:
- pack-00000-of-00012.tfrecord ...: a `tf.train.Example` a picture: "image/encoded", the bytes of its file as they
  are; "image/path"; "label/person". In mixed order, so that who reads on and on meets people mixed.
- pictures.csv: path, number of the shard from 0, offset and length of each picture's bytes there; by person, then
  by name.
- pack.json: the shards with their sizes and SHA-256, the pictures left out with the reason. Written last: with it
  the folder is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from facekit.files import stamp, write_bytes, write_text, written_aside
from facekit.images import UnreadableImageError, decoded
from facekit.index import PeopleIndex
from facekit.loading import read_below
from facekit.tables import csv_bytes

PACK, PICTURES = "pack.json", "pictures.csv"
COLUMNS = ("path", "shard", "offset", "length")
VERSION = 1


@dataclass(frozen=True)
class Shard:
    """A shard to be written: its pictures, in order.

    Attributes:
        root: folder of the pictures, absolute.
        folder: where the shard goes.
        name: its file.
        paths: pictures, relative to `root`.
    """

    root: Path
    folder: Path
    name: str
    paths: tuple[str, ...]

    def __str__(self) -> str:
        """The first picture's file, which names the shard in a message."""
        return str(self.root / self.paths[0])

    @property
    def digest(self) -> str:
        """SHA-256 of the folder, the paths, and each file's size and time: tells whether a record is its own."""
        lines = [str(self.root), *(f"{path}\n{stamp(self.root / path)}" for path in self.paths)]
        return hashlib.sha256(os.fsencode("\n".join(lines))).hexdigest()


@dataclass(frozen=True)
class ShardRecord:
    """A shard that was written.

    Attributes:
        name: its file.
        bytes: its size.
        sha256: its checksum.
        digest: of the `Shard` that it was written for.
        pictures: [path, offset, length] of each.
        left_out: [path, reason] of each that could not be read.
    """

    name: str
    bytes: int
    sha256: str
    digest: str
    pictures: list[tuple[str, int, int]]
    left_out: list[tuple[str, str]]


def plan_shards(index: PeopleIndex, folder: Path, sizes: NDArray[np.int64], shard_bytes: int) -> list[Shard]:
    """Share the pictures of an index out among shards of about one size, in mixed order: the same every time.

    Args:
        index: the pictures.
        folder: where the shards go.
        sizes: (n,) bytes of each picture's file.
        shard_bytes: what a shard may hold; a larger picture has its own.
    """
    order = np.random.default_rng(0).permutation(len(index))
    groups: list[list[str]] = []
    held = shard_bytes + 1
    for position in order.tolist():
        if held + sizes[position] > shard_bytes:
            groups.append([])
            held = 0
        groups[-1].append(index.paths[position])
        held += int(sizes[position])
    root = index.root.resolve()
    return [
        Shard(root, folder, f"pack-{number:05d}-of-{len(groups):05d}.tfrecord", tuple(paths))
        for number, paths in enumerate(groups)
    ]


def write_shard(shard: Shard) -> ShardRecord:
    """Write a shard and, after it, the record beside it; a shard whose record is there already stays.

    Pictures that cannot be decoded are left out.

    Raises:
        OSError: the folder cannot be written.
    """
    if (record := read_record(shard)) is not None:
        return record
    pictures: list[tuple[str, int, int]] = []
    left_out: list[tuple[str, str]] = []
    with written_aside(shard.folder / shard.name) as aside:
        _write_examples(aside, shard, pictures, left_out)
        size, checksum = aside.stat().st_size, file_sha256(aside)
    record = ShardRecord(shard.name, size, checksum, shard.digest, pictures, left_out)
    write_text(_record_path(shard), json.dumps(asdict(record)))
    return record


def _write_examples(
    path: Path, shard: Shard, pictures: list[tuple[str, int, int]], left_out: list[tuple[str, str]]
) -> None:
    import tensorflow as tf

    place = 0
    with tf.io.TFRecordWriter(str(path)) as writer:
        for name in shard.paths:
            try:
                data = read_below(shard.root, name)
                decoded(data, f"{shard.root}/{name}")
            except OSError as error:
                left_out.append((name, f"cannot be read ({error.strerror})"))
                continue
            except UnreadableImageError as error:
                left_out.append((name, str(error).removeprefix(f"{shard.root}/{name}: ").removesuffix(".")))
                continue
            text = example(data, name)
            writer.write(text)
            # A record is its length (8 bytes), a checksum (4), the example, a checksum (4).
            pictures.append((name, place + 12 + text.index(data), len(data)))
            place += len(text) + 16


def example(data: bytes, path: str) -> bytes:
    """The record of a picture: a serialised `tf.train.Example`."""
    import tensorflow as tf

    values = {"image/encoded": data, "image/path": os.fsencode(path)}
    values["label/person"] = os.fsencode(path.split("/")[0])
    features = {
        name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[value])) for name, value in values.items()
    }
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString(deterministic=True)


def read_record(shard: Shard) -> ShardRecord | None:
    """What was written of a shard; None where it is not there, not whole, or of other pictures."""
    try:
        values = json.loads(_record_path(shard).read_text(encoding="utf-8"))
        record = ShardRecord(**values)
        size = (shard.folder / shard.name).stat().st_size
    except (OSError, ValueError, TypeError):
        return None
    whole = record.digest == shard.digest and record.bytes == size
    return record if whole else None


def finish(folder: Path, records: Iterable[ShardRecord], source: Path) -> None:
    """Write the index and, last, pack.json; then remove the shards' own records.

    Args:
        folder: the packed folder.
        records: of all shards.
        source: the folder that the pictures come from.
    """
    ordered = sorted(records, key=lambda record: record.name)
    rows = [(path, place, start, size) for place, one in enumerate(ordered) for path, start, size in one.pictures]
    rows.sort(key=lambda row: row[0].split("/", 1))  # by person, then by name, as an index has them
    listed = csv_bytes([COLUMNS, *rows])
    write_bytes(folder / PICTURES, listed)
    shards = [
        {"name": one.name, "bytes": one.bytes, "sha256": one.sha256, "pictures": len(one.pictures)}
        for one in ordered
    ]
    values = {
        "version": VERSION,
        "source": str(source.resolve()),
        "pictures": len(rows),
        "index_sha256": hashlib.sha256(listed).hexdigest(),
        "shards": shards,
        "left_out": sorted(pair for record in ordered for pair in record.left_out),
    }
    write_text(folder / PACK, json.dumps(values, indent=2) + "\n")
    for record in ordered:
        (folder / f"{record.name}.json").unlink()


def source_of(folder: Path) -> Path:
    """The folder whose pictures a packed one holds, absolute.

    Raises:
        ValueError: the record cannot be read.
    """
    try:
        return Path(json.loads((folder / PACK).read_text(encoding="utf-8"))["source"]).resolve()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / PACK}: is not the record of a packed folder ({error}).") from None


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _record_path(shard: Shard) -> Path:
    return shard.folder / f"{shard.name}.json"
