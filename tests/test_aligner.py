"""The alignment network's geometry against loops and the aligner's own warp; its use, its confidence, its files."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest

from facekit import aligner
from facekit.aligner import (
    BATCH,
    NETWORK_NAME,
    SIDE,
    FastAligner,
    FastDetector,
    around,
    central_square,
    eye_distance,
    face_box,
    face_size,
    look,
    read_aligner,
    square_place,
    to_picture,
    to_view,
    unit_template,
)
from facekit.alignment import CropRecipe, align, crop_box, template
from facekit.detection import find_faces
from facekit.synthetic import draw_photo

POINTS = np.array([[104, 114], [147, 108], [126, 136], [110, 160], [148, 155]], np.float32)


def grey_noise(rng, height, width):
    """Random blocks of 5 pixels: enough detail to notice a shift of half a pixel, smooth enough to compare."""
    small = rng.integers(0, 256, (height // 5 + 1, width // 5 + 1))
    return np.kron(small, np.ones((5, 5)))[:height, :width].astype(np.uint8)


def bilinear(image, x, y):
    """The value between four pixels, 0 outside, as a loop-free textbook line would have it."""
    left, top = int(np.floor(x)), int(np.floor(y))
    value = 0.0
    for row, column in ((top, left), (top, left + 1), (top + 1, left), (top + 1, left + 1)):
        if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
            value += (1 - abs(x - column)) * (1 - abs(y - row)) * float(image[row, column])
    return value


# Geometry


@pytest.mark.parametrize("angle", [0, 0.4, -2])
def test_a_look_is_the_bilinear_value_at_the_middle_of_each_pixel(rng, angle):
    image = grey_noise(rng, 60, 80)
    turn = 20 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    place = np.column_stack([turn, [52.3, 30.6]])
    view = look(image, place, 32)
    for row in range(32):
        for column in range(32):
            x, y = place[:, :2] @ [(2 * column + 1) / 32 - 1, (2 * row + 1) / 32 - 1] + place[:, 2]
            # OpenCV rounds positions to 1/32 pixel.
            assert abs(bilinear(image, x, y) - view[row, column]) < 10, (row, column)


@pytest.mark.parametrize("block", [2, 3, 5])
def test_a_look_at_something_large_averages_whole_blocks(rng, block):
    image = rng.integers(0, 256, (block * 70 + 1, block * 90 + 1)).astype(np.uint8)
    corner, side = block * np.array([12, 3]), block * 64
    view = look(image, square_place(np.array([*corner, side, side])))
    for row, column in [(0, 0), (0, 63), (17, 40), (63, 0), (63, 63)]:
        top, left = corner[1] + row * block, corner[0] + column * block
        assert abs(image[top : top + block, left : left + block].mean() - view[row, column]) <= 0.6


def test_a_look_from_far_outside_is_black_and_from_far_away_is_no_error(rng):
    image = grey_noise(rng, 60, 80)
    assert look(image, square_place(np.array([500, 500, 40, 40]))).max() == 0
    assert look(image, square_place(np.array([-5000, -5000, 10_000, 10_000]))).shape == (SIDE, SIDE)


def test_a_look_around_a_face_is_the_aligned_crop(rng):
    image = grey_noise(rng, 250, 250)
    # Of the template's own shape: other faces fit it in least squares either way, a little differently.
    points = template(112) @ np.array([[1.2, 0.3], [-0.3, 1.2]], np.float32) + np.array([60, 20], np.float32)
    crop = align(np.repeat(image[:, :, None], 3, 2), points, 112, 0.2)[:, :, 0]
    view = look(image, around(points, 0.2), 112)
    assert np.abs(crop.astype(int) - view).mean() < 1.5
    shifted = np.roll(view, 1, axis=1)
    assert np.abs(crop.astype(int) - shifted).mean() > 5


def test_a_look_at_a_box_is_the_box_crop_even_beyond_the_border(rng):
    image = grey_noise(rng, 90, 120)
    for box in ([20, 10, 64, 64], [-20, -10, 64, 40], [90, 60, 64, 64]):
        crop = crop_box(np.repeat(image[:, :, None], 3, 2), np.array(box), SIDE)[:, :, 0]
        view = look(image, square_place(np.array(box, float)))
        assert np.abs(crop.astype(int) - view).max() <= 1, box


def test_points_go_to_the_view_and_back(rng):
    for _ in range(20):
        place = around(POINTS + rng.normal(0, 3, (5, 2)))
        points = rng.uniform(-300, 300, (7, 2))
        unit = to_view(place, points)
        np.testing.assert_allclose(to_picture(place, unit), points, atol=1e-3)
        for one, there in zip(points, unit, strict=True):
            np.testing.assert_allclose(place[:, :2] @ there + place[:, 2], one, atol=1e-3)


def test_a_squares_corners_are_its_boxs_edges():
    place = square_place(np.array([10, 20, 30, 60]))
    corners = to_picture(place, np.array([[-1, -1], [1, 1]])) + 0.5
    np.testing.assert_allclose(corners, [[-5, 20], [55, 80]])


@pytest.mark.parametrize(
    ("shape", "square"),
    [((250, 250, 3), [0, 0, 250, 250]), ((100, 161, 3), [30.5, 0, 100, 100]), ((9, 4), [0, 2.5, 4, 4])],
)
def test_the_central_square_is_the_largest_in_the_middle(shape, square):
    assert central_square(shape).tolist() == square


@pytest.mark.parametrize("box", [[0, 0, 0, 10], [0, 0, 10, -1], [np.nan, 0, 10, 10], [0, 0, np.inf, 10]])
def test_a_box_without_area_is_refused(box):
    with pytest.raises(ValueError, match="width and height above 0"):
        square_place(np.array(box))


def test_a_faces_box_is_the_square_of_its_aligned_crop():
    x, y, width, height = face_box(template(112) * 2 + [30, 50])
    np.testing.assert_allclose([x, y, width, height], [29.5, 49.5, 224, 224], atol=0.01)


def test_a_profiles_size_is_its_height():
    front = np.array([[0, 0], [35, 0], [17, 20], [2, 40], [32, 40]], float)
    assert eye_distance(front) == 35 and face_size(front) == 35
    profile = front * [0.1, 1]
    assert eye_distance(profile) == pytest.approx(3.5)
    assert face_size(profile) == pytest.approx(0.87 * 40, abs=0.01)
    assert face_size(np.stack([front, profile])).shape == (2,)


# A stand-in network, whose answers are known.


def write_network(path: Path, answer, name=NETWORK_NAME, side=SIDE) -> Path:
    """A file of weights whose network gives always one answer, of 11 numbers."""
    views = keras.Input((side, side, 1))
    dense = keras.layers.Dense(11, kernel_initializer="zeros")
    network = keras.Model(views, dense(keras.layers.Flatten()(views)), name=name)
    dense.bias.assign(answer)
    network.save(path)
    return path


def constant(tmp_path, logit=3.0, points=None):
    points = unit_template() if points is None else points
    return FastAligner(write_network(tmp_path / "constant.keras", [*points.ravel(), logit]))


def test_the_second_look_starts_where_the_first_ended(tmp_path, monkeypatch):
    # A network that answers "shifted by a tenth" twice shifts the second place by a tenth as well.
    shifted = unit_template() + [0.1, 0]
    fast = constant(tmp_path, points=shifted)
    places = []
    monkeypatch.setattr(aligner, "look", lambda grey, place: places.append(place) or look(grey, place))
    points, _ = fast.landmarks([np.zeros((100, 100, 3), np.uint8)])
    first = to_picture(places[0], shifted)
    np.testing.assert_allclose(places[1], around(first), atol=1e-4)
    np.testing.assert_allclose(points[0], to_picture(places[1], shifted), atol=1e-4)


def test_boxes_say_where_to_look(tmp_path):
    fast = constant(tmp_path)
    image = np.zeros((200, 300, 3), np.uint8)
    points, _ = fast.landmarks([image, image], np.array([[0, 0, 100, 100], [150, 90, 50, 100]]))
    np.testing.assert_allclose(
        points[0], to_picture(square_place(np.array([0, 0, 100, 100])), unit_template()), atol=1e-3
    )
    np.testing.assert_allclose(points[1] - points[0], np.tile([125, 90], (5, 1)), atol=1e-3)
    whole, _ = fast.landmarks([image])
    central, _ = fast.landmarks([image], np.array([[50, 0, 200, 200]]))
    np.testing.assert_array_equal(whole, central)


def test_confidence_is_the_probability_of_a_face_where_both_looks_agree(tmp_path):
    _, sure = constant(tmp_path, logit=2.0).landmarks([np.zeros((100, 100, 3), np.uint8)])
    assert sure[0] == pytest.approx(1 / (1 + np.exp(-2)), abs=1e-5)


def test_confidence_falls_by_half_where_the_looks_differ_by_the_doubtful_share(tmp_path):
    # The second look repeats the shift of the first: that is how far apart they are.
    shift = aligner.DOUBTFUL * face_size(unit_template())
    _, sure = constant(tmp_path, logit=20.0, points=unit_template() + [shift, 0]).landmarks(
        [np.zeros((100, 100, 3), np.uint8)]
    )
    assert sure[0] == pytest.approx(0.5, abs=1e-3)


def test_confidence_is_the_geometric_mean_of_both_looks(tmp_path, monkeypatch):
    fast = constant(tmp_path)
    looks = iter([np.array([0.9, 1.0], np.float32), np.array([0.4, 0.81], np.float32)])
    points = np.stack([unit_template(), unit_template()]).astype(np.float32)
    monkeypatch.setattr(fast, "_look", lambda greys, places: (points, next(looks)))
    _, sure = fast.landmarks([np.zeros((9, 9, 3), np.uint8)] * 2)
    np.testing.assert_allclose(sure, [0.6, 0.9], rtol=1e-5)


def test_the_shape_of_boxes_is_checked(tmp_path):
    with pytest.raises(ValueError, match=r"`boxes` must be \(1, 4\), one a picture. Received: \(2, 4\)"):
        constant(tmp_path).landmarks([np.zeros((9, 9, 3), np.uint8)], np.ones((2, 4)))


def test_no_pictures_no_points(tmp_path):
    points, sure = constant(tmp_path).landmarks([])
    assert points.shape == (0, 5, 2) and sure.shape == (0,)


def test_a_detector_gives_one_face_and_find_faces_refuses_an_unsure_one(tmp_path):
    images = [np.zeros((100, 100, 3), np.uint8), np.zeros((40, 90, 3), np.uint8)]
    sure, unsure = constant(tmp_path, logit=5.0), constant(tmp_path, logit=1.0)
    found = FastDetector(sure).detect(images)
    assert [len(faces) for faces in found] == [1, 1]
    np.testing.assert_allclose(found[0][0].box, face_box(found[0][0].landmarks))
    recipe = CropRecipe(detector="fast")
    assert [finding.reason for finding in find_faces(images, FastDetector(sure), recipe)] == ["", ""]
    assert [f.reason for f in find_faces(images, FastDetector(unsure), recipe)] == ["low_confidence"] * 2


# Files


def test_a_missing_file_names_the_command(tmp_path):
    with pytest.raises(ValueError, match=r"none.keras: there is no such file.*python -m apps.train_aligner"):
        read_aligner(tmp_path / "none.keras")


@pytest.mark.parametrize("data", [b"", b"not weights", b"PK\x03\x04 cut"])
def test_a_damaged_file_names_itself_and_the_command(tmp_path, data):
    path = tmp_path / "damaged.keras"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"damaged.keras: cannot be loaded.*python -m apps.train_aligner"):
        read_aligner(path)


@pytest.mark.parametrize(("name", "side"), [("another", SIDE), (NETWORK_NAME, 32)])
def test_another_network_is_refused(tmp_path, name, side):
    path = write_network(tmp_path / "other.keras", np.zeros(11), name, side)
    with pytest.raises(ValueError, match=f"holds another network than {NETWORK_NAME}"):
        read_aligner(path)


# A trained network: see also test_aligner_training.py


@pytest.fixture(scope="module")
def random_aligner(tmp_path_factory) -> FastAligner:
    """An untrained network: its answers depend on every pixel."""
    from facekit.aligner_training import build_aligner

    keras.utils.set_random_seed(0)
    path = tmp_path_factory.mktemp("aligner") / "untrained.keras"
    build_aligner().save(path)
    return FastAligner(path)


def test_answers_do_not_depend_on_the_batch(random_aligner):
    sizes = [60, 90, 130] * 12
    images = [draw_photo(3, person, 0, size).image for person, size in enumerate(sizes)]
    assert len(images) > BATCH
    together, sure = random_aligner.landmarks(images)
    for place in (0, 1, BATCH - 1, BATCH, len(images) - 1):
        alone, alone_sure = random_aligner.landmarks([images[place]])
        np.testing.assert_allclose(alone[0], together[place], atol=0.05)
        np.testing.assert_allclose(alone_sure[0], sure[place], atol=1e-3)


def test_the_same_pictures_give_the_same_points(random_aligner):
    images = [draw_photo(3, person, 0, 80).image for person in range(3)]
    first, again = random_aligner.landmarks(images), random_aligner.landmarks(images)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
