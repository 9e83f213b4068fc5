"""The losses: what training pushes together and apart.

In:  labels (B,) with embeddings (B, D) of any norm: every row is an anchor, every row of another label a negative.
     Or tuplets: labels (B, 2 + N) with embeddings (B, 2 + N, D), column 0 the anchor, 1 its positive, the rest its
     own negatives; then one term per tuplet. Labels: integers of any width, or floats. Rows: any float dtype.
Out: a float32 value per anchor whose mean is the loss. Exactly 0 with a zero gradient where nothing is comparable
     (one identity, singletons only); finite with finite gradients for duplicates, zero rows and float16 rows.
Run: model.compile("adam", losses.get("tuplet_margin")) or losses.get("triplet", mining="hard", margin=0.3)

Which one: `tuplet_margin` weighs all negatives of an anchor at once, the near ones most; it needs no mining, is the
default, and gains with many negatives. `triplet` compares one negative at a time: `semi_hard` is steady from random
weights, `hard` is sharper but often collapses from them, `all` needs small batches or a trained model.

TensorFlow Addons' losses (end of life 2024, no Keras 3): its `TripletSemiHardLoss()` is
`TripletLoss(margin=1.0, squared=True)` on unit rows; its `TripletHardLoss()` is that with mining="hard", but its
mean counted zero terms and anchors without a positive.
"""

from __future__ import annotations

import difflib
import inspect
from abc import abstractmethod
from math import cos, exp, inf, log, log1p, pi, sin
from numbers import Integral, Real
from typing import Any, NamedTuple

import keras
from keras import ops

from facekit import mining as miners
from facekit.pairwise import Pairs, Tensor, number_identities, pair_up, unit_rows

MINING = ("semi_hard", "all", "hard")
AVERAGES = ("positive", "all")

# A softplus term is never 0: from here up it counts as active.
ACTIVE_TERM = 1e-3
# Below it, sin^2 counts as constant: the slope of a square root has no bound at 0.
SMALLEST_SIN_SQUARED = 1e-7


class Terms(NamedTuple):
    """What a formula finds for each anchor; every field is (A,) float32."""

    total: Tensor
    """Sum of the anchor's terms."""
    count: Tensor
    """How many terms the mean is taken over."""
    active: Tensor
    """How many terms push: above 0 for a hinge, above 1e-3 for a softplus."""
    valid: Tensor
    """How many terms there are, active or not."""


# ---- Formulas ----------------------------------------------------------------------------------------------


def tuplet_margin_terms(pairs: Pairs, margin: float, scale: float, hardest: int | None) -> Terms:
    """One term per (anchor, positive): log(1 + sum_n exp(scale (s_an - cos(theta_ap - margin))))."""
    cosines = pairs.cosines()
    negatives = miners.largest(scale * cosines, pairs.negative, hardest)
    level = ops.logsumexp(negatives, axis=1, keepdims=True)
    terms = ops.softplus(level - scale * _cos_less_margin(cosines, margin))
    return _mean_of_all(terms, _comparable(pairs), ACTIVE_TERM)


def triplet_semi_hard_terms(distances: Tensor, pairs: Pairs, margin: float) -> Terms:
    """One term per (anchor, positive): [d_ap - d_an + margin]+, n the semi-hard negative."""
    near, far, is_pair = miners.semi_hard(distances, pairs.positive, pairs.negative)
    return _mean_of_all(ops.relu(near - far + margin), is_pair)


def triplet_nearest_terms(distances: Tensor, pairs: Pairs, margin: float, count: int) -> Terms:
    """One term per (anchor, positive): [d_ap - (mean of the `count` smallest d_an) + margin]+."""
    far = miners.nearest_mean(distances, pairs.negative, count)
    return _mean_of_all(ops.relu(distances - far + margin), _comparable(pairs))


def triplet_all_terms(distances: Tensor, pairs: Pairs, margin: float, average: str) -> Terms:
    """One term per triplet: [d_ap - d_an + margin]+; the mean counts the positive ones, or all."""
    total, active = miners.violations(distances, pairs.positive, pairs.negative, margin)
    valid = _count(pairs.positive) * _count(pairs.negative)
    return Terms(total, active if average == "positive" else valid, active, valid)


