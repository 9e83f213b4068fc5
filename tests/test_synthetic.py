"""Drawn faces: pure functions of their numbers, labels that are right, people who can be told apart."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from apps import synthetic as command
from facekit import synthetic
from facekit.drawing.likeness import Sitter
from facekit.drawing.portrait import take_picture
from facekit.synthetic import Appearance, Identity, Photo, draw_crop, draw_photo, write_people

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
MTCNN_POINTS = ("left_eye", "right_eye", "nose", "mouth_left", "mouth_right")


def digest(photo: Photo) -> str:
    return hashlib.sha256(photo.image.tobytes() + photo.box.tobytes() + photo.landmarks.tobytes()).hexdigest()


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


# ---- Pure functions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", [draw_photo, draw_crop])
def test_same_numbers_same_picture_in_any_order(draw):
    forwards = [digest(draw(3, person, picture, 64)) for person in range(3) for picture in range(3)]
    backwards = [digest(draw(3, person, picture, 64)) for person in (2, 1, 0) for picture in (2, 1, 0)]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) == 9
    assert digest(draw(4, 0, 0, 64)) != forwards[0]


def test_same_picture_in_another_process():
    code = (
        "import hashlib; from facekit.synthetic import draw_photo; p = draw_photo(5, 6, 7);"
        "print(hashlib.sha256(p.image.tobytes() + p.box.tobytes() + p.landmarks.tobytes()).hexdigest())"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == digest(draw_photo(5, 6, 7))


def test_photo_has_the_shapes_it_promises():
    photo = draw_photo(0, 12, 0, 96)
    assert photo.image.shape == (96, 96, 3) and photo.image.dtype == np.uint8
    assert photo.box.shape == (4,) and photo.box.dtype == np.float32
    assert photo.landmarks.shape == (5, 2) and photo.landmarks.dtype == np.float32
    assert photo.identity == 12


@pytest.mark.parametrize("numbers", [(-1, 0, 0), (0, -1, 0), (0, 0, -1)])
def test_negative_numbers_are_refused(numbers):
    with pytest.raises(ValueError, match="numbered from 0"):
        draw_photo(*numbers)


def test_tiny_pictures_are_refused():
    with pytest.raises(ValueError, match="`size` must be at least 16 pixels. Received: 15."):
        draw_crop(0, 0, 0, 15)


# ---- Labels ------------------------------------------------------------------------------------------------


def test_landmarks_lie_in_the_box_and_the_box_in_the_picture():
    for person in range(40):
        photo = draw_photo(1, person, 0, 100)
        x, y, width, height = photo.box
        assert x >= 0 and y >= 0 and x + width <= 100 and y + height <= 100
        assert 0.35 <= max(width, height) / 100 <= 0.61
        assert (photo.landmarks > (x, y)).all() and (photo.landmarks < (x + width, y + height)).all()
        left_eye, right_eye, nose, left_mouth, right_mouth = photo.landmarks
        assert left_eye[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < max(left_mouth[1], right_mouth[1])


def plain_sitter(person: int) -> tuple[Identity, Appearance]:
    """A person and a look with nothing before the face, and a camera almost without faults."""
    identity = replace(Identity.from_seed(2, person), beard="none")
    look = Appearance.from_seed(2, person, 0, 0.0)
    look = replace(look, occlusion="none", noise=0.0, blur=0.0, jpeg_quality=100, exposure=1.0, mouth_open=0.0)
    return identity, replace(look, gaze_x=0.0, gaze_y=0.0, eyes_open=1.1)


def changed_pixels(person: int, feature: Literal["iris", "lips"]) -> tuple[np.ndarray, np.ndarray, float]:
    """Pixels (N, 2), x and y, that change when a feature turns green; the landmarks; the eye distance."""
    identity, look = plain_sitter(person)
    sitter = Sitter(identity, look)
    view = synthetic._photo_view(sitter, 300)
    before = take_picture(sitter, view, 300).astype(int)
    green: Any = {feature: (40.0, 250.0, 40.0)}
    after = take_picture(Sitter(replace(identity, **green), look), view, 300).astype(int)
    rows, columns = np.nonzero(np.abs(after - before).max(axis=2) > 24)
    landmarks = sitter.landmarks(view)
    return np.stack([columns, rows], axis=1), landmarks, float(np.linalg.norm(landmarks[1] - landmarks[0]))


@pytest.mark.parametrize("person", range(8))
def test_irises_are_where_the_eye_landmarks_are(person: int):
    pixels, landmarks, distance = changed_pixels(person, "iris")
    left = np.linalg.norm(pixels - landmarks[0], axis=1) < np.linalg.norm(pixels - landmarks[1], axis=1)
    for eye, found in ((0, pixels[left]), (1, pixels[~left])):
        assert np.linalg.norm((found.min(axis=0) + found.max(axis=0)) / 2 - landmarks[eye]) < 0.07 * distance


@pytest.mark.parametrize("person", range(8))
def test_lips_end_where_the_mouth_landmarks_are(person: int):
    pixels, landmarks, distance = changed_pixels(person, "lips")
    along = (landmarks[4] - landmarks[3]) / np.linalg.norm(landmarks[4] - landmarks[3])
    order = np.argsort(pixels @ along)
    for corner, found in ((3, pixels[order[0]]), (4, pixels[order[-1]])):
        assert np.linalg.norm(found - landmarks[corner]) < 0.1 * distance


def test_crops_are_aligned_to_the_template():
    residuals, errors = [], []
    for person in range(60):
        found = draw_crop(2, person, 0, 64).landmarks.astype(np.float64) * 112 / 64
        matrix, _ = cv2.estimateAffinePartial2D(found, TEMPLATE, method=cv2.LMEDS)
        assert matrix is not None
        centred, target = found - found.mean(axis=0), TEMPLATE - TEMPLATE.mean(axis=0)
        factor = np.vdot(centred @ (1, 1j), target @ (1, 1j)) / (centred**2).sum()
        errors.append([abs(factor) - 1, np.angle(factor), *(found.mean(axis=0) - TEMPLATE.mean(axis=0))])
        residuals.append(np.linalg.norm(found - TEMPLATE, axis=1))
    scale, angle, x, y = np.abs(errors).max(axis=0)
    assert scale < 0.1 and angle < 0.06 and x < 1.5 and y < 1.5
    assert np.mean(residuals) < 3.5


def test_mtcnn_agrees():
    from mtcnn import MTCNN

    photos = [draw_photo(0, person, 0) for person in range(64)]
    detector = MTCNN(device="CPU:0")
    answers = [
        answer
        for start in (0, 32)
        for answer in detector.detect_faces([p.image for p in photos[start : start + 32]])
    ]
    assert len(answers) == 64
    faces = [max(found, key=lambda face: face["confidence"], default=None) for found in answers]
    sure = [(p, f) for p, f in zip(photos, faces, strict=True) if f is not None and f["confidence"] >= 0.9]
    assert len(sure) >= 63
    points = np.array([[face["keypoints"][name] for name in MTCNN_POINTS] for _, face in sure])
    labels = np.array([photo.landmarks for photo, _ in sure])
    distance = np.linalg.norm(labels[:, 1] - labels[:, 0], axis=1)
    errors = np.linalg.norm(points - labels, axis=2) / distance[:, None]
    assert (np.median(errors, axis=0) < 0.06).all()
    overlaps = [overlap(photo.box, np.array(face["box"])) for photo, face in sure]
    assert np.median(overlaps) > 0.7


def overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes (x, y, width, height)."""
    low = np.maximum(first[:2], second[:2])
    high = np.minimum(first[:2] + first[2:], second[:2] + second[2:])
    shared = np.prod(np.maximum(high - low, 0))
    return float(shared / (first[2] * first[3] + second[2] * second[3] - shared))


