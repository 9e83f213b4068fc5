"""Callbacks that watch a run through Keras' `logs`: is it collapsing, is it idle, how fast do embeddings move.

They judge means over the last steps, for Keras' own run from the epoch's first step and hide what happens now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import nan
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from facekit.callbacks import Logs

# Measured in training mode: untrained networks of all backbones have a spread of 0.50 to 0.96, and learning ones
# stay above 0.36. Too high a rate held runs below 0.01 for up to 240 steps that recovered; those that did not
# recover went below 0.001.
COLLAPSED_SPREAD = 0.01
# A few rows far from all the others raise the spread more than the distances. Learning runs stay above 0.34.
COLLAPSED_DISTANCE = 0.05
# Batch norm at the end of the network makes the length about sqrt(D), 11 for 128 numbers.
VANISHED_NORM, EXPLODED_NORM = 1e-3, 1e4
IDLE_SHARE = 0.01

COLLAPSE_ADVICE = (
    'Lower `learning_rate`, or set `mining` to "semi_hard" instead of "hard"; also good against it: longer '
    "`warmup_epochs`, a smaller `clip_norm`, no `squared`, and first a stage that trains a head (`stages`)."
)
NORM_ADVICE = "Lower `learning_rate`, set a smaller `clip_norm`, or lengthen `warmup_epochs`."
IDLE_ADVICE = (
    "Make it harder: more people a batch (`batch_size`), a harder `mining`, or another `margin` (tuplet_margin and "
    "circle: smaller; other losses: larger)."
)


class CollapseError(ValueError):
    """All embeddings became one point and stayed so; the message gives the figures and what to change."""


class RecentMeans:
    """Means over the steps since they were last taken, from Keras' running means since the epoch began.

    From means m_a after a steps of the epoch and m_b after b: (m_b b - m_a a) / (b - a). Keras sums in float32: of
    figures near 1, the means of 50 steps are right to about 4e-6 after 1,000 steps and 1e-3 after 100,000.

    Attributes:
        state: JSON values, changed in place: how many steps, and the sums of their figures. A run that is resumed
            inside an epoch begins Keras' means anew, and goes on with these.
    """

    def __init__(self) -> None:
        self.state: dict[str, Any] = {"steps": 0, "sums": {}}
        self._count = 0
        self._totals: dict[str, float] = {}

    @property
    def steps(self) -> int:
        """Steps since the means were last taken."""
        return self.state["steps"]

    def begin_epoch(self) -> None:
        """Keras' means begin anew."""
        self._count, self._totals = 0, {}

    def add(self, count: int, means: Mapping[str, float]) -> None:
        """Hear of further steps: Keras' running means after `count` steps of the epoch."""
        totals = {name: float(mean) * count for name, mean in means.items()}
        sums = self.state["sums"]
        for name, total in totals.items():
            sums[name] = sums.get(name, 0.0) + (total - self._totals.get(name, 0.0))
        self.state["steps"] += count - self._count
        self._count, self._totals = count, totals

    def take(self) -> dict[str, float]:
        """The means of the steps since the last call; empty where there are none."""
        means = {name: total / self.steps for name, total in self.state["sums"].items()}
        self.state.update(steps=0, sums={})
        return means


