"""Find, choose, align and write the face of every picture in a folder tree.

In:  a folder of pictures, usually one folder a person (CASIA-WebFace, LFW, your own).
Out: a tree of the same shape with one JPEG crop a picture, manifest.csv (a row a picture: box, score, landmarks,
     or the reason why it was skipped) and crops.json (the recipe, which goes into models trained on the crops).
Run: python crop_faces.py --input_dir photos --output_dir crops
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from config import CropConfig
from facekit import manifest, runtime
from facekit.alignment import CropRecipe
from facekit.cropping import (
    Job,
    Order,
    crop_chunk,
    find_pictures,
    plan_crops,
    prepare_network_worker,
    prepare_worker,
    stamp,
)
from facekit.detectors import (
    ALIGNER,
    check_detector,
    detector_name,
    finder_of,
    is_exact,
    min_face,
    needs_aligner,
)
from facekit.files import check_writable, written_aside
from facekit.lock import locked
from facekit.manifest import CropFolder, Row
from facekit.settings import parse
from facekit.workers import run_shards

SYNTHETIC_MARKER = "synthetic.json"

# A shard: enough to be worth handing out, little enough for memory and a quick stop.
PICTURES_A_CHUNK = 32


@dataclass(frozen=True)
class Summary:
    """What a whole call did.

    Attributes:
        reasons: pictures by outcome, "" for a crop, earlier runs' included.
        processed: pictures processed in this call.
        seconds: time it took.
        peak_memory: bytes held at most by one process.
    """

    reasons: Counter[str]
    processed: int
    seconds: float
    peak_memory: int

    @property
    def cropped(self) -> int:
        """Pictures that have a crop."""
        return self.reasons[""]

    def text(self) -> str:
        """The summary in words."""
        total = sum(self.reasons.values())
        share = 100 * self.cropped / max(1, total)
        lines = [f"{total:,} pictures: {self.cropped:,} cropped ({share:.2f} %), {total - self.cropped:,} skipped."]
        lines += [f"  {reason}: {n:,}" for reason, n in self.reasons.most_common() if reason]
        if self.processed:
            rate, memory = self.processed / self.seconds, self.peak_memory / 2**30
            lines.append(
                f"{self.processed:,} done now in {self.seconds:.1f} s "
                f"({rate:.1f} images/s, at most {memory:.2f} GiB a process)."
            )
        else:
            lines.append("All of it was done before: nothing to do.")
        return "\n".join(lines)


def recipe_of(config: CropConfig) -> CropRecipe:
    """The part of the settings that decides pixels.

    Raises:
        ValueError: the aligner's weights cannot be read.
    """
    return CropRecipe(
        method=config.method,
        size=config.size,
        margin=config.margin,
        choose=config.choose,
        min_confidence=config.min_confidence,
        max_side=config.max_side,
        quality=config.quality,
        template=config.template,
        detector=detector_name(config.aligner_path, config.min_face, config.aligner, config.exact),
    )


def settings_of(recipe: CropRecipe, aligner: Path | None = None) -> dict[str, Any]:
    """The settings that crop by a recipe: what `recipe_of` makes the recipe of.

    Args:
        recipe: of a model or of crops.
        aligner: weights of the fast detector, which the recipe names by their digest.

    Raises:
        ValueError: the recipe's detector is unknown here, or its weights are missing or other ones.
    """
    check_detector(recipe, aligner)
    values = {name: value for name, value in recipe.to_dict().items() if name != "detector"}
    if needs_aligner(recipe):
        return values | {"aligner": finder_of(recipe), "aligner_path": aligner}
    return values | {"min_face": min_face(recipe), "exact": is_exact(recipe)}


def _remaining(jobs: Sequence[Job], rows: Mapping[str, Row], config: CropConfig) -> list[Job]:
    """Jobs that no earlier run finished, or whose picture has changed since."""
    source, output = str(config.input_dir), str(config.output_dir)

    def is_done(job: Job) -> bool:
        row = rows.get(job.path)
        if row is None or (row.reason and config.retry_failed):
            return False
        if (row.bytes, row.modified_ns) != stamp(os.path.join(source, job.path)):
            return False
        return bool(row.reason) or (row.crop == job.crop and os.path.exists(os.path.join(output, row.crop)))

    return [job for job in jobs if not is_done(job)]


def crop_faces(config: CropConfig, pictures: Sequence[str] | None = None) -> Summary:
    """Crop a folder's pictures; those that an earlier call finished are left as they are.

    Args:
        config: the settings.
        pictures: names below `config.input_dir`; None: all that are there.

    Returns:
        The summary over all pictures asked for.

    Raises:
        ValueError: the input holds no pictures; the output holds crops of another recipe or source, or another
            process is writing there; processes are killed again and again; the cluster cannot be used.
        KeyboardInterrupt: stopped; what was done is kept, and the next call goes on from there.
    """
    wanted = find_pictures(config.input_dir) if pictures is None else sorted(set(pictures))
    outside = [name for name in wanted if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise ValueError(
            f"{outside[0]}: is not below {config.input_dir}; its crop could be written over a picture."
        )
    _refuse_overlap(config)
    check_writable(config.output_dir, "output_dir")
    with locked(config.output_dir):
        return _crop_all(config, plan_crops(wanted))


def _crop_all(config: CropConfig, jobs: Sequence[Job]) -> Summary:
    """Crop what is left of all jobs, into a folder that is ours."""
    started = time.monotonic()
    order = _claim_output(config)
    rows = manifest.read(config.output_dir)
    _remove_renamed(jobs, rows, config.output_dir)
    remaining = _remaining(jobs, rows, config)
    if manifest.is_cut(config.output_dir):
        manifest.rewrite(config.output_dir, rows.values())
    chunks = [remaining[start : start + PICTURES_A_CHUNK] for start in range(0, len(remaining), PICTURES_A_CHUNK)]
    peak = 0
    with (
        runtime.stop_requests("finishing the pictures under way") as asked,
        _progress_bar(len(remaining)) as bar,
    ):
        for done in run_shards(
            partial(crop_chunk, order),
            chunks,
            processes=config.processes,
            cluster=config.cluster,
            asked=asked,
            prepare=prepare_worker if config.aligner_path is None else prepare_network_worker,
        ):
            manifest.append_rows(config.output_dir, done.rows)
            rows |= {row.path: row for row in done.rows}
            peak = max(peak, done.peak_memory)
            bar.update(len(done.rows))
    if remaining:
        manifest.rewrite(config.output_dir, rows.values())
    if asked():
        raise KeyboardInterrupt
    reasons = Counter(rows[job.path].reason for job in jobs)
    return Summary(reasons, len(remaining), time.monotonic() - started, peak)


def _remove_renamed(jobs: Sequence[Job], rows: Mapping[str, Row], folder: Path) -> None:
    """Remove crops that an earlier version named otherwise, which training would take for more pictures."""
    for job in jobs:
        row = rows.get(job.path)
        if row is not None and row.crop not in ("", job.crop):
            (folder / row.crop).unlink(missing_ok=True)


def _progress_bar(total: int):  # type: ignore[no-untyped-def]  # tqdm ships no types
    from tqdm import tqdm

    return tqdm(total=total, unit="images", desc="cropping", smoothing=0.05, disable=total == 0)


def _refuse_overlap(config: CropConfig) -> None:
    source, output = config.input_dir.resolve(), config.output_dir.resolve()
    if source == output or source in output.parents or output in source.parents:
        raise ValueError(
            f"{config.output_dir}: `output_dir` and `input_dir` lie in one another, where crops would be taken for "
            "pictures or written over them. Choose another one."
        )


def _claim_output(config: CropConfig) -> Order:
    """Mark the output folder with the recipe, or refuse one that holds something else; gives what is to be done."""
    source, output, recipe = config.input_dir.resolve(), config.output_dir.absolute(), recipe_of(config)
    here = manifest.crop_folder(config.output_dir)
    if here is None:
        if config.aligner_path is not None:
            # The weights stay with the crops, and go from there into the models that are trained on them.
            with written_aside(output / ALIGNER) as aside:
                shutil.copyfile(config.aligner_path, aside)
        CropFolder(recipe, str(source), (source / SYNTHETIC_MARKER).exists()).write(config.output_dir)
    elif here.recipe != recipe:
        raise ValueError(
            f"{config.output_dir}: holds crops of another recipe ({here.recipe.difference(recipe)}). "
            "Choose another `output_dir`, or the same settings."
        )
    elif here.source != str(source):
        raise ValueError(
            f"{config.output_dir}: holds crops of {here.source}. Choose another `output_dir` for {source}."
        )
    aligner = output / ALIGNER if config.aligner_path is not None else None
    return Order(config.input_dir.absolute(), output, recipe, config.min_side, aligner)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 no face at all, 2 wrong input, 130 interrupted."""
    config = parse(CropConfig, argv)
    try:
        pictures = find_pictures(config.input_dir)
        prepare_worker()
        if config.aligner != "mtcnn":
            runtime.start_quietly()
        summary = crop_faces(config, pictures)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. Nothing done is lost: run the same command again to go on.", file=sys.stderr)
        return runtime.INTERRUPTED
    print(summary.text())
    print(f"Crops: {config.output_dir}   A row for every picture: {config.output_dir / manifest.MANIFEST}")
    if summary.cropped == 0:
        print("error: no face was found in any picture; the manifest gives each one's reason.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
