"""Published numbers beside ours: facts in ``published.yaml``, and when two of them may be compared at all."""

from functools import cache
from pathlib import Path

import pandas as pd
import yaml

from .cells import labels
from .tables import Table

PATH = Path(__file__).resolve().parent / "published.yaml"
COLUMNS = [
    "source",
    "model",
    "method",
    "rank",
    "parameters",
    "protocol",
    "statistic",
    "n",
    "note",
    "task",
    "metric",
    "value",
]
COLUMNS += ["spread", "start"]


@cache
def load_published() -> pd.DataFrame:
    """One row for each number: source, model, method, rank, protocol, statistic, n, task, metric, value and spread in
    percent, start (``mnli`` or ``plain``)."""
    found = yaml.safe_load(PATH.read_text())
    rows = []
    for entry in found["results"]:
        facts = {name: entry.get(name) for name in COLUMNS[:9]}
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


def published_table(cells: pd.DataFrame, protocol: str) -> Table:
    """Each of our cells beside every published number of its task, metric, method and rank, with the difference. The verdict
    says 'reproduced within' only where model, protocol and start are the same and all official data was used."""
    ours = cells[cells.n > 0]
    pairs = ours.assign(system=labels(ours)).merge(
        load_published(), on=["task", "metric", "method"], suffixes=("", "_there")
    )
    rows = []
    for _, pair in pairs[pairs.rank_there.isna() | (pairs["rank"] == pairs.rank_there)].iterrows():
        ours_value = pair["median" if pair.statistic == "median" else "mean"]
        difference = ours_value - pair["value"]
        rows.append({
            "task": pair.task, "metric": pair.metric, "system": pair.system, "ours": f"{ours_value:.1f} ({pair.n})",
            "published": f"{pair['value']:.1f}" + ("" if pd.isna(pair.spread) else f" ± {pair.spread:.1f}"),
            "difference": f"{difference:+.1f}", "verdict": _verdict(pair, protocol, difference),
            "source": f"{pair.source}: {pair.model_there}, {pair.protocol} epoch",
        })  # fmt: skip
    names = ["task", "metric", "system", "ours", "published", "difference", "verdict", "source"]
    shown = pd.DataFrame(rows, columns=names).sort_values(
        "verdict", key=lambda v: v.str.startswith("not"), kind="stable"
    )
    return Table("published", "Beside published numbers", shown)


def _verdict(pair: pd.Series, protocol: str, difference: float) -> str:
    checks = (
        ("model", pair.model, pair.model_there),
        ("protocol", protocol, pair.protocol),
        ("start", pair.start, pair.start_there),
    )
    reasons = [f"{name} {mine}, theirs {theirs}" for name, mine, theirs in checks if mine != theirs]
    reasons += [] if pair.official else ["not the whole official data"]
    return (
        f"not comparable: {'; '.join(reasons)}"
        if reasons
        else f"reproduced within {abs(difference):.1f}"
    )
