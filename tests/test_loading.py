"""Pictures of an index in batches: the right pixels, each read once, whatever happens to the files."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from facekit import loading
from facekit.images import UnreadableImageError, encode_jpeg, read_image, read_square, resize_square, write_png
from facekit.index import PeopleIndex, index_people
from facekit.loading import NoAnswerError, PictureLoader, read_below
from facekit.picture_cache import MemoryCache


@pytest.fixture
def people(crops, tmp_path) -> Path:
    """A copy of the drawn people to change."""
    return shutil.copytree(crops, tmp_path / "people")


@pytest.fixture
def index(people) -> PeopleIndex:
    return index_people(people)


class Reader:
    """Reads files and counts."""

    def __init__(self, root: Path):
        self.root = root
        self.paths: list[str] = []

    def __call__(self, path: str) -> bytes:
        self.paths.append(path)
        return read_below(self.root, path)


class Numbered:
    """A plan that writes each picture's place into its corner."""

    def apply(self, place, image):
        changed = image.copy()
        changed[0, 0] = place
        return changed


@pytest.mark.parametrize("size", [64, 40, 100])
def test_pixels_are_those_of_the_one_decoder(index, size):
    positions = np.array([[3, 50, 3], [95, 0, 7]])
    images = PictureLoader(index, size).load(positions)
    assert images.shape == (2, 3, size, size, 3) and images.dtype == np.uint8
    for image, position in zip(images.reshape(-1, size, size, 3), positions.ravel(), strict=True):
        np.testing.assert_array_equal(image, read_square(index.root / index.paths[position], size))


def test_every_kind_of_file_gives_the_pixels_of_the_one_decoder(index, people, rng):
    picture = cv2.resize(rng.integers(0, 256, (6, 8, 3)).astype(np.uint8), (64, 48))
    folder = people / "person_00000"
    write_png(folder / "0000.jpg", picture)
    (folder / "0001.jpg").write_bytes(cv2.imencode(".png", picture[:, :, 0].astype(np.uint16) * 257)[1])
    (folder / "0002.jpg").write_bytes(cv2.imencode(".webp", picture)[1])
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    data = encode_jpeg(picture)
    marker = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (folder / "0003.jpg").write_bytes(data[:2] + marker + data[2:])
    assert read_image(folder / "0003.jpg").shape == (64, 48, 3), "turned"
    images = PictureLoader(index, 32).load(np.arange(4))
    for image, path in zip(images, index.paths, strict=False):
        np.testing.assert_array_equal(image, resize_square(read_image(people / path), 32))


def test_a_picture_is_read_once_a_batch(index, people):
    reader = Reader(people)
    images = PictureLoader(index, 32, read=reader).load(np.array([[3, 3, 5], [5, 7, 3]]))
    assert sorted(reader.paths) == [index.paths[position] for position in (3, 5, 7)]
    assert (images[0, 0] == images[1, 2]).all() and (images[0, 2] == images[1, 0]).all()


def test_a_plan_changes_each_place_by_itself(index, people):
    positions, reader = np.array([[3, 3, 5], [5, 7, 3]]), Reader(people)
    loader = PictureLoader(index, 32, read=reader)
    still, changed = loader.load(positions), loader.load(positions, Numbered())
    np.testing.assert_array_equal(changed[..., 0, 0, :], np.arange(6).reshape(2, 3, 1) * [1, 1, 1])
    np.testing.assert_array_equal(changed[..., 1:, :, :], still[..., 1:, :, :])
    assert len(reader.paths) == 6, "once a batch, changed in several ways"


@pytest.mark.parametrize("threads", [1, 3, 8])
def test_the_number_of_threads_changes_nothing(index, threads):
    positions = np.random.default_rng(1).integers(len(index), size=(7, 5))
    expected = PictureLoader(index, 32, threads=2).load(positions, Numbered())
    np.testing.assert_array_equal(PictureLoader(index, 32, threads).load(positions, Numbered()), expected)


def test_an_empty_batch_is_empty(index):
    assert PictureLoader(index, 32).load(np.empty((0, 3), np.int64)).shape == (0, 3, 32, 32, 3)