# ---- People ------------------------------------------------------------------------------------------------


def test_a_person_stays_and_another_differs_everywhere():
    first, again, other = Identity.from_seed(0, 1), Identity.from_seed(0, 1), Identity.from_seed(0, 2)
    assert first == again
    drawn = [field.name for field in fields(Identity) if "range" in field.metadata]
    assert len(drawn) > 20
    assert all(getattr(first, name) != getattr(other, name) for name in drawn)
    looks = [Appearance.from_seed(0, 1, picture, 0.5) for picture in range(2)]
    drawn = [field.name for field in fields(Appearance) if "range" in field.metadata]
    assert all(getattr(looks[0], name) != getattr(looks[1], name) for name in drawn)


def test_every_parameter_of_a_person_changes_the_picture():
    identity, look = plain_sitter(3)
    # The forehead shows on a bald head only.
    people = [replace(identity, bald=bald) for bald in (False, True)]
    view = synthetic._photo_view(Sitter(identity, look), 250)
    before = [take_picture(Sitter(person, look), view, 250).astype(int) for person in people]
    for field in fields(Identity):
        if "range" in field.metadata:
            low, high = field.metadata["range"]
            value = low if getattr(identity, field.name) > (low + high) / 2 else high
            changed = {field.name: value}
            after = [take_picture(Sitter(replace(person, **changed), look), view, 250) for person in people]
            assert max(np.abs(a - b).max() for a, b in zip(after, before, strict=True)) > 4, field.name


