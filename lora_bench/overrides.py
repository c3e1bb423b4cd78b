"""The words of a command line, checked before Hydra composes them.

Hydra adds a misspelt setting after ``+`` to the configuration, suggests ``+`` for one without it,
and raises a traceback on some values.
"""

import dataclasses
import difflib
import math
import re
import shlex
import sys
import types
import typing
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import (
    ChoiceSweep,
    Glob,
    IntervalSweep,
    Override,
    QuotedString,
    RangeSweep,
    Sweep,
)
from hydra.errors import HydraException

from .errors import UserError, counted, one_line
from .presets import CONF
from .spec import NOT_RECORDED, Spec, is_within

MAX_RUNS = 10_000  # in one command: all are composed and checked before the first one starts
SWEEPER = "hydra.sweeper"
SEARCHPATH = "hydra.searchpath"  # where Hydra looks for presets in addition to ours
SHELL = re.compile(r"""[\s'"$`\\&;|<>(){}*?!]""")  # what a shell does not take as it is
KINDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    list[int]: "a list of whole numbers, as in [0,1]",
    list[float]: "a list of numbers, as in [0,5]",
    list[str]: "a list, as in [a,b]",
    types.NoneType: "null",
}
# Folders of conf/ that are no groups for a command line: the recipe chooses those of recipe_for_.
NO_GROUPS = ("hydra", "sweep", "tuned", "recipe_for_")
# Words that would make Hydra execute runs other than those that were checked.
REFUSED = {
    "hydra.mode": "-m asks for a sweep",
    SWEEPER: "write the values on the command line, or in a preset for +sweep=<name>",
    "hydra.run": "out_dir says where the files of a run go",
    "hydra.sweep": "out_dir says where the files of a run go",
    "hydra.job.chdir": "paths are relative to the folder where the command is run",
}


def parsed(word: str, *, searching: bool = False) -> Override:
    """One word by Hydra's grammar, its key checked.

    Args:
        word: as in ``task=cola`` or ``+train.lr=1e-3,2e-3``.
        searching: whether a sweeper other than Hydra's basic one chooses the runs.

    Raises:
        UserError: it is not an override, or names neither a group nor a setting.
    """
    return checked(word, _check_key, searching=searching)


def checked(
    word: str, check_key: Callable[[str, Override], None], *, searching: bool = False
) -> Override:
    """One word by Hydra's grammar, checked.

    Args:
        word: as in :func:`parsed`.
        check_key: refuses a word and its override if its key is not of the program; not called for
            Hydra's own settings.
        searching: as in :func:`parsed`.

    Raises:
        UserError: it is not an override, or is refused.
    """
    try:
        override = OverridesParser.create().parse_override(word)
    except HydraException as error:
        raise UserError(f"{word}: {_grammar(word, error)}") from None
    key = override.key_or_group
    if key.startswith(("hydra.", "hydra/")) or key == "hydra":
        _check_hydra(word, override, searching)
    else:
        check_key(word, override)
    value = override.value()
    nested = isinstance(value, ChoiceSweep) and any(isinstance(one, Sweep) for one in value.list)
    if nested or (isinstance(value, Glob | IntervalSweep) and not searching):
        raise UserError(f"{word}: must list its values, as in 1,2,3 or range(1,4)")
    return override


def _grammar(word: str, error: Exception) -> str:
    """Why a word is not of Hydra's grammar."""
    reason = one_line(error).partition(" See https:")[0]
    key, given, value = word.partition("=")
    if given and "token recognition" in reason:
        quoted = shlex.quote(f'{key}="{value}"')
        return f"a value with special characters needs quotes: {quoted} ({reason})"
    return f"must be setting=value or group=name ({reason})"


def check_number(overrides: list[Override]) -> None:
    """Refuse a sweep with no run or with too many.

    Raises:
        UserError: names the number.
    """
    runs = math.prod(_values(override) for override in overrides)
    if not 1 <= runs <= MAX_RUNS:
        raise UserError(f"the command asks for {counted(runs, 'run')}; must be 1 to {MAX_RUNS:,}")


def groups() -> list[str]:
    """Names of the preset groups that a user chooses from."""
    found = [path.name for path in sorted(CONF.iterdir()) if path.is_dir()]
    return [name for name in found if not name.startswith(NO_GROUPS)]


def is_setting(path: str) -> bool:
    """Whether a dotted path is a setting, a section, or an entry of a setting that is a dict."""
    return _type_of(path) is not None


def in_dict(path: str) -> bool:
    """Whether a setting is a dict or an entry of one: Hydra needs ``++`` before new entries."""
    return typing.get_origin(_type_of(path)) is dict


def expected(path: str) -> str:
    """What a setting takes, in words: "a whole number or null".

    Args:
        path: path of a setting, but not of a section or an entry of a dict.
    """
    type_ = _type_of(path)
    kinds = [type_] if type_ in KINDS else typing.get_args(type_)
    return " or ".join(KINDS[one] for one in kinds)


def path_of(word: str) -> str:
    """The setting or group that a word names."""
    return word.lstrip("+~").partition("=")[0]


