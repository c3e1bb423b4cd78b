"""A table as Markdown, CSV, LaTeX (booktabs) or for a terminal."""

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
    return _plain(table, "pipe", "**{}**")


def to_terminal(table: Table) -> str:
    return _plain(table, "simple", "\033[1m{}\033[0m")


def to_latex(table: Table) -> str:
    """A booktabs tabular without a caption; needs ``\\usepackage{booktabs}``."""
    escaped = Table(table.name, table.title, _texts(table.rows).map(_escape), table.best)
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
    return "\n".join([f"% {table.title}", *rules]) + "\n"


def to_csv(table: Table) -> str:
    return table.rows.to_csv(index=False)


FORMATS = {"markdown": to_markdown, "terminal": to_terminal, "latex": to_latex, "csv": to_csv}


def fold_constants(table: Table) -> tuple[Table, str]:
    """Take out the columns that say the same in every row; returns the rest and a line that says it once."""
    rows = table.rows
    names = [
        c
        for c in ("model", "data", "recipe", "n")
        if c in rows and len(rows) > 1 and rows[c].nunique(dropna=False) == 1
    ]
    line = "; ".join(f"{name} {rows[name].iloc[0]}" for name in names)
    return Table(
        table.name, table.title, rows.drop(columns=names), set()
    ) if names else table, f"All rows: {line}." if line else ""


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


def _text(value) -> str:
    if value is None or value is pd.NA or value != value:
        return MISSING
    return f"{value:,}" if isinstance(value, int) else str(value)


def _escape(text: str) -> str:
    return "".join(LATEX.get(letter, letter) for letter in text)
