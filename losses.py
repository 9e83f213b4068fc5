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

import inspect
from math import pi
from typing import Any

import keras
from keras import ops

from facekit.arguments import count_or_none, nearest_name, number_between, one_of
from facekit.formulas import (
    Terms,
    triplet_all_terms,
    triplet_hard_terms,
    triplet_nearest_terms,
    triplet_semi_hard_terms,
    tuplet_margin_terms,
)
from facekit.pair_loss import PairLoss
from facekit.pairwise import Pairs, Tensor, pair_up, unit_rows

MINING = ("semi_hard", "all", "hard")
AVERAGES = ("positive", "all")


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
        self.margin = number_between("margin", margin, "(0, pi/2)", pi / 2)
        self.scale = number_between("scale", scale, "(0, inf)")
        self.hardest = count_or_none("hardest", hardest)

    def terms(self, pairs: Pairs) -> tuple[Terms, ...]:
        """One term per (anchor, positive)."""
        return (tuplet_margin_terms(pairs, self.margin, self.scale, self.hardest),)

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
        self.margin = number_between("margin", margin, f"(0, {largest})", largest)
        self.mining = one_of("mining", mining, (None, *MINING))
        self.squared = bool(squared)
        self.soft = bool(soft)
        self.hardest = count_or_none("hardest", hardest)
        self.average = one_of("average", average, AVERAGES)
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

    def terms(self, pairs: Pairs) -> tuple[Terms, ...]:
        """One term per triplet ("all"), per anchor ("hard"), or per (anchor, positive)."""
        distances = pairs.distances(self.squared)
        if self.hardest is not None:
            return (triplet_nearest_terms(distances, pairs, self.margin, self.hardest),)
        if self.mining == "all":
            return (triplet_all_terms(distances, pairs, self.margin, self.average),)
        if self.mining == "hard":
            return (triplet_hard_terms(distances, pairs, None if self.soft else self.margin),)
        return (triplet_semi_hard_terms(distances, pairs, self.margin),)

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
        raise ValueError(f"There is no loss {name!r}: {nearest_name(name, list(LOSSES))}")
    parameters = [*inspect.signature(LOSSES[name]).parameters.values()]
    known = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD] + ["name", "reduction"]
    for option in options:
        if option not in known:
            raise ValueError(f"The loss {name!r} has no option `{option}`: {nearest_name(option, known)}")
    return LOSSES[name](**options)


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
    terms, distances = loss.terms(pairs)[0], pairs.distances()
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
