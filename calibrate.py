"""Set a model's threshold on your own pictures, with the error rates that it has there.

In:  a bundle; pairs and their pictures, or a folder of people who did not train the model.
Out: the bundle's threshold, with the data's name, its counts, intervals and the day; every verdict uses it.
Run: python evaluate.py calibrate --model runs/first/bundle --images photos --fmr 0.01
"""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro
from pydantic import Field

from facekit import runtime
from facekit.bundle import BundleRecord, Threshold, read_record, write_record
from facekit.files import check_writable
from facekit.mirror import mirror_words
from facekit.scored import ScoredPairs, refuse_one_class
from facekit.settings import Settings, parse
from verifier import named_bundle

if TYPE_CHECKING:
    from facekit.calibration import Calibration


class CalibrateCommand(Settings):
    """Choose a model's threshold on pairs, or on a folder of people, and write it into the bundle."""

    model: Path | None = None
    """Bundle folder, or `pretrained`. None: the newest in runs/ that was trained on real pictures; without one, the
    pretrained network."""

    flip: bool | None = None
    """Average embeddings with the mirror image's from now on, or not. None: as the bundle does."""

    as_crops: bool = False
    """Take the pictures as faces already cut, whoever cut them: no face is looked for, and crops of another recipe
    than the model's are not made again. The threshold's evidence says so."""

    images: Path | None = None
    """Folder that the pairs' paths start from; without `pairs`, one folder a person."""

    pairs: Path | None = None
    """Pairs file, as for evaluating. None: all genuine pairs of `images`, and impostor pairs."""

    impostor_pairs: int = Field(1_000_000, ge=0)
    """Without `pairs`: the most impostor pairs, drawn at random where there are more; 0: all."""

    fmr: float | None = Field(None, gt=0, lt=1)
    """Take the largest threshold whose false-match rate is at most this, such as 0.01."""

    cost: bool = False
    """Take the threshold of least 0.8 FPR + 0.2 FNR among the distances 0.1, 0.1001, ..., 1.5 instead."""

    probability: Literal["none", "platt", "isotonic"] = "none"
    """Also fit how a distance becomes a probability of "same person", at even odds. none: an earlier fit stays."""

    exclude_people: Path | None = None
    """People to leave out, one name a line."""

    cache: Path = Path("runs/cache")
    """Where crops of original pictures are kept."""

    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Write one JSON object to stdout; everything else goes to stderr."""


@dataclass(frozen=True)
class Calibrated:
    """What a calibration changed.

    Attributes:
        bundle: the folder.
        record: what the bundle says now.
        before: its threshold before; None where it had none.
        warnings: sentences.
        quality: of the probability, on pairs that did not fit it; None where none was asked for.
        predicted: 95 % prediction interval of the FMR that as many pairs of as many other people will show.
    """

    bundle: Path
    record: BundleRecord
    before: Threshold | None
    warnings: list[str]
    quality: dict[str, Any] | None
    predicted: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """JSON values, plain numbers first."""
        threshold = self.record.threshold
        assert threshold is not None
        return {
            "threshold": threshold.value,
            "fmr": threshold.fmr,
            "fnmr": threshold.fnmr,
            "genuine": threshold.genuine,
            "impostor": threshold.impostor,
            "before": self.before.value if self.before else None,
            "before_flip": self.before.flip if self.before else None,
            "flip": threshold.flip,
            "intervals": {
                "by": threshold.by,
                "threshold": list(threshold.value_interval or (None, None)),
                "fmr": list(threshold.fmr_interval),
                "fnmr": list(threshold.fnmr_interval or (None, None)),
                "fmr_on_others": list(self.predicted),
            },
            "criterion": threshold.criterion,
            "data": threshold.data,
            "date": threshold.date,
            "model": str(self.bundle),
            "probability": self.quality,
            "warnings": self.warnings,
        }

    def text(self) -> str:
        """The same in words."""
        assert self.record.threshold is not None
        lines = [f"Threshold of {self.bundle}: {self.record.threshold.text()}.", self._before_words()]
        if self.record.threshold.value_interval:
            low, high = self.record.threshold.value_interval
            lines.append(f"95 % interval of the threshold: {low:.4f} to {high:.4f}.")
        low, high = self.predicted
        lines.append(
            f"Counted again on as many other people, an FMR of {low:.3g} to {high:.3g} is to be expected (95 % "
            "prediction interval)."
        )
        if self.quality:
            lines.append(
                f"Probability on pairs that did not fit it: Brier score {self.quality['brier']:.4f}, expected "
                f"calibration error {self.quality['ece']:.4f}."
            )
        return "\n".join([*lines, *(f"WARNING: {warning}" for warning in self.warnings)])

    def _before_words(self) -> str:
        if self.before is None:
            return "It had none."
        was = f"It was {self.before.text()}"
        if self.before.flip == self.record.flip:
            return f"{was}."
        return f"{was}; found with {mirror_words(self.before.flip)}."


def calibrate(command: CalibrateCommand) -> Calibrated:
    """Choose the threshold and write it into the bundle.

    Raises:
        ValueError: an input is wrong, or the pairs are too few for the rate; the bundle is as it was.
    """
    from facekit.calibration import calibrate_at_fmr, calibrate_by_cost
    from facekit.probability import fit_probability, probability_quality
    from judging import model_doubts
    from overlap import by_names
    from pictures import PictureReader
    from pretrained import is_pretrained
    from scoring import embed, known_people, read_task, score
    from systems import bundle_systems

    if (command.fmr is None) != command.cost:
        raise ValueError("Name one way to choose: `fmr` (such as --fmr 0.01) or `cost`.")
    if command.images is None and command.pairs is None:
        raise ValueError("Name what to calibrate on: `images`, a folder of people, or `pairs` with their `images`.")
    task = read_task(command.pairs, command.images, command.impostor_pairs, command.exclude_people)
    (system,) = bundle_systems([named_bundle(command.model)], command.flip, command.as_crops)
    assert system.bundle is not None and system.record is not None
    check_writable(system.bundle, "model")
    # As it was: the system's record lacks what was found with the other setting of `flip`.
    earlier = read_record(system.bundle)
    runtime.start_quietly()
    reader = PictureReader(system.recipe, task.images, command.cache, system.aligner)
    scored = score(system, embed(system, reader, task.pairs.pictures()), task.pairs)
    # A pair without two faces gets no verdict later either: counted as rejected, it would make the FMR look small.
    lost = int(scored.failed.sum())
    scored = scored.chosen(~scored.failed)
    refuse_one_class(scored.same, f"{command.pairs or command.images}, pairs with two faces")
    found = calibrate_by_cost(scored) if command.fmr is None else calibrate_at_fmr(scored, command.fmr)
    expected = predicted(scored, found)
    overlap = by_names(system.bundle, known_people(task.pairs), system.record)
    data = data_words(command, task.left_out, overlap.names)
    record = replace(system.record, threshold=as_threshold(found, data, system.record.flip))
    quality = None
    if command.probability != "none":
        record = replace(record, probability=fit_probability(scored, command.probability))
        quality = probability_quality(scored, command.probability)
    warnings = [*task.pairs.warnings, *model_doubts(system), *overlap.warnings]
    if lost:
        warnings.append(f"{lost:,} pairs with a picture without a face were left out: they get no verdict.")
    if not found.claimable:
        warnings.append(f"{found.impostor:,} impostor pairs cannot show a rate below {found.floor:.2g}.")
    if earlier.probability and not record.probability:
        warnings.append(
            f"The earlier fit of probabilities is gone: it was found with {mirror_words(earlier.flip)}. Fit it "
            "again with `probability`."
        )
    if is_pretrained(system.bundle):
        warnings.append(
            "The pretrained model is shared by all your projects, which judge by this threshold from now on. "
            "`python pretrained.py --reset` gives back the one it came with."
        )
    write_record(system.bundle, record)
    return Calibrated(system.bundle, record, earlier.threshold, warnings, quality, expected)


def data_words(command: CalibrateCommand, left_out: str, met: int | None) -> str:
    """What the threshold's pairs were, and what is peculiar about them in brackets."""
    data = "; ".join(filter(None, [str(command.pairs or command.images), left_out]))
    peculiar = "taken as faces already cut, whoever cut them" if command.as_crops else ""
    known = f"{met} of whose people trained the model or were validated on" if met else ""
    notes = "; ".join(filter(None, [peculiar, known]))
    return f"{data} ({notes})" if notes else data


