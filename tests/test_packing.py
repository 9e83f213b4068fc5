"""The pack command: what it writes, goes on with, says and refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import packing
from facekit import manifest
from facekit.index import index_people
from facekit.packed import PackedPictures
from packing import PackCommand, main, pack, run


@pytest.fixture
def people(crops, tmp_path) -> Path:
    return shutil.copytree(crops, tmp_path / "people")


@pytest.fixture
def output(tmp_path) -> Path:
    return tmp_path / "packed"


def test_packing_in_this_process_says_what_it_did(people, output, capsys):
    (people / manifest.MARKER).write_text("{}")
    (people / manifest.MANIFEST).write_text("path\n")
    (people / "person_00000" / "0000.jpg").write_bytes(b"broken")
    assert main([str(people), "--output_dir", str(output), "--processes", "1", "--verify"]) == 0
    told = capsys.readouterr()
    assert "95 pictures of 16 people" in told.out and "in 1 files of" in told.out
    assert f"{output}: every shard is as its checksum says." in told.out
    assert "1 pictures could not be read and were left out:\n  person_00000/0000.jpg: is " in told.err
    assert (output / manifest.MARKER).read_text() == "{}" and (output / manifest.MANIFEST).is_file()
    assert len(PackedPictures(output).index()) == 95
    pack(people, output, processes=1)
    assert "holds this folder packed already" in capsys.readouterr().out


def test_a_pack_of_another_folder_is_not_taken_for_done(people, output, tmp_path, capsys):
    pack(people, output, processes=1)
    other = shutil.copytree(people, tmp_path / "other")
    assert main([str(other), "--output_dir", str(output)]) == 2
    told = capsys.readouterr().err
    assert f"error: {output}: holds the packed pictures of {people.resolve()}. Choose another `output_dir`" in told
    (tmp_path / "link").symlink_to(people)
    pack(tmp_path / "link", output)
    assert "holds this folder packed already" in capsys.readouterr().out
    (output / "pack.json").write_text("{")
    with pytest.raises(ValueError, match=r"pack\.json: is not the record of a packed folder"):
        pack(people, output)


def test_shards_of_another_folder_with_the_same_names_are_written_again(people, output, tmp_path, monkeypatch):
    other = shutil.copytree(people, tmp_path / "other")
    shutil.copy(people / "person_00001/0001.jpg", other / "person_00000/0000.jpg")

    def killed(*_arguments):
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(packing, "finish", killed)
        with pytest.raises(RuntimeError, match="killed"):
            pack(people, output, processes=1)
    pack(other, output, processes=1)
    expected = (other / "person_00000/0000.jpg").read_bytes()
    assert PackedPictures(output).read("person_00000/0000.jpg") == expected


def test_an_interrupted_call_says_that_nothing_is_lost(people, output, monkeypatch, capsys):
    monkeypatch.setattr(packing, "run_shards", lambda *_arguments, **_options: iter(()))
    assert main([str(people), "--output_dir", str(output)]) == 130
    assert "Nothing done is lost: run the same command again" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["--shard_mb", "0"], ["--processes", "-1"], ["--processes", "257"]])
def test_settings_out_of_range_are_refused(people, output, wrong, capsys):
    with pytest.raises((SystemExit, ValueError)) as refused:
        main([str(people), "--output_dir", str(output), *wrong])
    assert wrong[0].strip("-") in str(refused.value) + capsys.readouterr().err and not output.exists()


@pytest.mark.slow
def test_processes_give_the_same_shards(people, output, tmp_path, monkeypatch):
    monkeypatch.setattr(packing, "plan_shards", small_shards(packing.plan_shards))
    pack(people, output, processes=1)
    pack(people, tmp_path / "two", processes=2)
    checksums = [
        [shard["sha256"] for shard in PackedPictures(place).shards] for place in (output, tmp_path / "two")
    ]
    assert checksums[0] == checksums[1] and len(checksums[0]) > 2


def small_shards(plan):
    return lambda index, folder, sizes, shard_bytes: plan(index, folder, sizes, 40_000)


def test_a_stopped_call_goes_on_where_it_was(people, output, monkeypatch, capsys):
    monkeypatch.setattr(packing, "plan_shards", small_shards(packing.plan_shards))
    written = []

    def some(function, shards, **options):
        for shard in shards[:2]:
            written.append(shard.name)
            yield function(shard)

    with monkeypatch.context() as patch:
        patch.setattr(packing, "run_shards", some)
        with pytest.raises(KeyboardInterrupt):
            pack(people, output)
    (output / "pack-00000-of-00099.tfrecord").write_bytes(b"of another plan")
    (output / ".pack-00000-of-00004.1234abcd.tfrecord").write_bytes(b"half of a shard")
    times = {name: (output / name).stat().st_mtime_ns for name in written}
    pack(people, output, processes=1)
    assert times == {name: (output / name).stat().st_mtime_ns for name in written}
    assert PackedPictures(output).index().digest == index_people(people).digest
    expected = {shard["name"] for shard in PackedPictures(output).shards} | {"pack.json", "pictures.csv"}
    assert expected <= {path.name for path in output.iterdir()}
    assert not [path.name for path in output.iterdir() if "pack-" in path.name and path.name not in expected]


def test_verifying_names_every_damaged_shard(people, output, monkeypatch, capsys):
    monkeypatch.setattr(packing, "plan_shards", small_shards(packing.plan_shards))
    pack(people, output, processes=1)
    names = [shard["name"] for shard in PackedPictures(output).shards]
    for name in names[:2]:
        data = (output / name).read_bytes()
        (output / name).write_bytes(data[:50] + bytes([data[50] ^ 255]) + data[51:])
    with pytest.raises(ValueError, match=rf"{names[0]}: is damaged.*{names[1]}: is damaged.*Copy them again"):
        run(PackCommand(directory=output, verify=True, processes=1))
    assert "every shard is" not in capsys.readouterr().out


def test_wrong_calls_are_refused(people, output, tmp_path):
    with pytest.raises(ValueError, match="`output_dir` is required"):
        run(PackCommand(directory=people))
    with pytest.raises(ValueError, match="`shard_mb` must be at least 1. Received: 0"):
        pack(people, output, shard_mb=0)
    with pytest.raises(ValueError, match="lies in the folder to be packed"):
        pack(people, people / "packed")
    with pytest.raises(ValueError, match="nowhere: there is no such folder"):
        pack(tmp_path / "nowhere", output)
    for picture in people.glob("*/*.jpg"):
        picture.write_bytes(b"broken")
    with pytest.raises(ValueError, match="none of its 96 pictures can be read"):
        pack(people, output, processes=1)
    assert not (output / "pack.json").exists()
    shutil.rmtree(people)
    output.mkdir(exist_ok=True)
    (output / "pack.json").write_text("{}")
    with pytest.raises(ValueError, match="is packed already"):
        pack(output, tmp_path / "again")


def test_a_picture_that_changed_since_a_stopped_pack_is_packed_anew(people, tmp_path, monkeypatch):
    output = tmp_path / "packed"
    monkeypatch.setattr(packing, "finish", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pack(people, output, 1, 1)
    monkeypatch.undo()
    path = sorted(people.rglob("*.jpg"))[3]
    other = sorted(people.rglob("*.jpg"))[9].read_bytes()
    path.write_bytes(other)
    pack(people, output, 1, 1)
    name = path.relative_to(people).as_posix()
    assert PackedPictures(output).read(name) == other
