"""Each stage of MTCNN against the package's own functions, its networks, or loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from facekit import mtcnn_boxes, mtcnn_cascade
from facekit.images import read_image
from facekit.mtcnn_boxes import cut_out, falling, overlaps, packed, shifted, squared, unsuppressed
from facekit.mtcnn_cascade import CROPS_AT_ONCE, Cascade, cell_boxes, propose, pyramid
from facekit.mtcnn_networks import Layer, OutputNetwork, ProposalNetwork, RefinementNetwork, max_pool
from facekit.mtcnn_weights import _package_folder, read_weights


@pytest.fixture(scope="module")
def stages():
    from mtcnn import MTCNN

    return MTCNN().stages


@pytest.fixture(scope="module")
def image(photos):
    return read_image(sorted(photos.glob("*/*.jpg"))[4])


def normal(image):
    return (image - 127.5) / 128


def random_boxes(rng, n, width=100, height=80, largest=40):
    corner = rng.uniform(-10, [width, height], (n, 2))
    return np.concatenate([corner, corner + rng.uniform(2, largest, (n, 2))], axis=1)


def with_scores(boxes, scores):
    return np.concatenate([np.zeros((len(boxes), 1)), boxes, scores[:, None]], axis=1)


def test_levels_are_the_packages(image):
    from mtcnn.utils.images import scale_images

    cut = image[7:240, 11:200]
    levels = list(pyramid(cut, 20))
    assert len(levels) == 7
    for scale, level in levels:
        np.testing.assert_allclose(level, scale_images(normal(cut)[None], scale)[0], atol=1e-4)


@pytest.mark.parametrize("shape", [(12, 12), (13, 13), (14, 17), (37, 52), (150, 149)])
def test_first_network_gives_the_packages_boxes(stages, rng, shape):
    from mtcnn.utils.bboxes import generate_bounding_box

    level = rng.uniform(-1, 1, (*shape, 3)).astype(np.float32)
    offsets, scores = stages[0]._model(level[None])
    cells = ProposalNetwork()(np.ascontiguousarray(level.transpose(2, 0, 1)), 0.01)
    wanted = generate_bounding_box(offsets, scores, 0.01)
    order = falling(cells.scores)
    assert len(wanted) == len(cells.rows) > 0
    np.testing.assert_allclose(cells.scores[order], wanted[:, 5], atol=1e-5)
    # Order among equal scores may differ: compare as sets of rows.
    ours = with_scores(cell_boxes(cells), cells.scores)[:, 1:]
    np.testing.assert_allclose(np.sort(ours, axis=0), np.sort(wanted[:, 1:], axis=0), atol=1e-3)


@pytest.mark.parametrize(("rows", "columns"), [(150, 150), (61, 94), (40, 301)])
def test_tiles_give_what_the_whole_gives(rng, monkeypatch, rows, columns):
    monkeypatch.setattr(mtcnn_cascade, "_PROPOSED", 0.02)
    level = rng.uniform(-1, 1, (rows, columns, 3)).astype(np.float32)
    network = ProposalNetwork()
    whole = propose(network, level, tile=1000)
    assert len(whole.rows) > 10
    for tile in (7, 16, 33):
        tiled = propose(network, level, tile=tile)
        np.testing.assert_array_equal(tiled.rows, whole.rows)
        np.testing.assert_array_equal(tiled.columns, whole.columns)
        np.testing.assert_allclose(tiled.scores, whole.scores, atol=1e-5)
        np.testing.assert_allclose(tiled.offsets, whole.offsets, atol=1e-5)


def test_second_network_is_the_packages(stages, rng):
    crops = rng.uniform(-1, 1, (5, 24, 24, 3)).astype(np.float32)
    offsets, scores = stages[1]._model(crops)
    ours = RefinementNetwork()(np.ascontiguousarray(crops.transpose(3, 1, 2, 0)))
    np.testing.assert_allclose(ours[0], scores[:, 1], atol=1e-5)
    np.testing.assert_allclose(ours[1], offsets, atol=1e-5)


def test_third_network_is_the_packages(stages, rng):
    crops = rng.uniform(-1, 1, (3, 48, 48, 3)).astype(np.float32)
    offsets, points, scores = stages[2]._model(crops)
    ours = OutputNetwork()(np.ascontiguousarray(crops.transpose(3, 1, 2, 0)))
    np.testing.assert_allclose(ours[0], scores[:, 1], atol=1e-5)
    np.testing.assert_allclose(ours[1], offsets, atol=1e-5)
    np.testing.assert_allclose(ours[2].reshape(-1, 10), points, atol=1e-5)


def test_a_layer_is_its_formula(rng):
    weights, bias, slopes = (
        rng.normal(size=(4, 18)),
        rng.normal(size=(4, 1)),
        np.array([[-0.5], [0.3], [1.7], [1.0]]),
    )
    layer = Layer(*(part.astype(np.float32) for part in (weights, bias, slopes)), side=3)
    values = rng.normal(size=(2, 5, 6, 2)).astype(np.float32)
    wanted = np.empty((4, 3, 4, 2))
    for out, y, x, n in np.ndindex(*wanted.shape):
        window = values[:, y : y + 3, x : x + 3, n].transpose(1, 2, 0).ravel()
        total = float(weights[out] @ window + bias[out, 0])
        wanted[out, y, x, n] = total if total > 0 else slopes[out, 0] * total
    np.testing.assert_allclose(layer(values), wanted, atol=1e-5)


@pytest.mark.parametrize(("shape", "size"), [((7, 8), 2), ((8, 7), 2), ((22, 9), 3), ((21, 22), 3), ((3, 4), 3)])
def test_pooling_takes_cut_windows_too(rng, shape, size):
    values = rng.normal(size=(2, *shape, 3)).astype(np.float32)
    rows, columns = (math.ceil((side - size) / 2) + 1 for side in shape)
    pooled = max_pool(values, size)
    assert pooled.shape == (2, rows, columns, 3)
    for row, column in np.ndindex(rows, columns):
        window = values[:, 2 * row : 2 * row + size, 2 * column : 2 * column + size]
        np.testing.assert_array_equal(pooled[:, row, column], window.max(axis=(1, 2)))


@pytest.mark.parametrize("block", [256, 16])
@pytest.mark.parametrize(("method", "threshold"), [("union", 0.5), ("union", 0.7), ("min", 0.7)])
def test_suppression_is_the_packages(rng, monkeypatch, block, method, threshold):
    from mtcnn.utils.bboxes import smart_nms_from_bboxes

    monkeypatch.setattr(mtcnn_boxes, "_BLOCK", block)
    boxes, scores = random_boxes(rng, 150), rng.uniform(size=150)
    wanted = smart_nms_from_bboxes(with_scores(boxes, scores), threshold, method=method)
    order = falling(scores)
    kept = order[unsuppressed(boxes[order], threshold, of_smaller=method == "min")]
    assert 10 < len(kept) < 150
    np.testing.assert_array_equal(boxes[kept], wanted[:, 1:5])


def test_a_suppressed_box_still_suppresses():
    chain = np.array([[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]], float)
    np.testing.assert_array_equal(unsuppressed(chain, 0.5), [0])
    np.testing.assert_array_equal(unsuppressed(chain[[0, 2]], 0.5), [0, 1])


def test_empty_boxes_suppress_nothing():
    points = np.array([[5, 5, 5, 5], [5, 5, 5, 5], [1, 1, 9, 9]], float)
    np.testing.assert_array_equal(unsuppressed(points, 0.5), [0, 1, 2])
    assert len(unsuppressed(np.empty((0, 4)), 0.5)) == 0


def test_overlaps_are_the_packages(rng):
    from mtcnn.utils.bboxes import iou

    boxes = random_boxes(rng, 40)
    for method in ("union", "min"):
        np.testing.assert_allclose(overlaps(boxes, boxes, method == "min"), iou(boxes, method), rtol=1e-12)


def test_shifting_and_squaring_are_the_packages(rng):
    from mtcnn.utils.bboxes import adjust_bboxes, resize_to_square

    boxes, offsets = random_boxes(rng, 30), rng.normal(0, 0.1, (30, 4)).astype(np.float32)
    rows = with_scores(boxes, np.zeros(30))
    np.testing.assert_allclose(shifted(boxes, offsets), adjust_bboxes(rows, offsets)[:, 1:5], rtol=1e-12)
    np.testing.assert_allclose(squared(boxes), resize_to_square(rows)[:, 1:5], rtol=1e-12)


@pytest.mark.parametrize("size", [24, 48])
def test_crops_are_the_packages_inside_and_beyond_the_picture(image, rng, size):
    from mtcnn.utils.images import extract_patches

    cut = image[5:210, 3:190]
    height, width = cut.shape[:2]
    boxes = squared(random_boxes(rng, 40, width, height, largest=150))
    whole = np.array([[0, 0, width, height], [-30, -40, width + 9, height + 50], [-90, 10, -20, 80]], float)
    boxes = np.concatenate([boxes, whole])
    wanted = extract_patches(normal(cut)[None], with_scores(boxes, np.zeros(len(boxes))), (size, size)).numpy()
    crops = cut_out(packed(cut), boxes, size)
    assert (wanted == 0).any() and not crops[..., -1].any()
    np.testing.assert_allclose(crops.transpose(3, 1, 2, 0), wanted, atol=1e-3)


def test_stages_are_the_packages_proposals_and_refinements(image, stages):
    from mtcnn.utils.images import standarize_batch

    pictures, shapes, _ = standarize_batch([image])
    cascade = Cascade()
    proposed = stages[0](images_normalized=pictures, images_oshapes=shapes)
    ours = cascade._proposals(image)
    assert len(ours) > CROPS_AT_ONCE[24]
    np.testing.assert_allclose(ours, proposed[:, 1:5], atol=0.01)
    refined = stages[1](images_normalized=pictures, bboxes_batch=proposed)
    np.testing.assert_allclose(cascade._refined(image, ours), refined[:, 1:5], atol=0.01)


def test_weights_are_those_that_the_package_loads():
    from mtcnn.utils.tensorflow import load_weights

    for network in ("pnet", "rnet", "onet"):
        ours, theirs = read_weights(network), load_weights(f"{network}.lz4")
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_changed_file_of_weights_is_not_loaded(tmp_path):
    data = bytearray((_package_folder() / "pnet.lz4").read_bytes())
    data[-1] ^= 1
    (tmp_path / "pnet.lz4").write_bytes(data)
    with pytest.raises(ValueError, match=r"pnet.lz4: is not the file of mtcnn 1.0.0. Run: pip"):
        read_weights("pnet", tmp_path)


def test_missing_weights_say_what_to_install(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"onet.lz4: cannot be read .* Run: pip install mtcnn==1.0.0"):
        read_weights("onet", tmp_path)
    monkeypatch.setattr("facekit.mtcnn_weights.find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"package `mtcnn`, which is missing. Run: pip install mtcnn==1.0.0"):
        read_weights("onet")
