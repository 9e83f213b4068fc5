"""Crops made again by another recipe, folders embedded, mirror images: what a model's recipe decides."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import evaluate
import inference
from config import Config, CropConfig
from crop_faces import crop_faces
from facekit import manifest
from facekit.alignment import CropRecipe, crop_face
from facekit.bundle import read_network, read_record, write_bundle, write_record
from facekit.images import as_stored, read_image
from facekit.mirror import with_mirror
from facekit.recutting import cut_alike, recut
from kept_embeddings import network_digest
from pictures import PictureReader, find_images
from recutting import cut_for_weights
from verifier import Verifier

WANTED = CropRecipe(size=150, template="dlib", quality=100)
EXACT = replace(WANTED, detector="mtcnn:exact")


@pytest.fixture(scope="module")
def usual(photos, tmp_path_factory) -> Path:
    """Crops of the photos by the usual recipe."""
    folder = tmp_path_factory.mktemp("usual") / "crops"
    crop_faces(CropConfig(input_dir=photos, output_dir=folder, processes=1))
    return folder


def test_crops_are_cut_anew_from_originals_and_landmarks(usual, photos, tmp_path):
    count = recut(usual, tmp_path / "new", WANTED, processes=1)
    rows, made = manifest.read(tmp_path / "new"), manifest.crop_folder(tmp_path / "new")
    assert count == sum(bool(row.crop) for row in rows.values()) > 20
    assert rows == manifest.read(usual) and made is not None and cut_alike(made.recipe, WANTED)
    row = next(row for row in rows.values() if row.face)
    expected = crop_face(read_image(photos / row.path), row.face.box, row.face.landmarks, WANTED)
    np.testing.assert_array_equal(read_image(tmp_path / "new" / row.crop), as_stored(expected, 100))
    (tmp_path / "new" / row.crop).unlink()
    assert recut(usual, tmp_path / "new", WANTED, processes=1) == 1, "an interrupted call goes on"


def test_lost_originals_are_refused(photos, tmp_path):
    own = Path(shutil.copytree(photos, tmp_path / "photos"))
    crop_faces(CropConfig(input_dir=own, output_dir=tmp_path / "crops", processes=1))
    lost = next(path for path in sorted(own.glob("*/*.jpg")))
    lost.write_bytes(b"another")
    with pytest.raises(
        ValueError, match=r"1 of their originals are gone .* changed since .*Crop the pictures anew"
    ):
        recut(tmp_path / "crops", tmp_path / "new", WANTED, processes=1)
    assert not (tmp_path / "new").exists()


def test_training_takes_crops_as_its_weights_want_them(usual, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("recutting.recipe_of_weights", lambda weights: WANTED if weights else None)
    settings = {"backbone": "dlib_resnet29", "image_size": 150, "weights": "dlib", "recut_dir": tmp_path}
    config = cut_for_weights(Config(train_dir=usual, **settings))
    assert config.train_dir.parent == tmp_path and manifest.crop_folder(config.train_dir).recipe.size == 150
    assert f"{usual}: cut otherwise than `weights` wants; 32 crops made" in capsys.readouterr().out
    assert cut_for_weights(Config(train_dir=usual, **settings)) == config
    assert "wants; crops were made from the originals before in" in capsys.readouterr().out
    assert cut_for_weights(config) == config, "cut so already"
    assert "expect less of the start" not in capsys.readouterr().out
    small = Config(train_dir=config.train_dir, **{**settings, "image_size": 112})
    assert cut_for_weights(small) == small
    said = "`weights` know faces of 150 px, `image_size` is 112: expect less of the start."
    assert said in capsys.readouterr().out
    (tmp_path / "file").touch()
    blocked = {**settings, "recut_dir": tmp_path / "file"}
    with pytest.raises(ValueError, match="cannot be written .* Choose another folder with `recut_dir`"):
        cut_for_weights(Config(train_dir=photos, **blocked))
    kept = Config(train_dir=usual, keep_crops=True, **settings)
    assert cut_for_weights(kept) == kept
    originals = cut_for_weights(Config(train_dir=photos, **settings))
    assert manifest.crop_folder(originals.train_dir).recipe == replace(WANTED)
    plain = Config(train_dir=usual)
    assert cut_for_weights(plain) == plain


def test_a_recipe_of_exact_landmarks_is_followed_from_originals_and_accepts_older_crops(
    usual, photos, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("recutting.recipe_of_weights", lambda _weights: EXACT)
    settings = {"backbone": "dlib_resnet29", "image_size": 150, "weights": "dlib", "recut_dir": tmp_path}
    originals = cut_for_weights(Config(train_dir=photos, **settings))
    assert manifest.crop_folder(originals.train_dir).recipe == EXACT
    older = cut_for_weights(Config(train_dir=usual, **settings))
    assert manifest.crop_folder(older.train_dir).recipe == WANTED, "found as they were, in whole pixels"
    assert (
        "Their faces were found with detector mtcnn, confidence 0.9 or more, and the model will look for them so; "
        "`weights` had detector mtcnn:exact, confidence 0.9 or more: to follow that, name the original pictures."
    ) in capsys.readouterr().out
    assert cut_for_weights(older) == older


def test_evaluations_search_the_originals_of_older_crops_for_exact_landmarks(usual, photos, tmp_path, caplog):
    names = sorted(path.relative_to(photos).as_posix() for path in photos.glob("*/*.jpg"))[:4]
    reader = PictureReader(EXACT, find_images(usual, names), tmp_path)
    assert f"{usual}: crops of another recipe than the model's: their originals are cut anew." in caplog.text
    caplog.clear()
    PictureReader(EXACT, find_images(usual, names), tmp_path)
    assert not caplog.text, "once is enough"
    (cache,) = tmp_path.iterdir()
    assert manifest.crop_folder(cache).recipe == EXACT
    (found,) = Verifier.find(_exact_verifier(), [read_image(photos / names[0])])
    expected = crop_face(read_image(photos / names[0]), found.face.box, found.face.landmarks, EXACT)
    np.testing.assert_array_equal(reader.read(names[0]), as_stored(expected, 100))


def _exact_verifier():
    """What `Verifier.find` needs of a bundle with that recipe."""
    return SimpleNamespace(record=SimpleNamespace(recipe=EXACT), bundle=Path("none"), _detector=None)


def test_the_mirror_image_is_averaged(rng):
    def embed(images):
        rows = images.reshape(len(images), -1).astype(np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    images = rng.integers(0, 256, (3, 4, 4, 3)).astype(np.uint8)
    both = np.stack([embed(image[None])[0] + embed(image[None, :, ::-1])[0] for image in images])
    both /= np.linalg.norm(both, axis=1, keepdims=True)
    np.testing.assert_allclose(with_mirror(embed)(images), both, atol=1e-6)
    np.testing.assert_allclose(with_mirror(embed)(images[:, :, ::-1]), both, atol=1e-6)


def test_a_flip_that_the_threshold_does_not_know_gives_no_verdict(bundle, photos, crops, tmp_path, capsys):
    two = [str(path) for path in sorted(photos.glob("*/*.jpg"))[:2]]
    assert inference.main([*two, "--model", str(bundle), "--flip", "True"]) == 2
    why = "its threshold was found without flips; `python evaluate.py calibrate --flip True` finds one with them"
    said = capsys.readouterr().out
    assert f"Threshold none\nVerdict: NO VERDICT ({why})\n" in said
    assert inference.main([*two, "--model", str(bundle), "--flip", "True", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["no_threshold"] == why
    record = read_record(bundle)
    flipped = replace(record, flip=True, threshold=replace(record.threshold, flip=True))
    write_bundle(tmp_path / "flipped", read_network(bundle), flipped)
    why = "its threshold was found with flips; `python evaluate.py calibrate --flip False` finds one without"
    assert Verifier(tmp_path / "flipped", False).no_threshold == why
    words = ["--model", tmp_path / "flipped", "--images", crops, "--as_crops", "--output", tmp_path / "report"]
    assert evaluate.main([str(word) for word in (*words, "--flip", "False")]) == 0
    assert f"The model has no threshold here: {why}. Accuracy and rates are those of " in capsys.readouterr().out
    assert evaluate.main([str(word) for word in words]) == 0
    assert "has no threshold here" not in capsys.readouterr().out


def test_crops_of_another_recipe_are_refused_unless_told(bundle, usual, tmp_path, capsys):
    recut(usual, tmp_path / "new", WANTED, processes=1)
    for folder, code in ((usual, (0, 1)), (tmp_path / "new", (2,))):
        two = [str(path) for path in sorted(folder.glob("*/*.jpg"))[:2]]
        assert inference.main([*two, "--model", str(bundle)]) in code
    assert "is a crop of another recipe than the model's (size 150 there, 112 here" in capsys.readouterr().err
    assert inference.main([*two, "--model", str(bundle), "--as_crops"]) in (0, 1)
    assert "taken whole, as a face already cut" in capsys.readouterr().out


MADE_BY = ("model", "network_sha256", "flip", "preprocessing_sha256", "as_crops")


def made_by_of(bundle: Path, flip: bool) -> dict[str, object]:
    """What a file of embeddings should say of the fixture's bundle."""
    hashed = replace(read_record(bundle), flip=flip).preprocessing()["sha256"]
    network = hashlib.sha256((bundle / "model.keras").read_bytes()).hexdigest()
    return dict(zip(MADE_BY, ("fixture", network, flip, hashed, False), strict=True))


