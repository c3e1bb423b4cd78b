"""Measurements in a file, so that an interrupted benchmark can continue, and their table."""

import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd


class Measurements:
    """JSON lines, one for each measurement.

    Args:
        path: path of the file; it need not exist yet.
    """

    def __init__(self, path: Path):
        self.path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.all: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def has(self, identity: dict[str, Any]) -> bool:
        """Whether a measurement has these entries."""
        return any(identity.items() <= one.items() for one in self.all)

    def add(self, measured: dict[str, Any]) -> None:
        """Append a measurement to the file."""
        self.all.append(measured)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(measured) + "\n")


def spread(values: pd.Series, form: str, unit: str = "") -> str:
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}}{unit} [{low:{form}}, {high:{form}}]"


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """A Markdown table with a line for each row."""
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
