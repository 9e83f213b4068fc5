"""The probability that two pictures show one person, from the score of their comparison.

A `ProbabilityMap` turns a distance into a probability at even odds: genuine and impostor pairs weigh 1/2 each, so
that it does not depend on how many of either were drawn. `ProbabilityMap.probability` moves it to any other odds.
Fitting needs scikit-learn, using a map NumPy alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from facekit.folds import folds_by_identity, folds_by_pair
from facekit.metrics import BoolArray, FloatArray, IntArray
from facekit.scored import ScoredPairs

Method = Literal["platt", "isotonic"]

BINS = 15
QUALITY_FOLDS = 10

# Keeps a probability off 0 and 1 in floating point, however far away a distance or small a prior.
_LARGEST_LOG_ODDS = 30.0


@dataclass(frozen=True)
class ProbabilityMap:
    """How probable it is, at each distance, that two pictures show the same person. Never rises with the distance.

    Attributes:
        method: how it was fitted. "platt": the log odds lie on a line, through the two points given. "isotonic":
            straight from point to point, and level before the first and after the last.
        distances: points, rising.
        log_odds: log(p / (1 - p)) at each point where genuine and impostor pairs are equally frequent.
    """

    method: Method
    distances: list[float]
    log_odds: list[float]

    def __post_init__(self) -> None:
        """See that the map can be used.

        Raises:
            ValueError: the points are not as described above.
        """
        fault = _fault(self.method, self.distances, self.log_odds)
        if fault:
            raise ValueError(f"The map from scores to probabilities is damaged: {fault}. Fit it again.")

    def probability(self, distance: ArrayLike, prior: float = 0.5) -> FloatArray:
        """The probability that pairs at these distances are genuine: the shape of `distance`, in (0, 1).

        Args:
            distance: of any shape; NaN (a picture without a face) stays NaN.
            prior: the share of genuine pairs where the map is used, in (0, 1). Bayes' rule multiplies the odds by
                prior / (1 - prior).

        Raises:
            ValueError: `prior` is outside (0, 1).
        """
        if not 0 < prior < 1:
            raise ValueError(f"`prior` must be in (0, 1). Received: {prior}.")
        values = np.asarray(distance, dtype=np.float64)
        if self.method == "platt":
            (left, right), (start, end) = self.distances, self.log_odds
            slope = (end - start) / (right - left)
            log_odds = start + slope * (values - left) if slope else np.where(np.isnan(values), np.nan, start)
        else:
            log_odds = np.interp(values, self.distances, self.log_odds)
        log_odds = log_odds + math.log(prior / (1 - prior))
        return 1 / (1 + np.exp(-np.clip(log_odds, -_LARGEST_LOG_ODDS, _LARGEST_LOG_ODDS)))

    def to_dict(self) -> dict[str, Any]:
        """The map as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ProbabilityMap:
        """The map that `to_dict` gave.

        Raises:
            ValueError: something is missing, too much or wrong; says what.
        """
        names = {"method", "distances", "log_odds"}
        if not isinstance(values, Mapping) or set(values) != names:
            found = ", ".join(sorted(map(str, values))) if isinstance(values, Mapping) else type(values).__name__
            raise ValueError(
                f"The map from scores to probabilities is damaged: expected {', '.join(sorted(names))}, found "
                f"{found or 'nothing'}. Fit it again."
            )
        return cls(**values)


def _fault(method: str, distances: list[float], log_odds: list[float]) -> str:
    """What is wrong with a map's parts, in words; "" where nothing is."""
    if method not in ("platt", "isotonic"):
        return f"`method` must be platt or isotonic, found {method!r}"
    for name, part in (("distances", distances), ("log_odds", log_odds)):
        numbers = isinstance(part, list) and all(type(value) in (int, float) for value in part)
        if not numbers or not all(map(math.isfinite, part)):
            return f"`{name}` must be a list of finite numbers"
    wanted = "two" if method == "platt" else "one or more"
    if len(distances) != len(log_odds) or not distances or (method == "platt" and len(distances) != 2):
        return (
            f"`distances` and `log_odds` must have one length, {wanted}, found {len(distances)} and {len(log_odds)}"
        )
    if any(near >= far for near, far in pairwise(distances)):
        return "`distances` must rise"
    if any(near < far for near, far in pairwise(log_odds)):
        return "`log_odds` must not rise"
    return ""


