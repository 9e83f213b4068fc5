"""Judge models by a protocol: pairs, a folder of people, triplets, a gallery, or somebody's scores.

In:  systems (see systems.py), lists of pictures and where they are.
Out: a `Judgement`: the report as JSON values, its page, and the scores. evaluate.py writes them down.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from facekit.comparison import compare_systems, comparison_rows
from facekit.groups import WorstRatio, rates_by_group
from facekit.overlay import Overlay
from facekit.page import Page
from facekit.pairs import Pairs
from facekit.probability import ProbabilityMap, probability_figures
from facekit.report import verification_report
from facekit.report_text import comparison_text, triplet_text, verification_text
from facekit.scored import ScoredPairs, refuse_one_class
from facekit.verification_page import comparison_page, triplet_page, verification_page
from overlap import Overlap, Training, by_embeddings, by_names, training_pictures

if TYPE_CHECKING:
    from pictures import Images, PictureReader
    from scoring import Embedded
    from systems import System

HARDEST = 8

Groups = Mapping[str, tuple[NDArray[np.str_], NDArray[np.str_]]]


@dataclass(frozen=True)
class Judgement:
    """What a protocol found.

    Attributes:
        report: JSON values, plain numbers first.
        page: the same for people to read.
        text: the same in short, for the terminal.
        scored: the pairs with their scores; None where the protocol has none.
        groups: the group of each pair, where the list of scores has them.
    """

    report: dict[str, Any]
    page: Page
    text: str
    scored: ScoredPairs | None = None
    groups: list[str] | None = None


@dataclass(frozen=True)
class Extras:
    """What a verification report takes in beside the scores.

    Attributes:
        facts: said of data and model: JSON values that go into the report.
        warnings: sentences.
        groups: of each column of the group file, the values of each pair's two pictures.
        overlays: published curves.
        strips: pictures of the hardest pairs, by caption.
        others: further systems on the same pairs, by name, with their thresholds.
        chances: how the system's distances become probabilities; None: they don't.
        no_threshold: why a system without a threshold has none, in words.
    """

    facts: Mapping[str, Any]
    warnings: Sequence[str] = ()
    groups: Groups | None = None
    overlays: Sequence[Overlay] = ()
    strips: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    others: Mapping[str, tuple[ScoredPairs, float | None]] = field(default_factory=dict)
    chances: ProbabilityMap | None = None
    no_threshold: str = "uncalibrated"


def judge_scores(name: str, scored: ScoredPairs, threshold: float | None, extras: Extras) -> Judgement:
    """The report on scored pairs, whichever system gave the scores.

    Args:
        name: of the system.
        scored: the pairs.
        threshold: the system's own, as an internal distance; None: uncalibrated.
        extras: what else goes into it.

    Raises:
        ValueError: there is only one class in the pairs.
    """
    refuse_one_class(scored.same)
    report = verification_report(scored, threshold) | {"groups": None, "group_ratios": None, "systems": None}
    report |= extras.facts
    warnings = [*extras.warnings, *doubts(report, threshold, extras.no_threshold)]
    if extras.groups:
        at = threshold if threshold is not None else _internal(scored, report["threshold"])
        table = rates_by_group(scored, at, extras.groups)
        report |= {"groups": table.to_rows(), "group_ratios": table.ratio_rows()}
        if threshold is None:
            warnings.append("Groups are judged at the mean of the folds' thresholds, which these pairs chose.")
        warnings += [*table.notes, *(ratio.text for ratio in table.ratios if clearly_apart(ratio))]
    report["warnings"] = warnings
    report["probability"] = None if extras.chances is None else judge_probabilities(scored, extras.chances)
    page = verification_page(report, scored, extras.strips, extras.overlays, probability=report["probability"])
    text = verification_text(report)
    if extras.others:
        systems = {name: scored, **{other: found for other, (found, _) in extras.others.items()}}
        thresholds = {name: threshold, **{other: own for other, (_, own) in extras.others.items()}}
        report["systems"] = compare_systems(systems, thresholds)
        header, cells = comparison_rows(report["systems"])
        beside = comparison_page(header, cells, systems, extras.facts, warnings)
        page = replace(page, sections=[*beside.sections, *page.sections])
        text = f"{text}\n\n{comparison_text(header, cells)}"
    return Judgement(report, page, text, scored)


def judge_probabilities(scored: ScoredPairs, chances: ProbabilityMap) -> dict[str, Any] | None:
    """How good a model's probabilities are on pairs; None where a kind of pair is lost whole."""
    there = scored.chosen(~scored.failed)
    if there.same.all() or not there.same.any():
        return None
    return {"method": chances.method, **probability_figures(chances.probability(there.distances), there.same)}


