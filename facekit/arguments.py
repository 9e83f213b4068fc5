"""Checks of what a user passes: a wrong argument is one sentence that names it."""

from __future__ import annotations

import difflib
from math import inf
from numbers import Integral, Real
from typing import Any


def number_between(name: str, value: Any, interval: str, largest: float = inf, least: float = 0.0) -> float:
    """A number in the open interval (least, largest), as float.

    Raises:
        ValueError: it is none; the sentence names the argument and the interval, as written.
    """
    if not isinstance(value, Real) or isinstance(value, bool) or not least < float(value) < largest:
        raise ValueError(f"`{name}` must be in {interval}. Received: {name}={value!r}")
    return float(value)


def count_or_none(name: str, value: Any) -> int | None:
    """None, or an integer of at least 1, as int.

    Raises:
        ValueError: it is neither.
    """
    if value is None:
        return None
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"`{name}` must be None or an integer of at least 1. Received: {name}={value!r}")
    return int(value)


def one_of(name: str, value: Any, choices: tuple[Any, ...]) -> Any:
    """The value, which must be one of the choices.

    Raises:
        ValueError: it is not.
    """
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}. Received: {name}={value!r}")
    return value


def nearest_name(name: str, known: list[str]) -> str:
    """The end of a sentence about an unknown name: the nearest known one, and all of them."""
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)[0]
    return f"did you mean `{nearest}`? There are {', '.join(known)}."
