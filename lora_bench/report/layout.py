"""How tables look in a paper: which systems and tasks, in which order, with which names."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd
import yaml
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from ..errors import UserError, counted, first_problem, one_line
from .cells import IDS
from .table import Number, Table, mapped

NAMES = Path(__file__).parent / "names.yaml"
Column = Literal["parameters", "tasks", "average"]
Sort = Literal["score", "family", "given"]
End = Literal["last", "first"]
Spread = Literal["subscript", "after", "none"]
SYSTEMS = ("method", "system", "than")  # columns of labels


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Layout:
    """Layout options; each is a key of the ``--layout`` file and a command-line option."""

    tasks: list[str] = field(default_factory=list)  # in this order; empty: all
    methods: list[str] = field(default_factory=list)  # systems, by words of their name; empty: all
    # columns of the methods table, in this order
    columns: list[Column] = field(default_factory=lambda: list(get_args(Column)))
    rename: dict[str, str] = field(default_factory=dict)  # system, method, task or metric -> text
    sort: Sort = "score"  # rows of the methods table; given: in the order of methods
    best: End = "last"  # position of the best score with sort: score
    spread: Spread = "subscript"  # the standard deviation in LaTeX; none: not shown
    caption: str | None = None  # caption of the methods table in LaTeX; null: generated


DEFAULT = Layout()
_schema = TypeAdapter(Layout)
CHOICES = {"sort": get_args(Sort), "best": get_args(End), "spread": get_args(Spread)}


def load_layout(path: Path | None, options: dict[str, Any]) -> Layout:
    """The layout of a file; options of the command line take precedence.

    Args:
        path: YAML file; None for the defaults.
        options: field -> value; None if it was not given.

    Raises:
        UserError: the file cannot be read, or a key or a value is not allowed.
    """
    content: Any = {}
    if path is not None:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise UserError(f"--layout {path}: cannot be read: {one_line(error)}") from None
        if not isinstance(content, dict):
            raise UserError(f"--layout {path}: must map {_allowed()} to values")
    given = {name: value for name, value in options.items() if value is not None}
    try:
        layout = _schema.validate_python({**content, **given} if given else content)
    except ValidationError as error:
        first = error.errors()[0]
        place, reason = first_problem(error)
        is_option = given.keys() & set(first["loc"])
        option = place.partition(".")[0]
        source = f"--{option}" if is_option else f"--layout {path}: {place}"
        if "unexpected" in first["type"]:
            reason = f"must be one of {_allowed()}"
        raise UserError(f"{source}: {reason}, is {first['input']!r}") from None
    if layout.sort == "given" and not layout.methods:
        raise UserError("sort: given needs methods, whose order it takes")
    return layout


def _allowed() -> str:
    return ", ".join(entry.name for entry in fields(Layout))


def renames(words: Sequence[str] | None) -> dict[str, str] | None:
    """``lora=Ours`` as a dict; the text after the last ``=`` is the new name.

    Raises:
        UserError: a word without ``=``.
    """
    for word in words or ():
        if "=" not in word:
            raise UserError(f"--rename {word}: must be old=new")
    pairs = (word.rpartition("=") for word in words or ())
    return {old: new for old, _, new in pairs} or None


def choose(
    cells: pd.DataFrame, runs: pd.DataFrame, layout: Layout
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The cells and runs of the tasks and methods that a layout shows.

    Raises:
        UserError: it names a task, a system or another name that does not exist.
    """
    check_names(cells, layout)
    cells = shown_cells(cells, layout)
    if layout.tasks or layout.methods:
        ids = set(zip(*(cells[name] for name in IDS), strict=True))
        runs = runs[[pair in ids for pair in zip(*(runs[name] for name in IDS), strict=True)]]
    return cells, runs


