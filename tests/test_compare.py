"""Comparing runs: what differs, which epoch counts, what is said of runs that are unfinished, damaged or apart."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from apps import compare
from config import Config
from facekit.images import read_image
from facekit.plots import figure_to_image
from facekit.run_plots import Line, runs_figure

ROOT = Path(__file__).resolve().parent.parent
AUCS = (0.6, 0.8, 0.7)


def make_run(
    runs: Path, name: str, aucs: tuple[float, ...] = AUCS, people: str = "these", bundle=None, **settings
) -> Path:
    """The files of a run of three epochs, as train.py leaves them."""
    folder = runs / name
    folder.mkdir(parents=True)
    config = Config(**{"name": name, "runs_dir": runs, "epochs": 3, "train_dir": "crops", **settings})
    (folder / "config.json").write_text(config.to_json())
    data = {"train_dir": "/data/crops", "digests": {"train": "x", "validation": people}}
    (folder / "data.json").write_text(json.dumps(data))
    rows = [
        {
            "epoch": n,
            "loss": 9.0 / n,
            "images_per_second": 5 * 2**n,
            "auc": auc,
            "accuracy": auc - 0.1,
            "eer": 1 - auc,
        }
        for n, auc in enumerate(aucs, 1)
    ]
    if settings.get("monitor") == "tpr":
        rows = [{**row, "tpr_at_fmr": row["auc"] - 0.2} for row in rows]
    if rows:
        with (folder / "history.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    (folder / "bundle").mkdir()
    (folder / "bundle" / "bundle.json").write_text(json.dumps(bundle or {}))
    return folder


def with_report(folder: Path, auc: float, pairs: str = "lists/pairs.csv", **more) -> Path:
    report = {
        "auc": auc, "accuracy": 0.5, "at_threshold": {"accuracy": 0.75}, "genuine": 1000, "impostor": 2000,
        "pairs_file": pairs,
        "intervals": {"auc": [auc - 0.02, auc + 0.02]},
        "tpr_at_fpr": [{"fpr": 0.1, "tpr": 0.9}, {"fpr": 0.01, "tpr": 0.5}, {"fpr": 0.001, "tpr": None}], **more,
    }  # fmt: skip
    (folder / "evaluation-pairs").mkdir()
    (folder / "evaluation-pairs" / "report.json").write_text(json.dumps(report))
    return folder


def said(folders: list[Path], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command prints of runs."""
    assert compare.main([str(folder) for folder in folders]) == 0
    return capsys.readouterr().out


def cells(text: str) -> dict[str, dict[str, str]]:
    """The printed table: of each run, its cells by column."""
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if "|" in line]
    return {line[0]: dict(zip(lines[0], line, strict=True)) for line in lines[2:]}


def test_only_the_settings_that_differ_are_columns(tmp_path, capsys):
    folders = [
        make_run(tmp_path, "a", loss="circle", dropout=0.5),
        make_run(tmp_path, "b", loss="supcon", dropout=0.5, augment={"flip": {"probability": 0.1}}),
    ]
    columns = list(cells(said(folders, capsys))["a"])
    before, after = columns.index("run"), columns.index("done")
    assert columns[before + 1 : after] == ["augment.flip.probability", "loss"]


def test_many_settings_that_differ_are_lines_of_a_table_of_their_own(tmp_path, capsys):
    more = {"dropout": 0.1, "margin": 0.3, "learning_rate": 0.01, "seed": 3, "validation_dir": f"/{'x' * 50}/b"}
    folders = [make_run(tmp_path, "a"), make_run(tmp_path, "b", (0.9,), **more)]
    text = said(folders, capsys)
    figures, _, settings = text.split("\n\n")
    assert list(cells(figures)["a"])[:3] == ["run", "done", "best"]
    found = cells(settings)
    assert list(found) == ["validation_dir", "margin", "dropout", "learning_rate", "seed"]
    assert found["dropout"] == {"setting": "dropout", "b": "0.1", "a": str(Config().dropout)}
    assert found["validation_dir"]["b"] == "/xxxxxxxx…xxxxxxxx/b"
    assert max(map(len, settings.splitlines())) < 80


