"""Pairs of systems over the seeds that both ran."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ..errors import UserError, counted
from .names import defaults
from .power import MAX_SEEDS, MIN_SEEDS, SIGNIFICANCE, min_seeds
from .statistics import Paired, compare, compare_all, holm, smallest_p
from .table import MISSING, Number, Table

BASELINE = "lora r=8"  # default
BOLD = (
    "Bold: better than every system in the column that is not bold (sign-flip test over common "
    f"seeds, p at most {SIGNIFICANCE}, which takes at least {counted(MIN_SEEDS, 'seed')}; never a "
    "system with failed runs)"
)
MIN_COMMON_SEEDS = 2  # minimum number of common seeds for an interval
FACTS = ("difference", "interval", "n", "p", "p, Holm", "result", "seeds needed")
FAILED = "runs failed"  # instead of a result
MAX_LISTED = 8  # maximum number of names in a note


def paired_table(cells: pd.DataFrame, baseline: str = BASELINE, *, required: bool = False) -> Table:
    """Difference of each system from a baseline, by the first metric, over common seeds.

    Args:
        cells: cells from ``make_cells``.
        baseline: a label, or words of one such as ``lora r=8``: of several matching systems, the
            one with the fewest settings changed from their default.
        required: whether it is an error if there is no such system, instead of a note.

    Returns:
        Rows of task, metric, the place's condition if there are any, system, difference in points,
        95 % interval and FACTS. Notes say which system the baseline is, and what was not compared.

    Raises:
        UserError: no place has a system of this name, or each has several, and it is required.
    """
    first = cells[cells["first"] & (cells.n > 0)]
    rows: list[dict[str, Any]] = []
    notes: dict[str, None] = {}
    alone: list[str] = []
    without: list[str] = []  # ids of the places without the baseline
    unclear: dict[str, None] = {}
    is_found = False
    for where_id, place in first.groupby("where_id", sort=False):
        base = find_baseline(place, baseline)
        if len(base) > 1:
            unclear["; ".join(base.label)] = None
        elif base.empty:
            without.append(str(where_id))
        else:
            is_found = True
            label = base.label.iloc[0]
            others = place[place.label != label]
            found = list(_compared(others, base.iloc[0], alone))
            if len(others) and label != baseline:
                notes[f"The baseline {baseline} is {label}."] = None
            rows += found
    if required and not is_found:
        raise _no_baseline(baseline, list(unclear), first)
    for labels in unclear:
        notes[f"The baseline {baseline} is ambiguous: {labels}."] = None
    notes |= dict.fromkeys(_without_baseline(cells, without, baseline))
    notes |= _without_interval(alone)
    title = f"Difference from {baseline} over common seeds"
    listed = [*notes, *_named_apart(first)]
    _corrected(rows, listed)
    return Table("paired", title, _shown(rows, ["system"]), notes=listed)


def _no_baseline(baseline: str, unclear: Sequence[str], cells: pd.DataFrame) -> UserError:
    if unclear:
        reason = f"matches {'; '.join(unclear)}; choose one of them"
    else:
        reason = f"must be one of {'; '.join(systems_of(cells))}"
    return UserError(f"--baseline {baseline}: {reason}")


def _without_baseline(
    cells: pd.DataFrame, where_ids: Sequence[str], baseline: str
) -> Iterator[str]:
    """Notes on the places where a baseline does not exist, and where none of its runs finished."""
    absent: list[str] = []
    failed: list[str] = []
    for where_id in where_ids:
        place = cells[cells.where_id == where_id]
        name = str(place[place["first"] & (place.n > 0)].place.iloc[0])
        (absent if find_baseline(place, baseline).empty else failed).append(name)
    if absent:
        where = name_some(absent)
        yield f"No system {baseline} to compare with in {where}; --baseline names another."
    if failed:
        yield f"No finished run of {baseline} to compare with in {name_some(failed)}."


def pairs_table(cells: pd.DataFrame) -> Table:
    """The difference of all pairs of systems of one place; columns as in ``paired_table``."""
    first = cells[cells["first"] & (cells.n > 0)]
    rows: list[dict[str, Any]] = []
    alone: list[str] = []
    for _, place in first.groupby("where_id", sort=False):
        ordered = place.sort_values("mean", ascending=False, kind="stable")
        for i in range(len(ordered) - 1):
            base = ordered.iloc[i + 1]
            better = ordered.iloc[: i + 1]
            rows += ({**row, "than": base.label} for row in _compared(better, base, alone))
    title = "Differences between all pairs of systems over common seeds"
    notes = [*_without_interval(alone), *_named_apart(first)]
    _corrected(rows, notes)
    return Table("pairs", title, _shown(rows, ["system", "than"]), notes=notes)


def _shown(rows: list[dict[str, Any]], systems: list[str]) -> pd.DataFrame:
    """Rows as a table shows them, with their condition where a task has several."""
    condition = ["condition"] if any(row["condition"] for row in rows) else []
    columns = ["task", "metric", *condition, *systems, *FACTS]
    return pd.DataFrame(rows, columns=columns, dtype=object)


def find_baseline(place: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """The rows that match a baseline: one, none, or several that match equally well."""
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


def systems_of(cells: pd.DataFrame) -> list[str]:
    """Every label once, in the order of the cells."""
    return list(dict.fromkeys(cells.label))


def _compared(others: pd.DataFrame, base: pd.Series, alone: list[str]) -> Iterator[dict[str, Any]]:
    """A row for each system with enough common seeds; the others are added to ``alone``."""
    found = compare_all([(scores, base.scores) for scores in others.scores])
    for cell, paired in zip(others.itertuples(), found, strict=True):
        if paired is None or paired.low is None:
            alone.append(f"{cell.label} ({cell.place})")
        else:
            is_better = paired.difference > 0
            yield {
                "task": cell.task,
                "metric": cell.metric,
                "condition": cell.condition,
                "system": cell.label,
                **difference(paired),
                "p": paired.p,
                "result": "better" if is_better else "worse",
                # the mean over the runs that did not fail is biased upward
                "has_failures": bool(cell.failed if is_better else base.failed),
                "seeds needed": paired.seeds_needed,
            }


def difference(paired: Paired) -> dict[str, Any]:
    """Difference, interval and n as shown in a table; no interval for one common seed."""
    known = paired.low is not None
    return {
        "difference": Number(f"{paired.difference:+z.2f}"),
        "interval": f"[{paired.low:+.1f}, {paired.high:+.1f}]" if known else None,
        "n": paired.n,
    }


def _corrected(rows: list[dict[str, Any]], notes: list[str]) -> None:
    """Add Holm-corrected p-values, over the tasks of two systems, what they show, and a note."""
    families: dict[frozenset[str], list[dict[str, Any]]] = {}
    for row in rows:  # whichever of the two is better
        families.setdefault(frozenset((row["system"], row.get("than", ""))), []).append(row)
    for family in families.values():
        for row, p in zip(family, holm([row["p"] for row in family]), strict=True):
            row["p, Holm"] = p_value(p)
            if p > SIGNIFICANCE:
                row["result"] = None
            elif row["has_failures"]:
                row["result"] = FAILED
            if row["seeds needed"] is not None:
                row["seeds needed"] = max(row["seeds needed"], min_seeds(len(family)))
    for row in rows:
        row["p"] = p_value(row["p"])
    floors = [
        f"{smallest_p(n):.2g} with {counted(n, 'seed')}" for n in sorted({row["n"] for row in rows})
    ]
    if floors:
        notes.append(
            "p: two-sided sign-flip test over common seeds, which cannot be below "
            f"{', '.join(floors)}; Holm: corrected over the tasks of a system that are shown, "
            "the smallest p times their number. Differences and intervals are those of means. "
            f"Result: what a corrected p of at most {SIGNIFICANCE} shows; {FAILED}: nothing, "
            "because runs of the better system failed. "
            f"Seeds needed: {MISSING} if more than {MAX_SEEDS:,}, or if all differences are equal."
        )


def p_value(p: float) -> Number:
    """A p-value as tables show it."""
    return Number(f"{p:.3f}" if p >= 0.001 else f"{p:.4f}")


def _named_apart(first: pd.DataFrame) -> Iterator[str]:
    """A note on methods whose systems have other names on some tasks.

    Correction and average go by names: if one task has two learning rates of a method, ``lr=``
    becomes part of its names there, and no name covers all tasks.
    """
    for _, group in first.groupby(["method", "rank"], dropna=False, sort=False):
        tasks = group.groupby("label").where_id.nunique()
        partial = list(tasks[tasks < group.where_id.nunique()].index)
        if partial and len(tasks) > 1:
            yield (
                f"{name_some(partial)}: different systems, each corrected over its own tasks only."
            )


def clear_best(
    values: Sequence[float], scores: Sequence[Mapping[int, float]], failed: Sequence[int]
) -> set[int]:
    """Positions of the best systems, if they are better than all others beyond noise.

    Noise: the sign-flip test over common seeds has a p above SIGNIFICANCE, as with fewer than
    MIN_SEEDS seeds.

    Args:
        values: value of each system, NaN where it has none.
        scores: scores of each system, by seed.
        failed: number of failed runs of each system.

    Returns:
        Those whose value equals the best one when rounded to one digit; empty if one of them has
        failed runs, if another system is not worse beyond noise, or if there is no other.
    """
    order = [i for i in np.argsort(-np.asarray(values, dtype=float), kind="stable")]
    order = [int(i) for i in order if not np.isnan(values[i])]
    best = [i for i in order if f"{values[i]:.1f}" == f"{values[order[0]]:.1f}"]
    others = order[len(best) :]
    if not others or any(failed[i] or len(scores[i]) < MIN_COMMON_SEEDS for i in best):
        return set()
    for other in others:  # the strongest first
        for i in best:
            found = compare(scores[i], scores[other])
            if found is None or found.p > SIGNIFICANCE or found.difference <= 0:
                return set()
    return set(best)


def _without_interval(alone: list[str]) -> dict[str, None]:
    if not alone:
        return {}
    needed = counted(MIN_COMMON_SEEDS, "common seed")
    return {f"Fewer than {needed}, so no interval: {name_some(alone)}.": None}


def name_some(names: list[str]) -> str:
    """The first MAX_LISTED names, and the number of the others."""
    more = len(names) - MAX_LISTED
    shown = ", ".join(names[:MAX_LISTED])
    return f"{shown} and {more} more" if more > 0 else shown
