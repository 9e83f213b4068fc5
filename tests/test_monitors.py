"""Monitors: exact means of the last steps, every warning's words, no false alarm, and a real collapse caught."""

from __future__ import annotations

import copy
import itertools
import json
import re
from collections.abc import Callable
from math import isnan, nan
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import losses
from config import Config
from facekit import monitors, runtime
from facekit.callbacks import StepCounter
from facekit.images import read_square
from facekit.index import index_people
from facekit.monitors import (
    CollapseError,
    CollapseMonitor,
    DriftMonitor,
    MiningSchedule,
    RecentMeans,
    Snapshotting,
)
from facekit.pairwise import distance_matrix, unit_rows
from model import build_embedding_model

Figures = dict[str, float]
HEALTHY: Figures = {
    "loss": 0.2, "active": 0.9, "spread": 0.9, "norm": 11.0, "positive_distance": 1.2, "negative_distance": 1.4
}  # fmt: skip
COLLAPSED = HEALTHY | {"spread": 0.002, "positive_distance": 0.01, "negative_distance": 0.02}
IDLE = HEALTHY | {"active": 0.004}


class Model:
    steps_taken = 0


def drive(
    callbacks: list[Any], epochs: list[list[Figures]], done: int = 0, keep: Callable[[], None] = lambda: None
) -> None:
    """Call callbacks as `fit` does, with the running means of each step's figures.

    `done` steps were taken before; `keep` is called after each step.
    """
    model = Model()
    model.steps_taken = done
    for callback in callbacks:
        callback.set_model(model)
    for epoch, steps in enumerate(epochs):
        means: Figures = {}
        for callback in callbacks:
            callback.on_epoch_begin(epoch)
        for batch, figures in enumerate(steps):
            means = {name: (means.get(name, 0.0) * batch + value) / (batch + 1) for name, value in figures.items()}
            model.steps_taken += 1
            for callback in callbacks:
                callback.on_train_batch_end(batch, dict(means))
            keep()
        for callback in callbacks:
            callback.on_epoch_end(epoch, dict(means))


def watched(epochs: list[list[Figures]], **options: Any) -> list[str]:
    """What a CollapseMonitor that looks at every step says."""
    said: list[str] = []
    drive([CollapseMonitor(**{"do_nothing": lambda: 0.2, "say": said.append, "every": 1, **options})], epochs)
    return said


# ---- RecentMeans and when it is asked ------------------------------------------------------------------------


def test_recent_means_are_those_of_the_steps_since_they_were_taken(rng):
    recent, values = RecentMeans(), rng.uniform(size=(3, 40, 2))
    for epoch in values:
        recent.begin_epoch()
        begun = 0
        for count in range(1, 41):
            loss, spread = epoch[:count].mean(axis=0)
            recent.add(count, {"loss": loss, "spread": spread})
            assert recent.steps == count - begun
            if count in (7, 8, 30, 40):
                expected = epoch[begun:count].mean(axis=0)
                assert recent.take() == pytest.approx({"loss": expected[0], "spread": expected[1]}, abs=1e-12)
                begun = count
    assert recent.take() == {} and recent.steps == 0


def test_recent_means_run_on_over_an_epochs_end_until_they_are_taken():
    recent = RecentMeans()
    recent.add(1, {"x": 1.0})
    recent.add(3, {"x": 2.0})  # two steps at once: 6 in all
    recent.begin_epoch()
    recent.add(1, {"x": 10.0})
    assert recent.state == {"steps": 4, "sums": {"x": 16.0}}
    assert recent.take() == {"x": 4.0}


def test_recent_means_of_nan_are_nan():
    recent = RecentMeans()
    recent.add(1, {"x": nan, "y": 1.0})
    means = recent.take()
    assert isnan(means["x"]) and means["y"] == 1.0


class Recorder(monitors._Checks):
    def __init__(self, every: int):
        super().__init__(every)
        self.seen: list[tuple[int, float]] = []

    def check(self, step, means):
        self.seen.append((step, means["x"]))


