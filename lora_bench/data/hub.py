"""``data=hub``: the Hugging Face hub through ``datasets``, at a pinned revision; a filled cache needs no network."""

from ..network import hub_reachable
from ..spec import DataSpec, TaskSpec
from . import DataError, Rows

OFFLINE = "offline choices: data=toy, or data=local data.root=/path/to/the/official/files"


def load(task: TaskSpec, data: DataSpec, split: str) -> Rows:
    """Rows of one split. Raises: DataError: it cannot be had, is another revision, or has other columns or labels."""
    hub = task.hub
    name = f"{hub.path} {hub.name or ''} {split}"
    found = _download(task, split, name)
    if not any(hub.revision in file["filename"] for file in found.cache_files):
        raise DataError(
            f"{name}: the cache holds another revision than {hub.revision}, and the hub cannot be reached"
        )
    if task.kind == "span":
        wanted = ["id", "title", "question", "context", "answers"]
    else:  # GLUE's test labels are all -1
        wanted = [*task.columns] if split.startswith("test") else [*task.columns, "label"]
    missing = [column for column in wanted if column not in found.column_names]
    if missing:
        raise DataError(f"{name}: has columns {found.column_names}; lacks {missing}")
    names = getattr(found.features.get("label"), "names", None)
    if task.labels and names != task.labels:
        raise DataError(f"{name}: labels are {names}; must be {task.labels}")
    return Rows(found.select_columns(wanted).to_list(), f"hub {name}@{hub.revision[:10]}")


def has(task: TaskSpec, data: DataSpec, split: str) -> bool:
    """Test splits are there; none of the optional splits has labels."""
    return split.startswith("test")


def _download(task: TaskSpec, split: str, name: str):
    import datasets

    if not hub_reachable():
        datasets.config.HF_HUB_OFFLINE = (
            True  # go to the cache at once instead of after a minute of retries
        )
    datasets.disable_progress_bars()
    configuration, theirs = (
        (task.hub.other[split], "test") if split in task.hub.other else (task.hub.name, split)
    )
    try:
        return datasets.load_dataset(
            task.hub.path, configuration, split=theirs, revision=task.hub.revision
        )
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{name}: cannot be loaded ({reason}); {OFFLINE}") from error
