"""What an epoch shows of a folder, counted from the sampler's own batches, in words."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from facekit.sampling import Sampler

# What is counted at most, so that it takes a few seconds at worst.
MOST_STEPS = 30_000
MOST_PICTURES = 1_000_000


@dataclass(frozen=True)
class Epoch:
    """An epoch, and how often its pictures came in the batches that were counted.

    Attributes:
        steps: batches of an epoch.
        pictures_a_step: pictures in each.
        counted: batches counted, from the epoch's start: all of them, or as many as are quick.
        shown: (n,) int64, how often each picture of the folder came in those.
        labels: (n,) int64, the person of each picture, 0 to people - 1.
    """

    steps: int
    pictures_a_step: int
    counted: int
    shown: NDArray[np.int64]
    labels: NDArray[np.int64]

    @property
    def pictures_seen(self) -> float:
        """Share of the pictures that came at least once."""
        return float((self.shown > 0).mean())

    @property
    def shown_of_person(self) -> NDArray[np.int64]:
        """(people,) pictures shown of each person, the same one as often as it came."""
        return np.bincount(self.labels, self.shown).astype(np.int64)

    @property
    def people_seen(self) -> float:
        """Share of the people who came at least once."""
        return float((self.shown_of_person > 0).mean())

    def in_words(self) -> str:
        """What the epoch is and what it shows, in three sentences."""
        total, pictures = self.steps * self.pictures_a_step, len(self.shown)
        ratio = total / pictures
        as_many = "about as many as" if 0.9 < ratio < 1.1 else f"{float(f'{ratio:.2g}'):,g} times as many as"
        of_person, counts = self.shown_of_person, np.bincount(self.labels)
        largest = int(counts.argmax())
        begins = "It shows" if self.counted == self.steps else f"Its first {self.counted:,} steps show"
        steps = "step" if self.steps == 1 else "steps"
        return (
            f"An epoch is {self.steps:,} {steps} of {self.pictures_a_step:,} pictures, {as_many} the {pictures:,} "
            f"there are. {begins} {_share(self.people_seen)} of the people and {_share(self.pictures_seen)} of the "
            f"pictures at least once. Half of the people are shown {np.median(of_person):,.0f} times or more, the "
            f"one with the most pictures ({counts[largest]:,}) {of_person[largest]:,} times."
        )


def count_epoch(sampler: Sampler, steps: int, labels: NDArray[np.integer], first_step: int = 0) -> Epoch:
    """Count what an epoch's batches show; of a long epoch its beginning. Batches of look-alikes may show others.

    Args:
        sampler: draws the batches.
        steps: batches of an epoch.
        labels: (n,) int, the person of each picture, 0 to people - 1.
        first_step: number of the epoch's first batch.
    """
    size = sampler.batch(first_step).size
    counted = min(steps, MOST_STEPS, max(1, MOST_PICTURES // size))
    positions = [sampler.batch(step).ravel() for step in range(first_step, first_step + counted)]
    shown = np.bincount(np.concatenate(positions), minlength=len(labels))
    return Epoch(steps, size, counted, shown, labels.astype(np.int64))


def _share(share: float) -> str:
    """A share in whole percent; "all" only of all."""
    if share == 1:
        return "all"
    if not 0.005 <= share < 0.995:
        return "less than 1 %" if share < 0.5 else "more than 99 %"
    return f"{share:.0%}".replace("%", " %")
