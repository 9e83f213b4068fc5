"""The study of landmark mappings: which there are, what a fold may choose by, and a small one from end to end."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apps import mapping_study
from apps.mapping_material import Material, read_material
from apps.mapping_study import FMRS, LandmarkMapping, choose_without, judge, judge_chosen, layouts
from config import CropConfig
from crop_faces import crop_faces
from facekit import manifest
from facekit.alignment import LAYOUTS, CropRecipe, crop_face
from facekit.bundle import read_record, write_record
from facekit.folds import IdentityFolds, folds_by_identity, kfold_accuracy
from facekit.images import as_stored, read_image
from facekit.metrics import tpr_at_fpr
from facekit.protocols import read_pairs

DLIB = CropRecipe(size=150, template="dlib", quality=100)


def test_every_weight_meets_every_scale():
    found = layouts(DLIB, "dlib", ["1:1:1", "4:2:1"], [1.0, 1.04])
    assert [one.name for one in found] == ["1:1:1 x 1", "1:1:1 x 1.04", "4:2:1 x 1", "4:2:1 x 1.04"]
    assert found[3].weights == (4, 4, 2, 1, 1)
    np.testing.assert_allclose(found[3].target, LAYOUTS["dlib_close"].points, atol=0.011)


def test_the_layouts_own_mapping_cuts_what_the_recipe_cuts(photos):
    image = read_image(next(iter(sorted(photos.glob("*/*.jpg")))))
    landmarks = (LAYOUTS["dlib"].points * 1.1 + 40).astype(np.float32)
    (mapping,) = layouts(DLIB, "dlib", ["1:1:1"], [1.0])
    expected = as_stored(crop_face(image, np.zeros(4), landmarks, DLIB), 100)
    np.testing.assert_array_equal(mapping.cut(image, landmarks, DLIB), expected)


@pytest.mark.parametrize(
    ("layout", "word", "scale", "message"),
    [
        ("arc", "1:1:1", 1.0, "`layout` arc: there are arcface, dlib"),
        ("dlib", "1:1", 1.0, "`weights` 1:1: must be three positive numbers"),
        ("dlib", "1:0:1", 1.0, "`weights` 1:0:1: must be three"),
        ("dlib", "1:nan:1", 1.0, "`weights` 1:nan:1: must be three"),
        ("dlib", "1:1:1", 3.0, "`scales` 3: must lie between 0.5 and 2"),
        ("dlib", "2:2:2", 1.0, "2:2:2 x 1 is the mapping 1:1:1 x 1 again"),
    ],
)
def test_settings_out_of_range_are_named(layout, word, scale, message):
    with pytest.raises(ValueError, match=message):
        layouts(DLIB, layout, ["1:1:1", word], [scale])


@pytest.fixture
def material() -> Material:
    """12 people with 4 pictures each: pairs of the first 2 pictures, and of neighbours."""
    people = np.array([f"p{person:02}" for person in range(12) for _ in range(4)])
    first = np.concatenate([np.arange(12) * 4, np.arange(0, 12, 2) * 4 + 2])
    second = np.concatenate([np.arange(12) * 4 + 1, np.arange(1, 12, 2) * 4 + 2])
    same = people[first] == people[second]
    ids = people[first].tolist(), people[second].tolist()
    return Material(DLIB, Path(), {}, np.arange(48), people, same, first, second, ids)


def rows(rng: np.random.Generator, material: Material, noise: np.ndarray) -> np.ndarray:
    """Unit embeddings around each person's own direction, with noise of a size for each picture."""
    centres = rng.normal(0, 1, (12, 8))[np.unique(material.people, return_inverse=True)[1]]
    found = centres + rng.normal(0, 1, centres.shape) * noise[:, None]
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def test_a_fold_chooses_without_its_own_people(rng, material):
    """One mapping is perfect but for the last six people, the other but for the first six."""
    folds = folds_by_identity(*material.ids, k=2)
    late = np.isin(material.people, [material.ids[0][pair] for pair in np.flatnonzero(folds.folds == 1)])
    late |= np.isin(material.people, [material.ids[1][pair] for pair in np.flatnonzero(folds.folds == 1)])
    embeddings = {
        "good in fold 0": rows(rng, material, np.where(late, 3.0, 0.01)),
        "good in fold 1": rows(rng, material, np.where(late, 0.01, 3.0)),
    }
    assert choose_without(embeddings, material, folds, 0.05) == ["good in fold 1", "good in fold 0"]