def test_memory_is_used_again_only_when_nobody_holds_it(index):
    loader = PictureLoader(index, 32)
    first = loader.load(np.arange(6))
    place, kept, view = first.ctypes.data, first.copy(), first[2:, 5:]
    del first
    gc.collect()
    second = loader.load(np.arange(6, 12))
    assert second.ctypes.data != place, "a view of a view holds it"
    np.testing.assert_array_equal(view, kept[2:, 5:])
    del view
    gc.collect()
    third = loader.load(np.arange(6))
    assert third.ctypes.data == place
    np.testing.assert_array_equal(third, kept)
    assert loader.load(np.arange(9)).shape == (9, 32, 32, 3), "another size of batch"
    assert all(array.ctypes.data % 64 == 0 for array in (second, third))


def test_a_bad_file_is_replaced_by_the_same_persons_next_picture_and_remembered(index, people):
    bad = index.paths.index("person_00005/0003.jpg")
    (people / index.paths[bad]).write_bytes(b"broken")
    reader = Reader(people)
    loader = PictureLoader(index, 32, read=reader)
    for _ in range(2):
        images = loader.load(np.array([bad, bad + 2]))
        np.testing.assert_array_equal(images[0], read_square(people / index.paths[bad + 1], 32))
    assert list(loader.failures) == ["person_00005/0003.jpg"]
    assert loader.failures["person_00005/0003.jpg"].startswith(f"{people}/person_00005/0003.jpg: is ")
    assert reader.paths.count("person_00005/0003.jpg") == 1, "not tried again"
    last = index.paths.index("person_00005/0005.jpg")
    (people / index.paths[last]).write_bytes(b"")
    np.testing.assert_array_equal(
        loader.load(np.array([last]))[0], read_square(people / "person_00005/0000.jpg", 32)
    )
    assert loader.failures["person_00005/0005.jpg"].endswith("0005.jpg: is empty.")


def test_files_that_cannot_be_opened_are_named_with_the_systems_reason(index, people):
    (people / index.paths[0]).unlink()
    (people / index.paths[6]).unlink()
    (people / index.paths[6]).mkdir()
    (people / index.paths[12]).unlink()
    os.mkfifo(people / index.paths[12])
    loader = PictureLoader(index, 32)
    loader.load(np.array([0, 6, 12]))
    reasons = [loader.failures[index.paths[position]] for position in (0, 6, 12)]
    assert "No such file" in reasons[0] and "Is a directory" in reasons[1] and "is empty" in reasons[2]


def test_the_next_person_stands_in_for_one_who_is_lost_under_their_own_name(index, people):
    for picture in (people / "person_00000").iterdir():
        picture.write_bytes(b"broken")
    loader = PictureLoader(index, 32)
    images, shown = loader.read(np.array([[0, 3], [20, 6]]))
    assert index.people[index.labels[shown[0, 0]]] == "person_00001" and shown[0, 0] == shown[0, 1] == 6
    assert shown[1].tolist() == [20, 6]
    np.testing.assert_array_equal(images[0, 0], read_square(people / index.paths[6], 32))
    last = len(index) - 1
    for picture in (people / index.people[-1]).iterdir():
        picture.unlink()
    images, shown = loader.read(np.array([last]))
    assert index.people[index.labels[shown[0]]] == "person_00001", "the first one is lost too"
    assert len(loader.failures) == 12


def test_a_folder_that_is_mostly_gone_is_given_up(index, people):
    for path in index.paths:
        (people / path).unlink()
    loader = PictureLoader(index, 32)
    lost = f"{len(index) // 2 + 1} of {len(index)} pictures cannot be read"
    with pytest.raises(UnreadableImageError, match=lost):
        loader.load(np.array([0]))
    with pytest.raises(UnreadableImageError, match="No such file"), loader.errors_named():
        raise RuntimeError("buried")
    with pytest.raises(RuntimeError, match="of its own"), PictureLoader(index, 32).errors_named():
        raise RuntimeError("of its own")


class Faltering(Reader):
    """A disk that does not answer at first, as often as it is told."""

    def __init__(self, root: Path, refusals: int, number: int = errno.EIO):
        super().__init__(root)
        self.refusals, self.number = refusals, number

    def __call__(self, path: str) -> bytes:
        if self.refusals > 0:
            self.refusals -= 1
            raise OSError(self.number, os.strerror(self.number), path)
        return super().__call__(path)


@pytest.fixture
def hurried(monkeypatch) -> None:
    """Waits for the disk take no time."""
    monkeypatch.setattr(loading, "PAUSES", (0.0, 0.0))


