"""The product of training: a network with its preprocessing, its threshold, and the evidence for both."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile, is_zipfile

from facekit.alignment import LAYOUTS, CropRecipe, template
from facekit.detectors import ALIGNER
from facekit.files import write_text
from facekit.model_card import model_card
from facekit.probability import ProbabilityMap

if TYPE_CHECKING:
    import keras

NETWORK, ONNX, RECORD = "model.keras", "model.onnx", "bundle.json"
CARD = "model_card.md"
FORMAT = 1


@dataclass(frozen=True)
class Threshold:
    """Where "same person" ends, and how that was found.

    Attributes:
        value: "same" means a distance below it; distances of unit embeddings, 0 to 2.
        criterion: how it was chosen, in words.
        data: the pairs it was chosen on, in words.
        genuine: how many of them are of one person.
        impostor: how many are of two.
        fmr: share of impostor pairs accepted at it there (false-match rate).
        fnmr: share of genuine pairs rejected at it there (false-non-match rate).
        fmr_interval: 95 % interval of `fmr`.
        date: the day it was chosen, ISO.
        value_interval: 95 % interval of `value`; None: not computed.
        fnmr_interval: 95 % interval of `fnmr`; None: not computed.
        by: what the intervals count: "identity", people, or "pair" where people are unknown.
        flip: whether its distances were those of embeddings averaged with the mirror image's.
    """

    value: float
    criterion: str
    data: str
    genuine: int
    impostor: int
    fmr: float
    fnmr: float
    fmr_interval: tuple[float, float]
    date: str
    value_interval: tuple[float, float] | None = None
    fnmr_interval: tuple[float, float] | None = None
    by: str = "identity"
    flip: bool = False

    def text(self) -> str:
        """The threshold and its evidence in one sentence."""
        low, high = self.fmr_interval
        return (
            f"{self.value:.4f}, {self.criterion}: FMR {self.fmr:.3g} (95 % interval {low:.3g} to {high:.3g}), FNMR "
            f"{self.fnmr:.3g} on {self.genuine:,} genuine and {self.impostor:,} impostor pairs of {self.data}, "
            f"{self.date}"
        )


@dataclass(frozen=True)
class BundleRecord:
    """What goes with a network.

    Attributes:
        name: the run that made it.
        created: day and time, ISO.
        backbone: name of the network's body.
        image_size: side of its input, pixels.
        embedding_size: numbers in an embedding.
        recipe: how a face is cut from a picture; None: trained on whole pictures, which then go in whole.
        synthetic: whether it was trained on drawn faces, and so is good for trying the commands only.
        threshold: None where none was chosen.
        training: the training data in words, with its digest.
        figures: verification figures on held-out people; `note`: what to doubt about them.
        probability: how a distance becomes a probability; None where nobody asked for one.
        flip: whether embeddings are averaged with the mirror image's.
        data: the training data's name.
        licence: under which terms the model may be used; "": unstated.
        versions: of the packages that made it.
    """

    name: str
    created: str
    backbone: str
    image_size: int
    embedding_size: int
    recipe: CropRecipe | None
    synthetic: bool
    threshold: Threshold | None
    training: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    probability: ProbabilityMap | None = None
    flip: bool = False
    data: str = ""
    licence: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    def preprocessing(self) -> dict[str, Any]:
        """All that lies between a picture and the network, for readers in any language, with a hash over it.

        `points` are where the five landmarks go, (x, y) in pixels of the crop, by a least-squares similarity;
        `weights`, of its squares, are there where they differ. `network_side` is what the crop is resized to. The
        network scales the values itself.
        """
        recipe = self.recipe
        points, weights = None, [1.0]
        if recipe and recipe.method == "align":
            points = template(recipe.size, recipe.margin, recipe.template).round(4).tolist()
            weights = list(LAYOUTS[recipe.template].weights)
        values = {
            "recipe": recipe.to_dict() if recipe else None,
            "points": points,
            "network_side": self.image_size,
            "colour_order": "RGB",
            "value_range": [0, 255],
            "flip": self.flip,
        }
        # Left out where all are alike: the hash of earlier bundles stays what it was.
        if len(set(weights)) > 1:
            values["weights"] = weights
        text = json.dumps(values, sort_keys=True)
        return {**values, "sha256": hashlib.sha256(text.encode()).hexdigest()}

    def values(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return {"format": FORMAT, **asdict(self), "preprocessing": self.preprocessing()}


def write_bundle(folder: Path, network: keras.Model, record: BundleRecord, aligner: Path | None = None) -> None:
    """Write a bundle folder; an earlier one of the name gives way only once the new one is whole.

    Beside the network lies its ONNX form, which runs without TensorFlow, and its model card.

    Args:
        folder: where it goes.
        network: the embedding network.
        record: what it says of itself.
        aligner: weights of the alignment network that its recipe names; None where the recipe needs none.
    """
    from facekit.onnx_network import write_onnx

    aside = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    aside.mkdir(parents=True)
    try:
        network.save(aside / NETWORK)
        write_onnx(network, aside / ONNX)
        if aligner is not None:
            shutil.copyfile(aligner, aside / ALIGNER)
        _write_record(aside, record)
        replaced = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(replaced, ignore_errors=True)
        if folder.exists():
            os.replace(folder, replaced)
        os.replace(aside, folder)
        shutil.rmtree(replaced, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def write_record(folder: Path, record: BundleRecord) -> None:
    """Change what a bundle says of itself; its network stays as it is.

    Raises:
        ValueError: the folder is no bundle.
        OSError: it cannot be written.
    """
    read_record(folder)
    _write_record(folder, record)


def _write_record(folder: Path, record: BundleRecord) -> None:
    onnx = _digest(folder / ONNX) if (folder / ONNX).is_file() else None
    values = record.values() | {"sha256": _digest(folder / NETWORK), "onnx_sha256": onnx}
    write_text(folder / RECORD, json.dumps(values, indent=2) + "\n")
    write_text(folder / CARD, model_card(record))


def read_record(folder: Path) -> BundleRecord:
    """Read what a bundle says of itself, without loading its network or TensorFlow's graph.

    Raises:
        ValueError: the folder is no bundle, or is damaged; in one sentence.
    """
    path = folder / RECORD
    if not path.is_file() or not (folder / NETWORK).is_file():
        raise ValueError(
            f"{folder}: is not a model bundle (a folder with {NETWORK} and {RECORD}). `python train.py` writes one "
            "to runs/NAME/bundle."
        )
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(values, dict) or values.pop("format") != FORMAT:
            raise ValueError("it is no record, or one of another version")
        digest, onnx_digest = values.pop("sha256"), values.pop("onnx_sha256", None)
        preprocessing = values.pop("preprocessing", None)
        threshold, recipe, chances = values.pop("threshold"), values.pop("recipe"), values.pop("probability", None)
        if threshold is not None:
            pairs = {name: ends and tuple(ends) for name, ends in threshold.items() if name.endswith("_interval")}
            threshold = Threshold(**{**threshold, **pairs})
            if not 0 <= float(threshold.value) <= 2:
                raise ValueError(f"a threshold must be in [0, 2], not {threshold.value}")
        record = BundleRecord(
            **values,
            threshold=threshold,
            recipe=recipe and CropRecipe.from_dict(recipe),
            probability=None if chances is None else ProbabilityMap.from_dict(chances),
        )
        _check_types(record)
        if preprocessing not in (None, record.preprocessing()):
            raise ValueError("its `preprocessing` does not follow from its recipe; one of them was changed by hand")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: cannot be understood ({error}).") from None
    if _digest(folder / NETWORK) != digest:
        raise ValueError(f"{folder / NETWORK}: is damaged or was changed (its SHA-256 differs from {RECORD}'s).")
    if onnx_digest and (not (folder / ONNX).is_file() or _digest(folder / ONNX) != onnx_digest):
        raise ValueError(f"{folder / ONNX}: is missing or was changed (its SHA-256 differs from {RECORD}'s).")
    return record


def _check_types(record: BundleRecord) -> None:
    """See that every field holds what it should: a record may have been written by hand.

    Raises:
        ValueError: one does not; names the first.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        TypeAdapter(BundleRecord).validate_json(json.dumps(asdict(record)), strict=True)
    except ValidationError as error:
        finding = error.errors()[0]
        name = ".".join(str(part) for part in finding["loc"])
        expected = finding["msg"].replace("Input should be", "must be")
        raise ValueError(f"`{name}` {expected}, not {finding['input']!r}") from None


def read_network(path: Path) -> keras.Model:
    """Load a network that train.py wrote: a .keras file, or a bundle that `read_record` has checked.

    Raises:
        ValueError: the file is missing or damaged.
    """
    import keras

    import facekit.cohort
    import facekit.layers  # noqa: F401  # both register what the file names

    file = path / NETWORK if path.is_dir() else path
    if file.is_file() and not is_zipfile(file):
        # Keras would say that there is no such file.
        raise ValueError(f"{file}: cannot be loaded as a network (it is damaged, or of another kind).")
    try:
        return keras.saving.load_model(file, compile=False)
    except (OSError, ValueError, KeyError, TypeError, BadZipFile) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{file}: cannot be loaded as a network ({reason}).") from error


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