@pytest.mark.parametrize(
    ("every", "seen"),
    [
        (3, [(3, 1.0), (5, 3.5), (8, 6.0), (10, 8.5)]),
        (5, [(5, 2.0), (10, 7.0)]),
        (50, [(5, 2.0), (10, 7.0)]),
        (1, [(step, step - 1.0) for step in range(1, 11)]),
    ],
)
def test_checks_come_every_so_many_steps_and_at_an_epochs_end(every, seen):
    """Two epochs of 5 steps with the values 0 to 9: each check has its own steps' mean, no step is seen twice."""
    recorder = Recorder(every)
    drive([recorder], [[{"x": float(5 * epoch + step)} for step in range(5)] for epoch in range(2)])
    assert [step for step, _ in recorder.seen] == [step for step, _ in seen]
    assert [mean for _, mean in recorder.seen] == pytest.approx([mean for _, mean in seen])


# ---- CollapseMonitor -----------------------------------------------------------------------------------------


def test_a_collapse_is_told_with_its_figures_and_what_to_change():
    assert watched([[HEALTHY, COLLAPSED | {"loss": 0.25, "spread": -1e-9}, COLLAPSED]]) == [
        "Step 2: the embeddings collapse to one point: spread 0.0000 (0: all are equal), d(a,p) 0.010, d(a,n) "
        '0.020, loss 0.250 (where all are equal: 0.200). Lower `learning_rate`, or set `mining` to "semi_hard" '
        'instead of "hard"; '
        "also good against it: longer `warmup_epochs`, a smaller `clip_norm`, no `squared`, and "
        "first a stage that trains a head (`stages`)."
    ]


def test_a_lasting_collapse_ends_the_run():
    with pytest.raises(CollapseError) as caught:
        watched([[HEALTHY] * 1000 + [COLLAPSED] * 6], patience=6)
    assert isinstance(caught.value, ValueError)
    assert str(caught.value) == (
        "The embeddings have collapsed to one point, 6 checks in a row; at step 1,006: spread 0.0020 (0: all are "
        "equal), d(a,p) 0.010, d(a,n) 0.020, loss 0.200 (where all are equal: 0.200). "
        f"{monitors.COLLAPSE_ADVICE} To go on all the same, set `stop_on_collapse` to False."
    )


def test_a_spell_warns_once_and_a_healthy_check_ends_it():
    said = watched([[COLLAPSED] * 4, [HEALTHY], [COLLAPSED] * 4, [HEALTHY]], patience=5)
    assert [words.split(":")[0] for words in said] == ["Step 1", "Step 6"]


@pytest.mark.parametrize("patience", [1, 3])
def test_patience_decides_when_a_run_is_stopped(patience):
    said: list[str] = []
    monitor = CollapseMonitor(lambda: 0.2, said.append, every=2, patience=patience)
    with pytest.raises(CollapseError, match=f"{patience} checks in a row; at step {2 * patience}:"):
        drive([monitor], [[COLLAPSED] * 100])
    assert monitor.model.steps_taken == 2 * patience and len(said) == (patience > 1)


def test_a_run_that_is_not_to_be_stopped_is_warned_all_the_same():
    assert len(watched([[COLLAPSED] * 100], patience=3, stop=False)) == 1


@pytest.mark.parametrize(
    ("change", "alarm"),
    [
        ({"spread": 0.0099}, True),
        ({"spread": 0.0101}, False),
        ({"positive_distance": 0.049, "negative_distance": 0.049}, True),
        ({"positive_distance": 0.051, "negative_distance": 0.049}, False),
        ({"positive_distance": 0.049, "negative_distance": 0.051}, False),
        ({"positive_distance": 0.0}, False),
        ({"positive_distance": 0.0, "negative_distance": 0.0}, True),
        ({"spread": nan, "positive_distance": nan, "negative_distance": nan}, False),
        ({"loss": 0.0}, False),
    ],
)
def test_what_counts_as_collapsed(change, alarm):
    assert len(watched([[HEALTHY | change]])) == alarm


def test_what_the_logs_lack_is_not_judged():
    assert watched([[{"loss": 0.2}] * 100]) == []
    assert "d(a,p) nan" in watched([[{"spread": 0.0}]])[0]


def test_a_single_bad_step_among_many_is_no_collapse():
    assert watched([[HEALTHY] * 49 + [COLLAPSED], [HEALTHY] * 49 + [COLLAPSED]], every=50) == []


