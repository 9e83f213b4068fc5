"""Train a face-verification model: build -> compile -> fit -> save.

In:  config.py, changed by --config FILE and by options; a folder of people (see crop_faces.py).
Out: runs/NAME with config.json, data.json, environment.json, the lists of people and validation pairs, history.csv,
     learning_curve.png, checkpoints, TensorBoard's files, and bundle/: the best model, its preprocessing, its
     threshold.
Run: python train.py --train_dir crops --name first
     python train.py --resume --name first
"""

from __future__ import annotations

import argparse
import datetime
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from config import Config, parse, read_settings
from facekit import runtime
from facekit.files import write_text, written_aside
from runs import (
    RunFolder,
    check_free,
    check_resumable,
    open_run,
    refuse_changes,
    saved_settings,
    write_history,
)

# Everything heavy is imported where it is used, so that --help and a wrong option answer at once.
if TYPE_CHECKING:
    import keras

    from dataset import PeopleIndex
    from facekit.bundle import BundleRecord
    from facekit.trainer import EmbeddingTrainer
    from facekit.validation import Embed, HeldOut

LOG_NAMES = ("active", "positive_distance", "negative_distance", "spread")


class TrainCommand(Config):
    """Train a face-verification model on a folder of people: one folder a person, pictures inside."""

    config: Path | None = None
    """Start from this saved config.json instead of the defaults; other options change it."""

    resume: bool = False
    """Go on with the run `name` (or the newest) where it stopped, with its own settings."""


