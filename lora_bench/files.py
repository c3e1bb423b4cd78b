"""Files and folders that appear whole or not at all, and JSON that is read strictly.

A file is first written under a temporary name that ends in ``.part`` and holds the host and the
process; it is flushed to disk and then renamed.
"""

import json
import os
import shutil
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

PART, NEW, OLD = ".part", "new", "old"
FIRST_NAMESPACE = 0xEFFFFFFC  # of processes outside of containers (PROC_PID_INIT_INO in Linux)


def host_name() -> str:
    """Name of the machine, with a container's process namespace: process ids are unique in it.

    Containers may have one host name and yet not see each other's processes.
    """
    name = socket.gethostname()
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # not Linux
        return name
    return name if namespace == FIRST_NAMESPACE else f"{name}.{namespace}"


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes ``path``, or replaces it, when the block succeeds.

    Args:
        path: path in a folder that exists or can be created.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part_of(path)
    try:
        yield part
        _flush(part)
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        name_file(error, path)
        raise
    _flush(path.parent)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes ``folder`` when the block succeeds.

    Args:
        folder: replaced if it exists.
    """
    new = _make_parents(folder)
    part = _part_of(folder)
    part.mkdir()
    try:
        yield part
        for path in (*part.rglob("*"), part):
            _flush(path)
        if folder.exists():
            # a folder cannot replace one that has files: for a moment there is neither
            os.replace(folder, old := _part_of(folder, OLD))
            try:
                os.replace(part, folder)
            except BaseException:
                os.replace(old, folder)
                raise
            _remove(old)
        else:
            os.replace(part, folder)
    except BaseException as error:
        shutil.rmtree(part, ignore_errors=True)
        _remove_empty(new)
        name_file(error, folder)
        raise
    _flush(folder.parent)


def _make_parents(folder: Path) -> list[Path]:
    """Make the parents of a folder; returns the new ones, the deepest first."""
    new = [parent for parent in folder.parents if not parent.exists()]
    folder.parent.mkdir(parents=True, exist_ok=True)
    return new


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with suppress(OSError):  # another process has put something in it
            folder.rmdir()


def name_file(error: BaseException, path: Path) -> None:
    """Add the path to an error of the system that has none, as of a write to a full disk."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is None:
        error.filename = str(path)


def try_folder(folder: Path) -> None:
    """Create and remove the folders that ``whole_folder`` starts with.

    Raises:
        OSError: ``whole_folder`` could not write there.
    """
    new = _make_parents(folder)
    part = _part_of(folder)
    part.mkdir()
    part.rmdir()
    _remove_empty(new)


def remove_parts(folder: Path) -> None:
    """Remove what killed processes of this host left unfinished in ``folder``.

    A folder that was moved aside and not yet replaced gets its name back.
    """
    for part in folder.glob(f".*{PART}"):
        name, _, writer = part.name.removesuffix(PART).rpartition("@")
        host, _, process = writer.rpartition("-")
        if host != host_name() or not process.isdecimal() or _alive(int(process)):
            continue
        whole = part.with_name(name[1:].removesuffix(f".{OLD}"))
        if name.endswith(f".{OLD}") and not whole.exists():
            os.replace(part, whole)
        else:
            with suppress(OSError):
                _remove(part)


def _part_of(path: Path, role: str = NEW) -> Path:
    """The temporary name under which this process writes ``path``, free to use."""
    remove_parts(path.parent)
    part = path.with_name(f".{path.name}.{role}@{host_name()}-{os.getpid()}{PART}")
    _remove(part)
    return part


def _remove(path: Path) -> None:
    """Remove a file, or a folder with its content, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        return True
    return True


def _flush(path: Path) -> None:
    """Flush a file or the entries of a folder to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def expanded(path: str) -> Path:
    """A path with ``~`` as the home folder; unchanged if it names a user that does not exist."""
    return Path(os.path.expanduser(path))


def parse_json(text: str) -> Any:
    """The value that a JSON text holds.

    Raises:
        ValueError: the text is not JSON, names a key twice, is nested too deeply, or holds a number
            with thousands of digits. The message is one line, with line and column if known.
    """
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno} column {error.colno}: {error.msg}") from None
    except ValueError as error:  # Python's limit on digits; the rest of the message is a remedy
        raise ValueError(str(error).partition(";")[0]) from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"an object has the key {name!r} twice")
        found[name] = value
    return found
