"""What each augmentation does to given pictures: rows for `facekit.contact_sheet`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from facekit.augment import AUGMENTATIONS, Augmentation, Change
from facekit.images import Image


def preview_rows(
    images: Sequence[Image],
    chances: Mapping[str, tuple[float, float]],
    seed: int,
    columns: int = 8,
    margin: float = 0.0,
    layout: str = "arcface",
) -> tuple[list[str], list[list[Image]]]:
    """A row for each augmentation that always happens, then one a picture with the chances as they are.

    A row begins with the picture as it is; the others are draws for consecutive steps. Row r shows picture r of
    `images`, from the first again after the last. An augmentation that `chances` does not name has its usual
    strength.

    Args:
        images: (H, W, 3) uint8 each; at least one.
        chances: name to (probability, strength); see `facekit.augment.Augmentation`.
        seed: of the draws.
        columns: pictures a row, the unchanged one among them; at least 2.
        margin: of the crops.
        layout: of the crops, a key of `facekit.alignment.LAYOUTS`.

    Returns:
        Titles and rows, as many of each.

    Raises:
        ValueError: no picture, fewer than 2 columns, or wrong chances.
    """
    if not images or columns < 2:
        raise ValueError(
            f"A preview needs a picture and 2 columns. Received: {len(images)} pictures, {columns} columns."
        )
    whole = Augmentation(chances, margin, layout)
    titles, rows = [], []
    for number, change in enumerate(AUGMENTATIONS):
        probability, strength = chances.get(change.name, (0.0, change.strength))
        alone = Augmentation({change.name: (1.0, strength)}, margin, layout)
        titles.append(_title(change, probability, strength))
        rows.append(_row(images[number % len(images)], alone, seed, columns))
    for number, image in enumerate(images):
        titles.append(f"all together, as in training: picture {number + 1}")
        # Each picture is seen at other steps, so that the rows differ.
        rows.append(_row(image, whole, seed, columns, first_step=number * (columns - 1)))
    return titles, rows


def _title(change: Change, probability: float, strength: float) -> str:
    chance = f"{probability:.0%} of the pictures" if probability else "off"
    return f"{change.name}: {change.summary}; {chance}; strength {strength:g} ({change.unit})"


def _row(image: Image, augmentation: Augmentation, seed: int, columns: int, first_step: int = 0) -> list[Image]:
    steps = range(first_step, first_step + columns - 1)
    return [image, *(augmentation.plan(seed, step, 1).apply(0, image) for step in steps)]