def test_what_was_left_out_of_the_bundle_is_not_told_as_set(tmp_path, capsys):
    out, kept = {"cohort": 0, "interpolation": None}, {"cohort": 225, "interpolation": 0.5}
    more = {"cohort": 3, "interpolate": True, "weights": "dlib", "backbone": "dlib_resnet29", "image_size": 150}
    records = (("a", out), ("b", kept))
    folders = [make_run(tmp_path, name, bundle={"training": training}, **more) for name, training in records]
    found = cells(said(folders, capsys))
    assert (found["a"]["cohort"], found["b"]["cohort"]) == ("3 (left out)", "3")
    assert (found["a"]["interpolate"], found["b"]["interpolate"]) == ("True (left out)", "True")


def test_figures_are_those_of_the_model_in_the_bundle_and_tpr_names_its_rate(tmp_path, capsys):
    product = {"figures": {"auc": 0.99, "tpr_at_fmr": 0.77, "note": "The best of 6 networks."}}
    folders = [
        make_run(tmp_path, "a", monitor="tpr", monitor_fmr=0.002),
        make_run(tmp_path, "b", monitor="tpr", monitor_fmr=0.01, bundle=product),
        make_run(tmp_path, "c"),
    ]
    found = cells(said(folders, capsys))
    assert found["b"]["AUC"] == "0.990" and found["b"]["accuracy"] == "0.700"
    names = ("TPR@FMR 0.002", "TPR@FMR 0.01")
    rates = {run: [row[name] for name in names] for run, row in found.items()}
    assert rates == {"a": ["0.600", "-"], "b": ["-", "0.770"], "c": ["-", "-"]}


def test_the_same_folder_typed_otherwise_is_no_difference(tmp_path, capsys):
    folders = [make_run(tmp_path, "a"), make_run(tmp_path, "b", train_dir="/data/crops")]
    assert "train_dir" not in cells(said(folders, capsys))["a"]


def test_a_setting_that_an_older_run_does_not_know_has_its_default(tmp_path, capsys):
    folders = [make_run(tmp_path, "a"), make_run(tmp_path, "b", margin=0.3)]
    settings = json.loads((folders[0] / "config.json").read_text())
    del settings["margin"], settings["monitor"]
    (folders[0] / "config.json").write_text(json.dumps({**settings, "gone": 1}))
    found = cells(said(folders, capsys))
    assert (found["a"]["margin"], found["b"]["margin"]) == ("None", "0.3")
    assert (found["a"]["gone"], found["b"]["gone"]) == ("1", "None")


@pytest.mark.parametrize(
    ("monitor", "aucs", "best"),
    [("auc", (0.6, 0.8, 0.7), "2"), ("eer", (0.6, 0.7, 0.9), "3"), ("auc", (0.8, 0.7, 0.8), "1")],
)
def test_the_figures_are_those_of_the_best_epoch_by_the_run_s_monitor(tmp_path, capsys, monitor, aucs, best):
    found = cells(said([make_run(tmp_path, "a", aucs, monitor=monitor)], capsys))["a"]
    auc = aucs[int(best) - 1]
    assert (found["done"], found["best"], found["images/s"]) == ("3", best, "20")
    figures = [float(found[name]) for name in ("AUC", "accuracy", "EER")]
    assert figures == pytest.approx([auc, auc - 0.1, 1 - auc])


def test_the_best_run_comes_first_and_one_without_figures_last(tmp_path, capsys):
    folders = [make_run(tmp_path, name, aucs) for name, aucs in (("a", (0.7,)), ("b", ()), ("c", (0.9,)))]
    assert list(cells(said(folders, capsys))) == ["c", "a", "b"]


def test_reports_of_tests_are_found_with_their_pairs_and_interval(tmp_path, capsys):
    folders = [with_report(make_run(tmp_path, "a"), 0.81), make_run(tmp_path, "b")]
    found = cells(said(folders, capsys))
    assert found["a"]["pairs.csv, 1,000 + 2,000 pairs"] == "0.810 (0.790 to 0.830), 0.750, 0.500 at 0.01"
    assert found["b"]["pairs.csv, 1,000 + 2,000 pairs"] == "-"
    other = with_report(
        make_run(tmp_path, "c"), 0.9, pairs=None, images="photos/lfw", intervals={"auc": [None, None]}
    )
    assert cells(said([*folders, other], capsys))["c"]["lfw, 1,000 + 2,000 pairs"].startswith("0.900, 0.750")


