"""A task: data facts (``TaskSpec``) with how to encode, decode and score, by ``kind``."""

from ..spec import SpecError, TaskSpec
from .span import SpanTask
from .text import TextTask

KINDS = {"text": TextTask, "span": SpanTask}


def make_task(spec: TaskSpec):
    """The task of a spec. Raises: SpecError: unknown kind."""
    if spec.kind not in KINDS:
        raise SpecError("task.kind", spec.kind, f"must be one of {', '.join(KINDS)}")
    return KINDS[spec.kind](spec)


def check_task(spec) -> None:
    """Check what the kind of the task reads."""