def test_raw_pixels_tell_people_apart_a_little_but_not_well():
    people, pictures = 40, 4
    crops = [draw_crop(9, person, picture, 32).image for person in range(people) for picture in range(pictures)]
    rows = np.array(crops, np.float32).reshape(len(crops), -1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    who = np.repeat(np.arange(people), pictures)
    pairs = np.triu_indices(len(who), 1)
    auc = roc_auc_score((who[:, None] == who)[pairs], (rows @ rows.T)[pairs])
    assert 0.58 < auc < 0.82


# ---- Folders -----------------------------------------------------------------------------------------------


def test_folder_has_pictures_labels_and_marker(tmp_path: Path):
    root = write_people(tmp_path / "faces", 3, 2, seed=4, size=64)
    assert sorted(tree(root)) == sorted(
        ["labels.csv", "synthetic.json", *(f"person_0000{p}/000{k}.jpg" for p in range(3) for k in range(2))]
    )
    marker = json.loads((root / "synthetic.json").read_text())
    assert marker == {"synthetic": True, "seed": 4, "people": 3, "pictures_per_person": 2, "size": 64,
                      "crops": False, "version": 1}  # fmt: skip
    with (root / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"person_0000{p}/000{k}.jpg" for p in range(3) for k in range(2)]
    photo = draw_photo(4, 2, 1, 64)
    assert rows[5]["person"] == "person_00002"
    assert [float(value) for value in list(rows[5].values())[2:]] == pytest.approx(
        [*photo.box, *photo.landmarks.ravel()], abs=1e-3
    )
    written = cv2.cvtColor(cv2.imread(str(root / rows[5]["path"])), cv2.COLOR_BGR2RGB)
    assert np.abs(written.astype(int) - photo.image).mean() < 4


def test_crops_are_written_as_crops(tmp_path: Path):
    root = write_people(tmp_path, 1, 1, seed=4, size=64, crops=True)
    written = cv2.cvtColor(cv2.imread(str(root / "person_00000/0000.jpg")), cv2.COLOR_BGR2RGB)
    assert np.abs(written.astype(int) - draw_crop(4, 0, 0, 64).image).mean() < 4


def test_interrupted_folder_is_continued(tmp_path: Path):
    root = write_people(tmp_path / "faces", 2, 2, size=32)
    whole = tree(root)
    (root / "person_00001/0000.jpg").unlink()
    (root / "labels.csv").unlink()
    kept = root / "person_00000/0000.jpg"
    kept.write_bytes(b"left alone")
    write_people(root, 2, 2, size=32)
    assert tree(root) == whole | {"person_00000/0000.jpg": b"left alone"}


def test_finished_folder_is_not_touched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = write_people(tmp_path / "faces", 2, 2, size=32)
    monkeypatch.setattr(synthetic, "_write_person", lambda task: pytest.fail("drew again"))
    assert write_people(root, 2, 2, size=32) == root


def test_processes_write_the_same_bytes(tmp_path: Path):
    alone = write_people(tmp_path / "alone", 2, 2, size=32)
    together = write_people(tmp_path / "together", 2, 2, size=32, processes=2)
    assert tree(alone) == tree(together)


@pytest.mark.parametrize("change", [{"seed": 1}, {"people": 3}, {"size": 48}, {"crops": True}])
def test_folder_of_other_settings_is_refused(tmp_path: Path, change: dict[str, int]):
    settings = {"people": 2, "pictures_per_person": 1, "size": 32}
    write_people(tmp_path, **settings)  # type: ignore[arg-type]
    before = tree(tmp_path)
    with pytest.raises(ValueError, match=f"{tmp_path}: .*other settings.*choose another folder, or delete"):
        write_people(tmp_path, **(settings | change))  # type: ignore[arg-type]
    assert tree(tmp_path) == before


def test_foreign_folders_are_refused(tmp_path: Path):
    (tmp_path / "holiday.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=f"{tmp_path}: holds other files and no synthetic.json; choose another"):
        write_people(tmp_path, 1, 1)
    assert sorted(tree(tmp_path)) == ["holiday.jpg"]
    root = write_people(tmp_path / "faces", 1, 1, size=32)
    (root / "Ada").mkdir()
    with pytest.raises(ValueError, match="'Ada', which is not synthetic"):
        write_people(root, 1, 1, size=32)
    with pytest.raises(ValueError, match="is not a folder"):
        write_people(tmp_path / "holiday.jpg", 1, 1)


def test_range_gives_people_unequal_numbers(tmp_path: Path):
    root = write_people(tmp_path, 12, (2, 5), size=16)
    counts = [len(list(folder.iterdir())) for folder in sorted(root.glob("person_*"))]
    assert len(counts) == 12 and min(counts) >= 2 and max(counts) <= 5 and len(set(counts)) > 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"people": 0}, "`people` must be at least 1. Received: 0."),
        ({"pictures_per_person": 0}, "`pictures_per_person` must be at least 1"),
        ({"pictures_per_person": (5, 2)}, r"a range \(low, high\). Received: \(5, 2\)"),
        ({"seed": -1}, "`seed` must be at least 0"),
        ({"size": 8}, "`size` must be at least 16"),
        ({"processes": 0}, "`processes` must be at least 1"),
    ],
)
def test_wrong_numbers_are_refused_before_anything_is_written(tmp_path: Path, change: dict, message: str):
    with pytest.raises(ValueError, match=message):
        write_people(tmp_path / "faces", **({"people": 1, "pictures_per_person": 1} | change))
    assert not (tmp_path / "faces").exists()


# ---- The command -------------------------------------------------------------------------------------------


def test_command_writes_people_and_a_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ["--output_dir", str(tmp_path / "faces"), "--people", "2", "--pictures_per_person", "2", "3"]
    options += ["--size", "32", "--crops", "--processes", "1"]
    assert command.main([*options, "--sheet", str(tmp_path / "sheets/first.png")]) == 0
    sheet = cv2.imread(str(tmp_path / "sheets/first.png"))
    assert sheet is not None and sheet.shape == (64, 64, 3)
    assert len(list((tmp_path / "faces").glob("person_*"))) == 2
    capsys.readouterr()
    assert command.main([*options, "--seed", "9"]) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {tmp_path / 'faces'}: holds synthetic pictures of other settings")
    assert message.count("\n") == 1


def test_command_refuses_a_wrong_option(tmp_path: Path):
    with pytest.raises(SystemExit) as stop:
        command.main(["--output_dir", str(tmp_path / "faces"), "--people", "0"])
    assert stop.value.code == 2
    assert not (tmp_path / "faces").exists()
