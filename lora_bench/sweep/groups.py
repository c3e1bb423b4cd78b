"""The groups of a sweep: runs that are trained in one pass over the frozen encoder."""

import json
from collections.abc import Collection, Iterable

from ..errors import SpecError
from ..spec import Spec, device_kind
from ..training.compatible import shared_settings
from ..training.prepared import Planned

# Examples per step, over all runs of a group. On a CPU, more gain little for short texts, are
# slower for longer ones, and need more memory: see results/speed/amx/group.md.
ENOUGH_EXAMPLES = {"cpu": 128, "cuda": 256}


def groups(runs: Iterable[Planned]) -> list[list[Planned]]:
    """Divide runs into groups, in the order of each group's first run.

    ``Spec.group`` is the maximum number of runs in a group. If it is not set, a group has as many
    runs as needed for ENOUGH_EXAMPLES in a step.

    Args:
        runs: the runs that are still to do.
    """
    found: list[list[Planned]] = []
    open_groups: dict[str, list[Planned]] = {}  # the latest group of the runs that fit together
    for run in runs:
        shared = shared_settings(run.spec)
        if shared is None:
            found.append([run])
            continue
        name = json.dumps(shared, sort_keys=True)
        group = open_groups.get(name)
        if group is None or len(group) >= max_group_size(run):
            group = open_groups[name] = []
            found.append(group)
        group.append(run)
    return found


def max_group_size(run: Planned) -> int:
    """The maximum number of runs in a group with ``run``."""
    enough = ENOUGH_EXAMPLES[device_kind(run.spec.device)]
    return run.spec.group or max(1, enough // run.spec.train.batch_size)


def check_group(specs: Collection[Spec], *, multirun: bool) -> None:
    """Refuse a number of runs per group where it would have no effect.

    Args:
        specs: settings of all runs of a command.
        multirun: whether it is a sweep (``-m``).

    Raises:
        SpecError: the command is not a sweep, or none of its runs can be in a group.
    """
    sized = [spec for spec in specs if spec.group is not None]
    if not sized:
        return
    if not multirun:
        raise SpecError("group", sized[0].group, "only applies to a sweep; add -m")
    if all(shared_settings(spec) is None for spec in sized):
        methods = ", ".join(sorted({spec.method.name for spec in sized}))
        reason = f"has no effect: no run of this sweep can be in a group (method={methods})"
        raise SpecError("group", sized[0].group, reason)
