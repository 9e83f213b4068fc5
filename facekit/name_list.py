"""Lists of names in text files, one a line: people or pictures to leave out, people who trained."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

# What ends a line, or begins a name that was quoted for it.
_SPECIAL = ("\n", "\r")


def names_text(names: Iterable[str]) -> str:
    """Names as text, one a line. One that holds a line break, or begins with a quote, is written as JSON."""
    return "".join(f"{_line(name)}\n" for name in names)


def _line(name: str) -> str:
    plain = not name.startswith('"') and name == name.strip() and not any(end in name for end in _SPECIAL)
    return name if plain else json.dumps(name)


def read_names(path: Path, setting: str) -> list[str]:
    """Names of a text file, as `names_text` writes them; blank lines are passed over.

    Args:
        path: the file; a byte order mark and Windows' line ends are fine, as are names that are no UTF-8.
        setting: the setting that named it, for messages.

    Raises:
        ValueError: the file cannot be read; names the setting.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").split("\n")
        return [_name(line.rstrip("\r")) for line in lines if line.strip()]
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error}). See `{setting}`.") from None


def _name(line: str) -> str:
    if line.startswith('"'):
        try:
            return str(json.loads(line))
        except ValueError:  # somebody's own name with a quote
            return line
    return line
