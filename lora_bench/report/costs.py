"""Every metric of the runs and their costs: parameters, file size, time and memory."""

from collections.abc import Mapping, Sequence

import pandas as pd

from ..errors import counted
from .cells import IDS, median_costs
from .names import defaults, describe, texts, varying
from .table import Number, Table
from .tables import older_procedure

MIB = 1 << 20
SPARE = ("peak, MiB", "tokens/s", "adapter", "file, MiB", "n", "data", "model")
SHARE = (
    "Seconds marked as a share are those of a group of runs, divided among its members: they are "
    "not comparable with those of runs trained alone."
)
NAMED = ("method.name", "method.rank")  # settings with columns of their own
DEFINITION = ("method.file", "method.targets", "method.peft_type")  # what a method's name means
COSTS = [
    "train_seconds", "tokens_per_second", "peak_memory_bytes", "adapter_bytes",
    "adapter_parameters", "trained_parameters", "group_size", "shared_train_seconds",
]  # fmt: skip


def cost_table(cells: pd.DataFrame, runs: pd.DataFrame, statistic: str) -> Table:
    """Every metric of every system, and its costs (medians over seeds)."""
    scored = cells[cells.n > 0]
    known = scored.drop_duplicates(IDS)
    systems = known.drop_duplicates("system_id")
    parts = [texts(system) for system in systems.system]
    recipes = dict(zip(systems.system_id, _recipes(parts), strict=True))
    medians = median_costs(runs, COSTS).to_dict("index")
    scores: dict[tuple[str, str], list[str]] = {}
    for ids, metric, value, n, sd in zip(
        scored[IDS].itertuples(index=False, name=None),
        scored.metric, scored[statistic], scored.n, scored.sd, strict=True,
    ):  # fmt: skip
        spread = "" if n < 2 else f" ± {sd:.1f}"
        scores.setdefault(ids, []).append(f"{metric} {value:.1f}{spread}")
    rows = []
    for cell in known.itertuples():
        ids = cell.where_id, cell.system_id
        cost = medians[ids]
        data = cell.data
        if not pd.isna(cell.train_rows):
            data += f", {counted(int(cell.train_rows), 'row')}"
        rows.append({
            "task": cell.task, "model": cell.model,
            "data": ", ".join(filter(None, (data, cell.condition))), "method": cell.method,
            "rank": None if pd.isna(cell.rank) else int(cell.rank),
            "recipe": recipes[cell.system_id], "n": int(cell.n), "scores": ", ".join(scores[ids]),
            "adapter": _whole(cost["adapter_parameters"]),
            "trained": _whole(cost["trained_parameters"]),
            "file, MiB": _rounded(cost["adapter_bytes"], MIB, 2),
            "train, s": _seconds(cost),
            "tokens/s": _rounded(cost["tokens_per_second"], 1, 0),
            "peak, MiB": _rounded(cost["peak_memory_bytes"], MIB, 0),
        })  # fmt: skip
    procedure = older_procedure(scored)
    title = "Scores and costs" + (f" ({procedure})" if procedure else "")
    shared = _shared(parts) if len(known) > 1 else ""
    notes = [f"All systems: {shared}."] if shared else []
    if any(isinstance(row["train, s"], Number) and row["train, s"].mark for row in rows):
        notes.append(SHARE)
    return Table("costs", title, pd.DataFrame(rows, dtype=object), notes=notes, spare=SPARE)


def _recipes(parts: Sequence[Mapping[str, str]]) -> list[str]:
    """The settings of each system that vary between systems and are not at their default."""
    default = texts(defaults())
    in_name = {*NAMED, *(path for path in DEFINITION if _implied_by_name(path, parts))}
    shown = [path for path in varying(parts) if path not in in_name]
    return [
        describe(part, [p for p in shown if part.get(p, default.get(p)) != default.get(p)], ", ")
        for part in parts
    ]


def _implied_by_name(path: str, parts: Sequence[Mapping[str, str]]) -> bool:
    """Whether all systems of a method share the value."""
    pairs = {(part["method.name"], part.get(path)) for part in parts}
    return len(pairs) == len({name for name, _ in pairs})


def _shared(parts: Sequence[Mapping[str, str]]) -> str:
    """Settings that are equal for all systems and not at their default."""
    default = texts(defaults())
    differing = {*varying(parts), *NAMED, "procedure"}
    paths = [p for p, text in parts[0].items() if p not in differing and text != default.get(p)]
    return describe(parts[0], paths, ", ")


def _whole(value: float) -> int | None:
    return None if pd.isna(value) else int(value)


def _rounded(value: float, unit: int, digits: int) -> Number | None:
    return None if pd.isna(value) else Number(f"{value / unit:.{digits}f}")


def _seconds(cost: Mapping[str, float]) -> Number | None:
    """Training time of runs trained alone, or else the share of a group, marked as such."""
    if not pd.isna(cost["train_seconds"]):
        return Number(f"{cost['train_seconds']:.1f}")
    if pd.isna(cost["shared_train_seconds"]):
        return None
    mark = f"share of {cost['group_size']:.0f}"
    return Number(f"{cost['shared_train_seconds']:.1f}", mark=mark)
