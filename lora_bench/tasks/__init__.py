"""Tasks: what is predicted from the rows of a dataset, and how the predictions are scored.

Each kind of task is one file in this folder that defines ``TASK``, a subclass of :class:`Task`; the
settings of a task come from its preset under ``conf/task/``. Nothing else in the project refers to
a kind by name.

The modules of this folder import torch, pandas, scikit-learn and SciPy inside the functions that
use them: a command line is checked, and a wrong setting is refused, without loading any of these.
"""

import importlib
import pkgutil
from dataclasses import asdict
from pathlib import Path

from ..data import HELD_OUT, columns, draws_rows
from ..errors import SpecError
from ..record import suffix_of
from ..spec import Spec, TaskSpec, settings
from .base import Stock as Stock
from .base import Task as Task
from .base import arguments, check_distinct
from .metrics import EVALUATE, check_evaluate, score_name

# Settings of TaskSpec that only some kinds read: a kind lists its own in ``reads``.
OPTIONAL_SETTINGS = ("labels", "value_range", "submission", *sorted(columns.SETTINGS))


def kinds() -> dict[str, type[Task]]:
    """The class of each kind by the name of its file."""
    names = [module.name for module in pkgutil.iter_modules(__path__)]
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    return {name: module.TASK for name, module in modules.items() if hasattr(module, "TASK")}


def make_task(spec: TaskSpec) -> Task:
    """The task of a spec.

    Args:
        spec: settings of the task; entries missing in ``spec.args`` have the kind's defaults.

    Raises:
        SpecError: there is no such kind, or an entry of ``spec.args`` is unknown or of the wrong
            type.
    """
    return _kind_of(spec)(spec)


def check_task(spec: Spec) -> None:
    """Check the settings of the task, and complete ``spec.task.args`` with the kind's defaults.

    Args:
        spec: settings of the run. Afterwards its ``task.args`` hold every setting of the kind, so
            that the identity of a run never depends on which of them were given.

    Raises:
        SpecError: names the setting, its value and what is allowed.
    """
    kind = _kind_of(spec.task)
    given = arguments(spec.task, kind.Args)
    spec.task.args = {} if given is None else asdict(given)
    task = kind(spec.task)
    _check_unused(spec.task, kind)
    _check_splits(spec.task)
    check_submission(spec.task)
    task.check(spec)
    _check_metrics(spec.task, task)
    if spec.data.seed != 0 and not (draws_rows(spec.data) or task.draws_split):
        raise SpecError(
            "data.seed",
            spec.data.seed,
            "nothing is generated or drawn at random from this data; leave it out",
        )


def check_submission(spec: TaskSpec) -> None:
    """Check the files for a test server: each is written into a folder that the caller chooses.

    Raises:
        SpecError: a name leads out of that folder, is not a TSV file or is used for two splits.
    """
    for split, name in spec.submission.items():
        if not split.startswith("test"):  # its rows would be limited and need labels
            raise SpecError(
                f"task.submission.{split}", name, "the split's name must begin with test"
            )
        path = Path(name)
        if path.name != name or path.suffix != ".tsv" or not name.isprintable():
            reason = "must be the name of a .tsv file, without a folder"
            raise SpecError(f"task.submission.{split}", repr(name), reason)
    check_distinct("task.submission", [*spec.submission.values()])


def _kind_of(spec: TaskSpec) -> type[Task]:
    known = kinds()
    if spec.kind not in known:
        raise SpecError("task.kind", spec.kind, f"must be one of {', '.join(known)}")
    return known[spec.kind]


def _check_unused(spec: TaskSpec, kind: type[Task]) -> None:
    given, default = settings(spec), settings(TaskSpec())
    for name in OPTIONAL_SETTINGS:
        if name not in kind.reads and given[name] != default[name]:
            raise SpecError(f"task.{name}", given[name], f"kind={spec.kind} does not use it")


def _check_splits(spec: TaskSpec) -> None:
    if spec.version < 1:
        raise SpecError("task.version", spec.version, "must be 1 or more")
    if not spec.validation:
        raise SpecError("task.validation", spec.validation, "must name a split to score")
    for path, names in (("task.validation", spec.validation), ("task.optional", [*spec.optional])):
        for name in names:
            if name in ("train", HELD_OUT) or name.startswith("test") or not name.strip():
                raise SpecError(path, names, f"{name} cannot be a split to score")
    scored = [*spec.validation, *spec.optional]
    check_distinct("task.validation", scored)
    suffixes = [suffix_of(split) for split in scored]
    if len(set(suffixes)) < len(suffixes):
        raise SpecError("task.validation", scored, "must differ in more than a leading validation_")


def _check_metrics(spec: TaskSpec, task: Task) -> None:
    optional = {f"task.optional.{split}": names for split, names in spec.optional.items()}
    for path, names in {"task.metrics": spec.metrics, **optional}.items():
        if not names:
            raise SpecError(path, names, "must name a metric")
        check_distinct(path, [score_name(name) for name in names])
        for name in names:
            if task.takes_evaluate and name.startswith(EVALUATE):
                check_evaluate(path, name)
            elif name not in task.metric_names:
                more = [f"{EVALUATE}<id or folder>"] if task.takes_evaluate else []
                allowed = ", ".join([*task.metric_names, *more])
                raise SpecError(path, f"[{','.join(names)}]", f"must be among {allowed}")
