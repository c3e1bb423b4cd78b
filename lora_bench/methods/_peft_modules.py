"""The modules that arguments of PEFT name: PEFT ignores a name without a module beside others."""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

from ..errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peft import PeftConfig


def check_modules(args: Mapping[str, Any], config: PeftConfig, paths: Sequence[str]) -> None:
    """Refuse an entry of ``target_modules`` or ``exclude_modules`` that has no effect.

    Args:
        args: the arguments, as ``method.args`` gives them.
        config: the configuration with which PEFT has adapted the encoder.
        paths: paths of the encoder's modules.

    Raises:
        SpecError: names the entry.
    """
    from peft.tuners.tuners_utils import check_target_module_exists

    everything: Any = copy.copy(config)
    everything.exclude_modules = None
    targeted = [path for path in paths if check_target_module_exists(everything, path)]
    for name, among, reason in (
        ("target_modules", paths, "names no module of this encoder"),
        ("exclude_modules", targeted, "excludes none of the modules that would be adapted"),
    ):
        for entry in _entries(args.get(name)):
            if not any(_matches(entry, path, args[name]) for path in among):
                raise SpecError(f"method.args.{name}", entry, reason)


def _entries(given: Any) -> Iterable[str]:
    if given is None or given == "all-linear":  # PEFT's word for every linear layer
        return ()
    return [given] if isinstance(given, str) else given


def _matches(entry: str, path: str, given: Any) -> bool:
    """Whether an entry names a module: one of a list by the end of its path, as PEFT compares."""
    if isinstance(given, str):
        return re.fullmatch(entry, path) is not None
    return path == entry or path.endswith(f".{entry}")
