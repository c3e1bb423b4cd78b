"""``adapter.json``: what an adapter belongs to. Reading it needs no torch."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..checks import MIN_LENGTH
from ..errors import UserError, first_line, first_problem
from ..files import parse_json
from ..spec import MethodSpec, ModelSpec, Spec, TaskSpec, TrainSpec, stem_of
from .formats import FORMAT, upgrade

WEIGHTS = "adapter.safetensors"
FACTS = "adapter.json"
# Settings of the task that decide what its head is and what its outputs mean.
TASK_FACTS = ("name", "kind", "labels", "value_range", "args")
HERE = "must be the folder of a finished run or its adapter/"


class AdapterError(UserError):
    """An adapter cannot be used: names the file and what is missing, unknown or different."""


@dataclass
class _TaskFacts:
    """The part of a TaskSpec that an adapter states."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    name: str
    kind: str
    labels: list[str]
    value_range: list[float]
    args: dict[str, Any]


@dataclass
class _Facts:
    """Fields and types of ``adapter.json`` in the current format."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    format: int
    cell: str | None
    base_model: ModelSpec
    base_fingerprint: str | None
    task: _TaskFacts
    head: str
    method: MethodSpec
    seed: int
    versions: dict[str, str | None] = field(default_factory=dict)
    weights_sha256: str | None = None  # of the weights file; None: older files lack it


_schema = TypeAdapter(_Facts)


def read_facts(folder: Path) -> dict[str, Any]:
    """The content of ``adapter.json`` in the current format, every field of the right type.

    Raises:
        AdapterError: it does not exist, is damaged, has a newer format, lacks a field, or has a
            field that is unknown or of the wrong type.
    """
    path = folder / FACTS
    try:
        facts = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AdapterError(f"{folder}: no {FACTS} there; {HERE}") from None
    except OSError as error:
        raise AdapterError(f"{folder}: cannot be read ({error.strerror}); {HERE}") from None
    except ValueError as error:
        raise AdapterError(f"{path}: is damaged ({error}); run again or convert again") from None
    number = facts.get("format") if isinstance(facts, dict) else None
    if type(number) is not int or number < 1:
        raise AdapterError(f"{path}: is damaged: format is {number!r}; must be a number from 1")
    if number > FORMAT:
        raise AdapterError(f"{path}: has format {number}; this version reads up to {FORMAT}")
    try:
        facts = upgrade(facts)
        # with a standard-library dataclass, pydantic ignores unknown fields
        for kind, name in ((MethodSpec, "method"), (ModelSpec, "base_model")):
            kind(**facts[name])
        _schema.validate_json(json.dumps(facts), strict=True)
    except ValidationError as error:
        raise AdapterError(f"{path}: {': '.join(first_problem(error))}") from None
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise AdapterError(
            f"{path}: is malformed for format {number}: {first_line(error)}"
        ) from None
    return facts


def spec_of(folder: Path) -> Spec:
    """The part of a Spec that an adapter folder states: model, method, head and task, no recipe.

    Raises:
        AdapterError: see ``read_facts``.
    """
    facts = read_facts(folder)
    return partial_spec(
        TaskSpec(**facts["task"]),
        ModelSpec(**facts["base_model"]),
        MethodSpec(**facts["method"]),
        head=facts["head"],
        seed=facts["seed"],
    )


def partial_spec(task: TaskSpec, model: ModelSpec, method: MethodSpec, **other: Any) -> Spec:
    """A Spec without a recipe: an adapter needs none."""
    nothing = TrainSpec(epochs=1, batch_size=1, lr=1.0, dropout=0.0, max_length=MIN_LENGTH)
    return Spec(task=task, model=model, method=method, train=nothing, **other)


def start_of(folder: Path) -> dict[str, str]:
    """What a run that starts from an adapter records about it.

    Returns:
        ``task``, ``cell`` and ``fingerprint``, a hash of the weights file. An adapter without a
        cell, such as one from another project, is a cell of its own.

    Raises:
        AdapterError: the folder holds no adapter.
    """
    facts, weights = read_facts(folder), folder / WEIGHTS
    if not weights.is_file():
        raise AdapterError(f"{folder}: no {WEIGHTS} there; {HERE}")
    fingerprint = file_hash(weights)[:16]
    return {
        "task": facts["task"]["name"],
        "cell": facts["cell"] or f"{_stem(facts)}-{fingerprint}",
        "fingerprint": fingerprint,
    }


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stem(facts: dict[str, Any]) -> str:
    """Readable start of a cell's name, as in the cell of a run."""
    method = facts["method"]
    return stem_of(
        facts["task"]["name"], facts["base_model"]["name"], method["name"], method["rank"]
    )