def read_command(argv: Sequence[str] | None) -> tuple[Config, bool]:
    """The resolved settings of a command line, with a name, and whether to resume.

    Raises:
        ValueError: a file or combination is wrong.
        SystemExit: an option is wrong (2), or help was asked for (0).
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path)
    first.add_argument("--resume", action="store_true")
    first.add_argument("--name", default="")
    first.add_argument("--runs_dir", "--runs-dir", type=Path)
    given, _ = first.parse_known_args(argv)
    base = read_settings(given.config, Config) if given.config else Config()
    if given.resume:
        base = saved_settings(given.runs_dir or base.runs_dir, given.name or base.name)
    command = parse(TrainCommand, argv, TrainCommand(**base.model_dump()))
    config = Config(**command.model_dump(exclude={"config", "resume"}))
    if given.resume:
        refuse_changes(base, config)
    elif not config.name:
        config = config.model_copy(update={"name": f"{datetime.datetime.now():%Y-%m-%d-%H%M%S}"})
    return config, command.resume


def build_optimizer(config: Config) -> keras.optimizers.Optimizer:
    """The optimizer that the config names; the learning rate is set step by step while training."""
    import keras

    common = {"learning_rate": config.learning_rate, "global_clipnorm": config.clip_norm}
    if config.optimizer == "adam":
        return keras.optimizers.Adam(**common)
    if config.optimizer == "adamw":
        optimizer = keras.optimizers.AdamW(weight_decay=config.weight_decay, **common)
    else:
        optimizer = keras.optimizers.SGD(
            momentum=config.momentum,
            nesterov=config.momentum > 0,
            weight_decay=config.weight_decay or None,
            **common,
        )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def build_loss(config: Config) -> Any:
    """The loss that the config describes."""
    import losses

    options: dict[str, Any] = {"hardest": config.hardest}
    if config.margin is not None:
        options["margin"] = config.margin
    if config.loss == "tuplet_margin":
        options["scale"] = config.scale
    else:
        options |= {"mining": config.mining, "squared": config.squared, "soft": config.soft}
    return losses.get(config.loss, **options)


def build_trainer(config: Config) -> EmbeddingTrainer:
    """The compiled model with its optimizer built, ready for `fit` or for a state to be restored."""
    import keras

    import losses
    from facekit.trainer import EmbeddingTrainer
    from model import build_embedding_model

    runtime.seed_everything(config.seed)
    network = build_embedding_model(config)
    loss = build_loss(config)

    def statistics(labels: Any, embeddings: Any) -> dict[str, Any]:
        return losses.batch_statistics(labels, embeddings, loss)

    trainer = EmbeddingTrainer(network, config.negatives == "batch", statistics, LOG_NAMES)
    optimizer = build_optimizer(config)
    if config.precision == "mixed_float16":
        # Keras adds the scaling by the trainer's own precision, which is float32: only the backbone's is mixed.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    trainer.compile(optimizer=optimizer, loss=loss, jit_compile=config.xla)
    trainer.optimizer.build(trainer.trainable_variables)
    return trainer


def epoch_line(epoch: int, logs: dict[str, Any], config: Config, do_nothing: float) -> str:
    """One honest line for an epoch."""
    return (
        f"epoch {epoch + 1}/{config.epochs}  loss {logs['loss']:.3f} (collapsed: {do_nothing:.3f})  "
        f"active {logs['active']:.0%}  d(a,p) {logs['positive_distance']:.2f}  "
        f"d(a,n) {logs['negative_distance']:.2f}  lr {logs['learning_rate']:.1e}  "
        f"{logs['images_per_second']:.0f} images/s  |  held-out people: AUC {logs['auc']:.3f}  "
        f"accuracy {logs['accuracy']:.3f}  EER {logs['eer']:.3f}"
    )


class Session:
    """The parts of a run that training moves: model, schedule, best figures, history.

    Args:
        config: resolved settings, with a name.
        folder: where the run lives.
        steps: training steps an epoch.
    """

    def __init__(self, config: Config, folder: RunFolder, steps: int):
        from facekit.callbacks import Best, History, LearningRate, learning_rate_at
        from facekit.trainer import Embedder

        self.config, self.folder, self.steps = config, folder, steps
        self.trainer = build_trainer(config)
        self.embed = Embedder(self.trainer.network)
        rate_at = partial(
            learning_rate_at,
            highest=config.learning_rate,
            warmup=round(config.warmup_epochs * steps),
            total=config.epochs * steps,
            cosine=config.schedule == "cosine",
        )
        self.rate = LearningRate(rate_at, config.plateau_factor)
        self.best = Best(
            config.monitor,
            larger_is_better=config.monitor != "eer",
            keep=self._keep_best,
            plateau=self.rate.lower if config.schedule == "plateau" else None,
            plateau_patience=config.plateau_patience,
            stop_patience=config.early_stopping_patience,
        )
        self.history = History([], partial(write_history, folder))

    @property
    def step(self) -> int:
        """Training steps taken."""
        return self.trainer.steps_taken

    def _keep_best(self) -> None:
        with written_aside(self.folder.best) as aside:
            self.trainer.network.save(aside)

    def save(self) -> None:
        """Write everything that resuming needs."""
        from facekit.checkpoint import save_state

        record = {
            "step": self.step,
            "best": self.best.state,
            "lowered": self.rate.lowered,
            "history": self.history.rows,
        }
        save_state(self.folder.state, self.trainer, record)

    def restore(self) -> None:
        """Take over the saved state.

        Raises:
            ValueError: there is none, or it is damaged.
        """
        from facekit.checkpoint import restore_state

        record = restore_state(self.folder.state, self.trainer)
        self.trainer.steps_taken = record["step"]
        self.best.state, self.rate.lowered = record["best"], record["lowered"]
        self.history.rows[:] = record["history"]


def fit(session: Session, index: PeopleIndex, held_out: HeldOut, more: Callable[[Embed], dict[str, float]]) -> None:
    """Train from the session's step to the end of the run's epochs.

    Args:
        session: the run's moving parts.
        index: who trains.
        held_out: validation pairs.
        more: measures further figures after each epoch.

    Raises:
        KeyboardInterrupt: asked to stop; the state is saved.
        NonFiniteLossError: the loss is no number any more.
    """
    from dataset import PictureLoader, training_stream
    from facekit import callbacks
    from held_out import report_failures

    config, steps = session.config, session.steps
    loader = PictureLoader(index, config.image_size)
    negatives = session.trainer.loss.do_nothing_value(1, usual_negatives(config))
    verify = callbacks.Verification(lambda: held_out.measure(session.embed) | more(session.embed))
    with runtime.stop_requests("saving after this step") as asked:
        # In this order: what measures, what judges, what writes down.
        chain = [
            callbacks.StepCounter(),
            session.rate,
            callbacks.Watch(config.pictures_per_step),
            verify,
            session.best,
            session.history,
            tensorboard(session, held_out),
            callbacks.Console(steps, partial(epoch_line, config=config, do_nothing=negatives), print),
            callbacks.Keeper(session.save, steps, asked, config.checkpoint_steps),
        ]
        while (start := session.step) < config.epochs * steps and not session.best.finished:
            epoch, done = divmod(start, steps)
            # A run stopped inside an epoch first ends that epoch; then all others go in one call.
            last = epoch + 1 if done else config.epochs
            stream = training_stream(index, config, loader, start, last * steps - start)
            with loader.errors_named():
                session.trainer.fit(
                    stream,
                    initial_epoch=epoch,
                    epochs=last,
                    steps_per_epoch=steps - done,
                    callbacks=chain,
                    shuffle=False,
                    verbose=0,
                )
    report_failures(loader.failures, "others of the same person stood in")


def usual_negatives(config: Config) -> int:
    """Negatives that an anchor usually has in a batch, which the loss of a collapsed model depends on."""
    if config.negatives == "tuplet":
        return config.negatives_per_tuplet
    own = 2 if config.sampler == "tuplet" else config.pictures_per_person
    return config.pictures_per_step - own


def tensorboard(session: Session, held_out: HeldOut) -> keras.callbacks.Callback:
    """The callback that writes TensorBoard's files."""
    from facekit.callbacks import TensorBoard
    from facekit.validation import FIGURES

    settings = f"```json\n{session.config.to_json()}```"
    return TensorBoard(session.folder.tensorboard, FIGURES, held_out.pictures, {"config": settings})


