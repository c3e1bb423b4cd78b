"""A sweep: the runs that a command line asks for, their progress, and the time that is left."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from .. import record as records
from ..compose import check_same
from ..errors import UserError, counted
from ..overrides import path_of, without_replaced
from ..plans import write_plan
from ..presets import CONF, load_yaml
from ..record import Record
from ..spec import settings
from ..training.prepared import Planned, Run
from .groups import groups


def expand(arguments: list[str], *, sweep: bool) -> list[str]:
    """Replace ``+sweep=<name>`` with the preset's overrides; the command line takes precedence.

    Args:
        arguments: the words of a command line; of those that name one setting, the last counts.
        sweep: whether it is a sweep (``-m``).

    Raises:
        UserError: there is no preset of that name, or the command is not a sweep.
    """
    presets = {path.stem: path for path in sorted(CONF.glob("sweep/*.yaml"))}
    given = {path_of(argument) for argument in arguments}
    expanded = []
    for argument in without_replaced(arguments):
        if argument.lstrip("+").partition("=")[0] != "sweep":
            expanded.append(argument)
            continue
        name = argument.partition("=")[2]
        if name not in presets:
            raise UserError(f"{argument}: must be one of {', '.join(presets)} (conf/sweep/)")
        if not sweep:
            raise UserError(f"{argument}: is a sweep; add -m")
        params = load_yaml(presets[name]).hydra.sweeper.params
        expanded += [f"{path}={value}" for path, value in params.items() if path not in given]
    return expanded


class Sweep:
    """The runs of one command, and their records on disk.

    Counts come only from the records, so that they are right in every process of a launcher.

    Args:
        runs: the runs that the command asks for; duplicates are counted once.

    Raises:
        UserError: runs differ only in settings that change no score, so they are the same run.
    """

    def __init__(self, runs: list[Run]):
        self.runs: dict[str, Planned] = {}
        for run in runs:
            first = self.runs.setdefault(run.key, run.planned)
            check_same(f"the run {run.key}", settings(first.spec), settings(run.planned.spec))
        self.done: dict[str, Record] = {}
        self.failed: dict[str, Record] = {}
        self.folders: dict[str, Path] = {}  # of the records; that of an older version has its own
        for key, planned in self.runs.items():
            place = Path(planned.spec.out_dir)
            self.folders[key], record = records.find(place, planned.identity)
            self._file(key, record)
        self.groups = groups(run for key, run in self.runs.items() if key not in self.done)
        self._besides: list[float] = []  # seconds of a group outside of training and scoring
        self._tried_before = {key: record.started for key, record in self.failed.items()}

    def write_plans(self, command: str) -> None:
        """Record below each output folder which of its runs the command asks for.

        Args:
            command: the command line of the sweep.

        Raises:
            UserError: a plan cannot be written.
        """
        keys: dict[str, list[str]] = {}
        for key, planned in self.runs.items():
            keys.setdefault(planned.spec.out_dir, []).append(key)
        for folder, own in keys.items():
            write_plan(Path(folder), command, own)

    def refresh(self) -> None:
        """Read the records of the runs that are not done yet.

        New records are filed under current keys; older keys are looked up once, at the start.
        """
        for key, run in self.runs.items():
            if key not in self.done:
                self._file(key, records.read(run.folder))

    def _file(self, key: str, record: Record | None) -> None:
        if record is not None and record.status == "ok":
            self.done[key] = record
            self.failed.pop(key, None)
        elif record is not None:
            self.failed[key] = record

    @property
    def failed_now(self) -> dict[str, Record]:
        """Runs that failed since the sweep began; earlier failures are retried."""
        return {k: r for k, r in self.failed.items() if self._tried_before.get(k) != r.started}

    @property
    def missing(self) -> list[str]:
        """Keys of the runs that are still to do."""
        return [key for key in self.runs if key not in self.done and key not in self.failed_now]

    def place(self, group: Sequence[Planned]) -> str:
        """``run 3 of 24`` or ``runs 3 to 6 of 24``; empty for a single run.

        Args:
            group: the group to run next.
        """
        first = len(self.done) + len(self.failed_now) + 1
        if len(self.runs) == 1:
            return ""
        if len(group) == 1:
            return f"run {first} of {len(self.runs)}"
        return f"runs {first} to {first + len(group) - 1} of {len(self.runs)}"

    def add_time(self, seconds: float, keys: Sequence[str]) -> None:
        """Record how long a group took, which shows what loading and encoding cost.

        Args:
            seconds: time from the start of its first run to the record of its last.
            keys: keys of its runs.
        """
        own = sum(_seconds(self.done[key]) for key in keys if key in self.done)
        self._besides.append(max(0.0, seconds - own))

    def seconds_left(self) -> float | None:
        """Estimated time for the missing runs; None before anything has finished.

        A run is expected to take the median time of the finished runs of its task and method, else
        of its task, else of all runs. A group adds the median overhead of earlier groups: loading,
        encoding, and scoring the saved adapters.
        """
        seconds: dict[tuple[str, ...], list[float]] = {}
        for key, record in self.done.items():
            for group in _similar(self.runs[key]):
                seconds.setdefault(group, []).append(_seconds(record))
        if not seconds:
            return None
        nearest = [
            next(seconds[group] for group in _similar(self.runs[key]) if group in seconds)
            for key in self.missing
        ]
        missing = set(self.missing)
        groups_left = sum(not missing.isdisjoint(run.key for run in group) for group in self.groups)
        besides = groups_left * statistics.median(self._besides or [0.0])
        return besides + sum(statistics.median(found) for found in nearest)

    def progress(self) -> str:
        """One line: how many runs are done, failed and to do, and the estimated time left."""
        left, failed, todo = self.seconds_left(), len(self.failed_now), len(self.missing)
        parts = [f"{len(self.done)} of {counted(len(self.runs), 'run')} done"]
        parts += [f"{failed} failed"] if failed else []
        parts += [f"{todo} to do"]
        parts += [f"about {duration(left)} left"] if todo and left is not None else []
        return ", ".join(parts)


def _seconds(record: Record) -> float:
    return (record.train_seconds or 0.0) + (record.eval_seconds or 0.0)


def _similar(run: Planned) -> tuple[tuple[str, ...], ...]:
    """Groups of runs that take a similar time, the most similar first."""
    return (run.spec.task.name, run.spec.method.name), (run.spec.task.name,), ()


def duration(seconds: float) -> str:
    """``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
