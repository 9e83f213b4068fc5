"""The input benchmark: its ways give the pictures they say, and its table the figures it says."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from apps import bench_input as bench
from apps.bench_input import InputBench, Turn, measure, take_turn
from apps.input_contenders import CONTENDERS, ShuffledSampler
from facekit.images import read_image


@pytest.fixture(scope="module")
def work(crops, tmp_path_factory):
    return bench._prepare(crops, tmp_path_factory.mktemp("bench") / "packed", 64, 20)


@pytest.mark.parametrize("name", CONTENDERS)
def test_every_way_gives_batches(name, work):
    counts = list(itertools.islice(CONTENDERS[name](work), 3))
    assert counts == [2000 if name == bench.LIMIT else 20] * 3


def test_the_limit_decodes_the_same_mixture_of_pictures(work):
    import cv2

    encoded = work.encoded(30)
    assert len(encoded) == 30
    positions = np.concatenate([work.sampler().batch(step).ravel() for step in range(2)])[:30]
    for data, position in zip(encoded, positions, strict=True):
        image = cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1]
        np.testing.assert_array_equal(image, read_image(work.index.root / work.index.paths[position]))


def test_a_pass_has_every_picture_once_and_each_pass_its_own_order():
    sampler = ShuffledSampler(23, 5)
    passes = [np.concatenate([sampler.batch(4 * turn + step) for step in range(4)]) for turn in range(2)]
    for positions in passes:
        assert len(positions) == len(set(positions.tolist())) == 20 and set(positions.tolist()) < set(range(23))
    assert passes[0].tolist() != passes[1].tolist() and passes[0].tolist() != sorted(passes[0])
    assert ShuffledSampler(6, 6).batch(10**9).shape == (6,)


def test_our_streams_decode_every_picture_that_they_count(work):
    for step in range(8):
        assert len(set(work.sampler().batch(step).tolist())) == work.batch


def test_a_turns_memory_is_its_own():
    if not bench._forget_peak():
        pytest.skip("needs Linux")

    def stream(megabytes):
        while True:
            block = bytearray(megabytes * 10**6)
            time.sleep(0.005)
            yield len(block)

    assert take_turn(stream(200), 0.05).memory > 150
    assert take_turn(stream(1), 0.05).memory < 50


def test_a_turn_counts_what_came_within_its_time():
    def steady():
        while True:
            time.sleep(0.01)
            yield 7

    turn = take_turn(steady(), 0.3)
    assert 7 / 0.03 < turn.rate <= 7 / 0.01
    assert turn.cost < 1e6 * 0.5 / 7


def test_ready_batches_do_not_count():
    def stream():
        yield from [1000] * bench.READY
        while True:
            time.sleep(0.005)
            yield 1

    assert take_turn(stream(), 0.1).rate <= 200


def test_every_way_has_its_turn_in_every_round(monkeypatch):
    order = []
    monkeypatch.setattr(bench, "take_turn", lambda stream, seconds: order.append(stream) or Turn(1.0, 1.0, 0.0))
    turns = measure({"a": "A", "b": "B"}, 3, 1.0)
    assert order == ["A", "B"] * 3 and [len(own) for own in turns.values()] == [3, 3]


def test_shares_are_of_the_limit_in_the_same_round():
    turns = {
        bench.LIMIT: [Turn(100.0, 10.0, 1.0), Turn(1000.0, 10.0, 1.0), Turn(100.0, 20.0, 1.0)],
        "ours": [Turn(50.0, 40.0, 3.0), Turn(500.0, 20.0, 9.0), Turn(80.0, 50.0, 2.0)],
    }
    first, second = bench.lines(turns)
    assert first == f"| {bench.LIMIT} | 100 | 1.00 | 10 | 1.00 | 1 |"
    assert second == "| ours | 80 | 0.50 | 40 | 0.40 | 9 |"


def test_the_report_has_a_table_for_each_folder(crops):
    settings = InputBench(images=(crops,), rounds=1, seconds=0.05, batch_size=20, only=("packed",))
    report = list(bench.bench_input(settings))
    assert "96 pictures of 64 px, batches of 20 at 64 px" in report[0]
    assert [line.split(" |")[0] for line in report[3:5]] == [f"| {bench.LIMIT}", "| ours, packed"]


def test_drawn_pictures_and_another_network_size():
    settings = InputBench(sizes=(24,), pictures=100, resize_to=16, rounds=1, seconds=0.05, only=("map",))
    assert "100 pictures of 24 px, batches of 100 at 16 px" in next(bench.bench_input(settings))


def test_unknown_ways_are_refused():
    with pytest.raises(ValueError, match="`only` names none of the ways: cv2.imdecode alone, ours"):
        next(bench.bench_input(InputBench(only=("theirs",))))
