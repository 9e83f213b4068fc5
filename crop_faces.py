"""Find, choose, align and write the face of every picture in a folder tree.

In:  a folder of pictures, usually one folder a person (CASIA-WebFace, LFW, your own).
Out: a tree of the same shape with one JPEG crop a picture, manifest.csv (a row a picture: box, score, landmarks,
     or the reason why it was skipped) and crops.json (the recipe, which goes into models trained on the crops).
Run: python crop_faces.py --input_dir photos --output_dir crops
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from config import CropConfig
from facekit import manifest, runtime
from facekit.alignment import CropRecipe
from facekit.detection import Finding, MtcnnDetector, crop_found, find_faces
from facekit.files import check_writable
from facekit.images import Image, UnreadableImageError, is_picture, read_image, write_jpeg
from facekit.manifest import CropFolder, Row
from facekit.settings import parse

SYNTHETIC_MARKER = "synthetic.json"

# Decoded together, then grouped by size: enough for full batches, little enough for memory and a quick stop.
PICTURES_A_CHUNK = 32

# Decoded pictures held at once by a process, in bytes: 32 photos of 1.6 megapixels.
DECODED_BYTES = 160_000_000


@dataclass(frozen=True)
class Job:
    """One picture to crop: where it is and where its crop goes, both relative ("/" between parts)."""

    path: str
    crop: str


@dataclass(frozen=True)
class Done:
    """A worker's answer for a chunk: its rows, and the most memory its process has held, in bytes."""

    rows: list[Row]
    peak_memory: int


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
    """The part of the settings that decides pixels."""
    return CropRecipe(
        method=config.method,
        size=config.size,
        margin=config.margin,
        choose=config.choose,
        min_confidence=config.min_confidence,
        max_side=config.max_side,
        quality=config.quality,
    )


def find_pictures(folder: Path) -> list[str]:
    """All pictures below a folder, relative to it and sorted; links are followed, hidden names passed over.

    Raises:
        ValueError: the folder is missing or holds no picture.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder. Give a folder of pictures.")
    found = []
    visited = set()
    for directory, subfolders, names in os.walk(folder, followlinks=True):
        here = Path(directory)
        if here.resolve() in visited:  # a link that leads round in a circle
            subfolders[:] = []
            continue
        visited.add(here.resolve())
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        found += [(here / name).relative_to(folder).as_posix() for name in names if is_picture(Path(name))]
    if not found:
        raise ValueError(f"{folder}: holds no pictures (.jpg, .png, .webp, .bmp, .tif), in it or below it.")
    return sorted(found)


def plan_crops(pictures: Sequence[str]) -> list[Job]:
    """A crop's name for every picture: the same for a JPEG, else with .jpg behind the whole name (1.png.jpg).

    A name never depends on the other pictures, so that no two ever meet in one file.
    """
    return [Job(path, path if path.lower().endswith((".jpg", ".jpeg")) else f"{path}.jpg") for path in pictures]


def _remaining(jobs: Sequence[Job], rows: dict[str, Row], config: CropConfig) -> list[Job]:
    """Jobs that no earlier run finished, or whose picture has changed since."""

    def is_done(job: Job) -> bool:
        row = rows.get(job.path)
        if row is None or (row.reason and config.retry_failed):
            return False
        if (row.bytes, row.modified_ns) != _stamp(config.input_dir / job.path):
            return False
        return bool(row.reason) or (row.crop == job.crop and (config.output_dir / row.crop).exists())

    return [job for job in jobs if not is_done(job)]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


@lru_cache(maxsize=1)
def _detector(batch_size: int) -> MtcnnDetector:
    """This process's detector, made once."""
    return MtcnnDetector(batch_size)


def _start_worker() -> None:
    # Ctrl-C reaches every process of a terminal: only the parent answers, and lets chunks end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    runtime.start_quietly()
    runtime.use_cpu_only()
    runtime.limit_threads(1)


