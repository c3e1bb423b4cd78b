"""Measurements in a file, so that an interrupted benchmark can continue, and their table."""

import argparse
import json
import statistics
import subprocess
import sys
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

    def of(self, machine: str) -> list[dict[str, Any]]:
        """The measurements of one machine: those of two are not comparable."""
        return [one for one in self.all if one["machine"] == machine]

    def add(self, measured: dict[str, Any]) -> None:
        """Append a measurement to the file."""
        self.all.append(measured)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(measured) + "\n")


def in_own_process(module: str, order: dict[str, Any]) -> dict[str, Any]:
    """Let a fresh process measure, so that no earlier measurement affects it.

    Args:
        module: the benchmark; with ``--worker`` and an order, it prints a JSON object.
        order: what to measure.

    Raises:
        RuntimeError: the process failed; the message ends with what it printed.
    """
    command = [sys.executable, "-m", module, "--worker", json.dumps(order)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{module} {order}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def positive(word: str) -> int:
    """A count from the command line.

    Raises:
        argparse.ArgumentTypeError: it is not a whole number above 0.
    """
    if not word.isascii() or not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} must be a whole number, 1 or more")
    return int(word)


def spread(values: pd.Series, form: str, unit: str = "") -> str:
    """Median and range."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:{form}}{unit} [{low:{form}}, {high:{form}}]"


def markdown(rows: Sequence[dict[str, str]]) -> str:
    """A Markdown table with a line for each row."""
    return pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)
