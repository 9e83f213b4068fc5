"""How losses are named, configured, weighed, saved and added up, and what they say of wrong arguments."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import losses
from facekit.objective import Objective
from losses import IntraPairVarianceLoss, TripletLoss, TupletMarginLoss, WeightedSum
from tests import contracts, reference
from tests.loss_cases import BATCHES, FORMULAS, VARIANTS, every_form, every_variant, flat_batch, make

ROOT = Path(__file__).resolve().parent.parent


def test_sample_weight_and_reduction() -> None:
    labels, rows = flat_batch("random", 8)
    values = TupletMarginLoss(reduction=None)(labels, rows).numpy()
    weights = np.arange(len(labels), dtype="float32")
    weighted = TupletMarginLoss()(labels, rows, sample_weight=weights)
    assert float(weighted) == pytest.approx(float((values * weights).sum() / len(labels)), rel=1e-5)


def test_functions_are_the_classes() -> None:
    labels, rows = flat_batch("random", 9)
    pairs = [
        (losses.tuplet_margin_loss(labels, rows, scale=8.0), TupletMarginLoss(scale=8.0)),
        (losses.triplet_loss(labels, rows, mining="all"), TripletLoss(mining="all")),
    ]
    for values, loss in pairs:
        np.testing.assert_array_equal(values, loss.call(labels, rows))


def test_loads_in_a_fresh_process(tmp_path: Path) -> None:
    labels, _ = flat_batch("random", 0)
    rows = np.random.default_rng(2).normal(size=(len(labels), 6)).astype("float32")
    np.savez(tmp_path / "batch.npz", labels=labels, rows=rows)
    chosen = ("tuplet-hardest", "all-average-all", "tuplet-ipv")
    saved = [contracts.save_with_loss(make(v), labels, rows, tmp_path / f"{v}.keras") for v in chosen]
    script = (
        "import sys, json, keras, numpy, losses\n"
        "b = numpy.load(sys.argv[1])\n"
        "models = [keras.saving.load_model(p) for p in sys.argv[2:]]\n"
        "run = [m.evaluate(b['rows'], b['labels'], batch_size=99, verbose=0) for m in models]\n"
        "sys.stdout.write(json.dumps([run, [m.loss.get_config() for m in models]]))\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "batch.npz")]
    command += [str(tmp_path / f"{v}.keras") for v in chosen]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    values, configs = json.loads(done.stdout.splitlines()[-1])
    assert values == pytest.approx(saved, rel=1e-5)
    assert [c["hardest"] for c in configs[:2]] == [3, None] and configs[1]["average"] == "all"
    assert configs[2]["weights"] == [1.0, 0.5] and configs[2]["losses"][1]["config"]["epsilon"] == 0.1


# ---- Arguments -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("tuplet_margin", {"margin": 3.0}, r"`margin` must be in \(0, pi/2\)\. Received: margin=3\.0"),
        ("tuplet_margin", {"margin": 0}, r"`margin` must be in \(0, pi/2\)\. Received: margin=0"),
        ("tuplet_margin", {"margin": float("nan")}, r"`margin` must be in \(0, pi/2\)\. Received: margin=nan"),
        ("tuplet_margin", {"margin": "0.1"}, r"`margin` must be in \(0, pi/2\)\. Received: margin='0.1'"),
        ("tuplet_margin", {"scale": -1}, r"`scale` must be in \(0, inf\)\. Received: scale=-1"),
        ("tuplet_margin", {"scale": float("inf")}, r"`scale` must be in \(0, inf\)"),
        (
            "tuplet_margin",
            {"hardest": 0},
            r"`hardest` must be None or an integer of at least 1\. Received: hardest=0",
        ),
        ("tuplet_margin", {"hardest": 1.5}, r"`hardest` must be None or an integer"),
        ("triplet", {"margin": 2.0}, r"`margin` must be in \(0, 2\)\. Received: margin=2\.0"),
        ("triplet", {"margin": 4.0, "squared": True}, r"`margin` must be in \(0, 4\)"),
        ("triplet", {"mining": "easy"}, r"`mining` must be one of None, 'semi_hard', 'all', 'hard'.*'easy'"),
        ("triplet", {"average": "some"}, r"`average` must be one of 'positive', 'all'"),
        ("triplet", {"average": "all"}, r'`average="all"` needs mining="all"'),
        (
            "triplet",
            {"mining": "hard", "hardest": 2},
            r"`mining` and `hardest` exclude each other.*'hard'.*hardest=2",
        ),
        ("triplet", {"soft": True}, r'`soft=True` needs mining="hard"\. Received: mining=None'),
        (
            "triplett",
            {},
            r"There is no loss 'triplett': did you mean `triplet`\? There are tuplet_margin, tuplet_margin_ipv, "
            r"triplet, contrastive, n_pair, multi_similarity, circle, supcon, intra_pair_variance\.",
        ),
        ("triplet", {"minning": "all"}, r"The loss 'triplet' has no option `minning`: did you mean `mining`\?"),
        ("tuplet_margin", {"keras_options": {}}, r"has no option `keras_options`"),
        ("intra_pair_variance", {"epsilon": 1.0}, r"`epsilon` must be in \(0, 1\)\. Received: epsilon=1\.0"),
        ("intra_pair_variance", {"epsilon": 0}, r"`epsilon` must be in \(0, 1\)\. Received: epsilon=0"),
        ("contrastive", {"margin": 2.0}, r"`margin` must be in \(0, 2\)\. Received: margin=2\.0"),
        ("n_pair", {"scale": 0}, r"`scale` must be in \(0, inf\)\. Received: scale=0"),
        ("multi_similarity", {"alpha": 0}, r"`alpha` must be in \(0, inf\)\. Received: alpha=0"),
        ("multi_similarity", {"beta": -1}, r"`beta` must be in \(0, inf\)\. Received: beta=-1"),
        ("multi_similarity", {"base": 1.0}, r"`base` must be in \(-1, 1\)\. Received: base=1\.0"),
        ("multi_similarity", {"base": -1.0}, r"`base` must be in \(-1, 1\)\. Received: base=-1\.0"),
        ("circle", {"margin": 1.0}, r"`margin` must be in \(0, 1\)\. Received: margin=1\.0"),
        ("circle", {"scale": 0.0}, r"`scale` must be in \(0, inf\)\. Received: scale=0\.0"),
        ("supcon", {"temperature": 0}, r"`temperature` must be in \(0, inf\)\. Received: temperature=0"),
        ("tuplet_margin_ipv", {"margin": 2.0}, r"`margin` must be in \(0, pi/2\)\. Received: margin=2\.0"),
        ("tuplet_margin_ipv", {"epsilon": 2.0}, r"`epsilon` must be in \(0, 1\)\. Received: epsilon=2\.0"),
        (
            "tuplet_margin_ipv",
            {"mu": 1},
            r"The loss 'tuplet_margin_ipv' has no option `mu`: did you mean `\w+`\? "
            r"There are margin, scale, hardest, epsilon, name, reduction\.",
        ),
    ],
)
def test_wrong_arguments_are_refused_in_a_sentence(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        losses.get(name, **options)


def test_get_takes_numpy_numbers_and_keras_options() -> None:
    loss = losses.get("tuplet_margin", margin=np.float32(0.25), hardest=np.int64(3), name="face", reduction="sum")
    config = loss.get_config()
    assert json.loads(json.dumps(config)) == config
    assert (config["margin"], config["hardest"], config["name"], config["reduction"]) == (0.25, 3, "face", "sum")
    assert losses.get("multi_similarity", base=-0.5).get_config()["base"] == -0.5


@pytest.mark.parametrize("name", losses.LOSSES)
def test_options_are_what_get_takes(name: str) -> None:
    config = losses.get(name).get_config()
    parts = [part["config"] for part in config.get("losses", [{"config": config}])]
    values = {option: part[option] for part in parts for option in losses.options(name) if option in part}
    assert tuple(sorted(values)) == tuple(sorted(losses.options(name)))
    again = losses.get(name, **values, name=config["name"], reduction="sum").get_config()
    assert again["name"] == config["name"] and again["reduction"] == "sum"


def test_options_by_name() -> None:
    assert losses.options("tuplet_margin_ipv") == ("margin", "scale", "hardest", "epsilon")
    assert losses.options("triplet") == ("margin", "mining", "squared", "soft", "hardest", "average")
    with pytest.raises(ValueError, match=r"There is no loss 'circel': did you mean `circle`\? There are"):
        losses.options("circel")


def test_defaults_are_the_papers() -> None:
    configs = {name: losses.get(name).get_config() for name in losses.LOSSES}
    values = {name: tuple(configs[name].get(option) for option in losses.options(name)) for name in configs}
    assert values | {"tuplet_margin_ipv": None} == {
        "tuplet_margin": (0.1, 64.0, None),
        "tuplet_margin_ipv": None,
        "triplet": (0.2, None, False, False, None, "positive"),
        "contrastive": (1.0,),
        "n_pair": (1.0,),
        "multi_similarity": (2.0, 50.0, 0.5),
        "circle": (0.25, 256.0),
        "supcon": (0.1,),
        "intra_pair_variance": (0.01,),
    }


# ---- Sums ----------------------------------------------------------------------------------------------------


def test_a_weighted_sum_adds_up() -> None:
    labels, rows = flat_batch("random", 5)
    parts = [TripletLoss(mining="all"), IntraPairVarianceLoss(), TupletMarginLoss(scale=8.0)]
    expected = sum(w * part.call(labels, rows).numpy() for w, part in zip((2, 0.25, 1), parts, strict=True))
    loss = WeightedSum(parts, (2, 0.25, 1), reduction="sum")
    np.testing.assert_allclose(loss.call(labels, rows), expected, rtol=1e-6)
    assert float(loss(labels, rows)) == pytest.approx(expected.sum(), rel=1e-6)
    contracts.check_loss_config(loss, labels, rows)
    nested = WeightedSum([loss, TripletLoss()], [0.5, 3])
    np.testing.assert_allclose(
        nested.call(labels, rows), 0.5 * expected + 3 * TripletLoss().call(labels, rows).numpy(), rtol=1e-6
    )
    contracts.check_loss_config(nested, labels, rows)


def test_the_preset_is_the_papers_sum() -> None:
    labels, rows = flat_batch("clustered", 5)
    preset = losses.get("tuplet_margin_ipv", margin=0.3, scale=4.0, hardest=2, epsilon=0.2, name="face")
    main = TupletMarginLoss(0.3, 4.0, hardest=2).call(labels, rows).numpy()
    variance = IntraPairVarianceLoss(0.2).call(labels, rows).numpy()
    np.testing.assert_allclose(preset.call(labels, rows), main + 0.5 * variance, rtol=1e-6)
    assert preset.name == "face" and [type(part) for part in preset.losses] == [
        TupletMarginLoss,
        IntraPairVarianceLoss,
    ]


@pytest.mark.parametrize(
    ("parts", "weights", "message"),
    [
        (0, [], r"at least one loss, and a weight for each\. Received: 0 losses, 0 weights"),
        (2, [1.0], r"at least one loss, and a weight for each\. Received: 2 losses, 1 weights"),
        (1, [0.0], r"`weights` must be in \(0, inf\)\. Received: weights=0\.0"),
    ],
)
def test_a_weighted_sum_refuses(parts: int, weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WeightedSum([TripletLoss() for _ in range(parts)], weights)


# ---- Figures for logs ----------------------------------------------------------------------------------------


def statistics(labels: np.ndarray, rows: np.ndarray, loss: losses.PairLoss) -> dict[str, Any]:
    """Figures for logs, but for the rows' length, which is no loss's affair."""
    objective = Objective([loss], whole_batch=np.ndim(labels) == 1)
    objective.build_for(rows.shape[-1])
    figures = objective(rows, labels, training=False)[1]
    return {name: figure for name, figure in figures.items() if name != "norm"}


@every_variant
@every_form
def test_statistics_match_loops(variant: str, form: str) -> None:
    labels, rows = BATCHES[form]("clustered", 12)
    found = {k: float(v) for k, v in statistics(labels, rows, make(variant)).items()}
    anchors = reference.batch_anchors(labels, rows) if form == "flat" else [*reference.tuplet_anchors(labels, rows)]
    distances = [reference.distances_of(anchor, squared=False) for anchor in anchors]
    units = [reference.unit(row) for row in rows.reshape(-1, rows.shape[-1]).astype("float64")]
    assert found == pytest.approx(
        {
            "active": active_share(variant, anchors),
            "positive_distance": reference.mean([d for near, _ in distances for d in near]),
            "negative_distance": reference.mean([d for _, far in distances for d in far]),
            "spread": 1 - np.linalg.norm(np.mean(units, axis=0)),
        },
        rel=1e-4,
    )


def active_share(variant: str, anchors: list[reference.Anchor]) -> float:
    """Share of the loss's first part's terms that push."""
    name, options = VARIANTS[variant]
    formula = reference.triplet_terms if name == "triplet" else FORMULAS[name]
    hinge = name in ("triplet", "contrastive", "intra_pair_variance") and not options.get("soft")
    least = 0.0 if hinge else 1e-3
    return reference.mean([float(term > least) for terms in formula(anchors, **options)[0] for term in terms])


def test_statistics_of_a_collapsed_model_and_of_nothing() -> None:
    labels, rows = np.array([0, 0, 1, 1]), np.ones((4, 3), "float32")
    found = statistics(labels, rows, TupletMarginLoss())
    expected = {"active": 1.0, "positive_distance": 0.0, "negative_distance": 0.0, "spread": 0.0}
    assert {k: float(v) for k, v in found.items()} == pytest.approx(expected, abs=1e-6)
    nothing = statistics(np.zeros(4, int), np.eye(4, 4, dtype="float32"), TripletLoss())
    assert float(nothing["active"]) == 0.0 and float(nothing["negative_distance"]) == 0.0
    assert float(nothing["spread"]) == pytest.approx(0.5)
