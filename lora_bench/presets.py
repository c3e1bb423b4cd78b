"""The folder of the presets, and the tasks in it for code that composes no run."""

from pathlib import Path
from typing import cast

from omegaconf import OmegaConf

from .spec import SpecError, TaskSpec

_PACKAGE = Path(__file__).resolve().parent
_INSTALLED = _PACKAGE / "conf"  # in a wheel; in the repository they are beside the package
CONF = _INSTALLED if _INSTALLED.is_dir() else _PACKAGE.parent / "conf"


def task_presets() -> dict[str, TaskSpec]:
    """Every task under ``conf/task/`` by its name."""
    schema = OmegaConf.structured(TaskSpec)
    merged = (OmegaConf.merge(schema, OmegaConf.load(p)) for p in sorted(CONF.glob("task/*.yaml")))
    found = [cast(TaskSpec, OmegaConf.to_object(config)) for config in merged]
    return {task.name: task for task in found}


def task_preset(name: str) -> TaskSpec:
    """The task of that name.

    Raises:
        SpecError: there is no such preset.
    """
    tasks = task_presets()
    if name not in tasks:
        raise SpecError("task", name, f"must be one of {', '.join(tasks)}")
    return tasks[name]
