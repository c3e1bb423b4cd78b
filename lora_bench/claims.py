"""Claims: which process executes which run, so that several can share a sweep without repeats.

A claim is a file in the run's folder that names its holder. Creating it is atomic, on network file
systems too. The holder touches it regularly; a claim that was not touched for EXPIRY seconds, or
whose process on this machine is gone, has expired and can be taken over. Does not need torch.
"""

import contextlib
import json
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from .errors import UserError
from .files import host_name

FILE = "claim.json"
HEARTBEAT = 15.0  # seconds between two touches
EXPIRY = 120.0  # seconds without a touch after which a claim has expired


class Claimed(UserError):
    """Another process is executing the run; the message names it."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a claim."""

    host: str
    process: int
    started: float  # start of the process, see ``_start_of``: process ids are reused
    token: str  # unique to this claim

    @classmethod
    def this_process(cls) -> "Holder":
        """This process, with a new token."""
        process = psutil.Process()
        return cls(host_name(), process.pid, _start_of(process), uuid.uuid4().hex)

    def is_gone(self) -> bool:
        """Whether the process ran on this machine and has ended; if False, it may be alive."""
        if self.host != host_name():
            return False
        try:
            process = psutil.Process(self.process)
            ended = process.status() == psutil.STATUS_ZOMBIE
            return ended or _start_of(process) != self.started
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


def _start_of(process: psutil.Process) -> float:
    """When a process started: in clock ticks since boot on Linux, else in seconds since 1970.

    On Linux, the latter would change when the system's clock is set.
    """
    try:
        text = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return process.create_time()
    return float(text.rpartition(")")[2].split()[19])  # field 22 of proc_pid_stat(5)


UNKNOWN = Holder("an unknown host", 0, 0.0, "")  # holder of a claim that cannot be read


def holder_of(folder: Path) -> Holder | None:
    """The process that executes a folder's run; None: no claim, or it has expired."""
    path = folder / FILE
    held = _read(path)
    return None if held is None or _expired(path, held) else held


@contextlib.contextmanager
def claims(folders: Sequence[Path]) -> Iterator[dict[Path, Holder | None]]:
    """Claim runs for the duration of the block.

    Args:
        folders: folders of the runs.

    Yields:
        For each folder None if this process now holds the claim, else the holder.
    """
    mine, paths = Holder.this_process(), [folder / FILE for folder in folders]
    ended = threading.Event()
    thread = threading.Thread(target=_heartbeat, args=(paths, mine, ended), daemon=True)
    thread.start()
    try:
        yield {folder: _take(folder, mine) for folder in folders}
    finally:
        ended.set()
        thread.join()
        for path in paths:
            if _is_held_by(path, mine):
                path.unlink(missing_ok=True)


def _heartbeat(paths: Sequence[Path], mine: Holder, ended: threading.Event) -> None:
    while not ended.wait(HEARTBEAT):
        for path in paths:
            with contextlib.suppress(OSError):
                if _is_held_by(path, mine):
                    os.utime(path)


def _take(folder: Path, mine: Holder) -> Holder | None:
    """Claim a run; return the other holder if that fails."""
    path = folder / FILE
    folder.mkdir(parents=True, exist_ok=True)
    if _create(path, mine):
        return None
    held = _read(path)
    if not (_is_stale(path) if held is None else _expired(path, held)):
        return held or UNKNOWN
    return _take_over(path, held, mine)


def _take_over(path: Path, held: Holder | None, mine: Holder) -> Holder | None:
    """Replace an expired claim; if several processes try, one succeeds.

    Args:
        path: path of the claim.
        held: content of the claim when it had expired.
        mine: the new holder.

    Returns:
        None, or the process that was faster.
    """
    guard = path.with_suffix(".takeover")
    if not _create(guard, mine):
        faster = _read(guard)
        if _is_stale(guard):  # its process died within the lines below; the next attempt succeeds
            guard.unlink(missing_ok=True)
        return faster or UNKNOWN
    try:
        now = _read(path)
        if now != held:
            return now or UNKNOWN
        path.unlink(missing_ok=True)
        return None if _create(path, mine) else _read(path) or UNKNOWN
    finally:
        guard.unlink(missing_ok=True)


def _create(path: Path, holder: Holder) -> bool:
    """Write a whole file that does not exist yet; return False if it exists."""
    part = path.with_suffix(f".{uuid.uuid4().hex}.part")
    part.write_text(json.dumps(asdict(holder)), encoding="utf-8")
    try:
        os.link(part, path)  # atomic, and the content is there with the name
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links
        return _create_exclusively(path, holder)
    finally:
        part.unlink(missing_ok=True)
    return True


def _create_exclusively(path: Path, holder: Holder) -> bool:
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(asdict(holder)))
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_held_by(path: Path, holder: Holder) -> bool:
    return _read(path) == holder


def _expired(path: Path, held: Holder) -> bool:
    return held.is_gone() or _is_stale(path)


def _is_stale(path: Path) -> bool:
    """Whether a file has not been touched for EXPIRY seconds, by its file system's clock."""
    probe = path.with_suffix(f".{uuid.uuid4().hex}.part")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime > EXPIRY
    except FileNotFoundError:
        return True
    finally:
        probe.unlink(missing_ok=True)
