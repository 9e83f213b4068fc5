"""Draw how held-out people gathered while a run trained, as an animated GIF.

In:  the folder of a run, in which train.py kept each epoch's embeddings.
Out: embedding_map.gif, and embedding_map.png, its last frame.
Run: python -m apps.embedding_map runs/NAME
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from facekit import embedding_map, runtime
from facekit.settings import Settings, parse


class MapCommand(Settings):
    """Draw how held-out people gathered while a run trained, as an animated GIF."""

    run: tyro.conf.Positional[Path]
    """Folder of the run, finished or not."""

    method: embedding_map.Method = "pca"
    """pca: the two directions in which the last epoch's embeddings differ most. umap: a map of near neighbours: it
    shows groups more clearly and distances between them less, and needs `pip install umap-learn`."""

    output: Path | None = None
    """The GIF; the PNG goes beside it. None: embedding_map.gif in the run's folder."""


def aucs(run: Path) -> dict[int, float]:
    """AUC by epoch, from the run's history; empty where there is none."""
    try:
        with (run / "history.csv").open(encoding="utf-8", newline="") as file:
            return {int(row["epoch"]): float(row["auc"]) for row in csv.DictReader(file)}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{run / 'history.csv'}: cannot be understood ({error}).") from None


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 2 wrong input, 130 interrupted."""
    command = parse(MapCommand, argv)
    output = command.output or command.run / embedding_map.GIF
    try:
        if output.suffix.lower() != ".gif":
            raise ValueError(f"`output` must be the name of a .gif file. Received: {output}.")
        if not command.run.is_dir():
            raise ValueError(
                f"{command.run}: there is no such folder. Give the folder of a run, such as runs/NAME."
            )
        course = embedding_map.read_course(command.run / embedding_map.FOLDER)
        embedding_map.draw(course, aucs(command.run), output, command.method)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return runtime.INTERRUPTED
    print(f"{len(course.faces)} people, {len(course.people)} pictures, {len(course.epochs)} epochs: {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
