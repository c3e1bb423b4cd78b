"""Tables of cells: swept settings, alpha by rank, and spans."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd

from ..errors import counted
from ..spec import PROCEDURE
from .cells import places
from .pairs import clear_best
from .sweeps import Sweep, grids, sweeps
from .table import Number, Table


def score(value: float, sd: float | None, n: int, failed: int) -> Number | str:
    """``mean ± standard deviation (n)``, with the number of failed runs if there are any."""
    if not n:
        return "failed"
    spread = "" if sd is None or math.isnan(sd) else f"{sd:.1f}"
    return Number(f"{value:.1f}", spread, f"{n}{f', {failed} failed' if failed else ''}")


def pivot(
    cells: pd.DataFrame,
    rows: list[str],
    columns: str,
    statistic: str,
    order: list[str] | None = None,
) -> Table:
    """One row for each value of ``rows``, one column for each of ``columns``.

    Args:
        cells: at most one for each position.
        rows: columns of ``cells``.
        columns: column of ``cells``.
        statistic: ``mean`` or ``median``.
        order: order of the columns; None: as they come.

    Returns:
        A table without name and title. The best of a column is marked if it is better than all
        others beyond noise.

    Raises:
        ValueError: two cells have the same position.
    """
    names = order or list(dict.fromkeys(cells[columns]))
    found: dict[tuple, dict[str, tuple]] = {}
    keys = cells[rows].itertuples(index=False, name=None)
    facts = [columns, statistic, "sd", "n", "failed", "scores"]
    wanted = cells[facts].itertuples(index=False, name=None)
    for key, (column, *facts) in zip(keys, wanted, strict=True):
        line = found.setdefault(key, {})
        if column in line:
            raise ValueError(f"two cells for {key} in {column}")
        line[column] = tuple(facts)
    texts = [
        {**dict(zip(rows, key, strict=True)), **{c: score(*facts[:4]) for c, facts in line.items()}}
        for key, line in found.items()
    ]
    best = {
        (row, len(rows) + i)
        for i, name in enumerate(names)
        for row in clear_best(*_column(found.values(), name))
    }
    shown = pd.DataFrame(texts, columns=[*rows, *names], dtype=object)
    return Table("", "", shown, best, seeds=True)


def _column(
    lines: Iterable[dict[str, tuple]], name: str
) -> tuple[list[float], list[dict], list[int]]:
    """Value, scores and number of failed runs of each row in one column."""
    facts = [line.get(name, (math.nan, None, 0, 0, {})) for line in lines]
    values = [value if n else math.nan for value, _, n, _, _ in facts]
    return values, [scores for *_, scores in facts], [failed for *_, failed, _ in facts]


def headed(cells: pd.DataFrame) -> dict[str, tuple[str, str, str]]:
    """Task, metric and condition of each place."""
    known = cells.drop_duplicates("place")
    facts = zip(known.task, known.metric, known.condition, strict=True)
    return dict(zip(known.place, facts, strict=True))


def common(cells: pd.DataFrame) -> str:
    """What the columns leave out because all cells share it."""
    model, data, rows = (
        cells[name].iloc[0] if cells[name].nunique(dropna=False) == 1 else None
        for name in ("model", "data", "train_rows")
    )
    size = "" if rows is None or pd.isna(rows) else counted(int(rows), "training row")
    parts = (model, data and f"{data} data", size, older_procedure(cells))
    return ", ".join(part for part in parts if part)


def older_procedure(cells: pd.DataFrame) -> str:
    """``procedure 1`` if all systems were trained with one older procedure."""
    if any("study" in where for where in cells["where"]):  # a study numbers its own procedures
        return ""
    found = {system.get("procedure") for system in cells.system}
    return f"procedure {found.pop()}" if len(found) == 1 and PROCEDURE not in found else ""


def sweep_tables(cells: pd.DataFrame, statistic: str) -> Iterator[Table]:
    """Scores over each swept setting: one row for each system and value."""
    for sweep in sweeps(cells):
        yield sweep_table(sweep, statistic)


def sweep_table(sweep: Sweep, statistic: str) -> Table:
    """Scores over one swept setting."""
    points = sweep.points.assign(place=places(sweep.points))
    lines = points.line.unique()
    keys = ["tick"] if len(lines) == 1 else ["line", "tick"]
    table = pivot(points, keys, "place", statistic)
    whole = sweep.title.replace("score", "Score", 1)
    title = f"{lines[0]}: {sweep.title}" if len(lines) == 1 else whole
    return replace(
        table,
        name=f"over_{sweep.name}",
        title=f"{title} ({common(points)})",
        rows=table.rows.rename(columns={"line": "system", "tick": sweep.name}),
        head=headed(points),
    )


def alpha_tables(cells: pd.DataFrame, statistic: str) -> Iterator[Table]:
    """Alpha by rank for each task and system that was run on such a grid."""
    for line, group in grids(cells):
        group = group.sort_values(["rank", "alpha"])
        title = f"{line} on {group.place.iloc[0]} ({common(group)}): alpha by rank"
        shown = group.assign(
            rank=[f"r={r}" for r in group["rank"]], alpha=[f"{a:g}" for a in group.alpha]
        )
        yield replace(pivot(shown, ["alpha"], "rank", statistic), name="alpha_rank", title=title)


def span_table(cells: pd.DataFrame, statistic: str) -> Table | None:
    """The main metrics of span tasks (SQuAD); None if none was run.

    Each at the threshold chosen on training data and, where there is one, at the best threshold.
    """
    shown = [
        where["task.kind"] == "span" and metric.removeprefix("best_") in where["task.metrics"]
        for where, metric in zip(cells["where"], cells.metric, strict=True)
    ]
    spans = cells[np.array(shown, dtype=bool)]
    if spans.empty:
        return None
    columns = list(dict.fromkeys(spans.sort_values("task", kind="stable").place))
    table = pivot(spans.sort_values("mean", kind="stable"), ["label"], "place", statistic, columns)
    return replace(
        table,
        name="squad",
        title=f"SQuAD ({common(spans)})",
        rows=table.rows.rename(columns={"label": "method"}),
        head=headed(spans),
    )
