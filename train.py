"""Train a face-verification model: build -> compile -> fit -> save.

In:  config.py, changed by --config FILE and by options; a folder of people (see crop_faces.py).
Out: runs/NAME with config.json, data.json, environment.json, the lists of people and validation pairs, history.csv,
     learning_curve.png, embedding_map.gif, checkpoints, TensorBoard's files, and bundle/: the best model, its
     preprocessing, its threshold.
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
from typing import TYPE_CHECKING, NamedTuple

from config import Config
from facekit import runtime
from facekit.files import write_text
from facekit.settings import parse, read_settings
from objectives import usual_keys
from runs import (
    RunFolder,
    check_free,
    check_resumable,
    open_run,
    refuse_changes,
    saved_settings,
)
from training_words import closing_words, epoch_line, opening_words, people_words, stage_words, verification_words

# Everything heavy is imported where it is used, so that --help and a wrong option answer at once.
if TYPE_CHECKING:
    import keras

    from facekit.bundle import BundleRecord
    from facekit.loading import PictureLoader
    from facekit.stream import WaitMeter
    from facekit.validation import Embed, HeldOut
    from product import Made
    from session import Session


class Hooks(NamedTuple):
    """What the callbacks of a run ask."""

    measure: Callable[[], dict[str, float]]
    """Figures on held-out people, after an epoch."""

    asked: Callable[[], bool]
    """Whether to stop after this step."""

    meter: WaitMeter
    """How long training has waited for pictures."""


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


def fit(
    session: Session, loader: PictureLoader, held_out: HeldOut, more: Callable[[Embed], dict[str, float]]
) -> None:
    """Train from the session's step to the end of the run's last stage.

    Args:
        session: the run's moving parts.
        loader: reads the training pictures.
        held_out: validation pairs.
        more: measures further figures after each epoch.

    Raises:
        KeyboardInterrupt: asked to stop; the state is saved.
        NonFiniteLossError: the loss is no number any more.
        CollapseError: all embeddings have become one point.
    """
    from facekit.stream import WaitMeter
    from held_out import report_failures
    from watching import keep_embeddings, tensorboard

    meter = WaitMeter()
    keeper = keep_embeddings(session, held_out)
    watchers = [tensorboard(session, held_out), keeper]

    def measure() -> dict[str, float]:
        figures = held_out.measure(session.embed) | more(session.embed)
        return figures | {"unreadable": float(len(loader.failures))}

    if started := session.judge_start(measure):
        print(f"start: {verification_words(started, session.config.monitor_fmr)}", flush=True)
        keeper.on_epoch_end(-1)
    try:
        with runtime.stop_requests("saving after this step") as asked:
            for number in session.stages():
                if len(session.parts) > 1 and not session.stage_done:
                    print(f"Stage {number + 1} of {len(session.parts)}: {stage_words(session.part)}.")
                around = chain(session, held_out, watchers, Hooks(measure, asked, meter))
                fit_stage(session, loader, meter, around)
    finally:
        report_failures(
            loader.failures, "others stood in, of the same person where one was left", session.folder.unreadable
        )


def chain(
    session: Session, held_out: HeldOut, watchers: list[keras.callbacks.Callback], hooks: Hooks
) -> list[keras.callbacks.Callback]:
    """What happens around the steps of the stage under way. In this order: what measures, judges, writes down."""
    from facekit import callbacks
    from facekit.stream import Waiting

    part, steps = session.part, session.steps[session.number]
    do_nothing = partial(session.trainer.objective.do_nothing_value, *usual_keys(part))
    fmr = session.config.monitor_fmr
    line = partial(epoch_line, epochs=session.epochs, do_nothing=do_nothing, monitor_fmr=fmr)
    return [
        callbacks.StepCounter(),
        session.rate,
        callbacks.Watch(part.pictures_per_step),
        Waiting(hooks.meter),
        callbacks.Verification(hooks.measure),
        *monitors(session, held_out, do_nothing),
        session.best,
        session.history,
        *watchers,
        callbacks.Console(steps, line, print),
        callbacks.Keeper(session.save, steps, hooks.asked, part.checkpoint_steps),
    ]


def monitors(
    session: Session, held_out: HeldOut, do_nothing: Callable[[], float]
) -> list[keras.callbacks.Callback]:
    """What watches the stage under way, in the state that the session has of it."""
    from facekit.monitors import CollapseMonitor, DriftMonitor, MiningSchedule, Snapshotting

    part, objective = session.part, session.trainer.objective
    judges = {"collapse": CollapseMonitor(do_nothing, say, stop=part.stop_on_collapse)}
    if objective.miner and part.mining == "schedule":
        judges["mining"] = MiningSchedule(objective.miner.advance, part.mining_switch, say)
    for name, judge in judges.items():
        judge.state = session.monitor_states.setdefault(name, judge.state)
    others: list[keras.callbacks.Callback] = []
    if session.snapshots:
        others.append(Snapshotting(session.take_snapshot, session.snapshots.every))
    if objective.memory:
        drift = DriftMonitor(lambda: held_out.embeddings, session.steps[session.number])
        others.append(session.follow_drift(drift))
    return [*judges.values(), *others]


def say(sentence: str) -> None:
    """Tell the user something between the lines of the epochs."""
    from tqdm import tqdm

    tqdm.write(sentence, file=sys.stdout)


def fit_stage(
    session: Session, loader: PictureLoader, meter: WaitMeter, callbacks: list[keras.callbacks.Callback]
) -> None:
    """Train from the session's step to the end of the stage under way."""
    from dataset import training_stream

    part, steps, before = session.part, session.steps[session.number], session.steps_before
    while not session.stage_done:
        epoch, done = divmod(session.step, steps)
        # A stage stopped inside an epoch first ends that epoch; then all others go in one call.
        last = epoch + 1 if done else part.epochs
        count = last * steps - session.step
        numbers = range(before + session.step, before + session.step + count)
        stream = training_stream(session.index, part, loader, numbers, session.neighbours)
        with loader.errors_named():
            session.trainer.fit(
                meter.watch(stream),
                initial_epoch=session.epochs_before + epoch,
                epochs=session.epochs_before + last,
                steps_per_epoch=steps - done,
                callbacks=callbacks,
                shuffle=False,
                verbose=0,
            )


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
    from dataset import make_loader
    from held_out import check_enough_impostors, check_same_recipe, further_measures, held_out_people
    from product import write_product
    from recutting import cut_for_weights
    from session import Session, check_stages
    from splits import make_split
    from watching import draw_map

    folder = RunFolder.of(config)
    if not resume:
        check_free(folder, config)
        check_enough_impostors(config)
        config = cut_for_weights(config)
    split = make_split(config)
    if resume:
        check_resumable(folder, config, split)
    check_same_recipe(config)
    print(f"Run {folder.root}: {config.backbone} at {config.image_size} px, {people_words(config, split)}")
    held_out, more = held_out_people(split.validation, config), further_measures(split.validation, config)
    check_stages(config, split.train)
    loader = make_loader(split.train, config)
    session = Session(config, folder, split.train)
    if resume and folder.state.exists():
        session.restore()
        print(f"Going on after step {session.steps_taken:,} of {session.steps_planned:,}.")
    if not resume:
        # Last of all preparations: a wrong setting must not leave a run of the name behind.
        open_run(folder, config, split)
    write_text(folder.config, config.to_json())
    print(opening_words(session, len(split.validation.people)), flush=True)
    fit(session, loader, held_out, more)
    record = write_product(config, split, held_out, more, made_by(session, held_out, more))
    if session.steps_taken:
        draw_map(folder, session.history.rows)
    return record


def made_by(session: Session, held_out: HeldOut, more: Callable[[Embed], dict[str, float]]) -> Made:
    """How the run came to its network; where asked for, it goes back towards the start."""
    import numpy as np

    from interpolating import SHARES, interpolate
    from product import Made

    made = Made(session.steps_taken, session.best.state["epoch"] + 1, len(session.history.rows))
    if not session.config.interpolate or not made.steps:
        return made
    last = None if made.best_epoch else session.network.get_weights()
    if last and not all(np.isfinite(values).all() for values in last):
        print("`interpolate`: the last epoch's weights are no numbers, so there is no way back from them.")
        return made
    share = interpolate(
        session.config, session.folder, last, lambda embed: held_out.measure(embed) | more(embed), print
    )
    return made._replace(
        interpolation=share if made.best_epoch or share else None, candidates=made.candidates + len(SHARES[1:-1])
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
    from facekit.monitors import CollapseError

    try:
        record = train(config, resume)
    except (CollapseError, NonFiniteLossError) as error:
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
