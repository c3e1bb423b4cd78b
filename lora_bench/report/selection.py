"""Which value of a swept setting is best for each system."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from ..errors import UserError
from ..spec import part_of
from .names import conditions, describe, short_names, show, system_names, texts
from .pairs import difference, p_value
from .statistics import compare
from .sweeps import DATA, reduced
from .table import Number, Table
from .tables import score

CHOSEN_ON = "data.tuning_rows"
P_NOTE = (
    "p: two-sided sign-flip test of the best against the second best value over common seeds. It "
    "is not corrected for the choice of the best. Differences and intervals are those of means."
)


def best_table(cells: pd.DataFrame, over: Sequence[str], statistic: str) -> Table:
    """The best value of some settings for each system and task, by the first metric.

    Args:
        cells: cells from ``make_cells``.
        over: settings, by their path or its last part.
        statistic: statistic over the seeds: ``mean`` or ``median``.

    Returns:
        A row for each system: the best value, its score, all values that were tried, and the
        difference from the second best over common seeds with its interval and p. A value with
        failed runs is chosen only if every value has some. Notes say on which data was chosen.

    Raises:
        UserError: all runs have the same value of a setting.
    """
    first = cells[cells["first"]].reset_index(drop=True)
    paths = _paths(first, over)
    of_data = any(part_of(path) == "where" for path in paths)
    outside = {*paths, DATA} if of_data else set(paths)
    inside = {method: set(paths) for method in first.method.unique()}
    where_ids = reduced(first.where_id, first["where"], [outside] * len(first))
    system_ids = reduced(first.system_id, first.system, [inside[m] for m in first.method])
    first = first.assign(where_id=where_ids)
    first = first.assign(line=system_names(first, inside), condition=conditions(first, outside))
    rows, single, failed = [], [], []
    for _, group in first.groupby([where_ids, system_ids], sort=False):
        ordered = group.sort_values(statistic, ascending=False, kind="stable")
        ordered = ordered.sort_values("failed", key=lambda n: n > 0, kind="stable")
        if not ordered.n.iloc[0]:
            failed.append(f"{ordered.line.iloc[0]} ({ordered.task.iloc[0]})")
        elif len(ordered) > 1:
            rows.append(_row(ordered, paths, statistic))
        else:
            single.append(f"{ordered.line.iloc[0]} ({ordered.place.iloc[0]})")
    names = ", ".join(short_names(paths).values())
    notes = [_chosen_on(first), P_NOTE] if rows else [_chosen_on(first)]
    if single:
        notes.append(f"Only one value, so no choice: {', '.join(single)}.")
    if failed:
        notes.append(f"No run finished: {', '.join(failed)}.")
    columns = ["task", "metric", "system", "best", "score", "tried", "second", "difference"]
    shown = pd.DataFrame(rows, columns=[*columns, "interval", "p", "at the end"], dtype=object)
    return Table(
        "best", f"Best {names} of each system by {statistic} over seeds", shown, notes=notes
    )


def _paths(cells: pd.DataFrame, over: Sequence[str]) -> list[str]:
    """Paths of settings that differ among the cells.

    Raises:
        UserError: one of ``over`` is not such a setting.
    """
    values: dict[str, set[str]] = {}
    for parts in (cells["where"], cells.system):
        for part in parts:
            for path, value in part.items():
                values.setdefault(path, set()).add(show(value))
    differing = [path for path, found in values.items() if len(found) > 1 and path != DATA]
    names = {short: path for path, short in short_names(differing).items()}
    names |= {path: path for path in differing}
    for name in over:
        if name not in names:
            allowed = ", ".join(differing) or "nothing: all runs have the same settings"
            raise UserError(f"--over {name}: must be a setting that runs differ in: {allowed}")
    return [names[name] for name in dict.fromkeys(over)]


def _row(ordered: pd.DataFrame, paths: Sequence[str], statistic: str) -> dict[str, Any]:
    """Row of one system, whose cells are ordered by score, the best one first."""
    values = [
        describe(texts({**where, **system}), paths)
        if len(paths) > 1
        else show({**where, **system}.get(paths[0]))
        for where, system in zip(ordered["where"], ordered.system, strict=True)
    ]
    best, second = ordered.iloc[0], ordered.iloc[1]
    paired = compare(best.scores, second.scores)
    compared = difference(paired) if paired else {}
    apart = f"{best['mean'] - second['mean']:+z.2f}" if second.n else None
    failed = dict(zip(values, ordered.failed, strict=True))
    return {
        "task": best.task,
        "metric": best.metric,
        "system": best.line,
        "best": values[0],
        "score": score(best[statistic], best.sd, best.n, best.failed),
        "tried": ", ".join(
            f"{value} (failed)" if failed[value] else value
            for value in sorted(values, key=_in_order)
        ),
        "second": f"{values[1]}: {second[statistic]:.1f}" if second.n else None,
        "difference": compared.get("difference", apart and Number(apart)),
        "interval": compared.get("interval"),
        "p": p_value(paired.p) if paired and paired.low is not None else None,
        "at the end": _at_the_end(values),
    }


def _in_order(value: str) -> tuple[bool, float, str]:
    try:
        return False, float(value), value
    except ValueError:
        return True, 0.0, value


def _at_the_end(values: Sequence[str]) -> str:
    """``lowest`` or ``highest`` if the first of several numbers, the best, is at that end."""
    ordered = sorted(values, key=_in_order)
    if _in_order(ordered[-1])[0] or len(set(values)) < 2:
        return ""
    return {ordered[0]: "lowest", ordered[-1]: "highest"}.get(values[0], "")


def _chosen_on(cells: pd.DataFrame) -> str:
    held_out = [where.get(CHOSEN_ON) is not None for where in cells["where"]]
    held_out = [
        found or where["task.validation"] == ["held_out"]
        for found, where in zip(held_out, cells["where"], strict=True)
    ]
    if all(held_out):
        return "Chosen on rows held out of the training data."
    if any(held_out):
        return "Chosen on held-out training rows where tuning_rows is set, else on validation data."
    return (
        "Chosen on the validation data, on which the scores are reported too: they are optimistic. "
        f"{CHOSEN_ON}=N scores rows held out of the training data instead."
    )
