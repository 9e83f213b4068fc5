"""What TensorBoard shows of a run: scalars, histograms, pictures, texts and settings, under one naming.

The step of everything is the number of the epoch, from 1, whatever stage it belongs to.

- Scalars: train/NAME for what the training steps log (train/loss, train/active, train/positive_distance,
  train/learning_rate, train/images_per_second, ...); verification/NAME for what is measured on held-out people
  (`facekit.validation.HELD_OUT_FIGURES`; verification/triplets_ordered: on the user's own triplets).
- Histograms: distances/genuine and distances/impostor, the distances of the validation pairs of each class.
- Images: verification/NAME, as `facekit.validation.HeldOut.pictures` names them, at some epochs.
- Text: config, the resolved settings.
- HParams, in the folder "best": the settings, and the chief figures at each epoch that was the best so far; the
  last of them are those of the product. TensorBoard lists "best" as a run of its own. Settings in which runs
  differ come first in its table, and no other figures crowd it.
- Projector: files in the run's folder; see `facekit.projector`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from facekit.callbacks import Logs
from facekit.files import written_aside
from facekit.setting_table import Value

BEST = "best"
"""Folder of the settings and of the best epochs' figures, below the run's."""

_EVENT_FILES = "events.out.tfevents.*"


@dataclass(frozen=True)
class Sources:
    """Where the figures of an epoch that has ended come from.

    Attributes:
        held_out: names, in the logs, of what was measured on held-out people.
        chief: those of them by which runs compare.
        is_best: whether the epoch of this number, from 0, is the best so far.
        distances: gives named lists of distances.
        pictures: gives named (H, W, 3) uint8 RGB pictures.
    """

    held_out: Collection[str]
    chief: Sequence[str]
    is_best: Callable[[int], bool]
    distances: Callable[[], Mapping[str, NDArray[np.floating]]]
    pictures: Callable[[], Mapping[str, NDArray[np.uint8]]]


@dataclass(frozen=True)
class About:
    """What is said of a run once.

    Attributes:
        name: the run's.
        settings: flat settings to compare runs by.
        texts: Markdown by name.
    """

    name: str
    settings: Mapping[str, Value]
    texts: Mapping[str, str]


class TensorBoard(keras.callbacks.Callback):
    """Writes each epoch for TensorBoard, under the naming above.

    Args:
        folder: where the event files go.
        sources: where an epoch's figures come from.
        about: what is said once.
        pictures_every: epochs between pictures, at least 1: they are most of the files. The last epoch has its own.
    """

    def __init__(self, folder: Path, sources: Sources, about: About, pictures_every: int = 1):
        super().__init__()
        import tensorflow as tf
        from tensorboard.plugins.hparams import api

        self._summary = tf.summary
        self._writer = tf.summary.create_file_writer(str(folder))
        self._best = tf.summary.create_file_writer(str(folder / BEST))
        self._sources, self._every = sources, pictures_every
        self._undrawn: int | None = None
        with self._writer.as_default(step=0):
            for name, text in about.texts.items():
                tf.summary.text(name, text)
        with self._best.as_default(step=0):
            # A setting that one run lacks would not count as one in which runs differ.
            told = {name: "None" if value is None else value for name, value in about.settings.items()}
            api.hparams(told, trial_id=about.name)
        self._flush()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Write the epoch."""
        figures = {name: float(value) for name, value in (logs or {}).items() if math.isfinite(value)}
        with self._writer.as_default(step=epoch + 1):
            for name, value in figures.items():
                self._summary.scalar(self._tag(name), value)
            for name, distances in self._sources.distances().items():
                self._summary.histogram(f"distances/{name}", distances, buckets=60)
        if self._sources.is_best(epoch):
            with self._best.as_default(step=epoch + 1):
                for name in self._sources.chief:
                    if name in figures:
                        self._summary.scalar(self._tag(name), figures[name])
        self._undrawn = epoch + 1
        if epoch % self._every == 0:
            self._draw()
        self._flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Draw the last epoch."""
        self._draw()
        self._flush()

    def _tag(self, name: str) -> str:
        return f"{'verification' if name in self._sources.held_out else 'train'}/{name}"

    def _draw(self) -> None:
        """Write pictures of the last epoch, once."""
        if self._undrawn is None:
            return
        with self._writer.as_default(step=self._undrawn):
            for name, picture in self._sources.pictures().items():
                self._summary.image(f"verification/{name}", picture[None])
        self._undrawn = None

    def _flush(self) -> None:
        self._writer.flush()
        self._best.flush()


def forget_after(folder: Path, epoch: int) -> None:
    """Take out of event files what a run that goes on after `epoch` writes anew: later epochs, what is said once.

    A run that was killed may have written an epoch that its last checkpoint does not have.

    Args:
        folder: of the run's event files; those below it are looked at too.
        epoch: number of the last epoch to keep, from 1; 0 keeps none.
    """
    import tensorflow as tf
    from tensorboard.compat.proto.event_pb2 import Event

    for path in sorted(folder.rglob(_EVENT_FILES)):
        kept = 0
        with written_aside(path) as aside:
            with tf.io.TFRecordWriter(str(aside)) as writer:
                for record in _records(path):
                    event = Event.FromString(record)
                    # Each file begins with the version of its format.
                    if 1 <= event.step <= epoch or event.WhichOneof("what") == "file_version":
                        writer.write(record)
                        kept += event.step > 0
        if not kept:
            path.unlink()


def _records(path: Path) -> Iterator[Any]:
    """The records of an event file as bytes; a last one that was cut off is left out."""
    import tensorflow as tf

    records = tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    while True:
        try:
            yield next(records)
        except (StopIteration, tf.errors.DataLossError):
            return
