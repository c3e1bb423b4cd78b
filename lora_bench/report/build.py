"""Every table that can be built from some runs."""

from dataclasses import dataclass, replace

import pandas as pd

from .costs import cost_table
from .layout import DEFAULT, Layout
from .methods_table import methods_table
from .overall import overall_table
from .pairs import BASELINE, paired_table, pairs_table
from .table import Table
from .tables import alpha_tables, older_procedure, span_table, sweep_tables


@dataclass(frozen=True)
class Choices:
    """Options for the tables of a command.

    Attributes:
        statistic: ``mean`` or ``median`` over the seeds.
        baseline: the system that others are compared with.
        required: whether it is an error if there is no such system.
        all_pairs: whether all pairs of systems are compared as well.
        layout: layout of the table of methods.
    """

    statistic: str = "mean"
    baseline: str = BASELINE
    required: bool = False
    all_pairs: bool = False
    layout: Layout = DEFAULT


def all_tables(cells: pd.DataFrame, runs: pd.DataFrame, choices: Choices) -> list[Table]:
    """Every table with rows.

    Args:
        cells: cells from ``make_cells``.
        runs: the runs behind the cells.
        choices: what to show.

    Raises:
        UserError: no system matches the baseline.
    """
    statistic = choices.statistic
    tables: list[Table | None] = []
    if (cells.n > 0).any():
        tables = [
            methods_table(cells, runs, statistic, choices.layout),
            overall_table(cells, choices.layout),
            *sweep_tables(cells, statistic),
            *alpha_tables(cells, statistic),
            span_table(cells, statistic),
            cost_table(cells, runs, statistic),
            _of_procedure(paired_table(cells, choices.baseline, required=choices.required), cells),
            _of_procedure(pairs_table(cells), cells) if choices.all_pairs else None,
        ]
    tables.append(failures(runs))
    return [table for table in tables if table is not None and (len(table.rows) or table.notes)]


def _of_procedure(table: Table, cells: pd.DataFrame) -> Table:
    """The table, with the procedure in its title if all systems share an older one."""
    procedure = older_procedure(cells)
    return replace(table, title=f"{table.title} ({procedure})") if procedure else table


def failures(runs: pd.DataFrame) -> Table:
    """Failed runs with their one-line reason."""
    columns = ["key", "error"]
    failed = runs.loc[runs.status != "ok", columns] if len(runs) else pd.DataFrame(columns=columns)
    return Table("failed", "Failed runs", failed.reset_index(drop=True))
