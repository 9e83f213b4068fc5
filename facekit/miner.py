"""Mining as a layer: pairs in, the same pairs with fewer of them positive or negative out, for any loss."""

from __future__ import annotations

from functools import partial
from numbers import Integral
from typing import Any

import keras
from keras import ops

from facekit import mining
from facekit.arguments import nearest_name, number_between
from facekit.pairwise import Pairs, Tensor

MINERS = ("all", "random", "semi_hard", "hard", "easy_positive", "distance_weighted", "schedule")
# What "schedule" goes through, from the mildest on.
STAGES = ("random", "semi_hard", "hard")


@keras.saving.register_keras_serializable(package="tupletface")
class Miner(keras.layers.Layer):
    """Chooses which pairs of a batch a loss sees. Only masks change: shapes stay, gradients are the loss's alone.

    - "all": every pair.
    - "random": `count` random negatives an anchor.
    - "semi_hard": the negatives that are farther than a positive by less than `margin`, or the nearest one.
    - "hard": the farthest positive and the nearest negative.
    - "easy_positive": the nearest positive, and all negatives.
    - "distance_weighted": `count` random negatives an anchor, the rarer its distance the likelier.
    - "schedule": "random", until `advance` makes it "semi_hard" and then "hard": hard negatives from random weights
      on often collapse a model.

    Sources and what differs from them stand in `facekit.mining`; distances are Euclidean, of unit rows. What a kind
    does not choose (the positives of "random", say) stays as it is.

    Every call draws anew. The draws' state and the schedule's level are in `variables`, and so in a checkpoint of
    the run; Keras' own weight files leave random states out. XLA draws other numbers from the same state.

    Call: `Pairs` to `Pairs`.

    Args:
        kind: one of `MINERS`.
        count: negatives an anchor keeps, at least 1, for "random", "distance_weighted" and "schedule".
        margin: width of the semi-hard band, a distance in (0, 2), for "semi_hard" and "schedule".
        seed: of the draws.
        **kwargs: of `keras.layers.Layer`.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, kind: str, count: int = 8, margin: float = 0.2, seed: int = 0, **kwargs: Any):
        super().__init__(**{"dtype": "float32", **kwargs})
        if kind not in MINERS:
            raise ValueError(f"There is no miner {kind!r}: {nearest_name(str(kind), list(MINERS))}")
        self.kind = kind
        self.count = _at_least_one("count", count)
        self.margin = number_between("margin", margin, "(0, 2)", 2)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.level: Any = None
        if kind == "schedule":
            # Keras' "int": TensorFlow's int32 variables are out of XLA's reach on a GPU.
            options = {"dtype": "int", "trainable": False, "aggregation": "only_first_replica"}
            self.level = self.add_weight(name="level", shape=(), initializer="zeros", **options)
        self.built = True

    def __call__(self, pairs: Pairs) -> Pairs:
        """Mine a batch."""
        # Keras' own call takes only tensors, and pairs hold a function; there is nothing to build or to cast.
        return self.call(pairs)

    def call(self, pairs: Pairs) -> Pairs:
        """The pairs, with fewer of them positive or negative."""
        # NaN, of a broken model, could leave nothing chosen and a loss of 0; as 0 it is chosen, and the loss NaN.
        distances = ops.stop_gradient(pairs.distances())
        distances = ops.where(ops.isnan(distances), 0.0, distances)
        noise = keras.random.uniform(ops.shape(distances), dtype="float32", seed=self.seed_generator)
        if self.kind == "schedule":
            stages = [partial(self._masks, stage, pairs, distances, noise) for stage in STAGES]
            positive, negative = ops.switch(ops.convert_to_tensor(self.level), stages)
        else:
            positive, negative = self._masks(self.kind, pairs, distances, noise)
        return pairs._replace(positive=positive, negative=negative)

    def _masks(self, kind: str, pairs: Pairs, distances: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        positive, negative = pairs.positive, pairs.negative
        if kind == "random":
            negative = mining.random_negatives(noise, negative, self.count)
        elif kind == "semi_hard":
            negative = mining.semi_hard_negatives(distances, positive, negative, self.margin)
        elif kind == "hard":
            positive, negative = mining.hardest_pair(distances, positive, negative)
        elif kind == "easy_positive":
            positive = mining.easy_positives(distances, positive)
        elif kind == "distance_weighted":
            dimension = pairs.anchors.shape[-1]
            negative = mining.distance_weighted_negatives(noise, distances, negative, dimension, self.count)
        return positive, negative

    def kept_of_equals(self, positives: int, negatives: int) -> tuple[int, int]:
        """How many of an anchor's positives and negatives are kept where all distances are 0."""
        kind = self.stage_name
        most = {"random": self.count, "distance_weighted": self.count, "semi_hard": 1, "hard": 1}
        near = min(positives, 1) if kind in ("hard", "easy_positive") else positives
        return near, min(negatives, most.get(kind, negatives))

    @property
    def stage_name(self) -> str:
        """The kind of mining now: of a schedule, one of `STAGES`."""
        return self.kind if self.level is None else STAGES[int(ops.convert_to_numpy(self.level))]

    def advance(self) -> str:
        """Move the schedule one stage on, the last stays; takes effect in compiled steps too.

        Returns:
            The name of the stage now.

        Raises:
            ValueError: the miner is no schedule.
        """
        if self.level is None:
            raise ValueError(f'`advance` needs Miner("schedule"). Received: kind={self.kind!r}')
        self.level.assign(ops.minimum(self.level + 1, len(STAGES) - 1))
        return self.stage_name

    def get_config(self) -> dict[str, Any]:
        """The arguments, for saving."""
        own = {"kind": self.kind, "count": self.count, "margin": self.margin, "seed": self.seed}
        return super().get_config() | own


def _at_least_one(name: str, value: Any) -> int:
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1. Received: {name}={value!r}")
    return int(value)
