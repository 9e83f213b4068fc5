"""The losses: what training pushes together and apart.

In:  labels (B,) with embeddings (B, D) of any norm: every row is an anchor, every row of another label a negative.
     Or tuplets: labels (B, 2 + N) with embeddings (B, 2 + N, D), column 0 the anchor, 1 its positive, the rest its
     own negatives; then one term per tuplet. Labels: integers of any width, or floats. Rows: any float dtype.
Out: a float32 value per anchor whose mean is the loss. Exactly 0 with a zero gradient where it has no terms (most:
     one identity, singletons only); finite with finite gradients for duplicates, zero rows and float16 rows.
Run: model.compile("adam", losses.get("tuplet_margin")) or losses.get("triplet", mining="hard", margin=0.3)

Which one:
- tuplet_margin (the default): all negatives of an anchor at once, the near ones most. Needs no mining; gains with
  many negatives.
- tuplet_margin_ipv: the same, and positive pairs are kept near their mean cosine, negative pairs near theirs.
- triplet: one negative at a time. `semi_hard` is steady from random weights, `hard` is sharper but often collapses
  from them, `all` needs small batches or a trained model.
- contrastive: each pair alone, against a fixed distance. The baseline.
- n_pair: tuplet_margin without the margin, and with a mild scale: all negatives count, not the nearest alone.
- multi_similarity: positives and negatives apart, each against a fixed cosine; anchors with one kind count too.
- circle: all positives against all negatives of an anchor, each weighed by its distance from its goal.
- supcon: every positive against all other pairs of its anchor. For several pictures a person and large batches.
- intra_pair_variance: a part of a sum. Alone it is content with a collapsed model.

TensorFlow Addons' losses (end of life 2024, no Keras 3), on unit rows:
- `TripletSemiHardLoss()` is `TripletLoss(margin=1.0, squared=True)`. `TripletHardLoss()` is that with
  mining="hard", but its mean counted zero terms and anchors without a positive.
- `ContrastiveLoss()` took the distances of ready pairs; ours takes rows and all their pairs, with the same terms.
- `NpairsLoss()` took the products of anchors with positives, one softmax an anchor, its target shared among all of
  its person's. Ours takes rows and sets each positive against negatives only: the same with one positive an anchor.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from math import pi
from typing import Any

import keras

from facekit.arguments import count_or_none, nearest_name, number_between, one_of
from facekit.formulas import (
    Terms,
    circle_terms,
    contrastive_terms,
    intra_pair_variance_terms,
    multi_similarity_terms,
    supcon_terms,
    triplet_all_terms,
    triplet_hard_terms,
    triplet_nearest_terms,
    triplet_semi_hard_terms,
    tuplet_margin_terms,
)
from facekit.pair_loss import PairLoss
from facekit.pairwise import Pairs, Tensor
from facekit.weighted_sum import WeightedSum

MINING = ("semi_hard", "all", "hard")
AVERAGES = ("positive", "all")


class _OfOptions(PairLoss):
    """Base of the losses that keep each of their arguments under its name."""

    def get_config(self) -> dict[str, Any]:
        """The arguments, for `from_config`."""
        return {**super().get_config(), **{name: getattr(self, name) for name in _arguments(type(self))}}


@keras.saving.register_keras_serializable(package="tupletface")
class TupletMarginLoss(_OfOptions):
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


@keras.saving.register_keras_serializable(package="tupletface")
class TripletLoss(_OfOptions):
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
        self.squared = bool(one_of("squared", squared, (False, True)))
        self.soft = bool(one_of("soft", soft, (False, True)))
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


@keras.saving.register_keras_serializable(package="tupletface")
class IntraPairVarianceLoss(_OfOptions):
    """Intra-pair variance loss, from the paper of `TupletMarginLoss`: pairs of a kind shall be equally similar.

    Mean over positive pairs of [(1 - epsilon) mu_p - s_ap]+^2, plus mean over negative pairs of
    [s_an - (1 + epsilon) mu_n]+^2; mu_p and mu_n are the mean cosines of all the batch's pairs, and differentiated.
    The paper adds half of it to the tuplet margin loss: see `tuplet_margin_ipv`. Tuplets: mu is of all of them.

    Args:
        epsilon: how far from its mean a cosine may be, as a share of it, in (0, 1).
        **keras_options: `name` and `reduction`, as for every Keras loss.

    Raises:
        ValueError: an argument is out of range, or a batch's shapes are of neither form.
    """

    def __init__(self, epsilon: float = 0.01, **keras_options: Any):
        super().__init__(**keras_options)
        self.epsilon = number_between("epsilon", epsilon, "(0, 1)", 1)

    def terms(self, pairs: Pairs) -> tuple[Terms, ...]:
        """One term per positive pair, then one per negative pair."""
        return intra_pair_variance_terms(pairs, self.epsilon)


@keras.saving.register_keras_serializable(package="tupletface")
class ContrastiveLoss(_OfOptions):
    """Contrastive loss, Hadsell et al., "Dimensionality reduction by learning an invariant mapping", CVPR 2006.

    Mean over all pairs of d^2 where the label is the same, [margin - d]+^2 where it is not: equation 4 without its
    factor 1/2, as in TensorFlow Addons. A batch of one kind of pairs has a value too.

    Args:
        margin: distance from which on a negative pair is left alone, in (0, 2).
        **keras_options: `name` and `reduction`, as for every Keras loss.

    Raises:
        ValueError: an argument is out of range, or a batch's shapes are of neither form.
    """

    def __init__(self, margin: float = 1.0, **keras_options: Any):
        super().__init__(**keras_options)
        self.margin = number_between("margin", margin, "(0, 2)", 2)

    def terms(self, pairs: Pairs) -> tuple[Terms, ...]:
        """One term per pair."""
        return (contrastive_terms(pairs, self.margin),)


@keras.saving.register_keras_serializable(package="tupletface")
class NPairLoss(_OfOptions):
    """(N+1)-tuplet loss, Sohn, "Improved deep metric learning with multi-class N-pair loss objective", NIPS 2016.

    Mean over all ordered pairs (a, p) of log(1 + sum_n exp(scale (s_an - s_ap))): `TupletMarginLoss` with margin 0.
    The paper has products of raw embeddings and a penalty on their length where this has scaled cosines, and two
    pictures a person where this takes all pairs.

    Args:
        scale: factor of the cosines, greater than 0.
        **keras_options: `name` and `reduction`, as for every Keras loss.

    Raises:
        ValueError: an argument is out of range, or a batch's shapes are of neither form.
    """

    def __init__(self, scale: float = 1.0, **keras_options: Any):
        super().__init__(**keras_options)
        self.scale = number_between("scale", scale, "(0, inf)")

    def terms(self, pairs: Pairs) -> tuple[Terms, ...]:
        """One term per (anchor, positive)."""
        return (tuplet_margin_terms(pairs, margin=0.0, scale=self.scale, hardest=None),)


@keras.saving.register_keras_serializable(package="tupletface")
class MultiSimilarityLoss(_OfOptions):
    """Multi-similarity loss, Wang et al., "Multi-similarity loss with general pair weighting", CVPR 2019.

    Mean over all anchors of log(1 + sum_p exp(-alpha (s_ap - base))) / alpha +
    log(1 + sum_n exp(beta (s_an - base))) / beta. An anchor without positives keeps the second part, one without
    negatives the first. The paper's mining is not part of it.

    Args:
        alpha: sharpness for positives, greater than 0.
        beta: sharpness for negatives, greater than 0.
        base: cosine below which a positive and above which a negative counts most, in (-1, 1).
        **keras_options: `name` and `reduction`, as for every Keras loss.

    Raises:
        ValueError: an argument is out of range, or a batch's shapes are of neither form.
    """

    def __init__(self, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5, **keras_options: Any):
        super().__init__(**keras_options)
        self.alpha = number_between("alpha", alpha, "(0, inf)")
        self.beta = number_between("beta", beta, "(0, inf)")
        self.base = number_between("base", base, "(-1, 1)", 1, -1)

    def terms(self, pairs: Pairs) -> tuple[Terms, ...]:
        """One term per anchor."""
        return (multi_similarity_terms(pairs, self.alpha, self.beta, self.base),)


@keras.saving.register_keras_serializable(package="tupletface")
class CircleLoss(_OfOptions):
    """Circle loss, Sun et al., CVPR 2020, equations 5 and 6, for pair-wise labels.

    Mean over anchors with a positive and a negative of
    log(1 + sum_n exp(scale a_n (s_an - margin)) sum_p exp(-scale a_p (s_ap - 1 + margin))). The weights
    a_p = [1 + margin - s_ap]+ and a_n = [s_an + margin]+ are not differentiated. Nothing differs from the paper.

    Args:
        margin: cosine, in (0, 1): positives shall be above 1 - margin, negatives below margin.
        scale: factor of the cosines, greater than 0.
        **keras_options: `name` and `reduction`, as for every Keras loss.

    Raises:
        ValueError: an argument is out of range, or a batch's shapes are of neither form.
    """

    def __init__(self, margin: float = 0.25, scale: float = 256.0, **keras_options: Any):
        super().__init__(**keras_options)
        self.margin = number_between("margin", margin, "(0, 1)", 1)
        self.scale = number_between("scale", scale, "(0, inf)")

    def terms(self, pairs: Pairs) -> tuple[Terms, ...]:
        """One term per anchor that has both kinds of pairs."""
        return (circle_terms(pairs, self.margin, self.scale),)


@keras.saving.register_keras_serializable(package="tupletface")
class SupConLoss(_OfOptions):
    """Supervised contrastive loss, Khosla et al., "Supervised contrastive learning", NeurIPS 2020, equation 2.

    Mean over anchors with a positive and a negative of the mean over their positives of
    -log(exp(s_ap / temperature) / sum_{j != a} exp(s_aj / temperature)): L_out, j over positives and negatives. The
    paper sums over anchors, has two views of each picture, and counts anchors without a negative too.

    Args:
        temperature: what the cosines are divided by, greater than 0.
        **keras_options: `name` and `reduction`, as for every Keras loss.

    Raises:
        ValueError: an argument is out of range, or a batch's shapes are of neither form.
    """

    def __init__(self, temperature: float = 0.1, **keras_options: Any):
        super().__init__(**keras_options)
        self.temperature = number_between("temperature", temperature, "(0, inf)")

    def terms(self, pairs: Pairs) -> tuple[Terms, ...]:
        """One term per anchor that has both kinds of pairs."""
        return (supcon_terms(pairs, self.temperature),)


def tuplet_margin_ipv(
    margin: float = 0.1,
    scale: float = 64.0,
    hardest: int | None = None,
    epsilon: float = 0.01,
    **keras_options: Any,
) -> WeightedSum:
    """`TupletMarginLoss` plus half of `IntraPairVarianceLoss`: what Yu & Tao, ICCV 2019, train with."""
    parts = TupletMarginLoss(margin, scale, hardest), IntraPairVarianceLoss(epsilon)
    return WeightedSum(parts, (1.0, 0.5), **keras_options)


def tuplet_margin_loss(labels: Tensor, embeddings: Tensor, **options: Any) -> Tensor:
    """(B,) float32 whose mean is the loss, as a function; the options are `TupletMarginLoss`'s."""
    return TupletMarginLoss(**options).call(labels, embeddings)


