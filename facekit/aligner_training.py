"""Train the alignment network: its layers, its loss, and a run that goes on where it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from facekit.aligner import EYES_PER_HEIGHT, NETWORK_NAME, SIDE, eye_distance
from facekit.aligner_views import Faces, draw_batch
from facekit.checkpoint import restore_state, save_state

# Wing loss, in shares of the eye distance. The paper's 10 and 2 pixels of 256 are about as much.
WING_WIDTH, WING_CURVE = 0.1, 0.02

# What seeing a face or none counts beside the points.
SEEN_WEIGHT = 0.3


def build_aligner(width: int = 16) -> keras.Model:
    """The network: (n, SIDE, SIDE, 1) grey 0..255 to (n, 11), five points in the unit square and a logit of a face.

    A small hourglass (Newell et al., ECCV 2016) ends in a map of each point, a quarter of the view's side. A point
    is the mean place under its map's softmax (Sun et al., "Integral Human Pose Regression", ECCV 2018): learned
    from coordinates, finer than the map's grid.

    Args:
        width: channels of the first layer; the others have multiples of it.
    """
    layers = keras.layers
    views = keras.Input((SIDE, SIDE, 1), name="views")
    # Each view to mean 0 and deviation 1: brightness and contrast are gone before the first filter.
    x = layers.Rescaling(1 / 127.5, offset=-1)(views)
    x = layers.LayerNormalization(axis=(1, 2, 3), center=False, scale=False)(x)
    half = _convolution(x, width, stride=2)
    fine = _convolution(_convolution(half, 2 * width, stride=2), 2 * width)
    middle = _convolution(_convolution(fine, 4 * width, stride=2), 4 * width)
    coarse = _convolution(_convolution(middle, 4 * width, stride=2), 4 * width)
    x = _convolution(layers.UpSampling2D(2)(coarse) + middle, 4 * width)
    x = layers.UpSampling2D(2)(_convolution(x, 2 * width, size=1)) + fine
    x = _convolution(x, 2 * width)
    maps = layers.Reshape((-1, 5))(layers.Conv2D(5, 1)(x))
    weights = layers.Permute((2, 1))(layers.Softmax(axis=1)(maps))
    # The mean place is a product with the cells' middles, which are not learned.
    cells = layers.Dense(2, use_bias=False, trainable=False, name="mean_place")
    points = layers.Flatten()(cells(weights))
    cells.kernel.assign(_cell_middles(SIDE // 4))
    seen = layers.Dense(1)(layers.GlobalAveragePooling2D()(coarse))
    return keras.Model(views, layers.Concatenate(name="points_and_face")([points, seen]), name=NETWORK_NAME)


def _convolution(x: Any, channels: int, stride: int = 1, size: int = 3) -> Any:
    x = keras.layers.Conv2D(channels, size, stride, padding="same", use_bias=False)(x)
    return keras.layers.ReLU()(keras.layers.BatchNormalization(momentum=0.95)(x))


def _cell_middles(side: int) -> NDArray[np.float32]:
    """Middles of a grid's cells in the unit square, row by row: (side * side, 2) x, y."""
    middles = (2 * np.arange(side) + 1) / side - 1
    x, y = np.meshgrid(middles, middles)
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


def wing(error: Any) -> Any:
    """The wing loss of absolute errors: a logarithm below `WING_WIDTH`, straight above.

    Feng et al., "Wing Loss for Robust Facial Landmark Localisation with CNNs", CVPR 2018, equation 5. Small errors
    count more than under L1, so that training does not end at the few faces that are far off.
    """
    gap = WING_WIDTH - WING_WIDTH * np.log1p(WING_WIDTH / WING_CURVE)
    return ops.where(error < WING_WIDTH, WING_WIDTH * ops.log1p(error / WING_CURVE), error - gap)