def test_a_report_about_something_else_is_no_test(tmp_path, capsys):
    folder = with_report(make_run(tmp_path, "a"), 0.8)
    (folder / "evaluation-pairs" / "report.json").write_text(json.dumps({"rank1": 0.9}))
    text = said([folder], capsys)
    assert list(cells(text)["a"])[-1] == "images/s" and "report.json" not in text


def test_runs_on_other_people_are_told_apart_and_not_ranked_together(tmp_path, capsys):
    folders = [
        make_run(tmp_path, name, (auc,), people)
        for name, auc, people in (("a", 0.7, "these"), ("b", 0.9, "those"), ("c", 0.8, "these"))
    ]
    text = said(folders, capsys)
    assert {name: row["people"] for name, row in cells(text).items()} == {"c": "1", "a": "1", "b": "2"}
    assert list(cells(text)) == ["c", "a", "b"]
    assert "WARNING: these runs were not validated on the same people" in text
    assert "WARNING" not in said([folders[0], folders[2]], capsys)
    (folders[0] / "data.json").unlink()
    text = said([folders[0], folders[2]], capsys)
    assert cells(text)["a"]["people"] == "?" and "WARNING" in text


def test_an_unfinished_run_is_in_the_table_and_named(tmp_path, capsys):
    folder = make_run(tmp_path, "a", (0.6, 0.7))
    (folder / "bundle" / "bundle.json").unlink()
    text = said([folder, make_run(tmp_path, "b", ())], capsys)
    assert cells(text)["a"]["done"] == "2 of 3" and cells(text)["b"]["done"] == "0 of 3"
    assert "a is not finished: 2 of 3 epochs. train.py --resume goes on." in text and "b is not" not in text


def test_the_epochs_of_stages_count(tmp_path, capsys):
    stages = [{"epochs": 1, "loss": "softmax"}, {"epochs": 2}]
    assert cells(said([make_run(tmp_path, "a", stages=stages, epochs=9)], capsys))["a"]["done"] == "3"


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("config.json", "{", "a is left out. {}: is damaged, it is not JSON"),
        ("config.json", "[]", "a is left out. {}: is damaged, it holds no JSON object"),
        ("config.json", '{"stages": [3]}', "a is left out. {}: is damaged, its epochs cannot be counted"),
        ("history.csv", "epoch,auc\n1,high\n", "{}: is damaged (could not convert"),
        ("data.json", "", "{}: is damaged, it is not JSON"),
        ("evaluation-pairs/report.json", '{"auc": 0.5}', "{}: is no report of evaluate.py (KeyError"),
    ],
)
def test_a_damaged_file_is_named_and_the_other_runs_are_compared(tmp_path, capsys, file, content, sentence):
    folders = [with_report(make_run(tmp_path, "a"), 0.8), make_run(tmp_path, "b")]
    (folders[0] / file).write_text(content)
    text = said(folders, capsys)
    assert sentence.format(folders[0] / file) in text
    assert cells(text)["b"]["AUC"] == "0.800"


def test_what_is_no_run_is_passed_over_with_a_word(tmp_path, capsys):
    (tmp_path / "cache").mkdir()
    (tmp_path / "notes.txt").write_text("no folder at all")
    text = said([make_run(tmp_path, "a"), tmp_path / "cache", tmp_path / "notes.txt"], capsys)
    assert "cache is passed over: there is no run in it" in text and "notes.txt" not in text
    assert compare.main([str(tmp_path / "cache")]) == 2
    assert "There is no run to compare. cache is passed over" in capsys.readouterr().err


def test_runs_of_one_name_in_two_folders_are_told_apart(tmp_path, capsys):
    folders = [make_run(tmp_path / "x", "a"), make_run(tmp_path / "y", "a")]
    assert set(cells(said(folders, capsys))) == {"x/a", "y/a"}
    assert (tmp_path / "compare.md").exists()


