"""Learning rates layer by layer, against Adam and SGD written out in NumPy."""

from __future__ import annotations

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from facekit.backbones import build_backbone
from facekit.layer_rates import rate_factors, stage_depths, with_own_rates
from facekit.layers import all_layers

# Beginnings of layer names, from the last stage to the first.
STAGES = {
    "small": (64, ["layer4", "layer3", "layer2", "layer1", "conv1 bn1"]),
    "resnet18": (112, ["layer4", "layer3", "layer2", "conv1 bn1 layer1"]),
    "dlib_resnet29": (150, ["layer5", "layer4", "layer3", "layer2", "layer1", "conv1 bn1"]),
    "resnet50": (112, ["conv5", "conv4", "conv3", "conv2", "conv1"]),
}


@pytest.mark.parametrize("name", STAGES)
def test_stages_are_those_of_the_names(name):
    size, stages = STAGES[name]
    backbone = build_backbone(name, size)
    depths = stage_depths(backbone)
    for layer in backbone.layers:
        if layer.weights:
            expected = [n for n, names in enumerate(stages, 1) if layer.name.startswith(tuple(names.split()))]
            assert [depths[layer.name]] == expected, layer.name


def in_order(backbone: keras.Model, kind: type[keras.layers.Layer]) -> list[str]:
    """Names of layers that Keras numbers as they are made."""
    names = [layer.name for layer in backbone.layers if isinstance(layer, kind)]
    return sorted(names, key=lambda name: int(name.rpartition("_")[2]) if name[-1].isdigit() else 0)


@pytest.mark.parametrize("size", [75, 112, 299])
def test_inception_v3s_stages_end_where_its_maps_halve(size):
    """In a reduction only the last layer of each way belongs to the next stage; as Keras builds the network."""
    backbone = build_backbone("inception_v3", size)
    depths = stage_depths(backbone)
    stem, first_blocks = [5] * 3 + [4] * 2, [3] * 7 * 3
    reduction, blocks = [2, 3, 3, 2], [2] * 10 * 4
    reduction2, last_blocks = [2, 1, 2, 2, 2, 1], [1] * 9 * 2
    expected = [*stem, *first_blocks, *reduction, *blocks, *reduction2, *last_blocks]
    for kind in (keras.layers.Conv2D, keras.layers.BatchNormalization):
        assert [depths[name] for name in in_order(backbone, kind)] == expected


@pytest.mark.parametrize("size", [112, 160])
def test_inception_resnets_stages_are_those_of_the_names(size):
    stages = [
        r"repeat_3|block8|mixed_7a\.branch[01]\.1|mixed_7a\.branch2\.2",
        r"repeat_2|mixed_7a|mixed_6a\.branch0|mixed_6a\.branch1\.2",
        r"conv2d_4b|repeat_1|mixed_6a",
        r"conv2d_3b|conv2d_4a",
        r"conv2d_1a|conv2d_2a|conv2d_2b",
    ]
    backbone = build_backbone("inception_resnet_v1", size)
    depths = stage_depths(backbone)
    layers = [layer.name for layer in backbone.layers if layer.weights]
    expected = {name: next(n for n, names in enumerate(stages, 1) if re.match(names, name)) for name in layers}
    assert {name: depths[name] for name in layers} == expected and set(expected.values()) == {1, 2, 3, 4, 5}


def test_squeezed_side_ways_belong_to_the_map_they_come_back_to():
    backbone = build_backbone("efficientnet_b0", 128)
    depths = stage_depths(backbone)
    assert set(depths.values()) == {1, 2, 3, 4, 5}
    order = [depths[layer.name] for layer in backbone.layers if layer.weights]
    assert order == sorted(order, reverse=True)
    assert depths["block3b_se_reduce"] == depths["block3b_project_conv"] == 3 and depths["block7a_se_expand"] == 1


def model() -> keras.Model:
    """A network of two stages inside another, and a head."""
    image = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, 2, "same", name="early")(image)
    x = keras.layers.Conv2D(2, 3, 2, "same", name="late")(x)
    backbone = keras.Model(image, x, name="body")
    outer = keras.Input((8, 8, 3))
    x = keras.layers.Flatten()(backbone(outer))
    return keras.Model(outer, keras.layers.Dense(2, name="head")(x))


