"""Packed pairs: what InsightFace's tools wrote is read, and nothing that a pickle asks for is done."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import KFold

from facekit.images import decode, encode_jpeg
from facekit.packed_pairs import PackedPairs, as_pairs, read_bin

ON_FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def pictures_of(count: int) -> list[bytes]:
    return [bytes([0xFF, 0xD8, *divmod(number, 256)]) for number in range(count)]


def read(tmp_path: Path, data: bytes) -> PackedPairs:
    path = tmp_path / "set.bin"
    path.write_bytes(data)
    return read_bin(path)


def packed(same: list[bool], pictures: list[bytes] | None = None) -> PackedPairs:
    return PackedPairs(Path("set.bin"), pictures or pictures_of(2 * len(same)), np.array(same))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("whole", [tuple, list])
def test_every_protocol_of_python_3(tmp_path, protocol, whole):
    pictures = [*pictures_of(5), bytes(range(256)) * 300]  # short and long, with every byte
    content = read(tmp_path, pickle.dumps(whole([pictures, [True, False, True]]), protocol))
    assert content.pictures == pictures and content.same.tolist() == [True, False, True]
    assert content.same.dtype == np.bool_ and content.path.name == "set.bin"


def by_python_2(pictures: list[bytes], same: list[bool]) -> bytes:
    """What Python 2 writes with its highest protocol, 2: strings are bytes, booleans have codes of their own."""
    data = b"\x80\x02]q\x00("
    for number, picture in enumerate(pictures, 1):
        data += b"U" + bytes([len(picture)]) if number % 2 else b"T" + struct.pack("<i", len(picture))
        data += picture + b"q" + bytes([number])
    data += b"e]q" + bytes([len(pictures) + 1]) + b"("
    data += b"".join(b"\x88" if label else b"\x89" for label in same)
    return data + b"e\x86q" + bytes([len(pictures) + 2]) + b"."


def test_a_file_of_python_2(tmp_path):
    data = by_python_2(pictures_of(4), [False, True])
    assert pickle.loads(data, encoding="bytes") == (pictures_of(4), [False, True])
    content = read(tmp_path, data)
    assert content.pictures == pictures_of(4) and content.same.tolist() == [False, True]


def test_pictures_decode_by_name(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (8, 9, 3), np.uint8) for _ in range(4)]
    content = read(tmp_path, pickle.dumps(([encode_jpeg(image) for image in images], [True, False]), 2))
    by_name = content.by_name()
    assert list(by_name) == as_pairs(content).pictures() == [f"00000{place}.jpg" for place in range(4)]
    for image, data in zip(images, by_name.values(), strict=True):
        np.testing.assert_array_equal(decode(data), decode(encode_jpeg(image)))


def test_pairs_take_two_pictures_each_in_order():
    pairs = as_pairs(packed([True, False]))
    assert (pairs.first, pairs.second) == (["000000.jpg", "000002.jpg"], ["000001.jpg", "000003.jpg"])
    assert pairs.same.tolist() == [True, False] and pairs.people() is None


@pytest.mark.parametrize("count", [40, 57])
def test_folds_are_those_of_insightfaces_own_evaluation(count):
    pairs = as_pairs(packed([bool(number % 2) for number in range(count)]))
    tests = [test for _, test in KFold(10, shuffle=False).split(np.zeros(count))]
    assert [np.flatnonzero(pairs.folds == fold).tolist() for fold in range(10)] == [test.tolist() for test in tests]
    assert len(pairs.warnings) == (count % 10 > 0)


def test_folds_of_no_use_are_left_out_with_a_warning():
    for same in ([True, False] * 4, [True] * 20 + [False] * 20):
        pairs = as_pairs(packed(same))
        assert pairs.folds is None and "ten folds in the file's order are of no use: fold" in pairs.warnings[0]


def test_equal_pictures_are_one_and_their_faults_are_warned_of():
    a, b, c, d = pictures_of(4)
    pairs = as_pairs(packed([True, True, False, False], [a, b, b, a, c, c, a, b]))
    assert pairs.first[:3] == ["000000.jpg", "000001.jpg", "000004.jpg"] and len(pairs.pictures()) == 3
    told = (
        "pair 3: compares 000004.jpg with itself",
        "pair 4: is the pair of pair 1",
        "pair 2: repeats the pair of",
    )
    for warning, words in zip(pairs.warnings[:3], told, strict=True):
        assert f"set.bin, {words}" in warning and warning.endswith("The list is judged as it was published.")
    assert packed([True], [a, d]).names() == ["000000.jpg", "000001.jpg"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ([True], "expected two lists, pictures and booleans, found list of length 1"),
        (b"ab", "expected two lists, .* found bytes of length 2"),
        (True, "expected two lists, .* found bool"),
        ((b"ab", [True]), "expected two lists, .* found bytes of length 2 and list of length 1"),
        (([b"a", b"b"], True), "expected two lists, .* found list of length 2 and bool"),
        (([b"a"], [True]), "expected two pictures for each boolean, found 1 pictures and 1 booleans"),
        (([b"a", b"b"], [True, False]), "expected two pictures for each boolean, found 2 pictures and 2 booleans"),
        (([b"a", b"b", b"c"], [True]), "expected two pictures for each boolean, found 3 pictures and 1 booleans"),
        (([], []), "expected two pictures for each boolean, found 0 pictures"),
        (([b"a", "b"], [True]), "expected picture 1 to be bytes, found str of length 1"),
        (([b"a", b""], [True]), "expected picture 1 to be bytes, found bytes of length 0"),
        (([b"a", [b"b"]], [True]), "expected picture 1 to be bytes, found list of length 1"),
        (([b"a", b"b", b"c", b"d"], [True, b"x"]), "expected label 1 to be a boolean, found bytes of length 1"),
        (([b"a", b"b"], [1]), r"holds the instruction BININT1 1 at byte \d+\. Only bytes, lists and booleans"),
        (([b"a", b"b"], [None]), "holds the instruction NONE at byte"),
        (([b"a", b"b"], {"x": True}), "holds the instruction EMPTY_DICT at byte"),
        (([b"a", bytearray(b"b")], [True]), "asks for builtins.bytearray. Only bytes, lists and booleans"),
        (
            ([np.zeros(3, np.uint8)] * 2, [True]),
            r"asks for numpy\._?core\.multiarray\._reconstruct\. .*Save it again",
        ),
        (([b"a", b"b"], [np.True_]), r"asks for numpy\._?core\.multiarray\.scalar"),
    ],
)
def test_another_content_is_named(tmp_path, content, sentence):
    with pytest.raises(ValueError, match=rf"set\.bin: {sentence}"):
        read(tmp_path, pickle.dumps(content, 4))


def test_a_number_is_no_boolean_in_the_oldest_form_either(tmp_path):
    with pytest.raises(ValueError, match="holds the instruction INT 1 at byte"):
        read(tmp_path, pickle.dumps(([b"a", b"b"], [1]), 0))


GOOD = pickle.dumps((pictures_of(2), [True]), 4)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "is no pickle of pictures and booleans, is damaged or cut short, or was"),
        (b"not a pickle", "is no pickle"),
        (GOOD[:-1], "is no pickle"),
        (GOOD[:30], "is no pickle"),
        (GOOD + b"x", "1 bytes follow its end"),
        (b"\x80\x04a.", r"is damaged: it cannot be unpickled \(\w+\)"),
        (b"\x80\x04h\x05.", r"is damaged: it cannot be unpickled \(\w+\)"),
        (b"\x80\x09.", r"is damaged: it cannot be unpickled \(ValueError\)"),
    ],
)
def test_damage_is_named(tmp_path, data, sentence):
    with pytest.raises(ValueError, match=rf"set\.bin: {sentence}"):
        read(tmp_path, data)
    with pytest.raises(ValueError, match=r"none\.bin: cannot be read"):
        read_bin(tmp_path / "none.bin")


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


SYSTEM = f"{os.system.__module__}.system"
# Each runs `touch PWNED` by another way of calling or changing things; "%" stands for the command as text.
WAYS = {
    "global": (b"cos\nsystem\n(%tR.", "asks for os.system"),
    "memory": (b"cos\nsystem\nq\x00]h\x00(%tR.", "asks for os.system"),
    "stack": (b"\x80\x04" + text("os") + text("system") + b"\x93(%tR.", "asks for os.system"),
    "remembered": (b"\x80\x04" + text("system") + b"\x94" + text("os") + b"h\x00\x93(%tR.", "asks for os.system"),
    "inst": (b"(%ios\nsystem\n.", "holds the instruction INST 'os system' at byte"),
    "obj": (b"(cos\nsystem\n%o.", "asks for os.system"),
    "newobj": (b"\x80\x02csubprocess\nPopen\n(%t\x81.", "asks for subprocess.Popen"),
    "eval": (b"c__builtin__\neval\n(%tR.", "asks for __builtin__.eval"),
    "dotted": (
        b"\x80\x04" + text("_codecs") + text("encode.__class__") + b"\x93.",
        r"asks for _codecs.encode.__class_",
    ),
    "other codec": (b"c_codecs\nlookup\n(%tR.", "asks for _codecs.lookup"),
    "persistent": (b"Pos.system\n.", "holds the instruction PERSID 'os.system' at byte 0"),
    "persistent object": (b"%Q.", "holds the instruction BINPERSID"),
    "extension": (b"\x80\x02\x82\x01(%tR.", "holds the instruction EXT1 1 at byte 2"),
    "extension 2": (b"\x80\x02\x83\x01\x00(%tR.", "holds the instruction EXT2"),
    "extension 4": (b"\x80\x02\x84\x01\x00\x00\x00(%tR.", "holds the instruction EXT4"),
    "build": (b"c_codecs\nencode\n}%%sb.", "holds the instruction EMPTY_DICT"),
    "build of a list": (b"](%tb.", "holds the instruction BUILD"),
    "newobj of ours": (b"\x80\x02c_codecs\nencode\n(%t\x81.", "holds the instruction NEWOBJ"),
    "obj of ours": (b"(c_codecs\nencode\n%o.", "holds the instruction OBJ"),
    "codec": (b"c_codecs\nencode\n%" + text("rot13") + b"\x86R.", "calls _codecs.encode with something else"),
    "three arguments": (b"c_codecs\nencode\n(%%%tR.", "calls _codecs.encode with something else"),
    "no text": (b"c_codecs\nencode\n]" + text("latin1") + b"\x86R.", "calls _codecs.encode with something else"),
    "call of a value": (b"](%tR.", r"is damaged: it cannot be unpickled \(TypeError\)"),
}


@pytest.mark.parametrize("way", WAYS)
def test_no_way_of_running_code_runs_any(tmp_path, way, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data, sentence = WAYS[way]
    with pytest.raises(ValueError, match=rf"set\.bin: {sentence}"):
        read(tmp_path, data.replace(b"%", text("touch PWNED")))
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("place", ["picture", "label", "whole"])
def test_an_attack_beside_pictures_does_nothing(tmp_path, protocol, place, monkeypatch):
    monkeypatch.chdir(tmp_path)
    attack = Attack("touch PWNED")
    content = {"picture": ([b"a", attack], [True]), "label": ([b"a", b"b"], [attack]), "whole": attack}[place]
    data = pickle.dumps(content, protocol)
    with pytest.raises(ValueError, match=r"asks for (posix|nt)\.system\. Only bytes, lists and booleans are read"):
        read(tmp_path, data)
    assert not (tmp_path / "PWNED").exists()
    pickle.loads(data)
    assert (tmp_path / "PWNED").exists()  # the attack itself works


LATIN1 = b"q\x00" + text("latin1") + b"q\x01"
BOMBS = {
    "memory slot": (b"\x80\x02]r\xff\xff\xff\x7f.", "claims more memory than its size can need, at byte 3"),
    "memory slot by name": (b"]p2147483647\n.", "claims more memory than its size can need"),
    "length of bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"ab.", "is no pickle"),
    "length of bytes, short form": (b"\x80\x03B" + struct.pack("<I", 2**31) + b"ab.", "is no pickle"),
    "length of a frame": (b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"].", "is damaged"),
    "lists": (b"\x80\x02(" + b"]" * 1_000_000 + b"e.", "claims more memory than its size can need"),
    "one text encoded again and again": (
        b"\x80\x02](c_codecs\nencode\nq\x02" + text("x" * 10**6) + LATIN1 + b"h\x02h\x00h\x01\x86R" * 10**4 + b"e.",
        "encodes more bytes than it holds",
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_cannot_claim_much_memory(tmp_path, bomb):
    data, sentence = BOMBS[bomb]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"set\.bin: {sentence}"):
            read(tmp_path, data)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


# Instructions in any order, and damaged pickles, come closer to the machine than random bytes do.
PIECES = st.sampled_from(
    [
        b"(",
        b"]",
        b"a",
        b"e",
        b"t",
        b"\x86",
        b"\x88",
        b"\x89",
        b"q\x00",
        b"h\x00",
        b"\x94",
        b"R",
        b"C\x02ab",
        b"U\x01a",
    ]
    + [
        b"X\x01\x00\x00\x00a",
        text("latin1"),
        b"c_codecs\nencode\n",
        b"\x93",
        b"I01\n",
        b"b",
        b"}",
        b"0",
        b"\x80\x04",
    ]
)
MADE = st.lists(PIECES, max_size=30).map(lambda pieces: b"".join(pieces) + b".")
DAMAGED = st.builds(
    lambda at, value: GOOD[:at] + bytes([value]) + GOOD[at + 1 :], st.integers(0, len(GOOD)), st.integers(0, 255)
)


@ON_FILES
@given(data=st.binary(max_size=60) | MADE | DAMAGED)
def test_any_file_is_read_or_refused_in_a_sentence(tmp_path: Path, data: bytes):
    path = tmp_path / "any.bin"
    path.write_bytes(data)
    try:
        assert len(as_pairs(read_bin(path))) > 0
    except ValueError as error:
        assert type(error) is ValueError and str(error).startswith(str(path)) and str(error).endswith(".")


def test_what_is_read_is_what_pickle_reads(tmp_path):
    rng = np.random.default_rng(0)
    pictures = [rng.bytes(int(size)) for size in rng.integers(1, 70_000, 40)]
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps((pictures, [True] * 20), protocol)
        assert read(tmp_path, data).pictures == pickle.load(io.BytesIO(data))[0]
