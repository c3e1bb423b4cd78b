"""Formats a table as Markdown, CSV, LaTeX or for a terminal."""

from collections.abc import Callable

import pandas as pd
from tabulate import tabulate

from .latex import to_latex as to_latex
from .table import NO_ROWS, Number, Table, as_text, mapped
from .terminal import to_terminal as to_terminal

# characters that Markdown would treat as markup
MARKDOWN = str.maketrans(
    {"\\": r"\\", "|": r"\|", "*": r"\*", "`": r"\`", "<": "&lt;", "~": r"\~", "[": r"\["}
)
FORMULA = ("=", "+", "-", "@")  # a spreadsheet evaluates a cell that begins with one of them


def to_markdown(table: Table) -> str:
    """A pipe table, the best in bold."""
    if table.rows.empty:
        return NO_ROWS
    rows = mapped(table.rows, lambda value: escape_markdown(as_text(value)))
    for row, column in table.best:
        rows.iat[row, column] = f"**{rows.iat[row, column]}**"
    rows.columns = pd.Index(
        [
            "<br>".join(escape_markdown(line) for line in table.heading(name) if line)
            for name in table.rows.columns
        ]
    )
    return tabulate(rows, headers="keys", tablefmt="pipe", showindex=False, disable_numparse=True)


def escape_markdown(text: str) -> str:
    """Text that Markdown shows literally."""
    return text.translate(MARKDOWN)


def to_csv(table: Table) -> str:
    """Cells without marks."""
    return guarded(table.rows).to_csv(index=False)


def guarded(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows without formulas: they are prefixed with an apostrophe, as in spreadsheets."""
    return mapped(rows, _guard).rename(columns=_guard)


def _guard(value: object) -> object:
    if isinstance(value, Number) or not isinstance(value, str):
        return value
    if not value.lstrip().startswith(FORMULA):
        return value
    try:
        float(value.replace(",", ""))
    except ValueError:
        return f"'{value}"
    return value


FORMATS: dict[str, Callable[[Table], str]] = {
    "markdown": to_markdown,
    "terminal": to_terminal,
    "latex": to_latex,
    "csv": to_csv,
}


def to_block(table: Table, style: str) -> str:
    """A table with its title and notes.

    Args:
        table: the table.
        style: one of FORMATS.
    """
    if style == "latex":  # its caption has the rest
        return to_latex(table)
    rest, line = fold_constants(table) if style in ("markdown", "terminal") else (table, "")
    lines = [rest.title, line, *rest.notes]
    if style == "markdown":
        lines = [escape_markdown(text) for text in lines]
    title = f"{'## ' if style == 'markdown' else ''}{lines[0]}"
    return "\n\n".join(filter(None, [title, lines[1], FORMATS[style](rest), *lines[2:]]))


def fold_constants(table: Table) -> tuple[Table, str]:
    """Remove the columns that are constant over all rows.

    Returns:
        The remaining table, and a line with the removed columns.
    """
    rows = table.rows
    names = [
        name
        for name in ("model", "data", "recipe", "n")
        if name in rows and len(rows) > 1 and rows[name].nunique(dropna=False) == 1
    ]
    if not names:
        return table, ""
    facts = [f"{name} {as_text(rows[name].iloc[0])}" for name in names if rows[name].iloc[0] != ""]
    return table.without(names), f"All rows: {'; '.join(facts)}." if facts else ""
