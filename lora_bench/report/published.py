"""Published numbers next to ours, and whether they are comparable.

The facts are in ``published.yaml``.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from ..errors import counted
from .cells import IDS, median_sizes
from .statistics import summarize_all
from .table import Table
from .tables import older_procedure

NONE = "No published number matches the task, metric, method and rank of a system shown."
PATH = Path(__file__).resolve().parent / "published.yaml"
FACTS = ["source", "model", "method", "rank", "parameters", "protocol", "statistic", "n", "note"]
COLUMNS = [*FACTS, "task", "metric", "value", "spread", "start"]

# Scores of MNLI's two parts, with their splits, and the score that publications call accuracy.
MNLI_PARTS = {
    "accuracy_matched": "validation_matched",
    "accuracy_mismatched": "validation_mismatched",
}
MNLI_OVERALL = "accuracy_overall"

COMPARED = [
    "model", "model_published", "protocol", "start", "start_published", "official", "data",
    "train_rows", "official_rows", "rank", "rank_published", "size_ours", "parameters",
]  # fmt: skip


@cache
def load_published() -> pd.DataFrame:
    """One row of COLUMNS for each number; value and spread in percent, start mnli or plain."""
    found = yaml.safe_load(PATH.read_text(encoding="utf-8"))
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


def published_pairs(cells: pd.DataFrame, runs: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Each of our cells with every published number of its task, metric, method and rank.

    Both parts of MNLI together have a pair too.

    Args:
        cells: cells from ``make_cells``.
        runs: behind the cells.
        protocol: protocol of the cells.

    Returns:
        Columns of cells and of FACTS, the position ``cell`` of our cell, ``origin``, ``ours``,
        ``difference``, and ``reasons`` why they are not comparable, "" if they are.
    """
    sizes = median_sizes(runs).rename("size_ours")
    official = runs.drop_duplicates("where_id").set_index("where_id")["task.official_rows"]
    known = cells.assign(cell=range(len(cells)), official_rows=cells.where_id.map(official))
    known = _with_overall(known[known.n > 0]).merge(sizes.reset_index(), on=IDS, how="left")
    pairs = known.merge(
        load_published(), on=["task", "metric", "method"], suffixes=("", "_published")
    )
    pairs = pairs[pairs.rank_published.isna() | (pairs["rank"] == pairs.rank_published)]
    return pairs.assign(
        origin=pairs.source + ": " + pairs.model_published + ", " + pairs.protocol + " epoch",
        ours=pairs["mean"].where(pairs.statistic != "median", pairs["median"]),
        reasons=[
            _reasons(pair, protocol)
            for pair in pairs[COMPARED].itertuples(index=False, name="Pair")
        ],
    ).assign(difference=lambda found: found.ours - found["value"])


def _with_overall(cells: pd.DataFrame) -> pd.DataFrame:
    """Also a cell over both parts of MNLI, as the LoRA paper scores it, for each that has both.

    Args:
        cells: cells with ``official_rows``, by which the parts are weighted.
    """
    found = []
    parts = cells[cells.metric.isin(MNLI_PARTS)]
    for _, both in parts.groupby(IDS, sort=False):
        rows = both.official_rows.iloc[0] or {}
        seeds = sorted(set.intersection(*(set(own) for own in both.scores)))
        is_known = len(both) == len(MNLI_PARTS) and rows.keys() >= set(MNLI_PARTS.values())
        if is_known and seeds:
            weights = [rows[MNLI_PARTS[metric]] for metric in both.metric]
            scores = {
                seed: float(np.average([own[seed] for own in both.scores], weights=weights))
                for seed in seeds
            }
            (summary,) = summarize_all([list(scores.values())])
            cell = {**both.iloc[0], **vars(summary), "metric": MNLI_OVERALL, "scores": scores}
            found.append(cell)
    if not found:
        return cells
    return pd.concat([cells, pd.DataFrame(found).astype(cells.dtypes)], ignore_index=True)


def published_table(cells: pd.DataFrame, runs: pd.DataFrame, protocol: str) -> Table:
    """Each of our cells next to every published number of its task, metric, method and rank.

    The verdict is "comparable" only if model, protocol, start and number of trained
    parameters are the same and all official data was used; otherwise it names what differs.

    Args:
        cells: cells from ``make_cells``.
        runs: behind the cells.
        protocol: protocol of the cells.
    """
    rows = []
    for pair in published_pairs(cells, runs, protocol).itertuples():
        spread = "" if pd.isna(pair.spread) else f" ± {pair.spread:.1f}"
        rows.append({
            "task": pair.task, "metric": pair.metric, "system": pair.label,
            "ours": f"{pair.ours:.1f} ({pair.n})", "published": f"{pair.value:.1f}{spread}",
            "difference": f"{pair.difference:+.1f}",
            "verdict": f"not comparable: {pair.reasons}" if pair.reasons else "comparable",
            "source": pair.origin,
        })  # fmt: skip
    names = ["task", "metric", "system", "ours", "published", "difference", "verdict", "source"]
    shown = pd.DataFrame(rows, columns=names, dtype=object).sort_values(
        "verdict", key=lambda v: v.str.startswith("not"), kind="stable"
    )
    procedure = older_procedure(cells)
    title = "Comparison with published numbers" + (f" ({procedure})" if procedure else "")
    notes = [] if rows else [NONE]
    return Table("published", title, shown, notes=notes)


def _reasons(pair: Any, protocol: str) -> str:
    """Why two numbers are not comparable; "" if they are.

    Args:
        pair: a row with the fields COMPARED.
        protocol: protocol of our number.
    """
    checks = (
        ("model", pair.model, pair.model_published),
        ("protocol", protocol, pair.protocol),
        ("start", pair.start, pair.start_published),
    )
    found = [f"{name} ({ours}, theirs {theirs})" for name, ours, theirs in checks if ours != theirs]
    if pd.notna(pair.rank) and pd.isna(pair.rank_published):
        found.append(f"rank ({pair.rank}, theirs not stated)")
    if not pair.official:
        found.append(f"data ({_other_data(pair)})")
    if pair.model == pair.model_published and _is_other_size(pair.size_ours, pair.parameters):
        found.append(f"trained parameters ({pair.size_ours:,.0f}, theirs {pair.parameters})")
    return ", ".join(found)


def _other_data(pair: Any) -> str:
    """How our data differs from the official data."""
    if pair.data == "toy":
        return "generated, theirs official"
    rows = pair.official_rows.get("train") if isinstance(pair.official_rows, dict) else None
    if rows is None or pd.isna(pair.train_rows):
        return "not the official rows"
    if pair.train_rows == rows:
        return "not scored on the official rows"
    return f"{counted(int(pair.train_rows), 'training row')}, theirs {rows:,}"


def _is_other_size(ours: float, theirs: Any) -> bool:
    """Whether counts differ by more than a tenth, and by more than the rounding of ``0.3M``.

    The method's name does not show other projections of LoRA or another width of an adapter.
    """
    found = re.fullmatch(r"([\d.]+)M", str(theirs))  # "0.42M with head" is another count
    if pd.isna(ours) or found is None:
        return False
    digits = found[1]
    rounding = 0.5 * 10.0 ** -len(digits.partition(".")[2])
    return abs(ours / 1e6 - float(digits)) > max(rounding, 0.1 * float(digits))
