"""Export a bundle for other programs: SavedModel, ONNX or LiteRT, held against the Keras network on crops.

In:  a bundle; optionally a folder of pictures of people, and pairs of them.
Out: a folder with the network, export.json (how faces are cut, threshold, licence, parity) and the model card; a
     table on stdout. It is kept only where the embeddings agree.
Run: python -m apps.export runs/first/bundle --to onnx --images data/lfw/images --pairs data/lfw/pairsDevTrain.txt
     python -m apps.export pretrained --to all --images data/lfw/images --pairs data/lfw/pairsDevTrain.txt
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro
from pydantic import PositiveInt

from apps.export_material import Material, Wanted, read_material
from apps.export_parity import Contender, Measured, measure, notes, parity_values, table
from facekit import export, runtime
from facekit.bundle import NETWORK, BundleRecord, read_network, read_record
from facekit.export import Form, Quantize
from facekit.files import check_writable
from facekit.settings import Settings, parse
from verifier import named_bundle


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


def wanted_faces(command: ExportCommand) -> Wanted:
    """What a command's forms are to be compared on, and with how many crops calibrated."""
    return Wanted(
        images=command.images,
        as_crops=command.as_crops,
        pairs=command.pairs,
        pictures=command.pictures,
        calibration=command.calibration if command.quantize == "int8" or command.to == "all" else 0,
        cache=command.cache,
    )


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
    material = read_material(wanted_faces(command), record, bundle)
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
