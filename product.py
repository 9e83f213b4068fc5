"""From a trained network to the product: its threshold, with the evidence, and its preprocessing, in one bundle."""

from __future__ import annotations

import datetime

from config import Config
from facekit.bootstrap import score_intervals
from facekit.bundle import BundleRecord, Threshold, read_network, write_bundle
from facekit.detectors import ALIGNER, needs_aligner
from facekit.manifest import crop_folder
from facekit.metrics import rates_at
from facekit.thresholds import best_accuracy_threshold, threshold_at_fmr
from facekit.trainer import Embedder
from facekit.validation import HeldOut
from runs import RunFolder
from splits import Split


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
    )


def write_product(config: Config, split: Split, held_out: HeldOut, steps: int, best_epoch: int) -> BundleRecord:
    """Write the best epoch's network with its preprocessing and threshold as the run's bundle.

    Args:
        config: settings of the run, which has a best network.
        split: who trained and who was held out.
        held_out: the validation pairs.
        steps: training steps that the run took.
        best_epoch: number of the best epoch, from 1.

    Returns:
        What the bundle says of itself.
    """
    folder = RunFolder.of(config)
    network = read_network(folder.best)
    figures = held_out.measure(Embedder(network))
    crops = crop_folder(config.train_dir)
    record = BundleRecord(
        name=config.name,
        created=f"{datetime.datetime.now():%Y-%m-%dT%H:%M:%S}",
        backbone=config.backbone,
        image_size=config.image_size,
        embedding_size=config.embedding_size,
        recipe=crops.recipe if crops else None,
        synthetic=crops.synthetic if crops else (config.train_dir / "synthetic.json").exists(),
        threshold=choose_threshold(config, held_out),
        training={
            "train_dir": str(config.train_dir),
            "pictures": split.train.describe(),
            "digest": split.train.digest,
            "steps": steps,
            "best_epoch": best_epoch,
        },
        figures=figures,
    )
    aligner = config.train_dir / ALIGNER if crops and needs_aligner(crops.recipe) else None
    write_bundle(folder.bundle, network, record, aligner)
    return record
