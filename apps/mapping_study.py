"""Where in its picture a network best likes a face: landmark mappings compared on people, and chosen fairly.

In:  crops that crop_faces.py made, with their originals and landmarks; a model; a list of pairs.
Out: embeddings of each mapping (kept: a call that was stopped goes on); study.json, table.md.
Run: python -m apps.mapping_study data/lfw_close --pairs data/lfw/pairsDevTrain.txt --layout dlib

A mapping is a layout's five points, larger or smaller, with weights in the least squares. The best one has the
highest true-match rate at `fmr` over all pairs of the pictures; of equal ones the first. Accuracy on the listed
pairs is by folds of people, for each mapping, and for one that is chosen on the people outside each fold, as the
threshold is.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tyro
from numpy.typing import NDArray
from pydantic import Field

from apps.mapping_material import Material, read_material
from apps.timing import row
from facekit import runtime
from facekit.alignment import LAYOUTS, CropRecipe, Points, template, warp
from facekit.files import check_writable, write_text, written_aside
from facekit.images import Image, as_stored, read_image
from facekit.plain import plain
from facekit.settings import Settings, parse
from pictures import same_search

if TYPE_CHECKING:
    from facekit.folds import IdentityFolds

FMRS = (1e-2, 1e-3, 1e-4)
"""False-match rates of the table."""

# Pictures cut and embedded at once: bounds memory.
AT_ONCE = 512


class MappingCommand(Settings):
    """Compare mappings of landmarks for a model's network, and choose one without the people it is judged on."""

    crops: tyro.conf.Positional[Path]
    """Folder of people that crop_faces.py made; its originals are cut anew by the landmarks of its manifest."""

    pairs: Path
    """Pairs of these pictures, for accuracy by 10 folds of people. People are the folders."""

    model: Path | None = None
    """Bundle folder, or `pretrained`. None: the newest in runs/ that was trained on real pictures; without one, the
    pretrained network."""

    layout: str | None = None
    """The layout that mappings start from: arcface, dlib or dlib_close. None: the model's own."""

    weights: tuple[str, ...] = Field(("1:1:1", "2:1:1", "4:2:1", "6:2:1"), min_length=1)
    """How much eyes, nose and mouth count, colons between."""

    scales: tuple[float, ...] = Field((1.0, 1.02, 1.04, 1.06), min_length=1)
    """Sizes of the face in the crop, as multiples of the layout's."""

    flip: bool | None = None
    """Average each face's embedding with its mirror image's. None: as the model says."""

    fmr: float = Field(1e-3, gt=0, lt=1)
    """The false-match rate at which mappings compete."""

    most_each: int = Field(5, ge=2)
    """Pictures of a person that compete, the first by name."""

    output_dir: Path = Path("runs/mapping_study")
    """Where embeddings and tables go."""


@dataclass(frozen=True)
class LandmarkMapping:
    """How landmarks decide the crop.

    Attributes:
        name: for tables and files.
        target: (5, 2) float32, where the points go, in pixels of the crop.
        weights: of the five points in the least squares.
    """

    name: str
    target: Points
    weights: tuple[float, ...]

    @property
    def file(self) -> str:
        """Its file's name, on any system."""
        return self.name.replace(":", "-").replace(" ", "") + ".npy"

    def cut(self, image: Image, landmarks: Points, recipe: CropRecipe) -> Image:
        """The crop as the network would read it back from its file."""
        return as_stored(warp(image, landmarks, self.target, self.weights, recipe.size), recipe.quality)


@dataclass(frozen=True)
class Result:
    """A mapping, judged.

    Attributes:
        name: the mapping's.
        rates: its true-match rates at `FMRS`, over all pairs of the competing pictures; NaN: too few pairs.
        accuracy: on the listed pairs, by folds of people.
        standard_error: of that.
    """

    name: str
    rates: tuple[float, ...]
    accuracy: float
    standard_error: float


