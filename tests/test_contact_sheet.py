"""The grid of pictures with titles, and the rows that show each augmentation."""

from __future__ import annotations

import numpy as np
import pytest

from facekit.augment import AUGMENTATIONS, Augmentation
from facekit.augment_preview import preview_rows
from facekit.contact_sheet import contact_sheet

RED, BLUE = (np.full((20, 20, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))


def places(sheet, colour) -> np.ndarray:
    """Rows and columns of a colour's pixels."""
    return np.argwhere((sheet == colour).all(axis=2))


def test_pictures_stand_in_rows_below_their_titles():
    sheet = contact_sheet([[RED, BLUE], [BLUE]], ["first", "second"], tile=20)
    assert sheet.dtype == np.uint8 and sheet.shape[2] == 3
    red, blue = places(sheet, (255, 0, 0)), places(sheet, (0, 0, 255))
    assert len(red) == 400 and len(blue) == 800
    top, left = red.min(axis=0)
    second = blue[blue[:, 0] > top + 20]
    assert len(second) == 400 and second[:, 1].min() == left
    assert blue[blue[:, 0] <= top + 20][:, 1].min() > left + 20, "a gap between two pictures"
    # Ink of the titles, above each row.
    ink = np.flatnonzero((sheet.max(axis=2) < 120).any(axis=1))
    assert (ink < top).any() and ((ink > top + 20) & (ink < second[:, 0].min())).any()


def test_pictures_keep_their_shape_and_fill_their_tile():
    wide = np.full((10, 40, 3), (255, 0, 0), np.uint8)
    red = places(contact_sheet([[wide]], ["wide"], tile=80), (255, 0, 0))
    assert tuple(np.ptp(red, axis=0) + 1) == (20, 80)
    tall = np.full((300, 100, 3), (255, 0, 0), np.uint8)
    red = places(contact_sheet([[tall]], ["tall"], tile=60), (255, 0, 0))
    assert tuple(np.ptp(red, axis=0) + 1) == (60, 20)


def test_a_long_title_makes_the_sheet_wider_and_strange_letters_are_no_trouble():
    short, long = (contact_sheet([[RED]], [title], tile=20).shape[1] for title in ("x", "a long title " * 5))
    assert long > 300 > short
    np.testing.assert_array_equal(contact_sheet([[RED]], ["Müller 李"]), contact_sheet([[RED]], ["M?ller ?"]))


def test_an_empty_row_is_an_empty_row():
    assert contact_sheet([[], [RED]], ["none", "one"], tile=20).shape[0] > 60


@pytest.mark.parametrize(("rows", "titles"), [([], []), ([[RED]], []), ([[RED]], ["a", "b"])])
def test_rows_and_titles_must_match(rows, titles):
    with pytest.raises(ValueError, match=f"a title for each row: {len(rows)} rows, {len(titles)} titles"):
        contact_sheet(rows, titles)


@pytest.fixture
def pictures(rng) -> list[np.ndarray]:
    return [rng.integers(0, 256, (32, 32, 3)).astype(np.uint8) for _ in range(3)]


def test_a_preview_shows_each_augmentation_and_then_all_together(pictures):
    chances = {"flip": (0.5, 1.0), "rotation": (0.25, 20.0)}
    titles, rows = preview_rows(pictures, chances, seed=1, columns=5)
    names = [change.name for change in AUGMENTATIONS]
    assert len(titles) == len(rows) == len(names) + 3 and {len(row) for row in rows} == {5}
    assert all(title.startswith(name + ":") for name, title in zip(names, titles, strict=False))
    assert "25% of the pictures; strength 20 (degrees either way)" in titles[names.index("rotation")]
    assert "off; strength 0.1" in titles[names.index("zoom")]
    for number, row in enumerate(rows[: len(names)]):
        assert row[0] is pictures[number % 3]
        assert any((image != row[0]).any() for image in row[1:]), names[number]
    flips = rows[names.index("flip")]
    assert all((image == flips[0][:, ::-1]).all() for image in flips[1:]), (
        "always, though half the time in training"
    )
    mix = Augmentation(chances)
    np.testing.assert_array_equal(rows[-2][2], mix.plan(1, 5, 1).apply(0, pictures[1]))
    assert "picture 2" in titles[-2]


def test_a_preview_draws_what_hides_a_face_where_its_layout_has_it(pictures):
    chances = {"sunglasses": (1.0, 1.0)}
    titles, rows = preview_rows(pictures, chances, seed=1, columns=3, margin=0.1, layout="dlib")
    alone = rows[[title.split(":")[0] for title in titles].index("sunglasses")]
    mix = Augmentation(chances, 0.1, "dlib")
    np.testing.assert_array_equal(rows[-3][1], mix.plan(1, 0, 1).apply(0, pictures[0]))
    other = Augmentation(chances, 0.1).plan(1, 0, 1).apply(0, pictures[0])
    assert not np.array_equal(rows[-3][1], other)
    assert not np.array_equal(alone[1], Augmentation(chances, 0.1).plan(1, 0, 1).apply(0, alone[0]))


def test_a_preview_needs_pictures_and_columns(pictures):
    for images, columns in (([], 5), (pictures, 1)):
        with pytest.raises(ValueError, match=f"Received: {len(images)} pictures, {columns} columns"):
            preview_rows(images, {}, 0, columns)