def triplet_hard_terms(distances: Tensor, pairs: Pairs, margin: float | None) -> Terms:
    """One term per anchor: [max d_ap - min d_an + margin]+, or without a margin the softplus of the difference."""
    farthest, nearest, both = miners.hardest(distances, pairs.positive, pairs.negative)
    gap = (farthest - nearest)[:, None]
    if margin is None:
        return _mean_of_all(ops.softplus(gap), both[:, None], ACTIVE_TERM)
    terms = _mean_of_all(ops.relu(gap + margin), both[:, None])
    return terms._replace(count=terms.active)


def _mean_of_all(terms: Tensor, valid: Tensor, active_above: float = 0.0) -> Terms:
    """(A, K) terms, of which the valid ones are averaged."""
    terms = ops.where(valid, terms, 0.0)
    return Terms(ops.sum(terms, axis=1), _count(valid), _count(terms > active_above), _count(valid))


def _comparable(pairs: Pairs) -> Tensor:
    """Positive pairs whose anchor has a negative."""
    return ops.logical_and(pairs.positive, ops.any(pairs.negative, axis=1, keepdims=True))


def _count(mask: Tensor) -> Tensor:
    return ops.sum(ops.cast(mask, "float32"), axis=1)


def _cos_less_margin(cosines: Tensor, margin: float) -> Tensor:
    """cos(arccos(c) - margin) without arccos, whose slope is infinite at 1."""
    sin_squared = ops.maximum((1.0 - cosines) * (1.0 + cosines), SMALLEST_SIN_SQUARED)
    return cosines * cos(margin) + ops.sqrt(sin_squared) * sin(margin)


# ---- Keras losses ------------------------------------------------------------------------------------------


