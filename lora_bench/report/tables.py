"""Layouts of cells: methods by tasks, swept settings, alpha by rank, spans, and costs."""

import math
from collections.abc import Iterator

import numpy as np
import pandas as pd

from ..spec import PROCEDURE
from .cells import IDS, places
from .names import describe, short_names, texts, varying
from .runs import REFERENCES
from .sweeps import grids, sweeps
from .table import Table as Table

# as LoRA's Table 2 has them
TASK_ORDER = ("mnli", "sst2", "mrpc", "cola", "qnli", "qqp", "rte", "stsb", "wnli")


def show_score(value: float, sd: float | None, n: int, failed: int) -> str:
    """``mean ± standard deviation (n)``, with the number of failed runs where there are some."""
    if not n:
        return "failed"
    spread = "" if sd is None or math.isnan(sd) else f" ± {sd:.1f}"
    return f"{value:.1f}{spread} ({n}{f', {failed} failed' if failed else ''})"


def pivot(
    cells: pd.DataFrame,
    rows: list[str],
    columns: str,
    statistic: str,
    order: list[str] | None = None,
) -> tuple[pd.DataFrame, set[tuple[int, int]]]:
    """One row for each value of ``rows``, one column for each of ``columns``.

    Args:
        cells: at most one for each position.
        rows: columns of ``cells``.
        columns: column of ``cells``.
        statistic: ``mean`` or ``median``.
        order: of the columns; None for the order in which they come.

    Returns:
        Texts, and the positions of the best of each column.

    Raises:
        ValueError: two cells for one position.
    """
    names = order or list(dict.fromkeys(cells[columns]))
    keys = cells[rows].itertuples(index=False, name=None)
    texts_at: dict[tuple, dict[str, str]] = {}
    values_at: dict[tuple, dict[str, float]] = {}
    wanted = cells[[columns, statistic, "sd", "n", "failed"]].itertuples(index=False, name=None)
    for key, (column, value, sd, n, failed) in zip(keys, wanted, strict=True):
        line = texts_at.setdefault(key, {})
        if column in line:
            raise ValueError(f"two cells for {key} in {column}")
        line[column] = show_score(value, sd, n, failed)
        values_at.setdefault(key, {})[column] = value if n else float("nan")
    shown = [{**dict(zip(rows, key, strict=True)), **line} for key, line in texts_at.items()]
    numbers = pd.DataFrame(list(values_at.values()), columns=names, dtype=float)
    best = {
        (int(numbers[name].argmax()), len(rows) + i)
        for i, name in enumerate(names)
        if numbers[name].count() > 1
    }
    return pd.DataFrame(shown, columns=[*rows, *names], dtype=object), best


def methods_table(cells: pd.DataFrame, runs: pd.DataFrame, statistic: str) -> Table:
    """Methods by tasks, with an average where all tasks are there (LoRA paper, Table 2).

    The best method is last, by the mean over the tasks that it was run on.
    """
    order = {task: i for i, task in enumerate(TASK_ORDER)}
    first = cells[cells["first"]].sort_values(
        by="task", key=lambda tasks: tasks.map(lambda t: order.get(t, len(order))), kind="stable"
    )
    columns = list(dict.fromkeys(first.place))
    means = first.groupby("label")[statistic].mean().sort_values(na_position="first")
    position = first.label.map({label: i for i, label in enumerate(means.index)})
    ordered = first.loc[position.sort_values(kind="stable").index]
    rows, best = pivot(ordered, ["label"], "place", statistic, columns)
    rows = rows.rename(columns={"label": "method"})
    table = Table("methods", f"Methods ({common(first)})", rows, best)
    if len(columns) > 1:
        values = first.pivot_table(index="label", columns="place", values=statistic)
        averages = values.reindex(index=table.rows.method, columns=columns).mean(
            axis=1, skipna=False
        )
        shown = [None if pd.isna(a) else f"{a:.1f}" for a in averages]
        table.rows["average"] = pd.Series(shown, table.rows.index, dtype=object)
        table.best |= (
            {(int(averages.argmax()), len(columns) + 1)} if averages.count() > 1 else set()
        )
    table.notes = [*_differing_by_row(first), *_differing_by_task(first), *_unnamed(first)]
    return _with_references(table, runs, first)


def _with_references(table: Table, runs: pd.DataFrame, first: pd.DataFrame) -> Table:
    """Put chance and the bag of words above the methods, the ceiling below, where known."""
    facts: dict[str, dict] = {name: {} for name in REFERENCES}
    columns = dict(zip(zip(first.where_id, first.metric, strict=True), first.place, strict=True))
    for _, run in runs[runs.status == "ok"].drop_duplicates("where_id").iterrows():
        metric = next(iter(run["last"]))
        for name in REFERENCES:
            if run[name] is not None and metric in run[name]:
                facts[name][columns[run.where_id, metric]] = f"{100 * run[name][metric]:.1f}"
    known = {
        name: {"method": name.replace("_", " "), **facts[name]} for name in facts if facts[name]
    }
    above = [row for name, row in known.items() if name != "ceiling"]
    below = [row for name, row in known.items() if name == "ceiling"]
    rows = [*above, *table.rows.to_dict("records"), *below]
    table.rows = pd.DataFrame(rows, columns=table.rows.columns, dtype=object)
    table.best = {(row + len(above), column) for row, column in table.best}
    return table


