"""Use a trained model: embed faces, compare two, say whether they are one person.

In:  two pictures; a bundle that train.py wrote (by default the newest in runs/ trained on real pictures).
Out: boxes, distance, cosine, the threshold and where it comes from, the verdict.
Run: python inference.py a.jpg b.jpg --model runs/first/bundle
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray

from facekit import runtime
from facekit.alignment import CropRecipe, Points
from facekit.bundle import ONNX, BundleRecord, read_network, read_record
from facekit.cropping import prepare_worker
from facekit.detection import LOW_CONFIDENCE, MANY_FACES, NO_FACE, Detector, Finding, crop_found, find_faces
from facekit.detectors import ALIGNER, make_detector
from facekit.files import check_writable
from facekit.images import Image, as_stored, read_image, resize_square
from facekit.manifest import crop_folder
from facekit.mirror import mirror_words, with_mirror
from facekit.recutting import cut_alike
from facekit.settings import Settings, parse

SAME, DIFFERENT, ERROR = 0, 1, 2
DRAWINGS = (".png", ".jpg", ".svg", ".pdf")

ADVICE = {
    NO_FACE: "no face was found. Use a picture in which the face is sharp, upright and at least 20 pixels wide",
    LOW_CONFIDENCE: "no face was found with enough confidence. Use a sharper or more frontal picture",
    MANY_FACES: "several faces were found, and this model takes pictures of one. Cut the picture down to one",
}


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


class NoFaceError(ValueError):
    """A picture without a face to compare; the message says why and what to do."""


@dataclass(frozen=True)
class Comparison:
    """Two faces compared.

    Attributes:
        distance: Euclidean distance of the unit embeddings, 0 to 2; small means alike.
        cosine: of the angle between them, -1 to 1.
        same: the verdict, distance < threshold; None where the model has no threshold.
        probability: that it is one person, 0 to 1, where both answers are equally likely beforehand; None where the
            model was calibrated without `probability`.
    """

    distance: float
    cosine: float
    same: bool | None
    probability: float | None = None


def find_bundle(runs_dir: Path = Path("runs")) -> Path:
    """The newest bundle below `runs_dir` that was trained on real pictures; else the pretrained one.

    The newest is the one that was made last; calibrating one makes it no newer. Of several the first by name. A
    bundle that is damaged or of another version is passed over with a word.

    Raises:
        ValueError: there is none, and the pretrained one cannot be had.
    """
    bundles = sorted(runs_dir.glob("*/bundle/bundle.json"), key=lambda path: (-_made_at(path), path))
    for path in bundles:
        try:
            if not read_record(path.parent).synthetic:
                return path.parent
        except ValueError as error:
            print(f"Passed over: {error}", file=sys.stderr)
    from pretrained import pretrained_bundle

    return pretrained_bundle()


def _made_at(path: Path) -> float:
    """When the bundle of this bundle.json was made, in seconds since 1970.

    A record that cannot be read counts as the newest, so that it is told of; one without a date as the oldest.
    """
    try:
        created = json.loads(path.read_text(encoding="utf-8"))["created"]
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf
    try:
        return datetime.fromisoformat(created).timestamp()
    except (ValueError, TypeError):
        return -math.inf


def named_bundle(model: Path | None) -> Path:
    """The bundle that `--model` names: a folder, "pretrained", or by default `find_bundle`'s.

    Raises:
        ValueError: there is no such folder, and "pretrained" may have been meant.
    """
    if model is None:
        return find_bundle()
    if model.exists():
        return model
    if str(model) == "pretrained":
        from pretrained import pretrained_bundle

        return pretrained_bundle()
    if get_close_matches(str(model), ["pretrained"], cutoff=0.8):
        raise ValueError(f"`model` {model}: there is no such folder. Did you mean `pretrained`?")
    return model


class Verifier:
    """A bundle at work: pictures in, embeddings and verdicts out.

    Args:
        bundle: the bundle's folder, or "pretrained". None: as for `--model`, see `find_bundle`.
        flip: whether embeddings are averaged with the mirror image's. None: as the bundle says. Its threshold and
            probability hold for the way they were found: with the other one there is no verdict.
        engine: "onnx" computes with the bundle's ONNX form, without TensorFlow, where it has one; "tensorflow" with
            its Keras network, on a GPU where there is one. Their embeddings agree to about 1e-6.

    Raises:
        ValueError: it is no bundle, or a damaged one.
    """

    def __init__(
        self,
        bundle: Path | str | None = None,
        flip: bool | None = None,
        engine: Literal["onnx", "tensorflow"] = "onnx",
    ):
        self.bundle = named_bundle(None if bundle is None else Path(bundle))
        stored = read_record(self.bundle)
        self.record: BundleRecord = with_flip(stored, flip)
        self.no_threshold = why_no_threshold(stored, self.record)
        self.engine = engine if (self.bundle / ONNX).is_file() else "tensorflow"
        self._detector: Detector | None = None

    @cached_property
    def _embedder(self) -> Any:
        embed = self._onnx_embedder() if self.engine == "onnx" else self._keras_embedder()
        return with_mirror(embed) if self.record.flip else embed

    def _onnx_embedder(self) -> Any:
        from facekit.onnx_network import OnnxEmbedder

        return OnnxEmbedder(self.bundle / ONNX)

    def _keras_embedder(self) -> Any:
        from facekit.trainer import Embedder

        runtime.start_quietly()
        network = read_network(self.bundle)
        side = network.input_shape[1]
        if side != self.record.image_size:
            raise ValueError(
                f"{self.bundle}: its bundle.json says `image_size` {self.record.image_size}, but its network takes "
                f"{side}."
            )
        return Embedder(network)

    def find(self, images: Sequence[Image]) -> list[Finding]:
        """The face of each picture by the model's own recipe; a model of whole pictures looks for none."""
        recipe = self.record.recipe
        if recipe is None:
            return [Finding(None, 0) for _ in images]
        if self._detector is None:
            self._detector = make_detector(recipe, self.bundle / ALIGNER)
        return find_faces(images, self._detector, recipe)

    def crop(self, image: Image, finding: Finding) -> Image | None:
        """The network's view of a picture, (size, size, 3) uint8 as crop_faces.py would store it; None: no face."""
        if self.record.recipe is None:
            return image
        crop = crop_found(image, finding, self.record.recipe)
        return None if crop is None else as_stored(crop, self.record.recipe.quality)

    def embed_crops(self, crops: Sequence[Image]) -> NDArray[np.float32]:
        """Embed crops of any size: (n, D) float32 unit rows."""
        size = self.record.image_size
        batch = np.empty((len(crops), size, size, 3), np.uint8)
        for row, crop in zip(batch, crops, strict=True):
            row[:] = resize_square(crop, size)
        return self._embedder(batch)

    def embed(self, pictures: Sequence[Image | Path | str]) -> NDArray[np.float32]:
        """Detect, align and embed whole pictures: (n, D) float32 unit rows; NaN where there is no face.

        Args:
            pictures: files, or (H, W, 3) uint8 arrays in RGB order (OpenCV reads BGR: give it paths instead).

        Raises:
            ValueError: a file cannot be read, or an array is of another kind.
        """
        images = [_as_image(picture) for picture in pictures]
        crops = [self.crop(image, finding) for image, finding in zip(images, self.find(images), strict=True)]
        rows = np.full((len(images), self.record.embedding_size), np.nan, np.float32)
        there = [position for position, crop in enumerate(crops) if crop is not None]
        if there:
            rows[there] = self.embed_crops([crop for crop in crops if crop is not None])
        return rows

    def compare(self, embedding1: NDArray[np.float32], embedding2: NDArray[np.float32]) -> Comparison:
        """Compare two embeddings (D,) and judge by the bundle's threshold."""
        one, two = embedding1.astype(np.float64), embedding2.astype(np.float64)
        distance = float(np.linalg.norm(one - two))
        threshold, chances = self.record.threshold, self.record.probability
        return Comparison(
            distance,
            float(one @ two),
            None if threshold is None else distance < threshold.value,
            None if chances is None else float(chances.probability(distance)),
        )

    def verify(self, picture1: Image | Path | str, picture2: Image | Path | str) -> Comparison:
        """Compare the faces of two whole pictures: files, or (H, W, 3) uint8 arrays in RGB order.

        Raises:
            NoFaceError: a picture has no face.
            ValueError: as `embed`.
        """
        rows = self.embed([picture1, picture2])
        for number, row in enumerate(rows, 1):
            if np.isnan(row).any():
                raise NoFaceError(f"Picture {number}: {ADVICE[NO_FACE]}.")
        return self.compare(rows[0], rows[1])


def with_flip(record: BundleRecord, flip: bool | None) -> BundleRecord:
    """A record for embeddings with or without flips; what was found the other way is taken out of it."""
    if flip is None or flip == record.flip:
        return record
    found = record.threshold if record.threshold and record.threshold.flip == flip else None
    return replace(record, flip=flip, threshold=found, probability=None)


def why_no_threshold(stored: BundleRecord, used: BundleRecord) -> str:
    """Why a bundle that is `used` with or without flips has no threshold, in words; "" where it has one."""
    if used.threshold is not None:
        return ""
    if stored.threshold is None:
        return "uncalibrated"
    found, wanted = ("with", "without") if stored.threshold.flip else ("without", "with them")
    return (
        f"its threshold was found {found} flips; `python evaluate.py calibrate --flip {not stored.threshold.flip}` "
        f"finds one {wanted}"
    )


def _as_image(picture: Image | Path | str) -> Image:
    if isinstance(picture, str | Path):
        return read_image(Path(picture))
    image = np.asarray(picture)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"A picture must be a path or an (H, W, 3) uint8 array in RGB. Received: {image.dtype} {image.shape}."
        )
    return image


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
