"""Where the presets are, and the tasks among them for those who need their facts without composing a run."""

from pathlib import Path

from omegaconf import OmegaConf

from .spec import SpecError, TaskSpec

CONF = Path(__file__).resolve().parent.parent / "conf"


def task_presets() -> dict[str, TaskSpec]:
    """Every task under ``conf/task/``, by its name."""
    found = (
        OmegaConf.merge(OmegaConf.structured(TaskSpec), OmegaConf.load(p))
        for p in sorted(CONF.glob("task/*.yaml"))
    )
    return {task.name: task for task in map(OmegaConf.to_object, found)}


def task_preset(name: str) -> TaskSpec:
    """Raises: SpecError: there is none of that name."""
    tasks = task_presets()
    if name not in tasks:
        raise SpecError("task", name, f"must be one of {', '.join(tasks)}")
    return tasks[name]
