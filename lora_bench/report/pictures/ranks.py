"""Mean ranks over tasks, with bars that join systems that a test does not distinguish."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from ...errors import counted
from ..aggregates import compare_over_tasks, mean_ranks
from ..overall import Blocks, complete_blocks
from ..power import SIGNIFICANCE
from ..statistics import EXACT_SEEDS
from .style import COLORS, WIDTH, Named, short_names, write_title

MAX_SYSTEMS = 20
MAX_LETTERS = 22  # letters of a name
COLUMN = 0.09  # inches between bars
Run = tuple[int, int]  # first and last position of neighbors in rank


def rank_diagram(scored: pd.DataFrame, runs: pd.DataFrame) -> Named:
    """Mean rank of each system over the tasks and seeds that all of them have.

    A critical-difference diagram (Demšar 2006, figure 1), but each pair of systems is tested on
    its own scores, since a test of mean ranks depends on which other systems are included
    (Benavoli et al. 2016). It is vertical, which leaves room for names and intervals.
    """
    blocks = complete_blocks(scored)
    if blocks is None:
        return
    found = np.array(mean_ranks(blocks.arrays))
    order = np.argsort(found[:, 0], kind="stable")[:MAX_SYSTEMS]
    arrays = [own[order] for own in blocks.arrays]
    same = compare_over_tasks(arrays) > SIGNIFICANCE
    runs_of_equals = equal_neighbors(same)
    columns = stacked(runs_of_equals)
    side = COLUMN * (max(columns, default=0) + 2)
    size = (WIDTH, 1.0 + 0.15 * len(order))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=size, sharey=True, width_ratios=(WIDTH - side, side)
    )
    names = list(short_names([blocks.labels[i] for i in order], MAX_LETTERS).values())
    _points(left, names, found[order], has_spread=all(own.shape[1] > 1 for own in arrays))
    _bars(right, runs_of_equals, columns)
    write_title(figure, _title(blocks, len(order)), _notes(blocks, same, runs_of_equals))
    yield "ranks", figure


def equal_neighbors(same: np.ndarray) -> list[Run]:
    """The longest runs of two or more neighbors that are pairwise the same.

    Args:
        same: whether two systems are not distinguished, (systems, systems), in order of rank.
    """
    found: list[Run] = []
    for start in range(len(same) - 1):
        end = start
        while end + 1 < len(same) and same[start : end + 1, end + 1].all():
            end += 1
        if end > start and (not found or end > found[-1][1]):
            found.append((start, end))
    return found


def stacked(found: Sequence[Run]) -> list[int]:
    """A column for each run, so that runs in one column do not touch."""
    ends: list[int] = []  # end of the last run in each column
    columns = []
    for start, end in found:
        column = next((i for i, last in enumerate(ends) if last < start), len(ends))
        ends[column : column + 1] = [end]
        columns.append(column)
    return columns


def _points(axes: Axes, names: list[str], found: np.ndarray, has_spread: bool) -> None:
    """A point for each system, the best one on top, with its interval if there is one."""
    positions = np.arange(len(names))
    mean, low, high = found.T
    if has_spread:
        axes.hlines(positions, low, high, color=COLORS[0], linewidth=0.8)
    axes.plot(mean, positions, "o", color=COLORS[0])
    axes.set_yticks(positions, names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.margins(x=0.04)
    axes.set_xlabel(f"mean rank{', 95 % interval' if has_spread else ''} (1: best)")


def _bars(axes: Axes, found: Sequence[Run], columns: Sequence[int]) -> None:
    for (start, end), column in zip(found, columns, strict=True):
        axes.plot([column] * 2, [start - 0.25, end + 0.25], color="#222222", linewidth=2)
    axes.set_xlim(-1, max(columns, default=0) + 1)
    axes.set_axis_off()


def _title(blocks: Blocks, shown: int) -> str:
    count = sum(own.shape[1] for own in blocks.arrays)
    kind = "exact" if count <= EXACT_SEEDS else "sampled"
    test = f"{kind} sign flips over {counted(count, 'block')} of task and seed"
    return (
        f"mean rank over {counted(len(blocks.places), 'task')}; a bar joins systems without a "
        f"significant difference: {test}, Holm over {counted(shown * (shown - 1) // 2, 'pair')}, "
        f"{100 * SIGNIFICANCE:.0f} %"
    )


def _notes(blocks: Blocks, same: np.ndarray, found: Sequence[Run]) -> str:
    """Notes on systems that are not shown, pairs that no bar joins, and tests without power."""
    lines = []
    size, count = len(same), sum(own.shape[1] for own in blocks.arrays)
    if len(blocks.labels) > size:
        lines.append(f"the best {size} of {counted(len(blocks.labels), 'system')}")
    joined = np.eye(size, dtype=bool)
    for start, end in found:
        joined[start : end + 1, start : end + 1] = True
    if apart := int((same & ~joined).sum()) // 2:
        pairs = counted(apart, "pair")
        lines.append(f"also without a significant difference, but not adjacent: {pairs}")
    if size * (size - 1) / 2**count > SIGNIFICANCE:
        lines.append(f"too few for any significant difference: {counted(count, 'block')}")
    return "\n".join(lines)
