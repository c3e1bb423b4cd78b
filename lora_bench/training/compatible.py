"""Which runs can be trained in one pass."""

from typing import Any

from ..methods import method_class
from ..spec import Spec, settings

# What each run of a group has of its own; in every other setting its runs are equal.
PER_RUN = (
    "method",
    "train.lr",
    "train.warmup",
    "train.weight_decay",
    "train.max_grad_norm",
    "train.optimizer",
    "head",
    "init_from",
    "seed",
)


def shared_settings(spec: Spec) -> dict[str, Any] | None:
    """The settings that a run shares with those it can be trained with; None: it trains alone.

    The lowest trained layer is among them: gradients flow down to the lowest one of the group, so
    a run that needs none of them would pay for the others.
    """
    method = method_class(spec.method)
    if not method.grouped_in(spec):
        return None
    shared = {
        path: value
        for path, value in settings(spec).items()
        if not any(path == own or path.startswith(f"{own}.") for own in PER_RUN)
    }
    return {**shared, "lowest trained layer": method.lowest_trained(spec)}
