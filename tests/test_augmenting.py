"""The settings of augmentations: those of the list, from JSON and the command line; wrong ones in a sentence."""

from __future__ import annotations

import json

import pytest

from augmenting import AugmentConfig
from config import Config
from facekit.augment import AUGMENTATIONS, Augmentation
from facekit.settings import parse, read_settings


def test_settings_are_the_list_in_its_order_with_its_values():
    expected = {change.name: (change.probability, change.strength) for change in AUGMENTATIONS}
    mapping = AugmentConfig().as_mapping()
    assert mapping == expected and list(mapping) == list(expected)
    assert Augmentation(mapping).chances == mapping


WITH_STRENGTH = [change for change in AUGMENTATIONS if change.name != "flip"]


@pytest.mark.parametrize("change", WITH_STRENGTH, ids=lambda change: change.name)
def test_ranges_are_those_of_the_list_and_documented(change):
    low, high = f"{change.lowest:g}", f"{change.highest:g}"
    description = AugmentConfig.model_fields[change.name].description
    assert f"{low} to {high}" in description.replace("\n", " ") and "strength:" in description
    for strength in (change.lowest, change.highest):
        AugmentConfig(**{change.name: {"probability": 1, "strength": strength}})
    for strength in (change.lowest - 0.01, change.highest + 0.01):
        with pytest.raises(ValueError, match=rf"`{change.name}\.strength` must be {low} to {high}\. Received: "):
            AugmentConfig(**{change.name: {"strength": strength}})


def test_values_left_out_keep_their_defaults(tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"augment": {"rotation": {"probability": 0.3}, "hue": {"strength": 5}}}))
    augment = read_settings(path, Config).augment
    assert (augment.rotation.probability, augment.rotation.strength) == (0.3, 10)
    assert (augment.hue.probability, augment.hue.strength) == (0, 5)
    assert augment.flip.probability == 0.5


def test_settings_survive_json(tmp_path):
    config = Config(augment={"jpeg": {"probability": 0.2, "strength": 50}, "flip": {"probability": 0}})
    (tmp_path / "c.json").write_text(config.to_json())
    assert read_settings(tmp_path / "c.json", Config) == config


def test_the_command_line_sets_one_value():
    config = parse(Config, ["--augment.rotation.strength", "15", "--augment.mask.probability", "0.1"])
    assert config.augment.as_mapping()["rotation"] == (0.5, 15)
    assert config.augment.as_mapping()["mask"] == (0.1, 0.9)


def test_help_states_units(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Config, ["--help"])
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "--augment.motion_blur.strength" in text and "length of the path at most, as a share of the side" in text
    assert "--augment.flip.strength" not in text


@pytest.mark.parametrize(
    ("augment", "sentence"),
    [
        (
            {"rotation": {"probability": 2}},
            r"`rotation`: `probability` must be less than or equal to 1\. Received: 2",
        ),
        ({"rotation": {"strenth": 2}}, r"`rotation`: There is no setting `strenth`: did you mean `strength`\?"),
        ({"rotatoin": {}}, r"There is no setting `rotatoin`: did you mean `rotation`\?"),
        ({"rotation": 3}, r"`rotation` must be .*Received: 3"),
        ({"flip": {"strength": 0.5}}, r"`flip`: There is no setting `strength`"),
        ({"rotation_degrees": 15}, r"`rotation_degrees` is now `rotation\.strength`"),
        ({"cutout_size": 0.3}, r"`cutout_size` is now `cutout\.strength`"),
        ({"zoom": {"strength": "much"}}, r"`zoom`: `strength` must be a valid number"),
    ],
)
def test_a_wrong_setting_is_one_sentence(augment, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        Config(augment=augment)
    assert "\n" not in str(caught.value)


def test_a_wrong_option_exits_with_2(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Config, ["--augment.rotation.strength", "200"])
    assert stop.value.code == 2
    assert "`rotation.strength` must be 0 to 180" in "".join(capsys.readouterr())
