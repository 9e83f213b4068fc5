"""Judge a model on pairs that it has never seen.

In:  a pairs file (LFW's format or CSV `path1,path2,label`, 1 = same person) and the folder of its pictures:
     originals, or crops; a bundle that train.py wrote.
Out: accuracy, AUC, EER, TPR at FPR, cost threshold, with intervals; ROC and score-distribution PNGs; or JSON.
Run: python evaluate.py --model runs/first/bundle --pairs pairs.txt --images photos
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray

from config import CropConfig
from facekit import manifest, runtime
from facekit.alignment import CropRecipe, crop_face
from facekit.files import check_writable, write_text
from facekit.images import SUFFIXES, Image, UnreadableImageError, as_stored, read_image, read_square
from facekit.manifest import CropFolder, Row
from facekit.protocols import Pairs, csv_text, read_pairs
from facekit.settings import Settings, parse
from inference import Verifier, find_bundle

# Crops read and embedded at once: bounds memory.
PICTURES_AT_ONCE = 512


class EvaluateCommand(Settings):
    """Judge a model on pairs of pictures: accuracy, AUC, EER, TPR at FPR, with intervals and plots."""

    pairs: Path
    """Pairs file: LFW's pairs.txt or pairsDev*.txt, or CSV `path1,path2,label` with 1 = same person."""

    images: Path
    """Folder that the pairs' paths start from: original pictures, or crops made by crop_faces.py."""

    model: Path | None = None
    """Bundle folder. None: the newest in runs/ that was trained on real pictures."""

    output: Path | None = None
    """Folder for roc.png, distances.png, report.json and scores.csv. None: beside the bundle."""

    cache: Path = Path("runs/cache")
    """Where crops of original pictures are kept for the next evaluation."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Write one JSON object to stdout; everything else goes to stderr."""


@dataclass(frozen=True)
class Originals:
    """A folder of original pictures and, for each name of the pairs, its file below the folder."""

    folder: Path
    files: Mapping[str, str]


@dataclass(frozen=True)
class Crops:
    """A folder of crops and, for each name of the pairs, its row in the folder's manifest."""

    folder: Path
    made: CropFolder
    rows: Mapping[str, Row]


def find_images(folder: Path, pairs: Pairs) -> Originals | Crops:
    """Find every picture of the pairs in a folder, before any model is loaded.

    Raises:
        ValueError: the folder or a picture is missing; names the first and counts them.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder. Set `images` to where the pairs' paths start.")
    made = manifest.crop_folder(folder)
    names = pairs.pictures()
    outside = [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise ValueError(f"{outside[0]}: the pairs' paths must lie below {folder}, and be written from there.")
    if made is None:
        found = {name: _existing(folder, name) for name in names}
        _refuse_missing(folder, [name for name, file in found.items() if file is None])
        return Originals(folder, {name: file for name, file in found.items() if file is not None})
    rows = manifest.read(folder)
    # A pairs file may name the originals or the crops.
    by_name = {row.crop: row for row in rows.values() if row.crop} | rows
    _refuse_missing(folder, [name for name in names if name not in by_name])
    return Crops(folder, made, {name: by_name[name] for name in names})


def _existing(folder: Path, name: str) -> str | None:
    """The name itself, or with another picture suffix: LFW's format writes .jpg whatever the files are."""
    if (folder / name).is_file():
        return name
    stem = name.rpartition(".")[0]
    return next((stem + suffix for suffix in sorted(SUFFIXES) if (folder / (stem + suffix)).is_file()), None)


def _refuse_missing(folder: Path, missing: list[str]) -> None:
    if missing:
        raise ValueError(
            f"{folder / missing[0]}: the pairs name this picture, but it is not there ({len(missing)} missing in "
            "all). Check `images`."
        )


class PictureReader:
    """Gives the network's view of each picture of the pairs, by the model's own recipe.

    Original pictures are cropped first, into `cache`, where the next evaluation finds them. Crops of the model's
    recipe are read as they are; crops of another are made again from their originals.

    Args:
        verifier: the model.
        images: where the pictures are.
        cache: folder for crops of originals.

    Raises:
        ValueError: crops of another recipe whose originals are gone, or no room for crops.
    """

    def __init__(self, verifier: Verifier, images: Originals | Crops, cache: Path):
        self._recipe, self._size = verifier.record.recipe, verifier.record.image_size
        if (
            isinstance(images, Crops)
            and self._recipe is not None
            and not _same_search(images.made.recipe, self._recipe)
        ):
            # Another choice of face: its landmarks are of no use, the originals are searched again.
            _refuse_lost_originals(images)
            images = Originals(Path(images.made.source), {name: row.path for name, row in images.rows.items()})
        if isinstance(images, Originals) and self._recipe is not None:
            images = _crop_originals(images, self._recipe, cache)
        self._images = images
        self._again = isinstance(images, Crops) and self._recipe not in (None, images.made.recipe)
        if isinstance(images, Crops) and self._again:
            _refuse_lost_originals(images)

    def read(self, name: str) -> Image | None:
        """A picture's crop, or the whole picture for a model of whole pictures; None where there is no face."""
        images = self._images
        try:
            if isinstance(images, Originals):
                return read_square(images.folder / images.files[name], self._size)
            row = images.rows[name]
            if row.face is None:
                return None
            if not self._again or self._recipe is None:
                return read_image(images.folder / row.crop)
            original = read_image(Path(images.made.source) / row.path)
            crop = crop_face(original, row.face.box, row.face.landmarks, self._recipe)
            return as_stored(crop, self._recipe.quality)
        except UnreadableImageError as error:
            print(f"warning: {error} Its pairs count as rejected.", file=sys.stderr)
            return None


