"""Names of systems and of columns: as short as possible while unambiguous.

A system is named by its method and rank, and by the settings that differ among the systems of its
method: all settings of the method itself except alpha, and as few of the others as needed. A column
is named by its task and metric, and by the settings of task, model and data that differ among the
columns of its task.
"""

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from ..spec import Spec, settings

NULL = "null"
# part of every name, or chosen with the rank: needed in a name only where a rank has several
IMPLIED = ("method.name", "method.file", "method.rank", "method.alpha")
FINGERPRINT_DIGITS = 8  # digits of a fingerprint in a name


def show(value: Any) -> str:
    """A setting's value in command-line syntax."""
    if isinstance(value, str):  # most are
        return value
    if value is None:
        return NULL
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(show, value))}]"
    if isinstance(value, dict):
        return f"{{{','.join(f'{name}:{show(item)}' for name, item in value.items())}}}"
    return str(value)


def texts(part: Mapping[str, Any], ignore: Collection[str] = ()) -> dict[str, str]:
    """The values of one part of an identity as text.

    Args:
        part: dotted path of a setting -> value.
        ignore: paths to leave out.

    Returns:
        Path -> text. Null values are left out, like settings that a method lacks.
    """
    return {p: show(v) for p, v in part.items() if v is not None and p not in ignore}


@cache
def defaults() -> Mapping[str, Any]:
    """Every setting by its dotted path, at its default."""
    return MappingProxyType(settings(Spec()))


def short_names(paths: Iterable[str]) -> dict[str, str]:
    """The shortest unambiguous name of each setting: ``warmup``, but ``data.seed``.

    A preset is named by its group, as on the command line: ``model``, not ``name``.
    """
    paths = list(paths)
    known, others = _known_leaves(), [path for path in paths if path not in defaults()]
    counts = known + Counter(map(_leaf, others)) if others else known
    return {path: _leaf(path) if counts[_leaf(path)] == 1 else path for path in paths}


@cache
def _known_leaves() -> Counter[str]:
    return Counter(map(_leaf, defaults()))


def _leaf(path: str) -> str:
    section, _, leaf = path.rpartition(".")
    return section if leaf == "name" and section else leaf


def describe(part: Mapping[str, str], paths: Iterable[str], separator: str = " ") -> str:
    """The settings at ``paths``, as in ``lr=0.001 warmup=0``."""
    return separator.join(
        f"{name}={_shortened(path, part.get(path, NULL))}"
        for path, name in short_names(paths).items()
    )


def _shortened(path: str, text: str) -> str:
    return text[:FINGERPRINT_DIGITS] if path.endswith(".fingerprint") else text


def varying(parts: Iterable[Mapping[str, str]]) -> list[str]:
    """Paths whose values differ among ``parts``, in the order of the settings."""
    parts = list(parts)
    if len(parts) < 2:
        return []
    paths = {path for part in parts for path in part}
    order = {path: i for i, path in enumerate(defaults())}
    sections = {path.partition(".")[0]: i for path, i in order.items()}  # index of its last setting
    differing = [path for path in paths if len({part.get(path, NULL) for part in parts}) > 1]
    # settings that a Spec has only for one method or task come last in their section
    return sorted(
        differing,
        key=lambda path: (order.get(path, sections.get(path.partition(".")[0], -1)), path),
    )


def distinguishing_settings(
    groups: Sequence[Hashable], parts: Sequence[Mapping[str, str]], fixed: Sequence[str] = ()
) -> list[str]:
    """A minimal set of settings whose values distinguish all parts of a group.

    The setting that distinguishes most parts is taken first; among ties, plain values come before
    lists, and fingerprints last.

    Args:
        groups: group of each part.
        parts: path -> text.
        fixed: paths that are always in the set.

    Returns:
        Paths; none of them, except those in ``fixed``, can be left out.
    """
    paths = sorted(varying(parts), key=lambda path: _preference(path, parts))
    codes = {path: _codes(part.get(path, NULL) for part in parts) for path in {*paths, *fixed}}
    group = _codes(groups)
    goal = _classes(group, [codes[path] for path in paths])
    chosen = list(fixed)
    found = _classes(group, [codes[path] for path in chosen])
    while found < goal:
        taken = [codes[path] for path in chosen]
        counts = {path: _classes(group, [*taken, codes[path]]) for path in paths}
        best = max(paths, key=counts.__getitem__)  # the first one among ties
        chosen, found = [*chosen, best], counts[best]
    for path in chosen[len(fixed) :]:
        rest = [other for other in chosen if other != path]
        if _classes(group, [codes[other] for other in rest]) == goal:
            chosen = rest
    return sorted(chosen, key=lambda path: _preference(path, parts))