def test_embeddings_that_vanish_or_explode_are_told_once_a_run():
    tiny, huge = HEALTHY | {"norm": 0.00099}, HEALTHY | {"norm": 10_001.0}
    said = watched([[tiny, HEALTHY, tiny], [huge, HEALTHY, huge], [tiny]])
    assert said == [
        "Step 1: before scaling, embeddings have a mean length of 0.00099: they vanish, and noise decides their "
        "direction. Lower `learning_rate`, set a smaller `clip_norm`, or lengthen `warmup_epochs`.",
        "Step 4: before scaling, embeddings have a mean length of 1e+04: they explode. Lower `learning_rate`, set "
        "a smaller `clip_norm`, or lengthen `warmup_epochs`.",
    ]
    assert watched([[HEALTHY | {"norm": 0.00101}, HEALTHY | {"norm": 9_999.0}]]) == []


def test_a_loss_with_nothing_left_to_push_is_told_once_a_run():
    said = watched([[IDLE] * 4 + [HEALTHY], [IDLE] * 9, [HEALTHY], [IDLE] * 9], patience=5)
    assert said == [
        "Step 10: 0.4% of the loss's terms push, and 5 checks in a row found few: it has nothing left to push. "
        "Make it harder: more people a batch (`batch_size`), a harder `mining`, or another `margin` (tuplet_margin "
        "and circle: smaller; other losses: larger)."
    ]
    assert watched([[HEALTHY | {"active": 0.0101}] * 20]) == []
    assert len(watched([[HEALTHY | {"active": 0.0099}] * 20])) == 1


def test_words_name_settings_that_exist():
    advice = monitors.COLLAPSE_ADVICE + monitors.NORM_ADVICE + monitors.IDLE_ADVICE + "`stop_on_collapse`"
    assert {*re.findall(r"`(\w+)`", advice)} <= {*Config.model_fields}


def test_an_untrained_network_is_far_from_alarm(crops):
    runtime.seed_everything(0)
    images = np.stack([read_square(crops / path, 32) for path in index_people(crops).paths[:64]])
    network = build_embedding_model(Config(image_size=32))
    # Outside training, of which the logs tell nothing, its batch norm is still idle: embeddings lie close together.
    apart = {training: network(images, training=training) for training in (False, True)}
    assert float(spread(None, apart[True])) > 30 * monitors.COLLAPSED_SPREAD > float(spread(None, apart[False]))
    assert float(ops.mean(distance_matrix(apart[True], apart[True]))) > 10 * monitors.COLLAPSED_DISTANCE


# ---- Real runs -----------------------------------------------------------------------------------------------


def spread(_labels, rows):
    return 1 - ops.norm(ops.mean(unit_rows(rows), axis=0))


def norm(_labels, rows):
    return ops.mean(ops.norm(rows, axis=1))


def positive_distance(labels, rows):
    others = 1.0 - ops.eye(ops.shape(rows)[0])
    return mean_distance(rows, ops.cast(ops.equal(labels[:, None], labels), "float32") * others)


def negative_distance(labels, rows):
    return mean_distance(rows, ops.cast(ops.not_equal(labels[:, None], labels), "float32"))


def mean_distance(rows, mask):
    rows = unit_rows(rows)
    return ops.sum(distance_matrix(rows, rows) * mask) / ops.sum(mask)


def fitted(optimizer, monitor: CollapseMonitor, noise: float) -> tuple[keras.Model, dict[str, list[float]]]:
    """A small network without batch norm, 8 epochs of 16 steps with the hardest squared triplets."""
    runtime.seed_everything(0)
    rng = np.random.default_rng(0)
    labels = np.tile(np.arange(16), 64)
    inputs = (rng.normal(size=(16, 8))[labels] + noise * rng.normal(size=(len(labels), 8))).astype("float32")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(64, "relu"), keras.layers.Dense(16)])
    model.steps_taken = 0
    loss = losses.get("triplet", mining="hard", squared=True)
    model.compile(optimizer, loss, metrics=[spread, norm, positive_distance, negative_distance], jit_compile=False)
    options = {"batch_size": 64, "epochs": 8, "shuffle": False, "verbose": 0}
    return model, model.fit(inputs, labels, callbacks=[StepCounter(), monitor], **options).history


def test_a_real_collapse_is_caught():
    said: list[str] = []
    monitor = CollapseMonitor(lambda: 0.2, said.append, every=10, patience=5)
    with pytest.raises(CollapseError, match=r"one point, 5 checks in a row; at step \d+: spread 0\.00"):
        fitted(keras.optimizers.SGD(1.0, momentum=0.9), monitor, noise=1.0)
    assert len(said) == 1 and "the embeddings collapse to one point" in said[0]
    assert 10 < monitor.model.steps_taken < 100


