"""Write a folder of drawn people, to train and test on without any photos.

In:  numbers (people, pictures, seed, size).
Out: a folder per person, labels.csv (boxes and landmarks), and a contact sheet where asked for.
Run: python -m apps.synthetic --output_dir data/synthetic/photos
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field, PositiveInt

from facekit import runtime
from facekit.images import write_png
from facekit.settings import Settings, parse
from facekit.synthetic import draw_crop, draw_photo, write_people

_SHEET_ROWS, _SHEET_COLUMNS = 8, 10
_DEFAULT_SIZE = {False: 250, True: 112}


class SyntheticConfig(Settings):
    """Draw people who do not exist, a folder each, with exact boxes and landmarks."""

    output_dir: Path
    """Where the folders go: a new folder, or one that this command left unfinished with the same settings."""

    people: PositiveInt = 200
    """Number of people."""

    pictures_per_person: PositiveInt | tuple[PositiveInt, PositiveInt] = 12
    """Pictures of each person; two numbers (fewest, most) for people with unequal numbers."""

    seed: int = Field(0, ge=0, lt=2**31)
    """Another seed, other people."""

    size: int | None = Field(None, ge=16, le=2048)
    """Side of the pictures in pixels. None: 250, or 112 for crops."""

    crops: bool = False
    """Aligned crops, ready to train on, instead of whole photos."""

    processes: int = Field(0, ge=0, le=256)
    """Processes that draw. 0: one a core."""

    sheet: Path | None = None
    """PNG file to write as well: a row a person, a column a picture, of the first few."""


def contact_sheet(config: SyntheticConfig) -> np.ndarray:
    """The first pictures of the first people, a row a person.

    Returns:
        (rows * size, columns * size, 3) uint8 RGB.
    """
    draw, size = (draw_crop if config.crops else draw_photo), config.size or _DEFAULT_SIZE[config.crops]
    count = config.pictures_per_person
    columns = min(_SHEET_COLUMNS, count if isinstance(count, int) else count[0])
    rows = min(_SHEET_ROWS, config.people)
    return np.vstack([
        np.hstack([draw(config.seed, person, picture, size).image for picture in range(columns)])
        for person in range(rows)
    ])  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv: options without the program's name; None takes the command line's.

    Returns:
        Exit code: 0, 2 after a sentence on stderr, 130 interrupted.
    """
    config = parse(SyntheticConfig, argv)
    try:
        write_people(
            config.output_dir,
            config.people,
            config.pictures_per_person,
            seed=config.seed,
            size=config.size or _DEFAULT_SIZE[config.crops],
            crops=config.crops,
            processes=config.processes or os.cpu_count() or 1,
            progress=True,
        )
        if config.sheet is not None:
            write_png(config.sheet, contact_sheet(config))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. The same command again draws what is missing.", file=sys.stderr)
        return runtime.INTERRUPTED
    return 0


if __name__ == "__main__":
    sys.exit(main())
