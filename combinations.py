"""Which settings fit together: every contradiction is one sentence, found before anything is read or trained."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from math import pi
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from config import Config

# The smallest pictures that each network accepts, in pixels a side: below it, no cell is left at the end.
SMALLEST_IMAGE = {
    "small": 32,
    "resnet18": 32,
    "resnet50": 32,
    "mobilenet_v2": 32,
    "efficientnet_b0": 32,
    "inception_v3": 75,
    "inception_resnet_v1": 80,
    "dlib_resnet29": 105,
}
BACKBONES_WITH_IMAGENET = ("resnet50", "inception_v3", "mobilenet_v2", "efficientnet_b0")

# Which of the settings each loss takes. A loss on pairs takes `mining` besides; the heads come last.
LOSS_OPTIONS: dict[str, tuple[str, ...]] = {
    "tuplet_margin": ("margin", "scale", "hardest"),
    "tuplet_margin_ipv": ("margin", "scale", "hardest", "epsilon"),
    "triplet": ("margin", "squared", "soft", "hardest", "average"),
    "contrastive": ("margin",),
    "n_pair": ("scale",),
    "multi_similarity": ("alpha", "beta", "base"),
    "circle": ("margin", "scale"),
    "supcon": ("temperature",),
    "intra_pair_variance": ("epsilon",),
    "softmax": ("subcentres", "sampled"),
    "arcface": ("margin", "scale", "subcentres", "sampled"),
    "cosface": ("margin", "scale", "subcentres", "sampled"),
    "adaface": ("margin", "scale", "h", "subcentres", "sampled"),
}
OPTIONS = tuple(dict.fromkeys(option for options in LOSS_OPTIONS.values() for option in options))
HEADS = ("softmax", "arcface", "cosface", "adaface")
# Chosen inside the triplet loss itself, positive by positive; other kinds of mining leave fewer pairs to any loss.
TRIPLET_MINING = ("all", "semi_hard", "hard")

# Angles but for triplet's, contrastive's (distances) and circle's, cosface's (cosines).
LARGEST_MARGIN = {
    "tuplet_margin": pi / 2,
    "tuplet_margin_ipv": pi / 2,
    "triplet": 2.0,
    "contrastive": 2.0,
    "circle": 1.0,
    "arcface": pi / 2,
    "cosface": 2.0,
    "adaface": pi / 2,
}

STAGE_SETTINGS = (
    "epochs", "loss", "extra_losses", *OPTIONS, "mining", "mining_count", "mining_switch", "negatives",
    "memory_size", "memory_start", "hard_identity_steps", "sampler", "batch_size", "negatives_per_tuplet",
    "pictures_per_person", "steps_per_epoch", "augment", "freeze", "freeze_batch_norm", "distill", "optimizer",
    "learning_rate", "layer_decay", "learning_rates", "weight_decay", "momentum", "schedule",
    "warmup_epochs", "plateau_patience", "plateau_factor", "clip_norm", "early_stopping_patience",
    "stop_on_collapse",
)  # fmt: skip


def option_values(config: Config) -> dict[str, Any]:
    """The loss's options that are set, by name."""
    values = {option: getattr(config, option) for option in OPTIONS}
    return {option: value for option, value in values.items() if value is not None and value is not False}


def problems(config: Config) -> list[str]:
    """One sentence for every pair of settings that contradict each other."""
    parts = (
        _input_problems, _batch_problems, _loss_problems, _extra_problems, _pair_problems, _start_problems,
        _other_problems,
    )  # fmt: skip
    return [sentence for part in parts for sentence in part(config)]


def stage_problem(changes: Mapping[str, Any], known: Collection[str]) -> str | None:
    """What is wrong with the names of a stage's settings, if anything; unknown ones are not looked at."""
    if "epochs" not in changes:
        return "needs its `epochs`."
    for name in changes:
        if name in known and name not in STAGE_SETTINGS:
            return f"`{name}` belongs to the whole run; set it outside `stages`."
    return None


def _input_problems(c: Config) -> Iterator[str]:
    if not c.input_service:
        return
    host, _, port = c.input_service.rpartition(":")
    if not host or not port.isdecimal():
        yield f"`input_service` must be host:port. Received: {c.input_service!r}."
    if c.cache != "none":
        yield f'`input_service` reads on other machines, where `cache` {c.cache!r} keeps nothing. Set it to "none".'
    if c.hard_identity_steps or any(stage.get("hard_identity_steps") for stage in c.stages):
        yield "`input_service` is told all batches of a stage beforehand, so it excludes `hard_identity_steps`."