def factors_of(network: keras.Model, **options) -> dict[str, float]:
    """Factor by layer; kernel and bias have the same."""
    variables = [v for layer in all_layers(network) if not isinstance(layer, keras.Model) for v in layer.weights]
    names = [layer.name for layer in all_layers(network) if not isinstance(layer, keras.Model) and layer.weights]
    found = rate_factors(network, variables, **options)
    assert found[::2] == found[1::2]
    return dict(zip(names, found[::2], strict=True))


def test_factors_fall_from_the_head_and_names_overrule_them():
    network = model()
    assert factors_of(network) == {"early": 1, "late": 1, "head": 1}
    assert factors_of(network, decay=0.5) == {"early": 0.25, "late": 0.5, "head": 1}
    given = {"body": 0.1, "lat": 0.2, "late": 0.3}
    assert factors_of(network, decay=0.5, given=given) == {"early": 0.1, "late": 0.3, "head": 1}
    stranger = keras.Variable(np.zeros(3))
    assert rate_factors(network, [stranger], decay=0.5) == (1.0,)
    with pytest.raises(ValueError, match="`learning_rates`: no layer's name begins with 'lte'"):
        rate_factors(network, [], given={"lte": 1.0})


def numpy_adam(start, gradients, rate, decay, betas=(0.9, 0.999), epsilon=1e-7):
    """Kingma & Ba 2015, algorithm 1 in the order of section 2's last lines; decay as Loshchilov & Hutter 2019."""
    value, first, second = start.astype(np.float64), 0.0, 0.0
    for step, gradient in enumerate(gradients, 1):
        value = value - rate * decay * value
        first = betas[0] * first + (1 - betas[0]) * gradient
        second = betas[1] * second + (1 - betas[1]) * gradient**2
        alpha = rate * np.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step)
        value = value - alpha * first / (np.sqrt(second) + epsilon)
    return value


def numpy_sgd(start, gradients, rate, decay, momentum=0.9):
    """Nesterov's momentum as Keras has it."""
    value, velocity = start.astype(np.float64), 0.0
    for gradient in gradients:
        value = value - rate * decay * value
        velocity = momentum * velocity - rate * gradient
        value = value + momentum * velocity - rate * gradient
    return value


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("kind", "options", "oracle"),
    [
        (keras.optimizers.Adam, {}, numpy_adam),
        (keras.optimizers.AdamW, {"weight_decay": 0.1}, numpy_adam),
        (keras.optimizers.SGD, {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1}, numpy_sgd),
    ],
)
def test_each_variable_takes_its_own_steps(kind, options, oracle, compiled, rng):
    starts = [rng.normal(size=3).astype("float32") for _ in range(3)]
    variables = [keras.Variable(start, name=f"v{n}") for n, start in enumerate(starts)]
    factors = (0.25, 0.5, 1.0)
    optimizer = with_own_rates(kind, factors)(learning_rate=0.1, **options)
    optimizer.build(variables)
    if "weight_decay" in options:
        optimizer.exclude_from_weight_decay(var_names=["v2"])
    gradients = rng.normal(size=(5, 3, 3)).astype("float32")
    apply = tf.function(lambda grads: optimizer.apply(tf.unstack(grads)), jit_compile=compiled)
    for step in gradients:
        apply(step)
    decays = [options.get("weight_decay", 0.0)] * 2 + [0.0]
    for n, variable in enumerate(variables):
        expected = oracle(starts[n], gradients[:, n], 0.1 * factors[n], decays[n])
        np.testing.assert_allclose(np.asarray(variable), expected, rtol=2e-5, atol=2e-6)


def test_an_optimizer_of_one_rate_is_keras_own():
    assert with_own_rates(keras.optimizers.Adam, (1.0, 1.0)) is keras.optimizers.Adam
    assert with_own_rates(keras.optimizers.Adam, ()) is keras.optimizers.Adam