class _Checks(keras.callbacks.Callback):
    """Looks at the means of the last `every` steps, and at an epoch's end at those of the steps left over."""

    def __init__(self, every: int, **state: Any):
        super().__init__()
        self._every, self._recent = every, RecentMeans()
        self.state = {"recent": self._recent.state, **state}

    @property
    def state(self) -> dict[str, Any]:
        """JSON values, changed in place: set in another object, they make it go on where this one was."""
        return self._state

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self._state, self._recent.state = state, state["recent"]

    def check(self, step: int, means: Mapping[str, float]) -> None:
        """Judge the means of the last steps, after `step` steps of the run."""
        raise NotImplementedError

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Follow Keras, whose means begin anew."""
        self._recent.begin_epoch()

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Check where it is time to."""
        self._recent.add(batch + 1, logs or {})
        if self._recent.steps >= self._every:
            self.check(self.model.steps_taken, self._recent.take())

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Check the steps left over."""
        if self._recent.steps:
            self.check(self.model.steps_taken, self._recent.take())


class CollapseMonitor(_Checks):
    """Warns of a model that gives every picture the same embedding, and stops a run that stays so.

    Collapsed is a check with a spread below 0.01, or with both distances below 0.05. A loss near that of equal
    embeddings says nothing: many healthy runs begin or pass there. The first collapsed check in a row warns. Once
    a run each it also warns of embeddings whose length before scaling is below 1e-3 or above 1e4, and of a loss
    fewer than 1 % of whose terms pushed in `patience` checks in a row.

    Reads "spread", "positive_distance", "negative_distance", "norm", "active" and "loss", each as in the training
    step, batch norm and dropout included; what is not in the logs is not judged.

    Args:
        do_nothing: gives the loss of equal embeddings, which mining and a memory change as training goes.
        say: writes a line.
        every: steps between checks.
        patience: checks in a row, at least 1; see `stop`.
        stop: whether `patience` collapsed checks in a row raise CollapseError.
    """

    def __init__(
        self,
        do_nothing: Callable[[], float],
        say: Callable[[str], None],
        every: int = 50,
        patience: int = 5,
        stop: bool = True,
    ):
        super().__init__(every, collapsed=0, idle=0, said=[])
        self._do_nothing, self._say, self._patience, self._stop = do_nothing, say, patience, stop

    def check(self, step: int, means: Mapping[str, float]) -> None:
        """Judge length, activity and spread.

        Raises:
            CollapseError: the embeddings stayed collapsed.
        """
        self._check_norm(step, means.get("norm", nan))
        self._check_active(step, means.get("active", nan))
        self._check_spread(step, means)

    def _check_norm(self, step: int, norm: float) -> None:
        found = f"Step {step:,}: before scaling, embeddings have a mean length of {norm:.2g}"
        if norm < VANISHED_NORM:
            self._warn_once("vanished", f"{found}: they vanish, and noise decides their direction. {NORM_ADVICE}")
        if norm > EXPLODED_NORM:
            self._warn_once("exploded", f"{found}: they explode. {NORM_ADVICE}")

    def _check_active(self, step: int, active: float) -> None:
        self.state["idle"] = self.state["idle"] + 1 if active < IDLE_SHARE else 0
        if self.state["idle"] >= self._patience:
            found = f"{active:.1%} of the loss's terms push, and {self._patience} checks in a row found few"
            self._warn_once("idle", f"Step {step:,}: {found}: it has nothing left to push. {IDLE_ADVICE}")

    def _check_spread(self, step: int, means: Mapping[str, float]) -> None:
        names = ("spread", "positive_distance", "negative_distance", "loss")
        spread, positive, negative, loss = (means.get(name, nan) for name in names)
        together = positive < COLLAPSED_DISTANCE and negative < COLLAPSED_DISTANCE
        if not (spread < COLLAPSED_SPREAD or together):
            self.state["collapsed"] = 0
            return
        self.state["collapsed"] += 1
        figures = (
            f"spread {spread:z.4f} (0: all are equal), d(a,p) {positive:z.3f}, d(a,n) {negative:z.3f}, loss "
            f"{loss:.3f} (where all are equal: {self._do_nothing():.3f})"
        )
        if self._stop and self.state["collapsed"] >= self._patience:
            raise CollapseError(
                f"The embeddings have collapsed to one point, {self.state['collapsed']} checks in a row; at step "
                f"{step:,}: {figures}. {COLLAPSE_ADVICE} To go on all the same, set `stop_on_collapse` to False."
            )
        if self.state["collapsed"] == 1:
            self._say(f"Step {step:,}: the embeddings collapse to one point: {figures}. {COLLAPSE_ADVICE}")

    def _warn_once(self, name: str, words: str) -> None:
        if name not in self.state["said"]:
            self.state["said"].append(name)
            self._say(words)


class MiningSchedule(_Checks):
    """Makes mining harder when few of the loss's terms still push.

    Reads "active". The miner's level is not in the state: it belongs to the miner.

    Args:
        advance: moves the miner one level up and returns the new level's name.
        below: share of the loss's terms, 0 to 1, below which it is called.
        say: writes a line.
        levels: how many times it may be called.
        every: steps between checks, and least steps between two moves.
    """

    def __init__(
        self,
        advance: Callable[[], str],
        below: float,
        say: Callable[[str], None],
        levels: int = 2,
        every: int = 50,
    ):
        super().__init__(every, moves=0, moved_at=None)
        self._advance, self._below, self._say, self._levels = advance, below, say, levels

    def check(self, step: int, means: Mapping[str, float]) -> None:
        """Move on where it is time to."""
        moved_at, active = self.state["moved_at"], means.get("active", nan)
        rested = moved_at is None or step - moved_at >= self._every
        if self.state["moves"] < self._levels and rested and active < self._below:
            mining = self._advance()
            self.state.update(moves=self.state["moves"] + 1, moved_at=step)
            found = f"{active:.1%} of the loss's terms push, fewer than {self._below:.1%}"
            self._say(f'Step {step:,}: {found}. Mining is now "{mining}".')


class Snapshotting(keras.callbacks.Callback):
    """Calls a function every so many steps of the run.

    Args:
        take: called with the number of finished steps.
        every: steps between calls, at least 1.
    """

    def __init__(self, take: Callable[[int], None], every: int):
        super().__init__()
        self._take, self._every = take, every

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Call it where it is time to."""
        if self.model.steps_taken % self._every == 0:
            self._take(self.model.steps_taken)


