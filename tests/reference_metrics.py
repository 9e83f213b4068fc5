"""Slow loops from the definitions, one for each metric: the oracle. Imports nothing of ours."""

import math
from collections.abc import Iterable
from fractions import Fraction

Floats = list[float]
Bools = list[bool]


def counts(distances: Floats, same: Bools, threshold: float) -> tuple[int, int, int, int]:
    """True accepts, false accepts, true rejects, false rejects."""
    true_accepts = false_accepts = true_rejects = false_rejects = 0
    for distance, genuine in zip(distances, same, strict=True):
        if distance < threshold and genuine:
            true_accepts += 1
        elif distance < threshold:
            false_accepts += 1
        elif genuine:
            false_rejects += 1
        else:
            true_rejects += 1
    return true_accepts, false_accepts, true_rejects, false_rejects


def candidates(distances: Floats) -> list[float]:
    """Every distance there, and accept-all."""
    return sorted({*distances, math.inf})


def rates(distances: Floats, same: Bools, threshold: float) -> dict[str, float]:
    """Accuracy, precision, recall, F1, FPR and FNR of both classes' pairs; 0/0 is 0."""
    ta, fa, tr, fr = counts(distances, same, threshold)
    precision = ta / (ta + fa) if ta + fa else 0.0
    recall = ta / (ta + fr) if ta + fr else 0.0
    f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0.0
    return {
        "accuracy": (ta + tr) / len(distances),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "tpr": recall,
        "fpr": fa / (fa + tr),
        "fnr": fr / (fr + ta),
    }


def auc(distances: Floats, same: Bools) -> float:
    """Over all couples of a genuine and an impostor pair: how often the genuine one is closer, a tie being half."""
    won = 0.0
    couples = 0
    for near, genuine in zip(distances, same, strict=True):
        for far, other_genuine in zip(distances, same, strict=True):
            if genuine and not other_genuine:
                couples += 1
                won += 1.0 if near < far else 0.5 if near == far else 0.0
    return won / couples


def eer(distances: Floats, same: Bools) -> float:
    """Walk along the ROC until FMR reaches FNMR; cross on the straight line between the last two points."""
    points = []
    for threshold in candidates(distances):
        at = rates(distances, same, threshold)
        points.append((at["fpr"], at["fnr"]))
    points.append((1.0, 0.0))
    for (fmr0, fnmr0), (fmr1, fnmr1) in zip(points, points[1:], strict=False):
        if fmr1 >= fnmr1:
            # fmr0 + w (fmr1 - fmr0) = fnmr0 + w (fnmr1 - fnmr0)
            weight = (fnmr0 - fmr0) / ((fmr1 - fmr0) - (fnmr1 - fnmr0))
            return fmr0 + weight * (fmr1 - fmr0)
    raise AssertionError("FMR ends at 1 and FNMR at 0.")


def best_within(distances: Floats, same: Bools, rate: float) -> tuple[float, float]:
    """The best TPR, and the largest threshold, among those whose false accepts are at most floor(rate * N)."""
    allowed = math.floor(Fraction(str(rate)) * sum(not genuine for genuine in same))
    best = 0.0, -math.inf
    for threshold in candidates(distances):
        if counts(distances, same, threshold)[1] <= allowed:
            best = rates(distances, same, threshold)["tpr"], threshold
    return best


def best_accuracy_threshold(distances: Floats, same: Bools) -> float:
    """The lowest candidate with the most right decisions."""
    best, most = -math.inf, -1
    for threshold in candidates(distances):
        ta, _, tr, _ = counts(distances, same, threshold)
        if ta + tr > most:
            best, most = threshold, ta + tr
    return best


def kfold(distances: Floats, same: Bools, folds: list[int]) -> tuple[list[float], list[float]]:
    """Thresholds and accuracies of the folds, each threshold from all other folds' pairs."""
    thresholds, accuracies = [], []
    for fold in sorted(set(folds)):
        here = [i for i, other in enumerate(folds) if other == fold]
        others = [i for i, other in enumerate(folds) if other != fold]
        threshold = best_accuracy_threshold([distances[i] for i in others], [same[i] for i in others])
        right = sum((distances[i] < threshold) == same[i] for i in here)
        thresholds.append(threshold)
        accuracies.append(right / len(here))
    return thresholds, accuracies


def cost_threshold(distances: Floats, same: Bools) -> tuple[float, Fraction]:
    """The lowest grid value of the least 0.8 FPR + 0.2 FNR, in exact fractions."""
    best = 0.0, Fraction(2)
    genuine = sum(bool(s) for s in same)
    for step in range(1000, 15001):
        threshold = step / 10000
        _, fa, _, fr = counts(distances, same, threshold)
        cost = Fraction(8, 10) * Fraction(fa, len(same) - genuine) + Fraction(2, 10) * Fraction(fr, genuine)
        if cost < best[1]:
            best = threshold, cost
    return best


def shared_pairs(ids1: Iterable[int], ids2: Iterable[int], folds: Iterable[int]) -> int:
    """Pairs with a person who is in a pair of another fold."""
    shared = 0
    for a, b, fold in zip(ids1, ids2, folds, strict=True):
        for c, d, other in zip(ids1, ids2, folds, strict=True):
            if fold != other and {a, b} & {c, d}:
                shared += 1
                break
    return shared


def variance_parts(errors: Bools, ids1: list[int], ids2: list[int]) -> tuple[float, float]:
    """What people and what couples of people add to the variance of the bootstrap over people.

    A person's weight has mean 1 and variance 1: pairs that share one person vary together by 1, impostor pairs of
    the same two people by (1 + 1) (1 + 1) - 1 = 3.
    """
    rate = sum(errors) / len(errors)
    people = couples = 0.0
    for error, a, b in zip(errors, ids1, ids2, strict=True):
        for other, c, d in zip(errors, ids1, ids2, strict=True):
            product = (error - rate) * (other - rate) / len(errors) ** 2
            if {a, b} == {c, d} and a != b:
                couples += 3 * product
            elif {a, b} & {c, d}:
                people += product
    return people, couples


def equal_people(ids1: list[int], ids2: list[int]) -> float:
    """(sum m)^2 / sum m^2 of the numbers of pairs that people have."""
    numbers = [sum(person in pair for pair in zip(ids1, ids2, strict=True)) for person in {*ids1, *ids2}]
    return sum(numbers) ** 2 / sum(number**2 for number in numbers)
