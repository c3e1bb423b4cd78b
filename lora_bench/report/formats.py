"""A table as Markdown, CSV, LaTeX (booktabs) or for a terminal."""

from dataclasses import replace
from typing import Any

import pandas as pd
from tabulate import tabulate

from .tables import Table

MISSING = "–"
LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "_": r"\_",
    "#": r"\#",
    "±": r"$\pm$",
    MISSING: "--",
}


def to_markdown(table: Table) -> str:
    """A pipe table, the best in bold."""
    return _plain(table, "pipe", "**{}**")


def to_terminal(table: Table) -> str:
    """Aligned columns, the best in bold."""
    return _plain(table, "simple", "\033[1m{}\033[0m")


def to_latex(table: Table) -> str:
    r"""A booktabs tabular without a caption; needs ``\usepackage{booktabs}``."""
    escaped = replace(table, rows=_texts(table.rows).map(_escape))
    lines = [" & ".join(row) + r" \\" for row in _marked(escaped, r"\textbf{{{}}}").to_numpy()]
    head = " & ".join(_escape(str(column)) for column in table.rows.columns) + r" \\"
    columns = "l" + "r" * (len(table.rows.columns) - 1)
    rules = [
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        head,
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    comments = [f"% {line}" for line in (table.title, *table.notes)]
    return "\n".join([*comments, *rules]) + "\n"


def to_csv(table: Table) -> str:
    """Cells without marks."""
    return table.rows.to_csv(index=False)


FORMATS = {"markdown": to_markdown, "terminal": to_terminal, "latex": to_latex, "csv": to_csv}


def to_block(table: Table, style: str) -> str:
    """A table with its title and notes.

    Args:
        table: what is shown.
        style: one of FORMATS.
    """
    rest, line = fold_constants(table) if style in ("markdown", "terminal") else (table, "")
    title = f"{'## ' if style == 'markdown' else ''}{table.title}"
    notes = [] if style == "latex" else table.notes  # LaTeX has them as comments
    return "\n\n".join(filter(None, [title, line, FORMATS[style](rest), *notes]))


def fold_constants(table: Table) -> tuple[Table, str]:
    """Take out the columns that are the same in every row.

    Returns:
        The rest, and a line with the columns taken out.
    """
    rows = table.rows
    names = [
        name
        for name in ("model", "data", "recipe", "n")
        if name in rows and len(rows) > 1 and rows[name].nunique(dropna=False) == 1
    ]
    if not names:
        return table, ""
    facts = [f"{name} {rows[name].iloc[0]}" for name in names if rows[name].iloc[0] != ""]
    rest = replace(table, rows=rows.drop(columns=names), best=set())
    return rest, f"All rows: {'; '.join(facts)}." if facts else ""


def _plain(table: Table, style: str, bold: str) -> str:
    return tabulate(
        _marked(table, bold), headers="keys", tablefmt=style, showindex=False, disable_numparse=True
    )


def _marked(table: Table, bold: str) -> pd.DataFrame:
    """The rows as text, the best in bold."""
    texts = _texts(table.rows)
    for row, column in table.best:
        texts.iat[row, column] = bold.format(texts.iat[row, column])
    return texts


def _texts(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.astype(object).map(_text)


def _text(value: Any) -> str:
    if value is None or value is pd.NA or value != value:
        return MISSING
    return f"{value:,}" if isinstance(value, int) else str(value)


def _escape(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)