def fit_probability(scored: ScoredPairs, method: Method = "platt") -> ProbabilityMap:
    """Learn the probability that two pictures show one person, from pairs whose truth is known.

    "platt": a sigmoid of the distance (Platt 1999), for hundreds of pairs. It is fitted to targets a little off 0
    and 1, (genuine + 1) / (genuine + 2) and 1 / (impostor + 2), as Lin, Lin & Weng 2007 advise. "isotonic": any
    falling curve (Zadrozny & Elkan 2002), for thousands. One pair more of each class, where it is least expected,
    keeps the curve's ends to what the counts support: k of G genuine pairs that are closer than all of I impostor
    pairs give odds of at most k (I + 1) / (G + 1). Failed pairs take no part. Where distances point the wrong way,
    the answer is 1/2 everywhere.

    Args:
        scored: pairs of people whom the system was not trained on.
        method: "platt" or "isotonic".

    Raises:
        ValueError: there are genuine or impostor pairs only, or `method` is unknown.
    """
    if method not in ("platt", "isotonic"):
        raise ValueError(f"`method` must be platt or isotonic. Received: {method!r}.")
    kept = _with_scores(scored)
    fit = _fit_platt if method == "platt" else _fit_isotonic
    return fit(kept.distances, kept.same)


def _with_scores(scored: ScoredPairs) -> ScoredPairs:
    """The pairs of finite distance; raises ValueError where they are not of both classes."""
    finite = np.isfinite(scored.distances)
    same = scored.same[finite]
    if same.all() or not same.any():
        raise ValueError(
            f"Of {len(scored):,} pairs, {same.sum():,} genuine and {(~same).sum():,} impostor pairs have a score: "
            "a probability needs both kinds. Add the other kind."
        )
    return scored.chosen(finite)


def _fit_platt(distances: FloatArray, same: BoolArray) -> ProbabilityMap:
    from sklearn.linear_model import LogisticRegression

    genuine, impostor = int(same.sum()), int((~same).sum())
    centre, spread = float(distances.mean()), float(distances.std())
    if not np.ptp(distances) or centre + spread == centre:
        return ProbabilityMap("platt", [centre, centre + 1], [0.0, 0.0])
    targets = np.where(same, (genuine + 1) / (genuine + 2), 1 / (impostor + 2))
    shares = np.where(same, 0.5 / genuine, 0.5 / impostor)
    # A target t is t of a genuine pair and 1 - t of an impostor pair, at the same distance.
    standard = np.tile((distances - centre) / spread, 2)[:, np.newaxis]
    labels = np.repeat([1, 0], distances.size)
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-8, max_iter=1000)
    model.fit(standard, labels, sample_weight=np.concatenate([shares * targets, shares * (1 - targets)]))
    slope, middle = float(model.coef_[0, 0]), float(model.intercept_[0])
    if slope >= 0:
        slope, middle = 0.0, 0.0
    return ProbabilityMap("platt", [centre, centre + spread], [middle, middle + slope])


def _fit_isotonic(distances: FloatArray, same: BoolArray) -> ProbabilityMap:
    from sklearn.isotonic import IsotonicRegression

    # An impostor pair at the smallest distance and a genuine pair at the largest: both count like any other.
    values = np.concatenate([[distances.min()], distances, [distances.max()]])
    labels = np.concatenate([[False], same, [True]])
    shares = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    model = IsotonicRegression(increasing=False).fit(values, labels.astype(np.float64), sample_weight=shares)
    levels = model.y_thresholds_
    return ProbabilityMap("isotonic", model.X_thresholds_.tolist(), np.log(levels / (1 - levels)).tolist())