def _batch_problems(c: Config) -> Iterator[str]:
    if c.image_size < (smallest := SMALLEST_IMAGE[c.backbone]):
        yield f"`image_size` must be at least {smallest} for backbone={c.backbone!r}. Received: {c.image_size}."
    if c.sampler != "people":
        return
    if c.batch_size % c.pictures_per_person:
        yield (
            f"`batch_size` must be a multiple of `pictures_per_person` ({c.pictures_per_person}) with "
            f'sampler="people". Received: {c.batch_size}.'
        )
    if c.batch_size < 2 * c.pictures_per_person:
        yield (
            f"`batch_size` must hold at least two people ({2 * c.pictures_per_person} pictures) with "
            f'sampler="people". Received: {c.batch_size}.'
        )
    if c.negatives == "tuplet":
        yield '`negatives="tuplet"` needs sampler="tuplet": the "people" sampler draws no tuplets.'


def _loss_problems(c: Config) -> Iterator[str]:
    for option in option_values(c):
        if option not in LOSS_OPTIONS[c.loss]:
            owners = ", ".join(name for name, options in LOSS_OPTIONS.items() if option in options)
            yield f"`{option}` belongs to {owners}; loss is {c.loss!r}."
    largest = 4.0 if c.squared else LARGEST_MARGIN.get(c.loss, pi)
    if c.margin is not None and c.margin >= largest:
        limit = "pi / 2 radians" if largest == pi / 2 else f"{largest:g}"
        yield f"`margin` must be in (0, {limit}) for loss={c.loss!r}. Received: {c.margin:g}."
    if c.sampled is not None and c.sampled < c.pictures_per_step:
        yield f"`sampled` must be at least the pictures of a step, {c.pictures_per_step}. Received: {c.sampled}."
    if c.loss == "triplet" and c.mining is not None and c.hardest is not None:
        yield "`mining` and `hardest` exclude each other: set one to None."
    if c.soft and c.mining != "hard":
        yield '`soft=True` needs mining="hard".'
    if c.average == "all" and c.mining != "all":
        yield '`average="all"` needs mining="all".'


def _extra_problems(c: Config) -> Iterator[str]:
    """The options of further losses are arguments of theirs, not settings: nothing else looks at their names."""
    for extra in c.extra_losses:
        known = LOSS_OPTIONS[extra.loss] + (("mining",) if extra.loss == "triplet" else ())
        for option in extra.options:
            if option not in known:
                yield f"`extra_losses`: {extra.loss} has no option `{option}`. There are {', '.join(known)}."
        sampled = extra.options.get("sampled")
        if isinstance(sampled, int) and sampled < c.pictures_per_step:
            yield f"`extra_losses`: `sampled` must be at least the pictures of a step, {c.pictures_per_step}."


def _pair_problems(c: Config) -> Iterator[str]:
    """Mining and memory change pairs: there must be a loss on pairs, and keys that anchors share."""
    on_pairs = any(name not in HEADS for name in (c.loss, *(extra.loss for extra in c.extra_losses)))
    if c.mining is not None and not on_pairs:
        yield f"`mining` chooses pairs, and {c.loss!r} has none; set it to None."
    if c.memory_size and not on_pairs:
        yield f"`memory_size` adds pairs, and {c.loss!r} has none; set it to 0."
    if c.memory_size and c.negatives == "tuplet":
        yield '`memory_size` needs negatives="batch": with "tuplet" an anchor sees its own negatives only.'
    if 0 < c.hard_identity_steps < 50:
        yield f"`hard_identity_steps` must be 0 or at least 50. Received: {c.hard_identity_steps}."


def _start_problems(c: Config) -> Iterator[str]:
    """What looks back to where training started, where that is nothing but random numbers."""
    if c.weights is not None:
        return
    if not c.epochs:
        yield "`epochs` 0 leaves the network as it starts, so it needs `weights` to start from."
    if c.distill:
        yield "`distill` keeps embeddings near the start's, so it needs `weights` to start from; set it to 0."
    if c.interpolate:
        yield "`interpolate` goes back towards the start, so it needs `weights` to start from; set it to False."


def _other_problems(c: Config) -> Iterator[str]:
    if c.freeze_batch_norm == "statistics" and c.dropout:
        yield '`freeze_batch_norm="statistics"` trains the network as it computes in use; set `dropout` to 0.'
    if c.weights == "imagenet" and c.backbone not in BACKBONES_WITH_IMAGENET:
        yield (f'`weights="imagenet"` exists for {", ".join(BACKBONES_WITH_IMAGENET)}; backbone is {c.backbone!r}.')
    if c.weights == "dlib" and (c.backbone, c.pooling) != ("dlib_resnet29", "average"):
        yield (
            f'`weights="dlib"` is for backbone dlib_resnet29 with pooling average; backbone is {c.backbone!r}. Set '
            "backbone dlib_resnet29, image_size 150, embedding_size 128, as configs/finetune_light.json has them."
        )
    if c.target_fmr is not None and c.target_fmr < 3 / (c.validation_pairs / 2):
        yield (
            f"`target_fmr` {c.target_fmr} needs at least {3 / c.target_fmr:.0f} impostor pairs; set "
            f"`validation_pairs` to at least {6 / c.target_fmr:.0f}."
        )
