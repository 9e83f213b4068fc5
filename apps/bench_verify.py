"""How long a verification takes: ours beside the packages `face_recognition` and `deepface`, same pictures."""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import tyro
from pydantic import NonNegativeInt, PositiveInt

from apps.timing import row
from facekit import runtime
from facekit.bundle import ONNX, read_record
from facekit.cropping import prepare_worker
from facekit.dlib_source import FILE, dlib_weights
from facekit.files import check_writable, write_text
from facekit.images import read_image
from facekit.settings import Settings
from facekit.workers import cores
from systems import INSTALL, dlib_face
from verifier import ADVICE, NoFaceError, Verifier, named_bundle

ROOT = Path(__file__).resolve().parents[1]
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

# What a user of each package would write, as a whole program.
FACE_RECOGNITION = """
import json, sys, face_recognition
one, two = (face_recognition.face_encodings(face_recognition.load_image_file(path))[0] for path in sys.argv[1:])
distance = face_recognition.face_distance([one], two)[0]
print(json.dumps({"distance": distance, "threshold": 0.6, "same": bool(distance <= 0.6)}))
"""
DEEPFACE = """
import json, sys
from deepface import DeepFace
found = DeepFace.verify(*sys.argv[1:], model_name="Dlib", detector_backend="mtcnn")
print(json.dumps({"distance": found["distance"], "threshold": found["threshold"], "same": found["verified"]}))
"""


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


class Answer(NamedTuple):
    """What a system says of the two pictures: a distance of its own kind, its threshold, and the verdict."""

    distance: float
    threshold: float | None
    same: bool | None

    def text(self) -> str:
        """In words."""
        verdict = {True: "same person", False: "different people", None: "no verdict"}[self.same]
        threshold = "none" if self.threshold is None else f"{self.threshold:.3g}"
        return f"{self.distance:.3f} / {threshold}: {verdict}"


class Job(NamedTuple):
    """What every system gets: two pictures' files, our bundle, and a folder that deepface may keep weights in."""

    pictures: tuple[Path, Path]
    bundle: Path
    home: Path


class Verification(Protocol):
    """A system with its pictures in memory, decoded."""

    def whole(self) -> Answer:
        """Find the faces, align, embed, compare."""
        ...

    def cut(self) -> Answer:
        """The same once the faces are known."""
        ...


# ---- The systems -------------------------------------------------------------------------------------------


class Ours:
    """This project's `verifier.Verifier`; the faces known are crops.

    Raises:
        NoFaceError: a picture has no face.
    """

    def __init__(self, engine: Literal["onnx", "tensorflow"], flip: bool, job: Job):
        if engine == "tensorflow":
            runtime.start_quietly()
        prepare_worker()
        self._verifier = Verifier(job.bundle, flip, engine=engine)
        self._images = [read_image(path) for path in job.pictures]
        self._crops = []
        findings = self._verifier.find(self._images)
        for path, image, finding in zip(job.pictures, self._images, findings, strict=True):
            crop = self._verifier.crop(image, finding)
            if crop is None:
                raise NoFaceError(f"{path}: {ADVICE[finding.reason]}.")
            self._crops.append(crop)

    def whole(self) -> Answer:
        """See `Verification`."""
        return self._answer(self._verifier.embed(self._images))

    def cut(self) -> Answer:
        """See `Verification`."""
        return self._answer(self._verifier.embed_crops(self._crops))

    def _answer(self, rows: np.ndarray) -> Answer:
        found, threshold = self._verifier.compare(rows[0], rows[1]), self._verifier.record.threshold
        return Answer(found.distance, threshold.value if threshold else None, found.same)


class FaceRecognition:
    """The package `face_recognition`, as it comes (HOG detector); the faces known are its own boxes.

    Raises:
        ValueError: it finds no face in a picture.
    """

    TOLERANCE = 0.6

    def __init__(self, job: Job):
        warnings.simplefilter("ignore")
        import face_recognition

        self._package = face_recognition
        self._images = [read_image(path) for path in job.pictures]
        self._places = [dlib_face(image) for image in self._images]
        for path, place in zip(job.pictures, self._places, strict=True):
            if place is None:
                raise ValueError(f"it finds no face in {path}.")

    def whole(self) -> Answer:
        """See `Verification`."""
        return self._compare([dlib_face(image) for image in self._images])

    def cut(self) -> Answer:
        """See `Verification`."""
        return self._compare(self._places)

    def _compare(self, places: Sequence[Any]) -> Answer:
        pairs = zip(self._images, places, strict=True)
        one, two = (self._package.face_encodings(image, [place])[0] for image, place in pairs)
        distance = float(self._package.face_distance([one], two)[0])
        return Answer(distance, self.TOLERANCE, distance <= self.TOLERANCE)


