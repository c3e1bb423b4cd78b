"""Upgrades ``adapter.json`` of older formats step by step."""

from typing import Any

from ..record_formats import apply_steps, method_from_1

FORMAT = 2


def upgrade(facts: dict[str, Any]) -> dict[str, Any]:
    """Content of ``adapter.json`` in the current format.

    Args:
        facts: content of any format up to the current one.

    Raises:
        KeyError, TypeError, AttributeError: it lacks a field of its format.
    """
    return apply_steps(facts, UPGRADES)


def _from_1(facts: dict[str, Any]) -> dict[str, Any]:
    """Upgrade format 1: no cell, and ``unanswerable`` was a field of the task, not of its args."""
    task = dict(facts["task"])
    task["args"] = {"unanswerable": True} if task.pop("unanswerable") else {}
    method = method_from_1(facts["method"])
    return {**facts, "task": task, "method": method, "cell": None, "format": 2}


UPGRADES = (_from_1,)
