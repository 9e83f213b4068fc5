"""What `apps.bench_verify` compares: systems that verify two pictures, each in a process of its own.

In:  two pictures, our bundle, and a folder that other packages may write to: a `Job`.
Out: `contenders`, with their answers, the seconds of each call, and what kept them from running.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from facekit import runtime
from facekit.bundle import ONNX, read_record
from facekit.cropping import prepare_worker
from facekit.dlib_source import FILE, dlib_weights
from facekit.images import read_image
from systems import INSTALL, dlib_face
from verifier import ADVICE, NoFaceError, Verifier

ROOT = Path(__file__).resolve().parents[1]

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


# ---- In processes of their own -----------------------------------------------------------------------------

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
    return seconds_of(system.whole, calls), seconds_of(system.cut, calls)


def seconds_of(call: Callable[[], object], calls: int) -> list[float]:
    """Seconds of each of some calls, after one that isn't timed."""
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
