"""The sections of a verification page, each from a report's numbers and the scored pairs behind them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from facekit.breakdown_plots import Bars, fold_figure, group_figure, reliability_figure
from facekit.metrics import BoolArray, FloatArray, IntArray, Roc
from facekit.overlay import Overlay
from facekit.page import Illustration, Picture, Section, Table
from facekit.page_parts import MOST_LISTED, Report, interval_words, listed, lost_pictures, number, share, within
from facekit.rate_plots import Band, Point, det_figure, roc_figure, score_figure, threshold_figure
from facekit.scored import ScoredPairs

HARDEST = 8
_LARGEST_GROUP_PLOT = 40
_BAND_POINTS = 40


def rule(report: Report) -> str:
    """When a pair is accepted, and where that threshold comes from."""
    side = "above" if report.get("kind") in ("cosine", "similarity") else "below"
    what = "distance" if report.get("kind") == "distance" else "score"
    source, kfold = report.get("accuracy_from"), report.get("kfold")
    if source == "the given threshold":
        return (
            f"A pair is accepted where its {what} is {side} {number(report['threshold'])}: the threshold "
            "that came with the system."
        )
    if not kfold:
        return "There are too few pairs to choose a threshold on some and judge it on others."
    mean = "" if report["threshold"] is None else f", on average {number(report['threshold'])}"
    why = report.get("threshold_words") or "uncalibrated"
    why = "of its own: it is uncalibrated" if why == "uncalibrated" else f"here: {why}"
    lacks = "" if report.get("at_threshold") else f" The system has no threshold {why}."
    return (
        f"A pair is accepted where its {what} is {side} a threshold chosen on other pairs: {source}{mean}.{lacks}"
    )


def operating_point(report: Report) -> Point | None:
    """The report's decisions as a point of the plots; None where they are undefined."""
    fmr, fnmr = report.get("fmr"), report.get("fnmr")
    if fmr is None or fnmr is None:
        return None
    given = report.get("accuracy_from") == "the given threshold"
    return Point(fmr, fnmr, f"threshold {number(report['threshold'])}" if given else str(report["accuracy_from"]))


def roc_band(scored: ScoredPairs, impostor: int) -> Band:
    """The 95 % band of the pairs' ROC curve."""
    from facekit.bootstrap import roc_band

    floor = min(3 / impostor, 0.5)
    fprs = np.union1d(np.geomspace(floor, 1, _BAND_POINTS), np.linspace(floor, 1, _BAND_POINTS))
    ids1, ids2 = scored.people or (None, None)
    low, high = roc_band(scored.ranked, scored.same, fprs, ids1, ids2)
    # A true-match rate never falls as the false-match rate rises: what holds at one point bounds the others.
    return Band(fprs, np.maximum.accumulate(low), np.minimum.accumulate(high[::-1])[::-1])


def curve_section(
    report: Report, curve: Roc, name: str, band: Band | None, overlays: Sequence[Overlay] = ()
) -> Section:
    """ROC and DET."""
    point = operating_point(report)
    bands, points = {} if band is None else {name: band}, {} if point is None else {name: point}
    shaded = " Shaded: 95 % band." if band else ""
    ends = (
        f"The {curve.impostor:,} impostor pairs resolve no rate below 3 / {curve.impostor:,}: the curves end there."
    )
    eer = f"equal error rate {share(report['eer'])}"
    others = " Grey: published curves, on their own pairs and under their own conditions." if overlays else ""
    words = [
        "Each point of a curve is a threshold. A stricter one accepts fewer strangers (to the left) and fewer true "
        "matches (down). The better the system, the nearer its ROC comes to the upper left corner.",
        *(overlay.note for overlay in overlays if overlay.note),
    ]
    return Section(
        "True matches against false matches",
        words,
        tables=[_claims(report)],
        pictures=[
            Illustration(
                roc_figure({name: curve}, bands, points, overlays),
                f"ROC, whole and at low false-match rates.{shaded}{others} {ends}",
                "roc",
                f"ROC curve of {name}: area {number(report['auc'])}, {eer}.",
            ),
            Illustration(
                det_figure({name: curve}, bands, points),
                f"DET: the same with errors on both axes; nearer to the lower left is better.{shaded}",
                "det",
                f"DET curve of {name}: {eer}.",
            ),
        ],
    )


