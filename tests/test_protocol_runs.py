"""The other protocols of evaluate.py: scores, a folder alone, triplets, a gallery, .bin, several models, groups."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics

import evaluate
from facekit.bundle import read_network, read_record, write_bundle


@pytest.fixture(scope="module")
def whole(bundle, tmp_path_factory) -> Path:
    """The fixture's network as a model of whole pictures: no detection, so quick."""
    folder = tmp_path_factory.mktemp("whole") / "run" / "bundle"
    write_bundle(folder, read_network(bundle), dataclasses.replace(read_record(bundle), recipe=None))
    return folder


@pytest.fixture
def run(tmp_path, capsys):
    """Runs the command with --json; gives the report."""

    def call(*words: object) -> dict:
        capsys.readouterr()
        everything = [*words, "--output", tmp_path / "report", "--json"]
        assert evaluate.main([str(word) for word in everything]) == 0
        return json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def refused(capsys):
    """Runs a command that must fail; gives its sentence."""

    def call(*words: object) -> str:
        capsys.readouterr()
        assert evaluate.main([str(word) for word in words]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and "Traceback" not in error
        return error

    return call


def plain(report: dict, *names: str) -> None:
    for name in names:
        assert isinstance(report[name], int | float), name


def score_lines(count: int = 400) -> tuple[np.ndarray, np.ndarray, str]:
    rng = np.random.default_rng(0)
    same = np.arange(count) % 2 == 0
    scores = np.clip(rng.normal(np.where(same, 0.6, 0.2), 0.2), -1, 1)
    lines = [f"{score:.5f},{int(label)}" for score, label in zip(scores, same, strict=True)]
    return np.round(scores, 5), same, "score,label\n" + "\n".join(lines) + "\n"


def test_scores_of_any_system_are_judged_without_tensorflow(tmp_path):
    scores, same, text = score_lines()
    (tmp_path / "scores.csv").write_text(text)
    words = f"['--scores', '{tmp_path / 'scores.csv'}', '--json']"
    code = f"import sys, evaluate; evaluate.main({words}); sys.exit(7 if 'tensorflow' in sys.modules else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(same, scores))
    assert report["kind"] == "cosine" and 0 < report["threshold"] < 1 and report["accuracy"] > 0.7
    assert (tmp_path / "scores-report" / "report.html").is_file()


def test_distances_and_a_threshold_of_ones_own(tmp_path, run):
    scores, same, _ = score_lines()
    lines = [f"{1 - score:.5f},{int(label)}" for score, label in zip(scores, same, strict=True)]
    (tmp_path / "d.csv").write_text("distance,label\n" + "\n".join(lines) + "\n")
    report = run("--scores", tmp_path / "d.csv", "--distance", "--threshold", 0.6)
    distances = np.array([float(line.split(",")[0]) for line in lines])
    assert report["accuracy"] == pytest.approx(np.mean((distances < 0.6) == same)) and report["threshold"] == 0.6
    assert report["fmr"] == pytest.approx((distances[~same] < 0.6).mean())


def test_a_threshold_of_similarities_accepts_above(tmp_path, run):
    scores, same, text = score_lines()
    (tmp_path / "s.csv").write_text(text)
    report = run("--scores", tmp_path / "s.csv", "--threshold", 0.4)
    assert report["fnmr"] == pytest.approx((scores[same] <= 0.4).mean()) and report["threshold"] == 0.4


def test_groups_of_scores(tmp_path, run):
    scores, same, _ = score_lines(2000)
    groups = np.where(np.arange(2000) % 4 < 2, "left", "right")
    shifted = scores + 0.2 * (groups == "left")
    rows = zip(shifted, same, groups, strict=True)
    lines = [f"{score:.5f},{int(label)},{group}" for score, label, group in rows]
    (tmp_path / "g.csv").write_text("score,label,group\n" + "\n".join(lines) + "\n")
    report = run("--scores", tmp_path / "g.csv", "--threshold", 0.4)
    rates = {row["group"]: row["fmr"] for row in report["groups"]}
    assert rates["left"] == pytest.approx((np.round(shifted, 5)[(groups == "left") & ~same] > 0.4).mean())
    assert any("left" in warning and "right" in warning for warning in report["warnings"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("score,label\nnan,1\n0.2,0\n", "line 2"),
        ("score,label\n0.5,1\n0.2,1\n", "genuine"),
        ("score,label\n0.5,1\nx,0\n", "line 3"),
        ("score\n0.5\n", "label"),
        ("score,label,path1,path2\n.5,1,a,b\n.2,0,a,c\n.3,1,b,a\n", "line 4"),
        ("score,label,path1,path2\n.5,1,a,a\n.2,0,a,c\n", "line 2"),
    ],
)
def test_wrong_scores_get_their_sentence(tmp_path, refused, text, sentence):
    (tmp_path / "s.csv").write_text(text)
    error = refused("--scores", tmp_path / "s.csv")
    assert "s.csv" in error and sentence in error
    assert not (tmp_path / "s-report" / "report.json").exists()


def test_folds_of_unequal_size_are_warned_of(tmp_path, run):
    _, _, text = score_lines(60)
    lines = text.splitlines()
    folded = ["score,label,fold", *(f"{line},{0 if row < 40 else 1}" for row, line in enumerate(lines[1:]))]
    (tmp_path / "f.csv").write_text("\n".join(folded) + "\n")
    report = run("--scores", tmp_path / "f.csv")
    assert any("40" in warning and "20" in warning for warning in report["warnings"])
    assert len(report["kfold"]["accuracies"]) == 2


def test_a_folder_alone_gives_all_its_pairs(run, whole, crops):
    report = run("--images", crops, "--model", whole)
    assert (report["genuine"], report["impostor"]) == (16 * 15, 96 * 95 // 2 - 16 * 15)
    assert "all 240 genuine pairs, and 4,320 impostor pairs, all there are" in report["data"]
    plain(report, "auc", "eer", "accuracy", "fmr", "fnmr", "threshold")
    drawn = run("--images", crops, "--model", whole, "--impostor_pairs", 1000)
    assert drawn["impostor"] == 1000 and "drawn at random" in drawn["data"]
    assert abs(drawn["auc"] - report["auc"]) < 0.05


def test_excluded_people_are_left_out(run, whole, crops, tmp_path):
    people = sorted(path.name for path in crops.iterdir() if path.is_dir())
    (tmp_path / "known.txt").write_text(people[0].upper() + "\n")
    report = run("--images", crops, "--model", whole, "--exclude_people", tmp_path / "known.txt")
    assert report["genuine"] == 15 * 15


def test_triplets(run, whole, crops, tmp_path):
    pictures = {path.name: sorted(path.glob("*.jpg")) for path in sorted(crops.iterdir()) if path.is_dir()}
    people = list(pictures)
    lines = [
        ",".join(
            path.relative_to(crops).as_posix() for path in (pictures[one][0], pictures[one][1], pictures[other][0])
        )
        for one, other in zip(people, people[1:], strict=False)
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    report = run("--triplets", tmp_path / "t.csv", "--images", crops, "--model", whole)
    plain(report, "ordered", "triplets", "failed")
    assert report["triplets"] == 15 and 0 <= report["intervals"]["ordered"][0] <= report["ordered"] <= 1


@pytest.fixture(scope="module")
def sides(crops, tmp_path_factory) -> dict[str, Path]:
    """Ten people with a picture in the gallery and the rest as probes, two of them unknown, and four strangers."""
    root = tmp_path_factory.mktemp("search")
    people = sorted(path for path in crops.iterdir() if path.is_dir())
    for number, person in enumerate(people):
        first, *rest = sorted(person.glob("*.jpg"))
        for side, files in (("gallery", [first]), ("probes", rest)) if number < 12 else (("distractors", rest),):
            if side == "gallery" and number >= 10:
                continue
            (root / side / person.name).mkdir(parents=True)
            for file in files:
                shutil.copy(file, root / side / person.name)
    return {side: root / side for side in ("gallery", "probes", "distractors")}


def words(sides: dict[str, Path]) -> list[object]:
    return [word for side, folder in sides.items() for word in (f"--{side}", folder)]


def test_a_search_counts_its_people_and_ranks_them(run, whole, sides):
    report = run(*words(sides), "--model", whole)
    plain(report, "rank1", "rank5", "probes", "mated", "non_mated", "gallery_people")
    assert (report["gallery_people"], report["mated"], report["non_mated"]) == (10, 50, 10 + 20)
    assert report["rank1"] <= report["rank5"] <= report["cmc"][9]["share"] == 1.0
    assert len(report["id_rate"]) == len(report["tpir_at_fpir"]) == 7
    assert report["protocol"] == "gallery" and report["gallery_dir"] == str(sides["gallery"])


def test_a_picture_must_not_be_looked_for_in_itself(refused, whole, sides, tmp_path):
    shutil.copytree(sides["probes"], tmp_path / "probes")
    person = sorted(path for path in (tmp_path / "probes").iterdir())[0]
    shutil.copy(next((sides["gallery"] / person.name).iterdir()), person / "again.jpg")
    error = refused(*words({**sides, "probes": tmp_path / "probes"}), "--model", whole)
    assert "again.jpg: is the same picture as" in error


def test_a_distractor_must_be_a_stranger(refused, whole, sides, tmp_path):
    shutil.copytree(sides["distractors"], tmp_path / "d")
    person = sorted(path for path in sides["probes"].iterdir())[0]
    shutil.copytree(person, tmp_path / "d" / person.name.upper())
    error = refused(*words({**sides, "distractors": tmp_path / "d"}), "--model", whole)
    assert "`distractors`" in error and "must be strangers" in error


def test_packed_pairs_bring_their_pictures(run, refused, whole, crops, tmp_path):
    people = sorted(path for path in crops.iterdir() if path.is_dir())
    files = [sorted(person.glob("*.jpg")) for person in people]
    same = [(row[0], row[1]) for row in files]
    other = [(one[0], two[1]) for one, two in zip(files, files[1:], strict=False)]
    data = [path.read_bytes() for pair in [*same, *other] for path in pair]
    truth = [True] * len(same) + [False] * len(other)
    (tmp_path / "lfw.bin").write_bytes(pickle.dumps((data, truth), protocol=4))
    report = run("--pairs", tmp_path / "lfw.bin", "--model", whole)
    assert (report["genuine"], report["impostor"], report["failed"]) == (16, 15, 0)
    assert "brings its pictures: leave" in refused("--pairs", tmp_path / "lfw.bin", "--images", crops)


def test_several_models_stand_side_by_side_with_baselines(run, whole, crops, tmp_path):
    shutil.copytree(whole, tmp_path / "copy")
    report = run("--images", crops, "--model", whole, tmp_path / "copy", "--impostor_pairs", 500)
    rows = report["systems"]
    assert [row["name"] for row in rows][2:4] == ["untrained network", "raw pixels"]
    twin = rows[1]["differences"]["auc"]
    assert twin["difference"] == 0 and twin["interval"] == [0, 0] and not twin["clear"]
    assert rows[0]["auc"] == report["auc"]


def test_a_baseline_that_finds_no_face_has_a_sentence_instead_of_a_row(run, whole, crops, monkeypatch):
    package = types.SimpleNamespace(
        face_locations=lambda picture: [],
        face_encodings=lambda crop, known_face_locations: [np.full(128, crop.mean())],
    )
    monkeypatch.setitem(sys.modules, "face_recognition", package)
    monkeypatch.setattr("systems.find_spec", lambda name: object())
    report = run("--images", crops, "--model", whole, "--baselines", "--impostor_pairs", 500)
    assert [row["name"] for row in report["systems"]][1:] == [
        "untrained network",
        "raw pixels",
        "face_recognition (dlib)",
    ]
    lost = "face_recognition (dlib), its own detector has no row: None of the 96 pictures has a face"
    assert any(sentence.startswith(lost) for sentence in report["warnings"])


def test_groups_by_file(run, refused, whole, crops, tmp_path):
    people = sorted(path.name for path in crops.iterdir() if path.is_dir())
    lines = [f"{name},{'a' if number % 2 else 'b'}" for number, name in enumerate(people)]
    (tmp_path / "g.csv").write_text("person,camera\n" + "\n".join(lines) + "\n")
    report = run("--images", crops, "--model", whole, "--group", tmp_path / "g.csv")
    assert {row["group"] for row in report["groups"]} >= {"a", "b"}
    assert {row["column"] for row in report["groups"]} == {"camera"}
    (tmp_path / "g.csv").write_text("person,camera\nnobody,a\n")
    assert "knows none of" in refused("--images", crops, "--model", whole, "--group", tmp_path / "g.csv")


def test_a_published_curve_lies_beside_ours(run, refused, tmp_path):
    _, _, text = score_lines()
    (tmp_path / "s.csv").write_text(text)
    (tmp_path / "published.txt").write_text("0.0 0.0\n0.9 0.1\n1.0 1.0\n")
    run("--scores", tmp_path / "s.csv", "--overlay", tmp_path / "published.txt")
    assert "published" in (tmp_path / "report" / "report.html").read_text()
    (tmp_path / "published.txt").write_text("0.0 0.0\n0.9 x\n")
    assert "line 2" in refused("--scores", tmp_path / "s.csv", "--overlay", tmp_path / "published.txt")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Name one protocol"),
        (["--pairs", "p.csv", "--scores", "s.csv"], "Received: `pairs` and `scores`"),
        (["--gallery", "g"], "`gallery` needs `probes`"),
        (["--triplets", "t.csv"], "`triplets` needs `images`"),
        (["--pairs", "p.csv"], "needs `images`"),
        (["--images", "i", "--probes", "p"], "`probes` goes with `gallery`, not with `images`"),
        (["--scores", "s.csv", "--model", "m"], "`model` goes with"),
        (["--images", "i", "--distance"], "`distance` goes with `scores`"),
        (["--triplets", "t.csv", "--images", "i", "--model", "a", "b"], "judges one model at a time"),
        (["--scores", "nowhere.csv"], "nowhere.csv: cannot be read"),
    ],
)
def test_commands_that_do_not_fit_together_are_refused(words, sentence, refused):
    assert sentence in refused(*words)


def test_a_search_without_strangers_says_so(run, whole, sides, tmp_path):
    shutil.copytree(sides["probes"], tmp_path / "probes")
    known = {path.name for path in sides["gallery"].iterdir()}
    for person in list((tmp_path / "probes").iterdir()):
        if person.name not in known:
            shutil.rmtree(person)
    report = run("--gallery", sides["gallery"], "--probes", tmp_path / "probes", "--model", whole)
    assert report["non_mated"] == 0 and report["rank1"] > 0
    assert any("how strangers fare is not told" in warning for warning in report["warnings"])


def test_scores_that_are_judged_are_never_written_over(tmp_path, refused):
    _, _, text = score_lines()
    (tmp_path / "scores.csv").write_text(text)
    error = refused("--scores", tmp_path / "scores.csv", "--output", tmp_path)
    assert "would replace the file that is judged" in error
    assert (tmp_path / "scores.csv").read_text() == text and len(list(tmp_path.iterdir())) == 1


def test_groups_of_yes_and_no_scores(tmp_path, run):
    """A threshold of 0, and folds that do best by accepting everything, are thresholds too."""
    lines = [f"{int(row % 3 > 0)},{int(row % 2)},{'ab'[row % 5 > 2]}" for row in range(300)]
    (tmp_path / "g.csv").write_text("score,label,group\n" + "\n".join(lines) + "\n")
    report = run("--scores", tmp_path / "g.csv")
    assert {"a", "b"} <= {row["group"] for row in report["groups"]}
    # Where accepting everything is best, every impostor pair of a group is a false match.
    (tmp_path / "all.csv").write_text(
        "score,label,group\n" + "".join(f"0.{row % 9},{int(row % 10 > 0)},a\n" for row in range(600))
    )
    accepted = run("--scores", tmp_path / "all.csv")
    assert accepted["threshold"] is None and accepted["groups"][0]["fmr"] == 1.0
    run("--scores", tmp_path / "g.csv")
    rows = (tmp_path / "report" / "scores.csv").read_text().splitlines()
    assert rows[0].split(",").count("group") == 1


def test_equal_groups_are_seldom_called_different():
    from facekit.groups import rates_by_group
    from facekit.scored import ScoredPairs
    from judging import clearly_apart

    rng, called = np.random.default_rng(0), 0
    for _ in range(40):
        names = np.repeat([f"g{number}" for number in range(10)], 400)
        same = np.tile(np.arange(400) < 100, 10)
        distances = np.where(same, 0.5, np.where(rng.random(4000) < 0.05, 0.5, 1.5))
        scored = ScoredPairs(distances, same, np.zeros(4000, bool))
        table = rates_by_group(scored, 1.0, {"group": (names, names)})
        called += clearly_apart(table.worst_ratio("group"))
    assert called <= 5
    wrong = ~same & (rng.random(4000) < np.where(names == "g3", 0.3, 0.05))
    scored = ScoredPairs(np.where(same | wrong, 0.5, 1.5), same, np.zeros(4000, bool))
    assert clearly_apart(rates_by_group(scored, 1.0, {"group": (names, names)}).worst_ratio("group"))


def test_scores_the_wrong_way_round_are_doubted(tmp_path, run):
    scores, same, _ = score_lines()
    lines = [f"{1 - score:.5f},{int(label)}" for score, label in zip(scores, same, strict=True)]
    (tmp_path / "s.csv").write_text("score,label\n" + "\n".join(lines) + "\n")
    report = run("--scores", tmp_path / "s.csv")
    assert any("the wrong way round" in warning for warning in report["warnings"])


def test_people_to_leave_out_must_be_there(refused, whole, crops, sides, tmp_path):
    (tmp_path / "x.txt").write_text("Nobody Such\n")
    for data in (["--images", crops], words(sides)):
        error = refused(*data, "--model", whole, "--exclude_people", tmp_path / "x.txt")
        assert "none of its 1 people is in the data" in error
    error = refused("--scores", "s.csv", "--exclude_people", tmp_path / "x.txt")
    assert "`exclude_people` goes with" in error
