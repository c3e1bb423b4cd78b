"""Systems over all tasks: average, interquartile mean and mean rank, without missing scores."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ..errors import counted
from .aggregates import interquartile_means, mean_ranks
from .layout import DEFAULT, Layout
from .methods_table import failed_runs, is_one_column_each, over_tasks, row_order
from .pairs import clear_best, name_some
from .table import Number, Table
from .tables import common

MIN_COUNT = 2  # minimum number of systems and of tasks
COLUMNS = ["method", "average", "IQM", "IQM interval", "mean rank", "rank interval"]
NOTHING_IN_COMMON = "No two systems have a seed in common on two tasks."
MEANING = (
    "Average: mean over tasks of the mean over seeds. IQM: interquartile mean of all scores. Both "
    "use scores in percent without normalizing them by task, so the IQM drops scores of the "
    "hardest and the easiest tasks first. Mean rank: rank within each task by the mean over seeds "
    "(1 is the best), averaged over tasks. 95 % intervals: bootstrap of the seeds within each "
    "task; the tasks are fixed."
)


@dataclass(frozen=True)
class Blocks:
    """Scores of systems in every block of task and seed: a complete block design.

    Every task has equally many seeds, so that all tasks have the same weight.

    Attributes:
        labels: labels of the systems.
        places: the tasks, as columns of tables name them.
        scores: scores of each task: for each system, its score by seed, the same seeds for all.
        notes: what was left out.
    """

    labels: list[str]
    places: list[str]
    scores: list[list[dict[int, float]]]
    notes: list[str]

    @property
    def arrays(self) -> list[np.ndarray]:
        """Scores of each task, (systems, seeds)."""
        return [np.array([list(own.values()) for own in systems]) for systems in self.scores]


def complete_blocks(cells: pd.DataFrame) -> Blocks | None:
    """The systems, tasks and seeds without a missing score, by the first metric of each task.

    While a score is missing, the system or the task that lacks the largest share of its scores is
    left out.

    Args:
        cells: cells from ``make_cells``.

    Returns:
        None if fewer than MIN_COUNT systems or tasks are left.
    """
    first = cells[cells["first"]]
    found = {
        (label, place): scores
        for label, place, scores in zip(first.label, first.place, first.scores, strict=True)
        if scores
    }
    labels, places, notes = _without_gaps(
        list(dict.fromkeys(first.label)), list(dict.fromkeys(first.place)), found.keys()
    )
    seeds = {p: set.intersection(*(set(found[la, p]) for la in labels)) for p in places if labels}
    if alone := [place for place in places if not seeds.get(place)]:
        names = name_some(alone)
        notes.append(f"Tasks left out because their systems have no seed in common: {names}.")
    places = [place for place in places if seeds.get(place)]
    if len(labels) < MIN_COUNT or len(places) < MIN_COUNT:
        return None
    number = min(len(seeds[place]) for place in places)
    used = {place: sorted(seeds[place])[:number] for place in places}
    scores = [
        [{seed: found[label, place][seed] for seed in used[place]} for label in labels]
        for place in places
    ]
    every = {place: set().union(*(found[label, place] for label in labels)) for place in places}
    listed = []
    for place in places:
        lacking = [label for label in labels if found[label, place].keys() < every[place]]
        why = f" (missing for {name_some(lacking)})" if lacking else ""
        if left := len(every[place]) - number:
            listed.append(f"{left} of {place}{why}")
    if listed:
        reason = "so that all systems and tasks have the same number"
        notes.append(f"Seeds left out, {reason}: {'; '.join(listed)}.")
    return Blocks(labels, places, scores, notes)


def _without_gaps(
    labels: list[str], places: list[str], known: Collection[tuple[str, str]]
) -> tuple[list[str], list[str], list[str]]:
    """Labels and places without a missing score, and notes on the others."""
    missing = np.array([(label, place) not in known for label in labels for place in places])
    missing = missing.reshape(len(labels), len(places))
    rows, columns = np.arange(len(labels)), np.arange(len(places))
    while (gaps := missing[np.ix_(rows, columns)]).any():
        of_system, of_task = gaps.mean(axis=1), gaps.mean(axis=0)
        if of_system.max() >= of_task.max():
            rows = np.delete(rows, of_system.argmax())
        else:
            columns = np.delete(columns, of_task.argmax())
    kept_labels, kept_places = [labels[i] for i in rows], [places[i] for i in columns]
    notes = []
    for kind, every, kept in (("Systems", labels, kept_labels), ("Tasks", places, kept_places)):
        if left := [name for name in every if name not in kept]:
            notes.append(f"{kind} left out because a score is missing: {name_some(left)}.")
    return kept_labels, kept_places, notes


def overall_table(cells: pd.DataFrame, layout: Layout = DEFAULT) -> Table | None:
    """Systems over the tasks and seeds that all of them have.

    Args:
        cells: cells from ``make_cells``.
        layout: order of the rows.

    Returns:
        Rows of COLUMNS. Notes say which tasks and seeds these are, and what was left out. None if
        there is only one task or system.
    """
    blocks = complete_blocks(cells)
    if blocks is None:
        scored = cells[cells["first"] & (cells.n > 0)]
        if min(scored.label.nunique(), scored.place.nunique()) < MIN_COUNT:
            return None
        empty = pd.DataFrame(columns=COLUMNS, dtype=object)
        return Table("overall", "Methods over tasks", empty, notes=[NOTHING_IN_COMMON])
    shown = cells[cells["first"] & cells.label.isin(blocks.labels)]
    shown = shown[shown.place.isin(blocks.places)]
    arrays = blocks.arrays
    has_spread = all(own.shape[1] > 1 for own in arrays)
    middles, ranks = interquartile_means(arrays), mean_ranks(arrays)
    means = np.mean([own.mean(axis=1) for own in arrays], axis=0)
    averages = dict(zip(blocks.labels, map(float, means), strict=True))
    order = row_order(shown.assign(mean=shown.label.map(averages)), "mean", layout)
    rows, by_seed = [], []
    for label in order:
        at = blocks.labels.index(label)
        own = [systems[at] for systems in blocks.scores]
        iqm, *iqm_bounds = middles[at]
        rank, *rank_bounds = ranks[at]
        by_seed.append(over_tasks(own))
        numbers = (Number(f"{averages[label]:.1f}"), Number(f"{iqm:.1f}"), Number(f"{rank:.2f}"))
        bounds = [_interval(iqm_bounds, 1), _interval(rank_bounds, 2)] if has_spread else [None] * 2
        rows.append([label, numbers[0], numbers[1], bounds[0], numbers[2], bounds[1]])
    table = pd.DataFrame(rows, columns=COLUMNS, dtype=object)
    values = [averages[label] for label in order]
    best = clear_best(values, by_seed, failed_runs(shown, order))
    bold = {(row, COLUMNS.index("average")) for row in best}
    # with other rows or another encoder, a task has another column
    unit = "task" if is_one_column_each(shown) else "column"
    title = f"Methods over {counted(len(blocks.places), unit)} ({common(shown)})"
    seeds = counted(arrays[0].shape[1], "common seed")
    design = f"{unit.capitalize()}s: {', '.join(blocks.places)}, with {seeds} each."
    return Table("overall", title, table, bold, [design, *blocks.notes, MEANING])


def _interval(bounds: Sequence[float], digits: int) -> str:
    low, high = bounds
    return f"[{low:.{digits}f}, {high:.{digits}f}]"
