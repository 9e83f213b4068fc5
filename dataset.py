"""People's folders as training batches: index, split by identity, stream.

In:  a folder a person, pictures inside, best made by crop_faces.py.
Out: `tf.data` streams of augmented tuplets (anchor, positive, negatives) or of P people times K pictures, whose
     batch t is a pure function of (seed, t); pairs to verify on.
Run: python dataset.py index crops
     python dataset.py check crops
     python dataset.py hold_out crops --share 0.15 --pairs 2000 --output_dir lists
     python dataset.py preview crops
     python dataset.py pack crops --output_dir packed
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import tyro
from numpy.typing import NDArray
from pydantic import Field

from config import Config
from facekit.files import check_writable, write_text
from facekit.images import write_png
from facekit.index import PeopleIndex
from facekit.loading import Cache, PictureLoader
from facekit.manifest import crop_folder
from facekit.name_list import names_text, read_names
from facekit.packed import is_packed, reader, stamps
from facekit.picture_cache import FileCache, MemoryCache
from facekit.protocols import Pairs, pairs_csv
from facekit.sampling import (
    PeopleSampler,
    Sampler,
    TupletSampler,
    people_a_batch,
    split_people,
    verification_pairs,
)
from facekit.settings import Settings, parse, read_settings
from splits import make_split, open_people, picture_weights, without_pictures

if TYPE_CHECKING:
    import tensorflow as tf

    from facekit.augment import Augmentation


def fitted(config: Config, index: PeopleIndex) -> Config:
    """The settings with a `batch_size` that these people can fill: smaller where there are too few of them."""
    if config.sampler != "people":
        return config
    people = people_a_batch(index.counts, config.batch_size, config.pictures_per_person)
    # Two people are the least that can be compared; the sampler says what is wrong with fewer.
    return config.model_copy(update={"batch_size": max(2, people) * config.pictures_per_person})


def make_sampler(index: PeopleIndex, config: Config) -> Sampler:
    """The sampler that the config names.

    Raises:
        ValueError: the people cannot fill a batch, or `picture_weights` is wrong.
    """
    config, weights = fitted(config, index), picture_weights(index, config)
    if config.sampler == "tuplet":
        return TupletSampler(
            index.labels, config.batch_size, config.negatives_per_tuplet, config.seed, config.balance, weights
        )
    return PeopleSampler(
        index.labels, config.batch_size, config.pictures_per_person, config.seed, config.balance, weights
    )


def steps_per_epoch(index: PeopleIndex, config: Config) -> int:
    """Steps of an epoch: as set, or as many as show about as many pictures as there are."""
    return config.steps_per_epoch or max(1, round(len(index) / fitted(config, index).pictures_per_step))


def make_loader(index: PeopleIndex, config: Config) -> PictureLoader:
    """The reader of an index's pictures, with the cache that the config asks for.

    Raises:
        ValueError: the cache does not fit, or its folder cannot be written.
    """
    return PictureLoader(
        index, config.image_size, config.read_threads, reader(index.root), make_cache(index, config)
    )


def make_cache(index: PeopleIndex, config: Config) -> Cache | None:
    """Where decoded pictures of an index are kept, as the config asks.

    Raises:
        ValueError: they do not fit, or the folder cannot be written.
    """
    if config.cache == "none":
        return None
    if config.cache == "memory":
        return MemoryCache(len(index), config.image_size, config.cache_gb)
    check_writable(config.cache_dir, "cache_dir")
    # By its pictures, so that runs on parts of a folder do not take turns in replacing each other's cache.
    folder = config.cache_dir / f"{index.digest[:16]}-{config.image_size}"
    return FileCache(folder, index, config.image_size, config.cache_gb, stamps(index))


def make_augmentation(config: Config) -> Augmentation:
    """The random changes of the config, placed for the way in which the training pictures were cut."""
    from facekit.augment import Augmentation

    return Augmentation(config.augment.as_mapping(), *crop_frame(config.train_dir))


def crop_frame(folder: Path) -> tuple[float, str]:
    """The room that a folder's crops leave around the face, and their layout; the usual where it is not known."""
    made = crop_folder(folder)
    if made is None:
        return 0.0, "arcface"
    return made.recipe.margin, made.recipe.template if made.recipe.method == "align" else "arcface"


