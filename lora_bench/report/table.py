"""Output types: a table, and a number with its spread."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd


class Number(str):
    """A number as text, in parts: columns are aligned at the value.

    Attributes:
        value: digits with a decimal point, without thousands separators.
        spread: standard deviation, "" if there is none.
        mark: text in parentheses after both, "" for none.
    """

    value: str
    spread: str
    mark: str

    def __new__(cls, value: str, spread: str = "", mark: str = "") -> "Number":
        """``1,195.0 ± 2.0 (3)`` from its parts."""
        whole, point, rest = value.partition(".")
        sign = whole[:1] if whole[:1] in ("+", "-") else ""
        text = f"{sign}{int(whole.removeprefix(sign)):,}{point}{rest}"
        text += f" ± {spread}" if spread else ""
        text += f" ({mark})" if mark else ""
        found = super().__new__(cls, text)
        found.value, found.spread, found.mark = value, spread, mark
        return found


NO_ROWS = "No rows."  # instead of a table that has only a heading
MISSING = "–"


def as_text(value: Any) -> str:
    """A cell as one line of text; control characters, which a terminal would run, become spaces."""
    if isinstance(value, str):
        if value.isprintable():
            return str(value)  # no Number
        return "".join(c if c.isprintable() else " " for c in value)
    if value is None or value is pd.NA or value != value:
        return MISSING
    return f"{value:,}" if isinstance(value, int) else as_text(str(value))


def mapped(rows: pd.DataFrame, change: Callable[[Any], Any]) -> pd.DataFrame:
    """Rows with each cell changed; unlike DataFrame.map, it keeps a Number a Number."""
    cells = [[change(value) for value in row] for row in rows.itertuples(index=False, name=None)]
    return pd.DataFrame(cells, columns=rows.columns, dtype=object)


@dataclass
class Table:
    """A table to print.

    Attributes:
        name: stem of its file names.
        title: one line.
        rows: all cells as text, None where missing.
        best: (row, column) positions to set in bold.
        notes: lines below it.
        head: column -> task, metric and condition of its scores; once published, upper and lower
            line of its heading and "".
        apart: rows that are not systems: reference points above and below.
        spare: columns to leave out if there is no room, in this order.
        seeds: whether the marks of numbers are numbers of seeds.
        subscript: whether LaTeX sets spreads as subscripts.
    """

    name: str
    title: str
    rows: pd.DataFrame
    best: set[tuple[int, int]] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    head: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    apart: set[int] = field(default_factory=set)
    spare: tuple[str, ...] = ()
    seeds: bool = False
    subscript: bool = True

    def without(self, columns: Collection[str]) -> "Table":
        """The table without some columns; bold cells stay bold."""
        names = list(self.rows.columns)
        kept = [name for name in names if name not in columns]
        places = {names.index(name): i for i, name in enumerate(kept)}
        best = {(row, places[column]) for row, column in self.best if column in places}
        return replace(self, rows=self.rows[kept], best=best)

    def lines(self, rows: range) -> "Table":
        """The table with some of its rows."""
        inside = [row for row in rows if row < len(self.rows)]
        place = {row: i for i, row in enumerate(inside)}
        best = {(place[row], column) for row, column in self.best if row in place}
        apart = {place[row] for row in self.apart if row in place}
        return replace(self, rows=self.rows.iloc[inside], best=best, apart=apart)

    def heading(self, column: str) -> tuple[str, str]:
        """Upper and lower line of a column's heading."""
        upper, lower, _ = self.head.get(column, ("", str(column), ""))
        return upper, lower
