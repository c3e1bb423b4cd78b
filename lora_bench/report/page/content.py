"""The content of the page: plain numbers and texts, each text once.

The lists refer to each other by index, so that ten thousand runs take only a few megabytes.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice
from typing import Any

import numpy as np
import pandas as pd

from ...errors import counted
from ...record import main_metric
from ..cells import IDS, make_cells, median_costs, median_sizes
from ..costs import MIB
from ..methods_table import TASK_ORDER
from ..pairs import clear_best
from ..published import MNLI_OVERALL, NONE, published_pairs
from ..runs import PROTOCOLS, REFERENCES
from ..statistics import Paired, compare_all, won
from ..sweeps import sweeps

COSTS = ("trained_parameters", "adapter_bytes", "train_seconds", "peak_memory_bytes")
MAX_EPOCHS = 60  # points in a curve
MAX_RIVALS = 24  # systems of one column of which all pairs are compared
DIGITS = 3  # after the decimal point of a score in percent


class Texts:
    """Texts by index; each is kept once."""

    def __init__(self) -> None:
        self.positions: dict[str, int] = {}

    def add(self, text: Any) -> int:
        """The index of a text; None is stored as ""."""
        known = "" if text is None or text != text else str(text)
        return self.positions.setdefault(known, len(self.positions))


def content(runs: pd.DataFrame) -> dict[str, Any]:
    """Everything that the page shows.

    Args:
        runs: runs from ``load_records``.
    """
    cells = {protocol: make_cells(runs, protocol) for protocol in PROTOCOLS}
    texts = Texts()
    trials = {ids: i for i, ids in enumerate(runs.groupby(IDS, sort=False).groups)}
    places = _places(cells.values())
    positions = {name: i for i, name in enumerate(places)}
    failed = int((runs.status != "ok").sum())
    return {
        "about": f"{counted(len(runs), 'run')} ({failed} failed), "
        f"{counted(runs.task.nunique(), 'task')}, {counted(runs.method.nunique(), 'method')}.",
        "places": _described(places, runs),
        "trials": _trials(runs, trials),
        "runs": _runs(runs, texts),
        "cells": {
            protocol: [_cell(cell, positions, trials, texts) for cell in found.itertuples()]
            for protocol, found in cells.items()
        },
        "sweeps": {protocol: _sweeps(found, texts) for protocol, found in cells.items()},
        "published": {
            protocol: _published(found, runs, protocol, texts) for protocol, found in cells.items()
        },
        "nothing_published": NONE,
        "pairs": {protocol: _pairs(list(_ranked(found))) for protocol, found in cells.items()},
        "texts": list(texts.positions),
    }


def _places(found: Iterable[pd.DataFrame]) -> dict[tuple[str, str], Any]:
    """One cell of each task, metric, model and data: real data first, tasks in LoRA's order."""
    order = {task: i for i, task in enumerate(TASK_ORDER)}
    places: dict[tuple[str, str], Any] = {}
    for cells in found:
        for cell in cells.itertuples():
            places.setdefault((cell.where_id, _metric(cell)), cell)
    return dict(
        sorted(
            places.items(),
            key=lambda item: (
                item[1].data == "toy",
                order.get(item[1].task, len(order)),
                item[1].task,
            ),
        )
    )


def _metric(cell: Any) -> str:
    return cell.metric if isinstance(cell.metric, str) else ""


def _described(places: Mapping[tuple[str, str], Any], runs: pd.DataFrame) -> list[dict[str, Any]]:
    done = runs.loc[runs.status == "ok", ["where_id", *REFERENCES]]
    known = done.drop_duplicates("where_id", keep="last").itertuples()
    references = {run.where_id: run for run in known}
    return [
        {
            "task": cell.task,
            "metric": metric,
            "condition": cell.condition,
            "model": cell.model,
            "data": str(cell.data),
            "rows": _number(cell.train_rows, 0),
            "first": bool(cell.first),
            "references": _references(references.get(where_id), metric),
        }
        for (where_id, metric), cell in places.items()
    ]


