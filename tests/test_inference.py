"""Two pictures and a verdict: exit codes, words, JSON, and every way in which a picture or model can be wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import inference
from facekit.bundle import read_network, read_record, write_bundle, write_record
from facekit.images import read_image
from verifier import NoFaceError, Verifier, find_bundle

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def two(photos) -> tuple[str, str]:
    """Photos of two people."""
    people = sorted(path for path in photos.iterdir() if path.is_dir())
    return str(sorted(people[0].iterdir())[0]), str(sorted(people[1].iterdir())[0])


def variant(bundle: Path, folder: Path, **changes) -> Path:
    """The fixture's bundle with another record."""
    write_bundle(folder, read_network(bundle), dataclasses.replace(read_record(bundle), **changes))
    return folder


def at(bundle: Path, folder: Path, threshold: float) -> Path:
    record = read_record(bundle)
    assert record.threshold is not None
    return variant(bundle, folder, threshold=dataclasses.replace(record.threshold, value=threshold))


def test_verdicts_and_exit_codes(bundle, two, tmp_path, capsys):
    loose, strict = at(bundle, tmp_path / "loose", 2.0), at(bundle, tmp_path / "strict", 1e-9)
    assert inference.main([*two, "--model", str(loose)]) == 0
    said = capsys.readouterr().out
    assert "Verdict: SAME PERSON" in said and str(loose) in said and "Threshold 2.0000, made up: FMR" in said
    assert all(path in said for path in two) and "Distance" in said and "cosine" in said
    assert inference.main([*two, "--model", str(strict)]) == 1
    assert "Verdict: DIFFERENT PEOPLE" in capsys.readouterr().out
    assert inference.main([two[0], two[0], "--model", str(bundle)]) == 0


def test_json_has_the_same(bundle, two, capsys):
    inference.main([*two, "--model", str(bundle), "--json"])
    values = json.loads(capsys.readouterr().out)
    assert list(values)[:4] == ["same", "distance", "cosine", "probability"] and values["probability"] is None
    assert values["same"] == (values["distance"] < values["threshold"] == 0.5)
    np.testing.assert_allclose(values["distance"] ** 2, 2 - 2 * values["cosine"], atol=1e-5)
    for picture, path in zip(values["pictures"], two, strict=True):
        assert picture["path"] == path and len(picture["box"]) == 4 and len(picture["landmarks"]) == 5


def test_the_numbers_are_those_of_crops_on_disk(bundle, photos, two, tmp_path):
    import crop_faces

    arguments = ["--input_dir", photos, "--output_dir", tmp_path, "--processes", 1]
    assert crop_faces.main([str(argument) for argument in arguments]) == 0
    verifier = Verifier(bundle)
    on_disk = verifier.embed_crops([read_image(tmp_path / Path(path).relative_to(photos)) for path in two])
    np.testing.assert_allclose(verifier.embed([read_image(Path(path)) for path in two]), on_disk, atol=2e-3)


def test_the_drawing(bundle, two, tmp_path):
    inference.main([*two, "--model", str(bundle), "--output", str(tmp_path / "new" / "drawn.png")])
    drawn = read_image(tmp_path / "new" / "drawn.png")
    assert drawn.shape[1] > 500 and drawn.std() > 20


def test_a_model_of_whole_pictures_takes_them_whole(bundle, two, tmp_path, capsys):
    whole = variant(bundle, tmp_path / "whole", recipe=None)
    assert inference.main([two[0], two[0], "--model", str(whole)]) == 0
    assert "taken whole" in capsys.readouterr().out


def test_without_a_threshold_there_is_no_verdict(bundle, two, tmp_path, capsys):
    bare = variant(bundle, tmp_path / "bare", threshold=None)
    assert inference.main([*two, "--model", str(bare)]) == 2
    assert "NO VERDICT (uncalibrated)" in capsys.readouterr().out


def test_pictures_that_cannot_be_compared_are_named(bundle, two, tmp_path, capsys):
    (tmp_path / "text.jpg").write_text("not a picture")
    PIL.Image.new("RGB", (200, 200)).save(tmp_path / "black.png")
    for name, words in [
        ("none.jpg", "cannot be read"),
        ("text.jpg", "not a picture"),
        ("black.png", "no face was found"),
    ]:
        assert inference.main([two[0], str(tmp_path / name), "--model", str(bundle)]) == 2
        error = capsys.readouterr().err
        assert name in error and words in error and "Traceback" not in error


def test_several_faces(bundle, two, tmp_path, capsys):
    both = np.hstack([read_image(Path(path)) for path in two])
    PIL.Image.fromarray(both).save(tmp_path / "both.png")
    inference.main([two[0], str(tmp_path / "both.png"), "--model", str(bundle)])
    assert "2 faces, this one chosen" in capsys.readouterr().out
    record = read_record(bundle)
    assert record.recipe is not None
    only = variant(bundle, tmp_path / "only", recipe=dataclasses.replace(record.recipe, choose="only"))
    assert inference.main([two[0], str(tmp_path / "both.png"), "--model", str(only)]) == 2
    assert "several faces were found" in capsys.readouterr().err