def test_a_fold_leaves_out_both_people_of_its_impostor_pairs(rng, material, monkeypatch):
    seen = []
    monkeypatch.setattr(mapping_study, "rate", lambda rows, material, chosen, fmr: seen.append(chosen) or 0.5)
    # Without the genuine pairs of every other person: those people are only ever the second of a pair.
    kept = np.r_[0:12:2, 12:18]
    ids = tuple([names[place] for place in kept] for names in material.ids)
    material = replace(
        material, same=material.same[kept], first=material.first[kept], second=material.second[kept], ids=ids
    )
    folds = folds_by_identity(*material.ids, k=3)
    choose_without({"one": rows(rng, material, np.ones(48))}, material, folds, 0.05)
    for fold, outside in enumerate(seen):
        here = np.flatnonzero(folds.folds == fold)
        inside = {*material.people[material.first[here]], *material.people[material.second[here]]}
        assert {*material.people[~outside]} == inside


def test_too_few_people_outside_a_fold_are_told_of(rng, material):
    embeddings = {"one": rows(rng, material, np.ones(48))}
    folds = folds_by_identity(*material.ids, k=2)
    with pytest.raises(ValueError, match=r"`fmr` 0.01: needs .* 300 impostor pairs; without the people of fold 0 "):
        choose_without(embeddings, material, folds, 0.01)
    alone = IdentityFolds(np.zeros(18, int), 1, 0)
    with pytest.raises(ValueError, match=r"without the people of fold 0 there are 0 and 0\. Take more pictures"):
        choose_without(embeddings, material, alone, 0.5)


def test_folds_with_mappings_of_their_own_are_judged_by_their_own_thresholds(rng):
    same, numbers = np.arange(40) % 2 == 0, np.arange(40) % 4
    far = {name: rng.uniform(0.2, 1.0, 40) + 0.3 * ~same for name in ("a", "b")}
    mean, error = judge_chosen(far, ["a", "b", "b", "a"], same, IdentityFolds(numbers, 4, 0))
    by_name = {name: kfold_accuracy(values, same, numbers).accuracies for name, values in far.items()}
    expected = [by_name["a"][0], by_name["b"][1], by_name["b"][2], by_name["a"][3]]
    assert mean == pytest.approx(np.mean(expected))
    assert error == pytest.approx(np.std(expected, ddof=1) / 2)


def test_the_best_has_the_highest_rate_and_rates_are_those_of_all_pairs(rng, material):
    noises = {"blunt": 1.2, "sharp": 0.5, "blunter": 2.0}
    embeddings = {name: rows(rng, material, np.full(48, noise)) for name, noise in noises.items()}
    found = judge(embeddings, material, 1e-2, flip=False)
    assert found.best == "sharp" and [result.name for result in found.results] == [*noises]
    for name, result in zip(noises, found.results, strict=True):
        one, two = np.triu_indices(48, 1)
        apart = np.linalg.norm(embeddings[name][one] - embeddings[name][two], axis=1)
        claims = tpr_at_fpr(apart, material.people[one] == material.people[two], FMRS)
        assert result.rates == pytest.approx([claim.tpr for claim in claims], abs=1e-6, nan_ok=True)


