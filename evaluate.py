"""Judge a model, or anybody's scores, by a protocol.

In:  pairs, triplets, a folder of people, a gallery and probes, with a bundle that train.py wrote; or scores.
Out: figures with intervals on stdout; report.html, report.md, report.json, pictures and scores.csv in a folder.
Run: python evaluate.py --model runs/first/bundle --pairs pairs.txt --images photos
     python evaluate.py --scores scores.csv
     python evaluate.py calibrate --model runs/first/bundle --images photos --fmr 0.01
"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from pydantic import Field

from facekit import runtime
from facekit.files import check_writable
from facekit.settings import Settings, parse
from verifier import find_bundle, named_bundle

# Everything heavy is imported where it is used: scores are judged without TensorFlow.
if TYPE_CHECKING:
    from facekit.overlay import Overlay
    from facekit.protocols import Pairs
    from judging import Judgement


class EvaluateCommand(Settings):
    """Judge a model, or scores, by one protocol: `pairs`, `triplets`, `gallery` and `probes`, `scores`, or `images`
    alone. `python evaluate.py calibrate --help`: set a model's threshold on your own pictures.
    """  # noqa: D205 - one paragraph in --help

    pairs: Path | None = None
    """Pairs: LFW's pairs.txt or pairsDev*.txt, CSV `path1,path2,label` with 1 = same person, a split of CFP
    (Protocol/Split/FP), or InsightFace's .bin, which brings its pictures along."""

    triplets: Path | None = None
    """Triplets: CSV `anchor,positive,negative`."""

    images: Path | None = None
    """Folder that the lists' paths start from: original pictures, or crops made by crop_faces.py. Without a list:
    one folder a person; its genuine pairs (a million at most), and `impostor_pairs` impostor pairs are judged."""

    gallery: Path | None = None
    """Known people, one folder each, in which `probes` are looked for."""

    probes: Path | None = None
    """Pictures to look for, one folder a person; people who aren't in the gallery should be found unknown."""

    distractors: Path | None = None
    """Pictures of other people, none of them in gallery or probes; one folder a person."""

    scores: Path | None = None
    """Anybody's scores: CSV `score,label[,fold][,group][,id1,id2]`, 1 = same person; empty score: no face."""

    distance: bool = False
    """The scores are distances: small means same."""

    threshold: float | None = None
    """With `scores`: the system's own threshold. None: thresholds of folds."""

    model: tuple[Path, ...] = ()
    """Bundle folders, or `pretrained`; several are judged on the same pairs, side by side. None: the newest in
    runs/ that was trained on real pictures; without one, the pretrained network."""

    flip: bool | None = None
    """Average embeddings with the mirror image's, or not. None: as each bundle does. A threshold that was found the
    other way is not used."""

    as_crops: bool = False
    """Take the pictures as faces already cut, whoever cut them: no face is looked for, and crops of another recipe
    than the model's are not made again. The report says so."""

    baselines: bool = False
    """Judge the untrained network, raw pixels and (where installed) face_recognition beside the model, on its crops
    and on original pictures with its own detector too; always so with several models."""

    impostor_pairs: int = Field(1_000_000, ge=0)
    """With `images` alone: the most impostor pairs, drawn at random where there are more; 0: all."""

    exclude_people: Path | None = None
    """People to leave out, one name a line, e.g. those known to be in the training data too."""

    check_overlap: bool = False
    """Compare the faces with those of the training people, by the model; takes as long as embedding them."""

    group: Path | None = None
    """Error rates by group: CSV of a picture or person and any columns (sex, age band, camera)."""

    overlay: tuple[Path, ...] = ()
    """Published ROC curves to draw beside ours: text files of two columns, TPR and FPR, as on LFW's results
    page."""

    output: Path | None = None
    """Folder of the report. None: beside the bundle or the scores."""

    cache: Path = Path("runs/cache")
    """Where crops of original pictures are kept for the next evaluation."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Write one JSON object to stdout; everything else goes to stderr."""


def protocol_of(command: EvaluateCommand) -> str:
    """Which protocol a command asks for.

    Raises:
        ValueError: none, several, or one that lacks a part or has a part of another.
    """
    asked = [name for name in ("pairs", "triplets", "gallery", "scores") if getattr(command, name) is not None]
    if not asked and command.images is not None:
        asked = ["images"]
    if len(asked) != 1:
        found = " and ".join(f"`{name}`" for name in asked) or "none"
        raise ValueError(
            "Name one protocol: `pairs`, `triplets`, `gallery` with `probes`, `scores`, or `images` alone. "
            f"Received: {found}."
        )
    _refuse_stray_parts(command, asked[0])
    return asked[0]


# Settings that mean something with some protocols only.
PARTS = {
    "images": ("pairs", "triplets", "images"),
    "probes": ("gallery",),
    "distractors": ("gallery",),
    "distance": ("scores",),
    "threshold": ("scores",),
    "model": ("pairs", "triplets", "gallery", "images"),
    "flip": ("pairs", "triplets", "gallery", "images"),
    "as_crops": ("pairs", "triplets", "gallery", "images"),
    "impostor_pairs": ("images",),
    "exclude_people": ("pairs", "images", "gallery"),
    "baselines": ("pairs", "images"),
    "check_overlap": ("pairs", "images", "gallery"),
    "group": ("pairs", "images"),
    "overlay": ("pairs", "images", "scores"),
}