def without_replaced(words: Sequence[str]) -> list[str]:
    """The words without those that a later one replaces."""
    last = {path_of(word): i for i, word in enumerate(words)}
    return [word for i, word in enumerate(words) if last[path_of(word)] == i]


def report_replaced(words: Sequence[str]) -> None:
    """Print a line for each word that a later one replaces."""
    last = {path_of(word): word for word in words}
    for word in words:
        if last[path_of(word)] != word:
            print(f"{word}: is replaced by {last[path_of(word)]}", file=sys.stderr)


def is_search(words: Sequence[str]) -> bool:
    """Whether the words name a Hydra sweeper that chooses runs based on earlier scores."""
    chosen = [word.partition("=")[2] for word in words if path_of(word) == "hydra/sweeper"]
    return bool(chosen) and chosen[-1] != "basic"


def command_of(words: Sequence[str], program: str = "lora_bench") -> str:
    """A command line without ``out_dir``, ``cache_dir``, ``group`` and settings of a launcher.

    Words with characters that are special to a shell are quoted; a list is left as it is.
    """
    kept = [word for word in words if path_of(word) not in NOT_RECORDED and not _launches(word)]
    quoted = (shlex.quote(word) if SHELL.search(word) else word for word in kept)
    return " ".join([f"python -m {program}", *quoted])


def _launches(word: str) -> bool:
    """Whether a word is for Hydra, other than the folders of presets that a run needs."""
    return word.lstrip("+").startswith(("hydra/", "hydra.")) and path_of(word) != SEARCHPATH


def _type_of(path: str) -> Any:
    """Type of a setting or section (for a dict's entry, of the dict); None: no such setting."""
    type_: Any = Spec
    for name in path.split("."):
        if typing.get_origin(type_) is dict:
            break
        type_ = _fields(type_).get(name)
    return type_


def _fields(kind: Any) -> dict[str, Any]:
    if not dataclasses.is_dataclass(kind):
        return {}
    return {entry.name: entry.type for entry in dataclasses.fields(kind)}


def _values(override: Override) -> int:
    value = override.value()
    if isinstance(value, ChoiceSweep):
        return len(value.list)
    if isinstance(value, RangeSweep):
        start, stop, step = value.start or 0, value.stop, value.step
        assert stop is not None
        return max(0, math.ceil((float(stop) - float(start)) / float(step))) if step else 0
    return 1


def _check_key(word: str, override: Override) -> None:
    key = override.key_or_group
    if override.is_delete() and not in_dict(key):
        raise UserError(f"{word}: cannot be removed: a run has all groups and settings")
    if override.package is not None:
        raise UserError(f"{word}: a group has one place; leave out @{override.package}")
    if key == "sweep" and override.is_add():
        return  # presets of sweeps, which the command line expands
    if key in groups():
        _check_group(word, override)
    elif not is_setting(key):
        raise UserError(f"{word}: no such setting; {_advice(key)}")


def _check_hydra(word: str, override: Override, searching: bool) -> None:
    key = override.key_or_group
    for name, reason in REFUSED.items():
        if is_within(key, name) and not (searching and name == SWEEPER):
            raise UserError(f"{word}: {reason}")
        if is_within(name, key):  # a whole section, which may hold it
            raise UserError(f"{word}: must be one of Hydra's own settings, as in hydra.verbose")
    if override.is_add() or override.is_force_add() or override.is_delete():
        raise UserError(f"{word}: must be one of Hydra's own settings, without + and ~")


def _check_group(word: str, override: Override) -> None:
    key, value = override.key_or_group, override.value()
    if override.is_add() or override.is_force_add():
        raise UserError(f"{word}: every run has a {key}; write {key}=<name>")
    names = value.list if isinstance(value, ChoiceSweep) else [value]
    for name in names:
        if not isinstance(name, str | QuotedString):
            raise UserError(f"{word}: must name a preset of conf/{key}/")


def _advice(key: str) -> str:
    section, _, name = key.rpartition(".")
    if known := [*_fields(_type_of(section) if section else Spec)]:
        here = {f"{section}.{found}".lstrip("."): found for found in known}
    else:
        section, here = "", {}
    everywhere = {path: path.rpartition(".")[2] for path in setting_paths()}
    same = [path for path, leaf in everywhere.items() if leaf == name]
    near = same or _near(name, here) or _near(name, everywhere)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    kind_of = f"{section} has" if section else "a run has"
    return f"{hint}{kind_of} {', '.join(here.values() if section else _fields(Spec))}"


def _near(name: str, paths: dict[str, str]) -> list[str]:
    best = difflib.get_close_matches(name, paths.values(), 1)
    return [path for path, leaf in paths.items() if leaf in best]


@cache
def setting_paths(kind: Any = Spec, prefix: str = "") -> tuple[str, ...]:
    """Dotted paths of every setting below a section, in the order of their definition."""
    found: list[str] = []
    for name, type_ in _fields(kind).items():
        found += setting_paths(type_, f"{prefix}{name}.") or [f"{prefix}{name}"]
    return tuple(found)
