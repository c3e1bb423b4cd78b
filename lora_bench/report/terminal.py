"""A table for a terminal: it fits the width, and says what it leaves out."""

import io
import shutil

from rich import box
from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from .table import NO_ROWS, Number, Table, as_text

MIN_WIDTH = 12  # characters to which a text column is wrapped at least
GAP = 2  # characters between two columns


def to_terminal(table: Table, width: int | None = None) -> str:
    """Aligned columns, the best in bold.

    Text columns are wrapped. If that is not enough, columns are left out: first the table's spare
    columns in order, then columns from the right; a last line names them.

    Args:
        table: the table.
        width: characters per line; None for the terminal's width.
    """
    if table.rows.empty:
        return f"{NO_ROWS}\n"
    width = width or shutil.get_terminal_size((100, 24)).columns
    shown, left_out = fit(table, width)
    grid = Grid(box=box.SIMPLE_HEAD, header_style="", pad_edge=False, padding=(0, GAP // 2))
    for name in shown.rows.columns:
        heading = Text("\n".join(filter(None, map(as_text, shown.heading(name)))))
        is_number = _is_number(shown, name)
        grid.add_column(
            heading,
            justify="right" if is_number else "left",
            no_wrap=is_number,
            overflow="fold",
        )
    for i, row in enumerate(shown.rows.itertuples(index=False)):
        ends = i in shown.apart and i + 1 not in shown.apart
        begins = i + 1 in shown.apart and i not in shown.apart
        texts = [
            Text(as_text(value), style="bold" if (i, j) in shown.best else "")
            for j, value in enumerate(row)
        ]
        grid.add_row(*texts, end_section=ends or begins)
    out = io.StringIO()
    Console(
        file=out, width=width, force_terminal=True, color_system="standard", legacy_windows=False
    ).print(grid)
    lines = [line.rstrip() for line in out.getvalue().strip("\n").split("\n")]
    if left_out:
        lines += ["", f"Left out to fit {width} characters: {', '.join(left_out)}."]
    return "\n".join(lines)


def fit(table: Table, width: int) -> tuple[Table, list[str]]:
    """The table with the columns that fit, and the names of the others."""
    left_out: list[str] = []
    while len(table.rows.columns) > 1 and _least_width(table) > width:
        spare = [name for name in table.spare if name in table.rows]
        name = spare[0] if spare else table.rows.columns[-1]
        left_out.append(" ".join(filter(None, table.heading(name))))
        table = table.without([name])
    return table, left_out


def _least_width(table: Table) -> int:
    return sum(_least(table, name) + GAP for name in table.rows.columns)


def _least(table: Table, name: str) -> int:
    lines = [line for line in table.heading(name) if line]
    lines += [as_text(value) for value in table.rows[name]]
    longest = max(map(len, lines), default=1)
    return longest if _is_number(table, name) else min(longest, MIN_WIDTH)


def _is_number(table: Table, name: str) -> bool:
    return any(isinstance(value, Number | int) for value in table.rows[name])