class PairLoss(keras.losses.Loss):
    """Base of the losses: a subclass has `terms`, and gets both forms, exact labels and float32 with it.

    Called on (labels, embeddings) it returns a scalar, or under `reduction=None` the value of each anchor.
    """

    def __init__(self, name: str | None = None, reduction: str | None = "sum_over_batch_size"):
        super().__init__(name=name, reduction=reduction, dtype="float32")

    def __call__(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """The reduced loss. Labels are numbered first: Keras casts them to float32, which merges large ones."""
        return super().__call__(number_identities(y_true), y_pred, sample_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """(B,) float32, per anchor, whose mean is the loss."""
        pairs = pair_up(y_true, y_pred)
        terms = self.terms(pairs)
        return pairs.mean_per_anchor(terms.total, terms.count)

    @abstractmethod
    def terms(self, pairs: Pairs) -> Terms:
        """The formula on a batch's pairs."""
        raise NotImplementedError

    @abstractmethod
    def do_nothing_value(self, negatives: int) -> float:
        """The loss of equal embeddings, the level of a collapsed model, with so many negatives an anchor."""
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="tupletface")
class TupletMarginLoss(PairLoss):
    """Tuplet margin loss, Yu & Tao, "Deep metric learning with tuplet margin loss", ICCV 2019, equation 5.

    Mean over all ordered pairs (a, p) of log(1 + sum_n exp(scale (s_an - cos(theta_ap - margin)))), with s the
    cosine and theta its angle. The margin is slack: it forgives a hard positive, which may be mislabelled, and a
    positive closer than it is pushed away. The paper draws one tuplet an anchor; the flat form takes all pairs.

    Args:
        margin: slack in radians, in (0, pi/2); 0.1 is 5.73 degrees.
        scale: factor of the cosines, greater than 0. Larger looks at the hardest negatives alone.
        hardest: keep only the k negatives of largest cosine, for each anchor. None: all.
        **keras_options: `name` and `reduction`, as for every Keras loss.

    Raises:
        ValueError: an argument is out of range, or a batch's shapes are of neither form.
    """

    def __init__(self, margin: float = 0.1, scale: float = 64.0, hardest: int | None = None, **keras_options: Any):
        super().__init__(**keras_options)
        self.margin = _number_between("margin", margin, pi / 2, "(0, pi/2)")
        self.scale = _number_between("scale", scale, inf, "(0, inf)")
        self.hardest = _count_or_none("hardest", hardest)

    def terms(self, pairs: Pairs) -> Terms:
        """One term per (anchor, positive)."""
        return tuplet_margin_terms(pairs, self.margin, self.scale, self.hardest)

    def do_nothing_value(self, negatives: int) -> float:
        """log(1 + k exp(scale (1 - cos margin))), k the negatives of each anchor that count.

        The loss comes out lower by up to scale sin(margin) 3.2e-4 (0.002 with the defaults): see
        SMALLEST_SIN_SQUARED.
        """
        counted = min(negatives, self.hardest or negatives)
        if counted == 0:
            return 0.0
        exponent = log(counted) + self.scale * (1.0 - cos(self.margin))
        return exponent + log1p(exp(-exponent))

    def get_config(self) -> dict[str, Any]:
        """The arguments, for `from_config`."""
        return {**super().get_config(), "margin": self.margin, "scale": self.scale, "hardest": self.hardest}


@keras.saving.register_keras_serializable(package="tupletface")
class TripletLoss(PairLoss):
    """Triplet loss, [d_ap - d_an + margin]+: Schroff et al., "FaceNet", CVPR 2015, equation 3.

    With `mining`:

    - "semi_hard" (FaceNet): per (a, p) the nearest negative that is farther than p, else the farthest negative;
      mean over all (a, p).
    - "all" (Hermans et al., "In defense of the triplet loss", 2017): every triplet; mean over positive terms, with
      `average="all"` over all.
    - "hard" (Hermans 2017, batch hard): per anchor the farthest positive and the nearest negative; mean over
      positive terms, where the paper has all anchors. With `soft`: softplus(d_ap - d_an), no margin, mean over all
      anchors that have both.

    With `hardest` instead: per (a, p) the mean distance of the k nearest negatives stands for d_an; mean over all
    (a, p). Calmer than one nearest negative, which may be mislabelled. In tuplet form each of these means is a
    tuplet's own, and the loss is their mean over tuplets.

    Args:
        margin: distance, in (0, 2), or in (0, 4) with `squared`. Not used with `soft`.
        mining: None means "semi_hard", unless `hardest` is given.
        squared: squared distances, as in FaceNet. Their slope vanishes at 0, so a collapsed model stays so.
        soft: with mining="hard" only.
        hardest: k, at least 1; excludes `mining`.
        average: "positive" or "all"; the latter with mining="all" only.
        **keras_options: `name` and `reduction`, as for every Keras loss.

    Raises:
        ValueError: an argument is out of range, two do not fit together, or a batch's shapes are of neither form.
    """

    def __init__(
        self,
        margin: float = 0.2,
        mining: str | None = None,
        squared: bool = False,
        soft: bool = False,
        hardest: int | None = None,
        average: str = "positive",
        **keras_options: Any,
    ):
        super().__init__(**keras_options)
        largest = 4 if squared else 2
        self.margin = _number_between("margin", margin, largest, f"(0, {largest})")
        self.mining = _one_of("mining", mining, (None, *MINING))
        self.squared = bool(squared)
        self.soft = bool(soft)
        self.hardest = _count_or_none("hardest", hardest)
        self.average = _one_of("average", average, AVERAGES)
        self._check_combinations()

    def _check_combinations(self) -> None:
        mining = self.mining
        if mining is not None and self.hardest is not None:
            raise ValueError(
                f"`mining` and `hardest` exclude each other. Received: {mining=}, hardest={self.hardest}"
            )
        if self.soft and mining != "hard":
            raise ValueError(f'`soft=True` needs mining="hard". Received: {mining=}')
        if self.average == "all" and mining != "all":
            raise ValueError(f'`average="all"` needs mining="all". Received: {mining=}')

    def terms(self, pairs: Pairs) -> Terms:
        """One term per triplet ("all"), per anchor ("hard"), or per (anchor, positive)."""
        distances = pairs.distances(self.squared)
        if self.hardest is not None:
            return triplet_nearest_terms(distances, pairs, self.margin, self.hardest)
        if self.mining == "all":
            return triplet_all_terms(distances, pairs, self.margin, self.average)
        if self.mining == "hard":
            return triplet_hard_terms(distances, pairs, None if self.soft else self.margin)
        return triplet_semi_hard_terms(distances, pairs, self.margin)

    def do_nothing_value(self, negatives: int) -> float:
        """The margin; log 2 with `soft`."""
        if negatives == 0:
            return 0.0
        return log(2.0) if self.soft else self.margin

    def get_config(self) -> dict[str, Any]:
        """The arguments, for `from_config`."""
        names = ("margin", "mining", "squared", "soft", "hardest", "average")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def tuplet_margin_loss(labels: Tensor, embeddings: Tensor, **options: Any) -> Tensor:
    """(B,) float32 whose mean is the loss, as a function; the options are `TupletMarginLoss`'s."""
    return TupletMarginLoss(**options).call(labels, embeddings)


def triplet_loss(labels: Tensor, embeddings: Tensor, **options: Any) -> Tensor:
    """(B,) float32 whose mean is the loss, as a function; the options are `TripletLoss`'s."""
    return TripletLoss(**options).call(labels, embeddings)


LOSSES: dict[str, type[PairLoss]] = {"tuplet_margin": TupletMarginLoss, "triplet": TripletLoss}


def get(name: str, /, **options: Any) -> PairLoss:
    """The loss of this name with these options, which are its class's arguments.

    Raises:
        ValueError: there is no such loss or option, or an option's value is wrong.
    """
    if name not in LOSSES:
        raise ValueError(f"There is no loss {name!r}: {_nearest(name, list(LOSSES))}")
    parameters = [*inspect.signature(LOSSES[name]).parameters.values()]
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD] + ["name", "reduction"]
    for option in options:
        if option not in known:
            raise ValueError(f"The loss {name!r} has no option `{option}`: {_nearest(option, known)}")
    return LOSSES[name](**options)


