"""Many records, grouped: one row for each system on a task, scores over seeds with n and spread."""

import pandas as pd

SYSTEM = ["task", "model", "data", "train_rows", "method", "rank", "recipe"]  # what makes two runs seeds of one cell
PLACE = SYSTEM[:4]  # what a row of the method table stands for
MIB = 1 << 20


def score_table(runs: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """One row for each system: every metric over its seeds with spread and n, then the cost.

    Args: runs: from ``load_records``. protocol: ``last`` (last epoch) or ``best`` (each run's best epoch, which looks at
        the validation data and is the LoRA paper's way). Scores are percent.
    """
    table = pd.DataFrame([_line(system, group, protocol) for system, group in _systems(runs)])
    return table.astype({"rank": "Int64"}) if len(table) else table  # nullable: plain integers turn to 8.0 beside a gap


def method_table(runs: pd.DataFrame, protocol: str) -> pd.DataFrame:
    """One row for each task (on one model and data), one column for each method, worst first, between the task's reference
    points: mean, spread and n of the first metric, in percent. A method that was run with several recipes has a column
    for each: the table never chooses the better one."""
    systems = [(system, group) for system, group in _systems(runs)]
    recipes: dict[str, set[str]] = {}
    for system, _ in systems:
        recipes.setdefault(_method(system), set()).add(system["recipe"])
    lines: dict[tuple, dict] = {}
    means: dict[str, list[float]] = {}
    for system, group in systems:
        metric, scores = _first_metric(group, protocol)
        line = lines.setdefault(tuple(system[name] for name in PLACE), _place(system, group, metric))
        several = len(recipes[_method(system)]) > 1
        column = f"{_method(system)} ({system['recipe']})" if several else _method(system)
        line[column] = f"{mean_spread(scores)} (n={len(scores)})"
        means.setdefault(column, []).append(scores.mean())
    methods = sorted(means, key=lambda column: sum(means[column]) / len(means[column]))
    fixed = ["task", "metric", "model", "data", "chance", "bag_of_words"]
    return pd.DataFrame(list(lines.values()), columns=[*fixed, *methods, "ceiling"]).dropna(axis="columns", how="all")


def _systems(runs: pd.DataFrame):
    """Yield ({SYSTEM: value}, its finished runs) for each system."""
    done = runs[runs.status == "ok"]
    if len(done):
        for key, group in done.groupby(SYSTEM, dropna=False, sort=True):
            yield dict(zip(SYSTEM, key, strict=True)), group


def _method(system: dict) -> str:
    return system["method"] + ("" if pd.isna(system["rank"]) else f" r={system['rank']:.0f}")


def _first_metric(group: pd.DataFrame, protocol: str) -> tuple[str, pd.Series]:
    """Name of the first metric and its value in percent for each run."""
    metric = next(iter(group[protocol].iloc[0]))
    return metric, pd.Series([100 * scores[metric] for scores in group[protocol]])


def _place(system: dict, group: pd.DataFrame, metric: str) -> dict:
    """The part of a row that no method decides."""
    line = {"task": system["task"], "metric": metric, "model": system["model"], "data": _data(system)}
    for name in ("chance", "bag_of_words", "ceiling"):
        facts = group.iloc[0][name]
        line[name] = None if facts is None else f"{100 * facts[metric]:.1f}"
    return line


def _data(system: dict) -> str:
    return f"{system['data']}, {system['train_rows']:,.0f} rows"


def _line(system: dict, group: pd.DataFrame, protocol: str) -> dict:
    first, memory = group.iloc[0], group.peak_memory_bytes.median()
    scores = pd.DataFrame(list(group[protocol])) * 100
    metrics = [name for name in scores if "_thresh" not in name]  # thresholds are no scores
    place = _place(system, group, metrics[0])
    return {
        "task": system["task"],
        "method": system["method"],
        "rank": None if pd.isna(system["rank"]) else int(system["rank"]),
        "recipe": system["recipe"],
        "model": system["model"],
        "data": place["data"],
        "score": ", ".join(f"{name} {mean_spread(scores[name])}" for name in metrics),
        "n": len(group),
        "chance": place["chance"],
        "ceiling": place["ceiling"],
        "adapter": int(first.adapter_parameters),
        "trained": int(first.trained_parameters),
        "file, MiB": round(first.adapter_bytes / MIB, 2),
        "train, s": round(group.train_seconds.median(), 1),
        "tokens/s": round(group.tokens_per_second.median()),
        "peak, MiB": None if pd.isna(memory) else round(memory / MIB),
    }


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
