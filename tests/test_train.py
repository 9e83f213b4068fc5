"""Training end to end on drawn faces: what a run leaves behind, exact resuming, and every wrong start."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import evaluate
import train
from apps import compare
from config import Config
from facekit import callbacks, runtime
from facekit.bundle import read_network, read_record
from facekit.callbacks import learning_rate_at
from facekit.embedding_map import read_course
from facekit.images import read_image
from facekit.objective import PAIR_FIGURES
from facekit.settings import read_settings
from facekit.validation import FIGURES, ordered_share
from product import choice_note
from splits import make_split

ROOT = Path(__file__).resolve().parent.parent


def arguments(crops: Path, runs: Path, name: str, **settings: object) -> list[str]:
    """A run small enough for a test: 12 people train, 4 are held out; 2 epochs of 3 steps of 20 pictures."""
    chosen = {
        "train_dir": crops,
        "runs_dir": runs,
        "name": name,
        "image_size": 32,
        "embedding_size": 16,
        "validation_share": 0.25,
        "validation_pairs": 60,
        "batch_size": 4,
        "negatives_per_tuplet": 3,
        "steps_per_epoch": 3,
        "epochs": 2,
        **settings,
    }
    return [word for key, value in chosen.items() for word in (f"--{key}", str(value))]


def train_people(folder: Path) -> list[str]:
    """Who trains in a run with `arguments`."""
    return make_split(Config(train_dir=folder, validation_share=0.25)).train.people


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(crops, runs) -> Path:
    """A run that nobody interrupted."""
    assert train.main(arguments(crops, runs, "whole")) == 0
    return runs / "whole"


def state(run: Path) -> dict[str, np.ndarray]:
    with np.load(run / "checkpoints" / "state.npz") as file:
        return {key: file[key] for key in file.files}


def events(run: Path, below: str = "") -> EventAccumulator:
    """What TensorBoard reads of a run."""
    found = EventAccumulator(str(run / "tensorboard" / below), size_guidance={"tensors": 0})
    found.Reload()
    return found


def check_steps(run: Path, steps: list[int]) -> None:
    """Each epoch is in TensorBoard's files once, and in order."""
    found = events(run)
    for tag in ("train/loss", "verification/auc", "distances/genuine"):
        assert [event.step for event in found.Tensors(tag)] == steps, tag


def test_a_run_leaves_everything_behind(whole, crops):
    names = {path.name for path in whole.iterdir()}
    assert names >= {
        "config.json", "data.json", "environment.json", "train_people.txt", "validation_people.txt", "history.csv",
        "learning_curve.png", "checkpoints", "tensorboard", "bundle", "embeddings", "embedding_map.gif",
        "embedding_map.png",
    }  # fmt: skip
    assert read_settings(whole / "config.json", Config).name == "whole"
    assert json.loads((whole / "environment.json").read_text())["packages"]["keras"]
    train_people = set((whole / "train_people.txt").read_text().split())
    held_out = set((whole / "validation_people.txt").read_text().split())
    assert len(train_people) == 12 and len(held_out) == 4 and not train_people & held_out
    assert read_image(whole / "learning_curve.png").std() > 10
    assert not list(whole.rglob(".*"))


