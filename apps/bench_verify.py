"""How long a verification takes: ours beside the packages `face_recognition` and `deepface`, same pictures.

In:  two pictures, a bundle, and how often each system has its turn.
Out: Markdown tables of answers and times, warm and cold; all times, answers and versions as JSON.
"""

from __future__ import annotations

import json
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from pydantic import NonNegativeInt, PositiveInt

from apps.timing import row
from apps.verify_contenders import Contender, Job, contenders
from facekit.files import check_writable, write_text
from facekit.images import read_image
from facekit.settings import Settings
from facekit.workers import cores
from verifier import named_bundle

WARM_COLUMNS = (
    "system",
    "distance / threshold",
    "ms a pair",
    "times the first",
    "ms a pair, faces found already",
    "times the first",
)
COLD_COLUMNS = ("command", "distance / threshold", "seconds", "times the first")
PACKAGES = ("onnxruntime", "tensorflow", "keras", "face-recognition", "dlib", "dlib-bin", "deepface", "mtcnn")


class VerifyBench(Settings):
    """How long the verification of two pictures takes, by our engines and by other packages where they are
    installed: each in a process of its own, in turns, warm and cold.
    """  # noqa: D205 - one paragraph in --help

    picture1: tyro.conf.Positional[Path]
    """One picture, with a face."""

    picture2: tyro.conf.Positional[Path]
    """The other."""

    model: Path | None = None
    """Bundle folder, or `pretrained`. None: as inference.py chooses."""

    rounds: PositiveInt = 10
    """Turns that the systems take one after the other."""

    calls: PositiveInt = 5
    """Timed verifications a turn, after one that isn't."""

    cold: NonNegativeInt = 5
    """Times that each whole command is run, after once that isn't timed; 0: not at all."""

    output: Path | None = None
    """JSON file for all times, answers and versions."""


def bench_verify(settings: VerifyBench) -> Iterator[str]:
    """Measure every system in turns, so that a disturbance of the machine meets all of them.

    Yields:
        The lines of two Markdown tables, warm and cold.

    Raises:
        ValueError: a picture cannot be read or has no face, or the model or output is wrong.
    """
    pictures = (settings.picture1, settings.picture2)
    for path in pictures:
        read_image(path)
    if settings.output is not None:
        check_writable(settings.output.parent, "output")
    with tempfile.TemporaryDirectory() as home:
        job = Job(pictures, named_bundle(settings.model), Path(home))
        found = contenders(job)
        with ExitStack() as stack:
            _in_turns(found, "starting", lambda contender: contender.start(job, stack))
            _in_turns(settings.rounds * found, "warm", lambda contender: contender.take_turn(settings.calls))
        yield from warm_table(found, settings)
        if settings.cold:
            _run_cold([one for one in found if one.command], settings.cold, job.home)
            yield from cold_table([one for one in found if one.command], settings)
    if settings.output is not None:
        write_text(settings.output, json.dumps(values(found, settings, job), indent=2) + "\n")
        yield f"\nWritten: {settings.output}"


def _in_turns(turns: Sequence[Contender], name: str, measure: Callable[[Contender], None]) -> None:
    """Call for one contender after the other, beside a bar on stderr that names the one under way.

    The bar is drawn between measurements, never during one.
    """
    from tqdm import tqdm

    with tqdm(total=len(turns), desc=name, unit="turn") as bar:
        for contender in turns:
            bar.set_postfix_str(contender.name)
            measure(contender)
            bar.update()


def _run_cold(found: list[Contender], times: int, home: Path) -> None:
    _in_turns((1 + times) * found, "cold", lambda contender: contender.run_cold(home))
    for contender in found:
        # The first run reads the files of all packages from the disk.
        del contender.cold[:1]


# ---- Telling -----------------------------------------------------------------------------------------------


def spread(seconds: Sequence[float]) -> tuple[float, float, float]:
    """Median and quartiles."""
    low, high = np.percentile(seconds, [25, 75])
    return statistics.median(seconds), float(low), float(high)


def _cells(seconds: Sequence[float], first: Sequence[float], unit: float, digits: int) -> list[str]:
    middle, low, high = (unit * value for value in spread(seconds))
    words = f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
    return [words, f"{statistics.median(seconds) / statistics.median(first):.2f}"]


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" + "s" * (number != 1)


def warm_table(found: Sequence[Contender], settings: VerifyBench) -> Iterator[str]:
    """Milliseconds a pair, decoded pictures to verdict, as Markdown lines."""
    yield (
        f"Warm, from decoded pictures to the verdict: median (quartiles) of {_counted(settings.rounds, 'turn')} of "
        f"{_counted(settings.calls, 'call')}, each system in a process of its own; {cores()} cores, "
        f"load {_load():.1f}.\n"
    )
    yield row(WARM_COLUMNS)
    yield row(["---", "---", *["---:"] * 4])
    first = found[0]
    for one in found:
        if one.trouble or one.answer is None:
            yield row([one.name, one.trouble, "", "", "", ""])
            continue
        cells = [*_cells(one.whole, first.whole, 1e3, 0), *_cells(one.cut, first.cut, 1e3, 0)]
        yield row([one.name, one.answer.text(), *cells])


def cold_table(found: Sequence[Contender], settings: VerifyBench) -> Iterator[str]:
    """Seconds of whole programs, as Markdown lines."""
    runs = _counted(settings.cold, "run")
    yield f"\nCold, whole programs: median (quartiles) of {runs} in turns; load {_load():.1f}.\n"
    yield row(COLD_COLUMNS)
    yield row(["---", "---", "---:", "---:"])
    for one in found:
        name = one.name if one.package else "python inference.py"
        if one.trouble or one.cold_answer is None:
            yield row([name, one.trouble, "", ""])
        else:
            yield row([name, one.cold_answer.text(), *_cells(one.cold, found[0].cold, 1, 2)])


def _load() -> float:
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")


def values(found: Sequence[Contender], settings: VerifyBench, job: Job) -> dict[str, Any]:
    """All of it as JSON values; times in seconds, in the order in which they were measured."""
    installed: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            installed[name] = None
    return {
        "pictures": [str(path) for path in job.pictures],
        "model": str(job.bundle),
        "rounds": settings.rounds,
        "calls": settings.calls,
        "cores": cores(),
        "versions": installed,
        "systems": [
            {
                "name": one.name,
                "trouble": one.trouble or None,
                "answer": one.answer and one.answer._asdict(),
                "seconds_with_detection": one.whole,
                "seconds_without_detection": one.cut,
                "cold_answer": one.cold_answer and one.cold_answer._asdict(),
                "cold_seconds": one.cold,
            }
            for one in found
        ],
    }
