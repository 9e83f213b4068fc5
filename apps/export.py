"""Export a bundle for other programs: SavedModel, ONNX or LiteRT, held against the Keras network on crops.

In:  a bundle; optionally a folder of pictures of people, and pairs of them.
Out: a folder with the network, export.json (how faces are cut, threshold, licence, parity) and the model card; a
     table on stdout. It is kept only where the embeddings agree.
Run: python -m apps.export runs/first/bundle --to onnx --images data/lfw/images --pairs data/lfw/pairsDevTrain.txt
     python -m apps.export pretrained --to all --images data/lfw/images --pairs data/lfw/pairsDevTrain.txt
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from numpy.typing import NDArray
from pydantic import PositiveInt

from apps.timing import median_seconds, row
from facekit import export, runtime
from facekit.bundle import NETWORK, BundleRecord, read_network, read_record
from facekit.detectors import ALIGNER
from facekit.export import Embed, Form, Quantize
from facekit.files import check_writable
from facekit.images import Image, resize_square
from facekit.metrics import rates_at, roc
from facekit.mirror import averaged, mirror_words, mirrored
from facekit.pairs import Pairs
from facekit.settings import Settings, parse
from facekit.thresholds import most_accurate
from pictures import Images, PictureReader, find_images, people_pictures
from scoring import Embedded, distances_of, read_task
from verifier import named_bundle

RATES = (1e-2, 1e-3)
# Times are medians of this many turns of this many calls.
ROUNDS, CALLS = 5, 30
COLUMNS = ("form", "MB", "largest cosine difference", "accuracy", "TPR@FPR 1e-2", "TPR@FPR 1e-3", "ms an image")


class ExportCommand(Settings):
    """Write a bundle's network for TensorFlow, onnxruntime or LiteRT, with all that a reader needs."""

    bundle: tyro.conf.Positional[Path]
    """Bundle folder, or "pretrained"."""

    to: Form | Literal["all"]
    """The form: saved_model, onnx or litert; or all of them in every precision, in one table."""

    quantize: Quantize | None = None
    """float16 keeps weights in half precision; int8 computes in 8 bits, calibrated on crops. None: float32."""

    output: Path | None = None
    """Folder to write; with `to` all, the folder of their folders. None: exports/FORM (or FORM-QUANTIZE) beside the
    bundle."""

    images: Path | None = None
    """Folder of people: pictures or crops, to compare and calibrate on. None: faces are drawn."""

    as_crops: bool = False
    """Take `images` as faces already cut, whoever cut them: no face is looked for, and crops of another recipe than
    the model's are not made again. The output and export.json say so."""

    pairs: Path | None = None
    """Pairs of these pictures, to count what changes in accuracy."""

    licence: str = ""
    """Under which terms the model may be used, where the bundle does not say."""

    pictures: PositiveInt = 500
    """Most pictures to compare embeddings on where no pairs are named: evenly spaced ones."""

    calibration: PositiveInt = 200
    """Crops for int8."""

    cache: Path = Path("runs/cache")
    """Folder for crops of original pictures."""

    threads: PositiveInt = 2
    """Threads to compute on."""


@dataclass(frozen=True)
class Figures:
    """How well pairs are told apart.

    Attributes:
        accuracy: at the threshold.
        tpr: best TPR at each of `RATES`, as counted: too few pairs to claim the last one give a hint only.
    """

    accuracy: float
    tpr: tuple[float, ...]


@dataclass(frozen=True)
class Measured:
    """A form of the network, measured.

    Attributes:
        name: for the table.
        size: bytes.
        milliseconds: median for one picture.
        difference: largest cosine difference from Keras; 0 for Keras itself.
        figures: on the pairs; None where none are named.
    """

    name: str
    size: int
    milliseconds: float
    difference: float
    figures: Figures | None


@dataclass(frozen=True, eq=False)
class Material:
    """What forms are compared on.

    Attributes:
        crops: (n, S, S, 3) uint8.
        names: (n) of the pictures.
        words: where they come from.
        samples: (m, S, S, 3) uint8 for int8; empty where it is not asked for.
        pairs: those whose two pictures gave a face; None: no pairs are named.
    """

    crops: NDArray[np.uint8]
    names: list[str]
    words: str
    samples: NDArray[np.uint8]
    pairs: Pairs | None