def score_section(report: Report, scored: ScoredPairs, curve: Roc) -> Section:
    """Histograms of scores, and both errors over the threshold."""
    native = report["threshold"]
    # Turning a score into a distance is the same turn as back.
    threshold = None if native is None else scored.native(native)
    intervals = report.get("intervals") or {}
    bars = tuple(intervals[rate] for rate in ("fmr", "fnmr") if within(intervals.get(rate)))
    pictures = []
    if not scored.failed.all():
        pictures = [
            Illustration(
                score_figure(scored.ranked, scored.same, threshold, scored.kind),
                "How pairs score. Where the two kinds overlap, no threshold is right for all.",
                "scores",
                "Histogram of the scores of genuine and impostor pairs.",
            ),
            Illustration(
                threshold_figure(curve, threshold, scored.kind, bars if len(bars) == 2 else None),
                "What each threshold costs: as one error falls, the other rises.",
                "threshold",
                "False-match and false-non-match rate over the threshold.",
            ),
        ]
    return Section("Scores and thresholds", _threshold_words(report), pictures=pictures)


def _threshold_words(report: Report) -> list[str]:
    words = []
    own = report.get("at_threshold")
    if own and report.get("accuracy_from") != "the given threshold":
        words.append(
            f"At the system's own threshold: accuracy {share(own['accuracy'])}, FMR {share(own['fpr'])}, FNMR "
            f"{share(own['fnr'])}."
        )
    if report.get("cost"):
        cost = report["cost"]
        words.append(
            f"Where a false match costs four times as much as a false non-match (0.8 FMR + 0.2 FNMR), the cheapest "
            f"threshold on these pairs is {number(cost['threshold'])}: FMR {share(cost['fpr'])}, FNMR "
            f"{share(cost['fnr'])}. It was chosen on the same pairs, so expect a little worse elsewhere."
        )
    if report.get("cost_note"):
        words.append(str(report["cost_note"]))
    return words


def _claims(report: Report) -> Table:
    rows = [
        (
            f"{100 * claim['fpr']:g} %",
            share(claim["tpr"]) if claim["claimable"] else f"needs {claim['needs']:,} impostor pairs",
            _accepting(claim["threshold"]) if claim["claimable"] else "",
        )
        for claim in report["tpr_at_fpr"]
    ]
    return Table(("FMR at most", "TPR", "Threshold"), rows, "Best TPR at a stated FMR (TPR@FPR)")


def _accepting(threshold: float | None) -> str:
    """A threshold; None is infinite and accepts every pair that has a score."""
    return "accept all" if threshold is None else number(threshold)


def figure_section(report: Report) -> Section:
    """Every figure in one table."""
    intervals = report.get("intervals") or {}
    genuine, impostor = report["genuine"], report["impostor"]
    rows = [
        (
            "FMR",
            "FPR, FAR",
            share(report["fmr"]),
            within(intervals.get("fmr")),
            _of(report, "false_accepts", impostor),
        ),
        (
            "FNMR",
            "FNR, FRR",
            share(report["fnmr"]),
            within(intervals.get("fnmr")),
            _of(report, "false_rejects", genuine),
        ),
        ("TPR", "recall, TAR", share(report["tpr"]), "", _of(report, "true_accepts", genuine)),
        ("accuracy", "", share(report["accuracy"]), within(intervals.get("accuracy")), _right(report)),
        ("precision", "", share(report["precision"]), "", ""),
        ("F1", "", number(report["f1"]), "", ""),
        ("AUC", "area under the ROC curve", number(report["auc"]), within(intervals.get("auc"), plain=True), ""),
        ("EER", "equal error rate", share(report["eer"]), "", _at(report["eer_threshold"])),
    ]
    header = ("Figure", "Also called", "Value", "95 % interval", "Counts")
    return Section("All figures", [interval_words(report)], [Table(header, rows, align="llrrr")])


def _at(threshold: float | None) -> str:
    return "" if threshold is None else f"at {number(threshold)}"


