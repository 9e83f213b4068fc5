"""Campaigns: plans checked before anything trains, honest intervals, and a small one from beginning to end."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

import dataset
from apps import campaign
from apps.campaign import Plan, Scores, markdown, mean_auc

PLAN = {"base": {"epochs": 1}, "reference": "a", "test_pairs": "p.csv", "test_images": "i"}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"b": {}}, "`reference` must be one of b. Received: 'a'"),
        ({"a": {}, "b": {"los": 1}}, "`settings`, b: There is no setting `los`: did you mean `loss`"),
        ({"a": {"margin": 9}}, "`settings`, a: `margin` must be in"),
    ],
)
def test_a_wrong_plan_is_one_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Plan(**PLAN, settings=settings)


def test_a_missing_plan_ends_with_2(tmp_path, capsys):
    assert campaign.main([str(tmp_path / "none.json"), "--runs_dir", str(tmp_path)]) == 2
    assert "none.json: cannot be read" in capsys.readouterr().err


def test_a_run_s_settings_are_the_base_the_changes_and_its_seed():
    config = Plan(**PLAN, settings={"a": {"loss": "circle"}}).config("a", 2, Path("r"))
    assert (config.loss, config.epochs, config.seed, config.name, config.runs_dir) == (
        "circle",
        1,
        2,
        "a-2",
        Path("r"),
    )


def scores(noise: float, seed: int = 0, people: int = 40) -> Scores:
    """Pairs of people whose genuine distances are lower, the less noise the clearer."""
    rng = np.random.default_rng(seed)
    first = np.array([f"p{i % people}" for i in range(400)])
    same = np.arange(400) < 200
    second = np.where(same, first, np.roll(first, 7))
    return Scores(1.0 - 0.4 * same + noise * rng.normal(size=400), same, first, second)


def test_mean_and_difference_with_their_intervals():
    good, bad = [scores(0.2), scores(0.2, 1)], [scores(0.8), scores(0.8, 1)]
    value, low, high = mean_auc(good)
    assert value == pytest.approx(np.mean([run.auc() for run in good])) and low < value < high
    gain, low, high = mean_auc(good, bad)
    assert gain == pytest.approx(value - mean_auc(bad)[0]) and 0 < low < gain < high
    same = mean_auc(good, good)
    assert same == (0.0, 0.0, 0.0)


def test_seeds_with_other_people_have_an_interval_too():
    good = [scores(0.2), scores(0.2, 1, people=30)]
    value, low, high = mean_auc(good)
    single = mean_auc(good[:1])
    assert value == pytest.approx(np.mean([run.auc() for run in good])) and low < value < high
    assert high - low < single[2] - single[1]


def test_the_table_names_the_reference_and_calls_better_only_what_is():
    row = {
        "setting": "a", "seeds": 3, "validation_auc": 0.9, "validation_auc_seed_0": 0.9, "validation_accuracy": 0.8,
        "gain": 0.0, "gain_low": 0.0, "gain_high": 0.0, "better": False,
        "test_auc": 0.9, "test_auc_low": 0.8, "test_auc_high": 1.0,
        "test_accuracy": 0.7,
    }  # fmt: skip
    lines = markdown(
        [row, {**row, "setting": "b", "gain": 0.02, "gain_low": 0.01, "better": True}], "a"
    ).splitlines()
    assert "| reference |" in lines[2] and "+0.020 (+0.010 to +0.000), better" in lines[3]


@pytest.mark.slow
def test_a_small_campaign_from_beginning_to_end(crops, tmp_path):
    assert (
        dataset.main(["hold_out", str(crops), "--output_dir", str(tmp_path), "--share", "0.3", "--pairs", "40"])
        == 0
    )
    base = {
        "train_dir": str(crops), "exclude_people": str(tmp_path / "test_people.txt"), "image_size": 32,
        "embedding_size": 16, "validation_share": 0.3, "validation_pairs": 40, "batch_size": 4,
        "negatives_per_tuplet": 3, "steps_per_epoch": 3, "epochs": 1,
    }  # fmt: skip
    plan = {
        "base": base, "settings": {"tuplet": {}, "circle": {"loss": "circle"}, "arcface": {"loss": "arcface"}},
        "reference": "tuplet", "seeds": 2, "finalists": 1, "test_images": str(crops),
        "test_pairs": str(tmp_path / "test_pairs.csv"),
    }  # fmt: skip
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    command = [str(tmp_path / "plan.json"), "--runs_dir", str(tmp_path / "runs")]
    assert campaign.main(command) == 0
    rows = list(csv.DictReader((tmp_path / "runs" / "table.csv").open()))
    assert {row["setting"] for row in rows} == {"tuplet", "circle", "arcface"}
    assert rows[0]["seeds"] == "2" and rows[-1]["seeds"] == "1" and rows[-1]["better"] == "False"
    table = (tmp_path / "runs" / "table.md").read_text()
    written = (tmp_path / "runs" / "tuplet-0" / "history.csv").stat().st_mtime_ns
    assert campaign.main(command) == 0  # nothing is trained again
    assert (tmp_path / "runs" / "tuplet-0" / "history.csv").stat().st_mtime_ns == written
    assert (tmp_path / "runs" / "table.md").read_text() == table