def crop_chunk(jobs: Sequence[Job], config: CropConfig) -> Done:
    """Crop some pictures in this process. A picture that fails gets a row with the reason; it harms no other."""
    rows: list[Row] = []
    begun: list[Job] = []
    images: dict[str, Image] = {}
    reasons: dict[str, str] = {}
    for job in jobs:
        begun.append(job)
        try:
            image = read_image(config.input_dir / job.path)
        except UnreadableImageError:
            reasons[job.path] = manifest.UNREADABLE
            continue
        if min(image.shape[:2]) < config.min_side:
            reasons[job.path] = manifest.TOO_SMALL
        else:
            images[job.path] = image
        # Large photos are detected a few at a time: memory stays bounded whatever the camera.
        if sum(image.size for image in images.values()) > DECODED_BYTES:
            rows += _crop_decoded(begun, images, reasons, config)
            begun, images = [], {}
    rows += _crop_decoded(begun, images, reasons, config)
    return Done(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def _crop_decoded(
    jobs: Sequence[Job], images: Mapping[str, Image], reasons: Mapping[str, str], config: CropConfig
) -> list[Row]:
    """Detect, choose, align and write; a row for each job, with its reason where it has no image."""
    recipe = recipe_of(config)
    findings = dict(
        zip(images, find_faces(list(images.values()), _detector(config.batch_size), recipe), strict=True)
    )
    rows = []
    for job in jobs:
        finding = findings.get(job.path, Finding(None, 0, reasons.get(job.path, "")))
        crop = crop_found(images[job.path], finding, recipe) if job.path in images else None
        if crop is not None:
            write_jpeg(config.output_dir / job.crop, crop, recipe.quality)
        else:
            # The picture may have had a face before it changed: its crop must not stay for training.
            (config.output_dir / job.crop).unlink(missing_ok=True)
        stamp = _stamp(config.input_dir / job.path)
        name = job.crop if crop is not None else ""
        rows.append(Row(job.path, name, finding.reason, finding.count, finding.face, *stamp))
    return rows


def _crop_chunks(
    chunks: list[list[Job]], config: CropConfig, processes: int, asked: Callable[[], bool]
) -> Iterator[Done]:
    """Crop all chunks, here or in processes of their own, and give each answer as it comes.

    Once asked to stop, no chunk is begun any more, and those under way are still answered.
    """
    if processes == 1:
        for chunk in chunks:
            if asked():
                return
            yield crop_chunk(chunk, config)
        return
    # "spawn": TensorFlow does not survive a fork.
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        waiting = iter(chunks)
        running: set[Future[Done]] = set()
        while True:
            # One chunk more than processes is in flight: none idles, and little is left to finish after a stop.
            for chunk in () if asked() else islice(waiting, processes + 1 - len(running)):
                running.add(pool.submit(crop_chunk, chunk, config))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def crop_faces(config: CropConfig, pictures: Sequence[str] | None = None) -> Summary:
    """Crop a folder's pictures; those that an earlier call finished are left as they are.

    Args:
        config: the settings.
        pictures: names below `config.input_dir`; None: all that are there.

    Returns:
        The summary over all pictures asked for.

    Raises:
        ValueError: the input holds no pictures, or the output holds crops of another recipe or source.
        KeyboardInterrupt: stopped; what was done is kept, and the next call goes on from there.
    """
    started = time.monotonic()
    wanted = find_pictures(config.input_dir) if pictures is None else sorted(set(pictures))
    outside = [name for name in wanted if Path(name).is_absolute() or ".." in Path(name).parts]
    if outside:
        raise ValueError(
            f"{outside[0]}: is not below {config.input_dir}; its crop could be written over a picture."
        )
    jobs = plan_crops(wanted)
    _claim_output(config)
    rows = manifest.read(config.output_dir)
    remaining = _remaining(jobs, rows, config)
    chunks = [remaining[start : start + PICTURES_A_CHUNK] for start in range(0, len(remaining), PICTURES_A_CHUNK)]
    processes = max(1, min(config.processes or os.cpu_count() or 1, len(chunks)))
    peak = 0
    try:
        with (
            runtime.stop_requests("finishing the pictures under way") as asked,
            _progress_bar(len(remaining)) as bar,
        ):
            for done in _crop_chunks(chunks, config, processes, asked):
                manifest.append_rows(config.output_dir, done.rows)
                rows |= {row.path: row for row in done.rows}
                peak = max(peak, done.peak_memory)
                bar.update(len(done.rows))
    except BrokenProcessPool:
        raise ValueError(
            "A detecting process was killed, most likely for memory. Nothing done is lost: run the same command "
            "again with fewer `--processes` or a smaller `--max_side`."
        ) from None
    if remaining:
        manifest.rewrite(config.output_dir, rows.values())
    if asked():
        raise KeyboardInterrupt
    reasons = Counter(rows[job.path].reason for job in jobs)
    return Summary(reasons, len(remaining), time.monotonic() - started, peak)


def _progress_bar(total: int):  # type: ignore[no-untyped-def]  # tqdm ships no types
    from tqdm import tqdm

    return tqdm(total=total, unit="images", desc="cropping", smoothing=0.05, disable=total == 0)


def _claim_output(config: CropConfig) -> None:
    """Mark the output folder with the recipe, or refuse one that holds something else."""
    source, output = config.input_dir.resolve(), config.output_dir.resolve()
    if source == output or source in output.parents or output in source.parents:
        raise ValueError(
            f"{config.output_dir}: `output_dir` and `input_dir` lie in one another, where crops would be taken for "
            "pictures or written over them. Choose another one."
        )
    here = manifest.crop_folder(config.output_dir)
    if here is None:
        check_writable(config.output_dir, "output_dir")
        synthetic = (source / SYNTHETIC_MARKER).exists()
        CropFolder(recipe_of(config), str(source), synthetic).write(config.output_dir)
    elif here.recipe != recipe_of(config):
        raise ValueError(
            f"{config.output_dir}: holds crops of another recipe ({here.recipe.difference(recipe_of(config))}). "
            "Choose another `output_dir`, or the same settings."
        )
    elif here.source != str(source):
        raise ValueError(
            f"{config.output_dir}: holds crops of {here.source}. Choose another `output_dir` for {source}."
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code: 0 done, 1 no face at all, 2 wrong input, 130 interrupted."""
    config = parse(CropConfig, argv)
    try:
        pictures = find_pictures(config.input_dir)
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
