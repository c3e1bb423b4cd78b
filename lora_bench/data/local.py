"""``data=local``: the unchanged official files, or a user's own, in a local folder."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import expanded
from ..spec import DataSpec, TaskSpec
from . import DataError, Rows

if TYPE_CHECKING:
    from ..tasks import Task

READS = frozenset({"root", "skip_bad"})


def load(task: "Task", data: DataSpec, split: str) -> Rows:
    """Read one split.

    Raises:
        DataError: names the file, the line, the value and what is allowed.
    """
    path = file_of(task.spec, expanded(data.root or ""), split)
    return task.read(path, split, data.skip_bad)


def has(task: TaskSpec, data: DataSpec, split: str) -> bool:
    """Whether the file of a split exists."""
    root = expanded(data.root or "")
    return split in task.local.files and _path(task, root, split).is_file()


def _path(task: TaskSpec, root: Path, split: str) -> Path:
    # normalized, so that ../ in a file's name is beside a linked folder, not beside its target
    return Path(os.path.normpath(root / task.local.folder / task.local.files[split]))


def holds(task: TaskSpec, root: Path, split: str) -> bool:
    """Whether a folder has something, a file or not, where the file of a split should be."""
    return _path(task, root, split).exists()


def file_of(task: TaskSpec, root: Path, split: str) -> Path:
    """The file of a split.

    Raises:
        DataError: there is no such split, folder or file.
    """
    if not os.path.isdir(root):
        content = f"{task.local.folder}/" if task.local.folder else "the official files"
        raise DataError(f"data.root={root}: no such folder; must hold {content}")
    if split not in task.local.files:
        known = ", ".join(task.local.files) or "none: conf/task gives no local files"
        raise DataError(f"task={task.name} has no local split {split}; it has {known}")
    path = _path(task, root, split)
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "no such file"
        raise DataError(f"{path}: {what}; data=local expects split {split} of {task.name} there")
    return path
