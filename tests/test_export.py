"""The export command: every form agrees with Keras, carries what a reader needs, and is kept only where it does."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from apps import export as command
from apps import export_parity
from facekit import export
from facekit.alignment import CropRecipe
from facekit.bundle import read_network, read_record, write_record
from facekit.images import read_image, resize_square
from facekit.mirror import with_mirror
from facekit.trainer import Embedder

ROOT = Path(__file__).resolve().parent.parent
FORMS = [
    ("saved_model", None),
    ("onnx", None),
    ("onnx", "float16"),
    ("onnx", "int8"),
    ("litert", None),
    ("litert", "float16"),
    ("litert", "int8"),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow is running already: its threads are set; times are not what is tested."""
    monkeypatch.setattr("facekit.runtime.limit_threads", lambda threads: None)
    monkeypatch.setattr(export_parity, "ROUNDS", 1)
    monkeypatch.setattr(export_parity, "CALLS", 2)


@pytest.fixture
def licensed(bundle, tmp_path) -> Path:
    """A bundle that takes whole pictures, averages flips and says its licence."""
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    record = read_record(folder)
    assert record.threshold is not None
    threshold = replace(record.threshold, flip=True)
    write_record(folder, replace(record, recipe=None, flip=True, licence="CC0", threshold=threshold))
    return folder


def listed(crops: Path, folder: Path) -> Path:
    """Pairs of the drawn people: 30 genuine and 30 impostor."""
    people = sorted(path.name for path in crops.iterdir() if path.is_dir())
    files = {person: sorted(f"{person}/{path.name}" for path in (crops / person).iterdir()) for person in people}
    rows = ["path1,path2,label"]
    for one, two in zip(people[:10], people[1:11], strict=True):
        for place in range(3):
            rows.append(f"{files[one][place]},{files[one][place + 1]},1")
            rows.append(f"{files[one][place]},{files[two][place]},0")
    path = folder / "pairs.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.mark.parametrize(("form", "quantize"), FORMS)
def test_every_form_agrees_and_carries_what_a_reader_needs(form, quantize, licensed, crops, tmp_path, capsys):
    if form == "litert":
        pytest.importorskip("ai_edge_litert")
    output = tmp_path / "out"
    words = [str(licensed), "--to", form, "--output", str(output), "--images", str(crops)]
    words += ["--pairs", str(listed(crops, tmp_path)), "--calibration", "20"]
    assert command.main(words + (["--quantize", quantize] if quantize else [])) == 0
    values = json.loads((output / "export.json").read_text())
    record = read_record(licensed)
    assert values["licence"] == "CC0" and values["preprocessing"] == record.preprocessing()
    assert values["preprocessing"]["colour_order"] == "RGB" and values["preprocessing"]["value_range"] == [0, 255]
    assert values["threshold"]["value"] == 0.5 and values["threshold"]["genuine"] == 10
    assert values["embedding_size"] == 16 and values["sha256"] == export.digest_of(output / values["file"])
    parity = values["parity"]
    assert parity["pairs"] == 60 and 0 <= parity["largest_cosine_difference"] + 1e-6 < export.BOUNDS[quantize]
    assert parity["calibration_crops"] == (20 if quantize == "int8" else 0)
    assert (output / "model_card.md").is_file()
    printed = capsys.readouterr().out
    name = f"{form}-{quantize}" if quantize else form
    assert f"| {name} |" in printed and "60 pairs whose faces were found, 30 of two people" in printed
    assert "FPR 0.01 and 0.001: too few pairs to claim a TPR" in printed


def test_all_forms_stand_in_one_table_and_in_a_folder_each(licensed, crops, tmp_path, capsys):
    pytest.importorskip("ai_edge_litert")
    words = [str(licensed), "--to", "all", "--output", str(tmp_path / "all"), "--images", str(crops)]
    assert command.main([*words, "--pictures", "5", "--calibration", "20"]) == 0
    printed = capsys.readouterr().out.splitlines()
    names = [f"{form}-{quantize}" if quantize else form for form, quantize in FORMS]
    rows = [line.split(" | ")[0].strip("| ") for line in printed if line.startswith("|")]
    assert rows == ["form", "---", "Keras (tf.function)", *names]
    assert sorted(path.name for path in (tmp_path / "all").iterdir()) == sorted(names)
    for name, (form, quantize) in zip(names, FORMS, strict=True):
        values = json.loads((tmp_path / "all" / name / "export.json").read_text())
        assert (values["form"], values["quantize"]) == (form, quantize)
        assert values["sha256"] == export.digest_of(tmp_path / "all" / name / values["file"])
        assert values["parity"]["allowed"] == export.BOUNDS[quantize]
        assert values["parity"]["calibration_crops"] == (20 if quantize == "int8" else 0)
        assert values["parity"]["export"]["bytes"] == export.size_of(tmp_path / "all" / name / values["file"])


