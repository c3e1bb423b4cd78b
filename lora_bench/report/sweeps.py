"""Swept settings: scores over the values of one setting, and grids of rank by alpha."""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..spec import part_of
from .names import conditions, describe, short_names, show, system_names, texts
from .runs import identify

NO_SCALE = ("data.seed", "task.version", "procedure")  # numbers without an order
TRAIN_ROWS = "data.train_rows"
DATA = "data.fingerprint"  # changes with every setting of the data
RANK, ALPHA, RATE = "method.rank", "method.alpha", "train.lr"


@dataclass(frozen=True)
class Sweep:
    """One setting with several values among systems that are otherwise equal.

    Attributes:
        path: dotted path of the setting.
        name: shortest name of the setting.
        title: ``score over rank``, with the settings that vary with it.
        points: cells, ordered by the value, with columns ``x`` (the value), ``tick`` (the same
            as text) and ``line`` (name of the system without the setting). Their ``where_id``
            and ``condition`` leave out the setting too.
    """

    path: str
    name: str
    title: str
    points: pd.DataFrame


def sweeps(cells: pd.DataFrame) -> list[Sweep]:
    """Every numeric setting that was swept, in the order of the settings.

    A setting that is proportional to another one throughout a method, as alpha may be to the rank,
    belongs to it and is named with each value; so does a learning rate that was chosen for each
    rank, which also differs between tasks and is not named. Neither is a sweep of its own.
    """
    first = cells[cells["first"] & (cells.n > 0)].reset_index(drop=True)
    whole = [
        {**where, **system} for where, system in zip(first["where"], first.system, strict=True)
    ]
    methods = list(first.method)
    found: list[Sweep] = []
    followers: set[tuple[str, str]] = set()  # method and setting
    for path in dict.fromkeys(path for part in whole for path in part):
        if path in NO_SCALE:
            continue
        x = [_number(part.get(path)) for part in whole]
        if path == TRAIN_ROWS:  # null: all rows; their number is in the records
            x = [
                _number(rows) if v is None else v
                for v, rows in zip(x, first.train_rows, strict=True)
            ]
        x = [None if (m, path) in followers else v for v, m in zip(x, methods, strict=True)]
        if len(set(x) - {None}) < 2:
            continue
        frame = first.assign(x=pd.Series(x, dtype=float)).dropna(subset="x")
        along = {
            method: {*_in_proportion(list(group.system), path), *_chosen_for(group, path)}
            for method, group in frame.groupby("method")
        }
        points = _points(frame, path, along)
        if len(points):
            here = {(m, other) for m in points.method.unique() for other in along[m]}
            found.append(Sweep(path, *_title(path, {other for _, other in here}), points))
            followers |= here
    return found


def _title(path: str, others: Collection[str]) -> tuple[str, str]:
    """Name and title of the sweep of a setting with which others vary."""
    name, *along = short_names([path, *sorted(others)]).values()
    verb = "vary" if len(along) > 1 else "varies"
    return name, f"score over {name}" + (f"; {' and '.join(along)} {verb} with it" if along else "")


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and not math.isnan(value) else None


def _in_proportion(systems: Sequence[Mapping[str, Any]], path: str) -> list[str]:
    """Settings whose ratio to the one at ``path`` is constant over all systems."""
    if len({system.get(path) for system in systems}) < 2:
        return []
    found = []
    values = [_number(system.get(path)) for system in systems]
    for other in systems[0]:
        if other == path or not _number(systems[0][other]):  # most are not numbers
            continue
        pairs = [(x, _number(s.get(other))) for x, s in zip(values, systems, strict=True)]
        ratios = [y / x for x, y in pairs if x and y]
        if len(ratios) < len(pairs):
            continue
        if math.isclose(min(ratios), max(ratios)):
            found.append(other)
    return found


def _chosen_for(cells: pd.DataFrame, path: str) -> list[str]:
    """The learning rate, if ranks differ in it and each rank has only one in each place."""
    rates = cells.system.map(lambda system: system.get(RATE))
    alone = cells.groupby(["where_id", "x"]).size().max() == 1
    return [RATE] if path == RANK and alone and rates.nunique() > 1 else []


def _points(frame: pd.DataFrame, path: str, along: Mapping[str, set[str]]) -> pd.DataFrame:
    """The cells for which another one differs only in the setting at ``path``.

    Cells of which two have the same value there differ in something else, such as other data with
    as many rows: they are not a sweep.

    Args:
        frame: cells with ``x``.
        path: the swept setting.
        along: method -> settings that vary with it.
    """
    outside = {path, DATA} if part_of(path) == "where" else set()
    inside = {method: {path, *others} for method, others in along.items()}
    where_ids = reduced(frame.where_id, frame["where"], [outside] * len(frame))
    system_ids = reduced(frame.system_id, frame.system, [inside[m] for m in frame.method])
    frame = frame.assign(where_id=where_ids)
    # named among all systems, so that a line has the name of its systems
    frame = frame.assign(line=system_names(frame, inside), condition=conditions(frame, outside))
    x = frame.groupby([where_ids, system_ids]).x
    values = x.transform("nunique")
    points = frame[(values > 1) & (values == x.transform("size"))]
    ticks = []
    for x, system, method in points[["x", "system", "method"]].itertuples(index=False):
        named = describe(texts(system), sorted(along[method] - {RATE}), ", ")
        ticks.append(show(x) + (f" ({named})" if named else ""))
    points = points.assign(tick=ticks)
    # lines in the order of the cells, in which rank 4 comes before rank 16
    order = {line: i for i, line in enumerate(dict.fromkeys(points.line))}
    points = points.assign(order=points.line.map(order))
    points = points.sort_values(["order", "x"], kind="stable", ignore_index=True)
    return points.drop(columns="order")


def reduced(ids: pd.Series, parts: pd.Series, ignore: Sequence[Collection[str]]) -> pd.Series:
    """Ids of parts without some settings."""
    known: dict[str, str] = {}
    for id_, part, paths in zip(ids, parts, ignore, strict=True):
        if id_ not in known:
            known[id_] = identify(texts(part, paths)) if paths else id_
    return ids.map(known)


def grids(cells: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Each grid of several alphas at several ranks.

    Yields:
        Name of the system without both, and its cells in one place.
    """
    first = cells[cells["first"] & (cells.n > 0) & cells["rank"].notna() & cells.alpha.notna()]
    if first.empty:
        return
    lines = system_names(first, {method: {RANK, ALPHA} for method in first.method})
    for (line, _), group in first.assign(line=lines).groupby(["line", "where_id"], sort=False):
        # alpha in proportion to the rank is a line, not a grid
        if (group.groupby("alpha")["rank"].nunique() > 1).sum() > 1:
            yield str(line), group