def test_history_has_every_figure_of_every_epoch(whole):
    rows = list(csv.DictReader((whole / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    wanted = {"loss", "learning_rate", "images_per_second", *PAIR_FIGURES, *FIGURES}
    for row in rows:
        assert wanted <= set(row) and all(np.isfinite(float(row[name])) for name in wanted)
        assert 0 <= float(row["active"]) <= 1 and 0 <= float(row["auc"]) <= 1


def test_tensorboard_gets_everything_under_one_naming(whole):
    found = events(whole)
    tags = set(found.Tags()["tensors"])
    assert {f"verification/{name}" for name in FIGURES} <= tags
    assert {"train/loss", "train/learning_rate", "train/images_per_second", "train/spread", "config"} <= tags
    pictures = {"roc", "det", "distances", "hardest_genuine", "hardest_impostor"}
    assert {f"verification/{name}" for name in pictures} | {"distances/genuine", "distances/impostor"} <= tags
    assert {tag.partition("/")[0] for tag in tags} == {"train", "verification", "distances", "config"}
    assert [event.step for event in found.Tensors("train/loss")] == [1, 2]
    table = found.Tensors("config")[0].tensor_proto.string_val[0].decode()
    assert "| **image_size** | `32` | `64` |" in table and "| dropout | `0.2` |" in table
    best = read_record(whole / "bundle").training["best_epoch"]
    assert events(whole, "best").Tensors("verification/auc")[-1].step == best
    assert (whole / "tensorboard" / "projector_config.pbtxt").exists()
    points = np.loadtxt(whole / "tensorboard" / "projector" / "tensors.tsv")
    assert points.shape[1] == 16 and np.linalg.norm(points, axis=1) == pytest.approx(1, abs=1e-3)
    metadata = (whole / "tensorboard" / "projector" / "metadata.tsv").read_text().splitlines()
    assert len(metadata) == len(points) + 1 and metadata[1].split("\t")[0].startswith("person_")


def test_each_epoch_s_embeddings_of_the_same_pictures_are_kept(whole):
    course = read_course(whole / "embeddings")
    assert course.epochs == [1, 2] and len(course.faces) == 4
    assert np.linalg.norm(course.embeddings, axis=2) == pytest.approx(1, abs=2e-3)


def test_a_map_that_cannot_be_drawn_does_not_cost_the_product(whole, tmp_path, capsys):
    run = shutil.copytree(whole, tmp_path / "whole")
    (run / "embeddings" / "epoch_0001.npy").write_text("cut")
    (run / "bundle" / "bundle.json").unlink()
    assert train.main(["--resume", "--name", "whole", "--runs_dir", str(tmp_path)]) == 0
    assert "No embedding_map.gif:" in capsys.readouterr().err and read_record(run / "bundle").threshold


def test_runs_can_be_compared(whole, capsys, tmp_path):
    assert compare.main([str(whole), "--json", "--output", str(tmp_path)]) == 0
    (line,) = json.loads(capsys.readouterr().out)["runs"]
    record = read_record(whole / "bundle")
    assert (line["epochs_done"], line["best_epoch"], line["finished"]) == (2, record.training["best_epoch"], True)
    assert line["auc"] == pytest.approx(record.figures["auc"], abs=1e-3)


def test_the_bundle_is_the_best_epoch_with_its_threshold(whole, crops):
    record = read_record(whole / "bundle")
    rows = list(csv.DictReader((whole / "history.csv").open()))
    best = max(rows, key=lambda row: float(row["auc"]))
    assert record.training["best_epoch"] == int(best["epoch"])
    assert record.figures["auc"] == pytest.approx(float(best["auc"]), abs=1e-3)
    assert record.training["candidates"] == 2 and "The best of 2 networks by these very" in record.figures["note"]
    assert choice_note(1) == {}, "nothing was chosen"
    assert record.synthetic and record.recipe is None
    assert record.threshold is not None and record.threshold.genuine == 30
    assert 0 <= record.threshold.fmr_interval[0] <= record.threshold.fmr <= record.threshold.fmr_interval[1] <= 1
    rows = np.asarray(read_network(whole / "bundle")(np.zeros((1, 32, 32, 3), np.uint8)))
    assert rows.shape == (1, 16)


def test_a_run_of_the_name_is_not_written_over(whole, crops, runs, capsys):
    before = (whole / "history.csv").read_bytes()
    assert train.main(arguments(crops, runs, "whole")) == 2
    assert "a run of this name exists" in capsys.readouterr().err
    assert (whole / "history.csv").read_bytes() == before


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(whole, crops, runs, steps, monkeypatch, capsys):
    name = f"stopped-{steps}"
    seen = []
    keeper = callbacks.Keeper.on_train_batch_end

    @contextmanager
    def stopping(closing):
        yield lambda: len(seen) >= steps

    def counting(self, batch, logs=None):
        seen.append(batch)
        keeper(self, batch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(runtime, "stop_requests", stopping)
        patch.setattr(callbacks.Keeper, "on_train_batch_end", counting)
        assert train.main(arguments(crops, runs, name)) == runtime.INTERRUPTED
    assert f"python train.py --resume --name {name} --runs_dir {runs}" in capsys.readouterr().err
    assert not (runs / name / "bundle").exists()
    assert train.main(["--resume", "--name", name, "--runs_dir", str(runs)]) == 0
    assert f"Going on after step {steps} of 6" in capsys.readouterr().out
    expected = state(whole)
    for key, array in state(runs / name).items():
        if key != "record":
            np.testing.assert_array_equal(array, expected[key], err_msg=key)
    assert len(list(csv.DictReader((runs / name / "history.csv").open()))) == 2
    check_steps(runs / name, [1, 2])


def test_a_run_killed_before_its_epoch_was_saved_writes_no_step_twice(crops, runs, monkeypatch):
    """TensorBoard's files have the epoch by then, the checkpoint has not."""
    save = callbacks.Keeper.on_epoch_end

    def killed(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt
        save(self, epoch, logs)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Keeper, "on_epoch_end", killed)
        assert train.main(arguments(crops, runs, "killed-late", epochs=3)) == runtime.INTERRUPTED
    check_steps(runs / "killed-late", [1, 2])
    assert train.main(["--resume", "--name", "killed-late", "--runs_dir", str(runs), "--epochs", "4"]) == 0
    check_steps(runs / "killed-late", [1, 2, 3, 4])
    assert read_course(runs / "killed-late" / "embeddings").epochs == [1, 2, 3, 4]
    (table,) = events(runs / "killed-late").Tensors("config")
    assert b"| **epochs** | `4` | `10` |" in table.tensor_proto.string_val[0]


def test_resuming_a_finished_run_only_writes_its_bundle_again(whole, runs, capsys):
    before = (whole / "history.csv").read_bytes()
    assert train.main(["--resume", "--name", "whole", "--runs_dir", str(runs)]) == 0
    assert (whole / "history.csv").read_bytes() == before
    assert "epoch 1/" not in capsys.readouterr().out


def test_what_cannot_be_resumed_is_said(whole, crops, runs, tmp_path, capsys):
    base = ["--resume", "--runs_dir", str(runs), "--name"]
    for more, sentence in [
        (
            [*base, "whole", "--learning_rate", "0.5"],
            "`learning_rate` cannot change in a resumed run (it was 0.001)",
        ),
        ([*base, "nobody"], "there is no such run"),
        (["--resume", "--runs_dir", str(tmp_path)], "holds no run to resume"),
    ]:
        assert train.main(more) == 2
        assert sentence in capsys.readouterr().err


def test_a_resumed_run_notices_changed_data(crops, tmp_path, capsys):
    people = tmp_path / "people"
    shutil.copytree(crops, people)
    assert train.main(arguments(people, tmp_path, "a", epochs=1)) == 0
    shutil.rmtree(people / "person_00002")
    assert train.main(["--resume", "--name", "a", "--runs_dir", str(tmp_path), "--epochs", "2"]) == 2
    assert "are no longer those that the run a began with" in capsys.readouterr().err


def test_a_loss_that_is_no_number_names_the_step(crops, tmp_path, capsys):
    settings = {"learning_rate": 1e30, "optimizer": "sgd", "clip_norm": "None", "warmup_epochs": 0}
    assert train.main(arguments(crops, tmp_path, "nan", **settings)) == 1
    error = capsys.readouterr().err
    assert "The loss became" in error and "at step" in error and "Lower `learning_rate`" in error


def test_bad_pictures_are_named_and_do_not_stop_a_run(crops, tmp_path, capsys):
    people = tmp_path / "people"
    shutil.copytree(crops, people)
    for person in people.glob("person_*"):
        (person / "0001.jpg").write_text("not a picture")
        (person / "0002.jpg").write_bytes((person / "0002.jpg").read_bytes()[:-300])
    assert train.main(arguments(people, tmp_path, "bad", epochs=1)) == 0
    error = capsys.readouterr().err
    assert "others stood in, of the same person" in error
    assert "0001.jpg: is truncated or not a picture" in error
    assert "their pairs are left out of validation" in error


def test_a_person_without_any_readable_picture_ends_no_run(crops, tmp_path, capsys):
    people = tmp_path / "people"
    shutil.copytree(crops, people)
    person = train_people(people)[0]
    for picture in (people / person).iterdir():
        picture.write_text("not a picture")
    assert train.main(arguments(people, tmp_path, "poorer", epochs=1)) == 0
    named = (tmp_path / "poorer" / "unreadable.csv").read_text()
    assert f"{person}/0000.jpg" in named and "pictures could not be read" in capsys.readouterr().err


def test_a_folder_that_is_mostly_broken_is_named(crops, tmp_path, capsys):
    people = tmp_path / "people"
    shutil.copytree(crops, people)
    for person in train_people(people)[1:]:
        for picture in (people / person).iterdir():
            picture.write_text("not a picture")
    assert train.main(arguments(people, tmp_path, "hopeless")) == 2
    error = capsys.readouterr().err
    assert f"{people}: " in error and "pictures cannot be read, the last one: " in error
    assert "Traceback" not in error


def test_test_triplets_are_measured(crops, tmp_path, capsys):
    people = tmp_path / "people"
    shutil.copytree(crops, people)
    lines = [f"person_0000{i}/0000.jpg,person_0000{i}/0001.jpg,person_0000{i + 1}/0000.jpg" for i in range(5)]
    (people / "test_triplets.txt").write_text("\n".join(lines))
    triplets = ["--test_triplets", str(people / "test_triplets.txt")]
    assert train.main([*arguments(people, tmp_path, "triplets", epochs=1), *triplets]) == 0
    row = next(csv.DictReader((tmp_path / "triplets" / "history.csv").open()))
    assert "verification/triplets_ordered" in events(tmp_path / "triplets").Tags()["tensors"]
    assert float(row["triplets_ordered"]) * 5 == pytest.approx(round(float(row["triplets_ordered"]) * 5))
    (people / "test_triplets.txt").write_text("person_00001/0000.jpg,gone.jpg,person_00002/0000.jpg")
    assert train.main([*arguments(people, tmp_path, "gone", epochs=1), *triplets]) == 2
    assert "gone.jpg: cannot be read" in capsys.readouterr().err


def test_the_share_of_ordered_triplets():
    rows = np.array([[1, 0], [0.8, 0.6], [0, 1]])
    assert ordered_share(rows, np.array([[0, 1, 2], [0, 2, 1], [0, 0, 0]])) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "triplet", "sampler": "people", "batch_size": 12, "pictures_per_person": 3, "optimizer": "sgd",
         "learning_rate": 0.01, "schedule": "plateau", "plateau_patience": 1},
        {"loss": "triplet", "hardest": 2, "margin": 0.5, "negatives": "tuplet", "optimizer": "adam",
         "schedule": "constant", "pooling": "flatten", "monitor": "eer"},
        {"hardest": 2, "precision": "mixed_bfloat16", "target_fmr": 0.2, "checkpoint_steps": 2},
    ],
    ids=["people-triplet-sgd", "tuplet-triplet-adam", "bfloat16"],
)  # fmt: skip
def test_other_settings_train(crops, tmp_path, settings):
    assert train.main(arguments(crops, tmp_path, "other", epochs=1, **settings)) == 0
    record = read_record(tmp_path / "other" / "bundle")
    assert record.threshold is not None and 0 < record.threshold.value <= 2
    if "target_fmr" in settings:
        assert record.threshold.fmr <= 0.2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (["--train_dir", "nowhere"], "nowhere: there is no such folder. Set `train_dir`"),
        (["--config", "nowhere.json"], "nowhere.json: cannot be read"),
        (["--weights", "nowhere.h5"], "nowhere.h5"),
        (["--exclude_people", "nowhere.txt"], "nowhere.txt: cannot be read"),
        (["--test_triplets", "nowhere.txt"], "nowhere.txt: cannot be read"),
    ],
)
def test_a_wrong_start_is_one_sentence(crops, tmp_path, change, sentence, capsys):
    assert train.main([*arguments(crops, tmp_path, "wrong"), *change]) == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error


