"""Plans: which runs the command of a sweep asks for, one JSON file below its output folder each."""

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from .errors import UserError, first_problem
from .record import walk, write_whole

FOLDER = "sweeps"  # below out_dir


@dataclass(frozen=True)
class Plan:
    """The runs that a sweep's command asks for."""

    command: str
    keys: list[str]


_schema = TypeAdapter(Plan)


def write_plan(root: Path, command: str, keys: list[str]) -> None:
    """Record which runs a sweep's command asks for: only a plan shows which ones are missing.

    Raises:
        UserError: it cannot be written, for example because a folder has its name.
    """
    name = hashlib.sha256(command.encode()).hexdigest()[:10]
    content = json.dumps({"command": command, "keys": keys}, indent=1)
    path = root / FOLDER / f"{name}.json"
    try:
        write_whole(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


def read_plans(root: Path) -> tuple[list[Plan], list[str]]:
    """The plans below ``root``, sorted by command, and a line for each that cannot be read."""
    plans: list[Plan] = []
    problems: list[str] = []
    paths = [
        Path(folder, name)
        for folder, names in walk(root, problems)
        if os.path.basename(folder) == FOLDER
        for name in names
        if name.endswith(".json")
    ]
    for path in sorted(paths):
        try:
            plans.append(_schema.validate_json(path.read_bytes()))
        except (OSError, ValidationError) as error:
            reason = first_problem(error)[1] if isinstance(error, ValidationError) else error
            problems.append(f"{path}: is not a sweep plan ({reason}); run the sweep again")
    return sorted(plans, key=lambda plan: plan.command), problems
