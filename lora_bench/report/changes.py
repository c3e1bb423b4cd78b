"""Two folders of results side by side: what changed between them beyond noise."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ..checks import counted
from .names import show, texts
from .pairs import MIN_COMMON_SEEDS
from .runs import identify
from .statistics import CONFIDENCE
from .table import Number, Table

TESTS = (
    "Noise: the 95 % interval contains 0 (Student t over common seeds; Welch's t if fewer than "
    "two seeds are common)."
)
SAME = 1e-9  # points: float noise
# settings that may differ between two revisions or machines in otherwise equal cells
APART = ("procedure", "model.fingerprint")


def changes_table(first: pd.DataFrame, second: pd.DataFrame) -> Table:
    """Every common cell, by the first metric, the largest difference first.

    Cells are the same if all settings are equal, except the procedure and the encoder's
    fingerprint. Runs are paired by seed if two or more seeds are common, or all seeds of a folder;
    otherwise the means of both are compared.

    Args:
        first: cells from ``make_cells``.
        second: cells of the second folder.
    """
    a, b = _by_identity(first), _by_identity(second)
    both = [identity for identity in a if identity in b]
    rows = [_row(a[identity], b[identity]) for identity in both]
    order = sorted(range(len(rows)), key=lambda i: -abs(float(rows[i]["difference"].value)))
    order.sort(key=lambda i: rows[i]["change"] != "beyond noise")
    columns = ["task", "system", "first", "second", "difference", "interval", "seeds", "change"]
    shown = pd.DataFrame([rows[i] for i in order], columns=columns, dtype=object)
    beyond = sum(row["change"] == "beyond noise" for row in rows)
    title = (
        f"Second minus first: {beyond} of {counted(len(rows), 'common cell')} changed beyond noise"
    )
    notes = [
        f"Only in the {name}: {', '.join(f'{c.label} ({c.place})' for c in alone)}."
        for name, alone in (
            ("first", [a[identity] for identity in a if identity not in b]),
            ("second", [b[identity] for identity in b if identity not in a]),
        )
        if alone
    ]
    pairs = [(a[identity], b[identity]) for identity in both]
    return Table("changes", title, shown, notes=[TESTS, *_set_aside(pairs), *notes])


def _set_aside(pairs: Sequence[tuple[pd.Series, pd.Series]]) -> list[str]:
    """A note for each setting of ``APART`` that differs between the folders."""
    notes = []
    for path in APART:
        values = [[show({**c["where"], **c.system}.get(path)) for c in pair] for pair in pairs]
        changes = sorted({f"{first} and {second}" for first, second in values if first != second})
        if changes:
            notes.append(f"{path} differs between first and second: {'; '.join(changes)}.")
    return notes


def _by_identity(cells: pd.DataFrame) -> dict[tuple[str, str], Any]:
    shown = cells[cells["first"] & (cells.n > 0)]
    return {
        (identify(texts(cell["where"], APART)), identify(texts(cell.system, APART))): cell
        for _, cell in shown.iterrows()
    }


def _row(first: pd.Series, second: pd.Series) -> dict[str, Any]:
    difference, low, high, seeds = _difference(second.scores, first.scores)
    return {
        "task": first.place,
        "system": first.label,
        "first": Number(f"{first['mean']:.1f}", mark=str(first.n)),
        "second": Number(f"{second['mean']:.1f}", mark=str(second.n)),
        "difference": Number(f"{difference:+z.2f}"),
        "interval": None if low is None else f"[{low:+.1f}, {high:+.1f}]",
        "seeds": seeds,
        "change": _verdict(difference, low, high),
    }


def _difference(
    second: Mapping[int, float], first: Mapping[int, float]
) -> tuple[float, float | None, float | None, str]:
    """Difference of the means, its interval, and how the seeds were compared."""
    common = sorted(first.keys() & second.keys())
    is_paired = len(common) >= min(MIN_COMMON_SEEDS, len(first), len(second))
    a, b = (
        np.array([scores[s] for s in (common if is_paired else scores)], dtype=float)
        for scores in (second, first)
    )
    difference = float(a.mean() - b.mean())
    seeds = counted(len(common), "pair") if is_paired else f"{len(b)} and {len(a)}"
    if len(common) >= MIN_COMMON_SEEDS and np.ptp(a - b) < SAME:
        return difference, difference, difference, seeds
    unknown = min(len(a), len(b)) < MIN_COMMON_SEEDS or np.ptp(a) == np.ptp(b) == 0
    if len(common) < MIN_COMMON_SEEDS and unknown:
        return difference, None, None, seeds
    test = stats.ttest_rel(a, b) if is_paired else stats.ttest_ind(a, b, equal_var=False)
    interval = test.confidence_interval(CONFIDENCE)
    return difference, float(interval.low), float(interval.high), seeds


def _verdict(difference: float, low: float | None, high: float | None) -> str:
    if abs(difference) < SAME:
        return "none"
    if low is None or high is None:
        return "noise unknown"
    return "within noise" if low <= 0 <= high else "beyond noise"
