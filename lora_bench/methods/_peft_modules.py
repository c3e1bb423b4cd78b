"""The modules that arguments of PEFT name; PEFT ignores a name without a module among others."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from ..errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def check_modules(args: Mapping[str, Any], config: Any, paths: Sequence[str]) -> None:
    """Refuse an entry of ``target_modules`` or ``exclude_modules`` that has no effect.

    Args:
        args: the arguments, as ``method.args`` gives them.
        config: the ``PeftConfig`` with which PEFT has adapted the encoder.
        paths: paths of the encoder's modules.

    Raises:
        SpecError: names the entry.
    """
    targeted = [path for path in paths if _named(config.target_modules, path, config)]
    for name, among, reason in (
        ("target_modules", paths, "names no module of this encoder"),
        ("exclude_modules", targeted, "excludes none of the modules that would be adapted"),
    ):
        for entry in _entries(args.get(name)):
            if not any(_named(entry, path, config) for path in among):
                shown = entry if isinstance(entry, str) else entry[0]
                raise SpecError(f"method.args.{name}", shown, reason)


def _entries(given: str | list[str] | None) -> list[Any]:
    """The pattern, or each name as a list: PEFT compares those in a list with the ends of paths."""
    if given is None or given == "all-linear":  # PEFT's word for every linear layer
        return []
    return [given] if isinstance(given, str) else [[name] for name in given]


def _named(modules: Any, path: str, config: Any) -> bool:
    """Whether PEFT would adapt a module if these were the only ``target_modules``."""
    from peft.tuners.tuners_utils import check_target_module_exists

    only = copy.copy(config)
    only.target_modules, only.exclude_modules = modules, None
    return bool(check_target_module_exists(only, path))
