"""Read pairs of pictures packed into one file, as InsightFace publishes its test sets (lfw.bin, cfp_fp.bin, ...).

Such a file is a pickle of two lists: the encoded pictures, two to a pair in order, and a boolean for each pair,
true for the same person. A pickle is a program, and running a stranger's is dangerous. This reader runs none:

1. The file's instructions are listed without being carried out. It is read no further than the first one that isn't
   needed for bytes, lists, tuples and booleans: those that set attributes, make objects or reach outside are not,
   nor memory slots and lists beyond what such a file can use.
2. Every name that the rest asks for refuses the file, but for one: Python 3 writes bytes in its older pickles as a
   call, `_codecs.encode(text, "latin1")`. It stands for a function of ours here, which accepts such a text only and
   gives its bytes; nothing else can be called.
3. What comes out is checked for its shape.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from facekit.pairs import Pairs, fold_fault, fold_warnings, pair_faults

FOLDS = 10

_ADMITTED = frozenset(
    # Structure and memory.
    "PROTO FRAME MARK STOP PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET LONG_BINGET "
    # Lists, tuples, booleans (INT only as I00 and I01, which are booleans).
    "EMPTY_LIST LIST APPEND APPENDS TUPLE TUPLE2 NEWTRUE NEWFALSE INT "
    # Bytes; strings of Python 2 are bytes.
    "BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 "
    # Text and names: for `_codecs.encode`, and to say what else was asked for.
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 GLOBAL STACK_GLOBAL REDUCE".split()
)
_MOST_LISTS = 3  # the pictures, the booleans, and the two together
_REMEDY = (
    "Only bytes, lists and booleans are read. Save it again as a pickle of (list of bytes, list of bool) where you "
    "trust its source."
)


@dataclass(frozen=True)
class PackedPairs:
    """Pairs with their pictures.

    Attributes:
        path: the file.
        pictures: (2 n) encoded pictures, such as JPEG; pair i is made of pictures 2 i and 2 i + 1.
        same: (n,) bool, True for the same person.
    """

    path: Path
    pictures: list[bytes]
    same: NDArray[np.bool_]

    def names(self) -> list[str]:
        """A name for each picture, 000000.jpg for the first; equal pictures have the name of their first."""
        firsts: dict[bytes, int] = {}
        return [f"{firsts.setdefault(data, place):06d}.jpg" for place, data in enumerate(self.pictures)]

    def by_name(self) -> dict[str, bytes]:
        """Each different picture by its name, as `as_pairs` uses it; `facekit.images.decode` decodes it."""
        return dict(zip(self.names(), self.pictures, strict=True))


def as_pairs(packed: PackedPairs) -> Pairs:
    """The pairs by the names of their pictures. The people are unknown.

    Ten folds follow the file's order, as in InsightFace's own evaluation (scikit-learn's KFold(10) without
    shuffling): the first n mod 10 of them hold a pair more. Where such a fold would hold one class only, or there
    are fewer than 10 pairs, there are no folds.

    A published list is judged as it is: pairs that occur twice and the like are named in `warnings`.
    """
    names = packed.names()
    first, second, same = names[::2], names[1::2], packed.same
    faults = pair_faults(first, second, same, lambda row: f"pair {row + 1}")
    warnings = [f"{packed.path}, {fault.words}. The list is judged as it was published." for fault in faults]
    folds = np.repeat(np.arange(FOLDS), [len(part) for part in np.array_split(same, FOLDS)])
    fault = fold_fault(folds, same)
    if fault is not None:
        warnings.append(f"{packed.path}: ten folds in the file's order are of no use: {fault.words}.")
        return Pairs(first, second, same, warnings=warnings)
    warnings += [f"{packed.path}: {warning}" for warning in fold_warnings(folds)]
    return Pairs(first, second, same, folds, warnings=warnings)


def read_bin(path: Path) -> PackedPairs:
    """Read a packed file. No code of the file runs, and memory is bounded by a multiple of its size.

    Raises:
        ValueError: the file is missing, no such pickle, or asks for anything but bytes, lists and booleans.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from None
    end, reason = _readable_part(data)
    # What must not be read is written over, not cut off: a frame before it tells its own length.
    readable = data[:end] + pickle.STOP * (len(data) - end)
    try:
        content = _BytesUnpickler(readable).load()
    except _RefusedError as error:
        raise ValueError(f"{path}: {error}") from None
    except Exception as error:  # a damaged pickle raises almost anything, says Python's manual
        reason = reason or f"is damaged: it cannot be unpickled ({type(error).__name__})."
    if reason:
        raise ValueError(f"{path}: {reason}")
    if end != len(data):
        raise ValueError(f"{path}: {len(data) - end} bytes follow its end. It is damaged, or not what it seems.")
    return _checked(path, content)


