"""Cells: one row for each system, task and metric, with statistics over its seeds.

Every table, picture and page is a view of these rows.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from .names import conditions, defaults, system_names
from .statistics import Summary, compare, summarize_all

IDS = ["where_id", "system_id"]  # what makes two runs seeds of one cell
FACTS = ["task", "model", "data", "train_rows", "method", "rank", "alpha", "start"]
SHARED = [*IDS, "where", "system", *FACTS]  # the same for all runs of a cell
STATISTICS = list(Summary.__dataclass_fields__)
COLUMNS = [
    *SHARED, "label", "place", "condition", "metric", "first", *STATISTICS, "failed", "official",
    "scores", "keys",
]  # fmt: skip


def make_cells(runs: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Runs as cells.

    Args:
        runs: from ``load_records``.
        protocol: ``last`` (last epoch) or ``best`` (each run's best epoch, chosen on the data
            that it is scored on, as in the LoRA paper).

    Returns:
        Rows of COLUMNS with scores in percent. ``scores`` maps a seed to its score, ``label``
        names the system and ``place`` the column. A system whose runs all failed has one row,
        with the first metric of the other systems.
    """
    rows = [row for group in _groups(runs) for row in _rows_of(group, protocol)]
    done = [row for row in rows if row["scores"]]
    summaries = summarize_all([list(row["scores"].values()) for row in done])
    for row, summary in zip(done, summaries, strict=True):
        row.update(vars(summary))
    cells = pd.DataFrame(rows, columns=COLUMNS).astype({"rank": "Int64"})  # 8, not 8.0
    known = cells[cells["first"] & (cells.n > 0)].drop_duplicates("task").set_index("task").metric
    cells["metric"] = cells.metric.where(cells.n > 0, cells.task.map(known))
    cells["label"] = system_names(cells)
    cells["condition"] = conditions(cells)
    cells["place"] = places(cells)
    order = ["task", "model", "data", "train_rows", "condition", "method", "rank", "alpha", "label"]
    return cells.sort_values(order, kind="stable", ignore_index=True)


def _groups(runs: pd.DataFrame) -> Iterator[list[Any]]:
    """The runs of each cell."""
    found: dict[tuple[str, str], list[Any]] = {}
    if len(runs):
        names = [*SHARED, "key", "status", "seed", "official", "last", "best"]
        for run in runs[names].itertuples(index=False):
            found.setdefault((run.where_id, run.system_id), []).append(run)
    yield from found.values()


def _rows_of(group: list[Any], protocol: str) -> list[dict[str, Any]]:
    done = [run for run in group if run.status == "ok"]
    common = {
        **{name: getattr(group[0], name) for name in SHARED},
        "official": all(run.official for run in done),
        "failed": len(group) - len(done),
        "keys": [run.key for run in done or group],
    }
    if not done:
        return [{**common, "metric": None, "first": True, "n": 0, "scores": {}}]
    # a threshold is chosen, not scored
    metrics = [name for name in getattr(done[0], protocol) if "_thresh" not in name]
    return [
        {
            **common,
            "metric": metric,
            "first": metric == metrics[0],
            "scores": {run.seed: 100 * getattr(run, protocol)[metric] for run in done},
        }
        for metric in metrics
    ]


def places(cells: pd.DataFrame) -> list[str]:
    """Column of each cell: task, metric, and what tells it from others of its task."""
    return [
        " ".join(
            [
                task,
                *([metric] if isinstance(metric, str) else []),
                *([f"({condition})"] if condition else []),
            ]
        )
        for task, metric, condition in zip(cells.task, cells.metric, cells.condition, strict=True)
    ]


def median_costs(runs: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Medians of ``columns`` over the finished runs of each cell, indexed by IDS."""
    done = runs[runs.status == "ok"]
    values = done[columns].apply(pd.to_numeric)
    return values.groupby([done[name] for name in IDS]).median()


def compare_systems(cells: pd.DataFrame, baseline: str) -> tuple[pd.DataFrame, list[str]]:
    """Each system against a baseline, by the first metric, over two or more common seeds.

    Args:
        cells: from ``make_cells``.
        baseline: a label, or words of one such as ``lora r=8``: of several systems that these
            fit, the one with the fewest settings changed from their default.

    Returns:
        Rows of task, metric, system, difference in points, 95 % interval, n and seeds needed;
        and notes that say which system the baseline is, where it is not a label.
    """
    first = cells[cells["first"] & (cells.n > 0)]
    rows: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    for _, place in first.groupby("where_id", sort=False):
        base = _baseline(place, baseline)
        if len(base) > 1:
            notes[f"The baseline {baseline} is ambiguous: {'; '.join(base.label)}."] = None
        if len(base) != 1:
            continue
        label, scores = base[["label", "scores"]].iloc[0]
        others = place[place.label != label]
        found = [row for _, cell in others.iterrows() if (row := _compared(cell, scores))]
        if found and label != baseline:
            notes[f"The baseline {baseline} is {label}."] = None
        rows += found
    names = ["task", "metric", "system", "difference", "interval", "n", "seeds needed"]
    return pd.DataFrame(rows, columns=names), list(notes)


def _baseline(place: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """The rows that a baseline may be: one, none, or several that fit equally well."""
    if (place.label == baseline).any():
        return place[place.label == baseline]
    words = set(baseline.split())
    fitting = place[[words <= set(label.split()) for label in place.label]]
    changed = pd.Series(
        [sum(v != defaults().get(p) for p, v in system.items()) for system in fitting.system],
        fitting.index,
        dtype=int,
    )
    return fitting[changed == changed.min()]


def _compared(cell: pd.Series, base: dict[int, float]) -> dict[str, Any] | None:
    found = compare(cell.scores, base)
    if found is None or found.low is None:
        return None
    return {
        "task": cell.task,
        "metric": cell.metric,
        "system": cell.label,
        "difference": f"{found.difference:+.2f}",
        "interval": f"{found.low:+.1f} to {found.high:+.1f}",
        "n": found.n,
        "seeds needed": found.seeds_needed,
    }
