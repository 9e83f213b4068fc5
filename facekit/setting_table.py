"""Settings as one flat list of names and values: for a table to read, and to compare runs by."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Value = bool | int | float | str | None


def flat(settings: Mapping[str, Any]) -> dict[str, Value]:
    """Settings without nesting: groups become dotted names, lists one line of words.

    Args:
        settings: JSON values by their names, as `Settings.model_dump(mode="json")` gives them.
    """
    result: dict[str, Value] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            result |= {f"{name}.{inner}": part for inner, part in flat(value).items()}
        else:
            result[name] = "; ".join(map(_words, value)) or None if isinstance(value, list | tuple) else value
    return result


def _words(part: Any) -> str:
    """One of a list: {"epochs": 5, "loss": "softmax"} is epochs=5 loss=softmax."""
    if isinstance(part, Mapping):
        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in part.items()}
        return " ".join(f"{name}={text}" for name, text in texts.items())
    return str(part)


def settings_markdown(settings: Mapping[str, Value], defaults: Mapping[str, Value]) -> str:
    """Two Markdown tables: the settings that were changed, with their defaults, and all others.

    Args:
        settings: flat settings.
        defaults: what each would be if nobody had changed it.
    """
    changed = [name for name, value in settings.items() if value != defaults.get(name)]
    others = [name for name in settings if name not in changed]
    lines = [f"### Changed from the default ({len(changed)})", ""]
    if changed:
        lines += ["| setting | value | default |", "| --- | --- | --- |"]
        lines += [f"| **{name}** | {_cell(settings[name])} | {_cell(defaults.get(name))} |" for name in changed]
    lines += ["", f"### At the default ({len(others)})", ""]
    if others:
        lines += ["| setting | value |", "| --- | --- |"]
        lines += [f"| {name} | {_cell(settings[name])} |" for name in others]
    return "\n".join(lines) + "\n"


def _cell(value: Value) -> str:
    """A value as code, which leaves underscores and stars alone; a bar would end the cell."""
    return "(empty)" if value == "" else f"`{value}`".replace("|", "\\|")