def opening_words(config: Config, steps: int, held_out: int) -> str:
    """How long the run is, what its lines mean, and what to doubt."""
    total = config.epochs * steps
    lines = [
        f"{config.epochs} x {steps:,} steps of {config.pictures_per_step:,} pictures, on {runtime.device_words()}.",
        "collapsed: the loss where all embeddings are equal; active: share of the loss's terms that still push; "
        "d(a,p), d(a,n): mean distance to the same person and to others.",
    ]
    if total < 200:
        lines.append(f"Only {total} steps in all: expect little. More: `epochs`, `steps_per_epoch`.")
    if held_out < 10:
        lines.append(f"Only {held_out} people are held out: their figures are rough.")
    return "\n".join(lines)


def train(config: Config, resume: bool = False) -> BundleRecord:
    """Train as the config says, in its run folder, and write the bundle.

    Args:
        config: resolved settings, with a name.
        resume: whether to go on with the run of that name.

    Returns:
        What the bundle says of itself.

    Raises:
        ValueError: something in the data or the settings is wrong; in one sentence.
        KeyboardInterrupt: asked to stop; the state is saved.
    """
    from dataset import make_split, steps_per_epoch
    from held_out import check_same_recipe, held_out_people, triplet_measure
    from product import write_product

    folder = RunFolder.of(config)
    if not resume:
        check_free(folder, config)
    split = make_split(config)
    if resume:
        check_resumable(folder, config, split)
    check_same_recipe(config)
    print(f"Run {folder.root}: {config.backbone} at {config.image_size} px, loss {config.loss}.")
    print(f"Training on {split.train.describe()}.")
    print(f"Held out: {split.validation.describe()}.")
    held_out, more = held_out_people(split.validation, config), triplet_measure(config)
    steps = steps_per_epoch(split.train, config)
    session = Session(config, folder, steps)
    if resume and folder.state.exists():
        session.restore()
        print(f"Going on after step {session.step:,} of {config.epochs * steps:,}.")
    if not resume:
        # Last of all preparations: a wrong setting must not leave a run of the name behind.
        open_run(folder, config, split)
    write_text(folder.config, config.to_json())
    print(opening_words(config, steps, len(split.validation.people)), flush=True)
    fit(session, split.train, held_out, more)
    return write_product(config, split, held_out, session.step, session.best.state["epoch"] + 1)


def closing_words(config: Config, record: BundleRecord) -> str:
    """What was made, where, and what to do next."""
    folder = RunFolder.of(config)
    figures = record.figures
    return (
        f"Best epoch {record.training['best_epoch']}: AUC {figures['auc']:.3f}, accuracy {figures['accuracy']:.3f} "
        f"on held-out people (thresholds from other folds).\n"
        f"Threshold {record.threshold.text() if record.threshold else 'uncalibrated'}.\n"
        f"Model: {folder.bundle}   Curve: {folder.root / 'learning_curve.png'}\n"
        f"Next: python evaluate.py --model {folder.bundle} --pairs PAIRS --images PICTURES\n"
        f"      python inference.py A.jpg B.jpg --model {folder.bundle}\n"
        f"      tensorboard --logdir {config.tensorboard_dir or config.runs_dir}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 training failed, 2 wrong input, 130 interrupted."""
    try:
        config, resume = read_command(argv)
        runtime.start_quietly()
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return runtime.INTERRUPTED
    from facekit.callbacks import NonFiniteLossError

    try:
        record = train(config, resume)
    except NonFiniteLossError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            f"\nInterrupted. Nothing is lost; go on with: python train.py --resume --name {config.name}"
            + (f" --runs_dir {config.runs_dir}" if config.runs_dir != Path("runs") else ""),
            file=sys.stderr,
        )
        return runtime.INTERRUPTED
    print(closing_words(config, record))
    return 0


if __name__ == "__main__":
    sys.exit(main())
