"""``adapter.json`` of older formats, brought to the current one step by step."""

from typing import Any

from ..record_formats import PEFT_COPIES

FORMAT = 2


def upgrade(facts: dict[str, Any]) -> dict[str, Any]:
    """Content of ``adapter.json`` in the current format.

    Args:
        facts: content of any format up to the current one.

    Raises:
        KeyError, TypeError, AttributeError: it lacks what its format has.
    """
    for step in UPGRADES[facts["format"] - 1 :]:
        facts = step(facts)
    return facts


def _from_1(facts: dict[str, Any]) -> dict[str, Any]:
    """Format 1 named no cell; ``unanswerable`` was a field of the task, not one of its args."""
    task, method = dict(facts["task"]), dict(facts["method"])
    task["args"] = {"unanswerable": True} if task.pop("unanswerable") else {}
    method["args"] = {
        name: value
        for name, value in method["args"].items()
        if name not in PEFT_COPIES or value != method[PEFT_COPIES[name]]
    }
    return {**facts, "task": task, "method": method, "cell": None, "format": 2}


UPGRADES = (_from_1,)
