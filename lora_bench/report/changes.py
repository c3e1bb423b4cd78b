"""Two folders of results side by side: what changed between them beyond noise."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ..errors import counted
from .names import show, texts
from .pairs import MIN_COMMON_SEEDS
from .power import MIN_SEEDS
from .runs import identify
from .statistics import CONFIDENCE
from .table import Number, Table
from .tables import score

TESTS = (
    "Noise: the 95 % interval contains 0 (Student t over common seeds; Welch's t if fewer than "
    "two seeds are common). The intervals are not corrected for the number of cells: about 5 % of "
    "unchanged cells will appear as changed."
)
SAME = 1e-9  # points: float noise
BEYOND, FAILED = "beyond noise", "failed"  # the second is also the start of a longer text
# settings that may differ between two revisions or machines in otherwise equal cells
APART = ("procedure", "model.fingerprint")


def changes_table(first: pd.DataFrame, second: pd.DataFrame) -> Table:
    """Every common cell, by the first metric, the largest difference first.

    Cells are the same if all settings are equal, or all except the procedure and the encoder's
    fingerprint where neither folder has several such cells. Runs are paired by seed if two or more
    seeds are common, or all seeds of a folder; otherwise the means of both are compared.

    Args:
        first: cells from ``make_cells``.
        second: cells of the second folder.
    """
    pairs, alone = _matched(first[first["first"]], second[second["first"]])
    rows = sorted((_row(*pair) for pair in pairs), key=_importance)
    columns = ["task", "system", "first", "second", "difference", "interval", "seeds", "change"]
    shown = pd.DataFrame(rows, columns=columns, dtype=object)
    beyond = sum(row["change"] == BEYOND for row in rows)
    failed = sum(row["change"].startswith(FAILED) for row in rows)
    title = (
        f"Second minus first: {beyond} of {counted(len(rows), 'common cell')} changed beyond noise"
        + (f", {failed} failed" if failed else "")
    )
    notes = [
        f"Only in the {name}: {', '.join(f'{c.label} ({c.place})' for c in cells)}."
        for name, cells in zip(("first", "second"), alone, strict=True)
        if cells
    ]
    return Table("changes", title, shown, notes=[TESTS, *_set_aside(pairs), *notes])


def _matched(
    first: pd.DataFrame, second: pd.DataFrame
) -> tuple[list[tuple[Any, Any]], tuple[list[Any], list[Any]]]:
    """Pairs of the same cell, and the cells of each folder that have no partner."""
    pairs: list[tuple[Any, Any]] = []
    left = [list(row for _, row in cells.iterrows()) for cells in (first, second)]
    for ignored in ((), APART):  # equal cells first
        named = [_by_identity(cells, ignored) for cells in left]
        found = {
            identity: (own[0], named[1][identity][0])
            for identity, own in named[0].items()
            if len(own) == len(named[1].get(identity, ())) == 1
        }
        pairs += found.values()
        left = [
            [cell for identity, own in cells.items() if identity not in found for cell in own]
            for cells in named
        ]
    return pairs, (left[0], left[1])


def _importance(row: Mapping[str, Any]) -> tuple[bool, bool, float]:
    """Sort key: failures, then changes beyond noise, each with the largest difference first."""
    size = 0.0 if row["difference"] is None else abs(float(row["difference"].value))
    return not row["change"].startswith(FAILED), row["change"] != BEYOND, -size


def _set_aside(pairs: Sequence[tuple[pd.Series, pd.Series]]) -> list[str]:
    """A note for each setting of ``APART`` that differs between the folders."""
    notes = []
    for path in APART:
        values = [[show({**c["where"], **c.system}.get(path)) for c in pair] for pair in pairs]
        changes = sorted({f"{first} and {second}" for first, second in values if first != second})
        if changes:
            notes.append(f"{path} differs between first and second: {'; '.join(changes)}.")
    return notes


def _by_identity(cells: Sequence[Any], ignored: Sequence[str]) -> dict[tuple[str, str], list[Any]]:
    found: dict[tuple[str, str], list[Any]] = {}
    for cell in cells:
        ids = [identify(texts(part, ignored)) for part in (cell["where"], cell.system)]
        found.setdefault((ids[0], ids[1]), []).append(cell)
    return found


def _row(first: pd.Series, second: pd.Series) -> dict[str, Any]:
    facts = {
        "task": first.place,
        "system": first.label,
        **{
            name: score(cell["mean"], None, cell.n, cell.failed)
            for name, cell in (("first", first), ("second", second))
        },
    }
    if not first.n or not second.n:
        change = "none" if first.n == second.n else FAILED if first.n else "no longer failed"
        return {**facts, "difference": None, "interval": None, "seeds": "", "change": change}
    difference, low, high, seeds = _difference(second.scores, first.scores)
    more_failed = second.failed - first.failed
    change = _verdict(difference, low, high)
    return {
        **facts,
        "difference": Number(f"{difference:+z.2f}"),
        "interval": None if low is None else f"[{low:+.1f}, {high:+.1f}]",
        "seeds": seeds,
        "change": f"{FAILED}: {counted(more_failed, 'more run')}" if more_failed > 0 else change,
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
        if abs(difference) > SAME and len(common) < MIN_SEEDS:  # may be chance: one example each
            return difference, None, None, seeds
        return difference, difference, difference, seeds
    unknown = min(len(a), len(b)) < MIN_COMMON_SEEDS or np.ptp(a) == np.ptp(b) == 0
    if len(common) < MIN_COMMON_SEEDS and unknown:
        return difference, None, None, seeds
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)  # one side is constant
        test = stats.ttest_rel(a, b) if is_paired else stats.ttest_ind(a, b, equal_var=False)
    interval = test.confidence_interval(CONFIDENCE)
    return difference, float(interval.low), float(interval.high), seeds


def _verdict(difference: float, low: float | None, high: float | None) -> str:
    if abs(difference) < SAME:
        return "none"
    if low is None or high is None:
        return "noise unknown"
    return "within noise" if low <= 0 <= high else BEYOND
