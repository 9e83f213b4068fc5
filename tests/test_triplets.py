"""Triplets: shares, ties, lost pictures, margins, against loops over tied and lost triplets."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facekit.shares import share_interval
from facekit.triplets import MARGIN_EDGES, QUANTILES, judge_triplets

quickly = settings(max_examples=100, deadline=None, derandomize=True)
DISTANCE = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0])
NO_FACE = (math.nan, math.nan)


def judged(triplets: list[tuple[float, float]], **options: object) -> dict[str, object]:
    near, far = np.array(triplets, float).reshape(-1, 2).T
    return judge_triplets(near, far, np.isnan(near), **options)  # type: ignore[arg-type]


@quickly
@given(st.lists(st.one_of(st.tuples(DISTANCE, DISTANCE), st.just(NO_FACE)), min_size=1, max_size=12))
def test_figures_equal_the_loops(triplets: list[tuple[float, float]]) -> None:
    margins = [far - near for near, far in triplets if not math.isnan(near)]
    if not margins:
        with pytest.raises(ValueError, match="triplets has a face in all three"):
            judged(triplets)
        return
    report = judged(triplets)
    right = [margin for margin in margins if margin > 0]
    assert report["ordered"] == len(right) / len(triplets)
    assert report["ordered_survivors"] == len(right) / len(margins)
    counts = {"triplets": len(triplets), "ordered_right": len(right), "ties": margins.count(0)}
    counts |= {"failed": len(triplets) - len(margins), "ordered_wrong": sum(margin < 0 for margin in margins)}
    assert {name: report[name] for name in counts} == counts
    assert report["margin_mean"] == pytest.approx(sum(margins) / len(margins))
    assert report["margin_median"] == np.median(margins)
    assert report["share_above"] == [
        {"margin": least, "share": sum(margin > least for margin in margins) / len(triplets)}
        for least in (0, 0.1, 0.2, 0.5)
    ]
    counted = [
        sum(low < margin <= high for margin in margins)
        for low, high in zip(MARGIN_EDGES, MARGIN_EDGES[1:], strict=False)
    ]
    counted[0] += margins.count(-2.0)
    assert report["histogram"] == {"edges": MARGIN_EDGES.tolist(), "counts": counted}
    quantiles = [row["margin"] for row in report["margin_quantiles"]]  # type: ignore[attr-defined]
    assert quantiles == pytest.approx(np.quantile(margins, QUANTILES).tolist())
    assert (quantiles[0], quantiles[-1]) == (min(margins), max(margins))
    assert report["intervals"] == {
        "by": "triplet",
        "ordered": list(share_interval([True] * len(right) + [False] * (len(triplets) - len(right)))[:2]),
    }


def test_report_has_plain_numbers_first_and_is_json() -> None:
    report = judged([(0.2, 0.9), (0.5, 0.5), NO_FACE], people=["ann", "bob", "bob"])
    assert list(report)[:9] == [
        "ordered",
        "ordered_survivors",
        "triplets",
        "ordered_right",
        "ordered_wrong",
        "ties",
        "failed",
        "margin_mean",
        "margin_median",
    ]
    assert not any(isinstance(value, dict | list) for value in list(report.values())[:9])
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_intervals_draw_the_anchors_people_where_they_are_known() -> None:
    rng = np.random.default_rng(0)
    near, far = rng.uniform(0, 1, 600), rng.uniform(0.3, 1.3, 600)
    people = np.repeat([f"person {number}" for number in range(60)], 10)
    far[people < "person 3"] = 0  # what goes wrong, goes wrong for whole people
    known = judge_triplets(near, far, np.zeros(600, bool), people)
    unknown = judge_triplets(near, far, np.zeros(600, bool))
    assert known["intervals"] == {
        "by": "anchor's person",
        "ordered": list(share_interval(far > near, people)[:2]),
    }
    widths = [report["intervals"]["ordered"][1] - report["intervals"]["ordered"][0] for report in (known, unknown)]
    assert widths[0] > 1.5 * widths[1]


def test_margins_asked_for_come_in_their_order() -> None:
    report = judged([(0.0, 1.0), (0.0, 0.5), NO_FACE], margins=[0.7, 0.5, -1])
    assert report["share_above"] == [
        {"margin": 0.7, "share": 1 / 3},
        {"margin": 0.5, "share": 1 / 3},
        {"margin": -1.0, "share": 2 / 3},
    ]


def test_rounding_beyond_the_farthest_is_no_error() -> None:
    report = judged([(0.0, 2 + 4e-7), (2 + 4e-7, 0.0)])
    counts = report["histogram"]["counts"]  # type: ignore[index]
    assert (counts[0], counts[-1], sum(counts)) == (1, 1, 2)


def test_wrong_input_gets_its_sentence() -> None:
    with pytest.raises(ValueError, match="There are no triplets"):
        judge_triplets([], [], [])
    with pytest.raises(ValueError, match="None of the 2 triplets has a face in all three pictures"):
        judged([NO_FACE, NO_FACE])
    with pytest.raises(ValueError, match=r"three lists of one length. Received: shapes \(2,\), \(1,\) and \(2,\)"):
        judge_triplets([0.1, 0.2], [0.3], [False, False])
    with pytest.raises(ValueError, match=r"Triplet 1 has 0.1 to the positive and nan .* \(1 of 2"):
        judge_triplets([0.1, 0.1], [0.2, math.nan], [False, False])
    with pytest.raises(ValueError, match="Triplet 0 has -0.1"):
        judge_triplets([-0.1], [0.2], [False])
    with pytest.raises(ValueError, match=r"and 2.1 to the negative"):
        judge_triplets([0.1], [2.1], [False])
    with pytest.raises(ValueError, match="two lists of one length"):
        judge_triplets([0.1, 0.1], [0.2, 0.2], [False, False], people=["ann"])
