"""The moving parts of a run: network, objective, schedule, best figures, history; saved and restored as one.

In:  a `Config` with a name, the run's folder, who trains.
Out: trained weights in the run's checkpoints, stage by stage; every figure in history.csv and TensorBoard.
Run: python train.py
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from config import Config
from facekit import runtime
from facekit.files import written_aside
from runs import RunFolder, figure_of, write_history

# Everything heavy is imported where it is used, so that a wrong setting is found at once.
if TYPE_CHECKING:
    import keras

    from facekit.index import PeopleIndex
    from facekit.monitors import DriftMonitor
    from facekit.trainer import EmbeddingTrainer


def prepare_layers(config: Config, network: keras.Model) -> None:
    """Freeze and thaw layers of the network as a stage says.

    Raises:
        ValueError: no layer has a name that the stage gives, or nothing is left to train.
    """
    from facekit.layer_rates import rate_factors
    from facekit.layers import freeze

    batch_norm = config.weights is not None if config.freeze_batch_norm is None else config.freeze_batch_norm
    freeze(network, config.freeze, batch_norm is True)
    rate_factors(network, (), config.layer_decay, config.learning_rates)


def build_trainer(
    config: Config, network: keras.Model, people: int, start: keras.Model | None = None
) -> EmbeddingTrainer:
    """The compiled model of a stage with its optimizer built, ready for `fit` or for a state to be restored.

    Args:
        config: the stage's settings.
        network: the run's embedding network; layers of it are frozen and thawed as the stage says.
        people: training people.
        start: the network as the run began, for `distill`.

    Raises:
        ValueError: an option of a loss, or a layer to freeze, is wrong.
    """
    import keras

    from facekit.layer_rates import rate_factors
    from facekit.trainer import EmbeddingTrainer, MeanOfValues
    from objectives import build_objective, build_optimizer

    prepare_layers(config, network)
    embed_before = partial(start, training=False) if config.distill and start else None
    as_in_use = config.freeze_batch_norm == "statistics"
    trainer = EmbeddingTrainer(network, build_objective(config, people), embed_before, config.distill, as_in_use)
    variables = trainer.trainable_variables
    optimizer = build_optimizer(config, rate_factors(network, variables, config.layer_decay, config.learning_rates))
    if config.precision == "mixed_float16":
        # Keras adds the scaling by the trainer's own precision, which is float32: only the backbone's is mixed.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    trainer.compile(optimizer=optimizer, loss=MeanOfValues(), jit_compile=config.xla)
    trainer.optimizer.build(variables)
    return trainer


def check_stages(config: Config, index: PeopleIndex) -> None:
    """See that every stage's losses, heads and batches can be made, before the first one trains.

    Raises:
        ValueError: an option is wrong, or the people cannot fill a batch.
    """
    from dataset import make_sampler
    from objectives import build_objective

    for part in config.parts:
        build_objective(part, len(index.people))
        make_sampler(index, part)


def build_networks(config: Config, folder: RunFolder) -> tuple[keras.Model, keras.Model | None]:
    """The network of a run, and, where it starts from weights, a second one that stays at the start.

    A run that has saved its start does not need the file of weights any more.

    Raises:
        ValueError: the weights cannot be read, or do not fit.
    """
    import keras

    from facekit.bundle import read_network
    from model import build_embedding_model

    if config.weights is None:
        return build_embedding_model(config), None
    if folder.start.exists():
        start = read_network(folder.start)
        network = build_embedding_model(config.model_copy(update={"weights": None}))
        network.set_weights(start.get_weights())
        return network, start
    network = build_embedding_model(config)
    start = keras.models.clone_model(network)
    start.set_weights(network.get_weights())
    return network, start


class Session:
    """The parts of a run that training moves. One stage is under way at a time; the network outlives them.

    Args:
        config: resolved settings, with a name.
        folder: where the run lives.
        index: who trains.
    """

    def __init__(self, config: Config, folder: RunFolder, index: PeopleIndex):
        from dataset import fitted, steps_per_epoch
        from facekit.callbacks import Best, History, LearningRate
        from product import embedder

        self.config, self.folder, self.index = config, folder, index
        self.parts = tuple(fitted(part, index) for part in config.parts)
        self.steps = [steps_per_epoch(index, part) for part in self.parts]
        runtime.seed_everything(config.seed)
        self.network, self.start = build_networks(config, folder)
        for part in self.parts:
            # A name that no layer has must not stop the run after hours, in a later stage.
            prepare_layers(part, self.network)
        self.embed = embedder(self.network, config)
        self.rate = LearningRate(lambda step: 0.0)
        self.best = Best(*figure_of(config.monitor), keep=self._keep_best)
        self.history = History([], partial(write_history, folder, config.monitor_fmr))
        self.steps_finished = 0
        self.begin(0)

    def begin(self, number: int) -> None:
        """Make the parts that belong to a stage: objective, optimizer, schedules.

        Raises:
            ValueError: a setting of the stage is wrong.
        """
        from facekit.callbacks import learning_rate_at
        from facekit.identities import Snapshots

        self.number, part, steps = number, self.parts[number], self.steps[number]
        # Each stage draws its own numbers, and the same ones however many stages ran in this process.
        runtime.seed_everything(part.seed + number)
        self.trainer = build_trainer(part, self.network, len(self.index.people), self.start)
        self.snapshots = Snapshots(part.hard_identity_steps) if part.hard_identity_steps else None
        self.rate.begin(
            partial(
                learning_rate_at,
                highest=part.learning_rate,
                warmup=round(part.warmup_epochs * steps),
                total=part.epochs * steps,
                cosine=part.schedule == "cosine",
            ),
            part.plateau_factor,
        )
        self.best.begin(
            plateau=self.rate.lower if part.schedule == "plateau" else None,
            plateau_patience=part.plateau_patience,
            stop_patience=part.early_stopping_patience,
        )
        # What monitors know lives here, so that it is saved with the run; they change it in place.
        self.monitor_states: dict[str, Any] = {}
        self.drift: DriftMonitor | None = None
        self._drift_before: NDArray[np.float32] | None = None

    def follow_drift(self, monitor: DriftMonitor) -> DriftMonitor:
        """Save and restore this monitor's embeddings with the run."""
        monitor.previous, self.drift = self._drift_before, monitor
        return monitor

    def take_snapshot(self, step: int) -> None:
        """Find anew who looks alike, after so many steps of the stage."""
        centres = self.trainer.objective.centres
        if self.snapshots and centres:
            self.snapshots.take(step, np.asarray(centres.centres), np.asarray(centres.seen) > 0)

    @property
    def part(self) -> Config:
        """The settings of the stage that is under way."""
        return self.parts[self.number]

    @property
    def step(self) -> int:
        """Training steps taken in this stage."""
        return self.trainer.steps_taken

    @property
    def steps_taken(self) -> int:
        """Training steps of all stages so far."""
        return self.steps_finished + self.step

    @property
    def steps_planned(self) -> int:
        """Training steps of all stages, if none stops early."""
        return sum(part.epochs * steps for part, steps in zip(self.parts, self.steps, strict=True))

    @property
    def steps_before(self) -> int:
        """Steps of the stages before this one, as planned: they keep batches of stages apart."""
        earlier = zip(self.parts[: self.number], self.steps[: self.number], strict=True)
        return sum(part.epochs * steps for part, steps in earlier)

    @property
    def epochs_before(self) -> int:
        """Epochs of the stages before this one, as planned."""
        return sum(part.epochs for part in self.parts[: self.number])

    @property
    def epochs(self) -> int:
        """Epochs of all stages."""
        return sum(part.epochs for part in self.parts)

    def neighbours(self, step: int) -> NDArray[np.int32] | None:
        """People who look alike, for batch `step` of the run; None where the stage draws people at random."""
        return self.snapshots.at(step - self.steps_before) if self.snapshots else None

    @property
    def stage_done(self) -> bool:
        """Whether this stage has had its epochs, or has stopped early."""
        return self.step >= self.part.epochs * self.steps[self.number] or self.best.finished

    def stages(self) -> Iterator[int]:
        """From the stage under way to the last; each has begun when it is given."""
        for number in range(self.number, len(self.parts)):
            if number != self.number:
                self.steps_finished += self.step
                self.begin(number)
            yield number

    def judge_start(self, measure: Callable[[], dict[str, float]]) -> dict[str, float] | None:
        """Take the start, of a run from weights, as the best so far; its weights and figures are saved.

        Args:
            measure: gives figures on held-out people.

        Returns:
            The figures; None where the run has no start, or has judged it before.
        """
        if self.start is None:
            return None
        if not self.folder.start.exists():
            with written_aside(self.folder.start) as aside:
                self.start.save(aside)
        if self.steps_taken or self.best.state["value"] is not None:
            return None
        figures = measure()
        self.best.take_start(figures)
        self.history.on_epoch_end(-1, figures)
        self.save()
        return figures

    def _keep_best(self) -> None:
        with written_aside(self.folder.best) as aside:
            self.network.save(aside)

    def save(self) -> None:
        """Write everything that resuming needs."""
        from facekit.checkpoint import save_state

        record = {
            "stage": self.number,
            "step": self.step,
            "steps_finished": self.steps_finished,
            "best": self.best.state,
            "lowered": self.rate.lowered,
            "history": self.history.rows,
            "monitors": self.monitor_states,
        }
        beside: dict[str, NDArray[Any]] = dict(self.snapshots.arrays()) if self.snapshots else {}
        if self.drift and self.drift.previous is not None:
            beside["drift"] = self.drift.previous
        save_state(self.folder.state, self.trainer, record, beside)

    def restore(self) -> None:
        """Take over the saved state.

        Raises:
            ValueError: there is none, or it is damaged.
        """
        from facekit.checkpoint import read_record, restore_state

        stage = read_record(self.folder.state).get("stage")
        if stage is None:
            raise ValueError(f"{self.folder.state}: was written by an older version. Start a new run.")
        if stage != self.number:
            self.begin(stage)
        record, beside = restore_state(self.folder.state, self.trainer)
        self.trainer.steps_taken, self.steps_finished = record["step"], record["steps_finished"]
        self.best.state, self.rate.lowered = record["best"], record["lowered"]
        self.history.rows[:] = record["history"]
        self.monitor_states = record["monitors"]
        self._drift_before = beside.pop("drift", None)
        if self.snapshots:
            self.snapshots.restore(beside)