def predicted(scored: ScoredPairs, found: Calibration) -> tuple[float, float]:
    """95 % prediction interval of the FMR at a calibrated threshold on as many other people."""
    from facekit.intervals import prediction_interval

    impostor = ~scored.same
    accepted, count = (scored.ranked < found.threshold)[impostor], int(impostor.sum())
    if scored.people is None:
        return prediction_interval(accepted, count)
    ids1, ids2 = (side[impostor] for side in scored.people)
    return prediction_interval(accepted, count, np.unique([ids1, ids2]).size, ids1, ids2)


def as_threshold(found: Calibration, data: str, flip: bool) -> Threshold:
    """A calibration as the bundle keeps it, with today's date."""
    return Threshold(
        value=min(found.threshold, 2.0),
        criterion=found.criterion,
        data=data,
        genuine=found.genuine,
        impostor=found.impostor,
        fmr=found.fmr,
        fnmr=found.fnmr,
        fmr_interval=found.fmr_interval,
        date=f"{datetime.date.today():%Y-%m-%d}",
        fnmr_interval=found.fnmr_interval,
        value_interval=found.threshold_interval,
        by=found.by,
        flip=flip,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 2 wrong input, 130 interrupted."""
    try:
        command = parse(CalibrateCommand, argv, program="evaluate.py calibrate")
        done = calibrate(command)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. The bundle is as it was.", file=sys.stderr)
        return runtime.INTERRUPTED
    print(json.dumps(done.to_dict(), indent=2) if command.as_json else done.text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
