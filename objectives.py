"""From the settings of a stage to what it minimises, and to the optimizer that does it.

In:  a `Config` (loss, extra_losses, their options, mining, memory, optimizer) and how many people train.
Out: an `Objective` with its losses, heads, miner and memory; a Keras optimizer.
Run: python train.py --loss arcface
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from combinations import HEADS, TRIPLET_MINING, option_values
from config import Config

if TYPE_CHECKING:
    import keras

    from facekit.heads import Head
    from facekit.miner import Miner
    from facekit.objective import Objective
    from facekit.pair_loss import PairLoss


def build_objective(config: Config, people: int) -> Objective:
    """What a stage minimises.

    Args:
        config: the stage's settings.
        people: training people, the classes of a head.

    Raises:
        ValueError: an option of a loss or head is wrong.
    """
    from facekit.identities import ClassCentres
    from facekit.memory import CrossBatchMemory
    from facekit.objective import Objective

    on_pairs, heads = [], []
    for name, options, weight in _losses(config):
        try:
            if name in HEADS:
                heads.append((_build_head(name, options, people, config.seed), weight))
            else:
                on_pairs.append((build_loss(name, options), weight))
        except ValueError as error:
            raise ValueError(f"loss {name}: {error}") from None
    return Objective(
        losses=[loss for loss, _ in on_pairs],
        heads=[head for head, _ in heads],
        weights=[weight for _, weight in on_pairs + heads],
        whole_batch=config.negatives == "batch",
        miner=_build_miner(config),
        memory=CrossBatchMemory(config.memory_size, config.memory_start) if config.memory_size else None,
        centres=ClassCentres(people) if config.hard_identity_steps else None,
    )


def _losses(config: Config) -> Iterator[tuple[str, dict[str, Any], float]]:
    """Name, options and weight of each loss and head."""
    options = option_values(config)
    if config.loss == "triplet":
        # Mining that the loss does not do itself leaves it fewer pairs, all of whose triplets count.
        by_itself = config.mining is None or config.mining in TRIPLET_MINING
        options["mining"] = config.mining if by_itself else "all"
    yield config.loss, options, 1.0
    for extra in config.extra_losses:
        yield extra.loss, dict(extra.options), extra.weight


def build_loss(name: str, options: dict[str, Any]) -> PairLoss:
    """A loss on pairs."""
    import losses

    return losses.get(name, **options)


def _build_head(name: str, options: dict[str, Any], people: int, seed: int) -> Head:
    from facekit import heads

    return heads.get(name, people, **options, seed=seed)


def _build_miner(config: Config) -> Miner | None:
    from facekit.miner import Miner

    if config.mining in (None, "all") or (config.loss == "triplet" and config.mining in TRIPLET_MINING):
        return None
    return Miner(config.mining, count=config.mining_count, seed=config.seed)


def usual_keys(config: Config) -> tuple[int, int]:
    """Positives and negatives that an anchor usually has in a batch, which a collapsed model's loss depends on."""
    if config.negatives == "tuplet":
        return 1, config.negatives_per_tuplet
    own = 2 if config.sampler == "tuplet" else config.pictures_per_person
    return own - 1, config.pictures_per_step - own


def build_optimizer(config: Config, factors: Sequence[float] = ()) -> keras.optimizers.Optimizer:
    """The optimizer that the config names; the learning rate is set step by step while training.

    Args:
        config: the stage's settings.
        factors: what the rate is multiplied by for each variable that it will be built with; (): 1.
    """
    import keras

    from facekit.layer_rates import with_own_rates

    common = {"learning_rate": config.learning_rate, "global_clipnorm": config.clip_norm}
    if config.optimizer == "adam":
        return with_own_rates(keras.optimizers.Adam, factors)(**common)
    if config.optimizer == "adamw":
        optimizer = with_own_rates(keras.optimizers.AdamW, factors)(weight_decay=config.weight_decay, **common)
    else:
        optimizer = with_own_rates(keras.optimizers.SGD, factors)(
            momentum=config.momentum,
            nesterov=config.momentum > 0,
            weight_decay=config.weight_decay or None,
            **common,
        )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
