"""Cropping a folder tree: every picture gets a crop or a reason, and no run loses what another did."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import crop_faces
from config import CropConfig
from crop_faces import Job, find_pictures, plan_crops
from facekit import manifest
from facekit.alignment import CropRecipe, template
from facekit.cropping import Order, crop_chunk
from facekit.detection import MtcnnDetector
from facekit.images import read_image
from facekit.lock import locked

ROOT = Path(__file__).resolve().parent.parent


def run(*arguments: object) -> int:
    return crop_faces.main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def messy(photos, tmp_path_factory) -> Path:
    """Real photos among everything that a folder of pictures may hold."""
    folder = tmp_path_factory.mktemp("messy")
    people = sorted(path for path in photos.iterdir() if path.is_dir())
    for person in people[:3]:
        shutil.copytree(person, folder / person.name)
    good = sorted(people[0].iterdir())[0]
    picture = PIL.Image.open(good)
    odd = folder / "odd näme"
    odd.mkdir()
    picture.convert("L").save(odd / "grey.jpg")
    picture.convert("CMYK").save(odd / "cmyk.jpg")
    picture.convert("RGBA").save(odd / "alpha.png")
    picture.save(odd / "web.webp")
    picture.save(odd / "bit.bmp")
    picture.resize((900, 900)).save(odd / "large.jpg")
    picture.crop((0, 0, 250, 240)).save(odd / "other size.jpg")
    exif = PIL.Image.Exif()
    exif[0x112] = 6  # stored lying on its side: to be turned clockwise to be upright
    picture.transpose(PIL.Image.Transpose.ROTATE_90).save(odd / "turned.jpg", exif=exif, quality=95)
    data = good.read_bytes()
    bad = folder / "bad"
    bad.mkdir()
    (bad / "truncated.jpg").write_bytes(data[: len(data) // 2])
    (bad / "empty.jpg").write_bytes(b"")
    (bad / "text.jpg").write_text("not a picture")
    PIL.Image.new("RGB", (250, 250), (90, 120, 90)).save(bad / "blank.jpg")
    picture.resize((20, 20)).save(bad / "tiny.jpg")
    (bad / "notes.txt").write_text("passed over")
    os.symlink(good, folder / people[0].name / "link.jpg")
    return folder


@pytest.fixture(scope="module")
def cropped(messy, tmp_path_factory) -> Path:
    """The messy folder cropped, in this process."""
    output = tmp_path_factory.mktemp("cropped") / "out"
    assert run("--input_dir", messy, "--output_dir", output, "--processes", 1) == 0
    return output


def test_every_picture_has_a_crop_or_a_reason(messy, cropped):
    rows = manifest.read(cropped)
    assert sorted(rows) == find_pictures(messy)
    reasons = {path: row.reason for path, row in rows.items() if row.reason}
    assert reasons == {
        "bad/truncated.jpg": "unreadable",
        "bad/empty.jpg": "unreadable",
        "bad/text.jpg": "unreadable",
        "bad/blank.jpg": "no_face",
        "bad/tiny.jpg": "too_small",
    }
    for row in rows.values():
        assert (cropped / row.crop).is_file() == (not row.reason) if row.crop else row.reason
        if row.crop:
            assert read_image(cropped / row.crop).shape == (112, 112, 3)
            assert row.face is not None and row.faces >= 1 and row.face.confidence >= 0.9
    assert not list(cropped.rglob(".*"))


def test_the_same_face_is_found_whatever_the_file(cropped):
    rows = manifest.read(cropped)
    odd = {path: row for path, row in rows.items() if path.startswith("odd")}
    plain = rows[min(path for path in rows if path.startswith("person"))].face
    for path, row in odd.items():
        scale = 900 / 250 if "large" in path else 1.0
        distance = np.abs(row.face.landmarks / scale - plain.landmarks).max()
        assert distance < 6, path


def test_crops_are_aligned(cropped):
    crops = [read_image(cropped / row.crop) for row in manifest.read(cropped).values() if row.crop]
    found = MtcnnDetector().detect([np.pad(crop, ((40, 40), (40, 40), (0, 0))) for crop in crops])
    points = np.array([faces[0].landmarks - 40 for faces in found if faces])
    assert len(points) >= 0.8 * len(crops)
    assert np.abs(np.median(points, axis=0) - template(112)).max() < 4


def test_the_marker_holds_recipe_source_and_kind(messy, cropped, photos, tmp_path):
    made = manifest.crop_folder(cropped)
    assert made is not None and made.recipe == CropRecipe() and made.source == str(messy.resolve())
    assert not made.synthetic
    assert run("--input_dir", photos, "--output_dir", tmp_path, "--processes", 1, "--size", 64) == 0
    made = manifest.crop_folder(tmp_path)
    assert made is not None and made.synthetic and made.recipe.size == 64


def test_a_second_run_does_nothing(messy, cropped, capsys, monkeypatch):
    monkeypatch.setattr(crop_faces, "crop_chunk", lambda *_: pytest.fail("done again"))
    before = (cropped / "manifest.csv").read_bytes()
    assert run("--input_dir", messy, "--output_dir", cropped) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (cropped / "manifest.csv").read_bytes() == before


def test_lost_changed_and_cut_rows_are_done_again(messy, cropped, tmp_path):
    output, source = tmp_path / "out", tmp_path / "in"
    shutil.copytree(messy, source)
    assert run("--input_dir", source, "--output_dir", output, "--processes", 1) == 0
    whole = manifest.read(output)
    good = [row for row in whole.values() if row.crop]
    (output / good[0].crop).unlink()
    os.utime(source / good[1].path, ns=(1, 1))
    lines = (output / "manifest.csv").read_text().splitlines(keepends=True)
    cut = next(line for line in lines if line.startswith(good[2].path))
    lines.remove(cut)
    (output / "manifest.csv").write_text("".join(lines) + cut[:30])  # killed while writing
    seen = []
    original = crop_faces.crop_chunk
    crop_faces.crop_chunk = lambda order, jobs: (seen.extend(job.path for job in jobs), original(order, jobs))[1]
    try:
        assert run("--input_dir", source, "--output_dir", output, "--processes", 1) == 0
    finally:
        crop_faces.crop_chunk = original
    assert sorted(seen) == sorted(row.path for row in good[:3])
    assert set(manifest.read(output)) == set(whole)


def test_failed_pictures_are_retried_when_asked(messy, cropped, capsys):
    assert run("--input_dir", messy, "--output_dir", cropped, "--retry_failed", "--processes", 1) == 0
    assert "5 done now" in capsys.readouterr().out


def test_processes_give_what_one_gives(photos, tmp_path):
    for name, processes in (("one", 1), ("two", 2)):
        config = CropConfig(input_dir=photos, output_dir=tmp_path / name, processes=processes)
        crop_faces.PICTURES_A_CHUNK, kept = 8, crop_faces.PICTURES_A_CHUNK
        try:
            crop_faces.crop_faces(config)
        finally:
            crop_faces.PICTURES_A_CHUNK = kept
    one, two = manifest.read(tmp_path / "one"), manifest.read(tmp_path / "two")
    assert set(one) == set(two)
    for path, row in one.items():
        np.testing.assert_allclose(row.face.landmarks, two[path].face.landmarks, atol=0.5)


@pytest.mark.parametrize("processes", [1, 2])
def test_an_interrupted_run_keeps_what_it_did_and_goes_on(photos, tmp_path, processes):
    source, output = tmp_path / "many", tmp_path / "out"
    for copy in range(8):
        shutil.copytree(photos, source / str(copy))
    command = [sys.executable, "crop_faces.py", "--input_dir", str(source), "--output_dir", str(output)]
    # A session of its own: a terminal's Ctrl-C reaches the workers too.
    process = subprocess.Popen(
        [*command, "--processes", str(processes)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(output.rglob("*.jpg")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 130
    assert "run the same command again to go on" in error and "Traceback" not in error
    done = manifest.read(output)
    assert 0 < len(done) < 256
    # Nothing done is lost: every crop on disk has its row.
    crops = {path.relative_to(output).as_posix(): path.stat().st_mtime_ns for path in output.rglob("*.jpg")}
    assert set(crops) == {row.crop for row in done.values() if row.crop}
    assert run("--input_dir", source, "--output_dir", output, "--processes", 1) == 0
    assert len(manifest.read(output)) == 256
    assert all((output / crop).stat().st_mtime_ns == stamp for crop, stamp in crops.items())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--size", "96"], r"holds crops of another recipe"),
        (["--margin", "0.2"], r"holds crops of another recipe"),
    ],
)
def test_another_recipe_is_refused(messy, cropped, change, sentence, capsys):
    assert run("--input_dir", messy, "--output_dir", cropped, *change) == 2
    assert sentence in capsys.readouterr().err


def test_another_source_is_refused(photos, cropped, capsys):
    assert run("--input_dir", photos, "--output_dir", cropped) == 2
    assert "holds crops of" in capsys.readouterr().err


def test_wrong_folders_are_named(tmp_path, photos, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("in the way")
    for source, output, sentence in [
        (tmp_path / "none", tmp_path / "out", "none: there is no such folder"),
        (tmp_path / "empty", tmp_path / "out", "empty: holds no pictures"),
        (photos, photos, "`output_dir` and `input_dir` lie in one another"),
        (photos, photos.parent, "`output_dir` and `input_dir` lie in one another"),
        (photos, photos / "crops", "`output_dir` and `input_dir` lie in one another"),
        (photos, tmp_path / "file", "file: cannot be written"),
    ]:
        assert run("--input_dir", source, "--output_dir", output) == 2
        assert sentence in capsys.readouterr().err


def test_no_face_at_all_exits_with_1(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    PIL.Image.new("RGB", (80, 80)).save(tmp_path / "in" / "black.png")
    assert run("--input_dir", tmp_path / "in", "--output_dir", tmp_path / "out", "--processes", 1) == 1
    assert "no face was found in any picture" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "crops.json").read_text())["recipe"]["size"] == 112


def test_names_that_would_collide_are_kept_apart():
    jobs = plan_crops(["a/1.jpg", "a/1.png", "a/2.png", "a/3.bmp", "a/3.webp", "a/4.JPEG"])
    assert jobs == [
        Job("a/1.jpg", "a/1.jpg"),
        Job("a/1.png", "a/1.png.jpg"),
        Job("a/2.png", "a/2.png.jpg"),
        Job("a/3.bmp", "a/3.bmp.jpg"),
        Job("a/3.webp", "a/3.webp.jpg"),
        Job("a/4.JPEG", "a/4.JPEG"),
    ]


def test_no_two_pictures_ever_share_a_crop():
    names = [
        first + second + third
        for first in ("1", "1.png")
        for second in ("", ".png", ".jpg", ".JPEG")
        for third in (".jpg", ".png", ".bmp")
    ]
    crops = [job.crop for job in plan_crops(sorted(set(names)))]
    assert len(set(crops)) == len(set(names)) and all(crop.lower().endswith((".jpg", ".jpeg")) for crop in crops)


def test_long_names_are_cut_and_kept_apart():
    long, other = "é" * 125 + "a.png", "é" * 125 + "b.png"
    crops = [job.crop for job in plan_crops([f"p/{long}", f"p/{other}", "p/" + "x" * 236 + ".jpg"])]
    assert len(set(crops)) == 3 and crops[2] == "p/" + "x" * 236 + ".jpg"
    for crop in crops:
        assert len(os.fsencode(Path(crop).name)) <= 240 and crop.endswith(".jpg") and crop.startswith("p/")


@pytest.fixture
def odd_names(photos, tmp_path) -> tuple[Path, Path]:
    """A folder of names and things that nobody would make on purpose, and a good picture."""
    folder = tmp_path / "in"
    folder.mkdir()
    return folder, sorted(photos.rglob("*.jpg"))[0]


def test_odd_things_in_a_folder_have_a_row_or_are_passed_over(odd_names, tmp_path):
    folder, good = odd_names
    named = [
        "-rf.jpg",
        "new\nline.jpg",
        "re\rturn.jpg",
        "caf\udce9.jpg",
        "x" * 251 + ".jpg",
        'quo"te, comma.jpg',
        "a.png",
    ]
    for name in named:
        shutil.copy(good, folder / name)
    (folder / "empty folder").mkdir()
    (folder / "folder.jpg").mkdir()
    shutil.copy(good, folder / "folder.jpg" / "inside.jpg")
    shutil.copy(good, folder / ".hidden.jpg")
    (folder / "broken.jpg").symlink_to("gone")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "round").symlink_to(".")
    (folder / "folder.jpg" / "up").symlink_to("..")
    output = tmp_path / "out"
    for again in (False, True):
        assert run("--input_dir", folder, "--output_dir", output, "--processes", 1) == 0
        rows = manifest.read(output)
        assert sorted(rows) == sorted([*named, "folder.jpg/inside.jpg", "broken.jpg", "pipe.jpg"]), again
        assert {path for path, row in rows.items() if row.reason} == {"broken.jpg", "pipe.jpg"}
        assert {row.reason for row in rows.values()} == {"", "unreadable"}
        assert all((output / row.crop).is_file() for row in rows.values() if row.crop)


def test_linked_folders_are_read_once(tmp_path, photos):
    real = tmp_path / "real"
    shutil.copytree(photos, real)
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        (tmp_path / "in" / name).symlink_to(real)
    found = find_pictures(tmp_path / "in")
    assert len(found) == 32 and all(name.startswith("a/") for name in found)


def test_a_folder_that_may_not_be_listed_is_named(tmp_path, photos, monkeypatch):
    shutil.copytree(photos, tmp_path / "in")
    closed = sorted(path for path in (tmp_path / "in").iterdir() if path.is_dir())[0]
    original = os.scandir

    def scandir(path):
        if path == str(closed):
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.warns(UserWarning, match=rf"{closed.name}: cannot be listed \(Permission denied\)"):
        assert len(find_pictures(tmp_path / "in")) == 28


def test_a_crop_whose_name_has_changed_leaves_nothing_behind(tmp_path, photos):
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    good = sorted(photos.rglob("*.jpg"))[0]
    for name in ("1.png", "1.png.jpg"):
        shutil.copy(good, source / name)
    assert run("--input_dir", source, "--output_dir", output, "--processes", 1) == 0
    # As an earlier version named it: the one crop for both.
    (output / "1.png.jpg.jpg").rename(output / "1.png.jpg")
    text = (output / "manifest.csv").read_text().replace("1.png.jpg.jpg", "1.png.jpg")
    (output / "manifest.csv").write_text(text)
    assert run("--input_dir", source, "--output_dir", output, "--processes", 1) == 0
    assert sorted(path.name for path in output.glob("*.jpg")) == ["1.png.jpg", "1.png.jpg.jpg"]
    assert {row.crop for row in manifest.read(output).values()} == {"1.png.jpg", "1.png.jpg.jpg"}
    (output / "old.jpg").touch()
    (output / "manifest.csv").write_text(text.replace("1.png,1.png.jpg", "1.png,old.jpg"))
    assert run("--input_dir", source, "--output_dir", output, "--processes", 1) == 0
    assert not (output / "old.jpg").exists()


def test_a_second_process_in_the_same_folder_is_refused(tmp_path, photos, capsys):
    (tmp_path / "out").mkdir()
    with locked(tmp_path / "out"):
        assert run("--input_dir", photos, "--output_dir", tmp_path / "out", "--processes", 1) == 2
    assert re.search(r"out: process \d+ on .* is writing here", capsys.readouterr().err)


def test_folders_that_a_machine_does_not_see_are_named(tmp_path, photos):
    order = Order(photos, tmp_path, CropRecipe(), 40)
    with pytest.raises(ValueError, match=r"crops\.json: is not there on .*under the same path"):
        crop_chunk(order, [])
    (tmp_path / "crops.json").touch()
    assert crop_chunk(order, []).rows == []
    with pytest.raises(ValueError, match=r"gone: is not there on "):
        crop_chunk(Order(tmp_path / "gone", tmp_path, CropRecipe(), 40), [])


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_a_killed_run_leaves_no_process_and_goes_on(photos, tmp_path):
    source, output = tmp_path / "many", tmp_path / "out"
    for copy in range(5):
        shutil.copytree(photos, source / str(copy))
    command = [sys.executable, "crop_faces.py", "--input_dir", str(source), "--output_dir", str(output)]
    process = subprocess.Popen([*command, "--processes", "2"], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not manifest.read(output):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.kill()
    process.wait()
    while processes_with(str(process.pid)):
        assert time.monotonic() < deadline, "a worker lives on"
        time.sleep(0.05)
    assert 0 < len(manifest.read(output)) < 160
    assert run("--input_dir", source, "--output_dir", output, "--processes", 2) == 0
    assert len(manifest.read(output)) == 160 and not list(output.rglob(".*lock"))


def processes_with(parent: str) -> list[str]:
    """Processes whose command names this parent, as spawned workers' do (parent_pid=...)."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found += [path.parent.name] if f"parent_pid={parent}," in path.read_text() else []
        except OSError:
            continue
    return found


