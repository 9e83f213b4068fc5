"""After training: what is crowded among strangers is spread, where that serves held-out people.

Score normalisation by a cohort of the training people, within the embedding itself: see facekit/cohort.py.

In:  a run's network, who trained it, and what judges networks on held-out people.
Out: the network with the cohort's layer behind it, if it is better.
Run: python train.py --cohort 30
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from config import Config
from runs import figure_of, monitor_words

# Everything heavy is imported where it is used.
if TYPE_CHECKING:
    import keras

    from facekit.index import PeopleIndex
    from facekit.validation import Embed

MOST = 4096
"""People of a cohort: more make the bundle larger (0.5 kB each at 128 numbers) and hardly say more."""

_AT_ONCE = 256


def normalise(
    config: Config,
    index: PeopleIndex,
    network: keras.Model,
    measure: Callable[[Embed], dict[str, float]],
    say: Callable[[str], None],
) -> tuple[keras.Model, int | None]:
    """Put the cohort's layer behind a network, and keep it where `monitor`'s figure on held-out people is better.

    Args:
        config: settings of the run; read are cohort, monitor, flip, image_size, seed.
        index: the training people, of whom the cohort is.
        network: pictures to unit rows.
        measure: gives figures on held-out people.
        say: tells the user the choice.

    Returns:
        The better network, and the people in its cohort; 0: the network as it was, which is no worse; None: there
        was nothing to choose, no cohort could be made.
    """
    from facekit.cohort import fit_cohort, with_cohort
    from product import embedder

    embed, (figure, larger) = embedder(network, config), figure_of(config.monitor)
    rows = cohort_rows(config, index, embed)
    try:
        normalised = with_cohort(network, fit_cohort(rows, config.cohort, seed=config.seed))
    except ValueError as error:
        # The network is trained: it must not be lost for a setting of what comes after.
        say(f"{error} The network stays as it is.")
        return network, None
    before, after = measure(embed)[figure], measure(embedder(normalised, config))[figure]
    better = after > before if larger else after < before
    say(
        f"Normalised by a cohort of {len(rows):,} training people, {monitor_words(config)} on held-out people is "
        f"{after:.4f}, without {before:.4f}: {'kept' if better else 'left out'}."
    )
    return (normalised, len(rows)) if better else (network, 0)


def cohort_rows(config: Config, index: PeopleIndex, embed: Embed) -> NDArray[np.float32]:
    """Embeddings of training people, one picture each, the first by name: (n, D) unit rows.

    People beyond `MOST` are drawn by `seed`; those whose picture cannot be read are left out; where
    none can, there are no rows.
    """
    from held_out import read_all

    first: dict[int, str] = {}
    for label, path in sorted(zip(index.labels.tolist(), index.paths, strict=True)):
        first.setdefault(label, path)
    names = [first[label] for label in sorted(first)]
    if len(names) > MOST:
        drawn = np.random.default_rng(config.seed).choice(len(names), MOST, replace=False)
        names = [names[place] for place in sorted(drawn)]
    rows = []
    for start in range(0, len(names), _AT_ONCE):
        images, _ = read_all(index, names[start : start + _AT_ONCE], config.image_size)
        rows += [embed(np.stack([*images.values()]))] if images else []
    return np.concatenate(rows) if rows else np.empty((0, 1), np.float32)
