"""The table of methods by tasks, its order, its average, and its notes."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from ..record import suffix_of
from .cells import IDS, median_sizes
from .layout import DEFAULT, Layout, fits, published_names
from .names import describe, short_names, texts, varying
from .pairs import clear_best
from .runs import REFERENCES
from .table import Number, Table
from .tables import common, headed, pivot

# as LoRA's Table 2 has them
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
    "squad_v1",
    "squad_v2",
)


def methods_table(
    cells: pd.DataFrame, runs: pd.DataFrame, statistic: str, layout: Layout = DEFAULT
) -> Table:
    """Methods by tasks, with trained parameters and an average (LoRA paper, Table 2).

    Each task is shown by its first metric, on each of its splits. Rows with a score for every task
    have an average, unless a task has several columns, which are not different tasks.
    """
    shown = cells[_main_metric(cells)]
    order = {task: i for i, task in enumerate(layout.tasks or TASK_ORDER)}
    shown = shown.sort_values(
        by="task", key=lambda tasks: tasks.map(lambda t: order.get(t, len(order))), kind="stable"
    )
    first = shown[shown["first"]]
    columns = list(dict.fromkeys(shown.place))
    position = {label: i for i, label in enumerate(row_order(first, statistic, layout))}
    shown = shown.loc[shown.label.map(position).sort_values(kind="stable").index]
    table = pivot(shown, ["label"], "place", statistic, columns)
    table.rows = table.rows.rename(columns={"label": "method"})
    table.name, table.title, table.head = "methods", f"Methods ({common(first)})", headed(shown)
    wanted = {"method"}
    if is_one_column_each(first) and "average" in layout.columns:
        _add_average(table, first, statistic)
        wanted |= {"average"}
    if "parameters" in layout.columns:
        counts = trained_parameters(first, runs)
        table.rows["parameters"] = [counts[label] for label in table.rows.method]
        wanted |= {"parameters"}
    groups = {"tasks": columns, "parameters": ["parameters"], "average": ["average"]}
    chosen = [name for group in layout.columns for name in groups[group] if name in table.rows]
    table = _ordered(table, ["method", *chosen])
    table.notes = [
        *_of_other_seeds(first),
        *_differing_by_row(first),
        *_differing_by_task(first),
        *_unnamed(first),
    ]
    return _with_references(table, runs, shown)


def _main_metric(cells: pd.DataFrame) -> list[bool]:
    """Whether a cell has the first metric of its task, on any split."""
    return [
        metric in {where["task.metrics"][0] + suffix_of(s) for s in where["task.validation"]}
        for metric, where in zip(cells.metric, cells["where"], strict=True)
    ]


def row_order(first: pd.DataFrame, statistic: str, layout: Layout) -> list[str]:
    """Labels in the order of a layout."""
    means = first.groupby("label")[statistic].mean()
    if layout.sort == "score":
        ends = {"last": (True, "first"), "first": (False, "last")}
        ascending, unknown = ends[layout.best]
        return list(
            means.sort_values(ascending=ascending, na_position=unknown, kind="stable").index
        )
    labels = list(dict.fromkeys(first.label))
    if layout.sort == "given":
        found = [next(i for i, m in enumerate(layout.methods) if fits(m, la)) for la in labels]
    else:
        families = list(published_names()["methods"])
        known = dict(zip(first.label, first.method, strict=True))
        found = [
            families.index(known[la]) if known[la] in families else len(families) for la in labels
        ]
    return [label for _, label in sorted(zip(found, labels, strict=True), key=lambda pair: pair[0])]


def is_one_column_each(first: pd.DataFrame) -> bool:
    """Whether there are several tasks, in one column each, so that a mean over them makes sense."""
    return bool(first.place.nunique() == first.task.nunique() > 1)


def _add_average(table: Table, first: pd.DataFrame, statistic: str) -> None:
    """Add a column with the mean over tasks for each row that has all of them.

    The best one is marked only if every row has an average.
    """
    scored = first[first.n > 0]
    found: dict[str, list[tuple[float, dict[int, float]]]] = {}
    for label, value, scores in zip(scored.label, scored[statistic], scored.scores, strict=True):
        found.setdefault(label, []).append((value, scores))
    tasks = scored.place.nunique()  # a system has one cell in each place at most
    whole = {label: cells for label, cells in found.items() if len(cells) == tasks}
    values, by_seed = [], []
    for label in table.rows.method:
        cells = whole.get(label, [])
        values.append(float(np.mean([v for v, _ in cells])) if cells else math.nan)
        by_seed.append(over_tasks([scores for _, scores in cells]) if cells else {})
    shown = [None if math.isnan(value) else Number(f"{value:.1f}") for value in values]
    table.rows["average"] = pd.Series(shown, table.rows.index, dtype=object)
    if len(whole) == len(table.rows):
        best = clear_best(values, by_seed, failed_runs(first, table.rows.method))
        table.best |= {(row, len(table.rows.columns) - 1) for row in best}


def failed_runs(cells: pd.DataFrame, labels: Iterable[str]) -> list[int]:
    """Number of failed runs of each system over all of its cells."""
    failed = cells.groupby("label").failed.sum()
    return [int(failed[label]) for label in labels]


def over_tasks(scores: Iterable[Mapping[int, float]]) -> dict[int, float]:
    """Mean over tasks for each seed that all tasks have."""
    tasks = list(scores)
    common_seeds = set.intersection(*(set(found) for found in tasks))
    return {s: float(np.mean([found[s] for found in tasks])) for s in sorted(common_seeds)}


def trained_parameters(cells: pd.DataFrame, runs: pd.DataFrame) -> dict[str, str | None]:
    """Trained parameters of each label, head excluded, as in ``73.7k``; a range where they vary."""
    known = median_sizes(runs)
    found: dict[str, str | None] = {}
    for label, group in cells.groupby("label"):
        ids = [pair for pair in zip(group.where_id, group.system_id, strict=True) if pair in known]
        numbers = [value for pair in ids if not math.isnan(value := known[pair])]
        ends = dict.fromkeys([_rough(min(numbers)), _rough(max(numbers))] if numbers else [])
        found[str(label)] = "–".join(ends) or None
    return found


def _rough(count: float) -> str:
    """``950``, ``73.7k`` or ``22.6M``."""
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if count >= unit:
            return f"{count / unit:.1f}{letter}"
    return f"{count:.0f}"


def _ordered(table: Table, names: list[str]) -> Table:
    """The table with its columns in another order."""
    before = list(table.rows.columns)
    best = {(row, names.index(before[c])) for row, c in table.best if before[c] in names}
    return replace(table, rows=table.rows[names], best=best)


def _with_references(table: Table, runs: pd.DataFrame, shown: pd.DataFrame) -> Table:
    """Put chance and bag of words above the methods and the ceiling below, if known."""
    facts: dict[str, dict] = {name: {} for name in REFERENCES}
    columns = dict(zip(zip(shown.where_id, shown.metric, strict=True), shown.place, strict=True))
    for run in runs[runs.status == "ok"].drop_duplicates("where_id").to_dict("records"):
        for name in REFERENCES:
            for metric, value in (run[name] or {}).items():
                if (place := columns.get((run["where_id"], metric))) in table.rows:
                    facts[name][place] = Number(f"{100 * value:.1f}")
    known = {
        name: {"method": name.replace("_", " "), **facts[name]} for name in facts if facts[name]
    }
    above = [row for name, row in known.items() if name != "ceiling"]
    below = [row for name, row in known.items() if name == "ceiling"]
    rows = [*above, *table.rows.to_dict("records"), *below]
    return replace(
        table,
        rows=pd.DataFrame(rows, columns=table.rows.columns, dtype=object),
        best={(row + len(above), column) for row, column in table.best},
        apart={*range(len(above)), *range(len(rows) - len(below), len(rows))},
    )


def _of_other_seeds(first: pd.DataFrame) -> Iterator[str]:
    """A note on columns whose means are over different seeds, so that they do not compare."""
    scored = first[first.n > 0]
    seeds = scored.scores.map(lambda scores: tuple(sorted(scores)))
    places = [
        str(place) for place, own in seeds.groupby(scored.place, sort=False) if own.nunique() > 1
    ]
    if places:
        yield (
            f"The means of {', '.join(places)} are over different seeds; compare systems by their "
            "differences over common seeds."
        )


def _differing_by_row(first: pd.DataFrame) -> Iterator[str]:
    """A note on settings that differ between the columns of one row."""
    rows: dict[tuple[str, ...], list[str]] = {}
    systems: dict[str, dict[str, Mapping[str, Any]]] = {}
    for label, id_, system in zip(first.label, first.system_id, first.system, strict=True):
        systems.setdefault(label, {})[id_] = system
    for label, found in systems.items():
        if paths := varying(map(texts, found.values())):
            rows.setdefault(tuple(short_names(paths).values()), []).append(label)
    for names, labels in rows.items():
        yield f"Settings that differ between columns: {', '.join(names)} ({', '.join(labels)})."


def _differing_by_task(first: pd.DataFrame) -> Iterator[str]:
    """A note on settings of model and data that differ between tasks."""
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
    """A note on settings that vary together with those in the names of a method's systems."""
    systems = first.drop_duplicates("system_id")
    parts = dict(zip(systems.system_id, map(texts, systems.system), strict=True))
    for method, group in first.drop_duplicates(IDS).groupby("method", sort=False):
        hidden: dict[str, None] = {}
        for _, rivals in group.groupby("where_id"):
            paths = varying([parts[id_] for id_ in rivals.system_id])
            if (rivals.alpha / rivals["rank"]).nunique() == 1:
                paths = [path for path in paths if path != "method.alpha"]
            hidden |= dict.fromkeys(short_names(paths).values())
        names = {word.partition("=")[0] for label in group.label for word in label.split()}
        names.add("rank")  # as in r=8
        if rest := [name for name in hidden if name not in names]:
            yield f"Settings that also differ between the systems of {method}: {', '.join(rest)}."
