"""Cells: one row for each system, task and metric, with statistics over its seeds.

Every table, picture and page is a view of these rows.
"""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from .. import record as records
from .names import conditions, system_names
from .statistics import Summary, summarize_all

IDS = ["where_id", "system_id"]  # runs with equal ids are seeds of one cell
FACTS = ["task", "model", "data", "train_rows", "method", "rank", "alpha", "start"]
SHARED = [*IDS, "where", "system", *FACTS]  # the same for all runs of a cell
STATISTICS = list(Summary.__dataclass_fields__)
COLUMNS = [
    *SHARED, "label", "place", "condition", "metric", "first", *STATISTICS, "failed", "official",
    "scores", "keys",
]  # fmt: skip


def make_cells(runs: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Aggregate runs into cells.

    Args:
        runs: runs from ``load_records``.
        protocol: ``last`` (last epoch) or ``best`` (each run's best epoch, chosen on the data
            that it is scored on, as in the LoRA paper).

    Returns:
        Rows of COLUMNS with scores in percent. ``scores`` maps a seed to its score, ``label``
        names the system and ``place`` the column. A system whose runs all failed has one row,
        with the main metric of its task.
    """
    rows = [row for group in _groups(runs) for row in _rows_of(group, protocol)]
    done = [row for row in rows if row["scores"]]
    summaries = summarize_all([list(row["scores"].values()) for row in done])
    for row, summary in zip(done, summaries, strict=True):
        row.update(vars(summary))
    cells = pd.DataFrame(rows, columns=COLUMNS).astype({"rank": "Int64"})  # 8, not 8.0
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
    main = records.main_metric(group[0].where)
    if not done:
        return [{**common, "metric": main, "first": True, "n": 0, "scores": {}}]
    found = [metric for run in done for metric in records.metrics_of(getattr(run, protocol))]
    return [
        {
            **common,
            "metric": metric,
            "first": metric == main,
            "scores": {
                run.seed: 100 * scores[metric]
                for run in done
                if metric in (scores := getattr(run, protocol))  # of another kind of scoring
            },
        }
        for metric in dict.fromkeys([main, *found])
    ]


def places(cells: pd.DataFrame) -> list[str]:
    """Column of each cell: task, metric, and what distinguishes it from others of its task."""
    return [
        f"{task} {metric}" + (f" ({condition})" if condition else "")
        for task, metric, condition in zip(cells.task, cells.metric, cells.condition, strict=True)
    ]


def median_costs(runs: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Medians of ``columns`` over the finished runs of each cell, indexed by IDS."""
    done = runs[runs.status == "ok"]
    values = done[columns].apply(pd.to_numeric)
    return values.groupby([done[name] for name in IDS]).median()


def median_sizes(runs: pd.DataFrame) -> pd.Series:
    """Median number of trained parameters of each cell, the head excluded, indexed by IDS."""
    counts = median_costs(runs, ["trained_parameters", "head_parameters"])
    return counts.trained_parameters - counts.head_parameters.fillna(0)
