"""What is printed: a table, and a number with its spread."""

from dataclasses import dataclass, field

import pandas as pd


class Number(str):
    """A number as text, in parts: columns are aligned at the value.

    Attributes:
        value: digits with a decimal point, without thousands separators.
        spread: standard deviation, "" where there is none.
        mark: what stands in parentheses behind both, "" for nothing.
    """

    value: str
    spread: str
    mark: str

    def __new__(cls, value: str, spread: str = "", mark: str = "") -> "Number":
        """``1,195.0 ± 2.0 (3)`` of its parts."""
        whole, point, rest = value.partition(".")
        sign = whole[:1] if whole[:1] in ("+", "-") else ""
        text = f"{sign}{int(whole.removeprefix(sign)):,}{point}{rest}"
        text += f" ± {spread}" if spread else ""
        text += f" ({mark})" if mark else ""
        found = super().__new__(cls, text)
        found.value, found.spread, found.mark = value, spread, mark
        return found


@dataclass
class Table:
    """What is printed.

    Attributes:
        name: stem of its files.
        title: one line.
        rows: all cells as text, None where missing.
        best: (row, column) positions to set in bold.
        notes: lines below it.
        head: column -> upper and lower line of its heading; a column's name where it lacks one.
        apart: rows that are no system: reference points above and below.
        spare: columns that are left out where there is no room, the first one first.
    """

    name: str
    title: str
    rows: pd.DataFrame
    best: set[tuple[int, int]] = field(default_factory=set)
    notes: list[str] = field(default_factory=list)
    head: dict[str, tuple[str, str]] = field(default_factory=dict)
    apart: set[int] = field(default_factory=set)
    spare: tuple[str, ...] = ()
