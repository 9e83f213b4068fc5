"""A folder of people as lists: what is found, what is kept for the next run, and what is noticed of changes."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from facekit import index, index_file
from facekit.images import is_picture
from facekit.index import PeopleIndex, index_people


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch) -> Path:
    """Where this test's listings are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache home"))
    return tmp_path / "cache home"


@pytest.fixture
def people(tmp_path) -> Path:
    """Five people of 1 to 4 pictures, whose names sort otherwise as paths than as names."""
    root = tmp_path / "people"
    for number, name in enumerate(["Ann", "Ann B", "Zoë", "c", "d-1"]):
        for picture in range(1 + number % 4):
            write(root / name / f"{picture}.jpg", b"x" * (10 * number + picture))
    return root


@pytest.fixture
def settled(monkeypatch) -> None:
    """The clock runs ten seconds ahead, so that folders made by a test count as made long ago."""
    now = index.time.time_ns
    monkeypatch.setattr(index.time, "time_ns", lambda: now() + 10_000_000_000)


@pytest.fixture
def listed(monkeypatch) -> list[str]:
    """Names of the folders that are listed from here on."""
    names: list[str] = []
    entries = index._entries

    def watched(folder):
        names.append(folder.name)
        return entries(folder)

    monkeypatch.setattr(index, "_entries", watched)
    return names


def write(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def by_hand(root: Path) -> tuple[list[str], list[str], list[int], list[int], list[int]]:
    """People, paths, labels, sizes and times by os.walk."""
    rows = []
    folder_names = sorted(next(os.walk(root))[1])
    for folder in folder_names:
        for name in sorted(next(os.walk(root / folder, followlinks=True))[2]):
            path = root / folder / name
            if not folder.startswith(".") and is_picture(Path(name)) and path.is_file():
                rows.append((folder, f"{folder}/{name}", path.stat().st_size, path.stat().st_mtime_ns))
    names = sorted({row[0] for row in rows})
    return (
        names,
        [row[1] for row in rows],
        [names.index(row[0]) for row in rows],
        [row[2] for row in rows],
        [row[3] for row in rows],
    )


def lists(found: PeopleIndex) -> tuple[list[str], list[str], list[int], list[int], list[int]]:
    return found.people, found.paths, found.labels.tolist(), found.sizes.tolist(), found.times.tolist()


def made(counts: list[int]) -> PeopleIndex:
    """An index of people a, b, ... of so many pictures."""
    names = [f"p{number:03d}" for number in range(len(counts))]
    paths = [f"{name}/{picture}" for name, count in zip(names, counts, strict=True) for picture in range(count)]
    n = np.arange(len(paths))
    return PeopleIndex(Path("/x"), names, paths, np.repeat(np.arange(len(counts)), counts), n * 7, n * 3)


# ---- What is found ----------------------------------------------------------------------------------------------


def test_an_index_lists_people_and_pictures_with_sizes_and_times(people):
    found = index_people(people)
    assert lists(found) == by_hand(people)
    assert found.people == ["Ann", "Ann B", "Zoë", "c", "d-1"] and len(found) == 11 and found.root == people
    assert found.sizes.tolist() == [0, 10, 11, 20, 21, 22, 30, 31, 32, 33, 40]
    assert found.counts.tolist() == [1, 2, 3, 4, 1] and found.passed_over == 0
    assert all(array.dtype == np.int64 for array in (found.labels, found.sizes, found.times))


def test_only_files_that_look_like_pictures_are_listed(people):
    before = index_people(people, fresh=True)
    write(people / "c" / ".hidden.jpg"), write(people / "c" / "notes.txt"), write(people / ".hidden" / "1.jpg")
    write(people / "c" / "deeper" / "1.jpg"), write(people / "loose.jpg"), (people / "empty").mkdir()
    (people / "broken link to a person").symlink_to("nowhere")
    assert lists(index_people(people, fresh=True)) == lists(before)
    (people / "c" / "folder.jpg").mkdir(), os.mkfifo(people / "c" / "pipe.jpg")
    (people / "c" / "broken.jpg").symlink_to("nowhere"), (people / "c" / "circle.jpg").symlink_to("circle.jpg")
    (people / "c" / "through a file.jpg").symlink_to(people / "c" / "notes.txt" / "1.jpg")
    found = index_people(people, fresh=True)
    assert lists(found) == lists(before) and found.digest == before.digest and found.passed_over == 5
    write(people / "c" / "UPPER.JPEG"), (people / "c" / "link.png").symlink_to(people / "Zoë" / "2.jpg")
    found = index_people(people, fresh=True)
    assert lists(found) == by_hand(people) and found.digest != before.digest
    assert {"c/UPPER.JPEG", "c/link.png"} == set(found.paths) - set(before.paths)
    assert found.sizes[found.paths.index("c/link.png")] == 22


def test_a_link_to_a_folder_is_a_person(people, tmp_path):
    write(tmp_path / "elsewhere" / "1.jpg")
    (people / "linked").symlink_to(tmp_path / "elsewhere")
    assert "linked/1.jpg" in index_people(people).paths


def test_any_name_that_the_disk_allows_survives_being_kept(people, settled, listed):
    for name in (b"\xff\xfe latin \xe9", b"new\nline", "日本 😀".encode()):
        folder = os.path.join(os.fsencode(people), name)
        os.mkdir(folder)
        for picture in (b"\xe9.jpg", b"a\nb.png", "é.webp".encode()):
            Path(os.fsdecode(os.path.join(folder, picture))).touch()
    first = index_people(people)
    listed.clear()
    again = index_people(people)
    assert lists(first) == lists(again) == by_hand(people) and len(first) == 20
    assert listed == ["people"] and len(again.digest) == 64
    assert index_people(people).at_most(2, 0).counts.max() == 2


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.JPG", ".jpg", "a", "a.txt", ".a.png", "a.b.tiff", "a.jpg.part", "jpg"]
)
def test_a_name_is_a_pictures_as_for_the_other_commands(name):
    assert index._is_picture(name) == is_picture(Path(name))


