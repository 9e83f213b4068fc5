"""The command that trains the alignment network: who is held out, what is written, and its sentences."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from apps import bench, bench_aligner, train_aligner
from apps.train_aligner import main, measure, read_teacher, some, split_teacher, table_rows
from facekit import aligner_training, manifest
from facekit.aligner import central_square, read_aligner, square_place, to_view
from facekit.alignment import CropRecipe
from facekit.detection import Face, Finding
from facekit.manifest import CropFolder, Row


def rows_of(photos: Path) -> list[Row]:
    """Manifest rows of drawn photos, from their exact labels."""
    with (photos / "labels.csv").open(newline="") as file:
        lines = list(csv.reader(file))[1:]
    rows = []
    for path, _, *numbers in lines:
        values = np.array(numbers, np.float32)
        finding = Finding(Face(values[:4], 0.99, values[4:].reshape(5, 2)), 1)
        rows.append(Row.of(path, path, finding, 1, 1))
    return rows


def crop_folder(folder: Path, photos: Path, rows: list[Row], recipe: CropRecipe | None = None) -> Path:
    folder.mkdir()
    CropFolder(recipe or CropRecipe(), str(photos), True).write(folder)
    manifest.rewrite(folder, rows)
    return folder


@pytest.fixture
def teacher(tmp_path, photos) -> Path:
    return crop_folder(tmp_path / "crops", photos, rows_of(photos))


@pytest.fixture
def given(monkeypatch) -> list:
    """No training: the faces it was given, and an untrained network."""
    calls = []

    def train(sets, shares, **options):
        calls.append((sets, shares, options))
        options["on_epoch"](options["epochs"], 0.5)
        options["state"].touch()
        return aligner_training.build_aligner()

    monkeypatch.setattr(aligner_training, "train_aligner", train)
    return calls


def names(pictures) -> set[str]:
    return {row.path.split("/")[0] for _, row in pictures}


# Who is held out


def test_listed_people_are_held_out_whatever_the_spelling(teacher):
    train, held = split_teacher(read_teacher([teacher]), {"person 00002", "nobody"}, seed=0)
    assert names(held) == {"person_00002"} and len(held) == 4
    assert len(names(train)) == 7 and len(train) == 28


def test_without_a_list_a_tenth_of_the_people_is_held_out_by_the_seed(photos):
    rows = [(photos, row._replace(path=f"p{number}/{k}.jpg")) for number in range(40) for k in range(2)
            for row in rows_of(photos)[:1]]  # fmt: skip
    train, held = split_teacher(rows, None, seed=1)
    assert len(names(held)) == 4 and len(held) == 8 and not names(held) & names(train)
    assert names(split_teacher(rows, None, seed=1)[1]) == names(held) != names(split_teacher(rows, None, seed=2)[1])


@pytest.mark.parametrize("listed", [{"nobody"}, {f"person {number:05d}" for number in range(8)}])
def test_a_side_without_people_is_refused(teacher, listed):
    with pytest.raises(ValueError, match="pictures to train on and .* of held-out people; both are needed"):
        split_teacher(read_teacher([teacher]), listed, 0)


def test_some_are_drawn_in_order_and_by_the_seed():
    items = [str(number) for number in range(50)]
    drawn = some(items, 10, 3)
    assert len(set(drawn)) == 10 and drawn == sorted(drawn, key=int) == some(items, 10, 3) != some(items, 10, 4)
    assert some(items, 50, 3) == items


# The teacher


def test_a_folder_that_is_no_crop_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no crops.json; `teacher` takes folders that crop_faces.py made"):
        read_teacher([tmp_path])


def test_a_teacher_without_faces_is_refused(tmp_path, photos):
    faceless = [Row.of("a/1.jpg", "", Finding(None, 0, "no_face"), 1, 1)]
    with pytest.raises(ValueError, match="names no face"):
        read_teacher([crop_folder(tmp_path / "crops", photos, faceless)])


def test_a_teacher_whose_originals_are_gone_is_refused(tmp_path, photos):
    with pytest.raises(ValueError, match=r"was made of .*gone, and person_00000/0000.jpg is not there any more"):
        read_teacher([crop_folder(tmp_path / "crops", tmp_path / "gone", rows_of(photos))])


def test_the_network_is_not_its_own_teacher(tmp_path, photos):
    folder = crop_folder(tmp_path / "crops", photos, rows_of(photos), CropRecipe(detector="fast:0123456789abcdef"))
    with pytest.raises(ValueError, match="its points are this network's own"):
        read_teacher([folder])


# The command


def test_the_command_writes_weights_and_a_table(teacher, tmp_path, given, capsys):
    output, people = tmp_path / "out" / "aligner.keras", tmp_path / "people.txt"
    people.write_text("person_00003\n")
    words = ["--output", str(output), "--teacher", str(teacher), "--exclude_people", str(people)]
    assert main([*words, "--drawn", "5", "--faces", "20", "--test_faces", "10", "--epochs", "3"]) == 0
    (((drawn, teach), shares, options),) = given
    assert len(drawn) == 5 and len(teach) == 20 and shares == [0.25, 0.75] and options["epochs"] == 3
    assert options["state"] == output.with_name("aligner.state.npz")
    read_aligner(output)
    text = capsys.readouterr().out
    assert "| drawn, exact points | 1 | network |" in text
    assert "| held-out people, MTCNN's points | 4 | network |" in text and "| mean shape |" in text
    assert sorted(path.name for path in output.parent.iterdir()) == ["aligner.keras"]


def test_drawn_faces_alone_will_do(tmp_path, given, capsys):
    assert main(["--output", str(tmp_path / "a.keras"), "--drawn", "3", "--test_faces", "1"]) == 0
    assert [len(faces) for faces in given[0][0]] == [3] and given[0][1] == [1.0]
    assert "held-out" not in capsys.readouterr().out


def test_an_unreadable_picture_is_passed_over(tmp_path, photos, given):
    gone = rows_of(photos)[0]._replace(path="person_00000/none.jpg")
    folder = crop_folder(tmp_path / "crops", photos, [*rows_of(photos), gone])
    people = tmp_path / "people.txt"
    people.write_text("person_00003\n")
    words = ["--teacher", str(folder), "--exclude_people", str(people), "--drawn", "1", "--test_faces", "1"]
    assert main(["--output", str(tmp_path / "a.keras"), *words]) == 0
    assert len(given[0][0][1]) == 28


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--output", "a.h5"], "`output` must end in .keras"),
        (["--output", "a.keras", "--exclude_people", "x.txt"], "`exclude_people` names people of `teacher`"),
        (["--output", "a.keras", "--teacher", "nowhere"], "nowhere: holds no crops.json"),
    ],
)
def test_a_wrong_command_is_one_sentence(words, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert sentence in capsys.readouterr().err


# What is measured


class Exact:
    """An aligner that is off by 3, 4 pixels, and sure of every second picture."""

    def __init__(self, truth):
        self.truth = iter(truth)

    def landmarks(self, images):
        points = np.stack([next(self.truth) + [3, 4] for _ in images])
        return points, np.arange(len(images)) % 2 * 0.95


def test_errors_of_the_network_and_of_the_mean_shape_are_measured_on_the_same_pictures(photos):
    known = [train_aligner.read_known((photos, row)) for row in rows_of(photos)]
    truth = [points for _, points in known]
    shape = np.mean([to_view(square_place(central_square((250, 250))), points) for points in truth], axis=0)
    figures = measure(Exact(truth), iter([known[0], None, *known[1:]]), shape)
    eyes = [np.hypot(*(points[0] - points[1])) for points in truth]
    np.testing.assert_allclose(figures["network"], [500 / eye for eye in eyes], rtol=1e-4)
    centre = (shape + 1) * 125 - 0.5
    guess = [100 * np.mean(np.hypot(*(centre - points).T)) / eye for points, eye in zip(truth, eyes, strict=True)]
    np.testing.assert_allclose(figures["mean shape"], guess, rtol=1e-3)
    first, second = table_rows("drawn", figures)
    assert first.startswith(f"| drawn | 32 | network | {np.mean(figures['network']):.1f} |")
    assert first.endswith("| 50.0 |") and second.endswith("|  |")


def test_turns_are_timed_in_pictures_a_second(monkeypatch):
    clock = iter(range(100))
    monkeypatch.setattr(bench_aligner.time, "perf_counter", lambda: next(clock) / 2)
    order = []
    speeds = bench_aligner.take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 10, 2)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert speeds["a"].wall == 20


def test_the_bench_has_a_row_for_each_way(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_aligner.runtime, "limit_threads", lambda threads: None)
    monkeypatch.setattr(bench_aligner.runtime, "use_cpu_only", lambda: None)
    aligner_training.build_aligner().save(tmp_path / "untrained.keras")
    options = ["--weights", str(tmp_path / "untrained.keras"), "--pictures", "3", "--rounds", "1"]
    assert bench.main(["aligner", "--images", str(photos), *options]) == 0
    first, *table = capsys.readouterr().out.splitlines()
    assert first == "3 pictures, median of 1 rounds; one thread."
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table if line][2:]
    ways = ["points: mtcnn package, one by one", "points: MtcnnDetector", "points: alignment network"]
    assert [row[0] for row in rows] == [*ways, "crops: MtcnnDetector", "crops: alignment network"]
    assert rows[0][3] == "1.0" and all(float(row[1]) > 0 for row in rows)


def test_the_bench_names_a_missing_file_of_weights(photos, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(bench_aligner.runtime, "limit_threads", lambda threads: None)
    monkeypatch.setattr(bench_aligner.runtime, "use_cpu_only", lambda: None)
    assert bench.main(["aligner", "--images", str(photos), "--weights", str(tmp_path / "none.keras")]) == 2
    assert "python -m apps.train_aligner" in capsys.readouterr().err