def test_a_folder_is_embedded_and_goes_on_where_it_stopped(bundle, photos, tmp_path, monkeypatch, capsys):
    import embedding

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(embedding, "PART", 10)
    command = ["--embed", str(photos), "--output", "rows.npz", "--model", str(bundle)]
    real, calls = Verifier.embed_crops, []

    def stopped(self, crops):
        calls.append(len(crops))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, crops)

    monkeypatch.setattr(Verifier, "embed_crops", stopped)
    assert inference.main(command) == 130 and not Path("rows.npz").exists()
    monkeypatch.setattr(Verifier, "embed_crops", real)
    assert inference.main(command) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"Model fixture ({bundle}), 2020-01-01T00:00:00; faces as they are, without flips\n")
    assert "20 of them by an earlier call: rows.npz" in said
    assert not Path("rows.npz.parts").exists()
    with np.load("rows.npz") as found:
        paths, rows = found["paths"], found["embeddings"]
        made_by = {name: found[name].item() for name in MADE_BY}
    assert made_by == made_by_of(bundle, flip=False)
    assert len(paths) == 32 and rows.shape == (32, 16)
    direct = Verifier(bundle).embed([photos / str(path) for path in paths])
    np.testing.assert_allclose(rows, direct, atol=1e-5)
    Path("folder.npz").mkdir()
    assert inference.main([*command[:3], "folder.npz", *command[4:]]) == 2
    assert "`output` folder.npz: is a folder. Name a file." in capsys.readouterr().err
    assert inference.main([*command[:3], "rows.txt", *command[4:]]) == 2
    assert "must end in .npz or .parquet" in capsys.readouterr().err
    assert inference.main(["--embed", str(photos)]) == 2 and inference.main([]) == 2
    assert "Name two pictures to compare, or a folder of pictures with `--embed`" in capsys.readouterr().err


