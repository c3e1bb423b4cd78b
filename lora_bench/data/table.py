"""Rows of text tasks: GLUE's official tab-separated files, and CSV and JSON lines files.

The suffix of a file decides: ``.csv`` (RFC 4180, with a header), ``.jsonl`` (an object on each
line), anything else tab-separated without quoting. All are UTF-8.
"""

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..errors import counted
from ..files import parse_json
from ..spec import TaskSpec
from . import DataError, Rows
from .columns import JSON_LINES, check_patterns, label_values, missing_in, names_in
from .files import check_characters, read_utf8, shown

Fields = dict[str, Any]  # column of the file -> its value
CSV = ".csv"
# float() would also accept 1_0, nan and the digits of every script
NUMBER = re.compile(r" *[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)? *")
QUOTE = ' (in a preset, quote labels that YAML reads as true or false: "yes", "no", "on", "off")'
csv.field_size_limit(2**31 - 1)  # a text may be longer than the module's 131,072 characters


def read(path: Path, task: TaskSpec, split: str, *, skip_bad: bool) -> Rows:
    """Rows of one file.

    Args:
        path: path of the file.
        task: the task; its ``local`` settings describe the columns.
        split: the split in the file.
        skip_bad: skip malformed rows and list them, instead of stopping.

    Raises:
        DataError: names the file, the line, the value and what is allowed.
    """
    skipped: list[str] = []
    rows, found = [], set[str]()
    for line, fields in _lines(path, task, split):
        try:
            values = _checked(fields)
            found.update(values)
            rows.append(_row(values, task, split))
        except ValueError as error:
            message = f"{path} line {line}: {error}"
            if not skip_bad:
                raise DataError(f"{message} (data.skip_bad=true leaves such rows out)") from None
            skipped.append(f"{path.name} line {line}: {error}")
    if split == "train" and rows:
        check_patterns(path, task, found)
    place = "/".join(filter(None, (task.local.folder, path.name)))
    return Rows(rows, f"local {place}", skipped)


def check_rows(rows: Sequence[Fields], task: TaskSpec, split: str) -> None:
    """Check rows that a library has read: texts, and class indices or values.

    Raises:
        ValueError: names the row, from 0, and what is wrong with it.
    """
    for number, row in enumerate(rows):
        try:
            for column in task.columns:
                _check_text(column, row[column])
            if not split.startswith("test"):
                _check_label(row["label"], task)
        except ValueError as error:
            raise ValueError(f"row {number}: {error}") from None


def _lines(path: Path, task: TaskSpec, split: str) -> Iterator[tuple[int, Fields | ValueError]]:
    """Yield (line number, fields, or what is wrong with the line) for each row.

    Raises:
        DataError: the header is wrong.
    """
    suffix = path.suffix.lower()
    if suffix == JSON_LINES:
        yield from _json_lines(path, task, split)
        return
    rows = _csv_rows(path) if suffix == CSV else _tsv_rows(path)
    header = task.local.headers.get(split)
    if header is None or split not in task.local.headerless:
        found = next(rows, (1, []))[1]
        header = _header(path, found, task, split)
    for number, values in rows:
        if len(values) == len(header):
            yield number, dict(zip(header, values, strict=True))
            continue
        kind = "comma" if suffix == CSV else "tab"
        given = counted(len(values), f"{kind}-separated column")
        reason = f"has {given}; must have as many as the header"
        yield number, ValueError(reason)


def _header(path: Path, found: list[str], task: TaskSpec, split: str) -> list[str]:
    """The header of a file: the official one, or, if there is none, one that names each column.

    Raises:
        DataError: it is wrong.
    """
    expected = task.local.headers.get(split)
    if expected is not None and found != expected:
        raise DataError(f"{path} line 1: header is {shown(found)}; must be {expected}")
    if len(set(found)) < len(found):
        raise DataError(f"{path} line 1: header {shown(found)} names a column twice")
    if missing := missing_in(found, task, split):
        raise DataError(f"{path} line 1: header is {shown(found)}; lacks {', '.join(missing)}")
    return found


def _text_lines(path: Path) -> list[str]:
    """The lines of a file, without the empty one after the last line break."""
    lines = read_utf8(path).split("\n")  # not splitlines: texts hold other Unicode line separators
    return lines if lines[-1] else lines[:-1]


def _tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(_text_lines(path), start=1):
        yield number, line.rstrip("\r").split("\t")


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader((f"{line}\n" for line in _text_lines(path)), strict=True)
    first = 1  # line where a row starts: a quoted text may contain line breaks
    while True:
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise DataError(f'{path} line {first}: {error}; must be CSV with " quotes') from None
        yield first, values
        first = reader.line_num + 1


def _json_lines(
    path: Path, task: TaskSpec, split: str
) -> Iterator[tuple[int, Fields | ValueError]]:
    for number, line in enumerate(_text_lines(path), start=1):
        try:
            fields = _json(line)
            if not isinstance(fields, dict):
                raise ValueError(f"is {shown(fields)}; must be an object")
            if missing := missing_in(fields, task, split):
                raise ValueError(f"lacks {', '.join(missing)}")
        except ValueError as error:
            yield number, error
        else:
            yield number, fields


def _json(line: str) -> Any:
    try:
        return parse_json(line)
    except ValueError as error:
        reason = str(error).removeprefix("line 1 ")
        raise ValueError(f"{reason}; must be a JSON object on each line") from None


def _checked(fields: Fields | ValueError) -> Fields:
    if isinstance(fields, ValueError):
        raise fields
    return fields


def _row(fields: Fields, task: TaskSpec, split: str) -> dict[str, Any]:
    """Our row from the fields of a line.

    Raises:
        ValueError: what is wrong with the line.
    """
    for column, pattern in task.local.patterns.items():
        if column in fields and not re.fullmatch(pattern, str(fields[column])):
            raise ValueError(f"column {column} is {shown(fields[column])}; must match {pattern}")
    columns, label = names_in(task, split)
    row: dict[str, Any] = {}
    for column, theirs in columns.items():
        text = row[column] = fields[theirs]
        _check_text(column, text)
        if not text.strip():
            raise ValueError(f"column {column} is empty; must be text")
    if label is not None:
        row["label"] = _label(fields[label], task)
    return row


def _check_text(column: str, text: Any) -> None:
    if not isinstance(text, str):
        raise ValueError(f"column {column} is {shown(text)}; must be text")
    check_characters(f"column {column}", text)


def _check_label(found: Any, task: TaskSpec) -> None:
    low, high = task.value_range or (0, len(task.labels) - 1)
    if not isinstance(found, int if task.labels else int | float) or not low <= found <= high:
        kind = "a whole number" if task.labels else "a number"
        raise ValueError(f"label is {shown(found)}; must be {kind} from {low:g} to {high:g}")


def _label(found: Any, task: TaskSpec) -> int | float:
    # in JSON lines a label may be a number; null, true, a list or an object is not a class
    number = isinstance(found, int | float) and not isinstance(found, bool)
    text = found if isinstance(found, str) else str(found) if number else None
    if task.labels:
        known = label_values(task)
        if text not in known:
            quoted = "" if not {"True", "False"} & set(known) else QUOTE
            raise ValueError(f"label is {shown(found)}; must be one of {', '.join(known)}{quoted}")
        return known.index(text)
    low, high = task.value_range
    if text is None or not NUMBER.fullmatch(text) or not low <= float(text) <= high:
        raise ValueError(f"label is {shown(found)}; must be a number from {low:g} to {high:g}")
    return float(text)
