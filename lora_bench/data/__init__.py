"""Examples of a run: rows are plain dicts ``{column: text, ..., "label": ...}``, whatever their source.

A source is a file of this folder with ``load(task, data, split) -> Rows`` and ``has(task, data, split)`` for the optional
splits; a new one needs no edit here.
"""

import hashlib
import importlib
import json
import pkgutil
import random
from dataclasses import dataclass, field

from ..spec import DataSpec, SpecError, TaskSpec, UserError


class DataError(UserError):
    """Data that cannot be used: says file, line, value and what is allowed."""


@dataclass
class Rows:
    """One split. Labels are class indices or floats; ``clean_label`` stands in toy rows: the label before noise."""

    rows: list[dict]
    source: str  # where they come from, without a path of this machine
    skipped: list[str] = field(default_factory=list)  # one line for each malformed row left out (data.skip_bad)

    def fingerprint(self) -> str:
        """Hash of the content, independent of where it lies."""
        return hashlib.sha256(json.dumps(self.rows, sort_keys=True).encode()).hexdigest()[:16]


def source_of(data: DataSpec):
    """The module behind ``data.source``. Raises: SpecError: there is none of that name."""
    known = sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))
    if data.source not in known:
        raise SpecError("data.source", data.source, f"must be one of {', '.join(known)}")
    return importlib.import_module(f"{__name__}.{data.source}")


def load_split(task: TaskSpec, data: DataSpec, split: str) -> Rows:
    """Rows of one split, ``data.train_rows`` applied. Raises: DataError, SpecError."""
    found = source_of(data).load(task, data, split)
    if not found.rows:
        raise DataError(f"{found.source}: split {split} of {task.name} is empty")
    if split == "train" and data.train_rows is not None and data.train_rows < len(found.rows):
        drawn = random.Random(data.seed).sample(range(len(found.rows)), data.train_rows)
        found.rows = [found.rows[i] for i in sorted(drawn)]
    return found


def load(task: TaskSpec, data: DataSpec) -> dict[str, Rows]:
    """The training split and every split to score, the optional ones where the data has them."""
    optional = [split for split in task.optional if source_of(data).has(task, data, split)]
    return {split: load_split(task, data, split) for split in ("train", *task.validation, *optional)}
