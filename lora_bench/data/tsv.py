"""GLUE's official files: tab-separated, without quoting, UTF-8."""

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..spec import TaskSpec
from . import DataError, Rows
from .files import decoded, shown


def read(path: Path, task: TaskSpec, split: str, *, skip_bad: bool) -> Rows:
    """Rows of one file.

    Args:
        path: of the file.
        task: its ``local`` settings say what the columns are and hold.
        split: that the file holds.
        skip_bad: leave malformed rows out and list them instead of stopping.

    Raises:
        DataError: names the file, the line, the value and what is allowed.
    """
    skipped: list[str] = []
    rows = []
    for line, values in _lines(path, task, split):
        try:
            rows.append(_row(values, task, split))
        except ValueError as error:
            message = f"{path} line {line}: {error}"
            if not skip_bad:
                raise DataError(f"{message} (data.skip_bad=true leaves such rows out)") from None
            skipped.append(f"{path.name} line {line}: {error}")
    return Rows(rows, f"local {task.local.folder}/{path.name}", skipped)


def _lines(path: Path, task: TaskSpec, split: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, values) for each line below the header.

    Raises:
        DataError: the header is another one.
    """
    header = task.local.headers[split]
    lines = decoded(path).split("\n")  # not splitlines: texts hold other Unicode line separators
    if lines and not lines[-1]:
        lines.pop()
    first = 1
    if split not in task.local.headerless:
        found = lines[0].rstrip("\r").split("\t") if lines else []
        if found != header:
            raise DataError(f"{path} line 1: header is {shown(found)}; must be {header}")
        first = 2
    for number, line in enumerate(lines[first - 1 :], start=first):
        yield number, line.rstrip("\r").split("\t")


def _row(values: list[str], task: TaskSpec, split: str) -> dict[str, Any]:
    """Our row from the values of a line.

    Raises:
        ValueError: what is wrong with the line.
    """
    local = task.local
    header = local.headers[split]
    if len(values) != len(header):
        raise ValueError(
            f"has {len(values)} tab-separated columns; must have as many as the header"
        )
    fields = dict(zip(header, values, strict=True))
    for column, pattern in local.patterns.items():
        if column in fields and not re.fullmatch(pattern, fields[column]):
            raise ValueError(f"column {column} is {shown(fields[column])}; must match {pattern}")
    names = local.other_names.get(split, {})
    row: dict[str, Any] = {}
    for column, theirs in local.columns.items():
        row[column] = fields[names.get(theirs, theirs)]
        if not row[column].strip():
            raise ValueError(f"column {column} is empty; must be a text")
    if not split.startswith("test"):
        row["label"] = _label(fields[names.get(local.label, local.label)], task)
    return row


def _label(text: str, task: TaskSpec) -> int | float:
    if task.labels:
        known = task.local.label_values
        if text not in known:
            raise ValueError(f"label is {shown(text)}; must be one of {', '.join(known)}")
        return known.index(text)
    low, high = task.value_range
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise ValueError(f"label is {shown(text)}; must be a number from {low:g} to {high:g}")
    return value
