"""Settings as a flat list, and the tables made of it."""

from __future__ import annotations

from config import Config
from facekit.setting_table import flat, settings_markdown


def test_groups_and_lists_become_one_line_each():
    settings = {
        "augment": {"flip": 0.5},
        "freeze": ["stem", "stage1"],
        "stages": [{"epochs": 5, "loss": "softmax"}, {"freeze": ["a"]}],
        "extra": [],
        "margin": None,
        "xla": False,
    }
    assert flat(settings) == {
        "augment.flip": 0.5,
        "freeze": "stem; stage1",
        "stages": 'epochs=5 loss=softmax; freeze=["a"]',
        "extra": None,
        "margin": None,
        "xla": False,
    }


def test_all_settings_of_a_run_become_plain_values():
    values = flat(Config().model_dump(mode="json"))
    assert all(value is None or isinstance(value, bool | int | float | str) for value in values.values())
    assert values["augment.flip.probability"] == 0.5 and values["loss"] == "tuplet_margin"


def test_changed_settings_come_first_with_their_defaults():
    text = settings_markdown({"a": 1, "b": "x|y", "c": True, "new": ""}, {"a": 1, "b": "", "c": 1.0})
    changed, others = text.split("### At the default")
    assert "(2)" in changed and "| **b** | `x\\|y` | (empty) |" in changed
    assert "| **new** | (empty) | `None` |" in changed
    assert "(2)" in others and "| a | `1` |" in others and "**" not in others


def test_a_run_with_nothing_changed_has_no_empty_table():
    text = settings_markdown({"a": 1}, {"a": 1})
    assert "Changed from the default (0)" in text and "| default |" not in text
