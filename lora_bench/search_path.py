"""A user's own folders of presets: ``--config-dir`` and ``hydra.searchpath``."""

import importlib.resources
import os
from collections.abc import Sequence
from importlib.resources.abc import Traversable
from pathlib import Path

from .errors import UserError
from .overrides import SEARCHPATH, parsed, path_of
from .presets import CONF


def with_presets_of(folder: str | None, overrides: list[str]) -> list[str]:
    """The overrides, with the user's folder of presets (``--config-dir``) on the search path.

    Args:
        folder: has subfolders such as task/ and method/; None without one.
        overrides: words of the command line; a search path among them comes after the folder.

    Raises:
        UserError: there is no such folder.
    """
    if folder is None:
        return overrides
    if not os.path.isdir(folder):
        raise UserError(f"--config-dir={folder}: no such folder")
    given = [word for word in overrides if path_of(word) == SEARCHPATH]
    paths = [f"file://{Path(folder).resolve()}"]
    for word in given:
        value = parsed(word).value()
        paths += map(str, value if isinstance(value, list) else [value])
    quoted = ",".join("'" + path.replace("'", r"\'") + "'" for path in paths)
    return [f"{SEARCHPATH}=[{quoted}]", *(word for word in overrides if word not in given)]


def check_searchpath(overrides: Sequence[str]) -> None:
    """Refuse a folder that does not exist, or that has a preset with the name of a built-in one.

    Hydra warns of the first and ignores the second.

    Args:
        overrides: words of Hydra's grammar.

    Raises:
        UserError: names the folder, or the preset.
    """
    for word in overrides:
        if path_of(word) == SEARCHPATH:
            value = parsed(word).value()
            for entry in value if isinstance(value, list) else [value]:
                folder = _folder_of(str(entry))
                if folder is None:
                    allowed = "must be a folder, file://folder or pkg://package"
                    raise UserError(f"{word}: {entry}: no such folder; {allowed}")
                _check_presets(str(entry), folder)


def _check_presets(entry: str, folder: Traversable) -> None:
    """Refuse a preset that a built-in one of the same name hides."""
    for group in (part for part in folder.iterdir() if part.is_dir()):
        for name in (f"{group.name}/{preset.name}" for preset in group.iterdir()):
            if (CONF / name).is_file():
                raise UserError(f"{entry}: a built-in preset is named {name}; choose another name")


def _folder_of(place: str) -> Traversable | None:
    """The folder of file:///folder, of a plain path, or of pkg://package; None if there is none."""
    kind, _, name = place.rpartition("://")
    if kind not in ("", "file", "pkg"):
        return None
    try:
        folder = importlib.resources.files(name) if kind == "pkg" else Path(name)
    except (ImportError, TypeError, ValueError):  # no package, or not a package name
        return None
    return folder if folder.is_dir() else None
