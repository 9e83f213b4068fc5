"""Use a trained model: embed faces, compare two, say whether they are one person.

In:  two pictures; a bundle that train.py wrote (by default the newest in runs/ trained on real pictures).
Out: boxes, distance, cosine, the threshold and where it comes from, the verdict.
Run: python inference.py a.jpg b.jpg --model runs/first/bundle
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from facekit import runtime
from facekit.alignment import CropRecipe, Points
from facekit.bundle import BundleRecord
from facekit.cropping import prepare_worker
from facekit.detection import Finding
from facekit.files import check_writable
from facekit.images import Image, read_image
from facekit.manifest import crop_folder
from facekit.mirror import mirror_words
from facekit.recutting import cut_alike
from facekit.settings import Settings, parse
from verifier import ADVICE, Comparison, NoFaceError, Verifier

SAME, DIFFERENT, ERROR = 0, 1, 2
DRAWINGS = (".png", ".jpg", ".svg", ".pdf")


class InferenceCommand(Settings):
    """Say whether two pictures show the same person, or embed a folder of pictures (`embed`). Exit code 0: same, or
    embedded; 1: different; 2: error.
    """  # noqa: D205 - one paragraph in --help

    image1: tyro.conf.Positional[Path | None] = None
    """One picture."""

    image2: tyro.conf.Positional[Path | None] = None
    """The other."""

    embed: Path | None = None
    """Folder of pictures, or of crops, to embed instead: every picture in it and below it, into `output`. Stopped,
    the same command goes on."""

    model: Path | None = None
    """Bundle folder, or `pretrained`. None: the newest in runs/ that was trained on real pictures; without one, the
    pretrained network."""

    flip: bool | None = None
    """Average each embedding with the mirror image's, or not. None: as the bundle does."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Write one JSON object to stdout instead of text."""

    output: Path | None = None
    """PNG file to draw both pictures to, with boxes, landmarks and the verdict. With `embed`: the file of
    embeddings, .npz or .parquet."""

    as_crops: bool = False
    """Take the pictures as faces already cut, whoever cut them: no face is looked for."""


@dataclass(frozen=True)
class Seen:
    """A picture of the command line and what was found in it."""

    path: Path
    image: Image
    finding: Finding
    crop: Image

    @property
    def box(self) -> tuple[float, float, float, float] | None:
        """The face's x, y, width, height, for drawing."""
        if self.finding.face is None:
            return None
        x, y, width, height = self.finding.face.box.tolist()
        return x, y, width, height

    @property
    def landmarks(self) -> Points | None:
        """The face's five points, for drawing."""
        return self.finding.face.landmarks if self.finding.face is not None else None

    def to_json(self) -> dict[str, Any]:
        """The finding as JSON values; box and landmarks in pixels of the upright picture."""
        face = self.finding.face
        found: dict[str, Any] = {"path": str(self.path), "faces": self.finding.count}
        if face is not None:
            found |= {
                "box": [round(float(value), 1) for value in face.box],
                "confidence": round(face.confidence, 4),
                "landmarks": [[round(float(value), 1) for value in point] for point in face.landmarks],
            }
        return found

    def text(self) -> str:
        """The finding in words."""
        face = self.finding.face
        if face is None:
            return f"{self.path}: taken whole, as a face already cut"
        x, y, width, height = (round(float(value)) for value in face.box)
        choice = f"; {self.finding.count} faces, this one chosen" if self.finding.count > 1 else ""
        return f"{self.path}: face {width} x {height} at ({x}, {y}), confidence {face.confidence:.3f}{choice}"


def see(verifier: Verifier, paths: Sequence[Path], images: Sequence[Image], as_crops: bool = False) -> list[Seen]:
    """Find the face of each picture; one that crop_faces.py cut for this model is the face already.

    Args:
        verifier: the model.
        paths: the pictures' files.
        images: what they hold.
        as_crops: take all of them as faces already cut.

    Raises:
        NoFaceError: a picture gives none; names it.
        ValueError: a picture is a crop that was cut by another recipe than the model's.
    """
    seen = []
    for path, image in zip(paths, images, strict=True):
        if as_crops or is_own_crop(path, verifier.record.recipe):
            seen.append(Seen(path, image, Finding(None, 1), image))
            continue
        (finding,) = verifier.find([image])
        crop = verifier.crop(image, finding)
        if crop is None:
            raise NoFaceError(f"{path}: {ADVICE[finding.reason]}.")
        seen.append(Seen(path, image, finding, crop))
    return seen


def is_own_crop(path: Path, recipe: CropRecipe | None) -> bool:
    """Whether a picture lies in a folder of crops of this recipe.

    Raises:
        ValueError: it lies in one of another recipe.
    """
    if recipe is None:
        return False
    for folder in path.resolve().parents[:2]:
        made = crop_folder(folder)
        if made is not None and not cut_alike(made.recipe, recipe):
            raise ValueError(
                f"{path}: is a crop of another recipe than the model's ({made.recipe.difference(recipe)}). Give "
                f"the original picture (below {made.source}), or --as_crops to take it as it is."
            )
        if made is not None:
            return True
    return False


def verdict_words(comparison: Comparison) -> str:
    """The verdict in two words."""
    return {True: "SAME PERSON", False: "DIFFERENT PEOPLE", None: "NO VERDICT"}[comparison.same]


