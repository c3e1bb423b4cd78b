"""``data=local``: the official files, unchanged: GLUE's folder (tab-separated, no quoting, UTF-8) or SQuAD's JSON."""

import math
import re
from pathlib import Path

from ..spec import DataSpec, TaskSpec
from . import DataError, Rows, _squad

SHOWN = 60  # characters of a wrong value that a message repeats


def load(task: TaskSpec, data: DataSpec, split: str) -> Rows:
    """Read one split. Raises: DataError: names file, line, value and what is allowed."""
    path = file_of(task, Path(data.root).expanduser(), split)
    if task.kind == "span":
        return _squad.read(path, decoded(path), task, skip_bad=data.skip_bad)
    skipped: list[str] = []
    rows = []
    for line, fields in _fields(path, task, split):
        try:
            rows.append(_row(fields, task, split))
        except ValueError as error:
            message = f"{path} line {line}: {error}"
            if not data.skip_bad:
                raise DataError(f"{message} (data.skip_bad=true leaves such rows out)") from None
            skipped.append(f"{path.name} line {line}: {error}")
    return Rows(rows, f"local {task.local.folder}/{path.name}", skipped)


def file_of(task: TaskSpec, root: Path, split: str) -> Path:
    """The file of a split. Raises: DataError: there is no such split, folder or file."""
    if not root.is_dir():
        raise DataError(
            f"data.root={root}: no such folder; must hold {task.local.folder or 'the official files'}/"
        )
    if split not in task.local.files:
        known = ", ".join(task.local.files) or "none: conf/task gives no local files"
        raise DataError(f"task={task.name} has no local split {split}; it has {known}")
    path = root / task.local.folder / task.local.files[split]
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "no such file"
        raise DataError(f"{path}: {what}; data=local expects split {split} of {task.name} there")
    return path


def _fields(path: Path, task: TaskSpec, split: str):
    """Yield (line number, {column: text} or the raw list where the width is wrong) for each row below the header."""
    header = task.local.headers[split]
    lines = decoded(path).split("\n")  # not splitlines: texts hold other Unicode line separators
    if lines and not lines[-1]:
        lines.pop()
    first = 1
    if split not in task.local.headerless:
        found = lines[0].rstrip("\r").split("\t") if lines else []
        if found != header:
            raise DataError(f"{path} line 1: header is {_shown(found)}; must be {header}")
        first = 2
    for number, line in enumerate(lines[first - 1 :], start=first):
        values = line.rstrip("\r").split("\t")
        yield (
            number,
            dict(zip(header, values, strict=True)) if len(values) == len(header) else values,
        )


def has(task: TaskSpec, data: DataSpec, split: str) -> bool:
    """Is the file of a split there?"""
    return (
        Path(data.root).expanduser() / task.local.folder / task.local.files.get(split, "")
    ).is_file()


def _row(fields, task: TaskSpec, split: str) -> dict:
    """One row of ours from one of the file's. Raises: ValueError: what is wrong with it."""
    if isinstance(fields, list):
        raise ValueError(
            f"has {len(fields)} tab-separated columns; must have as many as the header"
        )
    for column, pattern in task.local.patterns.items():
        if column in fields and not re.fullmatch(pattern, fields[column]):
            raise ValueError(f"column {column} is {_shown(fields[column])}; must match {pattern}")
    names = task.local.other_names.get(split, {})
    row = {ours: fields[names.get(theirs, theirs)] for ours, theirs in task.local.columns.items()}
    for column, text in row.items():
        if not text.strip():
            raise ValueError(f"column {column} is empty; must be a text")
    if not split.startswith("test"):
        row["label"] = _label(fields[names.get(task.local.label, task.local.label)], task)
    return row


def _label(text: str, task: TaskSpec) -> int | float:
    if task.labels:
        if text not in task.local.label_values:
            raise ValueError(
                f"label is {_shown(text)}; must be one of {', '.join(task.local.label_values)}"
            )
        return task.local.label_values.index(text)
    low, high = task.value_range
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise ValueError(f"label is {_shown(text)}; must be a number from {low:g} to {high:g}")
    return value


def decoded(path: Path) -> str:
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")  # MRPC starts with a byte-order mark
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} line {line}: byte 0x{raw[error.start]:02x} is not UTF-8; must be UTF-8 text"
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise DataError(f"{path} line {line}: holds a NUL character; must be UTF-8 text")
    return text


def _shown(value) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