def test_json_and_csv_hold_plain_values(tmp_path, capsys):
    folders = [with_report(make_run(tmp_path, "a", loss="circle"), 0.81), make_run(tmp_path, "b", ())]
    assert compare.main([*map(str, folders), "--json", "--output", str(tmp_path / "out")]) == 0
    answer = json.loads(capsys.readouterr().out)
    first, second = answer["runs"]
    assert first["settings"] == {"loss": "circle"} and first["best_epoch"] == 2 and first["auc"] == 0.8
    assert first["tests"] == [
        {"pairs": "pairs.csv, 1,000 + 2,000 pairs", "auc": 0.81, "interval": [0.79, 0.8300000000000001],
         "accuracy": 0.75, "fmr": 0.01, "tpr": 0.5}
    ]  # fmt: skip
    assert second["best_epoch"] is None and second["auc"] is None and answer["notes"] == []
    rows = list(csv.DictReader((tmp_path / "out" / "compare.csv").open()))
    assert rows[0]["loss"] == "circle" and float(rows[0]["pairs.csv, 1,000 + 2,000 pairs: auc_low"]) == 0.79
    assert rows[1]["auc"] == "" and rows[0]["epochs_planned"] == "3"
    assert (tmp_path / "out" / "compare.md").read_text().startswith("| run")
    assert read_image(tmp_path / "out" / "compare.png").std() > 10


def test_long_values_and_bars_do_not_break_the_table(tmp_path):
    text = compare.markdown(
        compare.compare([make_run(tmp_path, name, validation_dir=f"{name}|" * 30) for name in "ab"])
    )
    line = next(line for line in text.splitlines() if line.startswith("| a"))
    assert line.count("|") - line.count("\\|") == text.splitlines()[0].count("|") and "…" in line


def test_every_name_of_twenty_runs_can_be_read_in_the_plot():
    rows = [[{"epoch": epoch, "loss": 1.0 + n, "auc": 0.8 + n / 1000} for epoch in (1, 2)] for n in range(20)]
    lines = [Line(f"run_{n}", history, history[0]) for n, history in enumerate(rows)]
    figure = runs_figure([*lines, Line("no epoch yet", [], {})])
    width, height = figure_to_image(figure).shape[1::-1]
    renderer = figure.canvas.get_renderer()
    boxes = sorted(
        (text.get_window_extent(renderer) for text in figure.axes[1].get_legend().get_texts()),
        key=lambda box: box.y0,
    )
    assert len(boxes) == 20
    assert all(box.x1 <= width and 0 <= box.y0 and box.y1 <= height for box in boxes)
    assert all(low.y1 <= high.y0 for low, high in zip(boxes, boxes[1:], strict=False))
    drawn = [line for line in figure.axes[0].lines if line.get_linestyle() != "None"]
    assert len({(line.get_color(), str(line._dash_pattern)) for line in drawn}) == 20


def test_one_point_is_a_dot_and_nothing_but_figures_is_drawn():
    rows = [{"epoch": 0, "loss": 3.0, "auc": 0.7}, {"epoch": 1, "loss": 2.0, "auc": 0.9}]
    figure = runs_figure([Line("start alone", rows[:1], rows[0]), Line("trained", rows, rows[1])])
    for axes, name in zip(figure.axes, ("loss", "auc"), strict=True):
        figures = {(row["epoch"], row[name]) for row in rows}
        assert all(set(zip(*line.get_data(), strict=True)) <= figures for line in axes.lines) and not axes.texts
    alone, trained = (line for line in figure.axes[1].lines if line.get_linewidth() == 2)
    assert (alone.get_linestyle(), alone.get_marker()) == ("None", "o") and trained.get_linestyle() != "None"
    texts = [text.get_text() for text in figure.axes[1].get_legend().get_texts()]
    assert texts == ["trained  0.900", "start alone  0.700"]


def test_losses_far_apart_share_a_logarithmic_axis():
    def scale(worst: float) -> str:
        rows = [[{"epoch": 1, "loss": loss, "auc": 0.5}] for loss in (1.0, worst)]
        return runs_figure([Line("x", row, row[0]) for row in rows]).axes[0].get_yscale()

    assert (scale(5.0), scale(500.0)) == ("linear", "log")
    with pytest.raises(ValueError, match="no run with an epoch"):
        runs_figure([Line("x", [], {})])


def test_no_tensorflow_is_loaded(tmp_path):
    folder = make_run(tmp_path, "a")
    check = (
        "import sys\nfrom apps import compare\n"
        f"assert compare.main(['{folder}']) == 0\n"
        "assert 'tensorflow' not in sys.modules and 'keras' not in sys.modules\n"
    )
    answer = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