def test_of_all_forms_none_is_kept_where_one_differs(licensed, tmp_path, capsys, monkeypatch):
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setitem(export.BOUNDS, "int8", 1e-9)
    words = [str(licensed), "--to", "all", "--output", str(tmp_path / "all"), "--pictures", "3"]
    assert command.main([*words, "--calibration", "5"]) == 2
    assert "model.onnx: its embeddings differ from the Keras network's" in capsys.readouterr().err
    assert list((tmp_path / "all").iterdir()) == []


def test_accuracy_and_tpr_are_those_of_an_independent_count(licensed, crops, tmp_path):
    pairs = listed(crops, tmp_path)
    words = [str(licensed), "--to", "onnx", "--output", str(tmp_path / "out"), "--images", str(crops)]
    assert command.main([*words, "--pairs", str(pairs)]) == 0
    embed = with_mirror(Embedder(read_network(licensed)))
    genuine, impostor = [], []
    for line in pairs.read_text().splitlines()[1:]:
        one, two, label = line.split(",")
        rows = embed(np.stack([resize_square(read_image(crops / name), 32) for name in (one, two)]))
        (genuine if label == "1" else impostor).append(np.linalg.norm(rows[0] - rows[1]))
    right = sum(value < 0.5 for value in genuine) + sum(value >= 0.5 for value in impostor)
    found = json.loads((tmp_path / "out" / "export.json").read_text())["parity"]["keras"]
    assert found["accuracy"] == pytest.approx(right / 60)
    assert found["tpr_at_fpr"]["0.01"] == pytest.approx(np.mean(np.array(genuine) < min(impostor)))


def test_crops_are_taken_as_they_are_when_told_and_it_says_so(licensed, crops, tmp_path, capsys):
    write_record(licensed, replace(read_record(licensed), recipe=CropRecipe(size=150)))
    words = [str(licensed), "--to", "onnx", "--images", str(crops), "--pictures", "5", "--as_crops"]
    assert command.main([*words, "--output", str(tmp_path / "out")]) == 0
    assert f"5 pictures of {crops}, taken as faces already cut, whoever cut them" in capsys.readouterr().out
    values = json.loads((tmp_path / "out" / "export.json").read_text())
    assert "taken as faces already cut, whoever cut them" in values["parity"]["source"]
    assert values["preprocessing"]["recipe"]["size"] == 150, "how the model wants faces stays as it was"
    assert command.main([*words[:3], "--as_crops"]) == 2
    assert "`as_crops` needs `images`: without them faces are drawn" in capsys.readouterr().err


