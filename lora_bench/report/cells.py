"""Cells: one row for each system, task and metric, with its seeds summed up and the keys of the runs behind it.

Every table, picture and page is a view of these rows.
"""

import pandas as pd

from .statistics import Paired, compare, summarize

PLACE = ["task", "model", "data", "train_rows"]  # what a method is run on
SYSTEM = ["method", "rank", "alpha", "policy", "schedule"]  # what makes two runs seeds of one cell
COLUMNS = [
    *PLACE,
    *SYSTEM,
    "metric",
    "first",
    "n",
    "failed",
    "mean",
    "median",
    "sd",
    "low",
    "high",
    "scores",
    "keys",
]
COLUMNS += ["start", "official"]


def make_cells(runs: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Args: runs: from ``load_records``. protocol: ``last`` (last epoch) or ``best`` (each run's best epoch, which looks
    at the validation data and is the LoRA paper's way). Returns: rows of COLUMNS, scores in percent, ``scores`` by seed; a
    system whose runs all failed has one row, of the task's first metric where another system shows it.
    """
    rows = []
    if len(runs):
        for values, group in runs.groupby(PLACE + SYSTEM, dropna=False, sort=True):
            rows += _system(dict(zip(PLACE + SYSTEM, values, strict=True)), group, protocol)
    cells = pd.DataFrame(rows, columns=COLUMNS)
    known = cells[cells["first"] & (cells.n > 0)].drop_duplicates("task").set_index("task").metric
    cells["metric"] = cells.metric.where(
        cells.n > 0, cells.task.map(known)
    )  # so that failed runs stand in their column
    return cells.astype({"rank": "Int64"})  # nullable: plain integers turn to 8.0 beside a gap


def _system(system: dict, group: pd.DataFrame, protocol: str) -> list[dict]:
    done = group[group.status == "ok"]
    facts = {"start": group.start.iloc[0], "official": bool(done.official.all())}
    common = {**system, **facts, "failed": len(group) - len(done), "keys": list(done.key)}
    if not len(done):
        return [
            {**common, "metric": None, "first": True, "n": 0, "keys": list(group.key), "scores": {}}
        ]
    metrics = [
        name for name in done[protocol].iloc[0] if "_thresh" not in name
    ]  # thresholds are no scores
    rows = []
    for metric in metrics:
        scores = {
            seed: 100 * found[metric] for seed, found in zip(done.seed, done[protocol], strict=True)
        }
        rows.append(
            {
                **common,
                **vars(summarize(list(scores.values()))),
                "metric": metric,
                "first": metric == metrics[0],
                "scores": scores,
            }
        )
    return rows


def labels(cells: pd.DataFrame) -> pd.Series:
    """Name of each cell's system, as short as tells it from the others of its task and metric: the schedule stands in it
    only where one method was run with several, so that a table never chooses the better one silently."""
    short = [
        system_name(*values)
        for values in cells[["method", "rank", "policy"]].itertuples(index=False)
    ]
    named = cells.assign(short=short)
    places = [*PLACE, "metric", "short"]
    several = named.groupby(places, dropna=False).schedule.transform("nunique") > 1
    crowded = set(named.short[several])
    return pd.Series(
        [
            f"{s} ({x})" if s in crowded else s
            for s, x in zip(named.short, named.schedule, strict=True)
        ],
        cells.index,
        dtype=str,
    )


def system_name(method: str, rank, policy: str) -> str:
    """``lora r=8, biases all``; without the rank where ``rank`` is missing, as for a line over ranks."""
    return method + ("" if pd.isna(rank) else f" r={rank}") + (f", {policy}" if policy else "")


def median_costs(runs: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """What the finished runs of each system cost: medians of ``columns`` over seeds, indexed by PLACE and SYSTEM."""
    done = runs[runs.status == "ok"]
    return done.groupby([*PLACE, *SYSTEM], dropna=False, sort=True)[columns].median()


def compare_systems(cells: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Each system against ``baseline`` (a label) over two or more common seeds, first metric: rows of task, system,
    difference in points, 95 % interval, n, seeds needed."""
    first = cells[cells["first"] & (cells.n > 0)]
    first = first.assign(label=labels(first))
    rows = []
    for _, place in first.groupby(PLACE, dropna=False):
        base = place[place.label == baseline]
        for _, cell in place.iterrows():
            if not len(base) or cell.label == baseline:
                continue
            found = compare(cell.scores, base.scores.iloc[0])
            if found is not None and found.low is not None:
                rows.append(
                    {
                        "task": cell.task,
                        "metric": cell.metric,
                        "system": cell.label,
                        **_shown(found),
                    }
                )
    return pd.DataFrame(
        rows, columns=["task", "metric", "system", "difference", "interval", "n", "seeds needed"]
    )


def _shown(found: Paired) -> dict:
    return {
        "difference": f"{found.difference:+.2f}",
        "interval": f"{found.low:+.1f} to {found.high:+.1f}",
        "n": found.n,
        "seeds needed": found.seeds_needed,
    }
