"""Upgrades records of older formats step by step; checks the fields that every record has."""

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from .spec import FINGERPRINT, Spec, digest

Step = Callable[[dict[str, Any]], dict[str, Any]]

SPAN_SETTINGS = ("unanswerable", "held_out", "stride", "max_question", "max_answer")
PEFT_COPIES = {"r": "rank", "lora_alpha": "alpha"}  # args that duplicated a method setting
# PEFT's constant defaults, which procedure 1 used for every seed: type -> (arg, value)
PEFT_SEEDS = {"VERA": ("projection_prng_key", 0), "FOURIERFT": ("random_loc_seed", 777)}
Types = tuple[type, ...]
NUMBER: Types = (int, float)  # JSON's; a bool is of neither type
# entries that every record has, and their types; a study adds settings of its own
REQUIRED: dict[str, dict[str, Types]] = {
    "where": {
        "task.name": (str,), "task.kind": (str,), "task.metrics": (list,),
        "task.validation": (list,), "model.name": (str,), "data.source": (str,),
    },
    "system": {"method.name": (str,)},
    "last": {"scores": (dict,)},
    "best": {"scores": (dict,)},
    "start": {"task": (str,), "cell": (str,)},
}  # fmt: skip
# entries that a record may lack
OPTIONAL: dict[str, dict[str, Types]] = {
    "where": {"data.train_rows": (int,)},
    "system": {"method.rank": (int,), "method.alpha": NUMBER, "procedure": (int,)},
    "provenance": {
        "commit": (str,),
        "versions": (dict,),
        "threads": (int,),
        "device": (str,),
    },
    "group": {"size": (int,)},
}
EPOCH: dict[str, Types] = {"epoch": (int,), "loss": NUMBER, "scores": (dict,)}
MAX_INTEGER = 2**63 - 1  # NumPy cannot hold a larger whole number
LONG_NUMBER = re.compile(rb"\d{19}")  # shorter numbers are below MAX_INTEGER
UNKNOWN = "unknown"  # fingerprint of the encoder in records of format 1
REFERENCES = ("chance", "bag_of_words", "ceiling")  # reference scores of a split


def upgrade(record: dict[str, Any]) -> dict[str, Any]:
    """A record's content in the current format.

    Args:
        record: content of any format up to the current one.

    Raises:
        KeyError, TypeError, AttributeError: it lacks a field of its format.
    """
    return apply_steps(record, UPGRADES)


def apply_steps(content: dict[str, Any], steps: Sequence[Step]) -> dict[str, Any]:
    """A file's content after every step from its own ``format`` on.

    Args:
        content: states its format, from 1.
        steps: the first one upgrades format 1.
    """
    for step in steps[content["format"] - 1 :]:
        content = step(content)
    return content


def _from_1(record: dict[str, Any]) -> dict[str, Any]:
    """Upgrade format 1: compute the identity from the settings and the data's fingerprints.

    Format 1 has no identity, was written under procedure 1 and has no fingerprint of the encoder;
    span settings were fields of the task, and a run's start was a key or a folder.
    """
    settings = copy.deepcopy(record["spec"])
    task, method = settings["task"], settings["method"]
    moved = {name: task.pop(name) for name in SPAN_SETTINGS if name in task}
    task["args"] = moved if task["kind"] == "span" else {}
    settings["method"] = method_from_1(method)
    spec = Spec.from_dict(settings)
    prints = {split: facts["fingerprint"] for split, facts in sorted(record["data"].items())}
    start = _start_of_1(spec.init_from)
    identity = spec.identity(data=fingerprint_of(prints), model=UNKNOWN)
    system = {**identity.system, "procedure": 1, "init_from": start and start["cell"]}
    new = {"where": identity.where, "system": system, "seed": spec.seed, "start": start}
    return {**record, **new, "spec": settings, "format": 2}


def method_from_1(method: dict[str, Any]) -> dict[str, Any]:
    """The method settings of a record or an adapter of format 1, upgraded.

    LoRA+'s ratio was a setting of every method, PEFT's args duplicated our settings, and the seeds
    of PEFT's random projections were its constant defaults.
    """
    method = dict(method)
    ratio = method.pop("lr_ratio", None)
    args = {**method.get("args", {}), **({} if ratio is None else {"lr_ratio": ratio})}
    if args.pop("use_rslora", False):
        method["rank_stabilized"] = True
    copies = {name: method.get(setting) for name, setting in PEFT_COPIES.items()}
    args = {n: value for n, value in args.items() if n not in copies or copies[n] != value}
    if method.get("peft_type") in PEFT_SEEDS:
        args.setdefault(*PEFT_SEEDS[method["peft_type"]])
    return {**method, "args": args}


