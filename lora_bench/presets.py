"""The folder of the presets, and access to its tasks without composing a run."""

from pathlib import Path
from typing import Any, cast

import yaml
from omegaconf import OmegaConf

from .errors import SpecError, UserError, one_line
from .spec import TaskSpec

_PACKAGE = Path(__file__).resolve().parent
_IN_WHEEL = _PACKAGE / "conf"  # in a wheel; in the repository, presets are beside the package
INSTALLED = _IN_WHEEL.is_dir()
CONF = _IN_WHEEL if INSTALLED else _PACKAGE.parent / "conf"


def load_yaml(path: Path) -> Any:
    """The content of a YAML file, as OmegaConf containers.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return OmegaConf.load(path)
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read: {one_line(error)}") from None


def task_presets() -> dict[str, TaskSpec]:
    """Every task under ``conf/task/`` by its name."""
    return {name: task_preset(name) for name in _names()}


def task_preset(name: str) -> TaskSpec:
    """The task of that name.

    Raises:
        SpecError: there is no such preset.
    """
    if name not in _names():
        raise SpecError("task", name, f"must be one of {', '.join(_names())}")
    content = load_yaml(CONF / "task" / f"{name}.yaml")
    return cast(TaskSpec, OmegaConf.to_object(OmegaConf.merge(TaskSpec, content)))


def _names() -> list[str]:
    return sorted(path.stem for path in CONF.glob("task/*.yaml"))