def judge_pairs(
    systems: Sequence[System],
    pairs: Pairs,
    images: Images,
    cache: Path,
    extras: Extras,
    check_overlap: bool = False,
) -> Judgement:
    """Embed the pictures of pairs by each system, and judge the first with the others beside it.

    Args:
        systems: at least one; the first is the one that the report is about.
        pairs: of both kinds.
        images: where the pictures are.
        cache: folder for crops of originals.
        extras: facts, warnings, groups and overlays; strips and others are made here.
        check_overlap: whether to compare the faces with those of the training people.

    Raises:
        ValueError: the pairs are all of one kind, no pair has two faces, or a part of the data is gone.
    """
    from pictures import Packed, PictureReader
    from scoring import embed, known_people, score

    refuse_one_class(pairs.same)
    # Before the long work: the training pictures may be gone.
    training = training_pictures(systems[0], cache) if check_overlap else None
    model, *rest = systems
    reader = PictureReader(model.recipe, images, cache, model.aligner)
    pictures = embed(model, reader, pairs.pictures())
    own = score(model, pictures, pairs)
    others, lost = _others(rest, pairs, images, cache)
    overlap = by_names(model.bundle, known_people(pairs), model.record)
    if training is not None:
        overlap = _overlap(model, training, pictures, pairs, reader)
    facts = {**extras.facts, **model_facts(model, overlap, reader.failures)}
    warnings = [*model_doubts(model), *overlap.warnings, *extras.warnings, *lost]
    if model.record and model.record.threshold and _same_list(model.record.threshold.data, extras.facts):
        warnings.append("The model's threshold was chosen on these very pairs: its rates here are no test of it.")
    if isinstance(images, Packed):
        facts["recipe"] = None
        warnings.append("The pictures were cropped by whoever packed them, perhaps not as the model expects.")
    whole = replace(
        extras,
        facts=facts,
        warnings=warnings,
        strips=hardest_strips(own, reader) | overlap.strip,
        chances=model.record.probability if model.record else None,
        others=others,
        no_threshold=model.no_threshold,
    )
    return judge_scores(model.name, own, model.threshold, whole)


def _others(
    systems: Sequence[System], pairs: Pairs, images: Images, cache: Path
) -> tuple[dict[str, tuple[ScoredPairs, float | None]], list[str]]:
    """Further systems' pairs and thresholds by name, and a sentence for each baseline that found no face."""
    others, lost = {}, []
    for system in systems:
        try:
            others[system.name] = _scored(system, pairs, images, cache), system.threshold
        except ValueError as error:
            if system.bundle is not None:
                raise
            lost.append(f"{system.name} has no row: {error}")
    return others, lost


def _scored(system: System, pairs: Pairs, images: Images, cache: Path) -> ScoredPairs:
    from pictures import PictureReader
    from scoring import embed, score

    reader = PictureReader(system.recipe, images, cache, system.aligner)
    return score(system, embed(system, reader, pairs.pictures()), pairs)


def _same_list(data: str, facts: Mapping[str, Any]) -> bool:
    """Whether a threshold was chosen, as calibrate.py names its data, on the very pairs that are judged here."""
    judged = "; ".join(filter(None, [str(facts.get("pairs_file") or facts.get("images")), facts.get("left_out")]))
    return data == judged or data.startswith(f"{judged} (")


