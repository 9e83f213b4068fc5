"""What a program sets once at its start: threads, seeds, log levels, precision. Never done by importing."""

from __future__ import annotations

import os
import platform
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import Any

INTERRUPTED = 130
"""Exit code of a program that was asked to stop, as shells have it for Ctrl-C."""


def start_quietly() -> None:
    """Import TensorFlow with its chatter, and the decoders', kept off the console.

    TF_CPP_MIN_LOG_LEVEL=0 in the environment brings TensorFlow's lines back.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    # Bad files are reported by name, by us; the decoders' own lines name none.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    if os.environ["TF_CPP_MIN_LOG_LEVEL"] == "0":
        return
    # TensorFlow 2.21 writes some lines before it reads its own log level: only the descriptor silences them.
    with stderr_silenced():
        import tensorflow as tf
    tf.get_logger().setLevel("ERROR")
    for gpu in tf.config.list_physical_devices("GPU"):
        # Take memory as it is needed: a verification beside a training run finds some left.
        tf.config.experimental.set_memory_growth(gpu, True)


@contextmanager
def stderr_silenced() -> Iterator[None]:
    """Nothing that is written to stderr reaches the console, not even by C++."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def stop_requests(closing: str) -> Iterator[Callable[[], bool]]:
    """Turn Ctrl-C and SIGTERM into a question that long work asks at good moments: was I asked to stop?

    A second Ctrl-C raises KeyboardInterrupt at once. Outside the main thread signals are left alone.

    Args:
        closing: what is still done after the first one, for the line that says so.
    """
    asked = False

    def ask(_signal: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        sys.stderr.write(f"\nStopping: {closing}. Once more to stop at once.\n")

    ours = threading.current_thread() is threading.main_thread()
    handlers = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM) if ours}
    try:
        yield lambda: asked
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def cache_dir() -> Path:
    """Where what was fetched or prepared once is kept: TUPLETFACE_CACHE, else tupletface in the user's cache."""
    if chosen := os.environ.get("TUPLETFACE_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tupletface"


def use_cpu_only() -> None:
    """Leave GPUs to others. Call before the first TensorFlow operation."""
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")


def device_words() -> str:
    """What TensorFlow computes on, in words."""
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return f"{len(gpus)} GPU" if gpus else f"the CPU ({os.cpu_count()} cores; TensorFlow sees no GPU)"


def limit_threads(threads: int) -> None:
    """Let TensorFlow and OpenCV use this many threads each. Call before the first TensorFlow operation."""
    import cv2
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
    cv2.setNumThreads(threads)


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and TensorFlow, from which Keras draws initial weights and dropout."""
    import keras

    keras.utils.set_random_seed(seed)


def versions(*more: str) -> dict[str, str]:
    """Versions of the packages that decide a model's numbers, and of others by name."""
    packages = ("tensorflow", "keras", "numpy", "opencv-python-headless", "mtcnn", *more)
    return {name: metadata.version(name) for name in packages}


def environment() -> dict[str, Any]:
    """Versions and hardware, for the record of a run: plain JSON values."""
    import tensorflow as tf

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "gpus": [device.name for device in tf.config.list_physical_devices("GPU")],
        "packages": versions("scikit-learn"),
        "command": sys.argv,
    }