def _start_of_1(init_from: str | None) -> dict[str, Any] | None:
    """The start in format 1: a key, or a folder whose name is one, with seed and hash."""
    if init_from is None:
        return None
    place = PurePath(init_from)
    name = place.parent.name if place.name == "adapter" else place.name
    cell = re.sub(r"-s\d+-[0-9a-f]{10}$", "", name)
    return {"task": cell.partition("-")[0], "cell": cell, "fingerprint": name}


def fingerprint_of(splits: dict[str, str]) -> str:
    """One fingerprint for the data of a run, from the fingerprints of its splits."""
    return digest(splits, FINGERPRINT)


UPGRADES = (_from_1,)


def fault_of(record: Mapping[str, Any]) -> str | None:
    """The first fault in a record's nested fields, in one line; None if there is none.

    Args:
        record: the record's fields, each of the type that ``Record`` declares.
    """
    return next(filter(None, _faults(record)), None)


def too_large(part: Any, place: str = "") -> str | None:
    """A line about a whole number that is too large to compute with; None if there is none.

    Args:
        part: a part of a record, or all of it.
        place: path of the part, for messages.
    """
    if type(part) is int:
        wrong = abs(part) > MAX_INTEGER
        return f"{place}: must be a whole number up to {MAX_INTEGER}, is larger" if wrong else None
    if isinstance(part, list):
        part = dict(enumerate(part))
    entries = part.items() if isinstance(part, dict) else ()
    found = (too_large(value, f"{place}.{name}".lstrip(".")) for name, value in entries)
    return next(filter(None, found), None)


def _faults(record: Mapping[str, Any]) -> Iterator[str | None]:
    """One fault for each check, None if it passes; later checks rely on earlier ones."""
    for name, entries in REQUIRED.items():
        if record[name] is not None:
            yield _wrong(record[name], entries, name)
    for name, entries in OPTIONAL.items():
        if record[name] is not None:
            given = {e: types for e, types in entries.items() if record[name].get(e) is not None}
            yield _wrong(record[name], given, name)
    for name in ("task.metrics", "task.validation"):
        values = record["where"][name]
        if not values or not all(isinstance(value, str) for value in values):
            yield f"where.{name}: must be a list of texts, is {values!r}"
    for i, epoch in enumerate(record["epochs"]):
        yield _wrong(epoch, EPOCH, f"epochs.{i}")
        yield _no_scores(epoch["scores"], f"epochs.{i}.scores")
    for name in ("last", "best"):
        if record[name] is not None:
            yield _no_scores(record[name]["scores"], f"{name}.scores")
        elif record["status"] == "ok":
            yield f"{name}: is null although status is ok; move the file away to run again"
    task = record["spec"].get("task")
    if isinstance(task, dict) and not isinstance(task.get("official_rows", {}), dict):
        yield f"spec.task.official_rows: must map splits to rows, is {task['official_rows']!r}"
    for split, facts in record["data"].items():
        rows = facts.get("rows")
        if rows is not None and type(rows) is not int:
            yield f"data.{split}.rows: must be a number of rows, is {rows!r}"
        for name in REFERENCES:
            if facts.get(name) is not None:
                yield _no_scores(facts[name], f"data.{split}.{name}")


def _wrong(part: Mapping[str, Any], entries: Mapping[str, Types], place: str) -> str | None:
    for entry, types in entries.items():
        value = part.get(entry)
        if type(value) not in types:
            names = " | ".join(one.__name__ for one in types)
            return f"{place}.{entry}: must be of type {names}, is {value!r}"
    return None


def _no_scores(scores: Any, place: str) -> str | None:
    if not isinstance(scores, dict) or not scores:
        return f"{place}: must map a metric to its score, is {scores!r}"
    for metric, value in scores.items():
        if type(value) not in NUMBER or not abs(value) <= MAX_INTEGER:  # NaN too
            return f"{place}.{metric}: must be a number, is {value!r}"
    return None
