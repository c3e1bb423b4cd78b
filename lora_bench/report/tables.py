"""Layouts of cells: methods by tasks with an average, ranks by tasks, alpha by rank, SQuAD, and what runs cost."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pandas as pd

from .cells import PLACE, SYSTEM, labels, median_costs, system_name

MIB = 1 << 20
REFERENCES = ("chance", "bag_of_words", "ceiling")  # rows of the methods table that no method made
TASK_ORDER = (
    "mnli",
    "sst2",
    "mrpc",
    "cola",
    "qnli",
    "qqp",
    "rte",
    "stsb",
    "wnli",
)  # as LoRA's Table 2 has them


@dataclass
class Table:
    """What is printed: texts, with the best of each column marked, and what to know when reading it.

    rows: all cells as text, None where missing. best: (row, column) positions to set in bold.
    """

    name: str
    title: str
    rows: pd.DataFrame
    best: set[tuple[int, int]] = field(default_factory=set)


def show(cell: pd.Series, statistic: str) -> str:
    """``mean ± standard deviation (n)``, or the median; failed runs are said."""
    if not cell.n:
        return "failed"
    spread = "" if cell.sd is None or pd.isna(cell.sd) else f" ± {cell.sd:.1f}"
    return f"{cell[statistic]:.1f}{spread} ({cell.n}{f', {cell.failed} failed' if cell.failed else ''})"


def pivot(
    name: str,
    title: str,
    cells: pd.DataFrame,
    rows: str,
    columns: str,
    statistic: str,
    names: list[str] | None = None,
) -> Table:
    """One row for each value of ``rows``, one column for each of ``columns``, in the order in which they come, or in that
    of ``names``."""
    index, names = list(dict.fromkeys(cells[rows])), names or list(dict.fromkeys(cells[columns]))
    texts = {row: dict.fromkeys(names) for row in index}
    values = pd.DataFrame(float("nan"), index=index, columns=names)
    for _, cell in cells.iterrows():
        texts[cell[rows]][cell[columns]] = show(cell, statistic)
        values.loc[cell[rows], cell[columns]] = cell[statistic] if cell.n else float("nan")
    shown = pd.DataFrame([{rows: row, **texts[row]} for row in index], columns=[rows, *names])
    best = {(int(values[c].argmax()), 1 + i) for i, c in enumerate(names) if values[c].count() > 1}
    return Table(name, title, shown, best)


def methods_table(cells: pd.DataFrame, runs: pd.DataFrame, statistic: str) -> Table:
    """Methods by tasks with an average where all tasks are there (LoRA paper, Table 2), worst first by what they share."""
    first = cells[cells["first"]]
    first = first.assign(method=labels(first), place=places(first))
    order = {task: i for i, task in enumerate(TASK_ORDER)}
    first = first.sort_values(
        by="task", key=lambda tasks: tasks.map(lambda t: order.get(t, len(order))), kind="stable"
    )
    means = first.groupby("method")[statistic].mean().sort_values(na_position="first")
    first = first.assign(rank_of=first.method.map({m: i for i, m in enumerate(means.index)}))
    columns = list(dict.fromkeys(first.place))
    table = pivot(
        "methods",
        f"Methods ({common(first)})",
        first.sort_values("rank_of", kind="stable"),
        "method",
        "place",
        statistic,
        columns,
    )
    values = first.pivot_table(index="method", columns="place", values=statistic)[columns].reindex(
        table.rows.method
    )
    if len(columns) > 1:
        averages = values.mean(axis=1, skipna=False)
        shown = [None if pd.isna(a) else f"{a:.1f}" for a in averages]
        table.rows["average"] = pd.Series(shown, table.rows.index, dtype=object)
        table.best |= (
            {(int(averages.argmax()), len(columns) + 1)} if averages.count() > 1 else set()
        )
    return _with_references(table, runs, first)


def _with_references(table: Table, runs: pd.DataFrame, first: pd.DataFrame) -> Table:
    """Put chance, the bag of words and the ceiling where generated data knows them, around the methods."""
    facts: dict[str, dict] = {name: {} for name in REFERENCES}
    columns = {
        tuple(values): place
        for *values, place in first[[*PLACE, "metric", "place"]].itertuples(index=False)
    }
    for _, run in runs[runs.status == "ok"].drop_duplicates(PLACE).iterrows():
        metric = next(iter(run["last"]))
        for name in REFERENCES:
            if run[name] is not None and metric in run[name]:
                facts[name][columns[*run[PLACE], metric]] = f"{100 * run[name][metric]:.1f}"
    above = [
        {"method": name.replace("_", " "), **facts[name]} for name in REFERENCES[:2] if facts[name]
    ]
    below = [{"method": name, **facts[name]} for name in REFERENCES[2:] if facts[name]]
    rows = [*above, *table.rows.to_dict("records"), *below]
    shown = pd.DataFrame(rows, columns=table.rows.columns, dtype=object)
    return Table(
        table.name, table.title, shown, {(row + len(above), column) for row, column in table.best}
    )


def places(cells: pd.DataFrame) -> list[str]:
    """Column of each cell: task and metric, and whatever differs of model, source and training size, so that no column mixes
    two of them."""
    varying = [name for name in PLACE[1:] if cells[name].nunique(dropna=False) > 1]
    return [
        _place(*values)
        for values in zip(cells.task, cells.metric, *(cells[name] for name in varying), strict=True)
    ]


def _place(task: str, metric: str | None, *varying) -> str:
    sizes = [
        f"{value:,.0f} rows" if isinstance(value, float | int) else str(value) for value in varying
    ]
    return " ".join(
        [
            task,
            *([metric] if isinstance(metric, str) else []),
            *([f"({', '.join(sizes)})"] if sizes else []),
        ]
    )


def common(cells: pd.DataFrame) -> str:
    """What the columns leave out because it is the same everywhere."""
    model, data, rows = (
        cells[name].iloc[0] if cells[name].nunique(dropna=False) == 1 else None
        for name in PLACE[1:]
    )
    size = "" if rows is None or pd.isna(rows) else f"{rows:,.0f} training rows"
    return ", ".join(part for part in (model, f"{data} data" if data else "", size) if part)


def rank_tables(cells: pd.DataFrame, statistic: str) -> Iterator[Table]:
    """Rank by task for each method (with one policy) that was run at several ranks."""
    first = cells[cells["first"] & cells["rank"].notna()]
    for (method, policy), group in first.groupby(["method", "policy"]):
        if group["rank"].nunique() > 1:
            group = group.sort_values("rank", kind="stable")
            group = group.assign(
                place=places(group),
                rank=[f"{r} ({s})" for r, s in zip(group["rank"], group.schedule, strict=True)],
            )
            yield pivot(
                "ranks",
                f"{system_name(method, None, policy)}: rank ({common(group)})",
                group,
                "rank",
                "place",
                statistic,
            )


def alpha_tables(cells: pd.DataFrame, statistic: str) -> Iterator[Table]:
    """Alpha by rank for each task and method (with one policy) that was run on such a grid."""
    first = cells[cells["first"] & cells["rank"].notna() & cells.alpha.notna()]
    for (method, policy, task, *_), group in first.groupby(
        ["method", "policy", *PLACE], dropna=False
    ):
        if is_grid(group):
            group = group.sort_values(["rank", "alpha"])
            group = group.assign(
                rank=[f"r={r}" for r in group["rank"]], alpha=[f"{a:g}" for a in group.alpha]
            )
            title = (
                f"{system_name(method, None, policy)} on {task} ({common(group)}): alpha by rank"
            )
            yield pivot("alpha_rank", title, group, "alpha", "rank", statistic)


def is_grid(group: pd.DataFrame) -> bool:
    """Whether several alphas were run at several ranks each: alpha = 2 rank throughout is a line and no grid."""
    return bool((group.groupby("alpha")["rank"].nunique() > 1).sum() > 1)


def squad_table(cells: pd.DataFrame, statistic: str) -> Table | None:
    """EM and F1 for each method; None where no SQuAD was run."""
    squad = cells[
        cells.task.str.startswith("squad")
        & cells.metric.isin(["exact_match", "exact", "f1", "best_exact", "best_f1"])
    ]
    if squad.empty:
        return None
    squad = squad.assign(method=labels(squad), place=places(squad))
    return pivot(
        "squad",
        f"SQuAD ({common(squad)})",
        squad.sort_values("mean", kind="stable"),
        "method",
        "place",
        statistic,
    )


def cost_table(cells: pd.DataFrame, runs: pd.DataFrame, statistic: str) -> Table:
    """Every metric of every system, and what it cost: parameters, file, seconds, memory (medians over seeds)."""
    sizes = ["adapter_bytes", "adapter_parameters", "trained_parameters"]
    medians = median_costs(
        runs, ["train_seconds", "tokens_per_second", "peak_memory_bytes", *sizes]
    )
    scored = cells[cells.n > 0]
    rows = []
    for (values, group), (_, cost) in zip(
        scored.groupby([*PLACE, *SYSTEM], dropna=False, sort=True), medians.iterrows(), strict=True
    ):
        system = dict(zip([*PLACE, *SYSTEM], values, strict=True))
        shown = [
            f"{cell.metric} {cell[statistic]:.1f}{'' if cell.n < 2 else f' ± {cell.sd:.1f}'}"
            for _, cell in group.iterrows()
        ]
        rows.append({
            "task": system["task"], "model": system["model"], "data": f"{system['data']}, {system['train_rows']:,.0f} rows",
            "method": system["method"], "rank": None if pd.isna(system["rank"]) else int(system["rank"]),
            "recipe": ", ".join(part for part in (system["schedule"], system["policy"]) if part),
            "n": int(group.n.iloc[0]), "scores": ", ".join(shown),
            "adapter": int(cost.adapter_parameters), "trained": int(cost.trained_parameters),
            "file, MiB": _rounded(cost.adapter_bytes, MIB, 2), "train, s": _rounded(cost.train_seconds, 1, 1),
            "tokens/s": _rounded(cost.tokens_per_second, 1, 0), "peak, MiB": _rounded(cost.peak_memory_bytes, MIB, 0),
        })  # fmt: skip
    return Table("costs", "Scores and costs", pd.DataFrame(rows, dtype=object))


def _rounded(value: float, unit: int, digits: int) -> str | None:
    return None if pd.isna(value) else f"{value / unit:,.{digits}f}"


def failures(runs: pd.DataFrame) -> Table:
    """Failed runs with their one-line reason."""
    failed = (
        runs.loc[runs.status != "ok", ["key", "error"]]
        if len(runs)
        else pd.DataFrame(columns=["key", "error"])
    )
    return Table("failed", "Failed runs", failed.reset_index(drop=True))


def all_tables(
    cells: pd.DataFrame, runs: pd.DataFrame, statistic: str, compared: pd.DataFrame, baseline: str
) -> list[Table]:
    """Every layout that these runs fill."""
    tables: list[Table | None] = []
    if (cells.n > 0).any():
        tables += [
            methods_table(cells, runs, statistic),
            *rank_tables(cells, statistic),
            *alpha_tables(cells, statistic),
        ]
        tables += [squad_table(cells, statistic), cost_table(cells, runs, statistic)]
        tables.append(Table("paired", f"Difference from {baseline} over common seeds", compared))
    tables.append(failures(runs))
    return [table for table in tables if table is not None and len(table.rows)]