def test_crops_of_another_recipe_are_embedded_as_they_are_when_told(bundle, usual, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    recut(usual, tmp_path / "new", WANTED, processes=1)
    command = ["--embed", "new", "--output", "rows.npz", "--model", str(bundle)]
    assert inference.main([*command, "--as_crops"]) == 0
    assert "taken as faces already cut: rows.npz" in capsys.readouterr().out
    with np.load("rows.npz") as found:
        paths, rows = found["paths"], found["embeddings"]
    taken = Verifier(bundle).embed_crops([read_image(tmp_path / "new" / str(path)) for path in paths])
    np.testing.assert_allclose(rows, taken, atol=1e-5)
    assert inference.main(command) == 0
    with np.load("rows.npz") as found:
        assert np.abs(found["embeddings"] - rows).max() > 0.01, "cut anew from the originals"


def test_parquet_holds_what_npz_holds(bundle, photos, tmp_path, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed: pip install pyarrow")
    monkeypatch.chdir(tmp_path)
    (own := tmp_path / "a folder, ü").mkdir()
    for number, path in enumerate(sorted(photos.glob("*/*.jpg"))[:3]):
        shutil.copy(path, own / f"é 人 {number}.jpg")
    (own / "text.jpg").write_text("no picture")
    (own / "notes.txt").write_text("passed over")
    (own / "to nowhere.jpg").symlink_to("nowhere")
    os.mkfifo(own / "pipe.jpg")
    others = ["pipe.jpg", "text.jpg", "to nowhere.jpg"]
    for suffix in ("npz", "parquet"):
        assert inference.main(["--embed", str(own), "--output", f"rows.{suffix}", "--model", str(bundle)]) == 0
    told = parquet.read_table("rows.parquet").schema.metadata
    expected = made_by_of(bundle, flip=False) | {"flip": "false", "as_crops": "false"}
    assert {name.decode(): value.decode() for name, value in told.items()} == expected
    table = parquet.read_table("rows.parquet").to_pydict()
    with np.load("rows.npz") as found:
        assert table["path"] == found["paths"].tolist() == [*others, *(f"é 人 {n}.jpg" for n in range(3))]
        np.testing.assert_array_equal(np.array(table["embedding"], np.float32), found["embeddings"])
        assert table["reason"] == found["reasons"].tolist()
    reasons = dict(zip(table["path"], table["reason"], strict=True))
    assert {reasons[name] for name in others} == {"unreadable"}


def test_parquet_says_what_it_needs_before_the_work(bundle, photos, tmp_path, monkeypatch, capsys):
    import embedding

    monkeypatch.chdir(tmp_path)
    command = ["--embed", str(photos), "--output", "rows.parquet", "--model", str(bundle)]
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "pyarrow", None)
        assert inference.main(command) == 2
    assert "`output` rows.parquet needs pyarrow. Run: pip install 'pyarrow" in capsys.readouterr().err
    monkeypatch.setattr(embedding, "_arrow", lambda path: None)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    try:
        (foreign / os.fsdecode(b"\xff.jpg")).write_bytes(next(photos.glob("*/*.jpg")).read_bytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert inference.main(["--embed", str(foreign), *command[2:]]) == 2
    assert "its name is no UTF-8, which .parquet needs. Rename it, or choose .npz" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["foreign"]


def test_a_part_cut_by_a_crash_is_made_again(bundle, photos, tmp_path, monkeypatch, capsys):
    import embedding

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(embedding, "PART", 10)
    command = ["--embed", str(photos), "--output", "rows.npz", "--model", str(bundle)]
    with monkeypatch.context() as stopped:
        stopped.setattr(embedding, "_write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert inference.main(command) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    part = Path("rows.npz.parts/000000010.npz")
    part.write_bytes(part.read_bytes()[:500])
    assert inference.main(command) == 0
    assert "32 pictures, 32 with a face, 22 of them by an earlier call" in capsys.readouterr().out


def test_kept_embeddings_know_whether_flips_were_averaged(bundle, tmp_path):
    own = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    plain = network_digest(own)
    write_record(own, replace(read_record(own), flip=True))
    assert network_digest(own) != plain == network_digest(bundle)


def test_embedding_gives_the_reader_the_alignment_weights(bundle, photos, tmp_path, monkeypatch):
    import embedding

    monkeypatch.chdir(tmp_path)
    seen = []

    def reader(*arguments):
        seen.append(arguments)
        return PictureReader(*arguments)

    monkeypatch.setattr(embedding, "PictureReader", reader)
    embedding.embed_folder(Verifier(bundle), photos, tmp_path / "rows.npz")
    assert seen[0][-1] == bundle / "aligner.keras"