def test_a_learning_run_with_the_loss_of_a_collapsed_one_is_left_alone():
    said: list[str] = []
    monitor = CollapseMonitor(lambda: 0.2, said.append, every=1)
    model, history = fitted(keras.optimizers.Adam(1e-3), monitor, noise=0.5)
    assert said == [] and model.steps_taken == 128
    assert min(abs(loss - 0.2) for loss in history["loss"]) < 0.02
    assert history["negative_distance"][-1] > 2 * history["positive_distance"][-1]


# ---- MiningSchedule and Snapshotting -------------------------------------------------------------------------


def scheduled(shares: list[list[float]], **options: Any) -> tuple[list[str], MiningSchedule]:
    """What a schedule says of these active shares, and itself."""
    names, said = iter(("semi_hard", "hard", "harder still")), list[str]()
    schedule = MiningSchedule(lambda: next(names), **{"below": 0.3, "say": said.append, **options})
    drive([schedule], [[{"active": share} for share in epoch] for epoch in shares])
    return said, schedule


def test_mining_becomes_harder_when_little_pushes():
    said, schedule = scheduled([[0.5] * 4 + [0.25] * 8 + [0.5, 0.0625]], every=2)
    assert said == [
        'Step 6: 25.0% of the loss\'s terms push, fewer than 30.0%. Mining is now "semi_hard".',
        'Step 8: 25.0% of the loss\'s terms push, fewer than 30.0%. Mining is now "hard".',
    ]
    assert schedule.state["moves"] == 2 and schedule.state["moved_at"] == 8
    assert len(scheduled([[0.1] * 20], every=2, levels=1)[0]) == 1
    assert len(scheduled([[0.1] * 20], every=2, levels=0)[0]) == 0
    assert scheduled([[0.25] * 20], every=1, below=0.25)[0] == []
    assert scheduled([[nan] * 20], every=1)[0] == []


def test_mining_rests_between_two_moves_also_over_an_epochs_end():
    steps = [int(words.split(":")[0][5:]) for words in scheduled([[0.1] * 6] * 3, every=4)[0]]
    assert steps == [4, 10]  # not at 6, the first epoch's end, nor before four steps have passed


def test_logs_without_activity_move_nothing():
    schedule = MiningSchedule(lambda: pytest.fail("moved"), 0.3, pytest.fail, every=1)
    drive([schedule], [[{"loss": 1.0}] * 5])


def test_snapshots_are_taken_on_time_in_every_epoch():
    taken: list[int] = []
    drive([Snapshotting(taken.append, 4)], [[HEALTHY] * 6, [HEALTHY] * 6])
    assert taken == [4, 8, 12]


# ---- Resuming, and the order of a chain ----------------------------------------------------------------------


