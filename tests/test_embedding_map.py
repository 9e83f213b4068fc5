"""The map of embeddings by epoch: what a run keeps, where points lie, what the GIF shows."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from apps import embedding_map as command
from facekit import embedding_map
from facekit.embedding_map import Course, begin, draw, eased, keep, project, read_course
from facekit.images import read_image
from facekit.plots import COLOURS

PEOPLE = [name for name in ("Ann $1", "_Bob", "Cid_with_a_very_long_name") for _ in range(4)]


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def gathering(epochs: int) -> np.ndarray:
    """(epochs, 12, 8) unit rows of three people who gather epoch by epoch."""
    rng = np.random.default_rng(0)
    homes, noise = np.repeat(np.eye(3, 8), 4, axis=0), rng.normal(size=(12, 8))
    return np.stack([unit(homes + noise * (1.2 - share)) for share in np.linspace(0, 1, epochs)])


def kept(run: Path, epochs: int = 3) -> Path:
    """A run's folder with the embeddings of some epochs and its history."""
    folder = run / embedding_map.FOLDER
    greys = np.arange(20, 32, dtype=np.uint8)[:, None, None, None]
    begin(folder, PEOPLE, [f"{n}.jpg" for n in range(12)], greys * np.ones((1, 16, 16, 3), np.uint8))
    for epoch, rows in enumerate(gathering(epochs), 1):
        keep(folder, epoch, rows)
    lines = [f"{epoch},{0.5 + epoch / 100}" for epoch in range(1, epochs + 1)]
    (run / "history.csv").write_text("\n".join(["epoch,auc", *lines]) + "\n")
    return run


def frames(path: Path) -> tuple[list[np.ndarray], list[int]]:
    """A GIF's frames (H, W, 3) and how long each is shown, in milliseconds."""
    with Image.open(path) as gif:
        shown = []
        for frame in ImageSequence.Iterator(gif):
            shown.append((np.asarray(frame.convert("RGB")), frame.info["duration"]))
    return [frame for frame, _ in shown], [duration for _, duration in shown]


def test_what_is_kept_is_read_back(tmp_path):
    course = read_course(kept(tmp_path) / embedding_map.FOLDER)
    assert course.people == PEOPLE and course.epochs == [1, 2, 3]
    np.testing.assert_allclose(course.embeddings, gathering(3), atol=1e-3)
    assert [(name, face[0, 0, 0]) for name, face in course.faces.items()] == [
        ("Ann $1", 20),
        ("_Bob", 24),
        ("Cid_with_a_very_long_name", 28),
    ]
    assert all(face.shape == (64, 64, 3) for face in course.faces.values())
    assert (tmp_path / embedding_map.FOLDER / "epoch_0001.npy").stat().st_size < 12 * 8 * 2 + 200


def test_an_epoch_done_twice_writes_over_itself(tmp_path):
    folder = kept(tmp_path) / embedding_map.FOLDER
    keep(folder, 2, np.ones((12, 8)))
    course = read_course(folder)
    assert course.epochs == [1, 2, 3] and (course.embeddings[1] == 1).all()


def test_the_map_is_the_last_epoch_s_plane_and_each_epoch_lies_around_its_middle():
    embeddings = gathering(4) + np.array([0.0, 1.0, 2.0, 3.0])[:, None, None]
    points = project(embeddings)
    last = embeddings[-1] - embeddings[-1].mean(axis=0)
    _, _, directions = np.linalg.svd(last, full_matrices=False)
    np.testing.assert_allclose(points.mean(axis=1), 0, atol=1e-9)
    for rows, found in zip(embeddings, points, strict=True):
        wanted = (rows - rows.mean(axis=0)) @ directions[:2].T
        np.testing.assert_allclose(np.abs(found), np.abs(wanted), atol=1e-9)
    np.testing.assert_array_equal(points, project(embeddings))


def test_the_map_is_not_mirrored_from_one_epoch_to_the_next():
    embeddings = gathering(2)
    embeddings[0] = embeddings[1]
    np.testing.assert_array_equal(*project(embeddings))


def test_points_start_and_stop_slowly_and_pass_every_stop():
    stops = np.random.default_rng(0).normal(size=(3, 5, 2))
    points = eased(stops, 3)
    assert points.shape == (9, 5, 2)
    np.testing.assert_allclose(points[::4], stops)
    np.testing.assert_allclose(points[2], (stops[0] + stops[1]) / 2)
    first, second = np.abs(np.diff(points[:3], axis=0))
    assert (first < second).all()
    assert eased(stops[:1], 3).shape == (1, 5, 2)


def test_the_gif_moves_repeats_and_rests_at_the_end(tmp_path):
    draw(read_course(kept(tmp_path) / embedding_map.FOLDER), {1: 0.5, 3: 0.9}, tmp_path / "map.gif")
    found, durations = frames(tmp_path / "map.gif")
    assert len(found) == 9 and durations == [150, 50, 50, 50, 150, 50, 50, 50, 3000]
    assert all((one != other).any() for one, other in zip(found, found[1:], strict=False))
    titles = [frame[:45] for frame in found]  # rows above the map
    assert [(one == other).all() for one, other in zip(titles, titles[1:], strict=False)] == [
        True, True, True, False, True, True, True, False,
    ]  # fmt: skip
    with Image.open(tmp_path / "map.gif") as gif:
        assert gif.info["loop"] == 0
    still = read_image(tmp_path / "map.png")
    assert np.abs(still.astype(int) - found[-1]).mean() < 1  # only the palette differs
    assert (found[0][0, 0] == 255).all()


