"""The rows of a run: plain dicts, whatever their source.

Rows of a text task are ``{column: text, ..., "label": ...}``; those of SQuAD are ``{"id", "title",
"question", "context", "answers": {"text": [...], "answer_start": [...]}}``.

A source is a file in this folder with ``READS`` (the settings of DataSpec that it reads in addition
to those that all sources share), ``load(task, data, split) -> Rows`` and ``has(task, data, split)``
for optional splits; a new one needs no change here. What a row holds is up to the task.
"""

import importlib
import pkgutil
import random
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..errors import SpecError, UserError, counted
from ..spec import FINGERPRINT, DataSpec, Spec, TaskSpec, digest

if TYPE_CHECKING:
    from ..tasks import Task

HELD_OUT = "held_out"  # a part of the training data that is neither trained on nor reported

# Settings that are applied here, so that every source has them. ``seed`` is checked with the task.
SHARED = frozenset({"source", "train_rows", "validation_rows", "tuning_rows", "seed"})


class DataError(UserError):
    """Data cannot be used: names the file, the line, the value and what is allowed."""


@dataclass
class Rows:
    """One split."""

    rows: list[dict[str, Any]]
    source: str  # where the rows come from, without folders of this machine
    # one line for each malformed row that was left out (data.skip_bad)
    skipped: list[str] = field(default_factory=list)

    def fingerprint(self) -> str:
        """Hash of the content; its location does not matter."""
        return digest(self.rows, FINGERPRINT)


class Source(Protocol):
    """What a source's module holds."""

    READS: frozenset[str]

    def load(self, task: "Task", data: DataSpec, split: str) -> Rows:
        """Rows of one split."""

    def has(self, task: TaskSpec, data: DataSpec, split: str) -> bool:
        """Whether an optional or a test split is available."""


def source_of(data: DataSpec) -> Source:
    """The module of ``data.source``.

    Raises:
        SpecError: there is no such source.
    """
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    names = [name for name in names if not name.startswith("_")]
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    known = {name: module for name, module in modules.items() if hasattr(module, "READS")}
    if data.source not in known:
        raise SpecError("data.source", data.source, f"must be one of {', '.join(known)}")
    return cast(Source, known[data.source])


def check_source(spec: Spec) -> None:
    """Check that the source exists and that it reads every setting that was changed.

    Raises:
        SpecError: names the setting, its value and what is allowed.
    """
    reads = source_of(spec.data).READS | SHARED
    default = DataSpec()
    for name in (entry.name for entry in fields(DataSpec)):
        value = getattr(spec.data, name)
        if name not in reads and value != getattr(default, name):
            raise SpecError(
                f"data.{name}", value, f"data={spec.data.source} does not read it; leave it out"
            )


def draws_rows(data: DataSpec) -> bool:
    """Whether the rows depend on ``data.seed``: generated rows, or a random subset."""
    limits = (data.train_rows, data.validation_rows, data.tuning_rows)
    return limits != (None, None, None) or "seed" in source_of(data).READS


def load_split(task: "Task", data: DataSpec, split: str) -> Rows:
    """Rows of one split, ``data.train_rows`` or ``data.validation_rows`` applied.

    Args:
        task: task of the rows.
        data: source and limits.
        split: name; the limits do not apply to test splits.

    Raises:
        DataError: the data cannot be read, or has no row.
        SpecError: the source does not have this task.
    """
    found = _read(task, data, split)
    if not split.startswith("test"):
        _limit(found, data.train_rows if split == "train" else data.validation_rows, data.seed)
    return found


def _read(task: "Task", data: DataSpec, split: str) -> Rows:
    """All rows of one split.

    Raises:
        DataError: the data cannot be read, or has no row.
        SpecError: the source does not have this task.
    """
    found = source_of(data).load(task, data, split)
    if not found.rows:
        reason = f"; the first bad row: {found.skipped[0]}" if found.skipped else ""
        raise DataError(f"{found.source}: split {split} of {task.spec.name} is empty{reason}")
    if missing := [column for column in task.spec.columns if column not in found.rows[0]]:
        known = ", ".join(found.rows[0])
        raise SpecError("task.columns", missing, f"data={data.source} has {known}")
    return found


def _limit(found: Rows, limit: int | None, seed: int) -> None:
    """Keep ``limit`` random rows, in their order."""
    if limit is not None and limit < len(found.rows):
        drawn = random.Random(seed).sample(range(len(found.rows)), limit)
        found.rows = [found.rows[i] for i in sorted(drawn)]


def load(task: "Task", data: DataSpec) -> dict[str, Rows]:
    """Training data and every split to score, optional splits where the source has them.

    With ``data.tuning_rows`` no validation split is read.

    Args:
        task: may split the data further, as SQuAD v2 does to tune its threshold (HELD_OUT).
        data: source and limits.

    Raises:
        DataError: the data cannot be read.
        SpecError: the source does not have this task.
    """
    if data.tuning_rows is not None:
        return task.divide(_tuning_splits(task, data), data.seed)
    source = source_of(data)
    optional = [split for split in task.spec.optional if source.has(task.spec, data, split)]
    names = ("train", *task.spec.validation, *optional)
    return task.divide({name: load_split(task, data, name) for name in names}, data.seed)


def _tuning_splits(task: "Task", data: DataSpec) -> dict[str, Rows]:
    """The training rows in two parts: one to train on, one in place of the validation data.

    Raises:
        DataError: there are too few rows.
    """
    train = _read(task, data, "train")
    limit = data.tuning_rows or 0
    if limit >= len(train.rows):
        raise DataError(
            f"data.tuning_rows={limit}: must be below the {counted(len(train.rows), 'row')} of "
            f"{train.source}"
        )
    # not the random stream of data.train_rows, which draws from the rest
    drawn = set(random.Random(f"tuning {data.seed}").sample(range(len(train.rows)), limit))
    scored = [row for i, row in enumerate(train.rows) if i in drawn]
    train.rows = [row for i, row in enumerate(train.rows) if i not in drawn]
    _limit(train, data.train_rows, data.seed)
    return {"train": train, task.spec.validation[0]: Rows(scored, f"part of {train.source}")}
