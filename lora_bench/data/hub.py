"""``data=hub``: the Hugging Face hub at a pinned revision; a filled cache needs no network."""

import os
import re
from typing import TYPE_CHECKING, Any

from ..errors import first_line
from ..network import use_cache_if_offline
from ..spec import DataSpec, TaskSpec
from . import DataError, Rows

if TYPE_CHECKING:
    from ..tasks import Task

READS = frozenset[str]()
COMMIT = re.compile("[0-9a-f]{40}")
OFFLINE = "offline choices: data=toy, or data=local data.root=/path/to/the/official/files"


def load(task: "Task", data: DataSpec, split: str) -> Rows:
    """Rows of one split.

    Raises:
        DataError: it cannot be loaded, or has the wrong revision, columns, labels or values.
    """
    hub, labels = task.spec.hub, task.spec.labels
    if not hub.path:
        raise DataError(f"task={task.spec.name}: conf/task names no repository on the hub")
    if os.path.isdir(hub.path):
        raise DataError(f"task.hub.path={hub.path}: is a folder; must be a repository on the hub")
    if not COMMIT.fullmatch(hub.revision):  # a branch or a tag may change
        reason = "must be the 40 hexadecimal digits of a commit"
        raise DataError(f"task.hub.revision={hub.revision}: {reason}")
    name = f"{hub.path} {hub.name or ''} {split}"
    found = _download(task.spec, split, name)
    if not any(hub.revision in file["filename"] for file in found.cache_files):
        raise DataError(
            f"{name}: the cache holds another revision than {hub.revision}, and the hub cannot be "
            "reached"
        )
    wanted = task.hub_columns(split)
    missing = [column for column in wanted if column not in found.column_names]
    if missing:
        raise DataError(f"{name}: has columns {found.column_names}; lacks {missing}")
    names = getattr(found.features.get("label"), "names", None)
    if labels and names != labels:
        raise DataError(f"{name}: labels are {names}; must be {labels}")
    rows = found.select_columns(wanted).to_list()
    try:
        task.check_rows(rows, split)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from None
    return Rows(rows, f"hub {name}@{hub.revision[:10]}")


def has(task: TaskSpec, data: DataSpec, split: str) -> bool:
    """Test splits are available; no optional split has labels."""
    return split.startswith("test")


def _download(task: TaskSpec, split: str, name: str) -> Any:
    """The ``datasets.Dataset`` of a split."""
    import datasets

    use_cache_if_offline()
    datasets.disable_progress_bars()
    configuration, theirs = task.hub.name, split
    if split in task.hub.other:
        configuration, theirs = task.hub.other[split], "test"
    try:
        return datasets.load_dataset(
            task.hub.path, configuration, split=theirs, revision=task.hub.revision
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: cannot be loaded ({first_line(error)}); {OFFLINE}") from error