# ---- Figures for logs --------------------------------------------------------------------------------------


def batch_statistics(labels: Tensor, embeddings: Tensor, loss: PairLoss) -> dict[str, Tensor]:
    """Figures that show how training goes.

    Args:
        labels: (B,), or (B, 2 + N) for tuplets.
        embeddings: (B, D), or (B, 2 + N, D).
        loss: says which terms there are.

    Returns:
        Float32 scalars, each 0 where there is nothing to average:

        - active: share of the loss's terms that push, in [0, 1]. tuplet_margin: of the (anchor, positive) pairs
          whose anchor has a negative, those with a term above 1e-3. triplet: of the triplets ("all"), anchors
          ("hard") or (anchor, positive) pairs, those with a positive term; with `soft`, above 1e-3.
        - positive_distance, negative_distance: mean Euclidean distance of the positive and of the negative pairs'
          unit rows, in [0, 2].
        - spread: 1 - |mean of the unit rows|, in [0, 1]. 0: collapsed to a point.
    """
    pairs = pair_up(labels, embeddings)
    terms, distances = loss.terms(pairs), pairs.distances()
    rows = unit_rows(embeddings)
    return {
        "active": ops.sum(terms.active) / ops.maximum(ops.sum(terms.valid), 1.0),
        "positive_distance": _mean_where(distances, pairs.positive),
        "negative_distance": _mean_where(distances, pairs.negative),
        "spread": 1.0 - ops.norm(ops.mean(rows, axis=tuple(range(len(rows.shape) - 1)))),
    }


def _mean_where(values: Tensor, mask: Tensor) -> Tensor:
    mask = ops.cast(mask, "float32")
    return ops.sum(values * mask) / ops.maximum(ops.sum(mask), 1.0)


# ---- Arguments ---------------------------------------------------------------------------------------------


def _number_between(name: str, value: Any, largest: float, interval: str) -> float:
    if not isinstance(value, Real) or not 0 < float(value) < largest:
        raise ValueError(f"`{name}` must be in {interval}. Received: {name}={value!r}")
    return float(value)


def _count_or_none(name: str, value: Any) -> int | None:
    if value is None:
        return None
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be None or an integer of at least 1. Received: {name}={value!r}")
    return int(value)


def _one_of(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}. Received: {name}={value!r}")
    return value


def _nearest(name: str, known: list[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    return f"did you mean `{nearest}`? There are {', '.join(known)}."
