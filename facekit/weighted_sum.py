"""Several losses as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from facekit.arguments import number_between
from facekit.formulas import Terms
from facekit.pair_loss import PairLoss
from facekit.pairwise import Pairs


@keras.saving.register_keras_serializable(package="tupletface")
class WeightedSum(PairLoss):
    """A weighted sum of losses. Logs follow the first, so the main one comes first.

    Args:
        losses: at least one; their own `reduction` is not used.
        weights: one for each, greater than 0.
        **keras_options: `name` and `reduction`, as for every Keras loss.

    Raises:
        ValueError: there are no losses, or not as many weights, or a weight is out of range.
    """

    def __init__(self, losses: Sequence[PairLoss], weights: Sequence[float], **keras_options: Any):
        super().__init__(**keras_options)
        if not losses or len(losses) != len(weights):
            raise ValueError(
                "Expected at least one loss, and a weight for each. "
                f"Received: {len(losses)} losses, {len(weights)} weights"
            )
        self.losses = tuple(losses)
        self.weights = tuple(number_between("weights", weight, "(0, inf)") for weight in weights)

    def terms(self, pairs: Pairs) -> tuple[Terms, ...]:
        """Those of all its losses, times their weights."""
        return tuple(
            terms._replace(total=weight * terms.total)
            for loss, weight in zip(self.losses, self.weights, strict=True)
            for terms in loss.terms(pairs)
        )

    def get_config(self) -> dict[str, Any]:
        """The arguments, for `from_config`."""
        losses = [keras.saving.serialize_keras_object(loss) for loss in self.losses]
        return {**super().get_config(), "losses": losses, "weights": list(self.weights)}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WeightedSum:
        """The sum of this configuration."""
        losses = [keras.saving.deserialize_keras_object(loss) for loss in config["losses"]]
        return cls(**{**config, "losses": losses})