def test_an_unwritable_run_folder_is_named(crops, tmp_path, capsys):
    (tmp_path / "file").write_text("in the way")
    assert train.main(arguments(crops, tmp_path / "file", "x")) == 2
    assert "Choose another folder with `runs_dir`" in capsys.readouterr().err


def test_settings_from_a_file_are_overridden_by_options(crops, tmp_path):
    (tmp_path / "c.json").write_text(json.dumps({"epochs": 7, "batch_size": 5, "name": "fromfile"}))
    config, resume = train.read_command(["--config", str(tmp_path / "c.json"), "--batch_size", "6"])
    assert (config.epochs, config.batch_size, config.name, resume) == (7, 6, "fromfile", False)
    assert train.read_command([])[0].name  # the date and time


def test_an_early_stopped_run_is_finished(crops, tmp_path, capsys):
    settings = {"early_stopping_patience": 1, "epochs": 30, "learning_rate": 1e-12, "steps_per_epoch": 1}
    assert train.main(arguments(crops, tmp_path, "early", **settings)) == 0
    rows = (tmp_path / "early" / "history.csv").read_text()
    assert 2 <= len(rows.splitlines()) - 1 < 30
    assert train.main(["--resume", "--name", "early", "--runs_dir", str(tmp_path)]) == 0
    assert (tmp_path / "early" / "history.csv").read_text() == rows


