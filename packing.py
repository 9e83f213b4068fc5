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

import tyro
from pydantic import Field

from facekit import manifest, runtime
from facekit.detectors import ALIGNER
from facekit.files import check_writable
from facekit.index import index_people
from facekit.lock import locked
from facekit.packed import PackedPictures, damage, is_packed
from facekit.picture_cache import file_stamps
from facekit.settings import Settings, parse
from facekit.shards import Shard, ShardRecord, finish, plan_shards, source_of, write_shard
from facekit.workers import run_shards

# What goes along: it says how the pictures were made.
BESIDE = (manifest.MARKER, manifest.MANIFEST, ALIGNER, "synthetic.json", "labels.csv")


class PackCommand(Settings):
    """Pack a folder of people into a few large TFRecord files, which `train_dir` takes as it takes the folder.

    Started again after it was stopped, it keeps whole shards and makes the rest. Pictures that cannot be read are
    left out and listed.
    """

    directory: tyro.conf.Positional[Path]
    """A folder with one folder a person; with --verify alone, a packed folder."""

    output_dir: Path | None = None
    """Where the shards go."""

    shard_mb: int = Field(256, ge=1)
    """Size of a shard in 10^6 bytes."""

    processes: int = Field(0, ge=0, le=256)
    """Processes that read and write. 0: one a core."""

    cluster: str = ""
    """Address of a Dask scheduler whose workers share these folders, tcp://host:8786; "": this machine."""

    verify: bool = False
    """Compare every shard with its checksum, after packing, or of a folder that is packed already."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 2 wrong input, 130 interrupted."""
    command = parse(PackCommand, argv, program="dataset.py pack")
    try:
        run(command)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. Nothing done is lost: run the same command again to go on.", file=sys.stderr)
        return runtime.INTERRUPTED
    return 0


def run(command: PackCommand) -> None:
    """Pack, then verify, as the command says. Errors as in `pack` and `verify_packed`."""
    output = command.output_dir
    if output is None:
        if not (command.verify and is_packed(command.directory)):
            raise ValueError("`output_dir` is required, unless --verify is given and the folder is a packed one.")
        output = command.directory
    else:
        pack(command.directory, output, command.shard_mb, command.processes, command.cluster)
    if command.verify:
        verify_packed(output, command.processes, command.cluster)
        print(f"{output}: every shard is as its checksum says.")


def pack(directory: Path, output_dir: Path, shard_mb: int = 256, processes: int = 0, cluster: str = "") -> None:
    """Pack a folder; the arguments are those of `PackCommand`.

    Raises:
        ValueError: a folder or setting is wrong, the output holds another folder's pack, or nothing can be read.
        KeyboardInterrupt: stopped; whole shards are kept.
    """
    if shard_mb < 1:
        raise ValueError(f"`shard_mb` must be at least 1. Received: {shard_mb}.")
    if is_packed(directory):
        raise ValueError(f"{directory}: is packed already.")
    if directory.resolve() in (output_dir.resolve(), *output_dir.resolve().parents):
        raise ValueError(f"{output_dir}: lies in the folder to be packed. Choose another `output_dir`.")
    if is_packed(output_dir):
        if (source := source_of(output_dir)) != directory.resolve():
            raise ValueError(
                f"{output_dir}: holds the packed pictures of {source}. Choose another `output_dir` for "
                f"{directory}, or remove it."
            )
        print(f"{output_dir}: holds this folder packed already. To pack again, remove it.")
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


if __name__ == "__main__":
    sys.exit(main())