class DriftMonitor(keras.callbacks.Callback):
    """Logs how far the embeddings of the same pictures moved in an epoch, and how stale a memory of them is.

    After each epoch, in the logs:

    - drift: mean of 1 - cosine between each picture's embedding now and an epoch ago, 0 to 2; NaN the first time.
    - memory_drift: drift times memory_age / steps_per_epoch, an estimate of the mean 1 - cosine between a memory's
      rows and what the model would give now; where the logs have "memory_age" (steps) and the epoch's steps are
      given. It is linear in the age: right where the embedding wanders, each step in a new direction. For rows
      younger than an epoch it is too high where the embedding moves straight on (1 - cosine then grows with the
      square of the age), too low where it trembles about one place; it leaves out dropout and augmentation.

    Args:
        embed: embeds the same pictures in the same order each time: (n, D) unit rows.
        steps_per_epoch: training steps of a whole epoch.

    Attributes:
        previous: (n, D) float32, the embeddings after the last epoch; None before the first. Keep it with a run's
            state, and a resumed run goes on exactly.
    """

    def __init__(self, embed: Callable[[], NDArray[np.floating]], steps_per_epoch: int | None = None):
        super().__init__()
        self._embed, self._steps = embed, steps_per_epoch
        self.previous: NDArray[np.float32] | None = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Compare the embeddings with those of the epoch before."""
        now = np.array(self._embed(), np.float32)
        drift = nan if self.previous is None else _mean_cosine_loss(self.previous, now)
        self.previous = now
        if logs is None:
            return
        logs["drift"] = drift
        if self._steps and "memory_age" in logs:
            logs["memory_drift"] = drift * logs["memory_age"] / self._steps


def _mean_cosine_loss(before: NDArray[np.float32], now: NDArray[np.float32]) -> float:
    """Mean of 1 - cosine of unit rows, as half the squared distance: no cancellation where little moved."""
    return float(np.mean(np.sum((now - before) ** 2, axis=1)) / 2)
