"""People's folders as training batches: index, split by identity, stream.

In:  a folder a person, pictures inside, best made by crop_faces.py.
Out: `tf.data` streams of augmented tuplets (anchor, positive, negatives) or of P people times K pictures, whose
     batch t is a pure function of (seed, t); pairs to verify on.
Run: python dataset.py index crops
     python dataset.py hold_out crops --share 0.15 --pairs 2000 --output_dir lists
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from config import Config
from facekit.files import check_writable, write_text
from facekit.images import Image, UnreadableImageError, is_picture, read_square
from facekit.protocols import Pairs, pairs_csv
from facekit.sampling import PeopleSampler, Sampler, TupletSampler, split_people, verification_pairs

if TYPE_CHECKING:
    import tensorflow as tf

# Batches read before they are needed. Hard-identity batches lean on it being well below `hard_identity_steps`.
READ_AHEAD = 4
SUMMARY = "Folders of people: see what they hold, and hold people out for a test."


@dataclass(frozen=True)
class PeopleIndex:
    """Pictures by person.

    Attributes:
        root: the folder that holds a folder a person.
        people: names of the people, sorted.
        paths: (n) pictures, relative to `root`, "/" between parts, sorted.
        labels: (n,) int64, position in `people` of each picture's person.
    """

    root: Path
    people: list[str]
    paths: list[str]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """(people,) pictures of each person."""
        return np.bincount(self.labels, minlength=len(self.people))

    @property
    def digest(self) -> str:
        """SHA-256 of all names: tells whether two runs saw the same list of pictures."""
        return hashlib.sha256("\n".join(self.paths).encode()).hexdigest()

    def choose(self, chosen: NDArray[np.bool_]) -> PeopleIndex:
        """The index of some of the people: (people,) bool."""
        kept = chosen[self.labels]
        numbers = np.cumsum(chosen) - 1
        return PeopleIndex(
            self.root,
            [name for name, keep in zip(self.people, chosen, strict=True) if keep],
            [path for path, keep in zip(self.paths, kept, strict=True) if keep],
            numbers[self.labels[kept]],
        )

    def without(self, names: Sequence[str]) -> PeopleIndex:
        """The index without the people of these names."""
        excluded = set(names)
        return self.choose(np.array([name not in excluded for name in self.people]))

    def describe(self) -> str:
        """The index in words: how many people and pictures, and what each can be used for."""
        if not self.people:
            return "no pictures of anybody"
        several = self.counts >= 2
        text = f"{len(self):,} pictures of {len(self.people):,} people"
        if several.all():
            fewest, most = self.counts.min(), self.counts.max()
            return f"{text}, {fewest:,} each" if fewest == most else f"{text}, {fewest:,} to {most:,} each"
        return (
            f"{text}: {several.sum():,} with several ({self.counts[several].sum():,} pictures), "
            f"{(~several).sum():,} with one picture, who serve as negatives only"
        )


def index_people(root: Path, setting: str = "train_dir") -> PeopleIndex:
    """List the pictures of a folder of people: `root/person/picture.jpg`.

    Args:
        root: the folder.
        setting: the setting that named it, for messages.

    Raises:
        ValueError: missing, empty, without folders of people, or with a single person.
    """
    if not root.is_dir():
        raise ValueError(
            f"{root}: there is no such folder. Set `{setting}` to a folder with one folder a person inside; "
            "`make train` draws people to try with."
        )
    folders = sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    people: list[str] = []
    paths: list[str] = []
    labels: list[int] = []
    for folder in folders:
        names = sorted(entry.name for entry in folder.iterdir() if is_picture(entry))
        if names:
            labels += [len(people)] * len(names)
            people.append(folder.name)
            paths += [f"{folder.name}/{name}" for name in names]
    if not people:
        loose = any(is_picture(entry) for entry in root.iterdir())
        what = "holds pictures but no folders of people" if loose else "holds no pictures in folders of people"
        raise ValueError(f"{root}: {what}. Expected `{setting}`/person/picture.jpg.")
    if len(people) < 2:
        raise ValueError(
            f"{root}: holds a single person ({people[0]}, {len(paths)} pictures). Training compares people: "
            "add at least one more folder."
        )
    return PeopleIndex(root, people, paths, np.array(labels, np.int64))


def read_names(path: Path, setting: str) -> list[str]:
    """Names of people, one a line; blank lines are passed over.

    Raises:
        ValueError: the file cannot be read; names the setting.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
        return [line.rstrip("\r") for line in lines if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({error}). See `{setting}`.") from None


@dataclass(frozen=True)
class Split:
    """Who trains and who is held out: no person is on both sides."""

    train: PeopleIndex
    validation: PeopleIndex


def make_split(config: Config) -> Split:
    """Index the folders of the config and hold people out.

    Raises:
        ValueError: a folder is wrong, or a side is left without a person with two pictures.
    """
    excluded = read_names(config.exclude_people, "exclude_people") if config.exclude_people else []
    everyone = index_people(config.train_dir, "train_dir")
    people = everyone.without(excluded)
    if excluded and len(people.people) == len(everyone.people):
        raise ValueError(
            f"{config.exclude_people}: none of its {len(excluded)} names is a folder of {config.train_dir}. "
            "`exclude_people` wants folder names, one a line."
        )
    if not (people.counts >= 2).any():
        raise ValueError(
            f"{config.train_dir}: every one of its {len(people.people)} people has a single picture. Training "
            "needs people with two or more, to see what one person has in common."
        )
    if config.validation_dir is not None:
        validation = index_people(config.validation_dir, "validation_dir").without(excluded)
        both = sorted(set(people.people) & set(validation.people))
        if both:
            raise ValueError(
                f"{config.validation_dir}: {len(both)} of its people are in train_dir too (such as {both[0]}). "
                "Validate on other people than you train on."
            )
        return Split(people, validation)
    held = split_people(people.counts, config.validation_share, config.seed)
    split = Split(people.choose(~held), people.choose(held))
    for side, index in (("training", split.train), ("validation", split.validation)):
        if len(index.people) < 2 or not (index.counts >= 2).any():
            raise ValueError(
                f"{config.train_dir}: too few people to hold some out: the {side} side would have "
                f"{index.describe()}. Add people, change `validation_share`, or set `validation_dir`."
            )
    return split


class PictureLoader:
    """Reads pictures by their position in an index, in threads, each picture of a batch once.

    A file that cannot be decoded is replaced by the next readable picture of the same person, so that a bad file
    never ends a long run and never makes a wrong label; it is remembered in `failures`.

    Args:
        index: the pictures.
        size: side of the result in pixels.
        threads: threads that decode; OpenCV lets go of Python's lock.
    """

    def __init__(self, index: PeopleIndex, size: int, threads: int = 4):
        self._index, self._size = index, size
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        self.failures: dict[str, str] = {}
        self._hopeless: UnreadableImageError | None = None

    @contextmanager
    def errors_named(self) -> Iterator[None]:
        """Around work that reads through `tf.data`, which buries an error of ours under its own: give ours back.

        Raises:
            UnreadableImageError: a person has no readable picture at all.
        """
        try:
            yield
        except Exception:
            if self._hopeless is not None:
                raise self._hopeless from None
            raise

    def load(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Pictures at these positions.

        Args:
            positions: any shape of picture positions.

        Returns:
            positions.shape + (size, size, 3) uint8 RGB.

        Raises:
            UnreadableImageError: a person has no readable picture at all.
        """
        unique, inverse = np.unique(positions, return_inverse=True)
        images = np.stack(list(self._threads.map(self._read, unique)))
        return images[inverse.reshape(positions.shape)]

    def _read(self, position: np.int64) -> Image:
        for candidate in self._candidates(int(position)):
            path = self._index.paths[candidate]
            if path in self.failures:
                continue
            try:
                return read_square(self._index.root / path, self._size)
            except UnreadableImageError as error:
                self.failures[path] = str(error)
        person = self._index.people[self._index.labels[position]]
        self._hopeless = UnreadableImageError(
            f"{self._index.root / person}: none of its pictures can be read. Mend or remove the folder, or name it "
            "in the file of `exclude_people`."
        )
        raise self._hopeless

    def _candidates(self, position: int) -> Iterator[int]:
        """The position itself, then the person's other pictures in turn."""
        yield position
        own = np.flatnonzero(self._index.labels == self._index.labels[position])
        yield from np.roll(own, -int(np.searchsorted(own, position)))[1:].tolist()


def make_sampler(index: PeopleIndex, config: Config) -> Sampler:
    """The sampler that the config names.

    Raises:
        ValueError: the people cannot fill a batch.
    """
    if config.sampler == "tuplet":
        return TupletSampler(index.labels, config.batch_size, config.negatives_per_tuplet, config.seed)
    return PeopleSampler(index.labels, config.batch_size, config.pictures_per_person, config.seed)


def steps_per_epoch(index: PeopleIndex, config: Config) -> int:
    """Steps of an epoch: as set, or as many as show about as many pictures as there are."""
    return config.steps_per_epoch or max(1, round(len(index) / config.pictures_per_step))


def training_stream(
    index: PeopleIndex,
    config: Config,
    loader: PictureLoader,
    first_step: int,
    steps: int,
    neighbours: Callable[[int], NDArray[np.int32] | None] = lambda step: None,
) -> tf.data.Dataset:
    """Batches `first_step` to `first_step + steps - 1`, augmented.

    Args:
        index: the pictures.
        config: sampler, batch, augmentation, picture size, seed.
        loader: reads the pictures.
        first_step: number of the first batch.
        steps: how many.
        neighbours: of a batch's number, the people who look like each person; see `facekit.identities.Snapshots`.

    Returns:
        A dataset of `(images, labels)`: with the "tuplet" sampler images (B, 2 + N, H, W, 3) and labels (B, 2 + N),
        with "people" images (B, H, W, 3) and labels (B,); float32 0..255 and int32. Batch t is the same whatever
        the first step.
    """
    import tensorflow as tf

    from facekit.augment import Augmentation

    sampler = make_sampler(index, config)
    augmentation = Augmentation(**config.augment.model_dump())
    tuplets = (2 + config.negatives_per_tuplet,) if config.sampler == "tuplet" else ()
    shape = (config.batch_size, *tuplets)
    picture = (config.image_size, config.image_size, 3)

    def read(step: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
        positions = sampler.batch(int(step), neighbours(int(step)))
        return loader.load(positions), index.labels[positions].astype(np.int32)

    def load_and_augment(step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        images, labels = tf.numpy_function(read, [step], [tf.uint8, tf.int32])
        flat = tf.reshape(images, (-1, *picture))
        images = augmentation(flat, tf.stack([tf.constant(config.seed, tf.int64), step]))
        return tf.reshape(images, (*shape, *picture)), tf.reshape(labels, shape)

    stream = tf.data.Dataset.range(first_step, first_step + steps)
    stream = stream.map(load_and_augment, num_parallel_calls=2, deterministic=True)
    return stream.prefetch(READ_AHEAD)


def validation_pairs(index: PeopleIndex, config: Config) -> Pairs:
    """Pairs of held-out people's pictures, drawn once for a run: half genuine, half impostor."""
    return draw_pairs(index, config.validation_pairs, config.seed)


def draw_pairs(index: PeopleIndex, count: int, seed: int) -> Pairs:
    """Draw pairs of an index's pictures; see `facekit.sampling.verification_pairs`."""
    positions, same = verification_pairs(index.labels, count, seed)
    first, second = ([index.paths[position] for position in column] for column in positions.T)
    return Pairs(first, second, same)


def index_command(directory: Path, /) -> None:
    """Say how many people and pictures a folder holds, and what they can be used for.

    Args:
        directory: a folder with one folder a person.
    """
    print(f"{directory}: {index_people(directory, 'directory').describe()}.")


def hold_out_command(
    directory: Path, /, output_dir: Path, share: float = 0.15, pairs: int = 2000, seed: int = 0
) -> None:
    """Choose people to test on and draw pairs of them, before any training sees the folder.

    Writes test_people.txt, for the setting `exclude_people`, and test_pairs.csv, for evaluate.py --pairs.

    Args:
        directory: a folder with one folder a person.
        output_dir: where the two lists go.
        share: share of the people to hold out, between 0 and 1.
        pairs: pairs to draw, half genuine, half impostor.
        seed: seed of both draws.
    """
    if not 0 < share < 1:
        raise ValueError(f"`share` must be between 0 and 1. Received: {share}.")
    index = index_people(directory, "directory")
    held = index.choose(split_people(index.counts, share, seed))
    drawn = draw_pairs(held, pairs, seed)
    check_writable(output_dir, "output_dir")
    write_text(output_dir / "test_people.txt", "".join(f"{name}\n" for name in held.people))
    write_text(output_dir / "test_pairs.csv", pairs_csv(drawn))
    print(f"Held out: {held.describe()}. Pairs: {drawn.same.sum():,} genuine, {(~drawn.same).sum():,} impostor.")
    print(f"Next: python train.py --train_dir {directory} --exclude_people {output_dir / 'test_people.txt'}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns its exit code: 0 done, 2 wrong input."""
    import tyro

    commands: dict[str, Callable[..., None]] = {"index": index_command, "hold_out": hold_out_command}
    try:
        tyro.extras.subcommand_cli_from_dict(commands, args=argv, use_underscores=True, description=SUMMARY)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
