"""The pages of all protocols: what an expert checks and a newcomer can read, composed from a report's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from facekit import page_parts as parts
from facekit import verification_sections as sections
from facekit.metrics import roc
from facekit.overlay import Overlay
from facekit.page import Headline, Illustration, Page, Picture, Section, Table
from facekit.page_parts import Report, number, share, within
from facekit.rate_plots import det_figure, roc_figure
from facekit.scored import ScoredPairs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TERMS = (
    "genuine, impostor",
    "score",
    "threshold",
    "FMR",
    "FNMR",
    "TPR",
    "accuracy",
    "precision",
    "F1",
    "ROC",
    "DET",
    "AUC",
    "EER",
    "95 % interval",
    "k folds",
    "rule of three",
)


def verification_page(
    report: Report,
    scored: ScoredPairs,
    strips: Mapping[str, Picture],
    overlays: Sequence[Overlay] = (),
    band: bool = True,
    probability: Mapping[str, Any] | None = None,
) -> Page:
    """The page about one system on pairs.

    Args:
        report: of `facekit.report.verification_report`, with facts, `warnings`, `groups` and `overlap` beside.
        scored: the pairs that it is about, of both classes.
        strips: by caption, pictures of the hardest pairs, and of likely doubles among the training people.
        overlays: published curves to draw beside.
        band: whether to draw the 95 % band of the curves, the slowest part.
        probability: of `facekit.probability.probability_quality`, where scores were turned into probabilities.

    Raises:
        ValueError: there are pairs of one class only.
    """
    curve, name = roc(scored.ranked, scored.same), parts.short_name(report)
    hardest = {caption: strip for caption, strip in strips.items() if "hardest" in caption.lower()}
    others = {caption: strip for caption, strip in strips.items() if caption not in hardest}
    shaded = sections.roc_band(scored, curve.impostor) if band else None
    return Page(
        title=f"How well {name} tells people apart",
        subtitle=f"Face verification on {report['genuine']:,} genuine and {report['impostor']:,} impostor pairs. "
        f"{report.get('data') or report.get('pairs_file') or ''}",
        summary=_verification_summary(report),
        headline=_verification_headline(report),
        warnings=list(report.get("warnings") or []),
        sections=[
            sections.figure_section(report),
            sections.curve_section(report, curve, name, shaded, overlays),
            sections.score_section(report, scored, curve),
            *sections.fold_section(report),
            *sections.reliability_section(probability),
            *sections.group_section(report),
            *sections.hardest_section(scored, hardest),
            *sections.failure_section(report, scored),
            *parts.overlap_section(report, others),
            parts.glossary(*_TERMS),
            *parts.reproduction(report),
        ],
        facts=parts.facts_of(report),
    )


def _verification_summary(report: Report) -> list[str]:
    intervals = report.get("intervals") or {}

    def sentence(errors: int, pairs: int, of: str, what: str, rate: str, value: float | None) -> str:
        ends = within(intervals.get(rate.lower()))
        interval = f"; 95 % interval {ends}" if ends else ""
        verb = "is" if errors == 1 else "are"
        return f"Of {pairs:,} pairs of {of}, {errors:,} {verb} {what} ({rate} {share(value)}{interval})."

    return [
        sentence(
            report["false_accepts"],
            report["impostor"],
            "different people",
            "taken for the same person",
            "FMR",
            report["fmr"],
        ),
        sentence(report["false_rejects"], report["genuine"], "one person", "turned away", "FNMR", report["fnmr"]),
        sections.rule(report),
    ]


def _verification_headline(report: Report) -> list[Headline]:
    intervals = report.get("intervals") or {}

    def interval(name: str, plain: bool = False) -> str:
        ends = within(intervals.get(name), plain)
        return f"95 %: {ends}" if ends else ""

    folds = report.get("kfold") or {}
    by_folds = report.get("accuracy_from") == folds.get("name")
    right = "decisions that are right" + (", mean of the folds" if by_folds else "")
    cards = [
        Headline("False-match rate", share(report["fmr"]), interval("fmr"), "strangers accepted"),
        Headline("False-non-match rate", share(report["fnmr"]), interval("fnmr"), "true matches turned away"),
        Headline("Accuracy", share(report["accuracy"]), interval("accuracy"), right),
        Headline("AUC", number(report["auc"]), interval("auc", plain=True), "1 is perfect, 0.5 is chance"),
        Headline("EER", share(report["eer"]), "", "where both errors are equal"),
    ]
    claimed = [claim for claim in report["tpr_at_fpr"] if claim["claimable"]]
    if claimed:
        strictest = claimed[-1]
        name = f"TPR at FMR {100 * strictest['fpr']:g} %"
        cards.append(Headline(name, share(strictest["tpr"]), "", "true matches accepted at a strict threshold"))
    return cards


def comparison_page(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    systems: Mapping[str, ScoredPairs],
    facts: Report,
    warnings: Sequence[str],
) -> Page:
    """The page about several systems on the same pairs, side by side.

    Args:
        header: of the table.
        rows: a row a system.
        systems: their scored pairs by name, of both classes.
        facts: of data and settings, as a report holds them.
        warnings: sentences.

    Raises:
        ValueError: there is no system, or one has pairs of one class only.
    """
    curves = {name: roc(scored.ranked, scored.same) for name, scored in systems.items()}
    words = [
        "All were given the same pairs. Figures without a threshold in common (AUC, EER, TPR at a stated FMR) "
        "compare fairly; where the interval of a difference holds 0, the difference may be chance."
    ]
    pictures = [
        Illustration(roc_figure(curves), "ROC of all systems; nearer to the upper left is better.", "compared-roc"),
        Illustration(det_figure(curves), "DET of all systems; nearer to the lower left is better.", "compared-det"),
    ]
    return Page(
        title=f"{len(systems)} systems compared",
        subtitle=str(facts.get("data") or facts.get("pairs_file") or ""),
        warnings=list(warnings),
        sections=[
            Section("Systems side by side", words, [Table(header, rows)]),
            Section("Curves side by side", pictures=pictures),
        ],
        facts=parts.facts_of(facts),
    )


def identification_page(report: Report, pictures: Mapping[str, Figure | Picture]) -> Page:
    """The page about a search: who is it?

    Args:
        report: of `facekit.identification.Identification.to_report`, with facts and `warnings` beside.
        pictures: plots and strips by their captions.
    """
    intervals = report.get("intervals") or {}
    rank1 = within(intervals.get("rank1"))
    claimed = [claim for claim in report.get("tpir_at_fpir") or [] if claim["claimable"]]
    headline = [
        Headline(
            "Rank-1", share(report["rank1"]), f"95 %: {rank1}" if rank1 else "", "the nearest is the right one"
        ),
        Headline("Rank-5", share(report["rank5"]), "", "the right one is among the five nearest"),
    ]
    if claimed:
        name = f"TPIR at FPIR {100 * claimed[-1]['fpir']:g} %"
        headline.append(Headline(name, share(claimed[-1]["tpir"]), "", "right names when strangers stay unnamed"))
    shown = [Illustration(figure, f"{caption}.", caption) for caption, figure in pictures.items()]
    return Page(
        title=f"How well {parts.short_name(report)} finds people",
        subtitle=f"Face identification: {report['probes']:,} probes in a gallery of {report['gallery_people']:,} "
        f"people and {report['gallery_pictures']:,} pictures. {report.get('data') or ''}",
        summary=_identification_summary(report),
        headline=headline,
        warnings=list(report.get("warnings") or []),
        sections=[
            Section("Figures", [parts.interval_words(report)] if rank1 else [], _identification_tables(report)),
            *([Section("Plots", pictures=shown)] if shown else []),
            *_identification_failures(report),
            parts.glossary(
                "gallery, probe", "rank-1", "TPIR", "FPIR", *_TERMS[:6], "95 % interval", "rule of three"
            ),
            *parts.reproduction(report),
        ],
        facts=parts.facts_of(report),
    )


def _identification_summary(report: Report) -> list[str]:
    words = [
        f"Of {report['mated']:,} probes of people in the gallery, {round(report['rank1'] * report['mated']):,} are "
        f"nearest to the right person (rank-1 {share(report['rank1'])})."
    ]
    at = report.get("at_threshold")
    if at:
        words.append(
            f"At the model's own threshold ({number(at['threshold'])}), {share(at['tpir'])} of them get the right "
            f"name (TPIR), and {share(at['fpir'])} of {report['non_mated']:,} probes of unknown people get a name "
            "all the same (FPIR)."
        )
    return words


def _identification_tables(report: Report) -> list[Table]:
    def table(claims: Sequence[Report], rate: str, figure: str, what: str, caption: str) -> Table:
        rows = [
            (
                f"{100 * claim[rate]:g} %",
                share(claim[figure]) if claim["claimable"] else f"needs {claim['needs']:,} {what}",
                number(claim["threshold"]) if claim["claimable"] else "",
            )
            for claim in claims
        ]
        return Table((f"{rate.upper()} at most", figure.upper(), "Distance threshold"), rows, caption)

    people = report.get("gallery_people") or max(_RANKS)
    rows = [row for row in report.get("cmc") or [] if row["rank"] in _RANKS and row["rank"] <= people]
    ranks = [(str(row["rank"]), share(row["share"])) for row in rows]
    open_set = "Open set: best TPIR at a stated FPIR"
    single = "Single pairs: best TPR at a stated FPR (ID rate)"
    return [
        Table(("Nearest people", "Person among them"), ranks, "Closed set (CMC)"),
        table(report.get("tpir_at_fpir") or [], "fpir", "tpir", "non-mated probes", open_set),
        table(report.get("id_rate") or [], "fpr", "tpr", "pairs of different people", single),
    ]


_RANKS = (1, 2, 3, 5, 10, 20, 50)


def _identification_failures(report: Report) -> list[Section]:
    counts = [
        (f"{report[name]:,} of {report[whole]:,} {what}")
        for name, whole, what in (
            ("failed_gallery", "gallery_pictures", "gallery pictures"),
            ("failed_probes", "probes", "probes"),
            ("failed_distractors", "distractors", "distractors"),
        )
        if report.get(name)
    ]
    if not counts:
        return []
    words = [f"No face was found in {', '.join(counts)}. A probe without a face counts as not recognised."]
    return [Section("Failures to detect a face", words, parts.lost_pictures(report))]


def triplet_page(report: Report, figure: Figure) -> Page:
    """The page about triplets: is the anchor nearer to the positive than to the negative?

    Args:
        report: of `facekit.triplets.judge_triplets`, with facts and `warnings` beside.
        figure: the distribution of margins.
    """
    ends = within((report.get("intervals") or {}).get("ordered"))
    counts = [
        (words, f"{report[name]:,}")
        for name, words in (
            ("triplets", "all triplets"),
            ("ordered_right", "ordered right"),
            ("ordered_wrong", "ordered wrong"),
            ("ties", "ties, counted as wrong"),
            ("failed", "a picture without a face, counted as wrong"),
        )
        if name in report
    ]
    shares = [(f"above {row['margin']:g}", share(row["share"])) for row in report.get("share_above") or []]
    failures = parts.lost_pictures(report)
    return Page(
        title=f"How well {parts.short_name(report)} orders triplets",
        subtitle=f"{report['triplets']:,} triplets. {report.get('data') or ''}",
        summary=[
            f"In {share(report['ordered'])} of {report['triplets']:,} triplets, the picture of the same person is "
            "nearer than that of another."
        ],
        headline=[
            Headline("Ordered right", share(report["ordered"]), f"95 %: {ends}" if ends else "", "1/2 is chance")
        ],
        warnings=list(report.get("warnings") or []),
        sections=[
            Section(
                "Figures",
                [parts.interval_words(report)] if ends else [],
                [Table(("Triplets", "Count"), counts), Table(("Margin", "Share of triplets"), shares)],
                [
                    Illustration(
                        figure, "How much nearer the right picture is; left of 0 the order is wrong.", "margins"
                    )
                ],
            ),
            *([Section("Failures to detect a face", tables=failures)] if failures else []),
            parts.glossary("triplet", "margin", "95 % interval"),
            *parts.reproduction(report),
        ],
        facts=parts.facts_of(report),
    )