def training_stream(
    index: PeopleIndex,
    config: Config,
    loader: PictureLoader,
    steps: range,
    neighbours: Callable[[int], NDArray[np.int32] | None] = lambda step: None,
) -> tf.data.Dataset:
    """The batches of these steps, augmented.

    Args:
        index: the pictures.
        config: sampler, batch, augmentation, picture size, seed.
        loader: reads the pictures.
        steps: numbers of the batches.
        neighbours: of a batch's number, the people who look like each person; see `facekit.identities.Snapshots`.

    Returns:
        A dataset of `(images, labels)`: with the "tuplet" sampler images (B, 2 + N, H, W, 3) and labels (B, 2 + N),
        with "people" images (B, H, W, 3) and labels (B,); uint8 and int32. Batch t is the same whatever the first
        step.
    """
    from facekit.stream import batches

    sampler, augmentation = make_sampler(index, config), make_augmentation(config)
    if config.input_service:
        if is_packed(index.root) or crop_folder(index.root) is None:
            raise ValueError(
                f"{index.root}: `input_service` reads folders that crop_faces.py made, as files: it turns no "
                "picture upright and cannot read packed shards. Unset it, or set `train_dir` to such a folder."
            )
        from facekit.served import served_batches

        return served_batches(config.input_service, sampler, loader, index, steps, augmentation, config.seed)
    return batches(sampler, loader, index.labels, steps, augmentation, config.seed, neighbours)


def validation_pairs(index: PeopleIndex, config: Config) -> Pairs:
    """Pairs of held-out people's pictures, drawn once for a run: half genuine, half impostor."""
    return draw_pairs(index, config.validation_pairs, config.seed)


def draw_pairs(index: PeopleIndex, count: int, seed: int) -> Pairs:
    """Draw pairs of an index's pictures; see `facekit.sampling.verification_pairs`."""
    positions, same = verification_pairs(index.labels, count, seed)
    first, second = ([index.paths[position] for position in column] for column in positions.T)
    return Pairs(first, second, same)


class IndexCommand(Config):
    """Say what a folder holds, and what training with these settings would make of it.

    All of train.py's settings can be given: --min_images 10 --sampler people --batch_size 320.
    """

    directory: tyro.conf.Positional[Path]
    """A folder with one folder a person."""

    config: Path | None = None
    """Start from this saved config.json instead of the defaults; other options change it."""

    fresh: bool = False
    """List every file again, also in folders that seem unchanged."""


def index_command(argv: Sequence[str]) -> int:
    """Print the index in words, the split, and what an epoch is."""
    from facekit.epoch import count_epoch

    command = _with_saved(IndexCommand, argv)
    index = open_people(command.directory, "directory", command.fresh)
    print(f"{command.directory}: {index.describe()}.")
    if index.passed_over:
        print(f"{index.passed_over:,} names like a picture's are no files (broken links, folders): passed over.")
    settings = {**command.model_dump(exclude={"directory", "config", "fresh"}), "train_dir": command.directory}
    try:
        config = Config(**settings)
        split = make_split(config)
        print(f"Training on {split.train.describe()}.\nHeld out: {split.validation.describe(trains=False)}.")
        for part in config.parts:
            epoch = count_epoch(
                make_sampler(split.train, part), steps_per_epoch(split.train, part), split.train.labels
            )
            print(epoch.in_words())
    except ValueError as error:
        print(f"Not to train on with these settings: {error}")
    return 0


class HoldOutCommand(Settings):
    """Choose people to test on and draw pairs of them, before any training sees the folder.

    Writes test_people.txt, for the setting `exclude_people`, and test_pairs.csv, for evaluate.py --pairs.
    """

    directory: tyro.conf.Positional[Path]
    """A folder with one folder a person."""

    output_dir: Path
    """Where the two lists go."""

    share: float = Field(0.15, gt=0, lt=1)
    """Share of the people to hold out, between 0 and 1."""

    pairs: int = Field(2000, ge=2)
    """Pairs to draw, half genuine, half impostor."""

    exclude_pictures: Path | None = None
    """Text file of pictures not to test on, such as exclude.txt of `python dataset.py check`."""

    seed: int = Field(0, ge=0)
    """Seed of both draws."""