def _face_size(truth: Any) -> Any:
    """`facekit.aligner.face_size` as tensors, (n, 1): a profile's eye distance would count errors without end."""
    eyes = truth[:, 0:2] - truth[:, 2:4]
    eyes_to_mouth = (truth[:, 0:2] + truth[:, 2:4] - truth[:, 6:8] - truth[:, 8:10]) / 2
    lengths = [ops.sqrt(ops.sum(ops.square(line), axis=1, keepdims=True)) for line in (eyes, eyes_to_mouth)]
    return ops.maximum(lengths[0], EYES_PER_HEIGHT * lengths[1])


def aligner_loss(truth: Any, answer: Any) -> Any:
    """Loss of each view: wing loss of the points where there is a face, and cross-entropy of seeing one.

    Args:
        truth: (n, 11) from `draw_batch`.
        answer: (n, 11) from the network.

    Returns:
        (n,) float32.
    """
    seen = truth[:, 10]
    points = ops.mean(wing(ops.abs(answer[:, :10] - truth[:, :10]) / _face_size(truth)), axis=1)
    logit = answer[:, 10]
    entropy = ops.softplus(logit) - seen * logit
    return points * seen + SEEN_WEIGHT * entropy


def point_errors(points: NDArray[Any], truth: NDArray[Any]) -> NDArray[np.floating[Any]]:
    """Mean distance of five points from the true ones, in percent of the true eye distance: (n, 5, 2) to (n,)."""
    return 100 * np.linalg.norm(points - truth, axis=-1).mean(axis=-1) / eye_distance(truth)


def train_aligner(  # noqa: PLR0913 - numbers by name read better here than an object of numbers
    sets: Sequence[Faces],
    shares: Sequence[float],
    *,
    epochs: int,
    steps: int = 100,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    seed: int = 0,
    state: Path | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
) -> keras.Model:
    """Train a new network.

    Args:
        sets: faces to learn from.
        shares: how much of every batch each set gets, summing to 1.
        epochs: times that the state is kept and `on_epoch` is called.
        steps: batches in each.
        batch_size: views in a batch.
        learning_rate: of Adam at the start; it falls to 0 along half a cosine.
        seed: fixes the initial weights and every batch.
        state: file to keep the run's state in, and to go on from if it is there; it is left there at the end.
        on_epoch: called with the number of epochs done and the mean loss of the last one.

    Returns:
        The trained network, not compiled.

    Raises:
        ValueError: `state` is damaged, or of another training.
    """
    keras.utils.set_random_seed(seed)
    network = build_aligner()
    schedule = keras.optimizers.schedules.CosineDecay(learning_rate, epochs * steps)
    network.compile(keras.optimizers.AdamW(schedule, weight_decay=1e-3), loss=aligner_loss)
    network.optimizer.build(network.trainable_variables)
    plan = {"epochs": epochs, "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate,
            "seed": seed, "faces": [len(faces) for faces in sets], "shares": list(shares)}  # fmt: skip
    done = 0
    if state is not None and state.exists():
        record, _ = restore_state(state, network)
        if record.get("plan") != plan:
            raise ValueError(f"{state}: is of a training with other settings or faces; delete it to start anew.")
        done = int(record["epochs_done"])

    def draw(step: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        return draw_batch(sets, shares, batch_size, (seed, step))

    batches = _ahead(draw, range(done * steps, epochs * steps))
    for epoch in range(done, epochs):
        loss = float(np.mean([network.train_on_batch(*next(batches)) for _ in range(steps)]))
        if state is not None:
            save_state(state, network, {"plan": plan, "epochs_done": epoch + 1})
        if on_epoch is not None:
            on_epoch(epoch + 1, loss)
    # A copy without the optimizer, which would make the file three times as large.
    trained = build_aligner()
    trained.set_weights(network.get_weights())
    return trained


def _ahead(make: Callable[[int], Any], numbers: range) -> Iterator[Any]:
    """`make` of each number in order, two of them always under way: drawing goes on while the network learns."""
    with ThreadPoolExecutor(2) as pool:
        waiting: list[Future[Any]] = []
        for number in numbers:
            waiting.append(pool.submit(make, number))
            if len(waiting) > 2:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