def _same_search(one: CropRecipe, other: CropRecipe) -> bool:
    """Whether two recipes find and choose the same faces."""
    names = ("detector", "choose", "min_confidence", "max_side")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _crop_originals(images: Originals, recipe: CropRecipe, cache: Path) -> Crops:
    from crop_faces import crop_faces

    folder = str(images.folder.resolve())
    key = hashlib.sha256(json.dumps([folder, recipe.to_dict()]).encode()).hexdigest()[:16]
    options = {name: value for name, value in recipe.to_dict().items() if name != "detector"}
    config = CropConfig(input_dir=images.folder, output_dir=cache / key, min_side=1, **options)
    check_writable(config.output_dir, "cache")
    crop_faces(config, list(images.files.values()))
    rows, made = manifest.read(config.output_dir), manifest.crop_folder(config.output_dir)
    if made is None:
        raise ValueError(f"{config.output_dir}: the crops just made are gone. Run the command again.")
    return Crops(config.output_dir, made, {name: rows[file] for name, file in images.files.items()})


def _refuse_lost_originals(images: Crops) -> None:
    source = Path(images.made.source)
    lost = [row.path for row in images.rows.values() if row.face is not None and not (source / row.path).is_file()]
    if lost:
        raise ValueError(
            f"{images.folder}: holds crops of another recipe than the model's ({images.made.recipe}), and their "
            f"originals are not in {source} any more ({lost[0]} and {len(lost) - 1} others). Set `images` to the "
            "original pictures."
        )


def embed_pictures(verifier: Verifier, reader: PictureReader, names: Sequence[str]) -> NDArray[np.float32]:
    """Embed each picture once: (n, D) float32 unit rows, NaN where a picture has no face."""
    from tqdm import tqdm

    rows = np.full((len(names), verifier.record.embedding_size), np.nan, np.float32)
    with tqdm(total=len(names), unit="images", desc="embedding") as bar:
        for start in range(0, len(names), PICTURES_AT_ONCE):
            chunk = range(start, min(start + PICTURES_AT_ONCE, len(names)))
            crops = {place: crop for place in chunk if (crop := reader.read(names[place])) is not None}
            if crops:
                rows[list(crops)] = verifier.embed_crops(list(crops.values()))
            bar.update(len(chunk))
    return rows


def score(verifier: Verifier, reader: PictureReader, pairs: Pairs) -> NDArray[np.float64]:
    """The distance of each pair, (n,) float64, 0 to 2; NaN where a picture gave no face."""
    from facekit.trainer import pair_distances

    names = pairs.pictures()
    place = {name: position for position, name in enumerate(names)}
    embeddings = embed_pictures(verifier, reader, names)
    first, second = (np.array([place[name] for name in side]) for side in (pairs.first, pairs.second))
    return pair_distances(embeddings, first, second)


def judge(verifier: Verifier, pairs: Pairs, distances: NDArray[np.float64]) -> dict[str, Any]:
    """Every figure about the scored pairs, as JSON values: plain numbers first; see `facekit.report`."""
    from facekit.report import verification_report

    threshold = verifier.record.threshold
    first, second = pairs.people() or (None, None)
    return verification_report(
        distances,
        pairs.same,
        threshold.value if threshold else None,
        folds=pairs.folds,
        ids1=first,
        ids2=second,
        failed=np.isnan(distances),
    )


def people_seen(bundle: Path, pairs: Pairs) -> int | None:
    """How many of the pairs' people the bundle's run trained or validated on, by folder name; None: unknown."""
    people = pairs.people()
    lists = [bundle.parent / f"{side}_people.txt" for side in ("train", "validation")]
    if people is None or not all(path.is_file() for path in lists):
        return None
    known = {name for path in lists for name in path.read_text(encoding="utf-8").splitlines()}
    return len({*people[0], *people[1]} & known)