def _of(report: Report, count: str, pairs: int) -> str:
    return f"{report[count]:,} of {pairs:,}"


def _right(report: Report) -> str:
    return f"{report['true_accepts'] + report['true_rejects']:,} of {report['pairs']:,}"


def fold_section(report: Report) -> list[Section]:
    """Accuracy by fold, where there are folds."""
    kfold = report.get("kfold")
    if not kfold or not kfold["accuracies"]:
        return []
    words = [
        f"{kfold['name']}: accuracy {share(kfold['accuracy'])} ± {100 * (kfold['standard_error'] or 0):.2f} % "
        "(standard error of the mean). Each fold is decided by the threshold that is best on the other folds, "
        "never on its own pairs."
    ]
    if kfold.get("shared_pairs"):
        words.append(
            f"{kfold['shared_pairs']:,} pairs share a person with a pair of another fold: the folds are not quite "
            "independent."
        )
    rows = [
        (str(fold), share(accuracy), _accepting(threshold))
        for fold, (accuracy, threshold) in enumerate(zip(kfold["accuracies"], kfold["thresholds"], strict=True), 1)
    ]
    shown = rows[:MOST_LISTED]
    picture = Illustration(
        fold_figure(kfold["accuracies"], kfold["standard_error"] or 0.0),
        "How much the accuracy varies from part to part of the data.",
        "folds",
    )
    caption = "Each fold" + listed(len(shown), len(rows), "report.json")
    return [Section("Folds", words, [Table(("Fold", "Accuracy", "Threshold"), shown, caption)], [picture])]


def hardest_section(scored: ScoredPairs, strips: Mapping[str, Picture]) -> list[Section]:
    """The pairs that are most wrong: as pictures where there are any, and by name or place."""
    pictures = [Illustration(strip, f"{caption}, with their scores.", caption) for caption, strip in strips.items()]
    names = _pair_header(scored)
    tables = [
        Table((*names, "Score"), _pair_rows(scored, _hardest(scored, which)), caption, "l" * len(names) + "r")
        for caption, which in (
            ("One person, least alike to the system (genuine)", scored.same),
            ("Two people, most alike to the system (impostor)", ~scored.same),
        )
        if (which & ~scored.failed).any()
    ]
    words = [
        "Look for wrong labels, blurred or covered faces, great differences of age or pose. A wrong label counts "
        "as an error that the system did not make."
    ]
    return [Section("The hardest pairs", words, tables, pictures)] if tables else []


def _hardest(scored: ScoredPairs, which: BoolArray) -> IntArray:
    """The places of the farthest genuine, or the nearest impostor pairs."""
    places = np.flatnonzero(which & ~scored.failed)
    sign = -1 if scored.same[places[0]] else 1
    return places[np.argsort(sign * scored.distances[places], kind="stable")[:HARDEST]]


def _pair_rows(scored: ScoredPairs, places: IntArray) -> list[tuple[str, ...]]:
    return [
        (*_pair_names(scored, place), number(scored.native(scored.distances[place]))) for place in places.tolist()
    ]


def _pair_header(scored: ScoredPairs) -> tuple[str, ...]:
    return ("Pair",) if scored.first is None else ("First picture", "Second picture")


def _pair_names(scored: ScoredPairs, place: int) -> tuple[str, ...]:
    if scored.first is None or scored.second is None:
        return (f"number {place + 1:,}",)
    return scored.first[place], scored.second[place]


def failure_section(report: Report, scored: ScoredPairs) -> list[Section]:
    """Pairs lost to detection, and the figures without them."""
    failed = int(scored.failed.sum())
    if not failed:
        return []
    genuine = int((scored.failed & scored.same).sum())
    words = [
        f"In {failed:,} of {len(scored):,} pairs ({genuine:,} genuine, {failed - genuine:,} impostor), no face was "
        "found in a picture. All figures count them as rejected, since nobody is let in without a face."
    ]
    left = report.get("survivors")
    if left and left.get("pairs"):
        words.append(
            f"Without them, on {left['pairs']:,} pairs: accuracy {share(left['accuracy'])}, FMR "
            f"{share(left['fpr'])}, FNMR {share(left['fnr'])}, AUC {number(left['auc'])}, EER {share(left['eer'])}."
        )
    tables = lost_pictures(report)
    if not tables:
        places = np.flatnonzero(scored.failed)[:MOST_LISTED].tolist()
        caption = "Pairs without a score" + listed(len(places), failed, "scores.csv")
        kinds = [("genuine" if scored.same[place] else "impostor") for place in places]
        rows = [(*_pair_names(scored, place), kind) for place, kind in zip(places, kinds, strict=True)]
        header = (*_pair_header(scored), "Kind")
        tables = [Table(header, rows, caption, "l" * len(header))]
    return [Section("Failures to detect a face", words, tables)]