def test_every_person_has_a_colour_and_a_shape(tmp_path):
    draw(read_course(kept(tmp_path) / embedding_map.FOLDER), {}, tmp_path / "map.gif")
    picture = read_image(tmp_path / "map.png").reshape(-1, 3).astype(int)
    for colour in COLOURS[:3]:
        rgb = [int(colour[place : place + 2], 16) for place in (1, 3, 5)]
        assert (np.abs(picture - rgb).sum(axis=1) < 12).sum() > 100, colour
    assert len(set(embedding_map._MARKERS)) == embedding_map.MOST_PEOPLE


def test_a_long_run_with_many_pictures_stays_small(tmp_path):
    rng = np.random.default_rng(1)
    names = [f"person_{n:02d}" for n in range(embedding_map.MOST_PEOPLE)]
    people = [name for name in names for _ in range(embedding_map.MOST_EACH)]
    faces = {name: rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for name in names}
    rows = unit(rng.normal(size=(200, len(people), 16)))
    draw(Course(people, faces, list(range(1, 201)), rows), {}, tmp_path / "map.gif")
    assert (tmp_path / "map.gif").stat().st_size < 5e6
    assert len(frames(tmp_path / "map.gif")[0]) == 97


def test_a_single_epoch_is_a_still(tmp_path):
    draw(read_course(kept(tmp_path, 1) / embedding_map.FOLDER), {}, tmp_path / "map.gif")
    assert len(frames(tmp_path / "map.gif")[0]) == 1


def test_umap_is_named_with_its_install_line_where_it_is_missing(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "umap", None)
    assert command.main([str(kept(tmp_path)), "--method", "umap"]) == 2
    assert "pip install umap-learn. Or take pca." in capsys.readouterr().err
    assert not (tmp_path / "embedding_map.gif").exists()


def test_umap_learns_from_the_last_epoch_and_places_the_others(monkeypatch):
    class Stub:
        def __init__(self, n_neighbors, random_state, n_jobs):
            assert n_neighbors == 11 and random_state == 0

        def fit(self, rows):
            self.middle = rows[:, :2].mean(axis=0) + rows[0, :2]
            return self

        def transform(self, rows):
            return rows[:, :2] - self.middle

    monkeypatch.setitem(sys.modules, "umap", type("umap", (), {"UMAP": Stub}))
    points = project(gathering(3), "umap")
    np.testing.assert_allclose(points[-1, 0], 0, atol=1e-12)
    assert points.shape == (3, 12, 2) and np.abs(points[0, 0]).sum() > 0.01


def test_the_command_writes_beside_the_run_or_where_it_is_told(tmp_path, capsys):
    run = kept(tmp_path / "run")
    assert command.main([str(run)]) == 0
    assert "3 people, 12 pictures, 3 epochs" in capsys.readouterr().out
    assert (run / "embedding_map.gif").exists() and (run / "embedding_map.png").exists()
    assert command.main([str(run), "--output", str(tmp_path / "a.gif")]) == 0
    assert (tmp_path / "a.gif").read_bytes() == (run / "embedding_map.gif").read_bytes()
    (run / "history.csv").unlink()
    assert command.main([str(run), "--output", str(tmp_path / "b.gif")]) == 0
    assert (tmp_path / "b.gif").read_bytes() != (tmp_path / "a.gif").read_bytes()  # no AUC in the title


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (lambda run: [path.unlink() for path in run.glob("*/epoch*")], "embeddings: holds no embeddings. train.py"),
        (lambda run: (run / "embeddings" / "epoch_0002.npy").write_bytes(b"x"), "epoch_0002.npy: is damaged"),
        (lambda run: keep(run / "embeddings", 2, np.ones((3, 8))), "epoch_0002.npy: expected 12 rows"),
        (lambda run: (run / "embeddings" / "pictures.json").write_text("{}"), "pictures.json or faces.png cannot"),
        (lambda run: (run / "embeddings" / "faces.png").unlink(), "pictures.json or faces.png cannot be read"),
        (lambda run: (run / "history.csv").write_text("epoch,auc\n1,x\n"), "history.csv: cannot be understood"),
    ],
)
def test_what_cannot_be_drawn_is_one_sentence(tmp_path, capsys, harm, sentence):
    harm(kept(tmp_path))
    assert command.main([str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error


def test_a_wrong_name_is_one_sentence(tmp_path, capsys):
    assert command.main([str(tmp_path / "gone")]) == 2
    assert "there is no such folder. Give the folder of a run" in capsys.readouterr().err
    assert command.main([str(tmp_path), "--output", "map.png"]) == 2
    assert "`output` must be the name of a .gif file. Received: map.png." in capsys.readouterr().err