def test_the_fast_aligner_goes_into_recipe_and_folder(photos, tmp_path, capsys):
    from facekit.aligner_training import build_aligner

    weights = tmp_path / "weights.keras"
    build_aligner(width=4).save(weights)
    arguments = ["--input_dir", photos, "--output_dir", tmp_path / "out", "--min_confidence", 0, "--processes", 1]
    assert run(*arguments, "--aligner", "fast", "--aligner_path", weights) == 0
    made = manifest.crop_folder(tmp_path / "out")
    assert made is not None and re.fullmatch(r"fast:[0-9a-f]{16}", made.recipe.detector)
    assert (tmp_path / "out" / "aligner.keras").read_bytes() == weights.read_bytes()
    assert run(*arguments) == 2
    assert re.search(r"another recipe \(detector fast:\w+ there, mtcnn here\)", capsys.readouterr().err)
    for half in (["--aligner", "fast"], ["--aligner_path", weights]):
        with pytest.raises(SystemExit):
            run(*arguments, *half)
        assert "set both or neither" in capsys.readouterr().err


def test_the_smallest_face_goes_into_the_recipe(photos, tmp_path):
    assert run("--input_dir", photos, "--output_dir", tmp_path, "--min_face", 40, "--processes", 1) == 0
    made = manifest.crop_folder(tmp_path)
    assert made is not None and made.recipe.detector == "mtcnn:40"


