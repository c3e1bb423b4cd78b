"""The runs of one command: handed to a launcher in groups, watched on disk, and reported."""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from omegaconf import DictConfig

from ..claims import FILE as CLAIM
from ..claims import Claimed, holder_of
from ..compose import completed, hydra_reason
from ..errors import UserError, counted, first_line, one_line
from ..program import check_folder
from ..spec import Spec
from ..training.prepared import DataCache, Planned, Run, prepare
from ..training.run import Outcome, announce, execute
from ..training.stop import REQUEUE, StopAtOnce, Stopped, StopSignals
from .plan import Sweep

JOB = "job"  # index of a group, as Hydra passes it to a launcher
POLL = 2.0  # seconds between two checks of what other processes do
ATTEMPTS = 3  # consecutive launches without a finished run after which to give up


class Session:
    """The runs of one command. In another process, it executes runs and reports nothing.

    Args:
        sweep: the runs that the command asks for.
        cache: the data that its runs share.
        multirun: whether to print the progress after each group.
        launched: whether a launcher executes the runs in other processes.
    """

    def __init__(self, sweep: Sweep, cache: DataCache, *, multirun: bool, launched: bool = False):
        self.sweep, self.cache, self.multirun, self.launched = sweep, cache, multirun, launched
        self.sent = False  # whether this is the copy in a process of the launcher
        self.reported = set(sweep.done)  # keys of the runs whose outcome was printed
        # reasons of those that could not even be recorded as failed
        self.lost: dict[str, str] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "sent": True}

    def job(self, config: DictConfig) -> float | None:
        """Execute a group. A failure is in the run's record; a sweep continues.

        Returns:
            The first metric of the last epoch; None for several runs, and for a failed one.
        """
        group = self.sweep.groups[config.get(JOB, 0)]
        outcomes = self._do(group)
        return outcomes[0].record.main_score if len(outcomes) == 1 else None

    def words(self, overrides: Sequence[str], groups: Sequence[int]) -> list[str]:
        """The overrides for Hydra: one job for each group, whatever its number of runs.

        Args:
            overrides: words of the command line.
            groups: indices of the groups.
        """
        if not self.multirun:
            return completed(list(overrides))
        kept = ("hydra/", "hydra.", "out_dir=")
        words = [word for word in overrides if word.lstrip("+").startswith(kept)]
        return [*words, f"+{JOB}=" + ",".join(map(str, groups))]

    def run(self) -> None:
        """Execute every run in this process, without a launcher."""
        self.run_all(lambda groups: [self._do(self.sweep.groups[index]) for index in groups])

    def run_all(self, launch: Callable[[Sequence[int]], object]) -> None:
        """Launch groups until no run is left to do; wait for the runs of other processes.

        A launcher that breaks, for example because a worker was killed, is started again.

        Args:
            launch: executes the groups with these indices, and raises what the launcher raises.

        Raises:
            UserError: the launcher failed before any run began.
        """
        least, fruitless, named = len(self._open()) + 1, 0, ""
        while left := self._open():
            if len(left) < least:
                least, fruitless = len(left), 0
            if fruitless == ATTEMPTS:
                return
            if free := self._free(left):
                if not self._launch(launch, free, left):
                    # runs that nobody claimed: another launch would end in the same way
                    fruitless += self.launched or bool(self._free(self._open()))
                    time.sleep(POLL)
                continue
            holders = [holder_of(self.sweep.runs[key].folder) for key in left]
            found = ", ".join(sorted({str(holder) for holder in holders if holder is not None}))
            if found not in ("", named):
                print(f"waiting for {counted(len(left), 'run')} of {found}", file=sys.stderr)
            named = found
            time.sleep(POLL)

    def _open(self) -> list[str]:
        """Keys of the runs that are neither done nor failed."""
        self.sweep.refresh()
        return [key for key in self.sweep.missing if key not in self.lost]

    def _free(self, left: Sequence[str]) -> list[int]:
        """Indices of the groups with a run that no process is executing."""
        free = {key for key in left if holder_of(self.sweep.runs[key].folder) is None}
        groups = enumerate(self.sweep.groups)
        return [index for index, group in groups if free & {run.key for run in group}]

    def _launch(
        self, launch: Callable[[Sequence[int]], object], groups: list[int], left: list[str]
    ) -> bool:
        """Whether any run finished or failed; raises if the launcher could not start."""
        try:
            with self._watched():
                launch(groups)
        except Exception as error:
            reason = hydra_reason(error)
            changed = len(self._open()) < len(left)
            begun = any((self.sweep.runs[key].folder / CLAIM).exists() for key in left)
            if not (changed or begun):
                raise UserError(reason) from error
            print(f"the launcher broke and is started again: {reason}", file=sys.stderr)
            return changed
        return len(self._open()) < len(left)

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """While a launcher works, report what its processes have done."""
        if not self.launched:
            yield
            return
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(POLL):
                self._report_new()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._report_new()

    def _report_new(self) -> None:
        """Report the runs whose records have appeared, and the progress."""
        self.sweep.refresh()
        found = {**self.sweep.done, **self.sweep.failed_now}
        new = {key: record for key, record in found.items() if key not in self.reported}
        for key, record in new.items():
            self.reported.add(key)
            if record.status == "ok":
                announce(record, self.sweep.runs[key].folder, skipped=False)
            else:
                print(f"error: {key} failed: {record.error}", file=sys.stderr)
        if new:
            print(f"[{self.sweep.progress()}]", file=sys.stderr)

    def report_done(self) -> None:
        """Print the runs that were already done."""
        for key, record in self.sweep.done.items():
            announce(record, self.sweep.folders[key], skipped=True)

    def _do(self, planned: Sequence[Planned]) -> list[Outcome]:
        stop, started = StopSignals(), time.monotonic()
        try:
            group = [self._prepared(run) for run in planned]
            with stop:
                outcomes = execute(group, stop, self.sweep.place(group))
        except Exception as error:  # a failure could not be recorded
            if self.sent:
                raise
            self.lost |= {run.key: one_line(error) for run in planned}
            print(f"error: {_message(error, planned[0])}", file=sys.stderr)
            return []
        except Stopped:
            if self.sent:
                _requeue(stop)
            raise
        if not self.sent:
            self._report(outcomes, time.monotonic() - started)
        if stop.received is not None and not self.sent:  # while the group was finishing
            raise Stopped(f"{stop.received} between two groups")
        return outcomes

    def _prepared(self, planned: Planned) -> Run:
        """The run with its data.

        Raises:
            UserError: the data changed after the sweep was planned, so it is another run.
        """
        run = prepare(planned.spec, self.cache, planned.command)
        if run.key != planned.key:
            reason = "the data, the model or the adapter to start from changed since the start"
            raise UserError(f"{planned.key}: would be {run.key} now, because {reason}")
        return run

    def _report(self, outcomes: Sequence[Outcome], seconds: float) -> None:
        """Print how the runs of a group went, except those of other processes."""
        new = [o for o in outcomes if o.trained or (o.error and not isinstance(o.error, Claimed))]
        self.reported |= {outcome.run.key for outcome in new}
        for outcome in new:
            if outcome.error is None:
                announce(outcome.record, outcome.folder, skipped=False)
            else:
                print(f"error: {_message(outcome.error, outcome.run)}", file=sys.stderr)
        if self.multirun and new:
            self.sweep.refresh()
            self.sweep.add_time(seconds, [outcome.run.key for outcome in new])
            print(f"[{self.sweep.progress()}]", file=sys.stderr)

    def end(self) -> None:
        """Exit with an error and the reason for each failure, unless every run was done."""
        self.sweep.refresh()
        bad = [key for key in self.sweep.runs if key not in self.sweep.done]
        if bad and len(self.sweep.runs) > 1:
            reasons = [f"  {key}: {self._reason(key)}" for key in bad]
            count = f"{len(bad)} of {counted(len(self.sweep.runs), 'run')}"
            sys.exit("\n".join([f"error: {count} failed:", *reasons]))
        if bad:
            sys.exit(1)

    def _reason(self, key: str) -> str:
        record = self.sweep.failed.get(key)
        if record is not None:
            return record.error or ""
        reason = f" ({self.lost[key]})" if key in self.lost else ""
        return f"left no record{reason}"


