"""What happens between training steps. Each callback does one thing; figures travel in Keras' `logs`."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import keras

Logs = dict[str, Any]


NON_FINITE_ADVICE = (
    "Lower `learning_rate`, set `clip_norm`, or lengthen `warmup_epochs`; "
    'with precision="mixed_float16" try "mixed_bfloat16".'
)


class NonFiniteLossError(ValueError):
    """The loss became NaN or infinite; the message names the step and what to change."""


def learning_rate_at(
    step: int, *, highest: float, warmup: int, total: int, cosine: bool, floor: float = 0.01
) -> float:
    """The learning rate of a step: a linear rise, then a half cosine down, or level.

    Args:
        step: from 0.
        highest: the rate after the rise.
        warmup: steps of the rise.
        total: steps of the whole run.
        cosine: whether it falls after the rise, to `floor` times the highest (SGDR, Loshchilov & Hutter 2017,
            without restarts).
        floor: see `cosine`.
    """
    if step < warmup:
        return highest * (step + 1) / warmup
    if not cosine:
        return highest
    done = min(1.0, (step - warmup) / max(1, total - warmup))
    return highest * (floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2)


class StepCounter(keras.callbacks.Callback):
    """Counts training steps in `model.steps_taken`, which other callbacks read: must be the first."""

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Count."""
        self.model.steps_taken += 1


class LearningRate(keras.callbacks.Callback):
    """Sets the rate before each step from a function of the step, times a factor that plateaus lower.

    Args:
        rate_at: learning rate of a step.
        factor: what `lower` multiplies by.
    """

    def __init__(self, rate_at: Callable[[int], float], factor: float = 1.0):
        super().__init__()
        self.begin(rate_at, factor)

    def begin(self, rate_at: Callable[[int], float], factor: float) -> None:
        """Start a stage: a new curve, not lowered yet."""
        self._rate_at, self._factor = rate_at, factor
        self.lowered = 0

    def lower(self) -> None:
        """Multiply this and all later rates by the factor."""
        self.lowered += 1

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Set the rate of the step that comes."""
        self.model.optimizer.learning_rate = self._rate_at(self.model.steps_taken) * self._factor**self.lowered

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Log the last rate."""
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class Watch(keras.callbacks.Callback):
    """Counts pictures a second, and stops on a loss that is no number.

    Args:
        pictures_per_step: pictures in a batch.
    """

    def __init__(self, pictures_per_step: int):
        super().__init__()
        self._pictures = pictures_per_step
        self._began, self._steps = 0.0, 0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Start the clock."""
        self._began, self._steps = time.monotonic(), 0

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Check the running mean of the loss: one bad step makes it bad."""
        self._steps += 1
        loss = (logs or {}).get("loss", 0.0)
        if not math.isfinite(loss):
            raise NonFiniteLossError(
                f"The loss became {loss} at step {self.model.steps_taken}. {NON_FINITE_ADVICE}"
            )

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Log the rate of the epoch's training steps."""
        if logs is not None:
            logs["images_per_second"] = self._pictures * self._steps / (time.monotonic() - self._began)


class Verification(keras.callbacks.Callback):
    """After each epoch, puts figures on held-out people into the logs.

    Args:
        measure: gives named figures; FloatingPointError where the embeddings are no numbers.
    """

    def __init__(self, measure: Callable[[], dict[str, float]]):
        super().__init__()
        self._measure = measure

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Measure."""
        try:
            figures = self._measure()
        except FloatingPointError as error:
            raise NonFiniteLossError(f"{error} after step {self.model.steps_taken}. {NON_FINITE_ADVICE}") from None
        if logs is not None:
            logs.update(figures)


class Best(keras.callbacks.Callback):
    """Follows one figure: keeps the best model, lowers the rate on a plateau, stops when nothing improves.

    Its `state` survives in a checkpoint, unlike that of Keras' own callbacks.

    Args:
        monitor: name of the figure in the logs.
        larger_is_better: which way is up.
        keep: called when the figure is the best so far.
    """

    def __init__(self, monitor: str, larger_is_better: bool, keep: Callable[[], None]):
        super().__init__()
        self._monitor, self._sign, self._keep = monitor, 1.0 if larger_is_better else -1.0, keep
        self.state: dict[str, Any] = {"value": None, "epoch": None, "stage_value": None, "waited": 0}
        self.begin()

    def begin(
        self, plateau: Callable[[], None] | None = None, plateau_patience: int = 1, stop_patience: int = 0
    ) -> None:
        """Start a stage, which is patient with itself: judged by its own best figure, not by earlier stages'.

        The model that is kept is the best of the whole run.

        Args:
            plateau: called after each `plateau_patience` epochs without improvement; None: never.
            plateau_patience: see `plateau`.
            stop_patience: epochs without improvement after which the stage stops; 0: never.
        """
        self._plateau, self._plateau_patience, self._stop_patience = plateau, plateau_patience, stop_patience
        self.state = {**self.state, "stage_value": None, "waited": 0}

    def take_start(self, figures: Logs) -> None:
        """Begin with what the network could do before its first step: the best until an epoch beats it."""
        self.state |= {"value": float(figures[self._monitor]), "epoch": -1}
        self._keep()

    @property
    def finished(self) -> bool:
        """Whether patience has run out; survives in the state, so that a resumed run knows it."""
        return bool(self._stop_patience) and self.state["waited"] >= self._stop_patience

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Compare the epoch's figure with the best."""
        value = float((logs or {}).get(self._monitor, math.nan))
        if self._improves(value, self.state["value"]):
            self.state |= {"value": value, "epoch": epoch}
            self._keep()
        if self._improves(value, self.state["stage_value"]):
            self.state |= {"stage_value": value, "waited": 0}
            return
        self.state["waited"] += 1
        if self._plateau is not None and self.state["waited"] % self._plateau_patience == 0:
            self._plateau()
        if self.finished:
            self.model.stop_training = True

    def _improves(self, value: float, best: float | None) -> bool:
        return best is None or self._sign * value > self._sign * best


