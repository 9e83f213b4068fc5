"""What benchmarks share: how a call is timed, and how a table is written."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any


def median_seconds(call: Callable[[], Any], warmup: int, steps: int) -> float:
    """Median time of a call that returns only when its result is there."""
    for _ in range(warmup):
        call()
    durations = []
    for _ in range(steps):
        start = time.perf_counter()
        call()
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def device() -> str:
    """What is computed on, in words."""
    import tensorflow as tf

    graphics = tf.config.list_physical_devices("GPU")
    if graphics:
        return str(tf.config.experimental.get_device_details(graphics[0]).get("device_name", "a GPU"))
    return f"CPU, {os.cpu_count()} cores"


def row(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(cells)} |"
