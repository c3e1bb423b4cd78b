"""A sweep: the runs that a command line asks for, how far they are, and how long the rest will take."""

import statistics

from omegaconf import OmegaConf

from ..presets import CONF
from ..record import Record
from ..spec import Spec, UserError


def expand(arguments: list[str], *, sweep: bool) -> list[str]:
    """Put a sweep preset's overrides in the place of ``+sweep=<name>``; what the command line gives as well wins.

    Raises: UserError: there is no preset of that name, or the command is no sweep.
    """
    presets = {path.stem: path for path in sorted(CONF.glob("sweep/*.yaml"))}
    given = {_name(argument) for argument in arguments}
    expanded = []
    for argument in arguments:
        if _name(argument) != "sweep":
            expanded.append(argument)
            continue
        name = argument.partition("=")[2]
        if name not in presets:
            raise UserError(f"{argument}: must be one of {', '.join(presets)} (conf/sweep/)")
        if not sweep:
            raise UserError(f"{argument}: is a sweep; say -m as well")
        params = OmegaConf.load(presets[name]).hydra.sweeper.params
        expanded += [f"{path}={value}" for path, value in params.items() if path not in given]
    return expanded


def _name(argument: str) -> str:
    return argument.lstrip("+~").partition("=")[0]


class Sweep:
    """The runs of one command and what became of them so far."""

    def __init__(self, runs: list[Spec], done: dict[str, Record | None]):
        """Args: done: what is there before it starts, by key; failed runs will be tried again and count as not done."""
        self.runs = {spec.key(): spec for spec in runs}
        here = {
            key: found for key, found in done.items() if found is not None and found.status == "ok"
        }
        self.records: dict[str, Record | None] = {key: here.get(key) for key in self.runs}

    def keys(self, status: str | None) -> list[str]:
        """Keys of the runs with that status; None: not run yet."""
        return [
            key
            for key, found in self.records.items()
            if (found.status if found else None) == status
        ]

    def note(self, records_now: dict[str, Record | None]) -> None:
        """Take in what is there now, by key."""
        self.records |= records_now

    def seconds_left(self) -> float | None:
        """Estimate for what is to do: a run takes what finished runs of its task and method took (median), else those of its
        task, else all. None: nothing has finished yet."""
        known = [(self.runs[key], self.records[key]) for key in self.keys("ok")]
        if not known:
            return None
        seconds: dict[tuple, list[float]] = {}
        for spec, record in known:
            for like in _alike(spec):
                seconds.setdefault(like, []).append(record.train_seconds + record.eval_seconds)
        todo = [self.runs[key] for key in self.keys(None)]
        return sum(
            statistics.median(next(seconds[x] for x in _alike(spec) if x in seconds))
            for spec in todo
        )

    def progress(self) -> str:
        """One line: how many runs are done, failed and to do, and how long these will take."""
        left, failed, todo = self.seconds_left(), len(self.keys("failed")), len(self.keys(None))
        parts = [
            f"{len(self.keys('ok'))} of {len(self.runs)} runs done",
            f"{failed} failed" if failed else "",
        ]
        parts += [
            f"{todo} to do",
            f"about {duration(left)} left" if todo and left is not None else "",
        ]
        return ", ".join(part for part in parts if part)


def _alike(spec: Spec) -> tuple[tuple, ...]:
    """What runs have in common, the closest kin first."""
    return (spec.task.name, spec.method.name), (spec.task.name,), ()


def duration(seconds: float) -> str:
    """``40 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"
