"""Score normalisation by a cohort, as a layer: crowded regions of embeddings are spread out.

Some faces have many near strangers (children, people of groups that the network saw little of): at one
threshold for all, most false matches are theirs. Speaker verification takes from each score how near either
side is to a cohort of strangers (T-norm, Auckenthaler et al. 2000; adaptive s-norm, Matejka et al. 2017), word
translation likewise (CSLS, Conneau et al. 2018, https://arxiv.org/abs/1710.04087, equation 3):

    s(u, v) = cos(u, v) - (b(u) + b(v)) / 2,    b(u) = mean cosine of u with its k nearest of the cohort.

The layer says it in the embedding itself, so that plain cosines and distances, and all built on them, have it:

    phi(u) = [a u ; sqrt(1 - a^2) psi(u)],      a(u) = 1 - (b(u) - floor) / (2 level).

level is the cohort's own mean of b, floor its 10th percentile; a stays in [1/2, 1]. Between strangers psi(u)
and psi(v) are all but orthogonal, and phi(u).phi(v) = a(u) a(v) cos(u, v), which near cos = level is s(u, v) but
for a constant. psi are random Fourier features (Rahimi & Recht 2007) of exp(-gamma (1 - cos)), gamma such that
this has faded to 0.01 at the 95th percentile of b: strangers hardly see it even in a crowd.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

WIDTH = 384
"""Numbers that the layer adds to an embedding: more of them, less noise between strangers (1 / sqrt(WIDTH))."""

LEAST_LEVEL = 0.05
"""Mean cosine with the nearest strangers below which embeddings have no crowds to spread."""

NAME = "cohort_norm"
"""The layer's name, by which exports know it: in 8 bits, nearness could not be told."""

_FLOOR = 10  # percentile of b below which nothing is taken from the embedding
_CROWDED = 95  # percentile of b at which psi has faded
_KEPT = 0.5  # least a: an embedding stays mostly what the network made it
_FADED = 0.01  # what psi(u).psi(v) has faded to there
_LEAST_APART = 1e-5  # of 1 - cosine, there: less is float32's noise, and psi would be noise too
_BLOCK = 1024


@keras.saving.register_keras_serializable(package="tupletface")
class CohortNorm(keras.layers.Layer):
    """Spread unit embeddings by how crowded their surroundings are; see the module. `fit_cohort` makes one.

    Args:
        people: rows of the cohort.
        nearest: how many of them, the nearest, say how crowded it is; k above.
        width: numbers added to an embedding; even.

    Call: (B, D) float32 unit rows to (B, D + width) float32 unit rows. It does not learn.
    """

    def __init__(self, people: int, nearest: int, width: int = WIDTH, **kwargs: Any):
        super().__init__(**{**kwargs, "trainable": False})
        self.people, self.nearest, self.width = people, nearest, width

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Make room for the cohort (people, D), the directions (D, width / 2), and [floor, level]."""
        shapes = {
            "cohort": (self.people, input_shape[-1]),
            "directions": (input_shape[-1], self.width // 2),
            "range": (2,),
        }
        self.cohort, self.directions, self.range = (
            self.add_weight(name=name, shape=shape, initializer="zeros", trainable=False)
            for name, shape in shapes.items()
        )

    def call(self, inputs: Any) -> Any:
        """Normalise a batch."""
        near, _ = ops.top_k(ops.matmul(inputs, ops.transpose(self.cohort)), self.nearest)
        crowd = ops.mean(near, axis=-1, keepdims=True)
        kept = ops.clip(1.0 - (crowd - self.range[0]) / (2.0 * self.range[1]), _KEPT, 1.0)
        phases = ops.matmul(inputs, self.directions)
        own = ops.concatenate([ops.cos(phases), ops.sin(phases)], axis=-1) * (self.width / 2) ** -0.5
        return ops.concatenate([kept * inputs, ops.sqrt(1.0 - ops.square(kept)) * own], axis=-1)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """The input's shape, wider."""
        return (*input_shape[:-1], int(input_shape[-1] or 0) + self.width)

    def get_config(self) -> dict[str, Any]:
        """The arguments, for saving."""
        return super().get_config() | {"people": self.people, "nearest": self.nearest, "width": self.width}


def fit_cohort(cohort: NDArray[np.floating], nearest: int, width: int = WIDTH, seed: int = 0) -> CohortNorm:
    """The layer of a cohort.

    Args:
        cohort: (n, D) unit rows, one a person, of people like those who will be told apart, but not they.
        nearest: how many of the cohort, the nearest, say how crowded it is; 1 <= nearest < n.
        width: numbers added to an embedding; even.
        seed: of the random directions.

    Raises:
        ValueError: too few people; strangers so far apart (`LEAST_LEVEL`) that there is nothing to normalise, or so
            near that nobody can be told apart; or an embedding that is NaN or infinite.
    """
    if not 1 <= nearest < len(cohort):
        raise ValueError(f"`cohort` {nearest} needs more than {nearest} training people; there are {len(cohort)}.")
    if not np.isfinite(cohort).all():
        raise ValueError("`cohort`: embeddings of training people are NaN or infinite.")
    crowd = crowding(cohort, nearest)
    level = float(crowd.mean())
    if level < LEAST_LEVEL:
        raise ValueError(
            f"`cohort`: the nearest strangers among the training people have a mean cosine of {level:.3f}, below "
            f"{LEAST_LEVEL}: no region of the embedding is crowded."
        )
    apart = 1 - np.percentile(crowd, _CROWDED)
    if apart < _LEAST_APART:
        raise ValueError(
            "`cohort`: one in twenty training people, or more, have all but the same embedding as their nearest "
            "strangers: the network has collapsed, or people are there under several names."
        )
    gamma = np.log(1 / _FADED) / apart
    directions = np.random.default_rng(seed).normal(0, gamma**0.5, (cohort.shape[1], width // 2))
    layer = CohortNorm(len(cohort), nearest, width, name=NAME, dtype="float32")
    layer.build((None, cohort.shape[1]))
    layer.set_weights([cohort, directions, np.array([np.percentile(crowd, _FLOOR), level])])
    return layer


def crowding(cohort: NDArray[np.floating], nearest: int) -> NDArray[np.float64]:
    """Mean cosine of each row with the `nearest` others: (n,) in [-1, 1].

    Args:
        cohort: (n, D) unit rows.
        nearest: below n.
    """
    means = np.empty(len(cohort))
    for start in range(0, len(cohort), _BLOCK):
        cosines = cohort[start : start + _BLOCK].astype(np.float64) @ cohort.T.astype(np.float64)
        rows = np.arange(len(cosines))
        cosines[rows, start + rows] = -np.inf
        means[start : start + _BLOCK] = np.partition(cosines, -nearest, axis=1)[:, -nearest:].mean(axis=1)
    return means


def with_cohort(network: keras.Model, layer: CohortNorm) -> keras.Model:
    """A network that ends in the layer; it shares its weights with the given one."""
    return keras.Model(network.input, layer(network.output), name=network.name)


def without_cohort(network: keras.Model) -> keras.Model:
    """The network as it was before `with_cohort`; any other as it is."""
    last = network.layers[-1]
    return keras.Model(network.input, last.input, name=network.name) if isinstance(last, CohortNorm) else network