def _refuse_stray_parts(command: EvaluateCommand, protocol: str) -> None:
    defaults = EvaluateCommand()
    for name, protocols in PARTS.items():
        if getattr(command, name) != getattr(defaults, name) and protocol not in protocols:
            those = " or ".join(f"`{one}`" for one in protocols)
            raise ValueError(f"`{name}` goes with {those}, not with `{protocol}`. Leave it out.")
    if protocol == "gallery" and command.probes is None:
        raise ValueError("`gallery` needs `probes`: the folder of pictures to look for.")
    if protocol == "triplets" and command.images is None:
        raise ValueError("`triplets` needs `images`: the folder that the list's paths start from.")
    if len(command.model) > 1 and protocol in ("triplets", "gallery"):
        raise ValueError(f"`{protocol}` judges one model at a time. Received: {len(command.model)}.")


def run(command: EvaluateCommand, words: str = "") -> Judgement:
    """Evaluate as the command says, and write the report's files.

    Args:
        command: what to do.
        words: the command line, for the report.

    Raises:
        ValueError: an input is wrong; in one sentence.
    """
    judge = {
        "pairs": evaluate_pairs,
        "images": evaluate_pairs,
        "triplets": evaluate_triplets,
        "gallery": evaluate_gallery,
        "scores": evaluate_scores,
    }[protocol_of(command)]
    return judge(command, words)


def evaluate_scores(command: EvaluateCommand, words: str) -> Judgement:
    """Somebody's scores. Neither TensorFlow nor a model is loaded."""
    from facekit.pairs import fold_warnings
    from facekit.score_file import read_scores
    from judging import Extras, judge_scores

    path = command.scores
    assert path is not None
    scored, groups = read_scores(path, command.distance)
    output = _output(command, path.with_name(f"{path.stem}-report"), path)
    threshold = None if command.threshold is None else scored.native(command.threshold)
    facts = {
        "protocol": "scores",
        "model": path.stem,
        "data": f"Scores of {path}",
        "scores_file": str(path),
        "overlap": {"words": "Overlap with the training people: unchecked; the scores are somebody else's."},
        "output": str(output),
        "command": words,
    }
    found = None if groups is None else {"group": (np.array(groups), np.array(groups))}
    warnings = [] if scored.folds is None else fold_warnings(scored.folds)
    extras = Extras(facts, warnings, found, _overlays(command))
    judgement = judge_scores(path.stem, scored, threshold, extras)
    return _written(replace(judgement, groups=groups), output)


def evaluate_pairs(command: EvaluateCommand, words: str) -> Judgement:
    """Pairs of a file, or all of a folder of people, by one or several models."""
    from facekit.group_file import groups_of_pairs, read_groups
    from judging import Extras, judge_pairs
    from overlap import training_folder
    from pictures import Originals
    from scoring import read_task
    from systems import baselines, bundle_systems

    path, folder = command.pairs, command.images
    task = read_task(path, folder, command.impostor_pairs, command.exclude_people)
    pairs = task.pairs
    groups = None if pairs.groups is None else {"group": (np.array(pairs.groups), np.array(pairs.groups))}
    if command.group is not None:
        groups = groups_of_pairs(read_groups(command.group), pairs.first, pairs.second, pairs.people())
    systems = bundle_systems(_bundles(command), command.flip, command.as_crops)
    assert systems[0].bundle is not None
    if command.check_overlap:
        training_folder(systems[0])
    name = f"evaluation-{path.stem if path else 'all'}" + (f"-{folder.resolve().name}" if folder else "")
    output = _output(command, _beside(systems[0].bundle) / name, path)
    runtime.start_quietly()
    warnings = list(pairs.warnings)
    if command.baselines or len(systems) > 1:
        others, missing = baselines(systems[0], originals=isinstance(task.images, Originals))
        systems = [*systems, *others]
        for sentence in missing:
            print(sentence, file=sys.stderr)
    facts = {
        "protocol": "pairs" if path else "images",
        "data": "; ".join(filter(None, [_data_words(path, folder, pairs, command.impostor_pairs), task.left_out])),
        "pairs_file": str(path) if path else None,
        "images": str(folder or path),
        "left_out": task.left_out,
        "output": str(output),
        "command": words,
    }
    extras = Extras(facts, warnings, groups, _overlays(command))
    return _written(judge_pairs(systems, pairs, task.images, command.cache, extras, command.check_overlap), output)


def _data_words(path: Path | None, folder: Path | None, pairs: Pairs, limit: int) -> str:
    if path is not None:
        return f"Pairs of {path}" + (f", pictures of {folder}" if folder else "")
    from facekit.folder_pairs import GENUINE_LIMIT

    genuine, impostor = int(pairs.same.sum()), int((~pairs.same).sum())
    own = (
        f"{genuine:,} genuine pairs, drawn at random"
        if genuine == GENUINE_LIMIT
        else f"all {genuine:,} genuine pairs"
    )
    drawn = "drawn at random" if limit and impostor == limit else "all there are"
    return f"{folder}: {own}, and {impostor:,} impostor pairs, {drawn}"