def model_line(verifier: Verifier) -> str:
    """Which model answers, in words."""
    record = verifier.record
    drawn = " (trained on drawn faces: for trying the commands only)" if record.synthetic else ""
    return f"Model {record.name} ({verifier.bundle}), {record.created}{drawn}; {mirror_words(record.flip)}"


def report_text(verifier: Verifier, seen: Sequence[Seen], comparison: Comparison) -> str:
    """Everything that led to the verdict, in words."""
    record = verifier.record
    threshold = record.threshold.text() if record.threshold else "none"
    why = f" ({verifier.no_threshold})" if comparison.same is None else ""
    return "\n".join(
        [
            model_line(verifier),
            *(picture.text() for picture in seen),
            f"Distance {comparison.distance:.4f}   cosine {comparison.cosine:.4f}",
            *probability_words(comparison),
            f"Threshold {threshold}",
            f"Verdict: {verdict_words(comparison)}{why}",
            *doubts(record),
        ]
    )


def probability_words(comparison: Comparison) -> list[str]:
    """How probable one person is, and under which assumption; nothing for a model that was not calibrated so."""
    if comparison.probability is None:
        return []
    return [
        f"Probability of one person {comparison.probability:.3f}, if both answers are equally likely beforehand"
    ]


def doubts(record: BundleRecord) -> list[str]:
    """What to doubt about a model's verdicts, in words."""
    threshold = record.threshold
    if threshold is None or (threshold.fmr < 0.1 and threshold.fmr + threshold.fnmr < 0.3):
        return []
    wrong = f"{threshold.fmr:.0%} of impostor and {threshold.fnmr:.0%} of genuine pairs"
    return [f"This is a weak model: at its threshold it is wrong on {wrong}."]


def report_json(verifier: Verifier, seen: Sequence[Seen], comparison: Comparison) -> str:
    """The same as one JSON object, numbers first."""
    record = verifier.record
    values = {
        "same": comparison.same,
        "distance": comparison.distance,
        "cosine": comparison.cosine,
        "probability": comparison.probability,
        "threshold": record.threshold.value if record.threshold else None,
        "no_threshold": verifier.no_threshold or None,
        "model": str(verifier.bundle),
        "synthetic": record.synthetic,
        "flip": record.flip,
        "threshold_evidence": asdict(record.threshold) if record.threshold else None,
        "pictures": [picture.to_json() for picture in seen],
    }
    return json.dumps(values, indent=2)


def draw(seen: Sequence[Seen], comparison: Comparison, path: Path) -> None:
    """Draw the two pictures with boxes, landmarks and the verdict."""
    from facekit.plots import DIFFERENT_COLOUR, SAME_COLOUR, comparison_figure, save_figure

    one, two = seen
    figure = comparison_figure(
        one.image,
        two.image,
        boxes=(one.box, two.box),
        landmarks=(one.landmarks, two.landmarks),
        caption=f"{verdict_words(comparison)}   distance {comparison.distance:.3f}",
        colour=SAME_COLOUR if comparison.same else DIFFERENT_COLOUR,
    )
    save_figure(figure, path)


def run_embedding(command: InferenceCommand) -> int:
    """Embed the command's folder; returns the exit code.

    Raises:
        ValueError: folder, output or model is wrong; in one sentence.
    """
    from embedding import embed_folder

    if command.image1 is not None or command.as_json:
        raise ValueError("`embed` takes a folder and `output`, and no pictures or `json` beside them.")
    if command.output is None:
        raise ValueError("`embed` needs `output`: a file ending in .npz or .parquet.")
    assert command.embed is not None
    prepare_worker()
    verifier = Verifier(command.model, command.flip)
    print(model_line(verifier), flush=True)
    print(embed_folder(verifier, command.embed, command.output, command.as_crops).text())
    return SAME


def run(command: InferenceCommand) -> int:
    """Compare the command's pictures; returns the exit code.

    Raises:
        ValueError: model, picture or output is wrong; in one sentence. An explicit model is checked first, then the
            pictures, then the default model.
    """
    if command.embed is not None:
        return run_embedding(command)
    if command.image1 is None or command.image2 is None:
        raise ValueError("Name two pictures to compare, or a folder of pictures with `--embed`.")
    verifier = Verifier(command.model, command.flip) if command.model else None
    paths = (command.image1, command.image2)
    images = [read_image(path) for path in paths]
    if command.output is not None:
        if command.output.suffix.lower() not in DRAWINGS:
            raise ValueError(f"`output` {command.output}: must end in one of {', '.join(DRAWINGS)}.")
        check_writable(command.output.parent, "output")
    verifier = verifier or Verifier(None, command.flip)
    prepare_worker()
    seen = see(verifier, paths, images, command.as_crops)
    embeddings = verifier.embed_crops([picture.crop for picture in seen])
    comparison = verifier.compare(embeddings[0], embeddings[1])
    if command.output is not None:
        draw(seen, comparison, command.output)
    print((report_json if command.as_json else report_text)(verifier, seen, comparison))
    if command.output is not None and not command.as_json:
        print(f"Drawn: {command.output}")
    if comparison.same is None:
        return ERROR
    return SAME if comparison.same else DIFFERENT


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 same, 1 different, 2 error."""
    command = parse(InferenceCommand, argv)
    try:
        return run(command)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return ERROR
    except KeyboardInterrupt:
        if command.embed is not None:
            print("\nInterrupted. What was done is kept: the same command goes on from there.", file=sys.stderr)
        return runtime.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
