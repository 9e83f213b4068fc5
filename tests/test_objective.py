"""The objective: losses, heads, mining and memory together, as loops compute them one by one."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

import losses
from facekit import heads
from facekit.identities import ClassCentres
from facekit.memory import CrossBatchMemory
from facekit.miner import MINERS, Miner
from facekit.objective import Objective
from facekit.trainer import EmbeddingTrainer, MeanOfValues
from losses import TripletLoss, TupletMarginLoss
from tests import reference

LABELS = np.array([0, 0, 1, 1, 1, 2, 3, 3])


def rows_of(seed: int, labels: np.ndarray = LABELS) -> np.ndarray:
    rng = np.random.default_rng(seed)
    spread = rng.normal(size=(*labels.shape, 6))
    return (3.0 * (rng.normal(size=(10, 6))[labels] + 0.5 * spread)).astype("float32")


def built(**parts: Any) -> Objective:
    objective = Objective(**parts)
    objective.build_for(6)
    return objective


def value(objective: Objective, rows: np.ndarray, labels: np.ndarray = LABELS, training: bool = True) -> float:
    return float(np.mean(objective(rows, labels, training=training)[0]))


def test_the_value_is_the_weighted_sum_of_its_parts():
    rows = rows_of(0)
    head = heads.get("arcface", 4, scale=8.0)
    objective = built(losses=[TupletMarginLoss(scale=8.0), TripletLoss()], heads=[head], weights=[1.0, 0.5, 0.25])
    expected = (
        reference.loss_value(reference.tuplet_margin, LABELS, rows, scale=8.0)
        + 0.5 * reference.loss_value(reference.triplet, LABELS, rows)
        + 0.25 * float(np.mean(head(rows, LABELS)))
    )
    assert value(objective, rows) == pytest.approx(expected, rel=5e-5)
    values, _ = objective(rows, LABELS)
    assert values.shape == (8,)


def test_tuplets_keep_to_their_own_negatives_and_heads_see_every_row():
    labels = np.array([[0, 0, 1, 2], [3, 3, 0, 1]])
    rows = rows_of(1, labels)
    head = heads.get("softmax", 4)
    objective = built(losses=[TupletMarginLoss(scale=8.0)], heads=[head], weights=[1.0, 1.0], whole_batch=False)
    expected = reference.loss_value(reference.tuplet_margin, labels, rows, scale=8.0)
    expected += float(np.mean(head(rows.reshape(-1, 6), labels.ravel())))
    assert value(objective, rows, labels) == pytest.approx(expected, rel=5e-5)
    flat = built(losses=[TupletMarginLoss(scale=8.0)], heads=[head], weights=[1.0, 1.0])
    assert flat(rows, labels)[0].shape == (8,)
    assert value(flat, rows, labels) != pytest.approx(expected, rel=1e-3)


def memory_oracle(batches: list[tuple[np.ndarray, np.ndarray]], margin: float) -> float:
    """Triplets, all of them, of the last batch's anchors with every earlier row among the keys."""
    (labels, rows), earlier = batches[-1], batches[:-1]
    terms = []
    units = [reference.unit(row) for row in rows.astype("float64")]
    keys = [(label, unit, i) for i, (label, unit) in enumerate(zip(labels, units, strict=True))]
    keys += [
        (label, reference.unit(row), -1)
        for old_labels, old in earlier
        for label, row in zip(old_labels, old.astype("float64"), strict=True)
    ]
    for i, (label, unit) in enumerate(zip(labels, units, strict=True)):
        near = [float(np.linalg.norm(unit - key)) for other, key, j in keys if other == label and j != i]
        far = [float(np.linalg.norm(unit - key)) for other, key, _ in keys if other != label]
        terms += [max(p - n + margin, 0.0) for p in near for n in far]
    return float(np.mean([term for term in terms if term > 0]))