def _references(run: Any, metric: str) -> dict[str, float | None]:
    """Reference scores, in percent."""
    known = {name: getattr(run, name, None) or {} for name in REFERENCES}
    return {
        name.replace("_", " "): _number(100 * scores[metric], DIGITS)
        for name, scores in known.items()
        if scores.get(metric) is not None
    }


def _trials(runs: pd.DataFrame, trials: Mapping[tuple, int]) -> list[list[Any]]:
    """Runs, costs and curve of each system in one place: indices of runs, then numbers."""
    costs = median_costs(runs, list(COSTS)).assign(size=median_sizes(runs))
    costs["adapter_bytes"] /= MIB
    costs["peak_memory_bytes"] /= MIB
    known = {
        ids: [_number(value, 2) for value in row]
        for ids, *row in costs[["size", *COSTS]].itertuples(name=None)
    }
    members: dict[tuple, list[int]] = {ids: [] for ids in trials}
    curves: dict[tuple, list[list[dict[str, Any]]]] = {ids: [] for ids in trials}
    mains: dict[str, str] = {}
    columns = zip(*(runs[name] for name in (*IDS, "where", "status", "epochs")), strict=True)
    for i, (where_id, system_id, where, status, epochs) in enumerate(columns):
        members[where_id, system_id].append(i)
        mains[where_id] = main_metric(where)
        if status == "ok":
            curves[where_id, system_id].append(epochs)
    return [
        [members[ids], known.get(ids, []), _curve(curves[ids], mains[ids[0]])] for ids in trials
    ]


