"""Groups of settings: frozen, closed, read from JSON and the command line; a wrong one is one sentence."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError


class Settings(BaseModel):
    """A frozen group of settings whose errors are sentences that name the setting."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    def __init__(self, **values: Any):
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(_sentences(error, type(self))) from None

    def to_json(self) -> str:
        """The settings as indented JSON text, which `read_settings` reads back."""
        return self.model_dump_json(indent=2) + "\n"


def _sentences(error: ValidationError, model: type[BaseModel]) -> str:
    """Pydantic's findings as sentences that name the setting, what was expected and what came."""
    sentences = []
    for finding in error.errors():
        name = ".".join(str(part) for part in finding["loc"])
        if finding["type"] == "extra_forbidden":
            sentences.append(_unknown_name(name, list(model.model_fields)))
        elif finding["type"] == "missing":
            sentences.append(f"`{name}` is required.")
        else:
            expected = finding["msg"].replace("Input should be", "must be").removeprefix("Value error, ")
            # A nested group has written its whole sentence already.
            whole = not name or expected.startswith(("`", "There is"))
            sentences.append(expected if whole else f"`{name}` {expected}. Received: {finding['input']!r}.")
    return " ".join(sentences)


def _unknown_name(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
    return f"There is no setting `{name}`: did you mean `{nearest[0]}`?"


SettingsType = TypeVar("SettingsType", bound=Settings)


def read_settings(path: Path, kind: type[SettingsType]) -> SettingsType:
    """Read settings that `Settings.to_json` wrote; a missing name keeps its default.

    Raises:
        ValueError: the file is missing, is not a JSON object, or holds a wrong name or value; in one sentence.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from None
    except ValueError as error:
        raise ValueError(f"{path}: is not JSON ({error}).") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: expected a JSON object of settings, found {type(values).__name__}.")
    try:
        return kind(**values)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse(
    kind: type[SettingsType],
    argv: Sequence[str] | None,
    default: SettingsType | None = None,
    program: str | None = None,
) -> SettingsType:
    """Settings from the command line: every field is an option, `default` the values not given.

    Args:
        kind: the group of settings.
        argv: the words after the command; None: those of this process.
        default: see above.
        program: the command's name in its help; None: that of the file.

    Raises:
        SystemExit: code 2 after a wrong option or value, with a sentence on stderr; 0 after --help.
    """
    import tyro

    return tyro.cli(  # type: ignore[return-value]
        kind,
        prog=program,
        args=list(sys.argv[1:] if argv is None else argv),
        default=default,
        use_underscores=True,
    )
