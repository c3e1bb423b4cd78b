"""Runs: a DataFrame with one row for each record and every setting as a column."""

import gc
import hashlib
import marshal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from .. import record as records
from ..errors import UserError, counted
from ..record import Record
from ..record_formats import REFERENCES as REFERENCES
from ..spec import part_of
from .names import defaults, texts

PROTOCOLS = ("last", "best")
SHORT = {  # column in addition to the one named by the setting's path
    "task": "task.name",
    "model": "model.name",
    "data": "data.source",
    "method": "method.name",
    "rank": "method.rank",
    "alpha": "method.alpha",
}
DEFAULTS = {
    name: {path: value for path, value in defaults().items() if part_of(path) == name}
    for name in ("where", "system")
}
UNIDENTIFIED = tuple(path for path in defaults() if part_of(path) is None)
SECTIONS = tuple(dict.fromkeys(path.partition(".")[0] for path in UNIDENTIFIED))
# columns that do not hold a single value
NESTED = ("where", "system", *PROTOCOLS, "epochs", "versions", *REFERENCES)


@contextmanager
def without_collections() -> Iterator[None]:
    """No garbage collection inside: it would revisit all records for every few hundred new ones."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def load_records(root: str | Path) -> pd.DataFrame:
    """Every run below ``root``, one row each.

    Columns are each setting by its dotted path (``train.warmup``), the names of SHORT, and what
    was measured. ``where`` and ``system`` map a path to its value; rows with equal ``where_id``
    and ``system_id`` are seeds of one cell. ``last`` and ``best`` map a metric to its score.
    Records that cannot be read are reported on stderr.

    Args:
        root: folder with runs, at any depth.

    Returns:
        Rows ordered by key; no columns if there is no run.

    Raises:
        UserError: two records of one seed of a cell have different scores.
    """
    return read_runs(root)[0]


def check_complete(problems: Sequence[str], kind: str = "record") -> None:
    """End a command with an error, after its work, if files were left out.

    Args:
        problems: a line for each file that could not be read.
        kind: what the files are, in the singular.

    Raises:
        UserError: there is one.
    """
    if problems:
        count = counted(len(problems), kind)
        raise UserError(f"{count} could not be read, see above: the result lacks them")


@without_collections()
def read_runs(root: str | Path) -> tuple[pd.DataFrame, list[str]]:
    """What ``load_records`` returns, and a line for each record that cannot be read."""
    found, problems = records.read_all(Path(root))
    if problems:
        count = counted(len(problems), "record")
        print("\n  ".join([f"{count} could not be read:", *problems]), file=sys.stderr)
    wheres, systems, rest = Interned(), Interned(), Interned()
    rows = []
    for record in found:
        study = "study" in record.where
        rows.append(
            {
                **_measured(record),
                "seed": record.seed,
                "_where": wheres.add((record.where, study), partial(_whole, "where")),
                "_system": systems.add((record.system, study), partial(_whole, "system")),
                "_rest": rest.add([record.spec.get(name) for name in SECTIONS], _rest_of),
            }
        )
    kept = pd.DataFrame(_one_for_each_seed(rows, wheres, systems, Path(root)))
    whole = _with_settings(kept, wheres, systems, rest) if len(kept) else kept
    return whole, problems


def identify(part: Mapping[str, str]) -> str:
    """A hash of settings.

    Args:
        part: path -> text, from ``names.texts``.
    """
    content = "\n".join(f"{path}={text}" for path, text in sorted(part.items()))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


class Interned:
    """Contents shared by many records, built once and referred to by a number."""

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self.made: list[dict[str, Any]] = []

    def add(self, content: Any, make: Callable[[Any], dict[str, Any]]) -> int:
        """The number of a JSON content; it is built the first time."""
        # version 2 writes no references, so equal contents have equal bytes
        known = marshal.dumps(content, 2)
        if known not in self._numbers:
            self._numbers[known] = len(self.made)
            self.made.append(make(content))
        return self._numbers[known]

    def columns(self, numbers: pd.Series) -> pd.DataFrame:
        """What was built for each of these numbers, one row each."""
        return pd.DataFrame(self.made).take(numbers.to_numpy()).reset_index(drop=True)


def _whole(name: str, content: tuple[dict[str, Any], bool]) -> dict[str, Any]:
    """Columns of one part of an identity.

    Settings newer than the record get their default. A record of another study has its own
    settings, to which no default of a Spec applies.
    """
    part, study = content
    whole = part if study else {**DEFAULTS[name], **part}
    return {f"{name}_id": identify(texts(whole)), name: whole, **whole}


def _rest_of(sections: Sequence[Any]) -> dict[str, Any]:
    """Columns of the settings that are not part of the identity."""
    spec = dict(zip(SECTIONS, sections, strict=True))
    return {path: _lookup(spec, path) for path in UNIDENTIFIED}


def _with_settings(
    kept: pd.DataFrame, wheres: Interned, systems: Interned, rest: Interned
) -> pd.DataFrame:
    """Runs with a column for each setting and each name of SHORT."""
    numbered = ((wheres, "_where"), (systems, "_system"), (rest, "_rest"))
    parts = [table.columns(kept.pop(name)) for table, name in numbered]
    frame = pd.concat([kept, *parts], axis=1)
    short = {name: frame[path] for name, path in SHORT.items() if path in frame}
    return frame.assign(**{name: short.get(name) for name in SHORT})


def _measured(record: Record) -> dict[str, Any]:
    counts, alone = record.parameters or {}, record.group is None
    return {
        "key": record.key,
        "status": record.status,
        "train_rows": record.data.get("train", {}).get("rows"),
        "start": (record.start or {}).get("task", "plain"),
        "official": _official(record),
        **{protocol: (getattr(record, protocol) or {}).get("scores") for protocol in PROTOCOLS},
        **{name: _reference(record, name) for name in REFERENCES},
        "epochs": record.epochs,
        "adapter_parameters": counts.get("adapter"),
        "trained_parameters": counts.get("trained"),
        "head_parameters": counts.get("head"),
        "adapter_bytes": record.adapter_bytes,
        # a run that was trained in a group has a share of its time, which is not comparable
        "train_seconds": record.train_seconds if alone else None,
        "examples_per_second": record.examples_per_second if alone else None,
        "tokens_per_second": record.tokens_per_second if alone else None,
        "group_size": (record.group or {}).get("size"),
        "core_seconds": record.core_seconds,
        "shared_train_seconds": None if alone else record.train_seconds,
        "peak_memory_bytes": record.peak_memory_bytes,
        "started": record.started,
        "splits": _splits(record),
        "error": record.error,
        "command": record.command,
        "commit": record.provenance.get("commit"),
        "versions": record.provenance.get("versions"),
    }


def _splits(record: Record) -> str:
    """Rows, source and fingerprint of each split, as text."""
    return "; ".join(
        f"{split}: {_size(facts.get('rows'))} of {facts.get('source')}, {facts.get('fingerprint')}"
        for split, facts in record.data.items()
    )


def _size(rows: int | None) -> str:
    return "unknown rows" if rows is None else counted(rows, "row")


def _lookup(nested: Any, path: str) -> Any:
    for name in path.split("."):
        nested = nested.get(name) if isinstance(nested, dict) else None
    return nested


def _official(record: Record) -> bool:
    """Whether it trained and was scored on every row of the official splits."""
    official = _lookup(record.spec, "task.official_rows") or {}
    return all(
        split in official and record.data.get(split, {}).get("rows") == official[split]
        for split in ("train", *record.where["task.validation"])
    )


def _reference(record: Record, name: str) -> dict[str, float] | None:
    """Chance, ceiling or bag of words on every scored split, by score name."""
    found = {
        metric + records.suffix_of(split): value
        for split, facts in record.data.items()
        for metric, value in (facts.get(name) or {}).items()
    }
    return found or None


def _one_for_each_seed(
    rows: Iterable[dict[str, Any]], wheres: Interned, systems: Interned, root: Path
) -> list[dict[str, Any]]:
    """One row for each seed of a cell; finished runs take precedence over failed ones.

    Raises:
        UserError: two finished ones have different scores.
    """
    kept: dict[tuple, dict[str, Any]] = {}
    for row in rows:
        where, system = wheres.made[row["_where"]], systems.made[row["_system"]]
        seed = where["where_id"], system["system_id"], row["seed"]
        other = kept.setdefault(seed, row)
        if other["status"] != "ok":
            kept[seed] = row
        elif row["status"] == "ok" and any(row[p] != other[p] for p in PROTOCOLS):
            folders = _folders(root, {row["key"], other["key"]})
            raise UserError(
                f"two runs of seed {row['seed']} of one system have different scores: "
                f"{other['key']} and {row['key']}; keep one of {', '.join(folders)}"
            )
    return list(kept.values())


def _folders(root: Path, keys: set[str]) -> list[str]:
    """Folders of the runs with these keys; unreadable records are skipped."""
    found = []
    for folder, names in records.walk(root, []):
        try:
            record = records.read(Path(folder)) if records.FILE in names else None
        except records.RecordError:
            continue
        if record is not None and record.key in keys:
            found.append(folder)
    return sorted(found)
