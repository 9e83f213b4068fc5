"""Judge a model on looking people up: a gallery of known people, probes to find in it, and distractors.

In:  a system; three folders of people.
Out: a `Judgement`: rank-1, CMC, TPIR at FPIR and the ID-rate table, as JSON values and as a page.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from facekit.protocols import plain_name
from facekit.report_text import identification_text
from judging import Judgement, model_doubts, model_facts
from overlap import by_embeddings, by_names, training_pictures
from pictures import Images, PictureReader, find_images, people_pictures

if TYPE_CHECKING:
    from facekit.identification import Identification
    from systems import System


@dataclass(frozen=True)
class Side:
    """A folder of people in the search.

    Attributes:
        folder: the folder.
        names: (n) its pictures.
        people: (n) the person of each, in the form in which names are compared.
        images: where the pictures are.
    """

    folder: Path
    names: list[str]
    people: list[str]
    images: Images


def read_side(folder: Path, setting: str, without: Iterable[str] = ()) -> Side:
    """The pictures of a folder of people, less those of some people.

    Raises:
        ValueError: the folder is missing, or nobody is left in it.
    """
    left_out = {plain_name(name) for name in without}
    names, folders = people_pictures(folder, setting)
    people = [plain_name(name) for name in folders]
    kept = [(name, person) for name, person in zip(names, people, strict=True) if person not in left_out]
    if not kept:
        raise ValueError(f"`{setting}` {folder}: nobody is left in it.")
    names, people = [name for name, _ in kept], [person for _, person in kept]
    return Side(folder, names, people, find_images(folder, names, setting))


def check_apart(gallery: Side, probes: Side, distractors: Side | None) -> None:
    """See that no picture is looked for in itself, and that distractors are strangers.

    Raises:
        ValueError: a probe is the same file as a gallery picture, or a distractor is somebody of the others.
    """
    known = set(gallery.people)
    of_known = [name for name, person in zip(probes.names, probes.people, strict=True) if person in known]
    digests = {digest: name for name in gallery.names if (digest := _digest(gallery.folder / name))}
    for name in of_known:
        digest = _digest(probes.folder / name)
        twin = digests.get(digest) if digest else None
        if twin is not None:
            raise ValueError(
                f"{probes.folder / name}: is the same picture as {gallery.folder / twin}, and would find itself. "
                "Take it out of one of the two folders."
            )
    met = sorted({*gallery.people, *probes.people} & set(distractors.people)) if distractors else []
    if met:
        raise ValueError(
            f"`distractors`: {met[0]} is also in the gallery or the probes ({len(met)} such people). Distractors "
            "must be strangers: take them out (`exclude_people` takes people out of all three folders)."
        )


def _digest(path: Path) -> bytes | None:
    """Tells equal files; None where there is no file (a picture without a face has no crop) or an empty one."""
    data = path.read_bytes() if path.is_file() else b""
    return hashlib.sha256(data).digest() if data else None


def judge_gallery(
    system: System,
    sides: Mapping[str, Side],
    cache: Path,
    facts: Mapping[str, Any],
    check_overlap: bool = False,
) -> Judgement:
    """Look every probe and distractor up in the gallery.

    Args:
        system: a bundle.
        sides: "gallery", "probes" and, where there are any, "distractors".
        cache: folder for crops of originals.
        facts: JSON values that go into the report.
        check_overlap: whether to compare the probes' faces with those of the training people.

    Raises:
        ValueError: no probe's person is in the gallery, or a folder has no face at all.
    """
    from facekit.identification import identify
    from facekit.verification_page import identification_page
    from scoring import embed

    training = training_pictures(system, cache) if check_overlap else None
    readers = {
        name: PictureReader(system.recipe, side.images, cache, system.aligner) for name, side in sides.items()
    }
    found = {name: embed(system, readers[name], side.names) for name, side in sides.items()}
    gallery, probes = sides["gallery"], sides["probes"]
    result = identify(
        found["gallery"].rows,
        gallery.people,
        found["probes"].rows,
        probes.people,
        found["distractors"].rows if "distractors" in found else None,
    )
    report = result.to_report(system.threshold)
    if training is not None:
        overlap = by_embeddings(system, training, found["probes"], probes.people, readers["probes"].read)
    else:
        overlap = by_names(system.bundle, {*probes.people}, system.record)
    lost = {name: why for reader in readers.values() for name, why in reader.failures.items()}
    report |= {**facts, **model_facts(system, overlap, lost)}
    report["warnings"] = [*model_doubts(system), *overlap.warnings, *search_doubts(system, report)]
    page = identification_page(report, {**figures(system, result), **overlap.strip})
    return Judgement(report, page, identification_text(report))


def search_doubts(system: System, report: Mapping[str, Any]) -> list[str]:
    """What the figures of a search give reason to doubt, in words."""
    warnings = []
    if system.threshold is None:
        why = "" if system.no_threshold == "uncalibrated" else f" ({system.no_threshold})"
        warnings.append(f"Uncalibrated: the model has no threshold below which a name is given{why}.")
    elif report["fpir"] is not None and report["fpir"] > 0.1:
        warnings.append(
            f"The model's threshold was chosen for one comparison. Each probe here is compared with "
            f"{report['gallery_people']:,} people, and {report['fpir']:.0%} of those who are none of them get a "
            "name. Choose a smaller one from the open-set table."
        )
    if report["failed_probes"]:
        warnings.append(f"Probes without a face: {report['failed_probes']}; they count as missed.")
    if report["failed_distractors"]:
        warnings.append(f"Distractors without a face: {report['failed_distractors']}; they get no name.")
    if not report["non_mated"]:
        warnings.append(
            "Every probe's person is in the gallery: how strangers fare is not told. See `distractors`."
        )
    if report["failed_gallery"]:
        warnings.append(
            f"Gallery pictures without a face: {report['failed_gallery']}. People left with none: "
            f"{report['lost_people']}; their probes count as missed."
        )
    return warnings


def figures(system: System, result: Identification) -> dict[str, Any]:
    """The search drawn, by caption; what there is nothing to draw of is left out."""
    from facekit import identification_plots as plots

    name = system.name
    drawn: dict[str, Any] = {"How often the right person is among the r nearest": plots.cmc_figure({name: result})}
    if not result.open_set.one_class:
        thresholds = None if system.threshold is None else {name: system.threshold}
        caption = "Strangers among the probes: right names against false alarms"
        drawn[caption] = plots.tpir_figure({name: result}, thresholds)
    alike = result.similarities
    if any(kind.pairs for kind in (alike.genuine, alike.impostor, alike.distractor)):
        drawn["How alike two probes are, and a probe and a distractor"] = plots.similarity_figure(alike)
    return drawn