def probability_quality(scored: ScoredPairs, method: Method = "platt") -> dict[str, Any]:
    """How good the probabilities of a method are on people that they were not fitted on, as JSON values.

    The pairs are cut into folds, by identity where people are known, and each fold gets the probabilities of a map
    fitted on the others. Figures are at even odds. Someone who knows nothing and says 1/2 has a Brier score of 0.25
    and a log loss of 0.693.

    Returns:
        `method`, `by` ("identity" or "pair"), `folds` (their number), `shared_pairs` (pairs with a person who is in
        another fold too; None by pair), `failed` (pairs left out), and all of `probability_figures`.

    Raises:
        ValueError: there are too few pairs or people to fit on some and judge on others.
    """
    kept = _with_scores(scored)
    folds, shared = _folds(kept)
    probabilities = np.empty(len(kept))
    for fold in np.unique(folds):
        here = folds == fold
        others = kept.same[~here]
        if others.all() or not others.any():
            raise ValueError(
                f"{len(kept):,} pairs are too few to judge probabilities: without one of their "
                f"{np.unique(folds).size} folds there are no {'impostor' if others.any() else 'genuine'} pairs "
                "left to fit on. Give pairs of more people."
            )
        probabilities[here] = fit_probability(kept.chosen(~here), method).probability(kept.distances[here])
    return {
        "method": method,
        "by": "pair" if shared is None else "identity",
        "folds": int(np.unique(folds).size),
        "shared_pairs": shared,
        "failed": len(scored) - len(kept),
        **probability_figures(probabilities, kept.same),
    }


def _folds(scored: ScoredPairs) -> tuple[IntArray, int | None]:
    """Folds by identity and how many pairs share a person, or folds by pair and None."""
    if scored.people is None:
        return folds_by_pair(len(scored), QUALITY_FOLDS), None
    folds, _, shared = folds_by_identity(*scored.people, k=QUALITY_FOLDS)
    return folds, shared


def probability_figures(probabilities: FloatArray, same: BoolArray) -> dict[str, Any]:
    """Proper scores and reliability of probabilities at even odds: each class weighs 1/2.

    Args:
        probabilities: (n,) in (0, 1), that each pair is genuine.
        same: (n,) bool, of both classes.

    Returns:
        `brier`: mean squared error; `log_loss`: mean -log of the probability given to the truth, in nats; `ece`:
        expected calibration error, the mean gap between probability and observed share over at most 15 bins of
        equal weight (Naeini, Cooper & Hauskrecht 2015); `reliability`: those bins, a dictionary each with
        `predicted` and `observed` (0 to 1), `weight`, and `genuine` and `impostor` (counts).
    """
    genuine, impostor = int(same.sum()), int((~same).sum())
    weights = np.where(same, 0.5 / genuine, 0.5 / impostor)
    told = np.where(same, probabilities, 1 - probabilities)
    points = []
    bins = _equal_bins(probabilities, same)
    for number in np.unique(bins):
        here = bins == number
        weight = float(weights[here].sum())
        points.append(
            {
                "predicted": float(weights[here] @ probabilities[here]) / weight,
                "observed": float(weights[here] @ same[here]) / weight,
                "weight": weight,
                "genuine": int(same[here].sum()),
                "impostor": int((~same[here]).sum()),
            }
        )
    return {
        "brier": float(weights @ (1 - told) ** 2),
        "log_loss": float(-weights @ np.log(told)),
        "ece": sum(point["weight"] * abs(point["predicted"] - point["observed"]) for point in points),
        "reliability": points,
    }


def _equal_bins(probabilities: FloatArray, same: BoolArray) -> IntArray:
    """(n,) the bin of each pair, of at most `BINS` of equal weight; equal probabilities stay together."""
    genuine, impostor = int(same.sum()), int((~same).sum())
    _, place = np.unique(probabilities, return_inverse=True)
    # Weights times 2 x genuine x impostor are whole numbers: no rounding decides between two bins.
    mass = np.bincount(place[same], minlength=place.max() + 1) * impostor
    mass = mass + np.bincount(place[~same], minlength=place.max() + 1) * genuine
    twice_middle = 2 * np.cumsum(mass) - mass
    return (BINS * twice_middle // (4 * genuine * impostor))[place]
