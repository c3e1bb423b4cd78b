"""One self-contained page: sortable, filterable tables, the pictures, and for each number the runs behind it."""

import base64
import json
import tempfile
from pathlib import Path

import pandas as pd

from . import PROTOCOLS
from .cells import PLACE, SYSTEM, labels, make_cells, median_costs
from .plots import draw
from .tables import MIB

TEMPLATE = Path(__file__).parent / "page.html"
COSTS = {
    "trained_parameters": "trained",
    "adapter_bytes": "mib",
    "train_seconds": "seconds",
    "peak_memory_bytes": "memory",
}


def write_page(runs: pd.DataFrame, path: Path) -> None:
    """Write the page for all these runs; it needs no network and no file beside it."""
    cells = {protocol: make_cells(runs, protocol) for protocol in PROTOCOLS}
    with tempfile.TemporaryDirectory() as folder:
        files = draw(cells["last"], runs, Path(folder))
        pictures = {
            f.stem: "data:image/svg+xml;base64," + base64.b64encode(f.read_bytes()).decode()
            for f in files
        }
    done = int((runs.status == "ok").sum())
    content = {
        "about": f"{len(runs)} runs ({done} well), {runs.task.nunique()} tasks, {runs.method.nunique()} methods.",
        "tasks": sorted(runs.task.unique()),
        "cells": {protocol: _rows(found, runs) for protocol, found in cells.items()},
        "runs": {run.key: _run(run) for run in runs.itertuples()},
        "pictures": pictures,
    }
    text = json.dumps(content, allow_nan=False).replace(
        "</", "<\\/"
    )  # no text of a run can close the script element
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(TEMPLATE.read_text().replace("/*DATA*/", text))


def _rows(cells: pd.DataFrame, runs: pd.DataFrame) -> list[dict]:
    """Cells as the page's script wants them: plain values, None where unknown."""
    costs = median_costs(runs, list(COSTS)).rename(columns=COSTS)
    costs["mib"], costs["memory"] = costs.mib / MIB, costs.memory.astype(float) / MIB
    cells = cells.assign(system=labels(cells)).merge(
        costs.reset_index(), on=[*PLACE, *SYSTEM], how="left"
    )
    best = cells.groupby([*PLACE, "metric"], dropna=False)["mean"].transform("max")
    rows = []
    for (_, cell), top in zip(cells.iterrows(), best, strict=True):
        row = {
            name: _plain(cell[name])
            for name in (
                "task",
                "metric",
                "model",
                "data",
                "train_rows",
                "system",
                "mean",
                "sd",
                "n",
                "failed",
                *COSTS.values(),
            )
        }
        interval = None if pd.isna(cell.low) else f"{cell.low:.1f} to {cell.high:.1f}"
        identity = f"{cell['keys'][0]}:{cell.metric}"
        rows.append(
            {
                **row,
                "first": bool(cell["first"]),
                "interval": interval,
                "keys": cell["keys"],
                "scores": cell.scores,
                "id": identity,
                "best": bool(cell["mean"] == top),
            }
        )
    return rows


def _run(run) -> dict:
    facts = {
        name: _plain(getattr(run, name))
        for name in ("status", "seed", "command", "commit", "error")
    }
    return {**facts, "versions": run.versions}


def _plain(value):
    if value is None or pd.isna(value):
        return None
    return value.item() if hasattr(value, "item") else value