def _preference(path: str, parts: Sequence[Mapping[str, str]]) -> tuple[bool, bool, bool]:
    """Sort key: the procedure first, lists late, fingerprints last."""
    is_list = any(part.get(path, "").startswith(("[", "{")) for part in parts)
    return path.endswith(".fingerprint"), is_list, path != "procedure"


def _codes(values: Iterable[Hashable]) -> np.ndarray:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], dtype=np.int64)


def _classes(group: np.ndarray, codes: Sequence[np.ndarray]) -> int:
    """Number of distinct combinations of group and codes."""
    combined = group
    for code in codes:
        _, combined = np.unique(combined * (code.max(initial=0) + 1) + code, return_inverse=True)
    return len(np.unique(combined))


def system_names(
    frame: pd.DataFrame, ignore: Mapping[str, Collection[str]] | None = None
) -> list[str]:
    """Name of the system of each row.

    Args:
        frame: rows with where_id, system_id, system and method.
        ignore: method -> settings that the names of its systems leave out.

    Returns:
        Names that are unique within one place, apart from differences in ``ignore``.
    """
    ignore = ignore or {}
    known = frame.drop_duplicates(["where_id", "system_id"])
    systems = frame.drop_duplicates("system_id")
    parts = {
        id_: texts(system, ignore.get(method, ()))
        for id_, system, method in zip(
            systems.system_id, systems.system, systems.method, strict=True
        )
    }
    fixed = ["procedure"] if len({p.get("procedure") for p in parts.values()}) > 1 else []
    names: dict[str, str] = {}
    for method, group in known.groupby("method"):
        ranks = [parts[id_].get("method.rank") for id_ in group.system_id]
        places = list(zip(group.where_id, ranks, strict=True))
        own = [parts[id_] for id_ in group.system_id]
        added = distinguishing_settings(places, own, [*fixed, *_of_method(group.where_id, own)])
        for id_, rank in zip(group.system_id, ranks, strict=True):
            words = [method, rank and f"r={rank}", describe(parts[id_], added)]
            names[id_] = " ".join(filter(None, words))
    return [names[id_] for id_ in frame.system_id]


def _of_method(places: Iterable[str], systems: Sequence[Mapping[str, str]]) -> list[str]:
    """Settings of a method that differ in one place, as its targets, except rank and alpha."""
    at: dict[str, list[Mapping[str, str]]] = {}
    for place, system in zip(places, systems, strict=True):
        at.setdefault(place, []).append(system)
    differing = dict.fromkeys(path for rivals in at.values() for path in varying(rivals))
    return [p for p in differing if p.startswith("method.") and p not in IMPLIED]


def conditions(frame: pd.DataFrame, ignore: Collection[str] = ()) -> list[str]:
    """What distinguishes the task, model and data of each row from others of the same task.

    Args:
        frame: rows with where_id, where and task.
        ignore: settings to leave out.

    Returns:
        Settings as in ``train_rows=100, model=minilm``; "" if the task has only one.
    """
    known = frame.drop_duplicates("where_id")
    parts = {
        id_: texts(where, ignore) for id_, where in zip(known.where_id, known["where"], strict=True)
    }
    found = {}
    for _, group in known.groupby("task"):
        paths = distinguishing_settings([0] * len(group), [parts[id_] for id_ in group.where_id])
        for id_ in group.where_id:
            found[id_] = describe(parts[id_], paths, ", ")
    return [found[id_] for id_ in frame.where_id]
