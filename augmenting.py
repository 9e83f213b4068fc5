"""The settings of random changes to training pictures: how often each happens, and how strong it is at most.

In:  the defaults below (edit them), `augment` of a JSON file, the command line (--augment.rotation.strength 15).
Out: `AugmentConfig`, a part of `config.Config`; its `as_mapping` is what `facekit.augment.Augmentation` takes.
Run: python dataset.py preview DIR shows each of them on pictures of a folder.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, ValidationInfo, model_validator

from facekit.settings import Settings

# Names of earlier versions, all in one group.
_FORMER = {
    "flip_probability": "flip.probability",
    "rotation_probability": "rotation.probability",
    "rotation_degrees": "rotation.strength",
    "brightness_probability": "brightness.probability",
    "brightness_delta": "brightness.strength",
    "contrast_probability": "contrast.probability",
    "contrast_delta": "contrast.strength",
    "cutout_probability": "cutout.probability",
    "cutout_size": "cutout.strength",
}


class Mirror(Settings):
    """How often a change happens that has no strength."""

    probability: float = Field(0.5, ge=0, le=1)
    """Share of the pictures that it happens to, 0 to 1; 0: never."""

    strength: ClassVar[float] = 1.0


class Chance(Settings):
    """How often a change happens, and how strong it is at most."""

    probability: float = Field(0.0, ge=0, le=1)
    """Share of the pictures that it happens to, 0 to 1; 0: never."""

    strength: float
    """In the unit that is given above."""


def _within(low: float, high: float) -> AfterValidator:
    """A check of a `Chance`'s strength."""

    def check(value: Chance, info: ValidationInfo) -> Chance:
        if not low <= value.strength <= high:
            raise ValueError(
                f"`{info.field_name}.strength` must be {low:g} to {high:g}. Received: {value.strength:g}."
            )
        return value

    return AfterValidator(check)


class AugmentConfig(Settings):
    """What may happen to a training picture, in this order. Each change is drawn for each picture on its own."""

    mask: Annotated[Chance, _within(0, 1)] = Chance(strength=0.9)
    """A face mask. strength: how far up it reaches at most, as a share of the way from mouth to eyes, 0 to 1. For
    faces that will wear one. Placed by the template: needs aligned crops, as sunglasses and hand do."""

    sunglasses: Annotated[Chance, _within(0, 1)] = Chance(strength=1.0)
    """Sunglasses. strength: share of light that the lenses take at most, 0 to 1. Eyes tell most about a person: a
    little teaches to use the rest."""

    hand: Annotated[Chance, _within(0, 1.5)] = Chance(strength=1.0)
    """A hand before the face. strength: how far its fingertips reach at most, as a share of the way from the
    face's edge to the nose, 0 to 1.5. What hides parts of faces most often, after hair and glasses."""

    flip: Mirror = Mirror(probability=0.5)
    """Left-right mirror. Faces are nearly symmetric: a free doubling of the data."""

    rotation: Annotated[Chance, _within(0, 180)] = Chance(probability=0.5, strength=10.0)
    """Turn about the middle. strength: degrees either way at most, 0 to 180. Aligned faces need little: it covers
    the landmarks' error."""

    zoom: Annotated[Chance, _within(0, 1)] = Chance(strength=0.1)
    """Larger or smaller. strength: a share; 0.1 is 1 / 1.1 to 1.1 times; 0 to 1. It covers the landmarks' error
    too."""

    shift: Annotated[Chance, _within(0, 0.5)] = Chance(strength=0.05)
    """Moved along both axes. strength: share of the side either way at most, 0 to 0.5. As zoom."""

    perspective: Annotated[Chance, _within(0, 1)] = Chance(strength=0.2)
    """Seen from a side. strength: how much larger one side looks than the opposite one at most, as a share, 0 to
    1. For cameras near the face."""

    mixed_light: Annotated[Chance, _within(0, 6)] = Chance(strength=2.0)
    """A soft light from a side, often coloured. strength: photographic stops between the two sides at most, 0 to
    6; 1 is twice the light. For windows and lamps, which training pictures of the press lack."""

    contrast: Annotated[Chance, _within(0, 1)] = Chance(probability=0.5, strength=0.2)
    """Stretched about the picture's mean. strength: a share; factors 1 - strength to 1 + strength; 0 to 1. For
    cameras and screens that differ."""

    brightness: Annotated[Chance, _within(0, 1)] = Chance(probability=0.5, strength=0.2)
    """Lighter or darker. strength: share of the full range either way at most, 0 to 1. For exposures that
    differ."""

    saturation: Annotated[Chance, _within(0, 1)] = Chance(strength=0.4)
    """More or less colourful. strength: a share; factors 1 - strength to 1 + strength; 0 to 1."""

    hue: Annotated[Chance, _within(0, 180)] = Chance(strength=10.0)
    """Colours turned. strength: degrees either way at most, 0 to 180. Beyond 15, skin is no longer skin."""

    grey: Annotated[Chance, _within(0, 1)] = Chance(strength=1.0)
    """Without colour. strength: share of colour taken away, always as much, 0 to 1. For old pictures and
    infrared."""

    blur: Annotated[Chance, _within(0, 0.2)] = Chance(strength=0.015)
    """Out of focus. strength: standard deviation at most, as a share of the side, 0 to 0.2; 0.015 is 1.7 pixels
    of 112."""

    motion_blur: Annotated[Chance, _within(0, 0.5)] = Chance(strength=0.08)
    """The camera moved. strength: length of the path at most, as a share of the side, 0 to 0.5. For video."""

    low_resolution: Annotated[Chance, _within(1, 32)] = Chance(strength=4.0)
    """Taken small and enlarged. strength: times fewer pixels a side at most, 1 to 32. For faces far away."""

    noise: Annotated[Chance, _within(0, 0.5)] = Chance(strength=0.05)
    """Noise of the sensor. strength: standard deviation at most, as a share of the full range, 0 to 0.5. For dark
    rooms."""

    jpeg: Annotated[Chance, _within(0, 99)] = Chance(strength=70.0)
    """Stored as JPEG. strength: points of quality below 100 at most, 0 to 99. For pictures from messengers and
    video."""

    cutout: Annotated[Chance, _within(0, 1)] = Chance(probability=0.25, strength=0.3)
    """A grey square hides a part (DeVries & Taylor 2017). strength: its side as a share of the picture's, always
    as large, 0 to 1. Keeps the network from relying on one part of a face."""

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, values: Any) -> Any:
        """Groups with only some of their values keep the others' defaults; an error names the group."""
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        for name, value in values.items():
            if name in _FORMER:
                raise ValueError(f"`{name}` is now `{_FORMER[name]}`.")
            if name in cls.model_fields and isinstance(value, dict):
                default = cls.model_fields[name].default
                try:
                    filled[name] = type(default)(**{**default.model_dump(), **value})
                except ValueError as error:
                    raise ValueError(f"`{name}`: {error}") from None
        return filled

    def as_mapping(self) -> dict[str, tuple[float, float]]:
        """Probability and strength by name, as `facekit.augment.Augmentation` takes them."""
        return {name: (chance.probability, chance.strength) for name, chance in self}
