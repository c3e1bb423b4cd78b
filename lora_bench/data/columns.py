"""The columns of texts and labels in the files of each split, as ``task.local`` names them."""

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path

from ..errors import SpecError
from ..spec import LocalLayout, TaskSpec

# Settings of a task that describe tables; folder and files locate those of every format.
SETTINGS = frozenset(
    f"local.{entry.name}"
    for entry in dataclasses.fields(LocalLayout)
    if entry.name not in ("folder", "files")
)
JSON_LINES = ".jsonl"  # suffix of files whose lines name their columns


def check(task: TaskSpec) -> None:
    """Check that ``task.local`` locates the label and every column of the task.

    Raises:
        SpecError: names the setting, its value and what is allowed.
    """
    local, columns, labels = task.local, _columns(task), label_values(task)
    if missing := [column for column in task.columns if column not in columns]:
        raise SpecError("task.local.columns", local.columns, f"lacks {', '.join(missing)}")
    if len(labels) != len(task.labels):
        raise SpecError("task.local.label_values", labels, "must be one for each label")
    if len(set(labels)) < len(labels):
        raise SpecError("task.local.label_values", labels, "must not contain duplicates")
    for name in ("headers", "headerless", "other_names"):
        if unknown := [split for split in getattr(local, name) if split not in local.files]:
            reason = f"task.local.files has no {', '.join(unknown)}"
            raise SpecError(f"task.local.{name}", getattr(local, name), reason)
    for split in local.files or ["train"]:
        texts, label = names_in(task, split)
        if label in texts.values():
            reason = f"names {label}, the column of the label"
            raise SpecError("task.local.columns", texts, reason)
    for column, pattern in local.patterns.items():
        try:
            re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            path = f"task.local.patterns.{column}"
            raise SpecError(path, pattern, f"must be a regular expression ({error})") from None
    _check_files(task)


def _check_files(task: TaskSpec) -> None:
    local = task.local
    for split, name in local.files.items():
        if not name:
            raise SpecError(f"task.local.files.{split}", name, "must name a file")
        header = local.headers.get(split)
        if Path(name).suffix.lower() == JSON_LINES and (header or split in local.headerless):
            setting = "headers" if header else "headerless"
            raise SpecError(f"task.local.{setting}", split, f"has no effect on {name}")
        if header is None and split in local.headerless:
            raise SpecError("task.local.headers", [*local.headers], f"lacks {split}")
        if header is not None and (lacks := missing_in(header, task, split)):
            raise SpecError(f"task.local.headers.{split}", header, f"lacks {', '.join(lacks)}")


def check_optional(task: TaskSpec) -> None:
    """Check that ``task.local`` has a file for each optional split, which may be absent itself.

    Raises:
        SpecError: names a split without one, which would never be scored.
    """
    for split, metrics in task.optional.items():
        if split not in task.local.files:
            raise SpecError(f"task.optional.{split}", metrics, "task.local.files has no such split")


def check_patterns(path: Path, task: TaskSpec, found: set[str]) -> None:
    """Refuse a pattern for a column that neither the training file nor any header has.

    Raises:
        SpecError: names the pattern.
    """
    known = found.union(*task.local.headers.values())
    for column, pattern in task.local.patterns.items():
        if column not in known:
            reason = f"{path} has no column {column}; it has {', '.join(sorted(found))}"
            raise SpecError(f"task.local.patterns.{column}", pattern, reason)


def label_values(task: TaskSpec) -> list[str]:
    """The labels as the files write them: ``task.labels`` unless the preset says otherwise."""
    return task.local.label_values or task.labels


def names_in(task: TaskSpec, split: str) -> tuple[dict[str, str], str | None]:
    """Names in a split's file for each of our columns, and for the label if it has one."""
    other = task.local.other_names.get(split, {})
    columns = {ours: other.get(name, name) for ours, name in _columns(task).items()}
    label = task.local.label or "label"
    return columns, None if split.startswith("test") else other.get(label, label)


def missing_in(header: Iterable[str], task: TaskSpec, split: str) -> list[str]:
    """The columns that a header must have and lacks."""
    columns, label = names_in(task, split)
    needed = [*columns.values(), *([] if label is None else [label])]
    return [name for name in needed if name not in header]


def _columns(task: TaskSpec) -> dict[str, str]:
    """The file's name for each of our columns: the same unless the preset says otherwise."""
    return task.local.columns or {column: column for column in task.columns}