def check_names(cells: pd.DataFrame, layout: Layout) -> None:
    """Refuse a task, a system or another name that does not exist.

    Raises:
        UserError: names the first one.
    """
    labels, tasks = list(dict.fromkeys(cells.label)), list(dict.fromkeys(cells.task))
    metrics = list(cells.metric.unique())
    for task in layout.tasks:
        if task not in tasks:
            raise UserError(f"tasks: {task}: must be one of {', '.join(tasks)}")
    for entry in layout.methods:
        if not any(fits(entry, label) for label in labels):
            raise UserError(f"methods: {entry}: must be one of {'; '.join(labels)}")
    known = {*labels, *tasks, *metrics, *cells.method}
    for name in layout.rename:
        if name not in known:
            raise UserError(f"rename: {name}: must be one of {'; '.join(sorted(known))}")


def shown_cells(cells: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """The cells of the tasks and methods that a layout shows."""
    if layout.tasks:
        cells = cells[cells.task.isin(layout.tasks)]
    if layout.methods:
        chosen = [any(fits(entry, label) for entry in layout.methods) for label in cells.label]
        cells = cells[chosen]
    return cells.reset_index(drop=True)


def fits(entry: str, label: str) -> bool:
    """Whether a name, or words of it, match a system."""
    return entry == label or set(entry.split()) <= set(label.split())


@cache
def published_names() -> dict[str, dict[str, str]]:
    """Kind (methods, tasks, metrics, columns) -> our name -> published name."""
    return yaml.safe_load(NAMES.read_text(encoding="utf-8"))


def as_published(table: Table, layout: Layout) -> Table:
    """A table with published names, the number of seeds in its title, and optional spreads."""
    rows, head = table.rows.copy(), {}
    for name in rows.columns:
        upper = ""
        lower = published_names()["columns"].get(name, str(name))
        if name in SYSTEMS:
            rows[name] = [
                text.capitalize() if i in table.apart else published_system(text, layout)
                for i, text in enumerate(rows[name])
            ]
        elif name in ("task", "metric"):
            rows[name] = [_named(text, f"{name}s", layout) for text in rows[name]]
        elif name in table.head:
            task, metric, condition = table.head[name]
            upper = _named(task, "tasks", layout) + (f" ({condition})" if condition else "")
            lower = _named(metric, "metrics", layout)
        head[name] = (upper, lower, "")
    if layout.spread == "none":
        rows = mapped(rows, lambda v: Number(v.value, "", v.mark) if isinstance(v, Number) else v)
    subscript = layout.spread == "subscript"
    shown = replace(table, rows=rows, head=head, subscript=subscript)
    return _seeds_once(shown) if table.seeds else shown


def _named(name: Any, kind: str, layout: Layout) -> str:
    return layout.rename.get(name) or published_names()[kind].get(name, str(name))


def published_system(label: Any, layout: Layout) -> str:
    """``LoRA, r = 8, biases=all`` for ``lora r=8 biases=all``."""
    if label in layout.rename:
        return layout.rename[label]
    method, *words = str(label).split(" ")
    words = [f"r = {word[2:]}" if word.startswith("r=") else word for word in words]
    return ", ".join([_named(method, "methods", layout), *words])


def _seeds_once(table: Table) -> Table:
    """Put the most common number of seeds in the title, and others after their scores."""
    marks = [v.mark for v in table.rows.to_numpy().ravel() if isinstance(v, Number) and v.mark]
    counts = pd.Series(marks, dtype=object).value_counts()
    plain = [mark for mark in counts.index if mark.isdecimal()]
    if not plain:
        return table
    most = plain[0]

    def folded(value: Any) -> Any:
        is_usual = isinstance(value, Number) and value.mark == most
        return Number(value.value, value.spread) if is_usual else value

    others = "" if len(counts) == 1 else " unless stated in parentheses"
    title = f"{table.title}; {counted(int(most), 'seed')}{others}"
    return replace(table, rows=mapped(table.rows, folded), title=title, seeds=False)