def test_a_calibrated_threshold_stays_with_its_network(whole, crops, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "whole")
    bundle, again = tmp_path / "whole" / "bundle", ["--resume", "--name", "whole", "--runs_dir", str(tmp_path)]
    calibration = ["calibrate", "--model", str(bundle), "--images", str(crops), "--fmr", "0.1", "--flip", "True"]
    assert evaluate.main([*calibration, "--probability", "platt", "--cache", str(tmp_path / "cache")]) == 0
    calibrated = read_record(bundle)
    words = calibrated.threshold.text()
    capsys.readouterr()
    assert train.main(again) == 0
    kept = read_record(bundle)
    assert (kept.threshold, kept.probability, kept.flip) == (calibrated.threshold, calibrated.probability, True)
    said = capsys.readouterr().out
    assert f"The network is the same as before, so the calibrated threshold and probability stay: {words}." in said
    assert f"\nThreshold {words}.\n" in said
    best = read_network(tmp_path / "whole" / "checkpoints" / "best.keras")
    best.set_weights([0.9 * values for values in best.get_weights()])
    best.save(tmp_path / "whole" / "checkpoints" / "best.keras")
    assert train.main(again) == 0
    said = capsys.readouterr().out
    assert f"The calibrated threshold and probability ({words}) are gone with the network they were for. " in said
    assert f"python evaluate.py calibrate --model {bundle} --images PEOPLE --fmr 0.01\n" in said
    lost = read_record(bundle)
    assert lost.threshold != calibrated.threshold and lost.probability is None and not lost.flip


