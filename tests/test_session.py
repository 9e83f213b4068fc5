"""From the settings to the parts of a run, and runs of several stages."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import objectives
import train
from config import Config
from facekit import callbacks, runtime
from facekit.bundle import read_network
from facekit.index import PeopleIndex
from runs import RunFolder
from session import Session
from tests.test_train import arguments, check_steps, state

ROOT = Path(__file__).resolve().parent.parent


def loss_of(**settings) -> dict:
    return objectives.build_objective(Config(**settings), people=5).losses_on_pairs[0].get_config()


def test_the_loss_is_what_the_settings_say():
    tuplet = loss_of(margin=0.3, scale=32.0, hardest=4)
    assert (tuplet["margin"], tuplet["scale"], tuplet["hardest"]) == (0.3, 32.0, 4)
    assert loss_of()["margin"] == 0.1
    triplet = loss_of(loss="triplet", mining="hard", soft=True)
    assert (triplet["mining"], triplet["soft"], triplet["squared"], triplet["margin"]) == ("hard", True, False, 0.2)
    assert loss_of(loss="triplet", squared=True, margin=1.0)["squared"]
    assert loss_of(loss="triplet", mining="all", average="all")["average"] == "all"
    assert loss_of(loss="multi_similarity", alpha=3, beta=40, base=0.0)["base"] == 0.0


def test_mining_is_the_triplet_loss_s_own_or_a_mask():
    assert objectives.build_objective(Config(loss="triplet", mining="hard"), 5).miner is None
    schedule = objectives.build_objective(Config(loss="triplet", mining="schedule", mining_count=3), 5)
    assert (schedule.miner.kind, schedule.miner.count) == ("schedule", 3)
    assert schedule.losses_on_pairs[0].mining == "all"
    assert objectives.build_objective(Config(mining="hard"), 5).miner.kind == "hard"
    assert objectives.build_objective(Config(), 5).miner is None
    assert objectives.build_objective(Config(mining="all"), 5).miner is None


def test_heads_memory_and_further_losses_are_what_the_settings_say():
    extra = ({"loss": "arcface", "weight": 0.2, "options": {"margin": 0.3}}, {"loss": "contrastive"})
    settings = {"extra_losses": extra, "memory_size": 64, "memory_start": 3, "hard_identity_steps": 50}
    objective = objectives.build_objective(Config(**settings), 5)
    assert [type(loss).__name__ for loss in objective.losses_on_pairs] == ["TupletMarginLoss", "ContrastiveLoss"]
    assert [(head.margin, head.classes) for head in objective.heads] == [(0.3, 5)]
    assert (objective.loss_weights, objective.head_weights) == ([1.0, 1.0], [0.2])
    assert (objective.memory.size, objective.memory.start_step, objective.centres.people) == (64, 3, 5)
    head = objectives.build_objective(Config(loss="adaface", h=0.5, subcentres=3, sampled=400, scale=32), 7).heads[
        0
    ]
    assert (head.h, head.subcentres, head.sampled, head.scale, head.classes) == (0.5, 3, 400, 32, 7)
    with pytest.raises(ValueError, match="loss arcface: `margin` must be in"):
        objectives.build_objective(Config(extra_losses=({"loss": "arcface", "options": {"margin": 9.0}},)), 5)


def test_the_optimizer_is_what_the_settings_say():
    adamw = objectives.build_optimizer(Config(weight_decay=0.02, clip_norm=3.0))
    assert (type(adamw).__name__, adamw.weight_decay, adamw.global_clipnorm) == ("AdamW", 0.02, 3.0)
    sgd = objectives.build_optimizer(Config(optimizer="sgd", momentum=0.8, weight_decay=0.0, clip_norm=None))
    assert (type(sgd).__name__, sgd.momentum, sgd.nesterov) == ("SGD", 0.8, True)
    assert sgd.weight_decay is None and sgd.global_clipnorm is None
    assert type(objectives.build_optimizer(Config(optimizer="adam"))).__name__ == "Adam"


def test_usual_keys():
    assert objectives.usual_keys(Config(negatives="tuplet", negatives_per_tuplet=5)) == (1, 5)
    assert objectives.usual_keys(Config(batch_size=4, negatives_per_tuplet=3)) == (1, 18)
    assert objectives.usual_keys(Config(sampler="people", batch_size=12, pictures_per_person=3)) == (2, 9)


INDEX = PeopleIndex(Path(), ["a", "b", "c"], [f"{n}.jpg" for n in range(6)], np.repeat(np.arange(3), 2))


def session(**settings) -> Session:
    config = Config(**{"image_size": 32, "embedding_size": 8, "name": "x", "steps_per_epoch": 100, **settings})
    return Session(config, RunFolder.of(config), INDEX)


def test_a_session_is_what_the_settings_say():
    plain = session(epochs=4, learning_rate=0.5, warmup_epochs=2, early_stopping_patience=3, negatives="tuplet")
    rates = [plain.rate._rate_at(step) for step in (0, 199, 399)]
    assert rates == pytest.approx([0.5 / 200, 0.5, 0.005], rel=0.02)
    assert plain.best._stop_patience == 3 and plain.best._plateau is None and plain.best._sign == 1
    assert not plain.trainer.objective.whole_batch and not plain.trainer.jit_compile
    other = session(schedule="plateau", plateau_patience=2, plateau_factor=0.5, monitor="eer", xla=True)
    assert other.best._sign == -1 and other.best._plateau_patience == 2 and other.trainer.jit_compile
    assert other.trainer.objective.whole_batch
    other.best._plateau()
    assert other.rate._factor**other.rate.lowered == 0.5


def test_half_precision_scales_its_loss():
    assert type(session(precision="mixed_float16").trainer.optimizer).__name__ == "LossScaleOptimizer"
    assert type(session().trainer.optimizer).__name__ == "AdamW"


def test_the_seed_decides_the_first_weights():
    first, again, other = (session(seed=seed).trainer.network.get_weights() for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


# ---- Stages ------------------------------------------------------------------------------------------------

STAGES = (
    {"epochs": 1, "loss": "softmax", "learning_rate": 0.002},
    {"epochs": 2, "loss": "tuplet_margin", "freeze": ["small"], "batch_size": 5},
)


def test_stages_share_the_network_and_have_their_own_rest():
    run = session(stages=STAGES, epochs=9, steps_per_epoch=10)
    assert (run.epochs, run.steps, run.steps_before, run.epochs_before) == (3, [10, 10], 0, 0)
    assert run.rate._rate_at(9) < run.rate._rate_at(5) == pytest.approx(0.002, rel=0.1)
    network, optimizer = run.network, run.trainer.optimizer
    assert run.trainer.objective.heads and network.get_layer("small").trainable
    assert [number for number in run.stages()] == [0, 1]
    assert (run.number, run.steps_before, run.epochs_before) == (1, 10, 1)
    assert run.trainer.network is network and run.trainer.optimizer is not optimizer
    assert not run.trainer.objective.heads and not network.get_layer("small").trainable
    assert len(run.trainer.trainable_variables) == 3  # the embedding, and its batch norm's two


def test_a_layer_that_is_not_there_cannot_be_frozen():
    with pytest.raises(
        ValueError, match="no layer's name begins with 'bakbone'. The outer ones are small, embedding"
    ):
        session(freeze=("bakbone",))
    with pytest.raises(ValueError, match="no layer's name begins with 'bakbone'"):
        session(stages=({"epochs": 1}, {"epochs": 1, "freeze": ["bakbone"]}))
    with pytest.raises(ValueError, match="small, embedding leaves nothing to train"):
        session(freeze=("small", "embedding"))


def staged(crops: Path, runs: Path, name: str) -> list[str]:
    """A run of an ArcFace stage and one with memory, mining and hard identities."""
    second = {
        "epochs": 2, "loss": "tuplet_margin", "memory_size": 40, "memory_start": 1, "mining": "schedule",
        "extra_losses": [{"loss": "arcface", "weight": 0.1}],
    }  # fmt: skip
    stages = [{"epochs": 1, "loss": "arcface", "subcentres": 2}, second]
    plan = runs / f"{name}.json"
    plan.write_text(json.dumps({"stages": stages}))
    return [*arguments(crops, runs, name), "--config", str(plan)]


@pytest.fixture(scope="module")
def two_stages(crops, tmp_path_factory) -> Path:
    """A run of two stages that nobody interrupted."""
    runs = tmp_path_factory.mktemp("stages")
    assert train.main(staged(crops, runs, "whole")) == 0
    return runs


def test_a_run_of_two_stages_leaves_one_history_and_no_head_in_the_bundle(two_stages):
    rows = list(csv.DictReader((two_stages / "whole" / "history.csv").open()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    assert rows[0]["class_accuracy"] and not rows[0]["memory_filled"] and rows[2]["memory_filled"]
    check_steps(two_stages / "whole", [1, 2, 3])
    names = [layer.name for layer in read_network(two_stages / "whole" / "bundle").layers]
    assert names == [layer.name for layer in session().network.layers]


def stop_after(steps: int, monkeypatch: pytest.MonkeyPatch, command: list[str]) -> None:
    """Run a training command that is asked to stop after so many steps."""
    seen: list[int] = []
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
        assert train.main(command) == runtime.INTERRUPTED


def resume(runs: Path, name: str) -> str:
    """Go on in a fresh process; what it printed."""
    command = [sys.executable, "train.py", "--resume", "--name", name, "--runs_dir", str(runs)]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout


def check_same_state(run: Path, other: Path) -> None:
    """Weights, optimizer, head, memory, seeds, snapshots: equal to the last bit."""
    found, expected = state(run), state(other)
    assert set(found) == set(expected)
    for key in set(found) - {"record"}:
        np.testing.assert_array_equal(found[key], expected[key], err_msg=key)


@pytest.mark.parametrize("steps", [3, 5])  # at the end of a stage, and inside one
def test_a_run_of_stages_resumes_exactly_in_a_fresh_process(two_stages, crops, steps, monkeypatch):
    name = f"stopped-{steps}"
    stop_after(steps, monkeypatch, staged(crops, two_stages, name))
    assert f"Going on after step {steps}" in resume(two_stages, name)
    check_same_state(two_stages / name, two_stages / "whole")
    check_steps(two_stages / name, [1, 2, 3])


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [{}, {"sampler": "people", "batch_size": 20, "pictures_per_person": 4}])
def test_hard_identity_batches_resume_exactly(crops, tmp_path, sampler, monkeypatch):
    settings = {"hard_identity_steps": 50, "steps_per_epoch": 40, "epochs": 4, **sampler}
    assert train.main(arguments(crops, tmp_path, "whole", **settings)) == 0
    assert any(key.startswith("beside/") for key in state(tmp_path / "whole"))
    stop_after(115, monkeypatch, arguments(crops, tmp_path, "stopped", **settings))
    resume(tmp_path, "stopped")
    check_same_state(tmp_path / "stopped", tmp_path / "whole")
    at_random = {**settings, "hard_identity_steps": 0}
    assert train.main(arguments(crops, tmp_path, "random", **at_random)) == 0
    losses = [(tmp_path / name / "history.csv").read_text().split("\n")[4] for name in ("whole", "random")]
    assert losses[0].split(",")[1:3] != losses[1].split(",")[1:3]


def test_a_stage_is_judged_by_its_own_best(two_stages):
    best = callbacks.Best("auc", True, lambda: None)
    best.begin(stop_patience=2)
    best.on_epoch_end(0, {"auc": 0.9})
    best.begin(stop_patience=2)
    for epoch, auc in enumerate((0.7, 0.75, 0.8), 1):
        best.on_epoch_end(epoch, {"auc": auc})
    assert not best.finished and (best.state["value"], best.state["epoch"]) == (0.9, 0)


def test_the_epochs_of_stages_cannot_be_changed_by_the_run_s(two_stages, capsys):
    command = ["--resume", "--name", "whole", "--runs_dir", str(two_stages), "--epochs", "9"]
    assert train.main(command) == 2
    assert "`epochs` cannot change in a run of `stages`: theirs count" in capsys.readouterr().err


def test_a_later_stage_that_cannot_fill_its_batch_takes_as_many_people_as_there_are(crops, tmp_path, capsys):
    stages = [{"epochs": 1}, {"epochs": 1, "sampler": "people", "batch_size": 400}]
    (tmp_path / "c.json").write_text(json.dumps({"stages": stages}))
    assert train.main([*arguments(crops, tmp_path, "smaller"), "--config", str(tmp_path / "c.json")]) == 0
    told = capsys.readouterr().out
    people = len((tmp_path / "smaller" / "train_people.txt").read_text().split())
    assert f"`batch_size` 400 takes more people than there are: batches are of {4 * people} pictures" in told


def test_a_wrong_later_stage_stops_the_run_before_it_begins(crops, tmp_path, capsys):
    stages = [{"epochs": 1}, {"epochs": 1, "extra_losses": [{"loss": "arcface", "options": {"margin": 9.0}}]}]
    (tmp_path / "c.json").write_text(json.dumps({"stages": stages}))
    assert train.main([*arguments(crops, tmp_path, "wrong"), "--config", str(tmp_path / "c.json")]) == 2
    assert "`margin` must be in (0, pi/2)" in capsys.readouterr().err
    assert not (tmp_path / "wrong").exists()
