"""After training: the best weights on the straight line from the start to the best epoch's, or the last one's.

Robust fine-tuning by weight interpolation (WiSE-FT, Wortsman et al. 2022, https://arxiv.org/abs/2109.01903): what a
network learned lies on the way from where it started, and part of the way often serves new people better.

In:  a run's start and best epoch, and what judges them on held-out people.
Out: interpolation.csv; the network of the best share.
Run: python train.py --weights FILE --interpolate
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from config import Config
from facekit.files import write_text, written_aside
from facekit.tables import csv_text
from runs import RunFolder, figure_of, monitor_words

# Everything heavy is imported where it is used.
if TYPE_CHECKING:
    from facekit.validation import Embed

SHARES = tuple(tenths / 10 for tenths in range(11))
"""How far the networks lie from the start to the best epoch's."""

Weights = list[NDArray[np.float32]]


def between(start: Weights, best: Weights, share: float) -> Weights:
    """Weights at this share of the way, batch norm's statistics included; 0 and 1 give the ends exactly."""
    near, far = np.float32(1 - share), np.float32(share)
    return [near * first + far * last for first, last in zip(start, best, strict=True)]


def interpolate(
    config: Config,
    folder: RunFolder,
    last: Weights | None,
    measure: Callable[[Embed], dict[str, float]],
    say: Callable[[str], None],
) -> float:
    """Judge networks between a run's start and its end, and keep the best; of equals the nearest the start.

    It is done anew whenever it is asked for: the networks of both ends stay as they are.

    Args:
        config: settings of the run.
        folder: holds the start and the best epoch's network.
        last: weights of the last epoch, where none beat the start: part of the way may, though the end does not.
            None: the end is the best epoch.
        measure: gives figures on held-out people.
        say: tells the user the choice.

    Returns:
        The share of the network that was kept, in 0..1.
    """
    from facekit.bundle import read_network
    from product import embedder

    network, (figure, larger) = read_network(folder.best), figure_of(config.monitor)
    start, end = read_network(folder.start).get_weights(), network.get_weights() if last is None else last
    embed, judged = embedder(network, config), []
    for share in SHARES:
        network.set_weights(between(start, end, share))
        try:
            judged.append({"share": share, **measure(embed)})
        except FloatingPointError:
            # A network that grew beyond all numbers is not in question; what was trained before it is.
            say(f"At {share:g} of the way embeddings are no numbers; left out.")
    write_text(
        folder.root / "interpolation.csv", csv_text([tuple(judged[0]), *(tuple(row.values()) for row in judged)])
    )
    values = [row[figure] if larger else -row[figure] for row in judged]
    kept = judged[int(np.argmax(values))]
    network.set_weights(between(start, end, kept["share"]))
    with written_aside(folder.interpolated) as aside:
        network.save(aside)
    epoch = "best epoch" if last is None else "last epoch"
    say(
        f"Weights between the start (0) and the {epoch} (1), by {monitor_words(config)} on held-out people: "
        f"start {judged[0][figure]:.4f}, {epoch} {judged[-1][figure]:.4f}, kept {kept['share']:g} with "
        f"{kept[figure]:.4f}. All: {folder.root / 'interpolation.csv'}"
    )
    return kept["share"]
