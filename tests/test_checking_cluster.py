"""The doctor with a model on a cluster: the findings, figures and embeddings of a local run."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import dataset
import kept_embeddings
from examining import list_pictures
from facekit import manifest
from facekit.alignment import CropRecipe
from facekit.examination import examine_pictures
from facekit.manifest import CropFolder
from facekit.workers import first_item
from tests.test_cluster import scheduler, start_worker
from verifier import Verifier

pytest.importorskip("distributed", reason="needs the package distributed")


def with_manifest(folder: Path, recipe: CropRecipe) -> None:
    """Make a folder of drawn crops one of a recipe, whose originals are the crops themselves."""
    numbers = "0.99,10,10,40,45,20,28,44,28,32,40,23,50,41,50".split(",")
    names = list_pictures(folder)
    rows = [manifest.Row.from_cells([name, name, "", "1", *numbers, "5", "6"]) for name in names]
    manifest.rewrite(folder, rows)
    CropFolder(recipe, str(folder), True).write(folder)


@pytest.fixture(params=["of the model's recipe", "of another recipe"])
def folder(request: pytest.FixtureRequest, crops: Path, tmp_path: Path) -> Path:
    """Crops to damage, read as they are or made again by the model's recipe."""
    target = shutil.copytree(crops, tmp_path / "people")
    own = request.param == "of the model's recipe"
    with_manifest(target, CropRecipe() if own else replace(CropRecipe(), margin=CropRecipe().margin + 0.2))
    return target


def embeddings(output: Path) -> dict[str, np.ndarray]:
    """What a check keeps of each picture, by name."""
    (place,) = (output / "embeddings").iterdir()
    return {name: row for name, (_, row) in kept_embeddings._read_parts(place).items()}


def check(folder: Path, output: Path, bundle: Path, *options: str) -> int:
    return dataset.main(["check", str(folder), "--output_dir", str(output), "--model", str(bundle), *options])


def never_here(*_arguments: object) -> None:
    """In place of what only workers are to do."""
    raise AssertionError("embedded in this process")


@pytest.mark.slow
def test_a_check_on_a_cluster_finds_what_a_local_one_does(
    folder: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(kept_embeddings, "_AT_ONCE", 20)
    shutil.copy(folder / "person_00001/0000.jpg", folder / "person_00001/0001.jpg")
    shutil.copy(folder / "person_00002/0000.jpg", folder / "person_00003/0001.jpg")
    (folder / "person_00004/0000.jpg").write_bytes(b"")
    assert check(folder, tmp_path / "local", bundle, "--processes", "1") == 1
    with scheduler(tmp_path) as (address, processes):
        processes.append(start_worker(tmp_path, "--nworkers", "2"))
        monkeypatch.setattr(kept_embeddings, "embed_shard", never_here)
        assert check(folder, tmp_path / "cluster", bundle, "--cluster", address) == 1
    for name in ("findings.csv", "quality.csv", "exclude.txt", "files.csv"):
        assert (tmp_path / "local" / name).read_bytes() == (tmp_path / "cluster" / name).read_bytes()
    local, cluster = embeddings(tmp_path / "local"), embeddings(tmp_path / "cluster")
    assert set(local) == set(cluster) and len(local) == 95 and np.isfinite(list(local.values())).all()
    for name, row in local.items():
        np.testing.assert_allclose(cluster[name], row, atol=1e-5)


def test_shards_load_the_model_once_and_give_its_rows(folder: Path, bundle: Path, tmp_path: Path):
    """What a worker calls, called here."""
    verifier = Verifier(bundle)
    digest = kept_embeddings.network_digest(bundle)
    pictures = examine_pictures(list_pictures(folder), folder)
    expected = kept_embeddings.embed_folder(verifier, folder, pictures, tmp_path)
    assert np.isfinite(expected).all()
    read = kept_embeddings._readers(verifier, folder, [seen.path for seen in pictures], tmp_path)
    names = [seen.path for seen in pictures[6:10]]
    shard = kept_embeddings.Shard([6, 7, 8, 9], names, read(names))
    positions, rows = kept_embeddings.embed_with_bundle(bundle, digest, shard)
    assert positions == [6, 7, 8, 9] and f"{first_item(shard)}" == names[0]
    np.testing.assert_allclose(rows, expected[6:10], atol=1e-5)
    assert kept_embeddings._loaded(bundle, digest) is kept_embeddings._loaded(bundle, digest)


def test_a_worker_that_sees_another_model_refuses(bundle: Path, crops: Path):
    shard = kept_embeddings.Shard([], [], lambda name: None)
    with pytest.raises(ValueError, match="the worker sees another model there"):
        kept_embeddings.embed_with_bundle(bundle, "0123456789abcdef", shard)


def test_what_is_embedded_is_kept_when_the_work_breaks_off(
    crops: Path, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder = shutil.copytree(crops, tmp_path / "people")
    with_manifest(folder, CropRecipe())
    monkeypatch.setattr(kept_embeddings, "_AT_ONCE", 16)
    real, calls = kept_embeddings.embed_shard, []

    def broken(verifier: Verifier, shard: kept_embeddings.Shard) -> kept_embeddings.Embedded:
        calls.append(shard)
        if len(calls) == 3:
            raise OSError("the disk is gone")
        return real(verifier, shard)

    monkeypatch.setattr(kept_embeddings, "embed_shard", broken)
    pictures = examine_pictures(list_pictures(folder), folder)
    with pytest.raises(OSError, match="the disk is gone"):
        kept_embeddings.embed_folder(Verifier(bundle), folder, pictures, tmp_path)
    assert list(embeddings(tmp_path)) == [seen.path for seen in pictures[:32]]