def _overlap(model: System, training: Training, pictures: Embedded, pairs: Pairs, reader: PictureReader) -> Overlap:
    people = pairs.people()
    of_picture: list[str] | None = None
    if people is not None:
        owner = dict(zip([*pairs.first, *pairs.second], [*people[0], *people[1]], strict=True))
        of_picture = [owner[name] for name in pictures.names]
    return by_embeddings(model, training, pictures, of_picture, reader.read)


def model_facts(model: System, overlap: Overlap, failures: Mapping[str, str]) -> dict[str, Any]:
    """What a bundle says of itself, and what the pictures say of it, for the report.

    Args:
        model: the system that the report is about.
        overlap: what is known of its training people.
        failures: pictures without a face, with the reason.
    """
    record = model.record
    return {
        "model": str(model.bundle or model.name),
        "model_name": record.name if record else model.name,
        "synthetic": bool(record and record.synthetic),
        "recipe": model.recipe.to_dict() if model.recipe else None,
        "as_crops": model.as_crops,
        "threshold_words": record.threshold.text() if record and record.threshold else model.no_threshold,
        "training": dict(record.training) if record else {},
        "overlap": overlap.to_dict(),
        "people_seen_in_training": overlap.names,
        "lost_pictures": [{"picture": name, "reason": why} for name, why in sorted(failures.items())],
    }


def model_doubts(model: System) -> list[str]:
    """What to doubt about a model before it is judged."""
    doubts = []
    if model.record and model.record.synthetic:
        doubts.append("The model was trained on drawn faces: it is good for trying the commands only.")
    if model.as_crops:
        doubts.append(
            "The pictures were taken as faces already cut, whoever cut them (`as_crops`): where that was not done "
            "as the model expects, the figures are worse than it is."
        )
    return doubts


def hardest_strips(scored: ScoredPairs, reader: PictureReader) -> dict[str, NDArray[np.uint8]]:
    """The pairs that a model gets most wrong, as pictures: the farthest genuine and the nearest impostor ones."""
    from facekit.plots import pairs_strip

    assert scored.first is not None and scored.second is not None
    strips = {}
    for caption, which, sign in (("Hardest genuine pairs", True, -1), ("Hardest impostor pairs", False, 1)):
        places = np.flatnonzero((scored.same == which) & ~scored.failed)
        chosen = places[np.argsort(sign * scored.distances[places], kind="stable")[:HARDEST]]
        pairs = [(reader.read(scored.first[place]), reader.read(scored.second[place])) for place in chosen]
        drawn = [
            (place, one, other)
            for place, (one, other) in zip(chosen, pairs, strict=True)
            if one is not None and other is not None
        ]
        if drawn:
            captions = [f"{scored.native(scored.distances[place]):.2f}" for place, _, _ in drawn]
            strips[caption] = pairs_strip([one for _, one, _ in drawn], [other for *_, other in drawn], captions)
    return strips


def _internal(scored: ScoredPairs, threshold: float | None) -> float:
    """A report's threshold as an internal distance; None stands for accepting all, as some fold did best."""
    return np.inf if threshold is None else scored.native(threshold)


def clearly_apart(ratio: WorstRatio) -> bool:
    """Whether two groups' rates differ beyond chance, allowing for how they were picked.

    The two are the extremes among k groups: the interval, taken as normal for the ratio's logarithm, is widened to
    hold for all k (k - 1) / 2 couples of groups (Bonferroni).
    """
    from scipy.special import ndtri

    if ratio.interval is None or ratio.interval[1] is None or ratio.ratio is None or not ratio.interval[0]:
        return False
    low, high = np.log(ratio.interval[0]), np.log(ratio.interval[1])
    error = (high - low) / (2 * ndtri(0.975))
    couples = ratio.groups * (ratio.groups - 1) / 2
    return bool(np.log(ratio.ratio) > ndtri(1 - 0.025 / couples) * error)


