"""Folds of pairs: how they are made, and accuracy with a threshold that never saw the pairs it is judged on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from facekit.metrics import BoolArray, FloatArray, IntArray, Rates, check_pairs, rates_of, roc
from facekit.thresholds import most_accurate

# With one class only there is no threshold to learn, and so no decision.
NO_DECISIONS = Rates(
    accuracy=np.nan,
    precision=np.nan,
    recall=np.nan,
    f1=np.nan,
    tpr=np.nan,
    fpr=np.nan,
    fnr=np.nan,
    true_accepts=0,
    false_accepts=0,
    true_rejects=0,
    false_rejects=0,
)


@dataclass(frozen=True, eq=False)
class KFold:
    """Accuracy by the LFW protocol.

    Attributes:
        accuracy: mean of the folds' accuracies, 0 to 1; NaN with one class, as every figure here.
        standard_error: of that mean: the folds' sample standard deviation / sqrt(k).
        accuracies: (k,) float64, one a fold, in the order of the folds' numbers.
        thresholds: (k,) float64, the threshold used on each fold; infinite where accepting all was best elsewhere.
        accepted: (n,) bool, each pair's decision at its fold's threshold.
        rates: of all these decisions together.
    """

    accuracy: float
    standard_error: float
    accuracies: FloatArray
    thresholds: FloatArray
    accepted: BoolArray
    rates: Rates


def kfold_accuracy(distances: ArrayLike, same: ArrayLike, folds: ArrayLike) -> KFold:
    """Accuracy of each fold at the threshold that is most accurate on all the others (LFW, Huang et al. 2007).

    Args:
        distances: (n,) float.
        same: (n,) bool.
        folds: (n,) int, the fold of each pair; at least two different ones.

    Raises:
        ValueError: `folds` has another length or names fewer than two folds.
    """
    values, labels = check_pairs(distances, same)
    numbers = np.asarray(folds)
    if numbers.shape != values.shape:
        raise ValueError(
            "`folds` and `distances` must be two lists of one length. "
            f"Received: shapes {numbers.shape} and {values.shape}."
        )
    names = np.unique(numbers)
    if names.size < 2:
        raise ValueError(f"`folds` must name at least two folds. Received: {names.size}.")
    thresholds, accuracies = np.full(names.size, np.nan), np.full(names.size, np.nan)
    accepted = np.zeros(values.size, dtype=np.bool_)
    if labels.all() or not labels.any():
        return KFold(np.nan, np.nan, accuracies, thresholds, accepted, NO_DECISIONS)
    for i, name in enumerate(names):
        here = numbers == name
        thresholds[i] = most_accurate(roc(values[~here], labels[~here]))
        accepted[here] = values[here] < thresholds[i]
        accuracies[i] = np.mean(accepted[here] == labels[here])
    standard_error = float(np.std(accuracies, ddof=1) / np.sqrt(names.size))
    return KFold(
        float(accuracies.mean()), standard_error, accuracies, thresholds, accepted, rates_of(accepted, labels)
    )


class IdentityFolds(NamedTuple):
    """Folds (n,) int64 from 0, their number, and how many pairs have a person who is also in another fold."""

    folds: IntArray
    k: int
    shared: int


def folds_by_identity(ids1: ArrayLike, ids2: ArrayLike, k: int = 10, seed: int = 0) -> IdentityFolds:
    """Split pairs into folds that share as few people as the pairs allow.

    Where the pairs fall apart into enough groups of people who never meet (as LFW's file does), whole groups go to
    folds and no person is in two: `shared` is 0. Otherwise people go to folds. A genuine pair goes with its person;
    an impostor pair goes with its first person, and brings its second person along from wherever they are. Random
    impostor pairs nearly all do this: the folds' pairs are disjoint then, but not their people, and `shared` says
    how many pairs that touches.

    Args:
        ids1: (n,) name or number of each pair's first person.
        ids2: (n,) of the second; equal to `ids1` in genuine pairs.
        k: folds wanted; there are fewer where there are fewer people.
        seed: of the order in which people of equally many pairs are taken.

    Raises:
        ValueError: `k` is below 2, the lengths differ, or all pairs have the same first person.
    """
    if k < 2:
        raise ValueError(f"`k` must be at least 2. Received: {k}.")
    first, second = number_people(ids1, ids2)
    groups = _meeting_groups(first, second)[first]
    folds = _fill(groups, k, seed)
    # Half of an even share is the least that a fold should hold: below it the groups are too few or too large.
    if np.bincount(folds, minlength=k).min() < first.size / k / 2:
        folds = _fill(first, k, seed)
    made = int(folds.max(initial=-1)) + 1
    if made < 2:
        raise ValueError("Folds by identity need pairs with at least two different first people.")
    return IdentityFolds(folds, made, _sharing(first, second, folds))


def folds_by_pair(pairs: int, k: int = 10, seed: int = 0) -> IntArray:
    """Split pairs of unknown people into at most k random folds of equal size (to one pair): (pairs,) int64."""
    return np.random.default_rng(seed).permutation(np.arange(pairs) % k)


def number_people(ids1: ArrayLike, ids2: ArrayLike) -> tuple[IntArray, IntArray]:
    """Number people from 0 in the order in which they appear; one name, one number, in both lists.

    Returns:
        Two (n,) int64 arrays.

    Raises:
        ValueError: the lists differ in length.
    """
    left, right = np.asarray(ids1), np.asarray(ids2)
    if left.ndim != 1 or left.shape != right.shape:
        raise ValueError(
            f"`ids1` and `ids2` must be two lists of one length. Received: shapes {left.shape} and {right.shape}."
        )
    # A dictionary is several times faster than np.unique, which sorts millions of names.
    names = np.concatenate([left, right]).tolist()
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    numbered = np.fromiter((numbers[name] for name in names), dtype=np.int64, count=len(names))
    return numbered[: left.size], numbered[left.size :]


def _meeting_groups(first: IntArray, second: IntArray) -> IntArray:
    """For each person, the lowest number among all people whom pairs join to them, however far."""
    lowest = np.arange(max(first.max(initial=-1), second.max(initial=-1)) + 1)
    while True:
        joined = np.minimum(lowest[first], lowest[second])
        closer = lowest.copy()
        np.minimum.at(closer, first, joined)
        np.minimum.at(closer, second, joined)
        closer = closer[closer]  # a neighbour's neighbour at once: long chains take few rounds
        if np.array_equal(closer, lowest):
            return lowest
        lowest = closer


def _fill(groups: IntArray, k: int, seed: int) -> IntArray:
    """Put whole groups of pairs into k folds, the largest group first, each into the fold that holds least."""
    names, members, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    shuffled = np.random.default_rng(seed).permutation(names.size)
    load, fold_of = np.zeros(k, dtype=np.int64), np.empty(names.size, dtype=np.int64)
    for group in shuffled[np.argsort(-sizes[shuffled], kind="stable")]:
        fold_of[group] = load.argmin()
        load[fold_of[group]] += sizes[group]
    return fold_of[members]


def _sharing(first: IntArray, second: IntArray, folds: IntArray) -> int:
    """How many pairs have a person who is in a pair of another fold too."""
    seen = np.zeros((max(first.max(), second.max()) + 1, folds.max() + 1), dtype=np.bool_)
    seen[first, folds] = True
    seen[second, folds] = True
    several = seen.sum(axis=1) > 1
    return int((several[first] | several[second]).sum())
