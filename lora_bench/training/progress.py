"""Shows what a run is doing, on terminals only."""

from typing import Any

from tqdm import tqdm

STAGE = "{desc} ..."  # for work without a number of steps


def bar(name: str, *, shown: bool, **options: Any) -> tqdm:
    """A progress bar that disappears when its block ends.

    Args:
        name: what is being done.
        shown: ``Spec.progress``; output to a file never gets a bar.
        options: options of tqdm, ``total`` and ``unit`` among them.
    """
    return tqdm(
        desc=name, disable=None if shown else True, dynamic_ncols=True, leave=False, **options
    )


def stage(name: str, *, shown: bool) -> tqdm:
    """A line that says what is being done until its block ends; arguments as in ``bar``."""
    return bar(name, shown=shown, bar_format=STAGE)
