"""Tuning curves: the score of every learning rate that was tried, from ``conf/tuned/``."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from ..errors import UserError, one_line
from ..spec import PROCEDURE, part_of
from ..tuned import SETTING, Trial
from .cells import IDS, places
from .layout import Layout, choose
from .names import conditions, system_names, texts
from .runs import DEFAULTS, SHORT, identify
from .statistics import expected_best
from .table import Number, Table

COLUMNS = ["task", "metric", "system", "lr", "score", "at the end", "trials", "core hours"]
BUDGETS = (1, 2, 4)  # budgets in the table
NOTE = (
    "Scores of rows held out of the training data, mean over the seeds of the search. At the end: "
    "the chosen rate is the lowest or the highest one, so a better one may lie beyond it. Expected "
    "best of k: the best of k rates of the grid drawn at random, without the rates added around "
    "the best one; a rate at which a run failed counts as the worst. Core "
    "hours: for training and scoring the runs of the search."
)


def load_curves(files: Iterable[Path], layout: Layout) -> pd.DataFrame:
    """Every tuning curve, one row each.

    Args:
        files: files that ``python -m lora_bench.tune`` wrote.
        layout: selects tasks and methods.

    Returns:
        The columns that name a cell (``task``, ``label``, ``condition``, ...), and ``lr`` (the
        chosen rate), ``trials`` (those of the most epochs) and ``expected`` (the expected best
        score in percent of 1, 2, ... trials; empty where some rates were dropped early).

    Raises:
        UserError: a file is not a tuning curve, there is none, or the layout names unknown entries.
    """
    rows = [_read(path) for path in files]
    if not rows:
        raise UserError("conf/tuned: no tuned rates; python -m lora_bench.tune finds them")
    curves = pd.DataFrame(rows)
    curves["label"] = system_names(curves)
    curves["condition"] = conditions(curves)
    curves["place"] = places(curves)
    chosen, _ = choose(curves, pd.DataFrame(columns=IDS), layout)
    return chosen.sort_values(["task", "condition", "label"], kind="stable", ignore_index=True)


def _read(path: Path) -> dict[str, Any]:
    """Row of one file.

    Raises:
        UserError: it is not a tuning curve.
    """
    try:
        return _row(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"{path}: is not a tuning curve: {reason}") from None


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    """Row of the content of one file.

    Raises:
        ValueError: the chosen rate is not among those that were trained to the end.
    """
    found = [Trial(t["lr"], t["epochs"], tuple(t["scores"])) for t in entry["curve"]]
    whole = max(trial.epochs for trial in found)
    trials = sorted((t for t in found if t.epochs == whole), key=lambda trial: trial.lr)
    if entry["lr"] not in [trial.lr for trial in trials if trial.mean is not None]:
        raise ValueError(f"lr {entry['lr']} is not on its curve")
    budget = entry["budget"]
    grid = [trial for trial in trials if trial.lr in budget["rates"]]
    row: dict[str, Any] = {
        "metric": entry["metric"],
        "lr": entry["lr"],
        "trials": trials,
        "core_hours": budget.get("core_hours"),
        "expected": [] if budget["halving"] else _expected(grid),
    }
    for name, default in DEFAULTS.items():
        own = {p: v for p, v in entry["settings"].items() if part_of(p) == name}
        row[name] = {p: v for p, v in {**default, **own}.items() if p != SETTING}
        row[f"{name}_id"] = identify(texts(row[name]))
    row["system"]["procedure"] = PROCEDURE  # a rate applies to every procedure
    settings = {**row["where"], **row["system"]}
    short = {name: settings.get(path) for name, path in SHORT.items()}
    return {**row, **short, "train_rows": settings.get("data.train_rows")}


def _expected(grid: Sequence[Trial]) -> list[float]:
    """Expected best score of 1, 2, ... rates of the grid; a failed rate counts as the worst."""
    known = [trial.mean for trial in grid if trial.mean is not None]
    if not known:
        return []
    scores = known + [min(known)] * (len(grid) - len(known))
    return [100 * score for score in expected_best(scores)]


def tuning_table(curves: pd.DataFrame) -> Table:
    """The chosen rate of each system, its score, and what a smaller budget would have found.

    Args:
        curves: curves from ``load_curves``.
    """
    rows = []
    notes = [NOTE]
    for curve in curves.itertuples():
        rates = [trial.lr for trial in curve.trials]
        ends = {rates[0]: "lowest", rates[-1]: "highest"}
        best = next(trial.mean for trial in curve.trials if trial.lr == curve.lr)
        equal = [t.lr for t in curve.trials if t.mean == best and t.lr != curve.lr]
        if equal:
            others = ", ".join(f"{lr:g}" for lr in equal)
            notes.append(
                f"{curve.label} on {curve.task}: {others} scored the same as {curve.lr:g}."
            )
        row = [
            ", ".join(filter(None, (curve.task, curve.condition))), curve.metric, curve.label,
            f"{curve.lr:g}", Number(f"{100 * best:.1f}"), ends.get(curve.lr, ""), len(rates),
            None if pd.isna(curve.core_hours) else Number(f"{curve.core_hours:.2f}"),
        ]  # fmt: skip
        known = dict(enumerate(curve.expected, 1))
        rows.append(row + [Number(f"{known[k]:.1f}") if k in known else None for k in BUDGETS])
    columns = [*COLUMNS, *(f"best of {k}" for k in BUDGETS)]
    shown = pd.DataFrame(rows, columns=columns, dtype=object)
    return Table("tuning", "Tuned learning rates", shown, notes=notes)
