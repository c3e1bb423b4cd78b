"""Command line: Hydra -> Spec -> run. ``python -m lora_bench --help`` shows the options."""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from . import record as records
from .claims import Claimed, holder_of
from .compose import completed, one_line, plan, spec_of, validate, with_presets_of
from .presets import CONF
from .spec import NOT_RECORDED, SpecError, UserError
from .sweep.plan import Sweep, expand
from .training.prepared import DataCache, Planned, prepare
from .training.run import Outcome, announce, execute
from .training.stop import REQUEUE, Stopped, StopSignals

# Flags of Hydra's that would make it do other runs than were checked.
REFUSED_FLAGS = {
    "config_path": "is fixed; --config-dir=folder adds presets",
    "config_name": "is fixed; --config-dir=folder adds presets",
    "package": "is not read",
    "experimental_rerun": "is not read; the same command does what is missing",
}
FULL_ERROR = "HYDRA_FULL_ERROR"  # a variable of Hydra's
ONE_OF = ("run", "multirun", "cfg", "info", "shell_completion")
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
        words = HydraConfig.get().overrides.task
        key = prepare(validate(spec_of(config, words)), self.cache).key
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

    def run(self) -> None:
        """Do every run here, without a launcher."""
        for group in self.sweep.groups:
            self._do(group)
        self.finish()

    def tell_done(self) -> None:
        """Print the runs of a sweep that were done before."""
        for key, record in self.sweep.done.items():
            announce(record, self.sweep.runs[key].folder, skipped=True)

    def _do(self, planned: Sequence[Planned]) -> None:
        try:
            group = [prepare(run.spec, self.cache, run.command) for run in planned]
            started = time.monotonic()
            with StopSignals() as stop:
                outcomes = execute(group, stop, self.sweep.place(group))
        except Exception as error:  # a failure could not be recorded
            self._tell_error(error, planned[0])
            return
        news = [outcome for outcome in outcomes if self._tell(outcome)]
        if self.multirun and news:
            self.sweep.refresh()
            self.sweep.note(time.monotonic() - started, [outcome.planned.key for outcome in news])
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
    args = _arguments()
    if args.help or args.hydra_help or args.cfg or args.info or args.shell_completion:
        _hydra(lambda config: None)
        return
    try:
        words = with_presets_of(args.config_dir, args.overrides)
        overrides = expand(words, sweep=args.multirun)
        cache = DataCache()
        runs = [
            prepare(spec, cache, command_of(words))
            for words, spec in plan(overrides, sweep=args.multirun)
        ]
        if not args.multirun and runs[0].spec.group is not None:
            raise SpecError("group", runs[0].spec.group, "is for a sweep; add -m")
        for name in ("out_dir", "cache_dir"):
            for folder in sorted({getattr(run.spec, name) for run in runs}):
                _check_writable(name, folder)
        sweep = Sweep(runs)
    except UserError as error:
        sys.exit(f"error: {error}")
    session = Session(sweep, cache, multirun=args.multirun)
    flags = ["-m"] if args.multirun else []
    sys.argv = [sys.argv[0], *flags, *session.words(overrides)]  # Hydra reads it
    if args.multirun:
        print(f"sweep: {sweep.progress()}", file=sys.stderr)
        command = command_of(["-m", *overrides])
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


def _arguments() -> argparse.Namespace:
    """The flags and words of the command line; a wrong flag ends it in one line."""
    parser = get_args_parser()
    parser.error = lambda message: sys.exit(  # type: ignore[method-assign, assignment]
        f"error: {message}; flags come before settings (--hydra-help lists them)"
    )
    args = parser.parse_args()
    for flag, reason in REFUSED_FLAGS.items():
        if getattr(args, flag) is not None:
            sys.exit(f"error: --{flag.replace('_', '-')}: {reason}")
    chosen = [flag for flag in ONE_OF if getattr(args, flag)]
    if len(chosen) > 1:
        sys.exit(f"error: --{' and --'.join(chosen)}: choose one of them")
    if args.resolve and not (args.cfg or args.help):
        sys.exit("error: --resolve: goes with --cfg or --help")
    return args


def _hydra(job: Callable[[DictConfig], None]) -> None:
    """Let Hydra do its part; what it cannot do ends in one line."""
    traceback_wanted = FULL_ERROR in os.environ
    os.environ.setdefault(FULL_ERROR, "1")  # raise, instead of printing several lines and exiting
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(job)()
    except Exception as error:
        if traceback_wanted:
            raise
        sys.exit(f"error: {one_line(error) or type(error).__name__}")
    finally:
        if not traceback_wanted:
            del os.environ[FULL_ERROR]


def _check_writable(setting: str, folder: str) -> None:
    """Refuse a folder that no file can be written to, before anything is trained.

    Raises:
        SpecError: names the setting and the folder.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:
        raise SpecError(setting, folder, f"cannot be written to ({error})") from None


def command_of(words: Sequence[str], program: str = "lora_bench") -> str:
    """A command line without folders of this machine, and without who launches its runs."""
    launching = ("hydra/", "hydra.")
    portable = [
        word
        for word in words
        if word.split("=")[0] not in NOT_RECORDED and not word.lstrip("+").startswith(launching)
    ]
    return " ".join([f"python -m {program}", *portable])


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
