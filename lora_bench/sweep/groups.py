"""The groups of a sweep: runs that are trained in one pass over the frozen encoder."""

import json
from collections.abc import Iterable

from ..training.compatible import shared_settings
from ..training.prepared import Planned

# Matrix products are at the machine's rate from some thousand tokens a step, and a larger group
# only gives its first record later: see results/speed/group.md.
ENOUGH_EXAMPLES = 256  # of a step, all runs of a group together


def groups(runs: Iterable[Planned]) -> list[list[Planned]]:
    """Runs in groups, in the order of each group's first run.

    ``Spec.group`` is the most runs of a group. Where it is not set, a group has as many runs as
    make ENOUGH_EXAMPLES in a step.

    Args:
        runs: still to do.
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
        if group is None or len(group) >= most(run):
            group = open_groups[name] = []
            found.append(group)
        group.append(run)
    return found


def most(run: Planned) -> int:
    """The number of runs in a group with ``run``, at most."""
    return run.spec.group or max(1, ENOUGH_EXAMPLES // run.spec.train.batch_size)
