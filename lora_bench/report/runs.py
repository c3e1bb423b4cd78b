"""Runs: one row of a DataFrame for each record, with every setting as a column."""

import hashlib
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from .. import record as records
from ..record import Record
from ..spec import UserError, part_of
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
REFERENCES = ("chance", "bag_of_words", "ceiling")  # scores that no method made
Part = tuple[str, dict[str, Any]]  # hash and settings of one part of an identity
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
    # a record of another study has settings of its own, which no default of a Spec completes
    where, system, others = (
        {path: value for path, value in defaults().items() if part_of(path) == part}
        for part in ("where", "system", None)
    )
    parts: dict[str, Part] = {}
    rows = [
        {
            **_measured(record),
            **_settings(
                record,
                _complete(record.where, {} if "study" in record.where else where, parts),
                _complete(record.system, {} if "study" in record.where else system, parts),
                others,
            ),
        }
        for record in found
    ]
    return pd.DataFrame(_one_for_each_seed(rows, Path(root)))


def identify(part: Mapping[str, str]) -> str:
    """A hash of settings.

    Args:
        part: path -> text, from ``names.texts``.
    """
    content = "\n".join(f"{path}={text}" for path, text in sorted(part.items()))
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _complete(part: dict[str, Any], default: dict[str, Any], known: dict[str, Part]) -> Part:
    """One part of an identity with its hash; settings younger than the record get their default.

    Args:
        part: as the record has it.
        default: path -> default of the settings of this part.
        known: found before, so that runs share equal ones.
    """
    content = repr(part)
    if content not in known:
        whole = default | part
        known[content] = identify(texts(whole)), whole
    return known[content]


def _settings(record: Record, where: Part, system: Part, others: Iterable[str]) -> dict[str, Any]:
    """The columns of the identity and of the settings that are not in it."""
    chosen = {**where[1], **system[1], "seed": record.seed}
    return {
        **{name: chosen.get(path) for name, path in SHORT.items()},
        "where_id": where[0],
        "system_id": system[0],
        "where": where[1],
        "system": system[1],
        **chosen,
        **{path: _lookup(record.spec, path) for path in others},
    }


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
        # a run that was trained in a group has a share of its time, which no other time compares to
        "train_seconds": record.train_seconds if alone else None,
        "examples_per_second": record.examples_per_second if alone else None,
        "tokens_per_second": record.tokens_per_second if alone else None,
        "group_size": (record.group or {}).get("size"),
        "shared_train_seconds": None if alone else record.train_seconds,
        "peak_memory_bytes": record.peak_memory_bytes,
        "error": record.error,
        "command": record.command,
        "commit": record.provenance.get("commit"),
        "versions": record.provenance.get("versions"),
    }


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