def test_a_failed_start_leaves_the_name_free(crops, tmp_path, capsys):
    assert train.main([*arguments(crops, tmp_path, "again", epochs=1), "--weights", "nowhere.keras"]) == 2
    assert not (tmp_path / "again").exists()
    assert train.main(arguments(crops, tmp_path, "again", epochs=1)) == 0
    (tmp_path / "again" / "checkpoints" / "state.npz").unlink()
    assert train.main(["--resume", "--name", "again", "--runs_dir", str(tmp_path)]) == 2
    assert "the run's checkpoint is gone" in capsys.readouterr().err


def test_runs_that_share_a_checkpoint_folder_stay_apart(tmp_path):
    shared = {"checkpoint_dir": tmp_path / "c", "tensorboard_dir": tmp_path / "t"}
    one, two = (train.RunFolder.of(Config(name=name, **shared)) for name in ("one", "two"))
    assert one.state != two.state and one.tensorboard != two.tensorboard


def test_a_target_that_the_pairs_cannot_show_is_refused_before_training(crops, tmp_path, capsys):
    settings = {"target_fmr": 0.01, "validation_pairs": 600}
    assert train.main(arguments(crops, tmp_path, "claim", **settings)) == 2
    assert "needs 300 impostor pairs" in capsys.readouterr().err


