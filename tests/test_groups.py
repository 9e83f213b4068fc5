"""Error rates by group: against loops, with intervals and ratios whose truth is known."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from facekit.bootstrap import bootstrap_interval
from facekit.groups import LEAST_PAIRS, MIXED, GroupTable, rates_by_group
from facekit.intervals import binomial_interval, rate_interval
from facekit.scored import ScoredPairs

Rows = dict[str, dict[str, Any]]


def scored(distances: Any, same: Any, **people: Any) -> ScoredPairs:
    """Pairs, those of NaN failed."""
    values = np.asarray(distances, np.float64)
    return ScoredPairs(values, np.asarray(same, bool), np.isnan(values), **people)


def rows_of(table: GroupTable) -> Rows:
    return {row["group"]: row for row in table.to_rows()}


def two_sexes(pairs: int = 6000, people: int = 400, seed: int = 0, harder: float = 0.0) -> tuple[ScoredPairs, Any]:
    """Pairs of people of which every second is F; impostors who are both F are closer by `harder`."""
    rng = np.random.default_rng(seed)
    same = np.arange(pairs) % 2 == 0
    first = rng.integers(people, size=pairs)
    second = np.where(same, first, (first + rng.integers(1, people, size=pairs)) % people)
    both = (first % 2 == 0) & (second % 2 == 0)
    distances = rng.normal(np.where(same, 0.8, 1.3 - harder * both), 0.2)
    sex = np.where(np.arange(people) % 2 == 0, "F", "M")
    return scored(distances, same, ids1=first, ids2=second), (sex[first], sex[second])


def decided(counts: dict[tuple[str, bool], tuple[int, int]]) -> tuple[ScoredPairs, Any]:
    """Pairs by group and truth: so many, of which so many are decided wrong at threshold 1."""
    distances: list[float] = []
    same: list[bool] = []
    groups: list[str] = []
    for (group, genuine), (pairs, errors) in counts.items():
        wrong = np.arange(pairs) < errors
        distances += np.where(wrong == genuine, 1.5, 0.5).tolist()
        same += [genuine] * pairs
        groups += [group] * pairs
    return scored(distances, same), (groups, groups)


def test_counts_and_rates_equal_the_loops() -> None:
    pairs, (first, second) = two_sexes()
    rows = rows_of(rates_by_group(pairs, 1.0, {"sex": (first, second)}))
    assert list(rows) == ["F", "M", MIXED]
    for group, row in rows.items():
        counts = {"genuine": 0, "impostor": 0, "false_matches": 0, "false_non_matches": 0}
        for distance, same, one, two in zip(pairs.distances, pairs.same, first, second, strict=True):
            if (one if one == two else MIXED) == group:
                counts["genuine" if same else "impostor"] += 1
                counts["false_non_matches"] += same and not distance < 1.0
                counts["false_matches"] += not same and distance < 1.0
        assert {name: row[name] for name in counts} == counts
        assert row["fmr"] == counts["false_matches"] / counts["impostor"]
        assert (row["column"], row["mixed"]) == ("sex", group == MIXED)
    assert rows["F"]["fnmr"] == rows["F"]["false_non_matches"] / rows["F"]["genuine"]
    assert (rows[MIXED]["genuine"], rows[MIXED]["fnmr"], rows[MIXED]["note"]) == (0, None, "")


def test_failed_pairs_are_rejections_of_their_group() -> None:
    same = np.repeat([True, False], 40)
    distances = np.where(np.arange(80) % 4 == 0, np.nan, 0.5)
    # A threshold above every distance still accepts no failed pair.
    (row,) = rates_by_group(scored(distances, same), 9.0, {"camera": (["A"] * 80, ["A"] * 80)}).to_rows()
    assert (row["false_non_matches"], row["false_matches"]) == (10, 30)
    assert (row["genuine"], row["impostor"]) == (40, 40)


def test_a_pair_at_the_threshold_is_rejected() -> None:
    pairs = scored(np.full(60, 1.0), np.repeat([True, False], 30))
    (row,) = rates_by_group(pairs, 1.0, {"x": (["a"] * 60, ["a"] * 60)}).to_rows()
    assert (row["fmr"], row["fnmr"]) == (0.0, 1.0)


def test_pairs_of_two_groups_are_mixed_and_may_be_genuine() -> None:
    pairs = scored(np.tile([0.5, 1.5], 100), np.repeat([True, False], 100))
    first, second = np.tile(["phone", "gate"], 100), np.full(200, "gate")
    table = rates_by_group(pairs, 1.0, {"camera": (first, second)})
    rows = rows_of(table)
    assert (rows[MIXED]["genuine"], rows[MIXED]["fnmr"]) == (50, 0.0)
    assert table.notes == []
    only_impostors = rates_by_group(pairs.chosen(~pairs.same), 1.0, {"camera": (first[100:], second[100:])})
    assert only_impostors.notes == [
        "camera: the 50 mixed pairs, of two groups, are impostor pairs only: they have no FNMR."
    ]


def test_pictures_without_a_value_are_counted_in_words_and_in_no_row() -> None:
    pairs = scored(np.full(100, 0.5), np.repeat([True, False], 50))
    first = np.where(np.arange(100) < 7, "", "a")
    second = np.where(np.arange(100) >= 98, "", "a")
    table = rates_by_group(pairs, 1.0, {"sex": (first, second)})
    assert table.notes == ["sex: 9 of 100 pairs have a picture whose value is unknown; they are in no group."]
    (row,) = table.to_rows()
    assert row["genuine"] + row["impostor"] == 91


# ---- What can be stated ----------------------------------------------------------------------------------------


def test_a_rate_needs_the_pairs_that_could_show_it() -> None:
    # All together: 30 errors of 3,000, so that 300 pairs are needed.
    counts = {("a", False): (1800, 24), ("b", False): (901, 3), ("c", False): (299, 3), ("a", True): (29, 3)}
    pairs, (groups, _) = decided(counts)
    # Errors of mixed pairs, and of pairs of unknown group, are not those of the groups.
    others = scored(np.full(100, 0.5), np.full(100, False))
    pairs = scored(np.append(pairs.distances, others.distances), np.append(pairs.same, others.same))
    seconds = [*groups, *["a"] * 50, *[""] * 50]
    rows = rows_of(rates_by_group(pairs, 1.0, {"age": ([*groups, *["b"] * 100], seconds)}))
    assert (rows["c"]["fmr"], rows["c"]["fmr_interval"], rows["c"]["false_matches"]) == (None, None, 3)
    assert rows["c"]["note"] == f"FMR needs 300 impostor pairs; FNMR needs {LEAST_PAIRS} genuine pairs"
    assert rows["b"]["fmr"] == 3 / 901
    assert rows["a"]["note"] == "FNMR needs 30 genuine pairs"
    counts[("c", False)] = (300, 3)
    counts[("b", False)] = (900, 3)
    assert rows_of(rates_by_group(*_with_column(decided(counts))))["c"]["fmr"] == 0.01


def _with_column(made: tuple[ScoredPairs, Any]) -> tuple[ScoredPairs, float, Any]:
    return made[0], 1.0, {"age": made[1]}


def test_rates_without_any_error_are_stated_with_what_the_pairs_allow() -> None:
    pairs, groups = decided({("a", False): (200, 0), ("b", False): (30, 0), ("c", False): (29, 0)})
    table = rates_by_group(pairs, 1.0, {"age": groups})
    rows = rows_of(table)
    assert rows["a"]["fmr"] == 0.0
    assert rows["a"]["fmr_interval"][0] == 0.0
    assert rows["a"]["fmr_interval"][1] >= 3 / 200
    assert rows["b"]["fmr_interval"][1] >= 3 / 30
    assert rows["c"]["fmr"] is None
    ratio = table.worst_ratio("age")
    assert (ratio.ratio, ratio.highest, ratio.groups) == (None, None, 2)
    assert ratio.text == "age: no ratio of FMR can be told, as none of 2 groups has an error."


# ---- Intervals -------------------------------------------------------------------------------------------------


def test_intervals_are_those_of_the_groups_own_pairs_and_people() -> None:
    pairs, (first, second) = two_sexes(pairs=1200, people=60)
    table = rates_by_group(pairs, 1.0, {"sex": (first, second)})
    assert pairs.ids1 is not None and pairs.ids2 is not None
    for kind, name in ((~pairs.same, "fmr_interval"), (pairs.same, "fnmr_interval")):
        which = [i for i in range(1200) if kind[i] and first[i] == second[i] == "F"]
        wrong = (pairs.distances[which] < 1.0) != pairs.same[which]
        assert rows_of(table)["F"][name] == rate_interval(wrong, pairs.ids1[which], pairs.ids2[which])
    unknown = rates_by_group(scored(pairs.distances, pairs.same), 1.0, {"sex": (first, second)})
    assert (table.by, unknown.by) == ("identity", "pair")
    exact = binomial_interval(rows_of(table)["F"]["false_matches"], rows_of(table)["F"]["impostor"])
    assert rows_of(unknown)["F"]["fmr_interval"] == pytest.approx(exact)
    low, high = rows_of(table)["F"]["fmr_interval"]
    assert low < exact[0] < exact[1] < high


@pytest.mark.slow
def test_the_true_rate_of_a_group_lies_in_its_interval() -> None:
    inside, trials = 0, 200
    for seed in range(trials):
        pairs, groups = two_sexes(pairs=1500, people=200, seed=seed, harder=0.2)
        low, high = rows_of(rates_by_group(pairs, 0.9, {"sex": groups}))["F"]["fmr_interval"]
        inside += low <= 0.5 * math.erfc(0.2 / 0.2 / math.sqrt(2)) <= high
    assert inside >= 0.93 * trials


# ---- Ratios ----------------------------------------------------------------------------------------------------


def test_the_worst_ratio_is_highest_by_lowest() -> None:
    counts = {("a", False): (1000, 20), ("b", False): (1000, 5), ("c", False): (1000, 10), ("d", False): (10, 9)}
    counts |= {("a", True): (100, 10), ("b", True): (100, 30)}
    pairs, groups = decided(counts)
    table = rates_by_group(pairs, 1.0, {"age": groups})
    ratio = table.worst_ratio("age", "FMR")
    assert (ratio.highest, ratio.lowest, ratio.groups, ratio.at_least) == ("a", "b", 3, False)
    assert ratio.ratio == pytest.approx(4.0)
    assert ratio.interval is not None and ratio.interval[1] is not None
    assert 1 < ratio.interval[0] < 4 < ratio.interval[1]
    assert ratio.text.startswith("age: FMR is 4.00 times as high for a (0.0200) as for b (0.0050); 95 % interval ")
    assert ratio.text.endswith("They are the extremes of 3 groups.")
    other = table.worst_ratio("age", "FNMR")
    assert (other.highest, other.lowest, other.ratio) == ("b", "a", pytest.approx(3.0))
    assert len(table.ratio_rows()) == 2


def test_the_interval_of_a_ratio_is_that_of_ratios_drawn_together() -> None:
    pairs, groups = two_sexes(pairs=3000, people=150, harder=0.15)
    sexes = np.asarray(groups)
    ratio = rates_by_group(pairs, 1.0, {"sex": groups}).worst_ratio("sex", "FMR")
    assert (ratio.highest, ratio.lowest) == ("F", "M")
    which = np.flatnonzero(~pairs.same & (sexes[0] == sexes[1]))
    wrong, women = pairs.distances[which] < 1.0, sexes[0][which] == "F"
    assert pairs.ids1 is not None and pairs.ids2 is not None

    def drawn(weights: np.ndarray) -> float:
        one, two = ((weights * wrong)[side].sum() / weights[side].sum() for side in (women, ~women))
        return one / two if two else math.inf

    low, high = bootstrap_interval(drawn, which.size, pairs.ids1[which], pairs.ids2[which])
    assert ratio.interval == pytest.approx((float(low), float(high)), rel=0.01)
    assert ratio.interval is not None and ratio.interval[0] > 1
    assert "chance" not in ratio.text


def test_a_ratio_to_a_group_without_error_is_at_least() -> None:
    pairs, groups = decided({("a", False): (1000, 60), ("b", False): (1000, 0)})
    table = rates_by_group(pairs, 1.0, {"sex": groups})
    ratio, rows = table.worst_ratio("sex"), rows_of(table)
    assert ratio.at_least
    assert ratio.ratio == pytest.approx(0.06 / rows["b"]["fmr_interval"][1])
    assert ratio.interval == (rows["a"]["fmr_interval"][0] / rows["b"]["fmr_interval"][1], None)
    assert "at least" in ratio.text and "which had no error in 1,000 pairs." in ratio.text
    json.dumps(table.ratio_rows(), allow_nan=False)


def test_a_ratio_may_have_no_upper_bound() -> None:
    pairs, groups = decided({("a", False): (1000, 12), ("b", False): (1000, 2)})
    ratio = rates_by_group(pairs, 1.0, {"sex": groups}).worst_ratio("sex")
    assert ratio.ratio == pytest.approx(6.0)
    assert ratio.interval is not None and ratio.interval[1] is None
    assert "to no upper bound" in ratio.text


def test_equal_groups_are_told_apart_by_chance_at_most() -> None:
    pairs, groups = decided({("a", False): (500, 10), ("b", False): (500, 10)})
    ratio = rates_by_group(pairs, 1.0, {"sex": groups}).worst_ratio("sex")
    assert ratio.ratio == 1.0
    assert {ratio.highest, ratio.lowest} == {"a", "b"}
    assert ratio.text.endswith("The difference may be chance.")


def test_one_group_has_no_ratio() -> None:
    pairs, groups = decided({("a", False): (500, 10), ("b", False): (20, 1)})
    ratio = rates_by_group(pairs, 1.0, {"sex": groups}).worst_ratio("sex")
    assert ratio.text == (
        "sex: no ratio of FMR can be told, as fewer than two groups have the 142 impostor pairs that it needs."
    )
    assert (ratio.ratio, ratio.groups) == (None, 1)


# ---- The table -------------------------------------------------------------------------------------------------


def test_columns_stand_one_after_another_and_go_into_json() -> None:
    pairs, groups = two_sexes(pairs=600)
    cameras = np.where(np.arange(600) % 3 == 0, "gate", "phone")
    table = rates_by_group(pairs, 1.0, {"sex": groups, "camera": (cameras, cameras)})
    assert [(row.column, row.group) for row in table.rows] == [
        ("sex", "F"),
        ("sex", "M"),
        ("sex", MIXED),
        ("camera", "gate"),
        ("camera", "phone"),
    ]
    assert [(ratio.column, ratio.rate) for ratio in table.ratios] == [
        ("sex", "FMR"),
        ("sex", "FNMR"),
        ("camera", "FMR"),
        ("camera", "FNMR"),
    ]
    json.dumps([table.to_rows(), table.ratio_rows(), table.notes], allow_nan=False)


def test_wrong_arguments_are_sentences() -> None:
    pairs, groups = two_sexes(pairs=60)
    with pytest.raises(ValueError, match="`threshold` must be a number: rates by group are of one threshold"):
        rates_by_group(pairs, math.nan, {"sex": groups})
    with pytest.raises(ValueError, match="There is no column of groups"):
        rates_by_group(pairs, 1.0, {})
    with pytest.raises(ValueError, match=r"`sex` must name the group of both pictures of 60 pairs. .*\(59,\)"):
        rates_by_group(pairs, 1.0, {"sex": (groups[0][:-1], groups[1])})