@dataclass(frozen=True)
class Study:
    """What became of it.

    Attributes:
        results: of each mapping.
        best: name of the one with the highest true-match rate at `fmr`.
        chosen: of each fold of the pairs, the name of the best without the fold's people.
        shared: pairs with a person who is also in another fold's.
        counts: people and pictures that compete, their genuine and impostor pairs, listed pairs.
        accuracy: on the pairs, with those.
        standard_error: of that.
        fmr: where mappings competed.
        flip: whether embeddings are averaged with the mirror image's.
    """

    results: list[Result]
    best: str
    chosen: list[str]
    shared: int
    counts: tuple[int, ...]
    accuracy: float
    standard_error: float
    fmr: float
    flip: bool


def layouts(
    recipe: CropRecipe, layout: str, weights: Sequence[str], scales: Sequence[float]
) -> list[LandmarkMapping]:
    """All combinations of weights and scales.

    Raises:
        ValueError: an unknown layout, weights that are not three positive numbers, a scale outside 0.5 to 2, or one
            mapping twice.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"`layout` {layout}: there are {', '.join(LAYOUTS)}.")
    if wrong := [scale for scale in scales if not 0.5 <= scale <= 2]:
        raise ValueError(f"`scales` {wrong[0]:g}: must lie between 0.5 and 2.")
    points, middle = template(recipe.size, recipe.margin, layout), (recipe.size - 1) / 2
    found: dict[tuple[float, ...], LandmarkMapping] = {}
    for eyes, nose, mouth in map(_weights, weights):
        for scale in scales:
            name = f"{eyes:g}:{nose:g}:{mouth:g} x {scale:g}"
            # Weights count by their ratios.
            key = tuple(float(f"{value:.6g}") for value in (eyes / mouth, nose / mouth, scale))
            if key in found:
                raise ValueError(f"`weights` and `scales`: {name} is the mapping {found[key].name} again.")
            target = ((points - middle) * scale + middle).astype(np.float32)
            found[key] = LandmarkMapping(name, target, (eyes, eyes, nose, mouth, mouth))
    return [*found.values()]


def _weights(word: str) -> tuple[float, float, float]:
    """The numbers of "eyes:nose:mouth"."""
    try:
        eyes, nose, mouth = (float(part) for part in word.split(":"))
    except ValueError:
        eyes = nose = mouth = 0.0
    if not min(eyes, nose, mouth) > 0 or not np.isfinite([eyes, nose, mouth]).all():
        raise ValueError(f"`weights` {word}: must be three positive numbers for eyes, nose and mouth, as 2:1:1.")
    return eyes, nose, mouth


def embedded_once(
    mapping: LandmarkMapping,
    material: Material,
    recipe: CropRecipe,
    embed: Callable[[Sequence[Image]], NDArray[np.float32]],
    file: Path,
) -> NDArray[np.float32]:
    """Embeddings of all pictures cut by a mapping, (n, D) in the order of `material.rows`; kept in `file`."""
    from tqdm import tqdm

    kept = _kept(file)
    if kept is not None and len(kept) == len(material.rows):
        return kept
    parts, lines = [], list(material.rows.values())
    with tqdm(total=len(lines), desc=mapping.name, unit="images") as bar:
        for start in range(0, len(lines), AT_ONCE):
            crops = [
                mapping.cut(read_image(material.folder / line.path), line.face.landmarks, recipe)
                for line in lines[start : start + AT_ONCE]
                if line.face is not None
            ]
            parts.append(embed(crops))
            bar.update(len(crops))
    rows = np.concatenate(parts)
    with written_aside(file) as aside, aside.open("wb") as stream:
        np.save(stream, rows)
    return rows


def _kept(file: Path) -> NDArray[np.float32] | None:
    """What an earlier call kept; None where there is nothing, or it is damaged and made again."""
    try:
        kept: NDArray[np.float32] = np.load(file)
    except (OSError, EOFError, ValueError):
        return None
    return kept


def distances(rows: NDArray[np.float32], material: Material) -> NDArray[np.float64]:
    """Of the listed pairs: (n,)."""
    return np.linalg.norm(rows[material.first].astype(np.float64) - rows[material.second], axis=1)


def rate(rows: NDArray[np.float32], material: Material, chosen: NDArray[np.bool_], fmr: float) -> float:
    """True-match rate over all pairs among the chosen of the competing pictures."""
    from facekit.validation import tpr_at_fmr

    labels = np.unique(material.people[chosen], return_inverse=True)[1]
    return tpr_at_fmr(rows[material.competing[chosen]], labels, fmr)


def refuse_too_few(people: NDArray[np.str_], fmr: float, who: str) -> None:
    """See that the pairs of pictures of these people can show a true-match rate at a false-match rate.

    Raises:
        ValueError: they cannot.
    """
    from facekit.metrics import pairs_needed

    genuine, impostors = _pair_counts(people)
    needs = pairs_needed(fmr)
    if not genuine or impostors < needs:
        raise ValueError(
            f"`fmr` {fmr:g}: needs a genuine pair and {needs:,} impostor pairs; {who} there are {genuine:,} and "
            f"{impostors:,}. Take more pictures, or a higher rate."
        )


def _pair_counts(people: NDArray[np.str_]) -> tuple[int, int]:
    from facekit.validation import pair_counts

    return pair_counts(np.unique(people, return_inverse=True)[1])


def choose_without(
    embeddings: Mapping[str, NDArray[np.float32]], material: Material, folds: IdentityFolds, fmr: float
) -> list[str]:
    """For each fold of the pairs, the mapping that is best among all people but the fold's.

    Raises:
        ValueError: they are too few to tell mappings apart at that rate.
    """
    ids1, ids2 = (np.array(ids) for ids in material.ids)
    chosen = []
    for fold in range(folds.k):
        here = folds.folds == fold
        outside = ~np.isin(material.people, np.concatenate([ids1[here], ids2[here]]))
        refuse_too_few(material.people[outside], fmr, f"without the people of fold {fold}")
        rates = {name: rate(rows, material, outside, fmr) for name, rows in embeddings.items()}
        chosen.append(max(rates, key=lambda name: rates[name]))
    return chosen


def judge_chosen(
    far: Mapping[str, NDArray[np.float64]], chosen: Sequence[str], same: NDArray[np.bool_], folds: IdentityFolds
) -> tuple[float, float]:
    """Accuracy by folds where each fold has its own mapping, and the threshold that is best for it elsewhere.

    Args:
        far: the distances of the pairs by each mapping.
        chosen: the mapping of each fold.
        same: the truth.
        folds: of the pairs.

    Returns:
        Mean of the folds' accuracies, and its standard error.
    """
    from facekit.folds import kfold_accuracy

    by_mapping = {name: kfold_accuracy(far[name], same, folds.folds) for name in set(chosen)}
    accuracies = np.array([by_mapping[name].accuracies[fold] for fold, name in enumerate(chosen)])
    return float(accuracies.mean()), float(np.std(accuracies, ddof=1) / np.sqrt(accuracies.size))


def table(found: Study) -> str:
    """The study as Markdown."""
    accuracy = f"accuracy, {len(found.chosen)} folds of people"
    heads = ["eyes:nose:mouth x size", *(f"TPR at {value:g}" for value in FMRS), accuracy]
    lines = [row(heads), row(["---"] * len(heads))]
    for result in found.results:
        accuracy = f"{result.accuracy:.4f} ({result.standard_error:.4f})"
        rates = ("too few pairs" if np.isnan(value) else f"{value:.4f}" for value in result.rates)
        cells = [result.name, *rates, accuracy]
        lines.append(row([f"**{cell}**" for cell in cells] if result.name == found.best else cells))
    people, pictures, genuine, impostors, listed = found.counts
    lines += [
        "",
        f"TPR: all {genuine:,} genuine and {impostors:,} impostor pairs of {pictures:,} pictures of {people:,} "
        f"people. Accuracy: {listed:,} listed pairs.",
    ]
    shared = f" ({found.shared:,} pairs share a person with another fold)" if found.shared else ""
    counts = ", ".join(f"{name} {found.chosen.count(name)} times" for name in dict.fromkeys(found.chosen))
    lines += [
        "",
        f"Flips {'averaged' if found.flip else 'not averaged'}. Mapping (best TPR at {found.fmr:g}) and "
        f"threshold chosen without each fold's people{shared}: accuracy {found.accuracy:.4f} (standard error "
        f"{found.standard_error:.4f}); chosen were {counts}.",
    ]
    return "\n".join(lines) + "\n"


def judge(embeddings: Mapping[str, NDArray[np.float32]], material: Material, fmr: float, flip: bool) -> Study:
    """Judge embeddings by mapping, and choose one for all and one for each fold.

    Raises:
        ValueError: there are too few people to tell mappings apart at that rate.
    """
    from facekit.folds import folds_by_identity, kfold_accuracy
    from facekit.metrics import pairs_needed

    same, folds = material.same, folds_by_identity(*material.ids)
    far = {name: distances(rows, material) for name, rows in embeddings.items()}
    everyone = np.ones(len(material.people), np.bool_)
    refuse_too_few(material.people, fmr, "in these pictures")
    genuine, impostors = _pair_counts(material.people)
    counts = len({*material.people}), len(material.people), genuine, impostors, len(same)
    results = []
    for name, rows in embeddings.items():
        fold = kfold_accuracy(far[name], same, folds.folds)
        rates = tuple(
            rate(rows, material, everyone, value) if pairs_needed(value) <= impostors else np.nan for value in FMRS
        )
        results.append(Result(name, rates, fold.accuracy, fold.standard_error))
    best = max(embeddings, key=lambda name: rate(embeddings[name], material, everyone, fmr))
    chosen = choose_without(embeddings, material, folds, fmr)
    return Study(results, best, chosen, folds.shared, counts, *judge_chosen(far, chosen, same, folds), fmr, flip)


def study(command: MappingCommand) -> str:
    """Judge every mapping, and write study.json and table.md; returns the table.

    Raises:
        ValueError: crops, pairs, model or a setting are wrong.
    """
    from kept_embeddings import network_digest
    from verifier import Verifier

    material = read_material(command.crops, command.pairs, command.most_each)
    verifier = Verifier(command.model, command.flip)
    recipe = verifier.record.recipe
    if recipe is None or recipe.method != "align":
        raise ValueError(f"{verifier.bundle}: its faces are not cut by landmarks, so no mapping can be compared.")
    if not same_search(material.recipe, recipe):
        print(
            f"{command.crops}: faces were found otherwise than the model's recipe finds them: "
            f"{material.recipe.difference(recipe)}.",
            file=sys.stderr,
        )
    layout, flip = command.layout or recipe.template, verifier.record.flip
    compared = layouts(recipe, layout, command.weights, command.scales)
    check_writable(command.output_dir, "output_dir")
    kept = command.output_dir / _key(network_digest(verifier.bundle), recipe, layout, flip, material)
    embeddings = {
        one.name: embedded_once(one, material, recipe, verifier.embed_crops, kept / one.file) for one in compared
    }
    found = judge(embeddings, material, command.fmr, flip)
    text = table(found)
    write_text(command.output_dir / "study.json", json.dumps(plain(asdict(found)), indent=2) + "\n")
    write_text(command.output_dir / "table.md", text)
    return text


def _key(network: str, recipe: CropRecipe, layout: str, flip: bool, material: Material) -> str:
    """A name for all that embeddings depend on besides the mapping."""
    import hashlib

    rows = [tuple(map(str, line)) for line in material.rows.values()]
    text = json.dumps([network, recipe.to_dict(), layout, flip, str(material.folder), rows])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 2 wrong input, 130 interrupted."""
    command = parse(MappingCommand, argv)
    runtime.start_quietly()
    try:
        print(study(command))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. The same command goes on after the last whole mapping.", file=sys.stderr)
        return runtime.INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