def with_licence(record: BundleRecord, bundle: Path, licence: str) -> BundleRecord:
    """The record with a licence: its own, or the command's.

    Raises:
        ValueError: there is none.
    """
    known = record.licence or licence.strip()
    if not known:
        raise ValueError(
            f"{bundle}: does not say under which terms its model may be used, and an export must: give "
            '--licence TEXT (the terms of the training data bind it, for example "research only").'
        )
    return replace(record, licence=known)


# ---- What forms are compared on ----------------------------------------------------------------------------


def drawn(record: BundleRecord, count: int, calibration: int) -> Material:
    """Faces of people who do not exist, drawn."""
    from facekit.synthetic import draw_crop

    side = record.image_size
    faces = [draw_crop(11, person, 0, side).image for person in range(count + calibration)]
    names = [f"drawn/{person}" for person in range(count)]
    stacked = np.stack(faces)
    return Material(stacked[:count], names, f"{count} drawn faces", stacked[count:], None)


@dataclass(frozen=True)
class Export:
    """A form to write.

    Attributes:
        form: which.
        quantize: with how many bits; None: float32.
        output: its folder.
    """

    form: Form
    quantize: Quantize | None
    output: Path

    @property
    def name(self) -> str:
        """For the table, and for its folder."""
        return f"{self.form}-{self.quantize}" if self.quantize else self.form


def exports_of(command: ExportCommand, bundle: Path) -> list[Export]:
    """The forms that a command asks for.

    Raises:
        ValueError: a saved_model was to be quantised, or all forms in one precision.
    """
    beside = bundle.resolve().parent / "exports"
    if command.to != "all":
        export.refuse_quantized_saved_model(command.to, command.quantize)
        one = Export(command.to, command.quantize, Path())
        return [replace(one, output=command.output or beside / one.name)]
    if command.quantize is not None:
        raise ValueError(f"`quantize` {command.quantize}: --to all writes every precision. Leave it out.")
    bits: dict[Form, tuple[Quantize | None, ...]] = {
        "saved_model": (None,),
        "onnx": (None, "float16", "int8"),
        "litert": (None, "float16", "int8"),
    }
    found = [Export(form, quantize, Path()) for form, choices in bits.items() for quantize in choices]
    return [replace(one, output=(command.output or beside) / one.name) for one in found]


def read_material(command: ExportCommand, record: BundleRecord, bundle: Path) -> Material:
    """Pictures and pairs of the command; drawn faces where it names none.

    Raises:
        ValueError: a folder or the pairs are wrong, or no picture has a face.
    """
    calibration = command.calibration if command.quantize == "int8" or command.to == "all" else 0
    if command.images is None:
        return drawn(record, min(command.pictures, 100), calibration)
    if command.as_crops:
        record = replace(record, recipe=None)
    people = people_pictures(command.images, "images")[0]
    if command.pairs is not None:
        task = read_task(command.pairs, command.images, 0, None)
        pairs, images = task.pairs, task.images
        names = pairs.pictures()
    else:
        pairs, names = None, evenly(people, command.pictures)
        images = find_images(command.images, names)
    kept, crops = read_crops(record, images, command.cache, bundle, names)
    samples = np.empty((0, *crops.shape[1:]), np.uint8)
    if calibration:
        # Others than are judged, as far as the folder has them.
        taken = set(names)
        chosen = evenly([name for name in people if name not in taken] or people, calibration)
        samples = read_crops(record, find_images(command.images, chosen), command.cache, bundle, chosen)[1]
    taken_as = ", taken as faces already cut, whoever cut them" if command.as_crops else ""
    words = f"{len(kept)} pictures of {command.images}{taken_as}"
    lost = set(names) - set(kept)
    return Material(crops, kept, words, samples, None if pairs is None else pairs.without(lost))


def evenly(names: Sequence[str], count: int) -> list[str]:
    """At most `count` names, evenly spaced."""
    places = np.unique(np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int))
    return [names[place] for place in places]


