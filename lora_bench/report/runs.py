"""Runs: one row of a DataFrame for each record, with every setting as a column."""

import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .. import record as records
from ..record import Record
from ..spec import Spec, UserError, part_of, settings
from .names import texts

PROTOCOLS = ("last", "best")
SHORT = {  # column beside that of the setting's dotted path
    "task": "task.name",
    "model": "model.name",
    "data": "data.source",
    "method": "method.name",
    "rank": "method.rank",
    "alpha": "method.alpha",
}
REFERENCES = ("chance", "bag_of_words", "ceiling")  # scores that no method made
# columns that hold no single value
NESTED = ("where", "system", *PROTOCOLS, "epochs", "versions", *REFERENCES)


def load_records(root: str | Path) -> pd.DataFrame:
    """Every run below ``root``, one row each.

    Columns are each setting by its dotted path (``train.warmup``), the names of SHORT, and what
    was measured. ``where`` and ``system`` map a path to its value; rows with equal ``where_id``
    and ``system_id`` are seeds of one cell. ``last`` and ``best`` map a metric to its score.
    Records that cannot be read are reported on stderr.

    Args:
        root: folder with runs, at any depth.

    Returns:
        Rows ordered by key; no columns where there is no run.

    Raises:
        UserError: two records of one seed of a cell have different scores.
    """
    found, problems = records.read_all(Path(root))
    if problems:
        count = f"{len(problems)} record{'s' if len(problems) > 1 else ''}"
        print("\n  ".join([f"{count} could not be read:", *problems]), file=sys.stderr)
    default, parts = settings(Spec()), {}
    rows = [_row(record, default, parts) for record in found]
    return pd.DataFrame(_one_for_each_seed(rows, Path(root)))


def identify(part: Mapping[str, str]) -> str:
    """A hash of settings.

    Args:
        part: path -> text, from ``names.texts``.
    """
    content = "\n".join(f"{path}={text}" for path, text in sorted(part.items()))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _row(record: Record, default: dict[str, Any], parts: dict[str, dict]) -> dict[str, Any]:
    where_id, where = _complete(record.where, "where", default, parts)
    system_id, system = _complete(record.system, "system", default, parts)
    others = {path: _lookup(record.spec, path) for path in default if part_of(path) is None}
    chosen = {**where, **system, "seed": record.seed, **others}
    counts = record.parameters or {}
    return {
        "key": record.key,
        "status": record.status,
        **{name: chosen.get(path) for name, path in SHORT.items()},
        "train_rows": record.data.get("train", {}).get("rows"),
        "start": (record.start or {}).get("task", "plain"),
        "official": _official(record),
        **{protocol: (getattr(record, protocol) or {}).get("scores") for protocol in PROTOCOLS},
        **{name: _reference(record, name) for name in REFERENCES},
        "epochs": record.epochs,
        "adapter_parameters": counts.get("adapter"),
        "trained_parameters": counts.get("trained"),
        "adapter_bytes": record.adapter_bytes,
        "train_seconds": record.train_seconds,
        "examples_per_second": record.examples_per_second,
        "tokens_per_second": record.tokens_per_second,
        "peak_memory_bytes": record.peak_memory_bytes,
        "error": record.error,
        "command": record.command,
        "commit": record.provenance.get("commit"),
        "versions": record.provenance.get("versions"),
        "where_id": where_id,
        "system_id": system_id,
        "where": where,
        "system": system,
        **chosen,
    }


def _complete(
    part: dict[str, Any], name: str, default: dict[str, Any], parts: dict[str, dict]
) -> tuple[str, dict[str, Any]]:
    """One part of an identity with its hash; settings younger than the record get their default.

    Args:
        part: as the record has it.
        name: ``where`` or ``system``.
        default: path -> default of every setting.
        parts: hash -> part, so that runs share equal ones.
    """
    whole = {path: value for path, value in default.items() if part_of(path) == name} | part
    id_ = identify(texts(whole))
    return id_, parts.setdefault(id_, whole)


def _lookup(nested: dict[str, Any], path: str) -> Any:
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
    """Chance, ceiling or bag of words on every scored split, by the names of the scores."""
    found = {
        metric + records.suffix_of(split): value
        for split, facts in record.data.items()
        for metric, value in (facts.get(name) or {}).items()
    }
    return found or None


def _one_for_each_seed(rows: Iterable[dict[str, Any]], root: Path) -> list[dict[str, Any]]:
    """One row for each seed of a cell: a finished run before a failed one.

    Raises:
        UserError: two finished ones have different scores.
    """
    kept: dict[tuple, dict[str, Any]] = {}
    for row in rows:
        seed = row["where_id"], row["system_id"], row["seed"]
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
    """Folders of the runs with these keys; a record that cannot be read is none of them."""
    found = []
    for path in sorted(root.rglob(records.FILE)):
        try:
            record = records.read(path.parent)
        except records.RecordError:
            continue
        if record is not None and record.key in keys:
            found.append(str(path.parent))
    return found