def test_memory_gives_earlier_rows_as_keys_and_is_written_in_training_only():
    memory = CrossBatchMemory(24)
    objective = built(losses=[TripletLoss(mining="all")], memory=memory)
    batches = [(np.roll(LABELS, seed), rows_of(seed)) for seed in range(3)]
    for number, (labels, rows) in enumerate(batches):
        expected = memory_oracle(batches[: number + 1], 0.2)
        assert value(objective, rows, labels, training=False) == pytest.approx(expected, rel=5e-5)
        assert value(objective, rows, labels) == pytest.approx(expected, rel=5e-5)
    figures = objective(batches[0][1], batches[0][0], training=False)[1]
    assert float(figures["memory_filled"]) == 1.0 and float(figures["memory_age"]) == pytest.approx(2.0)


def test_memory_starts_after_its_warm_up():
    memory = CrossBatchMemory(24, start_step=2)
    objective = built(losses=[TripletLoss(mining="all")], memory=memory)
    alone = built(losses=[TripletLoss(mining="all")])
    for seed in range(3):
        assert value(objective, rows_of(seed)) == pytest.approx(value(alone, rows_of(seed)))
    assert value(objective, rows_of(4)) != pytest.approx(value(alone, rows_of(4)))


def test_the_miner_leaves_fewer_pairs():
    mined = built(losses=[TripletLoss(mining="all")], miner=Miner("hard"))
    expected = reference.loss_value(reference.triplet, LABELS, rows_of(5), mining="hard")
    assert value(mined, rows_of(5)) == pytest.approx(expected, rel=5e-5)


def test_figures_match_loops():
    rows = rows_of(6)
    objective = built(losses=[TripletLoss()], heads=[heads.get("cosface", 4)], weights=[1.0, 1.0])
    figures = {name: float(figure) for name, figure in objective(rows, LABELS)[1].items()}
    assert tuple(figures) == objective.names
    anchors = reference.batch_anchors(LABELS, rows)
    distances = [reference.distances_of(anchor, squared=False) for anchor in anchors]
    units = np.array([reference.unit(row) for row in rows.astype("float64")])
    terms = [reference.triplet([reference.Anchor(a.row, [p], a.negatives)]) for a in anchors for p in a.positives]
    assert figures == pytest.approx(
        {
            "active": np.mean(np.array(terms) > 0),
            "positive_distance": reference.mean([d for near, _ in distances for d in near]),
            "negative_distance": reference.mean([d for _, far in distances for d in far]),
            "spread": 1 - np.linalg.norm(units.mean(0)),
            "norm": np.linalg.norm(rows, axis=1).mean(),
            "class_accuracy": float(objective.heads[0].statistics(rows, LABELS)["class_accuracy"]),
        },
        rel=1e-4,
    )


def test_figures_of_a_collapsed_model_and_of_nothing():
    objective = built(losses=[TupletMarginLoss()])
    figures = {name: float(x) for name, x in objective(np.ones((8, 6), "float32"), LABELS)[1].items()}
    expected = {"active": 1, "positive_distance": 0, "negative_distance": 0, "spread": 0, "norm": np.sqrt(6)}
    assert figures == pytest.approx(expected, abs=1e-6)
    figures = objective(np.eye(6, dtype="float32"), np.zeros(6, int))[1]
    assert float(figures["active"]) == 0.0 and float(figures["negative_distance"]) == 0.0


def test_the_level_of_a_collapsed_model():
    equal, labels = np.ones((20, 6), "float32"), np.arange(20) // 4
    head = heads.get("arcface", 5)
    objective = built(losses=[TripletLoss(), TupletMarginLoss()], heads=[head], weights=[1.0, 2.0, 0.5])
    pairs = built(losses=[TripletLoss(), TupletMarginLoss()], weights=[1.0, 2.0])
    assert pairs.do_nothing_value(3, 16) == pytest.approx(value(pairs, equal, labels), abs=5e-3)
    assert objective.do_nothing_value(3, 16) == pytest.approx(
        pairs.do_nothing_value(3, 16) + 0.5 * head.do_nothing_value()
    )
    kept = built(losses=[TupletMarginLoss()], memory=CrossBatchMemory(40))
    assert kept.do_nothing_value(3, 16) == TupletMarginLoss().do_nothing_value(3, 16)
    value(kept, equal, labels)
    assert kept.do_nothing_value(3, 16) == TupletMarginLoss().do_nothing_value(3, 36)