def triplet_loss(labels: Tensor, embeddings: Tensor, **options: Any) -> Tensor:
    """(B,) float32 whose mean is the loss, as a function; the options are `TripletLoss`'s."""
    return TripletLoss(**options).call(labels, embeddings)


LOSSES: dict[str, Callable[..., PairLoss]] = {
    "tuplet_margin": TupletMarginLoss,
    "tuplet_margin_ipv": tuplet_margin_ipv,
    "triplet": TripletLoss,
    "contrastive": ContrastiveLoss,
    "n_pair": NPairLoss,
    "multi_similarity": MultiSimilarityLoss,
    "circle": CircleLoss,
    "supcon": SupConLoss,
    "intra_pair_variance": IntraPairVarianceLoss,
}


def options(name: str) -> tuple[str, ...]:
    """The names of a loss's own options: its arguments but for Keras's `name` and `reduction`.

    Raises:
        ValueError: there is no such loss.
    """
    if name not in LOSSES:
        raise ValueError(f"There is no loss {name!r}: {nearest_name(name, list(LOSSES))}")
    return _arguments(LOSSES[name])


def get(name: str, /, **chosen: Any) -> PairLoss:
    """The loss of this name with these options, which are its class's arguments.

    Raises:
        ValueError: there is no such loss or option, or an option's value is wrong.
    """
    known = [*options(name), "name", "reduction"]
    for option in chosen:
        if option not in known:
            raise ValueError(f"The loss {name!r} has no option `{option}`: {nearest_name(option, known)}")
    return LOSSES[name](**chosen)


def _arguments(maker: Callable[..., PairLoss]) -> tuple[str, ...]:
    parameters = inspect.signature(maker).parameters.values()
    return tuple(parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD)