@pytest.fixture
def folder(photos, tmp_path) -> Path:
    """Crops of the photos, beside a pairs file of them whose people meet in twos: folds of people share nobody."""
    shutil.copytree(photos, tmp_path / "photos", copy_function=shutil.copy2)
    crop_faces(CropConfig(input_dir=tmp_path / "photos", output_dir=tmp_path / "crops", processes=1))
    of: dict[str, list[str]] = {}
    for name, line in sorted(manifest.read(tmp_path / "crops").items()):
        if line.face is not None:
            of.setdefault(name.split("/")[0], []).append(name)
    lines = [f"{names[0]},{names[1]},1" for names in of.values()]
    people = [*of]
    lines += [f"{of[one][0]},{of[two][1]},0" for one, two in zip(people[::2], people[1::2], strict=True)]
    (tmp_path / "pairs.csv").write_text("\n".join(["path1,path2,same", *lines]) + "\n")
    return tmp_path


def change_pairs(folder: Path, old: str, new: str) -> None:
    text = (folder / "pairs.csv").read_text()
    assert old in text
    (folder / "pairs.csv").write_text(text.replace(old, new))


def test_pictures_compete_by_folder_and_pairs_may_name_crops(folder):
    whole = read_material(folder / "crops", folder / "pairs.csv", 9)
    few = read_material(folder / "crops", folder / "pairs.csv", 2)
    assert np.bincount(np.unique(few.people, return_inverse=True)[1]).tolist() == [2] * len({*whole.people})
    assert len(whole.competing) > len(few.competing)
    assert [path.split("/")[0] for path in whole.rows] == sorted(whole.people)
    assert list(whole.ids[0]) == [list(whole.rows)[place].split("/")[0] for place in whole.first]
    first = read_pairs(folder / "pairs.csv").first[0]
    crop = manifest.read(folder / "crops")[first].crop
    change_pairs(folder, f"{first},", f"./{crop},")
    np.testing.assert_array_equal(read_material(folder / "crops", folder / "pairs.csv", 9).first, whole.first)


def words(folder: Path, bundle: Path, *more: str) -> list[str]:
    return [
        str(folder / "crops"), "--pairs", str(folder / "pairs.csv"), "--model", str(bundle), "--weights", "1:1:1",
        "4:2:1", "--fmr", "0.02", "--scales", "1.0", "1.1", "--output_dir", str(folder / "study"), *more,
    ]  # fmt: skip


def test_a_small_study_from_end_to_end_goes_on_where_it_stopped(folder, bundle, capsys, monkeypatch):
    assert mapping_study.main(words(folder, bundle)) == 0
    said = capsys.readouterr().out
    values = json.loads((folder / "study" / "study.json").read_text())
    assert (folder / "study" / "table.md").read_text() == said[:-1]
    assert [result["name"] for result in values["results"]] == [
        "1:1:1 x 1", "1:1:1 x 1.1", "4:2:1 x 1", "4:2:1 x 1.1"
    ]  # fmt: skip
    assert values["best"] in said and len(values["chosen"]) == len(
        set(read_pairs(folder / "pairs.csv").people()[0])
    )
    assert "Flips not averaged" in said and "too few pairs" in said
    material = read_material(folder / "crops", folder / "pairs.csv", 5)
    counts = len({*material.people}), len(material.people)
    assert f"impostor pairs of {counts[1]} pictures of {counts[0]} people. Accuracy: 12 listed pairs." in said
    (kept,) = (folder / "study").glob("*/4-2-1x1.1.npy")
    kept.write_bytes(kept.read_bytes()[:100])
    cut = []
    monkeypatch.setattr(LandmarkMapping, "cut", _counted(LandmarkMapping.cut, cut))
    assert mapping_study.main(words(folder, bundle)) == 0
    assert {name for name in cut} == {"4:2:1 x 1.1"}
    assert capsys.readouterr().out == said
    cut.clear()
    assert mapping_study.main(words(folder, bundle, "--flip", "True")) == 0
    assert len(set(cut)) == 4, "averaged flips are other embeddings"
    assert "Flips averaged" in capsys.readouterr().out


def _counted(cut, names):
    def wrapper(self, *arguments):
        names.append(self.name)
        return cut(self, *arguments)

    return wrapper


