"""Command line: Hydra -> Spec -> run. ``python -m lora_bench --help`` shows the options."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from . import record as records
from .claims import Claimed, holder_of
from .compose import completed, plan, validate
from .presets import CONF
from .spec import NOT_RECORDED, Spec, SpecError, UserError
from .sweep.plan import Sweep, expand
from .training.prepared import DataCache, Planned, prepare
from .training.run import Outcome, announce, execute
from .training.stop import REQUEUE, Stopped, StopSignals

JOB = "job"  # index of a group, as Hydra hands it to a launcher
POLL = 2.0  # seconds between two looks at what other processes do


class Session:
    """The runs of one command, as Hydra's launcher asks for them one by one.

    Args:
        sweep: what the command asks for.
        cache: the data that its runs share.
        multirun: whether to print the progress after each group.
    """

    def __init__(self, sweep: Sweep, cache: DataCache, *, multirun: bool):
        self.sweep, self.cache, self.multirun = sweep, cache, multirun
        self.errors = 0
        self.told: set[str] = set()  # keys of the runs whose outcome was printed
        self.claimed: set[str] = set()  # those that another process was doing

    def job(self, config: DictConfig) -> None:
        """Do a group: that of ``job``, or of the run that a sweeper of Hydra's has chosen.

        A failure is in the run's record; a sweep goes on.
        """
        if JOB in config:
            self._do(self.sweep.groups[config[JOB]])
            return
        key = prepare(validate(Spec.from_config(config)), self.cache).key
        if key not in self.told | self.claimed:
            self._do(self.sweep.group_of(key))

    def words(self, overrides: Sequence[str]) -> list[str]:
        """What Hydra is asked for: one job for each group, however many runs it has.

        Args:
            overrides: of the command line; a sweeper that is named there chooses the runs itself.
        """
        chosen = any(word.lstrip("+").startswith("hydra/sweeper=") for word in overrides)
        if not self.multirun or chosen:
            return completed(list(overrides))
        kept = ("hydra/", "hydra.", "out_dir=")
        words = [word for word in overrides if word.lstrip("+").startswith(kept)]
        return [*words, f"+{JOB}=" + ",".join(map(str, range(len(self.sweep.groups))))]

    def tell_done(self) -> None:
        """Print the runs of a sweep that were done before."""
        for key, record in self.sweep.done.items():
            announce(record, self.sweep.runs[key].folder, skipped=True)

    def _do(self, planned: Sequence[Planned]) -> None:
        try:
            group = [prepare(run.spec, self.cache, run.command) for run in planned]
            with StopSignals() as stop:
                outcomes = execute(group, stop)
        except Exception as error:  # a failure could not be recorded
            self._tell_error(error, planned[0])
            return
        news = [outcome for outcome in outcomes if self._tell(outcome)]
        if self.multirun and news:
            self.sweep.refresh()
            print(f"[{self.sweep.progress()}]", file=sys.stderr)
        if stop.received is not None:  # while the group was being finished
            raise Stopped(f"{stop.received} between two groups")

    def _tell(self, outcome: Outcome) -> bool:
        """Print how a run went; returns whether it was done, or failed, just now."""
        key = outcome.planned.key
        if isinstance(outcome.error, Claimed):
            self.claimed.add(key)
            return False
        self.told.add(key)
        if outcome.error is not None:
            self._tell_error(outcome.error, outcome.planned)
        elif outcome.trained or key in self.sweep.done:  # else another process has told it
            announce(outcome.record, outcome.folder, skipped=not outcome.trained)
        return outcome.trained or outcome.error is not None

    def _tell_error(self, error: Exception, planned: Planned) -> None:
        self.errors += 1
        print(f"error: {_told(error, planned)}", file=sys.stderr)

    def finish(self) -> None:
        """Wait for the runs that other processes are doing, and do those that they leave undone."""
        named = ""
        self.sweep.refresh()
        while left := [key for key in self.sweep.missing if key in self.claimed]:
            holders = {key: holder_of(self.sweep.runs[key].folder) for key in left}
            free = [key for key, holder in holders.items() if holder is None]
            if free:
                self.claimed -= set(free)
                group = {run.key: run for run in self.sweep.group_of(free[0])}
                self._do([group[key] for key in free if key in group])
            else:
                found = ", ".join(sorted({str(holder) for holder in holders.values()}))
                if found != named:
                    print(f"waiting for {len(left)} runs of {found}", file=sys.stderr)
                named = found
                time.sleep(POLL)
            self.sweep.refresh()


def main() -> None:
    """Check the whole command, then do its runs; exit with an error if any of them failed."""
    args = get_args_parser().parse_args()
    if args.help or args.hydra_help or args.cfg or args.info or args.shell_completion:
        _hydra(lambda config: None)
        return
    try:
        overrides = expand(args.overrides, sweep=args.multirun)
        cache = DataCache()
        runs = [
            prepare(spec, cache, _command(words))
            for words, spec in plan(overrides, sweep=args.multirun)
        ]
        if not args.multirun and runs[0].spec.group is not None:
            raise SpecError("group", runs[0].spec.group, "is for a sweep; add -m")
        sweep = Sweep(runs)
    except UserError as error:
        sys.exit(f"error: {error}")
    session = Session(sweep, cache, multirun=args.multirun)
    flags = [word for word in sys.argv[1:] if word not in args.overrides]
    sys.argv = [sys.argv[0], *flags, *session.words(overrides)]  # Hydra reads it
    if args.multirun:
        print(f"sweep: {sweep.progress()}", file=sys.stderr)
        command = _command(["-m", *overrides])
        records.write_plan(Path(runs[0].spec.out_dir), command, list(sweep.runs))
        session.tell_done()
    try:
        if sweep.groups or not args.multirun:
            _hydra(session.job)
        session.finish()
    except KeyboardInterrupt:
        sys.exit("interrupted: finished runs are kept, the same command does what is missing")
    except Stopped as error:
        print(f"stopped by {error}: the same command goes on from there", file=sys.stderr)
        sys.exit(REQUEUE)
    _end(session)


def _told(error: Exception, planned: Planned) -> str:
    """One line: a user's mistake by itself, a failure with the place of its traceback."""
    if isinstance(error, UserError):
        return str(error)
    reason = f"{type(error).__name__}: {error}"
    return f"{planned.key} failed: {reason} (traceback: {planned.folder / 'traceback.txt'})"


def _hydra(job) -> None:  # type: ignore[no-untyped-def]
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()


def _command(words: Sequence[str]) -> str:
    """A command line without folders of this machine, and without who launches its runs."""
    launching = ("hydra/", "hydra.")
    portable = [
        word
        for word in words
        if word.split("=")[0] not in NOT_RECORDED and not word.lstrip("+").startswith(launching)
    ]
    return " ".join(["python -m lora_bench", *portable])


def _end(session: Session) -> None:
    """Exit with an error, and the reason of each failure, unless every run has a good record."""
    sweep = session.sweep
    sweep.refresh()
    bad = [key for key in sweep.runs if key not in sweep.done]
    if bad and len(sweep.runs) > 1:
        reasons = [f"  {key}: {_reason(sweep, key)}" for key in bad]
        sys.exit("\n".join([f"error: {len(bad)} of {len(sweep.runs)} runs failed:", *reasons]))
    if bad or session.errors:
        sys.exit(1)


def _reason(sweep: Sweep, key: str) -> str:
    record = sweep.failed.get(key)
    return record.error or "" if record else "left no record"


if __name__ == "__main__":
    main()