def test_wrong_folders_are_named(tmp_path):
    cases = {
        "none": (lambda path: None, "there is no such folder. Set `train_dir`"),
        "empty": (lambda path: path.mkdir(), "holds no pictures in folders of people"),
        "loose": (lambda path: write(path / "a.jpg"), "holds pictures but no folders of people"),
        "one": (lambda path: write(path / "Ann" / "a.jpg"), r"a single person \(Ann, 1 pictures\)"),
        "gone": (
            lambda path: [(path / "Ann").mkdir(parents=True), (path / "Ann" / "a.jpg").symlink_to("nowhere")],
            "no pictures in folders of people.* 1 names there lead to no file: are they links to a disk",
        ),
    }
    for name, (make, sentence) in cases.items():
        make(tmp_path / name)
        for _ in range(2):  # what is kept of a wrong folder is as wrong
            with pytest.raises(ValueError, match=sentence) as caught:
                index_people(tmp_path / name)
            assert str(tmp_path / name) in str(caught.value)
    with pytest.raises(ValueError, match="Set `other_dir` to a folder"):
        index_people(tmp_path / "none", "other_dir")


def test_a_folder_that_cannot_be_read_is_named(people, monkeypatch):
    scandir = os.scandir

    def guarded(folder):
        if Path(folder).name == "Zoë":
            raise PermissionError(13, "Permission denied")
        return scandir(folder)

    monkeypatch.setattr(index.os, "scandir", guarded)
    with pytest.raises(ValueError, match=r"people/Zoë: cannot be listed \(Permission denied\). Allow yourself to"):
        index_people(people)


def test_a_picture_that_cannot_be_looked_at_is_named(people):
    class Locked:
        path, is_symlink = "c/1.jpg", staticmethod(lambda: False)

        def stat(self):
            raise PermissionError(13, "Permission denied")

    with pytest.raises(ValueError, match=r"c/1.jpg: cannot be looked at \(Permission denied\)"):
        index._status(Locked())


# ---- What is kept -----------------------------------------------------------------------------------------------


