"""Every table that some runs fill."""

from dataclasses import replace

import pandas as pd

from .costs import cost_table
from .pairs import paired_table, pairs_table
from .table import Table
from .tables import alpha_tables, methods_table, older_procedure, span_table, sweep_tables


def all_tables(
    cells: pd.DataFrame,
    runs: pd.DataFrame,
    statistic: str,
    baseline: str | None,
    all_pairs: bool = False,
) -> list[Table]:
    """Every table with rows.

    Args:
        cells: from ``make_cells``.
        runs: behind the cells.
        statistic: ``mean`` or ``median`` of the seeds.
        baseline: the system that others are compared with; None for the default.
        all_pairs: whether every two systems are compared as well.

    Raises:
        UserError: no system is the baseline.
    """
    tables: list[Table | None] = []
    if (cells.n > 0).any():
        tables = [
            methods_table(cells, runs, statistic),
            *sweep_tables(cells, statistic),
            *alpha_tables(cells, statistic),
            span_table(cells, statistic),
            cost_table(cells, runs, statistic),
            _of_procedure(paired_table(cells, baseline), cells),
            _of_procedure(pairs_table(cells), cells) if all_pairs else None,
        ]
    tables.append(failures(runs))
    return [table for table in tables if table is not None and (len(table.rows) or table.notes)]


def _of_procedure(table: Table, cells: pd.DataFrame) -> Table:
    """The table, titled with the procedure where all systems share an older one."""
    procedure = older_procedure(cells)
    return replace(table, title=f"{table.title} ({procedure})") if procedure else table


def failures(runs: pd.DataFrame) -> Table:
    """Failed runs with their one-line reason."""
    columns = ["key", "error"]
    failed = runs.loc[runs.status != "ok", columns] if len(runs) else pd.DataFrame(columns=columns)
    return Table("failed", "Failed runs", failed.reset_index(drop=True))