def test_the_learning_rate_rises_and_falls():
    rates = [learning_rate_at(step, highest=2.0, warmup=10, total=110, cosine=True) for step in range(111)]
    assert rates[0] == pytest.approx(0.2) and rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[60] == pytest.approx(2.0 * (0.01 + 0.99 / 2)) and rates[110] == pytest.approx(0.02)
    assert learning_rate_at(99, highest=2.0, warmup=10, total=110, cosine=False) == 2.0


class _Model:
    stop_training = False


def followed(figures: list[float], **options) -> tuple[callbacks.Best, list[str], _Model]:
    """A `Best` that saw these figures, what it called, and its model."""
    called: list[str] = []
    best = callbacks.Best("auc", True, lambda: called.append("keep"))
    best.begin(lambda: called.append("lower"), **options)
    model = _Model()
    best.set_model(model)
    for epoch, figure in enumerate(figures):
        best.on_epoch_end(epoch, {"auc": figure})
    return best, called, model


def test_the_best_is_kept_and_a_plateau_lowers_and_stops():
    best, called, model = followed([0.5, 0.7, 0.6, 0.7, 0.65], plateau_patience=2, stop_patience=3)
    assert called == ["keep", "keep", "lower"] and model.stop_training
    assert best.state == {"value": 0.7, "epoch": 1, "stage_value": 0.7, "waited": 3}
    assert not followed([0.5, 0.4, 0.4], plateau_patience=2, stop_patience=3)[2].stop_training
    best.begin()
    assert best.state == {"value": 0.7, "epoch": 1, "stage_value": None, "waited": 0} and not best.finished


@pytest.mark.slow
def test_a_killed_run_goes_on_exactly(whole, crops, runs):
    """kill -9 inside the second epoch, after a checkpoint inside it."""
    command = [sys.executable, "train.py", *arguments(crops, runs, "killed", checkpoint_steps=1)]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    path = runs / "killed" / "checkpoints" / "state.npz"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if path.exists() and len(json.loads(str(state(runs / "killed")["record"]))["history"]) == 1:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.02)
    process.wait()
    assert train.main(["--resume", "--name", "killed", "--runs_dir", str(runs)]) == 0
    expected = state(whole)
    for key, array in state(runs / "killed").items():
        if key != "record":
            np.testing.assert_array_equal(array, expected[key], err_msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("backbone", ["resnet50", "inception_v3", "inception_resnet_v1"])
def test_large_backbones_train(crops, tmp_path, backbone, precision):
    settings = {"backbone": backbone, "precision": precision, "image_size": 96, "epochs": 1}
    assert train.main(arguments(crops, tmp_path, "large", **settings)) == 0
    assert np.isfinite(float(next(csv.DictReader((tmp_path / "large" / "history.csv").open()))["loss"]))


@pytest.mark.slow
def test_xla_trains_the_same(crops, tmp_path):
    # Without dropout: XLA draws its random numbers by another algorithm.
    for name, more in (("plain", []), ("xla", ["--xla"])):
        assert train.main([*arguments(crops, tmp_path, name, dropout=0.0, epochs=1), *more]) == 0
    one, two = (next(csv.DictReader((tmp_path / name / "history.csv").open())) for name in ("plain", "xla"))
    assert float(one["loss"]) == pytest.approx(float(two["loss"]), rel=1e-2)
