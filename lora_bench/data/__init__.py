"""Examples of a run: rows are plain dicts ``{column: text, ..., "label": ...}``, whatever their source; those of SQuAD are
``{"id", "title", "question", "context", "answers": {"text": [...], "answer_start": [...]}}``.

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

HELD_OUT = "held_out"  # a split made of training articles: it is not reported on


class DataError(UserError):
    """Data that cannot be used: says file, line, value and what is allowed."""


@dataclass
class Rows:
    """One split. Labels are class indices or floats; ``clean_label`` stands in toy rows: the label before noise."""

    rows: list[dict]
    source: str  # where they come from, without a path of this machine
    skipped: list[str] = field(
        default_factory=list
    )  # one line for each malformed row left out (data.skip_bad)

    def fingerprint(self) -> str:
        """Hash of the content, independent of where it lies."""
        return hashlib.sha256(json.dumps(self.rows, sort_keys=True).encode()).hexdigest()[:16]


def source_of(data: DataSpec):
    """The module behind ``data.source``. Raises: SpecError: there is none of that name."""
    known = sorted(
        module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")
    )
    if data.source not in known:
        raise SpecError("data.source", data.source, f"must be one of {', '.join(known)}")
    return importlib.import_module(f"{__name__}.{data.source}")


def check_source(spec) -> None:
    """Check what the source reads."""


def load_split(task: TaskSpec, data: DataSpec, split: str) -> Rows:
    """Rows of one split, ``data.train_rows`` or ``data.validation_rows`` applied. Raises: DataError, SpecError."""
    found = source_of(data).load(task, data, split)
    if not found.rows:
        raise DataError(f"{found.source}: split {split} of {task.name} is empty")
    limit = (
        data.train_rows
        if split == "train"
        else None
        if split.startswith("test")
        else data.validation_rows
    )
    if limit is not None and limit < len(found.rows):
        drawn = random.Random(data.seed).sample(range(len(found.rows)), limit)
        found.rows = [found.rows[i] for i in sorted(drawn)]
    return found


def load(task: TaskSpec, data: DataSpec) -> dict[str, Rows]:
    """The training split and every split to score, the optional ones where the data has them; ``held_out``: the share
    ``task.held_out`` of the training articles, which is not trained on."""
    optional = [split for split in task.optional if source_of(data).has(task, data, split)]
    splits = {
        split: load_split(task, data, split) for split in ("train", *task.validation, *optional)
    }
    if task.held_out > 0:
        splits["train"], splits[HELD_OUT] = _by_article(splits["train"], task.held_out, data.seed)
    return splits


def _by_article(found: Rows, share: float, seed: int) -> tuple[Rows, Rows]:
    titles = sorted({row["title"] for row in found.rows})
    if len(titles) < 2:
        raise DataError(f"{found.source}: has one article; task.held_out={share} needs two or more")
    random.Random(seed).shuffle(titles)
    kept = set(titles[min(len(titles) - 1, max(1, round(len(titles) * share))) :])
    parts = [
        [row for row in found.rows if (row["title"] in kept) == train] for train in (True, False)
    ]
    return Rows(parts[0], found.source, found.skipped), Rows(
        parts[1], f"{found.source}, held-out articles"
    )