def group_section(report: Report) -> list[Section]:
    """Error rates by group, where groups are known."""
    rows = list(report.get("groups") or [])
    if not rows:
        return []
    columns = {str(row.get("column", "")) for row in rows}
    names = [
        str(row.get("group", "")) if len(columns) == 1 else f"{row.get('column')}: {row.get('group')}"
        for row in rows
    ]
    cells = [
        (
            name,
            _count(row, "genuine"),
            _count(row, "impostor"),
            *(
                cell
                for rate in ("fmr", "fnmr")
                for cell in (_stated(row.get(rate)), within(row.get(f"{rate}_interval")))
            ),
            str(row.get("note") or ""),
        )
        for name, row in zip(names, rows, strict=True)
    ]
    header = ("Group", "Genuine", "Impostor", "FMR", "95 %", "FNMR", "95 %", "Note")
    words = [
        f"One threshold for all, as in use: {number(report['threshold'])}. A pair belongs to a group where both "
        "its pictures do. Groups with few pairs have wide intervals: where intervals overlap widely, a difference "
        "may be chance.",
        *(str(ratio["text"]) for ratio in report.get("group_ratios") or []),
    ]
    stated = [
        (name, row)
        for name, row in zip(names, rows, strict=True)
        if row.get("fmr") is not None or row.get("fnmr") is not None
    ][:_LARGEST_GROUP_PLOT]
    pictures = []
    if stated:
        figure = group_figure(
            [name for name, _ in stated], *(_bars([row for _, row in stated], rate) for rate in ("fmr", "fnmr"))
        )
        caption = "Error rates by group with 95 % intervals. Hollow: no error found."
        pictures = [Illustration(figure, caption, "groups")]
    of = " and ".join(sorted(column for column in columns if column))
    return [Section(f"Errors by {of or 'group'}", words, [Table(header, cells, align="lrrrrrrl")], pictures)]


def _count(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:,}" if name in row else ""


def _stated(rate: float | None) -> str:
    return "" if rate is None else share(rate)


def _bars(rows: Sequence[Mapping[str, Any]], rate: str) -> Bars:
    def part(values: list[Any]) -> FloatArray:
        return np.array([math.nan if value is None else value for value in values], dtype=np.float64)

    ends = [row.get(f"{rate}_interval") or (None, None) for row in rows]
    return Bars(
        part([row.get(rate) for row in rows]), part([low for low, _ in ends]), part([high for _, high in ends])
    )


def reliability_section(quality: Mapping[str, Any] | None) -> list[Section]:
    """How good probabilities are, from `facekit.probability.probability_quality`."""
    points = list((quality or {}).get("reliability") or [])
    if not quality or not points:
        return []
    words = [
        "Scores can be turned into the probability that a pair shows one person. Such probabilities are good where "
        "they are true on average: of pairs given 0.8, 80 % should be genuine. They are for even odds, of as many "
        "genuine as impostor pairs, and are judged here on the pairs of this report.",
        f"Method {quality.get('method', 'unknown')}: Brier score {number(quality.get('brier'))} (0 is perfect, "
        f"0.25 is always saying 1/2), log loss {number(quality.get('log_loss'))} (0.693 likewise), expected "
        f"calibration error {number(quality.get('ece'))}.",
    ]
    figure = reliability_figure([(point["predicted"], point["observed"]) for point in points])
    picture = Illustration(figure, "On the dotted line, probabilities are just right.", "reliability")
    return [Section("Probabilities", words, pictures=[picture])]
