"""Runs by their settings: status of sweeps, runs behind a cell, and one flat table."""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd

from .. import record as records
from ..errors import UserError, counted
from ..plans import read_plans
from ..program import reason_of
from .formats import guarded
from .names import short_names, show
from .runs import NESTED, PROTOCOLS, check_complete
from .table import as_text

STATES = {"ok": "done", "failed": "failed", "missing": "missing"}


def print_status(runs: pd.DataFrame, root: Path) -> None:
    """Print the status of every planned sweep, then the runs outside of sweeps.

    Raises:
        UserError: after the rest, if a plan could not be read.
    """
    found = dict(zip(runs.key, runs.status, strict=True)) if len(runs) else {}
    errors = dict(zip(runs.key, runs.error, strict=True)) if len(runs) else {}
    planned: set[str] = set()
    plans, problems = read_plans(root)
    for problem in problems:
        print(problem, file=sys.stderr)
    for plan in plans:
        planned |= set(plan.keys)
        states = {key: found.get(key, "missing") for key in plan.keys}
        counts = Counter(states.values())
        listed = ", ".join(f"{counts[state]} {name}" for state, name in STATES.items())
        print(f"{as_text(plan.command)}\n  {counted(len(states), 'run')}: {listed}")
        for key, state in states.items():
            if state != "ok":
                reason = f": {errors[key]}" if key in errors else ""
                print(as_text(f"  {state} {key}{reason}"))
    others = Counter(state for key, state in found.items() if key not in planned)
    print(f"not part of a sweep: {others['ok']} done, {others['failed']} failed")
    if len(runs) and runs.core_seconds.notna().any():
        hours, timed = runs.core_seconds.sum() / 3600, int(runs.core_seconds.notna().sum())
        print(f"{hours:,.2f} core hours of training and scoring, in {counted(timed, 'run')}")
    check_complete(problems, "sweep plan")


def select(runs: pd.DataFrame, conditions: list[str]) -> pd.DataFrame:
    """The runs that match all conditions.

    Args:
        runs: runs from ``load_records``.
        conditions: run keys, or ``setting=value`` with a column or the last part of its path.

    Raises:
        UserError: a condition does not name a column.
    """
    columns = [name for name in runs.columns if name not in NESTED]
    names = {short: path for path, short in short_names(columns).items()}
    names |= {column: column for column in columns}
    for condition in conditions:
        name, equals, value = condition.partition("=")
        if not equals:
            runs = runs[runs.key == condition]
        elif name in names:
            runs = runs[[_matches(found, value) for found in runs[names[name]]]]
        else:
            raise UserError(
                f"{condition}: must be a run key, or setting=value with a setting among "
                f"{', '.join(columns)}"
            )
    return runs


def _matches(found: Any, value: str) -> bool:
    if isinstance(found, float) and pd.isna(found):
        found = None
    if show(found) == value or str(found) == value:
        return True
    try:
        return not isinstance(found, str | list | dict) and float(found) == float(value)
    except (TypeError, ValueError):
        return False


def print_runs(runs: pd.DataFrame, protocol: str) -> None:
    """Print key, scores, command and commit of each run."""
    for run in runs.itertuples():
        scores = getattr(run, protocol) or {}
        shown = records.scores_text(scores, digits=2)
        outcome = shown or f"{run.status}: {run.error}"
        lines = [run.key, f"  {outcome}", f"  {run.command}", f"  commit {run.commit}"]
        print("\n".join(["", *map(as_text, lines)]))


def _is_plain(values: pd.Series) -> bool:
    """Whether a column of Parquet takes values as they are: numbers, or all of one simple type."""
    kinds = {type(value) for value in values.dropna()}
    return kinds <= {int, float} or (len(kinds) == 1 and not kinds & {list, dict})


def export(runs: pd.DataFrame, out: Path) -> pd.DataFrame:
    """Write one flat table with scores as columns ``last.accuracy``, ``best.accuracy`` ...

    Args:
        runs: runs from ``load_records``.
        out: file to write, .csv or .parquet.

    Returns:
        The table.

    Raises:
        UserError: the file has another suffix, or cannot be written.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise UserError(f"--out {out}: must end in .csv or .parquet")
    flat = runs.drop(columns=list(NESTED))
    mixed = [name for name in flat if not _is_plain(flat[name])]
    flat = flat.assign(**{name: flat[name].map(show) for name in mixed})
    for protocol in PROTOCOLS:
        scores = pd.DataFrame([found or {} for found in runs[protocol]], flat.index)
        flat = flat.join(scores.add_prefix(f"{protocol}."))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".parquet":
            flat.to_parquet(out)
        else:
            guarded(flat).to_csv(out, index=False)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({reason_of(error)})") from None
    return flat