def test_exact_landmarks_are_not_whole_pixels_and_are_another_recipe(photos, tmp_path, capsys):
    arguments = ["--input_dir", photos, "--output_dir", tmp_path / "out", "--processes", 1]
    assert run(*arguments, "--exact") == 0
    made = manifest.crop_folder(tmp_path / "out")
    assert made is not None and made.recipe.detector == "mtcnn:exact"
    points = np.concatenate([row.face.landmarks for row in manifest.read(tmp_path / "out").values() if row.face])
    usual = tmp_path / "usual"
    assert run("--input_dir", photos, "--output_dir", usual, "--processes", 1) == 0
    whole = np.concatenate([row.face.landmarks for row in manifest.read(usual).values() if row.face])
    np.testing.assert_array_equal(whole, whole.round())
    np.testing.assert_allclose(points, whole, atol=0.51)
    assert (points != whole).mean() > 0.9, "the manifest keeps hundredths"
    assert run(*arguments) == 2
    assert "another recipe (detector mtcnn:exact there, mtcnn here)" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(*arguments, "--exact", "--aligner", "fast", "--aligner_path", "aligner.keras")
    assert "`exact` goes with `aligner` mtcnn" in capsys.readouterr().err


@pytest.mark.parametrize("detector", ["mtcnn", "mtcnn:exact", "mtcnn:40", "mtcnn:exact:40"])
def test_settings_of_a_recipe_make_that_recipe(detector, tmp_path):
    recipe = CropRecipe(size=150, template="dlib", quality=100, choose="largest", detector=detector)
    settings = crop_faces.settings_of(recipe)
    config = CropConfig(input_dir=tmp_path, output_dir=tmp_path / "out", **settings)
    assert crop_faces.recipe_of(config) == recipe
    with pytest.raises(ValueError, match="'mtcnn:fine'; it is from another version"):
        crop_faces.settings_of(CropRecipe(detector="mtcnn:fine"))


