"""Settings: every wrong one is a sentence, every right one is read somewhere."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import losses
from augmenting import Chance, Mirror
from combinations import HEADS, LOSS_OPTIONS, OPTIONS, SMALLEST_IMAGE
from config import AugmentConfig, Config, CropConfig
from facekit import heads
from facekit.settings import parse, read_settings

ROOT = Path(__file__).resolve().parent.parent

WRONG = [
    ({"batch_sise": 3}, r"no setting `batch_sise`: did you mean `batch_size`\?"),
    ({"batch_size": 0}, r"`batch_size` must be greater than or equal to 1\. Received: 0"),
    ({"batch_size": "many"}, r"`batch_size` must be a valid integer"),
    ({"loss": "tuplet"}, r"`loss` must be 'tuplet_margin', .* or 'adaface'\. Received: 'tuplet'"),
    ({"margin": 3.0}, r"`margin` must be in \(0, pi / 2 radians\) for loss='tuplet_margin'\. Received: 3"),
    ({"loss": "triplet", "margin": 2.5}, r"`margin` must be in \(0, 2\) for loss='triplet'\. Received: 2\.5"),
    ({"margin": -0.1}, r"`margin` must be greater than 0\. Received: -0\.1"),
    ({"margin": float("nan")}, r"`margin` must be a finite number"),
    ({"squared": True}, r"`squared` belongs to triplet; loss is 'tuplet_margin'"),
    ({"loss": "triplet", "epsilon": 0.1}, r"`epsilon` belongs to tuplet_margin_ipv, intra_pair_variance; loss is"),
    ({"loss": "arcface", "mining": "hard"}, r"`mining` chooses pairs, and 'arcface' has none"),
    ({"loss": "softmax", "memory_size": 100}, r"`memory_size` adds pairs, and 'softmax' has none"),
    ({"memory_size": 100, "negatives": "tuplet"}, r"`memory_size` needs negatives=\"batch\""),
    ({"hard_identity_steps": 3}, r"`hard_identity_steps` must be 0 or at least 50\. Received: 3"),
    ({"loss": "triplet", "average": "all"}, r"`average=\"all\"` needs mining=\"all\""),
    ({"loss": "circle", "margin": 1.0}, r"`margin` must be in \(0, 1\) for loss='circle'"),
    ({"extra_losses": [{"loss": "arc"}]}, r"`loss` must be .* Received: 'arc'"),
    ({"loss": "arcface", "sampled": 30}, r"`sampled` must be at least the pictures of a step, 320\. Received: 30"),
    (
        {"extra_losses": [{"loss": "arcface", "options": {"seed": 3}}]},
        r"`extra_losses`: arcface has no option `seed`",
    ),
    (
        {"extra_losses": [{"loss": "arcface", "options": {"sampled": 3}}]},
        r"`sampled` must be at least the pictures",
    ),
    ({"stages": [{"loss": "softmax"}]}, r"`stages`, stage 1: needs its `epochs`"),
    ({"stages": [{"epochs": 1}, {"epochs": 1, "los": "x"}]}, r"stage 2: There is no setting `los`: did you mean"),
    ({"stages": [{"epochs": 1, "backbone": "x"}]}, r"stage 1: `backbone` belongs to the whole run"),
    ({"stages": [{"epochs": 1, "margin": 3}]}, r"stage 1: `margin` must be in \(0, pi / 2 radians\)"),
    ({"loss": "triplet", "mining": "hard", "hardest": 2}, r"`mining` and `hardest` exclude each other"),
    ({"loss": "triplet", "soft": True}, r"`soft=True` needs mining=\"hard\""),
    ({"backbone": "inception_v3", "image_size": 64}, r"`image_size` must be at least 75 .*'inception_v3'.*: 64"),
    ({"weights": "imagenet"}, r"`weights=\"imagenet\"` exists for resnet50"),
    ({"sampler": "people", "batch_size": 30}, r"`batch_size` must be a multiple of `pictures_per_person` \(4\)"),
    ({"sampler": "people", "batch_size": 4}, r"at least two people \(8 pictures\)"),
    ({"sampler": "people", "negatives": "tuplet"}, r"needs sampler=\"tuplet\""),
    ({"target_fmr": 0.001}, r"needs at least 3000 impostor pairs; set `validation_pairs` to at least 6000"),
    (
        {"augment": {"flip": {"probability": 2}}},
        r"`flip`: `probability` must be less than or equal to 1\. Received: 2",
    ),
    ({"augment": {"flop": {"probability": 1}}}, r"no setting `flop`: did you mean `flip`\?"),
    ({"input_service": "host:1", "cache": "memory"}, r"`cache` 'memory' keeps nothing"),
    ({"input_service": "host"}, r"`input_service` must be host:port\. Received: 'host'"),
    ({"input_service": "host:1", "hard_identity_steps": 50}, r"it excludes `hard_identity_steps`"),
    ({"name": "a/b"}, r"`name` "),
]


@pytest.mark.parametrize(("values", "sentence"), WRONG)
def test_a_wrong_setting_is_one_sentence(values, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        Config(**values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--batch_sise", "3"], "batch_size"),
        (["--batch_size", "many"], "batch_size"),
        (["--batch_size", "0"], "greater than or equal to 1"),
        (["--loss", "tuplet"], "tuplet_margin"),
        (["--margin", "3"], "pi / 2"),
    ],
)
def test_a_wrong_option_names_the_right_one_and_exits_with_2(arguments, words, capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Config, arguments)
    assert stop.value.code == 2
    output = capsys.readouterr()
    assert words in output.out + output.err


def test_options_override_defaults():
    config = parse(Config, ["--batch_size", "7", "--augment.rotation.strength", "20", "--validation_dir", "v"])
    assert (config.batch_size, config.augment.rotation.strength, config.validation_dir) == (7, 20.0, Path("v"))
    assert config.learning_rate == Config().learning_rate


def test_settings_survive_json(tmp_path):
    config = Config(margin=0.2, train_dir=Path("somewhere"), augment={"cutout": {"strength": 0.5}}, hardest=3)
    (tmp_path / "config.json").write_text(config.to_json())
    assert read_settings(tmp_path / "config.json", Config) == config


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not JSON"),
        ("[1]", "expected a JSON object"),
        ('{"epoch": 3}', "did you mean `epochs`"),
        ('{"epochs": -3}', "`epochs` must be greater than or equal to 0"),
    ],
)
def test_a_wrong_file_of_settings_is_named(tmp_path, text, sentence):
    path = tmp_path / "c.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=sentence) as caught:
        read_settings(path, Config)
    assert str(path) in str(caught.value)


def test_a_missing_file_of_settings_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"none\.json: cannot be read"):
        read_settings(tmp_path / "none.json", Config)


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        Config().epochs = 3


@pytest.mark.parametrize("kind", [Config, AugmentConfig, Chance, Mirror, CropConfig])
def test_every_setting_is_documented(kind):
    for name, field in kind.model_fields.items():
        assert field.description and field.description.strip()[-1] in ".)", name


def test_every_setting_is_read_somewhere():
    read = set()
    for path in [*ROOT.glob("*.py"), *ROOT.glob("facekit/*.py")]:
        if path.name == "config.py":
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        read |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    # Options of losses are read by name (`option_values`); that each belongs to one is tested below.
    read |= set(OPTIONS)
    # augment goes over whole, by `as_mapping`: see test_augmenting.py.
    fields = set(Config.model_fields) | set(CropConfig.model_fields)
    assert not fields - read


def test_names_in_the_settings_exist():
    from facekit.backbones import BACKBONES

    assert set(Config.model_fields["loss"].annotation.__args__) == set(losses.LOSSES) | set(heads.HEADS)
    assert set(HEADS) == set(heads.HEADS)
    assert set(SMALLEST_IMAGE) == set(BACKBONES) == set(Config.model_fields["backbone"].annotation.__args__)


def test_each_loss_takes_the_settings_that_the_table_gives_it():
    elsewhere = {"mining"}  # of every loss on pairs, checked apart
    for name, options in LOSS_OPTIONS.items():
        known = heads.options(name) if name in HEADS else losses.options(name)
        assert set(options) == set(known) - elsewhere, name


def test_a_stage_changes_the_run_and_starts_from_its_own_loss():
    stages = ({"epochs": 2, "loss": "arcface"}, {"epochs": 3, "learning_rate": 1e-4, "freeze": ["small"]})
    config = Config(loss="triplet", margin=0.3, mining="hard", soft=True, stages=stages)
    first, second = config.parts
    assert (first.loss, first.margin, first.mining, first.soft, first.epochs) == ("arcface", None, None, False, 2)
    assert (second.loss, second.margin, second.mining, second.soft) == ("triplet", 0.3, "hard", True)
    assert (second.learning_rate, second.freeze, second.epochs) == (1e-4, ("small",), 3)
    assert Config().parts == (Config(),)
    again = Config(margin=0.3, stages=({"epochs": 1, "loss": "softmax"}, {"epochs": 1, "loss": "tuplet_margin"}))
    assert [part.margin for part in again.parts] == [None, 0.3]
    assert Config(**json.loads(config.to_json())) == config


def test_saved_examples_are_valid():
    examples = sorted((ROOT / "configs").glob("*.json"))
    assert examples
    for path in examples:
        assert json.loads(path.read_text())
        read_settings(path, Config)