def run(command: EvaluateCommand) -> dict[str, Any]:
    """Evaluate as the command says, write the files, and return the report.

    Raises:
        ValueError: an input is wrong; in one sentence.
    """
    pairs = read_pairs(command.pairs)
    if pairs.same.all() or not pairs.same.any():
        kind = "genuine" if pairs.same.all() else "impostor"
        raise ValueError(f"{command.pairs}: all {len(pairs)} pairs are {kind}. A verifier is judged on both kinds.")
    images = find_images(command.images, pairs)
    bundle = command.model or find_bundle()
    verifier = Verifier(bundle)
    output = command.output or bundle.parent / f"evaluation-{command.pairs.stem}-{command.images.resolve().name}"
    check_writable(output, "output")
    runtime.start_quietly()
    distances = score(verifier, PictureReader(verifier, images, command.cache), pairs)
    if np.isnan(distances).all():
        raise ValueError(
            f"{command.images}: no pair has a face in both of its pictures: there is nothing to judge."
        )
    report = judge(verifier, pairs, distances) | {
        "model": str(bundle),
        "synthetic": verifier.record.synthetic,
        "people_seen_in_training": people_seen(bundle, pairs),
        "pairs_file": str(command.pairs),
        "images": str(command.images),
        "output": str(output),
        "recipe": verifier.record.recipe.to_dict() if verifier.record.recipe else None,
    }
    write_files(output, report, pairs, distances)
    return report


def write_files(output: Path, report: Mapping[str, Any], pairs: Pairs, distances: NDArray[np.float64]) -> None:
    """Write roc.png, distances.png, report.json and scores.csv."""
    from facekit.metrics import roc, with_failures
    from facekit.plots import roc_figure, save_figure, score_figure

    scored = with_failures(distances, pairs.same, np.isnan(distances))
    save_figure(roc_figure({"model": roc(scored.distances, scored.same)}), output / "roc.png")
    save_figure(score_figure(scored.distances, scored.same, report["threshold"]), output / "distances.png")
    write_text(output / "report.json", json.dumps(report, indent=2) + "\n")
    texts = ["" if np.isnan(distance) else f"{distance:.6f}" for distance in distances]
    rows = zip(pairs.first, pairs.second, pairs.same.astype(int), texts, strict=True)
    write_text(output / "scores.csv", csv_text([("path1", "path2", "label", "distance"), *rows]))


def report_text(report: Mapping[str, Any]) -> str:
    """The report as a table in words."""
    intervals = report["intervals"]

    def line(name: str, figure: str, interval: str = "") -> str:
        ends = intervals[interval] if interval else (None, None)
        within = "" if None in ends else f"   95 % {ends[0]:.3f} to {ends[1]:.3f}"
        return f"  {name:<26}{_number(report[figure])}{within}"

    kfold, cost = report["kfold"], report["cost"]
    lines = [
        f"Model {report['model']}" + (" (trained on drawn faces)" if report["synthetic"] else ""),
        f"Pairs {report['pairs_file']}: {report['genuine']:,} genuine, {report['impostor']:,} impostor; "
        f"{report['failed']:,} lost to detection, counted as rejected",
        f"Accuracy and rates at: {report['accuracy_from']} ({_number(report['threshold'])}). Intervals by "
        f"{intervals['by']}.",
        overlap_words(report["people_seen_in_training"]),
        line("accuracy", "accuracy", "accuracy"),
        line("AUC", "auc", "auc"),
        line("EER", "eer"),
        line("FMR (FPR)", "fpr", "fmr"),
        line("FNMR (FNR)", "fnr", "fnmr"),
        line("precision", "precision"),
        line("recall (TPR)", "recall"),
        line("F1", "f1"),
    ]
    if kfold:
        spread = f"{_number(kfold['accuracy'])} +- {_number(kfold['standard_error'])}"
        lines.append(f"  {kfold['name']:<26}{spread} accuracy")
    lines += [f"  TPR at FPR {claim['fpr']:<15g}{_claim(claim)}" for claim in report["tpr_at_fpr"]]
    lines.append(
        f"  cost threshold            {_number(cost['threshold'])} (0.8 FPR + 0.2 FNR = {_number(cost['cost'])})"
    )
    if report["survivors"]:
        lines.append(f"  without lost pairs        {_number(report['survivors'].get('accuracy'))} accuracy")
    lines.append(f"Written: {report['output']}: roc.png, distances.png, report.json, scores.csv")
    return "\n".join(lines)


def overlap_words(seen: int | None) -> str:
    """What is known of test people among the training people, in words."""
    if seen is None:
        return "Overlap with the training people: unchecked."
    if seen:
        return f"WARNING: {seen} of these people trained this model or chose its threshold: this is no test of it."
    return "None of these people trained this model or chose its threshold (by name)."


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _claim(claim: Mapping[str, Any]) -> str:
    return f"{claim['tpr']:.4f}" if claim["claimable"] else f"needs {claim['needs']:,} impostor pairs"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 2 wrong input, 130 interrupted."""
    command = parse(EvaluateCommand, argv)
    try:
        report = run(command)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. Crops made so far are kept: the next run goes on from there.", file=sys.stderr)
        return runtime.INTERRUPTED
    print(json.dumps(report, indent=2) if command.as_json else report_text(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