def test_a_box_only_crop(photos, tmp_path):
    arguments = ["--method", "box", "--margin", "0.1", "--size", "80", "--processes", "1"]
    assert run("--input_dir", photos, "--output_dir", tmp_path, *arguments) == 0
    row = next(iter(manifest.read(tmp_path).values()))
    assert read_image(tmp_path / row.crop).shape == (80, 80, 3)


def test_a_real_face_is_found(lfw, tmp_path):
    source = tmp_path / "in"
    for person in sorted((lfw / "images").iterdir())[:20]:
        shutil.copytree(person, source / person.name)
    assert run("--input_dir", source, "--output_dir", tmp_path / "out", "--processes", 1) == 0
    rows = manifest.read(tmp_path / "out").values()
    assert sum(bool(row.crop) for row in rows) >= 0.97 * len(list(rows))


def test_a_picture_replaced_while_it_is_searched_is_cropped_again(photos, tmp_path, monkeypatch):
    from facekit import cropping

    source = tmp_path / "photos" / "ann"
    source.mkdir(parents=True)
    picture, other = sorted(photos.rglob("*.jpg"))[0], sorted(photos.rglob("*.jpg"))[-1]
    shutil.copyfile(picture, source / "1.jpg")
    find = cropping.find_faces

    def replace_meanwhile(*arguments):
        found = find(*arguments)
        shutil.copyfile(other, source / "1.jpg")
        return found

    settings = {"input_dir": tmp_path / "photos", "output_dir": tmp_path / "crops", "processes": 1}
    with monkeypatch.context() as patch:
        patch.setattr(cropping, "find_faces", replace_meanwhile)
        assert crop_faces.crop_faces(CropConfig(**settings)).processed == 1
    before = (tmp_path / "crops" / "ann" / "1.jpg").read_bytes()
    assert crop_faces.crop_faces(CropConfig(**settings)).processed == 1, "known as changed"
    assert (tmp_path / "crops" / "ann" / "1.jpg").read_bytes() != before