def _curve(runs: Sequence[Sequence[Mapping[str, Any]]], metric: str) -> list[list[float | None]]:
    """Epochs, mean loss, and mean, min and max of a metric over the seeds, in percent.

    Only epochs that every run has: a run that stopped early would leave the mean to the others.
    """
    losses: dict[float, list[float]] = {}
    scores: dict[float, list[float]] = {}
    for epoch in (epoch for epochs in runs for epoch in epochs):
        if epoch.get("loss") is not None:
            losses.setdefault(epoch["epoch"], []).append(epoch["loss"])
        if epoch["scores"].get(metric) is not None:
            scores.setdefault(epoch["epoch"], []).append(100 * epoch["scores"][metric])
    of_all = sorted(epoch for epoch, found in scores.items() if len(found) == len(runs))
    every = -(-len(of_all) // MAX_EPOCHS) or 1
    shown = of_all[::-1][::every][::-1]  # always with the last one
    return [
        [_number(epoch, 2) for epoch in shown],
        [_number(np.mean(losses[e]), 4) if e in losses else None for e in shown],
        *([_number(of(scores[e]), 2) for e in shown] for of in (np.mean, min, max)),
    ]


def _runs(runs: pd.DataFrame, texts: Texts) -> list[list[Any]]:
    """Key, status, seed, command, commit, start, data, versions and error of each run."""
    shown = runs[
        ["key", "status", "seed", "command", "commit", "started", "splits", "versions", "error"]
    ]
    return [
        [
            run.key,
            texts.add(run.status),
            run.seed,
            run.command,
            texts.add(run.commit),
            run.started,
            texts.add(run.splits),
            texts.add(", ".join(f"{k} {v}" for k, v in (run.versions or {}).items() if v)),
            run.error if isinstance(run.error, str) else None,  # pandas has NaN for None
        ]
        for run in shown.itertuples()
    ]


def _cell(
    cell: Any, places: Mapping[tuple[str, str], int], trials: Mapping[tuple, int], texts: Texts
) -> list[Any]:
    """System, place, trial, mean, sd, interval, failed runs, and the score of each seed."""
    return [
        texts.add(cell.label),
        places[cell.where_id, _metric(cell)],
        trials[cell.where_id, cell.system_id],
        *(_number(value, DIGITS) for value in (cell.mean, cell.sd, cell.low, cell.high)),
        cell.failed,
        {seed: _number(score, DIGITS) for seed, score in cell.scores.items()},
    ]


def _sweeps(cells: pd.DataFrame, texts: Texts) -> list[list[Any]]:
    """Name of each swept setting, its lines (name, then indices of cells and values), its title."""
    positions = {
        (keys[0], metric): i
        for i, (keys, metric) in enumerate(zip(cells["keys"], cells.metric, strict=True))
    }
    found = []
    for sweep in sweeps(cells):
        lines: dict[tuple, list[Any]] = {}
        names = ("where_id", "condition", "line", "keys", "metric", "x")
        for where_id, condition, line, keys, metric, x in zip(
            *(sweep.points[name] for name in names), strict=True
        ):
            points = lines.setdefault((where_id, line), [texts.add(line), texts.add(condition), []])
            points[2].append([positions[keys[0], metric], x])
        found.append([sweep.name, list(lines.values()), sweep.title.removeprefix("score over ")])
    return found


def _published(
    cells: pd.DataFrame, runs: pd.DataFrame, protocol: str, texts: Texts
) -> list[list[Any]]:
    """Index of our cell, published value and spread, source, and why they are not comparable."""
    pairs = published_pairs(cells, runs, protocol)
    pairs = pairs[
        pairs.metric != MNLI_OVERALL
    ]  # no cell, so the page cannot show it; the table does
    columns = ("cell", "value", "spread", "origin", "reasons")
    return [
        [cell, value, _number(spread, 2), texts.add(origin), texts.add(reasons)]
        for cell, value, spread, origin, reasons in zip(
            *(pairs[name].tolist() for name in columns), strict=True
        )
    ]


def _ranked(cells: pd.DataFrame) -> Iterator[list[Any]]:
    """The cells of each place with a score, the best first."""
    scored = cells.assign(position=range(len(cells)))[cells.n > 0]
    ordered = scored.sort_values("mean", ascending=False, kind="stable")
    for _, place in ordered.groupby(["where_id", "metric"], sort=False):
        yield list(place.itertuples())


def _pairs(places: Sequence[Sequence[Any]]) -> list[Any]:
    """For each place: indices of the MAX_RIVALS best cells, their pairs, how many are bold.

    Args:
        places: cells of each place, the best first.
    """
    rivals = [cells[:MAX_RIVALS] for cells in places]
    pairs = [(a.scores, b.scores) for cells in rivals for a, b in combinations(cells, 2)]
    compared = iter(compare_all(pairs))  # in one call, whose cost is mostly its number
    found = [list(islice(compared, math.comb(len(cells), 2))) for cells in rivals]
    bold = [
        len(clear_best([c.mean for c in own], [c.scores for c in own], [c.failed for c in own]))
        for own in places
    ]
    return [
        [[cell.position for cell in cells], _described_pairs(cells, own), count]
        for cells, own, count in zip(rivals, found, bold, strict=True)
    ]


def _described_pairs(cells: Sequence[Any], found: Sequence[Paired | None]) -> list[Any]:
    """Each pair of cells as numbers; null without a common seed.

    Difference, interval, p, the smallest possible p, common seeds, and seeds won by the first; a
    tie counts as half.
    """
    return [
        pair
        and [
            *(_number(value, DIGITS) for value in (pair.difference, pair.low, pair.high)),
            *(_number(value, 4) for value in (pair.p, pair.floor)),
            pair.n,
            _number(won(a.scores, b.scores), 1),
        ]
        for pair, (a, b) in zip(found, combinations(cells, 2), strict=True)
    ]


def _number(value: Any, digits: int) -> float | None:
    """A short number; None where it is unknown or not finite."""
    if value is None or not math.isfinite(value):
        return None
    short = round(float(value), digits)
    return int(short) if short.is_integer() else short
