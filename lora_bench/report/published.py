"""Published numbers next to ours, and whether two of them may be compared at all.

The facts are in ``published.yaml``.
"""

from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from .tables import Table, older_procedure

PATH = Path(__file__).resolve().parent / "published.yaml"
FACTS = ["source", "model", "method", "rank", "parameters", "protocol", "statistic", "n", "note"]
COLUMNS = [*FACTS, "task", "metric", "value", "spread", "start"]


@cache
def load_published() -> pd.DataFrame:
    """One row of COLUMNS for each number; value and spread in percent, start mnli or plain."""
    found = yaml.safe_load(PATH.read_text())
    rows = []
    for entry in found["results"]:
        facts = {name: entry.get(name) for name in FACTS}
        for place, (value, *spread) in entry["scores"].items():
            task, _, metric = place.partition(".")
            start = "mnli" if task in entry.get("started_from_mnli", ()) else "plain"
            number = {
                "task": task,
                "metric": metric or found["metrics"][task],
                "value": value,
                "spread": (spread or [None])[0],
            }
            rows.append({**facts, **number, "start": start})
    return pd.DataFrame(rows, columns=COLUMNS).astype({"rank": "Int64"})


def published_pairs(cells: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Each of our cells with every published number of its task, metric, method and rank.

    Args:
        cells: from ``make_cells``.
        protocol: that of the cells.

    Returns:
        Columns of cells and of FACTS, the position ``cell`` of our cell, ``origin``, ``ours``,
        ``difference``, and ``reasons`` why they do not compare, "" where they do.
    """
    known = cells.assign(cell=range(len(cells)))
    pairs = known[known.n > 0].merge(
        load_published(), on=["task", "metric", "method"], suffixes=("", "_published")
    )
    pairs = pairs[pairs.rank_published.isna() | (pairs["rank"] == pairs.rank_published)]
    compared = ("model", "model_published", "protocol", "start", "start_published", "official")
    rows = zip(*(pairs[name] for name in compared), strict=True)
    return pairs.assign(
        origin=pairs.source + ": " + pairs.model_published + ", " + pairs.protocol + " epoch",
        ours=pairs["mean"].where(pairs.statistic != "median", pairs["median"]),
        reasons=[_reasons(protocol, *row) for row in rows],
    ).assign(difference=lambda found: found.ours - found["value"])


def published_table(cells: pd.DataFrame, protocol: str) -> Table:
    """Each of our cells next to every published number of its task, metric, method and rank.

    The verdict says "reproduced within" only where model, protocol and start are the same and all
    official data was used.

    Args:
        cells: from ``make_cells``.
        protocol: that of the cells.
    """
    rows = []
    for pair in published_pairs(cells, protocol).itertuples():
        spread = "" if pd.isna(pair.spread) else f" ± {pair.spread:.1f}"
        within = f"reproduced within {abs(pair.difference):.1f}"
        rows.append({
            "task": pair.task, "metric": pair.metric, "system": pair.label,
            "ours": f"{pair.ours:.1f} ({pair.n})", "published": f"{pair.value:.1f}{spread}",
            "difference": f"{pair.difference:+.1f}",
            "verdict": f"not comparable: {pair.reasons}" if pair.reasons else within,
            "source": pair.origin,
        })  # fmt: skip
    names = ["task", "metric", "system", "ours", "published", "difference", "verdict", "source"]
    shown = pd.DataFrame(rows, columns=names, dtype=object).sort_values(
        "verdict", key=lambda v: v.str.startswith("not"), kind="stable"
    )
    procedure = older_procedure(cells)
    title = "Comparison with published numbers" + (f" ({procedure})" if procedure else "")
    return Table("published", title, shown)


@cache
def _reasons(
    protocol: str, model: str, model_published: str, protocol_published: str, start: str,
    start_published: str, official: bool,
) -> str:  # fmt: skip
    checks = (
        ("model", model, model_published),
        ("protocol", protocol, protocol_published),
        ("start", start, start_published),
    )
    reasons = [f"{name} {ours}, theirs {theirs}" for name, ours, theirs in checks if ours != theirs]
    return "; ".join(reasons + ([] if official else ["not the whole official data"]))
