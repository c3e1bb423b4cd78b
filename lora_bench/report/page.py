"""One self-contained page: sortable tables, the pictures, and the runs behind each number."""

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd

from .cells import IDS, make_cells, median_costs
from .costs import MIB
from .pictures import draw
from .runs import PROTOCOLS

TEMPLATE = Path(__file__).parent / "page.html"
COSTS = {
    "trained_parameters": "trained",
    "adapter_bytes": "mib",
    "train_seconds": "seconds",
    "peak_memory_bytes": "memory",
}
FACTS = ("task", "metric", "model", "train_rows", "mean", "sd", "n", "failed", *COSTS.values())


def write_page(runs: pd.DataFrame, path: Path) -> None:
    """Write the page for all these runs; it needs no network and no other file."""
    cells = {protocol: make_cells(runs, protocol) for protocol in PROTOCOLS}
    with tempfile.TemporaryDirectory() as folder:
        pictures = {
            file.stem: "data:image/svg+xml;base64," + base64.b64encode(file.read_bytes()).decode()
            for file in draw(cells["last"], runs, Path(folder))
            if file.suffix == ".svg"
        }
    failed = int((runs.status != "ok").sum())
    content = {
        "about": f"{len(runs)} runs ({failed} failed), {runs.task.nunique()} tasks, "
        f"{runs.method.nunique()} methods.",
        "tasks": sorted(runs.task.unique()),
        "cells": {protocol: _rows(found, runs) for protocol, found in cells.items()},
        "runs": {run.key: _run(run) for run in runs.itertuples()},
        "pictures": pictures,
    }
    # no text of a run can close or open a script element
    text = json.dumps(content, allow_nan=False).replace("<", "\\u003c")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TEMPLATE.read_text().replace("/*DATA*/", text))


def _rows(cells: pd.DataFrame, runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Cells as the page's script takes them: plain values, None where unknown."""
    costs = median_costs(runs, list(COSTS)).rename(columns=COSTS)
    costs["mib"], costs["memory"] = costs.mib / MIB, costs.memory / MIB
    cells = cells.merge(costs.reset_index(), on=IDS, how="left")
    best = cells.groupby(["where_id", "metric"], dropna=False)["mean"].transform("max")
    rows = []
    for (_, cell), top in zip(cells.iterrows(), best, strict=True):
        rows.append(
            {
                **{name: _plain(cell[name]) for name in FACTS},
                "system": cell.label,
                "data": ", ".join(filter(None, [cell.data, cell.condition])),
                "first": bool(cell["first"]),
                "interval": None if pd.isna(cell.low) else f"{cell.low:.1f} to {cell.high:.1f}",
                "keys": cell["keys"],
                "scores": cell.scores,
                "id": f"{cell['keys'][0]}:{cell.metric}",
                "best": bool(cell["mean"] == top),
            }
        )
    return rows


def _run(run: Any) -> dict[str, Any]:
    facts = ("status", "seed", "command", "commit", "error")
    return {**{name: _plain(getattr(run, name)) for name in facts}, "versions": run.versions}


def _plain(value: Any) -> Any:
    if value is None or pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value