def troubled(rng, count: int = 60) -> list[list[Figures]]:
    """Epochs of a run in which everything happens."""
    kinds = [HEALTHY, COLLAPSED, IDLE, HEALTHY | {"norm": 1e-4}, HEALTHY | {"norm": 1e5}]
    steps = [kinds[kind] for kind in np.repeat(rng.integers(0, len(kinds), count // 4), 4)]
    return [steps[start : start + 13] for start in range(0, count, 13)]


def both(said: list[str]) -> list[Any]:
    levels = iter(("semi_hard", "hard"))
    return [
        CollapseMonitor(lambda: 0.2, said.append, every=3, patience=2, stop=False),
        MiningSchedule(lambda: next(levels), 0.3, said.append, every=3),
    ]


def rest_of(epochs: list[list[Figures]], done: int) -> list[list[Figures]]:
    """The epochs after so many steps."""
    rest = []
    for epoch in epochs:
        rest.append(epoch[done:])
        done = max(0, done - len(epoch))
    return [epoch for epoch in rest if epoch]


def test_a_resumed_run_goes_on_where_it_was(rng):
    epochs, said, kept = troubled(rng), list[str](), list[tuple[str, int]]()
    whole = both(said)
    drive(whole, epochs, keep=lambda: kept.append((json.dumps([part.state for part in whole]), len(said))))
    assert len(said) >= 6 and len(kept) == 60
    for done, (text, before) in enumerate(kept[:-1], start=1):
        if done % 13 == 0:
            continue  # a run is saved at an epoch's end after its checks
        resumed: list[str] = []
        again = both(resumed)
        for part, state in zip(again, json.loads(text), strict=True):
            part.state = state
        for _ in range(again[1].state["moves"]):
            again[1]._advance()
        drive(again, rest_of(epochs, done), done)
        assert resumed == said[before:], done
        assert [part.state for part in again] == [part.state for part in whole]


def test_a_state_kept_elsewhere_follows_its_monitor():
    kept: dict[str, Any] = {}
    monitor = CollapseMonitor(lambda: 0.2, lambda words: None, every=2, stop=False)
    monitor.state = kept.setdefault("collapse", monitor.state)
    drive([monitor], [[COLLAPSED] * 5 + [HEALTHY | {"norm": 0.0}] * 2])
    expected = {"recent": {"steps": 0, "sums": {}}, "collapsed": 0, "idle": 0, "said": ["vanished"]}
    assert kept["collapse"] == monitor.state == expected
    drive([monitor], [[]])
    monitor.on_train_batch_end(0, {"spread": 0.5})
    assert kept["collapse"]["recent"] == {"steps": 1, "sums": {"spread": 0.5}}


def test_monitors_do_not_mind_their_order(rng):
    epochs, answers = troubled(rng), []
    for order in itertools.permutations(range(4)):
        said, taken = list[str](), list[int]()
        rows = iter(np.eye(len(epochs) + 1))
        parts = [*both(said), Snapshotting(taken.append, 5), DriftMonitor(lambda rows=rows: next(rows)[None], 13)]
        drive([parts[place] for place in order], epochs)
        answers.append((sorted(said), taken, [part.state for part in parts[:2]], parts[3].previous.tolist()))
    assert all(answer == answers[0] for answer in answers)


# ---- DriftMonitor --------------------------------------------------------------------------------------------


def drifted(embeddings: list[np.ndarray], steps: int | None = None, **logs: float) -> tuple[list[Figures], Any]:
    """The logs of an epoch for each of the embeddings, and the monitor."""
    waiting = iter(embeddings)
    monitor, epochs = DriftMonitor(lambda: next(waiting), steps), []
    for epoch in range(len(embeddings)):
        epochs.append(dict(logs))
        monitor.on_epoch_end(epoch, epochs[-1])
    return epochs, monitor


def test_drift_is_how_far_the_same_pictures_moved():
    here, there = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[0.6, 0.8], [0.0, -1.0]])
    epochs, monitor = drifted([here, here, there])
    assert [*epochs[0]] == ["drift"] and isnan(epochs[0]["drift"]) and epochs[1] == {"drift": 0.0}
    assert epochs[2]["drift"] == pytest.approx((0.4 + 2.0) / 2)
    assert monitor.previous.dtype == np.float32
    np.testing.assert_allclose(monitor.previous, there)


def test_a_small_drift_keeps_its_digits():
    angle = 1e-5
    before, now = np.array([[1.0, 0.0]], np.float32), np.array([[np.cos(angle), np.sin(angle)]], np.float32)
    assert drifted([before, now])[0][1]["drift"] == pytest.approx(angle**2 / 2, rel=1e-3)


def test_a_memorys_drift_is_in_proportion_to_its_age():
    here, there = np.array([[1.0, 0.0]]), np.array([[0.6, 0.8]])
    epochs, _ = drifted([here, there], steps=200, memory_age=50.0)
    assert isnan(epochs[0]["memory_drift"]) and epochs[1]["memory_drift"] == pytest.approx(0.4 * 50 / 200)
    assert "memory_drift" not in drifted([here, there], steps=200)[0][1]
    assert "memory_drift" not in drifted([here, there], memory_age=50.0)[0][1]


def test_drift_goes_on_from_kept_embeddings_and_keeps_its_own_copy():
    rows = np.array([[1.0, 0.0]], np.float32)
    _, monitor = drifted([rows])
    rows[:] = [[0.0, 1.0]]
    resumed = DriftMonitor(lambda: rows)
    resumed.previous = copy.copy(monitor.previous)
    logs: Figures = {}
    resumed.on_epoch_end(1, logs)
    assert logs == {"drift": pytest.approx(1.0)}
    resumed.on_epoch_end(2)  # without logs it still keeps the embeddings
    assert resumed.previous is not None
