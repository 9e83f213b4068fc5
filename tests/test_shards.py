"""Packed folders: the bytes of the files, readable by others, and the same batches as from the folder."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from facekit import loading, packed, shards
from facekit.images import UnreadableImageError
from facekit.index import PeopleIndex, index_people
from facekit.loading import PictureLoader
from facekit.packed import PackedPictures, damage, is_packed, reader, stamps
from facekit.picture_cache import file_stamps
from facekit.sampling import TupletSampler
from facekit.shards import finish, plan_shards, read_record, write_shard
from facekit.stream import batches
from facekit.workers import first_item


@pytest.fixture
def index(crops, tmp_path) -> PeopleIndex:
    """People to change; some names that sort and encode with care."""
    folder = shutil.copytree(crops, tmp_path / "people")
    (folder / "person_00003").rename(folder / "person_00002 b")  # in a path before person_00002/
    (folder / "person_00004").rename(folder / "Žofia, the 4th")
    (folder / "person_00005" / "0000.jpg").rename(folder / "person_00005" / "a\nb.jpg")
    os.rename(os.fsencode(folder / "person_00006/0001.jpg"), os.fsencode(folder / "person_00006/") + b"\xff.jpg")
    return index_people(folder)


def planned(index, folder, shard_bytes=20_000):
    return plan_shards(index, folder, file_stamps(index)[:, 0], shard_bytes)


def pack(index, folder, shard_bytes=20_000) -> PackedPictures:
    folder.mkdir(exist_ok=True)
    finish(folder, [write_shard(shard) for shard in planned(index, folder, shard_bytes)][::-1], index.root)
    return PackedPictures(folder)


def test_every_picture_is_in_one_shard_of_about_the_wanted_size(index, tmp_path):
    sizes = file_stamps(index)[:, 0]
    plan = planned(index, tmp_path, 20_000)
    assert sorted(path for shard in plan for path in shard.paths) == sorted(index.paths)
    by_path = dict(zip(index.paths, sizes, strict=True))
    totals = [sum(by_path[path] for path in shard.paths) for shard in plan]
    assert max(totals) <= 20_000 and min(totals[:-1]) > 20_000 - sizes.max()
    assert plan == planned(index, tmp_path, 20_000), "the same every time"
    assert [shard.name for shard in plan] == sorted(shard.name for shard in plan)
    assert all(len(shard.paths) == 1 for shard in planned(index, tmp_path, 1))
    people = [path.split("/")[0] for path in plan[0].paths]
    assert len(set(people)) > len(people) / 2, "mixed"


def test_a_shard_is_named_by_its_first_picture(index, tmp_path):
    shard = planned(index, tmp_path)[0]
    assert str(shard) == str(index.root / shard.paths[0]) == f"{first_item(shard)}"


def test_a_carriage_return_in_a_name_comes_back(index, tmp_path):
    (index.root / "person_00000/0000.jpg").rename(index.root / "person_00000/a\rb.jpg")
    found = pack(index_people(index.root, fresh=True), tmp_path / "packed")
    data = (index.root / "person_00000/a\rb.jpg").read_bytes()
    assert "person_00000/a\rb.jpg" in found.paths and found.read("person_00000/a\rb.jpg") == data


def test_a_packed_folder_is_the_same_people_and_bytes(index, tmp_path):
    found = pack(index, tmp_path / "packed")
    again = found.index()
    assert again.people == index.people and again.paths == index.paths and again.digest == index.digest
    np.testing.assert_array_equal(again.labels, index.labels)
    np.testing.assert_array_equal(again.sizes, file_stamps(index)[:, 0])
    for path in index.paths:
        assert found.read(path) == (index.root / path).read_bytes()
    assert is_packed(tmp_path / "packed") and not is_packed(index.root)
    assert len(found.shards) > 3 and sum(shard["pictures"] for shard in found.shards) == len(index)


def test_batches_from_shards_equal_those_from_the_folder(index, tmp_path):
    found = pack(index, tmp_path / "packed")
    streams = []
    for people in (index, found.index().choose(np.ones(16, bool))):
        loader = PictureLoader(people, 32, read=reader(people.root))
        streams.append(batches(TupletSampler(people.labels, 4, 3, 0), loader, people.labels, range(5)))
    for (images, labels), (same_images, same_labels) in zip(*streams, strict=True):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)


def test_plain_tensorflow_reads_the_shards(index, tmp_path):
    import tensorflow as tf

    pack(index, tmp_path / "packed")
    names = sorted(str(path) for path in (tmp_path / "packed").glob("*.tfrecord"))
    features = {
        name: tf.io.FixedLenFeature((), tf.string) for name in ("image/encoded", "image/path", "label/person")
    }
    records = [tf.io.parse_single_example(record, features) for record in tf.data.TFRecordDataset(names)]
    paths = [os.fsdecode(record["image/path"].numpy()) for record in records]
    assert sorted(paths) == sorted(index.paths)
    for path, record in zip(paths, records, strict=True):
        assert record["image/encoded"].numpy() == (index.root / path).read_bytes()
        assert os.fsdecode(record["label/person"].numpy()) == path.split("/")[0]


def test_the_index_tells_anybody_where_a_picture_lies(index, tmp_path):
    folder = tmp_path / "packed"
    pack(index, folder)
    names = [shard["name"] for shard in json.loads((folder / "pack.json").read_text())["shards"]]
    with (folder / "pictures.csv").open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == index.paths
    for row in rows:
        with (folder / names[int(row["shard"])]).open("rb") as file:
            file.seek(int(row["offset"]))
            assert file.read(int(row["length"])) == (index.root / row["path"]).read_bytes()


def test_unreadable_files_are_left_out_with_their_reason(index, tmp_path):
    first, second, third = index.paths[0], index.paths[20], index.paths[40]
    (index.root / first).write_bytes(b"broken")
    (index.root / second).unlink()
    (index.root / third).write_bytes((index.root / third).read_bytes()[:-200])
    found = pack(index, tmp_path / "packed")
    reasons = dict(found.left_out)
    assert sorted(reasons) == sorted([first, second, third])
    assert reasons[second] == "cannot be read (No such file or directory)"
    assert reasons[third].startswith("is ") and not reasons[third].endswith(".")
    assert len(found.index()) == len(index) - 3
    with pytest.raises(FileNotFoundError, match="not in the packed folder"):
        found.read(first)


def test_whole_shards_of_a_killed_run_are_kept_and_the_rest_is_made(index, tmp_path, monkeypatch):
    whole, folder = pack(index, tmp_path / "whole"), tmp_path / "packed"
    folder.mkdir()
    plan = planned(index, folder)
    for shard in plan[:2]:
        write_shard(shard)
    (folder / plan[2].name).write_bytes(b"written by a run that was killed before its record")
    (folder / plan[1].name).write_bytes(b"cut")
    before = (folder / plan[0].name).stat().st_mtime_ns
    assert read_record(plan[0]) and not read_record(plan[1]) and not read_record(plan[2])
    again = pack(index, folder)
    assert (folder / plan[0].name).stat().st_mtime_ns == before
    assert [shard["sha256"] for shard in again.shards] == [shard["sha256"] for shard in whole.shards]
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        path.name for path in (tmp_path / "whole").iterdir()
    )


def test_a_shard_of_other_pictures_is_not_kept(index, tmp_path):
    shard = planned(index, tmp_path)[0]
    write_shard(shard)
    fewer = shards.Shard(shard.root, shard.folder, shard.name, shard.paths[:3])
    assert read_record(fewer) is None
    assert len(write_shard(fewer).pictures) == 3


def test_a_failed_write_leaves_no_shard(index, tmp_path, monkeypatch):
    shard = planned(index, tmp_path)[0]

    def fail(data, name):
        raise RuntimeError("killed")

    monkeypatch.setattr(shards, "decoded", fail)
    with pytest.raises(RuntimeError):
        write_shard(shard)
    assert not (tmp_path / shard.name).exists() and read_record(shard) is None


def test_damage_is_named(index, tmp_path):
    folder = tmp_path / "packed"
    found = pack(index, folder)
    assert [damage(folder, shard) for shard in found.shards] == [""] * len(found.shards)
    victim = found.shards[1]
    path = folder / victim["name"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert hashlib.sha256(data).hexdigest() != victim["sha256"]
    assert [shard["name"] for shard in found.shards if damage(folder, shard)] == [victim["name"]]
    assert damage(folder, victim).startswith(f"{path}: is damaged: its SHA-256 is not the one in pack.json")
    path.write_bytes(data[:-1])
    with pytest.raises(ValueError, match=rf"{victim['name']}: has .* bytes, expected .*\. Copy it again"):
        PackedPictures(folder)
    path.unlink()
    assert "cannot be read" in damage(folder, victim)
    with pytest.raises(ValueError, match=f"{victim['name']}: cannot be read"):
        PackedPictures(folder)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("pack.json", "{", "pack.json: is not the record of a packed folder"),
        ("pack.json", '{"version": 99}', "version 99, expected 1"),
        ("pictures.csv", "path\n", "pictures.csv: is damaged"),
        ("pictures.csv", None, "pictures.csv: cannot be read"),
    ],
)
def test_a_wrong_index_is_refused(index, tmp_path, name, content, sentence):
    pack(index, tmp_path / "packed")
    path: Path = tmp_path / "packed" / name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ValueError, match=sentence):
        PackedPictures(tmp_path / "packed")


def test_many_shards_are_read_with_few_open_files(index, tmp_path, monkeypatch):
    monkeypatch.setattr(packed, "_MOST_OPEN", 2)
    found = pack(index, tmp_path / "packed", shard_bytes=1)
    before = len(os.listdir("/proc/self/fd"))
    for path in index.paths * 2:
        assert found.read(path) == (index.root / path).read_bytes()
    assert len(os.listdir("/proc/self/fd")) <= before + 2
    del found
    assert len(os.listdir("/proc/self/fd")) <= before


def test_a_shard_cut_after_opening_gives_an_error_not_half_a_picture(index, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "PAUSES", (0.0, 0.0))
    found = pack(index, tmp_path / "packed")
    for shard in found.shards:
        os.truncate(tmp_path / "packed" / shard["name"], 100)
    with pytest.raises(OSError, match="ends before it"):
        found.read(index.paths[0])
    with pytest.raises(UnreadableImageError, match=r"cannot be read \(.* ends before it\)"):
        PictureLoader(found.index(), 32, read=found.read).load(np.array([0]))


def test_stamps_follow_the_content(index, tmp_path):
    found = pack(index, tmp_path / "packed").index()
    before = stamps(found)
    assert before.shape == (len(index), 2) and len(np.unique(before, axis=0)) == len(index)
    np.testing.assert_array_equal(stamps(found.choose(np.arange(16) > 3)), before[found.labels > 3])
    np.testing.assert_array_equal(stamps(index), file_stamps(index))
    shutil.copyfile(index.root / index.paths[1], index.root / index.paths[0])
    assert (stamps(pack(index, tmp_path / "other").index())[0] != before[0]).any()
