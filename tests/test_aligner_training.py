"""Views to train on: geometry, reach, repeatability. The loss against the paper's lines. A short real training."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from facekit import aligner_training, aligner_views
from facekit.aligner import (
    EYES_PER_HEIGHT,
    SIDE,
    FastAligner,
    around,
    central_square,
    eye_distance,
    face_size,
    look,
    square_place,
    to_picture,
    to_view,
    unit_template,
)
from facekit.aligner_training import (
    SEEN_WEIGHT,
    WING_CURVE,
    WING_WIDTH,
    aligner_loss,
    build_aligner,
    point_errors,
    train_aligner,
)
from facekit.aligner_views import (
    MIRRORED,
    PATCH,
    PATCH_ROOM,
    Faces,
    draw_batch,
    draw_view,
    end_picture,
    first_place,
    moved,
    patch,
    place_beside,
    relight,
    second_place,
    stack,
)
from facekit.synthetic import draw_photo


def drawn(first: int, last: int) -> Faces:
    photos = [draw_photo(21, person, 0, 128) for person in range(first, last)]
    return stack([patch(photo.image, photo.landmarks) for photo in photos])


@pytest.fixture(scope="module")
def faces() -> Faces:
    return drawn(0, 12)


def dotted(points, size):
    """A black picture with a bright dot of 5 pixels at each point."""
    image = np.zeros((size, size, 3), np.uint8)
    for x, y in np.round(points).astype(int):
        image[y - 2 : y + 3, x - 2 : x + 3] = 255
    return image


def brightest_near(grey, points):
    """Whether each point lies on a bright pixel."""
    return [bool(grey[int(round(y)), int(round(x))] > 100) for x, y in points]


def middle_of_light(grey, point):
    """The mean place of the light within 4 pixels of a point."""
    left, top = np.round(point).astype(int) - 4
    light = grey[top : top + 9, left : left + 9].astype(float)
    rows, columns = np.mgrid[top : top + 9, left : left + 9]
    return (columns * light).sum() / light.sum(), (rows * light).sum() / light.sum()


# Kept pictures


@pytest.mark.parametrize("size", [100, 250, 900])
def test_a_patch_shows_the_points_where_it_says(size):
    points = np.round(draw_photo(4, 1, 0, size).landmarks)
    picture, there = patch(dotted(points, size), points.astype(np.float32))
    assert picture.shape == (PATCH, PATCH) and picture.dtype == np.uint8
    if size <= 250:  # where dots are not averaged away
        assert all(brightest_near(picture, there))
    # The face lies in the middle, in the promised size, and not rotated.
    place = around(there, 0)
    assert abs(np.hypot(place[0, 0], place[1, 0]) * 2 - PATCH / (1 + 2 * PATCH_ROOM)) < 0.5
    np.testing.assert_allclose(place[:, 2], (PATCH - 1) / 2, atol=0.5)
    tilt = np.arctan2(*(points[1] - points[0])[::-1]) - np.arctan2(*(there[1] - there[0])[::-1])
    assert abs(tilt) < 0.01


def test_no_faces_stack_to_nothing():
    empty = stack([])
    assert len(empty) == 0 and empty.patches.shape == (0, PATCH, PATCH) and empty.points.shape == (0, 5, 2)


# Places


def test_a_moved_place_is_larger_shifted_and_turned_in_its_own_measure():
    place = np.array([[10.0, 0, 50], [0, 10, 60]])
    there = moved(place, 2, np.array([0.5, -1]), np.pi / 2)
    np.testing.assert_allclose(to_picture(there, np.array([[0, 0], [1, 0]])), [[55, 50], [55, 70]], atol=1e-4)


def test_first_looks_reach_as_far_as_datasets_do_and_no_further(faces, rng):
    points = faces.points[0]
    template_side = 2 * np.hypot(*around(points, 0)[:, 0])
    sides, shifts, tilts = [], [], []
    for _ in range(500):
        place = first_place(points, rng)
        sides.append(2 * np.hypot(*place[:, 0]) / template_side)
        shifts.append(np.abs(to_view(place, around(points, 0)[:, 2][None])).max())
        tilts.append(np.degrees(np.arctan2(place[1, 0], place[0, 0])))
    assert 0.94 < min(sides) < 1 and 2 < max(sides) < 2.11
    assert 0.25 < max(shifts) < 0.45
    assert 15 < np.max(np.abs(tilts)) <= 25.01


def test_second_looks_scatter_around_the_upright_face(faces, rng):
    points = faces.points[1]
    centres = np.array([second_place(points, rng)[:, 2] for _ in range(400)]) - around(points)[:, 2]
    half = np.hypot(*around(points)[:, 0])
    assert np.abs(centres.mean(axis=0)).max() < 0.02 * half
    np.testing.assert_allclose(centres.std(axis=0) / half, 0.07, rtol=0.2)


def test_beside_means_off_the_middle_or_turned_or_of_a_wrong_size(faces, rng):
    for _ in range(300):
        points = faces.points[int(rng.integers(len(faces)))]
        place = place_beside(points, rng)
        seen = to_view(place, points)
        face = around(seen, 0)
        turn, size = np.degrees(np.arctan2(face[1, 0], face[0, 0])), 1 / np.hypot(*face[:, 0])
        assert np.hypot(*face[:, 2]) > 0.6 or abs(turn) > 30 or not 0.7 < size < 2.3


# Views


def test_mirrored_points_lie_where_the_mirrored_face_has_them(faces, monkeypatch):
    """With all else switched off, a mirrored view shows its points at the same pixels as the picture does."""
    monkeypatch.setattr(aligner_views, "relight", lambda view, rng: view)
    monkeypatch.setattr(aligner_views, "end_picture", lambda picture, rng: picture)
    points = np.round(faces.points[0])
    dots = dotted(points, PATCH)[:, :, 0]
    mirrored = 0
    for seed in range(12):
        view, there, seen = draw_view(dots, points, np.random.default_rng(seed))
        if not seen:
            continue
        pixels = (there + 1) * (SIDE / 2) - 0.5
        assert all(brightest_near(view, pixels)), seed
        if face_size(there) > 0.35:  # close enough for the eyes' dots to stand apart
            np.testing.assert_allclose([middle_of_light(view, eye) for eye in pixels[:2]], pixels[:2], atol=0.3)
        assert there[0, 0] < there[1, 0] and there[3, 0] < there[4, 0]
        mirrored += np.random.default_rng(seed).random() < 0.5
    assert 0 < mirrored < 12


def test_mirroring_swaps_left_and_right():
    names = ["left_eye", "right_eye", "nose", "mouth_left", "mouth_right"]
    swapped = [
        names[place].replace("left", "x").replace("right", "left").replace("x", "right") for place in MIRRORED
    ]
    assert swapped == names


def test_a_picture_that_ends_is_black_beyond_one_rectangle_and_as_it_was_within(faces, rng):
    picture = np.maximum(faces.patches[0], 1)
    cut = 0
    for _ in range(30):
        ended = end_picture(picture, rng)
        rows, columns = np.nonzero(ended)
        inside = np.zeros_like(picture)
        inside[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = 1
        np.testing.assert_array_equal(ended, picture * inside)
        # At least 45 % of the template's side stays in every direction.
        reach = int(0.45 * PATCH / (1 + 2 * PATCH_ROOM)) - 1
        middle = slice(PATCH // 2 - reach, PATCH // 2 + reach)
        assert inside[middle, middle].all()
        cut += not inside.all()
    assert cut > 20


def test_light_changes_the_values_and_keeps_the_face_where_it_is(faces, rng):
    view = look(faces.patches[0], around(faces.points[0]))
    likeness = []
    for _ in range(40):
        other = relight(view, rng)
        assert other.shape == view.shape and other.dtype == np.uint8
        likeness.append(np.corrcoef(view.ravel(), other.ravel())[0, 1])
    assert np.median(likeness) > 0.8 and min(likeness) < 0.99


def test_a_batch_depends_on_its_seed_and_nothing_else(faces):
    one, again = (draw_batch([faces], [1.0], 16, (3, 5)) for _ in range(2))
    np.testing.assert_array_equal(one[0], again[0])
    np.testing.assert_array_equal(one[1], again[1])
    other = draw_batch([faces], [1.0], 16, (3, 6))
    assert not np.array_equal(one[1], other[1])
    assert one[0].shape == (16, SIDE, SIDE, 1) and one[1].shape == (16, 11)


def test_a_batch_takes_from_each_set_its_share(faces):
    level = Faces(faces.patches, np.repeat(faces.points[:, :1], 5, axis=1) + np.arange(5)[None, :, None])
    _, truth = draw_batch([faces, level], [0.75, 0.25], 400, (0,))
    on_a_line = [np.linalg.matrix_rank(np.diff(row[:10].reshape(5, 2), axis=0), tol=1e-4) == 1 for row in truth]
    assert abs(np.mean(on_a_line) - 0.25) < 0.06
    assert abs(truth[:, 10].mean() - (1 - aligner_views.BESIDE)) < 0.06


# The loss


def wing_by_hand(error):
    """Equation 5 of the paper, for one number."""
    if error < WING_WIDTH:
        return WING_WIDTH * np.log(1 + error / WING_CURVE)
    return error - (WING_WIDTH - WING_WIDTH * np.log(1 + WING_WIDTH / WING_CURVE))


def test_the_loss_is_the_papers_wing_over_eye_distances_and_a_cross_entropy(rng):
    truth, answer = rng.normal(0, 0.5, (2, 6, 11)).astype(np.float32)
    truth[:, 10] = [1, 0, 1, 1, 0, 1]
    expected = []
    for target, given in zip(truth, answer, strict=True):
        (left, right, _, *mouth) = target[:10].reshape(5, 2)
        height = np.linalg.norm((left + right) / 2 - (mouth[0] + mouth[1]) / 2)
        eyes = max(np.linalg.norm(left - right), EYES_PER_HEIGHT * height)
        points = np.mean([wing_by_hand(abs(a - b) / eyes) for a, b in zip(given[:10], target[:10], strict=True)])
        chance = 1 / (1 + np.exp(-given[10]))
        entropy = -np.log(chance if target[10] else 1 - chance)
        expected.append(points * target[10] + SEEN_WEIGHT * entropy)
    np.testing.assert_allclose(aligner_loss(truth, answer), expected, rtol=1e-4)


def test_a_gradient_is_finite_at_a_perfect_answer():
    import tensorflow as tf

    truth = tf.constant(np.array([[*unit_template().ravel(), 1]], np.float32))
    answer = tf.Variable(truth)
    with tf.GradientTape() as tape:
        loss = aligner_loss(truth, answer)
    assert np.isfinite(tape.gradient(loss, answer).numpy()).all()


def test_errors_are_in_percent_of_the_eye_distance():
    truth = np.array([[[0, 0], [50, 0], [25, 20], [10, 40], [40, 40]]], np.float32)
    assert point_errors(truth + [3, 4], truth).tolist() == [10]
    assert eye_distance(truth).tolist() == [50]


# The network


def test_the_network_is_small(tmp_path):
    network = build_aligner()
    assert network.count_params() < 300_000
    network.save(tmp_path / "a.keras")
    assert (tmp_path / "a.keras").stat().st_size < 1_500_000
    again = keras.saving.load_model(tmp_path / "a.keras", compile=False)
    views = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 1)).astype(np.uint8)
    np.testing.assert_allclose(again(views), network(views), atol=1e-5)


def test_an_untrained_network_points_to_the_middle_and_not_beyond_the_view():
    answers = np.asarray(build_aligner()(np.zeros((1, SIDE, SIDE, 1), np.uint8)))[0, :10]
    assert np.abs(answers).max() < 0.5


def test_a_point_is_the_mean_of_cell_middles():
    kernel = np.asarray(build_aligner().get_layer("mean_place").kernel)
    cells = [((column + 0.5) / 16 * 2 - 1, (row + 0.5) / 16 * 2 - 1) for row in range(16) for column in range(16)]
    np.testing.assert_allclose(kernel, cells, atol=1e-6)


def test_brightness_and_contrast_of_a_view_change_nothing():
    network = build_aligner()
    view = np.random.default_rng(0).integers(50, 150, (1, SIDE, SIDE, 1))
    np.testing.assert_allclose(network(view), network(view * 1.5 + 20), atol=2e-2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> FastAligner:
    """Some seconds of training on drawn faces."""
    network = train_aligner([drawn(0, 200)], [1.0], epochs=4, steps=40, batch_size=32, learning_rate=3e-3, seed=1)
    path = tmp_path_factory.mktemp("aligner") / "drawn.keras"
    network.save(path)
    return FastAligner(path)


def test_a_short_training_beats_the_mean_shape_clearly(trained):
    photos = [draw_photo(77, person, 0, 200) for person in range(40)]
    truth = np.stack([photo.landmarks for photo in photos])
    place = square_place(central_square((200, 200)))
    guess = np.stack([to_view(place, points) for points in truth]).mean(axis=0)
    of_mean = np.median(point_errors(np.stack([to_picture(place, guess)] * 40), truth))
    points, _ = trained.landmarks([photo.image for photo in photos])
    assert np.median(point_errors(points, truth)) < of_mean / 2


def test_a_second_look_is_finer_than_the_first(trained):
    photos = [draw_photo(77, person, 1, 200) for person in range(40)]
    truth = np.stack([photo.landmarks for photo in photos])
    boxes = np.tile(central_square((200, 200)), (40, 1))
    greys = [np.ascontiguousarray(photo.image[:, :, 1]) for photo in photos]
    first, _ = trained._look(greys, [square_place(box) for box in boxes])
    second, _ = trained.landmarks([photo.image for photo in photos])
    assert np.median(point_errors(second, truth)) < np.median(point_errors(first, truth))


def test_confidence_tells_faces_from_none(trained, rng):
    photos = [draw_photo(78, person, 0, 200) for person in range(20)]
    _, of_faces = trained.landmarks([photo.image for photo in photos])
    _, of_backs = trained.landmarks([photo.image[-60:, -60:] for photo in photos])
    assert np.median(of_faces) > 0.6 > 0.3 > np.median(of_backs)


# A run that is stopped


@pytest.fixture
def eager():
    """Steps without a graph: a few of them are done sooner than one is traced."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def test_a_stopped_training_goes_on_to_the_same_weights(faces, tmp_path, eager, monkeypatch):
    seeds = []
    monkeypatch.setattr(aligner_training, "draw_batch", lambda *given: seeds.append(given[3]) or draw_batch(*given))
    numbers = {"epochs": 2, "steps": 2, "batch_size": 4, "seed": 2}
    of_whole: list[tuple[int, float]] = []
    whole = train_aligner([faces], [1.0], **numbers, on_epoch=lambda *call: of_whole.append(call))
    assert sorted(seeds) == [(2, step) for step in range(4)]
    calls = []

    def stop(epoch, loss):
        calls.append((epoch, loss))
        raise KeyboardInterrupt

    state = tmp_path / "state.npz"
    with pytest.raises(KeyboardInterrupt):
        train_aligner([faces], [1.0], **numbers, state=state, on_epoch=stop)
    resumed = train_aligner([faces], [1.0], **numbers, state=state, on_epoch=lambda *call: calls.append(call))
    np.testing.assert_allclose(calls, of_whole, rtol=1e-4)
    for one, other in zip(whole.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_an_epochs_loss_is_the_mean_over_its_steps(faces, eager):
    losses: dict[int, list[float]] = {1: [], 2: []}
    for steps, of_epochs in losses.items():
        train_aligner(
            [faces], [1.0], epochs=4 // steps, steps=steps, batch_size=4,
            on_epoch=lambda _, loss, of_epochs=of_epochs: of_epochs.append(loss),
        )  # fmt: skip
    np.testing.assert_allclose(losses[2], np.mean(np.reshape(losses[1], (2, 2)), axis=1), rtol=1e-4)


def test_the_state_of_another_training_is_refused(faces, tmp_path, eager):
    state = tmp_path / "state.npz"
    train_aligner([faces], [1.0], epochs=1, steps=1, batch_size=4, state=state)
    with pytest.raises(ValueError, match=r"state.npz: is of a training with other settings or faces; delete it"):
        train_aligner([faces], [1.0], epochs=1, steps=1, batch_size=4, seed=9, state=state)