def read_crops(
    record: BundleRecord, images: Images, cache: Path, bundle: Path, names: Sequence[str]
) -> tuple[list[str], NDArray[np.uint8]]:
    """The network's view of pictures: the names of those with a face, and (n, S, S, 3) uint8 crops.

    Raises:
        ValueError: none has a face.
    """
    reader = PictureReader(record.recipe, images, cache, bundle / ALIGNER)
    crops: dict[str, Image] = {}
    for name in names:
        crop = reader.read(name)
        if crop is not None:
            crops[name] = resize_square(crop, record.image_size)
    if not crops:
        raise ValueError(
            f"None of the {len(names)} pictures of `images` has a face: there is nothing to compare on."
        )
    return list(crops), np.stack(list(crops.values()))


# ---- Measuring ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Contender:
    """A form of the network at work.

    Attributes:
        name: for the table.
        embed: (n, S, S, 3) uint8 to (n, D) float32 unit rows.
        path: its file or folder.
    """

    name: str
    embed: Embed
    path: Path


def measure(contenders: Sequence[Contender], material: Material, record: BundleRecord) -> list[Measured]:
    """Measure forms on the same crops and pairs; the first is Keras, whom the others are held against."""
    rows = [contender.embed(material.crops) for contender in contenders]
    figures: list[Figures | None] = [None] * len(contenders)
    if material.pairs is not None:
        scored = [
            _distances(contender.embed, material, found, record.flip)
            for contender, found in zip(contenders, rows, strict=True)
        ]
        threshold = _threshold(record, scored[0], material.pairs)
        figures = [_figures(distances, material.pairs, threshold) for distances in scored]
    times = latencies([contender.embed for contender in contenders], material.crops[:1])
    return [
        Measured(
            contender.name,
            export.size_of(contender.path),
            milliseconds,
            export.cosine_difference(found, rows[0]),
            told,
        )
        for contender, found, milliseconds, told in zip(contenders, rows, times, figures, strict=True)
    ]


def _distances(embed: Embed, material: Material, rows: NDArray[np.float32], flip: bool) -> NDArray[np.float64]:
    """The pairs' distances; embeddings are averaged with the mirror image's where the bundle has it so."""
    assert material.pairs is not None
    if flip:
        rows = averaged(rows, embed(mirrored(material.crops)))
    pictures = Embedded(material.names, rows)
    return distances_of(rows, pictures.places(material.pairs.first), pictures.places(material.pairs.second))


def _threshold(record: BundleRecord, distances: NDArray[np.float64], pairs: Pairs) -> float:
    """The bundle's; where it has none, Keras' most accurate one on these pairs."""
    return record.threshold.value if record.threshold else most_accurate(roc(distances, pairs.same))


def _figures(distances: NDArray[np.float64], pairs: Pairs, threshold: float) -> Figures:
    curve = roc(distances, pairs.same)
    tpr = tuple(float(curve.tpr[curve.last_within(rate)]) for rate in RATES)
    return Figures(rates_at(distances, pairs.same, threshold).accuracy, tpr)


def latencies(embeds: Sequence[Embed], picture: NDArray[np.uint8]) -> list[float]:
    """Median milliseconds for one picture, of `ROUNDS` turns that the forms take one after the other."""
    turns = [[median_seconds(lambda: embed(picture), 5, CALLS) for embed in embeds] for _ in range(ROUNDS)]  # noqa: B023
    return [1e3 * statistics.median(times) for times in zip(*turns, strict=True)]


# ---- The command -------------------------------------------------------------------------------------------


def table(measured: Sequence[Measured]) -> str:
    """The forms as Markdown; figures of the others as changes from Keras'."""
    keras = measured[0]
    lines = [row(COLUMNS), row(["---"] * len(COLUMNS))]
    for one in measured:
        difference = "" if one is keras else f"{one.difference:.1e}"
        cells = [
            one.name,
            f"{one.size / 1e6:.1f}",
            difference,
            *_figure_cells(one, keras),
            f"{one.milliseconds:.1f}",
        ]
        lines.append(row(cells))
    return "\n".join(lines)


def _figure_cells(one: Measured, keras: Measured) -> list[str]:
    if one.figures is None or keras.figures is None:
        return ["", "", ""]
    values, starts = ((each.accuracy, *each.tpr) for each in (one.figures, keras.figures))
    if one is keras:
        return [f"{value:.4f}" for value in values]
    return [f"{value - start:+.4f}" for value, start in zip(values, starts, strict=True)]


