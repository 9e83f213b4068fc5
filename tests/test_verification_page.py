"""The pages of all protocols: figures as the report has them, in words, tables and plots."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from facekit.groups import rates_by_group
from facekit.identification import identify
from facekit.overlay import Overlay
from facekit.page import Page, Section, draw, to_html, to_markdown
from facekit.page_parts import glossary, number, share, short_name, within
from facekit.report import verification_report
from facekit.scored import Kind, ScoredPairs
from facekit.triplets import judge_triplets
from facekit.verification_page import comparison_page, identification_page, triplet_page, verification_page

PICTURE = np.full((50, 900, 3), 128, np.uint8)


def pairs(n: int = 400, kind: Kind = "distance", failed: int = 0, names: bool = False) -> ScoredPairs:
    rng = np.random.default_rng(0)
    same = np.arange(n) % 2 == 0
    distances = np.where(same, rng.normal(0.8, 0.2, n), rng.normal(1.3, 0.2, n))
    lost = np.arange(n) < failed
    people = np.arange(n) // 8
    others = np.where(same, people, people + 1)
    files = [[f"{side}_{place}.jpg" for place in range(n)] for side in ("left", "right")] if names else [None, None]
    return ScoredPairs(np.where(lost, np.nan, distances), same, lost, kind, None, people, others, *files)


def report_on(scored: ScoredPairs, threshold: float | None = 1.05, **facts: Any) -> dict[str, Any]:
    usual = {
        "model": "runs/first/bundle",
        "warnings": ["Look out."],
        "groups": None,
        "overlap": {"words": "Unchecked."},
    }
    # Through JSON, as it is kept.
    found: dict[str, Any] = json.loads(json.dumps(verification_report(scored, threshold) | usual | facts))
    return found


def page_on(scored: ScoredPairs, threshold: float | None = 1.05, **facts: Any) -> Page:
    return verification_page(report_on(scored, threshold, **facts), scored, {}, band=False)


def section(page: Page, title: str) -> Section:
    (found,) = (part for part in page.sections if part.title.startswith(title))
    return found


def titles(page: Page) -> list[str]:
    return [part.title for part in page.sections]


def rows(part: Section, table: int = 0) -> dict[str, list[str]]:
    return {row[0]: list(row[1:]) for row in part.tables[table].rows}


def words(page: Page) -> str:
    """The page's text, without the slow drawing of its pictures."""
    return to_markdown(page, "pictures", [[] for _ in page.sections])[0]


def test_the_summary_tells_counted_errors_in_words() -> None:
    scored = pairs()
    accepted = scored.distances < 1.05
    false_matches, misses = int((accepted & ~scored.same).sum()), int((~accepted & scored.same).sum())
    page = page_on(scored)
    first, second, third = page.summary
    assert first.startswith(f"Of 200 pairs of different people, {false_matches} are taken for the same person")
    assert f"(FMR {false_matches / 2:.2f} %; 95 % interval " in first
    assert second.startswith(f"Of 200 pairs of one person, {misses} are turned away (FNMR {misses / 2:.2f} %; 95 %")
    assert third == (
        "A pair is accepted where its distance is below 1.0500: the threshold that came with the system."
    )
    assert page.title == "How well first tells people apart"
    named = page_on(scored, model="cache/dlib_resnet29-2", model_name="dlib ResNet-29 (pretrained)")
    assert named.title == "How well dlib ResNet-29 (pretrained) tells people apart"
    assert page.warnings == ["Look out."]


def test_one_error_is_one_error() -> None:
    scored = ScoredPairs(np.array([0.1, 0.2, 0.3, 0.9]), np.array([1, 0, 1, 0], bool), np.zeros(4, bool))
    assert page_on(scored, 0.25).summary[0].startswith("Of 2 pairs of different people, 1 is taken for")