@pytest.mark.parametrize("kind", MINERS)
@pytest.mark.parametrize("loss", ["tuplet_margin", "multi_similarity"])
def test_the_level_of_a_collapsed_model_under_mining(kind, loss):
    equal, labels = np.ones((20, 6), "float32"), np.arange(20) // 4
    objective = built(losses=[losses.get(loss)], miner=Miner(kind, count=5))
    for _ in range(3 if kind == "schedule" else 1):
        assert objective.do_nothing_value(3, 16) == pytest.approx(value(objective, equal, labels), abs=5e-3)
        if kind == "schedule":
            objective.miner.advance()


def test_centres_follow_the_batches():
    centres = ClassCentres(10)
    objective = built(losses=[TripletLoss()], centres=centres)
    value(objective, rows_of(0), training=False)
    assert not np.asarray(centres.seen).any()
    value(objective, rows_of(0))
    assert np.asarray(centres.seen).tolist() == [2, 3, 1, 2, 0, 0, 0, 0, 0, 0]


def test_weights_must_match():
    with pytest.raises(ValueError, match="a weight for each loss and head. Received: 1 losses, 0 heads, 2 weights"):
        Objective(losses=[TripletLoss()], weights=[1.0, 2.0])
    with pytest.raises(ValueError, match="Received: 0 losses, 0 heads, 0 weights"):
        Objective(weights=[])


@pytest.mark.parametrize("name", losses.LOSSES)
def test_a_model_that_gives_nan_shows_in_the_value(name):
    assert np.isnan(value(built(losses=[losses.get(name)]), np.full((8, 6), np.nan, "float32")))


def small_trainer(objective: Objective, xla: bool = False) -> EmbeddingTrainer:
    keras.utils.set_random_seed(0)
    image = keras.Input((4, 4, 3))
    rows = keras.layers.Dense(6)(keras.layers.Flatten()(image))
    from facekit.layers import UnitNorm

    trainer = EmbeddingTrainer(keras.Model(image, UnitNorm()(rows)), objective)
    trainer.compile(keras.optimizers.SGD(0.05), MeanOfValues(), jit_compile=xla)
    trainer.optimizer.build(trainer.trainable_variables)
    return trainer


def everything() -> Objective:
    return Objective(
        losses=[TupletMarginLoss(scale=8.0)],
        heads=[heads.get("adaface", 4, subcentres=2)],
        weights=[1.0, 0.1],
        miner=Miner("schedule", count=2),
        memory=CrossBatchMemory(16),
        centres=ClassCentres(4),
    )


@pytest.mark.parametrize("xla", [False, True], ids=["graph", "xla"])
def test_all_parts_train_together_in_a_compiled_step(xla):
    trainer = small_trainer(everything(), xla)
    images = np.random.default_rng(0).uniform(0, 1, (8, 4, 4, 3)).astype("float32")
    history = trainer.fit(images, LABELS, batch_size=8, epochs=4, shuffle=False, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert set(history) == {"loss", *trainer.objective.names}
    assert history["memory_filled"][-1] == 1.0
    assert np.asarray(trainer.objective.centres.seen).sum() == 32


def test_the_trainer_gives_rows_with_their_length_and_keeps_the_network_whole():
    trainer = small_trainer(Objective(losses=[TripletLoss()]))
    images = np.random.default_rng(0).uniform(0, 1, (2, 3, 4, 4, 3)).astype("float32")
    rows = np.asarray(trainer(images))
    assert rows.shape == (2, 3, 6)
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    assert lengths.std() > 1e-3
    units = np.asarray(trainer.network(images.reshape(-1, 4, 4, 3))).reshape(2, 3, 6)
    np.testing.assert_allclose(rows / lengths, units, atol=1e-6)