def _differing_by_row(first: pd.DataFrame) -> Iterator[str]:
    """A note on the settings in which the systems of one row differ between its columns."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for label, group in first.drop_duplicates(IDS).groupby("label", sort=False):
        paths = varying(map(texts, group.system))
        if paths:
            rows.setdefault(tuple(short_names(paths).values()), []).append(str(label))
    for names, labels in rows.items():
        yield f"Differs between the columns of a row: {', '.join(names)} ({', '.join(labels)})."


def _differing_by_task(first: pd.DataFrame) -> Iterator[str]:
    """A note on the settings of model and data in which the tasks differ."""
    known = first.drop_duplicates("where_id")
    parts = [
        {p: t for p, t in texts(where).items() if not p.startswith("task.")}
        for where in known["where"]
    ]
    paths = [path for path in varying(parts) if not path.endswith(".fingerprint")]
    if known.task.nunique() > 1 and paths:
        tasks: dict[str, dict[str, None]] = {}
        for task, part in zip(known.task, parts, strict=True):
            tasks.setdefault(describe(part, paths, ", "), {})[task] = None
        listed = (f"{values} ({', '.join(names)})" for values, names in tasks.items())
        yield f"Differs between tasks: {'; '.join(listed)}."


def _unnamed(first: pd.DataFrame) -> Iterator[str]:
    """A note on the settings that go along with those in the names of a method's systems."""
    for method, group in first.drop_duplicates(IDS).groupby("method", sort=False):
        hidden: dict[str, None] = {}
        for _, rivals in group.groupby(["where_id", "rank"], dropna=False):
            hidden |= dict.fromkeys(short_names(varying(map(texts, rivals.system))).values())
        names = {word.partition("=")[0] for label in group.label for word in label.split()}
        if rest := [name for name in hidden if name not in names]:
            yield f"Also differs among the systems of {method}: {', '.join(rest)}."


def common(cells: pd.DataFrame) -> str:
    """What the columns leave out because it is the same everywhere."""
    model, data, rows = (
        cells[name].iloc[0] if cells[name].nunique(dropna=False) == 1 else None
        for name in ("model", "data", "train_rows")
    )
    size = "" if rows is None or pd.isna(rows) else f"{rows:,.0f} training rows"
    parts = (model, data and f"{data} data", size, older_procedure(cells))
    return ", ".join(part for part in parts if part)


def older_procedure(cells: pd.DataFrame) -> str:
    """``procedure 1`` where all systems were trained by one older than today's."""
    if any("study" in where for where in cells["where"]):  # which counts its own procedures
        return ""
    found = {system.get("procedure") for system in cells.system}
    return f"procedure {found.pop()}" if len(found) == 1 and PROCEDURE not in found else ""


def sweep_tables(cells: pd.DataFrame, statistic: str) -> Iterator[Table]:
    """Scores over each swept setting: one row for each system and value."""
    for sweep in sweeps(cells):
        points = sweep.points.assign(place=places(sweep.points))
        lines = points.line.unique()
        keys = ["tick"] if len(lines) == 1 else ["line", "tick"]
        rows, best = pivot(points, keys, "place", statistic)
        rows = rows.rename(columns={"line": "system", "tick": sweep.name})
        start = f"{lines[0]}: score" if len(lines) == 1 else "Score"
        title = f"{start} over {sweep.name} ({common(points)})"
        yield Table(f"over_{sweep.name}", title, rows, best)


def alpha_tables(cells: pd.DataFrame, statistic: str) -> Iterator[Table]:
    """Alpha by rank for each task and system that was run on such a grid."""
    for line, group in grids(cells):
        group = group.sort_values(["rank", "alpha"])
        title = f"{line} on {group.place.iloc[0]} ({common(group)}): alpha by rank"
        shown = group.assign(
            rank=[f"r={r}" for r in group["rank"]], alpha=[f"{a:g}" for a in group.alpha]
        )
        yield Table("alpha_rank", title, *pivot(shown, ["alpha"], "rank", statistic))


def span_table(cells: pd.DataFrame, statistic: str) -> Table | None:
    """The main metrics of the tasks that look for spans (SQuAD); None where none was run.

    Each at the threshold chosen on training data and, where there is one, at the best threshold.
    """
    shown = [
        where["task.kind"] == "span" and str(metric).removeprefix("best_") in where["task.metrics"]
        for where, metric in zip(cells["where"], cells.metric, strict=True)
    ]
    spans = cells[np.array(shown, dtype=bool)]
    if spans.empty:
        return None
    rows, best = pivot(spans.sort_values("mean", kind="stable"), ["label"], "place", statistic)
    rows = rows.rename(columns={"label": "method"})
    return Table("squad", f"SQuAD ({common(spans)})", rows, best)
