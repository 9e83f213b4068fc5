"""Classification heads: a centre for each class, trained with the model and dropped from the product.

A head takes a batch's raw embeddings and class numbers and returns a value per row whose mean is the loss:
-log softmax of the row's own class. With rows and centres of unit length a logit is scale cos(theta), and a margin
makes the own class's harder to win: that is all in which the heads differ.

Products are float32. A GPU that rounds their factors to TensorFloat-32 has cosines to about 1e-3, as the papers'
own code, which multiplies in float16.
"""

from __future__ import annotations

import inspect
from math import cos, log, pi, sin
from typing import Any

import keras
import numpy as np
from keras import ops

from facekit.arguments import count_or_none, nearest_name, number_between
from facekit.formulas import SMALLEST_SIN_SQUARED
from facekit.mining import FAR
from facekit.pairwise import Tensor, unit_rows

# AdaFace keeps angles so far from 0 and pi, and adds as much to a deviation that it divides by.
SMALLEST_ANGLE = 1e-3
# Between these AdaFace's norms are clipped, and so are its running averages.
SMALLEST_QUALITY_NORM, LARGEST_QUALITY_NORM = 1e-3, 100.0
# Share of the newest batch in AdaFace's running averages.
AVERAGING_RATE = 0.01


class Head(keras.layers.Layer):
    """Base of the heads: class centres, the classes of a step, and the softmax. A subclass says what a margin does.

    Weights: `centres` (classes, subcentres, D) float32, from a normal distribution of deviation 0.01.

    Call: rows (B, D) of any float dtype and norm, labels (B,) integers in [0, classes), to (B,) float32. A label
    out of that range gives NaN, so that it shows. Rows are cast to float32 first, under any mixed precision.

    With `subcentres`, a class's logit is the largest of its subcentres' (Deng et al., "Sub-center ArcFace", ECCV
    2020, section 3.2): a class of mislabelled or very different pictures gathers them around several centres.

    With `sampled`, a training step sees only the batch's classes and random others (An et al., "Partial FC", 2021,
    and "Killing two birds with one stone", CVPR 2022), and the loss is that of these classes alone; the number is
    fixed, where the papers take a share, so that XLA can compile it. Others' centres get no gradient, but momentum
    and weight decay of an optimizer still move them. Evaluation sees all classes. The draws' state is among
    `variables`, though in no weights file: a resumed run draws on if all its variables are kept.

    Memory: besides the weights a step holds 1.5 (a graph) to 5 times (eager) 4 C subcentres (B + D) bytes, with C
    the classes that it sees. An optimizer's slots are for all classes: Adam's are twice the weights.

    Args:
        classes: how many there are, at least 1.
        subcentres: centres a class, at least 1.
        sampled: how many classes a training step sees, at least the number of rows; all if None, or not fewer than
            `classes`.
        seed: of the first centres and of the draws.
        **layer_options: `name` and `trainable`. The dtype is float32 whatever is asked.

    Raises:
        ValueError: an argument is out of range; a batch has other shapes, or more rows than `sampled`.
    """

    scale = 1.0

    def __init__(
        self, classes: int, subcentres: int = 1, sampled: int | None = None, seed: int = 0, **layer_options: Any
    ):
        super().__init__(**{**layer_options, "dtype": "float32"})
        self.classes = _count("classes", classes)
        self.subcentres = _count("subcentres", subcentres)
        self.sampled = count_or_none("sampled", sampled)
        self.seed = seed
        self._seen = min(self.sampled or self.classes, self.classes)
        self._seeds = keras.random.SeedGenerator(seed)

    def build(self, rows_shape: tuple[int | None, ...], labels_shape: tuple[int | None, ...] | None = None) -> None:
        """Make the centres for rows of shape (B, D)."""
        self.centres = self.add_weight(
            shape=(self.classes, self.subcentres, rows_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=0.01, seed=self.seed),
            name="centres",
        )

    def call(self, rows: Tensor, labels: Tensor, training: bool | None = None) -> Tensor:
        """(B,) float32 per row, whose mean is the loss."""
        return self.outcome(rows, labels, bool(training))[0]

    def outcome(self, rows: Tensor, labels: Tensor, training: bool = False) -> tuple[Tensor, Tensor]:
        """The loss, and who was recognised, from one product. The layer must be built.

        Args:
            rows: (B, D) of any float dtype and norm.
            labels: (B,) integers in [0, classes).
            training: draw classes where `sampled`, and update what a head averages.

        Returns:
            Two (B,) float32: values whose mean is the loss; and 1 where the row's own class has the largest logit,
            without margin, of this step's classes, else 0. A tie counts 0: a collapsed model recognises nobody.
        """
        rows, labels = _batch(rows, labels)
        own, others = self._compare(rows, labels, self._draw(labels, self._seeds) if training else None)
        target = self.scale * self._less_margin(own, rows, training)
        # -log softmax in the form that stays exact where the loss is small.
        return ops.softplus(ops.logsumexp(others, axis=1) - target), self._recognised(own, others)

    def statistics(self, rows: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Figures that show how training goes; nothing is drawn or updated. The layer must be built.

        Returns:
            class_accuracy: float32 scalar, share of the rows whose own class has the largest logit, without margin.
            Among all classes; with `sampled`, among the batch's classes and the same others every time.
        """
        rows, labels = _batch(rows, labels)
        recognised = self._recognised(*self._compare(rows, labels, self._draw(labels, self.seed)))
        return {"class_accuracy": ops.mean(recognised)}

    def do_nothing_value(self) -> float:
        """The training loss of embeddings that say nothing: every cosine 0, every norm AdaFace's mean."""
        if self._seen == 1:
            return 0.0
        return float(np.logaddexp(0.0, log(self._seen - 1) - self.scale * self._nothing_less_margin()))

    def get_config(self) -> dict[str, Any]:
        """The arguments, for `from_config`."""
        names = ("classes", "subcentres", "sampled", "seed")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

    def _prepare(self, vectors: Tensor) -> Tensor:
        """Rows or centres as they are multiplied."""
        return vectors

    def _less_margin(self, own: Tensor, rows: Tensor, training: bool) -> Tensor:
        """(B,) each row's product with its own class, before scaling, less the margin."""
        return own

    def _nothing_less_margin(self) -> float:
        """A product of 0 less the margin."""
        return 0.0

    def _draw(self, labels: Tensor, seed: keras.random.SeedGenerator | int) -> Tensor | None:
        """(sampled,) the classes of a step: all of `labels` and random others. None: all there are."""
        if self._seen == self.classes:
            return None
        if labels.shape[0] is not None and labels.shape[0] > self._seen:
            raise ValueError(
                f"`sampled` must be at least the number of rows, {labels.shape[0]}. "
                f"Received: sampled={self.sampled}"
            )
        chances = keras.random.uniform((self.classes,), seed=seed)
        present = ops.full_like(labels, 2.0, dtype="float32")
        return ops.top_k(ops.scatter_update(chances, labels[:, None], present), self._seen)[1]

    def _compare(self, rows: Tensor, labels: Tensor, drawn: Tensor | None) -> tuple[Tensor, Tensor]:
        """Rows against the classes: (B,) own products; (B, C) scaled ones, with the own class as good as absent."""
        classes = ops.arange(self.classes) if drawn is None else drawn
        centres = self.centres if drawn is None else ops.take(self.centres, drawn, axis=0)
        centres = ops.reshape(self._prepare(centres), (-1, self.centres.shape[-1]))
        products = ops.matmul(self._prepare(rows), ops.transpose(centres))
        if self.subcentres > 1:
            products = ops.max(ops.reshape(products, (-1, classes.shape[0], self.subcentres)), axis=-1)
        is_own = ops.equal(labels[:, None], ops.cast(classes, "int32"))
        own = ops.sum(ops.where(is_own, products, 0.0), axis=1)
        own = ops.where(ops.any(is_own, axis=1), own, float("nan"))
        return own, ops.where(is_own, -FAR, self.scale * products)

    def _recognised(self, own: Tensor, others: Tensor) -> Tensor:
        return ops.cast(self.scale * own > ops.max(others, axis=1), "float32")


@keras.saving.register_keras_serializable(package="tupletface")
class Softmax(Head):
    """Plain softmax, as FaceNet's classifier training in davidsandberg/facenet: logit row . centre.

    No bias and no margin. Neither rows nor centres are normalised: their lengths are the logits' scale, which the
    other heads fix. Unit rows and centres with scale 1 could not come near a loss of 0.

    Args, call and errors: `Head`'s.
    """


class _MarginHead(Head):
    """Unit rows and centres: a logit is scale cos(theta), and the own class's is less a margin."""

    largest_margin: float
    margin_interval: str

    def __init__(self, classes: int, margin: float, scale: float, **head_options: Any):
        super().__init__(classes, **head_options)
        self.margin = number_between("margin", margin, self.margin_interval, self.largest_margin)
        self.scale = number_between("scale", scale, "(0, inf)")

    def get_config(self) -> dict[str, Any]:
        """The arguments, for `from_config`."""
        return {**super().get_config(), "margin": self.margin, "scale": self.scale}

    def _prepare(self, vectors: Tensor) -> Tensor:
        return unit_rows(vectors)

    def _nothing_less_margin(self) -> float:
        return -self.margin


@keras.saving.register_keras_serializable(package="tupletface")
class ArcFace(_MarginHead):
    """Additive angular margin: Deng et al., "ArcFace", CVPR 2019, equation 3.

    The own class's logit is scale cos(theta + margin), and where theta + margin > pi, where that would rise again,
    scale (cos theta - margin sin margin), as in the authors' code.

    Args:
        classes: how many there are.
        margin: radians, in (0, pi/2).
        scale: of the cosines, greater than 0.
        **head_options: `Head`'s.

    Call and errors: `Head`'s.
    """

    largest_margin, margin_interval = pi / 2, "(0, pi/2)"

    def __init__(self, classes: int, margin: float = 0.5, scale: float = 64.0, **head_options: Any):
        super().__init__(classes, margin, scale, **head_options)

    def _less_margin(self, own: Tensor, rows: Tensor, training: bool) -> Tensor:
        beyond_pi = own < -cos(self.margin)
        return ops.where(beyond_pi, own - self.margin * sin(self.margin), _cos_of_sum(own, self.margin))

    def _nothing_less_margin(self) -> float:
        return -sin(self.margin)


@keras.saving.register_keras_serializable(package="tupletface")
class CosFace(_MarginHead):
    """Additive cosine margin: Wang et al., "CosFace", CVPR 2018, equation 4: scale (cos theta - margin).

    Args:
        classes: how many there are.
        margin: cosine, in (0, 2).
        scale: of the cosines, greater than 0.
        **head_options: `Head`'s.

    Call and errors: `Head`'s.
    """

    largest_margin, margin_interval = 2.0, "(0, 2)"

    def __init__(self, classes: int, margin: float = 0.35, scale: float = 64.0, **head_options: Any):
        super().__init__(classes, margin, scale, **head_options)

    def _less_margin(self, own: Tensor, rows: Tensor, training: bool) -> Tensor:
        return own - self.margin


@keras.saving.register_keras_serializable(package="tupletface")
class AdaFace(_MarginHead):
    """Margin by a picture's quality, which the embedding's norm stands for: Kim et al., "AdaFace", CVPR 2022.

    Section 3.3. A row's quality is q = clip(h (norm - mean) / (std + 1e-3), -1, 1), from its raw norm clipped to
    [0.001, 100], without a gradient; mean and deviation of the norms are running averages, rate 0.01, from 20 and
    100. The own class's logit is scale (cos(clip(theta - margin q, 1e-3, pi - 1e-3)) - (margin + margin q)): at
    q = -1 an angular margin as ArcFace's, at q = 0 a cosine's as CosFace's.

    As in the authors' code, the averages take the batch in before it is judged by them. Unlike there, the deviation
    is the population's, so that one row gives no NaN, and cosines are not clipped but their angle. Of several
    replicas, the averages take the mean of their means and deviations.

    Weights besides `Head`'s: `norm_mean` and `norm_std`, float32 scalars, updated in training only.

    Args:
        classes: how many there are.
        margin: radians and cosine, in (0, pi/2).
        h: how soon a norm counts as extreme, greater than 0; at 0.333, three deviations from the mean.
        scale: of the cosines, greater than 0.
        **head_options: `Head`'s.

    Call and errors: `Head`'s. Rows must be raw embeddings: unit rows all have the same quality.
    """

    largest_margin, margin_interval = pi / 2, "(0, pi/2)"

    def __init__(
        self, classes: int, margin: float = 0.4, h: float = 0.333, scale: float = 64.0, **head_options: Any
    ):
        super().__init__(classes, margin, scale, **head_options)
        self.h = number_between("h", h, "(0, inf)")

    def build(self, rows_shape: tuple[int | None, ...], labels_shape: tuple[int | None, ...] | None = None) -> None:
        """Make the centres for rows of shape (B, D), and the running averages."""
        super().build(rows_shape, labels_shape)
        self.norm_mean = self._average("norm_mean", 20.0)
        self.norm_std = self._average("norm_std", 100.0)

    def get_config(self) -> dict[str, Any]:
        """The arguments, for `from_config`."""
        return {**super().get_config(), "h": self.h}

    def _average(self, name: str, start: float) -> keras.Variable:
        start_value = keras.initializers.Constant(start)
        return self.add_weight(shape=(), initializer=start_value, trainable=False, aggregation="mean", name=name)

    def _less_margin(self, own: Tensor, rows: Tensor, training: bool) -> Tensor:
        turn = self.margin * self._quality(rows, training)
        # The angle is only compared: no gradient goes through arccos.
        angle = ops.arccos(ops.clip(own, -1.0, 1.0)) - turn
        turned = ops.where(angle < SMALLEST_ANGLE, cos(SMALLEST_ANGLE), _cos_of_sum(own, -turn))
        turned = ops.where(angle > pi - SMALLEST_ANGLE, -cos(SMALLEST_ANGLE), turned)
        return turned - (self.margin + turn)

    def _quality(self, rows: Tensor, training: bool) -> Tensor:
        """(B,) float32 in [-1, 1], without a gradient."""
        norms = ops.norm(ops.stop_gradient(rows), axis=1)
        norms = ops.clip(norms, SMALLEST_QUALITY_NORM, LARGEST_QUALITY_NORM)
        if training:
            for average, batch in ((self.norm_mean, ops.mean(norms)), (self.norm_std, ops.std(norms))):
                average.assign(average + AVERAGING_RATE * (batch - average))
        return ops.clip(self.h * (norms - self.norm_mean) / (self.norm_std + SMALLEST_ANGLE), -1.0, 1.0)


def _batch(rows: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """A batch as float32 and int32, of shapes that fit."""
    rows, labels = ops.convert_to_tensor(rows), ops.convert_to_tensor(labels)
    shapes = tuple(rows.shape), tuple(labels.shape)
    # A size that is unknown while a graph is traced matches any other.
    if len(shapes[0]) != 2 or len(shapes[1]) != 1 or len({shapes[0][0], shapes[1][0]} - {None}) > 1:
        raise ValueError(f"Expected rows (B, D) with labels (B,). Received: rows {shapes[0]}, labels {shapes[1]}.")
    return ops.cast(rows, "float32"), ops.cast(labels, "int32")


def _cos_of_sum(cosines: Tensor, angle: Tensor | float) -> Tensor:
    """cos(arccos(c) + angle) without arccos, whose slope is infinite at 1 and -1."""
    sines = ops.sqrt(ops.maximum((1.0 - cosines) * (1.0 + cosines), SMALLEST_SIN_SQUARED))
    return cosines * ops.cos(angle) - sines * ops.sin(angle)


def _count(name: str, value: Any) -> int:
    try:
        count = count_or_none(name, value)
    except ValueError:
        count = None
    if count is None:
        raise ValueError(f"`{name}` must be an integer of at least 1. Received: {name}={value!r}")
    return count


HEADS: dict[str, type[Head]] = {"softmax": Softmax, "arcface": ArcFace, "cosface": CosFace, "adaface": AdaFace}


def options(name: str) -> tuple[str, ...]:
    """The options that shape a head of this name: its own, then `subcentres` and `sampled`.

    Raises:
        ValueError: there is no such head.
    """
    if name not in HEADS:
        raise ValueError(f"There is no head {name!r}: {nearest_name(name, list(HEADS))}")
    parameters = [*inspect.signature(HEADS[name]).parameters, *inspect.signature(Head).parameters]
    others = ("classes", "seed", "head_options", "layer_options")
    return tuple(dict.fromkeys(parameter for parameter in parameters if parameter not in others))


def get(name: str, /, classes: int, **chosen: Any) -> Head:
    """The head of this name for so many classes; the options are its class's arguments.

    Raises:
        ValueError: there is no such head or option, or an option's value is wrong.
    """
    known = [*options(name), "seed", "name"]
    for option in chosen:
        if option not in known:
            raise ValueError(f"The head {name!r} has no option `{option}`: {nearest_name(option, known)}")
    return HEADS[name](classes, **chosen)