class Keeper(keras.callbacks.Callback):
    """Saves the run's state at each epoch's end, every so many steps, and when asked to stop.

    Must be the last callback: what it saves at an epoch's end are the figures that the others made of the epoch.

    Args:
        save: writes the state.
        steps: steps an epoch.
        asked: whether somebody asked to stop: then the state is saved after the running step, and
            KeyboardInterrupt ends the training.
        every: steps between saves inside an epoch; None: none.
    """

    def __init__(self, save: Callable[[], None], steps: int, asked: Callable[[], bool], every: int | None = None):
        super().__init__()
        self._save, self._steps, self._asked, self._every = save, steps, asked, every

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Save where it is time to; an epoch's last step waits for the epoch's figures."""
        step = self.model.steps_taken
        if step % self._steps == 0:
            return
        if self._asked():
            self._save()
            raise KeyboardInterrupt
        if self._every and step % self._every == 0:
            self._save()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Save the finished epoch, its figures included."""
        self._save()
        if self._asked():
            raise KeyboardInterrupt


class History(keras.callbacks.Callback):
    """Keeps every epoch's figures, for the CSV file, the learning curve and resuming.

    Args:
        rows: figures of earlier epochs, of a run that is resumed.
        write: called with all rows after each epoch.
    """

    def __init__(self, rows: list[dict[str, float]], write: Callable[[list[dict[str, float]]], None]):
        super().__init__()
        self.rows, self._write = rows, write

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Add the epoch, from 0; -1 is the start, before the first."""
        figures = {name: float(value) for name, value in (logs or {}).items()}
        self.rows.append({"epoch": epoch + 1, **figures})
        self._write(self.rows)


class AfterEpoch(keras.callbacks.Callback):
    """Calls a function after each epoch.

    Args:
        call: given the epoch's number, from 0.
    """

    def __init__(self, call: Callable[[int], None]):
        super().__init__()
        self._call = call

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Call it."""
        self._call(epoch)


class Console(keras.callbacks.Callback):
    """A progress bar during an epoch, and one line after it.

    Args:
        steps: steps an epoch.
        line: from the epoch (from 0) and its figures to the line.
        say: writes a line.
    """

    def __init__(self, steps: int, line: Callable[[int, Logs], str], say: Callable[[str], None]):
        super().__init__()
        self._steps, self._line, self._say = steps, line, say

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Open the bar."""
        from tqdm import tqdm

        done = self.model.steps_taken % self._steps
        # In a log file a bar is noise, but an hour of silence is worse: there it moves once a minute.
        seldom = 0.5 if sys.stderr.isatty() else 60.0
        self._bar = tqdm(
            total=self._steps, initial=done, unit="step", desc=f"epoch {epoch + 1}", leave=False,
            mininterval=seldom, maxinterval=2 * seldom, delay=seldom,
        )  # fmt: skip

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Move the bar."""
        self._bar.set_postfix(loss=f"{(logs or {}).get('loss', 0.0):.4f}", refresh=False)
        self._bar.update()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Close the bar and write the line."""
        self._bar.close()
        self._say(self._line(epoch, logs or {}))
