"""Augmentation: which pictures get what, the same for one (seed, step), whatever else is on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import scipy.stats

from facekit.augment import AUGMENTATIONS, Augmentation, find
from facekit.augment_geometry import Warps
from facekit.sampling import generator

NAMES = [change.name for change in AUGMENTATIONS]
ALL_HALF = {change.name: (0.5, change.strength) for change in AUGMENTATIONS}
USUAL = {change.name: (change.probability, change.strength) for change in AUGMENTATIONS}


@pytest.fixture
def pictures(rng) -> np.ndarray:
    """Forty pictures, 24 by 24, each with a gradient of its own colour and some noise."""
    ramp = np.linspace(40, 200, 24)[None, :, None, None] * rng.uniform(0.5, 1, (40, 1, 1, 3))
    return np.clip(ramp + rng.normal(0, 8, (40, 24, 24, 3)), 0, 255).astype(np.uint8)


def always(name: str, strength: float | None = None) -> Augmentation:
    return Augmentation({name: (1.0, find(name).strength if strength is None else strength)})


def test_nothing_is_on_unless_named(pictures):
    for chances in ({}, {name: (0.0, find(name).strength) for name in NAMES}):
        plan = Augmentation(chances).plan(0, 5, len(pictures))
        assert all(plan.apply(place, image) is image for place, image in enumerate(pictures))


@pytest.mark.parametrize("name", NAMES)
def test_each_changes_every_picture_when_it_is_certain(name, pictures):
    before = pictures.copy()
    out = always(name, 0.2 if name == "blur" else None)(pictures, 0, 5)
    assert out.dtype == np.uint8 and out.shape == pictures.shape
    changed = (out != pictures).any(axis=(1, 2, 3)).mean()
    # A small draw may leave a picture as it is.
    assert changed > 0.8
    np.testing.assert_array_equal(pictures, before)


@pytest.mark.parametrize("name", NAMES)
def test_each_happens_as_often_as_asked(name):
    plan = Augmentation({name: (0.3, find(name).strength)}).plan(3, 7, 1000)
    happened = sum(bool(steps) for steps in plan._steps)
    low, high = scipy.stats.binom.ppf([1e-4, 1 - 1e-4], 1000, 0.3)
    assert low <= happened <= high


def test_flip_mirrors_about_half_of_the_pictures_exactly(pictures):
    out = Augmentation({"flip": (0.5, 1)})(pictures, 0, 5)
    mirrored = (out == pictures[:, :, ::-1]).all(axis=(1, 2, 3))
    kept = (out == pictures).all(axis=(1, 2, 3))
    assert (mirrored | kept).all() and 10 <= mirrored.sum() <= 30


def test_the_same_seed_and_step_give_the_same_and_others_do_not(pictures):
    augmentation = Augmentation(ALL_HALF)
    out = augmentation(pictures, 4, 9)
    np.testing.assert_array_equal(Augmentation(ALL_HALF)(pictures, 4, 9), out)
    for seed, step in ((4, 10), (5, 9), (9, 4)):
        assert (augmentation(pictures, seed, step) != out).any(axis=(1, 2, 3)).mean() > 0.95


def test_pictures_of_a_batch_get_their_own_draws(pictures):
    same = np.repeat(pictures[:1], 40, axis=0)
    for name in ("rotation", "brightness", "noise", "cutout", "mixed_light", "hand"):  # shifts are one of 103
        out = always(name)(same, 0, 5)
        assert len({image.tobytes() for image in out}) > 25, name
    assert len({image.tobytes() for image in Augmentation(USUAL)(same, 0, 5)}) > 30


def test_draws_do_not_depend_on_the_batch_or_on_who_asks_first(pictures):
    augmentation = Augmentation(ALL_HALF)
    whole = augmentation(pictures, 1, 2)
    np.testing.assert_array_equal(augmentation(pictures[:7], 1, 2), whole[:7])
    plan = augmentation.plan(1, 2, 40)
    for place in np.random.default_rng(0).permutation(40):
        np.testing.assert_array_equal(plan.apply(place, pictures[place]), whole[place])


def test_threads_do_not_change_the_pixels(rng):
    images = rng.integers(0, 256, (60, 48, 48, 3)).astype(np.uint8)
    augmentation = Augmentation(ALL_HALF)
    one_by_one = augmentation(images, 1, 2)
    for workers in (2, 5):
        plan = augmentation.plan(1, 2, 60)
        with ThreadPoolExecutor(workers) as pool:
            out = list(pool.map(plan.apply, range(60), images))
        np.testing.assert_array_equal(out, one_by_one)


@pytest.mark.parametrize("name", NAMES)
def test_draws_of_one_do_not_depend_on_the_others(name):
    alone, among, else_ = (
        {**chances, name: (0.4, find(name).strength)}
        for chances in ({}, ALL_HALF, dict.fromkeys(["flip", "contrast"], (1, 1)))
    )
    place = NAMES.index(name)
    draws = [Augmentation(chances)._draw(place, find(name), 3, 1, 50) for chances in (alone, among, else_)]
    assert draws[0][1].shape == (50, find(name).draws)
    for happens, numbers in draws[1:]:
        np.testing.assert_array_equal(happens, draws[0][0])
        np.testing.assert_array_equal(numbers, draws[0][1])


def test_cutouts_and_flips_stay_where_they_are_when_others_are_switched_on(pictures):
    dark = np.zeros_like(pictures)
    alone = Augmentation({"cutout": (0.5, 0.3)})(dark, 0, 1)
    among = Augmentation({**ALL_HALF, "cutout": (0.5, 0.3), "mask": (0, 1), "sunglasses": (0, 1), "hand": (0, 1)})
    grey = (among(dark, 0, 1) == 128).all(axis=3)
    # Noise or brightness may hit 128 by chance; a cutout's pixels always do.
    assert grey[(alone == 128).all(axis=3)].all() and (alone == 128).any(axis=(1, 2, 3)).sum() in range(10, 31)


def test_geometry_is_one_warp_in_the_order_of_the_list(pictures):
    chances = {"rotation": (1.0, 40.0), "shift": (1.0, 0.3), "perspective": (1.0, 0.5)}
    augmentation = Augmentation(chances)
    whole = np.tile(np.eye(3), (40, 1, 1))
    for name in chances:
        _, numbers = augmentation._draw(NAMES.index(name), find(name), 2, 8, 40)
        whole = find(name).function(numbers, chances[name][1]) @ whole
    warps = Warps(whole)
    expected = [warps.apply(place, image) for place, image in enumerate(pictures)]
    np.testing.assert_array_equal(augmentation(pictures, 2, 8), expected)


@pytest.mark.parametrize("name", ["mask", "sunglasses", "hand"])
def test_the_margin_moves_what_lies_on_the_face(name, pictures):
    _, numbers = always(name)._draw(NAMES.index(name), find(name), 2, 8, 40)
    out = Augmentation({name: (1.0, 0.9)}, margin=0.4)(pictures, 2, 8)
    for image, changed, row in zip(pictures, out, numbers.tolist(), strict=True):
        np.testing.assert_array_equal(changed, find(name).function(image, 0.9, row, 0.4))


@pytest.mark.parametrize("name", ["mask", "sunglasses", "hand"])
def test_the_layout_moves_what_lies_on_the_face(name, pictures):
    _, numbers = always(name)._draw(NAMES.index(name), find(name), 2, 8, 40)
    out = Augmentation({name: (1.0, 0.9)}, layout="dlib_close")(pictures, 2, 8)
    usual = Augmentation({name: (1.0, 0.9)})(pictures, 2, 8)
    assert not np.array_equal(out, usual)
    for image, changed, row in zip(pictures, out, numbers.tolist(), strict=True):
        np.testing.assert_array_equal(changed, find(name).function(image, 0.9, row, 0.0, "dlib_close"))


def test_changing_a_probability_keeps_who_was_drawn_before():
    few, many = (
        [bool(steps) for steps in Augmentation({"grey": (share, 1)}).plan(0, 0, 200)._steps] for share in (0.2, 0.6)
    )
    assert sum(few) < sum(many) and all(b for a, b in zip(few, many, strict=True) if a)


def test_different_augmentations_draw_independently():
    shares = [Augmentation(ALL_HALF)._draw(place, find(name), 0, 0, 2000)[0] for place, name in enumerate(NAMES)]
    together = np.corrcoef(np.array(shares, float)) - np.eye(len(NAMES))
    assert np.abs(together).max() < 0.1


def test_streams_are_the_documented_ones():
    expected = generator(6, 16 + NAMES.index("rotation"), 11).random((5, 2))
    happens, numbers = Augmentation({"rotation": (0.5, 10)})._draw(
        NAMES.index("rotation"), find("rotation"), 6, 11, 5
    )
    np.testing.assert_array_equal(numbers, expected[:, 1:])
    np.testing.assert_array_equal(happens, expected[:, 0] < 0.5)


def test_the_usual_five_are_those_and_their_order_is_that_of_a_photograph():
    on = {name: chance for name, chance in USUAL.items() if chance[0] > 0}
    assert on == {"flip": (0.5, 1), "rotation": (0.5, 10), "contrast": (0.5, 0.2), "brightness": (0.5, 0.2),
                  "cutout": (0.25, 0.3)}  # fmt: skip
    kinds = [change.kind for change in AUGMENTATIONS]
    assert sum(a != b for a, b in pairwise(kinds)) == 4, "geometry and colour must each be one run to be composed"
    assert len(set(NAMES)) == len(NAMES) == 20
    assert NAMES.index("contrast") == kinds.index("colour"), "contrast needs the mean before other colour maps"


def test_a_cutout_hides_what_came_before_and_stays_grey():
    image = np.full((50, 50, 3), 200, np.uint8)
    mix = {"cutout": (1, 0.5), "brightness": (1, 0.2), "rotation": (1, 20), "noise": (1, 0.1)}
    out = Augmentation(mix)(image[None], 0, 0)[0]
    assert (out == 128).all(axis=2).sum() > 100


@pytest.mark.parametrize(
    ("image", "received"),
    [
        (np.zeros((8, 8, 3), np.float32), r"\(8, 8, 3\) float32"),
        (np.zeros((8, 8), np.uint8), r"\(8, 8\) uint8"),
        (np.zeros((8, 8, 4), np.uint8), r"\(8, 8, 4\) uint8"),
        (np.zeros((0, 8, 3), np.uint8), r"\(0, 8, 3\) uint8"),
    ],
)
def test_a_picture_of_another_kind_is_refused(image, received):
    with pytest.raises(ValueError, match=rf"must be \(H, W, 3\) uint8, 0 to 255\. Received: {received}\."):
        Augmentation(USUAL).plan(0, 0, 1).apply(0, image)


def test_a_batch_of_another_kind_is_refused():
    for images in (np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"must be \(n, H, W, 3\) uint8\. Received"):
            Augmentation()(images, 0, 0)


@pytest.mark.parametrize(
    ("chances", "sentence"),
    [
        ({"rotatoin": (0.5, 1)}, "There is no augmentation `rotatoin`: did you mean `rotation`?"),
        ({"flip": (1.5, 1)}, r"The probability of `flip` must be 0 to 1\. Received: 1\.5\."),
        ({"flip": (float("nan"), 1)}, r"The probability of `flip` must be 0 to 1"),
        (
            {"rotation": (0.5, 181)},
            r"The strength of `rotation` must be 0 to 180 \(degrees either way\)\. Received: 181",
        ),
        ({"low_resolution": (0.5, 0.5)}, r"The strength of `low_resolution` must be 1 to 32"),
    ],
)
def test_wrong_chances_are_one_sentence(chances, sentence):
    with pytest.raises(ValueError, match=sentence):
        Augmentation(chances)


def test_a_negative_margin_is_refused():
    with pytest.raises(ValueError, match=r"`margin` must be at least 0\. Received: -0\.1"):
        Augmentation(USUAL, -0.1)


def test_an_unknown_layout_is_refused():
    with pytest.raises(ValueError, match=r"`layout` must be one of arcface, dlib.* Received: square"):
        Augmentation(USUAL, layout="square")


def test_it_is_frozen_and_keeps_a_copy(pictures):
    chances = {"flip": (1.0, 1.0)}
    augmentation = Augmentation(chances)
    chances["rotation"] = (1.0, 90.0)
    np.testing.assert_array_equal(augmentation(pictures, 0, 0), pictures[:, :, ::-1])
    with pytest.raises(AttributeError):
        augmentation.margin = 0.3


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (64, 48)])
def test_any_size_of_picture_goes_through(shape, rng):
    images = rng.integers(0, 256, (12, *shape, 3)).astype(np.uint8)
    strongest = Augmentation({change.name: (1.0, change.highest) for change in AUGMENTATIONS}, margin=0.2)
    assert strongest(images, 0, 0).shape == images.shape


def test_inside_a_tf_data_map_it_gives_the_same_pixels(pictures):
    import tensorflow as tf

    augmentation = Augmentation(ALL_HALF)
    steps = tf.data.Dataset.range(3, 7)
    stream = steps.map(
        lambda step: tf.numpy_function(lambda number: augmentation(pictures, 1, int(number)), [step], tf.uint8),
        num_parallel_calls=3,
    )
    for step, images in zip(range(3, 7), stream.as_numpy_iterator(), strict=True):
        np.testing.assert_array_equal(images, augmentation(pictures, 1, step))