def hold_out_command(argv: Sequence[str]) -> int:
    """Write the lists of a `HoldOutCommand`."""
    command = parse(HoldOutCommand, argv, program="dataset.py hold_out")
    index, output_dir = open_people(command.directory, "directory"), command.output_dir
    if command.exclude_pictures:
        names = read_names(command.exclude_pictures, "exclude_pictures")
        index, unknown = without_pictures(index, names)
        known = len(names) - len(unknown)
        print(f"{known:,} line{'' if known == 1 else 's'} of {command.exclude_pictures} left out.")
    chosen = split_people(index.counts, command.share, command.seed)
    # A list of pairs has a line for each: names that hold a line break stay on the training side.
    broken = {path.split("/", 1)[0] for path in index.paths if "\n" in path or "\r" in path}
    held = index.choose(chosen & np.array([name not in broken for name in index.people], bool))
    drawn = draw_pairs(held, command.pairs, command.seed)
    check_writable(output_dir, "output_dir")
    write_text(output_dir / "test_people.txt", names_text(held.people))
    write_text(output_dir / "test_pairs.csv", pairs_csv(drawn))
    print(
        f"Held out: {held.describe(trains=False)}. Pairs: {drawn.same.sum():,} genuine, "
        f"{(~drawn.same).sum():,} impostor."
    )
    pictures = f" --exclude_pictures {command.exclude_pictures}" if command.exclude_pictures else ""
    print(
        f"Next: python train.py --train_dir {command.directory} --exclude_people {output_dir / 'test_people.txt'}"
        + pictures
    )
    return 0


class PreviewCommand(Config):
    """Draw a contact sheet of the random changes to training pictures: each alone, then all as configured.

    All of train.py's settings can be given: --augment.rotation.strength 20 --augment.mask.probability 0.1.
    """

    directory: tyro.conf.Positional[Path]
    """A folder with one folder a person."""

    config: Path | None = None
    """Start from this saved config.json instead of the defaults; other options change it."""

    output: Path = Path("augmentations.png")
    """The picture to write, PNG."""

    pictures: int = Field(4, ge=1, le=50)
    """Pictures to show, each of another person, drawn by `seed`."""

    columns: int = Field(8, ge=2, le=20)
    """Pictures a row: the unchanged one and draws of the change."""


def preview_command(argv: Sequence[str]) -> int:
    """Draw the sheet of a `PreviewCommand`."""
    from facekit.augment_preview import preview_rows
    from facekit.contact_sheet import contact_sheet

    command = _with_saved(PreviewCommand, argv)
    if command.output.suffix.lower() != ".png":
        raise ValueError(f"`output` must end in .png. Received: {command.output}.")
    index = open_people(command.directory, "directory")
    people = np.random.default_rng(command.seed).permutation(len(index.people))[: command.pictures]
    positions = np.searchsorted(index.labels, people)
    images = list(PictureLoader(index, command.image_size, read=reader(index.root)).load(positions))
    titles, rows = preview_rows(
        images, command.augment.as_mapping(), command.seed, command.columns, *crop_frame(command.directory)
    )
    write_png(command.output, contact_sheet(rows, titles, max(112, command.image_size)))
    print(f"{len(rows)} rows of {command.columns} pictures: {command.output}")
    return 0


CommandType = TypeVar("CommandType", IndexCommand, PreviewCommand)


def _with_saved(kind: type[CommandType], argv: Sequence[str]) -> CommandType:
    """A command with training settings: from the file that --config names, changed by the other options."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path)
    given, _ = first.parse_known_args(argv)
    default = None
    if given.config:
        saved = read_settings(given.config, Config)
        default = kind(**{"directory": saved.train_dir, **saved.model_dump()})
    return parse(kind, argv, default, program=f"dataset.py {kind.__name__.removesuffix('Command').lower()}")


def check_command(argv: Sequence[str]) -> int:
    """Look for what is broken, doubled, of bad quality or in the wrong folder."""
    import checking

    return checking.main(argv)


def pack_command(argv: Sequence[str]) -> int:
    """Put a folder's pictures into a few large files."""
    import packing

    return packing.main(argv)


COMMANDS: dict[str, tuple[str, Callable[[Sequence[str]], int]]] = {
    "index": ("what a folder holds, and what training would make of it", index_command),
    "check": ("the doctor: what is broken, doubled, of bad quality or in the wrong folder", check_command),
    "hold_out": ("people to test on, and pairs of them", hold_out_command),
    "preview": ("a contact sheet of the random changes to training pictures", preview_command),
    "pack": ("a folder's pictures in a few large files, for network disks", pack_command),
}
"""What can be done with a folder, by name: a few words, and the function that takes the other arguments."""

USAGE = "usage: python dataset.py COMMAND [options], or --help after the command\n\n" + "\n".join(
    f"  {name:<9} {words}" for name, (words, _) in COMMANDS.items()
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; returns its exit code: 0 done, 1 (check) something found, 2 wrong input, 130 stopped."""
    name, *options = (sys.argv[1:] if argv is None else list(argv)) or [""]
    if name not in COMMANDS:
        asked = name in ("-h", "--help")
        print(USAGE if asked else f"error: no command {name!r}\n{USAGE}", file=sys.stdout if asked else sys.stderr)
        return 0 if asked else 2
    try:
        return COMMANDS[name][1](options)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