def test_the_next_start_looks_at_the_folders_only(people, settled, listed, own_cache):
    first = index_people(people)
    assert sorted(listed) == sorted(["people", *first.people])
    assert sorted(path.name for path in people.iterdir()) == first.people, "nothing is written among the pictures"
    assert len([path for path in own_cache.rglob("*") if path.is_file()]) == 1
    listed.clear()
    write(people / "c" / "2.jpg", b"written over")
    again = index_people(people)
    assert listed == ["people"] and lists(again) == lists(first) and again.passed_over == first.passed_over
    fresh = index_people(people, fresh=True)
    assert lists(fresh) == by_hand(people) != lists(again)
    assert lists(index_people(people)) == lists(fresh)


def move(one, other):
    one.rename(other)


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


def add_unseen(root: Path) -> None:
    """Add a picture and set the folder's time back, as unpacking an archive does."""
    before = (root / "c").stat()
    write(root / "c" / "new.jpg")
    os.utime(root / "c", ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_by_link(root: Path) -> None:
    shutil.copytree(root / "c", root.parent / "copy")
    write(root.parent / "copy" / "0.jpg", b"another picture of that name")
    shutil.rmtree(root / "c")
    (root / "c").symlink_to(root.parent / "copy")


def swap(root: Path) -> None:
    """Two folders change names: both keep their times."""
    move(root / "c", root / "x"), move(root / "Zoë", root / "c"), move(root / "x", root / "Zoë")


CHANGES: dict[str, Callable[[Path], object]] = {
    "a picture added": lambda root: write(root / "c" / "new.jpg"),
    "a picture removed": lambda root: (root / "c" / "1.jpg").unlink(),
    "a picture renamed": lambda root: move(root / "c" / "1.jpg", root / "c" / "9.jpg"),
    "a picture moved": lambda root: move(root / "c" / "1.jpg", root / "Zoë" / "9.jpg"),
    "a picture replaced by a renamed one": lambda root: move(write(root / "c" / "x", b"12"), root / "c" / "1.jpg"),
    "a folder added": lambda root: write(root / "new" / "1.jpg"),
    "a folder removed": lambda root: shutil.rmtree(root / "c"),
    "a folder renamed": lambda root: move(root / "c", root / "A"),
    "a folder emptied": lambda root: empty(root / "c"),
    "a folder replaced by a link": replace_by_link,
    "two folders swapped": swap,
    "a picture added, the folder's time set back": add_unseen,
}


def timed(monkeypatch, change: Callable[[int], int]) -> None:
    """Let the disk tell other times: `change` of those that it has."""
    stat = index._status

    class Retimed:
        def __init__(self, status):
            self._status = status

        def __getattr__(self, name):
            value = getattr(self._status, name)
            return change(value) if name in ("st_mtime_ns", "st_ctime_ns") else value

    monkeypatch.setattr(index, "_status", lambda entry: (status := stat(entry)) and Retimed(status))


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_every_change_is_noticed_and_only_what_changed_is_listed_again(people, settled, listed, change):
    before = index_people(people)
    listed.clear()
    change(people)
    listed.clear()
    after = index_people(people)
    changed = list(listed)
    assert lists(after) == by_hand(people) != lists(before)
    assert changed[0] == "people" and len(changed) <= 3 and not {"Ann", "Ann B", "d-1"} & set(changed)
    listed.clear()
    assert lists(index_people(people)) == lists(after) and listed == ["people"]


@pytest.mark.parametrize("change", [swap, lambda root: move(root / "c", root / "cc")])
def test_folders_are_told_apart_where_all_have_the_same_times(people, settled, listed, monkeypatch, change):
    timed(monkeypatch, lambda _: 10**18)
    index_people(people)
    change(people)
    after = index_people(people)
    assert after.paths == by_hand(people)[1]
    listed.clear()
    assert lists(index_people(people)) == lists(after) and listed == ["people"]


def test_a_folder_that_was_empty_may_be_filled(people, settled):
    (people / "empty").mkdir()
    assert "empty" not in index_people(people).people
    write(people / "empty" / "1.jpg")
    assert "empty" in index_people(people).people


def test_links_to_folders_are_watched_where_they_lead(people, tmp_path, settled):
    for name in ("one", "two"):
        write(tmp_path / name / "1.jpg", name.encode() * 2)
    (people / "linked").symlink_to(tmp_path / "one")
    index_people(people)
    write(tmp_path / "one" / "2.jpg")
    assert "linked/2.jpg" in index_people(people).paths
    # The link itself stays: another folder comes to lie where it leads.
    move(tmp_path / "one", tmp_path / "away"), move(tmp_path / "two", tmp_path / "one")
    assert "linked/2.jpg" not in index_people(people).paths


def test_a_change_within_the_same_tick_of_the_clock_is_noticed(people, monkeypatch):
    # A disk that counts time in whole seconds: a folder listed and changed within one shows the same times twice.
    timed(monkeypatch, lambda nanoseconds: nanoseconds // 10**9 * 10**9)
    for number in range(20):
        write(people / "c" / f"new {number}.jpg")
        assert f"c/new {number}.jpg" in index_people(people).paths


def test_changes_one_after_the_other_are_noticed(people):
    for number in range(100):
        write(people / "c" / f"new {number}.jpg")
        assert len(index_people(people)) == 12 + number


def test_a_damaged_file_is_made_again(people, settled, listed):
    first = index_people(people)
    file = index_file.place(people)
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    damaged = [
        whole[:length] for length in (0, 1, 19, 40, 51, 52, len(whole) - 1, *rng.integers(len(whole), size=20))
    ]
    damaged += [b"PK\x03\x04", whole + b"x", whole.replace(b"index 1", b"index 0")]
    for position in [*range(60), *rng.integers(len(whole), size=60)]:
        changed = bytearray(whole)
        changed[position] ^= 1 + int(rng.integers(255))
        damaged.append(bytes(changed))
    for data in damaged:
        file.write_bytes(data)
        listed.clear()
        assert lists(index_people(people)) == lists(first)
        assert len(listed) == 6 and file.read_bytes() == whole


def test_a_place_that_cannot_be_written_is_no_error(people, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(write(tmp_path / "a file")))
    assert lists(index_people(people)) == lists(index_people(people)) == by_hand(people)
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
    assert lists(index_people(people)) == by_hand(people)


def test_without_the_variable_files_go_below_the_home_folder(people, tmp_path, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    index_people(people)
    assert index_file.place(people).parent == tmp_path / "home" / ".cache" / "tupletface" / "index"
    assert index_file.place(people).is_file()


def test_two_folders_of_one_name_are_kept_apart(people, tmp_path, settled, listed):
    other = tmp_path / "elsewhere" / "people"
    for name in "xy":
        write(other / name / "1.jpg")
    for _ in range(2):
        assert index_people(people).people[0] == "Ann" and index_people(other).people == ["x", "y"]
    # One folder by two ways is one.
    (tmp_path / "way").symlink_to(people)
    listed.clear()
    assert lists(index_people(tmp_path / "way")) == lists(index_people(people)) and listed == ["way", "people"]
    assert index_people(tmp_path / "way").root == tmp_path / "way"
    # The file of one folder in the place of another's is not believed.
    shutil.copy(index_file.place(people), index_file.place(other))
    assert index_file.read(other) is None and index_people(other).people == ["x", "y"]


# ---- Parts of an index ------------------------------------------------------------------------------------------

COUNTS = st.lists(st.integers(1, 9), min_size=1, max_size=12)


def is_part(part: PeopleIndex, whole: PeopleIndex, paths: list[str]) -> bool:
    """Whether a part holds just these pictures, with all that belongs to each."""
    rows = {path: row for path, *row in zip(whole.paths, whole.sizes, whole.times, strict=True)}
    people = list(dict.fromkeys(path.split("/")[0] for path in paths))
    return (
        part.paths == paths
        and part.people == people
        and part.labels.tolist() == [people.index(path.split("/")[0]) for path in paths]
        and [[size, time] for size, time in zip(part.sizes, part.times, strict=True)] == [rows[p] for p in paths]
    )


@settings(deadline=None, max_examples=50, derandomize=True)
@given(COUNTS, st.data())
def test_filters_keep_names_and_pictures_together(counts, data):
    whole = made(counts)
    chosen = np.array(data.draw(st.lists(st.booleans(), min_size=len(counts), max_size=len(counts))))
    of = {path: whole.people.index(path.split("/")[0]) for path in whole.paths}
    assert is_part(whole.choose(chosen), whole, [p for p in whole.paths if chosen[of[p]]])
    names = [name for name, keep in zip(whole.people, chosen, strict=True) if not keep]
    assert is_part(whole.without([*names, "nobody"]), whole, [p for p in whole.paths if chosen[of[p]]])
    least = data.draw(st.integers(0, 10))
    assert is_part(whole.with_at_least(least), whole, [p for p in whole.paths if counts[of[p]] >= least])
    lost = data.draw(st.sets(st.sampled_from([*whole.paths, "p000/unknown", "nobody/0"])))
    left, unknown = whole.without_pictures(lost)
    assert is_part(left, whole, [p for p in whole.paths if p not in lost])
    assert unknown == sorted(lost - set(whole.paths))


@settings(deadline=None, max_examples=50, derandomize=True)
@given(COUNTS, st.integers(1, 10), st.integers(0, 2**40))
def test_at_most_leaves_so_many_of_everyone(counts, most, seed):
    whole = made(counts)
    part = whole.at_most(most, seed)
    assert part.counts.tolist() == [min(count, most) for count in counts]
    assert is_part(part, whole, [path for path in whole.paths if path in set(part.paths)])
    assert lists(part) == lists(whole.at_most(most, seed))


def test_who_else_is_there_does_not_change_what_is_drawn_of_a_person():
    whole = made([20, 30, 5, 40])
    for seed in range(20):
        drawn = whole.at_most(6, seed)
        for other in (whole.without(["p000", "p002"]), whole.without(["p003"])):
            assert set(other.at_most(6, seed).paths) == {p for p in drawn.paths if p[:4] in other.people}
        # One picture less changes one of those drawn where it was drawn, else none.
        less = whole.without_pictures([drawn.paths[0]])[0].at_most(6, seed)
        assert len(set(less.paths) - set(drawn.paths)) == 1
        lost = next(path for path in whole.paths if path not in drawn.paths)
        assert whole.without_pictures([lost])[0].at_most(6, seed).paths == drawn.paths


def test_every_picture_is_drawn_equally_often_over_seeds():
    whole = made([30, 12])
    drawn = [set(whole.at_most(3, seed).paths) for seed in range(4000)]
    counts = np.array([sum(path in paths for paths in drawn) for path in whole.paths])
    share = np.repeat([3 / 30, 3 / 12], [30, 12])
    assert (np.abs(counts - 4000 * share) < 5 * np.sqrt(4000 * share * (1 - share))).all()
    # Pairs of pictures too: names that are nearly alike are not drawn together.
    both = sum({"p001/0", "p001/1"} <= paths for paths in drawn)
    assert abs(both - 4000 * 3 * 2 / (12 * 11)) < 5 * np.sqrt(4000 * 0.045)


def test_less_than_one_picture_a_person_is_refused():
    with pytest.raises(ValueError, match="`max_images` must be at least 1. Received: 0"):
        made([3, 4]).at_most(0, 0)


def test_an_index_made_by_hand_needs_no_sizes():
    found = PeopleIndex(Path(), ["a", "b"], ["a/1", "b/1", "b/2"], np.array([0, 1, 1]))
    assert found.sizes.tolist() == found.times.tolist() == [0, 0, 0]
    assert found.choose(np.array([False, True])).sizes.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([], "no pictures of anybody"),
        ([1, 1, 1], "3 pictures of 3 people, 1 each"),
        ([4, 4], "8 pictures of 2 people, 4 each"),
        ([2, 3, 10, 5], "20 pictures of 4 people, 2 to 10 each (median 4)"),
        (
            [1000] + [2] * 18 + [964],
            "2,000 pictures of 20 people, 2 to 1,000 each (median 2); the tenth of the people with the most hold "
            "98% of the pictures",
        ),
        (
            [1, 1, 4, 2],
            "8 pictures of 4 people, 1 to 4 each (median 1.5); 2 have several (6 pictures), 2 one, who serve as "
            "negatives only",
        ),
    ],
)
def test_an_index_in_words(counts, words):
    assert made(counts).describe() == words
    held_out = words.replace("serve as negatives only", "are in impostor pairs only")
    assert made(counts).describe(trains=False) == held_out
