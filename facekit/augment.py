"""Random changes to training pictures, each with a probability and a strength, all in one list: `AUGMENTATIONS`.

    plan = Augmentation({"flip": (0.5, 1), "rotation": (0.5, 10)}).plan(seed=0, step=7, count=320)
    picture = plan.apply(place=0, image=picture)  # in whichever thread decodes it

OpenCV and NumPy on uint8, one picture at a time: the random numbers of a batch are drawn at once, all geometry is
one warp, all colour one map, and OpenCV lets other threads run. The five that are on by default take less time than
decoding a JPEG of 112 pixels; mask, sunglasses and hand take five to ten times as long as decoding. Four such
changes as TensorFlow operations on float32 ran at a fifth of the decoder's rate; Keras' augmentation layers are
slower still; Albumentations is archived, and its successor is under the AGPL.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from facekit import augment_camera as camera
from facekit import augment_colour as colour
from facekit import augment_geometry as geometry
from facekit import occlusion
from facekit.alignment import LAYOUTS
from facekit.images import Image
from facekit.sampling import generator

Step = Callable[[Image], Image]

# The change at place p of the list draws from stream _STREAM + p of `facekit.sampling.generator`, which needs 16 to
# 35: its own streams are below, and each change's draws depend on nothing but (seed, step) and the place.
_STREAM = 16


@dataclass(frozen=True)
class Change:
    """One kind of random change.

    Attributes:
        name: as in the settings.
        summary: what it does, in a line.
        unit: what its strength counts.
        lowest: least strength.
        highest: greatest strength.
        probability: chance per picture by default.
        strength: strength by default.
        kind: "geometry" and "colour": `function(draws, strength)` gives a matrix a picture, composed with its
            neighbours'. "pixels": `function(image, strength, draws)` gives a picture. "face": the same with the
            crop's `margin` and `layout`, by which it finds the face.
        draws: random numbers a picture that it takes.
        function: see `kind`.
    """

    name: str
    summary: str
    unit: str
    lowest: float
    highest: float
    probability: float
    strength: float
    kind: Literal["face", "geometry", "colour", "pixels"]
    draws: int
    function: Callable[..., Any]


AUGMENTATIONS: tuple[Change, ...] = (
    Change("mask", "a face mask", "share of the way from mouth to eyes that it reaches up at most",
           0, 1, 0, 0.9, "face", 9, occlusion.mask),
    Change("sunglasses", "sunglasses", "share of light that the lenses take at most",
           0, 1, 0, 1, "face", 8, occlusion.sunglasses),
    Change("hand", "a hand before the face", "share of the way from the face's edge to the nose, at most",
           0, 1.5, 0, 1, "face", 8, occlusion.hand),
    Change("flip", "left-right mirror", "always 1", 1, 1, 0.5, 1, "geometry", 0, geometry.flip),
    Change("rotation", "turn about the middle", "degrees either way", 0, 180, 0.5, 10, "geometry", 1,
           geometry.rotation),
    Change("zoom", "larger or smaller", "share: 0.1 is 1 / 1.1 to 1.1 times", 0, 1, 0, 0.1, "geometry", 1,
           geometry.zoom),
    Change("shift", "moved along both axes", "share of the side, either way", 0, 0.5, 0, 0.05, "geometry", 2,
           geometry.shift),
    Change("perspective", "seen from a side", "how much larger one side looks than the opposite, as a share",
           0, 1, 0, 0.2, "geometry", 2, geometry.perspective),
    Change("mixed_light", "a soft, coloured light from a side", "stops between the two sides", 0, 6, 0, 2,
           "pixels", 5, camera.mixed_light),
    Change("contrast", "stretched about the mean", "share: factors 1 - strength to 1 + strength", 0, 1, 0.5, 0.2,
           "colour", 1, colour.contrast),
    Change("brightness", "lighter or darker", "share of the full range, either way", 0, 1, 0.5, 0.2,
           "colour", 1, colour.brightness),
    Change("saturation", "more or less colourful", "share: factors 1 - strength to 1 + strength", 0, 1, 0, 0.4,
           "colour", 1, colour.saturation),
    Change("hue", "colours turned", "degrees either way", 0, 180, 0, 10, "colour", 1, colour.hue),
    Change("grey", "without colour", "share of colour taken away", 0, 1, 0, 1, "colour", 0, colour.grey),
    Change("blur", "out of focus", "standard deviation, as a share of the side", 0, 0.2, 0, 0.015,
           "pixels", 1, camera.blur),
    Change("motion_blur", "camera moved", "length of the path, as a share of the side", 0, 0.5, 0, 0.08,
           "pixels", 2, camera.motion_blur),
    Change("low_resolution", "taken small and enlarged", "times fewer pixels a side", 1, 32, 0, 4,
           "pixels", 1, camera.low_resolution),
    Change("noise", "sensor noise", "standard deviation, as a share of the full range", 0, 0.5, 0, 0.05,
           "pixels", 2, camera.noise),
    Change("jpeg", "stored as JPEG", "points of quality below 100", 0, 99, 0, 70, "pixels", 1, camera.jpeg),
    Change("cutout", "a grey square over a part", "share of the side, always as large", 0, 1, 0.25, 0.3,
           "pixels", 2, camera.cutout),
)  # fmt: skip
"""Every change, in the order in which a picture gets them: what is before the camera, then where that stands, the
light, the lens, the sensor, the file. Where the unit does not say "always", the size is drawn, up to the strength.
"""


class Plan:
    """What happens to each picture of a batch; any thread may apply it to any picture, in any order.

    Args:
        steps: for each picture, what to do one after the other.
    """

    def __init__(self, steps: list[list[Step]]):
        self._steps = steps

    def __len__(self) -> int:
        """Pictures of the batch."""
        return len(self._steps)

    def apply(self, place: int, image: Image) -> Image:
        """Change picture number `place` of the batch.

        Args:
            place: 0 to the batch's pictures - 1.
            image: (H, W, 3) uint8 RGB; stays as it is.

        Returns:
            (H, W, 3) uint8: a new array, or `image` itself where nothing happens to it.

        Raises:
            ValueError: the picture has another type or shape.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ValueError(
                f"A picture to augment must be (H, W, 3) uint8, 0 to 255. Received: {image.shape} {image.dtype}."
            )
        for step in self._steps[place]:
            image = step(image)
        return image