def notes(material: Material, record: BundleRecord, threads: int) -> list[str]:
    """What the table's figures were counted on, in sentences."""
    words = [f"Compared on {material.words}; times are medians for one picture on {threads} threads of the CPU."]
    pairs = material.pairs
    if pairs is not None:
        impostor = int(np.sum(~pairs.same))
        which = "the bundle's" if record.threshold else "Keras' best on these pairs"
        words.append(
            f"{len(pairs)} pairs whose faces were found, {impostor} of two people; {mirror_words(record.flip)}; "
            f"accuracy at {which} threshold."
        )
        short = [f"{rate:g}" for rate in RATES if impostor * rate < 3]
        if short:
            words.append(
                f"FPR {' and '.join(short)}: too few pairs to claim a TPR (3 / FPR are needed); a hint only."
            )
    elif material.words.endswith("drawn faces"):
        words.append("They are drawn: name real ones with --images, and pairs of them with --pairs.")
    return words


def parity_values(
    material: Material, keras: Measured, measured: Measured, quantize: Quantize | None, threads: int
) -> dict[str, Any]:
    """The comparison of one form for export.json."""
    return {
        "pictures": len(material.crops),
        "source": material.words,
        "largest_cosine_difference": measured.difference,
        "allowed": export.BOUNDS[quantize],
        "calibration_crops": len(material.samples) if quantize == "int8" else 0,
        "pairs": None if material.pairs is None else len(material.pairs),
        "threads": threads,
        "keras": _measured_values(keras),
        "export": _measured_values(measured),
    }


def _measured_values(one: Measured) -> dict[str, Any]:
    figures = one.figures
    return {
        "bytes": one.size,
        "milliseconds": round(one.milliseconds, 3),
        "accuracy": figures and figures.accuracy,
        "tpr_at_fpr": figures and {f"{rate:g}": value for rate, value in zip(RATES, figures.tpr, strict=True)},
    }


def run(command: ExportCommand) -> None:
    """Export a bundle.

    Raises:
        ValueError: a setting, the bundle or a picture is wrong, or an export differs too much from Keras: then none
            is kept.
    """
    if command.pairs is not None and command.images is None:
        raise ValueError(f"`pairs` {command.pairs} needs `images`, where its paths start.")
    if command.as_crops and command.images is None:
        raise ValueError("`as_crops` needs `images`: without them faces are drawn.")
    # Before the pretrained bundle is fetched.
    exports_of(command, Path())
    runtime.start_quietly()
    runtime.limit_threads(command.threads)
    bundle = named_bundle(command.bundle)
    exports = exports_of(command, bundle)
    record = with_licence(read_record(bundle), bundle, command.licence)
    for one in exports:
        check_writable(one.output.parent, "output")
    material = read_material(command, record, bundle)
    measured = write_exports(exports, bundle, record, material, command.threads)
    written = [f"Written: {one.output}" for one in exports]
    print("\n".join([table(measured), "", *notes(material, record, command.threads), *written]))


def write_exports(
    exports: Sequence[Export], bundle: Path, record: BundleRecord, material: Material, threads: int
) -> list[Measured]:
    """Write forms, and keep them where all of them agree with Keras; the figures of Keras and of each.

    Raises:
        ValueError: one differs too much.
    """
    from facekit.trainer import Embedder

    network = read_network(bundle)
    contenders = [Contender("Keras (tf.function)", Embedder(network), bundle / NETWORK)]
    with ExitStack() as stack:
        paths = [stack.enter_context(export.export_folder(one.output)) / export.FILES[one.form] for one in exports]
        for one, path in zip(exports, paths, strict=True):
            export.write_network(one.form, network, path, one.quantize, material.samples)
            contenders.append(Contender(one.name, export.read_embedder(one.form, path, threads), path))
        keras, *measured = measure(contenders, material, record)
        for one, path, found in zip(exports, paths, measured, strict=True):
            export.check_bound(path.name, found.difference, one.quantize, len(material.crops))
            parity = parity_values(material, keras, found, one.quantize, threads)
            values = export.record_values(record, one.form, one.quantize, export.digest_of(path), parity)
            export.write_record(path.parent, record, values)
    return [keras, *measured]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 2 a setting or the data is wrong."""
    command = parse(ExportCommand, argv)
    try:
        run(command)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return runtime.INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
