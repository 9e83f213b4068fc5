"""What training tells its user: before, after each epoch, and at the end.

In:  settings, people, the session, figures.
Out: sentences.
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from typing import TYPE_CHECKING, Any

from config import Config
from facekit import runtime
from runs import RunFolder

# Everything heavy is imported where it is used, so that train.py's --help and a wrong option answer at once.
if TYPE_CHECKING:
    from facekit.bundle import BundleRecord
    from session import Session
    from splits import Split


def epoch_line(
    epoch: int, logs: dict[str, Any], epochs: int, do_nothing: Callable[[], float], monitor_fmr: float
) -> str:
    """One honest line for an epoch."""
    memory = ""
    if logs.get("memory_filled"):
        moved = f" (moved {logs['memory_drift']:.3f})" if isfinite(logs["memory_drift"]) else ""
        memory = f"memory {logs['memory_age']:.0f} steps old{moved}  "
    classes = f"classes right {logs['class_accuracy']:.0%}  " if "class_accuracy" in logs else ""
    return (
        f"epoch {epoch + 1}/{epochs}  loss {logs['loss']:.3f} (collapsed: {do_nothing():.3f})  "
        f"active {logs['active']:.0%}  {classes}d(a,p) {logs['positive_distance']:.2f}  "
        f"d(a,n) {logs['negative_distance']:.2f}  {memory}lr {logs['learning_rate']:.1e}  "
        f"{logs['images_per_second']:.0f} images/s (waiting {logs['waiting']:.0%})  |  "
        f"{verification_words(logs, monitor_fmr)}"
    )


def verification_words(figures: dict[str, Any], monitor_fmr: float) -> str:
    """The chief figures on held-out people."""
    at_fmr = f"  TPR {figures['tpr_at_fmr']:.4f} at FMR {monitor_fmr:g}" if "tpr_at_fmr" in figures else ""
    return (
        f"held-out people: AUC {figures['auc']:.3f}  accuracy {figures['accuracy']:.3f}  "
        f"EER {figures['eer']:.3f}{at_fmr}"
    )


def people_words(config: Config, split: Split) -> str:
    """What the run's people are for, and its losses, where anything is trained."""
    held_out = f"Held out: {split.validation.describe(trains=False)}."
    if any(part.epochs for part in config.parts):
        named = ", then ".join(part.loss for part in config.parts)
        return f"loss {named}.\nTraining on {split.train.describe()}.\n{held_out}"
    others = "For the cohort" if config.cohort else "Of no use here"
    count = f"{len(split.train):,} pictures of {len(split.train.people):,} people"
    return f"nothing is trained.\n{held_out}\n{others}: {count}."


def opening_words(session: Session, held_out: int) -> str:
    """How long the run is, what its lines mean, and what to doubt."""
    stages = [(part, part.epochs * steps) for part, steps in zip(session.parts, session.steps, strict=True)]
    total = sum(steps for _, steps in stages)
    if not total:
        return "0 epochs: nothing is trained; the network as it is gets a threshold."
    pictures = " or ".join(dict.fromkeys(f"{part.pictures_per_step:,}" for part in session.parts))
    lines = [
        f"{session.epochs} epochs, {total:,} steps of {pictures} pictures, on {runtime.device_words()}.",
        "collapsed: the loss where all embeddings are equal; active: share of the loss's terms that still push; "
        "d(a,p), d(a,n): mean distance to the same person and to others.",
    ]
    lines += epoch_words(session)
    for part, steps in stages:
        if part.memory_size and steps <= part.memory_start:
            lines.append(f"The memory stays empty: `memory_start` {part.memory_start}, {steps} steps in all.")
        if part.hard_identity_steps and steps <= 2 * part.hard_identity_steps:
            lines.append(f"No hard identities: they come after 2 x `hard_identity_steps`, {steps} steps in all.")
    if total < 200:
        lines.append(f"Only {total} steps in all: expect little. More: `epochs`, `steps_per_epoch`.")
    if held_out < 10:
        lines.append(f"Only {held_out} people are held out: their figures are rough.")
    return "\n".join(lines)


def epoch_words(session: Session) -> list[str]:
    """What an epoch of each stage shows, and which batches are smaller than asked for."""
    from dataset import make_sampler
    from facekit.epoch import count_epoch

    lines = []
    for asked, part, steps in zip(session.config.parts, session.parts, session.steps, strict=True):
        if part.batch_size < asked.batch_size:
            lines.append(
                f"`batch_size` {asked.batch_size} takes more people than there are: batches are of "
                f"{part.batch_size} pictures."
            )
        labels = session.index.labels
        lines.append(count_epoch(make_sampler(session.index, part), steps, labels).in_words())
    return list(dict.fromkeys(lines))


def stage_words(part: Config) -> str:
    """What a stage does."""
    frozen = f", frozen: {' '.join(part.freeze)}" if part.freeze else ""
    if part.layer_decay < 1:
        frozen = f" times {part.layer_decay:g} for each stage further from the head{frozen}"
    return (
        f"{part.epochs} epochs, loss {part.loss}, {part.pictures_per_step:,} pictures a step by the "
        f"{part.sampler!r} sampler, learning rate {part.learning_rate:g}{frozen}"
    )


def kept_words(record: BundleRecord) -> str:
    """Which network the bundle holds."""
    epoch, share = record.training["best_epoch"], record.training["interpolation"]
    people = record.training["cohort"]
    normalised = f", normalised by a cohort of {people:,} people" if people else ""
    if not epoch and not share and not people and record.training["weights"] == "dlib":
        normalised = " (`--model pretrained` is the same network, with a threshold from LFW's pairs)"
    if not record.training["steps"]:
        return f"The bundle holds the network as it started{normalised}"
    if not epoch and share:
        return f"No epoch beat the start, but {share:.0%} of the way to the last one did{normalised}"
    if not epoch:
        return f"No epoch beat the start, so the bundle holds the network as it started{normalised}"
    if share is None:
        return f"Best epoch {epoch}{normalised}"
    return f"Best epoch {epoch}, {share:.0%} of the way there from the start{normalised}"


def closing_words(config: Config, record: BundleRecord) -> str:
    """What was made, where, and what to do next."""
    folder, note = RunFolder.of(config), f"{record.figures.get('note', '')}\n".lstrip()
    curve = f"   Curve: {folder.curve}" if folder.curve.exists() else ""
    return (
        f"{kept_words(record)}: {verification_words(record.figures, config.monitor_fmr)} "
        "(thresholds from other folds).\n"
        f"{note}Threshold {record.threshold.text() if record.threshold else 'uncalibrated'}.\n"
        f"Model: {folder.bundle}{curve}\n"
        f"Next: python evaluate.py --model {folder.bundle} --pairs PAIRS --images PICTURES\n"
        f"      python inference.py A.jpg B.jpg --model {folder.bundle}\n"
        f"      tensorboard --logdir {config.tensorboard_dir or config.runs_dir}"
        + (
            ""
            if record.synthetic
            else "\nWhere no --model is named, inference.py and evaluate.py take it from now on."
        )
    )