def evaluate_triplets(command: EvaluateCommand, words: str) -> Judgement:
    """Triplets of a file."""
    from facekit.protocols import read_triplets
    from judging import judge_triplets
    from pictures import find_images
    from systems import bundle_systems

    assert command.triplets is not None and command.images is not None
    triplets = read_triplets(command.triplets)
    images = find_images(command.images, sorted({name for triplet in triplets for name in triplet}))
    (system,) = bundle_systems(_bundles(command), command.flip, command.as_crops)
    assert system.bundle is not None
    output = _output(command, _beside(system.bundle) / f"triplets-{command.triplets.stem}")
    runtime.start_quietly()
    facts = {
        "protocol": "triplets",
        "data": f"Triplets of {command.triplets}, pictures of {command.images}",
        "triplets_file": str(command.triplets),
        "images": str(command.images),
        "output": str(output),
        "command": words,
    }
    return _written(judge_triplets(system, triplets, images, command.cache, facts), output)


def evaluate_gallery(command: EvaluateCommand, words: str) -> Judgement:
    """Probes to be found in a gallery."""
    from overlap import training_folder
    from searching import check_apart, judge_gallery, read_side
    from systems import bundle_systems

    folders = {"gallery": command.gallery, "probes": command.probes, "distractors": command.distractors}
    given = {name: folder for name, folder in folders.items() if folder is not None}
    left_out = _left_out(command, given)
    gone = f"{len(left_out)} people of {command.exclude_people} left out" if left_out else ""
    sides = {name: read_side(folder, name, left_out) for name, folder in given.items()}
    check_apart(sides["gallery"], sides["probes"], sides.get("distractors"))
    (system,) = bundle_systems(_bundles(command), command.flip, command.as_crops)
    assert system.bundle is not None and command.gallery is not None
    if command.check_overlap:
        training_folder(system)
    output = _output(command, _beside(system.bundle) / f"search-{command.gallery.resolve().name}")
    runtime.start_quietly()
    facts = {
        "protocol": "gallery",
        "data": "; ".join(f"{name} {side.folder}" for name, side in sides.items()) + (f"; {gone}" if gone else ""),
        **{f"{name}_dir": str(side.folder) for name, side in sides.items()},
        "left_out": gone,
        "output": str(output),
        "command": words,
    }
    return _written(judge_gallery(system, sides, command.cache, facts, command.check_overlap), output)


def _bundles(command: EvaluateCommand) -> list[Path]:
    return [named_bundle(model) for model in command.model] or [find_bundle()]


def _beside(bundle: Path) -> Path:
    """Where a bundle's reports go: its run's folder; of the pretrained model, which has none, one in runs/."""
    return Path("runs/pretrained") if bundle.is_relative_to(runtime.cache_dir()) else bundle.parent


def _left_out(command: EvaluateCommand, folders: Mapping[str, Path]) -> set[str]:
    from pictures import people_pictures
    from scoring import people_to_leave_out

    if command.exclude_people is None:
        return set()
    people = [person for name, folder in folders.items() for person in people_pictures(folder, name)[1]]
    return people_to_leave_out(command.exclude_people, people)


def _overlays(command: EvaluateCommand) -> list[Overlay]:
    from facekit.overlay import read_overlay

    return [read_overlay(path) for path in command.overlay]


def _written(judgement: Judgement, output: Path) -> Judgement:
    write_report(judgement, output)
    return judgement


def _output(command: EvaluateCommand, usual: Path, source: Path | None = None) -> Path:
    output = command.output or usual
    if source is not None and (output / "scores.csv").resolve() == source.resolve():
        raise ValueError(
            f"`output` {output}: its scores.csv would replace the file that is judged. Choose another."
        )
    check_writable(output, "output")
    return output


def write_report(judgement: Judgement, output: Path) -> None:
    """Write report.html, report.md, its pictures, report.json and scores.csv."""
    from facekit.files import write_text
    from facekit.page import write_page
    from facekit.score_file import scores_csv

    write_page(output, judgement.page)
    write_text(output / "report.json", json.dumps(judgement.report, indent=2) + "\n")
    if judgement.scored is None:
        # An earlier report's: it would be taken for this one's.
        (output / "scores.csv").unlink(missing_ok=True)
    else:
        write_text(output / "scores.csv", scores_csv(judgement.scored, judgement.groups))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 2 wrong input, 130 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] == ["calibrate"]:
        import calibrate

        return calibrate.main(arguments[1:])
    command = parse(EvaluateCommand, arguments)
    try:
        judgement = run(command, f"python evaluate.py {shlex.join(arguments)}")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nInterrupted: no report. Crops made so far are kept: the next run goes on from there.",
            file=sys.stderr,
        )
        return runtime.INTERRUPTED
    print(json.dumps(judgement.report, indent=2) if command.as_json else judgement.text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
