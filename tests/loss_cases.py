"""The losses' cases, each with its oracle, and the batches they are tried on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import losses
from tests import reference

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "tuplet": ("tuplet_margin", {}),
    "tuplet-margin-scale": ("tuplet_margin", {"margin": 0.4, "scale": 8.0}),
    "tuplet-hardest": ("tuplet_margin", {"hardest": 3, "scale": 16.0}),
    "tuplet-ipv": ("tuplet_margin_ipv", {"margin": 0.2, "scale": 8.0, "hardest": 3, "epsilon": 0.1}),
    "semi_hard": ("triplet", {}),
    "semi_hard-squared": ("triplet", {"mining": "semi_hard", "squared": True, "margin": 1.0}),
    "all": ("triplet", {"mining": "all"}),
    "all-squared": ("triplet", {"mining": "all", "squared": True, "margin": 0.7}),
    "all-average-all": ("triplet", {"mining": "all", "average": "all", "margin": 0.5}),
    "hard": ("triplet", {"mining": "hard"}),
    "hard-soft": ("triplet", {"mining": "hard", "soft": True}),
    "hardest": ("triplet", {"hardest": 2, "margin": 0.5}),
    "hardest-many": ("triplet", {"hardest": 1000, "margin": 1.9}),
    "ipv": ("intra_pair_variance", {}),
    "ipv-epsilon": ("intra_pair_variance", {"epsilon": 0.3}),
    "contrastive": ("contrastive", {}),
    "contrastive-margin": ("contrastive", {"margin": 1.6}),
    "n_pair": ("n_pair", {}),
    "n_pair-scale": ("n_pair", {"scale": 16.0}),
    "multi_similarity": ("multi_similarity", {}),
    "multi_similarity-options": ("multi_similarity", {"alpha": 5.0, "beta": 20.0, "base": 0.1}),
    "circle": ("circle", {}),
    "circle-options": ("circle", {"margin": 0.4, "scale": 32.0}),
    "supcon": ("supcon", {}),
    "supcon-temperature": ("supcon", {"temperature": 0.02}),
}
ONE_PER_FORMULA = (
    "tuplet-hardest", "semi_hard", "all", "hard", "hardest",
    "ipv", "contrastive", "multi_similarity", "circle", "supcon",
)  # fmt: skip
FORMULAS: dict[str, Callable[..., reference.Parts]] = {
    "tuplet_margin": reference.tuplet_margin,
    "tuplet_margin_ipv": reference.tuplet_margin_ipv,
    "triplet": reference.triplet,
    "intra_pair_variance": reference.intra_pair_variance,
    "contrastive": reference.contrastive,
    "n_pair": reference.n_pair,
    "multi_similarity": reference.multi_similarity,
    "circle": reference.circle,
    "supcon": reference.supcon,
}
# These need only one kind of pairs; the others compare an anchor's positives with its negatives.
ONE_KIND_IS_ENOUGH = ("tuplet_margin_ipv", "intra_pair_variance", "contrastive", "multi_similarity")
# In these a tuplet's value depends on the batch's other tuplets.
SHARING_MEANS = ("tuplet_margin_ipv", "intra_pair_variance")

# Unequal identities, singletons among them, in no order.
LABELS = np.array([0, 1, 0, 2, 0, 3, 1, 0, 4, 2, 1, 4, 5])


def make(variant: str) -> losses.PairLoss:
    name, options = VARIANTS[variant]
    return losses.get(name, **options)


def oracle(variant: str, labels: np.ndarray, rows: np.ndarray) -> float:
    name, options = VARIANTS[variant]
    return reference.loss_value(FORMULAS[name], labels, rows, **options)


def slope(variant: str, labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The oracle's gradient, with what a formula does not differentiate held."""
    name, options = VARIANTS[variant]
    held = {"held": reference.anchors_of(labels, rows)} if name == "circle" else {}
    return reference.slope(lambda at: reference.loss_value(FORMULAS[name], labels, at, **options, **held), rows)


def flat_batch(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(len(LABELS), 5))
    if kind == "clustered":
        rows = rng.normal(size=(6, 5))[LABELS] + 0.15 * rows
    return LABELS, rows.astype("float32")


def tuplet_batch(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Seven tuplets of 5 negatives; one has a "negative" of the anchor's person, one (the sixth) no positive."""
    rng = np.random.default_rng(seed)
    people = np.stack([rng.choice(50, 6, replace=False) for _ in range(7)])
    labels = np.concatenate([people[:, :1], people], axis=1)
    labels[2, 4] = labels[2, 0]
    labels[5, 1] = 99
    rows = rng.normal(size=(7, 7, 4))
    if kind == "clustered":
        rows = rng.normal(size=(100, 4))[labels] + 0.2 * rows
    return labels, rows.astype("float32")


BATCHES = {"flat": flat_batch, "tuplet": tuplet_batch}
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_form = pytest.mark.parametrize("form", BATCHES)
