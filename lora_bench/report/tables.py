"""Many records, grouped: one row for each system on a task, scores over seeds with n and spread."""

import pandas as pd

SYSTEM = ["task", "model", "data", "train_rows", "method", "rank", "recipe"]  # what makes two runs seeds of one cell
MIB = 1 << 20


def score_table(runs: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """Rows task x method x rank; one column for the first metric with n and spread, then cost.

    Args: runs: from ``load_records``. protocol: ``last`` (last epoch) or ``best`` (each run's best epoch, which looks at
        the validation data and is the LoRA paper's way). Scores are percent.
    """
    done = runs[runs.status == "ok"]
    rows = [_line(dict(zip(SYSTEM, key, strict=True)), group, protocol) for key, group in _systems(done)]
    table = pd.DataFrame(rows)
    return table.astype({"rank": "Int64"}) if len(table) else table  # nullable: plain integers turn to 8.0 beside a gap


def method_table(runs: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """One row for each task (and model, data), one column for each method; the first metric with n, in percent, between
    the task's reference points. Where a method was run with several recipes, the one with the best mean stands."""
    done = runs[runs.status == "ok"]
    lines: dict[tuple, dict] = {}
    for key, group in _systems(done):
        system, first = dict(zip(SYSTEM, key, strict=True)), group.iloc[0]
        metric = next(iter(first[protocol]))
        scores = pd.Series([100 * s[metric] for s in group[protocol]])
        place = (system["task"], system["model"], system["data"], system["train_rows"])
        line = lines.setdefault(place, {"task": system["task"], "metric": metric, "model": system["model"],
                                        "data": f"{system['data']}, {system['train_rows']:,.0f} rows"})  # fmt: skip
        for name in ("chance", "bag_of_words", "ceiling"):
            line[name] = None if first[name] is None else f"{100 * first[name][metric]:.1f}"
        rank = "" if pd.isna(system["rank"]) else f" r={system['rank']:.0f}"
        column = system["method"] + rank
        if column not in line or scores.mean() > line[column][0]:
            line[column] = (scores.mean(), f"{mean_spread(scores)} (n={len(scores)})")
    table = pd.DataFrame(list(lines.values()))
    fixed = ["task", "metric", "model", "data", "chance", "bag_of_words"]
    methods = sorted(set(table.columns) - {*fixed, "ceiling"}, key=lambda c: (table[c].map(_mean).mean(), c))
    shown = table.reindex(columns=[*fixed, *methods, "ceiling"])
    for column in methods:
        shown[column] = [cell[1] if isinstance(cell, tuple) else None for cell in shown[column]]
    return shown


def _mean(cell) -> float | None:
    return cell[0] if isinstance(cell, tuple) else None


def _systems(runs: pd.DataFrame):
    return runs.groupby(SYSTEM, dropna=False, sort=True) if len(runs) else []


def _line(system: dict, group: pd.DataFrame, protocol: str) -> dict:
    first = group.iloc[0]
    line = {
        "task": system["task"],
        "method": system["method"],
        "rank": None if pd.isna(system["rank"]) else int(system["rank"]),
        "recipe": system["recipe"],
        "model": system["model"],
        "data": f"{system['data']}, {system['train_rows']:,.0f} rows",
    }
    metrics = [name for name in first[protocol] if "_thresh" not in name]  # thresholds are no scores
    scores = pd.DataFrame(list(group[protocol])) * 100
    line["score"] = ", ".join(f"{m} {mean_spread(scores[m])}" for m in metrics)
    line["n"] = len(group)
    for name in ("chance", "ceiling"):
        facts = first[name]
        line[name] = None if facts is None else round(100 * facts[metrics[0]], 1)
    line["adapter"] = int(first.adapter_parameters)
    line["trained"] = int(first.trained_parameters)
    line["file, MiB"] = round(first.adapter_bytes / MIB, 2)
    line["train, s"] = round(group.train_seconds.median(), 1)
    memory = group.peak_memory_bytes.median()
    line["peak, MiB"] = None if pd.isna(memory) else round(memory / MIB)
    return line


def mean_spread(values: pd.Series) -> str:
    """``mean ± standard deviation``; the mean alone where there is one value."""
    return f"{values.mean():.1f}" + (f" ± {values.std():.1f}" if len(values) > 1 else "")


def failures(runs: pd.DataFrame) -> pd.DataFrame:
    """Failed runs with their one-line reason."""
    return runs.loc[runs.status != "ok", ["key", "error"]] if len(runs) else pd.DataFrame(columns=["key", "error"])


def fold_constants(table: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Take out the columns that say the same in every row; returns the rest and a line that says it once."""
    constant = [
        c for c in ("model", "data", "recipe", "n") if c in table and len(table) > 1 and table[c].nunique() == 1
    ]
    line = "; ".join(f"{column} {table[column].iloc[0]}" for column in constant)
    return table.drop(columns=constant), f"All rows: {line}." if line else ""


def to_markdown(table: pd.DataFrame) -> str:
    """A Markdown table; missing cells are a dash."""
    shown = table.astype(object)
    for column in shown:
        shown[column] = [_cell(value) for value in shown[column]]
    return shown.to_markdown(index=False, disable_numparse=True)


def _cell(value) -> str:
    if value is None or value is pd.NA or value != value:
        return "–"
    return f"{value:,}" if isinstance(value, int) else str(value)