class _RefusedError(Exception):
    """What the file asked for and must not have."""


def _readable_part(data: bytes) -> tuple[int, str]:
    """Step 1 of the module's text: where to stop reading, and why before the end ("" where the end is reached)."""
    position, lists = 0, 0
    try:
        for opcode, argument, at in pickletools.genops(data):
            position, name = at or 0, opcode.name
            lists += name in ("LIST", "EMPTY_LIST")
            if name not in _ADMITTED or (name == "INT" and not isinstance(argument, bool)):
                asked = "" if argument is None else f" {argument!r}"[:60]
                return position, f"holds the instruction {name}{asked} at byte {position}. {_REMEDY}"
            if lists > _MOST_LISTS or ("PUT" in name and isinstance(argument, int) and argument > len(data)):
                return position, f"claims more memory than its size can need, at byte {position}. {_REMEDY}"
    except Exception:  # ValueError for most damages, others for some
        damages = "is damaged or cut short, or was written by Python 2 with protocol 0"
        return position, f"is no pickle of pictures and booleans, {damages}."
    return position + 1, ""


class _BytesUnpickler(pickle.Unpickler):
    """Step 2 of the module's text."""

    def __init__(self, data: bytes):
        super().__init__(io.BytesIO(data), encoding="bytes")
        self._encoder = _Latin1Encoder(len(data))

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return self._encoder
        raise _RefusedError(f"asks for {module}.{name}. {_REMEDY}")


class _Latin1Encoder:
    """Stands for `_codecs.encode`: turns a text of Latin-1 letters into its bytes, and does nothing else.

    It has no attributes that a file could set. All its answers together are no longer than the file, whose texts
    they come from: a file that encodes one text over and over is refused.
    """

    __slots__ = ("_left",)

    def __init__(self, size: int):
        self._left = size

    def __call__(self, *arguments: object) -> bytes:
        if len(arguments) != 2 or not isinstance(arguments[0], str) or arguments[1] != "latin1":
            raise _RefusedError("calls _codecs.encode with something else than a text and 'latin1'.")
        data = arguments[0].encode("latin1")
        self._left -= len(data)
        if self._left < 0:
            raise _RefusedError("encodes more bytes than it holds. It is damaged, or made to fill memory.")
        return data


def _checked(path: Path, content: object) -> PackedPairs:
    """Step 3 of the module's text."""
    if not isinstance(content, tuple | list) or len(content) != 2:
        raise ValueError(f"{path}: expected two lists, pictures and booleans, found {_shape(content)}.")
    pictures, same = content
    if not isinstance(pictures, tuple | list) or not isinstance(same, tuple | list):
        raise ValueError(
            f"{path}: expected two lists, pictures and booleans, found {_shape(pictures)} and {_shape(same)}."
        )
    if not same or len(pictures) != 2 * len(same):
        raise ValueError(
            f"{path}: expected two pictures for each boolean, found {len(pictures)} pictures and {len(same)} "
            "booleans."
        )
    _check_all(path, pictures, bytes, "picture", "bytes")
    _check_all(path, same, bool, "label", "a boolean")
    return PackedPairs(path, list(pictures), np.array(same, np.bool_))


def _check_all(path: Path, items: Sequence[object], kind: type, what: str, wanted: str) -> None:
    for place, item in enumerate(items):
        if type(item) is not kind or item == b"":
            raise ValueError(f"{path}: expected {what} {place} to be {wanted}, found {_shape(item)}. {_REMEDY}")


def _shape(value: object) -> str:
    """A value's type and length, in words."""
    if isinstance(value, tuple | list | bytes | str):
        return f"{type(value).__name__} of length {len(value)}"
    return type(value).__name__
