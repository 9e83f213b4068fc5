"""From a trained network to the product: its threshold, with the evidence, and its preprocessing, in one bundle."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from cohort import normalise
from config import Config
from facekit import runtime
from facekit.bootstrap import score_intervals
from facekit.bundle import BundleRecord, Threshold, read_network, read_record, write_bundle
from facekit.detectors import ALIGNER, needs_aligner
from facekit.dlib_source import LICENCE
from facekit.manifest import crop_folder
from facekit.metrics import rates_at
from facekit.mirror import with_mirror
from facekit.thresholds import best_accuracy_threshold, threshold_at_fmr
from facekit.trainer import Embedder
from facekit.validation import Embed, HeldOut
from pretrained import FIGURES
from runs import RunFolder
from splits import Split

if TYPE_CHECKING:
    import keras


class Made(NamedTuple):
    """How a run came to its network."""

    steps: int
    """Training steps that it took."""

    best_epoch: int
    """Number of the best epoch, from 1; 0: the start."""

    candidates: int = 1
    """Networks that were judged on the held-out people, its own among them: start, epochs, those in between."""

    interpolation: float | None = None
    """How far the network lies from the start to the best epoch's, 0 to 1; None: it is the best epoch's."""

    cohort: int = 0
    """Training people by whose nearness its embeddings are normalised; 0: by nobody's."""


def embedder(network: keras.Model, config: Config) -> Embed:
    """Embeds pictures as the product will: averaged with their mirror images where the settings say so."""
    embed = Embedder(network)
    return with_mirror(embed) if config.flip else embed


def choice_note(candidates: int) -> dict[str, str]:
    """What a choice among several networks makes of the figures, to go beside them; nothing where none was made."""
    if candidates < 2:
        return {}
    return {
        "note": f"The best of {candidates} networks by these very people: the figures are optimistic; judge it on "
        "others."
    }


def choose_threshold(config: Config, held_out: HeldOut) -> Threshold:
    """The threshold of the last measurement's model, chosen on all validation pairs, with its errors there."""
    distances, same = held_out.distances, held_out.pairs.same
    if config.target_fmr is None:
        value, criterion = best_accuracy_threshold(distances, same), "of best accuracy"
    else:
        value = threshold_at_fmr(distances, same, config.target_fmr).threshold
        criterion = f"the largest with FMR at most {config.target_fmr:g}"
    value = min(value, 2.0)
    rates = rates_at(distances, same, value)
    people = held_out.pairs.people() or (None, None)
    intervals = score_intervals(distances, same, distances < value, *people)
    return Threshold(
        value=value,
        criterion=criterion,
        data=f"held-out people of {config.validation_dir or config.train_dir}",
        genuine=int(same.sum()),
        impostor=int((~same).sum()),
        fmr=rates.fpr,
        fnmr=rates.fnr,
        fmr_interval=intervals.fmr,
        date=f"{datetime.date.today():%Y-%m-%d}",
        by=intervals.by,
        flip=config.flip,
    )


def with_calibration(
    record: BundleRecord, network: keras.Model, folder: Path, say: Callable[[str], None]
) -> BundleRecord:
    """The record with the threshold that the user calibrated on the bundle, where its network stays the same.

    Args:
        record: what the new bundle would say of itself.
        network: the new bundle's network.
        folder: the bundle that it replaces, if there is one.
        say: tells the user whether a calibrated threshold was kept.

    Returns:
        The record, with the earlier threshold, probability and `flip`, which belong together, where they hold on.
    """
    try:
        before = read_record(folder)
    except ValueError:
        return record
    threshold = before.threshold
    # Training computes no interval of the FNMR; calibrating always does.
    if threshold is None or threshold.fnmr_interval is None:
        return record
    what, stays, gone = "threshold", "stays", "is gone with the network it was for"
    if before.probability:
        what, stays, gone = "threshold and probability", "stay", "are gone with the network they were for"
    earlier, now = read_network(folder).get_weights(), network.get_weights()
    if len(earlier) == len(now) and all(map(np.array_equal, earlier, now)):
        say(f"The network is the same as before, so the calibrated {what} {stays}: {threshold.text()}.")
        return replace(record, threshold=threshold, probability=before.probability, flip=before.flip)
    say(
        f"The calibrated {what} ({threshold.text()}) {gone}. Calibrate again: "
        f"python evaluate.py calibrate --model {folder} --images PEOPLE --fmr 0.01"
    )
    return record


def origin(config: Config, made: Made) -> tuple[str, str]:
    """What the network learned from, and under which terms it may be used, its start's included.

    A start that no epoch beat is still its maker's network: the user's pictures taught it nothing.
    """
    own, (data, licence) = config.data_name or str(config.train_dir), _start_origin(config.weights)
    if not data:
        return own, config.licence
    if made.best_epoch or made.interpolation:
        return f"{own}, from a start that was trained on {data}", config.licence
    if made.cohort:
        return f"{data}; its cohort is of {own}", config.licence
    return data, config.licence or licence


def _start_origin(weights: str | None) -> tuple[str, str]:
    """The data and licence of a start that says so: dlib's, or a bundle's."""
    if weights == "dlib":
        return json.loads(FIGURES.read_text(encoding="utf-8"))["data"], LICENCE
    try:
        record = read_record(Path(weights or ""))
    except ValueError:
        return "", ""
    return record.data, record.licence


def write_product(
    config: Config, split: Split, held_out: HeldOut, more: Callable[[Embed], dict[str, float]], made: Made
) -> BundleRecord:
    """Write the best network with its preprocessing and threshold as the run's bundle.

    Args:
        config: settings of the run, which has a best network.
        split: who trained and who was held out.
        held_out: the validation pairs.
        more: measures further figures on held-out people.
        made: how the run came to its network.

    Returns:
        What the bundle says of itself.
    """
    folder = RunFolder.of(config)
    network = read_network(folder.best if made.interpolation is None else folder.interpolated)

    def measure(embed: Embed) -> dict[str, float]:
        return held_out.measure(embed) | more(embed)

    if config.cohort:
        network, people = normalise(config, split.train, network, measure, print)
        made = made._replace(cohort=people or 0, candidates=made.candidates + (people is not None))
    figures = measure(embedder(network, config))
    crops = crop_folder(config.train_dir)
    data, licence = origin(config, made)
    learned = made.steps or made.cohort
    record = BundleRecord(
        name=config.name,
        created=f"{datetime.datetime.now():%Y-%m-%dT%H:%M:%S}",
        backbone=config.backbone,
        image_size=config.image_size,
        embedding_size=int(network.output_shape[-1]),
        recipe=crops.recipe if crops else None,
        synthetic=crops.synthetic if crops else (config.train_dir / "synthetic.json").exists(),
        threshold=choose_threshold(config, held_out),
        training={
            "train_dir": str(config.train_dir),
            "pictures": split.train.describe() if learned else "none: the network is as it started",
            "digest": split.train.digest,
            **made._asdict(),
            "weights": config.weights,
            **({"monitor_fmr": config.monitor_fmr} if config.monitor == "tpr" else {}),
        },
        figures={**figures, **choice_note(made.candidates)},
        flip=config.flip,
        data=data,
        licence=licence,
        versions=runtime.versions(),
    )
    aligner = config.train_dir / ALIGNER if crops and needs_aligner(crops.recipe) else None
    record = with_calibration(record, network, folder.bundle, print)
    write_bundle(folder.bundle, network, record, aligner)
    return record