def doubts(report: Mapping[str, Any], threshold: float | None, no_threshold: str = "uncalibrated") -> list[str]:
    """What the figures themselves give reason to doubt, in words."""
    sentences = []
    if threshold is None and no_threshold == "uncalibrated":
        sentences.append(
            "Uncalibrated: there is no threshold that was chosen elsewhere, so accuracy and rates are those of "
            f"{report['accuracy_from']}. For a model `python evaluate.py calibrate` sets one."
        )
    elif threshold is None:
        sentences.append(
            f"The model has no threshold here: {no_threshold}. Accuracy and rates are those of "
            f"{report['accuracy_from']}."
        )
    unresolved = [claim for claim in report["tpr_at_fpr"] if not claim["claimable"]]
    if unresolved:
        rates = ", ".join(f"{claim['fpr']:g}" for claim in unresolved)
        sentences.append(
            f"{report['impostor']:,} impostor pairs cannot resolve a false-match rate of {rates}: "
            f"{unresolved[0]['needs']:,} pairs at least are needed for {unresolved[0]['fpr']:g}."
        )
    ends = report["intervals"]["auc"]
    if ends[1] is not None and ends[1] < 0.5:
        sentences.append("The AUC is below chance: the scores seem to be the wrong way round (see `distance`).")
    survivors = report["survivors"]
    if survivors and not (survivors.get("genuine") and survivors.get("impostor")):
        sentences.append(
            "One kind of pair has no picture with a face in it: its figures say nothing of the system."
        )
    share = max(report["genuine"], report["impostor"]) / report["pairs"]
    if share > 0.8:
        kind = "impostor" if report["impostor"] > report["genuine"] else "genuine"
        sentences.append(
            f"{share:.1%} of the pairs are {kind} pairs: whoever calls all pairs that has an accuracy of "
            f"{share:.3f}. Read FMR and FNMR instead."
        )
    if report["failed"]:
        sentences.append(
            f"{report['failed']:,} of {report['pairs']:,} pairs have a picture without a face; they count as "
            "rejected."
        )
    if report["intervals"]["by"] == "pair":
        sentences.append("People are unknown, so intervals count pairs as independent, and come out too narrow.")
    kfold = report["kfold"]
    if kfold and kfold["shared_pairs"] and report["accuracy_from"] == kfold["name"]:
        sentences.append(f"{kfold['shared_pairs']:,} pairs share a person with another fold.")
    return sentences


def judge_triplets(
    system: System, triplets: Sequence[tuple[str, str, str]], images: Images, cache: Path, facts: Mapping[str, Any]
) -> Judgement:
    """How often a system has the anchor nearer to the positive than to the negative.

    Args:
        system: a bundle.
        triplets: (anchor, positive, negative) names.
        images: where the pictures are.
        cache: folder for crops of originals.
        facts: JSON values that go into the report.

    Raises:
        ValueError: no triplet has three faces.
    """
    from facekit.identification_plots import margin_figure
    from facekit.triplets import judge_triplets as judge_distances
    from pictures import PictureReader
    from scoring import distances_of, embed

    reader = PictureReader(system.recipe, images, cache, system.aligner)
    pictures = embed(system, reader, sorted({name for triplet in triplets for name in triplet}))
    anchor, positive, negative = (pictures.places(column) for column in zip(*triplets, strict=True))
    near, far = (distances_of(pictures.rows, anchor, other) for other in (positive, negative))
    failed = np.isnan(near) | np.isnan(far)
    people = [[Path(name).parent.as_posix() for name in triplet] for triplet in triplets]
    by_folder = all(one == other != third for one, other, third in people)
    report = judge_distances(near, far, failed, [one for one, *_ in people] if by_folder else None)
    names = {name for triplet in people for name in triplet} if by_folder else None
    overlap = by_names(system.bundle, names, system.record)
    report |= {**facts, **model_facts(system, overlap, reader.failures)}
    report["warnings"] = [*model_doubts(system), *overlap.warnings]
    return Judgement(report, triplet_page(report, margin_figure(report)), triplet_text(report))