def test_the_model_is_checked_before_the_pictures_and_they_before_the_default(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert inference.main(["none.jpg"]) == 2
    assert "Name two pictures to compare, or a folder of pictures with `--embed`." in capsys.readouterr().err
    assert inference.main(["none.jpg", "none.jpg", "--model", "nowhere"]) == 2
    assert "nowhere: is not a model bundle" in capsys.readouterr().err
    assert inference.main(["none.jpg", "none.jpg"]) == 2
    assert "none.jpg: cannot be read" in capsys.readouterr().err


def test_the_default_is_the_newest_model_of_real_pictures(bundle, two, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pretrained.pretrained_bundle", lambda: Path("the pretrained one"))
    assert find_bundle() == Path("the pretrained one")
    for day, (name, synthetic) in enumerate([("undated", False), ("old", False), ("new", False), ("drawn", True)]):
        created = f"2026-01-0{day}T00:00:00" if day else "from a package"
        variant(bundle, tmp_path / "runs" / name / "bundle", synthetic=synthetic, created=created)
    assert find_bundle() == Path("runs/new/bundle")
    old = read_record(Path("runs/old/bundle"))
    write_record(Path("runs/old/bundle"), dataclasses.replace(old, threshold=None))
    assert find_bundle() == Path("runs/new/bundle"), "calibrating a bundle makes it no newer"
    variant(bundle, tmp_path / "runs" / "newer" / "bundle", created="2026-01-02T00:00:00")
    assert find_bundle() == Path("runs/new/bundle"), "of two of one moment the first by name"
    for name in ("newer", "new", "old"):
        shutil.rmtree(f"runs/{name}")
    assert find_bundle() == Path("runs/undated/bundle")
    shutil.rmtree("runs/undated")
    assert find_bundle() == Path("the pretrained one"), "a model of drawn faces is never the default"
    variant(bundle, tmp_path / "runs" / "broken" / "bundle")
    (tmp_path / "runs/broken/bundle/model.keras").write_bytes(b"")
    capsys.readouterr()
    assert find_bundle() == Path("the pretrained one")
    assert "Passed over: runs/broken/bundle/model.keras: is damaged" in capsys.readouterr().err
    Path("runs/broken/bundle/bundle.json").write_text("{")
    assert find_bundle() == Path("the pretrained one")
    assert "Passed over: runs/broken/bundle/bundle.json: cannot be understood" in capsys.readouterr().err


def test_a_model_is_named_in_python_as_on_the_command_line(bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pretrained.pretrained_bundle", lambda: bundle)
    for name in ("pretrained", Path("pretrained"), None):
        assert Verifier(name).bundle == bundle and Verifier(name).engine == "onnx"
    with pytest.raises(ValueError, match=r"`model` pretraned: there is no such folder. Did you mean `pretrained`"):
        Verifier("pretraned")
    assert inference.main(["a.jpg", "b.jpg", "--model", "Pretrained"]) == 2
    assert "Did you mean `pretrained`?" in capsys.readouterr().err
    variant(bundle, tmp_path / "pretraned")
    assert Verifier("pretraned").bundle == Path("pretraned"), "a folder of that name is taken"


def test_the_library_is_quiet_and_loads_no_tensorflow(bundle, two):
    code = (
        "import sys\nfrom inference import Verifier\n"
        "verifier = Verifier(sys.argv[1])\nassert verifier.verify(*sys.argv[2:]).distance >= 0\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code, bundle, *two], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_as_a_library(bundle, two):
    verifier = Verifier(bundle)
    one, other = (read_image(Path(path)) for path in two)
    black = np.zeros((120, 120, 3), np.uint8)
    rows = verifier.embed([one, black, other])
    assert rows.shape == (3, 16) and np.isnan(rows[1]).all()
    np.testing.assert_allclose(np.linalg.norm(rows[[0, 2]], axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(verifier.embed([two[0]])[0], verifier.embed([one])[0], atol=1e-6)
    for wrong in (one.astype(np.float32) / 255, one[:, :, 0]):
        with pytest.raises(ValueError, match=r"must be a path or an \(H, W, 3\) uint8 array in RGB"):
            verifier.embed([wrong])
    comparison = verifier.verify(one, two[1])
    np.testing.assert_allclose(comparison.distance, np.linalg.norm(rows[0] - rows[2]), atol=1e-4)
    with pytest.raises(NoFaceError, match="Picture 2: no face"):
        verifier.verify(one, black)