def test_without_pictures_faces_are_drawn_and_the_folder_lies_beside_the_bundle(bundle, tmp_path, capsys):
    copy = Path(shutil.copytree(bundle, tmp_path / "run" / "bundle"))
    assert command.main([str(copy), "--to", "onnx", "--licence", "mine", "--pictures", "5"]) == 0
    printed = capsys.readouterr().out
    assert "Compared on 5 drawn faces" in printed and "They are drawn: name real ones with --images" in printed
    values = json.loads((tmp_path / "run" / "exports" / "onnx" / "export.json").read_text())
    assert values["licence"] == "mine" and values["parity"]["pairs"] is None


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--to", "onnx"],
            "does not say under which terms its model may be used, and an export must: give --licence",
        ),
        (
            ["--to", "saved_model", "--quantize", "int8"],
            "a saved_model stays float32. Take --to onnx or --to litert.",
        ),
        (["--to", "all", "--quantize", "int8"], "--to all writes every precision. Leave it out."),
        (["--to", "onnx", "--pairs", "p.csv"], "`pairs` p.csv needs `images`, where its paths start."),
        (["--to", "onnx", "--licence", "x", "--images", "nowhere"], "nowhere"),
    ],
)
def test_a_wrong_order_is_one_sentence(words, sentence, bundle, tmp_path, capsys):
    assert command.main([str(bundle), *words, "--output", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.startswith("error: ") and told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_export_that_differs_is_not_kept(licensed, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(export.BOUNDS, "int8", 1e-9)
    words = [str(licensed), "--to", "onnx", "--quantize", "int8", "--output", str(tmp_path / "out")]
    assert command.main([*words, "--pictures", "5", "--calibration", "5"]) == 2
    told = capsys.readouterr().err
    assert "model.onnx: its embeddings differ from the Keras network's by a cosine of" in told
    assert "nothing was kept. Export it without --quantize" in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]


def test_a_folder_of_something_else_is_left_alone_and_an_export_replaced(licensed, tmp_path, capsys):
    output = tmp_path / "out"
    output.mkdir()
    (output / "thesis.txt").write_text("years of work")
    words = [str(licensed), "--to", "onnx", "--pictures", "3", "--output", str(output)]
    assert command.main(words) == 2
    assert f"{output}: is there and holds no export. Name another folder with `output`." in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["thesis.txt"]
    (output / "thesis.txt").unlink()
    assert command.main(words) == 0 and command.main(words) == 0
    assert sorted(path.name for path in output.iterdir()) == ["export.json", "model.onnx", "model_card.md"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "out"]


def test_a_cosine_difference_counts_the_worst_row_and_nan():
    rows = np.array([[1, 0], [0, 2]], np.float32)
    assert export.cosine_difference(rows, np.array([[2, 0], [3, 3]], np.float32)) == pytest.approx(1 - 0.5**0.5)
    assert export.cosine_difference(np.array([[np.nan, 0]], np.float32), rows[:1]) == np.inf


@pytest.mark.parametrize("form", ["onnx", "litert"])
def test_the_example_gives_the_bundles_verdict_without_tensorflow(form, licensed, crops, tmp_path):
    if form == "litert":
        pytest.importorskip("ai_edge_litert")
    output = tmp_path / "out"
    assert command.main([str(licensed), "--to", form, "--pictures", "3", "--output", str(output)]) == 0
    paths = sorted(crops.glob("*/*.jpg"))[:7:6]
    embed = with_mirror(Embedder(read_network(licensed)))
    rows = embed(np.stack([resize_square(read_image(path), 32) for path in paths]))
    distance = float(np.linalg.norm(rows[0] - rows[1]))
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')\n"
        "assert not {'tensorflow', 'keras', 'facekit'} & set(sys.modules)"
    )
    example = ROOT / "examples" / f"{form}_verify.py"
    done = subprocess.run(
        [sys.executable, "-c", code, str(example), str(output), *map(str, paths)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    verdict = "same person" if distance < 0.5 else "different people"
    assert done.stdout.strip().endswith(verdict)
    assert float(done.stdout.split()[1]) == pytest.approx(distance, abs=2e-4)


def test_help_needs_no_tensorflow():
    code = (
        "import sys\nfrom apps import export\n"
        "try:\n    export.main(['--help'])\nexcept SystemExit as stop:\n    assert stop.code == 0\n"
        "assert not {'tensorflow', 'keras', 'onnxruntime'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "--quantize" in done.stdout


@pytest.mark.lfw
def test_real_pictures_are_cropped_by_the_bundles_recipe(bundle, lfw, tmp_path, capsys):
    words = [str(bundle), "--to", "onnx", "--licence", "x", "--images", str(lfw / "images"), "--pictures", "6"]
    assert command.main([*words, "--output", str(tmp_path / "out"), "--cache", str(tmp_path / "cache")]) == 0
    assert "Compared on 6 pictures of" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_the_examples_say_what_is_wrong_in_a_sentence(name, bundle, crops, tmp_path):
    if name == "litert":
        pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed: pip install ai-edge-litert")
    small, (whole, other) = next(crops.glob("*/*.jpg")), (tmp_path / "1.png", tmp_path / "2.png")
    for path in (whole, other):
        PIL.Image.open(small).resize((112, 112)).save(path)

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, f"examples/{name}_verify.py", *map(str, words)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    shutil.copy(bundle / "model.onnx", tmp_path)
    record = read_record(bundle)
    said = {"file": "model.onnx", "preprocessing": record.preprocessing(), "threshold": {"value": 0.5}}
    (tmp_path / "export.json").write_text(json.dumps(said))
    recipe = tmp_path / "export.json"
    for words, error in (
        ([tmp_path, whole], "name the export's folder and two crops: python examples/"),
        (
            [tmp_path / "none", whole, other],
            f"{tmp_path / 'none'}: has no export.json. `python -m apps.export BUNDLE",
        ),
        ([tmp_path, tmp_path / "no.png", other], f"{tmp_path / 'no.png'}: cannot be read as a picture."),
        ([tmp_path, whole, recipe], f"{recipe}: cannot be read as a picture."),
        (
            [tmp_path, whole, small],
            f"{small}: is 64 x 64 pixels and no crop of 112 x 112. Crop it first: crop_faces",
        ),
    ):
        done = run(*words)
        assert done.returncode == 1 and done.stderr.startswith(f"error: {error}") and done.stderr.count("\n") == 1
    if name == "onnx":
        done = run(tmp_path, whole, other)
        assert (done.stdout, done.stderr) == ("distance 0.0000   threshold 0.5   same person\n", "")