def check_folders(specs: Collection[Spec]) -> None:
    """Refuse a folder in the settings that is not writable, before any run.

    Raises:
        UserError: names the setting and the folder.
    """
    for setting in ("out_dir", "cache_dir"):
        for folder in sorted({getattr(spec, setting) for spec in specs}):
            check_folder(f"{setting}={folder}", Path(folder))


def _requeue(stop: StopSignals) -> None:
    """Exit a launcher's process so that its scheduler requeues the job.

    The launcher's own signal handler comes first: submitit's requeues the job.
    """
    assert stop.received is not None
    number = signal.Signals[stop.received]
    if callable(signal.getsignal(number)):
        signal.raise_signal(number)
    sys.exit(REQUEUE)


def _message(error: Exception, planned: Planned) -> str:
    """One line: a user error as it is, a failure with the path of its traceback, if any."""
    if isinstance(error, UserError):
        return str(error)
    trace = planned.folder / "traceback.txt"
    place = f" (traceback: {trace})" if trace.is_file() else ""
    return f"{planned.key} failed: {type(error).__name__}: {first_line(error)}{place}"


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Inside the block, an early end of the command is one line and the right exit status."""
    try:
        with StopAtOnce():
            yield
    except KeyboardInterrupt:
        sys.exit("interrupted: finished runs are kept; run the same command again for the rest")
    except Stopped as error:
        print(f"stopped by {error}; run the same command again to continue", file=sys.stderr)
        sys.exit(REQUEUE)