def test_similarities_are_accepted_above_and_shown_as_such() -> None:
    scored = pairs(kind="similarity")
    page = page_on(scored, 1.05)
    assert "its score is above -1.0500" in page.summary[2]
    assert "cosine" in " ".join(section(page, "Scores").words)
    figure = section(page, "Scores").pictures[0].figure
    assert isinstance(figure, Figure)
    assert figure.axes[0].get_xlabel() == "Score (large: same person)"
    assert figure.axes[0].lines[0].get_xdata()[0] == -1.05  # type: ignore[index]
    hardest = section(page, "The hardest")
    assert float(hardest.tables[0].rows[0][-1]) == pytest.approx(-scored.distances[scored.same].max(), abs=1e-4)
    assert float(hardest.tables[1].rows[0][-1]) == pytest.approx(-scored.distances[~scored.same].min(), abs=1e-4)


def test_without_a_threshold_the_page_says_uncalibrated() -> None:
    page = page_on(pairs(), None)
    assert "10 folds by identity" in page.summary[2] and "it is uncalibrated" in page.summary[2]


def test_at_folds_of_the_file_the_systems_own_threshold_is_told_beside() -> None:
    scored = pairs()
    folded = ScoredPairs(scored.distances, scored.same, scored.failed, folds=np.arange(400) // 40)
    page = page_on(folded)
    assert "10 folds of the pairs file" in page.summary[2] and "uncalibrated" not in page.summary[2]
    own = np.mean((scored.distances < 1.05) == scored.same)
    assert f"At the system's own threshold: accuracy {100 * own:.2f} %" in section(page, "Scores").words[0]
    assert len(section(page, "Folds").tables[0].rows) == 10


def test_the_table_has_every_figure_with_its_interval() -> None:
    scored = pairs()
    report = report_on(scored)
    table = rows(section(page_on(scored), "All figures"))
    assert list(table) == ["FMR", "FNMR", "TPR", "accuracy", "precision", "F1", "AUC", "EER"]
    low, high = report["intervals"]["fmr"]
    fmr = f"{100 * report['fmr']:.2f} %"
    assert table["FMR"] == [
        "FPR, FAR",
        fmr,
        f"{100 * low:.2f} to {100 * high:.2f} %",
        f"{report['false_accepts']} of 200",
    ]
    assert table["AUC"][1] == f"{report['auc']:.4f}"
    assert table["AUC"][2] == " to ".join(f"{end:.4f}" for end in report["intervals"]["auc"])
    assert table["EER"][-1] == f"at {report['eer_threshold']:.4f}"
    values = {chief.name: chief.value for chief in page_on(scored).headline}
    assert values["False-match rate"] == fmr and values["AUC"] == table["AUC"][1]


def test_counts_are_of_their_own_class() -> None:
    scored = pairs()
    fewer = scored.chosen(scored.same | (np.arange(400) < 100))
    table = rows(section(page_on(fewer), "All figures"))
    assert [table[name][-1].split()[-1] for name in ("FMR", "FNMR", "TPR", "accuracy")] == [
        "50",
        "200",
        "200",
        "250",
    ]


def test_rates_that_the_pairs_cannot_resolve_are_not_claimed() -> None:
    page = page_on(pairs())
    table = rows(section(page, "True matches"))
    assert table["0.1 %"] == ["needs 3,000 impostor pairs", ""]
    assert table["5 %"][0].endswith(" %") and float(table["5 %"][1]) > 0
    assert page.headline[-1].name == "TPR at FMR 5 %"


def test_curves_have_their_band_point_and_published_curves_beside() -> None:
    scored = pairs()
    other = Overlay(
        "theirs", np.array([0.0, 1.0]), np.array([0.0, 1.0]), "theirs.txt: read with its columns swapped."
    )
    page = verification_page(report_on(scored), scored, {}, [other])
    part = section(page, "True matches")
    assert other.note in part.words
    roc, det = (picture.figure for picture in part.pictures)
    assert isinstance(roc, Figure) and isinstance(det, Figure)
    assert all(axes.collections for axes in (*roc.axes, *det.axes))
    labels = [str(line.get_label()) for line in roc.axes[0].lines]
    assert any(label.startswith("threshold 1.0500") for label in labels)
    assert "theirs (published)" in labels
    plain = verification_page(report_on(scored), scored, {}, band=False)
    drawn = section(plain, "True matches").pictures[0]
    assert isinstance(drawn.figure, Figure) and not drawn.figure.axes[0].collections
    assert "Shaded" in part.pictures[0].caption and "Shaded" not in drawn.caption


def test_failures_are_counted_named_and_left_out_for_comparison() -> None:
    scored = pairs(failed=3, names=True)
    part = section(page_on(scored), "Failures")
    assert "In 3 of 400 pairs (2 genuine, 1 impostor)" in part.words[0]
    kept = ~scored.failed
    accuracy = np.mean((scored.distances[kept] < 1.05) == scored.same[kept])
    assert f"Without them, on 397 pairs: accuracy {100 * accuracy:.2f} %" in part.words[1]
    assert part.tables[0].rows[1] == ("left_1.jpg", "right_1.jpg", "impostor")
    lost = [{"picture": "left_0.jpg", "reason": "no face"}] * 50
    named = section(page_on(scored, lost_pictures=lost), "Failures")
    assert named.tables[0].rows[0] == ("left_0.jpg", "no face") and len(named.tables[0].rows) == 40
    assert "the first 40 of 50; all are in report.json" in named.tables[0].caption
    assert "Failures to detect a face" not in titles(page_on(pairs()))


def test_hardest_pairs_are_those_of_a_sort() -> None:
    scored = pairs(names=True)
    strips = {"Hardest genuine pairs": PICTURE, "Nearest training pictures": PICTURE}
    page = verification_page(report_on(scored), scored, strips)
    part = section(page, "The hardest")
    genuine = sorted(np.flatnonzero(scored.same), key=lambda place: -scored.distances[place])[:8]
    impostor = sorted(np.flatnonzero(~scored.same), key=lambda place: scored.distances[place])[:8]
    for table, places in zip(part.tables, (genuine, impostor), strict=True):
        assert [row[0] for row in table.rows] == [f"left_{place}.jpg" for place in places]
    assert [picture.name for picture in part.pictures] == ["Hardest genuine pairs"]
    assert [picture.name for picture in section(page, "Overlap").pictures] == ["Nearest training pictures"]
    assert section(page_on(pairs()), "The hardest").tables[0].header == ("Pair", "Score")


def test_groups_are_drawn_and_listed_where_they_are_known() -> None:
    scored = pairs()
    halves = np.where(np.arange(400) < 200, "_$old$", "young")
    table = rates_by_group(scored, 1.05, {"age": (halves, halves)})
    page = page_on(scored, groups=table.to_rows(), group_ratios=table.ratio_rows())
    part = section(page, "Errors by age")
    for row in table.rows:
        genuine, impostor, fmr, *_ = rows(part)[row.group]
        assert (genuine, impostor) == (str(row.genuine), str(row.impostor))
        assert fmr == ("" if row.fmr is None else share(row.fmr))
    assert table.ratios[0].text in part.words
    assert len(part.pictures) == 1
    two = rates_by_group(scored, 1.05, {"age": (halves, halves), "sex": (halves, halves)})
    assert "sex: young" in rows(section(page_on(scored, groups=two.to_rows()), "Errors by age and sex"))
    assert not any(title.startswith("Errors by") for title in titles(page_on(scored)))


def test_groups_that_are_too_small_are_listed_but_not_drawn() -> None:
    scored = pairs(8)
    names = np.array(list("aabbccdd"))
    table = rates_by_group(scored, 1.05, {"camera": (names, names)})
    part = section(page_on(scored, groups=table.to_rows()), "Errors by camera")
    assert not part.pictures and "needs" in rows(part)["a"][-1]


def test_probabilities_are_judged_where_they_are_given() -> None:
    scored = pairs()
    quality = {"method": "platt", "brier": 0.1, "log_loss": 0.3, "ece": 0.02}
    points = [{"predicted": 0.1, "observed": 0.2}, {"predicted": 0.9, "observed": 0.8}]
    page = verification_page(report_on(scored), scored, {}, probability=quality | {"reliability": points})
    part = section(page, "Probabilities")
    assert "Brier score 0.1000" in part.words[1]
    assert isinstance(part.pictures[0].figure, Figure)
    assert "Probabilities" not in titles(verification_page(report_on(scored), scored, {}, probability=quality))


@pytest.mark.parametrize(
    "scored",
    [
        ScoredPairs(np.array([0.5, 1.2]), np.array([True, False]), np.zeros(2, bool)),
        ScoredPairs(np.array([0.5, 1.2, *[np.nan] * 8]), np.arange(10) % 2 == 0, np.arange(10) > 1),
        ScoredPairs(np.array([0.5, *[np.nan] * 9]), np.arange(10) % 2 == 0, np.arange(10) > 0),
        ScoredPairs(np.full(10, np.nan), np.arange(10) % 2 == 0, np.ones(10, bool)),
        ScoredPairs(np.full(10, 0.7), np.arange(10) % 2 == 0, np.zeros(10, bool)),
        ScoredPairs(np.array([1e9, -1e9, 0.0]), np.array([False, True, True]), np.zeros(3, bool), "similarity"),
    ],
    ids=["two pairs", "two left", "one left", "none left", "all tied", "huge scores"],
)
def test_a_page_is_made_of_any_pairs_of_both_classes(scored: ScoredPairs) -> None:
    for threshold in (None, 0.7):
        page = verification_page(report_on(scored, threshold), scored, {})
        assert "nan" not in words(page) and "None" not in words(page)
    assert len(draw(page)) == len(page.sections)


def test_one_class_has_no_page() -> None:
    scored = ScoredPairs(np.array([0.5, 1.2]), np.array([True, True]), np.zeros(2, bool))
    report = report_on(pairs())
    with pytest.raises(ValueError, match="one class"):
        verification_page(report, scored, {}, band=False)


def test_facts_and_the_command_are_at_the_end() -> None:
    command = "python evaluate.py --pairs pairs.txt"
    facts: dict[str, Any] = {
        "recipe": {"method": "align", "max_side": 1024},
        "images": "photos",
        "command": command,
        "training": {"made_by": "somebody", "overlap_with_lfw": "its author says no"},
    }
    page = page_on(pairs(), **facts)
    known = dict(page.facts)
    assert known["Preprocessing of the pictures"] == "method align, max side 1024"
    assert known["Overlap with the training people"] == "Unchecked."
    assert known["Trained with"] == "made by somebody. Its author says no."
    assert known["Pictures"] == "photos" and "Pairs file" not in known
    assert section(page, "How to make").code == command
    assert "How to make this report again" not in titles(page_on(pairs()))


def test_the_page_explains_its_words_and_stays_short() -> None:
    scored = pairs(failed=3, names=True)
    page = page_on(scored, data="Pairs of pairs.txt", command="python evaluate.py")
    explained = rows(section(page, "What the words"))
    assert {"FMR", "FNMR", "TPR", "EER", "AUC", "ROC", "DET", "95 % interval", "rule of three"} <= set(explained)
    assert "FAR" in explained["FMR"][0] and "FRR" in explained["FNMR"][0]
    assert len(words(page)) < 12_000
    assert len(to_html(page)) < 1_000_000
    with pytest.raises(KeyError):
        glossary("no such word")


def test_several_systems_stand_side_by_side() -> None:
    systems = {"ours": pairs(), "theirs": pairs(kind="similarity"), "_third $": pairs(200)}
    table = [["ours", "0.96"], ["theirs", "0.96"], ["_third $", "0.95"]]
    page = comparison_page(("System", "AUC"), table, systems, {"data": "Pairs of pairs.txt"}, ["Look out."])
    assert rows(page.sections[0]) == {name: [value] for name, value in table}
    roc = page.sections[1].pictures[0].figure
    assert isinstance(roc, Figure) and len(roc.axes[0].lines) == 4  # and chance
    assert page.warnings == ["Look out."] and dict(page.facts) == {"Data": "Pairs of pairs.txt"}
    with pytest.raises(ValueError, match="no curves"):
        comparison_page(("System",), [], {}, {}, [])


def test_identification_tells_ranks_and_open_set_rates() -> None:
    rng = np.random.default_rng(1)
    people = np.repeat(np.arange(40), 4)
    rows_of = rng.normal(size=(40, 16))[people] + 0.8 * rng.normal(size=(160, 16))
    unit = rows_of / np.linalg.norm(rows_of, axis=1, keepdims=True)
    unit[5] = np.nan
    gallery = (np.arange(160) % 4 == 0) & (people < 25)
    result = identify(unit[gallery], people[gallery], unit[~gallery], people[~gallery])
    report = result.to_report(1.0) | {"model": "m", "warnings": ["Look out."], "data": "Folders."}
    page = identification_page(report, {"A plot": Figure(), "A strip": PICTURE})
    mated = 3 * 25
    right = round(report["rank1"] * mated)
    assert page.summary[0].startswith(f"Of {mated} probes of people in the gallery, {right} are nearest")
    assert "At the model's own threshold (1.0000)" in page.summary[1]
    ranks, open_set, single = section(page, "Figures").tables
    assert {row[0]: row[1] for row in ranks.rows}["5"] == share(report["rank5"])
    assert {row[0]: row[1] for row in open_set.rows}["0.1 %"] == "needs 3,000 non-mated probes"
    assert len(single.rows) == 7
    assert [picture.name for picture in section(page, "Plots").pictures] == ["A plot", "A strip"]
    assert section(page, "Failures").words[0].startswith("No face was found in 1 of 135 probes.")
    assert words(page) and page.warnings == ["Look out."]


def test_identification_needs_no_more_than_its_chief_numbers() -> None:
    report = {"rank1": 0.5, "rank5": 1.0, "gallery_people": 5, "gallery_pictures": 9, "probes": 4, "mated": 4}
    page = identification_page(report, {})
    assert page.headline[0].value == "50.00 %"
    assert words(page)


def test_triplets_tell_the_share_ordered_right() -> None:
    rng = np.random.default_rng(2)
    near, far = rng.uniform(0, 1.2, 200), rng.uniform(0.6, 2, 200)
    report = judge_triplets(near, far, np.arange(200) == 0) | {"model": "runs/x/bundle", "warnings": []}
    page = triplet_page(report, Figure())
    expected = np.mean((near < far)[1:]) * 199 / 200
    assert page.headline[0].value == f"{100 * expected:.2f} %"
    counts = rows(section(page, "Figures"))
    assert counts["ordered right"] == [str(int((near < far)[1:].sum()))]
    assert page.title == "How well x orders triplets"
    assert words(page)


def test_numbers_in_words() -> None:
    assert (share(None), number(None)) == ("undefined", "undefined")
    assert within((0.1, 0.2)) == "10.00 to 20.00 %" and within((0.1, 0.2), plain=True) == "0.1000 to 0.2000"
    assert within(None) == within((None, 0.2)) == within((0.1, None)) == ""
    assert short_name({"model": "runs/a/bundle"}) == "a" and short_name({"model": "bundle"}) == "bundle"
    assert short_name({"model": "scores"}) == "scores" and short_name({}) == "the system"


def test_the_band_never_falls() -> None:
    from facekit.verification_sections import roc_band

    rng = np.random.default_rng(0)
    same = np.arange(120) % 2 == 0
    distances = rng.normal(np.where(same, 0.9, 1.0), 0.3)
    band = roc_band(ScoredPairs(distances, same, np.zeros(120, bool)), 60)
    assert (np.diff(band.low) >= 0).all() and (np.diff(band.high) >= 0).all()
    assert (band.low <= band.high).all()