def test_a_disk_that_answers_at_the_third_time_loses_nothing(index, people, hurried):
    loader = PictureLoader(index, 32, 1, read=Faltering(people, 2))
    images, shown = loader.read(np.array([4]))
    assert shown.tolist() == [4] and not loader.failures
    np.testing.assert_array_equal(images[0], read_square(people / index.paths[4], 32))


def test_a_picture_that_the_disk_did_not_give_is_tried_again_later(index, people, hurried):
    loader = PictureLoader(index, 32, 1, read=Faltering(people, 3))
    assert loader.read(np.array([4]))[1].tolist() == [5]
    assert list(loader.failures) == [index.paths[4]]
    assert loader.read(np.array([4]))[1].tolist() == [4] and not loader.failures


def test_a_disk_that_is_gone_is_named_and_a_missing_file_is_not_waited_for(index, people, hurried):
    with pytest.raises(NoAnswerError, match=r"Input/output error\)\. So were 9 others: is the disk still there"):
        PictureLoader(index, 32, 1, read=Faltering(people, 1000)).load(np.array([4]))
    reader = Faltering(people, 1, errno.ENOENT)
    loader = PictureLoader(index, 32, 1, read=reader)
    assert loader.read(np.array([4]))[1].tolist() == [5] and list(loader.failures) == [index.paths[4]]
    assert loader.read(np.array([4]))[1].tolist() == [5], "never tried again"


def test_people_in_any_order_stand_in_for_themselves(index, people):
    order = np.random.default_rng(0).permutation(len(index))
    mixed = PeopleIndex(index.root, index.people, [index.paths[place] for place in order], index.labels[order])
    position = 10
    (people / mixed.paths[position]).write_bytes(b"")
    image = PictureLoader(mixed, 32).load(np.array([position]))[0]
    own = [place for place in np.flatnonzero(mixed.labels == mixed.labels[position]) if place > position]
    own = own or list(np.flatnonzero(mixed.labels == mixed.labels[position]))
    np.testing.assert_array_equal(image, read_square(people / mixed.paths[own[0]], 32))


def test_a_cache_spares_reading_and_keeps_no_failures(index, people):
    (people / index.paths[0]).write_bytes(b"broken")
    reader = Reader(people)
    loader = PictureLoader(index, 32, read=reader, cache=MemoryCache(len(index), 32, 1.0))
    first = loader.load(np.array([0, 1, 7]), Numbered())
    read = len(reader.paths)
    again = loader.load(np.array([0, 1, 7]), Numbered())
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(loader.load(np.array([7]))[0], read_square(people / index.paths[7], 32))
    assert 3 <= read <= 4, "picture 1 stands in for picture 0, perhaps in another thread at the same time"
    assert len(reader.paths) == read


def test_training_outlives_files_destroyed_underway(index, people):
    """Of 96 files 3 % and more are cut, removed or replaced by text while 300 batches are read."""
    rng = np.random.default_rng(4)
    doomed = [int(position) for position in rng.choice(len(index), 6, replace=False)]
    loader, seen = PictureLoader(index, 16), 0

    def destroy():
        for number, position in enumerate(doomed):
            path = people / index.paths[position]
            if number % 3 == 0:
                path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
            elif number % 3 == 1:
                path.unlink()
            else:
                path.write_text("not a picture")
            started.wait(0.05)

    started = threading.Event()
    destroyer = threading.Thread(target=destroy)
    destroyer.start()
    for step in range(300):
        positions = np.random.default_rng(step).integers(len(index), size=24)
        seen += len(loader.load(positions))
    destroyer.join()
    loader.load(np.arange(len(index)))
    assert seen == 300 * 24
    assert sorted(loader.failures) == sorted(index.paths[position] for position in doomed)
    assert all(reason.startswith(f"{people}/{path}: ") for path, reason in loader.failures.items())


def test_reading_files_is_a_read_and_nothing_else(people):
    path = "person_00001/0002.jpg"
    assert read_below(people, path) == (people / path).read_bytes()
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(5):
        with pytest.raises(OSError):
            read_below(people, "person_00001")
    after = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    assert before == after, "nothing stays open"
    assert loading.decoded((people / path).read_bytes(), "x").shape == (64, 64, 3)