@dataclass(frozen=True)
class Augmentation:
    """Random changes: each picture its own, a pure function of (seed, step, place in the batch).

    A change's draws stay the same whatever the others are, and whatever its own probability and strength.

    Attributes:
        chances: name in `AUGMENTATIONS` to (probability per picture, strength); a name that is missing is off.
        margin: of the crops (`facekit.alignment.template`), by which mask, sunglasses and hand find the face.
            Crops must be aligned for that; on those of method "box" they fall only near their places, and hide
            other parts than meant.
        layout: of the crops, a key of `facekit.alignment.LAYOUTS`, for the same.

    Raises:
        ValueError: a name that is not in the list, or a probability, strength or margin out of its range, or an
            unknown layout.
    """

    chances: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    margin: float = 0.0
    layout: str = "arcface"

    def __post_init__(self) -> None:
        """Check the values and keep a copy."""
        for name, chance in self.chances.items():
            _check(name, *chance)
        if not self.margin >= 0:
            raise ValueError(f"`margin` must be at least 0. Received: {self.margin}.")
        if self.layout not in LAYOUTS:
            raise ValueError(f"`layout` must be one of {', '.join(LAYOUTS)}. Received: {self.layout}.")
        object.__setattr__(self, "chances", dict(self.chances))

    def plan(self, seed: int, step: int, count: int) -> Plan:
        """Draw what happens to each picture of a batch.

        Args:
            seed: of the run, at least 0.
            step: number of the batch, at least 0.
            count: pictures in the batch. The first pictures get the same whatever the count.
        """
        steps: list[list[Step]] = [[] for _ in range(count)]
        active = [(place, change) for place, change in enumerate(AUGMENTATIONS) if self._happens_ever(change)]
        for kind, group in groupby(active, lambda entry: entry[1].kind):
            drawn = [(change, *self._draw(place, change, seed, step, count)) for place, change in group]
            if kind == "geometry":
                self._add_composed(steps, drawn, 3, geometry.Warps)
            elif kind == "colour":
                self._add_composed(steps, drawn, 5, colour.ColourMaps)
            else:
                self._add_each(steps, drawn)
        return Plan(steps)

    def __call__(self, images: NDArray[np.uint8], seed: int, step: int) -> NDArray[np.uint8]:
        """Change a batch: (n, H, W, 3) uint8 in, the same shape out. For previews, and in `tf.numpy_function`.

        Raises:
            ValueError: another type or shape.
        """
        if images.dtype != np.uint8 or images.ndim != 4:
            raise ValueError(
                f"Pictures to augment must be (n, H, W, 3) uint8. Received: {images.shape} {images.dtype}."
            )
        plan = self.plan(seed, step, len(images))
        out = np.empty_like(images)
        for place, image in enumerate(images):
            out[place] = plan.apply(place, image)
        return out

    def _happens_ever(self, change: Change) -> bool:
        return self.chances.get(change.name, (0.0, 0.0))[0] > 0

    def _draw(
        self, place: int, change: Change, seed: int, step: int, count: int
    ) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Which pictures a change happens to, (count,), and its random numbers for all of them, (count, draws)."""
        numbers = generator(seed, _STREAM + place, step).random((count, 1 + change.draws))
        return numbers[:, 0] < self.chances[change.name][0], numbers[:, 1:]

    def _add_composed(
        self, steps: list[list[Step]], drawn: list[Any], side: int, batch: Callable[..., Any]
    ) -> None:
        """Multiply the matrices of each picture, and add one step to those that have any."""
        whole = np.tile(np.eye(side), (len(steps), 1, 1))
        for change, happens, numbers in drawn:
            matrices = change.function(numbers[happens], self.chances[change.name][1])
            whole[happens] = matrices @ whole[happens]
        apply = batch(whole).apply
        for place in np.flatnonzero(np.any([happens for _, happens, _ in drawn], axis=0)).tolist():
            steps[place].append(partial(apply, place))

    def _add_each(self, steps: list[list[Step]], drawn: list[Any]) -> None:
        """Add a step to each picture that a change happens to."""
        for change, happens, numbers in drawn:
            known: dict[str, Any] = {"strength": self.chances[change.name][1]}
            known |= {"margin": self.margin, "layout": self.layout} if change.kind == "face" else {}
            for place in np.flatnonzero(happens).tolist():
                steps[place].append(partial(change.function, draws=numbers[place].tolist(), **known))


def find(name: str) -> Change:
    """The entry of `AUGMENTATIONS` with a name.

    Raises:
        ValueError: there is none; names the nearest.
    """
    known = {change.name: change for change in AUGMENTATIONS}
    if name not in known:
        nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise ValueError(f"There is no augmentation `{name}`: did you mean `{nearest[0]}`?")
    return known[name]


def _check(name: str, probability: float, strength: float) -> None:
    """Raise a ValueError where the two are not what the list says."""
    change = find(name)
    if not 0 <= probability <= 1:
        raise ValueError(f"The probability of `{name}` must be 0 to 1. Received: {probability}.")
    if not change.lowest <= strength <= change.highest:
        raise ValueError(
            f"The strength of `{name}` must be {change.lowest} to {change.highest} ({change.unit}). "
            f"Received: {strength}."
        )
