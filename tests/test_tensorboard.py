"""What event files hold: one naming, a step an epoch, settings to compare runs by; and what resuming forgets."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.util.tensor_util import make_ndarray

from facekit.tensorboard import BEST, About, Sources, TensorBoard, forget_after

AUCS = (0.6, 0.8, 0.7, 0.9)


def events(folder: Path) -> EventAccumulator:
    found = EventAccumulator(str(folder), size_guidance={"tensors": 0})
    found.Reload()
    return found


def steps(folder: Path, tag: str) -> list[int]:
    return [event.step for event in events(folder).Tensors(tag)]


def values(folder: Path, tag: str) -> list[float]:
    return [float(make_ndarray(event.tensor_proto)) for event in events(folder).Tensors(tag)]


def board(folder: Path, pictures_every: int = 1) -> TensorBoard:
    """A callback whose run is best where `AUCS` says, with three genuine distances and two impostor ones."""
    sources = Sources(
        held_out={"auc", "accuracy", "triplets_ordered"},
        chief=("auc", "eer"),
        is_best=lambda epoch: AUCS[epoch] == max(AUCS[: epoch + 1]),
        distances=lambda: {"genuine": np.array([0.1, 0.2, 0.3]), "impostor": np.array([1.0, 1.5])},
        pictures=lambda: {"roc": np.zeros((4, 5, 3), np.uint8)},
    )
    about = About("mine", {"loss": "circle", "margin": None, "epochs": 4, "xla": True}, {"config": "# said once"})
    return TensorBoard(folder, sources, about, pictures_every)


def fitted(folder: Path, epochs: range = range(4), pictures_every: int = 1) -> Path:
    """A folder with the events of some epochs."""
    callback = board(folder, pictures_every)
    for epoch in epochs:
        callback.on_epoch_end(epoch, {"loss": 3.0 - epoch, "auc": AUCS[epoch], "triplets_ordered": 0.5})
    callback.on_train_end()
    return folder


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """Read only."""
    return fitted(tmp_path_factory.mktemp("board") / "tensorboard")


def test_figures_are_grouped_by_whom_they_are_about(whole):
    assert values(whole, "train/loss") == [3.0, 2.0, 1.0, 0.0]
    assert values(whole, "verification/auc") == pytest.approx(AUCS)
    assert values(whole, "verification/triplets_ordered") == [0.5] * 4
    assert steps(whole, "train/loss") == [1, 2, 3, 4]


def test_a_figure_that_is_no_number_is_left_out(tmp_path):
    callback = board(tmp_path)
    callback.on_epoch_end(0, {"drift": float("nan"), "loss": 1.0})
    callback.on_epoch_end(1, {"drift": 0.5, "loss": 1.0})
    assert steps(tmp_path, "train/drift") == [2] and steps(tmp_path, "train/loss") == [1, 2]


def test_histograms_count_every_distance_of_a_class(whole):
    for name, wanted in (("genuine", 3), ("impostor", 2)):
        found = events(whole).Tensors(f"distances/{name}")
        buckets = [make_ndarray(event.tensor_proto) for event in found]
        assert [event.step for event in found] == [1, 2, 3, 4]
        assert all(counts[:, 2].sum() == wanted for counts in buckets)


@pytest.mark.parametrize(("every", "drawn"), [(1, [1, 2, 3, 4]), (2, [1, 3, 4]), (3, [1, 4]), (9, [1, 4])])
def test_pictures_are_drawn_now_and_then_and_always_at_the_end(tmp_path, every, drawn):
    assert steps(fitted(tmp_path, pictures_every=every), "verification/roc") == drawn


def test_words_are_said_once(whole):
    (found,) = events(whole).Tensors("config")
    assert found.step == 0 and found.tensor_proto.string_val[0] == b"# said once"


def test_runs_compare_by_their_settings_and_their_best_epochs(whole):
    best = events(whole / BEST)
    content = best.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    started = metadata.parse_session_start_info_plugin_data(content)
    assert started.group_name == "mine" and set(started.hparams) == {"loss", "epochs", "xla", "margin"}
    assert started.hparams["loss"].string_value == "circle" and started.hparams["xla"].bool_value is True
    assert started.hparams["margin"].string_value == "None" and started.hparams["epochs"].number_value == 4
    assert values(whole / BEST, "verification/auc") == pytest.approx([0.6, 0.8, 0.9])
    assert steps(whole / BEST, "verification/auc") == [1, 2, 4]
    assert set(best.Tags()["tensors"]) == {"verification/auc", metadata.SESSION_START_INFO_TAG}


def test_a_run_that_goes_on_has_every_step_once(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "tensorboard")
    forget_after(folder, 2)
    assert steps(folder, "train/loss") == [1, 2] and steps(folder / BEST, "verification/auc") == [1, 2]
    assert "config" not in events(folder).Tags()["tensors"] and events(folder).file_version == 2
    fitted(folder, range(2, 4))
    for tag in ("train/loss", "verification/auc", "distances/genuine", "verification/roc"):
        assert steps(folder, tag) == [1, 2, 3, 4], tag
    assert steps(folder, "config") == [0] and steps(folder / BEST, "verification/auc") == [1, 2, 4]
    assert values(folder, "verification/auc") == pytest.approx(AUCS)
    assert len(list(folder.glob("events*"))) == 2 and not list(folder.rglob(".*"))


def test_what_holds_nothing_any_more_is_removed(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "tensorboard")
    (folder / "projector").mkdir()
    (folder / "projector" / "sprite.png").write_bytes(b"stays")
    forget_after(folder, 0)
    assert not list(folder.rglob("events*")) and (folder / "projector" / "sprite.png").exists()
    forget_after(tmp_path / "not there yet", 0)


def test_a_record_cut_off_by_a_kill_costs_only_itself(whole, tmp_path):
    folder = shutil.copytree(whole, tmp_path / "tensorboard")
    (path,) = folder.glob("events*")
    path.write_bytes(path.read_bytes()[:-40])
    forget_after(folder, 3)
    assert steps(folder, "train/loss") == [1, 2, 3] == steps(folder, "verification/roc")
