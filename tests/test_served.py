"""Batches decoded elsewhere: the same, in the same order, whatever is lost on the way."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from facekit.index import index_people
from facekit.loading import PictureLoader
from facekit.sampling import TupletSampler
from facekit.served import in_order, served_batches
from facekit.stream import batches
from tests.test_stream import Shifts

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def service():
    """The address of a dispatcher with one worker, in this process."""
    server = tf.data.experimental.service.DispatchServer()
    address = server.target.split("://")[1]
    config = tf.data.experimental.service.WorkerConfig(dispatcher_address=address)
    worker = tf.data.experimental.service.WorkerServer(config)
    yield address
    del worker, server


class Counting(PictureLoader):
    """A loader that counts the batches it makes."""

    made = 0

    def read(self, positions, plan=None):
        self.made += 1
        return super().read(positions, plan)


def numbered(*steps):
    return [(step, np.array([step])) for step in steps]


@pytest.mark.parametrize(
    ("arriving", "made"),
    [
        ((3, 4, 5, 6), []),
        ((6, 4, 3, 5), []),
        ((3, 5, 6), [4]),
        ((), [3, 4, 5, 6]),
        ((4, 5, 6, 3), [3]),
        ((3, 3, 4, 5, 5, 6), []),
        ((5, 6, 4), [3]),
    ],
)
def test_batches_come_in_order_each_once_and_missing_ones_are_made(arriving, made):
    calls = []

    def make(step):
        calls.append(step)
        return np.array([-step])

    got = list(in_order(numbered(*arriving), range(3, 7), make, patience=3))
    assert [step for step, _ in got] == [3, 4, 5, 6] and calls == made
    assert [int(images[0]) for _, images in got] == [-step if step in made else step for step in range(3, 7)]


def test_a_late_batch_takes_no_place_from_others():
    made = []
    arriving = numbered(1, 2, 0, 4, 3, 5)
    got = list(in_order(arriving, range(6), lambda step: made.append(step) or np.array([step]), patience=2))
    assert [step for step, _ in got] == list(range(6)) and made == [0]


def test_no_more_is_held_back_than_patience_allows():
    taken = []
    arriving = (taken.append(step) or (step, np.array([step])) for step in range(1, 100))
    first = next(in_order(arriving, range(100), lambda step: np.array([-1]), patience=4))
    assert first[0] == 0 and len(taken) == 4


def test_served_batches_are_the_local_ones(crops, service):
    index, steps = index_people(crops), range(5, 13)
    sampler, loader = TupletSampler(index.labels, 3, 2, seed=0), Counting(index, 64)
    served = served_batches(service, sampler, loader, index, steps, Shifts(), 9)
    local = batches(sampler, PictureLoader(index, 64), index.labels, steps, Shifts(), 9)
    assert served.element_spec == local.element_spec
    pairs = list(zip(served, local, strict=True))
    assert len(pairs) == 8 and loader.made == 0
    for (images, labels), (same_images, same_labels) in pairs:
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(labels, same_labels)


def test_bad_files_and_other_sizes_are_left_to_the_loader(crops, service, tmp_path):
    folder = shutil.copytree(crops, tmp_path / "people")
    index = index_people(folder)
    sampler = TupletSampler(index.labels, 3, 2, seed=0)
    (folder / index.paths[int(sampler.batch(1)[0, 0])]).write_bytes(b"broken")
    expected = sum(
        any(int(position) == int(sampler.batch(1)[0, 0]) for position in sampler.batch(step).ravel())
        for step in range(4)
    )
    for size, made in ((64, expected), (32, 4)):
        loader = Counting(index, size)
        served = served_batches(service, sampler, loader, index, range(4))
        for (images, _), step in zip(served, range(4), strict=True):
            np.testing.assert_array_equal(images, PictureLoader(index, size).load(sampler.batch(step)))
        assert loader.made == made and len(loader.failures) == 1


@pytest.mark.slow
def test_a_worker_killed_midway_costs_time_not_batches(crops):
    command = [sys.executable, "-m", "apps.input_service", "--port", "0", "--workers", "2"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline()
            address = re.search(r"at (\S+);", line)[1]
            workers = [int(number) for number in re.search(r"processes ([\d ]+)\.", line)[1].split()]
            index, steps = index_people(crops), range(200)
            sampler, got = TupletSampler(index.labels, 8, 6, seed=0), []
            for images, _ in served_batches(address, sampler, Counting(index, 64), index, steps):
                got.append(images.numpy())
                if len(got) == 30:
                    os.kill(workers[0], signal.SIGKILL)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    assert len(got) == 200
    loader = PictureLoader(index, 64)
    for step in steps:
        np.testing.assert_array_equal(got[step], loader.load(sampler.batch(step)))