class DeepFacePackage:
    """The package `deepface` with dlib's network, whose weights are ours, and MTCNN: nothing is downloaded.

    The faces known are its own crops.
    """

    def __init__(self, job: Job):
        os.environ["DEEPFACE_HOME"] = str(job.home)
        os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
        weights = job.home / ".deepface" / "weights" / FILE
        weights.parent.mkdir(parents=True)
        weights.symlink_to(dlib_weights(runtime.cache_dir()).resolve())
        with runtime.stderr_silenced():
            from deepface import DeepFace

            self._package = DeepFace
            # deepface takes arrays in OpenCV's order of colours.
            self._images = [np.ascontiguousarray(read_image(path)[:, :, ::-1]) for path in job.pictures]
            self._crops = [self._crop(image) for image in self._images]

    def _crop(self, image: np.ndarray) -> np.ndarray:
        faces = self._package.extract_faces(image, detector_backend="mtcnn", color_face="bgr")
        return np.ascontiguousarray((faces[0]["face"] * 255).round().astype(np.uint8))

    def whole(self) -> Answer:
        """See `Verification`."""
        return self._verify(self._images, "mtcnn")

    def cut(self) -> Answer:
        """See `Verification`."""
        return self._verify(self._crops, "skip")

    def _verify(self, images: Sequence[np.ndarray], detector: str) -> Answer:
        found = self._package.verify(*images, model_name="Dlib", detector_backend=detector, silent=True)
        return Answer(float(found["distance"]), float(found["threshold"]), bool(found["verified"]))


# ---- Taking turns ------------------------------------------------------------------------------------------

# A worker's system: it stays from turn to turn.
_state: dict[str, Verification] = {}


def _prepare(make: Callable[[Job], Verification], job: Job) -> Answer:
    """Set this process up and warm it up.

    Raises:
        ValueError: the system does not run here; says why.
    """
    try:
        _state["system"] = system = make(job)
        system.cut()
        return system.whole()
    except NoFaceError:
        raise
    # Other packages fail in ways of their own; face_recognition even leaves without its weights.
    except (Exception, SystemExit) as error:
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def _take_turn(calls: int) -> tuple[list[float], list[float]]:
    """Seconds of `calls` verifications with and without detection."""
    system = _state["system"]
    return _seconds(system.whole, calls), _seconds(system.cut, calls)


def _seconds(call: Callable[[], object], calls: int) -> list[float]:
    call()
    found = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        found.append(time.perf_counter() - start)
    return found


@dataclass
class Contender:
    """A system in a process of its own, and what was measured of it.

    Attributes:
        name: for the table.
        make: prepares it in its process.
        package: what must be installed for it; "": nothing more.
        command: the whole program; empty where there is none of this form.
        trouble: why it could not be measured; "": it was.
        answer: its verdict, and of its whole program in `cold_answer`.
        whole: seconds of a pair with detection; `cut` without; `cold` of the whole program.
    """

    name: str
    make: Callable[[Job], Verification]
    package: str = ""
    command: tuple[str, ...] = ()
    trouble: str = ""
    answer: Answer | None = None
    cold_answer: Answer | None = None
    whole: list[float] = field(default_factory=list)
    cut: list[float] = field(default_factory=list)
    cold: list[float] = field(default_factory=list)
    _worker: ProcessPoolExecutor | None = None

    def start(self, job: Job, stack: ExitStack) -> None:
        """Start its process; what keeps another package from running becomes its `trouble`.

        Raises:
            ValueError: it is ours that does not run.
        """
        if self.package and find_spec(self.package) is None:
            self.trouble = f"not installed: {INSTALL[self.package]}"
            return
        context = multiprocessing.get_context("spawn")
        self._worker = stack.enter_context(ProcessPoolExecutor(1, mp_context=context))
        try:
            self.answer = self._worker.submit(_prepare, self.make, job).result()
        except ValueError as error:
            if not self.package:
                raise
            self.trouble = f"does not run: {error}"
        except BrokenProcessPool:
            if not self.package:
                raise ValueError(f"{self.name}: its process died. Is there memory enough?") from None
            self.trouble = "does not run: its process died"

    def take_turn(self, calls: int) -> None:
        """Verify some times."""
        if self._worker is None or self.trouble:
            return
        whole, cut = self._worker.submit(_take_turn, calls).result()
        self.whole += whole
        self.cut += cut

    def run_cold(self, home: Path) -> None:
        """Run the whole program once.

        Raises:
            ValueError: it is ours that fails.
        """
        if self.trouble:
            return
        start = time.perf_counter()
        done = subprocess.run(
            self.command,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"DEEPFACE_HOME": str(home), "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
        self.cold.append(time.perf_counter() - start)
        if "{" not in done.stdout:
            last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            if not self.package:
                raise ValueError(last.removeprefix("error: "))
            self.trouble = f"does not run: {last}"
            return
        found = json.loads(done.stdout[done.stdout.index("{") :])
        self.cold_answer = Answer(found["distance"], found["threshold"], found["same"])


def contenders(job: Job) -> list[Contender]:
    """Ours by engine and flips, as the bundle has them first; then the others."""
    flip = read_record(job.bundle).flip
    pictures = [str(path.resolve()) for path in job.pictures]
    script = (sys.executable, "-W", "ignore", "-c")
    own = (
        sys.executable,
        str(ROOT / "inference.py"),
        *pictures,
        "--model",
        str(job.bundle.resolve()),
        "--json",
    )
    engines: list[tuple[Literal["onnx", "tensorflow"], str]] = [("tensorflow", "TensorFlow")]
    if (job.bundle / ONNX).is_file():
        engines.insert(0, ("onnx", "ONNX"))
    found = [
        Contender(f"ours, {words}, {'flips averaged' if flipped else 'no flips'}", partial(Ours, engine, flipped))
        for engine, words in engines
        for flipped in (flip, not flip)
    ]
    found[0].command = own
    theirs = Contender("face_recognition", FaceRecognition, "face_recognition")
    theirs.command = (*script, FACE_RECOGNITION, *pictures)
    deep = Contender("deepface, Dlib, mtcnn", DeepFacePackage, "deepface")
    deep.command = (*script, DEEPFACE, *pictures)
    return [*found, theirs, deep]


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
