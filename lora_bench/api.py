"""Runs from Python: settings as words of the command line, and the record of the result."""

from .compose import compose
from .record import Record
from .spec import Spec
from .training.run import run


def make_spec(*words: str) -> Spec:
    """The settings of one run, checked as on the command line.

    Args:
        words: as in ``make_spec("task=cola", "method.rank=4", "seed=1")``.

    Raises:
        UserError: one line that names the setting, its value and what is allowed.
    """
    return compose(list(words))


def run_spec(spec: Spec) -> Record:
    """Train, score, save and record one run; a run that was done before is not repeated.

    Args:
        spec: settings from ``make_spec``; its fields may have been changed since.

    Raises:
        UserError: a setting or the data is wrong, or another process is executing the run.
        Exception: what made the run fail; it is in the record too.
    """
    return run(spec, command="(run from Python)")
