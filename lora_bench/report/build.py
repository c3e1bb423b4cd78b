"""Every table that some runs fill."""

import pandas as pd

from .cells import compare_systems
from .costs import cost_table
from .tables import Table, alpha_tables, methods_table, older_procedure, span_table, sweep_tables


def all_tables(
    cells: pd.DataFrame, runs: pd.DataFrame, statistic: str, baseline: str
) -> list[Table]:
    """Every table with rows.

    Args:
        cells: from ``make_cells``.
        runs: behind the cells.
        statistic: ``mean`` or ``median`` of the seeds.
        baseline: the system that others are compared with.
    """
    tables: list[Table | None] = []
    if (cells.n > 0).any():
        tables = [
            methods_table(cells, runs, statistic),
            *sweep_tables(cells, statistic),
            *alpha_tables(cells, statistic),
            span_table(cells, statistic),
            cost_table(cells, runs, statistic),
            paired_table(cells, baseline),
        ]
    tables.append(failures(runs))
    return [table for table in tables if table is not None and (len(table.rows) or table.notes)]


def paired_table(cells: pd.DataFrame, baseline: str) -> Table:
    """Difference of each system from the baseline over common seeds."""
    rows, notes = compare_systems(cells, baseline)
    procedure = older_procedure(cells)
    title = f"Difference from {baseline} over common seeds"
    title += f" ({procedure})" if procedure else ""
    return Table("paired", title, rows, notes=notes)


def failures(runs: pd.DataFrame) -> Table:
    """Failed runs with their one-line reason."""
    columns = ["key", "error"]
    failed = runs.loc[runs.status != "ok", columns] if len(runs) else pd.DataFrame(columns=columns)
    return Table("failed", "Failed runs", failed.reset_index(drop=True))