def test_other_pairs_of_people_than_the_folders_are_refused(folder):
    """Else a person could be in a fold under one name and outside it under another."""
    pairs = read_pairs(folder / "pairs.csv")
    first, second = pairs.first[0], pairs.second[0]
    change_pairs(folder, f"{first},{second},1", f"{first},{second},0")
    with pytest.raises(
        ValueError, match=r"has a pair of two people in the folders (\w+) and \1\. Here each person"
    ):
        read_material(folder / "crops", folder / "pairs.csv", 5)


def test_changed_originals_are_refused(folder):
    first = read_pairs(folder / "pairs.csv").first[0]
    (folder / "photos" / first).write_bytes(b"another picture")
    with pytest.raises(ValueError, match=rf"1 of their originals are gone .* or were changed since \({first}\)"):
        read_material(folder / "crops", folder / "pairs.csv", 5)


def test_shared_people_and_another_search_are_told_of(folder, bundle, tmp_path, capsys):
    model = Path(shutil.copytree(bundle, tmp_path / "other"))
    write_record(model, replace(read_record(model), recipe=CropRecipe(min_confidence=0.8)))
    pairs = read_pairs(folder / "pairs.csv")
    people = [path.split("/")[0] for path in pairs.first[: len({*pairs.people()[0]})]]
    chain = [f"{pairs.first[place]},{pairs.second[place - 1]},0" for place in range(len(people))]
    with (folder / "pairs.csv").open("a") as file:
        file.write("\n".join(chain) + "\n")
    assert mapping_study.main(words(folder, model, "--fmr", "0.05")) == 0
    said = capsys.readouterr()
    assert "pairs share a person with another fold)" in said.out
    assert (
        "faces were found otherwise than the model's recipe finds them: min_confidence 0.9 there, 0.8" in said.err
    )


def test_embeddings_of_another_layout_or_recipe_are_not_taken(folder, bundle, tmp_path, monkeypatch):
    cut: list[str] = []
    monkeypatch.setattr(LandmarkMapping, "cut", _counted(LandmarkMapping.cut, cut))

    def newly_cut(*arguments: str) -> int:
        cut.clear()
        assert mapping_study.main([*arguments]) == 0
        return len({*cut})

    assert newly_cut(*words(folder, bundle)) == 4
    assert newly_cut(*words(folder, bundle)) == 0
    assert newly_cut(*words(folder, bundle, "--layout", "dlib")) == 4
    larger = Path(shutil.copytree(bundle, tmp_path / "larger"))
    write_record(larger, replace(read_record(larger), recipe=CropRecipe(size=96)))
    assert newly_cut(*words(folder, larger)) == 4


def test_what_cannot_be_compared_is_refused(folder, bundle, capsys, tmp_path):
    def refused(*arguments: str) -> str:
        assert mapping_study.main([*arguments]) == 2
        return capsys.readouterr().err

    boxes = Path(shutil.copytree(bundle, tmp_path / "boxes"))
    write_record(boxes, replace(read_record(boxes), recipe=CropRecipe(method="box")))
    assert "its faces are not cut by landmarks" in refused(*words(folder, boxes))
    assert "needs a genuine pair and 300,000 impostor pairs; in these pictures there are" in refused(
        *words(folder, bundle, "--fmr", "1e-5")
    )
    (folder / "genuine.csv").write_text("".join((folder / "pairs.csv").read_text().splitlines(True)[:4]))
    assert "all 3 pairs are genuine" in refused(*words(folder, bundle, "--pairs", str(folder / "genuine.csv")))
    first = read_pairs(folder / "pairs.csv").first[0]
    change_pairs(folder, first, "nobody/1.jpg")
    assert "the list names this picture, but it is not there" in refused(*words(folder, bundle))
    shutil.rmtree(folder / "crops")
    shutil.copytree(folder / "photos", folder / "crops")
    change_pairs(folder, "nobody/1.jpg", first)
    assert "has no crops.json, so it holds no landmarks" in refused(*words(folder, bundle))
