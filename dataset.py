"""People's folders as training batches: index, split by identity, stream.

In:  a folder a person, pictures inside, best made by crop_faces.py.
Out: `tf.data` streams of augmented tuplets (anchor, positive, negatives) or of P people times K pictures, whose
     batch t is a pure function of (seed, t); pairs to verify on.
Run: python dataset.py index crops
     python dataset.py hold_out crops --share 0.15 --pairs 2000 --output_dir lists
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from config import Config
from facekit.files import check_writable, write_text
from facekit.index import PeopleIndex, index_people
from facekit.loading import PictureLoader
from facekit.protocols import Pairs, pairs_csv
from facekit.sampling import PeopleSampler, Sampler, TupletSampler, split_people, verification_pairs

if TYPE_CHECKING:
    import tensorflow as tf

# Batches read before they are needed. Hard-identity batches lean on it being well below `hard_identity_steps`.
READ_AHEAD = 4
SUMMARY = "Folders of people: see what they hold, and hold people out for a test."


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
