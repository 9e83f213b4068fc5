"""Learning rates layer by layer: what a network knows already moves less than its new head.

Layer-wise decay of the rate as ELECTRA (Clark et al. 2020, https://arxiv.org/abs/2003.10555) and BEiT (Bao et al.
2022, https://arxiv.org/abs/2106.08254) are fine-tuned with, by stages instead of single layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import log2
from types import MappingProxyType
from typing import Any

import keras
from keras import ops

from facekit.layers import all_layers

NOTHING: Mapping[str, float] = MappingProxyType({})


def stage_depths(backbone: keras.Model) -> dict[str, int]:
    """How far the stage of each layer lies from the head: 1 for the last stage, one more for each before it.

    A stage is what works on maps of one size (He et al. 2015): a layer belongs to the size of its output, but for
    the side ways on which a map shrinks to a point and comes back (squeeze and excitation).

    Args:
        backbone: pictures to a feature map, its layers in the order of computing.
    """
    side = backbone.input_shape[1]
    halvings, widest = {}, 1
    for layer in reversed(backbone.layers):
        if len(layer.output.shape) == 4:
            widest = max(widest, int(layer.output.shape[1]))
        halvings[layer.name] = round(log2(side / min(widest, side)))
    with_weights = {halvings[layer.name] for layer in backbone.layers if layer.weights}
    depths = {stage: depth for depth, stage in enumerate(sorted(with_weights, reverse=True), 1)}
    return {name: depths[stage] for name, stage in halvings.items() if stage in depths}


def rate_factors(
    network: keras.Model,
    variables: Sequence[keras.Variable],
    decay: float = 1.0,
    given: Mapping[str, float] = NOTHING,
) -> tuple[float, ...]:
    """What the learning rate is multiplied by for each variable.

    Args:
        network: its layers have full rate, those of networks inside it `decay` to the power of their stage's depth.
        variables: of the network; all others have full rate too.
        decay: in (0, 1].
        given: factors by the beginning of a layer's name, instead of the decayed ones. A network's name stands for
            all of it; names inside it come before its own, and longer ones before shorter ones.

    Raises:
        ValueError: no layer's name begins as a given one.
    """
    names = [layer.name for layer in all_layers(network)]
    for beginning in given:
        if not any(name.startswith(beginning) for name in names):
            raise ValueError(f"`learning_rates`: no layer's name begins with {beginning!r}.")
    factors = {}
    for layer, above, depth in _leaves(network):
        chosen = _chosen((layer.name, *above), given)
        for variable in layer.weights:
            factors[id(variable)] = decay**depth if chosen is None else chosen
    return tuple(factors.get(id(variable), 1.0) for variable in variables)


def _leaves(network: keras.Model) -> Iterator[tuple[keras.layers.Layer, tuple[str, ...], int]]:
    """Layers that are no networks, the names of the networks around each from the inside, and its depth."""
    for outer in network.layers:
        if not isinstance(outer, keras.Model):
            yield outer, (), 0
            continue
        depths = stage_depths(outer)
        for inner in outer.layers:
            yield inner, (outer.name,), depths.get(inner.name, 0)


def _chosen(names: Sequence[str], given: Mapping[str, float]) -> float | None:
    for name in names:
        if fitting := [beginning for beginning in given if name.startswith(beginning)]:
            return given[max(fitting, key=len)]
    return None


class OwnRates:
    """Makes an optimizer take each variable's step, and its decoupled weight decay, at the variable's own rate.

    The rate is scaled, not the gradient: Adam's steps do not depend on the scale of gradients. Comes before the
    optimizer among the bases of a class: `with_own_rates`.
    """

    factors: tuple[float, ...] = ()

    def update_step(self: Any, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """The optimizer's step for one variable."""
        rate = ops.multiply(learning_rate, self.factors[self._get_variable_index(variable)])
        if self.weight_decay is not None and self._use_weight_decay(variable):
            self.assign_sub(variable, ops.multiply(variable, ops.cast(rate * self.weight_decay, variable.dtype)))
        super(OwnRates, self).update_step(gradient, variable, rate)  # type: ignore[misc]  # the next base has it

    def _apply_weight_decay(self, variables: Any) -> None:
        """Nothing here: Keras would decay all variables at one rate."""


def with_own_rates(kind: type[keras.optimizers.Optimizer], factors: Sequence[float]) -> Any:
    """The class of an optimizer whose rate is multiplied for each variable; itself where every factor is 1.

    Args:
        kind: the optimizer's class.
        factors: one for each variable that it will be built with, in their order.
    """
    if all(factor == 1.0 for factor in factors):
        return kind
    return type(kind.__name__, (OwnRates, kind), {"factors": tuple(factors), "__doc__": OwnRates.__doc__})
