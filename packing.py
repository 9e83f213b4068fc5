"""Pack a folder of people into a few large files, for network disks and many machines.

In:  a folder a person, pictures inside.
Out: TFRecord shards, pictures.csv (where each picture lies in them), pack.json (checksums, what was left out and
     why); `train_dir` may be the packed folder.
Run: python dataset.py pack crops --output_dir packed
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from facekit import manifest, runtime
from facekit.detectors import ALIGNER
from facekit.files import check_writable
from facekit.index import index_people
from facekit.lock import locked
from facekit.packed import PackedPictures, damage, is_packed
from facekit.picture_cache import file_stamps
from facekit.shards import Shard, ShardRecord, finish, plan_shards, write_shard
from facekit.workers import run_shards

# What goes along: it says how the pictures were made.
BESIDE = (manifest.MARKER, manifest.MANIFEST, ALIGNER, "synthetic.json", "labels.csv")


def pack_command(
    directory: Path,
    /,
    output_dir: Path | None = None,
    shard_mb: int = 256,
    processes: int = 0,
    cluster: str = "",
    verify: bool = False,
) -> None:
    """Pack a folder of people into a few large TFRecord files, which `train_dir` takes as it takes the folder.

    Started again after it was stopped, it keeps whole shards and makes the rest. Pictures that cannot be read are
    left out and listed.

    Args:
        directory: a folder with one folder a person; with --verify alone, a packed folder.
        output_dir: where the shards go.
        shard_mb: size of a shard in 10^6 bytes.
        processes: processes that read and write. 0: one a core.
        cluster: address of a Dask scheduler whose workers share these folders, tcp://host:8786; "": this machine.
        verify: compare every shard with its checksum, after packing, or of a folder that is packed already.
    """
    if output_dir is None:
        if not (verify and is_packed(directory)):
            raise ValueError("`output_dir` is required, unless --verify is given and the folder is a packed one.")
        output_dir = directory
    else:
        pack(directory, output_dir, shard_mb, processes, cluster)
    if verify:
        verify_packed(output_dir, processes, cluster)
        print(f"{output_dir}: every shard is as its checksum says.")


def pack(directory: Path, output_dir: Path, shard_mb: int = 256, processes: int = 0, cluster: str = "") -> None:
    """Pack a folder; see `pack_command`.

    Raises:
        ValueError: a folder or setting is wrong, or nothing can be read.
        KeyboardInterrupt: stopped; whole shards are kept.
    """
    if shard_mb < 1:
        raise ValueError(f"`shard_mb` must be at least 1. Received: {shard_mb}.")
    if is_packed(directory):
        raise ValueError(f"{directory}: is packed already.")
    if directory.resolve() in (output_dir.resolve(), *output_dir.resolve().parents):
        raise ValueError(f"{output_dir}: lies in the folder to be packed. Choose another `output_dir`.")
    if is_packed(output_dir):
        print(f"{output_dir}: holds a packed folder already. To pack again, remove it.")
        return
    index = index_people(directory, "directory")
    check_writable(output_dir, "output_dir")
    with locked(output_dir):
        # The sizes of now: the index may not have noticed files that were written over.
        sizes = file_stamps(index)[:, 0].clip(min=0)
        shards = plan_shards(index, output_dir.resolve(), sizes, shard_mb * 10**6)
        records = _write_all(shards, len(index), processes, cluster)
        if not any(record.pictures for record in records):
            raise ValueError(f"{directory}: none of its {len(index):,} pictures can be read.")
        for name in BESIDE:
            if (directory / name).is_file():
                shutil.copyfile(directory / name, output_dir / name)
        finish(output_dir, records, directory)
    _report(output_dir)


def _write_all(shards: Sequence[Shard], pictures: int, processes: int, cluster: str) -> list[ShardRecord]:
    """Write the shards that an earlier call did not; what it left of other shards goes."""
    from tqdm import tqdm

    names = {shard.name for shard in shards}
    for path in (*shards[0].folder.glob("pack-*.tfrecord*"), *shards[0].folder.glob(".pack-*")):
        if path.name.removesuffix(".json") not in names:
            path.unlink()
    records = []
    with (
        runtime.stop_requests("finishing the shards under way") as asked,
        tqdm(total=pictures, unit="images", desc="packing", smoothing=0.05) as bar,
    ):
        for record in run_shards(
            write_shard, shards, processes=processes, cluster=cluster, asked=asked, prepare=runtime.start_quietly
        ):
            records.append(record)
            bar.update(len(record.pictures) + len(record.left_out))
    if len(records) < len(shards):
        raise KeyboardInterrupt
    return records


def verify_packed(folder: Path, processes: int = 0, cluster: str = "") -> None:
    """Compare every shard of a packed folder with its checksum.

    Raises:
        ValueError: the folder, or a shard, is damaged; names every one.
    """
    packed = PackedPictures(folder)
    damages = run_shards(partial(damage, folder.resolve()), packed.shards, processes=processes, cluster=cluster)
    wrong = sorted(filter(None, damages))
    if wrong:
        raise ValueError(" ".join(wrong) + " Copy them again from where they came from, or pack again.")


def _report(folder: Path) -> None:
    packed = PackedPictures(folder)
    size = sum(shard["bytes"] for shard in packed.shards)
    print(f"{folder}: {packed.index().describe()}, in {len(packed.shards):,} files of {size / 1e6:,.0f} MB in all.")
    if packed.left_out:
        print(f"{len(packed.left_out):,} pictures could not be read and were left out:", file=sys.stderr)
    for path, reason in packed.left_out[:10]:
        print(f"  {path}: {reason}", file=sys.stderr)
