"""Which runs can be trained in one pass."""

from typing import Any

from ..methods import method_class
from ..spec import Spec, is_within, settings

# Settings that may differ between the runs of a group; all other settings are equal.
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
    """The settings that a run shares with all runs of its group; None: it is trained alone.

    The lowest trained layer is among them: gradients flow down to the lowest one in the group, so
    a run that does not need them would pay for the others.
    """
    method = method_class(spec.method)
    if not method.grouped_in(spec):
        return None
    shared = {
        path: value
        for path, value in settings(spec).items()
        if not any(is_within(path, own) for own in PER_RUN)
    }
    return {**shared, "lowest trained layer": method.lowest_trained(spec)}
