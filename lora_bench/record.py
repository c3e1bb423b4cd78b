"""Record: what one run did and how it went, as one JSON file that is there whole or not at all."""

import hashlib
import json
import os
import platform
import subprocess
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

FORMAT = 1
FILE = "record.json"
PLANS = "sweeps"
PACKAGES = (
    "lora-bench",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "numpy",
    "scikit-learn",
    "scipy",
    "peft",
)


@dataclass
class Record:
    """One run. Unknown is None, never a number; units stand in the names."""

    key: str
    status: str  # ok | failed
    spec: dict[str, Any]
    command: str  # reproduces the run, from the project's folder
    started: str  # UTC, ISO 8601
    provenance: dict[str, Any]
    data: dict[str, Any] = field(
        default_factory=dict
    )  # rows, fingerprint, source, ceiling, chance for each split
    epochs: list[dict[str, Any]] = field(default_factory=list)  # epoch, loss, scores
    best: dict[str, Any] | None = None  # the epoch with the best first metric
    last: dict[str, Any] | None = None  # the last epoch
    reloaded: dict[str, float] | None = (
        None  # scores of the saved adapter in a fresh model; equal to last
    )
    parameters: dict[str, int] | None = None  # trained, by group, and total
    adapter_bytes: int | None = None
    train_seconds: float | None = None
    eval_seconds: float | None = None
    examples_per_second: float | None = None  # training
    tokens_per_second: float | None = None  # training, real tokens
    peak_memory_bytes: int | None = None
    error: str | None = None  # one line; the traceback lies beside the record
    format: int = FORMAT


def suffix_of(split: str) -> str:
    """What a score's name adds for its split: nothing for ``validation``, ``_matched`` for ``validation_matched``."""
    return ("_" + split.removeprefix("validation").strip("_")).rstrip("_")


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def write(folder: Path, record: Record) -> Path:
    """Write ``record.json`` into ``folder``: a reader finds the whole file or none."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / FILE
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(json.dumps(asdict(record), indent=1, allow_nan=False) + "\n")
    os.replace(part, path)
    return path


def read(folder: Path) -> Record | None:
    """The record in ``folder``; None where there is none or it cannot be read, which counts as not done."""
    try:
        return Record(**json.loads((folder / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def write_plan(root: Path, command: str, keys: list[str]) -> None:
    """Note which runs a sweep's command asks for: what is missing can only be told from a plan."""
    folder = root / PLANS
    folder.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(command.encode()).hexdigest()[:10]
    (folder / f"{name}.json").write_text(
        json.dumps({"command": command, "keys": keys}, indent=1) + "\n"
    )


def read_plans(root: Path) -> list[dict[str, Any]]:
    """The plans below ``root``: command and keys of each sweep, in the order of their commands."""
    plans = [json.loads(path.read_text()) for path in root.rglob(f"{PLANS}/*.json")]
    return sorted(plans, key=lambda plan: plan["command"])


def read_all(root: Path) -> list[Record]:
    """Every readable record below ``root``, in the order of their keys."""
    found = (read(path.parent) for path in root.rglob(FILE))
    return sorted((record for record in found if record is not None), key=lambda record: record.key)


def provenance(device: str, threads: int) -> dict[str, Any]:
    """Versions, machine and commit behind a number."""
    return {
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
        },
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": _dirty(),
        "machine": platform.machine(),
        "system": platform.system(),
        "device": device,
        "threads": threads,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _dirty() -> bool | None:
    changes = _git("status", "--porcelain", "--", "lora_bench", "conf")
    return None if changes is None else bool(changes)


@cache
def _git(*arguments: str) -> str | None:
    """Output of git in the project's folder; None where it is no checkout."""
    folder = Path(__file__).parent.parent
    if not (folder / ".git").exists():
        return None
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None
